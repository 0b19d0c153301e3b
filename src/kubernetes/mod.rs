//! Kubernetes: objects of a cluster, as one identity.
//!
//! Which cluster is the operator's choice: one of a kubeconfig that the operator names, or the one that Strongroom runs in.
//! A kubeconfig can have programs run and any file be read as a token, so one that a repository names must be the
//! operator's too. No body of an answer is ever part of an error, but for the server's sentence about who was denied what.

mod kubeconfig;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::BodyExt as _;
use kube::api::GetParams;
use kube::client::{AuthError, Body, Client};
use kube::config::KubeconfigError;
use kube::core::Request;
use serde::Deserialize;
use tokio::sync::{Mutex, Semaphore};

use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::kubernetes::kubeconfig::Place;
use crate::secret::Secret;
use crate::web::{self, Answer, WebError};

/// Where a pod finds who it is.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Requests to one cluster at the same time.
const CONCURRENT: usize = 16;
/// The server's own sentence about a denial is cut here, in characters.
const SENTENCE_LIMIT: usize = 400;

/// What the operator says beside the environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether a person at a terminal asks, whose home has a kubeconfig, and who may run programs.
    pub person: bool,
    /// The folder where a pod finds who it is.
    pub service_account: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { person: false, service_account: SERVICE_ACCOUNT.into() }
    }
}

/// Which cluster is asked, and as whom. What is `None` is what the environment says.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Connection {
    /// A kubeconfig, which must be one of the operator's.
    pub kubeconfig: Option<String>,
    /// A context of the kubeconfig.
    pub context: Option<String>,
    /// The cluster that Strongroom runs in, as its service account.
    pub in_cluster: bool,
}

/// The clusters of this process.
#[derive(Default)]
pub struct Kubernetes {
    environment: Environment,
    settings: Settings,
    #[cfg(test)]
    mocked: Option<kube::Config>,
}

impl Kubernetes {
    /// Reads nothing yet.
    pub fn new(environment: Environment, settings: Settings) -> Self {
        Self {
            environment,
            settings,
            #[cfg(test)]
            mocked: None,
        }
    }

    /// Every connection leads to `url`, with this token.
    #[cfg(test)]
    pub(crate) fn mocked(url: &str, token: &str) -> Self {
        let mut config = kubeconfig::configuration(url).unwrap();
        config.auth_info.token = Some(token.into());
        Self { mocked: Some(config), ..Self::default() }
    }

    /// The cluster for `connection`, which is asked nothing yet.
    pub fn cluster(&self, connection: &Connection) -> Result<Cluster, KubernetesError> {
        #[cfg(test)]
        if let Some(config) = &self.mocked {
            return Ok(Cluster::at(Place::Mock(Box::new(config.clone()))));
        }
        Place::choose(connection, &self.environment, &self.settings).map(Cluster::at)
    }
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kubernetes")
    }
}

/// Why Kubernetes did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct KubernetesError {
    /// What kind of failure.
    pub class: Class,
    /// The reason: never a body, never a token, never what a program printed.
    pub reason: String,
    /// Whether the server answered, and that it is busy or broken for now.
    pub busy: bool,
}

impl Fault for KubernetesError {
    fn class(&self) -> Class {
        self.class
    }
}

impl KubernetesError {
    fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), busy: false }
    }

    fn invalid(reason: impl Into<String>) -> Self {
        Self::new(Class::Invalid, reason)
    }

    fn of(error: &WebError) -> Self {
        Self::new(error.class, format!("Kubernetes {}", error.reason))
    }
}

/// The resources that can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resource {
    /// `Secret`.
    Secret,
    /// `ConfigMap`.
    ConfigMap,
}

impl Resource {
    const fn plural(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }
}

/// One cluster, as one identity.
pub struct Cluster {
    place: Place,
    limit: Semaphore,
    client: Mutex<Option<Arc<Client>>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster").field(&self.place).finish()
    }
}

impl Cluster {
    fn at(place: Place) -> Self {
        Self { place, limit: Semaphore::new(CONCURRENT), client: Mutex::default() }
    }

    /// The object as JSON. The names must be ones that Kubernetes allows; `what` says in an error what was asked for.
    pub async fn read(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        what: &str,
    ) -> Result<Secret<Vec<u8>>, KubernetesError> {
        let path = format!("/api/v1/namespaces/{namespace}/{}", resource.plural());
        let client = self.client(None).await?;
        let mut answer = self.ask(&client, &path, name).await?;
        // The token may have been replaced before its end, and the operator's file with it.
        if answer.status == 401 {
            let client = self.client(Some(&client)).await?;
            answer = self.ask(&client, &path, name).await?;
        }
        if answer.status == 200 { Ok(answer.body) } else { Err(failure(&answer, what)) }
    }

