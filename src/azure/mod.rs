//! Azure Key Vault: its keys and secrets by REST, as one identity, in vaults that the operator names.
//!
//! Unlike with sops and vals, a vault that a repository names must be on the operator's list, because a token is sent to
//! it. No answer of a server is ever part of an error, but for the one word of it that says what kind of failure it is.

mod login;

use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::FutureExt as _;
use regex::Regex;
use reqwest::RequestBuilder;
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::Semaphore;
use url::Url;

use crate::address::{self, Address};
use crate::azure::login::Login;
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::secret::Secret;
use crate::web::{self, Answer, Clients, WebError};

const API_VERSION: &str = "7.4";
/// Requests at the same time.
const CONCURRENT: usize = 16;
/// Whose vaults a token is for: the clouds', and where a vault is none of theirs the first.
const AUDIENCES: [&str; 6] = [
    "vault.azure.net",
    "vault.azure.cn",
    "vault.usgovcloudapi.net",
    "managedhsm.azure.net",
    "managedhsm.azure.cn",
    "managedhsm.usgovcloudapi.net",
];

/// A key, a secret or a version; it becomes part of a URL, and a repository chooses it.
static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[0-9a-zA-Z-]{1,127}$").expect("a valid pattern"));

/// Azure for this process. Share one: the login and connections live in it.
pub struct Azure {
    vaults: Vec<Address>,
    login: Login,
    clients: Clients,
    limit: Semaphore,
}

/// What a key is used on.
#[derive(Serialize)]
struct Operand<'a> {
    alg: &'static str,
    value: &'a str,
}

/// A value of an answer.
#[derive(Deserialize)]
struct Valued {
    #[serde(deserialize_with = "secret")]
    value: Secret<String>,
}

/// A key of an answer.
#[derive(Deserialize)]
struct Keyed {
    key: Identified,
}

#[derive(Deserialize)]
struct Identified {
    kid: String,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

impl Azure {
    /// Reads nothing yet. `vaults` are those that may be asked; `person` is whether the login of a person at a terminal,
    /// which takes running a program, is taken too.
    pub fn new(environment: Environment, vaults: Vec<Address>, person: bool) -> Self {
        Self::with(vaults, Login::new(environment, person))
    }

    fn with(vaults: Vec<Address>, login: Login) -> Self {
        Self { vaults, login, clients: Clients::default(), limit: Semaphore::new(CONCURRENT) }
    }

    /// Azure with a token that a test gives, and numbers where it ends in `#`.
    #[cfg(test)]
    pub(crate) fn mocked(vaults: Vec<Address>, token: &'static str) -> Self {
        Self::with(vaults, Login::mocked(token))
    }

    /// The vault at `url`, if the operator names it.
    pub fn vault(&self, url: &str) -> Result<Address, AzureError> {
        let named = url.parse::<Address>();
        let named =
            named.map_err(|why| AzureError::new(Class::Invalid, format!("the vault's URL: {why}")))?;
        address::permit(named, &self.vaults)
            .map_err(|error| AzureError::new(Class::Denied, error.to_string()))
    }

    /// The vault at `host`, at the address that the operator names for it.
    pub fn vault_of_host(&self, host: &str) -> Result<Address, AzureError> {
        let named = self.vaults.iter().find(|vault| vault.url().authority() == host);
        named.map_or_else(|| self.vault(&format!("https://{host}")), |vault| Ok(vault.clone()))
    }

    /// What `key` of `vault` decrypts by RSA-OAEP with SHA-256; an empty `version` is the newest.
    pub async fn decrypt(
        &self,
        vault: &Address,
        key: &str,
        version: &str,
        ciphertext: &[u8],
    ) -> Result<Secret<Vec<u8>>, AzureError> {
        self.operate(vault, [key, version, "decrypt"], ciphertext).await
    }

    /// What `key` of `vault` encrypts to by RSA-OAEP with SHA-256.
    pub async fn encrypt(
        &self,
        vault: &Address,
        key: &str,
        version: &str,
        plaintext: &Secret<Vec<u8>>,
    ) -> Result<Vec<u8>, AzureError> {
        let ciphertext = self.operate(vault, [key, version, "encrypt"], plaintext.expose()).await?;
        Ok(ciphertext.expose().clone())
    }

    /// The version that is the newest of `key` now.
    pub async fn newest(&self, vault: &Address, key: &str) -> Result<String, AzureError> {
        named("key", key)?;
        let url = url(vault, &["keys", key]);
        let answer = self.ask(vault, |client| client.get(url)).await?;
        let keyed = serde_json::from_slice::<Keyed>(answer.expose()).map_err(|_| AzureError::unreadable())?;
        let version = keyed.key.kid.rsplit('/').next().filter(|version| NAME.is_match(version));
        version.map(str::to_owned).ok_or_else(AzureError::unreadable)
    }

