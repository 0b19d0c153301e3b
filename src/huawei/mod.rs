//! HuaweiCloud KMS by REST, as one identity.
//!
//! A region that a repository names leads to the host of that name and no other, unless the operator says where the service
//! of that region is. No answer of a server is ever part of an error, but for the one word of it that says what kind of
//! failure it is.

mod login;
mod sign;

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::{Mutex, Semaphore};
use url::Url;

use crate::address::Address;
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::huawei::login::{Credentials, Login};
use crate::huawei::sign::Signable;
use crate::secret::Secret;
use crate::web::{self, Answer, Clients, WebError};

/// Requests at the same time.
const CONCURRENT: usize = 16;
/// Of keys that are no key pairs.
const ALGORITHM: &str = "SYMMETRIC_DEFAULT";

/// It becomes part of a host name, and a repository chooses it.
static REGION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[a-z]{2}-[a-z]{1,20}-[0-9]{1,3}$").expect("a valid pattern"));
static KEY: LazyLock<Regex> = LazyLock::new(|| Regex::new("^[0-9a-zA-Z-]{1,64}$").expect("a valid pattern"));
/// It becomes part of a path.
static PROJECT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[0-9a-zA-Z_-]{1,64}$").expect("a valid pattern"));
/// What kind of failure it is, such as `KMS.0205`.
static CODE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[A-Za-z]{2,12}\.[0-9]{1,8}$").expect("a valid pattern"));

/// HuaweiCloud for this process. Share one: the login and connections live in it.
pub struct Huawei {
    environment: Environment,
    login: Login,
    clients: Clients,
    limit: Semaphore,
    /// By region, of those that were asked for.
    projects: Mutex<HashMap<String, String>>,
}

#[derive(Serialize)]
struct Sealed<'a> {
    cipher_text: &'a str,
    encryption_algorithm: &'static str,
    key_id: &'a str,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the protocol's")]
struct Plain<'a> {
    plain_text: &'a str,
    encryption_algorithm: &'static str,
    key_id: &'a str,
}

#[derive(Deserialize)]
struct Opened {
    key_id: String,
    plain_text: String,
}

#[derive(Deserialize)]
struct Closed {
    cipher_text: String,
}

#[derive(Deserialize)]
struct Projects {
    projects: Vec<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

impl Huawei {
    /// Reads nothing yet.
    pub fn new(environment: Environment) -> Self {
        Self::with(environment, Login::default())
    }

    fn with(environment: Environment, login: Login) -> Self {
        Self {
            environment,
            login,
            clients: Clients::default(),
            limit: Semaphore::new(CONCURRENT),
            projects: Mutex::default(),
        }
    }

    /// What KMS decrypts with `key`, `region:uuid`.
    pub async fn decrypt(&self, key: &str, ciphertext: &str) -> Result<Secret<Vec<u8>>, HuaweiError> {
        let (region, id) = region_and_id(key)?;
        let body = Sealed { cipher_text: ciphertext, encryption_algorithm: ALGORITHM, key_id: id };
        let answer = self.ask_kms(region, "decrypt-data", &body).await?;
        let opened: Opened =
            serde_json::from_slice(answer.expose()).map_err(|_| HuaweiError::unreadable())?;
        let plaintext = Secret::new(opened.plain_text);
        // A ciphertext says itself which key sealed it, and the service goes by that.
        if opened.key_id != id {
            let reason = "HuaweiCloud KMS opened it with another key than the one that is named";
            return Err(HuaweiError::new(Class::Denied, reason));
        }
        STANDARD.decode(plaintext.expose()).map(Secret::new).map_err(|_| HuaweiError::unreadable())
    }

    /// What KMS encrypts `plaintext` to with `key`.
    pub async fn encrypt(&self, key: &str, plaintext: &Secret<Vec<u8>>) -> Result<String, HuaweiError> {
        let (region, id) = region_and_id(key)?;
        let plaintext = Secret::new(STANDARD.encode(plaintext.expose()));
        let body = Plain { plain_text: plaintext.expose(), encryption_algorithm: ALGORITHM, key_id: id };
        let answer = self.ask_kms(region, "encrypt-data", &body).await?;
        let closed = serde_json::from_slice::<Closed>(answer.expose()).ok();
        let ciphertext = closed.map(|closed| closed.cipher_text).filter(|text| !text.is_empty());
        ciphertext.ok_or_else(HuaweiError::unreadable)
    }

