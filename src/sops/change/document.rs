//! Changing the text of YAML and JSON.

use std::ops::Range;

use super::{ChangeError, Changed, tree};
use crate::document::edit::{Edits, push, quote_into, word};
use crate::document::value::Value;
use crate::document::{Format, Kind, Node, Position, Style, parse};
use crate::secret::Secret;
use crate::sops::cut;
use crate::sops::path::{Step, TreePath};
use crate::sops::seal::Indent;

pub(super) fn set(
    text: &str,
    format: Format,
    path: &TreePath,
    value: &Value,
    indent: Indent,
) -> Result<Changed, ChangeError> {
    let stream = parse(text, format)?;
    let root = stream.documents.first();
    let before = root.map_or(Ok(Value::Null), tree::tree)?;
    let mut after = before.clone();
    tree::set(&mut after, path, value)?;
    let step = root.and_then(|root| step(text, root)).or(indent.yaml).unwrap_or(4);
    let mut surgery = Surgery { text, format, path, step, edits: Edits::default() };
    match root {
        None => surgery.edits.replace_span(text.len()..text.len(), lines(&after, step, 0)),
        Some(root) => surgery.set(root, value)?,
    }
    finish(surgery.edits, text, format, &before, &after)
}

pub(super) fn unset(text: &str, format: Format, path: &TreePath) -> Result<Changed, ChangeError> {
    let stream = parse(text, format)?;
    let missing = || ChangeError::Missing { path: path.up_to(1) };
    let root = stream.documents.first().ok_or_else(missing)?;
    let before = tree::tree(root)?;
    let mut after = before.clone();
    tree::unset(&mut after, path)?;
    let mut surgery = Surgery { text, format, path, step: 0, edits: Edits::default() };
    surgery.unset(root)?;
    finish(surgery.edits, text, format, &before, &after)
}

/// Applies the edits, and sees that the first document then says `after`.
fn finish(
    edits: Edits,
    text: &str,
    format: Format,
    before: &Value,
    after: &Value,
) -> Result<Changed, ChangeError> {
    let changed = edits.apply(text)?;
    let stream = parse(changed.expose(), format).map_err(|_| ChangeError::Unfaithful)?;
    let said = stream.documents.first().map(tree::tree).ok_or(ChangeError::Unfaithful)?;
    if said? != *after {
        return Err(ChangeError::Unfaithful);
    }
    Ok(Changed::of(&changed, before != after))
}

/// By how much the first nested mapping in lines is indented.
fn step(text: &str, root: &Node) -> Option<usize> {
    let nested = |value: &Node| matches!(value.kind, Kind::Mapping(_)) && !is_flow(text, value);
    let mut nested = root.entries().iter().map(|(_, value)| value).filter(|value| nested(value));
    nested.next().map(|value| column(text, value.span.start)).filter(|column| (1..=16).contains(column))
}

/// How the value that is changed hangs in the text.
#[derive(Clone, Copy)]
enum Hold<'n> {
    /// It is the document.
    Root,
    /// In braces or brackets.
    Flow,
    /// Behind a key.
    Key(&'n Node),
    /// Behind a dash.
    Dash(usize),
}

struct Surgery<'a> {
    text: &'a str,
    format: Format,
    path: &'a TreePath,
    /// Blanks of one level.
    step: usize,
    edits: Edits,
}

