//! The keyring: everything that can open a SOPS data key, and the order in which it is tried.
//!
//! Each kind of master key is one file here that implements [`KeyUnwrap`]. Key material is read once, by
//! `config`'s wish, and never written.

use futures::future::BoxFuture;

use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// The key that a file's values are encrypted with: 32 bytes, or 33 for a Shamir share.
pub type DataKey = Secret<Vec<u8>>;

/// One data key, sealed to one master key, as a file's metadata lists it. The SOPS format closes the set.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SealedKey {
    /// `age`: an armored age file.
    Age {
        /// The recipient, `age1…` or an SSH public key.
        recipient: String,
        /// ASCII armor.
        enc: String,
    },
    /// `pgp`: an armored OpenPGP message.
    Pgp {
        /// Fingerprint of the key, in hex; may end in `!`.
        fingerprint: String,
        /// ASCII armor.
        enc: String,
    },
    /// `kms`: an AWS KMS ciphertext blob.
    Kms {
        /// ARN of the key or alias; its region is the one that is asked.
        arn: String,
        /// Role to assume first.
        role: Option<String>,
        /// Encryption context, in the file's order.
        context: Vec<(String, String)>,
        /// Profile of the AWS configuration.
        profile: Option<String>,
        /// Standard base64.
        enc: String,
    },
    /// `gcp_kms`.
    GcpKms {
        /// `projects/…/cryptoKeys/…`.
        resource_id: String,
        /// Standard base64.
        enc: String,
    },
    /// `azure_kv`.
    AzureKeyVault {
        /// URL of the vault.
        vault_url: String,
        /// Name of the key.
        name: String,
        /// Version of the key; may be empty.
        version: String,
        /// URL-safe base64 without padding.
        enc: String,
    },
    /// `hc_vault`: transit of HashiCorp Vault or OpenBao.
    VaultTransit {
        /// Address, as the file says it.
        address: String,
        /// Mount of the transit engine.
        engine_path: String,
        /// Name of the key.
        key_name: String,
        /// `vault:v1:…`.
        enc: String,
    },
    /// `hckms`: HuaweiCloud KMS.
    HuaweiKms {
        /// `region:uuid`.
        key_id: String,
        /// Opaque ciphertext.
        enc: String,
    },
}

impl SealedKey {
    /// The kind, as sops spells it in a file's metadata.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Age { .. } => "age",
            Self::Pgp { .. } => "pgp",
            Self::Kms { .. } => "kms",
            Self::GcpKms { .. } => "gcp_kms",
            Self::AzureKeyVault { .. } => "azure_kv",
            Self::VaultTransit { .. } => "hc_vault",
            Self::HuaweiKms { .. } => "hckms",
        }
    }
}

/// Everything that can open a data key, tried in order, with what was opened kept for the life of the process.
#[derive(Debug, Default)]
pub struct Keyring {}

/// One holder of master keys of one kind.
pub trait KeyUnwrap: std::fmt::Debug + Send + Sync {
    /// `None`: not a key of mine. `Some(Err)`: mine, and it failed. `Some(Ok)`: opened.
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>>;
}

/// Why one master key did not open a data key.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct UnwrapError {
    /// What kind of failure.
    pub class: Class,
    /// The reason, without any key material.
    pub reason: String,
}

impl Fault for UnwrapError {
    fn class(&self) -> Class {
        self.class
    }
}
