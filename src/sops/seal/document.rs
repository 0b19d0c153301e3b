//! Sealing YAML and JSON, in the order of the text. Aliases are written out, as sops does.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::comments::{self, Comment, Comments};
use super::{Indent, SealError, Sealing, block};
use crate::document::edit::{Edits, push, quote};
use crate::document::scalar::{self, Scalar};
use crate::document::{Format, Kind, Node, Position, Stream, Style, parse};
use crate::secret::Secret;
use crate::sops::cipher::Opened;
use crate::sops::mac::Mac;
use crate::sops::open::ValueError;
use crate::sops::rules::{CommentRule, Reach, Rule};
use crate::sops::walk::plaintext;

/// Collections in collections that are walked. Nobody nests as deep by hand.
const MAX_DEPTH: usize = 200;
/// How many nodes aliases may repeat.
const MAX_EXPANDED: usize = 200_000;

pub(super) fn seal(text: &str, format: Format, sealing: &Sealing<'_>) -> Result<Secret<String>, SealError> {
    let stream = parse(text, format)?;
    if stream.documents.is_empty() {
        return Err(SealError::Empty);
    }
    if stream.documents.iter().any(|root| root.at("sops").is_some()) {
        return Err(SealError::Encrypted);
    }
    let stated = sealing.rule();
    let anchors = stream.anchors();
    let mut walk = Walk {
        text,
        format,
        sealing,
        rule: stated.rule(),
        by_comment: stated.comments(),
        anchors: &anchors,
        comments: comments::attribute(text, &stream),
        active: Vec::new(),
        mac: sealing.mac(),
        edits: Edits::default(),
        path: String::new(),
        depth: 0,
        expanded: 0,
        matched: false,
        first: true,
    };
    for root in &stream.documents {
        walk.document(root)?;
    }
    let Walk { mac, edits, .. } = walk;
    let metadata = sealing.metadata(Some(&stated), mac)?;
    enclose(text, &stream, &metadata, sealing.envelope.indent, edits)
}

/// Puts the metadata behind the values of every document of `text`.
pub(super) fn attach(
    text: &str,
    format: Format,
    metadata: &serde_json::Value,
    indent: Indent,
    edits: Edits,
) -> Result<Secret<String>, SealError> {
    enclose(text, &parse(text, format)?, metadata, indent, edits)
}

fn enclose(
    text: &str,
    stream: &Stream,
    metadata: &serde_json::Value,
    indent: Indent,
    mut edits: Edits,
) -> Result<Secret<String>, SealError> {
    for index in 0..stream.documents.len() {
        insert(text, stream, index, metadata, indent, &mut edits);
    }
    Ok(edits.apply(text)?)
}

/// Where the document ends whose content ends at `from`: before the next marker, or at `to` at the latest.
pub(super) fn end_of(text: &str, from: usize, to: usize) -> usize {
    let mut at = from;
    for line in text[from..to].split_inclusive('\n') {
        let starts_line = at == 0 || text.as_bytes()[at - 1] == b'\n';
        if starts_line && (line.starts_with("---") || line.starts_with("...")) && at > 0 {
            return at;
        }
        at += line.len();
    }
    to
}

/// Puts the metadata behind the values of one document.
fn insert(
    text: &str,
    stream: &Stream,
    index: usize,
    metadata: &serde_json::Value,
    indent: Indent,
    edits: &mut Edits,
) {
    let root = &stream.documents[index];
    let entries = root.entries();
    if text[root.span.clone()].starts_with('{') {
        return insert_in_braces(text, root, metadata, edits);
    }
    let to = stream.documents.get(index + 1).map_or(text.len(), Node::start);
    let end = end_of(text, root.span.end, to);
    if entries.is_empty() {
        // `null`, in whatever spelling.
        edits.cut(root.span.clone());
    }
    let margin = entries
        .first()
        .map_or(0, |(key, _)| key.start() - text[..key.start()].rfind('\n').map_or(0, |newline| newline + 1));
    let margin = if margin_is_blank(text, entries, margin) { " ".repeat(margin) } else { String::new() };
    let lines = block::yaml(metadata, indent.yaml.unwrap_or(4), &margin);
    let starts_line = end == 0 || text.as_bytes()[end - 1] == b'\n';
    let lines = if starts_line { lines } else { format!("\n{lines}") };
    edits.replace_span(end..end, Secret::new(lines));
}

fn margin_is_blank(text: &str, entries: &[(Node, Node)], margin: usize) -> bool {
    entries.first().is_some_and(|(key, _)| text[key.start() - margin..key.start()].bytes().all(|b| b == b' '))
}

