//! HTTP to the stores that have no SDK of their own: one way to make a client, one way to ask and to try again.
//!
//! TLS is rustls on aws-lc, with the system's roots unless the operator names others. Redirects are not followed,
//! because a credential would go along with them. The proxy is the one that `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`
//! name; this machine itself is never reached through one. An error never carries a body, a header or a query.

#[cfg(test)]
pub(crate) mod mock;

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, RequestBuilder, Response};
use tokio::sync::Semaphore;
use url::{Host, Url};

use crate::fault::{Class, Fault};
use crate::secret::Secret;

/// Attempts of one call, the first included; the pauses between them grow from at most 0.2 seconds to three.
const ATTEMPTS: u32 = 5;
/// Tests do not wait.
const FIRST_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 200 });
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body that is read, in bytes.
pub(crate) const BODY_LIMIT: usize = 32 << 20;
const NOT_VALID: &str = "cannot be asked: an option has characters that a request cannot carry";
/// A cause is cut here, in characters.
const CAUSE_LIMIT: usize = 200;

/// What the operator says about certificates.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Certificates in PEM that are trusted instead of the system's.
    pub roots: Option<Vec<u8>>,
    /// Certificate and key in PEM that the client shows.
    pub identity: Option<Secret<Vec<u8>>>,
    /// Whether the server's certificate is taken as it comes.
    pub unverified: bool,
}

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, all of it.
    pub body: Secret<Vec<u8>>,
}

/// There is no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct WebError {
    /// What kind of failure.
    pub class: Class,
    /// The reason, a fragment that fits behind the name of the server.
    pub reason: String,
}

impl Fault for WebError {
    fn class(&self) -> Class {
        self.class
    }
}

impl WebError {
    /// `reason` holds no secret.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }

    /// The server took too long.
    pub fn late() -> Self {
        Self::new(Class::Timeout, "did not answer in time")
    }

    /// There is no connection, or none any more.
    pub fn unreachable(error: &(dyn Error + 'static)) -> Self {
        Self::new(Class::Unavailable, format!("cannot be reached: {}", innermost(error)))
    }

    /// The body is longer than what is read.
    pub fn too_large() -> Self {
        Self::new(Class::Invalid, "gave an answer that is too large")
    }

    fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() { Self::late() } else { Self::unreachable(error) }
    }
}

/// A client for the server at `base`.
pub fn client(base: &Url, tls: &Tls) -> Result<Client, WebError> {
    let wrong = |error: &reqwest::Error| {
        WebError::new(Class::Invalid, format!("cannot be asked: {}", innermost(error)))
    };
    // Whoever is first; it is the same provider everywhere in this program.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ATTEMPT_TIMEOUT)
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .tls_danger_accept_invalid_certs(tls.unverified);
    if let Some(roots) = &tls.roots {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(roots).map_err(|error| wrong(&error))?);
    }
    if let Some(identity) = &tls.identity {
        builder = builder.identity(Identity::from_pem(identity.expose()).map_err(|error| wrong(&error))?);
    }
    if is_this_machine(base) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| wrong(&error))
}

/// Clients that trust the system's roots, made when they are first needed.
#[derive(Debug, Default)]
pub struct Clients {
    near: OnceLock<Client>,
    far: OnceLock<Client>,
}

impl Clients {
    /// The one for the server at `base`.
    pub fn to(&self, base: &Url) -> Result<Client, WebError> {
        let kept = if is_this_machine(base) { &self.near } else { &self.far };
        if let Some(kept) = kept.get() {
            return Ok(kept.clone());
        }
        let made = client(base, &Tls::default())?;
        Ok(kept.get_or_init(|| made).clone())
    }
}

/// Whether it is never reached through a proxy.
pub fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

/// Sends `request`, again where the server is busy or cannot be reached. The caller bounds the time of it all.
pub async fn send(request: RequestBuilder) -> Result<Answer, WebError> {
    let (client, request) = request.build_split();
    let request = request.map_err(|_| WebError::new(Class::Invalid, NOT_VALID))?;
    patiently(|| {
        let again = request.try_clone().expect("a body that is no stream can be sent again");
        once(client.execute(again))
    })
    .await
}

