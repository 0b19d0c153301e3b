//! Google Cloud: its services by REST, as one identity, where the operator says that they are.
//!
//! What a service checks with CRC32C on its side is checked here too, so that a text damaged on its way is an error.
//! No answer of a server is ever part of an error, but for the one word of it that says what kind of failure it is.

mod login;

use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::FutureExt as _;
use regex::Regex;
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use url::Url;

use crate::address::Address;
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::google::login::Login;
use crate::secret::Secret;
use crate::web::{self, Answer, Clients, WebError};

/// Requests at the same time.
const CONCURRENT: usize = 16;
/// Cloud KMS takes 64 KiB.
const CIPHERTEXT_LIMIT: usize = 80 * 1024;

/// It becomes part of a URL, and a repository chooses it; a project may have the name of its domain before it.
static KEY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^projects/(?:[a-z0-9.-]+:)?[a-z0-9-]+/locations/[a-z0-9-]+/keyRings/[a-zA-Z0-9_-]+/cryptoKeys/[a-zA-Z0-9_-]+$",
    )
    .expect("a valid pattern")
});

/// Google's own cloud; others are built like it.
const UNIVERSE: &str = "googleapis.com";

/// A service, and the variables by which the operator says that it is elsewhere.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    /// In front of the domain of a cloud.
    host: &'static str,
    /// Its address.
    endpoint: &'static str,
    /// The domain of its cloud; the first that is set.
    universe: &'static [&'static str],
}

/// Cloud KMS.
pub const KMS: Service = Service {
    name: "Google KMS",
    host: "cloudkms",
    endpoint: "SOPS_GCP_KMS_ENDPOINT",
    universe: &["SOPS_GCP_KMS_UNIVERSE_DOMAIN", "GOOGLE_CLOUD_UNIVERSE_DOMAIN"],
};
/// Secret Manager.
pub const SECRET_MANAGER: Service = Service {
    name: "Google Secret Manager",
    host: "secretmanager",
    endpoint: "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER",
    universe: &["GOOGLE_CLOUD_UNIVERSE_DOMAIN"],
};
/// Cloud Storage.
pub const STORAGE: Service = Service {
    name: "Google Cloud Storage",
    host: "storage",
    endpoint: "STORAGE_EMULATOR_HOST",
    universe: &["GOOGLE_CLOUD_UNIVERSE_DOMAIN"],
};

/// Google Cloud for this process. Share one: the login and connections live in it.
pub struct Google {
    environment: Environment,
    login: Login,
    clients: Clients,
    limit: Semaphore,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    #[serde(default)]
    plaintext: String,
    plaintext_crc32c: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plaintext<'a> {
    plaintext: &'a str,
    plaintext_crc32c: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    ciphertext: String,
    ciphertext_crc32c: Option<String>,
    /// Left out where it is false.
    #[serde(default)]
    verified_plaintext_crc32c: bool,
}