    async fn ask_kms(
        &self,
        region: &str,
        action: &str,
        body: &impl Serialize,
    ) -> Result<Secret<Vec<u8>>, HuaweiError> {
        let variable = format!("HUAWEICLOUD_SDK_REGION_KMS_{}", region.to_uppercase().replace('-', "_"));
        let address = self.address(&variable, "kms", region)?;
        let credentials = self.login.credentials(&self.environment, &self.clients).await?;
        let project = self.project(region, &credentials).await?;
        let url = address.join(["v1.0", &project, "kms", action]);
        let body = serde_json::to_vec(body).map(Secret::new).map_err(|_| HuaweiError::unreadable())?;
        self.ask(&url, Some((&project, body)), &credentials).await
    }

    /// The operator's, or the one of the region that has its name.
    async fn project(&self, region: &str, credentials: &Credentials) -> Result<String, HuaweiError> {
        let checked = |project: &str, of: &str| {
            let reason = || format!("{of} is not the id of a project of HuaweiCloud");
            let project = Some(project).filter(|project| PROJECT.is_match(project)).map(str::to_owned);
            project.ok_or_else(|| HuaweiError::new(Class::Invalid, reason()))
        };
        if let Some(project) = &credentials.project {
            return checked(project, "what the operator names");
        }
        let mut known = self.projects.lock().await;
        if let Some(project) = known.get(region) {
            return Ok(project.clone());
        }
        let mut url = self.address("HUAWEICLOUD_SDK_IAM_ENDPOINT", "iam", region)?.join(["v3", "projects"]);
        url.set_query(Some(&format!("name={region}")));
        let answer = self.ask(&url, None, credentials).await?;
        let found: Projects =
            serde_json::from_slice(answer.expose()).map_err(|_| HuaweiError::unreadable())?;
        let [Project { id }] = found.projects.as_slice() else {
            let reason = format!(
                "{} projects of HuaweiCloud are called {region}\nhelp: name one in HUAWEICLOUD_SDK_PROJECT_ID",
                found.projects.len()
            );
            return Err(HuaweiError::new(Class::Invalid, reason));
        };
        let project = checked(id, "what IAM answers")?;
        known.insert(region.to_owned(), project.clone());
        Ok(project)
    }

    /// Where a service of a region is: where `variable` of the operator says, as a URL or a host.
    fn address(&self, variable: &str, service: &str, region: &str) -> Result<Address, HuaweiError> {
        let said = self.environment.get(variable).and_then(|said| said.split(',').next());
        let named = match said {
            Some(url) if url.contains("://") => url.to_owned(),
            Some(host) => format!("https://{host}"),
            None => {
                let domain = if region == "eu-west-101" { "myhuaweicloud.eu" } else { "myhuaweicloud.com" };
                format!("https://{service}.{region}.{domain}")
            }
        };
        named
            .parse()
            .map_err(|why| HuaweiError::new(Class::Invalid, format!("{variable} is no address: {why}")))
    }

