//! Whether a later values document replaces what an earlier one holds at a path, by helm's merge.
//!
//! Helm merges mappings key by key and replaces everything else, lists whole; a null removes. What is replaced need
//! not be resolved. Where the document leaves it open (aliases, merge keys), the answer is no, and the reference is
//! fetched.

use crate::document::{Kind, Node, Stream};

/// What stands at the path before the later document is merged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
    /// A scalar or a list: any later value replaces it.
    Plain,
    /// Perhaps a mapping, which a later mapping is merged into.
    MaybeMapping,
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
