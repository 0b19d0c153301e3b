//! A mock server for tests: HTTP on loopback that answers each request by a function. Ends with its test.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// With its query.
    pub(crate) path: String,
    pub(crate) body: String,
    /// How often this path was asked for, this time included.
    pub(crate) number: usize,
    headers: HashMap<String, String>,
}

impl Request {
    /// Empty where it is not there.
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.get(name).cloned().unwrap_or_default()
    }

    /// The request, once it is whole.
    fn parse(request: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(request).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        let path = head.split(' ').nth(1)?.to_owned();
        let request = Self { path, body: body.to_owned(), number: 0, headers: headers.collect() };
        let length: usize = request.header("content-length").parse().unwrap_or_default();
        (body.len() >= length).then_some(request)
    }
}

/// A server that runs as long as the test's runtime.
pub(crate) struct Mock {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Mock {
    /// `answer` gives status and body; one that moves the client on moves it to `/moved`, and a bucket to `eu-north-1`.
    pub(crate) async fn start(answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let log = Arc::clone(&seen);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self { url, seen }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    mut connection: TcpStream,
    answer: Arc<impl Fn(&Request) -> (u16, String)>,
    log: Arc<Mutex<Vec<Request>>>,
) {
    let mut bytes = Vec::new();
    let mut request = loop {
        if connection.read_buf(&mut bytes).await.unwrap_or_default() == 0 {
            return;
        }
        if let Some(request) = Request::parse(&bytes) {
            break request;
        }
    };
    let (status, body) = {
        let mut log = log.lock().unwrap();
        request.number = log.iter().filter(|known| known.path == request.path).count() + 1;
        log.push(request.clone());
        answer(&request)
    };
    let moved = if (300..400).contains(&status) {
        "location: /moved\r\nx-amz-bucket-region: eu-north-1\r\n"
    } else {
        ""
    };
    let head =
        format!("HTTP/1.1 {status} -\r\n{moved}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}
