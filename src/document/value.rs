//! An owned tree of data that may be secret: what a secret store answered, or what a value file is given.

use std::collections::HashMap;
use std::fmt;

use super::edit::{push, quote_into};
use super::scalar::{self, Scalar};
use super::{Format, Kind, MAX_DEPTH, MAX_NODES, Node, ParseError, parse};
use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// Data of any shape. Printing it shows the shape only.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number as YAML and JSON write it, in its own digits.
    Number(Secret<String>),
    /// Text.
    String(Secret<String>),
    /// A list.
    Sequence(Vec<Value>),
    /// Keys and values in order.
    Mapping(Vec<(String, Value)>),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Bool(_) => f.write_str("Bool"),
            Self::Number(_) => f.write_str("Number"),
            Self::String(_) => f.write_str("String"),
            Self::Sequence(items) => f.debug_list().entries(items).finish(),
            Self::Mapping(entries) => f.debug_map().entries(entries.iter().map(|(k, v)| (k, v))).finish(),
        }
    }
}

impl Value {
    /// Parses one YAML or JSON document, typed as go-yaml v3 types it for vals: aliases expanded, merge keys
    /// applied, the last of two equal keys kept, numbers in Go's spelling.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let stream = match parse(text, Format::Json) {
            Ok(stream) => stream,
            Err(_) => parse(text, Format::Yaml)?,
        };
        match stream.documents.as_slice() {
            [] => Ok(Self::Null),
            [document] => Self::of(document, &stream.anchors()),
            _ => Err(ValueError::ManyDocuments { number: stream.documents.len() }),
        }
    }

    /// The data of one node, with aliases looked up in `anchors`. The expanded tree is bounded too.
    pub fn of(node: &Node, anchors: &HashMap<usize, &Node>) -> Result<Self, ValueError> {
        Expansion { anchors, nodes: 0 }.value(node, 0)
    }

    /// Walks mappings by key and lists by index.
    pub fn pick(&self, path: &[&str]) -> Result<&Self, PickError> {
        let mut value = self;
        for (depth, step) in path.iter().enumerate() {
            let next = match value {
                Self::Mapping(entries) => {
                    entries.iter().rfind(|(key, _)| key == step).map(|(_, value)| value)
                }
                Self::Sequence(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
                _ => None,
            };
            value = next.ok_or_else(|| PickError {
                step: (*step).to_owned(),
                walked: path[..depth].join("/"),
                kind: value.kind(),
            })?;
        }
        Ok(value)
    }

    /// What kind of data, in words for an error.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a map",
        }
    }

    /// One line that YAML 1.1, YAML 1.2 and JSON read back as this very value, to stand anywhere in a value
    /// file. Only `.nan` and the infinities, where a value has them, are not JSON.
    pub fn to_flow(&self) -> Secret<String> {
        let mut text = Secret::new(String::new());
        self.write(&mut text);
        text
    }

    /// What stands for this value inside a longer string: text as it is, nothing for null, else [`Self::to_flow`].
    pub fn to_text(&self) -> Secret<String> {
        match self {
            Self::Null => Secret::default(),
            Self::String(text) => text.clone(),
            _ => self.to_flow(),
        }
    }

    fn write(&self, text: &mut Secret<String>) {
        match self {
            Self::Null => push(text, "null"),
            Self::Bool(value) => push(text, if *value { "true" } else { "false" }),
            Self::Number(digits) => push(text, digits.expose()),
            Self::String(value) => quote_into(text, value.expose()),
            Self::Sequence(items) => {
                push(text, "[");
                for (index, item) in items.iter().enumerate() {
                    push(text, if index == 0 { "" } else { ", " });
                    item.write(text);
                }
                push(text, "]");
            }
            Self::Mapping(entries) => {
                push(text, "{");
                for (index, (key, value)) in entries.iter().enumerate() {
                    push(text, if index == 0 { "" } else { ", " });
                    quote_into(text, key);
                    push(text, ": ");
                    value.write(text);
                }
                push(text, "}");
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(Secret::new(text.to_owned()))
    }
}

/// Turns nodes into values and counts what aliases multiply.
struct Expansion<'a> {
    anchors: &'a HashMap<usize, &'a Node>,
    nodes: usize,
}

