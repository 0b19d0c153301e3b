//! Who may open what: the one seam that every key and every reference passes before it is opened.
//!
//! [`Who`] comes from what Argo CD sets, never from what a repository can set. [`AllowList`] applies the
//! operator's list; a policy file per project will implement [`Authorise`] later.

use std::fmt;

use crate::fault::{Class, Fault};

/// On whose behalf a render runs.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Who {
    /// Name of the Application, as Argo CD says it (`ns_app` for apps outside its own namespace).
    pub app: String,
    /// The Application's project, where Argo CD tells it.
    pub project: Option<String>,
    /// The repository the source comes from.
    pub repository: Option<String>,
    /// The resolved revision of the source.
    pub revision: Option<String>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {:?}", self.app)?;
        if let Some(project) = &self.project {
            write!(f, " of project {project:?}")?;
        }
        Ok(())
    }
}

/// What is about to be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What<'a> {
    /// A reference, normalised: scheme in lower case, percent-encoding undone, no `..`.
    Reference {
        /// Scheme, such as `awssecrets`.
        scheme: &'a str,
        /// What stands behind `scheme://`, without query and fragment.
        path: &'a str,
    },
    /// A SOPS master key.
    Key {
        /// Kind of the key, such as `age` or `kms`.
        kind: &'a str,
        /// Recipient, fingerprint or ARN.
        id: &'a str,
    },
}

/// Decides whether [`Who`] may open [`What`].
pub trait Authorise: Send + Sync {
    /// `Ok` lets it pass.
    fn authorise(&self, who: &Who, what: What<'_>) -> Result<(), Denied>;
}

/// The operator's policy does not allow it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{who} may not open {what}\nhelp: {help}")]
pub struct Denied {
    who: String,
    what: String,
    help: String,
}

impl Fault for Denied {
    fn class(&self) -> Class {
        Class::Denied
    }
}
