//! `ref+gcpsecrets://project/secret`: Google Secret Manager.
//!
//! The version is `latest` unless said. Where vals takes any failure for "not found" if a fallback is given, only what is
//! not there is forgiven here.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use serde::Deserialize;

use crate::fault::Class;
use crate::google::{self, Google, GoogleError, SECRET_MANAGER};
use crate::refs::ambient::Ambient;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, OpenError, Params, Scheme, SchemeOption, Source,
};
use crate::refs::sources::google::{each, failure};
use crate::refs::sources::http::Text;
use crate::scope::Scope;
use crate::secret::Secret;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "gcpsecrets",
    doc: "Google Secret Manager; the login is the operator's, see [Google Cloud](keys.md#google-cloud)",
    examples: &[
        ("ref+gcpsecrets://my-project/db-password", "the newest version of the secret `db-password`"),
        ("ref+gcpsecrets://my-project/db?version=3#/password", "`password` of JSON or YAML in its version 3"),
        ("ref+gcpsecrets://db-password", "of the project that `GCP_PROJECT` of the operator names"),
    ],
    connection: &[],
    document: &[
        SchemeOption { name: "version", doc: "number or alias of a version; `latest` unless said" },
        SchemeOption { name: "trim_nl", doc: "`true`: without a line break at its end" },
    ],
    fragment: Fragment::Walks,
    normalise,
    open: |_, ambient: &Ambient| -> Result<Arc<dyn Source>, OpenError> {
        let project = ambient.environment.get("GCP_PROJECT").map(str::to_owned);
        Ok(Arc::new(SecretManager { google: Arc::clone(&ambient.google), project }))
    },
};

fn normalise(_: &Scope, path: &str, _: &Params) -> Result<String, FetchError> {
    parts(path).map(|_| path.to_owned())
}

/// Project and name; they become part of a URL.
fn parts(path: &str) -> Result<(Option<&str>, &str), FetchError> {
    let (project, name) = path.split_once('/').map_or((None, path), |(project, name)| (Some(project), name));
    let of = |text: &str, others: &[u8]| {
        !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || others.contains(&c))
    };
    // A project may have the name of its domain before it.
    if project.is_none_or(|project| of(project, b"-.:") && !project.starts_with('.')) && of(name, b"-_") {
        return Ok((project, name));
    }
    Err(FetchError::new(Class::Invalid, "it must be project/secret, or the name of a secret"))
}

#[derive(Debug)]
struct SecretManager {
    google: Arc<Google>,
    project: Option<String>,
}

impl Source for SecretManager {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        each(at, |at| self.secret(at)).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

#[derive(Deserialize)]
struct Version {
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    data: Option<Text>,
    data_crc32c: Option<String>,
}

impl SecretManager {
    async fn secret(&self, at: &Locator) -> Result<Document, FetchError> {
        let option = |name: &str| at.params.get(name).map(String::as_str);
        let (project, name) = parts(&at.path)?;
        let project = project.or(self.project.as_deref()).ok_or_else(|| {
            let help = "help: write project/secret, or the operator sets GCP_PROJECT";
            FetchError::new(Class::Invalid, format!("no project is named\n{help}"))
        })?;
        let trim = match option("trim_nl") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(FetchError::new(Class::Invalid, "option trim_nl is neither true nor false"));
            }
        };
        let version = option("version").unwrap_or("latest");
        if version.is_empty() || !version.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)) {
            return Err(FetchError::new(Class::Invalid, "option version is no version"));
        }
        let version = format!("{version}:access");
        let path = ["v1", "projects", project, "secrets", name, "versions", &version];
        let read = self.google.get(&SECRET_MANAGER, path, &[]).await.and_then(|answer| payload(&answer));
        let payload = read.map_err(|error| failure(&error, &at.path))?;
        Ok(if trim { without_line_break(&payload) } else { payload })
    }
}

