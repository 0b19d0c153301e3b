//! Finding references in a parsed text, and putting their values in.
//!
//! A reference is replaced where a string stands: in maps, in lists, as a whole document, in any style. What is not
//! a string, such as `!!binary`, and comments are left alone, and so are keys, with one exception of vals: a key that
//! holds a reference and whose value is a map is a merge. The entry is replaced by those of the document that the
//! reference means; they win over the other entries of the map, and a later merge over an earlier one.
//!
//! [`apply`] changes the bytes of these scalars and entries and no others. An alias stays an alias and so repeats
//! what is put in at its anchor.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use crate::document::edit::{Edits, quote};
use crate::document::scalar::{self, Scalar};
use crate::document::value::{Value, ValueError};
use crate::document::{Kind, Node, Stream};
use crate::fault::{Class, Fault};
use crate::refs::grammar::Expression;
use crate::secret::Secret;

/// One step into a document.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Step {
    /// Into a map.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

/// A string that holds references, and where it is.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Number of the document in the stream, from 0.
    pub document: usize,
    /// The way to the string; of a merge, to the map it is an entry of.
    pub path: Vec<Step>,
    /// What it says.
    pub expression: Expression,
    /// Whether it can be repeated by an alias elsewhere, so that its own path is not the only place of its value.
    pub anchored: bool,
    place: Place<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Place<'a> {
    Value(&'a Node),
    Merge { map: &'a Node, entry: usize },
}

impl Found<'_> {
    /// The bytes that are replaced by the value.
    pub fn span(&self) -> Range<usize> {
        match self.place {
            Place::Value(node) => node.span.clone(),
            Place::Merge { map, entry } => span_of(&map.entries()[entry]),
        }
    }

    /// Whether it is a key whose entry is replaced by the entries of a document.
    pub fn is_merge(&self) -> bool {
        matches!(self.place, Place::Merge { .. })
    }

    /// The path as a person writes it: `a.b[0]`.
    pub fn spelled_path(&self) -> String {
        spell(&self.path)
    }
}

/// `path` as a person writes it: `a.b[0]`; `.` is the root.
pub fn spell(path: &[Step]) -> String {
    let mut spelled = String::new();
    for step in path {
        match step {
            Step::Key(key) if spelled.is_empty() => spelled.push_str(key),
            Step::Key(key) => spelled.extend([".", key]),
            Step::Index(index) => spelled.extend(["[", &index.to_string(), "]"]),
        }
    }
    if spelled.is_empty() { ".".to_owned() } else { spelled }
}

/// A merge cannot be made. Names the place.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MergeError {
    /// The document has no entries.
    #[error("{path}: a reference as a key needs a document that is a map, and it is {kind}")]
    NotAMap {
        /// The map that it would be merged into.
        path: String,
        /// What it is instead.
        kind: &'static str,
    },
    /// The document cannot be read.
    #[error("{path}: a reference as a key needs a document that is a map: {reason}")]
    Document {
        /// The map that it would be merged into.
        path: String,
        /// Why, without anything of the document.
        reason: ValueError,
    },
}

impl Fault for MergeError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

/// Every string of `stream` that holds a reference or an escape, in order.
pub fn scan(stream: &Stream) -> Vec<Found<'_>> {
    let mut scanner = Scanner::default();
    for (document, root) in stream.documents.iter().enumerate() {
        scanner.document = document;
        scanner.node(root, false);
    }
    scanner.found
}

#[derive(Default)]
struct Scanner<'a> {
    document: usize,
    path: Vec<Step>,
    found: Vec<Found<'a>>,
}

impl<'a> Scanner<'a> {
    fn node(&mut self, node: &'a Node, anchored: bool) {
        let anchored = anchored || node.anchor().is_some();
        match &node.kind {
            Kind::Scalar { .. } => self.scalar(node, anchored),
            Kind::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.step(Step::Index(index), item, anchored);
                }
            }
            Kind::Mapping(entries) => {
                for (entry, (key, value)) in entries.iter().enumerate() {
                    let Some(text) = key.text() else { continue };
                    let is_map = matches!(value.kind, Kind::Mapping(_));
                    if let Some(expression) = is_map.then(|| Expression::parse(text)).flatten() {
                        self.push(expression, anchored, Place::Merge { map: node, entry });
                    } else {
                        self.step(Step::Key(text.to_owned()), value, anchored);
                    }
                }
            }
            Kind::Alias(_) => {}
        }
    }

    fn step(&mut self, step: Step, node: &'a Node, anchored: bool) {
        self.path.push(step);
        self.node(node, anchored);
        self.path.pop();
    }

    fn scalar(&mut self, node: &'a Node, anchored: bool) {
        if scalar::of(node) == Some(Scalar::Str)
            && let Some(expression) = node.text().and_then(Expression::parse)
        {
            self.push(expression, anchored, Place::Value(node));
        }
    }

    fn push(&mut self, expression: Expression, anchored: bool, place: Place<'a>) {
        let (document, path) = (self.document, self.path.clone());
        self.found.push(Found { document, path, expression, anchored, place });
    }
}

