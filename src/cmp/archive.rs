//! Reads the archive that Argo CD sends, a gzip-compressed tar, and unpacks it into a private directory.
//!
//! An entry that would lie outside the directory, is a hard link or a device, or stands in the archive twice, and an
//! archive larger than the limits, is refused; `.git` is left out. Symlinks are made last, relative and with every `..` at the front,
//! so nothing is ever written through one and none leads out, whatever it passes.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;

use crate::fault::{Class, Fault};

/// What tar's own headers may take between two entries: long names are kept in memory.
const HEADER_LIMIT: u64 = 1 << 20;
/// How much is copied at once.
const BUFFER: usize = 64 << 10;

/// The most that an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes after decompression.
    pub bytes: u64,
    /// Files, directories and symlinks.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 2 << 30, entries: 500_000 }
    }
}

/// An archive that is refused. Paths are as the archive says them.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not gzip, not tar, or cut off.
    #[error("the repository's archive is broken")]
    Broken(#[source] io::Error),
    /// More bytes than the limit.
    #[error(
        "the repository is larger than {limit} bytes when unpacked\nhelp: send less of it with the annotation argocd.argoproj.io/manifest-generate-paths or the repo-server's tar exclusions, or raise the limit"
    )]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// More entries than the limit.
    #[error(
        "the repository has more than {limit} files\nhelp: send less of it with the annotation argocd.argoproj.io/manifest-generate-paths or the repo-server's tar exclusions, or raise the limit"
    )]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// A path with `..` or from the root.
    #[error("{path:?} in the repository's archive lies outside the repository")]
    Outside {
        /// Of the entry.
        path: PathBuf,
    },
    /// A symlink out of the repository.
    #[error("the symlink {path:?} leads outside the repository, to {target:?}")]
    Escape {
        /// Of the symlink.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A hard link, a device, a pipe or anything else.
    #[error("{path:?} in the repository's archive is neither a file, a directory nor a symlink")]
    Kind {
        /// Of the entry.
        path: PathBuf,
    },
    /// Two entries for one path.
    #[error("{path:?} is more than once in the repository's archive")]
    Twice {
        /// Of the entry.
        path: PathBuf,
    },
    /// The work directory does not take it.
    #[error("unpack {path:?}")]
    Write {
        /// Of the entry.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl Fault for ArchiveError {
    fn class(&self) -> Class {
        match self {
            Self::Write { .. } => Class::Internal,
            _ => Class::Invalid,
        }
    }
}

/// One entry; its path is relative and has only plain components.
pub struct Entry<'a> {
    /// Inside the repository.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What an entry is.
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// Its content.
        content: &'a mut dyn Read,
        /// Its length.
        size: u64,
    },
    /// A symlink.
    Symlink {
        /// As the archive says it.
        target: PathBuf,
    },
}