impl<'a> Surgery<'a> {
    /// Follows the path as far as it leads: the last node, what holds it, and how many steps led there.
    fn follow(&self, root: &'a Node, steps: &[Step]) -> Result<(&'a Node, Hold<'a>, usize), ChangeError> {
        let (mut node, mut hold) = (root, Hold::Root);
        for (depth, step) in steps.iter().enumerate() {
            let flow = is_flow(self.text, node);
            (node, hold) = match (&node.kind, step) {
                (Kind::Mapping(entries), Step::Key(key)) => {
                    let found = entries.iter().find(|(name, _)| name.text() == Some(key));
                    let Some((name, value)) = found else { return Ok((node, hold, depth)) };
                    (value, if flow { Hold::Flow } else { Hold::Key(name) })
                }
                (Kind::Sequence(items), Step::Index(index)) if *index < items.len() => {
                    let held = if flow { Hold::Flow } else { Hold::Dash(self.dash(node, items, *index)?) };
                    (&items[*index], held)
                }
                _ => return Ok((node, hold, depth)),
            };
            if let Kind::Alias(_) = node.kind {
                return Err(self.form(node, depth + 1, "an alias"));
            }
        }
        Ok((node, hold, steps.len()))
    }

    fn set(&mut self, root: &'a Node, value: &Value) -> Result<(), ChangeError> {
        let steps = self.path.steps();
        let (node, hold, depth) = self.follow(root, steps)?;
        let collection = matches!(node.kind, Kind::Mapping(_) | Kind::Sequence(_));
        if depth == steps.len() || !collection || is_empty(node) {
            // A scalar or an empty collection on the way is replaced by what is below it.
            return self.replace(node, hold, &tree::nested(&steps[depth..], value), depth);
        }
        let value = tree::nested(&steps[depth + 1..], value);
        let entry = match &steps[depth] {
            Step::Key(key) => Value::Mapping(vec![(key.clone(), value)]),
            Step::Index(_) => Value::Sequence(vec![value]),
        };
        if is_flow(self.text, node) {
            self.append_in_flow(node, &entry);
        } else {
            self.append(node, &entry);
        }
        Ok(())
    }

    fn unset(&mut self, root: &'a Node) -> Result<(), ChangeError> {
        let Some((step, before)) = self.path.steps().split_last() else { return Err(ChangeError::Whole) };
        let (node, hold, depth) = self.follow(root, before)?;
        let flow = is_flow(self.text, node);
        if is_single(node) && !(flow && matches!(hold, Hold::Root | Hold::Flow)) {
            let empty = match node.kind {
                Kind::Mapping(_) => Value::Mapping(Vec::new()),
                _ => Value::Sequence(Vec::new()),
            };
            return self.replace(node, hold, &empty, depth);
        }
        let spans: Vec<Range<usize>> = match &node.kind {
            Kind::Mapping(entries) => {
                entries.iter().map(|(key, value)| key.start()..value.span.end.max(key.span.end)).collect()
            }
            Kind::Sequence(items) if flow => items.iter().map(|item| item.start()..item.span.end).collect(),
            Kind::Sequence(items) => {
                let span = |index| Ok(self.dash(node, items, index)?..items[index].span.end);
                (0..items.len()).map(span).collect::<Result<_, ChangeError>>()?
            }
            Kind::Scalar { .. } | Kind::Alias(_) => Vec::new(),
        };
        let index = match (&node.kind, step) {
            (Kind::Mapping(entries), Step::Key(key)) => {
                entries.iter().position(|(name, _)| name.text() == Some(key))
            }
            (_, Step::Index(index)) => Some(*index),
            _ => None,
        };
        let at = index.filter(|index| *index < spans.len()).ok_or(ChangeError::Unfaithful)?;
        let cut = if flow {
            let previous = at.checked_sub(1).map(|at| spans[at].end);
            match cut::in_flow(spans[at].clone(), previous, spans.get(at + 1).map(|next| next.start)) {
                // The only one: with a comma behind it.
                whole if spans.len() == 1 => whole.start..node.span.end - 1,
                cut => cut,
            }
        } else {
            self.lines_of(&spans[at])
        };
        self.edits.cut(cut);
        Ok(())
    }

    /// The lines of an entry, or of an item with its dash; only itself where something stands before it.
    fn lines_of(&self, span: &Range<usize>) -> Range<usize> {
        let start = line_start(self.text, span.start);
        let end = (line_end(self.text, span.end) + 1).min(self.text.len());
        if matches!(self.text[start..span.start].trim(), "" | "?") {
            return start..end;
        }
        // What comes next takes its place behind the dash, be it a comment or the next entry.
        let rest = &self.text[end..];
        span.start..end + (rest.len() - rest.trim_start().len())
    }