    async fn ask(&self, client: &Client, path: &str, name: &str) -> Result<Answer, KubernetesError> {
        let _turn = self.limit.acquire().await.expect("nobody closes it");
        let once = || async {
            let asked = tokio::time::timeout(web::ATTEMPT_TIMEOUT, once(client, path, name)).await;
            asked.unwrap_or_else(|_| Err(WebError::late()))
        };
        web::patiently(once).await.map_err(|error| KubernetesError::of(&error))
    }

    /// The client with the login; a new one where it is still `spent`.
    async fn client(&self, spent: Option<&Arc<Client>>) -> Result<Arc<Client>, KubernetesError> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref()
            && spent.is_none_or(|spent| !Arc::ptr_eq(spent, client))
        {
            return Ok(Arc::clone(client));
        }
        let place = self.place.clone();
        // It reads files, and at a terminal may run a program.
        let made = tokio::task::spawn_blocking(move || connect(&place)).await;
        let made = made.map_err(|_| KubernetesError::new(Class::Internal, "the login broke off"))??;
        Ok(Arc::clone(kept.insert(Arc::new(made))))
    }
}

fn connect(place: &Place) -> Result<Client, KubernetesError> {
    let config = place.load()?;
    Client::try_from(config).map_err(|error| match error {
        kube::Error::Auth(error) => of_login(&error),
        kube::Error::InferKubeconfig(
            KubeconfigError::LoadClientCertificate(error) | KubeconfigError::LoadClientKey(error),
        ) => match error {
            kube::config::LoadDataError::ReadFile(error, path) => unreadable(&path, &error),
            _ => KubernetesError::invalid("the client certificate or its key cannot be read"),
        },
        kube::Error::RustlsTls(_) => {
            KubernetesError::invalid("a certificate of the kubeconfig, or a key, cannot be used")
        }
        kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
            KubernetesError::invalid("the proxy is none of http:// or https://")
        }
        _ => KubernetesError::invalid("Kubernetes cannot be asked as the kubeconfig says"),
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> KubernetesError {
    KubernetesError::invalid(format!("{} cannot be read: {}", path.display(), error.kind()))
}

/// kube says what a program printed, which can be a token.
fn of_login(error: &AuthError) -> KubernetesError {
    let reason = match error {
        AuthError::ReadTokenFile(error, path) => {
            format!(
                "the token {} cannot be read: {}\nhelp: a pod has one with automountServiceAccountToken: true",
                path.display(),
                error.kind()
            )
        }
        AuthError::AuthExecStart(error) => {
            format!("the program that logs in cannot be run: {}", error.kind())
        }
        AuthError::AuthExecRun { out, .. } => format!("the program that logs in failed: {}", out.status),
        _ => "the kubeconfig's way to log in gives no login".to_owned(),
    };
    KubernetesError::new(Class::Denied, reason)
}

async fn once(client: &Client, path: &str, name: &str) -> Result<Answer, WebError> {
    let request = Request::new(path).get(name, &GetParams::default());
    let request = request.map_err(|_| WebError::new(Class::Invalid, "cannot be asked for such a name"))?;
    let response = client.send(request.map(Body::from)).await.map_err(|error| of_no_answer(&error))?;
    let status = response.status().as_u16();
    let mut arriving = response.into_body();
    let mut body = Secret::new(Vec::new());
    while let Some(frame) = arriving.frame().await {
        let frame = frame.map_err(|error| of_no_answer(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if body.expose().len() + data.len() > web::BODY_LIMIT {
            return Err(WebError::too_large());
        }
        body.expose_mut().extend_from_slice(&data);
    }
    Ok(Answer { status, body })
}

fn of_no_answer(error: &kube::Error) -> WebError {
    match error {
        kube::Error::Service(cause) => match cause.downcast_ref::<AuthError>() {
            Some(error) => {
                let KubernetesError { class, reason, .. } = of_login(error);
                WebError::new(class, format!("is not asked: {reason}"))
            }
            None => WebError::unreachable(cause.as_ref()),
        },
        kube::Error::HyperError(cause) => WebError::unreachable(cause),
        _ => WebError::new(Class::Invalid, "cannot be asked"),
    }
}

/// What `answer`, which is none of success, means for `what` was asked for.
fn failure(answer: &Answer, what: &str) -> KubernetesError {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }

    let status = answer.status;
    let (class, reason) = match web::class_of(status) {
        Class::NotFound => (Class::NotFound, format!("Kubernetes has nothing at {what}")),
        class => (class, format!("Kubernetes says HTTP {status} for {what}")),
    };
    let said = (status == 403).then(|| serde_json::from_slice::<Status>(answer.body.expose()).ok()).flatten();
    let said = said.map_or_else(String::new, |said| {
        let shown = said.message.chars().filter(|c| !c.is_control()).take(SENTENCE_LIMIT);
        format!(": {}", shown.collect::<String>())
    });
    KubernetesError { busy: web::is_passing(status), ..KubernetesError::new(class, reason + &said) }
}
