//! A mock server for tests: HTTP on loopback that answers each request by a function. Ends with its test.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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
    crowd: Arc<Crowd>,
}

/// The requests that are being answered.
struct Crowd {
    /// A request waits until so many are there.
    awaited: usize,
    now: AtomicUsize,
    most: watch::Sender<usize>,
}

impl Crowd {
    /// How long requests that never get as many as awaited wait, and how long those do that got them, for one too many.
    const PATIENCE: Duration = Duration::from_secs(1);
    const MOMENT: Duration = Duration::from_millis(10);

    fn of(awaited: usize) -> Self {
        Self { awaited, now: AtomicUsize::new(0), most: watch::Sender::new(0) }
    }

    /// Keeps a request among the others for a while.
    async fn mix(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.send_modify(|most| *most = now.max(*most));
        if self.awaited > 0 {
            let mut most = self.most.subscribe();
            let all = most.wait_for(|most| *most >= self.awaited);
            drop(tokio::time::timeout(Self::PATIENCE, all).await);
            tokio::time::sleep(Self::MOMENT).await;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Mock {
    /// `answer` gives status and body; one that moves the client on moves it to `/moved`, and a bucket to `eu-north-1`.
    pub(crate) async fn start(answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::crowded(0, answer).await
    }

    /// The same, where an answer waits until `awaited` requests are there at once.
    pub(crate) async fn crowded(
        awaited: usize,
        answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let log = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let crowd = Arc::new(Crowd::of(awaited));
        let all = Arc::clone(&crowd);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, Arc::clone(&answer), Arc::clone(&log), Arc::clone(&all)));
            }
        });
        Self { url, seen, crowd }
    }

    /// The most requests that were there at once.
    pub(crate) fn most_at_once(&self) -> usize {
        *self.crowd.most.borrow()
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
    crowd: Arc<Crowd>,
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
    crowd.mix().await;
    let moved = if (300..400).contains(&status) {
        "location: /moved\r\nx-amz-bucket-region: eu-north-1\r\n"
    } else {
        ""
    };
    let head =
        format!("HTTP/1.1 {status} -\r\n{moved}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}
