//! A mock of HuaweiCloud KMS, where what is encrypted is the plaintext behind a word. It checks signatures by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::{digest, hmac};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::MARKER;

/// The key that is there.
pub const KEY: &str = "tr-west-1:0d0466b0-e727-4d9c-b35d-f84bb474a37f";
const PROJECT: &str = "0123456789abcdef0123456789abcdef";

/// A running mock; it ends with the test's runtime.
#[derive(Debug)]
pub struct MockHuawei {
    url: String,
    decrypted: Arc<AtomicUsize>,
}

impl MockHuawei {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let decrypted = Arc::<AtomicUsize>::default();
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&decrypted));
        tokio::spawn(async {
            axum::serve(listener, router).await.expect("it is served until the test ends");
        });
        Self { url, decrypted }
    }

    /// The variables that bring sops and the product here, with keys.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("HUAWEICLOUD_SDK_REGION_KMS_TR_WEST_1", self.url.clone()),
            ("HUAWEICLOUD_SDK_AK", "access".to_owned()),
            ("HUAWEICLOUD_SDK_SK", MARKER.to_owned()),
            ("HUAWEICLOUD_SDK_PROJECT_ID", PROJECT.to_owned()),
        ]
    }

    /// How often a data key was decrypted.
    pub fn decrypted(&self) -> usize {
        self.decrypted.load(Ordering::Relaxed)
    }
}

async fn answer(
    State(decrypted): State<Arc<AtomicUsize>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, String) {
    let refused = |status, code: &str| {
        (status, json!({"error": {"error_code": code, "error_msg": MARKER}}).to_string())
    };
    if headers["authorization"].to_str().ok() != signed(&method, &uri, &headers, &body).as_deref() {
        return refused(StatusCode::UNAUTHORIZED, "APIGW.0301");
    }
    let body: Value = serde_json::from_str(&body).expect("it is asked in JSON");
    let (_, id) = KEY.split_once(':').expect("it has a region");
    if body["key_id"] != id {
        return refused(StatusCode::NOT_FOUND, "KMS.0205");
    }
    assert_eq!(body["encryption_algorithm"], "SYMMETRIC_DEFAULT");
    let text = |field: &str| body[field].as_str().expect("it is text").to_owned();
    let answer = match uri.path().strip_prefix(&format!("/v1.0/{PROJECT}/kms/")) {
        Some("encrypt-data") => {
            json!({"key_id": id, "cipher_text": STANDARD.encode(format!("sealed {}", text("plain_text")))})
        }
        Some("decrypt-data") => {
            decrypted.fetch_add(1, Ordering::Relaxed);
            let sealed = STANDARD.decode(text("cipher_text")).expect("base64");
            let sealed = String::from_utf8(sealed).expect("it was text");
            json!({"key_id": id, "plain_text": sealed.strip_prefix("sealed ").expect("it was sealed here")})
        }
        _ => return refused(StatusCode::NOT_FOUND, "APIGW.0101"),
    };
    (StatusCode::OK, answer.to_string())
}

/// The header `Authorization` that the request should have, by what HuaweiCloud documents of its signatures.
fn signed(method: &Method, uri: &Uri, headers: &HeaderMap, body: &str) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let sha256 = |text: &str| hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    let said = headers["authorization"].to_str().ok()?;
    let (_, names) = said.split_once("SignedHeaders=")?;
    let (names, _) = names.split_once(',')?;
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let mut lines = String::new();
    for name in names.split(';') {
        lines += &format!("{name}:{}\n", header(name)?.trim());
    }
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let canonical = format!("{method}\n{path}/\n{query}\n{lines}\n{names}\n{}", sha256(body));
    let to_sign = format!("SDK-HMAC-SHA256\n{}\n{}", header("x-sdk-date")?, sha256(&canonical));
    let key = hmac::Key::new(hmac::HMAC_SHA256, MARKER.as_bytes());
    let signature = hex(hmac::sign(&key, to_sign.as_bytes()).as_ref());
    Some(format!("SDK-HMAC-SHA256 Access=access, SignedHeaders={names}, Signature={signature}"))
}