/// What is answered to `ask`, which asks again where the server is busy or cannot be reached.
pub async fn patiently<F>(ask: impl Fn() -> F) -> Result<Answer, WebError>
where
    F: Future<Output = Result<Answer, WebError>>,
{
    let mut attempt = 1;
    loop {
        let outcome = ask().await;
        let passing = match &outcome {
            Ok(answer) => is_passing(answer.status),
            Err(error) => error.class == Class::Unavailable,
        };
        if !passing || attempt == ATTEMPTS {
            return outcome;
        }
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// As [`send`], when it is its turn and as who `bearer` says; once more where the server does not know that login any more.
///
/// `forget` makes `bearer` log in anew; `failed` tells what went wrong in the caller's words.
pub async fn send_as<'a, E>(
    request: RequestBuilder,
    turns: &Semaphore,
    bearer: impl Fn() -> BoxFuture<'a, Result<HeaderValue, E>>,
    forget: impl Fn() -> BoxFuture<'a, ()>,
    failed: impl Fn(&WebError) -> E,
) -> Result<Answer, E> {
    let again = request.try_clone().expect("a body that is no stream can be sent again");
    let token = bearer().await?;
    let answer = in_turn(request, turns, &token).await.map_err(|error| failed(&error))?;
    if answer.status != 401 {
        return Ok(answer);
    }
    // The token may have been taken back before its end, and another request may have renewed it since.
    let mut renewed = bearer().await?;
    if renewed == token {
        forget().await;
        renewed = bearer().await?;
    }
    if renewed == token {
        return Ok(answer);
    }
    in_turn(again, turns, &renewed).await.map_err(|error| failed(&error))
}

async fn in_turn(
    request: RequestBuilder,
    turns: &Semaphore,
    token: &HeaderValue,
) -> Result<Answer, WebError> {
    let _turn = turns.acquire().await.expect("the semaphore is never closed");
    send(request.header("Authorization", token)).await
}

/// Sends `request` and does not send it again.
pub async fn send_once(request: RequestBuilder) -> Result<Answer, WebError> {
    once(request.send()).await
}

async fn once(response: impl Future<Output = Result<Response, reqwest::Error>>) -> Result<Answer, WebError> {
    let response = response.await.map_err(|error| WebError::of(&error))?;
    let status = response.status().as_u16();
    Ok(Answer { status, body: body(response).await? })
}

async fn body(mut response: Response) -> Result<Secret<Vec<u8>>, WebError> {
    let expected = response.content_length().and_then(|length| usize::try_from(length).ok());
    let mut body = Secret::new(Vec::with_capacity(expected.unwrap_or_default().min(BODY_LIMIT)));
    while let Some(chunk) = response.chunk().await.map_err(|error| WebError::of(&error))? {
        if body.expose().len() + chunk.len() > BODY_LIMIT {
            return Err(WebError::too_large());
        }
        body.expose_mut().extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Whether the same request may fare better in a moment.
pub const fn is_passing(status: u16) -> bool {
    matches!(status, 412 | 429 | 500 | 502..=504)
}

/// What a status that is none of success means.
pub const fn class_of(status: u16) -> Class {
    match status {
        401 | 403 => Class::Denied,
        404 => Class::NotFound,
        300..=399 => Class::Unavailable,
        status if is_passing(status) => Class::Unavailable,
        _ => Class::Invalid,
    }
}

/// A server's own word for what went wrong, behind a space; nothing where it is more than a word.
pub fn word(said: &str) -> String {
    let is_word = said.len() < 40 && said.bytes().all(|c| c.is_ascii_alphabetic() || c == b'_');
    if is_word && !said.is_empty() { format!(" {said}") } else { String::new() }
}

/// The pause after so many attempts: twice as long each time, of which a random half is left out, so that many do not
/// come back at once.
pub fn pause(attempt: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST_PAUSE);
    let random = RandomState::new().build_hasher().finish() % 1000;
    longest / 2 + longest / 2000 * u32::try_from(random).expect("less than 1000")
}

/// The last link of the chain is about sockets, names and certificates, never about what was sent.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut link = error;
    while let Some(source) = link.source() {
        link = source;
    }
    let said =
        if link.is::<reqwest::Error>() { "the connection failed".to_owned() } else { link.to_string() };
    said.chars().filter(|c| !c.is_control()).take(CAUSE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for (attempt, longest) in [(1, 2), (2, 4), (3, 8), (4, 16), (60, 3000)] {
            let longest = Duration::from_millis(longest);
            let pause = pause(attempt);
            assert!(pause >= longest / 2 && pause <= longest, "{attempt}: {pause:?}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (url, expected) in [
            ("http://127.0.0.1:8200", true),
            ("http://[::1]:8200", true),
            ("http://localhost", true),
            ("https://localhost.example", false),
            ("https://10.0.0.1", false),
        ] {
            assert_eq!(is_this_machine(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn roots_that_are_none_are_an_error_without_their_text() {
        let broken = "-----BEGIN CERTIFICATE-----\nSTRONGROOM-MARKER\n-----END CERTIFICATE-----\n";
        let tls = Tls { roots: Some(broken.into()), ..Tls::default() };
        let error = client(&"https://vault.example".parse().unwrap(), &tls).unwrap_err();
        assert_eq!(error.class, Class::Invalid);
        assert!(error.reason.starts_with("cannot be asked: ") && !error.reason.contains("MARKER"), "{error}");
    }
}
