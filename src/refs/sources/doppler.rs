//! `ref+doppler://project/config/NAME`: Doppler. All secrets of a config come with one request.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use serde::Deserialize;

use crate::document::value::Value;
use crate::fault::Class;
use crate::refs::ambient::Ambient;
use crate::refs::source::{
    Document, FetchError, Fragment, Locator, OpenError, Params, Scheme, SchemeOption, Source, without_dots,
};
use crate::refs::sources::grouped;
use crate::refs::sources::http::{self, Credential, Server, Text};
use crate::scope::Scope;
use crate::secret::Secret;

const ADDRESS: &str = "https://api.doppler.com";
/// In every config; not among its secrets unless said.
const DEFAULTS: [&str; 3] = ["DOPPLER_CONFIG", "DOPPLER_ENVIRONMENT", "DOPPLER_PROJECT"];

pub(crate) const SCHEME: Scheme = Scheme {
    name: "doppler",
    doc: "Doppler, with `DOPPLER_TOKEN`",
    examples: &[
        ("ref+doppler://shop/production/PASSWORD", "the secret `PASSWORD` of a config"),
        ("ref+doppler://shop/production/#/PASSWORD", "the same"),
        (
            "ref+doppler:////PASSWORD",
            "of the project and config that `DOPPLER_PROJECT` and `DOPPLER_ENVIRONMENT`, or the token, name",
        ),
        ("ref+doppler://shop/production/", "all of a config, as JSON"),
    ],
    connection: &[
        SchemeOption {
            name: "address",
            doc: "address of the API; one that the operator names with `DOPPLER_API_ADDR` or `STRONGROOM_ALLOW_ADDRESSES`",
        },
        SchemeOption { name: "host", doc: "host and port of the address" },
        SchemeOption { name: "proto", doc: "`http` or `https` (unless said), with `host`" },
        SchemeOption { name: "no_verify_tls", doc: "`false`; TLS is always verified" },
    ],
    document: &[
        SchemeOption { name: "project", doc: "project, where the path leaves it out" },
        SchemeOption { name: "config", doc: "config, where the path leaves it out" },
        SchemeOption {
            name: "include_doppler_defaults",
            doc: "`true`: all of a config are also the names that Doppler itself adds",
        },
    ],
    fragment: Fragment::Walks,
    normalise,
    open,
};

/// `project/config/name`, filled in from the options.
fn normalise(scope: &Scope, path: &str, params: &Params) -> Result<String, FetchError> {
    let path = without_dots(scope, path, params)?;
    let [project, config, name] = segments(&path)?;
    let or = |said: &str, option: &str| {
        let option = params.get(option).map_or("", String::as_str);
        if said.is_empty() { option.to_owned() } else { said.to_owned() }
    };
    let (project, config) = (or(project, "project"), or(config, "config"));
    Ok(format!("{project}/{config}/{name}"))
}

fn segments(path: &str) -> Result<[&str; 3], FetchError> {
    let segments: Vec<_> = path.split('/').collect();
    let malformed = "it must be project/config/name, of which each may be empty";
    segments.try_into().map_err(|_| FetchError::new(Class::Invalid, malformed))
}

fn open(params: &Params, ambient: &Ambient) -> Result<Arc<dyn Source>, OpenError> {
    let option = |name: &str| params.get(name).map(String::as_str);
    http::verified("no_verify_tls", option("no_verify_tls").is_none_or(|said| said == "false"))?;
    let of_host = option("host").map(|host| format!("{}://{host}", option("proto").unwrap_or("https")));
    let own = ambient.environment.get("DOPPLER_API_ADDR").unwrap_or(ADDRESS);
    let named = option("address").or(of_host.as_deref());
    let address = http::chosen(named, Some(own), "DOPPLER_API_ADDR", &ambient.addresses)?;
    let token = Credential::of(&ambient.environment, "DOPPLER_TOKEN", "authorization", "Bearer ")?;
    let variable = |name: &str| ambient.environment.get(name).unwrap_or_default().to_owned();
    Ok(Arc::new(Doppler {
        server: Server::open("Doppler", address, Some(token))?,
        project: variable("DOPPLER_PROJECT"),
        config: variable("DOPPLER_ENVIRONMENT"),
    }))
}

#[derive(Debug)]
struct Doppler {
    server: Server,
    project: String,
    config: String,
}

impl Source for Doppler {
    fn fetch<'a>(
        &'a self,
        _: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>> {
        let of = |locator: &'a Locator| {
            let [project, config, _] = segments(&locator.path)?;
            Ok(((project, config), locator))
        };
        let read = move |(project, config)| self.config(project, config);
        grouped::fetch(at, of, read, Secrets::pick).boxed()
    }

    fn is_same_for_all(&self) -> bool {
        true
    }
}

#[derive(Deserialize)]
struct Secrets {
    secrets: BTreeMap<String, Computed>,
}

#[derive(Deserialize)]
struct Computed {
    computed: Option<Text>,
}

impl Doppler {
    async fn config<'a>(&'a self, project: &'a str, config: &'a str) -> Result<Secrets, FetchError> {
        let or = |said: &'a str, own: &'a str| if said.is_empty() { own } else { said };
        let (project, config) = (or(project, &self.project), or(config, &self.config));
        let query = [("project", project), ("config", config), ("include_dynamic_secrets", "false")];
        let query: Vec<_> = query.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let url = self.server.url(["v3", "configs", "config", "secrets"], &query);
        self.server.json(url, &format!("{project}/{config}")).await
    }
}

