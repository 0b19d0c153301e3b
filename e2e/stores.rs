//! Stores beyond those of `vals.rs`: the same reference has the same value here and in the real vals, on the same server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, VersioningConfiguration,
};
use axum::http::{StatusCode, Uri};
use serde_json::{Value as Json, json};
use strongroom::aws::{Aws, Connection};
use strongroom::environment::Environment;
use strongroom::fault::Fault;
use strongroom::google::Google;
use strongroom::policy::AllowList;
use strongroom::refs::ambient::Ambient;
use strongroom::refs::grammar::Expression;
use strongroom::refs::resolve::Resolver;
use strongroom::scope::Scope;
use strongroom::sops::open::OpenOptions;
use support::fake_aws::{FakeSecretsManager, certificates};
use support::moto::{self, Moto};
use support::process::Run;
use support::product::strongroom;
use support::proxy::Proxy;
use support::repository::Repository;
use support::tools::tool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

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
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
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
        "/apps.json" | "/apps.json?team=a" => json!([
            {"name": "one", "id": 7, "large": 251_296_379, "nodes": ["a", "b"], "owner": {"login": "h"}, "none": null},
            {"name": "STRONGROOM-MARKER-h", "id": 5, "float": 1.5, "owner": {"login": "z", "name": "deep"}, "on": true, "empty": []},
        ]),
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

/// GitLab behind TLS, as far as one variable goes; the address, and the authority to trust it by.
async fn mock_gitlab_behind_tls() -> (String, String) {
    let (authority, config) = certificates(&["127.0.0.1", "gitlab.example"]);
    let (tls, listener) = (TlsAcceptor::from(config), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // A client that does not trust the certificate breaks off, which is not this server's failure.
            let Ok(mut connection) = tls.accept(connection).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert!(connection.read_buf(&mut request).await.unwrap() > 0, "a request is whole");
            }
            let body = json!({"value": "STRONGROOM-MARKER-p"}).to_string();
            let head =
                format!("HTTP/1.1 200 -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            connection.write_all((head + &body).as_bytes()).await.unwrap();
            connection.shutdown().await.ok();
        }
    });
    (host, authority)
}

/// A hole of vals, which verifies exactly where it is told not to.
#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_a_mock_of_gitlab_is_verified_always() {
    let (host, authority) = mock_gitlab_behind_tls().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority).unwrap();
    let reference = |option: &str| format!("ref+gitlab://{host}/17/PASSWORD{option}");
    let get = |program: Run, option: &str| {
        let run = program.args(["get", &reference(option)]).env("GITLAB_TOKEN", "STRONGROOM-MARKER");
        run.env("STRONGROOM_ALLOW_ADDRESSES", format!("https://{host}"))
    };
    for option in ["", "?ssl_verify=true"] {
        let said = get(strongroom(), option).fails();
        assert!(said.contains("GitLab cannot be reached: ") && said.contains("certificate"), "{said}");
        assert!(!said.contains("MARKER"), "{said}");
        let trusted = get(strongroom(), option).env("SSL_CERT_FILE", &file).ok();
        assert_eq!(trusted.trim_end(), "STRONGROOM-MARKER-p");
    }
    let said = get(strongroom(), "?ssl_verify=false").env("SSL_CERT_FILE", &file).fails();
    assert!(
        said.contains("option ssl_verify: certificates are always verified\nhelp: SSL_CERT_FILE"),
        "{said}"
    );
    let vals = get(Run::new(tool("vals")), "").env("HOME", folder.path()).ok();
    assert_eq!(vals, "STRONGROOM-MARKER-p", "vals does not verify");
}

