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
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpClient};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
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
/// No region has a name of half the length.
const REGION_LIMIT: usize = 40;
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
    region: String,
    credentials: Credentials,
}

impl Aws {
    /// Reads nothing yet; the first [`Aws::config`] does.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every service is at `endpoint` and gets these `credentials`, whatever the environment says, and is asked in
    /// `region` where no other is named.
    pub fn emulated(
        endpoint: impl Into<String>,
        region: impl Into<String>,
        credentials: Credentials,
    ) -> Self {
        let emulator = Emulator { endpoint: endpoint.into(), region: region.into(), credentials };
        Self { emulator: Some(emulator), ..Self::default() }
    }

    /// The configuration for `connection`, from which a client of any service is made.
    ///
    /// It is loaded once per connection; its HTTP client, and with a role its credentials, are shared and cached.
    pub async fn config(&self, connection: &Connection) -> Result<SdkConfig, AwsError> {
        if connection.region.as_deref().is_some_and(|region| !is_region(region)) {
            return Err(AwsError::not_a_region());
        }
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
        if let Some(Emulator { endpoint, region: own, credentials }) = &self.emulator {
            region.get_or_insert_with(|| own.clone());
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
        let build = || aws_smithy_http_client::Builder::new().build_with_connector_fn(connector);
        self.http.get_or_init(build).clone()
    }
}

/// Connects straight, or through the proxy that `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name.
fn connector(settings: Option<&HttpConnectorSettings>, components: Option<&RuntimeComponents>) -> Connector {
    let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
    connector.set_connector_settings(settings.cloned());
    connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
    connector.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build()
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aws")
    }
}

