//! AWS Secrets Manager over TLS, as far as one read of a secret needs it, with a certificate authority of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// A running server; it ends with the process.
#[derive(Debug)]
pub struct FakeSecretsManager {
    port: u16,
    authority: String,
    answered: Arc<AtomicUsize>,
}

type Secrets = Arc<BTreeMap<String, String>>;

impl FakeSecretsManager {
    /// Serves `secrets` by name at `at`, with a certificate for the host `name`.
    pub fn start(at: (Ipv4Addr, u16), name: &str, secrets: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (authority, config) = certificates(name);
        let secrets: Secrets =
            Arc::new(secrets.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        let answered = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&answered);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, secrets, count) =
                    (Arc::clone(&config), Arc::clone(&secrets), Arc::clone(&count));
                // A client that does not trust the certificate breaks off, which is not this server's failure.
                std::thread::spawn(move || serve(stream.unwrap(), config, &secrets, &count).ok());
            }
        });
        Self { port, authority, answered }
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of its authority, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// How many requests it has answered.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }
}

fn certificates(name: &str) -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Strongroom test authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    (authority.pem(), Arc::new(config))
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    secrets: &Secrets,
    count: &AtomicUsize,
) -> std::io::Result<()> {
    let tls = ServerConnection::new(config).expect("the configuration is complete");
    let mut stream = BufReader::new(StreamOwned::new(tls, stream));
    while let Some((target, body)) = request(&mut stream)? {
        count.fetch_add(1, Ordering::SeqCst);
        let (status, answer) = answer(&target, &body, secrets);
        let answer = answer.to_string();
        write!(
            stream.get_mut(),
            "HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
        stream.get_mut().flush()?;
    }
    Ok(())
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

fn answer(target: &str, body: &Value, secrets: &Secrets) -> (&'static str, Value) {
    let found = |name: &str| secrets.get(name).map(|value| json!({"Name": name, "SecretString": value}));
    match target {
        "secretsmanager.GetSecretValue" => match found(body["SecretId"].as_str().unwrap_or_default()) {
            Some(secret) => ("200 OK", secret),
            None => (
                "400 Bad Request",
                json!({"__type": "ResourceNotFoundException", "message": "no such secret"}),
            ),
        },
        "secretsmanager.BatchGetSecretValue" => {
            let names = body["SecretIdList"].as_array().into_iter().flatten().filter_map(Value::as_str);
            ("200 OK", json!({"SecretValues": names.filter_map(found).collect::<Vec<_>>(), "Errors": []}))
        }
        _ => ("400 Bad Request", json!({"__type": "UnknownOperationException"})),
    }
}
