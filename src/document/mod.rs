//! Value files, manifests and secret documents as text with byte spans: what stands where, and nothing retyped.
//!
//! [`parse`] gives the shape of a YAML stream or a JSON document. Tags, anchors and aliases are kept as they are
//! written and never expanded, duplicate keys are kept, and every node knows the bytes it stands on, so that
//! [`edit`] can replace one value and leave everything else byte for byte. [`scalar`] says what go-yaml makes of
//! a scalar, [`value`] is an owned tree for what a secret store answered.
//!
//! All of it is made for hostile input: size, depth and number of nodes are bounded, nothing is quoted in errors.
//! YAML is YAML 1.2 as `granit-parser` reads it, with the leniencies of libyaml; JSON is RFC 8259.

pub mod edit;
mod json;
pub mod scalar;
pub mod value;
mod yaml;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// The largest text that is read, in bytes.
pub const MAX_SIZE: usize = 16 << 20;
/// The deepest nesting of sequences and mappings.
pub const MAX_DEPTH: usize = 1_000;
/// The most nodes in one text; a key, a value and a collection count one each.
pub const MAX_NODES: usize = 4_000_000;

/// How a text is written.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Format {
    /// A YAML stream of any number of documents.
    #[default]
    Yaml,
    /// One JSON document.
    Json,
}

impl Format {
    /// JSON for a name that ends in `.json`, else YAML.
    pub fn of_name(name: &str) -> Self {
        let json = name.rsplit_once('.').is_some_and(|(_, extension)| extension == "json");
        if json { Self::Json } else { Self::Yaml }
    }
}

/// A parsed text.
#[derive(Debug)]
pub struct Stream {
    /// How it is written.
    pub format: Format,
    /// The root of each document. A document without content is an empty plain scalar.
    pub documents: Vec<Node>,
    /// The spans of the comments, each with its `#` and without the line break, in order. Always empty in JSON.
    pub comments: Vec<Range<usize>>,
}

impl Stream {
    /// The anchored nodes by anchor, to look aliases up. An anchor is unique in the stream.
    pub fn anchors(&self) -> HashMap<usize, &Node> {
        let mut anchors = HashMap::new();
        let mut open: Vec<&Node> = self.documents.iter().collect();
        while let Some(node) = open.pop() {
            if let Some(anchor) = node.anchor() {
                anchors.insert(anchor.id, node);
            }
            match &node.kind {
                Kind::Sequence(items) => open.extend(items),
                Kind::Mapping(entries) => open.extend(entries.iter().flat_map(|(key, value)| [key, value])),
                Kind::Scalar { .. } | Kind::Alias(_) => {}
            }
        }
        anchors
    }
}

/// A scalar, a collection or an alias, and the bytes it stands on.
#[derive(Debug)]
pub struct Node {
    /// The content, without tag and anchor. A block scalar begins with its `|` or `>` and ends with its last
    /// visible character; a block collection reaches from its first entry to the end of its last; an absent
    /// value is empty.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
    properties: Option<Box<Properties>>,
}

#[derive(Debug, Default)]
struct Properties {
    tag: Option<Tag>,
    anchor: Option<Anchor>,
}

/// The tag of a node.
#[derive(Debug)]
pub struct Tag {
    /// Resolved: `tag:yaml.org,2002:str` for `!!str`, `!mine` for a local one.
    pub name: String,
    /// Where it stands.
    pub span: Range<usize>,
}

/// The anchor of a node.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// What aliases refer to.
    pub id: usize,
    /// Where it stands, with its `&`.
    pub span: Range<usize>,
}

/// What a node is.
pub enum Kind {
    /// Text: the value with escapes undone and lines folded.
    Scalar {
        /// The value.
        value: Secret<String>,
        /// How it is written.
        style: Style,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in order, duplicates included.
    Mapping(Vec<(Node, Node)>),
    /// A repetition of the node with this anchor.
    Alias(usize),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar { value, style } => write!(f, "{style:?}({value:?})"),
            Self::Sequence(items) => f.debug_list().entries(items).finish(),
            Self::Mapping(entries) => f.debug_list().entries(entries).finish(),
            Self::Alias(id) => write!(f, "Alias({id})"),
        }
    }
}

/// How a scalar is written. In JSON a string is double quoted and everything else plain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In `'`.
    SingleQuoted,
    /// In `"`.
    DoubleQuoted,
    /// A block after `|`.
    Literal,
    /// A block after `>`.
    Folded,
}

impl Node {
    fn new(span: Range<usize>, kind: Kind) -> Self {
        Self { span, kind, properties: None }
    }

