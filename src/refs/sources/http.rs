//! What the backends share that are an HTTP server and a token: where the server may be, one way to ask it.
//!
//! An answer other than 200 is told by its status alone. The token is of the operator's environment, and goes to the
//! addresses that the operator names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Client;
use reqwest::header::{HeaderName, HeaderValue};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use tokio::sync::Semaphore;
use url::Url;

use crate::address::{self, Address};
use crate::environment::Environment;
use crate::fault::Class;
use crate::refs::source::{Document, FetchError, OpenError};
use crate::secret::Secret;
use crate::web::{self, Tls, WebError};

/// Requests to one server at the same time.
const CONCURRENT: usize = 16;

/// The header that says who asks.
#[derive(Clone, Debug)]
pub(super) struct Credential {
    name: HeaderName,
    value: HeaderValue,
}

impl Credential {
    /// The header `name`, with `prefix` and the value of `variable`.
    pub(super) fn of(
        environment: &Environment,
        variable: &str,
        name: &'static str,
        prefix: &str,
    ) -> Result<Self, OpenError> {
        let token = environment.get(variable).map(str::trim).ok_or_else(|| {
            OpenError::new(Class::Denied, format!("no credentials\nhelp: the operator sets {variable}"))
        })?;
        let text = Secret::new(format!("{prefix}{token}"));
        let mut value = HeaderValue::from_str(text.expose()).map_err(|_| {
            OpenError::new(Class::Invalid, format!("{variable} has characters that a request cannot carry"))
        })?;
        value.set_sensitive(true);
        Ok(Self { name: HeaderName::from_static(name), value })
    }
}

/// One server, as one identity.
#[derive(Debug)]
pub(super) struct Server {
    brand: &'static str,
    http: Client,
    address: Address,
    credential: Option<Credential>,
    limit: Semaphore,
}

impl Server {
    pub(super) fn open(
        brand: &'static str,
        address: Address,
        credential: Option<Credential>,
    ) -> Result<Self, OpenError> {
        let http = web::client(address.url(), &Tls::default())
            .map_err(|WebError { class, reason }| OpenError::new(class, format!("{brand} {reason}")))?;
        Ok(Self { brand, http, address, credential, limit: Semaphore::new(CONCURRENT) })
    }

    /// The URL of `path`, in segments, with a query.
    pub(super) fn url<'a>(&self, path: impl IntoIterator<Item = &'a str>, query: &[(&str, &str)]) -> Url {
        let mut url = self.address.join(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// The body of the answer; `what` says in an error what was asked for.
    pub(super) async fn read(&self, url: Url, what: &str) -> Result<Document, FetchError> {
        let brand = self.brand;
        let _turn = self.limit.acquire().await.expect("nobody closes it");
        let mut request = self.http.get(url);
        if let Some(Credential { name, value }) = &self.credential {
            request = request.header(name, value);
        }
        let answer = web::send(request)
            .await
            .map_err(|WebError { class, reason }| FetchError::new(class, format!("{brand} {reason}")))?;
        match (answer.status, web::class_of(answer.status)) {
            (200, _) => Ok(answer.body),
            (_, Class::NotFound) => Err(FetchError::not_found(format!("{brand} has nothing at {what}"))),
            (status, class) => {
                let error = FetchError::new(class, format!("{brand} says HTTP {status} for {what}"));
                Err(error.busy(web::is_passing(status)))
            }
        }
    }

    /// As [`Server::read`], of JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, url: Url, what: &str) -> Result<T, FetchError> {
        let body = self.read(url, what).await?;
        serde_json::from_slice(body.expose()).map_err(|_| {
            let reason = format!("what {} answers for {what} is not what it should be", self.brand);
            FetchError::new(Class::Invalid, reason)
        })
    }
}

/// The servers of references that name a host in their path.
#[derive(Debug)]
pub(super) struct Servers {
    brand: &'static str,
    allowed: Vec<Address>,
    credential: Option<Credential>,
    open: Mutex<HashMap<Address, Arc<Server>>>,
}

impl Servers {
    pub(super) fn new(brand: &'static str, allowed: &[Address], credential: Option<Credential>) -> Self {
        Self { brand, allowed: allowed.to_vec(), credential, open: Mutex::default() }
    }

    /// The one at `scheme://host`, if the operator names it.
    pub(super) fn at(&self, scheme: &str, host: &str) -> Result<Arc<Server>, FetchError> {
        let address = format!("{scheme}://{host}").parse::<Address>();
        let address = address.map_err(|why| FetchError::new(Class::Invalid, format!("the host: {why}")))?;
        let address = address::permit(address, &self.allowed)
            .map_err(|error| FetchError::new(Class::Denied, error.to_string()))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = open.get(&address) {
            return Ok(Arc::clone(server));
        }
        let server = Server::open(self.brand, address.clone(), self.credential.clone());
        let server = Arc::new(server.map_err(|OpenError { class, reason }| FetchError::new(class, reason))?);
        open.insert(address, Arc::clone(&server));
        Ok(server)
    }
}

/// Host and port in the one spelling of an address.
pub(super) fn host(text: &str) -> Result<String, FetchError> {
    let address = format!("https://{text}").parse::<Address>();
    let address = address.map_err(|why| FetchError::new(Class::Invalid, format!("the host: {why}")))?;
    Ok(address.to_string().trim_start_matches("https://").to_owned())
}

/// The address of `named`, an option, if it is the operator's; else the operator's `own`.
pub(super) fn chosen(
    named: Option<&str>,
    own: Option<&str>,
    variable: &str,
    allowed: &[Address],
) -> Result<Address, OpenError> {
    let wrong = |what: &str, why| OpenError::new(Class::Invalid, format!("{what} is no address: {why}"));
    let own: Option<Address> =
        own.map(str::parse).transpose().map_err(|why: address::AddressError| wrong(variable, why))?;
    let Some(named) = named else {
        let reason = format!("no address\nhelp: the operator names it with {variable}");
        return own.ok_or_else(|| OpenError::new(Class::Invalid, reason));
    };
    let named: Address = named.parse().map_err(|why| wrong("what is named", why))?;
    if own.as_ref() == Some(&named) {
        return Ok(named);
    }
    address::permit(named, allowed).map_err(|error| OpenError::new(Class::Denied, error.to_string()))
}

/// That certificates are not to be verified cannot be said by a reference.
pub(super) fn verified(option: &str, says_so: bool) -> Result<(), OpenError> {
    if says_so {
        return Ok(());
    }
    let reason = format!(
        "option {option}: certificates are always verified\nhelp: SSL_CERT_FILE of Strongroom names other authorities"
    );
    Err(OpenError::new(Class::Invalid, reason))
}

/// A text of an answer, which may be a secret.
#[derive(Clone, Debug)]
pub(super) struct Text(pub(super) Secret<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

impl Text {
    pub(super) fn document(&self) -> Document {
        Secret::new(self.0.expose().clone().into_bytes())
    }
}
