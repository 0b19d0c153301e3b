//! The seam to the secret stores: what a backend of `ref+scheme://` implements.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::fault::{Class, Fault};
use crate::refs::ambient::Ambient;
use crate::scope::Scope;
use crate::secret::Secret;

/// Options of a reference, from its query, that say how the backend is reached: `region=eu-west-1`.
pub type Params = BTreeMap<String, String>;

/// One document of a backend: the path behind `scheme://`, and the options that choose a document or version.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Locator {
    /// Normalised path: percent-decoded, leading `/` kept only where the reference has an empty host.
    pub path: String,
    /// Options that choose the document, such as `version_id`.
    pub params: Params,
    /// Whether a fragment will be picked out of the document. Some backends answer it with another call.
    pub fragment: bool,
}

/// What a backend holds at a locator, before a fragment is picked out of it.
pub type Document = Secret<Vec<u8>>;

/// One backend. It fetches whole documents; picking a fragment out of one is shared code.
pub trait Source: Debug + Send + Sync {
    /// Fetches every locator, in batches where the backend can; one answer per locator, in order.
    fn fetch<'a>(
        &'a self,
        scope: &'a Scope,
        at: &'a [Locator],
    ) -> BoxFuture<'a, Vec<Result<Document, FetchError>>>;
}

/// Opens a backend for one set of connection options.
pub type Open = fn(&Params, &Ambient) -> Result<Arc<dyn Source>, OpenError>;

/// One kind of backend. Docs, metric labels, `--help` and the conformance run derive from the table of them.
pub struct Scheme {
    /// The scheme of the URI, lower case.
    pub name: &'static str,
    /// One line for `--help` and the docs, with an example.
    pub doc: &'static str,
    /// Names of the query options that choose the connection (passed to `open`).
    pub connection: &'static [&'static str],
    /// Names of the query options that choose the document (passed in each locator).
    pub document: &'static [&'static str],
    /// Opens the backend for one set of connection options. Does no I/O; a login happens at the first fetch.
    pub open: Open,
}

/// A backend cannot be opened with these options here.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct OpenError {
    /// What kind of failure.
    pub class: Class,
    /// The reason.
    pub reason: String,
}

impl Fault for OpenError {
    fn class(&self) -> Class {
        self.class
    }
}

/// A backend did not give a document.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct FetchError {
    /// What kind of failure; only [`Class::NotFound`] can be forgiven.
    pub class: Class,
    /// The backend's own reason, without any secret.
    pub reason: String,
}

impl Fault for FetchError {
    fn class(&self) -> Class {
        self.class
    }
}
