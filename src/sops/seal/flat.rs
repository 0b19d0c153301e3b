//! Sealing dotenv and INI.

use std::ops::Range;

use super::{SealError, Sealing, block};
use crate::document::Position;
use crate::document::edit::{Edits, push};
use crate::secret::Secret;
use crate::sops::cipher::Opened;
use crate::sops::flat::{Flat, Leaf, Parsed};
use crate::sops::mac::Mac;
use crate::sops::rules::{CommentRule, Reach, Rule};
use crate::sops::{dotenv, ini};

pub(super) fn seal(text: &str, flat: Flat, sealing: &Sealing<'_>) -> Result<Secret<String>, SealError> {
    let parsed = match flat {
        Flat::Dotenv => dotenv::parse(text),
        Flat::Ini => ini::parse(text),
    };
    let parsed = parsed.map_err(SealError::Flat)?;
    if !parsed.metadata.is_empty() || !parsed.cuts.is_empty() {
        return Err(SealError::Encrypted);
    }
    let stated = sealing.rule();
    let items = items(&parsed, text, flat);
    let mut walk = Walk {
        sealing,
        rule: stated.rule(),
        by_comment: stated.comments(),
        active: Vec::new(),
        section: None,
        edits: Edits::default(),
        mac: sealing.mac(),
    };
    for item in &items {
        walk.item(item, flat).map_err(|error| named(error, text, item.leaf))?;
    }
    let metadata = sealing.metadata(Some(&stated), walk.mac)?;
    attach(text, flat, &metadata, walk.edits)
}

/// Puts the metadata behind `text`.
pub(super) fn attach(
    text: &str,
    flat: Flat,
    metadata: &serde_json::Value,
    mut edits: Edits,
) -> Result<Secret<String>, SealError> {
    let mut end = if text.is_empty() || text.ends_with('\n') { String::new() } else { "\n".to_owned() };
    end += &match flat {
        Flat::Dotenv => lines(metadata, flat),
        Flat::Ini => format!("\n[sops]\n{}", lines(metadata, flat)),
    };
    edits.replace_span(text.len()..text.len(), Secret::new(end));
    Ok(edits.apply(text)?)
}

/// A value or a comment as sops sees it.
struct Item<'p> {
    leaf: &'p Leaf<'p>,
    /// A comment, if it is one.
    comment: Option<Secret<String>>,
    /// Where it stands, with its sign.
    span: Range<usize>,
    /// What else it stands for, behind a value.
    behind: Option<Range<usize>>,
}

/// To sops the comment of an INI key follows the key, and what stands behind the value is a part of it.
fn items<'p>(parsed: &'p Parsed<'p>, text: &str, flat: Flat) -> Vec<Item<'p>> {
    let mut items: Vec<Item<'p>> = Vec::new();
    let mut behind = parsed.behind.iter().peekable();
    for (index, leaf) in parsed.leaves.iter().enumerate() {
        let comment = leaf.key.is_none().then(|| leaf.value.clone());
        let item = Item { leaf, comment, span: leaf.span.clone(), behind: None };
        let Some(_) = leaf.key.as_ref().filter(|_| flat == Flat::Ini) else {
            items.push(item);
            continue;
        };
        let heads = |last: &mut Item<'_>| {
            let between = text.get(last.leaf.span.end..leaf.span.start);
            let follows = index.checked_sub(1).is_some_and(|before| parsed.leaves[before].key.is_none());
            follows && between.is_some_and(|between| !between.contains("\n["))
        };
        let mut head = items.pop_if(heads);
        items.push(item);
        if let Some((_, span)) = behind.next_if(|(of, _)| *of == index) {
            let line = text[..leaf.span.start].rfind('\n').map_or(0, |newline| newline + 1);
            let own = || Item { leaf, comment: Some(Secret::default()), span: line..line, behind: None };
            let joined = head.get_or_insert_with(own);
            joined.behind = Some(leaf.span.end..span.end);
            if let Some(comment) = &mut joined.comment {
                let sign = if comment.expose().is_empty() { "" } else { "\n; " };
                push(comment, sign);
                push(comment, text[span.clone()].trim_start_matches([';', '#', ' ']));
            }
        }
        items.extend(head);
    }
    items
}

/// INI has its `=` below one another, as go-ini writes a section.
fn lines(metadata: &serde_json::Value, flat: Flat) -> String {
    let fields = block::flattened(metadata);
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let line = |(name, value): &(String, String)| match flat {
        Flat::Dotenv => format!("sops_{name}={}\n", value.replace('\n', "\\n")),
        Flat::Ini => format!("{name:width$} = {}\n", value.replace('\n', "\\n")),
    };
    fields.iter().map(line).collect()
}

fn named(error: SealError, text: &str, leaf: &Leaf<'_>) -> SealError {
    let SealError::Cipher(reason) = error else { return error };
    let keys: Vec<&str> = leaf.section.into_iter().chain(leaf.key.as_deref()).collect();
    let line = Position::of(text, leaf.span.start).line;
    SealError::Value { line, path: keys.join("."), reason: reason.into() }
}

struct Walk<'a> {
    sealing: &'a Sealing<'a>,
    rule: Rule,
    by_comment: Option<CommentRule>,
    /// Comments of this section since its last key.
    active: Vec<&'a str>,
    section: Option<&'a str>,
    edits: Edits,
    mac: Mac,
}

impl<'a> Walk<'a> {
    fn item(&mut self, item: &'a Item<'a>, flat: Flat) -> Result<(), SealError> {
        let leaf = item.leaf;
        if self.section != leaf.section {
            self.active.clear();
            self.section = leaf.section;
        }
        if let Some(comment) = &item.comment {
            return self.comment(item, comment, flat);
        }
        let (value, covered) = (leaf.value.expose(), self.covers(leaf, false));
        self.mac.take(value.as_bytes(), covered);
        self.active.clear();
        if covered && !value.is_empty() {
            let plaintext = Opened::Text(Secret::new(value.as_bytes().to_vec()));
            let sealed = self.sealing.cipher.seal(&plaintext, &leaf.path())?;
            self.edits.replace_span(leaf.span.clone(), Secret::new(sealed));
        }
        Ok(())
    }

    fn comment(&mut self, item: &Item<'a>, text: &'a Secret<String>, flat: Flat) -> Result<(), SealError> {
        self.active.push(text.expose());
        if !self.covers(item.leaf, true) || text.expose().is_empty() {
            return Ok(());
        }
        let path = item.leaf.section.map_or_else(|| ":".to_owned(), |section| format!("{section}:"));
        let sealed = self.sealing.cipher.seal(&Opened::Comment(text.clone()), &path)?;
        if self.by_comment.as_ref().is_some_and(|rule| rule.matches(&sealed)) {
            return Err(SealError::CommentRule);
        }
        let (sign, end) =
            (if flat == Flat::Ini { "; " } else { "#" }, if item.span.is_empty() { "\n" } else { "" });
        self.edits.replace_span(item.span.clone(), Secret::new(format!("{sign}{sealed}{end}")));
        if let Some(behind) = &item.behind {
            self.edits.cut(behind.clone());
        }
        Ok(())
    }

    fn covers(&self, leaf: &Leaf<'_>, is_comment: bool) -> bool {
        let keys = leaf.section.into_iter().chain(leaf.key.as_deref().filter(|_| !is_comment));
        match &self.by_comment {
            Some(rule) => rule.covers(std::slice::from_ref(&self.active), is_comment),
            None => {
                self.rule.covers(keys.fold(Reach::default(), |reach, key| self.rule.below(reach, key)), "")
            }
        }
    }
}