/// The same in a mapping in braces, in the layout that it has.
fn insert_in_braces(text: &str, root: &Node, metadata: &serde_json::Value, edits: &mut Edits) {
    let close = root.span.end - 1;
    let Some((key, _)) = root.entries().first() else {
        let inside = format!("\n\t\"sops\": {}\n", block::json(metadata, "\t", 1));
        edits.replace_span(root.span.start + 1..close, Secret::new(inside));
        return;
    };
    let last = root.entries().last().map_or(close, |(key, value)| key.span.end.max(value.span.end));
    let comma = if text[last..close].trim_start().starts_with(',') { "" } else { "," };
    let line = text[..key.start()].rfind('\n').map_or(0, |newline| newline + 1);
    let step = &text[line..key.start()];
    if step.is_empty() || !step.trim().is_empty() || line <= root.span.start {
        let entry = format!("{comma} \"sops\": {}", block::json(metadata, "", 0));
        edits.replace_span(close..close, Secret::new(entry));
        return;
    }
    let entry = format!("\n{step}\"sops\": {}", block::json(metadata, step, 1));
    edits.replace_span(last..last, Secret::new(comma.to_owned()));
    // Behind a comment that follows the last value.
    let behind = text[last..close].trim_end().len() + last;
    edits.replace_span(behind..behind, Secret::new(entry));
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place {
    /// In brackets.
    flow: bool,
    /// How much of the path leads to the collection around it.
    outer: usize,
    /// Of that collection.
    around: Reach,
}

struct Walk<'a> {
    text: &'a str,
    format: Format,
    sealing: &'a Sealing<'a>,
    rule: Rule,
    by_comment: Option<CommentRule>,
    anchors: &'a HashMap<usize, &'a Node>,
    comments: Comments,
    /// Comments since the last value, in each collection on the way.
    active: Vec<Vec<&'a str>>,
    mac: Mac,
    edits: Edits,
    /// Keys on the way, each with a `:` behind it.
    path: String,
    depth: usize,
    expanded: usize,
    /// A comment was met that the rule speaks of.
    matched: bool,
    first: bool,
}

impl<'a> Walk<'a> {
    /// An empty document is nothing but its comments.
    fn document(&mut self, root: &'a Node) -> Result<(), SealError> {
        match &root.kind {
            Kind::Mapping(_) => {}
            _ if scalar::of(root) == Some(Scalar::Null) => {}
            _ => return Err(SealError::Root { line: Position::of(self.text, root.span.start).line }),
        }
        self.collection(root, Reach::default())?;
        self.first = false;
        Ok(())
    }

    /// A collection where it stands.
    fn collection(&mut self, node: &'a Node, reach: Reach) -> Result<(), SealError> {
        self.enter()?;
        let flow = self.text[node.span.clone()].starts_with(['{', '[']);
        let mut comments =
            self.comments.remove(&std::ptr::from_ref(node)).unwrap_or_default().into_iter().peekable();
        let mut keys = HashSet::new();
        for index in 0..children(node) {
            while let Some(comment) = comments.next_if(|comment| comment.before <= index) {
                self.comment(&comment, reach)?;
            }
            let outer = self.path.len();
            let (value, below) = match &node.kind {
                Kind::Mapping(entries) => {
                    let (key, value) = &entries[index];
                    (value, self.key(key, reach, &mut keys)?)
                }
                Kind::Sequence(items) => (&items[index], reach),
                Kind::Scalar { .. } | Kind::Alias(_) => break,
            };
            self.value(value, below, Place { flow, outer, around: reach })?;
            self.path.truncate(outer);
            self.passed();
        }
        for comment in comments {
            self.comment(&comment, reach)?;
        }
        self.leave();
        Ok(())
    }

    fn enter(&mut self) -> Result<(), SealError> {
        self.depth += 1;
        self.active.push(Vec::new());
        if self.depth > MAX_DEPTH { Err(SealError::Deep { limit: MAX_DEPTH }) } else { Ok(()) }
    }

    /// Comments before a value reach no further than to its end.
    fn passed(&mut self) {
        if let Some(active) = self.active.last_mut() {
            active.clear();
        }
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.active.pop();
    }

