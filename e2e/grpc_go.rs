//! A real grpc-go client, dialling as Argo CD's repo-server does, reaches the service and hears its errors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;

use strongroom::cmp::plugin::Plugin;
use strongroom::cmp::server::{Options, Server};
use strongroom::cmp::service::{Generate, Job, Rendered};
use strongroom::fault::Fault;
use strongroom::observe::Meters;
use strongroom::secret::Secret;
use support::grpc_go::grpc_go;
use support::process::Output;
use tempfile::TempDir;
use tokio::sync::watch;

/// Answers with the chart's own file.
struct Echo;

impl Generate for Echo {
    fn generate<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Rendered, Box<dyn Fault>>> {
        let chart = fs::read_to_string(job.app_dir.join("Chart.yaml")).unwrap();
        Box::pin(async { Ok(Rendered { manifests: Secret::new(chart), empty_allowed: false }) })
    }
}

/// A repository of a few MiB, far more than a client may send ahead.
fn repository(folder: &Path) -> PathBuf {
    let repository = folder.join("repository");
    fs::create_dir_all(repository.join("apps/shop")).unwrap();
    fs::write(repository.join("apps/shop/Chart.yaml"), "name: shop\n").unwrap();
    let noise: Vec<u8> =
        (0..1_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(repository.join("noise"), noise).unwrap();
    repository
}

struct Setting {
    folder: TempDir,
    repository: PathBuf,
    socket: PathBuf,
}

impl Setting {
    /// Starts the server; it ends with the test's runtime.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("home/argocd/cmp-server/plugins");
        fs::create_dir_all(&plugins).unwrap();
        let options = Options { plugins, workdir: folder.path().to_owned(), ..Options::default() };
        let server =
            Server::bind(options, watch::channel(Plugin::default()).1, Arc::new(Echo), Meters::default())
                .unwrap();
        let socket = server.path().to_owned();
        tokio::spawn(server.serve(std::future::pending()));
        Self { repository: repository(folder.path()), folder, socket }
    }

    async fn call(&self, more: &[&str]) -> Output {
        let run = grpc_go(&self.socket, &self.repository, "apps/shop").args(more);
        tokio::task::spawn_blocking(move || run.output()).await.unwrap()
    }
}

const ENVIRONMENT: [&str; 2] = ["ARGOCD_APP_NAME=team_shop", "KUBE_VERSION=1.36.1"];

#[tokio::test(flavor = "multi_thread")]
async fn every_argo_cd_s_spelling_of_the_authority_is_let_in() {
    let setting = Setting::start();
    let path = setting.socket.to_str().unwrap();
    let escaped = path.replace('/', "%2F");
    for spelling in [&[][..], &["-authority", path], &["-authority", &escaped]] {
        // Three calls on one connection: the later ones come from the compression table.
        let output = setting.call(&[spelling, &["-calls", "3"], &ENVIRONMENT].concat()).await;
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("name: shop\nname: shop\nname: shop\n", "")
        );
    }
    drop(setting.folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_reaches_the_client_instead_of_an_end_of_stream() {
    let setting = Setting::start();
    let output = setting.call(&["ARGOCD_APP_NAME=team_shop", "KUBE_VERSION=", "KUBE_API_VERSIONS="]).await;
    assert_eq!(output.stdout, "");
    let expected = "FailedPrecondition: app \"team_shop\": KUBE_VERSION and KUBE_API_VERSIONS are both empty";
    assert!(output.stderr.starts_with(expected), "{}", output.stderr);
}
