//! HashiCorp Vault and OpenBao: where they may be, one login per server kept and renewed, one way to ask.
//!
//! The operator's environment says how to log in; see `login`. A token is sent only to an address that the operator
//! names, with `VAULT_ADDR` (`BAO_ADDR`) or in the list of [`Settings::addresses`], whatever a repository says.

mod login;
#[cfg(test)]
pub(crate) mod mock;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::Value as Json;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore};
use tokio::task::AbortHandle;
use zeroize::Zeroize;

use crate::address::{self, Address, AddressError};
use crate::aws::Aws;
use crate::environment::Environment;
use crate::fault::{Class, Fault};
use crate::secret::Secret;
use crate::vault::login::{Login, Session};
use crate::web::{self, Answer, Tls, WebError};

/// Namespace and role may be named by references, so the number of servers kept is bounded.
const SERVERS_KEPT: usize = 64;
/// Requests to one server at the same time.
const CONCURRENT: usize = 16;
/// A login that is younger is not repeated because something was denied.
const YOUNG: Duration = Duration::from_secs(1);
/// A token that was given is asked about when it was of use for so long.
const LOOK_AFTER: Duration = Duration::from_secs(1);
/// A login is looked at so often at least.
const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Whose server; they differ in the names of their variables.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Brand {
    /// `VAULT_*`.
    Vault,
    /// `BAO_*`, and `VAULT_*` where one is not set, as OpenBao's own client does.
    OpenBao,
}

impl Brand {
    const fn name(self) -> &'static str {
        match self {
            Self::Vault => "Vault",
            Self::OpenBao => "OpenBao",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Vault => "VAULT_",
            Self::OpenBao => "BAO_",
        }
    }

    fn variable(self, environment: &Environment, name: &str) -> Option<String> {
        let of = |brand: Self| environment.get(&format!("{}{name}", brand.prefix()));
        of(self).or_else(|| of(Self::Vault)).map(str::to_owned)
    }
}

/// Which server is asked, and as whom. What is `None` is what the environment says.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Connection {
    /// Whose variables count.
    pub brand: Brand,
    /// Address, which must be one of the operator's.
    pub address: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Method of the login: `token`, `approle`, `kubernetes`, `userpass`, `jwt`, `aws`.
    pub method: Option<String>,
    /// Role to log in to.
    pub role: Option<String>,
}

impl Connection {
    /// All as the environment says.
    pub const fn of(brand: Brand) -> Self {
        Self { brand, address: None, namespace: None, method: None, role: None }
    }
}

/// What the operator says beside the environment.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Addresses that references and files may name, beside that of the environment.
    pub addresses: Vec<Address>,
    /// Whether the token that `vault login` left in the home directory is used: on a person's terminal.
    pub home: bool,
}

/// The servers of this process. Share one: logins and connections live in it.
#[derive(Default)]
pub struct Vault {
    environment: Environment,
    settings: Settings,
    aws: Arc<Aws>,
    servers: Mutex<HashMap<Connection, Arc<Server>>>,
}

impl Vault {
    /// Reads nothing yet.
    pub fn new(environment: Environment, settings: Settings) -> Self {
        Self { environment, settings, ..Self::default() }
    }

    /// The same, whose logins by AWS are those of `aws`.
    #[must_use]
    pub fn with_aws(self, aws: Arc<Aws>) -> Self {
        Self { aws, ..self }
    }

