//! A SOPS file of any format: which one it is, and opening it.

use super::cipher::Cipher;
use super::flat::{Flat, FlatFile};
use super::keys::Keyring;
use super::metadata::Metadata;
use super::open::{OpenOptions, SealedFile, SopsError, unseal};
use super::{dotenv, ini, is_encrypted};
use crate::document::value::Value;
use crate::document::{Format, Node, Stream, parse};
use crate::scope::Scope;
use crate::secret::Secret;

/// What sops takes a file for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileFormat {
    /// YAML or JSON.
    Document(Format),
    /// dotenv or INI.
    Flat(Flat),
    /// JSON that holds any content under `data`.
    Binary,
}

impl FileFormat {
    /// What `--input-type` and `?format=` call the formats.
    pub const NAMES: [&str; 5] = ["yaml", "json", "dotenv", "ini", "binary"];

    /// The format of this name, one of [`Self::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "yaml" => Self::Document(Format::Yaml),
            "json" => Self::Document(Format::Json),
            "dotenv" => Self::Flat(Flat::Dotenv),
            "ini" => Self::Flat(Flat::Ini),
            "binary" => Self::Binary,
            _ => return None,
        })
    }

    /// What the name of a file says, as sops understands it; `None` where sops would say binary.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        Self::named(match extension {
            "yml" => "yaml",
            "env" => "dotenv",
            "yaml" | "json" | "ini" => extension,
            _ => return None,
        })
    }

    /// What the name says, else what the content looks like; `None`: it is no SOPS file.
    pub fn of_file(name: &str, text: &str) -> Option<Self> {
        match Self::of_name(name) {
            Some(Self::Document(format)) => parse(text, format)
                .is_ok_and(|stream| is_encrypted(&stream))
                .then_some(Self::Document(format)),
            Some(Self::Flat(_) | Self::Binary) | None => Self::of_content(text),
        }
    }

    fn of_content(text: &str) -> Option<Self> {
        if let Ok(stream) = parse(text, Format::Json) {
            let binary = is_envelope(&stream).then_some(Self::Binary);
            return binary.or_else(|| is_encrypted(&stream).then_some(Self::Document(Format::Json)));
        }
        if dotenv::is_encrypted(text) {
            return Some(Self::Flat(Flat::Dotenv));
        }
        if ini::is_encrypted(text) {
            return Some(Self::Flat(Flat::Ini));
        }
        parse(text, Format::Yaml).is_ok_and(|s| is_encrypted(&s)).then_some(Self::Document(Format::Yaml))
    }
}

/// Whether it is what sops writes for binary: `data`, which is text, and `sops`.
fn is_envelope(stream: &Stream) -> bool {
    let Some(root) = stream.documents.first() else { return false };
    root.entries().len() == 2
        && root.at("data").and_then(Node::text).is_some()
        && root.at("sops").is_some_and(super::metadata::looks_like_metadata)
}

/// A file that was opened.
#[derive(Debug)]
pub struct OpenedFile {
    /// The whole content.
    pub content: Secret<Vec<u8>>,
    /// Keys and values, of dotenv and INI, whose text helm and YAML cannot read.
    pub data: Option<Value>,
    /// What was encrypted, as far as it is text.
    pub leaves: Vec<Secret<String>>,
}

