//! The four calls of the plugin contract.
//!
//! A render passes three stages inside one deadline: it waits for a slot in a fair queue, receives the repository,
//! and is generated. When the deadline passes, the client goes away or the server closes, the stage's future is
//! dropped, which ends what it started. An error names the app, is told in one message, and is answered only after
//! the request was read to its end.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::timeout_at;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::cmp::archive::Limits;
use crate::cmp::intake::{self, IntakeError, Unpacking, Workspace, Workspaces};
use crate::cmp::plugin::Plugin;
use crate::cmp::proto::plugin::config_management_plugin_service_server::ConfigManagementPluginService;
use crate::cmp::proto::plugin::{
    AppStreamRequest, CheckPluginConfigurationResponse, ManifestRequestMetadata, ManifestResponse,
    ParametersAnnouncementResponse, RepositoryResponse,
};
use crate::confine::{self, ConfineError};
use crate::environment::Environment;
use crate::fault::{Class, Fault, report};
use crate::observe::audit::without_credentials;
use crate::observe::traces::Parent;
use crate::observe::{Meters, Observer, Stage, milliseconds};
use crate::policy::Who;
use crate::render::plan::who;
use crate::secret::Secret;

/// Longer messages are cut: they end up in the Application's status.
const MESSAGE_LIMIT: usize = 8 << 10;
/// The call that renders.
const GENERATE: &str = "GenerateManifest";
/// What Argo CD says about the cluster, to every render but the hydrator's.
const CLUSTER_VERSIONS: [&str; 2] = ["KUBE_VERSION", "KUBE_API_VERSIONS"];

/// What is to be rendered.
#[derive(Debug)]
pub struct Job {
    /// The unpacked repository; absolute, without symlinks, gone after the render. Other renders may read it at the same
    /// time, and nobody writes into it.
    pub root: PathBuf,
    /// The application's directory inside it.
    pub app_dir: PathBuf,
    /// What Argo CD sent, and nothing of this process.
    pub environment: Environment,
    /// When the answer is no longer wanted.
    pub deadline: Instant,
    /// Who is told how it goes.
    pub observer: Observer,
}

/// What a render gave.
#[derive(Debug)]
pub struct Rendered {
    /// YAML documents.
    pub manifests: Secret<String>,
    /// The application said that none is fine.
    pub empty_allowed: bool,
}

/// The rest of the product, as the service sees it.
pub trait Generate: Send + Sync {
    /// Renders. Dropping the future ends everything that it started. An error names the app.
    fn generate<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Result<Rendered, Box<dyn Fault>>>;
}

/// What the operator chooses about the service.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many requests are received and rendered at once.
    pub slots: usize,
    /// How long a request may take whose client says nothing.
    pub timeout: Duration,
    /// How long before the client's deadline an answer is given at the latest.
    pub margin: Duration,
    /// The largest message, either way, in bytes.
    pub message_limit: usize,
    /// What an archive may hold.
    pub limits: Limits,
    /// Nothing that a render starts can write into the repository, so that requests with the same archive share it.
    pub shared: bool,
    /// Serve the source hydrator, which commits opened secrets to git.
    pub allow_hydrator: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slots: 4,
            timeout: Duration::from_secs(90),
            margin: Duration::from_millis(250),
            message_limit: 100 << 20,
            limits: Limits::default(),
            shared: false,
            allow_hydrator: false,
        }
    }
}

/// A request that is not fulfilled.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error("the app's directory")]
    Directory(#[source] ConfineError),
    #[error("the app's path {0:?} is not a directory")]
    NotADirectory(String),
    #[error(
        "KUBE_VERSION and KUBE_API_VERSIONS are both empty, as Argo CD's source hydrator sends them, which would commit opened secrets to git\nhelp: render this app without the hydrator, or allow it for this server"
    )]
    Hydrator,
    #[error("no free slot within {} ms: {slots} renders at once are allowed and {queued} more wait\nhelp: allow more renders at once, or raise controller.repo.server.timeout.seconds", waited.as_millis())]
    Queue { waited: Duration, slots: usize, queued: i64 },
    #[error(
        "the deadline passed while {doing}\nhelp: raise controller.repo.server.timeout.seconds and server.repo.server.timeout.seconds"
    )]
    Deadline { doing: &'static str },
    #[error("the server is shutting down")]
    Closing,
    #[error("nothing was rendered\nhelp: set the parameter allowEmpty if the app may be empty")]
    Empty,
    #[error(
        "the manifests have {size} bytes, and a message may have {limit}\nhelp: raise ARGOCD_GRPC_MAX_SIZE_MB of the plugin, the repo-server and the controller"
    )]
    TooLarge { size: usize, limit: usize },
    #[error("{}", report(&**.0))]
    Generate(Box<dyn Fault>),
}

