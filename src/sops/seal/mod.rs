//! Sealing: a plaintext becomes a SOPS file that sops and [`super::open`] open.
//!
//! As opening edits the text and does not print it again, so does sealing: values and comments are replaced by their
//! ciphertext, the metadata is put behind them, everything else stays. What comes out is opened once more, with the same
//! key, before anybody gets it. A file that has metadata is refused.

mod block;
mod comments;
mod document;
mod flat;

use std::collections::HashMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cipher::{Cipher, CipherError, Opened};
use super::file::{FileFormat, SopsFile};
use super::keys::SealedKey;
use super::mac::Mac;
use super::metadata::Metadata;
use super::open::{OpenOptions, SopsError, ValueError};
use super::rules::Stated;
use crate::document::edit::{EditError, Edits};
use crate::document::{Format, Node, ParseError, parse, text_of};
use crate::fault::{Class, Fault};
use crate::secret::Secret;

pub use block::Indent;

/// The sops whose format is written.
pub const VERSION: &str = "3.13.3";

/// What a file says about how it is encrypted, but for its MAC.
#[derive(Clone, Debug, Default)]
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
    /// When the file got its master keys, where it has them already; they are without their sealed data key here.
    pub created: HashMap<SealedKey, String>,
    /// The sops whose format it is; [`VERSION`] where it is new.
    pub version: Option<String>,
}

impl Envelope {
    /// That of a file that is there.
    pub fn of(metadata: &Metadata, indent: Indent) -> Self {
        Self {
            groups: metadata.groups.clone(),
            threshold: metadata.threshold,
            rule: metadata.stated.clone(),
            mac_only_encrypted: metadata.mac_only_encrypted,
            indent,
            created: metadata.created.clone(),
            version: Some(metadata.version.clone()).filter(|version| !version.is_empty()),
        }
    }
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
    checked(&sealed, format, cipher)
}

/// Gives a file other master keys. `without_metadata` is its text but for the metadata; values and MAC stay what they are.
pub fn rewrap(
    without_metadata: &str,
    format: FileFormat,
    cipher: &Cipher,
    envelope: &Envelope,
    metadata: &Metadata,
) -> Result<Secret<Vec<u8>>, SealError> {
    let rule = envelope.rule.clone().or_else(|| (format != FileFormat::Binary).then(Stated::usual));
    let mac = metadata.mac.as_deref().unwrap_or_default();
    let block = block::metadata(envelope, rule.as_ref(), &now(), (&metadata.last_modified, mac));
    let sealed = match format {
        FileFormat::Document(format) => {
            document::attach(without_metadata, format, &block, envelope.indent, Edits::default())?
        }
        FileFormat::Flat(kind) => flat::attach(without_metadata, kind, &block, Edits::default())?,
        FileFormat::Binary => {
            let data = parse(without_metadata, Format::Json)?;
            let data = data.documents.first().and_then(|root| root.at("data")).and_then(Node::text);
            enclosed(data.unwrap_or_default(), &block, envelope.indent)
        }
    };
    checked(&sealed, format, cipher)
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
        Ok(block::metadata(self.envelope, rule, &self.now, (&self.now, &mac)))
    }
}

/// JSON that holds the content under `data`.
fn binary(content: &[u8], sealing: &Sealing<'_>) -> Result<Secret<String>, SealError> {
    let mut mac = sealing.mac();
    mac.take(content, true);
    let plaintext = Opened::Text(Secret::new(content.to_vec()));
    let data = if content.is_empty() { String::new() } else { sealing.cipher.seal(&plaintext, "data:")? };
    Ok(enclosed(&data, &sealing.metadata(None, mac)?, sealing.envelope.indent))
}

fn enclosed(data: &str, metadata: &serde_json::Value, indent: Indent) -> Secret<String> {
    let envelope = serde_json::json!({ "data": data, "sops": metadata });
    Secret::new(block::json(&envelope, &indent.json(), 0) + "\n")
}

/// Opens what was sealed, before anybody gets it.
fn checked(
    sealed: &Secret<String>,
    format: FileFormat,
    cipher: &Cipher,
) -> Result<Secret<Vec<u8>>, SealError> {
    let file = SopsFile::read(sealed.expose(), format).map_err(SealError::Unfaithful)?;
    file.open_by(cipher, OpenOptions::default()).map_err(SealError::Unfaithful)?;
    Ok(Secret::new(sealed.expose().as_bytes().to_vec()))
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
        "the file is encrypted already, or has a key that is called as sops calls its metadata (`sops`)\nhelp: change an encrypted file with `strongroom edit` or `strongroom set`"
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
    #[error("the rule about comments (`*_comment_regex`) matches encrypted comments too")]
    CommentRule,
    /// sops's parser may see it elsewhere, and leave a value plain that is to be encrypted.
    #[error(
        "line {line}: it is not certain what this comment says about encryption (`*_comment_regex`), because sops may see it in another place\nhelp: put it right above the key that it is about, in the key's column, or behind the value"
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
