//! Receives one streamed repository: metadata first, then the archive in chunks of a kibibyte or so.
//!
//! The archive is checked and unpacked while it arrives, on a thread of its own, with a bounded queue between. The
//! stream is always read to its end, whatever is wrong with it: a client whose stream ends early reports only `EOF`
//! and never asks for the answer.
//!
//! Requests for several apps of one repository bring the same archive. Where nothing can write into what was unpacked,
//! [`Workspaces::receive`] unpacks it once for all that run at the same time. Each request is still read and checked itself.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout_at;
use tonic::Status;

use crate::cmp::archive::{self, ArchiveError, Limits};
use crate::cmp::proto::plugin::app_stream_request::Request;
use crate::cmp::proto::plugin::{AppStreamRequest, File, ManifestRequestMetadata};
use crate::fault::{Class, Fault};

/// Chunks are handed on together from this size.
const BATCH: usize = 128 << 10;
/// How many batches may wait for the unpacking thread.
const QUEUE: usize = 4;

/// A repository that was not received.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The stream ended, or began with something else.
    #[error("the request does not begin with its metadata")]
    NoMetadata,
    /// Metadata or nothing where a chunk is due.
    #[error("the request has something else than the repository's archive after its metadata")]
    NotAChunk,
    /// The client went away, or sent what is no message.
    #[error("the request broke off")]
    Stream(#[source] Status),
    /// What arrived is not what was sent.
    #[error("the repository's archive has the SHA-256 {actual}, but {announced:?} was announced")]
    Checksum {
        /// Of the bytes that arrived.
        actual: String,
        /// Of the metadata.
        announced: String,
    },
    /// The archive is refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The unpacking thread ended by a panic.
    #[error("unpacking ended unexpectedly")]
    Thread(#[source] JoinError),
    /// No private directory can be made.
    #[error("make a private directory in {directory:?}")]
    Workspace {
        /// Where.
        directory: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl Fault for IntakeError {
    fn class(&self) -> Class {
        match self {
            Self::NoMetadata | Self::NotAChunk | Self::Checksum { .. } => Class::Invalid,
            Self::Stream(_) => Class::Unavailable,
            Self::Archive(error) => error.class(),
            Self::Thread(_) | Self::Workspace { .. } => Class::Internal,
        }
    }
}

/// The messages of one request.
pub trait Messages: Stream<Item = Result<AppStreamRequest, Status>> + Unpin + Send {}

impl<S: Stream<Item = Result<AppStreamRequest, Status>> + Unpin + Send> Messages for S {}

/// The metadata that a request begins with. Where it does not, the request is read to its end.
pub async fn metadata(messages: &mut impl Messages) -> Result<ManifestRequestMetadata, IntakeError> {
    let first = messages.next().await.transpose().map_err(IntakeError::Stream)?;
    if let Some(AppStreamRequest { request: Some(Request::Metadata(metadata)) }) = first {
        return Ok(metadata);
    }
    drain(messages).await?;
    Err(IntakeError::NoMetadata)
}

/// Reads a request to its end.
pub async fn drain(messages: &mut impl Messages) -> Result<(), IntakeError> {
    while let Some(message) = messages.next().await {
        message.map_err(IntakeError::Stream)?;
    }
    Ok(())
}

/// How an archive is received and unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Unpacking {
    /// What it may hold.
    pub limits: Limits,
    /// Files keep their permission bits.
    pub preserve_modes: bool,
    /// Nothing writes into what was unpacked, so that requests may share it.
    pub shared: bool,
}

/// Receives the archive and unpacks it into `workspace`.
async fn unpack(
    messages: &mut impl Messages,
    checksum: &str,
    workspace: &Workspace,
    how: Unpacking,
) -> Result<u64, IntakeError> {
    let root = workspace.clone();
    let work = move |chunks| archive::unpack(chunks, root.path(), how.limits, how.preserve_modes);
    Ok(receive(messages, checksum, work).await?.1)
}

/// Receives an archive that need not be unpacked again; how many bytes arrived.
async fn check(messages: &mut impl Messages, checksum: &str) -> Result<u64, IntakeError> {
    let mut archive = Incoming::new(None);
    archive.take_all(messages).await?;
    archive.finish().await.verify(checksum)
}

/// Receives the archive and says whether one of its paths, relative to `directory`, is a match. Keeps nothing.
pub async fn any_path(
    messages: &mut impl Messages,
    checksum: &str,
    directory: &str,
    limits: Limits,
    matches: impl Fn(&Path) -> bool + Send + 'static,
) -> Result<bool, IntakeError> {
    let directory: PathBuf =
        Path::new(directory).components().filter(|part| part.as_os_str() != ".").collect();
    let work = move |chunks| {
        let mut found = false;
        archive::visit(chunks, limits, |entry| {
            found = found || entry.path.strip_prefix(&directory).is_ok_and(&matches);
            Ok(())
        })?;
        Ok(found)
    };
    Ok(receive(messages, checksum, work).await?.0)
}

/// Feeds the archive's bytes to `work` on a thread of its own; its outcome, and how many bytes arrived.
async fn receive<T: Send + 'static>(
    messages: &mut impl Messages,
    checksum: &str,
    work: impl FnOnce(Chunks) -> Result<T, ArchiveError> + Send + 'static,
) -> Result<(T, u64), IntakeError> {
    let (sender, chunks) = mpsc::channel(QUEUE);
    let worker = spawn_blocking(move || work(Chunks { receiver: chunks, current: Bytes::new() }));
    let mut archive = Incoming::new(Some(sender));
    archive.take_all(messages).await?;
    let arrived = archive.finish().await;
    let outcome = worker.await.map_err(IntakeError::Thread)?;
    let received = arrived.verify(checksum)?;
    Ok((outcome?, received))
}

/// The archive's bytes on their way to the thread that reads them.
struct Incoming {
    /// `None` where nobody reads them, or has had enough.
    sender: Option<mpsc::Sender<Bytes>>,
    batch: BytesMut,
    hash: Sha256,
    received: u64,
    /// There was something else than a chunk.
    foreign: bool,
}

impl Incoming {
    fn new(sender: Option<mpsc::Sender<Bytes>>) -> Self {
        Self { sender, batch: BytesMut::new(), hash: Sha256::new(), received: 0, foreign: false }
    }

    /// Reads a request to its end.
    async fn take_all(&mut self, messages: &mut impl Messages) -> Result<(), IntakeError> {
        while let Some(message) = messages.next().await {
            match message.map_err(IntakeError::Stream)?.request {
                Some(Request::File(File { chunk })) => self.take(&chunk).await,
                Some(Request::Metadata(_)) | None => self.foreign = true,
            }
        }
        Ok(())
    }

    async fn take(&mut self, chunk: &[u8]) {
        self.batch.extend_from_slice(chunk);
        if self.batch.len() >= BATCH {
            self.hand_on().await;
        }
    }

    async fn hand_on(&mut self) {
        let batch = self.batch.split().freeze();
        self.hash.update(&batch);
        self.received += batch.len() as u64;
        if let Some(sender) = &self.sender
            && sender.send(batch).await.is_err()
        {
            self.sender = None;
        }
        self.batch.reserve(BATCH);
    }

    /// Ends the reader's input.
    async fn finish(mut self) -> Arrived {
        if !self.batch.is_empty() {
            self.hand_on().await;
        }
        Arrived {
            checksum: format!("{:x}", self.hash.finalize()),
            bytes: self.received,
            foreign: self.foreign,
        }
    }
}

/// What arrived.
struct Arrived {
    /// SHA-256 in lower-case hex.
    checksum: String,
    bytes: u64,
    foreign: bool,
}

impl Arrived {
    /// How many bytes, if they are what was `announced`.
    fn verify(self, announced: &str) -> Result<u64, IntakeError> {
        if self.foreign {
            return Err(IntakeError::NotAChunk);
        }
        if self.checksum != announced {
            let announced = announced.chars().take(64).collect();
            return Err(IntakeError::Checksum { actual: self.checksum, announced });
        }
        Ok(self.bytes)
    }
}

/// The archive as a blocking reader.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty() {
            self.current = self.receiver.blocking_recv().unwrap_or_default();
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        bytes::Buf::advance(&mut self.current, amount);
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let taken = available.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&available[..taken]);
        self.consume(taken);
        Ok(taken)
    }
}