impl Fault for CallError {
    fn class(&self) -> Class {
        match self {
            Self::Intake(error) => error.class(),
            Self::Directory(error) => error.class(),
            Self::NotADirectory(_) | Self::Empty | Self::TooLarge { .. } => Class::Invalid,
            Self::Hydrator => Class::Denied,
            Self::Queue { .. } | Self::Closing => Class::Unavailable,
            Self::Deadline { .. } => Class::Timeout,
            Self::Generate(error) => error.class(),
        }
    }
}

impl CallError {
    fn code(&self) -> Code {
        match self {
            Self::Hydrator => Code::FailedPrecondition,
            Self::Queue { .. } | Self::TooLarge { .. } => Code::ResourceExhausted,
            other => match other.class() {
                Class::Denied => Code::PermissionDenied,
                Class::Internal => Code::Internal,
                Class::Invalid => Code::InvalidArgument,
                Class::NotFound => Code::NotFound,
                Class::Timeout => Code::DeadlineExceeded,
                Class::Unavailable => Code::Unavailable,
            },
        }
    }
}

/// The service behind the socket.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    plugin: watch::Receiver<Plugin>,
    options: Options,
    generate: Arc<dyn Generate>,
    workspaces: Workspaces,
    slots: Semaphore,
    meters: Meters,
    closing: watch::Receiver<bool>,
    calls: watch::Sender<usize>,
    requests: Requests,
}

impl Service {
    /// A service that gives up what runs when `closing` turns true.
    pub fn new(
        plugin: watch::Receiver<Plugin>,
        options: Options,
        generate: Arc<dyn Generate>,
        workspaces: Workspaces,
        meters: Meters,
        closing: watch::Receiver<bool>,
    ) -> Self {
        let slots = Semaphore::new(options.slots.max(1));
        let (calls, requests) = (watch::Sender::new(0), Requests::default());
        Self(Arc::new(Inner {
            plugin,
            options,
            generate,
            workspaces,
            slots,
            meters,
            closing,
            calls,
            requests,
        }))
    }

    /// How many calls run.
    pub fn calls(&self) -> watch::Receiver<usize> {
        self.0.calls.subscribe()
    }
}

#[tonic::async_trait]
impl ConfigManagementPluginService for Service {
    async fn generate_manifest(
        &self,
        request: Request<Streaming<AppStreamRequest>>,
    ) -> Result<Response<ManifestResponse>, Status> {
        self.0.call(GENERATE, request, Inner::manifest).await
    }

    async fn check_plugin_configuration(
        &self,
        _request: Request<()>,
    ) -> Result<Response<CheckPluginConfigurationResponse>, Status> {
        let plugin = self.0.plugin.borrow();
        Ok(Response::new(CheckPluginConfigurationResponse {
            is_discovery_configured: plugin.discovery.is_some(),
            provide_git_creds: plugin.provide_git_creds,
        }))
    }

    async fn match_repository(
        &self,
        request: Request<Streaming<AppStreamRequest>>,
    ) -> Result<Response<RepositoryResponse>, Status> {
        self.0.call("MatchRepository", request, Inner::is_match).await
    }

    async fn get_parameters_announcement(
        &self,
        request: Request<Streaming<AppStreamRequest>>,
    ) -> Result<Response<ParametersAnnouncementResponse>, Status> {
        self.0.call("GetParametersAnnouncement", request, Inner::announce).await
    }
}

/// One streaming call: its metadata, what remains of its messages, and until when it may take.
struct Call {
    metadata: ManifestRequestMetadata,
    messages: Streaming<AppStreamRequest>,
    deadline: Instant,
    observer: Observer,
}