    /// The server for `connection`, which is asked nothing yet.
    pub fn server(&self, connection: &Connection) -> Result<Arc<Server>, VaultError> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(connection) {
            return Ok(Arc::clone(server));
        }
        let server = self.open(connection)?;
        let server = Arc::new_cyclic(|own| Server { own: own.clone(), ..server });
        if servers.len() >= SERVERS_KEPT {
            servers.clear();
        }
        servers.insert(connection.clone(), Arc::clone(&server));
        Ok(server)
    }

    /// The brand whose environment names `address`.
    pub fn brand_of(&self, address: &str) -> Brand {
        let is_named = |variable: &str| {
            let named = self.environment.get(variable).and_then(|text| text.parse::<Address>().ok());
            named.is_some() && named == address.parse().ok()
        };
        if !is_named("VAULT_ADDR") && is_named("BAO_ADDR") { Brand::OpenBao } else { Brand::Vault }
    }

    fn open(&self, connection: &Connection) -> Result<Server, VaultError> {
        let Connection { brand, namespace, .. } = connection;
        let variable = |name: &str| brand.variable(&self.environment, name);
        let address = self.address(connection)?;
        let tls = tls(variable)?;
        let http = web::client(address.url(), &tls).map_err(|error| VaultError::of(*brand, &error))?;
        let namespace = namespace.clone().or_else(|| variable("NAMESPACE"));
        Ok(Server {
            brand: *brand,
            http,
            address,
            namespace: namespace
                .map(|name| name.trim_matches('/').to_owned())
                .filter(|name| !name.is_empty()),
            login: Login::choose(connection, &self.environment, self.settings.home, &self.aws)?,
            session: AsyncMutex::default(),
            limit: Semaphore::new(CONCURRENT),
            own: Weak::new(),
            logged_in: Arc::default(),
            keeper: Keeper::default(),
        })
    }

    fn address(&self, connection: &Connection) -> Result<Address, VaultError> {
        let (brand, variable) = (connection.brand, format!("{}ADDR", connection.brand.prefix()));
        let wrong = |what: &str, why: AddressError| {
            VaultError::new(Class::Invalid, format!("{what} is no address of {}: {why}", brand.name()))
        };
        let own = brand.variable(&self.environment, "ADDR");
        let own: Option<Address> =
            own.map(|own| own.parse()).transpose().map_err(|why| wrong(&variable, why))?;
        let Some(named) = &connection.address else {
            return own.ok_or_else(|| {
                let reason =
                    format!("no address of {}\nhelp: the operator names it with {variable}", brand.name());
                VaultError::new(Class::Invalid, reason)
            });
        };
        let named: Address = named.parse().map_err(|why| wrong("what is named", why))?;
        if own.as_ref() == Some(&named) {
            return Ok(named);
        }
        address::permit(named, &self.settings.addresses).map_err(|error| {
            VaultError::new(Class::Denied, format!("{error}, or names the one with {variable}"))
        })
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

/// As the clients of both read it from `CACERT`, `CACERT_BYTES`, `CLIENT_CERT`, `CLIENT_KEY` and `SKIP_VERIFY`.
fn tls(variable: impl Fn(&str) -> Option<String>) -> Result<Tls, VaultError> {
    let file = |name: &str| variable(name).map(|path| read(Path::new(&path))).transpose();
    let roots = match variable("CACERT_BYTES") {
        Some(text) => Some(text.into_bytes()),
        None => file("CACERT")?.map(|text| text.expose().clone()),
    };
    let identity = match (file("CLIENT_CERT")?, file("CLIENT_KEY")?) {
        (Some(certificate), Some(key)) => {
            Some(Secret::new([certificate.expose().as_slice(), b"\n", key.expose()].concat()))
        }
        _ => None,
    };
    let unverified =
        variable("SKIP_VERIFY").is_some_and(|said| matches!(said.as_str(), "1" | "t" | "true" | "TRUE"));
    Ok(Tls { roots, identity, unverified })
}

/// A file that the operator names, so not one of whatever directory the process is in.
fn read(path: &Path) -> Result<Secret<Vec<u8>>, VaultError> {
    if !path.is_absolute() {
        let reason =
            format!("{} is not an absolute path, so a repository could bring its own", path.display());
        return Err(VaultError::new(Class::Invalid, reason));
    }
    fs::read(path).map(Secret::new).map_err(|error| {
        VaultError::new(Class::Invalid, format!("{} cannot be read: {}", path.display(), error.kind()))
    })
}

/// Why Vault did not give what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct VaultError {
    /// What kind of failure.
    pub class: Class,
    /// The reason: never a body, never a token.
    pub reason: String,
    /// Whether the server answered, and that it is busy or broken for now.
    pub busy: bool,
}

