//! The real sops.

use std::path::{Path, PathBuf};

use super::process::Run;
use super::server::{Server, free_address};
use super::tools::{on_path, tool};

/// `sops …` of the pinned version, with a home of its own.
pub fn sops() -> Run {
    sops_of("sops")
}

/// `sops …` of one of the pinned versions: `sops`, `sops-min`.
pub fn sops_of(name: &str) -> Run {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // sops finds gpg on PATH, and asks for its newest version unless told not to.
    Run::new(tool(name)).env("PATH", path).env("SOPS_DISABLE_VERSION_CHECK", "1").env("HOME", "/nonexistent")
}

/// Encrypts `file` in place, as `sops encrypt -i` does, with the flags that name the keys: `["--age", recipient]`.
pub fn encrypt(file: &Path, keys: &[&str]) -> PathBuf {
    encrypt_by(sops(), file, keys)
}

/// As [`encrypt`], by a `sops` that was given the environment it needs (`GNUPGHOME`, `AWS_ENDPOINT_URL`, …).
pub fn encrypt_by(sops: Run, file: &Path, keys: &[&str]) -> PathBuf {
    sops.args(["encrypt", "--in-place"]).args(keys).arg(file).ok();
    file.to_owned()
}

/// The key service of sops on loopback, with these variables.
pub fn key_service(variables: &[(&str, String)]) -> Server {
    let home = tempfile::Builder::new().prefix("strongroom-keyservice-").tempdir().unwrap();
    let sops = tool("sops").display().to_string();
    let mut command = vec!["-i".to_owned(), format!("HOME={}", home.path().display())];
    command.extend(variables.iter().map(|(name, value)| format!("{name}={value}")));
    // It cannot choose a port itself.
    let address = free_address().to_string();
    command.extend(
        [&sops, "keyservice", "--verbose", "--network", "tcp", "--address", &address].map(str::to_owned),
    );
    let command: Vec<_> = command.iter().map(String::as_str).collect();
    Server::start(&on_path("env"), &command, home, |log| {
        let (_, rest) = log.split_once("Listening on tcp://")?;
        rest.split(|c: char| c.is_whitespace() || c == '"').next()?.parse().ok()
    })
}
