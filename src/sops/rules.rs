//! Which values of a file are encrypted: by suffix or regular expression over the keys, or by comments.
//!
//! sops tests every key on the way to a value, so one key decides for all that is below it. Regular expressions
//! are Go's; one that does not compile matches nothing, as in sops.

use regex::Regex;

/// A rule as metadata and `.sops.yaml` state it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stated {
    /// One of [`Self::FIELDS`].
    pub field: &'static str,
    /// Suffix or regular expression.
    pub text: String,
}

impl Stated {
    /// The fields that state a rule; a file has one of them.
    pub const FIELDS: [&str; 6] = [
        "unencrypted_suffix",
        "encrypted_suffix",
        "unencrypted_regex",
        "encrypted_regex",
        "unencrypted_comment_regex",
        "encrypted_comment_regex",
    ];

    /// That of a file whose author names none.
    pub fn usual() -> Self {
        Self { field: "unencrypted_suffix", text: "_unencrypted".to_owned() }
    }

    /// What it means for the keys on the way to a value.
    pub fn rule(&self) -> Rule {
        match self.field {
            "unencrypted_suffix" => Rule::UnencryptedSuffix(self.text.clone()),
            "encrypted_suffix" => Rule::EncryptedSuffix(self.text.clone()),
            "unencrypted_regex" => Rule::UnencryptedRegex(go_regex(&self.text)),
            "encrypted_regex" => Rule::EncryptedRegex(go_regex(&self.text)),
            _ => Rule::ByComment,
        }
    }

    /// What it means for the comments before a value, where it is about them.
    pub fn comments(&self) -> Option<CommentRule> {
        let encrypts = match self.field {
            "encrypted_comment_regex" => true,
            "unencrypted_comment_regex" => false,
            _ => return None,
        };
        Some(CommentRule { encrypts, regex: go_regex(&self.text) })
    }
}

/// Comments decide: one that matches reaches to the end of the value that follows it.
#[derive(Clone, Debug)]
pub struct CommentRule {
    /// What matches is encrypted, else it is what stays plain.
    pub encrypts: bool,
    regex: Option<Regex>,
}

impl CommentRule {
    /// Whether a value or comment is encrypted, given the comments before it since the last value, in each collection
    /// around it. A comment is the last of them itself.
    pub fn covers(&self, active: &[Vec<&str>], is_comment: bool) -> bool {
        let own = usize::from(is_comment && self.encrypts);
        let (last, outer) = active.split_last().map_or((&[][..], active), |(last, outer)| (&last[..], outer));
        let mut before = outer.iter().flatten().chain(&last[..last.len().saturating_sub(own)]);
        before.any(|comment| self.matches(comment)) == self.encrypts
    }

    /// Whether it speaks of this comment.
    pub fn matches(&self, comment: &str) -> bool {
        self.regex.as_ref().is_some_and(|regex| regex.is_match(comment))
    }
}

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
    fn a_comment_decides_for_what_follows_it_but_not_for_itself_where_it_says_to_encrypt() {
        let rule = |field| Stated { field, text: "secret".to_owned() }.comments().unwrap();
        let (encrypts, keeps) = (rule("encrypted_comment_regex"), rule("unencrypted_comment_regex"));
        let table: [(&[&[&str]], bool, bool, bool); 7] = [
            (&[], false, false, true),
            (&[&[" note"]], false, false, true),
            (&[&[" secret"]], false, true, false),
            (&[&[" secret"], &[]], false, true, false),
            (&[&[" secret"]], true, false, false),
            (&[&[" secret", " note"]], true, true, false),
            (&[&[" secret"], &[" note"]], true, true, false),
        ];
        for (active, is_comment, encrypted, kept) in table {
            let active: Vec<_> = active.iter().map(|level| level.to_vec()).collect();
            assert_eq!(encrypts.covers(&active, is_comment), encrypted, "{active:?}");
            assert_eq!(keeps.covers(&active, is_comment), kept, "{active:?}");
        }
    }

    #[test]
    fn one_key_on_the_way_decides_for_all_below() {
        let regex = || go_regex("^data$");
        let suffix = || "_x".to_owned();
        let table = [
            (Stated::usual().rule(), vec!["a"], true),
            (Stated::usual().rule(), vec!["a_unencrypted", "b"], false),
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