impl Fault for VaultError {
    fn class(&self) -> Class {
        self.class
    }
}

impl VaultError {
    /// `reason` holds no secret.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), busy: false }
    }

    fn of(brand: Brand, error: &WebError) -> Self {
        Self::new(error.class, format!("{} {}", brand.name(), error.reason))
    }
}

/// One server, and the login to it.
#[derive(Debug)]
pub struct Server {
    brand: Brand,
    http: Client,
    address: Address,
    namespace: Option<String>,
    login: Login,
    session: AsyncMutex<Option<Arc<Session>>>,
    limit: Semaphore,
    own: Weak<Self>,
    logged_in: Arc<Notify>,
    keeper: Keeper,
}

/// The task that keeps the login of a server, for as long as the server is there.
#[derive(Debug, Default)]
struct Keeper(OnceLock<AbortHandle>);

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// One request: a path below `/v1/`, in segments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    path: &'a [&'a str],
    version: Option<&'a str>,
    body: Option<&'a Json>,
}

impl<'a> Call<'a> {
    /// Reads `path`.
    pub const fn read(path: &'a [&'a str]) -> Self {
        Self { path, version: None, body: None }
    }

    /// Writes `body` to `path`.
    pub const fn write(path: &'a [&'a str], body: &'a Json) -> Self {
        Self { path, version: None, body: Some(body) }
    }

    /// Asks for one version.
    #[must_use]
    pub const fn version(self, version: Option<&'a str>) -> Self {
        Self { version, ..self }
    }
}

/// JSON whose texts are wiped.
pub struct Body(pub Json);

impl Zeroize for Body {
    fn zeroize(&mut self) {
        if let Json::Object(fields) = &mut self.0 {
            for (_, value) in fields {
                if let Json::String(text) = value {
                    text.zeroize();
                }
            }
        }
    }
}

impl Server {
    /// What the server answers, logged in; any status but those of a busy server is an answer.
    pub async fn ask(&self, call: Call<'_>) -> Result<Answer, VaultError> {
        let session = self.session().await?;
        let answer = self.send(call, Some(&session)).await?;
        if answer.status != 403 {
            return Ok(answer);
        }
        match self.session_after(&session, says(&answer, "invalid token")).await? {
            Some(session) => self.send(call, Some(&session)).await,
            None => Ok(answer),
        }
    }

    /// What `answer`, which is none of success, means for `what` was asked for.
    pub fn failure(&self, answer: &Answer, what: &str) -> VaultError {
        let brand = self.brand.name();
        let class = match answer.status {
            472 | 473 => Class::Unavailable,
            status => web::class_of(status),
        };
        let mut reason = match class {
            Class::NotFound => format!("{brand} has nothing at {what}"),
            _ => format!("{brand} says HTTP {} for {what}", answer.status),
        };
        let said = PHRASES.iter().filter(|phrase| says(answer, phrase));
        if let Some(phrase) = said.max_by_key(|phrase| phrase.len()) {
            reason.extend([": ", phrase]);
        }
        VaultError { busy: web::is_passing(answer.status), ..VaultError::new(class, reason) }
    }

