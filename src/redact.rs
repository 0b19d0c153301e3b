//! Finding opened secrets in text that other programs wrote, so that errors, logs and dry runs do not show them.
//!
//! The type [`Secret`] keeps our own text clean; this is for text that is not ours, such as helm's messages and
//! manifests. A secret is found as it is, inside quotes of Go, JSON and YAML, wrapped over lines, percent-encoded,
//! and in base64 at any alignment. It is not found once it was hashed, encrypted or compressed.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::secret::Secret;

/// What stands in place of a secret.
pub const REDACTED: &str = "<redacted>";

/// Shorter values are not secrets, and looking for them would blank out line numbers and the like.
const SHORTEST: usize = 3;
/// From this length on a secret is found inside of words too.
const INSIDE_WORDS: usize = 4;
/// From this length on a derived form (a line of many, base64 inside base64) is telling enough to look for.
const DERIVED: usize = 8;

/// Values of every other file. Whoever encrypts a whole file encrypts them too, and they tell nothing.
const COMMON: &[&str] = &["true", "false", "null", "yes", "none", "off"];

/// Knows opened secrets and finds them in text.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    secrets: Vec<Secret<String>>,
    forms: OnceLock<Arc<Forms>>,
}

/// Every form of the secrets, and an automaton that looks for all of them at once.
#[derive(Default)]
struct Forms {
    needles: Vec<Needle>,
    /// Finds the first word of every needle; built of needles in the same order. It holds plaintext that is not wiped,
    /// so it is made only when text has to be searched.
    words: Option<AhoCorasick>,
}

#[derive(Clone, Debug)]
struct Needle {
    text: Secret<String>,
    whole_word: bool,
}

impl fmt::Debug for Forms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} forms", self.needles.len())
    }
}

impl Redactor {
    /// A redactor that knows `secrets`, in all the forms this module describes.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret<String>>) -> Self {
        Self { secrets: secrets.into_iter().cloned().collect(), forms: OnceLock::new() }
    }

    /// `text` with every known secret replaced by [`REDACTED`].
    pub fn redact(&self, text: &str) -> String {
        self.redact_with(text, REDACTED)
    }

    /// `text` with `replacement` for every known secret.
    pub fn redact_with(&self, text: &str, replacement: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut end = 0;
        for span in self.find(text) {
            clean.push_str(&text[end..span.start]);
            clean.push_str(replacement);
            end = span.end;
        }
        clean.push_str(&text[end..]);
        clean
    }

    /// Where known secrets stand in `text`: in order, not overlapping, not touching.
    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut spans: Vec<_> = self.forms().find(text).collect();
        spans.sort_unstable_by_key(|span| span.start);
        spans.dedup_by(|next, kept| {
            let joined = next.start <= kept.end;
            if joined {
                kept.end = kept.end.max(next.end);
            }
            joined
        });
        spans
    }

    /// Whether a known secret stands in `text`.
    pub fn occurs_in(&self, text: &str) -> bool {
        self.forms().find(text).next().is_some()
    }

    fn forms(&self) -> &Forms {
        self.forms.get_or_init(|| Arc::new(Forms::of(&self.secrets)))
    }
}

impl Forms {
    fn of(secrets: &[Secret<String>]) -> Self {
        let mut forms = Self::default();
        for secret in secrets {
            forms.learn(secret.expose());
        }
        forms.needles.sort_unstable_by(|a, b| a.text.expose().cmp(b.text.expose()));
        forms.needles.dedup_by(|a, b| a.text == b.text);
        let words = forms.needles.iter().map(Needle::first_word);
        forms.words =
            Some(AhoCorasick::new(words).expect("fewer and shorter words than the automaton can hold"));
        forms
    }

    fn find<'t>(&self, text: &'t str) -> impl Iterator<Item = Range<usize>> + use<'t, '_> {
        let found = self.words.iter().flat_map(move |words| words.find_overlapping_iter(text));
        found.filter_map(move |found| {
            self.needles[found.pattern().as_usize()].complete(text, found.start(), found.end())
        })
    }

    fn learn(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < SHORTEST || COMMON.iter().any(|word| secret.eq_ignore_ascii_case(word)) {
            return;
        }
        self.add_with_escapes(secret);
        for line in secret.lines().map(str::trim).filter(|line| line.len() >= DERIVED && *line != secret) {
            self.add_with_escapes(line);
        }
        self.add_whole_base64(secret);
        self.add_base64_cores(secret);
    }

    fn add_with_escapes(&mut self, secret: &str) {
        self.add(secret.to_owned());
        let json = json_inside(secret);
        self.add(json_inside(&json));
        self.add(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"));
        self.add(json);
        self.add(secret.replace('\'', "''"));
        self.add(utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string());
    }

    /// The secret encoded on its own, with and without the line end that files and block scalars carry.
    fn add_whole_base64(&mut self, secret: &str) {
        let mut line = Secret::new(String::with_capacity(secret.len() + 1));
        line.expose_mut().push_str(secret);
        line.expose_mut().push('\n');
        for text in [secret, line.expose()] {
            for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
                self.add(engine.encode(text));
            }
        }
    }

    fn add_base64_cores(&mut self, secret: &str) {
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            for core in base64_cores(&engine, secret.as_bytes()) {
                if core.len() >= DERIVED {
                    self.add(core);
                }
            }
        }
    }

    fn add(&mut self, text: String) {
        let whole_word = text.len() < INSIDE_WORDS;
        self.needles.push(Needle { text: Secret::new(text), whole_word });
    }
}

