//! A desk at which files are encrypted and changed, by the product and by the real sops.

use std::fs;
use std::path::PathBuf;

use super::keys::{AgeKey, KeysFolder};
use super::process::Run;
use super::product::strongroom;
use super::repository::Repository;
use super::sops::sops;

/// A folder with a key, in which commands run.
#[derive(Debug)]
pub struct Desk {
    /// The folder.
    pub repository: Repository,
    /// The key.
    pub age: AgeKey,
    /// The key, for the product.
    pub keys: KeysFolder,
}

impl Desk {
    /// With a new key.
    pub fn new() -> Self {
        Self::of(AgeKey::new())
    }

    /// With this key.
    pub fn of(age: AgeKey) -> Self {
        Self { repository: Repository::new(), keys: KeysFolder::new().with("key.txt", &age.identity), age }
    }

    /// The product.
    pub fn product(&self) -> Run {
        strongroom().env("STRONGROOM_KEYS_DIR", self.keys.path()).directory(self.repository.path())
    }

    /// The real sops.
    pub fn sops(&self) -> Run {
        sops().env("SOPS_AGE_KEY", &self.age.identity).directory(self.repository.path())
    }

    /// `strongroom encrypt` to the key.
    pub fn encrypt(&self) -> Run {
        self.product().args(["encrypt", "--age", &self.age.recipient])
    }

    /// Of a file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.repository.path().join(name)
    }

    /// A file of the folder.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}
