//! `ref+k8s://v1/Secret/namespace/name/key`: a `Secret` or `ConfigMap` of a Kubernetes cluster. All keys of an object
//! come with one request.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, FutureExt};
use regex::Regex;
use serde::Deserialize;

use crate::document::value::Value;
use crate::fault::Class;
use crate::kubernetes::{Cluster, Connection, KubernetesError, Resource};
use crate::refs::ambient::Ambient;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, OpenError, Params, Scheme, SchemeOption, Source,
};
use crate::refs::sources::grouped;
use crate::refs::sources::http::Text;
use crate::scope::Scope;
use crate::secret::Secret;

pub(crate) const SCHEME: Scheme = Scheme {
    name: "k8s",
    doc: "Secrets and ConfigMaps of a Kubernetes cluster: that of the kubeconfig which the operator names with `KUBECONFIG`, at a \
          terminal `~/.kube/config` too, else the one that Strongroom runs in, as its service account",
    examples: &[
        (
            "ref+k8s://v1/Secret/team/db/password",
            "the key `password` of the Secret `db` in the namespace `team`",
        ),
        ("ref+k8s://v1/Secret/team/db#/password", "the same, where every key of the Secret is text"),
        (
            "ref+k8s://v1/ConfigMap/team/app/conf.yaml#/db/port",
            "out of the YAML that a key of a ConfigMap holds",
        ),
        ("ref+k8s://v1/Secret/team/db/keystore?encode=base64", "a key with bytes of any kind, in base64"),
        ("ref+k8s://v1/Secret/team/db", "all keys, as JSON"),
    ],
    connection: &[
        SchemeOption {
            name: "kubeConfigPath",
            doc: "kubeconfig; of those that the operator names with `KUBECONFIG` one, at a terminal any",
        },
        SchemeOption { name: "kubeContext", doc: "context of the kubeconfig" },
        SchemeOption {
            name: "inCluster",
            doc: "`true`, or without a value: the cluster that Strongroom runs in, where there is a kubeconfig too",
        },
    ],
    document: &[SchemeOption {
        name: "encode",
        doc: "`raw` (default) or `base64`, of a key that the path names; not with a fragment",
    }],
    fragment: Fragment::Asks,
    normalise,
    open,
};

/// What Kubernetes allows as the name of a namespace, of an object, and of a key. They become part of a URL.
static NAMES: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    ["^[a-z0-9-]{1,63}$", "^[a-z0-9.-]{1,253}$", "^[a-zA-Z0-9._-]{1,253}$"]
        .map(|pattern| Regex::new(pattern).expect("a valid pattern"))
});

/// What a path names.
struct Path<'a> {
    resource: Resource,
    namespace: &'a str,
    name: &'a str,
    /// All of them, where it is not there.
    key: Option<&'a str>,
}

impl<'a> Path<'a> {
    fn parse(path: &'a str) -> Result<Self, FetchError> {
        let segments: Vec<_> = path.split('/').collect();
        let (object, key) = match segments.as_slice() {
            [object @ .., key] if object.len() == 4 => (object, Some(*key)),
            object => (object, None),
        };
        let [version, kind, namespace, name] = *object else {
            return Err(invalid("it must be v1/Secret/namespace/name/key, or without the key"));
        };
        if version != "v1" {
            return Err(invalid("the version of Secrets and ConfigMaps is v1"));
        }
        let resource = match kind {
            "Secret" => Resource::Secret,
            "ConfigMap" => Resource::ConfigMap,
            _ => return Err(invalid("the kind is neither Secret nor ConfigMap")),
        };
        for ((what, text), allowed) in
            [("namespace", namespace), ("name", name), ("key", key.unwrap_or("all"))].iter().zip(&*NAMES)
        {
            if !allowed.is_match(text) || matches!(*text, "." | "..") {
                return Err(invalid(format!("the {what} is not one that Kubernetes allows")));
            }
        }
        Ok(Self { resource, namespace, name, key })
    }
}

fn normalise(_: &Scope, path: &str, _: &Params) -> Result<String, FetchError> {
    Path::parse(path).map(|_| path.to_owned())
}

