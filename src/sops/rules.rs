//! Which values of a file are encrypted: by suffix or regular expression over the keys, or by comments.
//!
//! sops tests every key on the way to a value, so one key decides for all that is below it. Regular expressions
//! are Go's; one that does not compile matches nothing, as in sops.

use regex::Regex;

/// The rule of one file.
#[derive(Clone, Debug)]
pub enum Rule {
    /// All but what is below a key with this suffix.
    UnencryptedSuffix(String),
    /// Only what is below a key with this suffix.
    EncryptedSuffix(String),
    /// All but what is below a key that matches.
    UnencryptedRegex(Option<Regex>),
    /// Only what is below a key that matches.
    EncryptedRegex(Option<Regex>),
    /// Comments decided when the file was encrypted. What looks encrypted is: the MAC says whether that is true.
    ByComment,
}

/// What is known of a value from the keys that lead to it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reach {
    matched: bool,
}

impl Rule {
    /// The rule of a file that names none.
    pub fn default_suffix() -> Self {
        Self::UnencryptedSuffix("_unencrypted".to_owned())
    }

    /// The reach one key further down.
    pub fn below(&self, reach: Reach, key: &str) -> Reach {
        let matched = reach.matched
            || match self {
                Self::UnencryptedSuffix(suffix) | Self::EncryptedSuffix(suffix) => key.ends_with(suffix),
                Self::UnencryptedRegex(regex) | Self::EncryptedRegex(regex) => {
                    regex.as_ref().is_some_and(|regex| regex.is_match(key))
                }
                Self::ByComment => false,
            };
        Reach { matched }
    }

    /// Whether a value there is encrypted.
    pub fn covers(&self, reach: Reach, value: &str) -> bool {
        match self {
            Self::UnencryptedSuffix(_) | Self::UnencryptedRegex(_) => !reach.matched,
            Self::EncryptedSuffix(_) | Self::EncryptedRegex(_) => reach.matched,
            Self::ByComment => super::cipher::is_sealed(value),
        }
    }
}

/// Compiles a regular expression of Go's, or nothing where Go could not.
pub fn go_regex(pattern: &str) -> Option<Regex> {
    Regex::new(&translate(pattern)).ok()
}

/// Go's classes are ASCII, `\Q…\E` quotes, and `[` in a class stands for itself.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    let mut class = false;
    while let Some(c) = rest.next() {
        match c {
            '\\' => escape(&mut rest, class, &mut out),
            '[' if class && rest.peek() != Some(&':') => out.push_str("\\["),
            '[' if !class => {
                class = true;
                out.push('[');
                // A `]` right behind the opening stands for itself.
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if rest.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            '[' => posix(&mut rest, &mut out),
            ']' => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

fn posix(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    out.push('[');
    for c in rest.by_ref() {
        out.push(c);
        if c == ']' {
            break;
        }
    }
}

fn escape(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, class: bool, out: &mut String) {
    let Some(c) = rest.next() else {
        out.push('\\');
        return;
    };
    match (c, class) {
        ('d', true) => out.push_str("0-9"),
        ('w', true) => out.push_str("0-9A-Za-z_"),
        ('s', true) => out.push_str("\\t\\n\\f\\r "),
        ('d', false) => out.push_str("[0-9]"),
        ('w', false) => out.push_str("[0-9A-Za-z_]"),
        ('s', false) => out.push_str("[\\t\\n\\f\\r ]"),
        ('D', _) => out.push_str("[^0-9]"),
        ('W', _) => out.push_str("[^0-9A-Za-z_]"),
        ('S', _) => out.push_str("[^\\t\\n\\f\\r ]"),
        ('b', false) => out.push_str("(?-u:\\b)"),
        ('Q', _) => quoted(rest, out),
        _ => {
            out.push('\\');
            out.push(c);
        }
    }
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let mut literal = String::new();
    while let Some(c) = rest.next() {
        if c == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        literal.push(c);
    }
    out.push_str(&regex::escape(&literal));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_expressions_mean_what_they_mean_in_go() {
        let table = [
            ("^(data|stringData)$", "data", true),
            ("^(data|stringData)$", "metadata", false),
            ("pass", "my_password", true),
            (r"^\d+$", "12", true),
            (r"^\d+$", "१२", false),
            (r"^\w+$", "é", false),
            (r"^[\w-]+$", "a-b", true),
            (r"^[[a]+$", "[a", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]]+$", "a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[&&a]+$", "&a", true),
            (r"\Qa.b\E$", "xa.b", true),
            (r"\Qa.b\E$", "axb", false),
            (r"\bkey\b", "my key", true),
            ("(?i)SECRET", "secret", true),
        ];
        for (pattern, key, expected) in table {
            let regex = go_regex(pattern).unwrap_or_else(|| panic!("{pattern} does not compile"));
            assert_eq!(regex.is_match(key), expected, "{pattern} {key}");
        }
    }

    #[test]
    fn an_expression_that_go_refuses_matches_nothing() {
        assert!(go_regex("^(?!x)").is_none());
        assert!(go_regex("(").is_none());
    }

    #[test]
    fn one_key_on_the_way_decides_for_all_below() {
        let regex = || go_regex("^data$");
        let suffix = || "_x".to_owned();
        let table = [
            (Rule::default_suffix(), vec!["a"], true),
            (Rule::default_suffix(), vec!["a_unencrypted", "b"], false),
            (Rule::UnencryptedSuffix(suffix()), vec!["a", "b_x"], false),
            (Rule::EncryptedSuffix(suffix()), vec!["a_x", "b"], true),
            (Rule::EncryptedSuffix(suffix()), vec!["a"], false),
            (Rule::EncryptedRegex(regex()), vec!["data", "a"], true),
            (Rule::EncryptedRegex(regex()), vec!["kind"], false),
            (Rule::EncryptedRegex(None), vec!["data"], false),
            (Rule::UnencryptedRegex(regex()), vec!["data", "a"], false),
            (Rule::UnencryptedRegex(None), vec!["data"], true),
        ];
        for (rule, path, expected) in table {
            let reach = path.iter().fold(Reach::default(), |reach, key| rule.below(reach, key));
            assert_eq!(rule.covers(reach, "x"), expected, "{rule:?} {path:?}");
        }
        assert!(Rule::ByComment.covers(Reach::default(), "ENC[AES256_GCM,data:x"));
        assert!(!Rule::ByComment.covers(Reach::default(), "x"));
    }
}
