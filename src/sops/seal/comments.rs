//! Which collection a comment belongs to, as go-yaml says it for sops: a comment is sealed to the keys that lead there.
//!
//! A comment behind a value belongs to the value's mapping. One on a line of its own belongs to what follows it in its
//! column, else, as a remark that closes it, to the collection around the value before it that has this column.

use std::collections::HashMap;
use std::ops::Range;

use crate::document::{Kind, Node, Stream};

/// A comment of one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Comment {
    /// With its `#`.
    pub(super) span: Range<usize>,
    /// The child of the collection that it comes before.
    pub(super) before: usize,
}

/// The comments of each collection of a stream, in order, and those of documents without any.
pub(super) type Comments = HashMap<*const Node, Vec<Comment>>;

/// A child of a collection.
struct Child {
    start: usize,
    /// Where its value begins, where that is a scalar.
    value: usize,
    parent: *const Node,
    index: usize,
    /// Of the collection: blanks before its children; `None` in a flow collection.
    column: Option<usize>,
    /// The child that the collection is the value of.
    around: Option<usize>,
    /// Its value, where that is a collection in brackets.
    flow: Option<*const Node>,
    /// Where its value ends.
    end: usize,
    document: usize,
}

/// Finds the collection of every comment.
pub(super) fn attribute(text: &str, stream: &Stream) -> Comments {
    let mut finder = Finder { text, children: Vec::new() };
    for (document, root) in stream.documents.iter().enumerate() {
        finder.add(root, None, document);
    }
    let mut comments = Comments::new();
    for span in &stream.comments {
        if let Some((collection, before)) = finder.find(span, stream) {
            comments.entry(collection).or_default().push(Comment { span: span.clone(), before });
        }
    }
    comments
}

struct Finder<'t> {
    text: &'t str,
    children: Vec<Child>,
}

impl Finder<'_> {
    fn add(&mut self, node: &Node, around: Option<usize>, document: usize) {
        let flow = self.text[node.span.clone()].starts_with(['{', '[']);
        let column = (!flow).then(|| node.span.start - line_start(self.text, node.span.start));
        let child = |finder: &mut Self, index, start, value: &Node| {
            let scalar = matches!(value.kind, Kind::Scalar { .. } | Kind::Alias(_));
            let bracket = is_in_brackets(finder.text, value);
            finder.children.push(Child {
                start,
                value: if scalar { value.span.start } else { start },
                parent: std::ptr::from_ref(node),
                index,
                column,
                around,
                flow: bracket.then(|| std::ptr::from_ref(value)),
                end: value.span.end,
                document,
            });
            let at = finder.children.len() - 1;
            finder.add(value, Some(at), document);
        };
        match &node.kind {
            Kind::Mapping(entries) => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    child(self, index, key.start(), value);
                }
            }
            Kind::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    child(self, index, item.start(), item);
                }
            }
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
    }

    fn find(&self, comment: &Range<usize>, stream: &Stream) -> Option<(*const Node, usize)> {
        let split = self.children.partition_point(|child| child.start < comment.start);
        let document = document_at(self.text, stream, comment.start);
        let previous = self.children[..split].iter().rposition(|child| child.document == document);
        let next = self.children.get(split).filter(|child| child.document == document);
        let line = line_start(self.text, comment.start);
        let column = comment.start - line;
        let before_next = |next: &Child| (next.parent, next.index);
        let end = stream.documents.get(document).map(|root| (std::ptr::from_ref(root), root.entries().len()));
        if let Some(previous) = previous.map(|at| &self.children[at]) {
            // A comment behind a lone `-` is about the item below it.
            let behind = !self.text[line..comment.start].trim_matches([' ', '\t', '-']).is_empty();
            // Between a key and its value, on whichever line.
            if behind || previous.value > comment.start {
                return Some(self.behind(previous, comment.start));
            }
        }
        if let Some(next) = next.filter(|next| next.column == Some(column)) {
            return Some(before_next(next));
        }
        // What follows the last value is the metadata, in the column of the document.
        if next.is_none() && self.column_of(document) == Some(column) {
            return end;
        }
        if let Some(found) = previous.and_then(|previous| self.enclosing(previous, |c| c == column)) {
            return Some(found);
        }
        next.map(before_next)
            .or_else(|| previous.and_then(|previous| self.enclosing(previous, |c| c <= column)))
            .or(end)
    }

    /// Of the mapping at the top of a document.
    fn column_of(&self, document: usize) -> Option<usize> {
        self.children.iter().find(|child| child.document == document)?.column
    }

    /// A comment on the line of `child`, or inside it.
    fn behind(&self, child: &Child, at: usize) -> (*const Node, usize) {
        // Of the collections in brackets that end on this line, it belongs to the outermost.
        let line = line_start(self.text, at);
        let mut closed = child.flow.filter(|_| child.end <= at).map(|flow| (flow, 0));
        let mut around = child.around;
        while let Some(outer) = around.map(|at| &self.children[at]) {
            if outer.flow.is_some() && outer.end <= at && outer.end > line {
                closed = outer.flow.map(|flow| (flow, 0));
            }
            around = outer.around;
        }
        closed.unwrap_or((child.parent, child.index))
    }

    /// The innermost collection around the child at `at` whose column is `wanted`, and the place behind it there.
    fn enclosing(&self, at: usize, wanted: impl Fn(usize) -> bool) -> Option<(*const Node, usize)> {
        let mut around = Some(at);
        while let Some(child) = around.map(|at| &self.children[at]) {
            if child.column.is_some_and(&wanted) {
                return Some((child.parent, child.index + 1));
            }
            around = child.around;
        }
        None
    }
}

fn is_in_brackets(text: &str, node: &Node) -> bool {
    matches!(node.kind, Kind::Mapping(_) | Kind::Sequence(_))
        && text[node.span.clone()].starts_with(['{', '['])
}

/// The document that a byte belongs to: the one behind the last `---` before it.
fn document_at(text: &str, stream: &Stream, at: usize) -> usize {
    let ends = stream.documents.iter().enumerate().map(|(index, root)| {
        let next = stream.documents.get(index + 1).map_or(text.len(), Node::start);
        super::document::end_of(text, root.span.end, next)
    });
    ends.take_while(|end| *end <= at).count().min(stream.documents.len().saturating_sub(1))
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}
