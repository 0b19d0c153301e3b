//! Finds the tools that `e2e/tools/get` put into the cache.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The pinned tool of this name: `helm`, `helm3`, `helm-min`, `sops`, `sops-min`, `vals`, `age`, `moto`, `bao`.
pub fn tool(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "{} is missing\nhelp: run `make test`, or `e2e/tools/get {name}`", path.display());
    path
}

/// A program of the machine, such as `gpg`.
pub fn on_path(name: &str) -> PathBuf {
    std::env::split_paths(&path())
        .map(|folder| folder.join(name))
        .find(|program| program.exists())
        .unwrap_or_else(|| {
            panic!("{name} is not on this machine\nhelp: run `make test` as root once, or install {name}")
        })
}

/// Where programs of the machine are.
pub fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// The top of the source tree.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `STRONGROOM_TOOLS`, which the Makefile sets, else `tools/bin` of the cache that `e2e/tools/get` would use.
fn folder() -> PathBuf {
    if let Some(tools) = std::env::var_os("STRONGROOM_TOOLS") {
        return PathBuf::from(tools);
    }
    let cache = std::env::var_os("STRONGROOM_CACHE").map_or_else(|| top().join(".cache"), PathBuf::from);
    cache.join("tools/bin")
}
