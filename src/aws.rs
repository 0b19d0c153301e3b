//! What everything that speaks to AWS shares: one HTTP client, one configuration per connection, one way to tell
//! what went wrong.
//!
//! Credentials come from the SDK's own chain (environment, profile, SSO, web identity, EKS Pod Identity, instance
//! metadata), and `AWS_ENDPOINT_URL` and its kin are honoured by it too: these variables belong to the SDK, which
//! reads them itself. An error never carries a response body: only AWS's error code, the request id, and, where
//! access was denied, AWS's sentence about who was denied what.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::operation::RequestId;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tokio::sync::OnceCell;

use crate::fault::{Class, Fault};

/// Attempts of one call, the first included; the pauses between them grow from at most one second to five.
const ATTEMPTS: u32 = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(45);
/// Region, profile and role of a SOPS file are its author's choice, so the number kept is bounded.
const CONNECTIONS_KEPT: usize = 256;
/// AWS's own sentence about a denial is cut here, in characters.
const SENTENCE_LIMIT: usize = 400;

/// How an AWS service is reached. What is `None` is what the SDK's own chain says.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Connection {
    /// Region, such as `eu-west-1`.
    pub region: Option<String>,
    /// Profile of the shared configuration files.
    pub profile: Option<String>,
    /// ARN of a role to assume with the credentials of the chain.
    pub role_arn: Option<String>,
    /// Name of the session of that role.
    pub session_name: Option<String>,
}

/// The AWS configurations of this process. Share one: connections and credentials live in it.
#[derive(Default)]
pub struct Aws {
    http: OnceLock<SharedHttpClient>,
    emulator: Option<Emulator>,
    configs: Mutex<HashMap<Connection, Arc<OnceCell<SdkConfig>>>>,
}

/// Where an emulator listens, and what it is told.
struct Emulator {
    endpoint: String,
    credentials: Credentials,
}

impl Aws {
    /// Reads nothing yet; the first [`Aws::config`] does.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every service is at `endpoint` and gets these `credentials`, whatever the environment says.
    pub fn emulated(endpoint: impl Into<String>, credentials: Credentials) -> Self {
        let emulator = Emulator { endpoint: endpoint.into(), credentials };
        Self { emulator: Some(emulator), ..Self::default() }
    }

    /// The configuration for `connection`, from which a client of any service is made.
    ///
    /// It is loaded once per connection; its HTTP client, and with a role its credentials, are shared and cached.
    pub async fn config(&self, connection: &Connection) -> Result<SdkConfig, AwsError> {
        let cell = self.cell(connection);
        let config = cell.get_or_try_init(|| self.load(connection)).await?;
        Ok(config.clone())
    }

    fn cell(&self, connection: &Connection) -> Arc<OnceCell<SdkConfig>> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if configs.len() >= CONNECTIONS_KEPT && !configs.contains_key(connection) {
            configs.clear();
        }
        Arc::clone(configs.entry(connection.clone()).or_default())
    }

    async fn load(&self, connection: &Connection) -> Result<SdkConfig, AwsError> {
        let base = self.loader(connection).load().await;
        if base.region().is_none() {
            return Err(AwsError::no_region());
        }
        let Some(role) = &connection.role_arn else { return Ok(base) };
        let session = connection.session_name.as_deref().unwrap_or("strongroom");
        let provider = AssumeRoleProvider::builder(role).session_name(session).configure(&base).build().await;
        Ok(base.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build())
    }

    fn loader(&self, connection: &Connection) -> ConfigLoader {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http())
            .retry_config(retries())
            .timeout_config(timeouts());
        if let Some(profile) = &connection.profile {
            loader = loader.profile_name(profile);
        }
        let mut region = connection.region.clone();
        if let Some(Emulator { endpoint, credentials }) = &self.emulator {
            region.get_or_insert_with(|| "us-east-1".to_owned());
            loader = loader
                .endpoint_url(endpoint)
                .credentials_provider(credentials.clone())
                .retry_config(retries().with_initial_backoff(Duration::from_millis(10)));
        }
        match region {
            Some(region) => loader.region(Region::new(region)),
            None => loader,
        }
    }

    fn http(&self) -> SharedHttpClient {
        let build = || {
            aws_smithy_http_client::Builder::new()
                .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
                .build_https()
        };
        self.http.get_or_init(build).clone()
    }
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aws")
    }
}

fn retries() -> RetryConfig {
    RetryConfig::standard().with_max_attempts(ATTEMPTS).with_max_backoff(Duration::from_secs(5))
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build()
}

/// Why AWS did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct AwsError {
    /// What kind of failure.
    pub class: Class,
    /// AWS's error code where it gave one, such as `AccessDeniedException`.
    pub code: Option<String>,
    /// The reason: never a response body.
    pub reason: String,
}

impl Fault for AwsError {
    fn class(&self) -> Class {
        self.class
    }
}