/// A region becomes part of a host name, and a repository chooses it.
fn is_region(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= REGION_LIMIT && text.bytes().all(plain)
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
    /// Whether AWS answered, and that it is busy or broken for now.
    pub busy: bool,
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
        let busy = class == Class::Unavailable;
        Self { class, code: Some(code.to_owned()), reason: format!("AWS says {code}"), busy }
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
        Self { class, code, reason, busy: class == Class::Unavailable }
    }

    /// The request was never answered: look for the link of the chain that says why.
    fn of_no_answer(error: &(dyn Error + 'static)) -> Self {
        let mut link = error.source();
        while let Some(cause) = link {
            let role = Self::of_role::<AssumeRoleError>(cause);
            if let Some(role) = role.or_else(|| Self::of_role::<AssumeRoleWithWebIdentityError>(cause)) {
                return role;
            }
            if let Some(CredentialsError::CredentialsNotLoaded(_)) = cause.downcast_ref() {
                return Self::no_credentials();
            }
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                return Self::of_io(io);
            }
            link = cause.source();
        }
        Self::of_chain_text(error)
    }

    /// Credentials of a role come from a call of their own, which may have failed.
    fn of_role<E>(cause: &(dyn Error + 'static)) -> Option<Self>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let mut role = match cause.downcast_ref::<SdkError<E, HttpResponse>>()? {
            SdkError::ServiceError(context) => {
                let meta = context.err().meta();
                Self::of_answer(meta, context.raw().status().as_u16(), meta.request_id())
            }
            SdkError::TimeoutError(_) => Self::timeout(),
            _ => Self::of_no_answer(cause),
        };
        role.reason = format!("the role cannot be assumed: {}", role.reason);
        Some(role)
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
        } else {
            Self::new(Class::Unavailable, "AWS cannot be reached")
        }
    }

    /// The text of these is about sockets, names and certificates, never about what was sent.
    fn of_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::timeout();
        }
        let reason = format!("AWS cannot be reached: {}", printable(&error.to_string()));
        Self::new(Class::Unavailable, reason)
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

    fn not_a_region() -> Self {
        Self::new(
            Class::Invalid,
            "the region is not a name\nhelp: it is letters, digits and hyphens, such as eu-west-1",
        )
    }

    fn no_region() -> Self {
        Self::new(Class::Invalid, "no AWS region\nhelp: set AWS_REGION, or name the region")
    }

    fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, code: None, reason: reason.into(), busy: false }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_sdk_kms::Client;
    use aws_sdk_kms::primitives::Blob;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with the next of `answers`, the last one for ever.
    async fn server(answers: Vec<String>) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = vec![0; 64 * 1024];
                let mut length = 0;
                while !whole(&request[..length]) {
                    length += connection.read(&mut request[length..]).await.unwrap();
                }
                let at = counted.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
                connection.write_all(answers[at].as_bytes()).await.unwrap();
            }
        });
        (endpoint, count)
    }

    fn whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        body.len() >= length.trim().parse().unwrap()
    }

    fn answer(status: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\nx-amzn-requestid: r-1\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn json(code: &str) -> String {
        format!(r#"{{"__type":"{code}","message":"user u may not","extra":"STRONGROOM-MARKER"}}"#)
    }

    async fn ask(endpoint: &str, connection: &Connection) -> Result<Vec<u8>, AwsError> {
        let credentials = Credentials::new("id", "STRONGROOM-MARKER", None, None, "test");
        let config = Aws::emulated(endpoint, "us-east-1", credentials).config(connection).await?;
        let answer = Client::new(&config).decrypt().ciphertext_blob(Blob::new("x")).send().await;
        Ok(answer.map_err(|error| AwsError::of(&error))?.plaintext.unwrap().into_inner())
    }

    #[tokio::test]
    async fn an_answer_is_told_by_code_and_request_and_never_by_body() {
        let table = [
            (
                "400 Bad Request",
                "AccessDeniedException",
                Class::Denied,
                "AWS says AccessDeniedException: user u may not (request r-1)",
            ),
            (
                "400 Bad Request",
                "NotFoundException",
                Class::NotFound,
                "AWS says NotFoundException (request r-1)",
            ),
            (
                "400 Bad Request",
                "InvalidCiphertextException",
                Class::Invalid,
                "AWS says InvalidCiphertextException (request r-1)",
            ),
            (
                "400 Bad Request",
                "ThrottlingException",
                Class::Unavailable,
                "AWS says ThrottlingException (request r-1)",
            ),
            (
                "500 Oops",
                "KMSInternalException",
                Class::Unavailable,
                "AWS says KMSInternalException (request r-1)",
            ),
            (
                "403 Forbidden",
                "NeverHeardOf",
                Class::Denied,
                "AWS says NeverHeardOf: user u may not (request r-1)",
            ),
        ];
        for (status, code, class, reason) in table {
            let (endpoint, _) = server(vec![answer(status, &json(code))]).await;
            let error = ask(&endpoint, &Connection::default()).await.unwrap_err();
            assert_eq!(
                (error.class, error.reason.as_str(), error.code.as_deref()),
                (class, reason, Some(code))
            );
            assert!(!format!("{error:?}").contains("MARKER"));
        }
    }

    #[tokio::test]
    async fn what_is_not_from_aws_is_told_without_its_text() {
        let (endpoint, _) = server(vec![answer("200 OK", "<html>STRONGROOM-MARKER")]).await;
        let error = ask(&endpoint, &Connection::default()).await.unwrap_err();
        assert!(!format!("{error:?}").contains("MARKER"), "{error:?}");
    }

    #[tokio::test]
    async fn throttling_is_tried_again() {
        let busy = answer("400 Bad Request", &json("ThrottlingException"));
        let good = answer("200 OK", r#"{"Plaintext":"b2s="}"#);
        let (endpoint, count) = server(vec![busy.clone(), busy, good]).await;
        assert_eq!(ask(&endpoint, &Connection::default()).await.unwrap(), b"ok");
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_role_that_may_not_be_assumed_is_told_as_such() {
        let body = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>u may not assume r</Message></Error>\
                    <RequestId>r-2</RequestId></ErrorResponse>";
        let (endpoint, _) = server(vec![answer("403 Forbidden", body)]).await;
        let role_arn = Some("arn:aws:iam::111122223333:role/r".to_owned());
        let error = ask(&endpoint, &Connection { role_arn, ..Connection::default() }).await.unwrap_err();
        assert_eq!(error.class, Class::Denied);
        assert!(
            error.reason.starts_with("the role cannot be assumed: AWS says AccessDenied: u may not assume r"),
            "{}",
            error.reason
        );
    }

    #[tokio::test]
    async fn nobody_listening_is_unavailable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = ask(&endpoint, &Connection::default()).await.unwrap_err();
        assert_eq!(error.class, Class::Unavailable);
        assert!(error.reason.starts_with("AWS cannot be reached: "), "{}", error.reason);
    }
}
