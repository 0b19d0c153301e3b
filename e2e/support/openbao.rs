//! The real OpenBao in its development mode: in memory, unsealed, with a root token.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use serde_json::{Value, json};

use super::MARKER;
use super::server::{Server, free_address};
use super::tools::{on_path, tool};

/// A running OpenBao, with KV 2 at `secret/`, KV 1 at `old/`, and transit at `transit/`.
#[derive(Debug)]
pub struct Openbao {
    server: Server,
}

impl Openbao {
    /// Starts one.
    pub fn start() -> Self {
        let started = Self::bare("-dev");
        started.write("sys/mounts/old", &json!({"type": "kv", "options": {"version": "1"}}));
        started.write("sys/mounts/transit", &json!({"type": "transit"}));
        started
    }

    /// Starts one with TLS, without a secret in it. Its certificate is by the authority of `vault-ca.pem` in its home.
    pub fn start_with_tls() -> Self {
        Self::bare("-dev-tls")
    }

    fn bare(mode: &str) -> Self {
        let home = tempfile::Builder::new().prefix("strongroom-openbao-").tempdir().unwrap();
        // It cannot choose a port itself.
        let listen = format!("-dev-listen-address={}", free_address());
        let (at_home, certificates) = (
            format!("HOME={}", home.path().display()),
            format!("-dev-tls-cert-dir={}", home.path().display()),
        );
        let root = format!("-dev-root-token-id={MARKER}");
        let bao = tool("bao");
        let command = [
            &at_home,
            bao.to_str().unwrap(),
            "server",
            mode,
            &certificates,
            &root,
            &listen,
            "-dev-no-store-token",
        ];
        Self { server: Server::start(&on_path("env"), &command, home, listening) }
    }

    /// For `VAULT_ADDR`.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The variables that bring the product, sops and vals here, with the root token.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("VAULT_ADDR", self.url()), ("VAULT_TOKEN", MARKER.to_owned())]
    }

    /// Writes to the path below `/v1/`; the test fails when that is refused.
    pub fn write(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call("POST", path, MARKER, body);
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// A policy called `name` that lets `paths` be read and written.
    pub fn policy(&self, name: &str, paths: &[&str]) {
        let rule = |path: &&str| format!("path \"{path}\" {{ capabilities = [\"read\", \"update\"] }}\n");
        let policy: String = paths.iter().map(rule).collect();
        self.write(&format!("sys/policies/acl/{name}"), &json!({ "policy": policy }));
    }

    /// A token with one policy, which ends after `ttl`.
    pub fn token(&self, policy: &str, ttl: &str) -> String {
        let asked = json!({"policies": [policy], "ttl": ttl, "no_default_policy": true});
        text(&self.write("auth/token/create", &asked), "/auth/client_token")
    }

    /// Role `name` of approle with these settings: its id, and a secret id.
    pub fn approle(&self, name: &str, settings: &Value) -> (String, String) {
        self.write(&format!("auth/approle/role/{name}"), settings);
        let (_, role) = self.call("GET", &format!("auth/approle/role/{name}/role-id"), MARKER, &Value::Null);
        let secret = self.write(&format!("auth/approle/role/{name}/secret-id"), &json!({}));
        (text(&role, "/data/role_id"), text(&secret, "/data/secret_id"))
    }

    /// One request of the administrator in a namespace.
    pub fn write_in(&self, namespace: &str, path: &str, body: &Value) {
        let (status, answer) = self.call("POST", &format!("{namespace}/{path}"), MARKER, body);
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
    }

    /// One request with one token: its status and its answer.
    pub fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.server.address).unwrap();
        write!(
            stream,
            "{method} /v1/{path} HTTP/1.0\r\nHost: openbao\r\nX-Vault-Token: {token}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// The folder that ends with the server.
    pub fn home(&self) -> &Path {
        &self.server.home
    }
}

/// From the line `Api Address: http://127.0.0.1:40123`, once the server is unsealed.
fn listening(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Api Address: http")?;
    let (_, rest) = rest.split_once("://")?;
    log.contains("Root Token:").then(|| rest.lines().next()?.trim().parse().ok())?
}

/// The text at `pointer` of an answer.
pub fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).expect("OpenBao answers as documented").to_owned()
}
