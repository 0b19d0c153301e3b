//! A mock of an OpenTelemetry collector: takes OTLP over gRPC on loopback, over TLS too, and keeps what it got.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prost::Message;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::fake_aws::certificates;

/// A gRPC message without content: not compressed, no bytes.
const EMPTY: [u8; 5] = [0; 5];

/// A request, as far as the tests read it.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, Message)]
struct OfResource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

/// A span.
#[derive(Clone, PartialEq, Message)]
pub struct Span {
    /// Which trace it is in.
    #[prost(bytes = "vec", tag = "1")]
    pub trace: Vec<u8>,
    /// Which one it is.
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    /// Which one it is in.
    #[prost(bytes = "vec", tag = "4")]
    pub parent: Vec<u8>,
    /// What it is called.
    #[prost(string, tag = "5")]
    pub name: String,
}

/// The collector; it goes with its runtime.
pub struct MockCollector {
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
    got: Arc<Mutex<Vec<Bytes>>>,
    _runtime: Runtime,
}

impl MockCollector {
    /// Listens.
    pub fn start() -> Self {
        Self::listen(None)
    }

    /// Listens behind TLS; the authority to trust it by, as PEM.
    pub fn start_tls() -> (Self, String) {
        let (authority, config) = certificates(&["127.0.0.1"]);
        let mut config = ServerConfig::clone(&config);
        config.alpn_protocols.push(b"h2".to_vec());
        (Self::listen(Some(TlsAcceptor::from(Arc::new(config)))), authority)
    }

    fn listen(tls: Option<TlsAcceptor>) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&got);
        runtime.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (all, tls) = (Arc::clone(&all), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(connection, all).await,
                        // A client that does not trust the certificate breaks off, which is not this server's failure.
                        Some(tls) => {
                            if let Ok(connection) = tls.accept(connection).await {
                                answer(connection, all).await;
                            }
                        }
                    }
                });
            }
        });
        Self { endpoint, got, _runtime: runtime }
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let exports = got.iter().map(|message| Export::decode(&message[EMPTY.len()..]).unwrap());
        let scopes = exports.flat_map(|export| export.resources).flat_map(|resource| resource.scopes);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// All that was sent, as far as it is text.
    pub fn sent(&self) -> String {
        self.got.lock().unwrap().iter().map(|message| String::from_utf8_lossy(message)).collect()
    }
}

async fn answer(connection: impl AsyncRead + AsyncWrite + Unpin, got: Arc<Mutex<Vec<Bytes>>>) {
    let mut connection = h2::server::handshake(connection).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let got = Arc::clone(&got);
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                message.extend_from_slice(&data);
            }
            got.lock().unwrap().push(message.into());
            let head = axum::http::Response::builder().header("content-type", "application/grpc");
            let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from_static(&EMPTY), false).unwrap();
            let status = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
            stream.send_trailers(status.into_iter().collect()).unwrap();
        });
    }
}
