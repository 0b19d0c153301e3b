//! The grammar of helm's `strvals`: `a.b[0].c=value,d={e,f}` with `\\` before a character that is meant as itself.

use super::{DEEPEST_NAME, HIGHEST_INDEX, SetError, Step, Value, spell};
use crate::secret::Secret;

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Kind {
    File,
    Json,
    Literal,
    Set,
    String,
}

impl Kind {
    pub(super) const fn flag(self) -> &'static str {
        match self {
            Self::File => "--set-file",
            Self::Json => "--set-json",
            Self::Literal => "--set-literal",
            Self::Set => "--set",
            Self::String => "--set-string",
        }
    }

    pub(super) fn not_json(self, key: &str, error: &serde_json::Error) -> SetError {
        let key = key.to_owned();
        SetError::Json { flag: self.flag(), key, line: error.line(), column: error.column() }
    }
}

/// Reads assignments off one flag.
pub(super) struct Reader<'a> {
    kind: Kind,
    rest: &'a str,
    /// The path of the assignment before, for messages.
    last: Vec<Step>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(kind: Kind, line: &'a str) -> Self {
        Self { kind, rest: line, last: Vec::new() }
    }

    /// Whether everything was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next assignment; `None` at the end.
    pub(super) fn assignment(&mut self) -> Result<Option<(Vec<Step>, Value)>, SetError> {
        let Some(path) = self.path()? else { return Ok(None) };
        let value = match self.kind {
            Kind::Literal => Value::Kept(Secret::new(std::mem::take(&mut self.rest).to_owned())),
            Kind::Json => self.json(&path)?,
            Kind::File | Kind::Set | Kind::String => match self.rest.strip_prefix('{') {
                Some(rest) if self.kind != Kind::File => {
                    self.rest = rest;
                    self.list(&path)?
                }
                _ => {
                    let text = self.until(&[',']).0;
                    self.value(text)
                }
            },
        };
        self.last.clone_from(&path);
        Ok(Some((path, value)))
    }

    fn path(&mut self) -> Result<Option<Vec<Step>>, SetError> {
        let stops: &[char] =
            if self.kind == Kind::Literal { &['=', '[', '.'] } else { &['=', '[', ',', '.'] };
        let mut path = Vec::new();
        loop {
            let (key, stop) = self.until(stops);
            if stop.is_none() && key.is_empty() {
                return Ok(None);
            }
            path.push(Step::Key(key));
            match stop {
                Some('=') => return Ok(Some(path)),
                Some('.') => self.check_depth(&path)?,
                Some('[') => {
                    if self.indexes(&mut path)? == '=' {
                        return Ok(Some(path));
                    }
                }
                _ => return Err(self.no_value()),
            }
        }
    }

    /// One index or several, up to the `=` or `.` after them, which is returned.
    fn indexes(&mut self, path: &mut Vec<Step>) -> Result<char, SetError> {
        loop {
            let (text, end) = self.until(&[']']);
            match (text.parse(), end) {
                (Ok(index), Some(_)) if index <= HIGHEST_INDEX => path.push(Step::Index(index)),
                _ => return Err(SetError::Index { flag: self.kind.flag(), key: spell(path) }),
            }
            self.check_depth(path)?;
            match self.until(&['[', '.', '=']) {
                (text, Some(_)) if !text.is_empty() => {
                    return Err(self.name_error(path, "is followed by more text"));
                }
                (_, Some('[')) => {}
                (_, Some(stop)) => return Ok(stop),
                (_, None) => return Err(self.no_value()),
            }
        }
    }

    fn check_depth(&self, path: &[Step]) -> Result<(), SetError> {
        let count = |wanted: fn(&&Step) -> bool| path.iter().filter(wanted).count();
        let deepest =
            count(|step| matches!(step, Step::Key(_))).max(count(|step| matches!(step, Step::Index(_))));
        if deepest > DEEPEST_NAME {
            Err(self.name_error(&path[..1], "has too many levels below it"))
        } else {
            Ok(())
        }
    }

    fn list(&mut self, path: &[Step]) -> Result<Value, SetError> {
        let mut items = Vec::new();
        loop {
            let (text, stop) = self.until(&[',', '}']);
            if stop.is_none() {
                return Err(SetError::OpenList { flag: self.kind.flag(), key: spell(path) });
            }
            items.push(self.value(text));
            if stop == Some('}') {
                self.rest = self.rest.strip_prefix(',').unwrap_or(self.rest);
                return Ok(Value::List(items));
            }
        }
    }

    fn value(&self, text: String) -> Value {
        if self.kind == Kind::Set { Value::typed(text) } else { Value::Kept(Secret::new(text)) }
    }

    fn json(&mut self, path: &[Step]) -> Result<Value, SetError> {
        if self.skip_blanks_and_comma() {
            return Ok(Value::Null);
        }
        let mut stream = serde_json::Deserializer::from_str(self.rest).into_iter();
        let value = match stream.next() {
            Some(Ok(value)) => value,
            Some(Err(error)) => return Err(self.kind.not_json(&spell(path), &error)),
            None => return Ok(Value::Null),
        };
        self.rest = &self.rest[stream.byte_offset()..];
        self.skip_blanks_and_comma();
        Ok(Value::from_json(value))
    }

    /// Whether nothing but blanks stood before the next comma or the end.
    fn skip_blanks_and_comma(&mut self) -> bool {
        self.rest = self.rest.trim_start();
        if let Some(rest) = self.rest.strip_prefix(',') {
            self.rest = rest;
            return true;
        }
        self.rest.is_empty()
    }

    /// The text up to one of `stops`, which is consumed. A backslash makes the next character plain.
    fn until(&mut self, stops: &[char]) -> (String, Option<char>) {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        let stop = loop {
            match chars.next() {
                Some(c) if stops.contains(&c) => break Some(c),
                Some('\\') if self.kind != Kind::Literal => text.extend(chars.next()),
                Some(c) => text.push(c),
                None => break None,
            }
        };
        self.rest = chars.as_str();
        (text, stop)
    }

    fn no_value(&self) -> SetError {
        let after = if self.last.is_empty() { "the first key".to_owned() } else { spell(&self.last) };
        SetError::NoValue { flag: self.kind.flag(), after }
    }

    pub(super) fn name_error(&self, path: &[Step], problem: &'static str) -> SetError {
        SetError::Name { flag: self.kind.flag(), key: spell(path), problem }
    }
}
