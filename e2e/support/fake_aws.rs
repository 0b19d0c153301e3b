//! AWS Secrets Manager, as far as reading secrets needs it: over TLS with a certificate authority of its own, or plain
//! with a simulated latency.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// A running server on loopback; it ends with the process.
#[derive(Debug)]
pub struct FakeSecretsManager {
    port: u16,
    service: Arc<Service>,
}

/// The same server with TLS, and the authority to trust it by.
#[derive(Debug)]
pub struct OverTls {
    server: FakeSecretsManager,
    authority: String,
}

#[derive(Debug)]
struct Service {
    secrets: BTreeMap<String, String>,
    latency: Duration,
    refusal: Option<Refusal>,
    asked: AtomicUsize,
    answered: AtomicUsize,
}

/// What the first requests get in place of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    /// AWS's error code, such as `ThrottlingException`.
    pub code: &'static str,
    /// The sentence with it.
    pub message: &'static str,
    /// How many requests.
    pub times: usize,
}

impl FakeSecretsManager {
    /// Serves `secrets` by name, each answer after `latency`.
    pub fn start(secrets: &[(String, String)], latency: Duration) -> Self {
        Self::listen(secrets, latency, None, |stream, service| service.converse(stream))
    }

    /// Serves `secrets` by name once it has refused some requests.
    pub fn start_refusing(secrets: &[(String, String)], refusal: Refusal) -> Self {
        let refusal = Some(refusal);
        Self::listen(secrets, Duration::ZERO, refusal, |stream, service| service.converse(stream))
    }

    /// Serves `secrets` by name, with a certificate for the host `name`.
    pub fn start_tls(name: &str, secrets: &[(String, String)]) -> OverTls {
        let (authority, config) = certificates(&[name]);
        let server = Self::listen(secrets, Duration::ZERO, None, move |stream, service| {
            let tls = ServerConnection::new(Arc::clone(&config)).expect("the configuration is complete");
            service.converse(StreamOwned::new(tls, stream))
        });
        OverTls { server, authority }
    }

    fn listen(
        secrets: &[(String, String)],
        latency: Duration,
        refusal: Option<Refusal>,
        talk: impl Fn(TcpStream, &Service) -> std::io::Result<()> + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let secrets = secrets.iter().cloned().collect();
        let (asked, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let service = Arc::new(Service { secrets, latency, refusal, asked, answered });
        let shared = Arc::clone(&service);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (talk, service) = (talk.clone(), Arc::clone(&shared));
                // A client that does not trust the certificate breaks off, which is not this server's failure.
                std::thread::spawn(move || talk(stream.unwrap(), &service).ok());
            }
        });
        Self { port, service }
    }

    /// For `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests it has got.
    pub fn asked(&self) -> usize {
        self.service.asked.load(Ordering::SeqCst)
    }

    /// How many requests it has answered.
    pub fn answered(&self) -> usize {
        self.service.answered.load(Ordering::SeqCst)
    }
}

impl OverTls {
    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// The certificate of its authority, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// How many requests it has answered.
    pub fn answered(&self) -> usize {
        self.server.answered()
    }
}

impl Service {
    fn converse(&self, stream: impl Read + Write) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some((target, body)) = request(&mut stream)? {
            self.asked.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(self.latency);
            let before = self.answered.fetch_add(1, Ordering::SeqCst);
            let (status, answer) = match self.refusal.filter(|refusal| before < refusal.times) {
                Some(Refusal { code, message, .. }) => {
                    ("400 Bad Request", json!({"__type": code, "message": message}))
                }
                None => self.answer(&target, &body),
            };
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            stream.get_mut().write_all((head + &answer).as_bytes())?;
            stream.get_mut().flush()?;
        }
        Ok(())
    }

    fn answer(&self, target: &str, body: &Value) -> (&'static str, Value) {
        let found = |name: &str| self.secrets.get(name).map(|value| secret(name, value));
        match target {
            "secretsmanager.GetSecretValue" => match found(body["SecretId"].as_str().unwrap_or_default()) {
                Some(secret) => ("200 OK", secret),
                None => {
                    ("400 Bad Request", json!({"__type": "ResourceNotFoundException", "message": "unknown"}))
                }
            },
            "secretsmanager.BatchGetSecretValue" => {
                let names = body["SecretIdList"].as_array().into_iter().flatten().filter_map(Value::as_str);
                ("200 OK", json!({"SecretValues": names.filter_map(found).collect::<Vec<_>>(), "Errors": []}))
            }
            _ => ("400 Bad Request", json!({"__type": "UnknownOperationException"})),
        }
    }
}

fn secret(name: &str, value: &str) -> Value {
    let arn = format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}-AbCdEf");
    json!({"ARN": arn, "Name": name, "VersionId": "1", "VersionStages": ["AWSCURRENT"], "SecretString": value})
}

/// An authority as PEM, and the TLS of a server that it vouches for under `names`.
pub fn certificates(names: &[&str]) -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Strongroom test authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (authority.pem(), Arc::new(config))
}

/// The `X-Amz-Target` and the body of the next request; `None` when the client is done.
fn request(stream: &mut impl BufRead) -> std::io::Result<Option<(String, Value)>> {
    let (mut target, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("x-amz-target") => value.clone_into(&mut target),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap();
            }
            _ if line == "\r\n" => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((target, serde_json::from_slice(&body)?)))
}