    /// Goes below a key.
    fn key(&mut self, key: &'a Node, reach: Reach, seen: &mut HashSet<&'a str>) -> Result<Reach, SealError> {
        let node = self.target(key)?;
        let (Some(Scalar::Str), Some(name)) = (scalar::of(node), node.text()) else {
            return Err(self.error(key, ValueError::Key));
        };
        self.path.push_str(name);
        self.path.push(':');
        if self.first && self.format == Format::Yaml && !seen.insert(name) {
            return Err(self.error(key, ValueError::Duplicate));
        }
        if let Kind::Alias(_) = key.kind {
            self.edits.replace(key, quote(name));
        }
        Ok(self.rule.below(reach, name))
    }

    fn target(&self, node: &'a Node) -> Result<&'a Node, SealError> {
        match &node.kind {
            Kind::Alias(id) => {
                self.anchors.get(id).copied().ok_or_else(|| self.error(node, ValueError::Expands))
            }
            _ => Ok(node),
        }
    }

    fn value(&mut self, node: &'a Node, reach: Reach, place: Place) -> Result<(), SealError> {
        match &node.kind {
            Kind::Alias(_) => {
                let mut written = Secret::default();
                self.write_out(node, reach, &mut written)?;
                self.edits.replace(node, written);
                Ok(())
            }
            Kind::Scalar { value, style } => self.scalar(node, value.expose(), *style, reach, place),
            Kind::Sequence(_) | Kind::Mapping(_) => self.collection(node, reach),
        }
    }

    fn scalar(
        &mut self,
        node: &'a Node,
        value: &str,
        style: Style,
        reach: Reach,
        place: Place,
    ) -> Result<(), SealError> {
        let block = matches!(style, Style::Literal | Style::Folded);
        let comment = if block { self.header_comment(node, place)? } else { None };
        let behind = comment.as_ref().map_or_else(String::new, |(_, comment)| format!(" {comment}"));
        match self.leaf(node, value, reach)? {
            Some(sealed) => {
                let sealed = if place.flow { format!("\"{sealed}\"") } else { sealed };
                self.edits.replace(node, Secret::new(sealed + &behind));
            }
            // What is put behind it would end its last line.
            None if block && node.span.end == self.text.len() => {
                let mut written = quote(value);
                push(&mut written, &behind);
                self.edits.replace(node, written);
            }
            None => {
                if let Some((span, comment)) = comment {
                    self.edits.replace_span(span, Secret::new(comment));
                }
            }
        }
        Ok(())
    }

    /// The comment behind the `|` or `>` of a block, and what it becomes. It belongs to what is around the block.
    fn header_comment(
        &mut self,
        node: &'a Node,
        place: Place,
    ) -> Result<Option<(Range<usize>, String)>, SealError> {
        let header = self.text[node.span.clone()].lines().next().unwrap_or_default();
        let Some((before, comment)) = header.split_once('#') else { return Ok(None) };
        let sealed = self.take_comment(comment, place.around, place.outer)?;
        let start = node.span.start + before.len();
        let written = format!("#{}", sealed.as_deref().unwrap_or(comment));
        Ok(Some((start..node.span.start + header.len(), written)))
    }

    /// Takes a scalar into the MAC, and seals it where the rule says so.
    fn leaf(&mut self, node: &'a Node, value: &str, reach: Reach) -> Result<Option<String>, SealError> {
        let kind = scalar::of(node).unwrap_or(Scalar::Str);
        if kind == Scalar::Null {
            return Ok(None);
        }
        let plain = plaintext(&kind, value, self.format).map_err(|reason| self.error(node, reason))?;
        let covered = self.covers(reach, false);
        self.mac.take(&plain.bytes(), covered);
        if !covered || plain.bytes().is_empty() {
            return Ok(None);
        }
        let sealed = self.sealing.cipher.seal(&plain, &self.path);
        sealed.map(Some).map_err(|reason| self.error(node, reason.into()))
    }

    fn covers(&self, reach: Reach, is_comment: bool) -> bool {
        match &self.by_comment {
            Some(rule) => rule.covers(&self.active, is_comment),
            None => self.rule.covers(reach, ""),
        }
    }

    fn comment(&mut self, comment: &Comment, reach: Reach) -> Result<(), SealError> {
        let text = &self.text[comment.span.start + 1..comment.span.end];
        let text = text.strip_suffix('\r').unwrap_or(text);
        if !comment.certain && self.by_comment.as_ref().is_some_and(|rule| rule.matches(text)) {
            let line = Position::of(self.text, comment.span.start).line;
            return Err(SealError::UncertainComment { line });
        }
        if let Some(sealed) = self.take_comment(text, reach, self.path.len())? {
            let span = comment.span.start..comment.span.start + 1 + text.len();
            self.edits.replace_span(span, Secret::new(format!("#{sealed}")));
        }
        Ok(())
    }

    /// Lets a comment count for what follows it, and seals it where the rule says so. It belongs to the collection that
    /// so much of the path leads to.
    fn take_comment(
        &mut self,
        text: &'a str,
        reach: Reach,
        path: usize,
    ) -> Result<Option<String>, SealError> {
        if let Some(active) = self.active.last_mut() {
            active.push(text);
        }
        self.matched |= self.by_comment.as_ref().is_some_and(|rule| rule.matches(text));
        if text.is_empty() || !self.covers(reach, true) {
            return Ok(None);
        }
        let plain = Opened::Comment(Secret::new(text.to_owned()));
        let sealed = self.sealing.cipher.seal(&plain, &self.comment_path(path))?;
        if self.by_comment.as_ref().is_some_and(|rule| rule.matches(&sealed)) {
            return Err(SealError::CommentRule);
        }
        Ok(Some(sealed))
    }

    fn comment_path(&self, length: usize) -> String {
        if length == 0 { ":".to_owned() } else { self.path[..length].to_owned() }
    }

    /// What an alias stands for, on one line.
    fn write_out(&mut self, node: &'a Node, reach: Reach, out: &mut Secret<String>) -> Result<(), SealError> {
        self.expanded += 1;
        if self.expanded > MAX_EXPANDED {
            return Err(self.error(node, ValueError::Expands));
        }
        let (alias, node) = (node, self.target(node)?);
        if let Kind::Scalar { value, .. } = &node.kind {
            let written = self.leaf(node, value.expose(), reach)?;
            let written = written.map_or_else(|| self.as_it_is(node, value), |sealed| quote(&sealed));
            push(out, written.expose());
            return Ok(());
        }
        // sops repeats the comments of what is repeated.
        if self.matched {
            return Err(SealError::UncertainComment { line: Position::of(self.text, alias.span.start).line });
        }
        self.enter()?;
        let (open, close) = if let Kind::Mapping(_) = node.kind { ("{", "}") } else { ("[", "]") };
        push(out, open);
        let mut keys = HashSet::new();
        for index in 0..children(node) {
            push(out, if index == 0 { "" } else { ", " });
            let outer = self.path.len();
            let (value, below) = match &node.kind {
                Kind::Mapping(entries) => {
                    let (key, value) = &entries[index];
                    let below = self.key_of_copy(key, reach, &mut keys, out)?;
                    (value, below)
                }
                Kind::Sequence(items) => (&items[index], reach),
                Kind::Scalar { .. } | Kind::Alias(_) => break,
            };
            self.write_out(value, below, out)?;
            self.path.truncate(outer);
            self.passed();
        }
        push(out, close);
        self.leave();
        Ok(())
    }

    fn key_of_copy(
        &mut self,
        key: &'a Node,
        reach: Reach,
        seen: &mut HashSet<&'a str>,
        out: &mut Secret<String>,
    ) -> Result<Reach, SealError> {
        let node = self.target(key)?;
        let below = self.key(node, reach, seen)?;
        let name = node.text().unwrap_or_default();
        // A merge key in quotes would be none.
        let merge = name == "<<" && matches!(node.kind, Kind::Scalar { style: Style::Plain, .. });
        push(out, if merge { Secret::new("<<".to_owned()) } else { quote(name) }.expose());
        push(out, ": ");
        Ok(below)
    }

    /// A scalar that stays plain, as a value in brackets.
    fn as_it_is(&self, node: &Node, value: &Secret<String>) -> Secret<String> {
        match scalar::of(node) {
            Some(Scalar::Null) => Secret::new("null".to_owned()),
            Some(Scalar::Binary) => {
                let digits: String = value.expose().split_ascii_whitespace().collect();
                Secret::new(format!("!!binary \"{digits}\""))
            }
            Some(Scalar::Str) | None => quote(value.expose()),
            Some(_) => match node.tag() {
                Some(tag) => Secret::new(format!("{} {}", &self.text[tag.span.clone()], value.expose())),
                None => value.clone(),
            },
        }
    }

    fn error(&self, node: &Node, reason: ValueError) -> SealError {
        let path: String = self.path.trim_end_matches(':').escape_debug().take(200).collect();
        SealError::Value { line: Position::of(self.text, node.span.start).line, path, reason }
    }
}

fn children(node: &Node) -> usize {
    match &node.kind {
        Kind::Mapping(entries) => entries.len(),
        Kind::Sequence(items) => items.len(),
        // So that the comments of an empty document are seen.
        Kind::Scalar { .. } | Kind::Alias(_) => 0,
    }
}