    /// A signed GET, or POST of JSON in a project.
    async fn ask(
        &self,
        url: &Url,
        body: Option<(&str, Secret<Vec<u8>>)>,
        credentials: &Credentials,
    ) -> Result<Secret<Vec<u8>>, HuaweiError> {
        let _turn = self.limit.acquire().await.expect("the semaphore is never closed");
        let date = OffsetDateTime::now_utc()
            .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
            .expect("the year has four digits");
        let mut headers = Vec::new();
        headers.extend(body.iter().map(|(project, _)| ("x-project-id", *project)));
        headers.extend(credentials.token.iter().map(|token| ("x-security-token", token.expose().as_str())));
        let signable = Signable {
            method: if body.is_some() { "POST" } else { "GET" },
            url,
            headers: &headers,
            date: &date,
            body: body.as_ref().map_or(&[], |(_, body)| body.expose()),
        };
        let authorization = signable.authorization(&credentials.access, &credentials.secret);
        let client = self.clients.to(url).map_err(|error| HuaweiError::of(&error))?;
        let mut request = match &body {
            Some((_, body)) => {
                let json = "application/json;charset=UTF-8";
                client.post(url.clone()).header("Content-Type", json).body(body.expose().clone())
            }
            None => client.get(url.clone()),
        };
        headers.extend([("x-sdk-date", &*date), ("authorization", &*authorization)]);
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                HuaweiError::new(
                    Class::Invalid,
                    "HuaweiCloud credentials have characters that no request can carry",
                )
            })?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let answer = web::send(request).await.map_err(|error| HuaweiError::of(&error))?;
        if answer.status == 200 { Ok(answer.body) } else { Err(HuaweiError::refused(&answer)) }
    }
}

impl fmt::Debug for Huawei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Huawei")
    }
}

fn region_and_id(key: &str) -> Result<(&str, &str), HuaweiError> {
    let parts = key.trim().split_once(':');
    let parts = parts.filter(|(region, id)| REGION.is_match(region) && KEY.is_match(id));
    parts.ok_or_else(|| HuaweiError::new(Class::Invalid, "not the region and id of a key of HuaweiCloud KMS"))
}

/// Why HuaweiCloud did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct HuaweiError {
    /// What kind of failure.
    pub class: Class,
    /// The reason: never a body, never a key.
    pub reason: String,
}

impl Fault for HuaweiError {
    fn class(&self) -> Class {
        self.class
    }
}

/// Services say it in one of two forms.
#[derive(Deserialize)]
struct Refusal {
    error: Option<Code>,
    error_code: Option<String>,
}

#[derive(Deserialize)]
struct Code {
    error_code: Option<String>,
}