fn open(params: &Params, ambient: &Ambient) -> Result<Arc<dyn Source>, OpenError> {
    let connection = Connection {
        kubeconfig: params.get("kubeConfigPath").cloned(),
        context: params.get("kubeContext").cloned(),
        in_cluster: params.contains_key("inCluster"),
    };
    if params.get("inCluster").is_some_and(|said| said != "true") {
        return Err(OpenError::new(Class::Invalid, "option inCluster is true, or is left out"));
    }
    let cluster = ambient.kubernetes.cluster(&connection);
    let cluster = cluster.map_err(|KubernetesError { class, reason, .. }| OpenError::new(class, reason))?;
    Ok(Arc::new(Objects { cluster }))
}

#[derive(Debug)]
struct Objects {
    cluster: Cluster,
}

impl Source for Objects {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        let of = |locator: &'a Locator| {
            let object: Vec<_> = locator.path.split('/').take(4).collect();
            Ok((object.join("/"), locator))
        };
        let read = move |object: String| async move { self.object(&object).await };
        grouped::fetch(at, of, read, Object::pick).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

/// An object as the server tells it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    data: Option<BTreeMap<String, Text>>,
    binary_data: Option<BTreeMap<String, Text>>,
}

/// The data of an object.
struct Object {
    data: BTreeMap<String, Document>,
    /// What of a `ConfigMap` need not be text.
    binary: BTreeMap<String, Document>,
}

impl Objects {
    async fn object(&self, path: &str) -> Result<Object, FetchError> {
        let Path { resource, namespace, name, .. } = Path::parse(path)?;
        let body = self.cluster.read(resource, namespace, name, path).await.map_err(|error| {
            let KubernetesError { class, reason, busy } = error;
            FetchError::new(class, reason).busy(busy)
        })?;
        let told: Option<Told> = serde_json::from_slice(body.expose()).ok();
        told.and_then(|told| Object::of(resource, told))
            .ok_or_else(|| invalid(format!("what Kubernetes answers for {path} is not what it should be")))
    }
}

impl Object {
    fn of(resource: Resource, told: Told) -> Option<Self> {
        let decoded = |entries: Option<BTreeMap<String, Text>>| {
            let decode = |(key, Text(text)): (String, Text)| {
                Some((key, Secret::new(STANDARD.decode(text.expose()).ok()?)))
            };
            entries.unwrap_or_default().into_iter().map(decode).collect::<Option<_>>()
        };
        Some(match resource {
            Resource::Secret => Self { data: decoded(told.data)?, binary: BTreeMap::new() },
            Resource::ConfigMap => {
                let data = told.data.unwrap_or_default();
                let data = data.into_iter().map(|(key, text)| (key, text.document())).collect();
                Self { data, binary: decoded(told.binary_data)? }
            }
        })
    }

    fn pick(&self, at: &Locator) -> Result<Document, FetchError> {
        let encoded = match at.params.get("encode").map(String::as_str) {
            None | Some("raw") => false,
            Some("base64") => true,
            Some(_) => return Err(invalid("option encode is neither raw nor base64")),
        };
        let Some(key) = Path::parse(&at.path)?.key else {
            return if encoded {
                Err(invalid("option encode is for a key that the path names"))
            } else {
                self.all(&at.path)
            };
        };
        if encoded && at.fragment {
            return Err(invalid("option encode works without a fragment only"));
        }
        let value = self.data.get(key).or_else(|| self.binary.get(key));
        let value = value.ok_or_else(|| {
            let object = at.path.strip_suffix(key).unwrap_or_default().trim_end_matches('/');
            FetchError::not_found(format!("no key {key:?} in {object}"))
        })?;
        Ok(if encoded { Secret::new(STANDARD.encode(value.expose()).into_bytes()) } else { value.clone() })
    }

    /// As JSON, which has no bytes but text.
    fn all(&self, path: &str) -> Result<Document, FetchError> {
        let mut entries = Vec::new();
        for (key, value) in &self.data {
            let text = std::str::from_utf8(value.expose()).map_err(|_| {
                invalid(format!("the key {key:?} is not text\nhelp: name one key in the path: {path}/{key}"))
            })?;
            entries.push((key.clone(), Value::String(Secret::new(text.to_owned()))));
        }
        Ok(Secret::new(Value::Mapping(entries).to_flow().expose().clone().into_bytes()))
    }
}

