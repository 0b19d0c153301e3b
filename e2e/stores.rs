//! Stores beyond those of `vals.rs`: the same reference has the same value here and in the real vals, on the same server.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{StatusCode, Uri};
use serde_json::{Value as Json, json};
use strongroom::environment::Environment;
use strongroom::fault::Fault;
use strongroom::google::Google;
use strongroom::policy::AllowList;
use strongroom::refs::ambient::Ambient;
use strongroom::refs::grammar::Expression;
use strongroom::refs::resolve::Resolver;
use strongroom::scope::Scope;
use strongroom::sops::open::OpenOptions;
use support::process::Run;
use support::tools::tool;

/// A value, or the label of the failure's class.
type Outcome = Result<Json, String>;

/// What both are to say of a reference.
enum Expect {
    Same(Json),
    /// Ours alone, and what vals does instead.
    Ours(Outcome, &'static str),
    /// The class of our error; vals fails too.
    Fails(&'static str),
}

use Expect::{Fails, Ours, Same};

/// GitLab, Doppler, 1Password Connect and Google Cloud Storage, as far as they are asked here.
async fn mock_stores() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let host = listener.local_addr().expect("it is bound").to_string();
    let router = axum::Router::new().fallback(async |uri: Uri| match answer(&uri.to_string()) {
        Some(body) => (StatusCode::OK, body.to_string()),
        None => (StatusCode::NOT_FOUND, json!({"message": "404 Not Found"}).to_string()),
    });
    tokio::spawn(async { axum::serve(listener, router).await.expect("it is served until the test ends") });
    host
}

fn answer(path: &str) -> Option<Json> {
    let secret = |text: &str| json!({"raw": text, "computed": text});
    let vault = "/v1/vaults/abcdefghijklmnopqrstuvwxyz";
    Some(match path {
        "/api/v4/projects/17/variables/PASSWORD" => {
            json!({"key": "PASSWORD", "value": "STRONGROOM-MARKER-p"})
        }
        "/api/v4/groups/3/variables/CONFIG" => {
            json!({"key": "CONFIG", "value": "db: {user: me, port: 5432}\n"})
        }
        doppler if doppler.starts_with("/v3/configs/config/secrets?") => {
            let config = if doppler.contains("config=other") { "other" } else { "STRONGROOM-MARKER-d" };
            json!({"secrets": {"A": secret(config), "DOPPLER_CONFIG": secret("prod")}})
        }
        "/v1/vaults?filter=title+eq+%22Team%22" => {
            json!([{"id": "abcdefghijklmnopqrstuvwxyz", "name": "Team"}])
        }
        // Asked for here, and by Google's own library in vals.
        "/storage/v1/b/bucket/o/a%2Fb.yaml?alt=media" | "/bucket/a%2Fb.yaml" => {
            json!({"user": "STRONGROOM-MARKER-g"})
        }
        path if path == format!("{vault}/items?filter=title+eq+%22db%22") => {
            json!([{"id": "0123456789abcdefghijklmnop", "vault": {"id": "abcdefghijklmnopqrstuvwxyz"}}])
        }
        path if path == format!("{vault}/items/0123456789abcdefghijklmnop") => json!({
            "id": "0123456789abcdefghijklmnop",
            "fields": [
                {"id": "password", "label": "pass", "value": "STRONGROOM-MARKER-o"},
                {"id": "f2", "label": "password", "value": "two", "section": {"id": "s1", "label": "replica"}},
            ],
        }),
        _ => return None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn references_to_a_mock_of_http_stores_mean_the_same_here_and_in_vals() {
    let host = mock_stores().await;
    let url = format!("http://{host}");
    let world = World::new(&[
        ("GITLAB_TOKEN", "STRONGROOM-MARKER"),
        ("DOPPLER_TOKEN", "STRONGROOM-MARKER"),
        ("DOPPLER_API_ADDR", &url),
        ("STORAGE_EMULATOR_HOST", &url),
        ("GOOGLE_OAUTH_ACCESS_TOKEN", "STRONGROOM-MARKER"),
        ("OP_CONNECT_HOST", &url),
        ("OP_CONNECT_TOKEN", "STRONGROOM-MARKER"),
    ]);
    let gitlab = |rest: &str| format!("gitlab://{host}/{rest}?scheme=http");
    let item = json!({
        "f2": "two", "pass": "STRONGROOM-MARKER-o", "password": "STRONGROOM-MARKER-o",
        "replica.f2": "two", "replica.password": "two", "s1.f2": "two", "s1.password": "two",
    });
    let text = |json: &str| Ok(Json::from(json));
    let rows = [
        (gitlab("17/PASSWORD"), Same(json!("STRONGROOM-MARKER-p"))),
        (gitlab("projects/17/PASSWORD"), Same(json!("STRONGROOM-MARKER-p"))),
        (gitlab("groups/3/CONFIG") + "#/db/port", Same(json!(5432))),
        (gitlab("groups/3/CONFIG") + "#/db/absent", Fails("not_found")),
        (gitlab("users/3/CONFIG"), Fails("invalid")),
        (gitlab("17/ABSENT"), Ours(Err("not_found".into()), "an error is the empty text")),
        (format!("gitlab://{host}/17/PASSWORD"), Fails("denied")),
        ("doppler://shop/prod/A".into(), Same(json!("STRONGROOM-MARKER-d"))),
        ("doppler:////A".into(), Same(json!("STRONGROOM-MARKER-d"))),
        ("doppler://shop/other/A".into(), Same(json!("other"))),
        ("doppler:////A?config=other".into(), Same(json!("other"))),
        ("doppler://shop/prod/#/A".into(), Same(json!("STRONGROOM-MARKER-d"))),
        ("doppler://shop/other/#/A".into(), Ours(text("other"), "a fragment forgets the config")),
        ("doppler://shop/prod/".into(), Ours(text(r#"{"A": "STRONGROOM-MARKER-d"}"#), "JSON without spaces")),
        ("doppler://shop/prod/?include_doppler_defaults#/DOPPLER_CONFIG".into(), Same(json!("prod"))),
        ("doppler://shop/prod/ABSENT".into(), Fails("not_found")),
        ("doppler://AB".into(), Fails("invalid")),
        ("onepasswordconnect://Team/db#/pass".into(), Same(json!("STRONGROOM-MARKER-o"))),
        ("onepasswordconnect://Team/db#/replica.password".into(), Same(json!("two"))),
        (
            "onepasswordconnect://abcdefghijklmnopqrstuvwxyz/0123456789abcdefghijklmnop#/s1.f2".into(),
            Same(json!("two")),
        ),
        ("gcs://bucket/a/b.yaml#/user".into(), Same(json!("STRONGROOM-MARKER-g"))),
        ("gcs://bucket/absent".into(), Fails("not_found")),
        ("gcs://bucket/a/b.yaml?generation=x".into(), Fails("invalid")),
        ("onepasswordconnect://Team/absent#/pass".into(), Fails("not_found")),
        ("onepasswordconnect://Team/db#/absent".into(), Fails("not_found")),
        ("onepasswordconnect://Team/db".into(), Ours(Ok(item.to_string().into()), "YAML")),
    ];
    world.check(&[&url], rows.into()).await;
}

/// What both are told of the operator.
struct World {
    environment: BTreeMap<String, String>,
}

impl World {
    fn new(environment: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { environment: environment.iter().map(own).collect() }
    }

    async fn check(&self, addresses: &[&str], rows: Vec<(String, Expect)>) {
        let resolver = self.resolver(addresses);
        let mut wrong = Vec::new();
        for (reference, expect) in rows {
            let (ours, theirs) = (evaluate(&resolver, &reference).await, self.vals(&reference));
            let right = match &expect {
                Same(value) => ours.as_ref() == Ok(value) && theirs.as_ref() == Ok(value),
                Ours(outcome, _) => spaced(&ours) == spaced(outcome) && theirs != ours,
                Fails(class) => ours.as_ref() == Err(&(*class).to_owned()) && theirs.is_err(),
            };
            if !right {
                let why = if let Ours(_, why) = expect { why } else { "the same" };
                wrong.push(format!("{reference}: {ours:?} here, {theirs:?} in vals, which should be: {why}"));
            }
        }
        assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }

    fn resolver(&self, addresses: &[&str]) -> Resolver {
        let ambient = Ambient {
            environment: self.environment.clone().into_iter().collect::<Environment>(),
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
            aws: Arc::default(),
            google: Arc::new(Google::new(self.environment.clone().into_iter().collect())),
            vault: Arc::default(),
            keyring: Arc::default(),
            sops: OpenOptions::default(),
            envsubst: None,
        };
        Resolver::new(ambient, Arc::new(AllowList::everything()))
    }

    fn vals(&self, reference: &str) -> Outcome {
        let run = Run::new(tool("vals")).args(["eval", "-o", "json", "-f", "-"]);
        let run = run.stdin(format!("a: ref+{reference}\n"));
        let output = run.env("PATH", "/usr/bin:/bin").envs(self.environment.clone()).output();
        if !output.status.success() {
            return Err(output.stderr);
        }
        let mut document: Json = serde_json::from_str(&output.stdout).expect("vals prints JSON");
        Ok(document["a"].take())
    }
}

async fn evaluate(resolver: &Resolver, reference: &str) -> Outcome {
    let expression = Expression::parse(&format!("ref+{reference}")).expect(reference);
    let value = resolver.resolve(&Scope::default(), &[&expression]).await.remove(0);
    let value = value.map_err(|errors| errors[0].class().label().to_owned())?;
    Ok(serde_json::from_str(value.to_flow().expose()).expect("a flow value is JSON"))
}

/// JSON inside a text without regard to its spaces.
fn spaced(outcome: &Outcome) -> Outcome {
    let text = outcome.as_ref().ok().and_then(Json::as_str);
    text.and_then(|text| serde_json::from_str(text).ok()).map_or_else(|| outcome.clone(), Ok)
}
