//! A file that is opened to be changed and sealed again.
//!
//! Values and comments that did not change keep their ciphertext; all others, and the MAC, are sealed anew with the data key
//! that the file has. Its MAC is verified before anything is changed.

use super::cipher::Cipher;
use super::file::{FileFormat, SopsFile};
use super::keys::wrap::{WrapError, Wrappers, new_data_key};
use super::keys::{DataKey, Keyring, SealedKey};
use super::open::{OpenOptions, SopsError, unseal};
use super::seal::{self, Envelope, Indent, SealError};
use crate::document::value::Value;
use crate::document::{parse, text_of};
use crate::fault::{Class, Fault};
use crate::scope::Scope;
use crate::secret::Secret;

/// A file of which everything is known.
pub struct Amendable {
    /// What it opens to.
    pub plaintext: Secret<Vec<u8>>,
    /// What it is.
    pub format: FileFormat,
    /// What it says about itself.
    pub envelope: Envelope,
    sealed: Secret<Vec<u8>>,
    data_key: DataKey,
    cipher: Cipher,
}

impl Amendable {
    /// Opens `sealed` with a key of `keyring`.
    pub async fn open(
        sealed: Secret<Vec<u8>>,
        format: FileFormat,
        keyring: &Keyring,
        scope: &Scope,
        options: OpenOptions,
        indent: Indent,
    ) -> Result<Self, SopsError> {
        let file = SopsFile::read(text_of(sealed.expose())?, format)?;
        let data_key = unseal(file.metadata(), keyring, scope).await?;
        let cipher = Cipher::with_memory(&data_key)?;
        let mut plaintext = file.open_by(&cipher, OpenOptions { for_people: false, ..options })?.content;
        if options.for_people {
            let edited = file.open_by(&cipher, options)?.content;
            plaintext = if is_same(&plaintext, &edited, format) { edited } else { plaintext };
        }
        let envelope = Envelope::of(file.metadata(), indent);
        Ok(Self { plaintext, format, envelope, sealed, data_key, cipher })
    }

    /// A file that is not there yet, with master keys of `envelope` that have sealed nothing.
    pub async fn new(
        plaintext: &str,
        format: FileFormat,
        envelope: Envelope,
        wrappers: &Wrappers,
    ) -> Result<Self, RewrapError> {
        let data_key = new_data_key()?;
        let groups = wrappers.seal(&envelope.groups, envelope.threshold, &data_key).await?;
        Ok(Self {
            plaintext: Secret::new(plaintext.as_bytes().to_vec()),
            format,
            envelope: Envelope { groups, ..envelope },
            sealed: Secret::default(),
            cipher: Cipher::new(&data_key).map_err(SealError::from)?,
            data_key,
        })
    }

    /// Takes the version of the file for ours where it is older, as sops does when a file is edited.
    pub fn renew_version(&mut self) {
        fn numbers(version: &str) -> Vec<u64> {
            version.split('.').map(|part| part.parse().unwrap_or_default()).collect()
        }
        let older = |version: &String| numbers(version) < numbers(seal::VERSION);
        self.envelope.version = self.envelope.version.take().filter(|version| !older(version));
    }

    /// The file with another plaintext.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
        seal::seal(plaintext, self.format, &self.cipher, &self.envelope)
    }

    /// The file with a new data key, sealed to the master keys of `groups`. All is encrypted anew.
    pub async fn rotate(
        &self,
        groups: &[Vec<SealedKey>],
        wrappers: &Wrappers,
    ) -> Result<Secret<Vec<u8>>, RewrapError> {
        let data_key = new_data_key()?;
        let groups = wrappers.seal(groups, self.envelope.threshold, &data_key).await?;
        let envelope = Envelope { groups, ..self.envelope.clone() };
        let cipher = Cipher::new(&data_key).map_err(SealError::from)?;
        Ok(seal::seal(self.plaintext.expose(), self.format, &cipher, &envelope)?)
    }

    /// The file with its data key sealed to the master keys of `groups`. Values and MAC stay what they are.
    pub async fn rewrap(
        &self,
        groups: &[Vec<SealedKey>],
        threshold: Option<usize>,
        wrappers: &Wrappers,
    ) -> Result<Secret<Vec<u8>>, RewrapError> {
        let groups = wrappers.seal(groups, threshold, &self.data_key).await?;
        let envelope = Envelope { groups, threshold, ..self.envelope.clone() };
        let text = text_of(self.sealed.expose()).map_err(SealError::from)?;
        let file = SopsFile::read(text, self.format).map_err(SealError::Unfaithful)?;
        let values = file.without_metadata().map_err(SealError::Unfaithful)?;
        Ok(seal::rewrap(values.expose(), self.format, &self.cipher, &envelope, file.metadata())?)
    }
}

/// Whether two plaintexts say the same.
fn is_same(one: &Secret<Vec<u8>>, other: &Secret<Vec<u8>>, format: FileFormat) -> bool {
    let FileFormat::Document(format) = format else { return one == other };
    let said = |text: &Secret<Vec<u8>>| {
        let stream = parse(text_of(text.expose()).ok()?, format).ok()?;
        let anchors = stream.anchors();
        stream.documents.iter().map(|root| Value::of(root, &anchors).ok()).collect::<Option<Vec<_>>>()
    };
    said(one).is_some_and(|one| said(other).is_some_and(|other| one == other))
}

/// A file does not get other keys.
#[derive(Debug, thiserror::Error)]
pub enum RewrapError {
    /// A data key cannot be sealed.
    #[error(transparent)]
    Wrap(#[from] WrapError),
    /// The file cannot.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Fault for RewrapError {
    fn class(&self) -> Class {
        match self {
            Self::Wrap(error) => error.class(),
            Self::Seal(error) => error.class(),
        }
    }
}