impl Secrets {
    fn pick(&self, at: &Locator) -> Result<Document, FetchError> {
        let [_, _, name] = segments(&at.path)?;
        if name.is_empty() {
            let defaults = at.params.get("include_doppler_defaults").is_some_and(|said| said == "true");
            return Ok(self.all(defaults));
        }
        let secret = self.secrets.get(name);
        let secret =
            secret.ok_or_else(|| FetchError::not_found(format!("Doppler has nothing at {}", at.path)))?;
        let hidden = || FetchError::new(Class::Denied, format!("Doppler hides the value of {}", at.path));
        Ok(secret.computed.as_ref().ok_or_else(hidden)?.document())
    }

    fn all(&self, defaults: bool) -> Document {
        let mut entries = Vec::new();
        for (name, secret) in &self.secrets {
            if let Some(Text(text)) = &secret.computed
                && (defaults || !DEFAULTS.contains(&name.as_str()))
            {
                entries.push((name.clone(), Value::String(text.clone())));
            }
        }
        Secret::new(Value::Mapping(entries).to_flow().expose().clone().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::refs::sources::mock::{ambient, locator, told};
    use crate::web::mock::Mock;

    #[test]
    fn a_secret_has_one_spelling() {
        for (path, params, expected) in [
            ("shop/prod/A", &[] as &[_], Ok("shop/prod/A")),
            ("//A", &[("project", "shop"), ("config", "prod")], Ok("shop/prod/A")),
            ("shop//A", &[("project", "other")], Ok("shop//A")),
            ("//", &[], Ok("//")),
            ("A", &[], Err(Class::Invalid)),
            ("shop/../A", &[], Err(Class::Invalid)),
        ] {
            let normalised = normalise(&Scope::default(), path, &locator(path, false, params).params);
            assert_eq!(normalised.map_err(|error| error.class), expected.map(str::to_owned), "{path}");
        }
    }

    #[tokio::test]
    async fn a_config_is_read_once_from_a_mock() {
        let mock = Mock::start(|request| {
            let secret = |text: &str| json!({"raw": "${RAW}", "computed": text});
            assert_eq!(request.header("authorization"), "Bearer STRONGROOM-MARKER");
            let secrets = json!({"A": secret("one"), "B": secret("2"), "HIDDEN": {"computed": null}, "DOPPLER_CONFIG": secret("prod")});
            (200, json!({"secrets": secrets}).to_string())
        })
        .await;
        let variables = [
            ("DOPPLER_API_ADDR", mock.url.as_str()),
            ("DOPPLER_TOKEN", "STRONGROOM-MARKER"),
            ("DOPPLER_PROJECT", "own"),
        ];
        let source = open(&Params::new(), &ambient(&variables, &[])).unwrap();
        let at = [
            locator("shop/prod/A", false, &[]),
            locator("shop/prod/B", false, &[]),
            locator("shop/prod/", false, &[]),
            locator("//DOPPLER_CONFIG", false, &[]),
            locator("shop/prod/", false, &[("include_doppler_defaults", "true")]),
            locator("shop/prod/C", false, &[]),
            locator("shop/prod/HIDDEN", false, &[]),
        ];
        let answers = told(source.fetch(&Scope::default(), &at).await);
        assert_eq!(
            answers,
            [
                "one",
                "2",
                r#"{"A": "one", "B": "2"}"#,
                "prod",
                r#"{"A": "one", "B": "2", "DOPPLER_CONFIG": "prod"}"#,
                "NotFound: Doppler has nothing at shop/prod/C",
                "Denied: Doppler hides the value of shop/prod/HIDDEN",
            ]
        );
        let asked: Vec<_> = mock.seen().into_iter().map(|request| request.path).collect();
        let path = |query: &str| format!("/v3/configs/config/secrets?{query}include_dynamic_secrets=false");
        assert!(asked.contains(&path("project=own&")) && asked.contains(&path("project=shop&config=prod&")));
        assert_eq!(asked.len(), 2);
    }

    #[test]
    fn the_token_goes_to_the_operators_address_only() {
        let with = |params: &[(&str, &str)]| {
            let variables = [("DOPPLER_TOKEN", "STRONGROOM-MARKER")];
            let ambient = ambient(&variables, &["https://doppler.example"]);
            open(&locator("", false, params).params, &ambient).map(drop).map_err(|error| error.class)
        };
        assert_eq!(with(&[]), Ok(()));
        assert_eq!(with(&[("host", "doppler.example")]), Ok(()));
        assert_eq!(with(&[("host", "doppler.example"), ("proto", "http")]), Err(Class::Denied));
        assert_eq!(with(&[("address", "https://evil.example")]), Err(Class::Denied));
        assert_eq!(with(&[("no_verify_tls", "true")]), Err(Class::Invalid));
        let none = open(&Params::new(), &ambient(&[], &[])).unwrap_err();
        assert_eq!(none.reason, "no credentials\nhelp: the operator sets DOPPLER_TOKEN");
    }
}
