//! The whole service, driven by a gRPC client over a real unix socket.

use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use prometheus_client::registry::Registry;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::cmp::archive::Limits;
use crate::cmp::archive::tests::Packer;
use crate::cmp::health;
use crate::cmp::plugin::Plugin;
use crate::cmp::proto::plugin::app_stream_request::Request as Part;
use crate::cmp::proto::plugin::config_management_plugin_service_client::ConfigManagementPluginServiceClient;
use crate::cmp::proto::plugin::{AppStreamRequest, EnvEntry, File, ManifestRequestMetadata};
use crate::cmp::server::{Options, Server, ServerError};
use crate::cmp::service::{self, Generate, Job, Rendered};
use crate::fault::{Class, Fault};
use crate::observe::Meters;
use crate::secret::Secret;

type Client = ConfigManagementPluginServiceClient<Channel>;

/// What the stand-in for the renderer does.
type Behaviour = dyn for<'a> Fn(&'a Job) -> BoxFuture<'a, Result<Rendered, Box<dyn Fault>>> + Send + Sync;

struct StandIn(Box<Behaviour>);

impl Generate for StandIn {
    fn generate<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Rendered, Box<dyn Fault>>> {
        (self.0)(job)
    }
}

fn stand_in(
    behaviour: impl for<'a> Fn(&'a Job) -> BoxFuture<'a, Result<Rendered, Box<dyn Fault>>> + Send + Sync + 'static,
) -> Arc<dyn Generate> {
    Arc::new(StandIn(Box::new(behaviour)))
}

fn manifests(text: &str) -> Rendered {
    Rendered { manifests: Secret::new(text.to_owned()), empty_allowed: false }
}

/// Answers with the chart's own file and the size of the parameters.
fn echo() -> Arc<dyn Generate> {
    stand_in(|job| {
        Box::pin(async {
            let chart = fs::read_to_string(job.app_dir.join("Chart.yaml")).unwrap();
            assert!(job.app_dir.starts_with(&job.root));
            let parameters = job.environment.get("ARGOCD_APP_PARAMETERS").map_or(0, str::len);
            Ok(manifests(&format!("{chart}: {parameters}")))
        })
    })
}

/// A plugin that stays as it is.
fn steady(plugin: Plugin) -> watch::Receiver<Plugin> {
    watch::channel(plugin).1
}

struct Running {
    folder: TempDir,
    socket: PathBuf,
    registry: Registry,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ServerError>>,
}

impl Running {
    fn start(generate: Arc<dyn Generate>) -> Self {
        Self::start_with(generate, Plugin::default(), service::Options::default())
    }

    fn start_with(generate: Arc<dyn Generate>, plugin: Plugin, service: service::Options) -> Self {
        Self::start_as(steady(plugin), generate, service)
    }

    fn start_as(
        plugin: watch::Receiver<Plugin>,
        generate: Arc<dyn Generate>,
        service: service::Options,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder, service);
        let mut registry = Registry::default();
        let server = Server::bind(options, plugin, generate, Meters::register(&mut registry, false)).unwrap();
        let socket = server.path().to_owned();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.serve(async move { drop(stopped.await) }));
        Self { folder, socket, registry, stop, server }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket.display())).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn client(&self) -> Client {
        Client::new(self.channel().await).max_decoding_message_size(200 << 20)
    }

    fn metrics(&self) -> String {
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &self.registry).unwrap();
        metrics
    }

    fn workspaces(&self) -> usize {
        fs::read_dir(self.folder.path().join("_cmp_server")).unwrap().count()
    }

    async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.server.await.unwrap().unwrap();
        self.folder
    }
}

fn options(folder: &TempDir, service: service::Options) -> Options {
    Options {
        plugins: folder.path().to_owned(),
        workdir: folder.path().to_owned(),
        linger: Duration::ZERO,
        grace: Duration::from_secs(20),
        service,
        ..Options::default()
    }
}

fn entry(name: &str, value: &str) -> EnvEntry {
    EnvEntry { name: name.to_owned(), value: value.to_owned() }
}

