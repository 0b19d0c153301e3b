//! `ref+vault`, `ref+openbao` and SOPS files of transit, with the real OpenBao, the real vals and the real sops.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, SigningKey};

use serde_json::{Value as Json, json};
use strongroom::environment::Environment;
use strongroom::policy::AllowList;
use strongroom::refs::ambient::Ambient;
use strongroom::refs::resolve::Resolver;
use strongroom::sops::open::OpenOptions;
use strongroom::vault::{Settings, Vault};
use support::MARKER;
use support::beside_vals::{self, Row, assert_rows, resolve};
use support::openbao::Openbao;
use support::product::strongroom;
use support::repository::Repository;
use support::sops;

static SERVER: LazyLock<Openbao> = LazyLock::new(|| {
    let server = Openbao::start();
    let database = json!({"user": "me", "password": "STRONGROOM-MARKER one", "port": 5432, "on": true});
    server.write("secret/data/team/db", &json!({ "data": database }));
    server.write(
        "secret/data/team/db",
        &json!({"data": {"user": "me", "password": "STRONGROOM-MARKER two",
        "port": 5432, "big": 1_234_567_890_123_u64, "nested": {"a": [1, "x"]}, "file": "U1RST05HUk9PTQ=="}}),
    );
    server.write("secret/data/team/gone", &json!({"data": {"a": "STRONGROOM-MARKER"}}));
    server.call("DELETE", "secret/data/team/gone", MARKER, &Json::Null);
    server.write("secret/data/other/x", &json!({"data": {"a": "STRONGROOM-MARKER other"}}));
    server.write("old/team/db", &json!({"password": "STRONGROOM-MARKER old", "port": 5432}));
    server.write("sys/mounts/deep/kv", &json!({"type": "kv", "options": {"version": "2"}}));
    server.write("deep/kv/data/a/b", &json!({"data": {"c d": "STRONGROOM-MARKER deep"}}));
    server.write("sys/auth/approle", &json!({"type": "approle"}));
    server.write("sys/auth/userpass", &json!({"type": "userpass"}));
    server.policy("team", &["secret/data/team/*", "old/team/*", "auth/token/renew-self"]);
    server.policy("all", &["secret/data/*", "old/*"]);
    server
});

fn resolver(environment: &[(&str, &str)]) -> Resolver {
    let environment: Environment = environment.iter().copied().collect();
    let vault = Vault::new(environment.clone(), Settings::default());
    let ambient = Ambient {
        environment,
        addresses: Vec::new(),
        aws: Arc::default(),
        vault: Arc::new(vault),
        keyring: Arc::default(),
        sops: OpenOptions::default(),
        azure: Arc::default(),
        google: Arc::default(),
        kubernetes: Arc::default(),
        envsubst: None,
    };
    Resolver::new(ambient, Arc::new(AllowList::everything()))
}

fn vals(reference: &str) -> Result<Json, String> {
    beside_vals::vals(reference, |run| run.env("HOME", SERVER.home()).envs(SERVER.environment()))
}

fn rows() -> Vec<Row> {
    let (one, two) = (json!("STRONGROOM-MARKER one"), json!("STRONGROOM-MARKER two"));
    vec![
        ("ref+vault://secret/team/db/password", Ok(two.clone()), None),
        ("ref+vault://secret/team/db#/password", Ok(two.clone()), None),
        ("ref+vault://secret/team/db?version=1#/password", Ok(one.clone()), None),
        ("ref+vault://secret/team/db/password?version=1", Ok(one), None),
        ("ref+vault://old/team/db/password", Ok(json!("STRONGROOM-MARKER old")), None),
        ("ref+vault://old/team/db#/password", Ok(json!("STRONGROOM-MARKER old")), None),
        (
            "ref+vault://deep/kv/a/b#/c%20d",
            Ok(json!("STRONGROOM-MARKER deep")),
            Some("fragments are not decoded"),
        ),
        ("ref+vault://secret/team/db/port", Ok(json!("5432")), None),
        ("ref+vault://secret/team/db#/port", Ok(json!(5432)), Some("numbers become strings")),
        ("ref+vault://secret/team/db#/big", Ok(json!(1_234_567_890_123_u64)), Some("numbers become strings")),
        ("ref+vault://secret/team/db#/nested/a/1", Ok(json!("x")), Some("no indexes of lists")),
        ("ref+vault://secret/team/db/file?decode=base64", Ok(json!("STRONGROOM")), None),
        (
            "ref+vault://secret/team/absent#/a",
            Err("not_found: Vault has nothing at secret/team/absent"),
            None,
        ),
        ("ref+vault://secret/team/absent?default=x#/a", Ok(json!("x")), Some("no such option")),
        ("ref+vault://secret/team/db#/absent", Err("not_found: no key \"absent\""), None),
        ("ref+vault://secret/team/db/absent", Err("not_found: no field \"absent\""), None),
        (
            "ref+vault://secret/team/db?version=9#/password",
            Err("not_found: Vault has nothing at secret/team/db"),
            None,
        ),
        ("ref+vault://secret/team/gone#/a", Err("not_found: "), None),
        ("ref+vault://absent/team/db#/a", Err("not_found: "), None),
        (
            "ref+vault://old/team/db?version=1#/password",
            Err("invalid: the mount of old/team/db has no versions"),
            Some("ignores it"),
        ),
        (
            "ref+vault://auth/token/lookup-self#/id",
            Err("denied: it would tell Strongroom's own token"),
            Some("tells it"),
        ),
        ("ref+vault://secret/team/db?version=x#/a", Err("invalid: a version is a number"), None),
        (
            "ref+vault://secret/team/db?token_env=HOME#/a",
            Err("invalid: scheme vault has no option \"token_env\""),
            None,
        ),
        ("ref+vault://secret//db#/a", Err("invalid: a segment of the path is empty"), None),
    ]
}

