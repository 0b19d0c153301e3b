//! References in the `values.yaml` of a chart and of those in its `charts/`, which helm reads itself.
//!
//! What they resolve to is given to helm as values documents before all others. They hold nothing but the values that
//! had references, and around each only the maps that lead to it, so that every other default stays what helm makes
//! of it. A list is replaced whole by helm, so one that holds references is said whole. Where a reference resolves to
//! a map and a chart above has a map at the same place, that one is said again, so that it still wins.

use std::collections::{BTreeMap, HashMap};

use crate::document::edit::quote_into;
use crate::document::value::Value;
use crate::document::{Kind, MAX_DEPTH, MAX_SIZE, Node, Stream, Style};
use crate::fault::{Class, Fault};
use crate::refs::scan::{Found, Step};
use crate::secret::Secret;

/// What stands at a key of the overlay.
enum Overlay<'a> {
    Map(BTreeMap<&'a str, Overlay<'a>>),
    Value(&'a Node),
}

/// The document that puts one of `values` in the place of each of `found` in the default values `stream`, which helm
/// merges `below` these keys, and says again what stands at the paths `again`.
///
/// `None` where there is nothing to put in. A reference as a key has no place of its own; it is left to the check of
/// helm's output.
pub fn overlay(
    stream: &Stream,
    below: &[String],
    found: &[Found<'_>],
    values: &[Value],
    again: &[&[Step]],
) -> Result<Option<Secret<String>>, OverlayError> {
    let Some(root) = stream.documents.first() else { return Ok(None) };
    let mut map = BTreeMap::new();
    let mut replaced = HashMap::new();
    for (found, value) in
        found.iter().zip(values).filter(|(found, _)| found.document == 0 && !found.is_merge())
    {
        replaced.insert(found.span().start, value);
        place(&mut map, root, &found.path);
    }
    for path in again {
        place(&mut map, root, path);
    }
    if map.is_empty() {
        return Ok(None);
    }
    for key in below.iter().rev() {
        map = BTreeMap::from([(key.as_str(), Overlay::Map(map))]);
    }
    let mut writer = Writer { replaced, anchors: stream.anchors(), text: Secret::default() };
    writer.map(&map)?;
    Ok(Some(writer.text))
}

/// A list that holds references repeats itself through aliases beyond any use.
#[derive(Debug, thiserror::Error)]
#[error("a list that holds references is too large once its aliases are expanded")]
pub struct OverlayError;

impl Fault for OverlayError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

/// Notes the scalar at `path`, or the outermost list on the way to it.
fn place<'a>(map: &mut BTreeMap<&'a str, Overlay<'a>>, node: &'a Node, path: &[Step]) {
    let [Step::Key(key), rest @ ..] = path else { return };
    let Some((name, value)) = node.entries().iter().rev().find(|(name, _)| name.text() == Some(key)) else {
        return;
    };
    let Some(name) = name.text() else { return };
    if matches!(rest, [Step::Key(_), ..]) {
        let inner = map.entry(name).or_insert_with(|| Overlay::Map(BTreeMap::new()));
        if let Overlay::Map(inner) = inner {
            place(inner, value, rest);
        }
    } else {
        map.insert(name, Overlay::Value(value));
    }
}

struct Writer<'a> {
    /// Values by where the scalar begins that they replace.
    replaced: HashMap<usize, &'a Value>,
    anchors: HashMap<usize, &'a Node>,
    text: Secret<String>,
}