    /// The login that is kept, renewed or made anew where it is about to end.
    async fn session(&self) -> Result<Arc<Session>, VaultError> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept.as_ref() {
            if session.is_fresh() {
                return Ok(Arc::clone(session));
            }
            if session.can_be_renewed()
                && let Some(renewed) = self.renew(session).await
            {
                return Ok(Arc::clone(kept.insert(Arc::new(renewed))));
            }
        }
        *kept = None;
        Ok(Arc::clone(kept.insert(self.new_session().await?)))
    }

    async fn new_session(&self) -> Result<Arc<Session>, VaultError> {
        let session = Arc::new(self.log_in().await?);
        let keep = || tokio::spawn(keep(self.own.clone(), Arc::clone(&self.logged_in))).abort_handle();
        self.keeper.0.get_or_init(keep);
        self.logged_in.notify_one();
        Ok(session)
    }

    /// Renews the login where it is time, also while nobody asks for anything, and says when to look again.
    async fn keep_login(&self) -> Duration {
        let mut kept = self.session.lock().await;
        let Some(session) = kept.as_ref() else { return LOOK_EVERY };
        if !session.known && session.made.elapsed() >= LOOK_AFTER {
            let answer = self.send(Call::read(&["auth", "token", "lookup-self"]), Some(session)).await.ok();
            *kept = Some(Arc::new(session.looked_up(answer.as_ref())));
        } else if !session.is_fresh() && session.can_be_renewed() {
            match self.renew(session).await {
                Some(renewed) => *kept = Some(Arc::new(renewed)),
                // Whoever needs the next login makes it.
                None => return LOOK_EVERY,
            }
        }
        kept.as_ref().map_or(LOOK_EVERY, |session| session.due())
    }

    /// Another login than `stale`, with which something was denied; `None` where that would not help.
    async fn session_after(
        &self,
        stale: &Arc<Session>,
        invalid: bool,
    ) -> Result<Option<Arc<Session>>, VaultError> {
        let mut kept = self.session.lock().await;
        if let Some(other) = kept.as_ref().filter(|kept| !Arc::ptr_eq(kept, stale)) {
            return Ok(Some(Arc::clone(other)));
        }
        if !invalid && stale.made.elapsed() < YOUNG {
            return Ok(None);
        }
        let session = self.new_session().await?;
        let differs = session.token != stale.token;
        *kept = Some(Arc::clone(&session));
        Ok(differs.then_some(session))
    }

    async fn log_in(&self) -> Result<Session, VaultError> {
        let (path, body) = match self.login.request().await? {
            login::Request::Token(token) => return Ok(Session::lasting(token)),
            login::Request::Login { path, body } => (path, body),
        };
        let segments: Vec<_> = path.iter().map(String::as_str).collect();
        let answer = self.send(Call::write(&segments, &body.expose().0), None).await?;
        if answer.status != 200 {
            let mut error = self.failure(&answer, &path.join("/"));
            // That there is no such login must never be forgiven as a secret that is not there.
            error.class = if error.class == Class::NotFound { Class::Denied } else { error.class };
            error.reason = format!("the login failed: {}", error.reason);
            return Err(error);
        }
        Session::of_answer(&answer).ok_or_else(|| {
            VaultError::new(Class::Unavailable, format!("the login at {} gave no token", path.join("/")))
        })
    }

    async fn renew(&self, session: &Session) -> Option<Session> {
        let body = Json::Object(serde_json::Map::new());
        let call = Call::write(&["auth", "token", "renew-self"], &body);
        let answer = self.send(call, Some(session)).await.ok()?;
        // A renewal that was cut short by the token's longest life makes room for a new login.
        Session::of_answer(&answer)
            .filter(|renewed| answer.status == 200 && renewed.lasts_longer_than(session))
    }

    async fn send(&self, call: Call<'_>, session: Option<&Session>) -> Result<Answer, VaultError> {
        let _turn = self.limit.acquire().await.expect("the semaphore is never closed");
        let method = if call.body.is_some() { Method::PUT } else { Method::GET };
        let mut url = self.address.join(std::iter::once("v1").chain(call.path.iter().copied()));
        if let Some(version) = call.version {
            url.query_pairs_mut().append_pair("version", version);
        }
        let mut request = self.http.request(method, url).header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(session) = session {
            request = request.header("X-Vault-Token", session.header());
        }
        if let Some(body) = call.body {
            request = request.json(body);
        }
        web::send(request).await.map_err(|error| VaultError::of(self.brand, &error))
    }
}

/// Looks after the login of a server, for as long as there is the server.
async fn keep(server: Weak<Server>, logged_in: Arc<Notify>) {
    while let Some(server) = server.upgrade() {
        let wait = server.keep_login().await;
        drop(server);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = logged_in.notified() => {}
        }
    }
}

