//! Keys of the clouds that have no emulator here: files of the real sops, sealed and opened at mocks.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use support::MARKER;
use support::mock_azure::{MockAzure, VAULT};
use support::mock_huawei::{self, MockHuawei};
use support::moto::{REGION, moto};
use support::process::Run;
use support::product::{generate, strongroom};
use support::repository::Repository;
use support::sops::{encrypt_by, sops};
use support::tools::tool;

const GOOGLE_KEY: &str = "projects/p-1/locations/global/keyRings/r/cryptoKeys/k";

/// How often a data key was decrypted.
type Decrypted = Arc<AtomicUsize>;

/// Cloud KMS as far as sops needs it, where what is encrypted is the plaintext behind a word, and the metadata server.
async fn mock_google_kms() -> (String, Decrypted) {
    let decrypted = Decrypted::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&decrypted));
    tokio::spawn(async { axum::serve(listener, router).await.expect("it is served until the test ends") });
    (url, decrypted)
}

async fn answer(
    State(decrypted): State<Decrypted>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    if uri.path() == "/computeMetadata/v1/instance/service-accounts/default/token" {
        assert_eq!(headers["metadata-flavor"], "Google");
        let token = json!({"access_token": MARKER, "expires_in": 3599, "token_type": "Bearer"});
        return (StatusCode::OK, token.to_string());
    }
    if headers["authorization"] != format!("Bearer {MARKER}") {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    let body: Json = serde_json::from_str(&body).expect("it is asked in JSON");
    let text = |field: &str| STANDARD.decode(body[field].as_str().expect("base64")).expect("base64");
    let answer = match uri.path().strip_prefix(&format!("/v1/{GOOGLE_KEY}")) {
        Some(":encrypt") => {
            let sealed = STANDARD.encode([b"sealed", &text("plaintext")[..]].concat());
            json!({"ciphertext": sealed, "verifiedPlaintextCrc32c": body["plaintextCrc32c"].is_string()})
        }
        Some(":decrypt") => {
            decrypted.fetch_add(1, Ordering::Relaxed);
            let sealed = text("ciphertext");
            json!({"plaintext": STANDARD.encode(sealed.strip_prefix(b"sealed").expect("it was sealed here"))})
        }
        _ => return (StatusCode::NOT_FOUND, String::new()),
    };
    (StatusCode::OK, answer.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_sops_sealed_at_a_mock_of_google_kms_open_with_one_call() {
    let (url, decrypted) = mock_google_kms().await;
    let with_google =
        |run: Run| run.env("SOPS_GCP_KMS_ENDPOINT", &url).env("GOOGLE_OAUTH_ACCESS_TOKEN", MARKER);
    let repository = Repository::with_secret_chart();
    let file = repository.write("app/a.yaml", "password: test\n");
    encrypt_by(
        with_google(sops()).env("SOPS_GCP_KMS_CLIENT_TYPE", "rest"),
        &file,
        &["--gcp-kms", GOOGLE_KEY],
    );
    let sealed = fs::read_to_string(&file).expect("sops wrote it");
    assert!(sealed.contains(GOOGLE_KEY), "{sealed}");
    for name in ["b", "c", "d"] {
        repository.write(format!("app/{name}.yaml"), &sealed);
    }
    let files = r#"[{"name":"valueFiles","array":["a.yaml","b.yaml","c.yaml","d.yaml"]}]"#;
    let story = || with_google(generate(&repository, "app")).env("ARGOCD_APP_PARAMETERS", files);
    let manifests = story().ok();
    assert!(manifests.contains("password: \"dGVzdA==\""), "{manifests}");
    assert_eq!(decrypted.load(Ordering::Relaxed), 1);

    // On GKE the pod's token is the metadata server's.
    let gke = story().without_env("GOOGLE_OAUTH_ACCESS_TOKEN");
    let gke = gke.env("GCE_METADATA_HOST", url.trim_start_matches("http://"));
    assert_eq!(gke.ok(), manifests);
    assert_eq!(decrypted.load(Ordering::Relaxed), 2);

    let message = story().env("GOOGLE_OAUTH_ACCESS_TOKEN", "other").fails();
    assert!(message.contains(&format!("gcp_kms {GOOGLE_KEY}: Google KMS says HTTP 401")), "{message}");
    let message = story().env("STRONGROOM_ALLOW_KEYS", "age").fails();
    assert!(message.contains(&format!("may not open SOPS key gcp_kms {GOOGLE_KEY}")), "{message}");
    assert_eq!(decrypted.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sops_opens_what_the_product_sealed_at_a_mock_of_google_kms() {
    let (url, decrypted) = mock_google_kms().await;
    let with_google =
        |run: Run| run.env("SOPS_GCP_KMS_ENDPOINT", &url).env("GOOGLE_OAUTH_ACCESS_TOKEN", MARKER);
    let repository = Repository::new();
    repository.write("a.yaml", "password: test\n");
    let encrypt = || with_google(strongroom()).directory(repository.path()).arg("encrypt");
    let by_flag = encrypt().args(["--gcp-kms", GOOGLE_KEY, "a.yaml"]).ok();
    let by_variable = encrypt().env("SOPS_GCP_KMS_IDS", GOOGLE_KEY).arg("a.yaml").ok();
    repository.write(".sops.yaml", format!("creation_rules: [{{gcp_kms: {GOOGLE_KEY}}}]\n"));
    let by_rule = encrypt().arg("a.yaml").ok();
    let groups =
        format!("creation_rules: [{{key_groups: [{{gcp_kms: [{{resource_id: {GOOGLE_KEY}}}]}}]}}]\n");
    repository.write(".sops.yaml", groups);
    let by_group = encrypt().arg("a.yaml").ok();
    for (number, sealed) in [by_flag, by_variable, by_rule, by_group].iter().enumerate() {
        repository.write("sealed.yaml", sealed);
        let open = with_google(sops()).env("SOPS_GCP_KMS_CLIENT_TYPE", "rest").directory(repository.path());
        assert_eq!(open.args(["decrypt", "sealed.yaml"]).ok(), "password: test\n");
        assert_eq!(decrypted.load(Ordering::Relaxed), number + 1);
    }
    let message = encrypt().env("GOOGLE_OAUTH_ACCESS_TOKEN", "other").arg("a.yaml").fails();
    assert!(message.contains(&format!("gcp_kms {GOOGLE_KEY}: Google KMS says HTTP 401")), "{message}");
}

const AZURE_SECRETS: &[(&str, &str)] = &[
    ("db", "{user: me, password: STRONGROOM-MARKER-a}"),
    ("plain", "STRONGROOM-MARKER-b"),
    ("plain/0f0f", "an older one"),
];

#[test]
fn files_that_sops_sealed_at_a_mock_of_azure_open_with_one_login_and_one_call() {
    let azure = MockAzure::start(AZURE_SECRETS);
    let repository = Repository::with_secret_chart();
    let file = repository.write("app/a.yaml", "password: test\n");
    let sealer = sops().envs(azure.environment()).envs(MockAzure::client_secret());
    encrypt_by(sealer, &file, &["--azure-kv", &format!("https://{VAULT}/keys/k/")]);
    let sealed = fs::read_to_string(&file).expect("sops wrote it");
    assert!(sealed.contains(&format!("vault_url: https://{VAULT}")), "{sealed}");
    for name in ["b", "c", "d"] {
        repository.write(format!("app/{name}.yaml"), &sealed);
    }
    // A file may leave the version out.
    let versionless: String = sealed
        .lines()
        .filter(|line| !line.contains(" version: 0123"))
        .map(|line| format!("{line}\n"))
        .collect();
    repository.write("app/e.yaml", versionless);
    let pod = repository.write("token", format!("{MARKER}-of-the-pod"));
    let pod = pod.display().to_string();
    let workload = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_FEDERATED_TOKEN_FILE", &pod)];
    let workload = workload.map(|(name, value)| (name, value.to_owned()));

    let files = r#"[{"name":"valueFiles","array":["a.yaml","b.yaml","c.yaml","d.yaml"]}]"#;
    let story = || generate(&repository, "app").envs(azure.environment()).env("ARGOCD_APP_PARAMETERS", files);
    let decrypt = format!("POST {VAULT}/keys/k/0123456789abcdef0123456789abcdef/decrypt");
    let token = "POST login.microsoftonline.com/t/oauth2/v2.0/token";
    let ways: [(&[_], usize); 3] =
        [(&MockAzure::client_secret(), 1), (&workload, 1), (&azure.managed_identity(), 0)];
    for (way, tokens) in ways {
        let before = (azure.asked(&decrypt), azure.asked(token));
        let manifests = story().envs(way.iter().cloned()).ok();
        assert!(manifests.contains("password: \"dGVzdA==\""), "{manifests}");
        assert_eq!((azure.asked(&decrypt), azure.asked(token)), (before.0 + 1, before.1 + tokens), "{way:?}");
    }
    let newest = r#"[{"name":"valueFiles","array":["e.yaml"]}]"#;
    story().envs(azure.managed_identity()).env("ARGOCD_APP_PARAMETERS", newest).ok();
    assert_eq!(azure.asked(&format!("POST {VAULT}/keys/k//decrypt")), 1);

    let before = azure.asked("POST");
    let elsewhere =
        story().envs(azure.managed_identity()).env("STRONGROOM_ALLOW_ADDRESSES", "https://other.example");
    let message = elsewhere.fails();
    assert!(
        message.contains(&format!("https://{VAULT} is not an address that the operator names")),
        "{message}"
    );
    assert_eq!(azure.asked("POST"), before, "no token went there");
    let message = story().envs(MockAzure::client_secret()).env("AZURE_CLIENT_SECRET", "other").fails();
    let why = "no Azure credentials by AZURE_CLIENT_SECRET: it says HTTP 401 AADSTS7000215";
    assert!(message.contains(why) && !message.contains("other"), "{message}");
}

#[test]
fn sops_opens_what_the_product_sealed_at_a_mock_of_azure_to_the_version_that_is_the_newest() {
    let azure = MockAzure::start(AZURE_SECRETS);
    let with_azure = |run: Run| run.envs(azure.environment()).envs(MockAzure::client_secret());
    let repository = Repository::new();
    repository.write("a.yaml", "password: test\n");
    let encrypt = || with_azure(strongroom()).directory(repository.path()).arg("encrypt");
    let newest = "0123456789abcdef0123456789abcdef";
    let (bare, whole) = (format!("https://{VAULT}/keys/k"), format!("https://{VAULT}/keys/k/{newest}"));
    let rule = format!("creation_rules: [{{azure_keyvault: '{bare}/'}}]\n");
    let group = format!(
        "creation_rules: [{{key_groups: [{{azure_keyvault: [{{vaultUrl: 'https://{VAULT}', key: k}}]}}]}}]\n"
    );
    let lookups = || azure.asked(&format!("GET {VAULT}/keys/k"));
    for (arguments, variable, rules, looked_up) in [
        (&["--azure-kv", &*bare][..], "", "", 1),
        (&["--azure-kv", &whole], "", "", 0),
        (&[], &*bare, "", 1),
        (&[], "", &*rule, 1),
        (&[], "", &*group, 1),
    ] {
        repository.write(".sops.yaml", rules);
        let before = lookups();
        let sealed = encrypt().env("SOPS_AZURE_KEYVAULT_URLS", variable).args(arguments).arg("a.yaml").ok();
        assert_eq!(lookups() - before, looked_up, "{arguments:?} {rules}");
        let metadata =
            format!("name: k\n          vault_url: https://{VAULT}\n          version: {newest}\n");
        assert!(sealed.contains(&metadata), "{sealed}");
        repository.write("sealed.yaml", sealed);
        let open = with_azure(sops()).directory(repository.path()).args(["decrypt", "sealed.yaml"]);
        assert_eq!(open.ok(), "password: test\n");
    }
    // A flag is the person's own word; a rule is not.
    let elsewhere = || encrypt().env("STRONGROOM_ALLOW_ADDRESSES", "https://other.example");
    let message = elsewhere().arg("a.yaml").fails();
    let why = format!("https://{VAULT} is not an address that the operator names");
    assert!(message.contains(&why), "{message}");
    elsewhere().args(["--azure-kv", &bare, "a.yaml"]).ok();
    let message = encrypt().args(["--azure-kv", &format!("https://{VAULT}/keys/k/0f"), "a.yaml"]).fails();
    assert!(message.contains("Azure Key Vault says HTTP 404 NotFound"), "{message}");
}

#[test]
fn references_to_a_mock_of_azure_key_vault_mean_the_same_here_and_in_vals() {
    let azure = MockAzure::start(AZURE_SECRETS);
    let with_azure = |run: Run| run.envs(azure.environment()).envs(MockAzure::client_secret());
    let evaluate = |run: Run, input: &str| {
        let output = with_azure(run).stdin(input).output();
        let document = serde_json::from_str::<Json>(&output.stdout).ok();
        document.filter(|_| output.status.success()).ok_or(output.stderr)
    };
    for (reference, expected) in [
        ("team/plain", Ok(json!("STRONGROOM-MARKER-b"))),
        ("team/plain/", Ok(json!("STRONGROOM-MARKER-b"))),
        ("team.vault.azure.net/plain", Ok(json!("STRONGROOM-MARKER-b"))),
        ("team/plain/0f0f", Ok(json!("an older one"))),
        ("team/db#/password", Ok(json!("STRONGROOM-MARKER-a"))),
        ("team/none", Err("Azure Key Vault says HTTP 404 SecretNotFound")),
        ("team/plain/0f0e", Err("Azure Key Vault says HTTP 404 SecretNotFound")),
        ("team", Err("it must be vault/secret or vault/secret/version")),
        ("other/plain", Err("https://other.vault.azure.net is not an address that the operator names")),
    ] {
        let input = format!("a: ref+azurekeyvault://{reference}\n");
        let ours = evaluate(strongroom().args(["resolve", "-o", "json", "-f", "-"]), &input);
        let vals =
            Run::new(tool("vals")).args(["eval", "-o", "json", "-f", "-"]).env("PATH", "/usr/bin:/bin");
        let theirs = evaluate(vals, &input);
        match expected {
            Ok(value) => {
                let expected = Ok(json!({ "a": value }));
                assert_eq!((&ours, &theirs), (&expected, &expected), "{reference}");
            }
            Err(why) => {
                let message = ours.expect_err(reference);
                assert!(message.contains(why) && !message.contains(MARKER), "{reference}: {message}");
                assert!(theirs.is_err(), "{reference}");
            }
        }
    }
}

#[test]
fn a_person_is_logged_in_by_a_mock_of_az_once_and_a_render_never_runs_it() {
    let azure = MockAzure::start(AZURE_SECRETS);
    let repository = Repository::with_secret_chart();
    let ran = repository.path().join("ran");
    let token = json!({"accessToken": format!("{MARKER}-token"), "expires_on": 4_000_000_000_u32, "tokenType": "Bearer"});
    let script = format!("#!/bin/sh\necho \"$*\" >>{}\necho '{token}'\n", ran.display());
    let az = repository.write("bin/az", script);
    fs::set_permissions(&az, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = format!("{}:/usr/bin:/bin", az.parent().expect("it is in a folder").display());

    let input = "a: ref+azurekeyvault://team/plain\nb: ref+azurekeyvault://team/db#/user\n";
    let resolve = strongroom().args(["resolve", "-f", "-"]).envs(azure.environment()).env("PATH", &path);
    let resolved = resolve.stdin(input).ok();
    assert_eq!(resolved, "a: \"STRONGROOM-MARKER-b\"\nb: \"me\"\n");
    let ran_with = fs::read_to_string(&ran).expect("it ran");
    assert_eq!(ran_with, "account get-access-token -o json --scope https://vault.azure.net/.default\n");

    repository.write("app/values.yaml", "password: ref+azurekeyvault://team/plain\n");
    let render =
        generate(&repository, "app").envs(azure.environment()).env("STRONGROOM_ALLOW_REFS", "azurekeyvault");
    let message = render.env("PATH", &path).env("AZKV_AUTH", "cli").fails();
    let why = "AZKV_AUTH: a login that runs a program is for a person at a terminal";
    assert!(message.contains(why), "{message}");
    assert_eq!(fs::read_to_string(&ran).expect("it is still there"), ran_with);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_sealed_at_a_mock_of_huaweicloud_open_here_and_in_sops_with_one_call() {
    let huawei = MockHuawei::start().await;
    let repository = Repository::with_secret_chart();
    let file = repository.write("app/a.yaml", "password: test\n");
    encrypt_by(sops().envs(huawei.environment()), &file, &["--hckms", mock_huawei::KEY]);
    let sealed = fs::read_to_string(&file).expect("sops wrote it");
    assert!(sealed.contains(&format!("key_id: {}", mock_huawei::KEY)), "{sealed}");
    for name in ["b", "c"] {
        repository.write(format!("app/{name}.yaml"), &sealed);
    }
    let files = r#"[{"name":"valueFiles","array":["a.yaml","b.yaml","c.yaml"]}]"#;
    let story =
        || generate(&repository, "app").envs(huawei.environment()).env("ARGOCD_APP_PARAMETERS", files);
    let manifests = story().ok();
    assert!(manifests.contains("password: \"dGVzdA==\""), "{manifests}");
    assert_eq!(huawei.decrypted(), 1);
    let message = story().env("HUAWEICLOUD_SDK_SK", "other").fails();
    let why = format!("hckms {}: HuaweiCloud says HTTP 401 APIGW.0301", mock_huawei::KEY);
    assert!(message.contains(&why) && !message.contains(MARKER), "{message}");
    let message = story().env("STRONGROOM_ALLOW_KEYS", "hckms:cn-north-4:").fails();
    let why = format!("may not open SOPS key hckms {}", mock_huawei::KEY);
    assert!(message.contains(&why), "{message}");
    assert_eq!(huawei.decrypted(), 1);

    repository.write("plain.yaml", "password: test\n");
    let encrypt = || {
        strongroom().envs(huawei.environment()).directory(repository.path()).args(["encrypt", "plain.yaml"])
    };
    let by_flag = encrypt().args(["--hckms", mock_huawei::KEY]).ok();
    let by_variable = encrypt().env("SOPS_HUAWEICLOUD_KMS_IDS", mock_huawei::KEY).ok();
    repository.write(".sops.yaml", format!("creation_rules: [{{hckms: ['{}']}}]\n", mock_huawei::KEY));
    let by_rule = encrypt().ok();
    for sealed in [by_flag, by_variable, by_rule] {
        repository.write("sealed.yaml", sealed);
        let open = sops().envs(huawei.environment()).directory(repository.path());
        assert_eq!(open.args(["decrypt", "sealed.yaml"]).ok(), "password: test\n");
    }
    let other = mock_huawei::KEY.replace("0d0466b0", "11111111");
    let message = encrypt().args(["--hckms", &other]).fails();
    assert!(message.contains(&format!("hckms {other}: HuaweiCloud says HTTP 404 KMS.0205")), "{message}");
}

/// The agent of EKS Pod Identity, and the metadata of an EC2 instance.
async fn mock_aws_logins() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let router = axum::Router::new().fallback(aws_login);
    tokio::spawn(async { axum::serve(listener, router).await.expect("it is served until the test ends") });
    url
}

async fn aws_login(uri: Uri, headers: HeaderMap) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let role = "/latest/meta-data/iam/security-credentials/";
    let credentials = json!({
        "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "pod", "SecretAccessKey": MARKER, "Token": MARKER,
        "Expiration": "2099-01-01T00:00:00Z", "LastUpdated": "2026-01-01T00:00:00Z"
    });
    let known = |name: &str| headers.get(name).is_some_and(|value| value == MARKER);
    let (status, body) = match uri.path() {
        "/v1/credentials" if known("authorization") => (StatusCode::OK, credentials.to_string()),
        "/latest/api/token" => (StatusCode::OK, MARKER.to_owned()),
        path if !known("x-aws-ec2-metadata-token") => (StatusCode::UNAUTHORIZED, path.to_owned()),
        path if path == role => (StatusCode::OK, "node".to_owned()),
        path if path == format!("{role}node") => (StatusCode::OK, credentials.to_string()),
        path => (StatusCode::NOT_FOUND, path.to_owned()),
    };
    (status, [("x-aws-ec2-metadata-token-ttl-seconds", "21600")], body)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_log_in_to_aws_opens_a_secret_of_moto_with_mocks_of_pod_identity_and_of_instances() {
    let mock = mock_aws_logins().await;
    moto().create_secret("login/a", MARKER);
    let repository = Repository::new();
    let profile = format!("[team]\naws_access_key_id = team\naws_secret_access_key = {MARKER}\n");
    let profile = repository.write("credentials", profile).display().to_string();
    let token = repository.write("token", MARKER).display().to_string();
    let role = "arn:aws:iam::123456789012:role/team";
    let (agent, absent) = (format!("{mock}/v1/credentials"), format!("{token}-absent"));
    let off = ("AWS_EC2_METADATA_DISABLED", "true");
    let ways: [(&[(&str, &str)], bool); 8] = [
        (&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", MARKER), off], true),
        (&[("AWS_PROFILE", "team"), ("AWS_SHARED_CREDENTIALS_FILE", &profile), off], true),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", &token), ("AWS_ROLE_ARN", role), off], true),
        (
            &[
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
                off,
            ],
            true,
        ),
        (&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &mock)], true),
        (&[off], false),
        (&[("AWS_WEB_IDENTITY_TOKEN_FILE", &absent), ("AWS_ROLE_ARN", role), off], false),
        (&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent), off], false),
    ];
    for (way, opens) in ways {
        let home = repository.path().display().to_string();
        let get = strongroom().args(["get", "ref+awssecrets://login/a"]).env("HOME", home);
        let get =
            get.env("AWS_ENDPOINT_URL", moto().url()).env("AWS_REGION", REGION).envs(way.iter().copied());
        let output = get.output();
        assert_eq!(output.status.success(), opens, "{way:?}: {}", output.stderr);
        assert_eq!(output.stdout.trim_end(), if opens { MARKER } else { "" }, "{way:?}");
        assert!(!output.stderr.contains(MARKER), "{way:?}: {}", output.stderr);
    }
}

#[test]
fn options_say_as_whom_and_where_aws_is_asked_here_and_in_vals() {
    let other = "111122223333";
    let secret = json!({"Name": "option/a", "SecretString": format!("{MARKER} of the role")});
    moto().call_in(other, "secretsmanager", "secretsmanager.CreateSecret", &secret);
    let parameter =
        json!({"Name": "/option/a", "Value": format!("{MARKER} of the role"), "Type": "SecureString"});
    moto().call_in(other, "ssm", "AmazonSSM.PutParameter", &parameter);
    moto().create_secret("option/a", MARKER);
    moto().create_parameter("/option/a", MARKER);
    let repository = Repository::new();
    let keys = format!("aws_access_key_id = team\naws_secret_access_key = {MARKER}\n");
    let config = format!(
        "[default]\nregion = {REGION}\n[profile team]\nregion = {REGION}\n{keys}\
         [profile elsewhere]\nregion = us-east-1\n{keys}"
    );
    let config = repository.write("config", config).display().to_string();
    let role = format!("role_arn=arn:aws:iam::{other}:role/team");
    let of_role = format!("{MARKER} of the role");
    for (options, expected) in [
        (String::new(), Some(MARKER)),
        ("region=us-east-1".to_owned(), None),
        ("profile=team".to_owned(), Some(MARKER)),
        ("profile=elsewhere".to_owned(), None),
        (format!("profile=elsewhere&region={REGION}"), Some(MARKER)),
        (role.clone(), Some(&*of_role)),
        (format!("profile=team&{role}"), Some(&*of_role)),
        (format!("region=us-east-1&{role}"), None),
    ] {
        for scheme in ["awssecrets", "awsssm"] {
            let reference = format!("ref+{scheme}://option/a?{options}");
            for program in [strongroom(), Run::new(tool("vals"))] {
                let run = program.args(["get", &reference]).env("AWS_CONFIG_FILE", &config);
                let run = run.env("HOME", repository.path()).env("AWS_ENDPOINT_URL", moto().url());
                let run = run.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
                let output = run.env("AWS_EC2_METADATA_DISABLED", "true").output();
                let value = output.status.success().then(|| output.stdout.trim_end());
                assert_eq!(value, expected, "{reference}: {}", output.stderr);
            }
        }
    }
}
