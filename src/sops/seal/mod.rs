//! Sealing: a plaintext becomes a SOPS file that sops and [`super::open`] open.
//!
//! As opening edits the text and does not print it again, so does sealing: values and comments are replaced by their
//! ciphertext, the metadata is put behind them, everything else stays. What comes out is opened once more, with the same
//! key, before anybody gets it. A file that has metadata is refused.

mod block;
mod comments;
mod document;
mod flat;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cipher::{Cipher, CipherError, Opened};
use super::file::FileFormat;
use super::flat::FlatFile;
use super::keys::SealedKey;
use super::mac::Mac;
use super::open::{OpenOptions, SealedFile, SopsError, ValueError};
use super::rules::Stated;
use crate::document::edit::EditError;
use crate::document::{Format, ParseError, text_of};
use crate::fault::{Class, Fault};
use crate::secret::Secret;

pub use block::Indent;

/// The sops whose format is written.
pub const VERSION: &str = "3.13.3";

/// What a file says about how it is encrypted, but for its MAC.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Sealed data keys.
    pub groups: Vec<Vec<SealedKey>>,
    /// How many groups open it, where there are several.
    pub threshold: Option<usize>,
    /// Which values are encrypted; where it is missing, all but those with the usual suffix.
    pub rule: Option<Stated>,
    /// Only encrypted values are in the MAC.
    pub mac_only_encrypted: bool,
    /// How the metadata is laid out.
    pub indent: Indent,
}

/// Seals `plaintext` with `cipher`, whose data key is sealed in `envelope`.
pub fn seal(
    plaintext: &[u8],
    format: FileFormat,
    cipher: &Cipher,
    envelope: &Envelope,
) -> Result<Secret<Vec<u8>>, SealError> {
    // All that a binary file holds is one value, which no rule leaves plain.
    let without_rule = Envelope { rule: None, mac_only_encrypted: false, ..envelope.clone() };
    let envelope = if format == FileFormat::Binary { &without_rule } else { envelope };
    let sealing = Sealing { cipher, envelope, now: now() };
    let sealed = match format {
        FileFormat::Document(format) => document::seal(text_of(plaintext)?, format, &sealing)?,
        FileFormat::Flat(kind) => flat::seal(text_of(plaintext)?, kind, &sealing)?,
        FileFormat::Binary => binary(plaintext, &sealing)?,
    };
    check(sealed.expose(), format, cipher).map_err(SealError::Unfaithful)?;
    Ok(Secret::new(sealed.expose().as_bytes().to_vec()))
}

/// What all formats need.
struct Sealing<'a> {
    cipher: &'a Cipher,
    envelope: &'a Envelope,
    now: String,
}

impl Sealing<'_> {
    /// The rule of a file whose format has keys.
    fn rule(&self) -> Stated {
        self.envelope.rule.clone().unwrap_or_else(Stated::usual)
    }

    fn mac(&self) -> Mac {
        Mac::new(self.envelope.mac_only_encrypted)
    }

    /// The metadata, when all values were seen.
    fn metadata(&self, rule: Option<&Stated>, mac: Mac) -> Result<serde_json::Value, SealError> {
        let mac = Opened::Text(Secret::new(mac.hex().into_bytes()));
        let mac = self.cipher.seal(&mac, &self.now)?;
        Ok(block::metadata(self.envelope, rule, &self.now, &mac))
    }
}

/// JSON that holds the content under `data`.
fn binary(content: &[u8], sealing: &Sealing<'_>) -> Result<Secret<String>, SealError> {
    let mut mac = sealing.mac();
    mac.take(content, true);
    let plaintext = Opened::Text(Secret::new(content.to_vec()));
    let data = if content.is_empty() { String::new() } else { sealing.cipher.seal(&plaintext, "data:")? };
    let envelope = serde_json::json!({ "data": data, "sops": sealing.metadata(None, mac)? });
    Ok(Secret::new(block::json(&envelope, &sealing.envelope.indent.json(), 0) + "\n"))
}

/// Opens what was sealed.
fn check(sealed: &str, format: FileFormat, cipher: &Cipher) -> Result<(), SopsError> {
    let options = OpenOptions::default();
    match format {
        FileFormat::Document(format) => SealedFile::read(sealed, format)?.open_by(cipher, options).map(drop),
        FileFormat::Flat(kind) => FlatFile::read(sealed, kind)?.open_by(cipher, options).map(drop),
        FileFormat::Binary => SealedFile::read(sealed, Format::Json)?.open_binary(cipher, options).map(drop),
    }
}

/// RFC 3339 without a fraction.
fn now() -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).expect("zero is in range");
    now.format(&Rfc3339).expect("the year has four digits")
}

/// A plaintext cannot be sealed. Names keys and lines, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not YAML, or not JSON.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Not dotenv, or not INI.
    #[error(transparent)]
    Flat(SopsError),
    /// It has metadata, or a key of that name.
    #[error(
        "the file is encrypted already, or has a key that is called as sops calls its metadata (`sops`)\nhelp: change an encrypted file with `sops edit` or `sops set`"
    )]
    Encrypted,
    /// Nothing at all.
    #[error("the file is empty")]
    Empty,
    /// A list or a text at the top.
    #[error("line {line}: the document is not a mapping")]
    Root {
        /// Where the document stands.
        line: usize,
    },
    /// A value that sops cannot encrypt.
    #[error("line {line}: `{path}`: {reason}")]
    Value {
        /// Where it stands.
        line: usize,
        /// Keys that lead to it.
        path: String,
        /// What is wrong.
        reason: ValueError,
    },
    /// Its rule would take an encrypted comment for one that matches.
    #[error("the rule `unencrypted_comment_regex` matches encrypted comments too")]
    CommentRule,
    /// sops's parser may see it elsewhere, and leave a value plain that is to be encrypted.
    #[error(
        "line {line}: a comment that says what is encrypted (`*_comment_regex`) is not supported in YAML yet"
    )]
    UncertainComment {
        /// Where the comment stands.
        line: usize,
    },
    /// Deeper than is walked.
    #[error("it is nested deeper than {limit} levels")]
    Deep {
        /// In levels.
        limit: usize,
    },
    /// Random bytes, or a value of many gigabytes.
    #[error(transparent)]
    Cipher(#[from] CipherError),
    /// A defect of ours.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A defect of ours too, found before anything was written.
    #[error("what was encrypted does not open again")]
    Unfaithful(#[source] SopsError),
}

impl Fault for SealError {
    fn class(&self) -> Class {
        match self {
            Self::Edit(_) | Self::Unfaithful(_) => Class::Internal,
            _ => Class::Invalid,
        }
    }
}
