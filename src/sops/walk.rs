//! The walk over the values of a file, in document order: opens each, feeds the MAC, notes the edit.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::cipher::{Cipher, Opened, is_sealed};
use super::cut::{self, Block};
use super::mac::Mac;
use super::metadata::Metadata;
use super::open::{SopsError, ValueError};
use super::people;
use super::rules::{Reach, Rule};
use crate::document::edit::{Edits, quote};
use crate::document::scalar::{self, Scalar};
use crate::document::{Format, Kind, MAX_DEPTH, Node, Position, Stream};
use crate::secret::Secret;

/// How many nodes aliases may repeat. sops writes none, so a file that has some was edited by hand.
const MAX_EXPANDED: usize = 200_000;
/// How many bytes of paths are hashed. Long keys above many values would multiply.
const MAX_HASHED: usize = 1 << 27;
/// How many characters of a path an error shows.
const SHOWN: usize = 200;
/// A comment belongs to one of few mappings around it; which one, only its tag can tell.
const COMMENT_TRIES: usize = 32;

pub(super) struct Walk<'a> {
    text: &'a str,
    format: Format,
    cipher: &'a Cipher,
    rule: &'a Rule,
    anchors: &'a HashMap<usize, &'a Node>,
    mac: Mac,
    edits: Edits,
    leaves: Vec<Secret<String>>,
    /// Keys on the way, each with a `:` behind it, as values are sealed to them.
    path: String,
    /// Keys and indexes on the way, for errors.
    trail: Vec<Step<'a>>,
    /// Encrypted comments that are still ahead, last first.
    comments: Vec<Range<usize>>,
    /// The path of the last value, whose mapping a comment behind it may belong to.
    last: String,
    /// How many aliases are being followed, and how many nodes they led to.
    aliased: usize,
    expanded: usize,
    /// Bytes of paths that were hashed.
    hashed: usize,
    first: bool,
    /// Whether text is written as a person edits it.
    pub(super) for_people: bool,
    /// The collection that is being walked.
    around: Option<&'a Node>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// A collection that is being walked, without recursion, and what held when it began.
struct Level<'a> {
    node: &'a Node,
    reach: Reach,
    /// Which child is next.
    next: usize,
    path: usize,
    trail: usize,
    aliased: usize,
    /// Keys so far, of a mapping.
    seen: HashSet<&'a str>,
    /// Items that turned out to be comments, by index, of a sequence.
    comments: Vec<(usize, Secret<String>)>,
}

impl<'a> Level<'a> {
    fn new(node: &'a Node, reach: Reach, walk: &Walk<'_>) -> Self {
        Self {
            node,
            reach,
            next: 0,
            path: walk.path.len(),
            trail: walk.trail.len(),
            aliased: walk.aliased,
            seen: HashSet::new(),
            comments: Vec::new(),
        }
    }
}