impl Google {
    /// Reads nothing yet.
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            login: Login::default(),
            clients: Clients::default(),
            limit: Semaphore::new(CONCURRENT),
        }
    }

    /// What Cloud KMS decrypts with `key`, `projects/…/cryptoKeys/…`.
    pub async fn decrypt(&self, key: &str, ciphertext: &[u8]) -> Result<Secret<Vec<u8>>, GoogleError> {
        if ciphertext.len() > CIPHERTEXT_LIMIT {
            return Err(GoogleError::new(Class::Invalid, "the ciphertext is too large"));
        }
        let body = json!({
            "ciphertext": STANDARD.encode(ciphertext),
            "ciphertextCrc32c": crc32c(ciphertext).to_string(),
        });
        let answer = self.ask_kms(key, "decrypt", &body).await?;
        let decrypted: Decrypted =
            serde_json::from_slice(answer.expose()).map_err(|_| GoogleError::unreadable(&KMS))?;
        checked(&KMS, &Secret::new(decrypted.plaintext), decrypted.plaintext_crc32c.as_deref())
    }

    /// What Cloud KMS encrypts `plaintext` to with `key`.
    pub async fn encrypt(&self, key: &str, plaintext: &Secret<Vec<u8>>) -> Result<Vec<u8>, GoogleError> {
        let text = Secret::new(STANDARD.encode(plaintext.expose()));
        let crc = crc32c(plaintext.expose()).to_string();
        let body = Plaintext { plaintext: text.expose(), plaintext_crc32c: crc };
        let answer = self.ask_kms(key, "encrypt", &body).await?;
        let encrypted: Encrypted =
            serde_json::from_slice(answer.expose()).map_err(|_| GoogleError::unreadable(&KMS))?;
        if !encrypted.verified_plaintext_crc32c {
            let reason = "Google KMS did not see whether what it encrypted was damaged on its way";
            return Err(GoogleError::new(Class::Unavailable, reason));
        }
        let ciphertext = Secret::new(encrypted.ciphertext);
        let ciphertext = checked(&KMS, &ciphertext, encrypted.ciphertext_crc32c.as_deref())?;
        Ok(ciphertext.expose().clone())
    }

    async fn ask_kms(
        &self,
        key: &str,
        action: &str,
        body: &impl Serialize,
    ) -> Result<Secret<Vec<u8>>, GoogleError> {
        if !KEY.is_match(key) {
            return Err(GoogleError::new(Class::Invalid, "not the name of a key of Google KMS"));
        }
        let path = format!("v1/{key}:{action}");
        let (client, url) = self.at(&KMS, path.split('/'))?;
        self.ask(&KMS, client.post(url).json(body)).await
    }

    /// What `service` has at `path`, in segments.
    pub async fn get<'a>(
        &self,
        service: &'static Service,
        path: impl IntoIterator<Item = &'a str>,
        query: &[(&str, &str)],
    ) -> Result<Secret<Vec<u8>>, GoogleError> {
        let (client, mut url) = self.at(service, path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(service, client.get(url)).await
    }

    fn at<'a>(
        &self,
        service: &'static Service,
        path: impl IntoIterator<Item = &'a str>,
    ) -> Result<(Client, Url), GoogleError> {
        let said = |variable: &&'static str| Some((*variable, self.environment.get(variable)?));
        let (variable, named) = match said(&service.endpoint) {
            Some((variable, named)) if named.contains("://") => (variable, named.to_owned()),
            Some((variable, host)) => (variable, format!("https://{host}")),
            None => {
                let universe = service.universe.iter().find_map(said).unwrap_or(("", UNIVERSE));
                (universe.0, format!("https://{}.{}", service.host, universe.1))
            }
        };
        let address: Address = named
            .parse()
            .map_err(|why| GoogleError::new(Class::Invalid, format!("{variable} is no address: {why}")))?;
        let client = self.clients.to(address.url()).map_err(|error| GoogleError::of(service, &error))?;
        Ok((client, address.join(path)))
    }

    async fn ask(&self, service: &Service, request: RequestBuilder) -> Result<Secret<Vec<u8>>, GoogleError> {
        let bearer = || self.login.bearer(&self.environment).boxed();
        let forget = || self.login.forget().boxed();
        let failed = |error: &WebError| GoogleError::of(service, error);
        let answer = web::send_as(request, &self.limit, bearer, forget, failed).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(GoogleError::refused(service, &answer)) }
    }
}

impl Default for Google {
    /// Google of an operator who says nothing.
    fn default() -> Self {
        Self::new(Environment::default())
    }
}

impl fmt::Debug for Google {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Google")
    }
}

/// What `base64` says, if it has the checksum that the service gives with it.
pub fn checked(
    service: &Service,
    base64: &Secret<String>,
    crc: Option<&str>,
) -> Result<Secret<Vec<u8>>, GoogleError> {
    let bytes = STANDARD.decode(base64.expose()).map_err(|_| GoogleError::unreadable(service))?;
    let bytes = Secret::new(bytes);
    if crc.is_some_and(|crc| crc != crc32c(bytes.expose()).to_string()) {
        let reason = format!("what {} gave was damaged on its way", service.name);
        return Err(GoogleError::new(Class::Unavailable, reason));
    }
    Ok(bytes)
}

/// CRC-32C, of Castagnoli, bit by bit: secrets are small.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// Why Google did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct GoogleError {
    /// What kind of failure.
    pub class: Class,
    /// The reason: never a body, never a token.
    pub reason: String,
    /// Whether the service said that it is too busy, or broken for now.
    pub busy: bool,
}

