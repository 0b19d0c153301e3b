//! Key services: `sops keyservice` on another machine, or behind a socket, opens and seals data keys for this process.
//!
//! Where they are the operator says, never a file. sops speaks gRPC without TLS to them, so data keys pass as they are: the
//! network between must be one that nobody listens on. No words of theirs are told but those of `PHRASES`.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use url::Url;

use crate::fault::Class;
use crate::secret::Secret;
use crate::sops::keys::wrap::KeyWrap;
use crate::sops::keys::{DOWN_FOR, DataKey, Down, KeyUnwrap, SealedKey, UnwrapError};
use proto::key::KeyType;
use proto::key_service_client::KeyServiceClient;

#[allow(
    clippy::enum_variant_names,
    clippy::pedantic,
    dead_code,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
mod proto {
    tonic::include_proto!("_");
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Somebody may have to say yes first: `sops keyservice --prompt`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What the words of a key service are looked for; they may quote anything else.
const PHRASES: [&str; 9] = [
    "AccessDenied",
    "NotFoundException",
    "could not decrypt data key with PGP key",
    "failed to load age identities",
    "identity did not match any of the recipients",
    "no identity matched any of the recipients",
    "permission denied",
    "PERMISSION_DENIED",
    "Request rejected by user",
];

/// `tcp://HOST:PORT`, or `unix:///PATH`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceAddress {
    named: String,
    uri: String,
}

/// What is named is no address of a key service.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is neither tcp://HOST:PORT nor unix:///PATH")]
pub struct ServiceAddressError;

impl FromStr for ServiceAddress {
    type Err = ServiceAddressError;

    fn from_str(text: &str) -> Result<Self, ServiceAddressError> {
        let named = text.trim().to_owned();
        let uri = match named.split_once("://") {
            Some(("tcp", host)) => of_host(host),
            Some(("unix", path)) if path.starts_with('/') => Some(named.clone()),
            _ => None,
        };
        uri.map(|uri| Self { named, uri }).ok_or(ServiceAddressError)
    }
}

/// `http://HOST:PORT`, if it is that and no more.
fn of_host(host: &str) -> Option<String> {
    let (name, port) = host.rsplit_once(':')?;
    let uri = format!("http://{host}");
    let url: Url = uri.parse().ok()?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let whole = !name.is_empty() && port.parse::<u16>().is_ok() && !host.contains(['/', '@']);
    (bare && whole).then_some(uri)
}

/// One of them.
pub struct KeyService {
    address: ServiceAddress,
    channel: OnceLock<Channel>,
    down: Mutex<Option<Down>>,
}

impl KeyService {
    /// Connects when it is first asked.
    pub fn new(address: ServiceAddress) -> Self {
        Self { address, channel: OnceLock::new(), down: Mutex::default() }
    }

    async fn decrypt(&self, key: &SealedKey) -> Result<DataKey, UnwrapError> {
        let (key, ciphertext) = named(key);
        let request = proto::DecryptRequest { key: Some(key), ciphertext: ciphertext.into() };
        let answer = self.ask(async |mut client| client.decrypt(request).await).await?;
        Ok(Secret::new(answer.plaintext))
    }

    async fn encrypt(&self, key: &SealedKey, data_key: &DataKey) -> Result<String, UnwrapError> {
        let (key, _) = named(key);
        let request = proto::EncryptRequest { key: Some(key), plaintext: data_key.expose().clone() };
        let answer = self.ask(async |mut client| client.encrypt(request).await).await?;
        let sealed = String::from_utf8(answer.ciphertext).ok().filter(|sealed| !sealed.is_empty());
        sealed.ok_or_else(|| self.error(Class::Invalid, "gives no sealed key"))
    }

    async fn ask<T>(
        &self,
        call: impl AsyncFnOnce(KeyServiceClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, UnwrapError> {
        if let Some((since, error)) = &*self.down.lock().unwrap_or_else(PoisonError::into_inner)
            && since.elapsed() < DOWN_FOR
        {
            return Err(error.clone());
        }
        let call = call(KeyServiceClient::new(self.channel()?));
        let outcome = match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(|status| self.failure(&status)),
            Err(_) => Err(self.error(Class::Timeout, "did not answer in time")),
        };
        let down = outcome.as_ref().err().filter(|error| error.class != Class::Denied);
        let down = down.map(|error| (Instant::now(), error.clone()));
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = down;
        outcome
    }

    fn channel(&self) -> Result<Channel, UnwrapError> {
        if let Some(channel) = self.channel.get() {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(self.address.uri.clone());
        let endpoint =
            endpoint.map_err(|_| self.error(Class::Invalid, "has no address that can be asked"))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        Ok(self.channel.get_or_init(|| endpoint.connect_lazy()).clone())
    }

    fn failure(&self, status: &Status) -> UnwrapError {
        let said = PHRASES.iter().find(|phrase| status.message().contains(**phrase));
        // With a source it is from this side, whatever its code: the other one is not there, or speaks no HTTP/2.
        let lost = status.source().is_some() || matches!(status.code(), Code::Unavailable | Code::Cancelled);
        match (status.code(), said) {
            _ if lost => self.error(Class::Unavailable, "cannot be reached"),
            (Code::Unimplemented, _) => self.error(Class::Unavailable, "is no key service"),
            (_, Some(phrase)) => self.error(Class::Denied, &format!("says: {phrase}")),
            (_, None) => self.error(Class::Denied, "does not do it"),
        }
    }

    fn error(&self, class: Class, what: &str) -> UnwrapError {
        UnwrapError::new(class, format!("the key service {} {what}", self.address.named))
    }
}

impl KeyUnwrap for KeyService {
    fn unwrap_key<'a>(&'a self, key: &'a SealedKey) -> BoxFuture<'a, Option<Result<DataKey, UnwrapError>>> {
        async move { Some(self.decrypt(key).await) }.boxed()
    }
}

impl KeyWrap for KeyService {
    fn wrap_key<'a>(
        &'a self,
        key: &'a SealedKey,
        data_key: &'a DataKey,
    ) -> BoxFuture<'a, Option<Result<String, UnwrapError>>> {
        async move { Some(self.encrypt(key, data_key).await) }.boxed()
    }
}

