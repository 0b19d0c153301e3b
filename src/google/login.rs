//! As whom Google is asked: the operator's identity, found in the order of sops.
//!
//! `GOOGLE_CREDENTIALS`, `GOOGLE_OAUTH_ACCESS_TOKEN`, then Google's application default credentials: the file that
//! `GOOGLE_APPLICATION_CREDENTIALS` names, that of gcloud, the metadata server. A file that would run a program for its
//! token is refused. What a server says of a login is not told, because it may repeat what it was sent.

use std::path::Path;
use std::time::Duration;

use google_cloud_auth::credentials::{
    AccessTokenCredentials, external_account, impersonated, mds, service_account, user_account,
};
use reqwest::header::HeaderValue;
use serde_json::Value as Json;
use tokio::sync::Mutex;

use crate::environment::Environment;
use crate::fault::Class;
use crate::google::GoogleError;
use crate::secret::Secret;

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const GCLOUD: &str = ".config/gcloud/application_default_credentials.json";
/// Where nothing answers a login would wait for as long as the render may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const WAYS: &str = "bind Strongroom's service account by workload identity, or name a file with GOOGLE_APPLICATION_CREDENTIALS";

/// The login of this process, kept and renewed by Google's library.
#[derive(Default)]
pub(super) struct Login(Mutex<Option<Identity>>);

#[derive(Clone)]
struct Identity {
    /// Where it was found, for messages.
    from: &'static str,
    credentials: AccessTokenCredentials,
}

/// What the operator says.
enum Found {
    Token(Secret<String>),
    File(&'static str, Json),
    Metadata,
}

impl Login {
    /// The header `Authorization`.
    pub(super) async fn bearer(&self, environment: &Environment) -> Result<HeaderValue, GoogleError> {
        let mut kept = self.0.lock().await;
        let identity = if let Some(identity) = &*kept {
            identity.clone()
        } else {
            match find(environment).await? {
                Found::Token(token) => return header("GOOGLE_OAUTH_ACCESS_TOKEN", &token),
                Found::File(from, json) => kept.insert(of_file(from, json)?).clone(),
                Found::Metadata => kept.insert(of_metadata(environment)?).clone(),
            }
        };
        drop(kept);
        let Identity { from, credentials } = identity;
        let failure = match tokio::time::timeout(TIMEOUT, credentials.access_token()).await {
            Ok(Ok(token)) => return header(from, &Secret::new(token.token)),
            Ok(Err(error)) if error.is_transient() => (Class::Unavailable, "it gives no token for now"),
            Ok(Err(_)) => (Class::Denied, "it gives no token"),
            Err(_) => (Class::Timeout, "it does not answer in time"),
        };
        // The library does not try again after some failures, so the next call begins anew.
        self.forget().await;
        Err(GoogleError::new(
            failure.0,
            format!("no Google credentials by {from}: {}\nhelp: {WAYS}", failure.1),
        ))
    }

    /// The next call logs in anew.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

async fn find(environment: &Environment) -> Result<Found, GoogleError> {
    let variable = "GOOGLE_CREDENTIALS";
    if let Some(said) = environment.get(variable) {
        let json = if said.trim_start().starts_with('{') {
            parse(variable, said)?
        } else {
            read(variable, Path::new(said)).await?
        };
        return Ok(Found::File(variable, json));
    }
    if let Some(token) = environment.get("GOOGLE_OAUTH_ACCESS_TOKEN") {
        return Ok(Found::Token(Secret::new(token.to_owned())));
    }
    let variable = "GOOGLE_APPLICATION_CREDENTIALS";
    if let Some(path) = environment.get(variable) {
        return Ok(Found::File(variable, read(variable, Path::new(path)).await?));
    }
    if let Some(home) = environment.get("HOME") {
        let path = Path::new(home).join(GCLOUD);
        if path.is_file() {
            return Ok(Found::File("gcloud's file", read("gcloud's file", &path).await?));
        }
    }
    Ok(Found::Metadata)
}

async fn read(from: &str, path: &Path) -> Result<Json, GoogleError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| {
        GoogleError::new(Class::Invalid, format!("{from}: read {}: {error}", path.display()))
    })?;
    parse(from, Secret::new(text).expose())
}

