//! Secret references: `ref+scheme://path?query#/fragment`, in the grammar of vals.
//!
//! [`grammar`] reads them, [`scan`] finds them in a value file and puts their values back, [`resolve`] fetches what
//! they mean through the backends that [`schemes`] lists.

pub mod ambient;
mod flights;
pub mod grammar;
pub mod resolve;
pub mod scan;
pub mod schemes;
pub mod source;
mod sources;
mod xpath;