fn invalid(reason: impl Into<String>) -> FetchError {
    FetchError::new(Class::Invalid, reason)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kubernetes::Kubernetes;
    use crate::refs::sources::mock::{ambient, locator, told};
    use crate::web::mock::Mock;

    #[test]
    fn an_object_has_one_spelling() {
        for (path, expected) in [
            ("v1/Secret/team/db/password", Ok(())),
            ("v1/ConfigMap/team/app.v1/conf.yaml", Ok(())),
            ("v1/Secret/team/db", Ok(())),
            ("v1/Secret/team/db/_.A-1", Ok(())),
            ("v1/Secret/team/db/", Err("the key is not one")),
            ("v1/Secret/team/db/..", Err("the key is not one")),
            ("v1/Secret/team/../password", Err("the name is not one")),
            ("v1/Secret/../db/password", Err("the namespace is not one")),
            ("v1/Secret/Team/db/password", Err("the namespace is not one")),
            ("v1/Secret/team/db%2Fx/password", Err("the name is not one")),
            ("v1/Secret/team/db?x/password", Err("the name is not one")),
            ("v1/Secret/team/db/a/b", Err("it must be v1/Secret/namespace/name/key")),
            ("/v1/Secret/team/db", Err("the version of")),
            ("v1/Secret/team", Err("it must be v1/Secret/namespace/name/key")),
            ("v2/Secret/team/db/password", Err("the version of")),
            ("v1/secret/team/db/password", Err("the kind is neither")),
            ("v1/Pod/team/db/password", Err("the kind is neither")),
        ] {
            match (normalise(&Scope::default(), path, &Params::new()), expected) {
                (Ok(normalised), Ok(())) => assert_eq!(normalised, path),
                (Err(error), Err(reason)) => {
                    assert_eq!(error.class, Class::Invalid);
                    assert!(error.reason.starts_with(reason), "{path}: {}", error.reason);
                }
                (outcome, _) => panic!("{path}: {outcome:?}"),
            }
        }
    }

    fn source(mock: &Mock) -> Arc<dyn Source> {
        let kubernetes = Arc::new(Kubernetes::mocked(&mock.url, "STRONGROOM-MARKER-token"));
        open(&Params::new(), &Ambient { kubernetes, ..ambient(&[], &[]) }).unwrap()
    }

    fn answer(path: &str) -> (u16, String) {
        let body = match path {
            "/api/v1/namespaces/team/secrets/db" => {
                json!({"kind": "Secret", "data": {"password": STANDARD.encode("STRONGROOM p"), "port": "NTQzMg=="}})
            }
            "/api/v1/namespaces/team/secrets/mixed" => json!({"data": {"a": "YQ==", "bytes": "/w=="}}),
            "/api/v1/namespaces/team/secrets/empty" => json!({"metadata": {}}),
            "/api/v1/namespaces/team/secrets/broken" => json!({"data": {"a": "STRONGROOM-MARKER"}}),
            "/api/v1/namespaces/team/configmaps/app" => {
                json!({"data": {"a.yaml": "b: 1\n"}, "binaryData": {"bytes": "/w=="}})
            }
            "/api/v1/namespaces/shut/secrets/db" => {
                let message = format!("secrets \"db\" is forbidden:\n{}", "x".repeat(500));
                return (403, json!({"kind": "Status", "message": message}).to_string());
            }
            _ => return (404, json!({"message": "secrets \"x\" not found"}).to_string()),
        };
        (200, body.to_string())
    }

    #[tokio::test]
    async fn every_object_of_a_mock_is_asked_for_once_whatever_is_wanted_of_it() {
        let mock = Mock::start(|request| answer(&request.path)).await;
        let encoded = [("encode", "base64")];
        let mut expected = Vec::new();
        let mut at = Vec::new();
        for (path, fragment, params, answer) in [
            ("v1/Secret/team/db/password", false, &[] as &[_], "STRONGROOM p"),
            ("v1/Secret/team/db/port", false, &[], "5432"),
            ("v1/Secret/team/db/port", false, &encoded, "NTQzMg=="),
            ("v1/Secret/team/db", false, &[], r#"{"password": "STRONGROOM p", "port": "5432"}"#),
            ("v1/Secret/team/db", true, &[], r#"{"password": "STRONGROOM p", "port": "5432"}"#),
            ("v1/Secret/team/db/absent", false, &[], "NotFound: no key \"absent\" in v1/Secret/team/db"),
            ("v1/Secret/team/empty", false, &[], "{}"),
            ("v1/Secret/team/mixed/a", false, &[], "a"),
            ("v1/Secret/team/mixed/bytes", false, &encoded, "/w=="),
            (
                "v1/Secret/team/mixed",
                true,
                &[],
                "Invalid: the key \"bytes\" is not text\nhelp: name one key in the path: v1/Secret/team/mixed/bytes",
            ),
            (
                "v1/Secret/team/mixed",
                false,
                &encoded,
                "Invalid: option encode is for a key that the path names",
            ),
            (
                "v1/Secret/team/mixed/a",
                true,
                &encoded,
                "Invalid: option encode works without a fragment only",
            ),
            (
                "v1/Secret/team/mixed/a",
                false,
                &[("encode", "x")],
                "Invalid: option encode is neither raw nor base64",
            ),
            ("v1/ConfigMap/team/app/a.yaml", true, &[], "b: 1\n"),
            ("v1/ConfigMap/team/app", false, &[], r#"{"a.yaml": "b: 1\n"}"#),
            ("v1/ConfigMap/team/app/bytes", false, &encoded, "/w=="),
            (
                "v1/Secret/team/broken/a",
                false,
                &[],
                "Invalid: what Kubernetes answers for v1/Secret/team/broken is not what it should be",
            ),
            ("v1/Secret/team/none/a", false, &[], "NotFound: Kubernetes has nothing at v1/Secret/team/none"),
        ] {
            at.push(locator(path, fragment, params));
            expected.push(answer.to_owned());
        }
        assert_eq!(told(source(&mock).fetch(&Scope::default(), &at).await), expected);
        assert_eq!(mock.seen().len(), 6, "one request an object");
    }

    #[tokio::test]
    async fn a_denial_of_a_mock_says_the_servers_sentence_and_a_new_login_is_tried_once() {
        let mock = Mock::start(|request| match request.path.as_str() {
            "/api/v1/namespaces/team/secrets/late" if request.number > 1 => (200, "{}".to_owned()),
            path if path.ends_with("/late") || path.ends_with("/never") => {
                (401, "STRONGROOM-MARKER".to_owned())
            }
            path => answer(path),
        })
        .await;
        let source = source(&mock);
        let ask = async |path: &str| {
            let answers = source.fetch(&Scope::default(), &[locator(path, false, &[])]).await;
            told(answers).remove(0)
        };
        let denied = ask("v1/Secret/shut/db/a").await;
        assert!(
            denied.starts_with(
                "Denied: Kubernetes says HTTP 403 for v1/Secret/shut/db: secrets \"db\" is forbidden:xxx"
            ),
            "{denied}"
        );
        assert!(denied.len() < 500, "{denied}");
        assert_eq!(ask("v1/Secret/team/late").await, "{}");
        assert_eq!(
            ask("v1/Secret/team/never").await,
            "Denied: Kubernetes says HTTP 401 for v1/Secret/team/never"
        );
        assert_eq!(mock.seen().iter().filter(|request| request.path.ends_with("/never")).count(), 2);
        assert!(mock.seen().iter().all(|request| request.header("user-agent").starts_with("strongroom/")));
    }

    #[test]
    fn an_option_that_is_no_switch_is_an_error() {
        for (said, ok) in [("true", true), ("false", false), ("1", false)] {
            let params = locator("", false, &[("inCluster", said)]).params;
            let kubernetes = Arc::new(Kubernetes::mocked("http://127.0.0.1:1", "t"));
            let opened = open(&params, &Ambient { kubernetes, ..ambient(&[], &[]) });
            assert_eq!(opened.map_err(|error| error.class).err(), (!ok).then_some(Class::Invalid), "{said}");
        }
    }
}