/// What the server's own words are looked for; nothing else of them is told, for they may quote what was sent.
const PHRASES: &[&str] = &[
    "bad token",
    "encryption key not found",
    "invalid role or secret ID",
    "invalid role ID",
    "invalid secret id",
    "invalid token",
    "invalid username or password",
    "message authentication failed",
    "missing client token",
    "no handler for route",
    "permission denied",
    "unsupported path",
    "Vault is sealed",
];

fn says(answer: &Answer, phrase: &str) -> bool {
    answer.body.expose().windows(phrase.len()).any(|window| window == phrase.as_bytes())
}

impl Session {
    fn is_fresh(&self) -> bool {
        self.lease.is_none_or(|lease| self.made.elapsed() < lease * 2 / 3)
    }

    /// When to look at it again.
    fn due(&self) -> Duration {
        let at = match self.lease {
            _ if !self.known => LOOK_AFTER,
            Some(lease) if self.is_fresh() => lease * 2 / 3,
            _ => return LOOK_EVERY,
        };
        at.saturating_sub(self.made.elapsed()).clamp(Duration::from_millis(100), LOOK_EVERY)
    }

    fn can_be_renewed(&self) -> bool {
        self.renewable && self.lease.is_some_and(|lease| self.made.elapsed() < lease)
    }

    fn lasts_longer_than(&self, other: &Self) -> bool {
        let end = |session: &Self| session.lease.map(|lease| session.made + lease);
        match (end(self), end(other)) {
            (Some(own), Some(other)) => own > other + Duration::from_millis(500),
            (own, _) => own.is_none(),
        }
    }

    fn lasting(token: Secret<String>) -> Self {
        Self { token, made: Instant::now(), known: false, lease: None, renewable: false }
    }
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;
    use crate::vault::mock::{Mock, Seen};

    fn answer(seen: &Seen) -> (u16, Json) {
        let auth = |token: &str, lease: u64| json!({"auth": {"client_token": token, "lease_duration": lease, "renewable": true}});
        match (seen.path.as_str(), seen.token.as_str()) {
            ("auth/k8s/login", _) if seen.body == json!({"jwt": "STRONGROOM-MARKER", "role": "apps"}) => {
                (200, auth("t", 3600))
            }
            ("auth/jwt/login", _) => {
                (200, json!({"auth": {"client_token": "j", "lease_duration": 0, "renewable": false}}))
            }
            ("auth/aws/login", _) => (200, auth("t", 3600)),
            (path, _) if path.starts_with("auth/") => (400, json!({"errors": ["STRONGROOM-MARKER"]})),
            ("busy", _) if seen.number < 3 => (if seen.number == 1 { 503 } else { 429 }, Json::Null),
            ("broken", _) => (502, json!({"errors": ["STRONGROOM-MARKER"]})),
            ("moved", _) => (307, Json::Null),
            ("closed", _) => {
                (403, json!({"errors": ["1 error occurred: permission denied STRONGROOM-MARKER"]}))
            }
            (_, "t" | "j") => (200, json!({"data": {}})),
            _ => (403, json!({"errors": ["permission denied"]})),
        }
    }

    fn server(mock: &Mock, variables: &[(&str, &str)]) -> Result<Arc<Server>, VaultError> {
        let own = [("VAULT_ADDR", mock.url.as_str())];
        let environment = own.iter().chain(variables).copied().collect();
        Vault::new(environment, Settings::default()).server(&Connection::of(Brand::Vault))
    }

    async fn told(server: &Server, path: &str) -> Result<u16, String> {
        let answer =
            server.ask(Call::read(&[path])).await.map_err(|error| format!("{:?}: {error}", error.class))?;
        if answer.status == 200 {
            return Ok(200);
        }
        let error = server.failure(&answer, path);
        Err(format!("{:?}: {error}", error.class))
    }