impl Inner {
    /// Reads the metadata, lets `work` answer, and tells how it went to the log, the metrics and the client.
    async fn call<'a, T, F>(
        &'a self,
        method: &'static str,
        request: Request<Streaming<AppStreamRequest>>,
        work: impl FnOnce(&'a Self, Call) -> F + Send,
    ) -> Result<Response<T>, Status>
    where
        F: Future<Output = Result<T, CallError>> + Send,
    {
        let request_id = self.requests.next();
        let observer = Observer::new(self.meters.clone(), request_id.as_str());
        let mut running = Running::new(self, method, &request_id, observer.clone());
        running.joins(request.metadata());
        let deadline = running.started + self.time_for(request.metadata());
        let mut messages = request.into_inner();
        let reading = async { Ok(intake::metadata(&mut messages).await?) };
        let metadata = self
            .within(deadline, "waiting for the request's metadata", reading)
            .instrument(running.span.clone())
            .await
            .map_err(|error| running.refuse(&error))?;
        running.is_for(&metadata);
        let call = Call { metadata, messages, deadline, observer };
        match work(self, call).instrument(running.span.clone()).await {
            Ok(answer) => {
                running.answered(Some(Ok(())));
                tracing::info!(parent: &running.span, milliseconds = running.milliseconds(), "answered");
                Ok(Response::new(answer))
            }
            Err(error) => Err(running.refuse(&error)),
        }
    }

    /// How long a call may take, from what its client says.
    fn time_for(&self, metadata: &MetadataMap) -> Duration {
        let told = metadata.get("grpc-timeout").and_then(|value| timeout(value.as_bytes()));
        told.map_or(self.options.timeout, |told| told.saturating_sub(self.options.margin.min(told / 4)))
    }

    /// Awaits one stage, but not past the deadline and not past the server's end.
    async fn within<T>(
        &self,
        deadline: Instant,
        doing: &'static str,
        stage: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let mut closing = self.closing.clone();
        tokio::select! {
            biased;
            outcome = timeout_at(deadline.into(), stage) => {
                outcome.unwrap_or(Err(CallError::Deadline { doing }))
            }
            Ok(_) = closing.wait_for(|closing| *closing) => Err(CallError::Closing),
        }
    }

    /// Renders the manifests of an app.
    async fn manifest(&self, mut call: Call) -> Result<ManifestResponse, CallError> {
        let environment = environment(&call.metadata);
        if is_hydrator(&environment) && !self.options.allow_hydrator {
            return self.decline(&mut call, CallError::Hydrator).await;
        }
        let _slot = match call.observer.stage(Stage::Queue, self.slot(call.deadline)).await {
            Ok(slot) => slot,
            Err(error) => return self.decline(&mut call, error).await,
        };
        let _counted = self.meters.running();
        let workspace = call.observer.clone().stage(Stage::Receive, self.receive(&mut call)).await?;
        let job = job(&call, &workspace, environment)?;
        let rendered = self.render(&job).await?;
        Ok(ManifestResponse { manifests: vec![rendered], source_type: String::new() })
    }

    /// Reads a request that will not be fulfilled to its end, so that the client asks for the reason.
    async fn decline<T>(&self, call: &mut Call, error: CallError) -> Result<T, CallError> {
        let draining = async { Ok(intake::drain(&mut call.messages).await?) };
        match self.within(call.deadline, "receiving the repository", draining).await {
            Err(closing @ CallError::Closing) => Err(closing),
            _ => Err(error),
        }
    }