/// The edits of `text` that put one of `values` in the place of each of `found`, which [`scan`] found in it.
pub fn apply(text: &str, found: &[Found<'_>], values: &[Value]) -> Result<Edits, MergeError> {
    let pairs = || found.iter().zip(values);
    let documents = pairs().map(|(found, value)| entries_of(found, value)).collect::<Result<Vec<_>, _>>()?;
    let mut changes = Vec::new();
    for merge in merges(found, &documents) {
        merge.changes(text, &mut changes);
    }
    for (found, value) in pairs() {
        if let Place::Value(node) = found.place {
            changes.push(Change {
                span: node.span.clone(),
                rank: Rank::Inside,
                what: What::Node(node, value),
            });
        }
    }
    Ok(edits(changes))
}

/// One edit to be, which others may make pointless.
struct Change<'a> {
    span: Range<usize>,
    rank: Rank,
    what: What<'a>,
}

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Rank {
    /// Replaces a whole value, with all references in it.
    Covering,
    Inside,
}

enum What<'a> {
    Node(&'a Node, &'a Value),
    Text(Secret<String>),
}

fn edits(mut changes: Vec<Change<'_>>) -> Edits {
    changes.sort_by_key(|change| (change.span.start, Reverse(change.span.end), change.rank));
    let mut edits = Edits::default();
    let mut covered = 0;
    for Change { span, rank, what } in changes {
        if span.start < covered {
            continue;
        }
        if rank == Rank::Covering {
            covered = span.end;
        }
        match what {
            What::Node(node, value) => edits.replace(node, value.to_flow()),
            What::Text(text) => edits.replace_span(span, text),
        }
    }
    edits
}

fn span_of((key, value): &(Node, Node)) -> Range<usize> {
    key.start()..value.span.end.max(key.span.end)
}

/// One map, and the documents that replace some of its entries.
struct Merge<'a> {
    map: &'a Node,
    documents: Vec<(usize, &'a [(String, Value)])>,
}

/// The entries that a merge puts in; none for what is not a merge.
fn entries_of<'a>(found: &Found<'_>, value: &'a Value) -> Result<Cow<'a, [(String, Value)]>, MergeError> {
    if !found.is_merge() {
        return Ok(Cow::Borrowed(&[]));
    }
    let not_a_map = |kind| Err(MergeError::NotAMap { path: found.spelled_path(), kind });
    match value {
        Value::Mapping(entries) => Ok(Cow::Borrowed(entries)),
        Value::String(text) => match Value::parse(text.expose()) {
            Ok(Value::Mapping(entries)) => Ok(Cow::Owned(entries)),
            Ok(other) => not_a_map(other.kind()),
            Err(reason) => Err(MergeError::Document { path: found.spelled_path(), reason }),
        },
        other => not_a_map(other.kind()),
    }
}

fn merges<'a>(found: &[Found<'a>], documents: &'a [Cow<'_, [(String, Value)]>]) -> Vec<Merge<'a>> {
    let mut merges: Vec<Merge<'a>> = Vec::new();
    let mut by_map: HashMap<*const Node, usize> = HashMap::new();
    for (found, document) in found.iter().zip(documents) {
        let Place::Merge { map, entry } = found.place else { continue };
        let at = *by_map.entry(std::ptr::from_ref(map)).or_insert_with(|| {
            merges.push(Merge { map, documents: Vec::new() });
            merges.len() - 1
        });
        merges[at].documents.push((entry, document));
    }
    merges
}

/// What one merge adds at its place.
type Fresh<'a> = (usize, Vec<(&'a str, &'a Value)>);

