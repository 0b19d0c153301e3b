//! Paths that a repository spells, kept inside the repository.
//!
//! [`resolve`] walks a path one component at a time and follows symlinks itself, so that it stops at the first step
//! out of the root and never touches, or tells the existence of, anything outside. A leading `/` is the
//! repository's root. It refuses what is neither a regular file nor a directory, and the kernel's own file systems.
//! [`read`] reads a resolved file up to a limit.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// As many as Linux follows.
const MAX_LINKS: usize = 40;

/// Never a part of a repository, whatever its root is.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// A path does not lead to a file or directory inside the repository. `path` is as the reader spelled it.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Nothing is there.
    #[error("{path}: no such file or directory in the repository")]
    NotFound {
        /// As spelled.
        path: String,
    },
    /// It leads out of the repository's root, by `..` or by a symlink.
    #[error(
        "{path}: leads outside the repository\nhelp: only files of the application's own repository can be read"
    )]
    Outside {
        /// As spelled.
        path: String,
    },
    /// A device, a socket, a pipe, or a file of the kernel.
    #[error("{path}: neither a regular file nor a directory")]
    Special {
        /// As spelled.
        path: String,
    },
    /// A directory where a file is wanted.
    #[error("{path}: is a directory, not a file")]
    Directory {
        /// As spelled.
        path: String,
    },
    /// Symlinks that lead to each other.
    #[error("{path}: more than {MAX_LINKS} symlinks")]
    Loop {
        /// As spelled.
        path: String,
    },
    /// More bytes than the reader takes.
    #[error("{path}: larger than {}", size(*.limit))]
    TooLarge {
        /// As spelled.
        path: String,
        /// Of the caller.
        limit: u64,
    },
    /// The operating system refused.
    #[error("{path}")]
    Io {
        /// As spelled.
        path: String,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

impl Fault for ConfineError {
    fn class(&self) -> Class {
        match self {
            Self::NotFound { .. } => Class::NotFound,
            Self::Outside { .. } | Self::Special { .. } => Class::Denied,
            Self::Directory { .. } | Self::Loop { .. } | Self::TooLarge { .. } => Class::Invalid,
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Class::Denied,
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => Class::Invalid,
                _ => Class::Internal,
            },
        }
    }
}

fn size(bytes: u64) -> String {
    if bytes > 0 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{bytes} bytes")
    }
}

/// The path that `spelled` means, without symlinks, inside `root`.
///
/// `root` is absolute and without symlinks; `base`, where relative paths start, is inside it.
pub fn resolve(root: &Path, base: &Path, spelled: &str) -> Result<PathBuf, ConfineError> {
    let path = || spelled.to_owned();
    if !base.starts_with(root) {
        return Err(ConfineError::Outside { path: path() });
    }
    let start = if spelled.starts_with('/') { root } else { base };
    let mut walk = Walk { root, at: start.to_owned(), ahead: VecDeque::new(), links: 0 };
    walk.queue(Path::new(spelled));
    while let Some(step) = walk.ahead.pop_front() {
        walk.step(&step).map_err(|stop| stop.of(spelled))?;
    }
    let found = walk.at;
    let kind = std::fs::symlink_metadata(&found).map_err(|error| Stop::from(error).of(spelled))?.file_type();
    if KERNEL.iter().any(|kernel| found.starts_with(kernel)) || !(kind.is_file() || kind.is_dir()) {
        return Err(ConfineError::Special { path: path() });
    }
    Ok(found)
}

