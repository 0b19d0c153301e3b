//! The seam to the secret stores: what a backend of `ref+scheme://` implements.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::confine::{self, ConfineError};
use crate::document::value::Value;
use crate::fault::{self, Class, Fault};
use crate::refs::ambient::Ambient;
use crate::scope::{DEADLINE, Scope};
use crate::secret::Secret;

/// Options of a reference, from its query, that say how the backend is reached: `region=eu-west-1`.
pub type Params = BTreeMap<String, String>;

/// One document of a backend: the path behind `scheme://`, and the options that choose a document or version.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Locator {
    /// The path, as [`Scheme::normalise`] made it.
    pub path: String,
    /// Options that choose the document, such as `version_id`.
    pub params: Params,
    /// Whether a fragment will be picked out of the document; never set unless it is one that [`Fragment::Asks`].
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

    /// Whether its answers do not depend on the render that asks, so that renders at the same time can share them.
    fn is_same_for_all(&self) -> bool {
        false
    }
}

/// Opens a backend for one set of connection options.
pub type Open = fn(&Params, &Ambient) -> Result<Arc<dyn Source>, OpenError>;

/// Turns the path of a reference into the one spelling that the policy sees and the backend is asked for.
pub type Normalise = fn(&Scope, &str, &Params) -> Result<String, FetchError>;

/// What the fragment of a reference does.
#[derive(Clone, Copy, Debug)]
pub enum Fragment {
    /// Its keys lead into the document.
    Walks,
    /// The same, and the backend is asked something else for a reference with one.
    Asks,
    /// What the scheme makes of it.
    Own(Pick),
}

/// Picks out of a document what a fragment says, with the options that choose the document. What it looks at is taken off
/// the number that all references of a call share.
pub type Pick = fn(&Value, &str, &Params, &Cell<usize>) -> Result<Value, FetchError>;

/// The name of [`SchemeOption`] that stands for every option without a row of its own.
pub const ANY_OPTION: &str = "*";

/// One option of a scheme, for the docs.
#[derive(Debug)]
pub struct SchemeOption {
    /// As in the query, or [`ANY_OPTION`].
    pub name: &'static str,
    /// What it chooses, in a few words.
    pub doc: &'static str,
}

/// One kind of backend. Docs, metric labels, `--help` and the conformance run derive from the table of them.
#[derive(Debug)]
pub struct Scheme {
    /// The scheme of the URI, lower case.
    pub name: &'static str,
    /// One line for `--help` and the docs.
    pub doc: &'static str,
    /// References as users write them, each with what it means.
    pub examples: &'static [(&'static str, &'static str)],
    /// The query options that choose the connection (passed to `open`, and to the policy).
    pub connection: &'static [SchemeOption],
    /// The query options that choose the document (passed in each locator). [`ANY_OPTION`] is for the policy to see too.
    pub document: &'static [SchemeOption],
    /// What a fragment does.
    pub fragment: Fragment,
    /// Gives the path its one spelling, or refuses it.
    pub normalise: Normalise,
    /// Opens the backend for one set of connection options. Does no I/O; a login happens at the first fetch.
    pub open: Open,
}

impl Scheme {
    /// Every option but those of every scheme.
    pub fn options(&self) -> impl Iterator<Item = &'static SchemeOption> + Clone {
        self.connection.iter().chain(self.document)
    }

    /// The options that the policy sees.
    pub fn judged_options(&self) -> impl Iterator<Item = &'static SchemeOption> {
        self.connection.iter().chain(self.document.iter().filter(|option| option.name == ANY_OPTION))
    }
}

/// The path as it is, for backends that open nothing by it.
pub fn verbatim(_: &Scope, path: &str, _: &Params) -> Result<String, FetchError> {
    Ok(path.to_owned())
}

/// The path as it is, unless a segment of it is `.` or `..`, which backends do not agree about.
pub fn without_dots(_: &Scope, path: &str, _: &Params) -> Result<String, FetchError> {
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(FetchError::new(Class::Invalid, "a segment of the path is . or .."));
    }
    Ok(path.to_owned())
}

/// The path of a file of the repository, without symlinks, with the repository's root as `/`.
pub fn inside_repository(scope: &Scope, path: &str, _: &Params) -> Result<String, FetchError> {
    let (Some(root), Some(directory)) = (&scope.repository, &scope.directory) else {
        return Err(FetchError::new(Class::Invalid, "the repository's root is not known"));
    };
    let found = match confine::resolve(root, directory, path) {
        Ok(found) => found,
        // It is for the backend to say that nothing is there, once the policy has allowed to look.
        Err(ConfineError::NotFound { .. }) => absent(root, directory, path),
        Err(error) => return Err(error.into()),
    };
    let inside = found.strip_prefix(root).unwrap_or(&found);
    let inside = inside.to_str().ok_or(FetchError::new(Class::Invalid, "its name is not UTF-8"))?;
    Ok(format!("/{inside}"))
}

/// Where `path` would be, by its spelling alone.
fn absent(root: &Path, directory: &Path, path: &str) -> PathBuf {
    let mut at = if path.starts_with('/') { root.to_owned() } else { directory.to_owned() };
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => at.push(name),
            Component::ParentDir if at != root => {
                at.pop();
            }
            _ => {}
        }
    }
    at
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

impl OpenError {
    /// `reason` holds no secret.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }
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
    /// Whether the backend answered that it is too busy, or broken for now: asking again may help.
    pub busy: bool,
}

impl FetchError {
    /// `reason` holds no secret.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), busy: false }
    }

    /// The same, from a backend that is `busy`.
    #[must_use]
    pub fn busy(self, busy: bool) -> Self {
        Self { busy, ..self }
    }

    /// Says that it was asked in so many rounds.
    pub(super) fn until_the_deadline(&mut self, rounds: u32) {
        if rounds > 1 {
            self.reason = format!("{}; and so {rounds} times, until {DEADLINE}", self.reason);
        }
    }

    /// The document is not there.
    pub fn not_found(reason: impl Into<String>) -> Self {
        Self::new(Class::NotFound, reason)
    }

    /// What `error` and its causes say.
    pub fn of(error: &impl Fault) -> Self {
        Self::new(error.class(), fault::report(error))
    }
}

impl From<ConfineError> for FetchError {
    fn from(error: ConfineError) -> Self {
        Self::of(&error)
    }
}

impl Fault for FetchError {
    fn class(&self) -> Class {
        self.class
    }
}