#[tokio::test]
async fn references_mean_what_they_mean_to_vals_unless_the_row_says_so() {
    let environment = SERVER.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let resolver = resolver(&environment);
    assert_rows(&resolver, rows(), vals).await;
    let bao = self::resolver(&[
        ("BAO_ADDR", &SERVER.url()),
        ("VAULT_TOKEN", MARKER),
        ("VAULT_ADDR", "http://127.0.0.1:1"),
    ]);
    assert!(resolve(&bao, "ref+openbao://secret/team/db#/password").await.is_ok());
}

#[tokio::test]
async fn what_is_denied_is_denied_and_never_forgiven() {
    let token = SERVER.token("team", "10m");
    let (url, team) = (SERVER.url(), token.as_str());
    let team = resolver(&[("VAULT_ADDR", &url), ("VAULT_TOKEN", team)]);
    assert!(resolve(&team, "ref+vault://secret/team/db#/password").await.is_ok());
    let error = resolve(&team, "ref+vault://secret/other/x?optional=true#/a").await.unwrap_err();
    assert_eq!(error, "denied: Vault says HTTP 403 for secret/other/x: permission denied");
    assert!(!error.contains(&token));
    let wrong = resolver(&[("VAULT_ADDR", &url), ("VAULT_TOKEN", "STRONGROOM-MARKER-wrong")]);
    let error = resolve(&wrong, "ref+vault://secret/team/db#/password").await.unwrap_err();
    assert!(error.starts_with("denied: Vault says HTTP 403 for secret/team/db"), "{error}");
    let none = resolver(&[("VAULT_ADDR", &url)]);
    let error = resolve(&none, "ref+vault://secret/team/db#/password").await.unwrap_err();
    assert_eq!(error, "denied: no credentials for Vault\nhelp: the operator sets VAULT_TOKEN");
}

#[tokio::test]
async fn a_token_goes_to_no_address_that_the_operator_does_not_name() {
    let url = SERVER.url();
    let resolver = resolver(&[("VAULT_ADDR", &url), ("VAULT_TOKEN", MARKER)]);
    for option in ["address=http://127.0.0.1:9", "host=127.0.0.1:9&proto=http"] {
        let reference = format!("ref+vault://secret/team/db?{option}#/password");
        let error = resolve(&resolver, &reference).await.unwrap_err();
        assert!(
            error.starts_with("denied: http://127.0.0.1:9 is not an address that the operator names\nhelp: "),
            "{error}"
        );
    }
    let own = format!("ref+vault://secret/team/db?address={url}/#/password");
    assert!(resolve(&resolver, &own).await.is_ok());
}

