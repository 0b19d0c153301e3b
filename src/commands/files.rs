//! Files that are written for the person: whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::commands::Failure;
use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// sops's exit code when the result cannot be written.
const CODE: u8 = 3;

/// What a file is readable for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// For whoever could read the file, or may by the umask.
    Ciphertext,
    /// For the owner only.
    Plaintext,
}

/// `bytes` for stdout; nothing where they were written to `path`.
pub(super) fn give(
    bytes: Secret<Vec<u8>>,
    path: Option<&PathBuf>,
    content: Content,
) -> Result<Secret<Vec<u8>>, Failure> {
    let Some(path) = path else { return Ok(bytes) };
    write(path, bytes.expose(), content).map(|()| Secret::default())
}

/// Puts `bytes` in the place of the file at `path`, which is as it was where that fails. A link stays a link.
fn write(path: &Path, bytes: &[u8], content: Content) -> Result<(), Failure> {
    try_write(path, bytes, content).map_err(|source| {
        let error = OutputError { path: path.display().to_string(), source };
        Failure { code: CODE, ..Failure::from(error) }
    })
}

fn try_write(path: &Path, bytes: &[u8], content: Content) -> io::Result<()> {
    let target = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        target => target?,
    };
    let before = fs::metadata(&target).ok();
    if before.as_ref().is_some_and(|before| !before.is_file()) {
        return fs::OpenOptions::new().write(true).open(&target)?.write_all(bytes);
    }
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let usual = if content == Content::Plaintext { 0o600 } else { 0o666 };
    let mut file = tempfile::Builder::new()
        .prefix(".strongroom-")
        .permissions(Permissions::from_mode(usual))
        .tempfile_in(folder)?;
    if let Some(before) = before {
        let mode = before.permissions().mode() & 0o777;
        let mode = if content == Content::Plaintext { mode & 0o600 | 0o600 } else { mode };
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|error| error.error)?;
    Ok(())
}

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write {path}")]
struct OutputError {
    path: String,
    source: io::Error,
}

impl Fault for OutputError {
    fn class(&self) -> Class {
        match self.source.kind() {
            io::ErrorKind::NotFound => Class::NotFound,
            io::ErrorKind::PermissionDenied => Class::Denied,
            _ => Class::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn modes_and_links_are_kept_and_plaintext_is_for_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        write(&link, b"new", Content::Ciphertext).unwrap();
        assert_eq!((fs::read(&file).unwrap().as_slice(), mode(&file)), (&b"new"[..], 0o640));
        assert!(link.is_symlink());
        write(&file, b"plain", Content::Plaintext).unwrap();
        assert_eq!(mode(&file), 0o600);
        write(&folder.path().join("b"), b"plain", Content::Plaintext).unwrap();
        assert_eq!(mode(&folder.path().join("b")), 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_write_that_fails_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let failure = write(&folder.path().join("no/a"), b"x", Content::Ciphertext).unwrap_err();
        assert_eq!(failure.code, CODE);
        assert!(failure.to_string().contains("no/a: "), "{failure}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
