//! INI as go-ini reads it for sops: `=` or `:` behind a key, comments behind `#` or `;`, quotes around a value, values
//! of many lines in `"""` or backticks, and `\` at the end of a line that goes on.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::flat::{Leaf, Parsed};
use super::open::SopsError;
use crate::document::Position;
use crate::secret::Secret;

const METADATA: &str = "sops";
/// Where keys are that stand before the first section.
pub(super) const FIRST: &str = "DEFAULT";

/// Whether `text` has metadata.
pub(super) fn is_encrypted(text: &str) -> bool {
    let block = text.lines().map(str::trim).skip_while(|line| *line != "[sops]").skip(1);
    let mut names = block.take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once('='));
    names.any(|(name, _)| name.trim() == "mac")
}

pub(super) fn parse(text: &str) -> Result<Parsed<'_>, SopsError> {
    let mut reader = Reader {
        text,
        at: 0,
        parsed: Parsed::default(),
        section: FIRST,
        seen: HashSet::new(),
        comments: None,
        counter: 0,
    };
    while reader.at < text.len() {
        reader.line()?;
    }
    reader.metadata_ends(text.len());
    Ok(reader.parsed)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    parsed: Parsed<'t>,
    section: &'t str,
    /// Keys of this section.
    seen: HashSet<Cow<'t, str>>,
    /// Comments ahead of what they belong to.
    comments: Option<Range<usize>>,
    /// Of the keys that are only `-`.
    counter: usize,
}

impl<'t> Reader<'t> {
    fn line(&mut self) -> Result<(), SopsError> {
        let start = self.at;
        let line = self.take_line();
        let content = line.trim();
        let start = start + (line.len() - line.trim_start().len());
        match content.as_bytes().first() {
            None => Ok(()),
            Some(b'#' | b';') => {
                let first = self.comments.as_ref().map_or(start, |comments| comments.start);
                self.comments = Some(first..start + content.len());
                Ok(())
            }
            Some(b'[') => self.section(start, content),
            Some(_) => self.key(start, content),
        }
    }

    fn take_line(&mut self) -> &'t str {
        let rest = &self.text[self.at..];
        let line = rest.split_inclusive('\n').next().unwrap_or(rest);
        self.at += line.len();
        line
    }

    fn section(&mut self, start: usize, content: &'t str) -> Result<(), SopsError> {
        let end = content.rfind(']').ok_or_else(|| self.expected(start, "`]`"))?;
        self.metadata_ends(self.comments.as_ref().map_or(start, |comments| comments.start));
        self.section = &content[1..end];
        self.comment();
        self.seen.clear();
        self.counter = 0;
        if self.section == METADATA {
            // With the empty line that go-ini writes between sections.
            let before = self.text[..start].strip_suffix("\n\n").map_or(start, |before| before.len() + 1);
            self.parsed.cuts.push(before..start);
        }
        Ok(())
    }

    /// The metadata, where it is what was read last, reaches up to here.
    fn metadata_ends(&mut self, at: usize) {
        if self.section == METADATA
            && let Some(cut) = self.parsed.cuts.last_mut()
        {
            cut.end = at;
        }
    }

    /// Hands the comments on, which belong to the section, those ahead of it too.
    fn comment(&mut self) {
        let Some(span) = self.comments.take().filter(|_| self.section != METADATA) else { return };
        let value = self.text[span.clone()].trim_start_matches([';', '#', ' ']);
        let value = Secret::new(value.to_owned());
        self.parsed.leaves.push(Leaf { span, section: Some(self.section), key: None, value });
    }

    fn key(&mut self, start: usize, content: &'t str) -> Result<(), SopsError> {
        let (name, behind) = key_name(content).ok_or_else(|| self.expected(start, "`key = value`"))?;
        let key = if name == "-" {
            self.counter += 1;
            Cow::Owned(format!("#{}", self.counter))
        } else {
            Cow::Borrowed(name)
        };
        self.comment();
        let rest = &content[behind..];
        let at = start + behind + (rest.len() - rest.trim_start().len());
        let (span, value) = self.value(at, rest.trim_start());
        if self.section == METADATA {
            self.parsed.metadata.push((name, value.replace("\\n", "\n")));
        } else if self.seen.insert(key.clone()) {
            let (section, value) = (Some(self.section), Secret::new(value));
            self.parsed.leaves.push(Leaf { span, section, key: Some(key), value });
        } else {
            return Err(self.expected(start, "a key that is not there yet"));
        }
        Ok(())
    }

    /// The value that begins at `at` with the rest of its line, and where it stands.
    fn value(&mut self, at: usize, line: &'t str) -> (Range<usize>, String) {
        for quote in ["\"\"\"", "`"] {
            let Some(inside) = line.strip_prefix(quote).filter(|_| line.len() > 3 || quote == "`") else {
                continue;
            };
            return match inside.rfind(quote) {
                Some(end) => (at..at + quote.len() + end + quote.len(), inside[..end].to_owned()),
                None => self.lines(at, quote),
            };
        }
        if let Some(first) = line.strip_suffix('\\') {
            return self.continued(at, first);
        }
        let comment = line.find(['#', ';']);
        if let Some(start) = comment.filter(|_| self.section != METADATA) {
            self.parsed.behind.push((self.parsed.leaves.len(), at + start..at + line.len()));
        }
        let value = comment.map_or(line, |comment| line[..comment].trim_end());
        (at..at + value.len(), unquoted(value).to_owned())
    }

    /// A value that goes on up to the line with the closing quote.
    fn lines(&mut self, at: usize, quote: &str) -> (Range<usize>, String) {
        let start = at + quote.len();
        while self.at < self.text.len() {
            let line = self.at;
            if let Some(end) = self.take_line().rfind(quote) {
                return (at..line + end + quote.len(), self.text[start..line + end].to_owned());
            }
        }
        (at..self.text.len(), self.text[start..].to_owned())
    }

    fn continued(&mut self, at: usize, first: &str) -> (Range<usize>, String) {
        let mut value = first.to_owned();
        let mut end = at + first.len() + 1;
        loop {
            let start = self.at;
            let next = self.take_line().trim_end();
            end = if next.is_empty() { end } else { start + next.len() };
            value.push_str(next.trim_start());
            if next.is_empty() || !value.ends_with('\\') {
                return (at..end, value);
            }
            value.pop();
        }
    }

    fn expected(&self, at: usize, expected: &'static str) -> SopsError {
        SopsError::Line { line: Position::of(self.text, at).line, expected }
    }
}

