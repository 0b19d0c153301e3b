//! Which collection a comment belongs to, as go-yaml says it for sops: a comment is sealed to the keys that lead there,
//! and one that a rule matches says what is encrypted from there on.
//!
//! A comment behind a value belongs to the value. Of those on lines of their own, in the gap before the next entry, most are
//! heads of that entry. Some are feet of what is before them: those right below it that an empty line follows, and those
//! that are followed by something further left. Where this is not all there is to it, as in brackets, the place is the
//! likely one and not certain.

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
    /// Whether it is there for sops too.
    pub(super) certain: bool,
}

/// The comments of each collection of a stream, in order, and those of documents without any.
pub(super) type Comments = HashMap<*const Node, Vec<Comment>>;

/// A place among the children of a collection.
type Place = (*const Node, usize);

/// A child of a collection.
struct Child<'n> {
    start: usize,
    /// Where its key ends, or where it starts.
    named: usize,
    value: &'n Node,
    parent: *const Node,
    index: usize,
    /// Of a sequence.
    is_item: bool,
    /// Of the collection: blanks before its children; `None` in a flow collection.
    column: Option<usize>,
    /// The child that the collection is the value of.
    around: Option<usize>,
    document: usize,
}

impl Child<'_> {
    /// Its value is still to come at `at`, or is none.
    fn is_open_at(&self, at: usize) -> bool {
        self.value.span.start >= at || self.value.span.is_empty()
    }

    /// No anchor and no tag of its value stands before `at`.
    fn is_bare_at(&self, at: usize) -> bool {
        self.value.start() >= at || self.value.start() == self.value.span.start
    }

    fn before(&self) -> Place {
        (self.parent, self.index)
    }

    fn after(&self) -> Place {
        (self.parent, self.index + 1)
    }
}

/// Finds the collection of every comment.
pub(super) fn attribute(text: &str, stream: &Stream) -> Comments {
    let mut finder = Finder { text, stream, children: Vec::new() };
    for (document, root) in stream.documents.iter().enumerate() {
        finder.add(root, None, document);
    }
    let mut comments = Comments::new();
    let mut rest = &stream.comments[..];
    let (mut from, mut certainly) = (0, true);
    while let Some(first) = rest.first() {
        let gap = finder.gap(first, from);
        let follows = |pair: &&[Range<usize>]| text[pair[0].end..pair[1].start].trim().is_empty();
        let length = if finder.is_alone(first) { 1 + rest.windows(2).take_while(follows).count() } else { 1 };
        let (these, others) = rest.split_at(length);
        let places = finder.places(these, &gap);
        // What slipped from its place can push the next one from its own.
        let next = places.iter().all(|(_, certain)| *certain);
        for (span, ((collection, before), certain)) in these.iter().zip(places) {
            let certain = certain && certainly;
            comments.entry(collection).or_default().push(Comment { span: span.clone(), before, certain });
            from = span.end;
        }
        certainly = next;
        rest = others;
    }
    comments
}

/// What is around comments that follow each other.
struct Gap<'c, 'n> {
    previous: Option<&'c Child<'n>>,
    next: Option<&'c Child<'n>>,
    document: usize,
    /// Where what is before them ends, be it a comment behind a value.
    from: usize,
}

/// What go-yaml makes of a comment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    /// Of the entry behind it.
    Head,
    /// Of the value before it.
    Foot,
    /// Further left than the value before it: of the collection that has its column, else of the entry before the next.
    Dedented,
}

struct Finder<'n> {
    text: &'n str,
    stream: &'n Stream,
    children: Vec<Child<'n>>,
}

impl<'n> Finder<'n> {
    fn add(&mut self, node: &'n Node, around: Option<usize>, document: usize) {
        let column = (!self.is_in_brackets(node)).then(|| self.column_of(node.span.start));
        let entries: Vec<(usize, usize, &Node)> = match &node.kind {
            Kind::Mapping(entries) => {
                entries.iter().map(|(key, value)| (key.start(), key.span.end, value)).collect()
            }
            Kind::Sequence(items) => items.iter().map(|item| (item.start(), item.start(), item)).collect(),
            Kind::Scalar { .. } | Kind::Alias(_) => Vec::new(),
        };
        let is_item = matches!(node.kind, Kind::Sequence(_));
        for (index, (start, named, value)) in entries.into_iter().enumerate() {
            let parent = std::ptr::from_ref(node);
            self.children.push(Child {
                start,
                named,
                value,
                parent,
                index,
                is_item,
                column,
                around,
                document,
            });
            self.add(value, Some(self.children.len() - 1), document);
        }
    }

