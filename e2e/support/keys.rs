//! Keys made for one test, by the tools that users make theirs with.

use std::fs;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use tempfile::TempDir;

use super::process::Run;
use super::tools::{on_path, tool};

/// A keys folder as an operator mounts it, for `STRONGROOM_KEYS_DIR`.
#[derive(Debug)]
pub struct KeysFolder {
    folder: TempDir,
}

impl KeysFolder {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("strongroom-keys-").tempdir().unwrap() }
    }

    /// With one more file.
    pub fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.folder.path().join(name), content).unwrap();
        self
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// An age key.
#[derive(Debug)]
pub struct AgeKey {
    /// `AGE-SECRET-KEY-1…`.
    pub identity: String,
    /// `age1…`.
    pub recipient: String,
}

impl AgeKey {
    /// A new one.
    pub fn new() -> Self {
        let identity = age::x25519::Identity::generate();
        Self {
            identity: identity.to_string().expose_secret().to_owned(),
            recipient: identity.to_public().to_string(),
        }
    }

    /// A new post-quantum one, `AGE-SECRET-KEY-PQ-1…`, of `age-keygen`.
    pub fn post_quantum() -> Self {
        let printed = Run::new(tool("age-keygen")).arg("-pq").ok();
        let after = |start: &str| printed.lines().find_map(|line| Some(line[line.find(start)?..].to_owned()));
        Self { identity: after("AGE-SECRET-KEY-PQ-1").unwrap(), recipient: after("age1pq1").unwrap() }
    }
}

/// A GnuPG home with keys that have no passphrase; its agent is stopped when dropped.
#[derive(Debug)]
pub struct GpgHome {
    folder: TempDir,
}

impl GpgHome {
    /// An empty one. The path is short, as sockets need it.
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("gpg-").tempdir_in("/tmp").unwrap() }
    }

    /// For `GNUPGHOME`.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a key of `algorithm` (`rsa4096`, `rsa2048`, `future-default`) and returns its fingerprint.
    pub fn generate(&self, algorithm: &str) -> String {
        let user = format!("Strongroom test {algorithm} <test@strongroom.example>");
        let usage = if algorithm == "future-default" { "default" } else { "sign,encrypt" };
        self.gpg().args(["--passphrase", "", "--quick-gen-key", &user, algorithm, usage, "never"]).ok();
        self.fingerprints(&user).swap_remove(0)
    }

    /// Makes a key of `user` that only signs, with a subkey of each algorithm of `encryption`, and returns their
    /// fingerprints, that of the key first. `protection` are gpg's options on the passphrase.
    pub fn generate_with_subkeys(
        &self,
        user: &str,
        primary: &str,
        encryption: &[&str],
        protection: &[&str],
    ) -> Vec<String> {
        let gpg = || self.gpg().args(protection);
        gpg().args(["--quick-gen-key", user, primary, "sign", "never"]).ok();
        let fingerprint = self.fingerprints(user).swap_remove(0);
        for algorithm in encryption {
            gpg().args(["--quick-add-key", &fingerprint, algorithm, "encr", "never"]).ok();
        }
        self.fingerprints(user)
    }

    /// The fingerprints of the key of `user` and of its subkeys.
    pub fn fingerprints(&self, user: &str) -> Vec<String> {
        let listing = self.gpg().args(["--with-colons", "--list-keys", user]).ok();
        let lines = listing.lines().filter(|line| line.starts_with("fpr:"));
        lines
            .map(|line| line.split(':').nth(9).expect("the tenth field is the fingerprint").to_owned())
            .collect()
    }

    /// The armored secret key, as `gpg --export-secret-keys --armor` prints it.
    pub fn export(&self, fingerprint: &str) -> String {
        self.gpg().args(["--armor", "--export-secret-keys", fingerprint]).ok()
    }

    /// `gpg` in this home, in batch mode.
    pub fn gpg(&self) -> Run {
        Run::new(on_path("gpg"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GNUPGHOME", self.path())
            .args(["--batch", "--quiet", "--pinentry-mode", "loopback"])
    }
}

impl Drop for GpgHome {
    fn drop(&mut self) {
        let gpgconf: PathBuf = on_path("gpgconf");
        Run::new(gpgconf).env("GNUPGHOME", self.path()).args(["--kill", "all"]).output();
    }
}