    /// Waits for a slot, and leaves time to read the request to its end when there is none.
    async fn slot(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, CallError> {
        let _counted = self.meters.queued();
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        let until = started + left.saturating_sub((left / 4).min(Duration::from_secs(5)));
        let waiting = async { Ok(self.slots.acquire().await.expect("the semaphore is never closed")) };
        let outcome = self.within(until, "waiting for a slot", waiting).await;
        outcome.map_err(|error| match error {
            CallError::Deadline { .. } => CallError::Queue {
                waited: started.elapsed(),
                slots: self.options.slots,
                queued: self.meters.queue_length() - 1,
            },
            other => other,
        })
    }

    async fn receive(&self, call: &mut Call) -> Result<Workspace, CallError> {
        let how = Unpacking {
            limits: self.options.limits,
            preserve_modes: self.plugin.borrow().preserve_file_mode,
            shared: self.options.shared,
        };
        let now = Instant::now();
        // One that takes longer holds up nobody else.
        let patience = now + call.deadline.saturating_duration_since(now) / 2;
        let (messages, checksum) = (&mut call.messages, &call.metadata.checksum);
        let receiving = async { Ok(self.workspaces.receive(messages, checksum, how, patience).await?) };
        let (workspace, bytes) = self.within(call.deadline, "receiving the repository", receiving).await?;
        self.meters.received(bytes);
        Ok(workspace)
    }

    async fn render(&self, job: &Job) -> Result<String, CallError> {
        let generating = async { self.generate.generate(job).await.map_err(CallError::Generate) };
        let mut rendered = self.within(job.deadline, "rendering", generating).await?;
        let manifests = std::mem::take(rendered.manifests.expose_mut());
        let (size, limit) = (manifests.len(), self.options.message_limit);
        if manifests.trim().is_empty() && !rendered.empty_allowed {
            return Err(CallError::Empty);
        }
        // The message adds a tag and a length.
        if size + 16 > limit {
            return Err(CallError::TooLarge { size, limit });
        }
        Ok(manifests)
    }

    /// Says whether the plugin is for an app that does not name it.
    async fn is_match(&self, mut call: Call) -> Result<RepositoryResponse, CallError> {
        let discovery = self.plugin.borrow().discovery.clone();
        let Some(discovery) = discovery else {
            self.drain(&mut call).await?;
            return Ok(RepositoryResponse::default());
        };
        let directory = call.metadata.app_rel_path.clone();
        let matches = move |path: &std::path::Path| discovery.matches(path);
        let looking = async {
            let checksum = &call.metadata.checksum;
            let limits = self.options.limits;
            Ok(intake::any_path(&mut call.messages, checksum, &directory, limits, matches).await?)
        };
        let is_supported = self.within(call.deadline, "receiving the repository", looking).await?;
        Ok(RepositoryResponse { is_supported, is_discovery_enabled: true })
    }

    /// Says which parameters an app may set.
    async fn announce(&self, mut call: Call) -> Result<ParametersAnnouncementResponse, CallError> {
        self.drain(&mut call).await?;
        let parameter_announcements = self.plugin.borrow().parameters.clone();
        Ok(ParametersAnnouncementResponse { parameter_announcements })
    }

    async fn drain(&self, call: &mut Call) -> Result<(), CallError> {
        let draining = async { Ok(intake::drain(&mut call.messages).await?) };
        self.within(call.deadline, "receiving the repository", draining).await
    }
}

/// The request's environment, in which the cluster's versions are unset rather than empty: whether that may be is
/// decided here.
fn environment(metadata: &ManifestRequestMetadata) -> Environment {
    let told = metadata
        .env
        .iter()
        .filter(|entry| !(entry.value.is_empty() && CLUSTER_VERSIONS.contains(&entry.name.as_str())));
    told.map(|entry| (entry.name.clone(), entry.value.clone())).collect()
}

/// The Application's name; from servers that do not send it, its directory's.
fn app_name(metadata: &ManifestRequestMetadata) -> String {
    let told = metadata.env.iter().rfind(|entry| entry.name == "ARGOCD_APP_NAME" && !entry.value.is_empty());
    told.map_or_else(|| metadata.app_name.clone(), |entry| entry.value.clone())
}

fn is_hydrator(environment: &Environment) -> bool {
    CLUSTER_VERSIONS.iter().all(|name| environment.get(name).is_none())
}

fn job(call: &Call, workspace: &Workspace, environment: Environment) -> Result<Job, CallError> {
    let (root, spelled) = (workspace.path(), &call.metadata.app_rel_path);
    let relative = if spelled.is_empty() { "." } else { spelled };
    let app_dir = confine::resolve(root, root, relative).map_err(CallError::Directory)?;
    if !app_dir.is_dir() {
        return Err(CallError::NotADirectory(spelled.clone()));
    }
    Ok(Job {
        root: root.to_owned(),
        app_dir,
        environment,
        deadline: call.deadline,
        observer: call.observer.clone(),
    })
}

/// The `grpc-timeout` header: up to eight digits and a unit.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let number: u64 = std::str::from_utf8(digits).ok().filter(|text| text.len() <= 8)?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_LIMIT {
        let end = (0..=MESSAGE_LIMIT).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

/// Names requests: unlike each other, and unlike those of other processes.
#[derive(Debug)]
struct Requests {
    process: u32,
    number: AtomicU64,
}

impl Default for Requests {
    fn default() -> Self {
        // Keyed by the operating system's random numbers.
        let random = RandomState::new().hash_one(());
        Self { process: (random >> 32) as u32, number: AtomicU64::new(1) }
    }
}

impl Requests {
    fn next(&self) -> String {
        format!("{:08x}-{}", self.process, self.number.fetch_add(1, Ordering::Relaxed))
    }
}

/// A call that counts as running as long as this lives, and as cancelled when it was not answered by then. Leaves one
/// log line.
struct Running<'a> {
    service: &'a Inner,
    method: &'static str,
    who: Who,
    observer: Observer,
    span: Span,
    started: Instant,
    answered: bool,
}

