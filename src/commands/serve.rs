//! `strongroom serve` and `strongroom health`: the sidecar.

use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cmp::archive::Limits;
use crate::cmp::health;
use crate::cmp::plugin::Plugin;
use crate::cmp::server::{Options, Server};
use crate::cmp::service::{self, Generate, Job, Rendered};
use crate::commands::Failure;
use crate::commands::watched::Watched;
use crate::config::{Serve, Socket};
use crate::fault::{Class, Fault};
use crate::http::{self, Latch};
use crate::observe::Meters;
use crate::render::Renderer;
use crate::render::cache::Cached;
use crate::sandbox;
use crate::secret::Secret;
use crate::signals::Termination;

/// How long the server may take to say that it serves.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks at the files of keys and of the plugin.
const LOOK: Duration = Duration::from_secs(2);

/// What the plugin's file is called in the log and in metrics.
const PLUGIN: &str = "plugin.yaml";

/// What a render may need, helm included.
const MEMORY_OF_A_RENDER: u64 = 256 << 20;

/// Where the container's memory limit is told, if it has one.
const MEMORY_LIMIT: &str = "/sys/fs/cgroup/memory.max";

/// What files hold, and whether they changed.
type Group = (&'static str, Watched);

/// The address for probes and metrics cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}\nhelp: choose another address with STRONGROOM_HTTP")]
struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl Fault for ListenError {
    fn class(&self) -> Class {
        Class::Internal
    }
}

/// Serves until `stop`, and finishes what runs. What `assemble` makes is made anew when one of the files `keys` changes,
/// each group of which has its name in front.
pub(super) async fn run<E: Fault>(
    args: &Serve,
    assemble: impl Fn() -> Result<Renderer, E> + Send,
    keys: [(&'static str, Vec<PathBuf>); 2],
    stop: impl Future<Output = Termination> + Send,
) -> Result<Secret<Vec<u8>>, Failure> {
    let seen = keys.map(|(what, paths)| (what, Watched::new(paths)));
    let first = assemble()?;
    let latch = Latch::new(&["keys", "helm", "socket"]);
    let mut registry = Registry::default();
    let meters = Meters::register(&mut registry, args.metrics_by_app);
    let unheard = |source| ListenError { address: args.http, source };
    let listener = TcpListener::bind(args.http).await.map_err(unheard)?;
    let http = listener.local_addr().map_err(unheard)?;
    let (done, mut over) = watch::channel(false);
    let pages = http::serve(listener, http::router(latch.clone(), Arc::new(registry)), async move {
        let _ = over.wait_for(|over| *over).await;
    });
    let serving = async {
        let served = serve(args, (assemble, first, seen), meters, &latch, http, stop).await;
        done.send_replace(true);
        served
    };
    let (served, _) = tokio::join!(serving, pages);
    served?;
    Ok(Secret::default())
}

/// Gets ready one condition after the other, and serves.
async fn serve<E: Fault>(
    args: &Serve,
    (assemble, first, mut keys): (impl Fn() -> Result<Renderer, E> + Send, Renderer, [Group; 2]),
    meters: Meters,
    latch: &Latch,
    http: SocketAddr,
    stop: impl Future<Output = Termination> + Send,
) -> Result<(), Failure> {
    latch.open("keys");
    let asked = first.helm.version(first.deadline()).await;
    let version = asked.map_err(|error| Failure::of("start helm", &error))?;
    latch.open("helm");
    let mut config = Watched::new(vec![args.socket.plugin_config.clone()]);
    let plugins = watch::Sender::new(plugin(&args.socket.plugin_config)?);
    let renderers = watch::Sender::new(Arc::new(keeping(first, args, &meters)));
    let current = Arc::new(Current(renderers.subscribe()));
    let enforced = sandbox::is_enforced();
    let confined = enforced && !args.unconfined_helm;
    let options = options(args, renderers.borrow().timeout, confined);
    let server = Server::bind(options, plugins.subscribe(), current, meters.clone())?;
    latch.open("socket");
    if !enforced {
        tracing::warn!("this kernel has no Landlock: helm may read and write what the container's user may");
    }
    tracing::info!(socket = %server.path().display(), %http, helm = version, confined, "serving");
    let watching = async {
        for what in keys.iter().map(|(what, _)| what).chain([&PLUGIN]) {
            meters.watches(what);
        }
        loop {
            tokio::time::sleep(LOOK).await;
            for (what, files) in &mut keys {
                if files.changed() {
                    take(assemble().map_err(Failure::from), what, &meters, |new| {
                        renderers.send_replace(Arc::new(keeping(new, args, &meters)));
                    });
                }
            }
            if config.changed() {
                // What is borrowed cannot be replaced.
                let new = plugin_like(&plugins.borrow(), &args.socket.plugin_config);
                take(new, PLUGIN, &meters, |new| {
                    plugins.send_replace(new);
                });
            }
        }
    };
    tokio::select! {
        served = server.serve(stop.map(|_| ())) => Ok(served?),
        never = watching => never,
    }
}

/// Puts what was read anew in the place of what was there, which stays where that failed.
fn take<T>(read: Result<T, Failure>, what: &'static str, meters: &Meters, put: impl FnOnce(T)) {
    meters.reloaded(what, read.is_ok());
    match read {
        Ok(new) => {
            put(new);
            tracing::info!("{what} changed, and what is there now counts");
        }
        Err(failure) => tracing::error!("{what} changed, and what was there before stays: {failure}"),
    }
}

/// The renderer with a helm that keeps what it prints.
fn keeping(mut renderer: Renderer, args: &Serve, meters: &Meters) -> Renderer {
    if args.render_cache > 0 {
        let room = usize::from(args.render_cache) << 20;
        renderer.helm = Arc::new(Cached::new(renderer.helm, room, meters.clone()));
    }
    renderer
}

/// The socket has its name, which Argo CD knows.
#[derive(Debug, thiserror::Error)]
#[error("the plugin is another one now\nhelp: restart the sidecar to serve it")]
struct OtherPluginError;

/// Asks whether the server on the socket serves.
pub(super) async fn health(args: &Socket) -> Result<Secret<Vec<u8>>, Failure> {
    let plugin = plugin(&args.plugin_config)?;
    health::check(&args.plugins_dir.join(plugin.socket()), PATIENCE).await?;
    Ok(Secret::default())
}

fn plugin(config: &Path) -> Result<Plugin, Failure> {
    if config.exists() { Ok(Plugin::read(config)?) } else { Ok(Plugin::default()) }
}

/// What is configured now, if `before` has the same socket.
fn plugin_like(before: &Plugin, config: &Path) -> Result<Plugin, Failure> {
    let now = plugin(config)?;
    if now.socket() == before.socket() { Ok(now) } else { Err(Failure::internal(OtherPluginError)) }
}

/// `confined`: helm writes nothing.
fn options(args: &Serve, timeout: Duration, confined: bool) -> Options {
    Options {
        plugins: args.socket.plugins_dir.clone(),
        socket_mode: args.socket_mode,
        workdir: args.workdir.clone(),
        grace: args.grace,
        service: service::Options {
            slots: args.renders.map_or_else(slots, usize::from),
            timeout,
            message_limit: usize::from(args.message_limit) << 20,
            limits: Limits { bytes: u64::from(args.repository_limit) << 20, ..Limits::default() },
            shared: confined,
            allow_hydrator: args.allow_hydrator,
            ..service::Options::default()
        },
        ..Options::default()
    }
}

/// As many renders as there are cores, and no more than memory has room for.
fn slots() -> usize {
    let cores = available_parallelism().map_or(2, usize::from);
    let limit = fs::read_to_string(MEMORY_LIMIT).ok();
    slots_for(cores, limit.and_then(|text| text.trim().parse().ok()))
}

fn slots_for(cores: usize, memory: Option<u64>) -> usize {
    let room = memory.map_or(u64::MAX, |memory| memory / MEMORY_OF_A_RENDER);
    cores.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

/// The renderer of the keys that are there now. A render ends with the one that it began with.
struct Current(watch::Receiver<Arc<Renderer>>);

impl Generate for Current {
    fn generate<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Rendered, Box<dyn Fault>>> {
        let renderer = self.0.borrow().clone();
        Box::pin(async move {
            let rendered = renderer
                .render_app(&job.environment, &job.root, &job.app_dir, job.deadline, job.observer.clone())
                .await;
            let rendered = rendered.map_err(|error| Box::new(error) as Box<dyn Fault>)?;
            // An empty result that is not allowed is an error of the render itself.
            Ok(Rendered { manifests: rendered.manifests, empty_allowed: true })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_cores_and_memory() {
        let rows = [(2, None, 2), (8, Some(1 << 30), 4), (8, Some(64 << 20), 1), (1, Some(u64::MAX), 1)];
        for (cores, memory, expected) in rows {
            assert_eq!(slots_for(cores, memory), expected, "{cores} {memory:?}");
        }
    }
}