#[tokio::test]
async fn a_login_is_kept_renewed_and_made_again() {
    let settings = json!({"token_policies": ["team"], "token_ttl": "2s", "token_max_ttl": "5s"});
    let (role, secret) = SERVER.approle("short", &settings);
    let url = SERVER.url();
    let approle = [
        ("VAULT_ADDR", url.as_str()),
        ("VAULT_AUTH_METHOD", "approle"),
        ("VAULT_ROLE_ID", &role),
        ("VAULT_SECRET_ID", &secret),
    ];
    let short = resolver(&approle);
    let password = "ref+vault://secret/team/db#/password";
    // Longer than one token can be renewed.
    for _ in 0..8 {
        assert!(resolve(&short, password).await.is_ok());
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(resolve(&short, password).await.is_ok(), "after its end");
    let wrong = resolver(&[approle[0], approle[1], approle[2], ("VAULT_SECRET_ID", "STRONGROOM-MARKER")]);
    let error = resolve(&wrong, "ref+vault://secret/team/db?optional=true#/password").await.unwrap_err();
    assert!(error.contains("the login failed: Vault says HTTP 400 for auth/approle/login"), "{error}");
}

#[tokio::test]
async fn a_login_that_was_revoked_is_made_again() {
    let (role, secret) = SERVER.approle("revoked", &json!({"token_policies": ["team"], "token_ttl": "1h"}));
    let url = SERVER.url();
    let revoked = resolver(&[
        ("VAULT_ADDR", &url),
        ("VAULT_AUTH_METHOD", "approle"),
        ("VAULT_ROLE_ID", &role),
        ("VAULT_SECRET_ID", &secret),
    ]);
    let password = "ref+vault://old/team/db#/password";
    assert!(resolve(&revoked, password).await.is_ok());
    // A login that is younger is not doubted.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for accessor in accessors("revoked") {
        SERVER.write("auth/token/revoke-accessor", &json!({ "accessor": accessor }));
    }
    assert_eq!(resolve(&revoked, password).await, Ok(json!("STRONGROOM-MARKER old")));
}

#[tokio::test]
async fn a_user_logs_in_with_the_password_of_a_file() {
    SERVER.write(
        "auth/userpass/users/me",
        &json!({"password": "STRONGROOM-MARKER", "token_policies": ["team"]}),
    );
    let file = SERVER.home().join("password");
    std::fs::write(&file, "STRONGROOM-MARKER\n").unwrap();
    let (url, file) = (SERVER.url(), file.to_str().unwrap());
    let user = resolver(&[
        ("VAULT_ADDR", &url),
        ("VAULT_AUTH_METHOD", "userpass"),
        ("VAULT_USERNAME", "me"),
        ("VAULT_PASSWORD_FILE", file),
    ]);
    assert!(resolve(&user, "ref+vault://secret/team/db#/password").await.is_ok());
}

/// The accessors of the tokens that `role` of approle has.
fn accessors(role: &str) -> Vec<Json> {
    let (_, all) = SERVER.call("LIST", "auth/token/accessors", MARKER, &Json::Null);
    let all = all["data"]["keys"].as_array().unwrap().iter();
    let of_role = |accessor: &&Json| {
        let asked = json!({ "accessor": accessor });
        let (_, token) = SERVER.call("POST", "auth/token/lookup-accessor", MARKER, &asked);
        token["data"]["meta"]["role_name"] == role
    };
    all.filter(of_role).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_renewed_while_nobody_asks() {
    let (role, secret) = SERVER.approle("idle", &json!({"token_policies": ["team"], "token_ttl": "3s"}));
    let url = SERVER.url();
    let idle = resolver(&[
        ("VAULT_ADDR", &url),
        ("VAULT_AUTH_METHOD", "approle"),
        ("VAULT_ROLE_ID", &role),
        ("VAULT_SECRET_ID", &secret),
    ]);
    let password = "ref+vault://secret/team/db#/password";
    assert!(resolve(&idle, password).await.is_ok());
    let before = accessors("idle");
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!((before.len(), accessors("idle")), (1, before.clone()), "the one token still lives");
    assert!(resolve(&idle, password).await.is_ok());
    assert_eq!(accessors("idle"), before, "and no other was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_given_is_renewed() {
    SERVER.policy("keeper", &["secret/data/team/*", "auth/token/renew-self", "auth/token/lookup-self"]);
    let (url, given) = (SERVER.url(), SERVER.token("keeper", "4s"));
    let given = resolver(&[("VAULT_ADDR", &url), ("VAULT_TOKEN", &given)]);
    let password = "ref+vault://secret/team/db#/password";
    assert!(resolve(&given, password).await.is_ok());
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(resolve(&given, password).await.is_ok());
}

#[tokio::test]
async fn a_jwt_of_an_issuer_logs_in() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    SERVER.write("sys/auth/jwt", &json!({"type": "jwt"}));
    SERVER.write("auth/jwt/config", &json!({"jwt_validation_pubkeys": [key.public_key_pem()]}));
    SERVER.write(
        "auth/jwt/role/apps",
        &json!({"role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", "token_policies": ["team"]}),
    );
    let part = |json: Json| URL_SAFE_NO_PAD.encode(json.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"sub": "shop", "aud": "vault", "iat": now, "nbf": now - 10, "exp": now + 600});
    let signed = format!("{}.{}", part(json!({"alg": "EdDSA", "typ": "JWT"})), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).unwrap());
    let file = SERVER.home().join("jwt");
    std::fs::write(&file, format!("{signed}.{signature}\n")).unwrap();
    let url = SERVER.url();
    let by = |file: &Path| {
        resolver(&[
            ("VAULT_ADDR", &url),
            ("VAULT_AUTH_METHOD", "jwt"),
            ("VAULT_ROLE_ID", "apps"),
            ("VAULT_JWT_FILE", file.to_str().unwrap()),
        ])
    };
    assert!(resolve(&by(&file), "ref+vault://secret/team/db#/password").await.is_ok());
    let forged = SERVER.home().join("forged");
    std::fs::write(&forged, format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 64]))).unwrap();
    let error = resolve(&by(&forged), "ref+vault://secret/team/db#/password").await.unwrap_err();
    assert!(error.contains("the login failed: Vault says HTTP 400 for auth/jwt/login"), "{error}");
}

