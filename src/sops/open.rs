//! Opening a SOPS file: metadata, data key, values, MAC, and the text that is left when all is opened.
//!
//! The text is edited, not printed again: encrypted scalars are replaced by what they hold, in their type, the
//! `sops` block is taken out, and everything else stays byte for byte.

use super::cipher::{Cipher, CipherError, Opened as Plaintext};
use super::keys::{DataKey, Keyring, KeyringError};
use super::metadata::{Metadata, MetadataError, looks_like_metadata};
use super::walk::Walk;
use super::{belongs_to_cluster, cut};
use crate::document::edit::EditError;
use crate::document::{Format, Kind, Node, ParseError, Stream, parse};
use crate::fault::{Class, Fault};
use crate::scope::Scope;
use crate::secret::Secret;

/// The newest sops whose files are known, major and minor.
const KNOWN: (u32, u32) = (3, 13);

/// What the reader of a file asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OpenOptions {
    /// Open a file whose MAC is missing or wrong. Its encrypted values are still proven one by one.
    pub ignore_mac: bool,
}

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The whole text.
    pub text: Secret<String>,
    /// The decrypted values in order, as text; booleans, which are not worth hiding, are left out.
    pub leaves: Vec<Secret<String>>,
}

/// Opens `text` with a key of `keyring`.
pub async fn open(
    text: &str,
    format: Format,
    keyring: &Keyring,
    scope: &Scope,
    options: OpenOptions,
) -> Result<Opened, SopsError> {
    let file = SealedFile::read(text, format)?;
    let groups = &file.metadata.groups;
    let key = keyring.data_key(scope, groups, file.metadata.threshold).await.map_err(SopsError::Keyring)?;
    file.open(&key, options)
}

/// A file with metadata, before its key is known.
#[derive(Debug)]
pub struct SealedFile<'t> {
    text: &'t str,
    stream: Stream,
    /// What it says about itself.
    pub metadata: Metadata,
}

impl<'t> SealedFile<'t> {
    /// Parses `text` and reads its metadata.
    pub fn read(text: &'t str, format: Format) -> Result<Self, SopsError> {
        Self::of(text, parse(text, format)?)
    }

    /// Reads the metadata of `stream`, which was parsed from `text`.
    pub fn of(text: &'t str, stream: Stream) -> Result<Self, SopsError> {
        let block = block(&stream)?;
        let metadata = Metadata::read(block).map_err(|error| {
            let version = block.at("version").and_then(Node::text).unwrap_or_default();
            newer(version, SopsError::Metadata(error))
        })?;
        Ok(Self { text, stream, metadata })
    }

    /// Decrypts every value with the data key and verifies the MAC.
    pub fn open(&self, key: &DataKey, options: OpenOptions) -> Result<Opened, SopsError> {
        self.decrypt(key, options).map_err(|error| newer(&self.metadata.version, error))
    }

    fn decrypt(&self, key: &DataKey, options: OpenOptions) -> Result<Opened, SopsError> {
        let cipher = Cipher::new(key)?;
        let anchors = self.stream.anchors();
        let blocks = cut::blocks(self.text, &self.stream);
        let mut walk = Walk::new(self.text, &self.stream, &self.metadata, &cipher, &anchors, &blocks);
        for document in &self.stream.documents {
            walk.document(document)?;
        }
        let (mut edits, leaves, mac) = walk.finish();
        if !options.ignore_mac {
            let stated = self.metadata.mac.as_deref().ok_or(SopsError::NoMac)?;
            let stated = cipher.open(stated, &self.metadata.last_modified);
            match stated.map_err(SopsError::MacUnreadable)? {
                Plaintext::Text(stated) if mac.is(stated.expose()) => {}
                _ => return Err(SopsError::MacMismatch),
            }
        }
        for block in blocks {
            edits.replace_span(block.span, Secret::new(block.instead.to_owned()));
        }
        Ok(Opened { text: edits.apply(self.text)?, leaves })
    }
}

