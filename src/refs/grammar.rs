//! The grammar of references: vals' own, pure, without its accidents.
//!
//! ```text
//! expression = (text | escape | reference)*
//! reference  = ["secret"] "ref+" scheme "://" body ["+"]
//! body       = path ["?" option *("&" option)] ["#" ["/"] key *("/" key)]
//! escape     = "ref+" 1*"+" scheme "://"
//! ```
//!
//! - What does not start with `ref+scheme://` and at least one character of a body is text and stays, prose such as
//!   `ref+ see https://…` too.
//! - A body ends before white space, a control character, `"`, or a comma that another reference follows; commas
//!   at its end are not part of it. `+` ends it too and is consumed. The `"` of `["key"]` do not end it.
//! - A reference inside a body is nested: its value takes its place there, as data. It can fill path segments, but
//!   it cannot add options or a fragment, and what it holds is never read as a reference.
//! - Path, options and keys are percent-decoded, keys after they were split at `/`. A path that starts with
//!   `arn:aws:` or `arn:aws-` is taken verbatim.
//! - `optional=true` and `default=…` are options of every scheme: what is not found is then empty, or that default.
//!   `fallback_value=…`, the word of vals' gcpsecrets, is `default=…` that `optional=true` wins over.
//! - **A literal `ref+scheme://`** is written with one more plus: `ref++scheme://` is the text `ref+scheme://`,
//!   `ref+++scheme://` is `ref++scheme://`, and so on. Nothing else is an escape, so no other text changes.
//!
//! Printing a [`Reference`] shows it as spelled, except for values of options that are not known to be harmless.

use std::fmt::{self, Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::fault::{Class, Fault};
use crate::refs::source::Params;
use crate::secret::Secret;

/// References inside references inside references, at most; as vals.
const MAX_DEPTH: usize = 10;
/// Longer than the name of any scheme.
const MAX_SCHEME: usize = 32;
/// A reference is cut here when it is printed, in characters.
const MAX_SHOWN: usize = 400;
/// Options whose values can be printed.
const HARMLESS: [&str; 14] = [
    "encode",
    "floatAsInt",
    "format",
    "insecure",
    "key_type",
    "mode",
    "optional",
    "profile",
    "recursive",
    "region",
    "role_arn",
    "version",
    "version_id",
    "version_stage",
];
/// What a nested value keeps as it is; all else is percent-encoded on its way into the body around it.
const NESTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'=')
    .remove(b',')
    .remove(b'$');

/// A string that holds references, an escape, or both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expression(Vec<Part>);

/// A piece of an expression.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// Stays as it is. It may come from an opened SOPS file.
    Text(Secret<String>),
    /// Is replaced by its value.
    Reference(Reference),
}

/// A reference as it is spelled, its nested references unresolved.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Reference {
    scheme: String,
    body: Vec<Piece>,
    too_deep: bool,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Piece {
    Text(String),
    Nested(Reference),
}

/// What a reference means once its nested references have values: the document, and what is picked out of it.
///
/// Its path and options may hold such a value, so it is not printed; print the [`Reference`] instead.
#[derive(Clone, Eq, PartialEq)]
pub struct Target {
    /// In lower case.
    pub scheme: String,
    /// Percent-decoded; a leading `/` is kept only where the reference has an empty host, as in `file:///x`.
    pub path: String,
    /// All options but `optional`, `default` and `fallback_value`.
    pub options: Params,
    /// The keys to walk; `None` is the whole document, as a string.
    pub fragment: Option<Vec<String>>,
    /// What stands in for what is not found.
    pub missing: Missing,
}

/// What a reference evaluates to when nothing is found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Missing {
    /// Not finding it is an error.
    Fail,
    /// The empty string: `optional=true`.
    Empty,
    /// This string: `default=…` or `fallback_value=…`.
    Default(String),
}

/// A reference is not well formed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GrammarError {
    /// `%` without two hex digits.
    #[error("a % that two hex digits do not follow\nhelp: a percent sign itself is written %25")]
    Percent,
    /// Percent-encoded bytes that are no text.
    #[error("percent-encoded bytes that are not UTF-8")]
    NotUtf8,
    /// A control character, percent-encoded.
    #[error("a percent-encoded control character")]
    Control,
    /// Nothing before `?` or `#`.
    #[error("no path")]
    NoPath,
    /// The same option twice.
    #[error("an option is given twice")]
    Repeated,
    /// `optional` is neither `true` nor `false`.
    #[error("option optional is neither true nor false")]
    Optional,
    /// More references inside each other than anyone needs.
    #[error("more than {MAX_DEPTH} references inside each other")]
    TooDeep,
}

