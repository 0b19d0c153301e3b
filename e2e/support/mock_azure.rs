//! A mock of Azure under its own names: Entra ID and one Key Vault, reached through a proxy, as `HTTPS_PROXY` names it, with
//! certificates of an authority of its own. Over plain HTTP it is also the managed identity's endpoint.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::MARKER;
use super::fake_aws::certificates;

/// The vault that is there.
pub const VAULT: &str = "team.vault.azure.net";
const ENTRA: &str = "login.microsoftonline.com";
/// What the newest version of everything is called.
const NEWEST: &str = "0123456789abcdef0123456789abcdef";

/// A running mock; it ends with the process.
#[derive(Debug)]
pub struct MockAzure {
    port: u16,
    authority: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    _folder: tempfile::TempDir,
}

/// One request.
struct Request {
    method: String,
    target: String,
    headers: HashMap<String, String>,
    body: String,
}

/// Status, the header `WWW-Authenticate`, and body.
type Answer = (&'static str, &'static str, Value);

impl MockAzure {
    /// Serves `secrets`, by name or `name/version`.
    pub fn start(secrets: &'static [(&'static str, &'static str)]) -> Self {
        let (authority, config) = certificates(&[VAULT, ENTRA]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authority.pem");
        std::fs::write(&path, authority).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, log) = (Arc::clone(&config), Arc::clone(&log));
                // A client that breaks off is not this server's failure.
                std::thread::spawn(move || converse(stream.unwrap(), config, secrets, &log).ok());
            }
        });
        Self { port, authority: path, asked, _folder: folder }
    }

    /// What makes a client come here, and the vault that Strongroom may ask.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("HTTPS_PROXY", format!("http://127.0.0.1:{}", self.port)),
            ("SSL_CERT_FILE", self.authority.display().to_string()),
            ("STRONGROOM_ALLOW_ADDRESSES", format!("https://{VAULT}")),
        ]
    }

    /// An application with a secret.
    pub fn client_secret() -> [(&'static str, String); 3] {
        [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", MARKER)]
            .map(|(name, value)| (name, value.to_owned()))
    }

    /// The identity of a pod or machine.
    pub fn managed_identity(&self) -> [(&'static str, String); 2] {
        [
            ("IDENTITY_ENDPOINT", format!("http://127.0.0.1:{}/msi", self.port)),
            ("IDENTITY_HEADER", MARKER.to_owned()),
        ]
    }

    /// How often something whose method, host and path begin like this was asked for.
    pub fn asked(&self, start: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.starts_with(start)).count()
    }
}

fn converse(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    secrets: &[(&str, &str)],
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    // What follows the head of a CONNECT is sent only once it is answered, so nothing is lost in the buffer.
    let Some(first) = request(&mut BufReader::new(&stream))? else { return Ok(()) };
    if first.method != "CONNECT" {
        assert!(first.target.starts_with("/msi?"), "{}", first.target);
        assert_eq!(first.headers["x-identity-header"], MARKER);
        return send(&mut stream, ("200 OK", "", token()));
    }
    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let tls = ServerConnection::new(config).expect("the configuration is complete");
    let mut stream = BufReader::new(StreamOwned::new(tls, stream));
    while let Some(request) = request(&mut stream)? {
        let host = request.headers["host"].clone();
        let path = request.target.split('?').next().unwrap_or_default();
        log.lock().unwrap().push(format!("{} {host}{path}", request.method));
        let answer = if host == ENTRA { entra(path, &request.body) } else { vault(path, &request, secrets) };
        send(stream.get_mut(), answer)?;
    }
    Ok(())
}

fn token() -> Value {
    let later =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 86_400;
    json!({
        "access_token": format!("{MARKER}-token"), "token_type": "Bearer", "expires_in": 86_400,
        "expires_on": later.to_string(), "resource": "https://vault.azure.net",
    })
}

fn entra(path: &str, body: &str) -> Answer {
    let base = format!("https://{ENTRA}/t");
    match path {
        "/t/oauth2/v2.0/token" => {
            assert!(body.contains("scope=https%3A%2F%2Fvault.azure.net%2F.default"), "{body}");
            let by_secret = body.contains(&format!("client_secret={MARKER}&"));
            if by_secret || body.contains(&format!("client_assertion={MARKER}-of-the-pod")) {
                return ("200 OK", "", token());
            }
            let why =
                json!({"error": "invalid_client", "error_codes": [7_000_215], "error_description": body});
            ("401 Unauthorized", "", why)
        }
        "/t/v2.0/.well-known/openid-configuration" => {
            let endpoint = |name: &str| format!("{base}/oauth2/v2.0/{name}");
            let known = json!({
                "token_endpoint": endpoint("token"), "authorization_endpoint": endpoint("authorize"),
                "issuer": format!("{base}/v2.0"),
            });
            ("200 OK", "", known)
        }
        "/common/discovery/instance" => {
            let itself = json!({"preferred_network": ENTRA, "preferred_cache": ENTRA, "aliases": [ENTRA]});
            let discovery = format!("{base}/v2.0/.well-known/openid-configuration");
            ("200 OK", "", json!({"tenant_discovery_endpoint": discovery, "metadata": [itself]}))
        }
        _ => ("404 Not Found", "", json!({})),
    }
}

fn vault(path: &str, request: &Request, secrets: &[(&str, &str)]) -> Answer {
    let error = |code: &str| json!({"error": {"code": code, "message": MARKER}});
    if request.headers.get("authorization") != Some(&format!("Bearer {MARKER}-token")) {
        let challenge = r#"Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net""#;
        return ("401 Unauthorized", challenge, error("Unauthorized"));
    }
    let path: Vec<_> = path.trim_matches('/').split('/').collect();
    let kid = |name: &str| format!("https://{VAULT}/keys/{name}/{NEWEST}");
    match (request.method.as_str(), &path[..]) {
        ("GET", ["keys", name]) => ("200 OK", "", json!({"key": {"kid": kid(name), "kty": "RSA"}})),
        ("POST", ["keys", name, NEWEST | "", action]) => {
            let body: Value = serde_json::from_str(&request.body).unwrap();
            assert_eq!(body["alg"], "RSA-OAEP-256");
            let value = URL_SAFE_NO_PAD.decode(body["value"].as_str().unwrap()).unwrap();
            let value = match *action {
                "encrypt" => [b"sealed", &value[..]].concat(),
                "decrypt" => value.strip_prefix(b"sealed").expect("it was sealed here").to_vec(),
                other => panic!("{other} is not asked for"),
            };
            ("200 OK", "", json!({"kid": kid(name), "value": URL_SAFE_NO_PAD.encode(value)}))
        }
        ("GET", ["secrets", name @ ..]) => {
            let name = name.join("/");
            match secrets.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => ("200 OK", "", json!({"value": value, "id": name})),
                None => ("404 Not Found", "", error("SecretNotFound")),
            }
        }
        _ => ("404 Not Found", "", error("NotFound")),
    }
}

fn send(stream: &mut impl Write, (status, challenge, body): Answer) -> std::io::Result<()> {
    let body = body.to_string();
    let challenge =
        if challenge.is_empty() { String::new() } else { format!("WWW-Authenticate: {challenge}\r\n") };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{challenge}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    stream.flush()
}

/// The next request; `None` when the client is done.
fn request(stream: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut first = String::new();
    if stream.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Request { method, target, headers, body: String::from_utf8(body).unwrap() }))
}