/// What became of a node.
enum Visit<'a> {
    Done,
    Comment(Secret<String>),
    Collection(Level<'a>),
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        text: &'a str,
        stream: &'a Stream,
        metadata: &'a Metadata,
        cipher: &'a Cipher,
        anchors: &'a HashMap<usize, &'a Node>,
        blocks: &[Block],
    ) -> Self {
        let sealed = |span: &&Range<usize>| is_sealed(comment_text(text, span));
        let kept = |span: &&Range<usize>| {
            let before = blocks.partition_point(|block| block.span.start <= span.start);
            before.checked_sub(1).is_none_or(|last| blocks[last].span.end <= span.start)
        };
        let mut comments: Vec<_> = stream.comments.iter().filter(sealed).filter(kept).cloned().collect();
        comments.reverse();
        Self {
            text,
            format: stream.format,
            cipher,
            rule: &metadata.rule,
            anchors,
            mac: Mac::new(metadata.mac_only_encrypted),
            edits: Edits::default(),
            leaves: Vec::new(),
            path: String::new(),
            trail: Vec::new(),
            comments,
            last: String::new(),
            aliased: 0,
            expanded: 0,
            hashed: 0,
            first: true,
            for_people: false,
            around: None,
        }
    }

    /// Walks one document; an empty one is nothing.
    pub(super) fn document(&mut self, root: &'a Node) -> Result<(), SopsError> {
        match &root.kind {
            Kind::Mapping(_) => {}
            _ if scalar::of(root) == Some(Scalar::Null) => return Ok(()),
            _ => return Err(SopsError::Root { line: Position::of(self.text, root.span.start).line }),
        }
        let mut open = vec![Level::new(root, Reach::default(), self)];
        while let Some(mut level) = open.pop() {
            self.path.truncate(level.path);
            self.trail.truncate(level.trail);
            self.aliased = level.aliased;
            let Some(visit) = self.next(&mut level)? else { continue };
            open.push(level);
            if let Visit::Collection(inner) = visit {
                open.push(inner);
            }
        }
        self.first = false;
        Ok(())
    }

    /// The edits that open the file, what it holds, and the MAC of it all.
    pub(super) fn finish(mut self) -> (Edits, Vec<Secret<String>>, Mac) {
        self.comments_before(self.text.len());
        (self.edits, self.leaves, self.mac)
    }

    /// Visits the next child of `level`; `None` when it has no more.
    fn next(&mut self, level: &mut Level<'a>) -> Result<Option<Visit<'a>>, SopsError> {
        let at = level.next;
        level.next += 1;
        self.around = Some(level.node);
        match &level.node.kind {
            Kind::Mapping(entries) => match entries.get(at) {
                Some((key, value)) => self.entry(level, key, value).map(Some),
                None => Ok(None),
            },
            Kind::Sequence(items) => match items.get(at) {
                Some(item) => self.item(level, at, item).map(Some),
                None => self.end_of_list(level, items).map(|()| None),
            },
            Kind::Scalar { .. } | Kind::Alias(_) => Ok(None),
        }
    }

    fn entry(
        &mut self,
        level: &mut Level<'a>,
        key: &'a Node,
        value: &'a Node,
    ) -> Result<Visit<'a>, SopsError> {
        let name = self.key(key)?;
        if self.trail.is_empty() && name == "sops" {
            return Ok(Visit::Done);
        }
        self.comments_before(key.start());
        self.trail.push(Step::Key(name));
        if self.first && self.format == Format::Yaml && !level.seen.insert(name) {
            return Err(self.error(key, ValueError::Duplicate));
        }
        self.path.push_str(name);
        self.path.push(':');
        match self.node(value, self.rule.below(level.reach, name))? {
            Visit::Comment(_) => Err(self.error(value, ValueError::Comment)),
            visit => Ok(visit),
        }
    }

    fn item(&mut self, level: &mut Level<'a>, index: usize, item: &'a Node) -> Result<Visit<'a>, SopsError> {
        self.comments_before(item.start());
        self.trail.push(Step::Index(index));
        let visit = self.node(item, level.reach)?;
        if let Visit::Comment(comment) = visit {
            level.comments.push((index, comment));
            return Ok(Visit::Done);
        }
        Ok(visit)
    }

    fn end_of_list(&mut self, level: &Level<'a>, items: &[Node]) -> Result<(), SopsError> {
        if level.comments.is_empty() || level.aliased > 0 {
            return Ok(());
        }
        let list = level.node;
        cut::comments(self.text, &list.span, items, &level.comments, &mut self.edits)
            .ok_or_else(|| self.error(list, ValueError::Comment))
    }

    fn node(&mut self, node: &'a Node, reach: Reach) -> Result<Visit<'a>, SopsError> {
        let node = match &node.kind {
            Kind::Alias(id) => {
                self.aliased += 1;
                *self.anchors.get(id).ok_or_else(|| self.error(node, ValueError::Expands))?
            }
            _ => node,
        };
        self.expanded += usize::from(self.aliased > 0);
        if self.expanded > MAX_EXPANDED || self.trail.len() + self.aliased > MAX_DEPTH {
            return Err(self.error(node, ValueError::Expands));
        }
        match node.text() {
            Some(value) => Ok(self.scalar(node, value, reach)?.map_or(Visit::Done, Visit::Comment)),
            None => Ok(Visit::Collection(Level::new(node, reach, self))),
        }
    }

    /// The text of a key, which is a string to go-yaml.
    fn key(&self, key: &'a Node) -> Result<&'a str, SopsError> {
        let node = match &key.kind {
            Kind::Alias(id) => self.anchors.get(id).copied().unwrap_or(key),
            _ => key,
        };
        match (scalar::of(node), node.text()) {
            (Some(Scalar::Str), Some(text)) => Ok(text),
            _ => Err(self.error(key, ValueError::Key)),
        }
    }

    /// Opens one scalar, or takes it into the MAC as it is. Returns the comment that it turns out to be.
    fn scalar(
        &mut self,
        node: &Node,
        value: &str,
        reach: Reach,
    ) -> Result<Option<Secret<String>>, SopsError> {
        let kind = scalar::of(node).unwrap_or(Scalar::Str);
        if kind == Scalar::Null {
            return Ok(None);
        }
        if !self.rule.covers(reach, value) {
            let plain = plaintext(&kind, value, self.format).map_err(|reason| self.error(node, reason))?;
            self.mac.take(&plain.bytes(), false);
            return Ok(None);
        }
        if kind != Scalar::Str || !(value.is_empty() || is_sealed(value)) {
            return Err(self.error(node, ValueError::Plain));
        }
        self.hashed += self.path.len();
        if self.hashed > MAX_HASHED {
            return Err(self.error(node, ValueError::Paths));
        }
        let opened = self.cipher.open(value, &self.path);
        let opened = opened.map_err(|reason| self.error(node, reason.into()))?;
        self.mac.take(&opened.bytes(), true);
        self.last.clone_from(&self.path);
        if let Opened::Comment(comment) = opened {
            return Ok(Some(comment));
        }
        if self.aliased == 0 && !value.is_empty() {
            self.replace(node, opened)?;
        }
        Ok(None)
    }

    fn replace(&mut self, node: &Node, opened: Opened) -> Result<(), SopsError> {
        let text = match opened {
            Opened::Text(bytes) => return self.replace_text(node, bytes),
            _ => written(&opened, self.format).map_err(|reason| self.error(node, reason))?,
        };
        if !matches!(opened, Opened::Bool(_)) {
            self.leaves.push(Secret::new(text.trim_matches('"').to_owned()));
        }
        self.edits.replace(node, Secret::new(text));
        Ok(())
    }

    /// Text that is not UTF-8 goes on as sops writes it: in base64 behind `!!binary`.
    fn replace_text(&mut self, node: &Node, mut bytes: Secret<Vec<u8>>) -> Result<(), SopsError> {
        match String::from_utf8(std::mem::take(bytes.expose_mut())).map(Secret::new) {
            Ok(text) => {
                let around = self.around.filter(|_| self.for_people && self.format == Format::Yaml);
                let written =
                    around.and_then(|around| people::written(self.text, around, node, text.expose()));
                self.edits.replace(node, written.unwrap_or_else(|| quote(text.expose())));
                self.leaves.push(text);
            }
            Err(_) if self.format == Format::Json => return Err(self.error(node, ValueError::Json)),
            Err(error) => {
                let bytes = Secret::new(error.into_bytes());
                let text = Secret::new(BASE64_STANDARD.encode(bytes.expose()));
                self.edits.replace(node, Secret::new(format!("!!binary \"{}\"", text.expose())));
                self.leaves.push(text);
            }
        }
        Ok(())
    }

    /// Opens the encrypted comments before byte `end`. One that stays closed stays as it is, as sops leaves it.
    fn comments_before(&mut self, end: usize) {
        while let Some(span) = self.comments.pop_if(|span| span.start < end) {
            let value = comment_text(self.text, &span);
            self.hashed += COMMENT_TRIES * self.path.len().max(self.last.len());
            if self.hashed > MAX_HASHED {
                return;
            }
            let tried = prefixes(&self.path).chain(prefixes(&self.last)).take(COMMENT_TRIES);
            let opened = tried.map(|path| self.cipher.open(value, path)).find_map(Result::ok);
            if let Some(Opened::Comment(comment)) = opened {
                self.edits.replace_span(span, cut::comment_line(&comment));
            }
        }
    }

    fn error(&self, node: &Node, reason: ValueError) -> SopsError {
        let mut path = String::new();
        for step in &self.trail {
            let _ = match step {
                Step::Key(key) if path.is_empty() => write!(path, "{}", key.escape_debug()),
                Step::Key(key) => write!(path, ".{}", key.escape_debug()),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        if let Some((cut, _)) = path.char_indices().nth(SHOWN) {
            path.truncate(cut);
            path.push('…');
        }
        SopsError::Value { line: Position::of(self.text, node.span.start).line, path, reason }
    }
}

/// What a scalar that is not null holds, as sops takes it into the MAC and encrypts it.
pub(super) fn plaintext(kind: &Scalar, value: &str, format: Format) -> Result<Opened, ValueError> {
    Ok(match kind {
        Scalar::Int(value) => Opened::Int(*value),
        Scalar::Float(value) => Opened::Float(*value),
        #[expect(clippy::cast_precision_loss, reason = "Go converts the same way")]
        Scalar::Uint(value) if format == Format::Json => Opened::Float(*value as f64),
        Scalar::Uint(_) => return Err(ValueError::Large),
        Scalar::Bool(value) => Opened::Bool(*value),
        Scalar::Time(value) => Opened::Time(value.clone()),
        Scalar::Str | Scalar::Null => Opened::Text(Secret::new(value.as_bytes().to_vec())),
        Scalar::Binary => {
            let text: String = value.split_ascii_whitespace().collect();
            Opened::Text(Secret::new(BASE64_STANDARD.decode(text).map_err(|_| ValueError::Tag)?))
        }
        Scalar::Mismatch => return Err(ValueError::Tag),
    })
}

/// What is no text, as it is written.
pub(super) fn written(opened: &Opened, format: Format) -> Result<String, ValueError> {
    let json = format == Format::Json;
    Ok(match opened {
        Opened::Text(_) | Opened::Comment(_) => return Err(ValueError::Comment),
        Opened::Bool(value) => value.to_string(),
        Opened::Float(value) if json && !value.is_finite() => return Err(ValueError::Json),
        Opened::Float(value) => scalar::general(*value, if json { 21 } else { 6 }),
        Opened::Int(value) => value.to_string(),
        Opened::Time(value) if json => format!("\"{value}\""),
        Opened::Time(value) => value.clone(),
    })
}

fn comment_text<'t>(text: &'t str, span: &Range<usize>) -> &'t str {
    text[span.clone()].trim_start_matches('#').trim_start()
}

/// `a:b:`, `a:` and `:`, which is the path of what belongs to the document itself.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let inner = path.char_indices().rev().filter(|(_, c)| *c == ':').map(|(at, _)| &path[..=at]);
    inner.chain(std::iter::once(":"))
}
