//! A mock of Vault for tests: an HTTP server on loopback that answers each request by a function. Ends with its test.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Below `/v1/`, with its query.
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) namespace: String,
    pub(crate) body: Json,
    /// How often this path was asked for, this time included.
    pub(crate) number: usize,
}

/// Status and body for a request.
pub(crate) type Answer = fn(&Seen) -> (u16, Json);

/// A server that runs as long as the test's runtime.
pub(crate) struct Mock {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Mock {
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, answer, Arc::clone(&log)));
            }
        });
        Self { url, seen }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut connection: TcpStream, answer: Answer, log: Arc<Mutex<Vec<Seen>>>) {
    let mut request = Vec::new();
    let mut seen = loop {
        if connection.read_buf(&mut request).await.unwrap_or_default() == 0 {
            return;
        }
        if let Some(seen) = parse(&request) {
            break seen;
        }
    };
    let (status, body) = {
        let mut log = log.lock().unwrap();
        seen.number = log.iter().filter(|known| known.path == seen.path).count() + 1;
        log.push(seen.clone());
        answer(&seen)
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}

/// The request, once it is whole.
fn parse(request: &[u8]) -> Option<Seen> {
    let text = std::str::from_utf8(request).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let headers: HashMap<_, _> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let header = |name: &str| headers.get(name).map(|value| (*value).to_owned()).unwrap_or_default();
    let length: usize = header("content-length").parse().unwrap_or_default();
    let path = head.split(' ').nth(1)?.strip_prefix("/v1/")?.to_owned();
    (body.len() >= length).then(|| Seen {
        path,
        token: header("x-vault-token"),
        namespace: header("x-vault-namespace"),
        body: serde_json::from_str(body).unwrap_or(Json::Null),
        number: 0,
    })
}
