//! What one render may see: on whose behalf it runs, where its files are, how long it may take.

use std::path::PathBuf;
use std::time::Instant;

use crate::policy::Who;

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
}
