//! One value of a file that was opened, as `sops decrypt --extract` prints it: text as it is, a mapping as a document.

use std::collections::HashMap;

use super::cipher::Opened;
use super::file::{FileFormat, OpenedFile};
use super::open::ValueError;
use super::path::{Step, TreePath};
use super::walk::{plaintext, written};
use crate::document::edit::push;
use crate::document::scalar::{self, Scalar};
use crate::document::value::{self, Value};
use crate::document::{Format, Kind, Node, ParseError, parse, text_of};
use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// What stands at `path` in `opened`, in the first document of a stream.
pub fn extract(
    opened: &OpenedFile,
    format: FileFormat,
    path: &TreePath,
) -> Result<Secret<Vec<u8>>, ExtractError> {
    if path.steps().is_empty() {
        return Ok(opened.content.clone());
    }
    match (format, &opened.data) {
        (FileFormat::Document(format), _) => of_document(text_of(opened.content.expose())?, format, path),
        (FileFormat::Flat(_), Some(data)) => of_data(data, path),
        (FileFormat::Flat(_) | FileFormat::Binary, _) => match path.steps() {
            [Step::Key(key)] if key == "data" => Ok(opened.content.clone()),
            _ => Err(ExtractError::missing(path, 0)),
        },
    }
}

fn of_data(data: &Value, path: &TreePath) -> Result<Secret<Vec<u8>>, ExtractError> {
    let mut value = data;
    for (depth, step) in path.steps().iter().enumerate() {
        value = match (value, step) {
            (Value::Mapping(entries), Step::Key(key)) => entries.iter().find(|(name, _)| name == key),
            _ => None,
        }
        .map(|(_, value)| value)
        .ok_or_else(|| ExtractError::missing(path, depth))?;
    }
    match value {
        Value::String(text) => Ok(bytes_of(text)),
        _ => Err(ExtractError::Section { path: path.to_string() }),
    }
}

fn of_document(text: &str, format: Format, path: &TreePath) -> Result<Secret<Vec<u8>>, ExtractError> {
    let stream = parse(text, format)?;
    let anchors = stream.anchors();
    let Some(root) = stream.documents.first() else { return Err(ExtractError::missing(path, 0)) };
    let mut node = root;
    for (depth, step) in path.steps().iter().enumerate() {
        node = child(node, step, &anchors).ok_or_else(|| ExtractError::missing(path, depth))?;
    }
    let node = target(node, &anchors);
    let Some(value) = node.text() else { return collection(text, format, node, &anchors) };
    let kind = scalar::of(node).unwrap_or(Scalar::Str);
    let mut printed = match (&kind, plaintext(&kind, value, format).map_err(ExtractError::Value)?) {
        (Scalar::Null, _) => "null".to_owned(),
        (_, Opened::Text(text)) => return Ok(text),
        (_, other) => written(&other, format).map_err(ExtractError::Value)?,
    };
    // sops ends a value with a line break in YAML only.
    if format == Format::Yaml {
        printed.push('\n');
    }
    Ok(Secret::new(printed.into_bytes()))
}

fn target<'n>(node: &'n Node, anchors: &HashMap<usize, &'n Node>) -> &'n Node {
    match &node.kind {
        Kind::Alias(id) => anchors.get(id).copied().unwrap_or(node),
        _ => node,
    }
}

fn child<'n>(node: &'n Node, step: &Step, anchors: &HashMap<usize, &'n Node>) -> Option<&'n Node> {
    match (&target(node, anchors).kind, step) {
        (Kind::Mapping(entries), Step::Key(key)) => {
            let named = |name: &Node| target(name, anchors).text() == Some(key);
            entries.iter().find(|(name, _)| named(name)).map(|(_, value)| value)
        }
        (Kind::Sequence(items), Step::Index(index)) => items.get(*index),
        _ => None,
    }
}

/// A mapping or list as it is written, moved to the margin; printed anew where it is nothing by itself.
fn collection(
    text: &str,
    format: Format,
    node: &Node,
    anchors: &HashMap<usize, &Node>,
) -> Result<Secret<Vec<u8>>, ExtractError> {
    let value = Value::of(node, anchors)?;
    let mut cut = moved(text, node);
    let same = parse(cut.expose(), format).is_ok_and(|stream| {
        let anchors = stream.anchors();
        stream.documents.first().is_some_and(|root| Value::of(root, &anchors).is_ok_and(|cut| cut == value))
    });
    if !same {
        cut = value.to_flow();
    }
    // sops does so.
    if format == Format::Yaml || matches!(node.kind, Kind::Mapping(_)) {
        push(&mut cut, "\n");
    }
    Ok(bytes_of(&cut))
}

fn moved(text: &str, node: &Node) -> Secret<String> {
    let line = |at: usize| text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let mut start = node.span.start;
    let own_line = line(start);
    let flow = text[start..].starts_with(['{', '[']);
    let lines = !flow && text[own_line..start].trim().is_empty();
    let margin = if flow {
        text[own_line..].len() - text[own_line..].trim_start_matches([' ', '\t']).len()
    } else {
        start - own_line
    };
    // Comments before the first entry are about it.
    while lines && start > 0 {
        let before = line(line(start).saturating_sub(1));
        let comment = text[before..line(start)].trim();
        if line(start) == 0 || !(comment.is_empty() || comment.starts_with('#')) {
            break;
        }
        start = before;
    }
    let start = if lines { line(start) } else { start };
    let mut moved = Secret::new(String::with_capacity(node.span.end - start + 1));
    for (nth, part) in text[start..node.span.end].split_inclusive('\n').enumerate() {
        let indented = part.bytes().take(margin).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        push(&mut moved, if nth == 0 && !lines { part } else { &part[indented..] });
    }
    moved
}