/// The metadata of a stream: that of its first document.
fn block(stream: &Stream) -> Result<&Node, SopsError> {
    let documents = stream.documents.as_slice();
    let first = documents.first().ok_or(SopsError::NotEncrypted)?;
    let mut blocks =
        first.entries().iter().filter(|(key, _)| key.text() == Some("sops")).map(|(_, value)| value);
    match (blocks.next(), blocks.next()) {
        (Some(_), Some(_)) => Err(SopsError::TwoBlocks),
        (Some(block), None) if looks_like_metadata(block) || !matches!(block.kind, Kind::Mapping(_)) => {
            Ok(block)
        }
        _ if documents.iter().filter_map(|document| document.at("sops")).any(looks_like_metadata) => {
            Err(SopsError::FirstIsPlain)
        }
        _ if belongs_to_cluster(first) || !super::is_encrypted(stream) => Err(SopsError::NotEncrypted),
        _ => Err(SopsError::CutOff),
    }
}

/// Says that a newer sops wrote the file, where one did, since that may be why it cannot be read.
fn newer(version: &str, error: SopsError) -> SopsError {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let written = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if written <= KNOWN {
        return error;
    }
    SopsError::Newer { major: written.0, minor: written.1, source: Box::new(error) }
}

/// A SOPS file cannot be opened. Names keys and lines, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SopsError {
    /// Not YAML, or not JSON.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Nothing in it is encrypted.
    #[error("the file has no SOPS metadata")]
    NotEncrypted,
    /// Encrypted values, but no `sops` block.
    #[error(
        "the file holds encrypted values but no SOPS metadata: it is cut off, or its `sops` block was removed"
    )]
    CutOff,
    /// Metadata in a later document only.
    #[error(
        "the first document has no SOPS metadata, but a later one has\nhelp: encrypt all documents of a file together"
    )]
    FirstIsPlain,
    /// Which of them?
    #[error("the key `sops` is there twice")]
    TwoBlocks,
    /// The metadata is not whole.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The data key stays sealed.
    #[error(transparent)]
    Keyring(KeyringError),
    /// The data key is not one.
    #[error(transparent)]
    Key(#[from] CipherError),
    /// A value cannot be opened, or cannot be what sops wrote.
    #[error("line {line}: `{path}`: {reason}")]
    Value {
        /// Where it stands.
        line: usize,
        /// Keys and indexes that lead to it.
        path: String,
        /// What is wrong.
        reason: ValueError,
    },
    /// The MAC was taken out.
    #[error("the file has no MAC\nhelp: {MAC_HELP}")]
    NoMac,
    /// The MAC itself is broken, or `lastmodified` was changed.
    #[error("the MAC of the file cannot be opened: {0}\nhelp: {MAC_HELP}")]
    MacUnreadable(CipherError),
    /// Something was changed without sops.
    #[error(
        "the MAC of the file does not match its values: a value was changed, added, removed or moved\nhelp: {MAC_HELP}"
    )]
    MacMismatch,
    /// Any of these, in a file of a sops that is not known yet.
    #[error("the file was written by sops {major}.{minor}, which is newer than any known here")]
    Newer {
        /// Of the version.
        major: u32,
        /// Of the version.
        minor: u32,
        /// What went wrong.
        source: Box<SopsError>,
    },
    /// A defect of ours.
    #[error(transparent)]
    Edit(#[from] EditError),
}

const MAC_HELP: &str =
    "change encrypted files with `sops edit` or `sops set` only; `ignoreMac` opens the file as it is";

impl Fault for SopsError {
    fn class(&self) -> Class {
        match self {
            Self::Keyring(error) => error.class(),
            Self::Newer { source, .. } => source.class(),
            Self::Edit(error) => error.class(),
            _ => Class::Invalid,
        }
    }
}

/// What is wrong with one value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// AES-GCM or the grammar of values.
    #[error("{0}")]
    Cipher(#[from] CipherError),
    /// In plain text where the rule asks for encryption.
    #[error(
        "it is not encrypted, though the rule of the file says it is\nhelp: change encrypted files with `sops edit` or `sops set` only"
    )]
    Plain,
    /// A key of a mapping that is not a string to go-yaml.
    #[error("the key is not a string")]
    Key,
    /// The same key again.
    #[error("the key is there twice")]
    Duplicate,
    /// Beyond an `i64`.
    #[error("sops has no integer that large")]
    Large,
    /// Such as `!!int x`.
    #[error("it does not fit its tag")]
    Tag,
    /// Aliases in aliases.
    #[error("aliases expand beyond the limit")]
    Expands,
    /// A comment outside a list.
    #[error("it is a comment in the place of a value")]
    Comment,
    /// The top of a document.
    #[error("the document is not a mapping")]
    Root,
    /// JSON has no way to write it.
    #[error("JSON cannot hold what it decrypts to")]
    Json,
}
