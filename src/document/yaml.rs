//! YAML text to nodes, on the events of `granit-parser`.

use std::borrow::Cow;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle};

use super::{
    Anchor, Builder, Children, Format, Kind, MAX_DEPTH, Node, Open, ParseError, Properties, Stream, Style,
    Tag,
};
use crate::secret::Secret;

/// Reads a stream. The caller has bounded its size.
pub(super) fn parse(text: &str) -> Result<Stream, ParseError> {
    // Lenient where libyaml is, because helm reads the same bytes with a port of it.
    let options = granit_parser::options! {
        block_nesting_limit: MAX_DEPTH,
        block_scalar_eof_without_line_feed: true,
        bom_inside_document_as_content: true,
        emit_anchor_events: true,
        flow_nesting_limit: MAX_DEPTH,
        max_buffered_comment_events: usize::MAX,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader =
        Reader { text, parser, builder: Builder::default(), comments: Vec::new(), last: 0, block: 0..0 };
    reader.read()?;
    reader.comments.sort_unstable_by_key(|comment| comment.start);
    Ok(Stream { format: Format::Yaml, documents: reader.builder.documents, comments: reader.comments })
}

struct Reader<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    builder: Builder,
    comments: Vec<Range<usize>>,
    /// Where the last thing that is not a comment ended.
    last: usize,
    /// The last block scalar.
    block: Range<usize>,
}

impl<'t> Reader<'t> {
    fn read(&mut self) -> Result<(), ParseError> {
        while let Some((event, span)) = self.next()? {
            let range = bytes(&span);
            let line = || span.start.line();
            match event {
                // A comment behind a block scalar's indicator belongs to the span of the scalar.
                Event::Comment(..) if self.block.contains(&range.start) => {}
                Event::Comment(..) => self.comments.push(range),
                Event::Scalar(value, style, anchor, tag) => {
                    let properties = self.properties(anchor, tag, &span)?;
                    self.scalar(value, style, properties, range, line)?;
                }
                Event::Alias(id) => {
                    self.last = range.end;
                    self.builder.add(Node::new(range, Kind::Alias(id)), line)?;
                }
                Event::SequenceStart(style, anchor, tag) => {
                    let properties = self.properties(anchor, tag, &span)?;
                    let children = Children::Sequence(Vec::new());
                    self.begin(style, properties, children, range, line)?;
                }
                Event::MappingStart(style, anchor, tag) => {
                    let properties = self.properties(anchor, tag, &span)?;
                    let children = Children::Mapping { entries: Vec::new(), key: None };
                    self.begin(style, properties, children, range, line)?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    self.last = self.last.max(range.end);
                    self.builder.end(range.end, line)?;
                }
                Event::DocumentStart(true, _) => self.last = range.end,
                _ => {}
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, ParseError> {
        self.parser.next_event().transpose().map_err(|error| refused(&error))
    }

    /// The tag of `span`, and the anchor, whose own event follows that of its node.
    fn properties(
        &mut self,
        anchor: usize,
        tag: Option<Cow<'_, granit_parser::Tag>>,
        span: &Span,
    ) -> Result<Option<Box<Properties>>, ParseError> {
        if anchor == 0 && tag.is_none() {
            return Ok(None);
        }
        let mut properties = Properties::default();
        if let (Some(tag), Some(span)) = (tag, span.tag_span()) {
            let span = bytes(&span);
            self.last = self.last.max(span.end);
            properties.tag = Some(Tag { name: format!("{}{}", tag.handle(), tag.suffix()), span });
        }
        if anchor != 0 {
            let span =
                self.next()?.map_or(span.start.byte_offset().unwrap_or(0)..0, |(_, span)| bytes(&span));
            self.last = self.last.max(span.end);
            properties.anchor = Some(Anchor { id: anchor, span });
        }
        Ok(Some(Box::new(properties)))
    }

    fn begin(
        &mut self,
        style: StructureStyle,
        properties: Option<Box<Properties>>,
        children: Children,
        range: Range<usize>,
        line: impl FnOnce() -> usize,
    ) -> Result<(), ParseError> {
        let flow = style == StructureStyle::Flow && !range.is_empty();
        let sequence = matches!(children, Children::Sequence(_));
        let start = if sequence && !flow { self.sequence_start(&range) } else { range.start };
        self.last = self.last.max(range.end);
        self.builder.begin(Open { start, flow, properties, children }, line)
    }

    fn scalar(
        &mut self,
        value: Cow<'_, str>,
        style: ScalarStyle,
        properties: Option<Box<Properties>>,
        range: Range<usize>,
        line: impl FnOnce() -> usize,
    ) -> Result<(), ParseError> {
        let style = style_of(style);
        let absent = style == Style::Plain && range.is_empty();
        let value = Secret::new(if absent { String::new() } else { value.into_owned() });
        let span = match style {
            Style::Literal | Style::Folded => self.block(&range),
            _ if absent && properties.is_none() => self.absent(range.clone()),
            _ => range.clone(),
        };
        self.last = range.end.max(span.end);
        self.builder.add(Node { span, kind: Kind::Scalar { value, style }, properties }, line)
    }

    /// The span of a block scalar from its indicator on; the event's own begins at the content.
    fn block(&mut self, content: &Range<usize>) -> Range<usize> {
        let start = self.seek(b"|>");
        while self.comments.last().is_some_and(|comment| comment.start > start) {
            self.comments.pop();
        }
        let header = self.text[start..].bytes().take_while(|byte| !byte.is_ascii_whitespace()).count();
        let visible = self.text[..content.end].trim_end_matches([' ', '\t', '\r', '\n']).len();
        self.block = start..visible.max(start + header);
        self.block.clone()
    }

    /// Where a block sequence that is the value of a mapping begins: the event of one that is not indented
    /// points behind the first `-`.
    fn sequence_start(&self, range: &Range<usize>) -> usize {
        if self.builder.in_mapping() { self.seek(b"-").min(range.start) } else { range.start }
    }

    /// Where an absent value stands: behind its `:`, whereas its event points before it.
    fn absent(&self, range: Range<usize>) -> Range<usize> {
        let blanks = self.text[range.start..].bytes().take_while(|byte| *byte == b' ').count();
        let colon = range.start + blanks;
        if self.builder.has_key() && self.text.as_bytes().get(colon) == Some(&b':') {
            colon + 1..colon + 1
        } else {
            range
        }
    }

    /// The next of `indicators` behind the last thing read, outside comments.
    fn seek(&self, indicators: &[u8]) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = self.last;
        while let Some(byte) = bytes.get(at).filter(|byte| !indicators.contains(byte)) {
            at += match byte {
                b'#' => bytes[at..].iter().take_while(|byte| **byte != b'\n').count(),
                _ => 1,
            };
        }
        at
    }
}

fn bytes(span: &Span) -> Range<usize> {
    span.byte_range().expect("a parser over a str knows byte offsets")
}

const fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    }
}

/// granit's messages are fixed texts; the most they show of the input is one misplaced character.
fn refused(error: &ScanError) -> ParseError {
    let line = error.marker().line();
    match error.kind() {
        granit_parser::ErrorKind::RecursionLimitExceeded => ParseError::TooDeep { line, limit: MAX_DEPTH },
        kind => ParseError::Syntax { line, column: error.marker().col() + 1, reason: kind.to_string() },
    }
}