impl Fault for GoogleError {
    fn class(&self) -> Class {
        self.class
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: Status,
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

impl GoogleError {
    fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), busy: false }
    }

    fn of(service: &Service, error: &WebError) -> Self {
        Self::new(error.class, format!("{} {}", service.name, error.reason))
    }

    /// An answer of `service` is not what it should be.
    pub fn unreadable(service: &Service) -> Self {
        Self::new(Class::Invalid, format!("what {} answers is not what it should be", service.name))
    }

    /// With Google's own word for it, such as `PERMISSION_DENIED`.
    fn refused(service: &Service, answer: &Answer) -> Self {
        let refusal = serde_json::from_slice::<Refusal>(answer.body.expose());
        let word = refusal.map(|refusal| web::word(&refusal.error.status)).unwrap_or_default();
        Self {
            class: web::class_of(answer.status),
            reason: format!("{} says HTTP {}{word}", service.name, answer.status),
            busy: web::is_passing(answer.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::mock::Mock;

    #[test]
    fn checksums_are_castagnoli_s() {
        for (bytes, expected) in [("", 0), ("123456789", 0xe306_9283), ("a", 0xc1d0_4330)] {
            assert_eq!(crc32c(bytes.as_bytes()), expected, "{bytes}");
        }
        let zeros = [0; 32];
        assert_eq!(crc32c(&zeros), 0x8a91_36aa, "RFC 3720, B.4");
    }

    #[tokio::test]
    async fn an_endpoint_is_the_operator_s_and_a_url_or_a_host() {
        let mock = Mock::start(|_| (200, "x".into())).await;
        let ask = async |endpoint: &str| {
            let variables =
                [("STORAGE_EMULATOR_HOST", endpoint), ("GOOGLE_OAUTH_ACCESS_TOKEN", "STRONGROOM-MARKER")];
            let google = Google::new(variables.into_iter().collect());
            google.get(&STORAGE, ["a", "b/c?d"], &[("e", "f g")]).await.map_err(|error| error.to_string())
        };
        assert_eq!(ask(&mock.url).await.unwrap().expose(), b"x");
        assert_eq!(mock.seen()[0].path, "/a/b%2Fc%3Fd?e=f+g");
        let error = ask("ftp://x").await.unwrap_err();
        assert_eq!(error, "STORAGE_EMULATOR_HOST is no address: it must be an https:// or http:// URL");
        for (service, variable, said, expected) in [
            (&STORAGE, "STORAGE_EMULATOR_HOST", "host.example:1", "https://host.example:1/a"),
            (&STORAGE, "GOOGLE_CLOUD_UNIVERSE_DOMAIN", "other.example", "https://storage.other.example/a"),
            (&KMS, "SOPS_GCP_KMS_UNIVERSE_DOMAIN", "other.example", "https://cloudkms.other.example/a"),
            (&KMS, "GOOGLE_CLOUD_UNIVERSE_DOMAIN", "other.example", "https://cloudkms.other.example/a"),
            (&KMS, "STORAGE_EMULATOR_HOST", "host.example:1", "https://cloudkms.googleapis.com/a"),
        ] {
            let google = Google::new([(variable, said)].into_iter().collect());
            assert_eq!(google.at(service, ["a"]).unwrap().1.as_str(), expected, "{variable}");
        }
    }

    #[tokio::test]
    async fn a_mock_s_word_for_a_failure_is_told_and_nothing_else_of_it() {
        for (status, body, expected) in [
            (
                403,
                r#"{"error": {"status": "PERMISSION_DENIED", "message": "STRONGROOM-MARKER"}}"#,
                "Denied: Google Secret Manager says HTTP 403 PERMISSION_DENIED",
            ),
            (
                404,
                r#"{"error": {"status": "STRONGROOM-MARKER"}}"#,
                "NotFound: Google Secret Manager says HTTP 404",
            ),
            (400, "STRONGROOM-MARKER", "Invalid: Google Secret Manager says HTTP 400"),
            (307, "", "Unavailable: Google Secret Manager says HTTP 307"),
        ] {
            let mock = Mock::start(move |_| (status, body.into())).await;
            let variables =
                [(SECRET_MANAGER.endpoint, mock.url.as_str()), ("GOOGLE_OAUTH_ACCESS_TOKEN", "t")];
            let google = Google::new(variables.into_iter().collect());
            let error = google.get(&SECRET_MANAGER, ["x"], &[]).await.unwrap_err();
            assert_eq!(format!("{:?}: {error}", error.class), expected);
            assert_eq!(mock.seen().len(), 1, "{status}");
        }
    }

    #[tokio::test]
    async fn a_token_that_a_mock_takes_back_is_asked_for_again_once() {
        let mock = Mock::start(|request| match request.path.as_str() {
            "/a" if request.header("authorization") == "Bearer 2" => (200, "x".into()),
            "/a" | "/shut" => (401, "STRONGROOM-MARKER".into()),
            _ => {
                let token = serde_json::json!({
                    "access_token": request.number.to_string(), "expires_in": 3599, "token_type": "Bearer",
                });
                (200, token.to_string())
            }
        })
        .await;
        let host = mock.url.trim_start_matches("http://");
        let mut variables = vec![(STORAGE.endpoint, mock.url.as_str()), ("GCE_METADATA_HOST", host)];
        let google = Google::new(variables.iter().copied().collect());
        assert_eq!(google.get(&STORAGE, ["a"], &[]).await.unwrap().expose(), b"x");
        assert_eq!(google.get(&STORAGE, ["a"], &[]).await.unwrap().expose(), b"x");
        assert_eq!(mock.seen().len(), 5, "token 1, its refusal, token 2, and two answers");
        let error = google.get(&STORAGE, ["shut"], &[]).await.unwrap_err();
        assert_eq!(
            (error.class, error.reason.as_str()),
            (Class::Denied, "Google Cloud Storage says HTTP 401")
        );
        assert_eq!(mock.seen().len(), 8);
        variables.push(("GOOGLE_OAUTH_ACCESS_TOKEN", "1"));
        let given = Google::new(variables.into_iter().collect());
        assert!(given.get(&STORAGE, ["a"], &[]).await.is_err());
        assert_eq!(mock.seen().len(), 9, "a token that is given cannot be renewed");
    }
}
