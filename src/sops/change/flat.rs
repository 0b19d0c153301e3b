//! Changing the text of dotenv and INI.

use std::ops::Range;

use super::{ChangeError, Changed};
use crate::document::edit::{Edits, push};
use crate::document::value::Value;
use crate::secret::Secret;
use crate::sops::flat::{Flat, Leaf, Parsed};
use crate::sops::path::{Step, TreePath};
use crate::sops::{dotenv, ini};

pub(super) fn set(text: &str, flat: Flat, path: &TreePath, value: &Value) -> Result<Changed, ChangeError> {
    let mut place = Place::of(flat, path, 0)?;
    let (Some(section), None, Value::Mapping(entries)) = (place.section, place.key, value) else {
        place.key.ok_or_else(|| ChangeError::NotText { path: path.to_string() })?;
        let written = text_of(value).ok_or_else(|| ChangeError::NotText { path: path.to_string() })?;
        let changed = put(text, flat, place, &written)?;
        return Ok(Changed::of(&changed, changed.expose() != text));
    };
    // A section as a whole: keys that it is not to have go, others are put.
    let mut changed = Secret::new(text.to_owned());
    let unwanted = keys(&parse(text, flat)?, section);
    for key in unwanted.iter().filter(|key| entries.iter().all(|(name, _)| name != *key)) {
        place.key = Some(key);
        changed = take(changed.expose(), flat, place)?.unwrap_or(changed);
    }
    for (key, value) in entries {
        let written = text_of(value).ok_or_else(|| ChangeError::NotText { path: path.to_string() })?;
        changed = put(changed.expose(), flat, Place { key: Some(key), ..place }, &written)?;
    }
    Ok(Changed::of(&changed, changed.expose() != text))
}

pub(super) fn unset(text: &str, flat: Flat, path: &TreePath) -> Result<Changed, ChangeError> {
    let place = Place::of(flat, path, path.steps().len())?;
    let missing = || ChangeError::Missing { path: path.to_string() };
    let changed = match (place.section, place.key) {
        (_, Some(_)) => take(text, flat, place)?.ok_or_else(missing)?,
        (Some(section), None) => {
            let header = header(text, &parse(text, flat)?, section).ok_or_else(missing)?;
            let mut changed = Secret::new(text.to_owned());
            for key in keys(&parse(text, flat)?, section) {
                changed =
                    take(changed.expose(), flat, Place { key: Some(&key), ..place })?.unwrap_or(changed);
            }
            // Nothing before the header has moved.
            let mut edits = Edits::default();
            edits.cut(header.start..header.end.min(changed.expose().len()));
            edits.apply(changed.expose())?
        }
        (None, None) => return Err(missing()),
    };
    Ok(Changed::of(&changed, true))
}

/// Which value.
#[derive(Clone, Copy)]
struct Place<'p> {
    /// The whole path, for errors.
    path: &'p TreePath,
    section: Option<&'p str>,
    /// `None`: all of the section.
    key: Option<&'p str>,
}

impl<'p> Place<'p> {
    fn of(flat: Flat, path: &'p TreePath, depth: usize) -> Result<Self, ChangeError> {
        let mut names = Vec::new();
        for (at, step) in path.steps().iter().enumerate() {
            match step {
                Step::Key(name) => names.push(name.as_str()),
                Step::Index(_) => {
                    return Err(ChangeError::Kind { path: path.up_to(at + 1), kind: "a mapping" });
                }
            }
        }
        let place = |section, key| Ok(Self { path, section, key });
        match (flat, names.as_slice()) {
            (Flat::Dotenv, [name, ..]) if name.starts_with("sops_") => Err(ChangeError::Metadata),
            (Flat::Dotenv, [name]) => place(None, Some(*name)),
            (Flat::Ini, [section]) => place(Some(*section), None),
            (Flat::Ini, [section, key]) => place(Some(*section), Some(*key)),
            _ if depth > 0 => Err(ChangeError::Missing { path: path.to_string() }),
            _ => Err(ChangeError::NotText { path: path.to_string() }),
        }
    }

    fn is(&self, leaf: &Leaf<'_>) -> bool {
        leaf.section == self.section && leaf.key.is_some() && leaf.key.as_deref() == self.key
    }
}

fn parse(text: &str, flat: Flat) -> Result<Parsed<'_>, ChangeError> {
    let parsed = match flat {
        Flat::Dotenv => dotenv::parse(text),
        Flat::Ini => ini::parse(text),
    };
    parsed.map_err(ChangeError::Flat)
}