/// Visits every entry but `.git`, in the archive's order, and reads the archive to its end.
pub fn visit(
    archive: impl BufRead,
    limits: Limits,
    mut visitor: impl FnMut(&mut Entry<'_>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let budget = Rc::new(Budget { total: Cell::new(limits.bytes), header: Cell::new(HEADER_LIMIT) });
    let bounded = Bounded { inner: MultiGzDecoder::new(archive), budget: Rc::clone(&budget) };
    let broken = |source: io::Error| match budget.total.get() {
        0 => ArchiveError::TooLarge { limit: limits.bytes },
        _ => ArchiveError::Broken(source),
    };
    let mut archive = tar::Archive::new(bounded);
    let mut entries = archive.entries().map_err(broken)?;
    let mut count = 0;
    loop {
        budget.header.set(HEADER_LIMIT);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(broken)?;
        budget.header.set(u64::MAX);
        count += 1;
        if count > limits.entries {
            return Err(ArchiveError::TooMany { limit: limits.entries });
        }
        visit_one(&mut entry, &mut visitor).map_err(|error| match error {
            ArchiveError::Broken(source) => broken(source),
            other => other,
        })?;
        // What the visitor left would otherwise count as header.
        io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
    }
    Ok(())
}

fn visit_one<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    visitor: &mut impl FnMut(&mut Entry<'_>) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let Some(path) = relative(&entry.path_bytes())? else { return Ok(()) };
    if path.components().any(|component| component.as_os_str() == ".git") {
        return Ok(());
    }
    let kind = match kind {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => {
            let mode = entry.header().mode().map_err(ArchiveError::Broken)?;
            let size = entry.size();
            Kind::File { mode, size, content: entry }
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default();
            Kind::Symlink { target: PathBuf::from(OsStr::from_bytes(&target)) }
        }
        _ => return Err(ArchiveError::Kind { path }),
    };
    visitor(&mut Entry { path, kind })
}

/// The plain path that an archive's path means; `None` for the root itself.
fn relative(path: &[u8]) -> Result<Option<PathBuf>, ArchiveError> {
    let spelled = Path::new(OsStr::from_bytes(path));
    let mut plain = PathBuf::new();
    for component in spelled.components() {
        match component {
            Component::Normal(name) if !name.as_bytes().contains(&0) => plain.push(name),
            Component::CurDir => {}
            _ => return Err(ArchiveError::Outside { path: spelled.to_owned() }),
        }
    }
    Ok((!plain.as_os_str().is_empty()).then_some(plain))
}

/// Unpacks into `root`, an empty directory of ours.
///
/// Files are readable by all and writable by us, executable ones too only with `preserve_modes`.
pub fn unpack(
    archive: impl BufRead,
    root: &Path,
    limits: Limits,
    preserve_modes: bool,
) -> Result<(), ArchiveError> {
    let mut writer = Writer { root, preserve_modes, parent: PathBuf::new(), buffer: vec![0; BUFFER] };
    let mut links = Vec::new();
    visit(archive, limits, |entry| match &mut entry.kind {
        Kind::Directory => writer.directory(&entry.path),
        Kind::File { mode, content, size } => writer.file(&entry.path, *mode, *content, *size),
        Kind::Symlink { target } => {
            let Some(target) = inside(&entry.path, target) else {
                return Err(ArchiveError::Escape { path: entry.path.clone(), target: target.clone() });
            };
            links.push((entry.path.clone(), target));
            Ok(())
        }
    })?;
    for (path, _) in &links {
        writer.parent(path)?;
    }
    links.iter().try_for_each(|(path, target)| {
        symlink(target, root.join(path)).map_err(|source| written(path, source))
    })
}

/// `target` of the symlink at `path`, spelled so that only its front has `..`; `None` where it leads out.
fn inside(path: &Path, target: &Path) -> Option<PathBuf> {
    let depth = path.components().count() - 1;
    let mut up = 0;
    let mut down = Vec::new();
    for component in target.components() {
        match component {
            Component::Normal(name) => down.push(name),
            Component::ParentDir if down.pop().is_none() => up += 1,
            Component::CurDir | Component::ParentDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    if up > depth || target.as_os_str().is_empty() {
        return None;
    }
    let plain: PathBuf = std::iter::repeat_n(OsStr::new(".."), up).chain(down).collect();
    Some(if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain })
}

/// Writes entries below a root in which there are no symlinks yet.
struct Writer<'a> {
    root: &'a Path,
    preserve_modes: bool,
    /// The last directory made; most files share it with the one before.
    parent: PathBuf,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn directory(&self, path: &Path) -> Result<(), ArchiveError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(self.root.join(path))
            .map_err(|source| written(path, source))
    }

    fn parent(&mut self, path: &Path) -> Result<(), ArchiveError> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent != self.parent {
            self.directory(parent)?;
            parent.clone_into(&mut self.parent);
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        mode: u32,
        content: &mut dyn Read,
        size: u64,
    ) -> Result<(), ArchiveError> {
        self.parent(path)?;
        let mode = if self.preserve_modes { mode & 0o777 | 0o600 } else { 0o644 };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(self.root.join(path))
            .map_err(|source| written(path, source))?;
        self.copy(path, content, &mut file, size)
    }

    fn copy(
        &mut self,
        path: &Path,
        content: &mut dyn Read,
        file: &mut File,
        mut left: u64,
    ) -> Result<(), ArchiveError> {
        while left > 0 {
            let read = content.read(&mut self.buffer).map_err(ArchiveError::Broken)?;
            if read == 0 {
                return Err(ArchiveError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            left = left.saturating_sub(read as u64);
            file.write_all(&self.buffer[..read]).map_err(|source| written(path, source))?;
        }
        Ok(())
    }
}

fn written(path: &Path, source: io::Error) -> ArchiveError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => ArchiveError::Twice { path },
        _ => ArchiveError::Write { path, source },
    }
}