/// A key without its quotes, and where its value may begin.
fn key_name(content: &str) -> Option<(&str, usize)> {
    for quote in ["\"\"\"", "\"", "`"] {
        let Some(inside) = content.strip_prefix(quote) else { continue };
        let end = inside.find(quote)?;
        let behind = end + 2 * quote.len();
        let delimiter = content[behind..].find(['=', ':'])?;
        return Some((inside[..end].trim(), behind + delimiter + 1));
    }
    let delimiter = content.find(['=', ':']).filter(|at| *at > 0)?;
    Some((content[..delimiter].trim(), delimiter + 1))
}

fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote)?.strip_suffix(quote).filter(|text| !text.contains(quote));
    inside('\'').or_else(|| inside('"')).unwrap_or(value)
}

/// A value as go-ini writes it.
pub(super) fn quoted(text: &str) -> Secret<String> {
    let quote = if text.contains(['\n', '`']) {
        "\"\"\""
    } else if text.contains(['#', ';']) {
        "`"
    } else if text.trim().len() != text.len() {
        "\""
    } else {
        ""
    };
    Secret::new([quote, text, quote].concat())
}

/// A comment as go-ini writes it.
pub(super) fn comment(text: &str) -> Secret<String> {
    let lines = text
        .split('\n')
        .map(|line| if line.starts_with(['#', ';']) { line.to_owned() } else { format!("; {line}") });
    Secret::new(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_read_as_go_ini_reads_them() {
        let text = "a = 1 ; c\nb: 'x'\n; of c\n\"c=\" = \"y\n[s]\n- = `p#q`\n-=\"\"\"m\nn\"\"\"\nd=o\\\n  n\n[sops]\nx = a\\nb\n# of t\n[t]\ne=\n";
        let parsed = parse(text).unwrap();
        let leaves: Vec<_> = parsed
            .leaves
            .iter()
            .map(|leaf| {
                (
                    leaf.section.unwrap(),
                    leaf.key.as_deref(),
                    leaf.value.expose().as_str(),
                    &text[leaf.span.clone()],
                )
            })
            .collect();
        let expected = [
            ("DEFAULT", Some("a"), "1", "1"),
            ("DEFAULT", Some("b"), "x", "'x'"),
            ("DEFAULT", None, "of c", "; of c"),
            ("DEFAULT", Some("c="), "\"y", "\"y"),
            ("s", Some("#1"), "p#q", "`p#q`"),
            ("s", Some("#2"), "m\nn", "\"\"\"m\nn\"\"\""),
            ("s", Some("d"), "on", "o\\\n  n"),
            ("t", None, "of t", "# of t"),
            ("t", Some("e"), "", ""),
        ];
        assert_eq!(leaves, expected);
        let behind: Vec<_> = parsed.behind.iter().map(|(leaf, span)| (*leaf, &text[span.clone()])).collect();
        assert_eq!(behind, [(0, "; c")]);
        assert_eq!(parsed.metadata, [("x", "a\nb".to_owned())]);
        assert_eq!(&text[parsed.cuts[0].clone()], "[sops]\nx = a\\nb\n");
    }

    #[test]
    fn what_is_no_ini_is_refused_without_showing_it() {
        for (text, message) in [
            ("a = 1\nSTRONGROOM-MARKER\n", "line 2: expected `key = value`"),
            ("[STRONGROOM-MARKER\n", "line 1: expected `]`"),
            ("a=1\na=STRONGROOM-MARKER\n", "line 2: expected a key that is not there yet"),
            ("= STRONGROOM-MARKER", "line 1: expected `key = value`"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a\\[\\]=:`\"'\\\\#; \n\u{e9}-]{0,60}") {
            for leaf in parse(&text).map(|parsed| parsed.leaves).unwrap_or_default() {
                proptest::prop_assert!(text.get(leaf.span).is_some());
            }
        }
    }
}