impl Fault for GrammarError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

/// The outermost references in `text`, in order, as they are spelled there; escapes are none.
pub fn spelled_in(text: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(found) = text[at..].find("ref+") {
            let start = at + found;
            if let Some((_, rest)) = escape(text, start) {
                at = rest;
            } else if let Some((_, end)) = reference(text, start, 0) {
                at = end;
                return Some(&text[start..end]);
            } else {
                at = start + "ref+".len();
            }
        }
        None
    })
}

impl Expression {
    /// `None`: `text` holds neither a reference nor an escape and stays untouched.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_except(text, |_| false)
    }

    /// As [`Expression::parse`], but what `is_literal` says of the spelling of a reference makes it text.
    pub fn parse_except(text: &str, is_literal: impl Fn(&str) -> bool) -> Option<Self> {
        let mut parts = Vec::new();
        let mut literal = Secret::<String>::default();
        let mut at = 0;
        while let Some(found) = text[at..].find("ref+") {
            let start = at + found;
            if let Some((pluses, rest)) = escape(text, start) {
                literal.expose_mut().push_str(&text[at..start + "ref".len()]);
                literal.expose_mut().push_str(&"+".repeat(pluses - 1));
                parts.push(Part::Text(std::mem::take(&mut literal)));
                at = rest;
            } else if let Some((reference, end)) = reference(text, start, 0) {
                if is_literal(&text[start..end]) {
                    literal.expose_mut().push_str(&text[at..end]);
                    at = end;
                    continue;
                }
                let before = &text[at..start];
                literal.expose_mut().push_str(before.strip_suffix("secret").unwrap_or(before));
                parts.push(Part::Text(std::mem::take(&mut literal)));
                parts.push(Part::Reference(reference));
                at = end;
            } else {
                literal.expose_mut().push_str(&text[at..start + "ref+".len()]);
                at = start + "ref+".len();
            }
        }
        if parts.is_empty() {
            return None;
        }
        literal.expose_mut().push_str(&text[at..]);
        parts.push(Part::Text(literal));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.expose().is_empty()));
        Some(Self(parts))
    }

    /// Its pieces, in order; texts are not empty.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// The reference that is all of the string.
    pub fn whole(&self) -> Option<&Reference> {
        match self.0.as_slice() {
            [Part::Reference(reference)] => Some(reference),
            _ => None,
        }
    }

    /// What its escapes mean: references that are meant to be text, as they are spelled in its value.
    pub fn literals(&self) -> impl Iterator<Item = Secret<String>> {
        self.0.windows(2).filter_map(|parts| match parts {
            // Only an escape separates texts.
            [Part::Text(before), Part::Text(behind)] if before.expose().ends_with("ref+") => {
                let text = Secret::new(format!("ref+{}", behind.expose()));
                let (_, end) = reference(text.expose(), 0, 0)?;
                Some(Secret::new(text.expose()[..end].to_owned()))
            }
            _ => None,
        })
    }

    /// The outermost references, in order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.0.iter().filter_map(|part| match part {
            Part::Reference(reference) => Some(reference),
            Part::Text(_) => None,
        })
    }
}

/// Where the body begins of the reference whose `ref+` is at `start`.
fn body_start(text: &str, start: usize) -> Option<usize> {
    let rest = text[start..].strip_prefix("ref+")?;
    let scheme = scheme_length(rest)?;
    let body = start + "ref+".len() + scheme + "://".len();
    let first = text[body..].chars().next()?;
    (!ends_body(first) && first != '+' && first != ',').then_some(body)
}

/// The length of the scheme in front of `://`.
fn scheme_length(text: &str) -> Option<usize> {
    let length = text.bytes().take(MAX_SCHEME).take_while(|byte| is_of_scheme(*byte)).count();
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphabetic());
    (starts_well && text[length..].starts_with("://")).then_some(length)
}