impl Expansion<'_> {
    fn value(&mut self, node: &Node, depth: usize) -> Result<Value, ValueError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(ValueError::Expands);
        }
        match &node.kind {
            Kind::Scalar { value, .. } => scalar_value(node, value.expose()),
            Kind::Alias(id) => self.value(self.anchors.get(id).ok_or(ValueError::Expands)?, depth + 1),
            Kind::Sequence(items) => {
                let items = items.iter().map(|item| self.value(item, depth + 1));
                Ok(Value::Sequence(items.collect::<Result<_, _>>()?))
            }
            Kind::Mapping(entries) => self.mapping(entries, depth),
        }
    }

    fn mapping(&mut self, entries: &[(Node, Node)], depth: usize) -> Result<Value, ValueError> {
        let mut own = Map::default();
        let mut merged = Vec::new();
        for (key, node) in entries {
            let value = self.value(node, depth + 1)?;
            match self.key(key)? {
                key_text if key_text == "<<" && is_merge(key) => merged.push(value),
                key_text => own.put(key_text, value, true),
            }
        }
        for value in merged {
            own.merge(value)?;
        }
        Ok(Value::Mapping(own.entries))
    }

    fn key(&self, key: &Node) -> Result<String, ValueError> {
        let key = match &key.kind {
            Kind::Alias(id) => self.anchors.get(id).ok_or(ValueError::Expands)?,
            _ => key,
        };
        key.text().map(str::to_owned).ok_or(ValueError::CollectionAsKey)
    }
}

fn is_merge(key: &Node) -> bool {
    matches!(key.kind, Kind::Scalar { style: super::Style::Plain, .. })
        && key.tag().is_none_or(|tag| tag.name.ends_with(":merge"))
}

/// A mapping under construction, with an index so that large ones stay linear.
#[derive(Default)]
struct Map {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Map {
    fn put(&mut self, key: String, value: Value, replace: bool) {
        match self.index.get(&key) {
            Some(at) if replace => self.entries[*at].1 = value,
            Some(_) => {}
            None => {
                self.index.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    /// Adds what a merge key names, where it is not there yet.
    fn merge(&mut self, value: Value) -> Result<(), ValueError> {
        match value {
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    self.put(key, value, false);
                }
                Ok(())
            }
            Value::Sequence(items) if items.iter().all(|item| matches!(item, Value::Mapping(_))) => {
                items.into_iter().try_for_each(|item| self.merge(item))
            }
            _ => Err(ValueError::Merge),
        }
    }
}

fn scalar_value(node: &Node, text: &str) -> Result<Value, ValueError> {
    Ok(match scalar::of(node).unwrap_or(Scalar::Str) {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Int(value) => Value::Number(Secret::new(value.to_string())),
        Scalar::Uint(value) => Value::Number(Secret::new(value.to_string())),
        Scalar::Float(value) => Value::Number(Secret::new(scalar::general(value, 21))),
        Scalar::Time(_) | Scalar::Str | Scalar::Binary => Value::String(Secret::new(text.to_owned())),
        Scalar::Mismatch => return Err(ValueError::Mismatch),
    })
}

/// A text is not one document of data.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// Neither YAML nor JSON.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// More than one document.
    #[error("{number} documents where one is expected")]
    ManyDocuments {
        /// How many.
        number: usize,
    },
    /// Aliases in aliases.
    #[error("aliases expand beyond the limit")]
    Expands,
    /// A list or map as a key.
    #[error("a list or map as a key")]
    CollectionAsKey,
    /// `<<` with something that is not a map.
    #[error("a merge key needs a map or a list of maps")]
    Merge,
    /// Such as `!!int x`.
    #[error("a value does not fit its tag")]
    Mismatch,
}

impl Fault for ValueError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

/// A path leads nowhere.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct PickError {
    step: String,
    walked: String,
    kind: &'static str,
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            "a map" => write!(f, "no key {:?}", self.step)?,
            "a list" => write!(f, "no item {:?}", self.step)?,
            kind => write!(f, "no key {:?} in {kind}", self.step)?,
        }
        if !self.walked.is_empty() {
            write!(f, " below {:?}", self.walked)?;
        }
        Ok(())
    }
}