impl Writer<'_> {
    fn map(&mut self, map: &BTreeMap<&str, Overlay<'_>>) -> Result<(), OverlayError> {
        self.push("{");
        for (key, value) in map {
            quote_into(&mut self.text, key);
            self.push(": ");
            match value {
                Overlay::Map(map) => self.map(map)?,
                Overlay::Value(node) => self.node(node, 0)?,
            }
            self.push(",");
        }
        self.push("}");
        Ok(())
    }

    /// `node` on one line. A plain scalar that is one word keeps its spelling, and with it its type.
    fn node(&mut self, node: &Node, depth: usize) -> Result<(), OverlayError> {
        if depth > MAX_DEPTH || self.text.expose().len() > MAX_SIZE {
            return Err(OverlayError);
        }
        if let Some(value) = self.replaced.get(&node.span.start) {
            let flow = value.to_flow();
            self.push(flow.expose());
            return Ok(());
        }
        match &node.kind {
            Kind::Scalar { value, style: Style::Plain } if value.expose().is_empty() => self.push("null"),
            Kind::Scalar { value, style: Style::Plain } if is_word(value.expose()) => {
                self.push(value.expose());
            }
            Kind::Scalar { value, .. } => quote_into(&mut self.text, value.expose()),
            Kind::Alias(anchor) => match self.anchors.get(anchor) {
                Some(node) => self.node(node, depth + 1)?,
                None => self.push("null"),
            },
            Kind::Sequence(items) => {
                self.push("[");
                for item in items {
                    self.node(item, depth + 1)?;
                    self.push(",");
                }
                self.push("]");
            }
            Kind::Mapping(entries) => {
                self.push("{");
                for (key, value) in entries {
                    self.node(key, depth + 1)?;
                    self.push(": ");
                    self.node(value, depth + 1)?;
                    self.push(",");
                }
                self.push("}");
            }
        }
        Ok(())
    }

    fn push(&mut self, text: &str) {
        self.text.expose_mut().push_str(text);
    }
}

/// What can stand in a flow collection without quotes: `no`, `0123`, `1_000`, `~` and `<<` too.
fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.+-/~<".contains(c);
    !text.starts_with('-') && text.chars().all(plain) || text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Format, parse};
    use crate::refs::scan::scan;

    fn overlay_of(text: &str) -> Result<Option<String>, OverlayError> {
        let stream = parse(text, Format::Yaml).unwrap();
        let found = scan(&stream);
        let values: Vec<_> =
            (0..found.len()).map(|index| Value::String(format!("value {index}").into())).collect();
        Ok(overlay(&stream, &[], &found, &values, &[])?.map(|text| text.expose().clone()))
    }

    #[test]
    fn only_what_had_references_is_said() {
        let cases = [
            ("a: 1\nb: {c: x}\n", None),
            ("", None),
            ("a: ref+echo://x\nb: 1\nc:\n", Some(r#"{"a": "value 0",}"#)),
            (
                "a:\n  b:\n    c: ref+echo://x\n    d: no\n  e: 1\n",
                Some(r#"{"a": {"b": {"c": "value 0",},},}"#),
            ),
            (
                "a:\n  - name: one\n    on: no\n    n: 0123\n    t: 'x: y'\n    z:\n  - ref+echo://x\n  -\n",
                Some(r#"{"a": [{name: one,on: no,n: 0123,t: "x: y",z: null,},"value 0",null,],}"#),
            ),
            ("x: &x [1]\na: [*x, ref+echo://x]\n", Some(r#"{"a": [[1,],"value 0",],}"#)),
        ];
        for (text, expected) in cases {
            let overlay = overlay_of(text).unwrap();
            assert_eq!(overlay.as_deref(), expected, "{text}");
            if let Some(overlay) = overlay {
                parse(&overlay, Format::Yaml).unwrap();
            }
        }
    }

    #[test]
    fn a_subchart_is_said_below_its_keys_and_what_wins_again() {
        let stream = parse("a: {b: {x: 1}, c: ref+echo://x}\nd: 2\n", Format::Yaml).unwrap();
        let (found, again) = (scan(&stream), [Step::Key("a".to_owned()), Step::Key("b".to_owned())]);
        let below = ["s".to_owned(), "t u".to_owned()];
        let overlay = overlay(&stream, &below, &found, &[Value::from("v")], &[&again]).unwrap().unwrap();
        assert_eq!(overlay.expose(), r#"{"s": {"t u": {"a": {"b": {x: 1,},"c": "v",},},},}"#);
    }

    #[test]
    fn lists_that_multiply_are_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.extend([format!("a{level}: &a{level} [{inner}]\n")]);
        }
        bomb.push_str("b: [*a8, ref+echo://x]\n");
        assert!(overlay_of(&bomb).is_err());
        assert!(overlay_of("b: &b [*b, ref+echo://x]\n").is_err());
    }
}