    /// `from` is where the comment before this one ends.
    fn gap(&self, comment: &Range<usize>, from: usize) -> Gap<'_, 'n> {
        let split = self.children.partition_point(|child| child.start < comment.start);
        let document = document_at(self.text, self.stream, comment.start);
        let previous = self.children[..split].iter().rfind(|child| child.document == document);
        let next = self.children.get(split).filter(|next| next.document == document);
        let ended = previous.map(|previous| {
            let previous = self.out_of_brackets(previous);
            let value = &previous.value.span;
            let is_begun = matches!(previous.value.kind, Kind::Mapping(_) | Kind::Sequence(_))
                && !self.is_in_brackets(previous.value);
            if previous.is_open_at(comment.start) {
                previous.named.min(comment.start)
            } else if is_begun {
                value.start
            } else {
                value.end.min(comment.start)
            }
        });
        Gap { previous, next, document, from: from.max(ended.unwrap_or(0)) }
    }

    /// Whether nothing stands before it on its line, but for a `-` whose item is below.
    fn is_alone(&self, comment: &Range<usize>) -> bool {
        let line = line_start(self.text, comment.start);
        self.text[line..comment.start].trim_matches([' ', '\t', '-']).is_empty()
    }

    /// Where the comments of one gap belong, or the one behind a value, and whether that is certain.
    fn places(&self, comments: &[Range<usize>], gap: &Gap<'_, 'n>) -> Vec<(Place, bool)> {
        let at = comments[0].start;
        let all = |place, certain| vec![(place, certain); comments.len()];
        let Some(inner) = gap.previous else { return self.at_the_top(comments, gap) };
        let previous = self.out_of_brackets(inner);
        if previous.column.is_none() || (self.is_in_brackets(previous.value) && previous.value.span.end > at)
        {
            return all(self.inside_brackets(inner, at, gap), false);
        }
        // In a key that is a collection.
        if previous.named > at {
            return all(previous.before(), false);
        }
        if !self.is_alone(&comments[0]) {
            return all(self.behind(previous, at), !previous.is_open_at(at) || previous.is_bare_at(at));
        }
        if self.text[gap.from..at].contains('-') {
            return self.below_a_dash(comments, gap);
        }
        if previous.is_open_at(at)
            && gap.next.is_none_or(|next| next.parent != std::ptr::from_ref(previous.value))
            && !previous.value.span.is_empty()
        {
            return all(previous.before(), false);
        }
        self.in_a_gap(comments, previous, gap)
    }

    /// Of comments on lines of their own, in no brackets, behind `previous`.
    fn in_a_gap(
        &self,
        comments: &[Range<usize>],
        previous: &Child<'n>,
        gap: &Gap<'_, 'n>,
    ) -> Vec<(Place, bool)> {
        let at = comments[0].start;
        let is_open = previous.is_open_at(at);
        let roles = self.roles(comments, previous, gap.from);
        let feet = roles.iter().enumerate().filter(|(at, (role, first))| *role != Role::Head && at == first);
        // What is beside an item that is nothing slips to what comes later, and of several feet some are lost.
        let uncertain = (is_open && (previous.is_item || !previous.is_bare_at(at))) || feet.count() > 1;
        let columns: Vec<_> = comments.iter().map(|comment| self.column_of(comment.start)).collect();
        let place = |(role, first): (Role, usize)| {
            let column = Some(columns[first]).filter(|column| !columns[..first].contains(column));
            let (place, certain) = self.place(role, column, previous, gap);
            (place, certain && !uncertain)
        };
        roles.into_iter().map(place).collect()
    }

    /// Before all that a document holds.
    fn at_the_top(&self, comments: &[Range<usize>], gap: &Gap<'_, 'n>) -> Vec<(Place, bool)> {
        let root = &self.stream.documents[gap.document];
        // What is right below the marker of a document and above an empty line comes behind the first key.
        let marker = self.text[..comments[0].start].trim_end().ends_with("---");
        let blank = comments.iter().any(|comment| self.behind_it(comment).0);
        vec![((std::ptr::from_ref(root), 0), !(marker && blank)); comments.len()]
    }

    /// A comment on the line of a value: of the value, but of what is in it where that is a collection of a mapping in
    /// brackets, or one whose anchor or tag stands before the comment.
    fn behind(&self, previous: &Child<'n>, at: usize) -> Place {
        let in_brackets = self.is_in_brackets(previous.value) && !previous.is_item;
        let is_collection = matches!(previous.value.kind, Kind::Mapping(_) | Kind::Sequence(_));
        if in_brackets || (is_collection && !previous.is_bare_at(at)) {
            (std::ptr::from_ref(previous.value), 0)
        } else {
            previous.before()
        }
    }

