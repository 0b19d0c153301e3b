//! What every backend that is an HTTP server must do, whatever its answers look like: one row a backend, on a mock.

use crate::fault::Class;
use crate::refs::source::{Document, FetchError, Params, Scheme};
use crate::refs::sources::mock::{ambient, locator};
use crate::refs::sources::{azurekeyvault, doppler, gcpsecrets, gitlab, onepasswordconnect, vault};
use crate::scope::Scope;
use crate::web::mock::{Mock, Request};

const TOKEN: &str = "STRONGROOM-MARKER-token";
const BODY: &str = "STRONGROOM-MARKER-body";

/// A backend, and how to ask it.
struct Backend {
    scheme: &'static Scheme,
    /// Variables of the operator; `URL` in a value is where the mock is.
    variables: &'static [(&'static str, &'static str)],
    params: &'static [(&'static str, &'static str)],
    /// `HOST` is where the mock is.
    path: &'static str,
    /// What the server says where all is well, by the end of the path of the request.
    bodies: &'static [(&'static str, &'static str)],
    document: &'static str,
}

const BACKENDS: &[Backend] = &[
    Backend {
        scheme: &azurekeyvault::SCHEME,
        variables: &[],
        params: &[],
        path: "HOST/a",
        bodies: &[("/secrets/a?api-version=7.4", r#"{"value": "value"}"#)],
        document: "value",
    },
    Backend {
        scheme: &doppler::SCHEME,
        variables: &[("DOPPLER_API_ADDR", "URL"), ("DOPPLER_TOKEN", TOKEN)],
        params: &[],
        path: "shop/prod/A",
        bodies: &[("", r#"{"secrets": {"A": {"computed": "value"}}}"#)],
        document: "value",
    },
    Backend {
        scheme: &gcpsecrets::SCHEME,
        variables: &[
            ("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", "URL"),
            ("GOOGLE_OAUTH_ACCESS_TOKEN", TOKEN),
        ],
        params: &[],
        path: "shop/a",
        bodies: &[("shop/secrets/a/versions/latest:access", r#"{"payload": {"data": "dmFsdWU="}}"#)],
        document: "value",
    },
    Backend {
        scheme: &gitlab::SCHEME,
        variables: &[("GITLAB_TOKEN", TOKEN)],
        params: &[("scheme", "http")],
        path: "HOST/17/A",
        bodies: &[("/api/v4/projects/17/variables/A", r#"{"key": "A", "value": "value"}"#)],
        document: "value",
    },
    Backend {
        scheme: &onepasswordconnect::SCHEME,
        variables: &[("OP_CONNECT_HOST", "URL"), ("OP_CONNECT_TOKEN", TOKEN)],
        params: &[],
        path: "abcdefghijklmnopqrstuvwxyz/db",
        bodies: &[
            ("items?filter=title+eq+%22db%22", r#"[{"id": "i"}]"#),
            ("items/i", r#"{"fields": [{"id": "a", "value": "value"}]}"#),
        ],
        document: r#"{"a": "value"}"#,
    },
    Backend {
        scheme: &vault::VAULT,
        variables: &[("VAULT_ADDR", "URL"), ("VAULT_TOKEN", TOKEN)],
        params: &[],
        path: "kv/x/a",
        bodies: &[
            ("ui/mounts/kv/x", r#"{"data": {"path": "kv/", "options": {"version": "2"}}}"#),
            ("kv/data/x", r#"{"data": {"data": {"a": "value"}, "metadata": {}}}"#),
        ],
        document: "value",
    },
];

impl Backend {
    fn well(&self, request: &Request) -> (u16, String) {
        let body = self.bodies.iter().find(|(end, _)| request.path.ends_with(end));
        body.map_or((404, String::new()), |(_, body)| (200, (*body).to_owned()))
    }

    /// What is fetched from `mock`, and that no error or printed form shows what must not be seen.
    async fn fetch(&self, mock: &Mock) -> Result<Document, FetchError> {
        let host = mock.url.trim_start_matches("http://");
        let variables: Vec<_> =
            self.variables.iter().map(|(name, value)| (*name, value.replace("URL", &mock.url))).collect();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let ambient = ambient(&variables, &[&mock.url]);
        let params = locator("", false, self.params).params;
        let source = (self.scheme.open)(&params, &ambient).expect(self.scheme.name);
        let path = self.path.replace("HOST", host);
        let path = (self.scheme.normalise)(&Scope::default(), &path, &Params::new()).expect(self.scheme.name);
        let answer = source.fetch(&Scope::default(), &[locator(&path, false, &[])]).await.remove(0);
        let shown = format!("{source:?} {answer:?}");
        assert!(!shown.contains("STRONGROOM-MARKER"), "{}: {shown}", self.scheme.name);
        answer
    }
}

#[tokio::test]
async fn every_http_backend_answers_from_a_mock_with_its_token() {
    for backend in BACKENDS {
        let mock = Mock::start(|request| backend.well(request)).await;
        let document = backend.fetch(&mock).await.expect(backend.scheme.name);
        assert_eq!(std::str::from_utf8(document.expose()), Ok(backend.document), "{}", backend.scheme.name);
        let with_token = ["authorization", "private-token", "x-vault-token"];
        for request in mock.seen() {
            assert!(with_token.iter().any(|name| request.header(name).ends_with(TOKEN)), "{request:?}");
        }
    }
}

#[tokio::test]
async fn every_http_backend_asks_a_busy_mock_again() {
    for backend in BACKENDS {
        for status in [429, 503] {
            let mock = Mock::start(move |request| match request.number {
                1 => (status, BODY.to_owned()),
                _ => backend.well(request),
            })
            .await;
            assert!(backend.fetch(&mock).await.is_ok(), "{}: {status}", backend.scheme.name);
        }
    }
}

#[tokio::test]
async fn every_http_backend_tells_what_goes_wrong_on_a_mock() {
    for backend in BACKENDS {
        for (status, class) in [
            (400, Class::Invalid),
            (401, Class::Denied),
            (403, Class::Denied),
            (404, Class::NotFound),
            (302, Class::Unavailable),
            (429, Class::Unavailable),
            (500, Class::Unavailable),
            (503, Class::Unavailable),
            (200, Class::Invalid),
        ] {
            let mock = Mock::start(move |_| (status, BODY.to_owned())).await;
            let error = backend.fetch(&mock).await.expect_err(backend.scheme.name);
            assert_eq!(error.class, class, "{}: {status}: {}", backend.scheme.name, error.reason);
            let moved = mock.seen().iter().any(|request| request.path == "/moved");
            assert!(!moved, "{} follows where it is sent", backend.scheme.name);
        }
    }
}

#[tokio::test]
async fn no_http_backend_asks_a_mock_that_the_operator_did_not_name() {
    for backend in BACKENDS.iter().filter(|backend| backend.path.contains("HOST")) {
        let mock = Mock::start(|request| backend.well(request)).await;
        let variables: Vec<_> = backend.variables.to_vec();
        let source =
            (backend.scheme.open)(&locator("", false, backend.params).params, &ambient(&variables, &[]))
                .unwrap();
        let path = backend.path.replace("HOST", mock.url.trim_start_matches("http://"));
        let path = (backend.scheme.normalise)(&Scope::default(), &path, &Params::new()).unwrap();
        let error =
            source.fetch(&Scope::default(), &[locator(&path, false, &[])]).await.remove(0).unwrap_err();
        assert_eq!(error.class, Class::Denied, "{}", error.reason);
        assert!(mock.seen().is_empty());
    }
}