#[tokio::test]
async fn a_namespace_is_one_of_the_reference_or_of_the_environment() {
    SERVER.write("sys/namespaces/tenant", &json!({}));
    SERVER.write_in("tenant", "sys/mounts/kv", &json!({"type": "kv", "options": {"version": "2"}}));
    SERVER.write_in("tenant", "kv/data/a", &json!({"data": {"b": "STRONGROOM-MARKER tenant"}}));
    let url = SERVER.url();
    let (own, others) = ("ref+vault://kv/a#/b", "ref+vault://kv/a?namespace=tenant#/b");
    let outside = resolver(&[("VAULT_ADDR", &url), ("VAULT_TOKEN", MARKER)]);
    let inside = resolver(&[("VAULT_ADDR", &url), ("VAULT_TOKEN", MARKER), ("VAULT_NAMESPACE", "/tenant/")]);
    assert_eq!(resolve(&outside, others).await, Ok(json!("STRONGROOM-MARKER tenant")));
    assert_eq!(resolve(&inside, own).await, Ok(json!("STRONGROOM-MARKER tenant")));
    assert!(resolve(&outside, own).await.unwrap_err().starts_with("not_found: "));
    assert_eq!(vals(others), Ok(json!("STRONGROOM-MARKER tenant")));
}

#[tokio::test]
async fn a_certificate_is_verified_unless_the_operator_says_otherwise() {
    let server = Openbao::start_with_tls();
    let url = server.url().replace("http://", "https://");
    let authority = server.home().join("vault-ca.pem");
    let own = [("VAULT_ADDR", url.as_str()), ("VAULT_TOKEN", MARKER)];
    for (variable, expected) in [
        (
            ("SSL_UNRELATED", "1"),
            "unavailable: Vault cannot be reached: invalid peer certificate: UnknownIssuer",
        ),
        (("VAULT_CACERT", authority.to_str().unwrap()), "not_found: Vault has nothing at secret/absent"),
        (("VAULT_SKIP_VERIFY", "true"), "not_found: Vault has nothing at secret/absent"),
    ] {
        let resolver = resolver(&[own[0], own[1], variable]);
        assert_eq!(resolve(&resolver, "ref+vault://secret/absent#/a").await, Err(expected.to_owned()));
    }
}

#[test]
fn a_sops_file_of_transit_opens_at_the_operators_address_only() {
    SERVER.write("transit/keys/apps", &json!({}));
    let repository = Repository::new();
    repository.write("values.yaml", "password: STRONGROOM-MARKER transit\n");
    let file = repository.path().join("values.yaml");
    let key = format!("{}/v1/transit/keys/apps", SERVER.url());
    let real = sops::sops().envs(SERVER.environment());
    sops::encrypt_by(real, &file, &["--hc-vault-transit", &key]);
    let open = |environment: Vec<(&'static str, String)>| {
        strongroom().args(["decrypt", "values.yaml"]).directory(repository.path()).envs(environment)
    };
    let plain = "password: \"STRONGROOM-MARKER transit\"\n";
    let opened = open(SERVER.environment());
    assert_eq!(opened.ok(), plain);
    let elsewhere =
        open(vec![("VAULT_ADDR", "http://127.0.0.1:1".to_owned()), ("VAULT_TOKEN", MARKER.to_owned())]);
    let error = elsewhere.fails();
    assert!(error.contains("is not an address that the operator names"), "{error}");
    let listed = open(vec![("STRONGROOM_ALLOW_ADDRESSES", SERVER.url()), ("VAULT_TOKEN", MARKER.to_owned())]);
    assert_eq!(listed.ok(), plain);
}