    fn inside_brackets(&self, inner: &Child<'n>, at: usize, gap: &Gap<'_, 'n>) -> Place {
        if self.is_alone(&(at..at))
            && let Some(next) = gap.next.filter(|next| next.column.is_none())
        {
            return next.before();
        }
        // Of the collections that end on this line, it belongs to the outermost.
        let line = line_start(self.text, at);
        let mut place = inner.before();
        let mut child = Some(inner);
        while let Some(closed) = child {
            if self.is_in_brackets(closed.value)
                && closed.value.span.end <= at
                && closed.value.span.end > line
            {
                place = (std::ptr::from_ref(closed.value), 0);
            }
            child = closed.around.map(|around| &self.children[around]);
        }
        place
    }

    /// Between a `-` and what it begins.
    fn below_a_dash(&self, comments: &[Range<usize>], gap: &Gap<'_, 'n>) -> Vec<(Place, bool)> {
        let Some(item) = gap.next.filter(|next| next.is_item) else {
            return vec![(self.end_of(gap.document), false); comments.len()];
        };
        let is_plain = |comment: &Range<usize>| {
            !self.behind_it(comment).0
                && item.column.is_some_and(|column| self.column_of(comment.start) > column)
        };
        let certain = comments.iter().all(is_plain);
        let inner = std::ptr::from_ref(item.value);
        let (place, first) = match &item.value.kind {
            Kind::Mapping(_) if !self.is_in_brackets(item.value) => ((inner, 0), item.value),
            Kind::Sequence(items) if !self.is_in_brackets(item.value) => {
                ((inner, 0), items.first().unwrap_or(item.value))
            }
            _ => (item.before(), item.value),
        };
        let place = (place, certain && !first.span.is_empty());
        vec![place; comments.len()]
    }

    /// The roles of comments on lines of their own, each with the first of the comments that go with it. `from` is where
    /// what is before them ends.
    fn roles(&self, comments: &[Range<usize>], previous: &Child<'n>, from: usize) -> Vec<(Role, usize)> {
        let indent = previous.column.unwrap_or(0);
        let is_open = previous.is_open_at(comments[0].start);
        let mut is_near = self.text[from..comments[0].start].matches('\n').count() <= 1;
        let mut roles = Vec::with_capacity(comments.len());
        let mut foot = Role::Foot;
        for (at, comment) in comments.iter().enumerate() {
            let first = roles.len();
            let column = self.column_of(comments[first].start);
            let (blank, next) = self.behind_it(comment);
            let next = next.unwrap_or_else(|| self.column_of_document(previous.document));
            let dedented = column < indent;
            if blank && is_near && (dedented || (first == 0 && !is_open)) {
                let role = if dedented { Role::Dedented } else { foot };
                roles.resize(at + 1, (role, first));
                foot = Role::Dedented;
            } else if next < indent && next != column {
                roles.resize(at + 1, (foot, first));
                foot = Role::Dedented;
            }
            is_near &= !blank;
        }
        let first = roles.len();
        roles.resize(comments.len(), (Role::Head, first));
        roles
    }

    /// `column` is theirs, where no comment before them in the gap has it.
    fn place(
        &self,
        role: Role,
        column: Option<usize>,
        previous: &Child<'n>,
        gap: &Gap<'_, 'n>,
    ) -> (Place, bool) {
        let next = || match gap.next {
            Some(next) => (next.before(), !(next.is_item && next.value.span.is_empty())),
            None => (self.end_of(gap.document), true),
        };
        match role {
            Role::Head => next(),
            Role::Foot => (previous.after(), !previous.is_open_at(gap.from)),
            Role::Dedented => {
                let left = gap
                    .next
                    .map_or_else(|| self.column_of_document(gap.document), |next| next.column.unwrap_or(0));
                let column = column.filter(|column| *column > left);
                match column.and_then(|column| self.enclosing(previous, column)) {
                    Some(closed) => (closed.after(), !closed.is_item),
                    None => (next().0, gap.next.is_none_or(|next| !next.is_item && next.index > 0)),
                }
            }
        }
    }