impl fmt::Debug for KeyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyService").field(&self.address.named).finish()
    }
}

/// A key as the protocol names it, and what is sealed to it.
fn named(key: &SealedKey) -> (proto::Key, &str) {
    let (key_type, enc) = match key {
        SealedKey::Age { recipient, enc } => {
            (KeyType::AgeKey(proto::AgeKey { recipient: recipient.clone() }), enc)
        }
        SealedKey::Pgp { fingerprint, enc } => {
            (KeyType::PgpKey(proto::PgpKey { fingerprint: fingerprint.clone() }), enc)
        }
        SealedKey::Kms { arn, role, context, profile, enc } => {
            let key = proto::KmsKey {
                arn: arn.clone(),
                role: role.clone().unwrap_or_default(),
                context: context.iter().cloned().collect(),
                aws_profile: profile.clone().unwrap_or_default(),
            };
            (KeyType::KmsKey(key), enc)
        }
        SealedKey::GcpKms { resource_id, enc } => {
            (KeyType::GcpKmsKey(proto::GcpKmsKey { resource_id: resource_id.clone() }), enc)
        }
        SealedKey::AzureKeyVault { vault_url, name, version, enc } => {
            let (vault_url, name, version) = (vault_url.clone(), name.clone(), version.clone());
            (KeyType::AzureKeyvaultKey(proto::AzureKeyVaultKey { vault_url, name, version }), enc)
        }
        SealedKey::VaultTransit { address, engine_path, key_name, enc } => {
            let (vault_address, engine_path, key_name) =
                (address.clone(), engine_path.clone(), key_name.clone());
            (KeyType::VaultKey(proto::VaultKey { vault_address, engine_path, key_name }), enc)
        }
        SealedKey::HuaweiKms { key_id, enc } => {
            (KeyType::HckmsKey(proto::HckmsKey { key_id: key_id.clone() }), enc)
        }
    };
    (proto::Key { key_type: Some(key_type) }, enc)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Server;
    use tonic::{Request, Response};

    use super::*;
    use proto::key_service_server::KeyServiceServer;

    /// A mock that answers with the key it was asked for, and what it was given, or as what it was given says.
    #[derive(Clone, Default)]
    struct Mock(Arc<AtomicUsize>);

    impl Mock {
        fn answer(&self, key: Option<proto::Key>, given: &[u8]) -> Result<Vec<u8>, Status> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let given = std::str::from_utf8(given).unwrap();
            match given {
                "unknown" => {
                    Err(Status::unknown("STRONGROOM-MARKER: identity did not match any of the recipients"))
                }
                "odd" => Err(Status::unknown("STRONGROOM-MARKER")),
                "no" => Err(Status::permission_denied("Request rejected by user")),
                "gone" => Err(Status::unavailable("STRONGROOM-MARKER")),
                "empty" => Ok(Vec::new()),
                _ => Ok(format!("{given} {:?}", key.unwrap().key_type.unwrap()).into_bytes()),
            }
        }
    }

    #[tonic::async_trait]
    impl proto::key_service_server::KeyService for Mock {
        async fn encrypt(
            &self,
            request: Request<proto::EncryptRequest>,
        ) -> Result<Response<proto::EncryptResponse>, Status> {
            let request = request.into_inner();
            let ciphertext = self.answer(request.key, &request.plaintext)?;
            Ok(Response::new(proto::EncryptResponse { ciphertext }))
        }

        async fn decrypt(
            &self,
            request: Request<proto::DecryptRequest>,
        ) -> Result<Response<proto::DecryptResponse>, Status> {
            let request = request.into_inner();
            let plaintext = self.answer(request.key, &request.ciphertext)?;
            Ok(Response::new(proto::DecryptResponse { plaintext }))
        }
    }

    /// A mock that runs as long as the test's runtime, and a client of it.
    async fn mock() -> (Mock, String) {
        let mock = Mock::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let router = Server::builder().add_service(KeyServiceServer::new(mock.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        (mock, address)
    }

    fn keys(enc: &str) -> [(SealedKey, &'static str); 7] {
        let enc = || enc.to_owned();
        let named = |text: &str| text.to_owned();
        [
            (
                SealedKey::Age { recipient: named("age1x"), enc: enc() },
                r#"AgeKey(AgeKey { recipient: "age1x" })"#,
            ),
            (
                SealedKey::Pgp { fingerprint: named("AB"), enc: enc() },
                r#"PgpKey(PgpKey { fingerprint: "AB" })"#,
            ),
            (
                SealedKey::Kms {
                    arn: named("a"),
                    role: Some(named("r")),
                    context: vec![(named("k"), named("v"))],
                    profile: None,
                    enc: enc(),
                },
                r#"KmsKey(KmsKey { arn: "a", role: "r", context: {"k": "v"}, aws_profile: "" })"#,
            ),
            (
                SealedKey::GcpKms { resource_id: named("g"), enc: enc() },
                r#"GcpKmsKey(GcpKmsKey { resource_id: "g" })"#,
            ),
            (
                SealedKey::AzureKeyVault {
                    vault_url: named("u"),
                    name: named("n"),
                    version: named("1"),
                    enc: enc(),
                },
                r#"AzureKeyvaultKey(AzureKeyVaultKey { vault_url: "u", name: "n", version: "1" })"#,
            ),
            (
                SealedKey::VaultTransit {
                    address: named("h"),
                    engine_path: named("t"),
                    key_name: named("k"),
                    enc: enc(),
                },
                r#"VaultKey(VaultKey { vault_address: "h", engine_path: "t", key_name: "k" })"#,
            ),
            (
                SealedKey::HuaweiKms { key_id: named("r:k"), enc: enc() },
                r#"HckmsKey(HckmsKey { key_id: "r:k" })"#,
            ),
        ]
    }

    #[tokio::test]
    async fn a_mock_is_asked_for_keys_of_every_kind_by_their_names() {
        let (_, address) = mock().await;
        let service = KeyService::new(address.parse().unwrap());
        let data_key = Secret::new(b"STRONGROOM-MARKER".to_vec());
        for (key, expected) in keys("sealed") {
            let opened = service.unwrap_key(&key).await.unwrap().unwrap();
            assert_eq!(opened.expose(), format!("sealed {expected}").as_bytes());
            let sealed = service.wrap_key(&key, &data_key).await.unwrap().unwrap();
            assert_eq!(sealed, format!("STRONGROOM-MARKER {expected}"));
        }
    }

    #[tokio::test]
    async fn what_a_mock_says_is_classified_and_a_service_that_is_gone_is_not_asked_again_soon() {
        let (mock, address) = mock().await;
        let service = KeyService::new(address.parse().unwrap());
        let told = async |enc: &str| {
            let [(key, _), ..] = keys(enc);
            match service.unwrap_key(&key).await.unwrap() {
                Ok(_) => "opened".to_owned(),
                Err(error) => format!("{:?}: {}", error.class, error.reason.replace(&address, "IT")),
            }
        };
        for (enc, expected, asked) in [
            ("unknown", "Denied: the key service IT says: identity did not match any of the recipients", 1),
            ("odd", "Denied: the key service IT does not do it", 2),
            ("no", "Denied: the key service IT says: Request rejected by user", 3),
            ("sealed", "opened", 4),
            ("gone", "Unavailable: the key service IT cannot be reached", 5),
            ("sealed", "Unavailable: the key service IT cannot be reached", 5),
        ] {
            assert_eq!(told(enc).await, expected);
            assert_eq!(mock.0.load(Ordering::Relaxed), asked, "{enc}");
        }
        let [(key, _), ..] = keys("");
        let other = KeyService::new(address.parse().unwrap());
        let error = other.wrap_key(&key, &Secret::new(b"empty".to_vec())).await.unwrap().unwrap_err();
        assert_eq!(error.class, Class::Invalid);
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let nobody = KeyService::new(format!("tcp://{nobody}").parse().unwrap());
        let error = nobody.unwrap_key(&key).await.unwrap().unwrap_err();
        assert_eq!(error.class, Class::Unavailable, "{error}");
    }

    #[test]
    fn an_address_is_of_tcp_or_of_a_socket() {
        for (text, uri) in [
            ("tcp://keys.example:5000", Some("http://keys.example:5000")),
            (" tcp://[::1]:80", Some("http://[::1]:80")),
            ("unix:///run/keys.sock", Some("unix:///run/keys.sock")),
            ("unix://run/keys.sock", None),
            ("tcp://keys.example", None),
            ("tcp://:5000", None),
            ("tcp://user@keys.example:5000", None),
            ("tcp://keys.example:5000/x", None),
            ("tcp://keys.example:port", None),
            ("https://keys.example:5000", None),
            ("keys.example:5000", None),
            ("", None),
        ] {
            let address = text.parse::<ServiceAddress>().ok().map(|address| address.uri);
            assert_eq!(address.as_deref(), uri, "{text}");
        }
    }
}