impl<'a> Merge<'a> {
    fn changes(&self, text: &str, changes: &mut Vec<Change<'a>>) {
        let own = self.own();
        let mut taken = BTreeSet::new();
        let mut fresh: Vec<Fresh<'a>> = Vec::new();
        // The last document wins, so it goes first.
        for (entry, document) in self.documents.iter().rev() {
            let mut kept = Vec::new();
            for (key, value) in document.iter().filter(|(key, _)| taken.insert(key)) {
                match own.get(key.as_str()) {
                    Some(node) => changes.push(Change {
                        span: node.span.clone(),
                        rank: Rank::Covering,
                        what: What::Node(node, value),
                    }),
                    None => kept.push((key.as_str(), value)),
                }
            }
            fresh.push((*entry, kept));
        }
        fresh.reverse();
        if own.is_empty() && fresh.iter().all(|(_, kept)| kept.is_empty()) {
            changes.push(inside(self.map.span.clone(), Secret::new("{}".to_owned())));
        } else {
            Layout::of(text, self.map).changes(self.map.entries(), &fresh, changes);
        }
    }

    /// The entries that stay, by key.
    fn own(&self) -> HashMap<&'a str, &'a Node> {
        let merged: BTreeSet<usize> = self.documents.iter().map(|(entry, _)| *entry).collect();
        let entries = self.map.entries().iter().enumerate().filter(|(entry, _)| !merged.contains(entry));
        entries.filter_map(|(_, (key, value))| Some((key.text()?, value))).collect()
    }
}

fn inside<'a>(span: Range<usize>, text: Secret<String>) -> Change<'a> {
    Change { span, rank: Rank::Inside, what: What::Text(text) }
}

/// How the entries of a map are written.
enum Layout {
    Flow,
    /// Each on its own line, behind this.
    Block(String),
}