    /// The child whose collection has this column, around `child` or itself.
    fn enclosing<'c>(&'c self, child: &'c Child<'n>, column: usize) -> Option<&'c Child<'n>> {
        let mut around = Some(child);
        while let Some(child) = around.filter(|child| child.column != Some(column)) {
            around = child.around.map(|around| &self.children[around]);
        }
        around
    }

    /// Whether an empty line is behind a comment, and the column of what comes then; `None` at the end of the document.
    fn behind_it(&self, comment: &Range<usize>) -> (bool, Option<usize>) {
        let rest = &self.text[comment.end..];
        let next = comment.end + rest.len() - rest.trim_start().len();
        let blank = self.text[comment.end..next].matches('\n').count() > 1;
        (blank, (next < self.text.len()).then(|| self.column_of(next)))
    }

    /// Of the mapping at the top.
    fn column_of_document(&self, document: usize) -> usize {
        self.children
            .iter()
            .find(|child| child.document == document)
            .and_then(|child| child.column)
            .unwrap_or(0)
    }

    fn end_of(&self, document: usize) -> Place {
        let root = &self.stream.documents[document];
        (std::ptr::from_ref(root), root.entries().len())
    }

    /// The child itself, or the one around it that is in no brackets.
    fn out_of_brackets<'c>(&'c self, child: &'c Child<'n>) -> &'c Child<'n> {
        let mut out = child;
        while let (None, Some(around)) = (out.column, out.around) {
            out = &self.children[around];
        }
        out
    }

    fn is_in_brackets(&self, node: &Node) -> bool {
        matches!(node.kind, Kind::Mapping(_) | Kind::Sequence(_))
            && self.text[node.span.clone()].starts_with(['{', '['])
    }

    fn column_of(&self, at: usize) -> usize {
        at - line_start(self.text, at)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Format, parse};

    /// Each comment with the keys that lead to its collection, what it comes before, and a `?` where that is not certain.
    fn places(text: &str) -> Vec<String> {
        fn name(node: &Node, path: &str, comments: &Comments, text: &str, found: &mut Vec<(usize, String)>) {
            for comment in comments.get(&std::ptr::from_ref(node)).into_iter().flatten() {
                let doubt = if comment.certain { "" } else { "?" };
                let words = &text[comment.span.start + 1..comment.span.end];
                found.push((comment.span.start, format!("{words}: {path}{}{doubt}", comment.before)));
            }
            match &node.kind {
                Kind::Mapping(entries) => {
                    for (key, value) in entries {
                        name(
                            value,
                            &format!("{path}{}/", key.text().unwrap_or_default()),
                            comments,
                            text,
                            found,
                        );
                    }
                }
                Kind::Sequence(items) => {
                    for item in items {
                        name(item, &format!("{path}-/"), comments, text, found);
                    }
                }
                Kind::Scalar { .. } | Kind::Alias(_) => {}
            }
        }
        let stream = parse(text, Format::Yaml).unwrap();
        let comments = attribute(text, &stream);
        let mut found = Vec::new();
        for root in &stream.documents {
            name(root, "", &comments, text, &mut found);
        }
        found.sort();
        found.into_iter().map(|(_, place)| place).collect()
    }

    #[test]
    fn a_comment_is_where_go_yaml_has_it() {
        for (text, expected) in [
            (
                "#top\n\na: 1 #of a\n#of b\nb: #of all of b\n  c: 2\n",
                "top: 0, of a: 0, of b: 1, of all of b: 1",
            ),
            ("a:\n  b: 1\n  #foot\nc: 2\n", "foot: a/1"),
            ("a:\n  b: 1\n#head\nc: 2\n", "head: 1"),
            ("a:\n  b:\n    c: 1\n  #between\nd: 2\n", "between: a/b/1"),
            ("a:\n  b:\n    c: 1\n  #between\n\nd: 2\n", "between: a/1"),
            ("a:\n- b\n#foot\n\nc: 2\n", "foot: a/1"),
            ("a:\n- b\n#head\nc: 2\n", "head: 1"),
            ("a:\n- #of b\n  b: 1\n- #of c\n  c\n", "of b: a/-/0, of c: a/1"),
            ("a: [1, 2] #in a\nb:\n- {c: 1} #of the item\n", "in a: a/0, of the item: b/0"),
            ("a:\n  b: 1\n#one\n\n#two\nc: 2\n", "one: 1, two: 1"),
            ("a: 1\n#end\n---\n#top\nb: 2\n", "end: 1, top: 0"),
        ] {
            assert_eq!(places(text).join(", "), expected, "{text}");
        }
    }

    #[test]
    fn where_more_decides_than_is_known_here_the_place_is_not_certain() {
        for text in [
            "a: [1,\n  #in brackets\n  2]\n",
            "? - a\n  #in a key\n  - b\n: c\n",
            "a:\n-\n#at nothing\n- 1\n",
            "a: &x #behind an anchor\n  b: 1\n",
            "a:\n  #before a value\n  1\n",
            "a:\n  b: 1\n  #one foot\n\n  #another\nc: 1\n",
            "a: 1\n---\n#below a marker\n\nb: 1\n",
            "a:\n  b: 1\n #before an item\n\n  c:\n  - d: 1\n #and another\n\n  - e\n",
        ] {
            assert!(places(text).iter().any(|place| place.ends_with('?')), "{text}: {:?}", places(text));
        }
    }
}
