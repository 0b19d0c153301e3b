//! What one render may see: on whose behalf it runs, where its files are, how long it may take.

use std::path::PathBuf;
use std::time::Instant;

use crate::fault::Class;
use crate::observe::Observer;
use crate::observe::audit::{self, Access};
use crate::policy::Who;

/// Why there is no answer of a backend, where the render's deadline came first.
pub const TOO_LATE: &str = "no answer before the render's deadline\n\
     help: STRONGROOM_TIMEOUT says how long a render may take; Argo CD may give it less";

/// When a busy backend is no longer asked again.
pub const DEADLINE: &str = "the render's deadline\n\
     help: STRONGROOM_TIMEOUT says how long a render may take; Argo CD may give it less";

/// The bounds of one render, handed to everything that opens something for it.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// On whose behalf.
    pub who: Who,
    /// Nothing outside this directory is read for the render. Absolute and without symlinks.
    pub repository: Option<PathBuf>,
    /// Relative paths start here; inside `repository`.
    pub directory: Option<PathBuf>,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
    /// The file that is being opened, as messages call it.
    pub file: Option<String>,
    /// Who is told how it goes.
    pub observer: Observer,
}

impl Scope {
    /// The same bounds, for opening one file.
    #[must_use]
    pub fn of_file(&self, name: &str) -> Self {
        Self { file: Some(name.to_owned()), ..self.clone() }
    }

    /// Leaves a line in the audit trail.
    pub fn audit(&self, access: Access<'_>, outcome: Result<(), Class>) {
        self.observer.opened(access, outcome);
        audit::tell(&self.who, self.observer.request.as_deref(), access, outcome);
    }
}
