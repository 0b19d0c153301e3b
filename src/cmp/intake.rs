//! Receives one streamed repository: metadata first, then the archive in chunks of a kibibyte or so.
//!
//! The archive is checked and unpacked while it arrives, on a thread of its own, with a bounded queue between. The
//! stream is always read to its end, whatever is wrong with it: a client whose stream ends early reports only `EOF`
//! and never asks for the answer.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, spawn_blocking};
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

/// Receives the archive and unpacks it into `workspace`.
pub async fn unpack(
    messages: &mut impl Messages,
    checksum: &str,
    workspace: &Workspace,
    limits: Limits,
    preserve_modes: bool,
) -> Result<u64, IntakeError> {
    let root = workspace.clone();
    let work = move |chunks| archive::unpack(chunks, root.path(), limits, preserve_modes);
    Ok(receive(messages, checksum, work).await?.1)
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
    let mut archive =
        Incoming { sender: Some(sender), batch: BytesMut::new(), hash: Sha256::new(), received: 0 };
    let mut foreign = false;
    while let Some(message) = messages.next().await {
        match message.map_err(IntakeError::Stream)?.request {
            Some(Request::File(File { chunk })) => archive.take(&chunk).await,
            Some(Request::Metadata(_)) | None => foreign = true,
        }
    }
    let (actual, received) = archive.finish().await;
    let outcome = worker.await.map_err(IntakeError::Thread)?;
    if foreign {
        return Err(IntakeError::NotAChunk);
    }
    if actual != checksum {
        return Err(IntakeError::Checksum { actual, announced: checksum.chars().take(64).collect() });
    }
    Ok((outcome?, received))
}

/// The archive's bytes on their way to the thread that reads them.
struct Incoming {
    /// `None` once the reader has had enough.
    sender: Option<mpsc::Sender<Bytes>>,
    batch: BytesMut,
    hash: Sha256,
    received: u64,
}

impl Incoming {
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

    /// Ends the reader's input. The SHA-256 in lower-case hex, and how many bytes arrived.
    async fn finish(mut self) -> (String, u64) {
        if !self.batch.is_empty() {
            self.hand_on().await;
        }
        (format!("{:x}", self.hash.finalize()), self.received)
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

/// The directory in which each request gets one of its own.
#[derive(Clone, Debug)]
pub struct Workspaces {
    directory: PathBuf,
    alive: watch::Sender<usize>,
}

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
        Ok(Self { directory, alive: watch::Sender::new(0) })
    }

    /// A new private directory; it goes when the last handle to it goes.
    pub fn create(&self) -> Result<Workspace, IntakeError> {
        let made = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(16)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&self.directory);
        let directory =
            made.map_err(|source| IntakeError::Workspace { directory: self.directory.clone(), source })?;
        self.alive.send_modify(|alive| *alive += 1);
        Ok(Workspace(Arc::new(Held { directory: Some(directory), alive: self.alive.clone() })))
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

/// The private directory of one request, absolute and without symlinks.
#[derive(Clone, Debug)]
pub struct Workspace(Arc<Held>);

#[derive(Debug)]
struct Held {
    directory: Option<TempDir>,
    alive: watch::Sender<usize>,
}

impl Workspace {
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.directory.as_ref().expect("taken only on drop").path()
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

    #[tokio::test]
    async fn an_archive_in_small_chunks_is_unpacked_and_goes_with_its_workspace() {
        let workdir = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::prepare(workdir.path()).unwrap();
        let workspace = workspaces.create().unwrap();
        let archive = repository();
        let mut messages = stream::iter(chunks(&archive, 7));
        let limits = Limits::default();
        let received = unpack(&mut messages, &checksum(&archive), &workspace, limits, false).await.unwrap();
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
            let workspace = workspaces.create().unwrap();
            let limits = Limits::default();
            let error = unpack(&mut messages, &checksum, &workspace, limits, false).await.unwrap_err();
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
