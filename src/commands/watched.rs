//! Files of the operator, and whether they changed.
//!
//! What Kubernetes mounts changes when a symlink in its folder leads elsewhere, so what counts is where a path leads, and when
//! that was written last.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::sops::keys::folder::DEPTH_LIMIT;

/// More files than a folder of keys has.
const MOST: usize = 10_000;

/// Files, and folders with all that is in them.
#[derive(Debug)]
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    seen: Vec<Stamp>,
}

/// One file: its path, device and number, when it or its state changed last, in seconds and nanoseconds, and its length.
type Stamp = (PathBuf, Option<[u64; 2]>, [i64; 4], u64);

impl Watched {
    /// As they are now; what is not there may come.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let seen = stamps(&paths);
        Self { paths, seen }
    }

    /// Whether they are otherwise than when it was asked last.
    pub(super) fn changed(&mut self) -> bool {
        let now = stamps(&self.paths);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let mut stamps = Vec::new();
    for path in paths {
        stamp(path, DEPTH_LIMIT, &mut stamps);
    }
    stamps.sort();
    stamps
}

fn stamp(path: &Path, depth: usize, stamps: &mut Vec<Stamp>) {
    if stamps.len() == MOST {
        return;
    }
    let Ok(found) = fs::metadata(path) else {
        return stamps.push((path.to_owned(), None, [0; 4], 0));
    };
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    stamps.push((path.to_owned(), Some([found.dev(), found.ino()]), times, found.len()));
    if found.is_dir() && depth > 0 {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            stamp(&entry.path(), depth - 1, stamps);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, single) = (folder.path().join("keys"), folder.path().join("single"));
        let mut watched = Watched::new(vec![keys.clone(), single.clone()]);
        assert!(!watched.changed());
        let steps: [(&str, &dyn Fn()); 7] = [
            ("the folder comes", &|| fs::create_dir(&keys).unwrap()),
            ("a file comes", &|| fs::write(keys.join("a"), "1").unwrap()),
            ("it is written", &|| fs::write(keys.join("a"), "22").unwrap()),
            ("a folder in it", &|| fs::create_dir(keys.join("below")).unwrap()),
            ("a file below", &|| fs::write(keys.join("below/b"), "1").unwrap()),
            ("a file goes", &|| fs::remove_file(keys.join("a")).unwrap()),
            ("a single file comes", &|| fs::write(&single, "1").unwrap()),
        ];
        for (what, step) in steps {
            step();
            assert!(watched.changed(), "{what}");
            assert!(!watched.changed(), "{what}");
        }
    }

    #[test]
    fn a_mount_of_kubernetes_changes_when_its_link_leads_elsewhere() {
        let mount = tempfile::tempdir().unwrap();
        let at = |name: &str| mount.path().join(name);
        for (version, text) in [("..1", "old"), ("..2", "new")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("key"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/key", at("key")).unwrap();
        let mut watched = Watched::new(vec![mount.path().to_owned()]);
        assert!(!watched.changed());
        symlink("..2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert!(watched.changed());
        assert_eq!(fs::read_to_string(at("key")).unwrap(), "new");
    }
}
