//! What is taken out of a text: the `sops` block of every document, and comments that stand as items of a list.

use std::ops::Range;

use crate::document::edit::Edits;
use crate::document::{Node, Stream};
use crate::secret::Secret;

/// A `sops` block and what stands there when it is gone.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) span: Range<usize>,
    pub(super) instead: &'static str,
}

/// The blocks of all documents, in order.
pub(super) fn blocks(text: &str, stream: &Stream) -> Vec<Block> {
    let mut blocks = Vec::new();
    for document in &stream.documents {
        let entries = document.entries();
        let only = entries.len() == 1;
        for (index, (key, value)) in entries.iter().enumerate() {
            if key.text() != Some("sops") {
                continue;
            }
            let flow = text.as_bytes().get(document.span.start) == Some(&b'{');
            blocks.push(if flow {
                let next = entries.get(index + 1).map(|(key, _)| key.start());
                let previous = index.checked_sub(1).map(|index| entries[index].1.span.end);
                Block { span: in_flow(key.start()..value.span.end, previous, next), instead: "" }
            } else {
                Block {
                    span: lines(text, key.start()..value.span.end),
                    instead: if only { "{}\n" } else { "" },
                }
            });
        }
    }
    blocks
}

/// An entry of a flow collection with the comma that goes with it.
pub(super) fn in_flow(entry: Range<usize>, previous: Option<usize>, next: Option<usize>) -> Range<usize> {
    match (previous, next) {
        (_, Some(next)) => entry.start..next,
        (Some(previous), None) => previous..entry.end,
        (None, None) => entry,
    }
}

/// The whole lines of an entry of a block mapping, with a `?` before its key.
fn lines(text: &str, entry: Range<usize>) -> Range<usize> {
    let line_start = text[..entry.start].rfind('\n').map_or(0, |newline| newline + 1);
    let indent = text[line_start..entry.start].trim_end_matches([' ', '\t']);
    let indent = indent.strip_suffix('?').unwrap_or(indent).trim_end_matches([' ', '\t']);
    let start = if indent.is_empty() { line_start } else { line_start + indent.len() + 1 };
    let end = text[entry.end..].find('\n').map_or(text.len(), |newline| entry.end + newline + 1);
    start.min(entry.start)..end
}

/// Turns the items of `list` that are comments, by index, into comments of the text.
///
/// In a flow list they go. `None`: one stands where only a person would have put it.
pub(super) fn comments(
    text: &str,
    list: &Range<usize>,
    items: &[Node],
    comments: &[(usize, Secret<String>)],
    edits: &mut Edits,
) -> Option<()> {
    if text.as_bytes().get(list.start) == Some(&b'[') {
        flow_comments(list, items, comments, edits);
        return Some(());
    }
    let all = comments.len() == items.len();
    for (nth, (index, comment)) in comments.iter().enumerate() {
        let item = &items[*index];
        let before = text[..item.start()].trim_end_matches([' ', '\t', '\r', '\n']);
        let dash = before.strip_suffix('-')?.len();
        let mut line = comment_line(comment);
        if all && nth == 0 {
            line.expose_mut().insert_str(0, "[] ");
        }
        edits.replace_span(dash..item.span.end, line);
    }
    Some(())
}

fn flow_comments(
    list: &Range<usize>,
    items: &[Node],
    comments: &[(usize, Secret<String>)],
    edits: &mut Edits,
) {
    let is_comment = |index: usize| comments.binary_search_by_key(&index, |(index, _)| *index).is_ok();
    let mut index = 0;
    while index < items.len() {
        if !is_comment(index) {
            index += 1;
            continue;
        }
        let first = index;
        while index < items.len() && is_comment(index) {
            index += 1;
        }
        edits.cut(match (first.checked_sub(1), items.get(index)) {
            (None, None) => list.start + 1..list.end - 1,
            (previous, next) => in_flow(
                items[first].start()..items[index - 1].span.end,
                previous.map(|previous| items[previous].span.end),
                next.map(Node::start),
            ),
        });
    }
}

/// `#` and the comment, on one line and without what YAML does not take for printable.
pub(super) fn comment_line(comment: &Secret<String>) -> Secret<String> {
    let text = comment.expose();
    let mut line = Secret::new(String::with_capacity(text.len() + "[] #".len()));
    line.expose_mut().push('#');
    let visible = |c: char| match c {
        '\t' => c,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    line.expose_mut().extend(text.chars().map(visible));
    line
}