/// A file of any format with metadata, before its key is known.
#[derive(Debug)]
pub enum SopsFile<'t> {
    /// YAML or JSON.
    Document(SealedFile<'t>),
    /// dotenv or INI.
    Flat(FlatFile<'t>),
    /// JSON that holds any content under `data`.
    Binary(SealedFile<'t>),
}

impl<'t> SopsFile<'t> {
    /// Parses `text` and reads its metadata.
    pub fn read(text: &'t str, format: FileFormat) -> Result<Self, SopsError> {
        Ok(match format {
            FileFormat::Document(format) => Self::Document(SealedFile::read(text, format)?),
            FileFormat::Flat(flat) => Self::Flat(FlatFile::read(text, flat)?),
            FileFormat::Binary => Self::Binary(SealedFile::read(text, Format::Json)?),
        })
    }

    /// What it says about itself.
    pub const fn metadata(&self) -> &Metadata {
        match self {
            Self::Document(file) | Self::Binary(file) => &file.metadata,
            Self::Flat(file) => &file.metadata,
        }
    }

    /// Its text without the metadata.
    pub fn without_metadata(&self) -> Result<Secret<String>, SopsError> {
        match self {
            Self::Document(file) | Self::Binary(file) => file.without_metadata(),
            Self::Flat(file) => file.without_metadata(),
        }
    }

    /// Decrypts every value and verifies the MAC.
    pub fn open_by(&self, cipher: &Cipher, options: OpenOptions) -> Result<OpenedFile, SopsError> {
        Ok(match self {
            Self::Document(file) => {
                let opened = file.open_by(cipher, options)?;
                OpenedFile { content: bytes_of(&opened.text), data: None, leaves: opened.leaves }
            }
            Self::Flat(file) => {
                let opened = file.open_by(cipher, options)?;
                OpenedFile { content: bytes_of(&opened.text), data: Some(opened.data), leaves: opened.leaves }
            }
            Self::Binary(file) => {
                let content = file.open_binary(cipher, options)?;
                let leaves = std::str::from_utf8(content.expose()).map(|text| Secret::new(text.to_owned()));
                OpenedFile { leaves: leaves.into_iter().collect(), content, data: None }
            }
        })
    }
}

/// Opens `text` with a key of `keyring`.
pub async fn open(
    text: &str,
    format: FileFormat,
    keyring: &Keyring,
    scope: &Scope,
    options: OpenOptions,
) -> Result<OpenedFile, SopsError> {
    let file = SopsFile::read(text, format)?;
    let key = unseal(file.metadata(), keyring, scope).await?;
    file.open_by(&Cipher::new(&key)?, options)
}

fn bytes_of(text: &Secret<String>) -> Secret<Vec<u8>> {
    Secret::new(text.expose().as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: Option<FileFormat> = Some(FileFormat::Document(Format::Yaml));
    const JSON: Option<FileFormat> = Some(FileFormat::Document(Format::Json));
    const DOTENV: Option<FileFormat> = Some(FileFormat::Flat(Flat::Dotenv));
    const INI: Option<FileFormat> = Some(FileFormat::Flat(Flat::Ini));
    const BINARY: Option<FileFormat> = Some(FileFormat::Binary);

    #[test]
    fn a_name_says_what_sops_takes_it_for() {
        for (name, format) in [
            ("a.yaml", YAML),
            ("a.yml", YAML),
            ("a.json", JSON),
            (".env", DOTENV),
            ("a.env", DOTENV),
            ("a.ini", INI),
            ("a.YAML", None),
            ("env", None),
            ("a.key", None),
        ] {
            assert_eq!(FileFormat::of_name(name), format, "{name}");
        }
        assert!(FileFormat::NAMES.iter().all(|name| FileFormat::named(name).is_some()));
    }

    #[test]
    fn only_sops_files_are_found_by_content() {
        let block = r#"{"mac": "m", "lastmodified": "l"}"#;
        let envelope = format!(r#"{{"data": "ENC[AES256_GCM,data:x]", "sops": {block}}}"#);
        let yaml = format!("a: x\nsops: {block}\n");
        for (name, text, format) in [
            ("tls.key", envelope.as_str(), BINARY),
            ("a.json", &envelope, JSON),
            ("x", &format!(r#"{{"data": "x", "b": 1, "sops": {block}}}"#), JSON),
            ("x", &yaml, YAML),
            ("x.env", "A=ENC\nsops_lastmodified=l\nsops_mac=m\n", DOTENV),
            ("x", "[a]\nb = c\n\n[sops]\nlastmodified = l\nmac   = m\n", INI),
            ("x.env", "A=b\n", None),
            ("x.ini", "[sops]\nkey = 1\n[b]\nmac = m\n", None),
            ("x", "-----BEGIN CERTIFICATE-----\n", None),
            ("x", "", None),
        ] {
            assert_eq!(FileFormat::of_file(name, text), format, "{name}: {text}");
        }
    }
}