/// The bytes of the regular file `resolved`, which came from [`resolve`] for `spelled`; at most `limit` of them.
pub fn read(resolved: &Path, spelled: &str, limit: u64) -> Result<Secret<Vec<u8>>, ConfineError> {
    let path = || spelled.to_owned();
    // Not followed if it became a symlink since, and not waited for if it became a pipe.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(resolved, flags, Mode::empty());
    let file = File::from(opened.map_err(|error| Stop::from(io::Error::from(error)).of(spelled))?);
    let metadata = file.metadata().map_err(|source| ConfineError::Io { path: path(), source })?;
    if metadata.is_dir() {
        return Err(ConfineError::Directory { path: path() });
    }
    if !metadata.is_file() {
        return Err(ConfineError::Special { path: path() });
    }
    let too_large = || ConfineError::TooLarge { path: path(), limit };
    if metadata.len() > limit {
        return Err(too_large());
    }
    // The whole size at once, so that no outgrown buffer is left behind in memory.
    let mut bytes =
        Secret::new(Vec::with_capacity(usize::try_from(metadata.len()).map_err(|_| too_large())? + 1));
    let read = file.take(limit.saturating_add(1)).read_to_end(bytes.expose_mut());
    read.map_err(|source| ConfineError::Io { path: path(), source })?;
    if bytes.expose().len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

/// A path half walked: `at` is inside `root` and without symlinks, `ahead` is still to be taken.
struct Walk<'a> {
    root: &'a Path,
    at: PathBuf,
    ahead: VecDeque<OsString>,
    links: usize,
}

impl Walk<'_> {
    fn queue(&mut self, path: &Path) {
        for component in path.components().rev() {
            if let Component::Normal(_) | Component::ParentDir = component {
                self.ahead.push_front(component.as_os_str().to_owned());
            }
        }
    }

    fn step(&mut self, name: &OsString) -> Result<(), Stop> {
        if name == ".." {
            if self.at == self.root || !self.at.pop() {
                return Err(Stop::Outside);
            }
            return Ok(());
        }
        self.at.push(name);
        let kind = std::fs::symlink_metadata(&self.at)?.file_type();
        if kind.is_symlink() {
            return self.follow();
        }
        if !self.ahead.is_empty() && !kind.is_dir() {
            return Err(Stop::NotFound);
        }
        Ok(())
    }

    fn follow(&mut self) -> Result<(), Stop> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Stop::Loop);
        }
        let target = std::fs::read_link(&self.at)?;
        if target.is_absolute() {
            let inside = target.strip_prefix(self.root).map_err(|_| Stop::Outside)?.to_owned();
            self.at = self.root.to_owned();
            self.queue(&inside);
        } else {
            self.at.pop();
            self.queue(&target);
        }
        Ok(())
    }
}

/// Why a walk ended early.
enum Stop {
    NotFound,
    Outside,
    Loop,
    Io(io::Error),
}