impl Needle {
    fn first_word(&self) -> &str {
        self.text.expose().split_whitespace().next().unwrap_or(self.text.expose())
    }

    /// Where the needle stands in `text`, whose `start..end` is its first word; `None` where the rest is another.
    fn complete(&self, text: &str, start: usize, end: usize) -> Option<Range<usize>> {
        let end = rest_of(text, end, self.text.expose().split_whitespace().skip(1))?;
        (!self.whole_word || is_word(text, start, end)).then_some(start..end)
    }
}

/// The characters in the base64 of a longer text that depend on `part` of it alone, for each of the three places in a
/// group of three bytes where it can start.
pub fn base64_cores(engine: &impl Engine, part: &[u8]) -> [String; 3] {
    [0, 1, 2].map(|shift| {
        let mut padded = Secret::new(vec![0; shift]);
        padded.expose_mut().extend_from_slice(part);
        let encoded = Secret::new(engine.encode(padded.expose()));
        encoded.expose()[(shift * 8).div_ceil(6)..padded.expose().len() * 8 / 6].to_owned()
    })
}

/// Where `words` end in `text` when they stand at `at`, with any white space, line wraps included, between them.
fn rest_of<'w>(text: &str, mut at: usize, words: impl Iterator<Item = &'w str>) -> Option<usize> {
    for word in words {
        let rest = &text[at..];
        let mut next = rest.trim_start();
        if !next.starts_with(word) {
            // A quoted string is wrapped with a backslash at the end of the line, and maybe one at the next start.
            next = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\\');
        }
        if next.len() == rest.len() || !next.starts_with(word) {
            return None;
        }
        at = text.len() - next.len() + word.len();
    }
    Some(at)
}

fn is_word(text: &str, start: usize, end: usize) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    !text[..start].ends_with(inside) && !text[end..].starts_with(inside)
}

/// What stands between the quotes of a JSON string, which is also how Go quotes all but exotic characters.
fn json_inside(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        let secrets: Vec<_> = secrets.iter().map(|text| Secret::new((*text).to_owned())).collect();
        Redactor::new(&secrets)
    }

    #[test]
    fn every_form_of_a_secret_is_redacted() {
        let secret = "STRONGROOM-MARKER \"a\" 'b' <c>\nsecond line of it\n";
        let trimmed = secret.trim();
        let known = redactor(&[secret]);
        let forms = [
            trimmed.to_owned(),
            format!("{trimmed:?}"),
            serde_json::json!({ "a": secret }).to_string(),
            serde_json::json!({ "a": serde_json::json!({ "b": secret }).to_string() }).to_string(),
            trimmed.replace('\'', "''"),
            trimmed.replace('\n', "\n      "),
            "STRONGROOM-MARKER\n    \"a\" 'b'\\\n  <c>".to_owned(),
            "cut: second line of it".to_owned(),
            STANDARD.encode(secret),
            STANDARD.encode(trimmed),
            STANDARD.encode(format!("user:{secret}")),
            STANDARD.encode(format!("user1:{secret} and more")),
            URL_SAFE_NO_PAD.encode(format!("user12:{secret}")),
            utf8_percent_encode(trimmed, NON_ALPHANUMERIC).to_string(),
        ];
        for form in forms {
            let text = format!("error: <{form}> at line 3");
            let clean = known.redact(&text);
            assert!(clean.starts_with("error: <") && clean.ends_with("> at line 3"), "{clean}");
            assert!(clean.contains(REDACTED) && !clean.contains("MARKER"), "{clean}");
            assert!(known.occurs_in(&text));
        }
    }

    #[test]
    fn short_and_common_values_do_not_blank_out_the_text() {
        let known = redactor(&["3", "12", "abc", "true", "", "  "]);
        assert_eq!(
            known.redact("line 3: true, abc, abcd, x_abc, (abc) 12"),
            "line 3: true, <redacted>, abcd, x_abc, (<redacted>) 12"
        );
    }

    #[test]
    fn overlapping_secrets_become_one() {
        let known = redactor(&["STRONGROOM-MARKER", "MARKER-two", "MARKER"]);
        assert_eq!(known.redact("x STRONGROOM-MARKER-two y MARKER"), "x <redacted> y <redacted>");
    }

    #[test]
    fn many_secrets_are_found_in_one_pass() {
        let secrets: Vec<_> = (0..5_000).map(|n| Secret::new(format!("STRONGROOM-MARKER-{n:05}"))).collect();
        let text: String = (0..5_000).map(|n| format!("a: STRONGROOM-MARKER-{n:05} and more\n")).collect();
        assert!(!Redactor::new(&secrets).redact(&text).contains("MARKER"));
    }

    #[test]
    fn text_without_a_secret_is_unchanged() {
        let known = redactor(&["STRONGROOM-MARKER"]);
        assert!(known.find("ünïcode – nothing").is_empty());
        assert_eq!(known.redact("ünïcode – nothing"), "ünïcode – nothing");
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", redactor(&["STRONGROOM-MARKER"])).contains("MARKER"));
    }
}