/// The directory in which archives are unpacked, each into one of its own.
#[derive(Clone, Debug)]
pub struct Workspaces {
    directory: PathBuf,
    alive: watch::Sender<usize>,
    trees: Arc<Mutex<HashMap<Unpacked, Weak<Tree>>>>,
}

/// What makes two trees the same: the archive's checksum, and whether modes are preserved.
type Unpacked = (String, bool);

/// One archive, unpacked as long as a request needs it. Whoever unpacks it has the lock, and the others wait.
type Tree = tokio::sync::Mutex<Weak<Held>>;

impl Workspaces {
    /// Empties `<workdir>/_cmp_server`, the name that the stock server uses too, and makes it private.
    pub fn prepare(workdir: &Path) -> Result<Self, IntakeError> {
        let directory = workdir.join("_cmp_server");
        let failed = |source| IntakeError::Workspace { directory: workdir.to_owned(), source };
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        // Fails where someone else was faster, so that nobody else can own it.
        DirBuilder::new().mode(0o700).create(&directory).map_err(failed)?;
        let directory = fs::canonicalize(&directory).map_err(failed)?;
        Ok(Self { directory, alive: watch::Sender::new(0), trees: Arc::default() })
    }

    /// Receives an archive and unpacks it, unless another request has it unpacked; how many bytes arrived.
    ///
    /// Waits for another request that is unpacking it, but not past `patience`. The request is not read meanwhile, so that
    /// the next one can unpack it should that one fail or go away.
    pub async fn receive(
        &self,
        messages: &mut impl Messages,
        checksum: &str,
        how: Unpacking,
        patience: Instant,
    ) -> Result<(Workspace, u64), IntakeError> {
        if !how.shared {
            return self.unpack(messages, checksum, how).await;
        }
        let tree = self.tree((checksum.to_owned(), how.preserve_modes));
        let Ok(mut unpacked) = timeout_at(patience.into(), tree.lock()).await else {
            return self.unpack(messages, checksum, how).await;
        };
        if let Some(held) = unpacked.upgrade() {
            drop(unpacked);
            let received = check(messages, checksum).await?;
            return Ok((Workspace { held, tree: Some(tree.clone()) }, received));
        }
        let (mut workspace, received) = self.unpack(messages, checksum, how).await?;
        *unpacked = Arc::downgrade(&workspace.held);
        workspace.tree = Some(tree.clone());
        Ok((workspace, received))
    }

