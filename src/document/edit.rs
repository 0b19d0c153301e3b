//! Replacing some bytes of a text and leaving all others as they are.

use std::ops::Range;

use zeroize::Zeroize;

use super::Node;
use super::scalar::{self, Scalar};
use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// Replacements in one text, in any order.
#[derive(Debug, Default)]
pub struct Edits(Vec<Edit>);

#[derive(Debug)]
struct Edit {
    span: Range<usize>,
    text: Secret<String>,
}

impl Edits {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts `text` in the place of a node's content, be it a key or a value. `text` stands on one line, such as
    /// what [`super::value::Value::to_flow`] gives.
    ///
    /// An anchor stays. A tag goes, because it was about what stood there: `!!str ref+…` may become a number.
    pub fn replace(&mut self, node: &Node, text: Secret<String>) {
        if let Some(tag) = node.tag() {
            self.cut(tag.span.clone());
        }
        // What ended the anchor's name may go with the content: a byte order mark, or nothing at all.
        if node.anchor().is_some_and(|anchor| anchor.span.end == node.span.start) {
            self.replace_span(node.span.start..node.span.start, Secret::new(" ".to_owned()));
        }
        self.replace_span(node.span.clone(), text);
    }

    /// Puts `text` in the place of `span`.
    pub fn replace_span(&mut self, span: Range<usize>, text: Secret<String>) {
        self.0.push(Edit { span, text });
    }

    /// Takes `span` out.
    pub fn cut(&mut self, span: Range<usize>) {
        self.replace_span(span, Secret::default());
    }

    /// The edited text.
    pub fn apply(mut self, text: &str) -> Result<Secret<String>, EditError> {
        self.0.sort_by_key(|edit| (edit.span.start, edit.span.end));
        // The size is known before, so that no half-built secret is left behind by growing.
        let size = text.len() + self.0.iter().map(|edit| edit.text.expose().len() + 1).sum::<usize>();
        let mut edited = Secret::new(String::with_capacity(size));
        let mut at = 0;
        for edit in &self.0 {
            let kept = text.get(at..edit.span.start).ok_or(EditError { at: edit.span.start })?;
            let out = edited.expose_mut();
            out.push_str(kept);
            // An absent value stands right behind its `:` or `-`.
            if edit.span.is_empty() && out.ends_with([':', '-', '?']) {
                out.push(' ');
            }
            out.push_str(edit.text.expose());
            at = edit.span.end;
        }
        edited.expose_mut().push_str(text.get(at..).ok_or(EditError { at })?);
        Ok(edited)
    }
}

/// Two edits of the same bytes, or of bytes that the text does not have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("edits overlap at byte {at}")]
pub struct EditError {
    /// Where.
    pub at: usize,
}

impl Fault for EditError {
    fn class(&self) -> Class {
        Class::Internal
    }
}

/// `text` in double quotes on one line, the same to every reader of YAML 1.1, YAML 1.2 and JSON.
///
/// Everything that libyaml does not take for printable, and every line break it knows, is escaped.
pub fn quote(text: &str) -> Secret<String> {
    let mut quoted = Secret::new(String::with_capacity(text.len() + 2 + text.len() / 8));
    quote_into(&mut quoted, text);
    quoted
}

/// Appends [`quote`] of `text`.
pub fn quote_into(quoted: &mut Secret<String>, text: &str) {
    push(quoted, "\"");
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let escape = match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => format!("\\u{:04x}", u32::from(c)),
            _ => continue,
        };
        push(quoted, &text[plain..at]);
        push(quoted, &escape);
        plain = at + c.len_utf8();
    }
    push(quoted, &text[plain..]);
    push(quoted, "\"");
}

/// `text` on one line of a block collection of YAML, in double quotes where it must be.
pub fn word(text: &str) -> Secret<String> {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_./+=:,[]-$^()|@ ".contains(c);
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_^(./$".contains(c))
        && text.chars().all(harmless)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && scalar::plain(text) == Scalar::Str
        && !["y", "n", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str());
    if plain { Secret::new(text.to_owned()) } else { quote(text) }
}

/// Appends, and wipes the old bytes where the text has to move to grow.
pub fn push(text: &mut Secret<String>, more: &str) {
    let old = text.expose_mut();
    if old.capacity() - old.len() < more.len() {
        let mut grown = String::with_capacity((old.len() + more.len()) * 2);
        grown.push_str(old);
        std::mem::swap(old, &mut grown);
        grown.zeroize();
    }
    text.expose_mut().push_str(more);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Format, parse};
    use super::*;

    #[test]
    fn edits_apply_in_the_text_order_and_keep_the_rest() {
        let mut edits = Edits::default();
        edits.replace_span(4..5, Secret::new("Y".to_owned()));
        edits.cut(0..2);
        assert_eq!(edits.apply("ab: x # c").unwrap().expose(), ": Y # c");
    }

    #[test]
    fn overlapping_edits_are_a_defect() {
        let mut edits = Edits::default();
        edits.cut(0..2);
        edits.cut(1..3);
        let error = edits.apply("abcd").unwrap_err();
        assert_eq!((error.to_string().as_str(), error.class()), ("edits overlap at byte 1", Class::Internal));
        let mut edits = Edits::default();
        edits.cut(3..9);
        assert!(edits.apply("abcd").is_err());
    }

    proptest! {
        #[test]
        fn a_quoted_text_reads_back_in_both_formats(text in any::<String>()) {
            let quoted = quote(&text);
            prop_assert!(!quoted.expose().contains(|c: char| c.is_control()));
            for format in [Format::Yaml, Format::Json] {
                let stream = parse(quoted.expose(), format).unwrap();
                prop_assert_eq!(stream.documents[0].text(), Some(text.as_str()));
            }
        }
    }
}