/// The client of stores without an SDK, and AWS's own.
#[tokio::test(flavor = "multi_thread")]
async fn mocks_elsewhere_are_reached_through_the_proxy_of_the_operator_unless_it_is_not_for_them() {
    let (gitlab, authority) = mock_gitlab_behind_tls().await;
    let secrets = [("team/db".to_owned(), "STRONGROOM-MARKER-a".to_owned())];
    let aws = FakeSecretsManager::start_tls("secretsmanager.eu-west-1.amazonaws.com", &secrets);
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("ca.pem");
    std::fs::write(&trusted, format!("{authority}\n{}", aws.authority())).unwrap();
    let port = |host: &str| host.rsplit_once(':').unwrap().1.parse().unwrap();
    let get = |reference: &str, proxy: &Proxy| {
        let run = strongroom().args(["get", reference]).env("HTTPS_PROXY", proxy.url());
        run.env("SSL_CERT_FILE", &trusted)
            .env("STRONGROOM_ALLOW_ADDRESSES", format!("https://gitlab.example,https://{gitlab}"))
            .env("GITLAB_TOKEN", "STRONGROOM-MARKER")
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "id")
            .env("AWS_SECRET_ACCESS_KEY", "STRONGROOM-MARKER")
    };
    for (reference, to, asked, value) in [
        (
            "ref+gitlab://gitlab.example/17/PASSWORD",
            port(&gitlab),
            "gitlab.example:443",
            "STRONGROOM-MARKER-p",
        ),
        (
            "ref+awssecrets://team/db",
            aws.port(),
            "secretsmanager.eu-west-1.amazonaws.com:443",
            "STRONGROOM-MARKER-a",
        ),
    ] {
        let proxy = Proxy::start(to);
        assert_eq!(get(reference, &proxy).ok().trim_end(), value);
        assert_eq!(proxy.asked(), [asked]);
        let straight = get(reference, &proxy).env("NO_PROXY", "gitlab.example,.amazonaws.com").fails();
        assert!(!straight.contains("MARKER"), "{straight}");
        assert!(proxy.asked().is_empty(), "{reference}");
    }
    let proxy = Proxy::start(1);
    let near = get(&format!("ref+gitlab://{gitlab}/17/PASSWORD"), &proxy).ok();
    assert_eq!(near.trim_end(), "STRONGROOM-MARKER-p", "this machine itself is reached straight");
    assert!(proxy.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn xpath_in_json_of_a_mock_means_the_same_here_and_in_vals() {
    let host = mock_stores().await;
    let url = format!("http://{host}");
    let world = World::new(&[]);
    let at = |xpath: &str| format!("httpjson://{host}/apps.json?insecure=true#/{xpath}");
    let integer = |xpath: &str| format!("httpjson://{host}/apps.json?insecure=true&floatAsInt=true#/{xpath}");
    let crash = "a Go panic";
    let rows = [
        (at("//*[1]/name"), Same(json!("one"))),
        (at("//*[2]/name"), Same(json!("STRONGROOM-MARKER-h"))),
        (at("/*[2]/id"), Same(json!("5"))),
        (at("*[2]/id"), Same(json!("5"))),
        (at("//*[last()]/name"), Same(json!("STRONGROOM-MARKER-h"))),
        (at("//*[position()=2]/id"), Same(json!("5"))),
        (at("//*[name='one']/id"), Same(json!("7"))),
        (at("//*[id=5]/name"), Same(json!("STRONGROOM-MARKER-h"))),
        (at("//*[id>5]/name"), Same(json!("one"))),
        (at("//*[id!=7]/id"), Same(json!("5"))),
        (at("//*[owner/login='z']/id"), Same(json!("5"))),
        (at("//*[.//login='z']/id"), Same(json!("5"))),
        (at("//*[contains(name,'MARKER')]/id"), Same(json!("5"))),
        (at("//*[starts-with(name,'STRONG')]/id"), Same(json!("5"))),
        (at("//*[not(nodes)][name]/id"), Same(json!("5"))),
        (at("//*[none='null']/id"), Same(json!("7"))),
        (at("//*[name][2]/id"), Same(json!("5"))),
        (at("//*[.='z']"), Same(json!("z"))),
        (at("//login[text()='z']"), Same(json!("z"))),
        (at("//owner/login"), Same(json!("h"))),
        (at("(//login)[2]"), Same(json!("z"))),
        (at("//nodes"), Same(json!("a,b"))),
        (at("//nodes/*[2]"), Same(json!("b"))),
        (at("/*[1]/*[1]"), Same(json!("7"))),
        (at("//float"), Same(json!("1.5"))),
        (at("//on"), Same(json!("true"))),
        (integer("//float"), Same(json!("2"))),
        (integer("//large"), Same(json!("251296379"))),
        (at("//large"), Ours(Ok(json!("251296379")), "2.51296379e+08")),
        (at("//none"), Ours(Err("not_found".into()), "the text <nil>")),
        (at("/*[1]/owner"), Ours(Err("invalid".into()), "the only entry of a map stands for it")),
        (at("//name/text()"), Ours(Ok(json!("one")), crash)),
        (at("//*[name=%27one%27]/id"), Ours(Ok(json!("7")), "a percent-encoded fragment crashes")),
        (at("//*[id=5%20and%20on='true']/name"), Ours(Ok(json!("STRONGROOM-MARKER-h")), crash)),
        (at("//name|//id"), Ours(Err("invalid".into()), "one of both, which is not told")),
        (at("//login/.."), Ours(Err("invalid".into()), "the only entry of a map stands for it")),
        (at("//empty"), Fails("invalid")),
        (at("/*[2]/owner"), Fails("invalid")),
        (at("//*"), Fails("invalid")),
        (at("//absent"), Fails("not_found")),
        (at("/name"), Fails("not_found")),
        (at("//*[3]/name"), Fails("not_found")),
        (at("count(//*)"), Fails("invalid")),
        (at("//9"), Fails("invalid")),
        (at("//a["), Fails("invalid")),
        (integer("//*[1]/name"), Fails("invalid")),
        (format!("httpjson://{host}/apps.json?insecure=true&team=a#///*[1]/id"), Same(json!("7"))),
        (format!("httpjson://{host}/absent.json?insecure=true#///*[1]/id"), Fails("not_found")),
        (
            format!("httpjson://{host}/absent.json?insecure=true#//message"),
            Ours(Err("not_found".into()), "the error page's"),
        ),
        (format!("httpjson://{host}/apps.json#///*[1]/id"), Fails("denied")),
        ("httpjson://localhost:1/apps.json?insecure=true#///*[1]/id".into(), Fails("denied")),
    ];
    world.check(&[&url], rows.into()).await;
    let resolver = world.resolver(&[&url]);
    let whole = world.ours(&resolver, &format!("httpjson://{host}/apps.json?insecure=true")).await.unwrap();
    assert!(whole.as_str().unwrap().contains("STRONGROOM-MARKER-h"), "vals refuses one without XPath");
}

/// What Terraform would have written.
fn state() -> Json {
    let managed = |module: &str, name: &str, instances: Json| {
        json!({"module": module, "mode": "managed", "type": "aws_subnet", "name": name,
               "provider": "provider[\"registry.opentofu.org/hashicorp/aws\"]", "instances": instances})
    };
    json!({
        "version": 4, "terraform_version": "1.9.0", "serial": 3, "lineage": "0",
        "outputs": {
            "password": {"value": "STRONGROOM-MARKER", "type": "string", "sensitive": true},
            "db": {"value": {"port": 5432, "hosts": ["a", "b"], "dash-ed": true}, "type": ["object", {}]},
            "a": {"value": "short", "type": "string"},
            "ab": {"value": "long", "type": "string"},
        },
        "resources": [
            managed("", "main", json!([{"attributes": {"id": "subnet-m", "arn": null}}])),
            managed("module.vpc", "this", json!([
                {"index_key": 0, "attributes": {"id": "subnet-0"}},
                {"index_key": 1, "attributes": {"id": "subnet-1"}},
            ])),
            managed("", "each", json!([
                {"index_key": "a.b", "attributes": {"id": "subnet-ab"}},
                {"index_key": "c/d", "attributes": {"id": "subnet-cd"}},
            ])),
            {"mode": "data", "type": "aws_caller_identity", "name": "me", "provider": "p",
             "instances": [{"attributes": {"account_id": "123456789012"}}]},
            {"mode": "data", "type": "terraform_remote_state", "name": "net", "provider": "p", "instances": [
                {"attributes": {"outputs": {"value": {"id": "vpc-9"}, "type": ["object", {"id": "string"}]}}}]},
        ],
    })
}

/// Rows that hold of a state wherever it is; `at` is the state.
fn rows_of_state(at: &str) -> Vec<(String, Expect)> {
    let null = "absent is the text null";
    let rows = [
        ("output.password", Same(json!("STRONGROOM-MARKER"))),
        ("output.db.port", Same(json!("5432"))),
        ("output.db.hosts[1]", Same(json!("b"))),
        ("output.db.dash-ed", Same(json!("true"))),
        ("output.db", Ours(Ok(state()["outputs"]["db"]["value"].to_string().into()), "JSON without spaces")),
        ("output.db#/port", Ours(Ok(json!(5432)), "there are no fragments")),
        ("output.ab", Same(json!("long"))),
        ("output.abc", Ours(Err("not_found".into()), null)),
        ("output.absent", Ours(Err("not_found".into()), null)),
        ("output.db.absent", Ours(Err("not_found".into()), null)),
        ("aws_subnet.main.id", Same(json!("subnet-m"))),
        ("aws_subnet.main.arn", Ours(Err("not_found".into()), null)),
        ("module.vpc.aws_subnet.this[1].id", Same(json!("subnet-1"))),
        ("module.vpc.aws_subnet.this[2].id", Ours(Err("not_found".into()), null)),
        (r#"aws_subnet.each["a.b"].id"#, Same(json!("subnet-ab"))),
        ("aws_subnet.each[%22a.b%22].id", Same(json!("subnet-ab"))),
        (r#"aws_subnet.each["c/d"].id"#, Ours(Ok(json!("subnet-cd")), "a / always ends the path")),
        ("data.aws_caller_identity.me.account_id", Same(json!("123456789012"))),
        ("data.terraform_remote_state.net.outputs.id", Same(json!("vpc-9"))),
    ];
    rows.into_iter().map(|(address, expect)| (format!("{at}/{address}"), expect)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn references_to_states_in_the_repository_mean_the_same_here_and_in_vals() {
    let repository = Repository::new();
    repository.write("infra/terraform.tfstate", state().to_string().as_str());
    repository.write("infra/old.tfstate", r#"{"version": 3, "modules": []}"#);
    repository.write("infra/backend.tfstate", r#"{"version": 3, "backend": {"type": "s3", "config": {}}}"#);
    let world = World { repository: Some(repository), ..World::new(&[]) };
    let mut rows = rows_of_state("tfstate://infra/terraform.tfstate");
    rows.extend([
        ("tfstate://infra/absent.tfstate/output.a".into(), Fails("not_found")),
        ("tfstate://infra/old.tfstate/output.a".into(), Fails("invalid")),
        ("tfstate://infra/backend.tfstate/output.a".into(), Fails("invalid")),
        ("tfstate://../terraform.tfstate/output.a".into(), Fails("denied")),
        ("tfstate://terraform.tfstate".into(), Fails("invalid")),
    ]);
    world.check(&[], rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn references_to_s3_mean_the_same_here_and_in_vals() {
    let moto = Moto::start();
    let s3 = s3(&moto).await;
    put(&s3, "team/terraform.tfstate", &state().to_string()).await;
    let first = put(&s3, "team/db.yaml", "user: me\npassword: STRONGROOM-MARKER-1\n").await;
    put(&s3, "team/db.yaml", "user: me\npassword: STRONGROOM-MARKER-2\n").await;
    let mut environment = moto.environment();
    // The one for states; and vals asks for a host of the bucket's name, which only a proxy finds.
    environment.extend(["AWS_ENDPOINT_URL_S3", "HTTP_PROXY"].map(|name| (name, moto.url())));
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let world = World { aws: Arc::new(emulated(&moto)), ..World::new(&environment) };
    let mut rows = rows_of_state("tfstates3://bucket/team/terraform.tfstate");
    rows.extend([
        ("tfstates3://bucket/team/absent/output.a".into(), Fails("not_found")),
        ("s3://bucket/team/db.yaml#/password".into(), Same(json!("STRONGROOM-MARKER-2"))),
        ("s3://bucket/team/db.yaml".into(), Same(json!("user: me\npassword: STRONGROOM-MARKER-2\n"))),
        (
            format!("s3://bucket/team/db.yaml?version_id={first}#/password"),
            Same(json!("STRONGROOM-MARKER-1")),
        ),
        (format!("s3://bucket/team/db.yaml?version={first}#/password"), Same(json!("STRONGROOM-MARKER-1"))),
        ("s3://bucket/team/db.yaml#/absent".into(), Fails("not_found")),
        ("s3://bucket/team/absent".into(), Fails("not_found")),
        ("s3://nobucket/team/absent".into(), Fails("not_found")),
        ("s3://bucket".into(), Fails("invalid")),
    ]);
    world.check(&[], rows).await;
}

fn emulated(moto: &Moto) -> Aws {
    Aws::emulated(moto.url(), moto::REGION, Credentials::new("test", "test", None, None, "moto"))
}

/// With a versioned bucket called `bucket`.
async fn s3(moto: &Moto) -> Client {
    let client =
        Client::new(&emulated(moto).config(&Connection::default()).await.expect("nothing is read for it"));
    let here =
        CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuWest1).build();
    client.create_bucket().bucket("bucket").create_bucket_configuration(here).send().await.expect("made");
    let versions = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    client
        .put_bucket_versioning()
        .bucket("bucket")
        .versioning_configuration(versions)
        .send()
        .await
        .expect("set");
    client
}

/// Gives the id of the version.
async fn put(client: &Client, key: &str, text: &str) -> String {
    let body = text.as_bytes().to_vec().into();
    let put = client.put_object().bucket("bucket").key(key).body(body).send().await;
    put.expect("it is put").version_id.expect("the bucket is versioned")
}

/// What both are told of the operator.
struct World {
    environment: BTreeMap<String, String>,
    aws: Arc<Aws>,
    /// Where both are started.
    repository: Option<Repository>,
}

impl World {
    fn new(environment: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { environment: environment.iter().map(own).collect(), aws: Arc::default(), repository: None }
    }

    async fn check(&self, addresses: &[&str], rows: Vec<(String, Expect)>) {
        let resolver = self.resolver(addresses);
        let mut wrong = Vec::new();
        for (reference, expect) in rows {
            let (ours, theirs) = (self.ours(&resolver, &reference).await, self.vals(&reference));
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
            aws: Arc::clone(&self.aws),
            azure: Arc::default(),
            google: Arc::new(Google::new(self.environment.clone().into_iter().collect())),
            kubernetes: Arc::default(),
            vault: Arc::default(),
            keyring: Arc::default(),
            sops: OpenOptions::default(),
            envsubst: None,
        };
        Resolver::new(ambient, Arc::new(AllowList::everything()))
    }

    async fn ours(&self, resolver: &Resolver, reference: &str) -> Outcome {
        let directory = self.repository.as_ref().map(Repository::path);
        let scope = Scope { repository: directory.clone(), directory, ..Scope::default() };
        let expression = Expression::parse(&format!("ref+{reference}")).expect(reference);
        let value = resolver.resolve(&scope, &[&expression]).await.remove(0);
        let value = value.map_err(|errors| errors[0].class().label().to_owned())?;
        Ok(serde_json::from_str(value.to_flow().expose()).expect("a flow value is JSON"))
    }

    fn vals(&self, reference: &str) -> Outcome {
        let run = Run::new(tool("vals")).args(["eval", "-o", "json", "-f", "-"]);
        let run = match &self.repository {
            Some(repository) => run.directory(repository.path()),
            None => run,
        };
        let run = run.stdin(format!("a: ref+{reference}\n"));
        let output = run.env("PATH", "/usr/bin:/bin").envs(self.environment.clone()).output();
        if !output.status.success() {
            return Err(output.stderr);
        }
        let mut document: Json = serde_json::from_str(&output.stdout).expect("vals prints JSON");
        Ok(document["a"].take())
    }
}

/// JSON inside a text without regard to its spaces.
fn spaced(outcome: &Outcome) -> Outcome {
    let text = outcome.as_ref().ok().and_then(Json::as_str);
    text.and_then(|text| serde_json::from_str(text).ok()).map_or_else(|| outcome.clone(), Ok)
}
