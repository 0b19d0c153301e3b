//! What every backend that is an HTTP server must do, whatever its answers look like: one row a backend, on a mock.

use std::sync::Arc;

use aws_credential_types::Credentials;
use futures::future;

use crate::aws::Aws;
use crate::document::value::Value;
use crate::fault::{Class, Fault, report};
use crate::policy::AllowList;
use crate::refs::ambient::Ambient;
use crate::refs::grammar::Expression;
use crate::refs::resolve::{RefError, Resolver};
use crate::refs::source::{Document, FetchError, Locator, Params, Scheme, Source};
use crate::refs::sources::mock::{ambient, locator};
use crate::refs::sources::{
    awskms, awssecrets, awsssm, azurekeyvault, doppler, gcpsecrets, gitlab, httpjson, k8s,
    onepasswordconnect, s3, tfstate, vault,
};
use crate::scope::Scope;
use crate::web::mock::{Mock, Request};

const TOKEN: &str = "STRONGROOM-MARKER-token";
const BODY: &str = "STRONGROOM-MARKER-body";

/// What every service of AWS takes for its answer, and a state too.
const AWS_BODY: &str = r#"{
    "Plaintext": "YQ==", "SecretString": "a", "Parameter": {"Name": "/a", "Value": "a"},
    "version": 4, "outputs": {"a": {"value": "a"}}, "resources": []
}"#;

/// Backends that send no credentials.
const WITHOUT_TOKEN: [&str; 1] = ["httpjson"];

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
        scheme: &httpjson::SCHEME,
        variables: &[],
        params: &[("insecure", "true")],
        path: "HOST/a",
        bodies: &[("/a", r#"{"a": "value"}"#)],
        document: r#"{"a": "value"}"#,
    },
    Backend {
        scheme: &k8s::SCHEME,
        variables: &[],
        params: &[],
        path: "v1/Secret/team/db/a",
        bodies: &[("/api/v1/namespaces/team/secrets/db", r#"{"data": {"a": "dmFsdWU="}}"#)],
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

    /// What an operator has who says that it is at `url`.
    fn ambient(&self, url: &str) -> Ambient {
        let variables: Vec<_> =
            self.variables.iter().map(|(name, value)| (*name, value.replace("URL", url))).collect();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ambient(&variables, &[url])
    }

    fn open(&self, url: &str) -> Arc<dyn Source> {
        let params = locator("", false, self.params).params;
        (self.scheme.open)(&params, &self.ambient(url)).expect(self.scheme.name)
    }

    fn locator(&self, url: &str) -> Locator {
        let path = self.path.replace("HOST", url.trim_start_matches("http://"));
        let path = (self.scheme.normalise)(&Scope::default(), &path, &Params::new()).expect(self.scheme.name);
        locator(&path, false, &[])
    }

    /// What a reference to its document, with one more option, resolves to.
    async fn resolve(&self, mock: &Mock, option: &str) -> Result<Value, Vec<RefError>> {
        let resolver = Resolver::new(self.ambient(&mock.url), Arc::new(AllowList::everything()));
        let path = self.path.replace("HOST", mock.url.trim_start_matches("http://"));
        let params: String = self.params.iter().map(|(name, value)| format!("&{name}={value}")).collect();
        let reference = format!("ref+{}://{path}?{option}{params}", self.scheme.name);
        let expression = Expression::parse(&reference).expect("it is one");
        resolver.resolve(&Scope::default(), &[&expression]).await.remove(0)
    }

    /// What is fetched from `mock`, and that no error or printed form shows what must not be seen.
    async fn fetch(&self, mock: &Mock) -> Result<Document, FetchError> {
        let source = self.open(&mock.url);
        let answer = source.fetch(&Scope::default(), &[self.locator(&mock.url)]).await.remove(0);
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
            let has_token = with_token.iter().any(|name| request.header(name).ends_with(TOKEN));
            assert_eq!(has_token, !WITHOUT_TOKEN.contains(&backend.scheme.name), "{request:?}");
        }
    }
}

/// For renders at the same time that want the same; of different documents a backend may ask for several at once.
#[tokio::test]
async fn no_http_backend_asks_a_mock_more_than_sixteen_times_at_once() {
    for backend in BACKENDS {
        let mock = Mock::crowded(16, |request| backend.well(request)).await;
        let (source, at, scope) = (backend.open(&mock.url), [backend.locator(&mock.url)], Scope::default());
        let answers = future::join_all((0..100).map(|_| source.fetch(&scope, &at))).await;
        assert!(answers.iter().all(|answers| answers[0].is_ok()), "{}: {answers:?}", backend.scheme.name);
        assert_eq!(mock.most_at_once(), 16, "{}", backend.scheme.name);
    }
}

#[tokio::test]
async fn no_aws_backend_asks_a_mock_more_than_sixteen_times_at_once() {
    for (scheme, path) in [
        (&awskms::SCHEME, "AAAA"),
        (&awssecrets::SCHEME, "a"),
        (&awsssm::SCHEME, "a"),
        (&s3::SCHEME, "bucket/a"),
        (&tfstate::S3, "bucket/a/output.a"),
    ] {
        let mock = Mock::crowded(16, |_| (200, AWS_BODY.to_owned())).await;
        let credentials = Credentials::new("id", TOKEN, None, None, "mock");
        let aws = Arc::new(Aws::emulated(&mock.url, "eu-west-1", credentials));
        let source = (scheme.open)(&Params::new(), &Ambient { aws, ..ambient(&[], &[]) }).unwrap();
        let (at, scope) = ([locator(path, false, &[])], Scope::default());
        let answers = future::join_all((0..100).map(|_| source.fetch(&scope, &at))).await;
        assert!(answers.iter().all(|answers| answers[0].is_ok()), "{}: {answers:?}", scheme.name);
        assert_eq!(mock.most_at_once(), 16, "{}", scheme.name);
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

/// vals forgives every failure where it has such an option: <https://github.com/helmfile/vals>, `gcpsecrets`.
#[tokio::test]
async fn what_every_http_backend_forgives_is_that_a_mock_has_not_found_it() {
    for backend in BACKENDS {
        for (status, class) in [
            (400, Err(Class::Invalid)),
            (401, Err(Class::Denied)),
            (403, Err(Class::Denied)),
            (404, Ok(())),
            (500, Err(Class::Unavailable)),
        ] {
            for (option, stands_in) in [
                ("optional=true", r#""""#),
                ("default=x", r#""x""#),
                ("fallback_value=x", r#""x""#),
                ("optional=true&fallback_value=x", r#""""#),
            ] {
                let mock = Mock::start(move |_| (status, BODY.to_owned())).await;
                let outcome = backend.resolve(&mock, option).await;
                let case = format!("{}: {status}, {option}: {outcome:?}", backend.scheme.name);
                match (outcome, class) {
                    (Ok(value), Ok(())) => assert_eq!(value.to_flow().expose(), stands_in, "{case}"),
                    (Err(errors), Err(class)) => {
                        assert_eq!(errors[0].class(), class, "{case}");
                        assert!(!report(&errors[0]).contains("STRONGROOM-MARKER"), "{case}");
                    }
                    _ => panic!("{case}"),
                }
            }
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
