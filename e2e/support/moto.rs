//! AWS Secrets Manager, SSM and KMS as moto's server emulates them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::server::Server;
use super::tools::tool;

/// The region that everything is made in.
pub const REGION: &str = "eu-west-1";

/// The account of whoever assumes no role.
const ACCOUNT: &str = "123456789012";

/// A running moto.
#[derive(Debug)]
pub struct Moto {
    server: Server,
}

/// The one that the tests of a target share; each test uses names of its own. It ends with the test process.
pub fn moto() -> &'static Moto {
    static SHARED: LazyLock<Moto> = LazyLock::new(Moto::start);
    &SHARED
}

impl Moto {
    /// Starts one.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("strongroom-moto-").tempdir().unwrap();
        let arguments = ["-H", "127.0.0.1", "-p", "0"];
        Self { server: Server::start(&tool("moto"), &arguments, home, listening) }
    }

    /// For `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The variables that bring the product, sops and vals here and nowhere else.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Makes a secret in Secrets Manager and returns its ARN.
    pub fn create_secret(&self, name: &str, value: &str) -> String {
        let made = self.call(
            "secretsmanager",
            "secretsmanager.CreateSecret",
            &json!({"Name": name, "SecretString": value}),
        );
        text(&made, "/ARN")
    }

    /// Makes a `SecureString` in SSM.
    pub fn create_parameter(&self, name: &str, value: &str) {
        let parameter = json!({"Name": name, "Value": value, "Type": "SecureString"});
        self.call("ssm", "AmazonSSM.PutParameter", &parameter);
    }

    /// Makes a KMS key and returns its ARN.
    pub fn create_key(&self) -> String {
        text(&self.call("kms", "TrentService.CreateKey", &json!({})), "/KeyMetadata/Arn")
    }

    /// Makes a KMS key in `region` and returns its ARN.
    pub fn create_key_in(&self, region: &str) -> String {
        text(&self.call_at(region, ACCOUNT, "kms", "TrentService.CreateKey", &json!({})), "/KeyMetadata/Arn")
    }

    /// What `key` makes of `text` in this encryption context, in URL-safe base64.
    pub fn encrypt(&self, key: &str, text: &str, context: &[(&str, &str)]) -> String {
        let context: BTreeMap<_, _> = context.iter().copied().collect();
        let input = json!({"KeyId": key, "Plaintext": STANDARD.encode(text), "EncryptionContext": context});
        let sealed = self.call("kms", "TrentService.Encrypt", &input);
        self::text(&sealed, "/CiphertextBlob").replace('+', "-").replace('/', "_")
    }

    /// One call of the JSON protocol that these services share, such as `ssm`, `AmazonSSM.PutParameter`.
    pub fn call(&self, service: &str, target: &str, body: &Value) -> Value {
        self.call_in(ACCOUNT, service, target, body)
    }

    /// The same, in this account.
    pub fn call_in(&self, account: &str, service: &str, target: &str, body: &Value) -> Value {
        self.call_at(REGION, account, service, target, body)
    }

    fn call_at(&self, region: &str, account: &str, service: &str, target: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.server.address).unwrap();
        write!(
            stream,
            "POST / HTTP/1.0\r\nHost: {service}.{region}.amazonaws.com\r\nX-Amz-Target: {target}\r\n\
             X-Moto-Account-Id: {account}\r\n\
             Content-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nAuthorization: AWS4-HMAC-SHA256 \
             Credential=test/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head");
        let status = head.split(' ').nth(1).unwrap_or_default();
        assert_eq!(status, "200", "{target} failed: {body}");
        serde_json::from_str(body).expect("moto answers in JSON")
    }
}

/// From the line ` * Running on http://127.0.0.1:40123`.
fn listening(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("Running on http://")?;
    rest.lines().next()?.trim().parse().ok()
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).expect("moto answers as AWS does").to_owned()
}