    fn replace(
        &mut self,
        node: &'a Node,
        hold: Hold<'a>,
        value: &Value,
        depth: usize,
    ) -> Result<(), ChangeError> {
        let plain = !is_collection(value);
        match hold {
            Hold::Root | Hold::Flow if self.format == Format::Json || matches!(hold, Hold::Flow) => {
                let written = self.flow(value, node.span.start);
                self.edits.replace(node, written);
            }
            Hold::Root | Hold::Flow => {
                self.edits.replace_span(node.span.clone(), unended(lines(value, self.step, 0)));
            }
            Hold::Dash(dash) => {
                let mut written = Secret::new("- ".to_owned());
                let below = lines_behind(value, self.step, column(self.text, dash) + 2);
                push(&mut written, unended(below).expose());
                self.edits.replace_span(dash..node.span.end.max(dash + 1), written);
            }
            Hold::Key(key) => {
                let colon = self.colon(key, depth)?;
                let margin = column(self.text, key.start()) + self.step;
                let line = line_end(self.text, colon);
                let below = |written: &mut Secret<String>| {
                    push(written, "\n");
                    push(written, unended(lines(value, self.step, margin)).expose());
                };
                let mut behind = Secret::new(":".to_owned());
                if node.span.start > line && !matches!(node.kind, Kind::Scalar { .. }) {
                    // A collection in lines below its key, which may have a comment, a tag and an anchor behind it.
                    let properties = node.tag().map(|tag| tag.span.clone());
                    let properties = properties.into_iter().chain(node.anchor().map(|a| a.span.clone()));
                    properties.for_each(|span| self.edits.cut(span));
                    let mut instead = Secret::default();
                    if plain {
                        push(&mut behind, " ");
                        push(&mut behind, one_line(value).expose());
                        self.edits.replace_span(colon - 1..colon, behind);
                    } else {
                        below(&mut instead);
                    }
                    self.edits.replace_span(line..node.span.end, instead);
                } else if plain {
                    push(&mut behind, " ");
                    push(&mut behind, one_line(value).expose());
                    self.edits.replace_span(colon - 1..node.span.end.max(colon), behind);
                } else {
                    let end = line_end(self.text, node.span.end.max(colon));
                    let comment = self.text[node.span.end.max(colon)..end].trim_end();
                    push(&mut behind, if comment.is_empty() { "" } else { " " });
                    push(&mut behind, comment.trim_start());
                    below(&mut behind);
                    self.edits.replace_span(colon - 1..end, behind);
                }
            }
        }
        Ok(())
    }