    /// The tag, where one is written.
    pub fn tag(&self) -> Option<&Tag> {
        self.properties.as_ref()?.tag.as_ref()
    }

    /// The anchor, where one is written.
    pub fn anchor(&self) -> Option<&Anchor> {
        self.properties.as_ref()?.anchor.as_ref()
    }

    /// Where the node begins, tag and anchor included.
    pub fn start(&self) -> usize {
        let tag = self.tag().map_or(usize::MAX, |tag| tag.span.start);
        let anchor = self.anchor().map_or(usize::MAX, |anchor| anchor.span.start);
        self.span.start.min(tag).min(anchor)
    }

    /// The text of a scalar, whatever its style and tag.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { value, .. } => Some(value.expose()),
            _ => None,
        }
    }

    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(Node, Node)] {
        if let Kind::Mapping(entries) = &self.kind { entries } else { &[] }
    }

    /// The value at the first `key` of a mapping.
    pub fn at(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }
}

/// Parses `text`, bounded by [`MAX_SIZE`], [`MAX_DEPTH`] and [`MAX_NODES`].
pub fn parse(text: &str, format: Format) -> Result<Stream, ParseError> {
    if text.len() > MAX_SIZE {
        return Err(ParseError::TooLarge { limit: MAX_SIZE });
    }
    if let Some(at) = text.find('\0') {
        let Position { line, column } = Position::of(text, at);
        return Err(ParseError::Syntax { line, column, reason: "a NUL character".to_owned() });
    }
    match format {
        Format::Yaml => yaml::parse(text),
        Format::Json => json::parse(text),
    }
}

/// The text that `bytes` hold, for [`parse`]. Anything but UTF-8 is refused, and more than [`MAX_SIZE`] bytes.
pub fn text_of(bytes: &[u8]) -> Result<&str, ParseError> {
    if bytes.len() > MAX_SIZE {
        return Err(ParseError::TooLarge { limit: MAX_SIZE });
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        ParseError::NotUtf8 { line: 1 + before.split(|byte| *byte == b'\n').count() - 1 }
    })
}

/// A place in a text as a person counts it, from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl Position {
    /// The place of byte `at` of `text`.
    pub fn of(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Self { line, column: before[line_start..].chars().count() + 1 }
    }
}

/// A text cannot be read. Names the place, never what stands there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseError {
    /// Longer than the limit.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// Not text, or text in another encoding.
    #[error("not UTF-8 (line {line})")]
    NotUtf8 {
        /// The line of the first byte that is not.
        line: usize,
    },
    /// Collections in collections beyond the limit.
    #[error("nested deeper than {limit} levels (line {line})")]
    TooDeep {
        /// Where the limit is passed.
        line: usize,
        /// In levels.
        limit: usize,
    },
    /// More nodes than the limit.
    #[error("more than {limit} keys and values (line {line})")]
    TooManyNodes {
        /// Where the limit is passed.
        line: usize,
        /// In nodes.
        limit: usize,
    },
    /// Not YAML, or not JSON.
    #[error("line {line}, column {column}: {reason}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser expected; nothing of the text.
        reason: String,
    },
}

impl Fault for ParseError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

/// Builds the tree bottom up without recursion, and counts.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    documents: Vec<Node>,
    nodes: usize,
}

/// A collection whose end is not read yet.
struct Open {
    start: usize,
    flow: bool,
    properties: Option<Box<Properties>>,
    children: Children,
}

enum Children {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Node, Node)>, key: Option<Node> },
}

impl Builder {
    fn in_mapping(&self) -> bool {
        matches!(self.open.last(), Some(Open { children: Children::Mapping { .. }, .. }))
    }