impl Stop {
    fn of(self, spelled: &str) -> ConfineError {
        let path = spelled.to_owned();
        match self {
            Self::NotFound => ConfineError::NotFound { path },
            Self::Outside => ConfineError::Outside { path },
            Self::Loop => ConfineError::Loop { path },
            Self::Io(source) => ConfineError::Io { path, source },
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound,
            _ => Self::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn repository() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let outer = directory.path().canonicalize().unwrap();
        let root = outer.join("repo");
        std::fs::create_dir_all(root.join("apps/a/deep")).unwrap();
        std::fs::create_dir_all(outer.join("repository-of-another")).unwrap();
        std::fs::write(outer.join("repository-of-another/x"), "STRONGROOM-MARKER").unwrap();
        std::fs::write(outer.join("outside"), "STRONGROOM-MARKER").unwrap();
        std::fs::write(root.join("shared.yaml"), "shared").unwrap();
        std::fs::write(root.join("apps/a/values.yaml"), "own").unwrap();
        for (target, link) in [
            ("../../shared.yaml", "apps/a/to-shared"),
            ("../../../outside", "apps/a/to-outside"),
            ("../../../absent", "apps/a/to-absent-outside"),
            ("/etc/passwd", "apps/a/to-passwd"),
            ("..", "apps/a/to-apps"),
            ("nowhere", "apps/a/dangling"),
            ("loop-b", "apps/a/loop-a"),
            ("loop-a", "apps/a/loop-b"),
            ("../..", "apps/a/to-root"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        symlink(root.join("shared.yaml"), root.join("apps/a/to-shared-absolute")).unwrap();
        (directory, root)
    }

    #[test]
    fn every_spelling_stays_inside_or_is_refused() {
        let (_keep, root) = repository();
        for (spelled, expected) in [
            ("values.yaml", Ok("apps/a/values.yaml")),
            ("./values.yaml", Ok("apps/a/values.yaml")),
            ("deep/../values.yaml", Ok("apps/a/values.yaml")),
            ("../../shared.yaml", Ok("shared.yaml")),
            ("/shared.yaml", Ok("shared.yaml")),
            ("//shared.yaml", Ok("shared.yaml")),
            ("/", Ok("")),
            ("", Ok("apps/a")),
            ("to-shared", Ok("shared.yaml")),
            ("to-shared-absolute", Ok("shared.yaml")),
            ("to-root/shared.yaml", Ok("shared.yaml")),
            ("to-apps/a/values.yaml", Ok("apps/a/values.yaml")),
            // `..` behind a symlink is taken from where the symlink leads, as the kernel does.
            ("to-apps/../shared.yaml", Ok("shared.yaml")),
            ("absent", Err(Class::NotFound)),
            ("values.yaml/x", Err(Class::NotFound)),
            ("absent/../values.yaml", Err(Class::NotFound)),
            ("dangling", Err(Class::NotFound)),
            ("/etc/passwd", Err(Class::NotFound)),
            ("../../../outside", Err(Class::Denied)),
            ("../../../repo/shared.yaml", Err(Class::Denied)),
            ("../../../repository-of-another/x", Err(Class::Denied)),
            ("/../outside", Err(Class::Denied)),
            ("to-root/../outside", Err(Class::Denied)),
            ("to-outside", Err(Class::Denied)),
            ("to-absent-outside", Err(Class::Denied)),
            ("to-passwd", Err(Class::Denied)),
            ("loop-a", Err(Class::Invalid)),
        ] {
            let found = resolve(&root, &root.join("apps/a"), spelled);
            match (found, expected) {
                (Ok(path), Ok(expected)) => assert_eq!(path, root.join(expected), "{spelled}"),
                (Err(error), Err(class)) => {
                    assert_eq!(error.class(), class, "{spelled}: {error}");
                    assert!(error.to_string().starts_with(&format!("{spelled}: ")), "{error}");
                }
                (found, _) => panic!("{spelled}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_name_that_no_file_can_have_is_invalid() {
        let (_keep, root) = repository();
        for name in ["a\0b".to_owned(), "a".repeat(5000)] {
            assert_eq!(resolve(&root, &root, &name).unwrap_err().class(), Class::Invalid);
        }
    }

    #[test]
    fn a_base_outside_the_root_is_refused() {
        let (_keep, root) = repository();
        let error = resolve(&root.join("apps"), &root, "shared.yaml").unwrap_err();
        assert_eq!(error.class(), Class::Denied);
    }

    #[test]
    fn sockets_and_files_of_the_kernel_are_refused() {
        let (_keep, root) = repository();
        let _listener = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        for (root, spelled) in
            [(root.as_path(), "socket"), (Path::new("/"), "proc/self/environ"), (Path::new("/"), "dev/null")]
        {
            let error = resolve(root, root, spelled).unwrap_err();
            assert!(matches!(error, ConfineError::Special { .. } | ConfineError::Outside { .. }), "{error}");
        }
    }

    #[test]
    fn read_is_bounded_and_reads_files_only() {
        let (_keep, root) = repository();
        let file = root.join("shared.yaml");
        assert_eq!(read(&file, "shared.yaml", 6).unwrap().expose(), b"shared");
        assert_eq!(
            read(&file, "shared.yaml", 5).unwrap_err().to_string(),
            "shared.yaml: larger than 5 bytes"
        );
        assert_eq!(read(&root, "/", 5).unwrap_err().to_string(), "/: is a directory, not a file");
        assert!(read(&root.join("apps/a/to-shared"), "to-shared", 9).is_err(), "a symlink is not followed");
    }
}
