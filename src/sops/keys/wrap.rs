//! Sealing a data key: the other direction of [`super::Keyring`].
//!
//! A master key that has sealed nothing yet is a [`SealedKey`] whose sealed data key is empty. Each kind of key seals in
//! the file that opens it, by [`KeyWrap`].

use std::fmt;
use std::sync::Arc;

use futures::future::{BoxFuture, try_join_all};

use crate::fault::{Class, Fault};
use crate::secret::Secret;
use crate::sops::keys::{DATA_KEY_LENGTH, DataKey, SealedKey, UnwrapError, name};
use crate::sops::shamir::{self, ShamirError};

/// One way to seal data keys to master keys of one kind.
pub trait KeyWrap: fmt::Debug + Send + Sync {
    /// `None`: not a key of mine. `Some(Err)`: mine, and it failed. `Some(Ok)`: the sealed data key.
    fn wrap_key<'a>(
        &'a self,
        key: &'a SealedKey,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Option<Result<String, UnwrapError>>>;

    /// The same key as a file has to name it, where that takes asking a service; `None` where it is named whole.
    fn complete<'a>(&'a self, _key: &'a SealedKey) -> BoxFuture<'a, Option<Result<SealedKey, UnwrapError>>> {
        Box::pin(async { None })
    }
}

/// A new data key.
pub fn new_data_key() -> Result<DataKey, WrapError> {
    let mut key = Secret::new(vec![0; DATA_KEY_LENGTH]);
    aws_lc_rs::rand::fill(key.expose_mut()).map_err(|_| WrapError::Random)?;
    Ok(key)
}

/// Everything that can seal a data key.
#[derive(Debug)]
pub struct Wrappers(Vec<Arc<dyn KeyWrap>>);

impl Wrappers {
    /// They are asked in order, until one seals.
    pub fn new(wrappers: Vec<Arc<dyn KeyWrap>>) -> Self {
        Self(wrappers)
    }

    /// `groups` with `data_key` sealed to each of their keys: whole where there is one group, else in shares of which
    /// `threshold` open it, or all where that is not said.
    pub async fn seal(
        &self,
        groups: &[Vec<SealedKey>],
        threshold: Option<usize>,
        data_key: &DataKey,
    ) -> Result<Vec<Vec<SealedKey>>, WrapError> {
        let parts = match groups {
            [] => return Err(WrapError::NoKeys),
            [_] => vec![data_key.clone()],
            _ => shamir::split(data_key, groups.len(), threshold.unwrap_or(groups.len()))?,
        };
        if let Some(empty) = groups.iter().position(Vec::is_empty) {
            return Err(if groups.len() == 1 {
                WrapError::NoKeys
            } else {
                WrapError::EmptyGroup { at: empty }
            });
        }
        let group = |(group, part)| async move {
            let group: &Vec<SealedKey> = group;
            try_join_all(group.iter().map(|key| self.seal_one(key, part))).await
        };
        try_join_all(groups.iter().zip(&parts).map(group)).await
    }

    /// `key` as a file names it: with the version that it has now, where its kind has versions and none is said.
    pub async fn complete(&self, key: &SealedKey) -> Result<SealedKey, WrapError> {
        for wrapper in &self.0 {
            if let Some(outcome) = wrapper.complete(key).await {
                return outcome.map_err(|error| WrapError::Key { key: name(key), error });
            }
        }
        Ok(key.clone())
    }

    async fn seal_one(&self, key: &SealedKey, part: &DataKey) -> Result<SealedKey, WrapError> {
        let key = self.complete(key).await?;
        let mut failure: Option<UnwrapError> = None;
        for wrapper in &self.0 {
            match wrapper.wrap_key(&key, part).await {
                None => {}
                Some(Ok(sealed)) => return Ok(key.sealing(sealed)),
                Some(Err(error)) => failure = Some(error.after(failure)),
            }
        }
        let key = name(&key);
        Err(match failure {
            Some(error) => WrapError::Key { key, error },
            None => WrapError::Unsupported { key },
        })
    }
}

/// A data key cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// There is nobody to seal it to.
    #[error(
        "no key is named to encrypt with\nhelp: name one with --age, --pgp, --kms, --gcp-kms, --hckms, --azure-kv or --hc-vault-transit, or in a rule of .sops.yaml"
    )]
    NoKeys,
    /// The same, of one group.
    #[error("key group {at} has no key")]
    EmptyGroup {
        /// Which one, from 0.
        at: usize,
    },
    /// The system gives no random bytes.
    #[error("the system has no random bytes")]
    Random,
    /// The groups are too few or too many for the threshold.
    #[error(transparent)]
    Shares(#[from] ShamirError),
    /// Nothing here seals to keys of this kind, or to this one.
    #[error("encrypting to this kind of key is not supported: {key}")]
    Unsupported {
        /// Which one.
        key: String,
    },
    /// One master key failed.
    #[error("{key}: {error}")]
    Key {
        /// Which one.
        key: String,
        /// Why.
        error: UnwrapError,
    },
}

impl Fault for WrapError {
    fn class(&self) -> Class {
        match self {
            Self::Key { error, .. } => error.class,
            Self::Random => Class::Internal,
            _ => Class::Invalid,
        }
    }
}
