//! Whether a later values document replaces what an earlier one holds at a path, by helm's merge.
//!
//! Helm merges mappings key by key and replaces everything else, lists whole; a null removes. What is replaced need
//! not be resolved. Where the document leaves it open (aliases, merge keys), the answer is no, and the reference is
//! fetched.

use crate::chart::subcharts::At;
use crate::document::{Kind, Node, Stream, Style};

/// What stands at the path before the later document is merged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
    /// A scalar or a list: any later value replaces it.
    Plain,
    /// Perhaps a mapping, which a later mapping is merged into.
    MaybeMapping,
}

/// What one document says about the value at a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Said {
    /// Nothing: an earlier document may.
    Nothing,
    /// This is it.
    Here(At),
}

/// What `stream` says about the value at `path`, a path of mapping keys from the root.
pub fn said(stream: &Stream, path: &[&str]) -> Said {
    let Some(mut node) = stream.documents.first() else { return Said::Nothing };
    for (depth, key) in path.iter().enumerate() {
        match &node.kind {
            Kind::Mapping(entries) => match value_of(entries, key) {
                Some(value) => node = value,
                None if has_key(entries, key) || has_key(entries, "<<") => return Said::Here(At::Unclear),
                None => return Said::Nothing,
            },
            Kind::Alias(_) => return Said::Here(At::Unclear),
            Kind::Scalar { .. } | Kind::Sequence(_) if depth == 0 => return Said::Nothing,
            Kind::Scalar { .. } | Kind::Sequence(_) => return Said::Here(At::Other),
        }
    }
    Said::Here(match &node.kind {
        Kind::Scalar { value, style: Style::Plain } => boolean(value.expose()),
        Kind::Scalar { value, .. } if value.expose().contains("ref+") => At::Unclear,
        Kind::Alias(_) => At::Unclear,
        _ => At::Other,
    })
}

/// As helm reads plain scalars.
fn boolean(text: &str) -> At {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => At::Bool(true),
        "false" | "no" | "off" => At::Bool(false),
        "y" | "n" => At::Unclear,
        _ if text.contains("ref+") => At::Unclear,
        _ => At::Other,
    }
}

fn has_key(entries: &[(Node, Node)], key: &str) -> bool {
    entries.iter().any(|(name, _)| name.text() == Some(key))
}

/// Whether `later` replaces what is `held` at `path`, a path of mapping keys from the root.
pub fn replaces(later: &Stream, path: &[&str], held: Held) -> bool {
    let Some(mut node) = later.documents.first() else { return false };
    if !matches!(node.kind, Kind::Mapping(_)) {
        return false;
    }
    for key in path {
        match &node.kind {
            Kind::Mapping(entries) => {
                let Some(value) = value_of(entries, key) else { return false };
                node = value;
            }
            Kind::Alias(_) => return false,
            Kind::Scalar { .. } | Kind::Sequence(_) => return true,
        }
    }
    match node.kind {
        Kind::Mapping(_) => held == Held::Plain,
        Kind::Alias(_) => false,
        Kind::Scalar { .. } | Kind::Sequence(_) => true,
    }
}

/// The value at `key`, unless another entry of the mapping leaves open what it is.
fn value_of<'a>(entries: &'a [(Node, Node)], key: &str) -> Option<&'a Node> {
    let mut found = entries.iter().filter(|(name, _)| name.text() == Some(key));
    let (_, value) = found.next()?;
    found.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Format, parse};

    #[test]
    fn a_document_says_whether_something_is_on() {
        for (text, path, expected) in [
            ("a: {on: true}", "a.on", Said::Here(At::Bool(true))),
            ("a: {on: off}", "a.on", Said::Here(At::Bool(false))),
            ("a: {on: 'false'}", "a.on", Said::Here(At::Other)),
            ("a: {on: ref+echo://x}", "a.on", Said::Here(At::Unclear)),
            ("a: {on: 'ref+echo://x'}", "a.on", Said::Here(At::Unclear)),
            ("a: {on:}", "a.on", Said::Here(At::Other)),
            ("a: {on: {}}", "a.on", Said::Here(At::Other)),
            ("a: 1", "a.on", Said::Here(At::Other)),
            ("a: {}", "a.on", Said::Nothing),
            ("b: 1", "a.on", Said::Nothing),
            ("", "a.on", Said::Nothing),
            ("x: &x {on: true}\na: {<<: *x}", "a.on", Said::Here(At::Unclear)),
            ("x: &x {on: true}\na: *x", "a.on", Said::Here(At::Unclear)),
        ] {
            let stream = parse(text, Format::Yaml).unwrap();
            assert_eq!(said(&stream, &path.split('.').collect::<Vec<_>>()), expected, "{text}");
        }
    }

    #[test]
    fn a_later_document_replaces_as_helm_merges() {
        let cases = [
            // later, path, held, replaced
            ("a: 1", "a", Held::Plain, true),
            ("a:", "a", Held::Plain, true),
            ("a: {b: 1}", "a", Held::Plain, true),
            ("a: {b: 1}", "a", Held::MaybeMapping, false),
            ("a: 1", "a", Held::MaybeMapping, true),
            ("a: [1]", "a", Held::MaybeMapping, true),
            ("a: 1", "a.b.c", Held::Plain, true),
            ("a: []", "a.b", Held::Plain, true),
            ("a: {c: 1}", "a.b", Held::Plain, false),
            ("a: {}", "a.b", Held::Plain, false),
            ("b: 1", "a", Held::Plain, false),
            ("", "a", Held::Plain, false),
            ("null", "a", Held::Plain, false),
            ("x: &x {b: 1}\na: *x", "a.b", Held::Plain, false),
            ("x: &x {b: 1}\na: {<<: *x}", "a.b", Held::Plain, false),
            ("a: 1\na: {}", "a", Held::Plain, false),
        ];
        for (later, path, held, replaced) in cases {
            let stream = parse(later, Format::Yaml).unwrap();
            let path: Vec<&str> = path.split('.').collect();
            assert_eq!(replaces(&stream, &path, held), replaced, "{later:?} {path:?} {held:?}");
        }
    }
}