    /// Behind the colon of a key.
    fn colon(&self, key: &Node, depth: usize) -> Result<usize, ChangeError> {
        let rest = &self.text[key.span.end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let colon = key.span.end + blanks + 1;
        let explicit = self.text[line_start(self.text, key.start())..key.start()].trim_end().ends_with('?');
        if explicit || self.text.as_bytes().get(colon - 1) != Some(&b':') {
            return Err(self.form(key, depth, "a `?`"));
        }
        Ok(colon)
    }

    /// Where the dash of an item stands.
    fn dash(&self, list: &Node, items: &[Node], index: usize) -> Result<usize, ChangeError> {
        let column = column(self.text, list.span.start);
        let Some(previous) = index.checked_sub(1).map(|index| &items[index]) else {
            return Ok(list.span.start);
        };
        let mut at = line_end(self.text, previous.span.end) + 1;
        while at < self.text.len() && at <= items[index].span.end {
            let dash = at + column;
            let blank = self.text.get(at..dash).is_some_and(|margin| margin.bytes().all(|byte| byte == b' '));
            if blank && self.text.as_bytes().get(dash) == Some(&b'-') {
                return Ok(dash);
            }
            at = line_end(self.text, at) + 1;
        }
        Err(self.form(&items[index], self.path.steps().len(), "a dash that is not found"))
    }

    /// Puts an entry or an item behind the last line of a collection in lines.
    fn append(&mut self, node: &Node, entry: &Value) {
        let margin = column(self.text, node.span.start);
        let next_line = |at: usize| (line_end(self.text, at) + 1).min(self.text.len());
        let mut at = next_line(node.span.end);
        // Empty lines at the end of a block scalar may belong to it.
        while ends_in_block(node) && at < self.text.len() && self.text[at..next_line(at)].trim().is_empty() {
            at = next_line(at);
        }
        let mut written = Secret::new(if self.text[..at].ends_with('\n') { "" } else { "\n" }.to_owned());
        push(&mut written, lines(entry, self.step, margin).expose());
        self.edits.replace_span(at..at, written);
    }

    /// The same in braces or brackets, in the layout that they have.
    fn append_in_flow(&mut self, node: &Node, entry: &Value) {
        let (first, last) = match &node.kind {
            Kind::Mapping(entries) => (
                entries.first().map(|(key, _)| key.start()),
                entries.last().map(|(key, value)| value.span.end.max(key.span.end)),
            ),
            Kind::Sequence(items) => (items.first().map(Node::start), items.last().map(|item| item.span.end)),
            Kind::Scalar { .. } | Kind::Alias(_) => (None, None),
        };
        let (Some(first), Some(last)) = (first, last) else { return };
        let line = line_start(self.text, first);
        let margin = &self.text[line..first];
        let own_line = line > node.span.start && margin.trim().is_empty();
        let mut written = Secret::new(if own_line { format!(",\n{margin}") } else { ", ".to_owned() });
        match entry {
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    quote_into(&mut written, key);
                    push(&mut written, ": ");
                    push(&mut written, self.flow(value, first).expose());
                }
            }
            Value::Sequence(items) => {
                for item in items {
                    push(&mut written, self.flow(item, first).expose());
                }
            }
            _ => {}
        }
        self.edits.replace_span(last..last, written);
    }

    /// A value in braces, in lines where the document is.
    fn flow(&self, value: &Value, at: usize) -> Secret<String> {
        let line = line_start(self.text, at);
        let rest = &self.text[line..];
        let margin = &rest[..rest.len() - rest.trim_start_matches([' ', '\t']).len()];
        let unit = self.unit();
        if unit.is_empty() || !is_collection(value) {
            return value.to_flow();
        }
        let mut written = Secret::default();
        pretty(value, unit, margin, &mut written);
        written
    }

    /// Of one level of JSON in lines; nothing where it is on one line.
    fn unit(&self) -> &'a str {
        let Some(inside) = self.text.trim_start().strip_prefix('{') else { return "" };
        let Some((_, second)) = inside.split_once('\n').filter(|(first, _)| first.trim().is_empty()) else {
            return "";
        };
        let unit = &second[..second.len() - second.trim_start_matches([' ', '\t']).len()];
        if second[unit.len()..].starts_with('}') { "\t" } else { unit }
    }

    fn form(&self, node: &Node, depth: usize, what: &'static str) -> ChangeError {
        let line = Position::of(self.text, node.start()).line;
        ChangeError::Form { line, path: self.path.up_to(depth), what }
    }
}

fn is_flow(text: &str, node: &Node) -> bool {
    matches!(node.kind, Kind::Mapping(_) | Kind::Sequence(_))
        && text[node.span.clone()].starts_with(['{', '['])
}

fn is_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::Mapping(entries) => entries.is_empty(),
        Kind::Sequence(items) => items.is_empty(),
        Kind::Scalar { .. } | Kind::Alias(_) => false,
    }
}

fn is_single(node: &Node) -> bool {
    match &node.kind {
        Kind::Mapping(entries) => entries.len() == 1,
        Kind::Sequence(items) => items.len() == 1,
        Kind::Scalar { .. } | Kind::Alias(_) => false,
    }
}