    /// Whether the next node is the value of a key.
    fn has_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { children: Children::Mapping { key: Some(_), .. }, .. }))
    }

    fn begin(&mut self, open: Open, line: impl FnOnce() -> usize) -> Result<(), ParseError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(ParseError::TooDeep { line: line(), limit: MAX_DEPTH });
        }
        self.open.push(open);
        Ok(())
    }

    /// Closes the innermost collection. `end` is where a flow collection ends; a block ends with its last child.
    fn end(&mut self, end: usize, line: impl FnOnce() -> usize) -> Result<(), ParseError> {
        let open = self.open.pop().expect("a parser ends only what it began");
        let (kind, last) = match open.children {
            Children::Sequence(items) => {
                let last = items.last().map(|item| item.span.end);
                (Kind::Sequence(items), last)
            }
            Children::Mapping { entries, .. } => {
                let last = entries.last().map(|(key, value)| key.span.end.max(value.span.end));
                (Kind::Mapping(entries), last)
            }
        };
        let end = if open.flow { end } else { last.unwrap_or(open.start) };
        self.add(Node { span: open.start..end.max(open.start), kind, properties: open.properties }, line)
    }

    fn add(&mut self, node: Node, line: impl FnOnce() -> usize) -> Result<(), ParseError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ParseError::TooManyNodes { line: line(), limit: MAX_NODES });
        }
        match self.open.last_mut().map(|open| &mut open.children) {
            None => self.documents.push(node),
            Some(Children::Sequence(items)) => items.push(node),
            Some(Children::Mapping { entries, key }) => match key.take() {
                None => *key = Some(node),
                Some(name) => entries.push((name, node)),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::edit::{Edits, quote};
    use super::*;

    fn yaml(text: &str) -> Stream {
        parse(text, Format::Yaml).unwrap()
    }

    /// The nodes of a stream in order, keys before their values.
    fn scalars(stream: &Stream) -> Vec<&Node> {
        fn walk<'a>(node: &'a Node, found: &mut Vec<&'a Node>) {
            match &node.kind {
                Kind::Scalar { .. } | Kind::Alias(_) => found.push(node),
                Kind::Sequence(items) => items.iter().for_each(|item| walk(item, found)),
                Kind::Mapping(entries) => entries.iter().for_each(|(key, value)| {
                    walk(key, found);
                    walk(value, found);
                }),
            }
        }
        let mut found = Vec::new();
        stream.documents.iter().for_each(|document| walk(document, &mut found));
        found
    }

    /// One mapping in another, each on a line.
    fn blocks(levels: usize) -> String {
        (0..levels).flat_map(|level| [" ".repeat(level), "a:\n".to_owned()]).collect()
    }

    #[test]
    fn spans_cover_what_is_written() {
        let text = "a: plain # c\nb: !!str &x 'q'\nc: &p|q !t\n  |- # not > |\n\n    block\n     more\n\n\nd:\n- >\n  z\n-\n- \"d\n  e\"\n- p\n  q\n- [x, {y: z}]\nf: *x\n? g\n: h\n";
        let stream = yaml(text);
        let written: Vec<&str> = scalars(&stream).iter().map(|node| &text[node.span.clone()]).collect();
        assert_eq!(
            written,
            [
                "a",
                "plain",
                "b",
                "'q'",
                "c",
                "|- # not > |\n\n    block\n     more",
                "d",
                ">\n  z",
                "",
                "\"d\n  e\"",
                "p\n  q",
                "x",
                "y",
                "z",
                "f",
                "*x",
                "g",
                "h"
            ]
        );
        assert_eq!(stream.comments.iter().map(|span| &text[span.clone()]).collect::<Vec<_>>(), ["# c"]);
        let tagged = stream.documents[0].at("b").unwrap();
        assert_eq!(&text[tagged.tag().unwrap().span.clone()], "!!str");
        assert_eq!(&text[tagged.anchor().unwrap().span.clone()], "&x");
        let list = &text[stream.documents[0].at("d").unwrap().span.clone()];
        assert!(list.starts_with("- >\n") && list.ends_with("{y: z}]"), "{list}");
    }

    #[test]
    fn json_keeps_duplicates_and_takes_tabs() {
        let text = "{\n\t\"a\": 1,\t\"a\": [true, {}, \"x\\u00e9\\n\"],\n\t\"b\": null}\n";
        let stream = parse(text, Format::Json).unwrap();
        let read: Vec<&str> = scalars(&stream).iter().filter_map(|node| node.text()).collect();
        assert_eq!(read, ["a", "1", "a", "true", "xé\n", "b", "null"]);
        let root = &stream.documents[0];
        assert_eq!(&text[root.span.clone()], text.trim_end());
        assert_eq!(&text[root.entries()[1].1.span.clone()], "[true, {}, \"x\\u00e9\\n\"]");
    }

    #[test]
    fn every_kind_of_scalar_can_be_replaced() {
        for text in [
            "a: OLD # c\nb: 1\n",
            "a: 'OLD'\nb: 1\n",
            "a: \"O\\\n  LD\"\nb: 1\n",
            "a: |\n  OLD\n\n# c\nb: 1\n",
            "a: !!str >-\n\n  OLD\n  more\nb: 1\n",
            "{a: OLD, b: 1}",
            "{\"a\":OLD,\"b\":1}",
            "a: &x OLD\nb: 1",
            "a: !t\nb: 1\n",
            "a:\nb: 1\n",
            "a: |",
            "a:",
        ] {
            let stream = yaml(text);
            let mut edits = Edits::default();
            edits.replace(stream.documents[0].at("a").unwrap(), quote("new: \"#\n\u{85}"));
            let edited = edits.apply(text).unwrap();
            let stream = yaml(edited.expose());
            assert_eq!(stream.documents[0].at("a").unwrap().text(), Some("new: \"#\n\u{85}"), "{text:?}");
            let rest = stream.documents[0].at("b").and_then(Node::text);
            assert_eq!(rest, text.contains('b').then_some("1"), "{text:?}");
        }
    }

    #[test]
    fn bad_text_is_refused_with_its_place_and_nothing_of_it() {
        let deep_yaml = format!("a: {}", "[".repeat(MAX_DEPTH + 1));
        let deep_block = blocks(MAX_DEPTH + 1);
        let deep_json = "[".repeat(10_000);
        let table = [
            (Format::Yaml, "a: 1\nb: [STRONGROOM-MARKER\n", "line 2, column 4: unclosed bracket"),
            (Format::Yaml, "a: \"STRONGROOM-MARKER", "line 1, column 4: "),
            (
                Format::Yaml,
                "a: *STRONGROOM-MARKER",
                "line 1, column 4: while parsing node, found unknown anchor",
            ),
            (Format::Yaml, "a: 1\nb: \0", "line 2, column 4: a NUL character"),
            (Format::Yaml, &deep_yaml, "nested deeper than 1000 levels (line 1)"),
            (Format::Yaml, &deep_block, "nested deeper than 1000 levels (line 1001)"),
            (Format::Json, &deep_json, "nested deeper than 1000 levels (line 1)"),
            (Format::Json, "{\"a\": 1,\n \"b\": STRONGROOM-MARKER}", "line 2, column 7: expected a value"),
            (Format::Json, "{\"a\" 1}", "line 1, column 6: expected `:`"),
            (Format::Json, "{\"a\": 1]", "line 1, column 8: expected `}`"),
            (Format::Json, "[1, ]", "line 1, column 5: expected a value"),
            (Format::Json, "{a: 1}", "line 1, column 2: expected a key in quotes"),
            (Format::Json, "{} x", "line 1, column 4: expected end of text"),
            (Format::Json, "[1", "line 1, column 3: expected more text"),
            (Format::Json, "", "line 1, column 1: expected more text"),
            (Format::Json, "\"\\x STRONGROOM-MARKER\"", "line 1, column 1: expected a valid string"),
        ];
        for (format, text, message) in table {
            let error = parse(text, format).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
            assert!(!error.to_string().contains("MARKER"), "{error}");
            assert_eq!(error.class(), Class::Invalid);
        }
        assert_eq!(
            parse(&"a".repeat(MAX_SIZE + 1), Format::Yaml).unwrap_err().to_string(),
            "larger than 16777216 bytes"
        );
        assert_eq!(text_of(b"a: 1\nb: \xff").unwrap_err().to_string(), "not UTF-8 (line 2)");
    }

    #[test]
    fn the_deepest_allowed_text_is_read_and_dropped() {
        for text in ["[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH), blocks(MAX_DEPTH)] {
            assert_eq!(yaml(&text).documents.len(), 1);
            assert!(value::Value::parse(&text).is_ok());
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[-a&*!|>:?{}\\[\\]#'\", \n\t%]{0,60}") {
            for format in [Format::Yaml, Format::Json] {
                if let Ok(stream) = parse(&text, format) {
                    for node in scalars(&stream) {
                        prop_assert!(text.get(node.span.clone()).is_some());
                    }
                }
            }
            let _ = value::Value::parse(&text);
        }

        #[test]
        fn an_edit_changes_its_node_only(text in "([a-c]|'[a-c] '|\\|\n x\n|>-\n\n  y\n|\\[a, b\\]|: |- |\n|# c\n| ){0,12}", secret in "\\PC{0,9}") {
            let Ok(stream) = parse(&text, Format::Yaml) else { return Ok(()) };
            let before = scalars(&stream);
            for (index, node) in before.iter().enumerate().filter(|(_, node)| !node.span.is_empty()) {
                let mut edits = Edits::default();
                edits.replace(node, quote(&secret));
                let edited = edits.apply(&text).unwrap();
                let after = parse(edited.expose(), Format::Yaml);
                prop_assert!(after.is_ok(), "{text:?} {index}: {:?}", after.err());
                let after = after.unwrap();
                let after = scalars(&after);
                prop_assert_eq!(after.len(), before.len());
                for (other, node) in after.iter().enumerate() {
                    let expected = if other == index { Some(secret.as_str()) } else { before[other].text() };
                    prop_assert_eq!(node.text(), expected, "{:?} {}", text, index);
                }
            }
        }
    }
}
