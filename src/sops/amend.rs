//! A file that is opened to be changed and sealed again.
//!
//! Values and comments that did not change keep their ciphertext; all others, and the MAC, are sealed anew with the data key
//! that the file has. Its MAC is verified before anything is changed.

use super::cipher::Cipher;
use super::file::{FileFormat, SopsFile};
use super::keys::Keyring;
use super::open::{OpenOptions, SopsError, unseal};
use super::seal::{self, Envelope, Indent, SealError};
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
    cipher: Cipher,
}

impl Amendable {
    /// Opens `text` with a key of `keyring`.
    pub async fn open(
        text: &str,
        format: FileFormat,
        keyring: &Keyring,
        scope: &Scope,
        options: OpenOptions,
        indent: Indent,
    ) -> Result<Self, SopsError> {
        let file = SopsFile::read(text, format)?;
        let cipher = Cipher::with_memory(&unseal(file.metadata(), keyring, scope).await?)?;
        let plaintext = file.open_by(&cipher, options)?.content;
        Ok(Self { plaintext, format, envelope: Envelope::of(file.metadata(), indent), cipher })
    }

    /// The file with another plaintext.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Secret<Vec<u8>>, SealError> {
        seal::seal(plaintext, self.format, &self.cipher, &self.envelope)
    }
}