fn payload(answer: &Document) -> Result<Document, GoogleError> {
    let version = serde_json::from_slice::<Version>(answer.expose());
    let Payload { data, data_crc32c } =
        version.map_err(|_| GoogleError::unreadable(&SECRET_MANAGER))?.payload;
    let data = data.map_or_else(|| Secret::new(String::new()), |Text(data)| data);
    google::checked(&SECRET_MANAGER, &data, data_crc32c.as_deref())
}

fn without_line_break(document: &Document) -> Document {
    let bytes = document.expose();
    Secret::new(bytes.strip_suffix(b"\n").unwrap_or(bytes).to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::refs::sources::mock::{ambient, locator, told};
    use crate::web::mock::Mock;

    #[tokio::test]
    async fn versions_are_read_from_a_mock_and_fail_by_themselves() {
        let mock = Mock::start(|request| {
            assert_eq!(request.header("authorization"), "Bearer STRONGROOM-MARKER");
            match request.path.strip_prefix("/v1/projects/").unwrap() {
                "shop/secrets/a/versions/latest:access" => (
                    200,
                    json!({"payload": {"data": "MTIzNDU2Nzg5", "dataCrc32c": "3808858755"}}).to_string(),
                ),
                "shop/secrets/a/versions/2:access" => {
                    (200, json!({"payload": {"data": "MTIzNDU2Nzg5", "dataCrc32c": "1"}}).to_string())
                }
                "shop/secrets/line/versions/latest:access" => {
                    (200, json!({"payload": {"data": "YQoK"}}).to_string())
                }
                "shop/secrets/none/versions/latest:access" => (200, json!({"payload": {}}).to_string()),
                "own/secrets/a/versions/latest:access" => {
                    (403, json!({"error": {"status": "PERMISSION_DENIED"}}).to_string())
                }
                _ => (404, json!({"error": {"status": "NOT_FOUND"}}).to_string()),
            }
        })
        .await;
        let variables = [
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", mock.url.as_str()),
            ("GOOGLE_OAUTH_ACCESS_TOKEN", "STRONGROOM-MARKER"),
            ("GCP_PROJECT", "own"),
        ];
        let source = (SCHEME.open)(&Params::new(), &ambient(&variables, &[])).unwrap();
        let at = [
            locator("shop/a", false, &[]),
            locator("shop/a", false, &[("version", "2")]),
            locator("shop/line", false, &[]),
            locator("shop/line", false, &[("trim_nl", "true")]),
            locator("shop/none", false, &[]),
            locator("a", false, &[]),
            locator("shop/b", false, &[("version", "v_1-x")]),
            locator("shop/a", false, &[("version", "2:destroy")]),
            locator("shop/a", false, &[("trim_nl", "yes")]),
        ];
        assert_eq!(
            told(source.fetch(&Scope::default(), &at).await),
            [
                "123456789",
                "Unavailable: what Google Secret Manager gave was damaged on its way for shop/a",
                "a\n\n",
                "a\n",
                "",
                "Denied: Google Secret Manager says HTTP 403 PERMISSION_DENIED for a",
                "NotFound: Google Secret Manager says HTTP 404 NOT_FOUND for shop/b",
                "Invalid: option version is no version",
                "Invalid: option trim_nl is neither true nor false",
            ]
        );
        let homeless = (SCHEME.open)(&Params::new(), &ambient(&variables[..2], &[])).unwrap();
        let told = told(homeless.fetch(&Scope::default(), &at[5..6]).await);
        assert!(told[0].starts_with("Invalid: no project is named\nhelp: "), "{told:?}");
    }

    #[test]
    fn a_path_is_a_project_and_a_secret() {
        for (path, right) in [
            ("a", true),
            ("my-project/a_B-1", true),
            ("example.com:my-project/a", true),
            ("", false),
            ("p/", false),
            ("/a", false),
            ("p/a/b", false),
            ("../a", false),
            ("p/a:b", false),
        ] {
            assert_eq!(normalise(&Scope::default(), path, &Params::new()).is_ok(), right, "{path}");
        }
    }
}