impl HuaweiError {
    fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }

    fn of(error: &WebError) -> Self {
        Self::new(error.class, format!("HuaweiCloud {}", error.reason))
    }

    fn unreadable() -> Self {
        Self::new(Class::Invalid, "what HuaweiCloud answers is not what it should be")
    }

    fn no_credentials() -> Self {
        Self::new(
            Class::Denied,
            "no HuaweiCloud credentials\nhelp: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK, or give the machine an agency",
        )
    }

    /// With HuaweiCloud's own word for it.
    fn refused(answer: &Answer) -> Self {
        let refusal = serde_json::from_slice::<Refusal>(answer.body.expose()).ok();
        let code = refusal.and_then(|refusal| refusal.error_code.or_else(|| refusal.error?.error_code));
        let code =
            code.filter(|code| CODE.is_match(code)).map_or_else(String::new, |code| format!(" {code}"));
        Self::new(web::class_of(answer.status), format!("HuaweiCloud says HTTP {}{code}", answer.status))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::web::mock::{Mock, Request};

    const ID: &str = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";

    fn huawei(mock: &Mock, variables: &[(&str, &str)]) -> Huawei {
        let own = [
            ("HUAWEICLOUD_SDK_REGION_KMS_TR_WEST_1", mock.url.as_str()),
            ("HUAWEICLOUD_SDK_IAM_ENDPOINT", mock.url.as_str()),
        ];
        let environment = own.iter().chain(variables).copied().collect();
        Huawei::with(environment, Login::mocked(&mock.url))
    }

    const KEYS: [(&str, &str); 2] =
        [("HUAWEICLOUD_SDK_AK", "access"), ("HUAWEICLOUD_SDK_SK", "STRONGROOM-MARKER")];

    async fn told(huawei: &Huawei, key: &str, ciphertext: &str) -> String {
        match huawei.decrypt(key, ciphertext).await {
            Ok(plaintext) => String::from_utf8(plaintext.expose().clone()).unwrap(),
            Err(error) => format!("{:?}: {}", error.class, error.reason.lines().next().unwrap()),
        }
    }

    fn answer(request: &Request) -> (u16, String) {
        let body: Json = serde_json::from_str(&request.body).unwrap_or_default();
        assert!(request.header("authorization").starts_with("SDK-HMAC-SHA256 Access="), "{request:?}");
        let refused = |status: u16, body: Json| (status, body.to_string());
        match (request.path.as_str(), body["cipher_text"].as_str().unwrap_or_default()) {
            ("/v1.0/p-1/kms/encrypt-data", _) => {
                let plain =
                    json!({"plain_text": "YQ==", "encryption_algorithm": "SYMMETRIC_DEFAULT", "key_id": ID});
                assert_eq!(body, plain);
                assert_eq!(request.header("x-project-id"), "p-1");
                (200, json!({"key_id": ID, "cipher_text": "c"}).to_string())
            }
            ("/v1.0/p-1/kms/decrypt-data", "good") => {
                assert_eq!((&body["key_id"], &body["encryption_algorithm"]), (&json!(ID), &json!(ALGORITHM)));
                (200, json!({"key_id": ID, "plain_text": STANDARD.encode("opened")}).to_string())
            }
            (_, "of another") => {
                (200, json!({"key_id": "x", "plain_text": STANDARD.encode("STRONGROOM-MARKER")}).to_string())
            }
            (_, "odd") => (200, "STRONGROOM-MARKER".into()),
            (_, "shut") => {
                refused(403, json!({"error": {"error_code": "KMS.0304", "error_msg": "STRONGROOM-MARKER"}}))
            }
            (_, "unsigned") => {
                refused(401, json!({"error_code": "APIGW.0301", "error_msg": "STRONGROOM-MARKER"}))
            }
            ("/v3/projects?name=tr-west-1", _) => {
                (200, json!({"projects": [{"id": "p-1", "name": "tr-west-1"}], "links": {}}).to_string())
            }
            _ => refused(400, json!({"error": {"error_code": "STRONGROOM-MARKER"}})),
        }
    }

    #[tokio::test]
    async fn data_keys_are_opened_and_sealed_by_a_mock_and_failures_are_classified() {
        let mock = Mock::start(answer).await;
        let huawei = huawei(&mock, &[KEYS[0], KEYS[1], ("HUAWEICLOUD_SDK_PROJECT_ID", "p-1")]);
        let key = format!("tr-west-1:{ID}");
        for (ciphertext, expected) in [
            ("good", "opened"),
            ("of another", "Denied: HuaweiCloud KMS opened it with another key than the one that is named"),
            ("odd", "Invalid: what HuaweiCloud answers is not what it should be"),
            ("shut", "Denied: HuaweiCloud says HTTP 403 KMS.0304"),
            ("unsigned", "Denied: HuaweiCloud says HTTP 401 APIGW.0301"),
            ("other", "Invalid: HuaweiCloud says HTTP 400"),
        ] {
            assert_eq!(told(&huawei, &key, ciphertext).await, expected, "{ciphertext}");
        }
        let sealed = huawei.encrypt(&key, &Secret::new(b"a".to_vec())).await.unwrap();
        assert_eq!(sealed, "c");
        let asked = mock.seen().len();
        for key in
            ["", ID, "evil.example/:k", "tr-west-1.evil:k", "tr-west-1:", "tr-west-1:a/b", "TR-WEST-1:k"]
        {
            let expected = "Invalid: not the region and id of a key of HuaweiCloud KMS";
            assert_eq!(told(&huawei, key, "good").await, expected, "{key}");
        }
        assert_eq!(mock.seen().len(), asked, "what cannot be right is not asked");
        assert!(mock.seen().iter().all(|request| !request.body.contains("MARKER")));
    }

    #[tokio::test]
    async fn the_project_of_a_region_is_looked_up_once_at_a_mock_of_iam() {
        let mock = Mock::start(answer).await;
        let huawei = huawei(&mock, &KEYS);
        for _ in 0..2 {
            assert_eq!(told(&huawei, &format!("tr-west-1:{ID}"), "good").await, "opened");
        }
        assert_eq!(mock.seen().len(), 3, "one question to IAM, two to KMS");
        for (projects, expected) in [
            (json!([]), "Invalid: 0 projects of HuaweiCloud are called tr-west-1"),
            (json!([{"id": "a"}, {"id": "b"}]), "Invalid: 2 projects of HuaweiCloud are called tr-west-1"),
            (json!([{"id": "../x"}]), "Invalid: what IAM answers is not the id of a project of HuaweiCloud"),
        ] {
            let mock = Mock::start(move |_| (200, json!({ "projects": projects }).to_string())).await;
            assert_eq!(told(&self::huawei(&mock, &KEYS), "tr-west-1:k", "good").await, expected);
        }
    }

    #[tokio::test]
    async fn credentials_are_of_the_environment_else_of_a_file_else_of_a_mock_of_the_machine() {
        let mock = Mock::start(|request| match request.path.as_str() {
            "/meta-data/latest/api/token" => (200, "token".into()),
            "/openstack/latest/securitykey" => {
                assert_eq!(request.header("x-metadata-token"), "token");
                let until =
                    if request.number == 1 { "2026-01-02T03:04:05.000000Z" } else { "2999-01-02T03:04:05Z" };
                let credential = json!({"access": "machine", "secret": "STRONGROOM-MARKER",
                    "securitytoken": "temporary", "expires_at": until});
                (200, json!({ "credential": credential }).to_string())
            }
            _ => answer(request),
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        let profile =
            "[global]\nak = other\n\n[basic]\nak = file\nsk = STRONGROOM-MARKER\nproject_id=p-1\n[x]\nak=y\n";
        std::fs::write(&file, profile).unwrap();
        let file = file.to_str().unwrap();
        let project = ("HUAWEICLOUD_SDK_PROJECT_ID", "p-1");
        let of_file = ("HUAWEICLOUD_SDK_CREDENTIALS_FILE", file);
        let key = format!("tr-west-1:{ID}");
        for (variables, access) in [
            (&[KEYS[0], KEYS[1], project, of_file][..], "access"),
            (&[of_file], "file"),
            (&[project], "machine"),
        ] {
            let huawei = huawei(&mock, variables);
            // The first keys of the machine are about to end when they are given.
            for _ in 0..3 {
                assert_eq!(told(&huawei, &key, "good").await, "opened");
            }
            let seen = mock.seen();
            let last = seen.last().unwrap();
            let expected = format!("SDK-HMAC-SHA256 Access={access}, ");
            assert!(last.header("authorization").starts_with(&expected), "{last:?}");
            let token = if access == "machine" { "temporary" } else { "" };
            assert_eq!(last.header("x-security-token"), token);
        }
        let given = mock.seen().iter().filter(|request| request.path.ends_with("securitykey")).count();
        assert_eq!(given, 2);
        std::fs::write(file, "[basic]\nak = STRONGROOM-MARKER\n").unwrap();
        let error = told(&huawei(&mock, &[of_file]), &key, "good").await;
        assert!(error.ends_with("it has no `ak` and `sk` in a section [basic]"), "{error}");
        let nobody = Mock::start(|_| (404, String::new())).await;
        assert_eq!(told(&huawei(&nobody, &[]), &key, "good").await, "Denied: no HuaweiCloud credentials");
    }

    #[test]
    fn a_region_leads_to_the_host_of_its_name_unless_the_operator_says_otherwise() {
        for (variable, said, region, expected) in [
            ("X", "", "tr-west-1", "https://kms.tr-west-1.myhuaweicloud.com"),
            ("X", "", "eu-west-101", "https://kms.eu-west-101.myhuaweicloud.eu"),
            ("V", "kms.example:1,other", "tr-west-1", "https://kms.example:1"),
            ("V", "http://127.0.0.1:2/a", "tr-west-1", "http://127.0.0.1:2/a"),
        ] {
            let huawei = Huawei::new([(variable, said)].into_iter().collect());
            assert_eq!(huawei.address("V", "kms", region).unwrap().to_string(), expected);
        }
        let error =
            Huawei::new([("V", "ftp://x")].into_iter().collect()).address("V", "kms", "r").unwrap_err();
        assert_eq!(error.reason, "V is no address: it must be an https:// or http:// URL");
    }
}