fn bytes_of(text: &Secret<String>) -> Secret<Vec<u8>> {
    Secret::new(text.expose().as_bytes().to_vec())
}

/// There is no such value. Names keys, never a value.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The way ends before.
    #[error("there is no `{step}`{below}")]
    Missing {
        /// What is not there.
        step: String,
        /// Where it is not.
        below: String,
    },
    /// All of a section of INI.
    #[error("`{path}` is a section\nhelp: name one of its keys")]
    Section {
        /// The whole way.
        path: String,
    },
    /// A value that has no text.
    #[error("{0}")]
    Value(ValueError),
    /// The opened text does not read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Aliases in aliases, or a key that is none.
    #[error(transparent)]
    Data(#[from] value::ValueError),
}

impl ExtractError {
    fn missing(path: &TreePath, depth: usize) -> Self {
        let below = if depth == 0 { String::new() } else { format!(" in `{}`", path.up_to(depth)) };
        Self::Missing { step: path.steps()[depth].to_string(), below }
    }
}

impl Fault for ExtractError {
    fn class(&self) -> Class {
        match self {
            Self::Missing { .. } => Class::NotFound,
            _ => Class::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sops::flat::Flat;

    fn extracted(text: &str, format: FileFormat, path: &str) -> Result<String, String> {
        let content = Secret::new(text.as_bytes().to_vec());
        let opened = OpenedFile { content, data: None, leaves: Vec::new() };
        let extracted = extract(&opened, format, &TreePath::parse(path).unwrap());
        extracted
            .map(|bytes| String::from_utf8(bytes.expose().clone()).unwrap())
            .map_err(|error| error.to_string())
    }

    const YAML: &str = "\
a: \"x\\ny\"
b:
    # of c
    c: 0755 # behind
    d:
        - e: 1
          f: 2020-01-02
        - [1, 2]

    g: { h: 1.50,
       i: ~ }
k: &k {l: m}
n:
- *k
- !!binary eHk=
---
a: other
";

    #[test]
    fn a_value_is_printed_raw_and_a_collection_as_it_is_written() {
        for (path, expected) in [
            (r#"["a"]"#, "x\ny"),
            (r#"["b"]["c"]"#, "493\n"),
            (r#"["b"]["d"][0]"#, "e: 1\nf: 2020-01-02\n"),
            (r#"["b"]["d"][0]["f"]"#, "2020-01-02T00:00:00Z\n"),
            (r#"["b"]["d"]"#, "- e: 1\n  f: 2020-01-02\n- [1, 2]\n"),
            (r#"["b"]["d"][1]"#, "[1, 2]\n"),
            (r#"["b"]["g"]"#, "{ h: 1.50,\n   i: ~ }\n"),
            (r#"["b"]["g"]["h"]"#, "1.5\n"),
            (r#"["b"]["g"]["i"]"#, "null\n"),
            (r#"["n"]"#, "[{\"l\": \"m\"}, \"eHk=\"]\n"),
            (r#"["n"][0]["l"]"#, "m"),
            (r#"["n"][1]"#, "xy"),
            (
                r#"["b"]"#,
                "# of c\nc: 0755 # behind\nd:\n    - e: 1\n      f: 2020-01-02\n    - [1, 2]\n\ng: { h: 1.50,\n   i: ~ }\n",
            ),
        ] {
            assert_eq!(
                extracted(YAML, FileFormat::Document(Format::Yaml), path).as_deref(),
                Ok(expected),
                "{path}"
            );
        }
        let json = "{\n\t\"a\": {\n\t\t\"b\": [\n\t\t\t1\n\t\t]\n\t},\n\t\"c\": true\n}\n";
        for (path, expected) in [
            (r#"["a"]"#, "{\n\t\"b\": [\n\t\t1\n\t]\n}\n"),
            (r#"["a"]["b"]"#, "[\n\t1\n]"),
            (r#"["c"]"#, "true"),
        ] {
            assert_eq!(extracted(json, FileFormat::Document(Format::Json), path).as_deref(), Ok(expected));
        }
        assert_eq!(extracted("any", FileFormat::Binary, r#"["data"]"#).as_deref(), Ok("any"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (path, message) in [
            (r#"["z"]"#, r#"there is no `["z"]`"#),
            (r#"["b"]["d"][2]"#, r#"there is no `[2]` in `["b"]["d"]`"#),
            (r#"["b"]["d"]["e"]"#, r#"there is no `["e"]` in `["b"]["d"]`"#),
            (r#"["b"]["c"][0]"#, r#"there is no `[0]` in `["b"]["c"]`"#),
        ] {
            let error = extracted(YAML, FileFormat::Document(Format::Yaml), path).unwrap_err();
            assert_eq!(error, message);
        }
        let data = Value::Mapping(vec![("s".to_owned(), Value::Mapping(Vec::new()))]);
        let opened = OpenedFile { content: Secret::default(), data: Some(data), leaves: Vec::new() };
        let error = extract(&opened, FileFormat::Flat(Flat::Ini), &TreePath::parse("['s']").unwrap());
        assert!(error.unwrap_err().to_string().starts_with("`[\"s\"]` is a section"));
    }
}