impl Fault for PickError {
    fn class(&self) -> Class {
        Class::NotFound
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(text: &str) -> String {
        Value::parse(text).unwrap().to_flow().expose().clone()
    }

    #[test]
    fn a_document_is_typed_as_go_yaml_types_it() {
        let table = [
            ("", "null"),
            ("# c", "null"),
            (
                "a: 0755\nb: yes\nc: 1_000\nd: 1e3\ne: ~",
                r#"{"a": 493, "b": "yes", "c": 1000, "d": 1000, "e": null}"#,
            ),
            ("{\"a\": 1.50, \"b\": 1e30, \"a\": 2}", r#"{"a": 2, "b": 1e+30}"#),
            (
                "a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2",
                r#"{"a": {"k": 1}, "b": {"k": 1}, "c": {"l": 2, "k": 1}}"#,
            ),
            ("<<: [{a: 1}, {a: 2, b: 3}]\nb: 4", r#"{"b": 4, "a": 1}"#),
            ("1: true\n\"<<\": x", r#"{"1": true, "<<": "x"}"#),
            ("d: 2020-01-02\nf: .inf\ns: |\n  x\n", r#"{"d": "2020-01-02", "f": .inf, "s": "x\n"}"#),
            ("just text", r#""just text""#),
        ];
        for (text, expected) in table {
            assert_eq!(flow(text), expected, "{text:?}");
        }
    }

    #[test]
    fn text_inside_a_longer_string_is_not_quoted() {
        let table = [("", ""), ("x y", "x y"), ("5", "5"), ("true", "true"), ("[a, 1]", r#"["a", 1]"#)];
        for (text, expected) in table {
            assert_eq!(Value::parse(text).unwrap().to_text().expose(), expected);
        }
    }

    #[test]
    fn a_path_is_walked_or_the_missing_step_is_named() {
        let value = Value::parse("a: {b: [x, {c: STRONGROOM-MARKER}]}").unwrap();
        assert_eq!(value.pick(&["a", "b", "1", "c"]).unwrap(), &Value::from("STRONGROOM-MARKER"));
        let table: [(&[&str], &str); 4] = [
            (&["z"], "no key \"z\""),
            (&["a", "z"], "no key \"z\" below \"a\""),
            (&["a", "b", "2"], "no item \"2\" below \"a/b\""),
            (&["a", "b", "1", "c", "d"], "no key \"d\" in a string below \"a/b/1/c\""),
        ];
        for (path, message) in table {
            let error = value.pick(path).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.class()), (message, Class::NotFound));
        }
    }

    #[test]
    fn bad_data_is_refused() {
        let bomb: String = (1..30).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            let before = level - 1;
            format!("{text}a{level}: &a{level} [*a{before}, *a{before}, *a{before}]\n")
        });
        let table = [
            ("a: 1\n---\nb: 2", "2 documents where one is expected"),
            (&bomb, "aliases expand beyond the limit"),
            ("a: &x [*x]", "aliases expand beyond the limit"),
            ("[a]: b", "a list or map as a key"),
            ("<<: 1", "a merge key needs a map or a list of maps"),
            ("a: !!int STRONGROOM-MARKER", "a value does not fit its tag"),
            ("a: [", "line 1, column 4: "),
        ];
        for (text, message) in table {
            let error = Value::parse(text).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
            assert_eq!(error.class(), Class::Invalid);
        }
    }

    #[test]
    fn debug_shows_the_shape_only() {
        let value = Value::parse("a: [STRONGROOM-MARKER, 5]").unwrap();
        assert_eq!(format!("{value:?}"), r#"{"a": [String, Number]}"#);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| Value::Number(Secret::new(number.to_string()))),
            any::<String>().prop_map(|text| Value::from(text.as_str())),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Sequence),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|entries| Value::Mapping(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn flow_text_reads_back_as_the_same_value(value in any_value()) {
            let flow = value.to_flow();
            prop_assert_eq!(&Value::parse(flow.expose()).unwrap(), &value);
            let stream = parse(flow.expose(), Format::Yaml).unwrap();
            prop_assert_eq!(&Value::of(&stream.documents[0], &stream.anchors()).unwrap(), &value);
        }
    }
}