/// Whether the last thing in it is a block scalar.
fn ends_in_block(node: &Node) -> bool {
    match &node.kind {
        Kind::Mapping(entries) => entries.last().is_some_and(|(_, value)| ends_in_block(value)),
        Kind::Sequence(items) => items.last().is_some_and(ends_in_block),
        Kind::Scalar { style, .. } => matches!(style, Style::Literal | Style::Folded),
        Kind::Alias(_) => false,
    }
}

fn is_collection(value: &Value) -> bool {
    match value {
        Value::Mapping(entries) => !entries.is_empty(),
        Value::Sequence(items) => !items.is_empty(),
        _ => false,
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Where the line break of the line of `at` stands, or the text ends.
fn line_end(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    text[at..].find('\n').map_or(text.len(), |newline| at + newline)
}

fn column(text: &str, at: usize) -> usize {
    text[line_start(text, at)..at].chars().count()
}

/// A value behind a key or dash of YAML.
fn one_line(value: &Value) -> Secret<String> {
    match value {
        Value::String(text) => word(text.expose()),
        other => other.to_flow(),
    }
}

/// YAML in lines whose keys stand behind `margin` blanks.
fn lines(value: &Value, step: usize, margin: usize) -> Secret<String> {
    let mut written = Secret::default();
    let margin = " ".repeat(margin);
    block(value, step, &margin, &margin, &mut written);
    written
}

/// The same, but for the margin of the first line.
fn lines_behind(value: &Value, step: usize, margin: usize) -> Secret<String> {
    let mut written = Secret::default();
    block(value, step, "", &" ".repeat(margin), &mut written);
    written
}

fn block(value: &Value, step: usize, first: &str, margin: &str, out: &mut Secret<String>) {
    let before = |nth: usize| if nth == 0 { first } else { margin };
    match value {
        Value::Mapping(entries) if !entries.is_empty() => {
            for (nth, (key, value)) in entries.iter().enumerate() {
                push(out, before(nth));
                push(out, word(key).expose());
                push(out, ":");
                if is_collection(value) {
                    let inner = format!("{margin}{}", " ".repeat(step));
                    push(out, "\n");
                    block(value, step, &inner, &inner, out);
                } else {
                    push(out, " ");
                    block(value, step, "", "", out);
                }
            }
        }
        Value::Sequence(items) if !items.is_empty() => {
            for (nth, item) in items.iter().enumerate() {
                push(out, before(nth));
                push(out, "- ");
                block(item, step, "", &format!("{margin}  "), out);
            }
        }
        other => {
            push(out, first);
            push(out, one_line(other).expose());
            push(out, "\n");
        }
    }
}

/// Without the last line break.
fn unended(mut lines: Secret<String>) -> Secret<String> {
    if lines.expose().ends_with('\n') {
        lines.expose_mut().pop();
    }
    lines
}

/// JSON in lines, of a value whose own line is indented by `margin`.
fn pretty(value: &Value, unit: &str, margin: &str, out: &mut Secret<String>) {
    let inner = format!("{margin}{unit}");
    let begin = |nth: usize, open: &'static str, out: &mut Secret<String>| {
        push(out, if nth == 0 { open } else { ",\n" });
        push(out, &inner);
    };
    match value {
        Value::Mapping(entries) if !entries.is_empty() => {
            for (nth, (key, value)) in entries.iter().enumerate() {
                begin(nth, "{\n", out);
                quote_into(out, key);
                push(out, ": ");
                pretty(value, unit, &inner, out);
            }
            push(out, &format!("\n{margin}}}"));
        }
        Value::Sequence(items) if !items.is_empty() => {
            for (nth, item) in items.iter().enumerate() {
                begin(nth, "[\n", out);
                pretty(item, unit, &inner, out);
            }
            push(out, &format!("\n{margin}]"));
        }
        other => push(out, other.to_flow().expose()),
    }
}