impl Layout {
    fn of(text: &str, map: &Node) -> Self {
        if text[map.span.clone()].starts_with('{') {
            return Self::Flow;
        }
        let line = text[..map.span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let column = text[line..map.span.start].chars().count();
        Self::Block(format!("\n{}", " ".repeat(column)))
    }

    fn changes(&self, entries: &[(Node, Node)], fresh: &[Fresh<'_>], changes: &mut Vec<Change<'_>>) {
        let empty: BTreeSet<usize> =
            fresh.iter().filter(|(_, kept)| kept.is_empty()).map(|(entry, _)| *entry).collect();
        for (entry, kept) in fresh {
            let span = span_of(&entries[*entry]);
            changes.push(match self {
                _ if !kept.is_empty() => inside(span, self.write(kept)),
                // A comment, so that the line and what is behind it stay where they are.
                Self::Block(_) => inside(span, Secret::new("#".to_owned())),
                // With the comma before it, or else the one behind it.
                Self::Flow if (0..*entry).any(|before| !empty.contains(&before)) => {
                    inside(span_of(&entries[entry - 1]).end..span.end, Secret::default())
                }
                Self::Flow => {
                    let end = entries.get(entry + 1).map_or(span.end, |next| next.0.start());
                    inside(span.start..end, Secret::default())
                }
            });
        }
    }

    fn write(&self, entries: &[(&str, &Value)]) -> Secret<String> {
        let separator = match self {
            Self::Flow => ", ",
            Self::Block(separator) => separator,
        };
        let entries: Vec<_> = entries.iter().map(|(key, value)| (quote(key), value.to_flow())).collect();
        let size = |(key, flow): &(Secret<String>, Secret<String>)| key.expose().len() + flow.expose().len();
        let total = entries.iter().map(|entry| size(entry) + 2 + separator.len()).sum();
        let mut written = Secret::new(String::with_capacity(total));
        for (index, (key, flow)) in entries.iter().enumerate() {
            let separator = if index == 0 { "" } else { separator };
            written.expose_mut().extend([separator, key.expose(), ": ", flow.expose()]);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{self, Format};

    /// Every reference gets the value that is written behind it here: `ref+v://…` a flow value, `ref+s://…` a string.
    fn value_of(found: &Found<'_>) -> Value {
        let reference = found.expression.references().next().unwrap();
        let target = reference.target(&[]).unwrap();
        match target.scheme.as_str() {
            "v" => Value::parse(&target.path).unwrap(),
            _ => Value::from(target.path.as_str()),
        }
    }

    fn applied_as(text: &str, format: Format) -> Result<String, MergeError> {
        let stream = document::parse(text, format).unwrap();
        let found = scan(&stream);
        let values: Vec<_> = found.iter().map(value_of).collect();
        apply(text, &found, &values).map(|edits| edits.apply(text).unwrap().expose().clone())
    }

    fn applied(text: &str) -> String {
        applied_as(text, Format::Yaml).unwrap()
    }

    #[test]
    fn only_strings_with_references_change() {
        for (text, expected) in [
            (
                "a: no # c\nb: 0123\nc: &x ref+s://S\nd: *x\ne: 1_000\n",
                "a: no # c\nb: 0123\nc: &x \"S\"\nd: *x\ne: 1_000\n",
            ),
            ("ref+s://S\n", "\"S\"\n"),
            ("--- ref+s://S\n---\na: ref+v://[1]\n", "--- \"S\"\n---\na: [1]\n"),
            ("- ref+v://1\n- [ref+s://a , {k: ref+s://b }]\n", "- 1\n- [\"a\" , {k: \"b\" }]\n"),
            ("a: |\n  ref+s://S\nb: 1\n", "a: \"S\"\nb: 1\n"),
            ("a: 'ref+s://S' # c\nb: \"ref+s://S\"\n", "a: \"S\" # c\nb: \"S\"\n"),
            ("a: !!str ref+v://5\n", "a:  5\n"),
            ("a: !!binary ref+s://5\n", "a: !!binary ref+s://5\n"),
            ("# ref+s://S\na: 1\n", "# ref+s://S\na: 1\n"),
            ("ref+s://S: scalar\n", "ref+s://S: scalar\n"),
            ("a: see ref+ in https://x\n", "a: see ref+ in https://x\n"),
            ("a: ref+s://S\r\nb: ref+s://S\r\n", "a: \"S\"\r\nb: \"S\"\r\n"),
        ] {
            assert_eq!(applied(text), expected, "{text}");
        }
        let json = applied_as(r#"{"a": "ref+s://S", "b": [1.10, "ref+v://{b:%201}"]}"#, Format::Json);
        assert_eq!(json.unwrap(), r#"{"a": "S", "b": [1.10, {"b": 1}]}"#);
    }

    #[test]
    fn places_are_told() {
        let text = "a:\n  b:\n  - x\n  - k: ref+s://1\nc: &c\n  d: ref+s://2\n---\nref+s://3\n";
        let stream = document::parse(text, Format::Yaml).unwrap();
        let found = scan(&stream);
        let told: Vec<_> = found
            .iter()
            .map(|found| (found.document, found.spelled_path(), found.anchored, &text[found.span()]))
            .collect();
        let expected = [
            (0, "a.b[1].k".to_owned(), false, "ref+s://1"),
            (0, "c.d".to_owned(), true, "ref+s://2"),
            (1, ".".to_owned(), false, "ref+s://3"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_reference_as_key_is_merged() {
        for (text, expected) in [
            (
                "t:\n  ref+v://{a%3A%201,%20b%3A%20[2]}: {}\n  z: 1\n",
                "t:\n  \"a\": 1\n  \"b\": [2]\n  z: 1\n",
            ),
            ("ref+s://{a%3A%201}: {}\n", "\"a\": 1\n"),
            ("ref+v://{a%3A%201}:\n  q: ref+s://x\n  r: 2\nz: 1\n", "\"a\": 1\nz: 1\n"),
            ("- ref+v://{a%3A%201,%20b%3A%202}: {}\n  z: 1\n", "- \"a\": 1\n  \"b\": 2\n  z: 1\n"),
            ("{'ref+v://{a%3A%201}': {}, z: 1}\n", "{\"a\": 1, z: 1}\n"),
            // The document wins over what is there, and takes references with it.
            ("a: &x\n  k: ref+s://x\nref+v://{a%3A%201}: {}\n", "a: &x\n  1\n#\n"),
            // A later merge wins.
            ("ref+v://{a%3A%201,%20b%3A%201}: {}\nref+v://{a%3A%202}: {}\n", "\"b\": 1\n\"a\": 2\n"),
            ("t:\n  ref+v://{}: {}\n  z: 1\n", "t:\n  #\n  z: 1\n"),
            ("t:\n  ref+v://{}: {}\n", "t:\n  {}\n"),
            ("t: {'ref+v://{}': {}}\n", "t: {}\n"),
            ("t: {'ref+v://{}': {}, z: 1}\n", "t: {z: 1}\n"),
            ("t: {z: 1, 'ref+v://{}': {}}\n", "t: {z: 1}\n"),
            ("t: {'ref+v://{}': {}, 'ref+s://{}': {}, z: 1, 'ref+v://{}/': {}, y: 2}\n", "t: {z: 1, y: 2}\n"),
        ] {
            assert_eq!(applied(text), expected, "{text}");
        }
    }
}