    async fn operate(
        &self,
        vault: &Address,
        [key, version, action]: [&str; 3],
        input: &[u8],
    ) -> Result<Secret<Vec<u8>>, AzureError> {
        named("key", key)?;
        if !version.is_empty() {
            named("version", version)?;
        }
        let input = Secret::new(URL_SAFE_NO_PAD.encode(input));
        let body = Operand { alg: "RSA-OAEP-256", value: input.expose() };
        let url = url(vault, &["keys", key, version, action]);
        let output = self.value(vault, |client| client.post(url).json(&body)).await?;
        let output = URL_SAFE_NO_PAD.decode(output.expose().trim_end_matches('='));
        output.map(Secret::new).map_err(|_| AzureError::unreadable())
    }

    /// The value of a secret; without a version the newest.
    pub async fn secret(
        &self,
        vault: &Address,
        name: &str,
        version: Option<&str>,
    ) -> Result<Secret<String>, AzureError> {
        named("secret", name)?;
        if let Some(version) = version {
            named("version", version)?;
        }
        let path: Vec<_> = ["secrets", name].into_iter().chain(version).collect();
        let url = url(vault, &path);
        self.value(vault, |client| client.get(url)).await
    }

    async fn value(
        &self,
        vault: &Address,
        request: impl FnOnce(reqwest::Client) -> RequestBuilder,
    ) -> Result<Secret<String>, AzureError> {
        let answer = self.ask(vault, request).await?;
        let valued = serde_json::from_slice::<Valued>(answer.expose());
        valued.map(|valued| valued.value).map_err(|_| AzureError::unreadable())
    }

    async fn ask(
        &self,
        vault: &Address,
        request: impl FnOnce(reqwest::Client) -> RequestBuilder,
    ) -> Result<Secret<Vec<u8>>, AzureError> {
        let client = self.clients.to(vault.url()).map_err(|error| AzureError::of(&error))?;
        let scope = scope(vault);
        let bearer = || self.login.bearer(&scope, &self.clients).boxed();
        let forget = || self.login.forget(&scope).boxed();
        let answer = web::send_as(request(client), &self.limit, bearer, forget, AzureError::of).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(AzureError::refused(&answer)) }
    }
}

impl Default for Azure {
    /// Azure of an operator who says nothing.
    fn default() -> Self {
        Self::new(Environment::default(), Vec::new(), false)
    }
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure").field("vaults", &self.vaults).finish_non_exhaustive()
    }
}

fn url(vault: &Address, path: &[&str]) -> Url {
    let mut url = vault.join(path.iter().copied());
    url.query_pairs_mut().append_pair("api-version", API_VERSION);
    url
}

fn named(what: &str, name: &str) -> Result<(), AzureError> {
    if NAME.is_match(name) {
        return Ok(());
    }
    Err(AzureError::new(Class::Invalid, format!("not the name of a {what} of Azure Key Vault")))
}

fn scope(vault: &Address) -> String {
    let host = vault.url().host_str().unwrap_or_default();
    let of = |audience: &&str| host.strip_suffix(audience).is_some_and(|name| name.ends_with('.'));
    format!("https://{}/.default", AUDIENCES.iter().find(|audience| of(audience)).unwrap_or(&AUDIENCES[0]))
}

/// Why Azure did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct AzureError {
    /// What kind of failure.
    pub class: Class,
    /// The reason: never a body, never a token.
    pub reason: String,
    /// Whether the vault said that it is too busy, or broken for now.
    pub busy: bool,
}

