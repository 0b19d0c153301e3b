//! `strongroom serve` and `strongroom health`: the sidecar.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cmp::health;
use crate::cmp::plugin::Plugin;
use crate::cmp::server::{Options, Server};
use crate::cmp::service::{self, Generate, Job, Rendered};
use crate::commands::{Failure, InputError};
use crate::config::{Health, Serve};
use crate::fault::Fault;
use crate::http::{self, Latch};
use crate::render::Renderer;
use crate::secret::Secret;
use crate::signals::Termination;

/// How long the server may take to say that it serves.
const PATIENCE: Duration = Duration::from_secs(3);

/// Serves until `stop`, and finishes what runs.
pub(super) async fn run(
    args: &Serve,
    renderer: Renderer,
    stop: impl Future<Output = Termination> + Send,
) -> Result<Secret<Vec<u8>>, Failure> {
    let latch = Latch::new(&["helm", "socket"]);
    let mut registry = Registry::default();
    let helm = renderer.helm.clone();
    let version =
        helm.version(renderer.deadline()).await.map_err(|error| Failure::of("start helm", &error))?;
    latch.open("helm");
    let plugin = plugin(&args.plugin_config)?;
    let server = Server::bind(options(args, &renderer), plugin, Arc::new(renderer), &mut registry)?;
    latch.open("socket");
    tracing::info!(socket = %server.path().display(), http = %args.http, helm = version, "serving");
    let listener = TcpListener::bind(args.http)
        .await
        .map_err(|source| InputError { path: args.http.to_string(), source })?;
    let (done, over) = watch::channel(false);
    let mut over = over;
    let pages = http::serve(listener, http::router(latch, Arc::new(registry)), async move {
        let _ = over.wait_for(|over| *over).await;
    });
    let serving = async {
        let served = server.serve(stop.map(|_| ())).await;
        done.send_replace(true);
        served
    };
    let (served, _) = tokio::join!(serving, pages);
    served?;
    Ok(Secret::default())
}

/// Asks whether the server on the socket serves.
pub(super) async fn health(args: &Health) -> Result<Secret<Vec<u8>>, Failure> {
    let plugin = plugin(&args.plugin_config)?;
    health::check(&args.plugins_dir.join(plugin.socket()), PATIENCE).await?;
    Ok(Secret::default())
}

fn plugin(config: &Path) -> Result<Plugin, Failure> {
    if config.exists() { Ok(Plugin::read(config)?) } else { Ok(Plugin::default()) }
}

fn options(args: &Serve, renderer: &Renderer) -> Options {
    let cores = || std::thread::available_parallelism().map_or(2, usize::from);
    Options {
        plugins: args.plugins_dir.clone(),
        workdir: args.workdir.clone(),
        grace: args.grace,
        service: service::Options {
            slots: args.renders.map_or_else(cores, usize::from),
            timeout: renderer.timeout,
            message_limit: usize::from(args.message_limit) << 20,
            allow_hydrator: args.allow_hydrator,
            ..service::Options::default()
        },
        ..Options::default()
    }
}

impl Generate for Renderer {
    fn generate<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Rendered, Box<dyn Fault>>> {
        Box::pin(async move {
            let rendered = self.render_app(&job.environment, &job.root, &job.app_dir, job.deadline).await;
            let rendered = rendered.map_err(|error| Box::new(error) as Box<dyn Fault>)?;
            // An empty result that is not allowed is an error of the render itself.
            Ok(Rendered { manifests: rendered.manifests, empty_allowed: true })
        })
    }
}