    async fn unpack(
        &self,
        messages: &mut impl Messages,
        checksum: &str,
        how: Unpacking,
    ) -> Result<(Workspace, u64), IntakeError> {
        let workspace = match self.create() {
            Ok(workspace) => workspace,
            Err(error) => {
                drain(messages).await?;
                return Err(error);
            }
        };
        let received = unpack(messages, checksum, &workspace, how).await?;
        Ok((workspace, received))
    }

    /// The tree that all requests with this archive share while one of them lives.
    fn tree(&self, key: Unpacked) -> Arc<Tree> {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = trees.get(&key).and_then(Weak::upgrade) {
            return tree;
        }
        trees.retain(|_, tree| tree.strong_count() > 0);
        let tree = Arc::new(Tree::default());
        trees.insert(key, Arc::downgrade(&tree));
        tree
    }

    /// A new private directory; it goes when the last handle to it goes.
    fn create(&self) -> Result<Workspace, IntakeError> {
        let made = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(16)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&self.directory);
        let directory =
            made.map_err(|source| IntakeError::Workspace { directory: self.directory.clone(), source })?;
        self.alive.send_modify(|alive| *alive += 1);
        let held = Arc::new(Held { directory: Some(directory), alive: self.alive.clone() });
        Ok(Workspace { held, tree: None })
    }

    /// Waits until every workspace is gone.
    pub async fn emptied(&self) {
        // The sender is ours, so the wait cannot fail.
        let _ = self.alive.subscribe().wait_for(|alive| *alive == 0).await;
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The private directory of one archive, absolute and without symlinks. It goes when the last request that has it goes.
#[derive(Clone, Debug)]
pub struct Workspace {
    held: Arc<Held>,
    /// Kept so that other requests find it.
    tree: Option<Arc<Tree>>,
}

#[derive(Debug)]
struct Held {
    directory: Option<TempDir>,
    alive: watch::Sender<usize>,
}

impl Workspace {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.held.directory.as_ref().expect("taken only on drop").path()
    }
}