impl Fault for AzureError {
    fn class(&self) -> Class {
        self.class
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: Code,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

impl AzureError {
    fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), busy: false }
    }

    fn of(error: &WebError) -> Self {
        Self::new(error.class, format!("Azure Key Vault {}", error.reason))
    }

    fn unreadable() -> Self {
        Self::new(Class::Invalid, "what Azure Key Vault answers is not what it should be")
    }

    /// With Azure's own word for it, such as `SecretNotFound`.
    fn refused(answer: &Answer) -> Self {
        let refusal = serde_json::from_slice::<Refusal>(answer.body.expose());
        let word = refusal.map(|refusal| web::word(&refusal.error.code)).unwrap_or_default();
        Self {
            class: web::class_of(answer.status),
            reason: format!("Azure Key Vault says HTTP {}{word}", answer.status),
            busy: web::is_passing(answer.status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::mock::Mock;

    #[test]
    fn a_token_is_for_the_vault_s_cloud() {
        for (vault, expected) in [
            ("https://team.vault.azure.net", "https://vault.azure.net/.default"),
            ("https://team.vault.usgovcloudapi.net", "https://vault.usgovcloudapi.net/.default"),
            ("https://team.vault.azure.cn", "https://vault.azure.cn/.default"),
            ("https://team.managedhsm.azure.net", "https://managedhsm.azure.net/.default"),
            ("https://vault.example", "https://vault.azure.net/.default"),
            ("https://evilvault.azure.cn", "https://vault.azure.net/.default"),
        ] {
            assert_eq!(scope(&vault.parse().unwrap()), expected, "{vault}");
        }
    }

    #[test]
    fn a_vault_is_one_that_the_operator_names() {
        let azure = Azure::mocked(vec!["https://team.vault.azure.net".parse().unwrap()], "t");
        let told = |vault: Result<Address, AzureError>| match vault {
            Ok(vault) => vault.to_string(),
            Err(error) => format!("{:?}: {error}", error.class).lines().next().unwrap().to_owned(),
        };
        for (url, expected) in [
            ("https://team.vault.azure.net/", "https://team.vault.azure.net"),
            ("https://TEAM.vault.azure.net:443", "https://team.vault.azure.net"),
            (
                "http://team.vault.azure.net",
                "Denied: http://team.vault.azure.net is not an address that the operator names",
            ),
            (
                "https://other.vault.azure.net",
                "Denied: https://other.vault.azure.net is not an address that the operator names",
            ),
            ("team", "Invalid: the vault's URL: it must be an https:// or http:// URL"),
        ] {
            assert_eq!(told(azure.vault(url)), expected, "{url}");
        }
        assert_eq!(told(azure.vault_of_host("team.vault.azure.net")), "https://team.vault.azure.net");
        assert!(told(azure.vault_of_host("evil.example")).starts_with("Denied: https://evil.example is not"));
    }

    #[tokio::test]
    async fn a_mock_s_word_for_a_failure_is_told_and_nothing_else_of_it() {
        for (status, body, expected) in [
            (
                403,
                r#"{"error": {"code": "Forbidden", "message": "STRONGROOM-MARKER"}}"#,
                "Denied: Azure Key Vault says HTTP 403 Forbidden",
            ),
            (
                404,
                r#"{"error": {"code": "SecretNotFound"}}"#,
                "NotFound: Azure Key Vault says HTTP 404 SecretNotFound",
            ),
            (400, r#"{"error": {"code": "STRONGROOM-MARKER"}}"#, "Invalid: Azure Key Vault says HTTP 400"),
            (307, "", "Unavailable: Azure Key Vault says HTTP 307"),
            (200, "STRONGROOM-MARKER", "Invalid: what Azure Key Vault answers is not what it should be"),
        ] {
            let mock = Mock::start(move |_| (status, body.into())).await;
            let vault: Address = mock.url.parse().unwrap();
            let azure = Azure::mocked(vec![vault.clone()], "STRONGROOM-MARKER");
            let error = azure.secret(&vault, "a", Some("0f")).await.unwrap_err();
            assert_eq!(format!("{:?}: {error}", error.class), expected);
            let [request] = &mock.seen()[..] else { panic!("{status} is asked once") };
            assert_eq!(request.path, "/secrets/a/0f?api-version=7.4");
            assert_eq!(request.header("authorization"), "Bearer STRONGROOM-MARKER");
            for (name, version) in [("a/b", None), ("", None), ("a", Some("../x")), ("a", Some(""))] {
                let error = azure.secret(&vault, name, version).await.unwrap_err();
                assert!(error.reason.starts_with("not the name of a "), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_token_that_a_mock_takes_back_is_asked_for_again_once() {
        let mock = Mock::start(|request| match request.header("authorization").as_str() {
            "Bearer t#2" => (200, r#"{"value": "x"}"#.into()),
            _ => (401, "STRONGROOM-MARKER".into()),
        })
        .await;
        let vault: Address = mock.url.parse().unwrap();
        for (token, asked) in [("t#", 2), ("t", 1)] {
            let before = mock.seen().len();
            let azure = Azure::mocked(vec![vault.clone()], token);
            let value = azure.secret(&vault, "a", None).await.map_err(|error| error.to_string());
            let expected = if asked == 2 { Ok("x") } else { Err("Azure Key Vault says HTTP 401") };
            let value = value.as_ref().map(|value| value.expose().as_str()).map_err(String::as_str);
            assert_eq!((value, mock.seen().len() - before), (expected, asked), "{token}");
        }
    }
}
