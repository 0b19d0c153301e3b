//! Paths to a value of a file, as sops writes them: `["key"][0]`.

use std::fmt;

use crate::fault::{Class, Fault};

/// One step on the way to a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "[\"{}\"]", key.escape_debug()),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// The way to a value; empty for the whole document.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TreePath(Vec<Step>);

impl TreePath {
    /// Reads `["key"][0]`. A key stands in quotes of either kind and is taken letter by letter, up to the quote that a `]`
    /// follows.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let (mut steps, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let (step, behind) = step(rest).ok_or(PathError { at })?;
            steps.push(step);
            rest = behind;
        }
        Ok(Self(steps))
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The first steps, for a message.
    pub fn up_to(&self, length: usize) -> String {
        self.0[..length].iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.up_to(self.0.len()))
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    let inside = text.strip_prefix('[')?;
    for (quote, end) in [("\"", "\"]"), ("'", "']")] {
        if let Some(key) = inside.strip_prefix(quote) {
            let (key, rest) = key.split_once(end)?;
            return Some((Step::Key(key.to_owned()), rest));
        }
    }
    let (index, rest) = inside.split_once(']')?;
    Some((Step::Index(index.parse().ok()?), rest))
}

/// Not a path.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a path at character {at}\nhelp: write it as '[\"key\"][\"of a key\"][0]'")]
pub struct PathError {
    at: usize,
}

impl Fault for PathError {
    fn class(&self) -> Class {
        Class::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_sops_reads_them() {
        let key = |text: &str| Step::Key(text.to_owned());
        let table = [
            ("", vec![]),
            (r#"["a"]['b c'][0]"#, vec![key("a"), key("b c"), Step::Index(0)]),
            (r#"["a'[0]\n"]"#, vec![key("a'[0]\\n")]),
            (r#"[""]"#, vec![key("")]),
        ];
        for (text, steps) in table {
            assert_eq!(TreePath::parse(text).unwrap().steps(), steps, "{text}");
        }
        assert_eq!(TreePath::parse(r#"['a"'][7]"#).unwrap().to_string(), r#"["a\""][7]"#);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (text, at) in [
            ("a", 0),
            ("[a]", 0),
            (r#"["a"]["b"#, 5),
            (r#"["a"] ["b"]"#, 5),
            ("[-1]", 0),
            ("[0", 0),
            ("[]", 0),
        ] {
            assert_eq!(TreePath::parse(text), Err(PathError { at }), "{text}");
        }
    }
}