fn metadata(archive: &[u8]) -> ManifestRequestMetadata {
    ManifestRequestMetadata {
        app_name: "shop".to_owned(),
        app_rel_path: "apps/shop".to_owned(),
        checksum: format!("{:x}", Sha256::digest(archive)),
        size: i64::try_from(archive.len()).unwrap(),
        env: vec![entry("ARGOCD_APP_NAME", "team_shop"), entry("KUBE_VERSION", "1.36.1")],
    }
}

fn messages(metadata: Option<ManifestRequestMetadata>, archive: &[u8]) -> Vec<AppStreamRequest> {
    let first = metadata.map(|metadata| AppStreamRequest { request: Some(Part::Metadata(metadata)) });
    let chunks = archive.chunks(1024).map(|chunk| AppStreamRequest {
        request: Some(Part::File(File { chunk: Bytes::copy_from_slice(chunk) })),
    });
    first.into_iter().chain(chunks).collect()
}

fn repository() -> Vec<u8> {
    Packer::new().file("apps/shop/Chart.yaml", b"name").file("README", b"read me").finish()
}

/// Too large to fit into any window, so that a server that does not read on is found out.
fn large(packer: Packer) -> Vec<u8> {
    let noise: Vec<u8> = (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    packer.file("noise", &noise).finish()
}

async fn generate(client: &mut Client, sent: Vec<AppStreamRequest>) -> Result<Vec<String>, Status> {
    let response = client.generate_manifest(stream::iter(sent)).await?;
    Ok(response.into_inner().manifests)
}

/// Sends everything before it looks for an answer, as Argo CD does: the answer to a request not read to its end
/// would be lost.
async fn refused(client: &mut Client, sent: Vec<AppStreamRequest>) -> Status {
    let (sender, receiver) = mpsc::channel(1);
    let mut calling = client.clone();
    let call = tokio::spawn(async move {
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        calling.generate_manifest(stream).await.unwrap_err()
    });
    for message in sent {
        sender.send(message).await.expect("the server reads the request to its end");
    }
    drop(sender);
    call.await.unwrap()
}

#[tokio::test]
async fn a_repository_in_kibibytes_is_rendered_with_128_kib_of_parameters() {
    let running = Running::start(echo());
    let archive = large(Packer::new().file("apps/shop/Chart.yaml", b"name"));
    let mut metadata = metadata(&archive);
    metadata.env.push(entry("ARGOCD_APP_PARAMETERS", &"x".repeat(128 << 10)));
    let sent = messages(Some(metadata), &archive);
    assert_eq!(generate(&mut running.client().await, sent).await.unwrap(), ["name: 131072"]);
    let metrics = running.metrics();
    assert!(
        metrics.contains(r#"strongroom_requests_total{method="GenerateManifest",result="ok"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains(&format!("strongroom_received_bytes_total {}", archive.len())), "{metrics}");
    let folder = running.stop().await;
    assert_eq!(fs::read_dir(folder.path().join("_cmp_server")).unwrap().count(), 0);
}

#[tokio::test]
async fn every_bad_request_is_read_to_its_end_and_answered_by_name() {
    let limits = Limits { bytes: 4 << 20, entries: 100 };
    let running = Running::start_with(
        echo(),
        Plugin::default(),
        service::Options { limits, ..service::Options::default() },
    );
    let mut client = running.client().await;

    let good = large(Packer::new().file("apps/shop/Chart.yaml", b"name"));
    let slip = large(Packer::new().file("../../x", b""));
    let escape = large(Packer::new().link("apps/shop/values.yaml", "../../../etc/passwd"));
    let bomb = large(Packer::new().file("zeros", &vec![0; 5 << 20]));
    let mut wrong = metadata(&good);
    wrong.checksum = "0".repeat(64);
    let mut outside = metadata(&good);
    outside.app_rel_path = "../../etc".to_owned();
    let mut missing = metadata(&good);
    missing.app_rel_path = "apps/other".to_owned();
    let mut file = metadata(&good);
    file.app_rel_path = "noise".to_owned();
    let mut hydrator = metadata(&good);
    hydrator.env =
        vec![entry("ARGOCD_APP_NAME", "shop"), entry("KUBE_VERSION", ""), entry("KUBE_API_VERSIONS", "")];

    let rows = [
        (None, &good, Code::InvalidArgument, "the request does not begin with its metadata"),
        (
            Some(wrong),
            &good,
            Code::InvalidArgument,
            "app \"team_shop\": the repository's archive has the SHA-256 ",
        ),
        (
            Some(metadata(&slip)),
            &slip,
            Code::InvalidArgument,
            "app \"team_shop\": \"../../x\" in the repository's archive lies outside",
        ),
        (
            Some(metadata(&escape)),
            &escape,
            Code::InvalidArgument,
            "app \"team_shop\": the symlink \"apps/shop/values.yaml\" leads outside",
        ),
        (
            Some(metadata(&bomb)),
            &bomb,
            Code::InvalidArgument,
            "app \"team_shop\": the repository is larger than 4194304 bytes",
        ),
        (
            Some(outside),
            &good,
            Code::PermissionDenied,
            "app \"team_shop\": the app's directory: ../../etc: leads outside the repository",
        ),
        (
            Some(missing),
            &good,
            Code::NotFound,
            "app \"team_shop\": the app's directory: apps/other: no such file",
        ),
        (
            Some(file),
            &good,
            Code::InvalidArgument,
            "app \"team_shop\": the app's path \"noise\" is not a directory",
        ),
        (
            Some(hydrator),
            &good,
            Code::FailedPrecondition,
            "app \"shop\": KUBE_VERSION and KUBE_API_VERSIONS are both empty",
        ),
    ];
    for (metadata, archive, code, message) in rows {
        let status = refused(&mut client, messages(metadata, archive)).await;
        assert_eq!(
            (status.code(), status.message().starts_with(message)),
            (code, true),
            "{}",
            status.message()
        );
    }
    let folder = running.stop().await;
    assert_eq!(fs::read_dir(folder.path().join("_cmp_server")).unwrap().count(), 0);
}

#[derive(Debug, thiserror::Error)]
#[error("fetch ref+vault://a\nhelp: allow it")]
struct Refused(#[source] io::Error);

impl Fault for Refused {
    fn class(&self) -> Class {
        Class::Denied
    }
}

#[tokio::test]
async fn what_the_render_says_reaches_the_client() {
    let failing =
        stand_in(|_| Box::pin(async { Err(Box::new(Refused(io::Error::other("no"))) as Box<dyn Fault>) }));
    let running = Running::start(failing);
    let archive = repository();
    let status = refused(&mut running.client().await, messages(Some(metadata(&archive)), &archive)).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(status.message(), "fetch ref+vault://a: no\nhelp: allow it");
    running.stop().await;
}

#[tokio::test]
async fn nothing_rendered_and_too_much_rendered_are_errors() {
    let archive = repository();
    let service = service::Options { message_limit: 100_000, ..service::Options::default() };
    for (text, code, message) in [
        ("\n ".to_owned(), Code::InvalidArgument, "nothing was rendered"),
        ("x".repeat(100_000), Code::ResourceExhausted, "the manifests have 100000 bytes, and a message may"),
    ] {
        let fixed = stand_in(move |_| {
            let text = text.clone();
            Box::pin(async move { Ok(manifests(&text)) })
        });
        let running = Running::start_with(fixed, Plugin::default(), service.clone());
        let status = refused(&mut running.client().await, messages(Some(metadata(&archive)), &archive)).await;
        assert_eq!(status.code(), code);
        assert!(status.message().contains(message), "{}", status.message());
        running.stop().await;
    }
    let empty =
        stand_in(|_| Box::pin(async { Ok(Rendered { manifests: Secret::default(), empty_allowed: true }) }));
    let running = Running::start(empty);
    let sent = messages(Some(metadata(&archive)), &archive);
    assert_eq!(generate(&mut running.client().await, sent).await.unwrap(), [""]);
    running.stop().await;
}

/// Tells when it is dropped.
struct OnDrop(Option<oneshot::Sender<()>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_render() {
    let (begun, mut begins) = mpsc::channel(1);
    let (ended, ends) = oneshot::channel();
    let guard = Mutex::new(Some(OnDrop(Some(ended))));
    let endless = stand_in(move |_| {
        let (begun, guard) = (begun.clone(), guard.lock().unwrap().take());
        Box::pin(async move {
            let _guard = guard;
            begun.send(()).await.unwrap();
            pending().await
        })
    });
    let running = Running::start(endless);
    let mut client = running.client().await;
    let archive = repository();
    let call =
        tokio::spawn(
            async move { generate(&mut client, messages(Some(metadata(&archive)), &archive)).await },
        );
    begins.recv().await.unwrap();
    assert_eq!(running.workspaces(), 1);
    call.abort();
    ends.await.unwrap();
    let metrics = running.metrics();
    let cancelled = r#"strongroom_requests_total{method="GenerateManifest",result="cancelled"} 1"#;
    assert!(metrics.contains(cancelled), "{metrics}");
    let folder = running.stop().await;
    assert_eq!(fs::read_dir(folder.path().join("_cmp_server")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_deadline_is_told_before_the_client_gives_up() {
    let running = Running::start(stand_in(|_| Box::pin(pending())));
    let archive = repository();
    let mut request = Request::new(stream::iter(messages(Some(metadata(&archive)), &archive)));
    request.set_timeout(Duration::from_millis(800));
    let status = running.client().await.generate_manifest(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        status.message().starts_with("app \"team_shop\": the deadline passed while rendering\nhelp: "),
        "{status}"
    );
    running.stop().await;
}

#[tokio::test]
async fn when_the_queue_is_the_cause_the_message_says_so() {
    let (begun, mut begins) = mpsc::channel(1);
    let go = Arc::new(Notify::new());
    let gone = Arc::clone(&go);
    let waiting = stand_in(move |_| {
        let (begun, go) = (begun.clone(), Arc::clone(&gone));
        Box::pin(async move {
            begun.send(()).await.unwrap();
            go.notified().await;
            Ok(manifests("a: 1"))
        })
    });
    let options = service::Options { slots: 1, ..service::Options::default() };
    let running = Running::start_with(waiting, Plugin::default(), options);
    let mut client = running.client().await;
    let archive = large(Packer::new().file("apps/shop/Chart.yaml", b"name"));
    let sent = messages(Some(metadata(&archive)), &archive);
    let (mut first_client, first_sent) = (running.client().await, sent.clone());
    let first = tokio::spawn(async move { generate(&mut first_client, first_sent).await });
    begins.recv().await.unwrap();
    let mut request = Request::new(stream::iter(sent));
    request.set_timeout(Duration::from_secs(2));
    let status = client.generate_manifest(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().starts_with("app \"team_shop\": no free slot within "), "{status}");
    go.notify_one();
    assert_eq!(first.await.unwrap().unwrap(), ["a: 1"]);
    running.stop().await;
}

#[tokio::test]
async fn the_socket_goes_at_once_and_what_runs_is_finished() {
    let (begun, mut begins) = mpsc::channel(1);
    let go = Arc::new(Notify::new());
    let gone = Arc::clone(&go);
    let waiting = stand_in(move |_| {
        let (begun, go) = (begun.clone(), Arc::clone(&gone));
        Box::pin(async move {
            begun.send(()).await.unwrap();
            go.notified().await;
            Ok(manifests("a: 1"))
        })
    });
    let running = Running::start(waiting);
    let socket = running.socket.clone();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let mut client = running.client().await;
    let archive = repository();
    let call =
        tokio::spawn(
            async move { generate(&mut client, messages(Some(metadata(&archive)), &archive)).await },
        );
    begins.recv().await.unwrap();
    let stopping = tokio::spawn(running.stop());
    while socket.exists() {
        tokio::task::yield_now().await;
    }
    go.notify_one();
    assert_eq!(call.await.unwrap().unwrap(), ["a: 1"]);
    stopping.await.unwrap();
}

#[tokio::test]
async fn what_outlives_the_grace_period_is_told_why() {
    let (begun, mut begins) = mpsc::channel(1);
    let endless = stand_in(move |_| {
        let begun = begun.clone();
        Box::pin(async move {
            begun.send(()).await.unwrap();
            pending().await
        })
    });
    let folder = tempfile::tempdir().unwrap();
    let options = Options { grace: Duration::ZERO, ..options(&folder, service::Options::default()) };
    let server = Server::bind(options, steady(Plugin::default()), endless, Meters::default()).unwrap();
    let socket = server.path().to_owned();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server.serve(async move { drop(stopped.await) }));
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    let mut client = Client::new(endpoint.connect().await.unwrap());
    let archive = repository();
    let call =
        tokio::spawn(
            async move { generate(&mut client, messages(Some(metadata(&archive)), &archive)).await },
        );
    begins.recv().await.unwrap();
    stop.send(()).unwrap();
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "app \"team_shop\": the server is shutting down")
    );
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("strongroom.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let bind = || {
        let options = options(&folder, service::Options::default());
        Server::bind(options, steady(Plugin::default()), echo(), Meters::default())
    };
    let first = bind().unwrap();
    let second = bind().unwrap();
    drop(first);
    assert!(socket.exists(), "the second server's socket is left alone");
    drop(second);
    assert!(!socket.exists());
    fs::write(&socket, b"").unwrap();
    assert!(matches!(bind().err(), Some(ServerError::NotASocket(_))));
}

#[tokio::test]
async fn without_discovery_the_plugin_matches_by_name_only() {
    let running = Running::start(echo());
    let mut client = running.client().await;
    let answer = client.check_plugin_configuration(()).await.unwrap().into_inner();
    assert!(!answer.is_discovery_configured && !answer.provide_git_creds);
    let archive = large(Packer::new().file("apps/shop/Chart.yaml", b"name"));
    let sent = stream::iter(messages(Some(metadata(&archive)), &archive));
    let answer = client.match_repository(sent).await.unwrap().into_inner();
    assert!(!answer.is_supported && !answer.is_discovery_enabled);
    running.stop().await;
}

#[tokio::test]
async fn plugin_yaml_decides_on_discovery_and_announces_parameters() {
    let plugin = Plugin::parse(
        "kind: ConfigManagementPlugin\nmetadata: {name: charts}\nspec: {version: v1, provideGitCreds: true, \
         discover: {fileName: Chart.yaml}, parameters: {static: [{name: values, collectionType: array}]}}",
    );
    let running = Running::start_with(echo(), plugin.unwrap(), service::Options::default());
    assert!(running.socket.ends_with("charts-v1.sock"));
    let mut client = running.client().await;
    let answer = client.check_plugin_configuration(()).await.unwrap().into_inner();
    assert!(answer.is_discovery_configured && answer.provide_git_creds);
    let archive = repository();
    for (path, expected) in [("apps/shop", true), (".", false)] {
        let metadata = ManifestRequestMetadata { app_rel_path: path.to_owned(), ..metadata(&archive) };
        let sent = stream::iter(messages(Some(metadata), &archive));
        let answer = client.match_repository(sent).await.unwrap().into_inner();
        assert_eq!((answer.is_supported, answer.is_discovery_enabled), (expected, true));
    }
    let sent = stream::iter(messages(Some(metadata(&archive)), &archive));
    let answer = client.get_parameters_announcement(sent).await.unwrap().into_inner();
    assert_eq!(answer.parameter_announcements[0].collection_type, "array");
    running.stop().await;
}

#[tokio::test]
async fn a_plugin_yaml_that_changes_counts_for_the_next_call() {
    let plugin = |text: &str| {
        let text = format!("kind: ConfigManagementPlugin\nmetadata: {{name: a}}\nspec: {{{text}}}");
        Plugin::parse(&text).unwrap()
    };
    let (change, current) = watch::channel(plugin("parameters: {static: [{name: before}]}"));
    let running = Running::start_as(current, echo(), service::Options::default());
    let mut client = running.client().await;
    let archive = repository();
    for (name, discovers) in [("before", false), ("after", true)] {
        let sent = stream::iter(messages(Some(metadata(&archive)), &archive));
        let answer = client.get_parameters_announcement(sent).await.unwrap().into_inner();
        assert_eq!(answer.parameter_announcements[0].name, name);
        let answer = client.check_plugin_configuration(()).await.unwrap().into_inner();
        assert_eq!(answer.is_discovery_configured, discovers);
        let sent = stream::iter(messages(Some(metadata(&archive)), &archive));
        let answer = client.match_repository(sent).await.unwrap().into_inner();
        assert_eq!(answer.is_supported, discovers);
        change
            .send_replace(plugin("discover: {fileName: Chart.yaml}, parameters: {static: [{name: after}]}"));
    }
    running.stop().await;
}

#[tokio::test]
async fn health_is_served_on_the_same_socket() {
    let running = Running::start(echo());
    let mut health = HealthClient::new(running.channel().await);
    let request = HealthCheckRequest { service: "plugin.ConfigManagementPluginService".to_owned() };
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);
    let socket = running.socket.clone();
    health::check(&socket, Duration::from_secs(20)).await.unwrap();
    running.stop().await;
    let error = health::check(&socket, Duration::from_secs(20)).await.unwrap_err();
    let expected = format!("reach the server on {socket:?}: No such file or directory (os error 2)");
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn apps_of_one_repository_share_what_was_unpacked_while_one_of_them_is_rendered() {
    let (begun, mut begins) = mpsc::channel(4);
    let (go, gone) = watch::channel(false);
    let waiting = stand_in(move |job| {
        let (begun, mut gone) = (begun.clone(), gone.clone());
        Box::pin(async move {
            begun.send(job.root.clone()).await.unwrap();
            gone.wait_for(|gone| *gone).await.unwrap();
            Ok(manifests(&fs::read_to_string(job.app_dir.join("Chart.yaml")).unwrap()))
        })
    });
    let options = service::Options { shared: true, ..service::Options::default() };
    let running = Running::start_with(waiting, Plugin::default(), options);
    let archive = (0..4).fold(Packer::new(), |packer, app| {
        packer.file(&format!("apps/{app}/Chart.yaml"), format!("n: {app}").as_bytes())
    });
    let archive = large(archive);
    let mut calls = Vec::new();
    for app in 0..4 {
        let metadata = ManifestRequestMetadata { app_rel_path: format!("apps/{app}"), ..metadata(&archive) };
        let (mut client, sent) = (running.client().await, messages(Some(metadata), &archive));
        calls.push(tokio::spawn(async move { generate(&mut client, sent).await.unwrap() }));
    }
    let first = begins.recv().await.unwrap();
    for _ in 1..4 {
        assert_eq!(begins.recv().await.unwrap(), first);
    }
    assert_eq!(running.workspaces(), 1);
    go.send_replace(true);
    for (app, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), [format!("n: {app}")]);
    }
    let metrics = running.metrics();
    assert!(metrics.contains(&format!("strongroom_received_bytes_total {}", 4 * archive.len())), "{metrics}");
    let folder = running.stop().await;
    assert_eq!(fs::read_dir(folder.path().join("_cmp_server")).unwrap().count(), 0);
}

#[tokio::test]
async fn twenty_at_once_each_get_their_own_answer() {
    let running = Running::start(stand_in(|job| {
        Box::pin(async { Ok(manifests(&fs::read_to_string(job.app_dir.join("Chart.yaml")).unwrap())) })
    }));
    let calls = stream::iter(0..20).map(|number| {
        let channel = running.client();
        async move {
            let archive =
                Packer::new().file("apps/shop/Chart.yaml", format!("n: {number}").as_bytes()).finish();
            let sent = messages(Some(metadata(&archive)), &archive);
            (number, generate(&mut channel.await, sent).await.unwrap())
        }
    });
    let answers: Vec<_> = calls.buffer_unordered(20).collect().await;
    for (number, answer) in answers {
        assert_eq!(answer, [format!("n: {number}")]);
    }
    running.stop().await;
}
