//! Keys of the clouds that have no emulator here: files of the real sops, sealed and opened at mocks.

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use support::MARKER;
use support::process::Run;
use support::product::generate;
use support::repository::Repository;
use support::sops::{encrypt_by, sops};

const GOOGLE_KEY: &str = "projects/p-1/locations/global/keyRings/r/cryptoKeys/k";

/// How often a data key was decrypted.
type Decrypted = Arc<AtomicUsize>;

/// Cloud KMS as far as sops needs it: what it encrypts is the plaintext behind a word.
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
    if headers["authorization"] != format!("Bearer {MARKER}") {
        return (StatusCode::UNAUTHORIZED, String::new());
    }
    let body: Json = serde_json::from_str(&body).expect("it is asked in JSON");
    let text = |field: &str| STANDARD.decode(body[field].as_str().expect("base64")).expect("base64");
    let answer = match uri.path().strip_prefix(&format!("/v1/{GOOGLE_KEY}")) {
        Some(":encrypt") => {
            json!({"ciphertext": STANDARD.encode([b"sealed", &text("plaintext")[..]].concat())})
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

    let message = story().env("GOOGLE_OAUTH_ACCESS_TOKEN", "other").fails();
    assert!(message.contains(&format!("gcp_kms {GOOGLE_KEY}: Google KMS says HTTP 401")), "{message}");
    let message = story().env("STRONGROOM_ALLOW_KEYS", "age").fails();
    assert!(message.contains(&format!("may not open SOPS key gcp_kms {GOOGLE_KEY}")), "{message}");
    assert_eq!(decrypted.load(Ordering::Relaxed), 1);
}
