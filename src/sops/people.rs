//! How a text is written where a person is to edit it: without quotes where none are needed, and many lines as lines.

use crate::document::Node;
use crate::document::edit::{push, word};
use crate::secret::Secret;

/// Of a block, below the key or dash.
const STEP: usize = 4;

/// `value` in the place of `node`, an item or value of `around`; `None`: in quotes.
pub(super) fn written(text: &str, around: &Node, node: &Node, value: &str) -> Option<Secret<String>> {
    if text[around.span.clone()].starts_with(['{', '[']) {
        return None;
    }
    if !value.contains('\n') {
        return Some(word(value));
    }
    let line = |at: usize| text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let alone = text[node.span.end..].starts_with('\n') || text[node.span.end..].starts_with("\r\n");
    let behind_key = !text[line(node.span.start)..node.span.start].trim().is_empty();
    if !alone || !behind_key || !is_block(value) {
        return None;
    }
    let margin = " ".repeat(text[line(around.span.start)..around.span.start].chars().count() + STEP);
    let (value, header) = value.strip_suffix('\n').map_or((value, "|-"), |value| (value, "|"));
    let mut block = Secret::new(header.to_owned());
    for line in value.split('\n') {
        push(&mut block, "\n");
        push(&mut block, if line.is_empty() { "" } else { &margin });
        push(&mut block, line);
    }
    Some(block)
}

/// Whether a literal block reads back as it is in every version of YAML.
fn is_block(value: &str) -> bool {
    let printable = |c: char| match c {
        '\n' | '\t' => true,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    };
    !value.starts_with(['\n', ' ', '\t']) && !value.ends_with("\n\n") && value.chars().all(printable)
}