    #[tokio::test]
    async fn one_login_serves_many_reads_at_once() {
        let mock = Mock::start(answer).await;
        let jwt = tempfile::NamedTempFile::new().unwrap();
        fs::write(jwt.path(), "STRONGROOM-MARKER\n").unwrap();
        let server = server(
            &mock,
            &[
                ("VAULT_AUTH_METHOD", "kubernetes"),
                ("VAULT_ROLE_ID", "apps"),
                ("VAULT_KUBERNETES_MOUNT_POINT", "/k8s/"),
                ("VAULT_KUBERNETES_JWT_TOKEN_PATH", jwt.path().to_str().unwrap()),
                ("VAULT_NAMESPACE", "team/"),
            ],
        )
        .unwrap();
        let outcomes = futures::future::join_all((0..20).map(|_| told(&server, "a"))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(200)), "{outcomes:?}");
        let seen = mock.seen();
        assert_eq!(seen.iter().filter(|seen| seen.path == "auth/k8s/login").count(), 1);
        assert!(seen.iter().all(|seen| seen.namespace == "team"));
        assert_eq!(seen.len(), 21);
    }

    #[tokio::test]
    async fn what_the_server_says_is_classified_without_its_words() {
        let mock = Mock::start(answer).await;
        let server = server(&mock, &[("VAULT_TOKEN", "t")]).unwrap();
        for (path, expected) in [
            ("busy", Ok(200)),
            ("broken", Err("Unavailable: Vault says HTTP 502 for broken")),
            ("moved", Err("Unavailable: Vault says HTTP 307 for moved")),
            ("closed", Err("Denied: Vault says HTTP 403 for closed: permission denied")),
        ] {
            assert_eq!(told(&server, path).await, expected.map_err(str::to_owned), "{path}");
        }
    }

    #[tokio::test]
    async fn a_login_that_fails_is_told_without_its_credential() {
        let mock = Mock::start(answer).await;
        for (variables, expected) in [
            (
                vec![
                    ("VAULT_AUTH_METHOD", "approle"),
                    ("VAULT_ROLE_ID", "r"),
                    ("VAULT_SECRET_ID", "STRONGROOM-MARKER"),
                ],
                "Invalid: the login failed: Vault says HTTP 400 for auth/approle/login",
            ),
            (
                vec![("VAULT_AUTH_METHOD", "approle"), ("VAULT_ROLE_ID", "r")],
                "Denied: no credentials for Vault\nhelp: the operator sets VAULT_SECRET_ID",
            ),
            (
                vec![("VAULT_AUTH_METHOD", "kubernetes")],
                "Denied: no credentials for Vault\nhelp: the operator sets VAULT_ROLE_ID",
            ),
            (
                vec![("VAULT_AUTH_METHOD", "userpass"), ("VAULT_USERNAME", "me")],
                "Denied: no credentials for Vault\nhelp: the operator sets VAULT_PASSWORD_ENV",
            ),
            (
                vec![("VAULT_AUTH_METHOD", "STRONGROOM-MARKER")],
                "Invalid: the method of the login is not known\nhelp: VAULT_AUTH_METHOD is token, approle, kubernetes, userpass, jwt or aws",
            ),
            (
                vec![("VAULT_TOKEN_FILE", "/nonexistent/token")],
                "Invalid: /nonexistent/token cannot be read: entity not found",
            ),
            (
                vec![("VAULT_TOKEN_FILE", "token")],
                "Invalid: token is not an absolute path, so a repository could bring its own",
            ),
            (
                vec![("VAULT_TOKEN", "t"), ("VAULT_CACERT", "./ca.pem")],
                "Invalid: ./ca.pem is not an absolute path, so a repository could bring its own",
            ),
            (
                vec![("VAULT_TOKEN", "t"), ("VAULT_NAMESPACE", "a\nb")],
                "Invalid: Vault cannot be asked: an option has characters that a request cannot carry",
            ),
        ] {
            let outcome = match server(&mock, &variables) {
                Ok(server) => told(&server, "a").await,
                Err(error) => Err(format!("{:?}: {error}", error.class)),
            };
            assert_eq!(outcome, Err(expected.to_owned()));
        }
    }

    #[tokio::test]
    async fn a_jwt_is_read_anew_at_each_login_and_a_role_may_be_named() {
        let mock = Mock::start(answer).await;
        let jwt = tempfile::NamedTempFile::new().unwrap();
        fs::write(jwt.path(), "STRONGROOM-MARKER").unwrap();
        let environment = [
            ("VAULT_ADDR", mock.url.as_str()),
            ("VAULT_AUTH_METHOD", "approle"),
            ("VAULT_JWT_FILE", jwt.path().to_str().unwrap()),
        ];
        let vault = Vault::new(environment.into_iter().collect(), Settings::default());
        let named = |text: &str| Some(text.to_owned());
        let connection =
            Connection { method: named("jwt"), role: named("apps"), ..Connection::of(Brand::Vault) };
        assert_eq!(told(&vault.server(&connection).unwrap(), "a").await, Ok(200));
        assert_eq!(mock.seen()[0].body, json!({"jwt": "STRONGROOM-MARKER", "role": "apps"}));
        fs::write(jwt.path(), " \n").unwrap();
        let other = Connection { namespace: named("other"), ..connection };
        let error = told(&vault.server(&other).unwrap(), "a").await.unwrap_err();
        assert!(error.ends_with(" holds no credential"), "{error}");
    }

    /// OpenBao has no such method, so a mock takes the login.
    #[tokio::test]
    async fn an_identity_of_aws_logs_in_at_a_mock_with_a_signed_question() {
        let mock = Mock::start(answer).await;
        let variables = [
            ("VAULT_ADDR", mock.url.as_str()),
            ("VAULT_AUTH_METHOD", "aws"),
            ("VAULT_ROLE_ID", "apps"),
            ("VAULT_AWS_IAM_SERVER_ID", "vault.example"),
        ];
        let credentials = Credentials::new("AKID", "STRONGROOM-MARKER", Some("session".into()), None, "mock");
        let aws = Aws::emulated("http://127.0.0.1:1", "eu-west-1", credentials);
        let vault = Vault::new(variables.into_iter().collect(), Settings::default()).with_aws(Arc::new(aws));
        assert_eq!(told(&vault.server(&Connection::of(Brand::Vault)).unwrap(), "a").await, Ok(200));
        let login = mock.seen().remove(0).body;
        let text =
            |name: &str| String::from_utf8(STANDARD.decode(login[name].as_str().unwrap()).unwrap()).unwrap();
        assert_eq!((&login["role"], &login["iam_http_request_method"]), (&json!("apps"), &json!("POST")));
        assert_eq!(text("iam_request_url"), "https://sts.amazonaws.com/");
        assert_eq!(text("iam_request_body"), "Action=GetCallerIdentity&Version=2011-06-15");
        let headers: Json = serde_json::from_str(&text("iam_request_headers")).unwrap();
        assert_eq!(headers["X-Vault-AWS-IAM-Server-ID"], "vault.example");
        assert_eq!(headers["x-amz-security-token"], "session");
        let authorization = headers["authorization"].as_str().unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{authorization}");
        assert!(
            authorization
                .contains("/us-east-1/sts/aws4_request, SignedHeaders=content-type;host;x-amz-date;")
        );
        assert!(authorization.contains("x-vault-aws-iam-server-id, Signature="), "{authorization}");
        assert!(!format!("{login}{headers}").contains("MARKER"));
    }

    #[test]
    fn openbao_falls_back_to_the_variables_of_vault() {
        let environment: Environment =
            [("VAULT_ADDR", "https://v"), ("BAO_ADDR", "https://b"), ("VAULT_NAMESPACE", "n")]
                .into_iter()
                .collect();
        for (brand, name, expected) in [
            (Brand::Vault, "ADDR", "https://v"),
            (Brand::OpenBao, "ADDR", "https://b"),
            (Brand::OpenBao, "NAMESPACE", "n"),
        ] {
            assert_eq!(brand.variable(&environment, name).as_deref(), Some(expected));
        }
        let vault = Vault::new(environment, Settings::default());
        assert_eq!(vault.brand_of("https://b/"), Brand::OpenBao);
        assert_eq!(vault.brand_of("https://v"), Brand::Vault);
    }
}
