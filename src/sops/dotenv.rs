//! dotenv as sops reads it: `KEY=value` up to the end of the line, with neither quotes nor trimming, and `\n` for a
//! line break. A comment has its `#` in the first column.

use std::borrow::Cow;

use super::flat::{Leaf, Parsed};
use super::open::SopsError;
use crate::secret::Secret;

const METADATA: &str = "sops_";

/// Whether `text` has metadata.
pub(super) fn is_encrypted(text: &str) -> bool {
    let has = |name| text.lines().any(|line| line.starts_with(name));
    has("sops_mac=") && has("sops_lastmodified=")
}

pub(super) fn parse(text: &str) -> Result<Parsed<'_>, SopsError> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let content = line.strip_suffix('\n').unwrap_or(line);
        let end = at + content.len();
        if let Some(comment) = content.strip_prefix('#') {
            let value = Secret::new(comment.to_owned());
            parsed.leaves.push(Leaf { span: at..end, section: None, key: None, value });
        } else if !content.trim_end_matches('\r').is_empty() {
            let pair = content.split_once('=');
            let (key, value) = pair.ok_or(SopsError::Line { line: index + 1, expected: "`KEY=value`" })?;
            let value = value.replace("\\n", "\n");
            if let Some(name) = key.strip_prefix(METADATA) {
                parsed.metadata.push((name, value.trim_end_matches('\r').to_owned()));
                parsed.cuts.push(at..at + line.len());
            } else {
                let (span, key) = (at + key.len() + 1..end, Some(Cow::Borrowed(key)));
                parsed.leaves.push(Leaf { span, section: None, key, value: Secret::new(value) });
            }
        }
        at += line.len();
    }
    Ok(parsed)
}

/// A value as it is written.
pub(super) fn escaped(text: &str) -> Secret<String> {
    Secret::new(text.replace('\n', "\\n"))
}

/// A comment as it is written.
pub(super) fn comment(text: &str) -> Secret<String> {
    Secret::new(format!("#{}", text.replace('\n', "\\n")))
}