impl AwsError {
    /// What `error` means. The caller adds what it asked for: a secret's name, a key's ARN.
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(context) => {
                Self::of_answer(context.err(), context.raw().status().as_u16(), error.request_id())
            }
            SdkError::TimeoutError(_) => Self::timeout(),
            SdkError::ResponseError(_) => Self::new(Class::Unavailable, "AWS's answer is not readable"),
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => Self::of_no_answer(error),
            _ => Self::new(Class::Internal, "the call to AWS failed"),
        }
    }

    /// One item of a batch, such as those of `BatchGetSecretValue`, that AWS refused with `code`.
    pub fn of_code(code: &str) -> Self {
        let class = class_of_code(code).unwrap_or(Class::Invalid);
        Self { class, code: Some(code.to_owned()), reason: format!("AWS says {code}") }
    }

    fn of_answer(error: &dyn ProvideErrorMetadata, status: u16, request: Option<&str>) -> Self {
        let meta = error.meta();
        let code = meta.code().map(printable);
        let class = code.as_deref().and_then(class_of_code).unwrap_or_else(|| class_of_status(status));
        let mut reason = code
            .as_ref()
            .map_or_else(|| format!("AWS says HTTP {status}"), |code| format!("AWS says {code}"));
        if let (Class::Denied, Some(sentence)) = (class, meta.message()) {
            reason.push_str(": ");
            reason.push_str(&printable(sentence));
        }
        if let Some(request) = request {
            reason.extend([" (request ", &printable(request), ")"]);
        }
        Self { class, code, reason }
    }

    /// The request was never answered: look for the link of the chain that says why.
    fn of_no_answer(error: &(dyn Error + 'static)) -> Self {
        let mut link = error.source();
        while let Some(cause) = link {
            if let Some(SdkError::ServiceError(context)) =
                cause.downcast_ref::<SdkError<AssumeRoleError, HttpResponse>>()
            {
                let status = context.raw().status().as_u16();
                let mut role = Self::of_answer(context.err(), status, context.err().meta().request_id());
                role.reason = format!("the role cannot be assumed: {}", role.reason);
                return role;
            }
            if let Some(CredentialsError::CredentialsNotLoaded(_)) = cause.downcast_ref() {
                return Self::no_credentials();
            }
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                return Self::new(Class::Unavailable, format!("AWS cannot be reached: {}", io.kind()));
            }
            link = cause.source();
        }
        Self::of_chain_text(error)
    }

    /// What is left has no type of its own in the SDK's public API; its links' own words tell it apart.
    fn of_chain_text(error: &(dyn Error + 'static)) -> Self {
        let mut text = String::new();
        let mut link = Some(error);
        while let Some(cause) = link {
            text.push_str(&cause.to_string());
            text.push('\n');
            link = cause.source();
        }
        if text.contains("timed out") || text.contains("timeout") {
            Self::timeout()
        } else if text.contains("credentials") {
            Self::new(
                Class::Denied,
                "AWS credentials could not be loaded\nhelp: check AWS_PROFILE, the role of the service account, and AWS_* of Strongroom",
            )
        } else if text.contains("dns error") || text.contains("lookup address") {
            Self::new(Class::Unavailable, "AWS cannot be reached: the host name does not resolve")
        } else if text.contains("certificate") {
            Self::new(Class::Unavailable, "AWS cannot be reached: its TLS certificate is not trusted")
        } else {
            Self::new(Class::Unavailable, "AWS cannot be reached")
        }
    }

    fn timeout() -> Self {
        Self::new(Class::Timeout, "AWS did not answer in time")
    }

    fn no_credentials() -> Self {
        Self::new(
            Class::Denied,
            "no AWS credentials\nhelp: give Strongroom's service account a role (IRSA or Pod Identity), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    }

    fn no_region() -> Self {
        Self::new(Class::Invalid, "no AWS region\nhelp: set AWS_REGION, or name the region")
    }

    fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, code: None, reason: reason.into() }
    }
}

/// One line of bounded length.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SENTENCE_LIMIT).collect()
}

fn class_of_code(code: &str) -> Option<Class> {
    let class = match code {
        "AccessDenied"
        | "AccessDeniedException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidIdentityToken"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "SignatureDoesNotMatch"
        | "UnauthorizedException"
        | "UnrecognizedClientException" => Class::Denied,
        "NotFoundException"
        | "ParameterNotFound"
        | "ParameterVersionNotFound"
        | "ResourceNotFoundException" => Class::NotFound,
        "DependencyTimeoutException"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServiceError"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => Class::Unavailable,
        _ => return None,
    };
    Some(class)
}

const fn class_of_status(status: u16) -> Class {
    match status {
        401 | 403 => Class::Denied,
        404 => Class::NotFound,
        408 | 429 | 500..=599 => Class::Unavailable,
        _ => Class::Invalid,
    }
}