/// How many bytes may still be read, altogether and before the next entry.
struct Budget {
    total: Cell<u64>,
    header: Cell<u64>,
}

struct Bounded<R> {
    inner: R,
    budget: Rc<Budget>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (total, header) = (self.budget.total.get(), self.budget.header.get());
        let allowed = usize::try_from(total.min(header)).unwrap_or(usize::MAX).min(buffer.len());
        if allowed == 0 && !buffer.is_empty() {
            return Err(io::Error::other("a header is too long"));
        }
        let read = self.inner.read(&mut buffer[..allowed])?;
        self.budget.total.set(total - read as u64);
        self.budget.header.set(header - read as u64);
        Ok(read)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tempfile::tempdir;

    use super::*;
    use crate::fault::report;

    /// Builds archives entry by entry, hostile ones too.
    pub(crate) struct Packer(tar::Builder<GzEncoder<Vec<u8>>>);

    impl Packer {
        pub(crate) fn new() -> Self {
            Self(tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast())))
        }

        pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
            self.entry(path, EntryType::Regular, "", 0o755, content)
        }

        pub(crate) fn link(self, path: &str, target: &str) -> Self {
            self.entry(path, EntryType::Symlink, target, 0o777, &[])
        }

        pub(crate) fn entry(
            mut self,
            path: &str,
            kind: EntryType,
            target: &str,
            mode: u32,
            content: &[u8],
        ) -> Self {
            let mut header = tar::Header::new_gnu();
            // Set as bytes: the setters refuse what a hostile sender would not.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            header.set_cksum();
            self.0.append(&header, content).unwrap();
            self
        }

        pub(crate) fn finish(self) -> Vec<u8> {
            self.0.into_inner().unwrap().finish().unwrap()
        }
    }

    fn unpacked(archive: &[u8], preserve_modes: bool) -> (tempfile::TempDir, Result<(), ArchiveError>) {
        let root = tempdir().unwrap();
        let limits = Limits { bytes: 1 << 20, entries: 20 };
        let result = unpack(archive, root.path(), limits, preserve_modes);
        (root, result)
    }

    #[test]
    fn a_repository_is_unpacked_without_git_and_without_its_modes() {
        let archive = Packer::new()
            .entry("./", EntryType::Directory, "", 0o700, &[])
            .entry("apps/shop", EntryType::Directory, "", 0o700, &[])
            .link("apps/shop/common.yaml", "../../common/./x/../values.yaml")
            .link("apps/shop/itself", "x/..")
            .file("apps/shop/run.sh", b"run")
            .file(".git/config", b"git")
            .file("sub/.git", b"git")
            .file("common/values.yaml", b"a: 1")
            .finish();
        let (root, result) = unpacked(&archive, false);
        result.unwrap();
        let root = root.path();
        assert_eq!(fs::read(root.join("apps/shop/common.yaml")).unwrap(), b"a: 1");
        assert_eq!(
            fs::read_link(root.join("apps/shop/common.yaml")).unwrap(),
            Path::new("../../common/values.yaml")
        );
        assert_eq!(fs::read_link(root.join("apps/shop/itself")).unwrap(), Path::new("."));
        assert!(!root.join(".git").exists() && !root.join("sub").exists());
        assert_eq!(fs::metadata(root.join("apps/shop/run.sh")).unwrap().permissions().mode() & 0o777, 0o644);
        let (root, _) = unpacked(&archive, true);
        assert_eq!(
            fs::metadata(root.path().join("apps/shop/run.sh")).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn what_could_leave_the_repository_is_refused_by_name() {
        let rows = [
            (
                Packer::new().file("../x", b""),
                r#""../x" in the repository's archive lies outside the repository"#,
            ),
            (Packer::new().file("a/../../x", b""), r#""a/../../x" in the repository's archive lies outside"#),
            (Packer::new().file("/etc/x", b""), r#""/etc/x" in the repository's archive lies outside"#),
            (
                Packer::new().link("a/l", "../../x"),
                r#"the symlink "a/l" leads outside the repository, to "../../x""#,
            ),
            (
                Packer::new().link("l", "/etc/passwd"),
                r#"the symlink "l" leads outside the repository, to "/etc/passwd""#,
            ),
            (Packer::new().link("l", "b/../../x"), r#"the symlink "l" leads outside"#),
            (
                Packer::new().entry("h", EntryType::Link, "etc", 0o644, &[]),
                r#""h" in the repository's archive is neither"#,
            ),
            (
                Packer::new().entry("d", EntryType::Block, "", 0o644, &[]),
                r#""d" in the repository's archive is neither"#,
            ),
            (
                Packer::new().entry("p", EntryType::Fifo, "", 0o644, &[]),
                r#""p" in the repository's archive is neither"#,
            ),
            (
                Packer::new().file("x", b"1").file("x", b"2"),
                r#""x" is more than once in the repository's archive"#,
            ),
            (Packer::new().file("x", b"1").file("x/y", b"2"), r#""x" is more than once"#),
            (Packer::new().link("l", ".").file("l", b"2"), r#""l" is more than once"#),
            (Packer::new().link("l", "a").file("l/y", b"2"), r#""l" is more than once"#),
        ];
        for (archive, expected) in rows {
            let (_root, result) = unpacked(&archive.finish(), false);
            let error = result.unwrap_err();
            assert!(report(&error).starts_with(expected), "{}", report(&error));
            assert_eq!(error.class(), Class::Invalid);
        }
    }

    #[test]
    fn no_chain_of_symlinks_leads_out() {
        let archive = Packer::new()
            .file("a/b/c/file", b"")
            .link("a/b/c/up", "../../..")
            .link("l", "a/b/c/up/../../secret")
            .finish();
        let (root, result) = unpacked(&archive, false);
        result.unwrap();
        assert_eq!(fs::read_link(root.path().join("l")).unwrap(), Path::new("a/b/secret"));
    }

    #[test]
    fn bombs_are_refused() {
        let big = Packer::new().file("zero", &vec![0; 2 << 20]).finish();
        assert!(big.len() < 20_000);
        let error = unpacked(&big, false).1.unwrap_err();
        assert!(
            report(&error).starts_with("the repository is larger than 1048576 bytes when unpacked\nhelp: ")
        );

        let many = (0..21).fold(Packer::new(), |packer, n| packer.file(&n.to_string(), b"")).finish();
        let error = unpacked(&many, false).1.unwrap_err();
        assert!(report(&error).starts_with("the repository has more than 20 files\nhelp: "));

        let name = vec![b'a'; 2 << 20];
        let long = Packer::new().entry("././@LongLink", EntryType::GNULongName, "", 0, &name).file("x", b"");
        let limits = Limits { bytes: 1 << 30, entries: 20 };
        let error = unpack(long.finish().as_slice(), tempdir().unwrap().path(), limits, false).unwrap_err();
        assert_eq!(report(&error), "the repository's archive is broken: a header is too long");
    }

    #[test]
    fn what_is_no_archive_or_cut_off_is_refused() {
        let whole = Packer::new().file("x", &[7; 5000]).finish();
        let mut long_size = tar::Header::new_gnu();
        long_size.set_size(1000);
        for archive in [b"no gzip".as_slice(), &whole[..whole.len() / 2], b""] {
            let error = unpacked(archive, false).1.unwrap_err();
            assert!(report(&error).starts_with("the repository's archive is broken: "), "{}", report(&error));
            assert_eq!(error.class(), Class::Invalid);
        }
    }

    proptest::proptest! {
        #[test]
        fn symlink_targets_stay_inside(path in "[ab]{1}(/[ab]){0,3}", target in "(\\.\\./|\\./|[ab]/){0,6}[ab.]{1,2}") {
            if let Some(plain) = inside(Path::new(&path), Path::new(&target)) {
                let ups = plain.components().take_while(|part| matches!(part, Component::ParentDir)).count();
                proptest::prop_assert!(ups < Path::new(&path).components().count());
                proptest::prop_assert!(!plain.components().skip(ups).any(|part| matches!(part, Component::ParentDir)));
            }
        }
    }
}
