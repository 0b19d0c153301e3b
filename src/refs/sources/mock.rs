//! AWS as a test wants it: an HTTP server on loopback that answers each call by a function. Ends with its test.

use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::aws::Aws;
use crate::refs::source::{Document, FetchError, Locator};

/// What is answered to an operation and its input: the output, or the code of an error.
pub(super) type Answer = fn(&str, &Value) -> Result<Value, &'static str>;

/// The names of the operations that were called.
pub(super) type Calls = Arc<Mutex<Vec<String>>>;

/// Starts a server, and gives what reaches it.
pub(super) async fn aws(answer: Answer) -> (Arc<Aws>, Calls) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let calls = Calls::default();
    let log = Arc::clone(&calls);
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(serve(connection, answer, Arc::clone(&log)));
        }
    });
    let credentials = Credentials::new("id", "STRONGROOM-MARKER", None, None, "mock");
    (Arc::new(Aws::emulated(endpoint, "eu-west-1", credentials)), calls)
}

async fn serve(mut connection: TcpStream, answer: Answer, calls: Calls) {
    let mut request = Vec::new();
    let (operation, input) = loop {
        if connection.read_buf(&mut request).await.unwrap() == 0 {
            return;
        }
        if let Some(call) = parse(&request) {
            break call;
        }
    };
    calls.lock().unwrap().push(operation.clone());
    let (status, body) = match answer(&operation, &input) {
        Ok(output) => ("200 OK", output),
        Err(code) => ("400 Bad Request", json!({"__type": code, "message": "for a reason"})),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}

/// The operation and its input, once the request is whole.
fn parse(request: &[u8]) -> Option<(String, Value)> {
    let text = std::str::from_utf8(request).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |wanted: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let operation = header("x-amz-target")?.rsplit('.').next()?.to_owned();
    let whole = body.len() >= header("content-length")?.parse().ok()?;
    whole.then(|| (operation, serde_json::from_str(body).unwrap()))
}

/// Answers as text, and errors as their class and reason.
pub(super) fn told(answers: Vec<Result<Document, FetchError>>) -> Vec<String> {
    let tell = |answer: Result<Document, FetchError>| match answer {
        Ok(document) => String::from_utf8(document.expose().clone()).unwrap(),
        Err(error) => format!("{:?}: {}", error.class, error.reason),
    };
    answers.into_iter().map(tell).collect()
}

/// How often each operation was called, by name.
pub(super) fn counted(calls: &Calls) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for call in calls.lock().unwrap().iter() {
        *counts.entry(call.clone()).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// A locator with these options.
pub(super) fn locator(path: &str, fragment: bool, params: &[(&str, &str)]) -> Locator {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Locator { path: path.to_owned(), params, fragment }
}

/// Locators of these paths, without options.
pub(super) fn locators<'a>(paths: impl IntoIterator<Item = &'a str>, fragment: bool) -> Vec<Locator> {
    paths.into_iter().map(|path| locator(path, fragment, &[])).collect()
}
