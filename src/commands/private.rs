//! A plaintext that another program is to change: in a file that is in memory, for its owner only, and gone when dropped.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// Where Linux has memory that looks like a disk, by itself.
const USUAL: &str = "/dev/shm";

/// The file, in a folder of its own, so that what an editor keeps beside it goes too.
#[derive(Debug)]
pub(super) struct PrivateFile {
    path: PathBuf,
    /// Removed with everything in it when dropped.
    _folder: TempDir,
}

impl PrivateFile {
    /// Puts `content` into a file called `name`.
    pub(super) fn new(
        name: &Path,
        content: &Secret<Vec<u8>>,
        environment: &Environment,
    ) -> Result<Self, PrivateError> {
        let candidates = [environment.get("XDG_RUNTIME_DIR"), Some(USUAL)];
        let memory = memory(candidates.into_iter().flatten())?;
        let folder = tempfile::Builder::new()
            .prefix("strongroom-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(memory)
            .map_err(PrivateError::Write)?;
        let path = folder.path().join(name.file_name().unwrap_or(name.as_os_str()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(content.expose()));
        written.map_err(PrivateError::Write)?;
        Ok(Self { path, _folder: folder })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds now.
    pub(super) fn read(&self) -> Result<Secret<Vec<u8>>, PrivateError> {
        fs::read(&self.path).map(Secret::new).map_err(PrivateError::Read)
    }
}

/// The first of the folders that is in memory.
fn memory<'f>(folders: impl Iterator<Item = &'f str>) -> Result<&'f Path, PrivateError> {
    folders.map(Path::new).find(|folder| in_memory(folder)).ok_or(PrivateError::NoMemory)
}

#[cfg(target_os = "linux")]
fn in_memory(folder: &Path) -> bool {
    // linux/magic.h
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    let kind = rustix::fs::statfs(folder).ok().and_then(|stat| u32::try_from(stat.f_type).ok());
    folder.is_absolute() && kind.is_some_and(|kind| [TMPFS, RAMFS].contains(&kind))
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_: &Path) -> bool {
    false
}

/// There is no place for a plaintext, or it is lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrivateError {
    /// It would be written to a disk.
    #[error(
        "no folder in memory is there for the plaintext\n\
         help: mount a tmpfs at {USUAL}, or set XDG_RUNTIME_DIR to a folder on one; `strongroom set` needs none"
    )]
    NoMemory,
    /// The file is not made.
    #[error("write the plaintext")]
    Write(#[source] io::Error),
    /// The editor took it away.
    #[error("read what was edited")]
    Read(#[source] io::Error),
}

impl Fault for PrivateError {
    fn class(&self) -> Class {
        match self {
            Self::NoMemory => Class::Invalid,
            Self::Write(_) | Self::Read(_) => Class::Internal,
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_file_is_in_memory_for_its_owner_and_goes_with_everything_beside_it() {
        let environment = Environment::default();
        let content = Secret::new(b"STRONGROOM-MARKER".to_vec());
        let file = PrivateFile::new(Path::new("some/secrets.yaml"), &content, &environment).unwrap();
        let folder = file.path().parent().unwrap().to_owned();
        assert!(file.path().starts_with(USUAL) && file.path().ends_with("secrets.yaml"));
        assert_eq!((mode(file.path()), mode(&folder)), (0o600, 0o700));
        fs::write(folder.join(".secrets.yaml.swp"), "STRONGROOM-MARKER").unwrap();
        fs::write(file.path(), "changed").unwrap();
        assert_eq!(file.read().unwrap().expose(), b"changed");
        drop(file);
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_on_a_disk_is_passed_over() {
        assert_eq!(memory(["/proc", USUAL].into_iter()).unwrap(), Path::new(USUAL));
        let error = memory(["/proc", "/nonexistent", "shm"].into_iter()).unwrap_err().to_string();
        assert!(
            error.starts_with("no folder in memory is there for the plaintext\nhelp: mount a tmpfs"),
            "{error}"
        );
        let environment: Environment = [("XDG_RUNTIME_DIR", "/proc")].into_iter().collect();
        let file = PrivateFile::new(Path::new("a"), &Secret::default(), &environment).unwrap();
        assert!(file.path().starts_with(USUAL));
    }
}
