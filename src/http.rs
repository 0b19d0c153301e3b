//! The HTTP side, on a port of its own: `/livez`, `/readyz` and `/metrics`, for the kubelet and Prometheus.
//!
//! It tells states and numbers, and nothing about any application.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

/// What has to happen once before the server is ready. What happened stays so.
#[derive(Clone, Debug)]
pub struct Latch(Arc<[(&'static str, AtomicBool)]>);

impl Latch {
    /// A latch that waits for each of these.
    pub fn new(conditions: &[&'static str]) -> Self {
        Self(conditions.iter().map(|condition| (*condition, AtomicBool::new(false))).collect())
    }

    /// This condition is met.
    pub fn open(&self, condition: &str) {
        for (name, met) in self.0.iter() {
            if *name == condition {
                met.store(true, Ordering::Release);
            }
        }
    }

    /// What is still waited for.
    pub fn waiting(&self) -> Vec<&'static str> {
        let unmet = self.0.iter().filter(|(_, met)| !met.load(Ordering::Acquire));
        unmet.map(|(name, _)| *name).collect()
    }
}

/// The pages.
pub fn router(latch: Latch, registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(latch))
        .route("/metrics", get(metrics).with_state(registry))
}

/// Serves them until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn ready(State(latch): State<Latch>) -> (StatusCode, String) {
    match latch.waiting().as_slice() {
        [] => (StatusCode::OK, "ok\n".to_owned()),
        waiting => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", waiting.join(", "))),
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    async fn page(address: std::net::SocketAddr, path: &str) -> String {
        let mut connection = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_pages_tell_life_readiness_and_numbers() {
        let counter: Counter = Counter::default();
        let mut registry = Registry::default();
        registry.register("strongroom_renders", "Renders", counter.clone());
        counter.inc();
        let latch = Latch::new(&["keys", "helm", "socket"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let pages = router(latch.clone(), Arc::new(registry));
        let server = tokio::spawn(serve(listener, pages, async move { drop(stopped.await) }));

        assert!(page(address, "/livez").await.starts_with("HTTP/1.1 200 OK\r\n"));
        latch.open("helm");
        let answer = page(address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("waiting for: keys, socket\n"),
            "{answer}"
        );
        latch.open("keys");
        latch.open("socket");
        assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(page(address, "/metrics").await.contains("strongroom_renders_total 1\n"));
        assert!(page(address, "/env").await.starts_with("HTTP/1.1 404 "));

        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}