const fn is_of_scheme(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

const fn ends_body(character: char) -> bool {
    character.is_ascii_control() || matches!(character, ' ' | '"')
}

/// Whether a `"` is at `at` in the body, and is one of the two of `["key"]`, as in an address of Terraform.
fn is_of_brackets(text: &str, at: usize) -> bool {
    let (before, rest) = text.split_at(at);
    let Some(behind) = rest.strip_prefix('"') else { return false };
    let opens = |before: &str, behind: &str| {
        let key = behind.find(ends_body).filter(|end| behind[*end..].starts_with("\"]"));
        before.ends_with('[') && key.is_some_and(|key| key > 0)
    };
    opens(before, behind)
        || behind.starts_with(']')
            && before.rfind('"').is_some_and(|start| opens(&before[..start], &text[start + 1..]))
}

/// The number of pluses of the escape whose `ref+` is at `start`, and where its scheme begins.
fn escape(text: &str, start: usize) -> Option<(usize, usize)> {
    let rest = &text[start + "ref".len()..];
    let pluses = rest.bytes().take_while(|byte| *byte == b'+').count();
    (pluses > 1 && scheme_length(&rest[pluses..]).is_some()).then_some((pluses, start + "ref".len() + pluses))
}

/// The reference whose `ref+` is at `start`, and where it ends.
fn reference(text: &str, start: usize, depth: usize) -> Option<(Reference, usize)> {
    let body = body_start(text, start)?;
    let scheme = text[start + "ref+".len()..body - "://".len()].to_ascii_lowercase();
    let mut pieces = Vec::new();
    let mut too_deep = false;
    let mut piece = body;
    let mut at = body;
    while let Some(next) = text[at..].chars().next() {
        if is_of_brackets(&text[body..], at - body) {
            at += 1;
            continue;
        }
        if next == '+' || ends_body(next) || (next == ',' && starts_reference(&text[at + 1..])) {
            break;
        }
        match nested_start(text, at) {
            Some(_) if depth + 1 >= MAX_DEPTH => too_deep = true,
            Some(inner) => {
                if let Some((nested, end)) = reference(text, inner, depth + 1) {
                    push_text(&mut pieces, &text[piece..at]);
                    pieces.push(Piece::Nested(nested));
                    (at, piece) = (end, end);
                    continue;
                }
            }
            None => {}
        }
        at += next.len_utf8();
    }
    let kept = text[piece..at].trim_end_matches(',');
    let end = piece + kept.len();
    push_text(&mut pieces, kept);
    let terminated = end == at && text[at..].starts_with('+');
    Some((Reference { scheme, body: pieces, too_deep }, end + usize::from(terminated)))
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Where the `ref+` is of a reference that starts at `at`.
fn nested_start(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let start = if rest.starts_with("secretref+") { at + "secret".len() } else { at };
    body_start(text, start).map(|_| start)
}

fn starts_reference(text: &str) -> bool {
    nested_start(text, 0).is_some()
}

impl Reference {
    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The references inside it, in order.
    pub fn nested(&self) -> impl Iterator<Item = &Self> {
        self.body.iter().filter_map(|piece| match piece {
            Piece::Nested(reference) => Some(reference),
            Piece::Text(_) => None,
        })
    }

    /// What it means, given one value for each of [`Reference::nested`].
    pub fn target(&self, nested: &[Secret<String>]) -> Result<Target, GrammarError> {
        if self.too_deep {
            return Err(GrammarError::TooDeep);
        }
        let body = self.body(nested);
        let (rest, fragment) = split(body.expose(), '#');
        let (path, query) = split(rest, '?');
        let mut options = query.map(parse_options).transpose()?.unwrap_or_default();
        let missing = take_missing(&mut options)?;
        let path = parse_path(path)?;
        let fragment = fragment.map(parse_fragment).transpose()?.flatten();
        Ok(Target { scheme: self.scheme.clone(), path, options, fragment, missing })
    }

    fn body(&self, nested: &[Secret<String>]) -> Secret<String> {
        let mut values = nested.iter();
        let mut body = Secret::<String>::default();
        for piece in &self.body {
            match piece {
                Piece::Text(text) => body.expose_mut().push_str(text),
                Piece::Nested(_) => {
                    let value = values.next().expect("one value for each nested reference");
                    body.expose_mut().extend(utf8_percent_encode(value.expose(), NESTED));
                }
            }
        }
        body
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn parse_path(path: &str) -> Result<String, GrammarError> {
    if path.starts_with("arn:aws:") || path.starts_with("arn:aws-") {
        return Ok(path.to_owned());
    }
    // `scheme://host/` is `scheme://host`, as it is to vals.
    let path = match path.strip_suffix('/') {
        Some(host) if !host.contains('/') && !host.is_empty() => host,
        _ => path,
    };
    if path.is_empty() { Err(GrammarError::NoPath) } else { decode(path) }
}

fn parse_options(query: &str) -> Result<Params, GrammarError> {
    let mut options = Params::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = split(option, '=');
        if options.insert(decode(name)?, decode(value.unwrap_or_default())?).is_some() {
            return Err(GrammarError::Repeated);
        }
    }
    Ok(options)
}

fn take_missing(options: &mut Params) -> Result<Missing, GrammarError> {
    let optional = match options.remove("optional").as_deref() {
        None | Some("false") => Missing::Fail,
        Some("true") => Missing::Empty,
        Some(_) => return Err(GrammarError::Optional),
    };
    let (default, fallback) = (options.remove("default"), options.remove("fallback_value"));
    Ok(match (default, optional, fallback) {
        (Some(default), _, _) | (None, Missing::Fail, Some(default)) => Missing::Default(default),
        (None, optional, _) => optional,
    })
}

fn parse_fragment(fragment: &str) -> Result<Option<Vec<String>>, GrammarError> {
    let fragment = fragment.strip_prefix('#').unwrap_or(fragment);
    let fragment = fragment.strip_prefix('/').unwrap_or(fragment);
    if fragment.is_empty() {
        return Ok(None);
    }
    fragment.split('/').map(decode).collect::<Result<_, _>>().map(Some)
}

fn decode(text: &str) -> Result<String, GrammarError> {
    let hex = |digits: Option<&str>| {
        digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    if !text.match_indices('%').all(|(at, _)| hex(text.get(at + 1..at + 3))) {
        return Err(GrammarError::Percent);
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| GrammarError::NotUtf8)?;
    if decoded.contains(|character: char| character.is_ascii_control()) {
        return Err(GrammarError::Control);
    }
    Ok(decoded.into_owned())
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}://…)", self.scheme)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut spelled = String::new();
        self.spell(&mut spelled)?;
        match spelled.char_indices().nth(MAX_SHOWN) {
            Some((cut, _)) => write!(f, "{}…", &spelled[..cut]),
            None => f.write_str(&spelled),
        }
    }
}

/// Where in a body the printer is.
enum Place {
    Path,
    Option(String),
    Value { shown: bool },
    Fragment,
}

impl Reference {
    fn spell(&self, out: &mut String) -> fmt::Result {
        write!(out, "ref+{}://", self.scheme)?;
        let mut place = Place::Path;
        for piece in &self.body {
            match piece {
                Piece::Text(text) => text.chars().for_each(|next| place = spell_next(out, &mut place, next)),
                Piece::Nested(_) if matches!(place, Place::Value { shown: false }) => {}
                Piece::Nested(nested) => {
                    nested.spell(out)?;
                    out.push('+');
                }
            }
        }
        Ok(())
    }
}

fn spell_next(out: &mut String, place: &mut Place, next: char) -> Place {
    let place = std::mem::replace(place, Place::Path);
    let (shown, place) = match (place, next) {
        (Place::Fragment, _) | (_, '#') => (true, Place::Fragment),
        (Place::Path, '?') | (Place::Option(_) | Place::Value { .. }, '&') => {
            (true, Place::Option(String::new()))
        }
        (Place::Path, _) => (true, Place::Path),
        (Place::Option(name), '=') => {
            let shown = HARMLESS.contains(&name.as_str());
            out.push_str(if shown { "" } else { "=***" });
            (shown, Place::Value { shown })
        }
        (Place::Option(mut name), _) => {
            name.push(next);
            (true, Place::Option(name))
        }
        (Place::Value { shown }, _) => (shown, Place::Value { shown }),
    };
    if shown {
        out.push(next);
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as they are; references in guillemets, nested ones too.
    fn shape(text: &str) -> String {
        let Some(expression) = Expression::parse(text) else { return text.to_owned() };
        let show = |part: &Part| match part {
            Part::Text(text) => text.expose().clone(),
            Part::Reference(reference) => shape_of(reference),
        };
        expression.parts().iter().map(show).collect()
    }

    fn shape_of(reference: &Reference) -> String {
        let show = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Nested(nested) => shape_of(nested),
        };
        format!("«{}|{}»", reference.scheme, reference.body.iter().map(show).collect::<String>())
    }

    fn holds_reference(text: &str) -> bool {
        spelled_in(text).next().is_some()
    }

    #[test]
    fn what_escapes_mean_is_known_as_it_is_spelled_then() {
        for (text, literals, spelled) in [
            ("ref++echo://x", &["ref+echo://x"] as &[_], &[] as &[_]),
            ("see ref++a://b+ and ref++c://d, e", &["ref+a://b+", "ref+c://d"], &[]),
            ("ref+++echo://x", &[], &[]),
            ("ref++a://b-ref+c://d", &["ref+a://b-"], &["ref+c://d"]),
            ("ref+a://b,secretref+c://d+e", &[], &["ref+a://b", "ref+c://d+"]),
        ] {
            let expression = Expression::parse(text).unwrap();
            let found: Vec<_> = expression.literals().map(|literal| literal.expose().clone()).collect();
            assert_eq!(found, literals, "{text}");
            assert_eq!(spelled_in(text).collect::<Vec<_>>(), spelled, "{text}");
        }
        let all_but_one = Expression::parse_except("ref+a://b ref+c://d", |spelled| spelled == "ref+a://b");
        assert_eq!(all_but_one.unwrap().references().next().unwrap().scheme(), "c");
        assert!(Expression::parse_except("ref+a://b", |_| true).is_none());
    }

    #[test]
    fn references_end_where_they_should() {
        for (text, expected) in [
            ("plain", "plain"),
            ("ref+echo://a/b", "«echo|a/b»"),
            ("secretref+echo://a/b", "«echo|a/b»"),
            ("ref+ECHO://A/b", "«echo|A/b»"),
            ("ref+echo://a", "«echo|a»"),
            ("xref+echo://a/b", "x«echo|a/b»"),
            ("x secretref+echo://a/b", "x «echo|a/b»"),
            ("ref+echo://a/b+c", "«echo|a/b»c"),
            ("ref+echo://a/b+", "«echo|a/b»"),
            ("ref+echo://a/b++", "«echo|a/b»+"),
            ("ref+echo://a/b c", "«echo|a/b» c"),
            ("ref+echo://a/b\nc", "«echo|a/b»\nc"),
            ("ref+echo://a/b\tc", "«echo|a/b»\tc"),
            ("ref+echo://a/b\r\n", "«echo|a/b»\r\n"),
            ("ref+echo://a/b\"", "«echo|a/b»\""),
            ("ref+echo://a/b,", "«echo|a/b»,"),
            ("ref+echo://a/b,+", "«echo|a/b»,+"),
            ("ref+echo://a/b,c", "«echo|a/b,c»"),
            ("ref+echo://a/b', (c)|d;e", "«echo|a/b'», (c)|d;e"),
            ("ref+echo://é/ü", "«echo|é/ü»"),
            ("ref+echo://a/b+ref+echo://c/d", "«echo|a/b»«echo|c/d»"),
            ("ref+echo://a/b,ref+echo://c/d", "«echo|a/b»,«echo|c/d»"),
            ("ref+echo://a/b,secretref+echo://c/d", "«echo|a/b»,«echo|c/d»"),
            ("ref+echo://a/b,,ref+echo://c/d", "«echo|a/b»,,«echo|c/d»"),
            ("ref+echo://a/b,reference", "«echo|a/b,reference»"),
            (r#"{"a":"ref+file://p","b":"z"}"#, r#"{"a":"«file|p»","b":"z"}"#),
            (r#"["ref+echo://a","ref+echo://b"]"#, r#"["«echo|a»","«echo|b»"]"#),
            (r#"{"a":"ref+a://x["k"].id"}"#, r#"{"a":"«a|x["k"].id»"}"#),
            (r#"{"a":"ref+a://x[","b":"y"}"#, r#"{"a":"«a|x[»","b":"y"}"#),
            (r#"ref+a://x["k"][0]["l"], z"#, r#"«a|x["k"][0]["l"]», z"#),
            (r#"ref+a://x["ref+b://y"].id"#, r#"«a|x["«b|y»"].id»"#),
            (r#"ref+a://x["k k"]"#, r#"«a|x[»"k k"]"#),
            (r#"ref+a://x[""]"#, r#"«a|x[»""]"#),
            ("ref+envsubst://$A:ref+envsubst://$B", "«envsubst|$A:«envsubst|$B»»"),
            ("ref+a://x/ref+b://y+/z+tail", "«a|x/«b|y»/z»tail"),
            ("ref+a://x/secretref+b://y", "«a|x/«b|y»»"),
            ("ref+a://x/ref+b://y z", "«a|x/«b|y»» z"),
            ("ref+a://x/ref+b://y, z", "«a|x/«b|y»», z"),
            ("ref+a://ref+b://x+/ref+c://y+#/k", "«a|«b|x»/«c|y»#/k»"),
            ("ref+a://x?o=ref+b://y+#/k", "«a|x?o=«b|y»#/k»"),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_stays() {
        for text in [
            "ref+ see https://example.com",
            "see ref+ in https://x.y",
            "ref+://x",
            "ref+echo://",
            "ref+echo:// x",
            "ref+echo://,",
            "ref+echo://+",
            "ref+echo://\"\"",
            "ref+echo:/a",
            "Ref+echo://a",
            "ref +echo://a",
            "ref+1echo://a",
            "ref+{{ .Values.scheme }}://a",
            "ref+a/b://c",
            "href++",
            "ref++",
            "ref+++ x://y",
            "",
            "ref+",
            "ref+this-name-is-longer-than-any-scheme-is://a",
        ] {
            assert_eq!(Expression::parse(text), None, "{text}");
            assert!(!holds_reference(text), "{text}");
        }
        assert!(holds_reference("a ref+x://y"));
    }

    #[test]
    fn one_more_plus_is_an_escape() {
        for (text, expected) in [
            ("ref++echo://a/b", "ref+echo://a/b"),
            ("secretref++echo://a/b", "secretref+echo://a/b"),
            ("ref+++echo://a/b", "ref++echo://a/b"),
            ("write ref++x:// or ref+echo://a", "write ref+x:// or «echo|a»"),
            ("ref++echo://ref+echo://a", "ref+echo://«echo|a»"),
        ] {
            assert_eq!(shape(text), expected, "{text}");
            assert!(Expression::parse(text).is_some(), "{text} is rewritten");
        }
        assert!(!holds_reference("ref++echo://a"));
    }

    fn only(text: &str) -> Reference {
        Expression::parse(text).unwrap().whole().unwrap().clone()
    }

    #[test]
    fn targets_are_split_and_decoded() {
        for (text, path, options, fragment) in [
            ("ref+x://a/b", "a/b", "", None),
            ("ref+x://a/", "a", "", None),
            ("ref+x://a/b/", "a/b/", "", None),
            ("ref+x:///a/b", "/a/b", "", None),
            ("ref+x://a//b", "a//b", "", None),
            ("ref+x://a%2Fb%20c/d", "a/b c/d", "", None),
            ("ref+x://user@host:port/p", "user@host:port/p", "", None),
            ("ref+x://${VAR}", "${VAR}", "", None),
            ("ref+x://a?r=1&s=%26&t&u=", "a", "r=1 s=& t= u=", None),
            ("ref+x://a?r=b/c?d", "a", "r=b/c?d", None),
            ("ref+x://a#/k", "a", "", Some(vec!["k"])),
            ("ref+x://a#k", "a", "", Some(vec!["k"])),
            ("ref+x://a##/k", "a", "", Some(vec!["k"])),
            ("ref+x://a#/", "a", "", None),
            ("ref+x://a#", "a", "", None),
            ("ref+x://a#/k/", "a", "", Some(vec!["k", ""])),
            ("ref+x://a?r=1#/k/0/sp%20ace/a%2Fb?c", "a", "r=1", Some(vec!["k", "0", "sp ace", "a/b?c"])),
            ("ref+x://arn:aws:s:eu:1:secret:a%2Fb?r=1", "arn:aws:s:eu:1:secret:a%2Fb", "r=1", None),
            ("ref+x://arn:aws-cn:s:secret:a/#/k", "arn:aws-cn:s:secret:a/", "", Some(vec!["k"])),
        ] {
            let target = only(text).target(&[]).unwrap();
            let shown: Vec<_> =
                target.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!((target.path.as_str(), shown.join(" ").as_str()), (path, options), "{text}");
            let keys = target.fragment.as_ref().map(|keys| keys.iter().map(String::as_str).collect());
            assert_eq!(keys, fragment, "{text}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_named() {
        for (text, expected) in [
            ("ref+x://a%", GrammarError::Percent),
            ("ref+x://a%2", GrammarError::Percent),
            ("ref+x://a%zz", GrammarError::Percent),
            ("ref+x://a%2é", GrammarError::Percent),
            ("ref+x://a?b=%+", GrammarError::Percent),
            ("ref+x://a#/%", GrammarError::Percent),
            ("ref+x://%ff", GrammarError::NotUtf8),
            ("ref+x://a%00", GrammarError::Control),
            ("ref+x://?a=b", GrammarError::NoPath),
            ("ref+x://#/a", GrammarError::NoPath),
            ("ref+x://a?b=1&b=2", GrammarError::Repeated),
            ("ref+x://a?b=1&%62=2", GrammarError::Repeated),
            ("ref+x://a?optional=yes", GrammarError::Optional),
        ] {
            assert_eq!(only(text).target(&[]).unwrap_err(), expected, "{text}");
            assert_eq!(expected.class(), Class::Invalid);
        }
    }

    #[test]
    fn what_stands_in_for_the_missing_is_said() {
        for (text, expected) in [
            ("ref+x://a", Missing::Fail),
            ("ref+x://a?optional=false", Missing::Fail),
            ("ref+x://a?optional=true", Missing::Empty),
            ("ref+x://a?default=b%20c", Missing::Default("b c".into())),
            ("ref+x://a?default=b&optional=true", Missing::Default("b".into())),
        ] {
            let target = only(text).target(&[]).unwrap();
            assert_eq!(target.missing, expected, "{text}");
            assert!(target.options.is_empty());
        }
    }

    #[test]
    fn a_nested_value_is_data() {
        let reference = only("ref+x://team/ref+y://z+/db?o=ref+y://o+#/ref+y://k+/l");
        let value = |text: &str| Secret::new(text.to_owned());
        let target = reference.target(&[value("a b/?#+%&"), value("p&q=r"), value("k ey")]).unwrap();
        assert_eq!(target.path, "team/a b/?#+%&/db");
        assert_eq!(target.options, Params::from([("o".into(), "p&q=r".into())]));
        assert_eq!(target.fragment, Some(vec!["k ey".into(), "l".into()]));
    }

    #[test]
    fn a_nested_value_may_be_an_arn() {
        let arn = "arn:aws:secretsmanager:eu-west-1:1:secret:a/b_c.d=e@f-AbCdEf";
        let target = only("ref+x://ref+y://z+#/k").target(&[Secret::new(arn.into())]).unwrap();
        assert_eq!(target.path, arn);
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| format!("{}a", "ref+x://".repeat(depth));
        for (depth, expected) in [(10, None), (11, Some(GrammarError::TooDeep))] {
            let expression = Expression::parse(&nested(depth)).unwrap();
            let mut reference = expression.references().next().unwrap();
            while let Some(inner) = reference.nested().next() {
                reference = inner;
            }
            assert_eq!(reference.target(&[]).err(), expected);
        }
        assert!(Expression::parse(&nested(100_000)).is_some(), "and takes no more of the stack");
    }

    #[test]
    fn printing_hides_values_of_options() {
        for (text, expected) in [
            ("ref+x://a/b?region=eu#/k", "ref+x://a/b?region=eu#/k"),
            ("secretref+X://a+", "ref+x://a"),
            ("ref+x://a?token=STRONGROOM-MARKER&region=eu", "ref+x://a?token=***&region=eu"),
            ("ref+x://a?default=STRONGROOM-MARKER#/k", "ref+x://a?default=***#/k"),
            ("ref+x://a?t%6Fken=STRONGROOM-MARKER", "ref+x://a?t%6Fken=***"),
            ("ref+x://a?token=ref+y://STRONGROOM-MARKER", "ref+x://a?token=***"),
            ("ref+x://a/ref+y://b+/c", "ref+x://a/ref+y://b+/c"),
        ] {
            assert_eq!(only(text).to_string(), expected);
        }
        let long = only(&format!("ref+x://{}", "é".repeat(5000))).to_string();
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_and_nothing_is_lost(
            text in "(ref\\+|secret|x://|a|\\+|,|\"| |\\?|#|/|%|é){0,24}"
        ) {
            if let Some(expression) = Expression::parse(&text) {
                for reference in expression.references() {
                    let nested: Vec<_> = reference.nested().map(|_| Secret::new("v".to_owned())).collect();
                    let _ = reference.target(&nested);
                    let _ = reference.to_string();
                }
            } else {
                proptest::prop_assert!(!holds_reference(&text));
            }
        }
    }
}
