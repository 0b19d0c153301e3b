//! A mock of Vault for tests.

use serde_json::Value as Json;

use crate::web::mock::{self, Request};

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

impl Seen {
    fn of(request: &Request) -> Self {
        Self {
            path: request.path.strip_prefix("/v1/").expect("Vault is asked below /v1/").to_owned(),
            token: request.header("x-vault-token"),
            namespace: request.header("x-vault-namespace"),
            body: serde_json::from_str(&request.body).unwrap_or(Json::Null),
            number: request.number,
        }
    }
}

/// Status and body for a request.
pub(crate) type Answer = fn(&Seen) -> (u16, Json);

/// A server that runs as long as the test's runtime.
pub(crate) struct Mock {
    pub(crate) url: String,
    server: mock::Mock,
}

impl Mock {
    pub(crate) async fn start(answer: Answer) -> Self {
        let answer = move |request: &Request| {
            let (status, body) = answer(&Seen::of(request));
            (status, body.to_string())
        };
        let server = mock::Mock::start(answer).await;
        Self { url: server.url.clone(), server }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.server.seen().iter().map(Seen::of).collect()
    }
}
