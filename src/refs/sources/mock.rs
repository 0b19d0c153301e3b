//! Backends as a test wants them: AWS on a mock server that answers each call by a function, and what is told of it.

use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::azure::Azure;
use crate::environment::Environment;
use crate::google::Google;
use crate::kubernetes::Kubernetes;
use crate::refs::ambient::Ambient;
use crate::refs::source::{Document, FetchError, Locator};
use crate::sops::open::OpenOptions;
use crate::vault::{Settings, Vault};
use crate::web::mock::{Mock, Request};

/// What is answered to an operation and its input: the output, or the code of an error.
pub(super) type Answer = fn(&str, &Value) -> Result<Value, &'static str>;

/// The names of the operations that were called.
pub(super) type Calls = Arc<Mutex<Vec<String>>>;

/// Starts a server, and gives what reaches it.
pub(super) async fn aws(answer: Answer) -> (Arc<Aws>, Calls) {
    let calls = Calls::default();
    let log = Arc::clone(&calls);
    let mock = Mock::start(move |request| {
        let (operation, input) = called(request);
        log.lock().unwrap().push(operation.clone());
        let (status, body) = match answer(&operation, &input) {
            Ok(output) => (200, output),
            Err(code) => (400, json!({"__type": code, "message": "for a reason"})),
        };
        (status, body.to_string())
    })
    .await;
    let credentials = Credentials::new("id", "STRONGROOM-MARKER", None, None, "mock");
    (Arc::new(Aws::emulated(mock.url, "eu-west-1", credentials)), calls)
}

fn called(request: &Request) -> (String, Value) {
    let target = request.header("x-amz-target");
    let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
    (operation, serde_json::from_str(&request.body).unwrap())
}

/// What an operator with these variables, and this list of addresses, has.
pub(super) fn ambient(variables: &[(&str, &str)], addresses: &[&str]) -> Ambient {
    let environment: Environment = variables.iter().copied().collect();
    let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let settings = Settings { addresses: addresses.clone(), home: false };
    Ambient {
        environment: environment.clone(),
        addresses: addresses.clone(),
        aws: Arc::default(),
        azure: Arc::new(Azure::mocked(addresses.clone(), "STRONGROOM-MARKER-token")),
        google: Arc::new(Google::new(environment.clone())),
        kubernetes: Arc::new(addresses.first().map_or_else(Kubernetes::default, |address| {
            Kubernetes::mocked(&address.to_string(), "STRONGROOM-MARKER-token")
        })),
        vault: Arc::new(Vault::new(environment, settings)),
        keyring: Arc::default(),
        sops: OpenOptions::default(),
        envsubst: None,
    }
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
