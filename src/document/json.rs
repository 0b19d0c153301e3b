//! JSON text to nodes, with duplicate keys and exact spans kept. RFC 8259, and a byte order mark is skipped.

use super::{Builder, Children, Format, Kind, Node, Open, ParseError, Position, Stream, Style};
use crate::secret::Secret;

/// Reads one document. The caller has bounded its size.
pub(super) fn parse(text: &str) -> Result<Stream, ParseError> {
    let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut reader = Reader { text, at, builder: Builder::default() };
    reader.read()?;
    Ok(Stream { format: Format::Json, documents: reader.builder.documents, comments: Vec::new() })
}

/// What may stand next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// A value.
    Value,
    /// A value, or the end of the sequence that just began.
    ValueOrEnd,
    /// A key.
    Key,
    /// A key, or the end of the mapping that just began.
    KeyOrEnd,
    /// What follows a value.
    Separator,
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    builder: Builder,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), ParseError> {
        let mut next = Next::Value;
        loop {
            self.skip_blanks();
            let Some(byte) = self.text.as_bytes().get(self.at).copied() else { break };
            next = match (next, byte) {
                (Next::Separator, _) if self.builder.open.is_empty() => {
                    return Err(self.refused("end of text"));
                }
                (Next::Separator, b',') => self.comma(),
                (Next::Separator | Next::ValueOrEnd | Next::KeyOrEnd, b']' | b'}') => self.end(byte)?,
                (Next::Key | Next::KeyOrEnd, b'"') => self.key()?,
                (Next::Value | Next::ValueOrEnd, b'[' | b'{') => self.begin(byte)?,
                (Next::Value | Next::ValueOrEnd, _) => self.scalar()?,
                (Next::Key | Next::KeyOrEnd, _) => return Err(self.refused("a key in quotes")),
                (Next::Separator, _) => return Err(self.refused("`,` or the end of the list or object")),
            };
        }
        if next == Next::Separator && self.builder.open.is_empty() {
            return Ok(());
        }
        Err(self.refused("more text"))
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    }

    fn comma(&mut self) -> Next {
        self.at += 1;
        match self.builder.open.last().map(|open| &open.children) {
            Some(Children::Mapping { .. }) => Next::Key,
            _ => Next::Value,
        }
    }

    fn begin(&mut self, byte: u8) -> Result<Next, ParseError> {
        let (children, next) = if byte == b'[' {
            (Children::Sequence(Vec::new()), Next::ValueOrEnd)
        } else {
            (Children::Mapping { entries: Vec::new(), key: None }, Next::KeyOrEnd)
        };
        let open = Open { start: self.at, flow: true, properties: None, children };
        let (text, at) = (self.text, self.at);
        self.builder.begin(open, || Position::of(text, at).line)?;
        self.at += 1;
        Ok(next)
    }

    fn end(&mut self, byte: u8) -> Result<Next, ParseError> {
        let sequence = matches!(self.builder.open.last(), Some(Open { children: Children::Sequence(_), .. }));
        if sequence != (byte == b']') {
            return Err(self.refused(if sequence { "`]`" } else { "`}`" }));
        }
        self.at += 1;
        let (text, at) = (self.text, self.at);
        self.builder.end(at, || Position::of(text, at).line)?;
        Ok(Next::Separator)
    }

    fn key(&mut self) -> Result<Next, ParseError> {
        self.scalar()?;
        self.skip_blanks();
        if self.text.as_bytes().get(self.at) != Some(&b':') {
            return Err(self.refused("`:`"));
        }
        self.at += 1;
        Ok(Next::Value)
    }

    fn scalar(&mut self) -> Result<Next, ParseError> {
        let rest = &self.text[self.at..];
        let quoted = rest.starts_with('"');
        let length = if quoted { string_length(rest) } else { word_length(rest) };
        let raw = &rest[..length];
        let (value, style) = if quoted {
            (serde_json::from_str(raw).ok(), Style::DoubleQuoted)
        } else {
            let valid = serde_json::from_str::<&serde_json::value::RawValue>(raw).is_ok();
            (valid.then(|| raw.to_owned()), Style::Plain)
        };
        let Some(value) = value.map(Secret::new) else {
            return Err(self.refused(if quoted { "a valid string" } else { "a value" }));
        };
        let node = Node::new(self.at..self.at + length, Kind::Scalar { value, style });
        let (text, at) = (self.text, self.at);
        self.builder.add(node, || Position::of(text, at).line)?;
        self.at += length;
        Ok(Next::Separator)
    }

    fn refused(&self, expected: &str) -> ParseError {
        let Position { line, column } = Position::of(self.text, self.at);
        ParseError::Syntax { line, column, reason: format!("expected {expected}") }
    }
}

/// Bytes up to and including the closing quote, or all.
fn string_length(rest: &str) -> usize {
    let mut escaped = true;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Bytes of a number, `true`, `false` or `null`, or of whatever stands in its place.
fn word_length(rest: &str) -> usize {
    let end = |c: char| matches!(c, ',' | ':' | '[' | ']' | '{' | '}' | '"') || c.is_ascii_whitespace();
    rest.find(end).unwrap_or(rest.len())
}