impl Drop for Held {
    /// A large tree takes its time to go, so it goes on a thread that may block.
    fn drop(&mut self) {
        let (directory, alive) = (self.directory.take(), self.alive.clone());
        let remove = move || {
            drop(directory);
            alive.send_modify(|alive| *alive -= 1);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::stream;

    use super::*;
    use crate::cmp::archive::tests::Packer;
    use crate::fault::report;

    fn chunks(archive: &[u8], size: usize) -> Vec<Result<AppStreamRequest, Status>> {
        let chunk = |chunk: &[u8]| File { chunk: Bytes::copy_from_slice(chunk) };
        archive
            .chunks(size)
            .map(|piece| Ok(AppStreamRequest { request: Some(Request::File(chunk(piece))) }))
            .collect()
    }

    fn checksum(archive: &[u8]) -> String {
        format!("{:x}", Sha256::digest(archive))
    }

    fn repository() -> Vec<u8> {
        Packer::new().file("apps/shop/Chart.yaml", b"name: shop").file("big", &vec![1; 900_000]).finish()
    }

    fn prepared() -> (TempDir, Workspaces) {
        let workdir = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::prepare(workdir.path()).unwrap();
        (workdir, workspaces)
    }

    fn unpacking(shared: bool) -> Unpacking {
        Unpacking { limits: Limits::default(), preserve_modes: false, shared }
    }

    /// Longer than any test waits.
    fn patience() -> Instant {
        Instant::now() + Duration::from_mins(5)
    }

    /// Receives a whole archive under its checksum.
    async fn receive_whole(workspaces: &Workspaces, archive: &[u8], how: Unpacking) -> Workspace {
        let mut messages = stream::iter(chunks(archive, 1000));
        let received = workspaces.receive(&mut messages, &checksum(archive), how, patience()).await;
        let (workspace, bytes) = received.unwrap();
        assert_eq!(bytes, archive.len() as u64);
        assert!(messages.next().await.is_none());
        workspace
    }

    fn count(workspaces: &Workspaces) -> usize {
        fs::read_dir(workspaces.directory()).unwrap().count()
    }

    fn manifest(workspace: &Workspace) -> Vec<u8> {
        fs::read(workspace.path().join("apps/shop/Chart.yaml")).unwrap()
    }

    #[tokio::test]
    async fn what_several_bring_at_once_is_unpacked_once_and_stays_until_the_last_one_goes() {
        let (_workdir, workspaces) = prepared();
        let archive = repository();
        let all = (0..5).map(|_| receive_whole(&workspaces, &archive, unpacking(true)));
        let mut all = futures::future::join_all(all).await;
        all.push(receive_whole(&workspaces, &archive, unpacking(true)).await);
        assert_eq!(count(&workspaces), 1);
        while let Some(workspace) = all.pop() {
            assert_eq!(manifest(&workspace), b"name: shop");
        }
        workspaces.emptied().await;
        assert_eq!(count(&workspaces), 0);
        let _again = receive_whole(&workspaces, &archive, unpacking(true)).await;
        assert_eq!(count(&workspaces), 1);
        assert_eq!(workspaces.trees.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn other_archives_other_modes_and_what_may_be_written_to_are_not_shared() {
        let (_workdir, workspaces) = prepared();
        let (archive, other) = (repository(), Packer::new().file("x", b"").finish());
        let preserving = Unpacking { preserve_modes: true, ..unpacking(true) };
        let mut all = Vec::new();
        for (archive, how, expected) in [
            (&archive, unpacking(true), 1),
            (&other, unpacking(true), 2),
            (&archive, preserving, 3),
            (&archive, unpacking(false), 4),
            (&archive, unpacking(false), 5),
            (&archive, unpacking(true), 5),
        ] {
            all.push(receive_whole(&workspaces, archive, how).await);
            assert_eq!(count(&workspaces), expected);
        }
    }

    #[tokio::test]
    async fn who_brings_something_else_under_a_checksum_gets_nothing_and_spoils_nothing() {
        let (_workdir, workspaces) = prepared();
        let archive = repository();
        let announced = checksum(&archive);
        let wrong = async || {
            let mut messages = stream::iter(chunks(&Packer::new().file("x", b"").finish(), 10));
            let received = workspaces.receive(&mut messages, &announced, unpacking(true), patience()).await;
            assert!(messages.next().await.is_none());
            received.unwrap_err()
        };
        let (first, right, last) =
            tokio::join!(wrong(), receive_whole(&workspaces, &archive, unpacking(true)), wrong());
        for error in [first, last] {
            assert!(matches!(error, IntakeError::Checksum { .. }), "{error}");
        }
        assert_eq!(manifest(&right), b"name: shop");
        drop(right);
        workspaces.emptied().await;
    }

    #[tokio::test]
    async fn when_the_one_that_unpacks_goes_or_breaks_off_the_next_one_does() {
        let (_workdir, workspaces) = prepared();
        let archive = repository();
        let announced = checksum(&archive);
        let half: Vec<_> = chunks(&archive, 100).into_iter().take(3).collect();
        let broken = || Err(Status::unavailable("gone"));
        let mut ending = stream::iter(half).chain(stream::iter([broken()]));
        let mut never = stream::iter(chunks(&archive, 100)).take(3).chain(stream::pending());
        let first = workspaces.receive(&mut ending, &announced, unpacking(true), patience());
        let mut second = Box::pin(workspaces.receive(&mut never, &announced, unpacking(true), patience()));
        let third = receive_whole(&workspaces, &archive, unpacking(true));
        let leaving = async {
            assert!(matches!(first.await, Err(IntakeError::Stream(_))));
            assert!(futures::poll!(&mut second).is_pending());
            assert!(
                timeout_at((Instant::now() + Duration::from_millis(50)).into(), &mut second).await.is_err()
            );
            drop(second);
        };
        let ((), third) = tokio::join!(leaving, third);
        assert_eq!(manifest(&third), b"name: shop");
        drop(third);
        workspaces.emptied().await;
        assert_eq!(count(&workspaces), 0);
    }

    #[tokio::test]
    async fn nobody_waits_past_its_patience_for_one_that_is_slow() {
        let (_workdir, workspaces) = prepared();
        let archive = repository();
        let announced = checksum(&archive);
        let mut slow = stream::pending();
        let mut first = Box::pin(workspaces.receive(&mut slow, &announced, unpacking(true), patience()));
        assert!(futures::poll!(&mut first).is_pending());
        let mut messages = stream::iter(chunks(&archive, 1000));
        let received = workspaces.receive(&mut messages, &announced, unpacking(true), Instant::now()).await;
        assert_eq!(manifest(&received.unwrap().0), b"name: shop");
    }

    #[tokio::test]
    async fn an_archive_in_small_chunks_is_unpacked_and_goes_with_its_workspace() {
        let (_workdir, workspaces) = prepared();
        let workspace = workspaces.create().unwrap();
        let archive = repository();
        let mut messages = stream::iter(chunks(&archive, 7));
        let how = unpacking(false);
        let received = unpack(&mut messages, &checksum(&archive), &workspace, how).await.unwrap();
        assert_eq!(received, archive.len() as u64);
        assert_eq!(fs::read(workspace.path().join("apps/shop/Chart.yaml")).unwrap(), b"name: shop");
        drop(workspace);
        workspaces.emptied().await;
        assert_eq!(fs::read_dir(workspaces.directory()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn whatever_is_wrong_the_stream_is_read_to_its_end() {
        let workdir = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::prepare(workdir.path()).unwrap();
        let escape = Packer::new().file("../x", b"").file("big", &vec![9; 3 << 20]).finish();
        let mut foreign = chunks(&repository(), 100);
        foreign.insert(1, Ok(AppStreamRequest::default()));
        let rows = [
            (chunks(&repository(), 100), "0".repeat(64), "the repository's archive has the SHA-256 "),
            (chunks(&escape, 100), checksum(&escape), "\"../x\" in the repository's archive lies outside"),
            (
                chunks(&vec![b'x'; 1 << 20], 1024),
                checksum(&vec![b'x'; 1 << 20]),
                "the repository's archive is broken: ",
            ),
            (vec![], checksum(b""), "the repository's archive is broken: "),
            (
                foreign,
                checksum(&repository()),
                "the request has something else than the repository's archive",
            ),
        ];
        for (sent, checksum, expected) in rows {
            let mut messages = stream::iter(sent);
            let received = workspaces.receive(&mut messages, &checksum, unpacking(true), patience()).await;
            let error = received.unwrap_err();
            assert!(report(&error).starts_with(expected), "{}", report(&error));
            assert_eq!(error.class(), Class::Invalid);
            assert!(messages.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn a_request_without_metadata_is_read_to_its_end_too() {
        let mut messages = stream::iter(chunks(&repository(), 100));
        let error = metadata(&mut messages).await.unwrap_err();
        assert_eq!(report(&error), "the request does not begin with its metadata");
        assert!(messages.next().await.is_none());
    }

    #[tokio::test]
    async fn discovery_sees_paths_below_the_app_s_directory_only() {
        let archive = repository();
        for (directory, path, expected) in [
            ("./apps/shop", "Chart.yaml", true),
            (".", "Chart.yaml", false),
            ("apps", "shop/Chart.yaml", true),
        ] {
            let mut messages = stream::iter(chunks(&archive, 1000));
            let matches = move |seen: &Path| seen == Path::new(path);
            let found =
                any_path(&mut messages, &checksum(&archive), directory, Limits::default(), matches).await;
            assert_eq!(found.unwrap(), expected, "{directory} {path}");
        }
    }

    #[test]
    fn a_work_directory_left_behind_is_emptied_and_private() {
        let workdir = tempfile::tempdir().unwrap();
        fs::create_dir_all(workdir.path().join("_cmp_server/old/deep")).unwrap();
        let workspaces = Workspaces::prepare(workdir.path()).unwrap();
        assert_eq!(fs::read_dir(workspaces.directory()).unwrap().count(), 0);
        let workspace = workspaces.create().unwrap();
        for directory in [workspaces.directory(), workspace.path()] {
            assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
