//! The socket, and the life of the server on it.
//!
//! Argo CD's repo-server takes every `*.sock` in the plugins folder for a plugin. The socket is made in a private
//! directory, gets its mode there and is then moved to its name, so that nobody meets it half made and a stale one is
//! replaced in the same step. On the way out the name goes first; what was accepted, or waits to be, is still
//! served, since a client whose connection was dropped before the first answer waits without end.

use std::fs::{self, Permissions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server as Grpc;

use crate::cmp::authority::AnyAuthority;
use crate::cmp::intake::{IntakeError, Workspaces};
use crate::cmp::plugin::Plugin;
use crate::cmp::proto::plugin::config_management_plugin_service_server::ConfigManagementPluginServiceServer;
use crate::cmp::service::{self, Generate, Service};
use crate::fault::{Class, Fault};
use crate::observe::Meters;

/// The longest path that a socket can have.
const PATH_LIMIT: usize = 107;
/// How much a client may send ahead, per call and per connection. A unix socket has no distance to bridge, and what
/// queued calls send ahead lies in memory.
const WINDOW: u32 = 256 << 10;
/// How long connections may take to take in their last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// What the operator chooses about the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of the plugins' sockets, shared with the repo-server.
    pub plugins: PathBuf,
    /// Permission bits of the socket; who may write may connect.
    pub socket_mode: u32,
    /// Where requests get their private directories; memory-backed is best.
    pub workdir: PathBuf,
    /// How long running calls may go on after the end was asked for.
    pub grace: Duration,
    /// How long clients that just connected may still begin a call after the end was asked for.
    pub linger: Duration,
    /// What the operator chooses about the service.
    pub service: service::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plugins: PathBuf::from("/home/argocd/cmp-server/plugins"),
            socket_mode: 0o660,
            workdir: PathBuf::from("/tmp"),
            grace: Duration::from_secs(25),
            linger: Duration::from_millis(500),
            service: service::Options::default(),
        }
    }
}

/// A server that does not come up, or fails.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Socket paths are short.
    #[error("the socket's path {0:?} is longer than {PATH_LIMIT} bytes")]
    PathTooLong(PathBuf),
    /// Something else has the socket's name.
    #[error("{0:?} is there and is not a socket")]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("make the socket {path:?}")]
    Bind {
        /// Its path.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No private directory.
    #[error(transparent)]
    Workspaces(#[from] IntakeError),
    /// The HTTP/2 server failed.
    #[error("serve")]
    Serve(#[source] tonic::transport::Error),
}

impl Fault for ServerError {
    fn class(&self) -> Class {
        Class::Internal
    }
}

/// A server whose socket accepts connections already.
pub struct Server {
    options: Options,
    socket: Socket,
    listener: UnixListener,
    workspaces: Workspaces,
    service: Service,
    closing: watch::Sender<bool>,
}

impl Server {
    /// Empties the work directory and makes the socket, which has the name that `plugin` has now. To be called inside the
    /// runtime.
    pub fn bind(
        options: Options,
        plugin: watch::Receiver<Plugin>,
        generate: Arc<dyn Generate>,
        meters: Meters,
    ) -> Result<Self, ServerError> {
        let workspaces = Workspaces::prepare(&options.workdir)?;
        let path = options.plugins.join(plugin.borrow().socket());
        let (closing, closed) = watch::channel(false);
        let service =
            Service::new(plugin, options.service.clone(), generate, workspaces.clone(), meters, closed);
        let (socket, listener) = Socket::bind(path, options.socket_mode)?;
        Ok(Self { options, socket, listener, workspaces, service, closing })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.socket.path
    }

    /// Serves until `shutdown`, then takes the socket away, finishes what runs within the grace period, and returns.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServerError> {
        let limit = self.options.service.message_limit;
        let (mut calls, grace, linger) = (self.service.calls(), self.options.grace, self.options.linger);
        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_serving::<ConfigManagementPluginServiceServer<Service>>().await;
        let service = ConfigManagementPluginServiceServer::new(self.service)
            .max_decoding_message_size(limit)
            .max_encoding_message_size(limit);
        let socket = self.socket;
        let mut closed = self.closing.subscribe();
        let incoming = UnixListenerStream::new(self.listener);
        let end = async {
            shutdown.await;
            drop(socket);
            tokio::time::sleep(linger).await;
            // An error would mean that the service is gone, and its calls with it.
            let _ = tokio::time::timeout(grace, calls.wait_for(|calls| *calls == 0)).await;
            self.closing.send_replace(true);
        };
        let serving = Grpc::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .add_service(health)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming.map(|accepted| accepted.map(AnyAuthority::new)), end);
        let overdue = async {
            let _ = closed.wait_for(|closed| *closed).await;
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            served = serving => served.map_err(ServerError::Serve)?,
            () = overdue => tracing::warn!("a connection did not take in its last answer"),
        }
        self.workspaces.emptied().await;
        Ok(())
    }
}

/// The socket's name; it goes when this does.
struct Socket {
    path: PathBuf,
    identity: (u64, u64),
}

impl Socket {
    fn bind(path: PathBuf, mode: u32) -> Result<(Self, UnixListener), ServerError> {
        if path.as_os_str().len() > PATH_LIMIT {
            return Err(ServerError::PathTooLong(path));
        }
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(ServerError::NotASocket(path));
        }
        match Self::bind_privately(&path, mode) {
            Ok((identity, listener)) => Ok((Self { path, identity }, listener)),
            Err(source) => Err(ServerError::Bind { path, source }),
        }
    }

    fn bind_privately(path: &Path, mode: u32) -> io::Result<((u64, u64), UnixListener)> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let private = tempfile::Builder::new()
            .prefix(".")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(folder)?;
        let unnamed = private.path().join("s");
        let listener = UnixListener::bind(&unnamed)?;
        fs::set_permissions(&unnamed, Permissions::from_mode(mode))?;
        let identity = identity(&unnamed)?;
        fs::rename(&unnamed, path)?;
        Ok((identity, listener))
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Drop for Socket {
    /// Leaves a socket that another server put in its place.
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = ?self.path, %error, "the socket cannot be taken away");
        }
    }
}