/// What a scalar is in a format that has only text.
fn text_of(value: &Value) -> Option<Secret<String>> {
    match value {
        Value::String(_) | Value::Bool(_) | Value::Number(_) => Some(value.to_text()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

fn keys(parsed: &Parsed<'_>, section: &str) -> Vec<String> {
    let leaves = parsed.leaves.iter().filter(|leaf| leaf.section == Some(section));
    leaves.filter_map(|leaf| leaf.key.as_deref().map(str::to_owned)).collect()
}

/// Puts `value` in the place of the first such key, or behind what is there.
fn put(
    text: &str,
    flat: Flat,
    place: Place<'_>,
    value: &Secret<String>,
) -> Result<Secret<String>, ChangeError> {
    let parsed = parse(text, flat)?;
    let mut edits = Edits::default();
    let written = match flat {
        Flat::Dotenv => dotenv::escaped(value.expose()),
        Flat::Ini => ini::quoted(value.expose()),
    };
    let index = parsed.leaves.iter().position(|leaf| place.is(leaf));
    if let Some(leaf) = index.map(|index| &parsed.leaves[index]) {
        edits.replace_span(leaf.span.clone(), written);
    } else {
        let key = place.key.unwrap_or_default();
        let mut line = Secret::new(match flat {
            Flat::Dotenv => format!("{key}="),
            Flat::Ini => format!("{key} = "),
        });
        push(&mut line, written.expose());
        push(&mut line, "\n");
        let (at, before) = end_of(text, &parsed, place.section);
        let mut lines = Secret::new(before);
        push(&mut lines, line.expose());
        edits.replace_span(at..at, lines);
    }
    let changed = edits.apply(text)?;
    faithful(&parsed, &changed, flat, place, index, Some(value.expose()))?;
    Ok(changed)
}

/// Takes the line out that has the key, and those that its value goes on in.
fn take(text: &str, flat: Flat, place: Place<'_>) -> Result<Option<Secret<String>>, ChangeError> {
    let parsed = parse(text, flat)?;
    let index = parsed.leaves.iter().position(|leaf| place.is(leaf));
    let Some(leaf) = index.map(|index| &parsed.leaves[index]) else { return Ok(None) };
    let mut edits = Edits::default();
    edits.cut(line_start(text, leaf.span.start)..next_line(text, leaf.span.end));
    let changed = edits.apply(text)?;
    faithful(&parsed, &changed, flat, place, index, None)?;
    Ok(Some(changed))
}

/// Sees that nothing changed but what was to change.
fn faithful(
    before: &Parsed<'_>,
    after: &Secret<String>,
    flat: Flat,
    place: Place<'_>,
    index: Option<usize>,
    value: Option<&str>,
) -> Result<(), ChangeError> {
    let unwritable = || ChangeError::Unwritable { path: place.path.to_string() };
    let after = parse(after.expose(), flat).map_err(|_| unwritable())?;
    let pair = |leaf: &Leaf<'_>| {
        let key = leaf.key.as_deref()?;
        Some((leaf.section.map(str::to_owned), key.to_owned(), leaf.value.clone()))
    };
    let others = before.leaves.iter().enumerate().filter(|(at, _)| Some(*at) != index);
    let mut others: Vec<_> = others.filter_map(|(_, leaf)| pair(leaf)).collect();
    let mut rest: Vec<_> = after.leaves.iter().filter_map(pair).collect();
    if let Some(value) = value {
        let is = |(section, key, found): &(Option<String>, String, Secret<String>)| {
            section.as_deref() == place.section && Some(key.as_str()) == place.key && found.expose() == value
        };
        let at = rest.iter().position(is).ok_or_else(unwritable)?;
        rest.remove(at);
    }
    others.sort_by(|a, b| (&a.0, &a.1, a.2.expose()).cmp(&(&b.0, &b.1, b.2.expose())));
    rest.sort_by(|a, b| (&a.0, &a.1, a.2.expose()).cmp(&(&b.0, &b.1, b.2.expose())));
    if others == rest && after.metadata.is_empty() && after.cuts.is_empty() {
        Ok(())
    } else {
        Err(unwritable())
    }
}

/// Where a new key of the section goes, and what has to stand before it.
fn end_of(text: &str, parsed: &Parsed<'_>, section: Option<&str>) -> (usize, String) {
    let line_break = |at: usize| if at == 0 || text[..at].ends_with('\n') { "" } else { "\n" };
    let Some(section) = section else { return (text.len(), line_break(text.len()).to_owned()) };
    let last = parsed.leaves.iter().rfind(|leaf| leaf.section == Some(section) && leaf.key.is_some());
    let at = match last {
        Some(last) => Some(next_line(text, last.span.end)),
        None => header(text, parsed, section).map(|header| header.end),
    };
    match at {
        Some(at) => (at, line_break(at).to_owned()),
        None if section == ini::FIRST => (0, String::new()),
        None => {
            let blank = if text.is_empty() || text.ends_with("\n\n") { "" } else { "\n" };
            (text.len(), format!("{}{blank}[{section}]\n", line_break(text.len())))
        }
    }
}

/// The line that begins a section.
fn header(text: &str, parsed: &Parsed<'_>, section: &str) -> Option<Range<usize>> {
    let mut at = 0;
    while at < text.len() {
        let line = at..next_line(text, at);
        let inside = parsed.leaves.iter().any(|leaf| leaf.span.start < at && at < leaf.span.end);
        let content = text[line.clone()].trim();
        let name = content.strip_prefix('[').and_then(|rest| Some(&rest[..rest.rfind(']')?]));
        if !inside && name == Some(section) {
            return Some(line);
        }
        at = line.end;
    }
    None
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn next_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}