impl<'a> Running<'a> {
    fn new(service: &'a Inner, method: &'static str, request: &str, observer: Observer) -> Self {
        service.calls.send_modify(|calls| *calls += 1);
        // Of this level, so that the lines of every other one have it.
        let span = tracing::error_span!(
            "call",
            otel.name = method,
            otel.kind = "server",
            otel.status_code = Empty,
            request,
            trace = Empty,
            method,
            app = Empty,
            project = Empty,
            repository = Empty,
            revision = Empty,
            queue_ms = Empty,
            receive_ms = Empty,
            plan_ms = Empty,
            open_ms = Empty,
            resolve_ms = Empty,
            helm_ms = Empty,
            check_ms = Empty,
        );
        Self {
            service,
            method,
            who: Who::default(),
            observer,
            span,
            started: Instant::now(),
            answered: false,
        }
    }

    /// Makes the call a part of its client's trace.
    fn joins(&self, metadata: &MetadataMap) {
        let header = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let parent = Parent { traceparent: header("traceparent"), tracestate: header("tracestate") };
        parent.adopt(&self.span);
        if let Some(trace) = parent.trace() {
            self.span.record("trace", trace);
        }
    }

    fn is_for(&mut self, metadata: &ManifestRequestMetadata) {
        self.who = Who { app: app_name(metadata), ..who(&environment(metadata)) };
        self.span.record("app", &self.who.app);
        for (name, text) in [("project", &self.who.project), ("revision", &self.who.revision)] {
            if let Some(text) = text {
                self.span.record(name, text);
            }
        }
        if let Some(repository) = &self.who.repository {
            self.span.record("repository", without_credentials(repository));
        }
    }

    fn answered(&mut self, outcome: Option<Result<(), Class>>) {
        self.answered = true;
        self.service.meters.answered(self.method, outcome);
        if self.method == GENERATE {
            let project = self.who.project.as_deref();
            self.service.meters.rendered(&self.who.app, project, self.observer.last(), outcome);
        }
        self.observer.record(&self.span);
        if !matches!(outcome, Some(Ok(()))) {
            self.span.record("otel.status_code", "ERROR");
        }
    }

    fn milliseconds(&self) -> f64 {
        milliseconds(self.started.elapsed())
    }

    fn refuse(&mut self, error: &CallError) -> Status {
        self.answered(Some(Err(error.class())));
        let message = match error {
            CallError::Generate(_) => report(error),
            _ if self.who.app.is_empty() => report(error),
            _ => format!("app {:?}: {}", self.who.app, report(error)),
        };
        let (class, milliseconds) = (error.class().label(), self.milliseconds());
        tracing::warn!(parent: &self.span, class, error = message, milliseconds, "refused");
        Status::new(error.code(), cut(message))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.answered(None);
            tracing::info!(parent: &self.span, milliseconds = self.milliseconds(), "the client went away");
        }
        self.service.calls.send_modify(|calls| *calls -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read() {
        let rows = [
            ("59999m", Some(Duration::from_millis(59_999))),
            ("2H", Some(Duration::from_hours(2))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("999999999n", None),
            ("m", None),
            ("", None),
            ("5x", None),
        ];
        for (value, expected) in rows {
            assert_eq!(timeout(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let message = cut("é".repeat(MESSAGE_LIMIT));
        assert!(message.len() <= MESSAGE_LIMIT + 3 && message.ends_with("é…"));
    }
}