fn parse(from: &str, text: &str) -> Result<Json, GoogleError> {
    serde_json::from_str(text).map_err(|_| unusable(from, "it is not JSON"))
}

fn of_file(from: &'static str, json: Json) -> Result<Identity, GoogleError> {
    for source in ["/credential_source", "/source_credentials/credential_source"] {
        if json.pointer(source).is_some_and(|source| source.get("executable").is_some()) {
            return Err(unusable(from, "it would run a program"));
        }
    }
    let kind = json["type"].as_str().unwrap_or_default().to_owned();
    let credentials = match kind.as_str() {
        "service_account" => service_account::Builder::new(json).build_access_token_credentials(),
        "authorized_user" => user_account::Builder::new(json).build_access_token_credentials(),
        "impersonated_service_account" => {
            impersonated::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        "external_account" => {
            external_account::Builder::new(json).with_scopes([SCOPE]).build_access_token_credentials()
        }
        _ => return Err(unusable(from, "its type is none of Google's")),
    };
    let credentials = credentials.map_err(|_| unusable(from, "a field is missing or wrong"))?;
    Ok(Identity { from, credentials })
}

fn of_metadata(environment: &Environment) -> Result<Identity, GoogleError> {
    let from = "the metadata server";
    let host = environment.get("GCE_METADATA_HOST");
    let builder = mds::Builder::default().with_scopes([SCOPE]);
    let builder = host.into_iter().fold(builder, |b, host| b.with_endpoint(format!("http://{host}")));
    let credentials = builder.build_access_token_credentials();
    let credentials = credentials.map_err(|_| unusable(from, "its address is wrong"))?;
    Ok(Identity { from, credentials })
}

fn unusable(from: &str, why: &str) -> GoogleError {
    GoogleError::new(Class::Invalid, format!("the Google credentials of {from} cannot be used: {why}"))
}

fn header(from: &str, token: &Secret<String>) -> Result<HeaderValue, GoogleError> {
    let text = Secret::new(format!("Bearer {}", token.expose().trim()));
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| unusable(from, "it is no token"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;
    use crate::web::mock::Mock;

    async fn bearer(variables: &[(&str, &str)]) -> Result<String, String> {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let environment = variables.iter().copied().collect();
        let header = Login::default().bearer(&environment).await;
        header
            .map(|header| header.to_str().unwrap().to_owned())
            .map_err(|error| format!("{:?}: {}", error.class, error.reason.lines().next().unwrap()))
    }

    #[tokio::test]
    async fn one_token_of_a_mock_of_the_metadata_server_serves_many() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let mock = Mock::start(|request| {
            assert_eq!(request.header("metadata-flavor"), "Google");
            let token =
                json!({"access_token": "STRONGROOM-MARKER", "expires_in": 3599, "token_type": "Bearer"});
            (200, token.to_string())
        })
        .await;
        let host = mock.url.strip_prefix("http://").unwrap();
        let environment = [("GCE_METADATA_HOST", host)].into_iter().collect();
        let login = Login::default();
        let all = futures::future::join_all((0..20).map(|_| login.bearer(&environment))).await;
        assert!(all.iter().all(|bearer| bearer.as_ref().unwrap() == "Bearer STRONGROOM-MARKER"));
        assert!(!format!("{:?}", all[0]).contains("MARKER"));
        let asked: Vec<_> = mock.seen().into_iter().map(|request| request.path).collect();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(
            asked[0].starts_with("/computeMetadata/v1/instance/service-accounts/default/token"),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn a_login_that_a_mock_refused_is_tried_anew() {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let token = json!({"access_token": "t", "expires_in": 3599, "token_type": "Bearer"}).to_string();
        let mock = Mock::start(move |request| match request.number {
            1 => (403, "STRONGROOM-MARKER".into()),
            _ => (200, token.clone()),
        })
        .await;
        let environment =
            [("GCE_METADATA_HOST", mock.url.strip_prefix("http://").unwrap())].into_iter().collect();
        let login = Login::default();
        let error = login.bearer(&environment).await.unwrap_err();
        assert_eq!(error.class, Class::Denied);
        assert_eq!(
            error.reason,
            format!("no Google credentials by the metadata server: it gives no token\nhelp: {WAYS}")
        );
        assert_eq!(login.bearer(&environment).await.unwrap(), "Bearer t");
    }

    #[tokio::test]
    async fn a_service_account_s_key_signs_its_own_token() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let account = json!({
            "type": "service_account", "client_email": "a@b.example", "private_key_id": "1",
            "private_key": key.serialize_pem(), "project_id": "p",
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.json");
        fs::write(&file, account.to_string()).unwrap();
        let file = file.to_str().unwrap();
        for variables in [
            ("GOOGLE_CREDENTIALS", account.to_string().as_str()),
            ("GOOGLE_CREDENTIALS", file),
            ("GOOGLE_APPLICATION_CREDENTIALS", file),
        ] {
            let bearer = bearer(&[variables]).await.unwrap();
            let claims = bearer.split('.').nth(1).expect("it is a JWT");
            let claims: Json = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
            assert_eq!((&claims["iss"], &claims["scope"]), (&json!("a@b.example"), &json!(SCOPE)));
        }
    }

    #[tokio::test]
    async fn a_token_of_another_issuer_is_exchanged_at_a_mock() {
        let mock = Mock::start(|request| {
            assert!(request.body.contains("subject_token=STRONGROOM-MARKER-subject"), "{}", request.body);
            let answer = json!({
                "access_token": "STRONGROOM-MARKER", "expires_in": 3600, "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            });
            (200, answer.to_string())
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let subject = folder.path().join("token");
        fs::write(&subject, "STRONGROOM-MARKER-subject").unwrap();
        let account = json!({
            "type": "external_account", "audience": "//iam.googleapis.com/x", "token_url": mock.url,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "credential_source": {"file": subject},
        });
        let account = account.to_string();
        assert_eq!(bearer(&[("GOOGLE_CREDENTIALS", &account)]).await.unwrap(), "Bearer STRONGROOM-MARKER");
    }

    #[tokio::test]
    async fn credentials_that_cannot_be_used_are_named_and_never_passed_over() {
        let program = json!({
            "type": "external_account", "credential_source": {"executable": {"command": "STRONGROOM-MARKER"}},
        });
        let program = program.to_string();
        let wrong = |why: &str| {
            format!("Invalid: the Google credentials of GOOGLE_CREDENTIALS cannot be used: {why}")
        };
        let own = [("GOOGLE_OAUTH_ACCESS_TOKEN", "t")];
        assert_eq!(bearer(&own).await.unwrap(), "Bearer t");
        for (said, expected) in [
            (program.as_str(), wrong("it would run a program")),
            ("{STRONGROOM-MARKER", wrong("it is not JSON")),
            (r#"{"type": "STRONGROOM-MARKER"}"#, wrong("its type is none of Google's")),
            (r#"{"type": "service_account", "private_key": 1}"#, wrong("a field is missing or wrong")),
            (
                "/absent/key",
                "Invalid: GOOGLE_CREDENTIALS: read /absent/key: No such file or directory (os error 2)"
                    .into(),
            ),
        ] {
            let told = bearer(&[("GOOGLE_CREDENTIALS", said), own[0]]).await.unwrap_err();
            assert_eq!(told, expected);
        }
        let told = bearer(&[("GOOGLE_OAUTH_ACCESS_TOKEN", "a\nb")]).await.unwrap_err();
        assert!(told.ends_with("GOOGLE_OAUTH_ACCESS_TOKEN cannot be used: it is no token"), "{told}");
    }
}
