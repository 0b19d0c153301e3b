//! Secret references: `ref+scheme://path?query#/fragment`, in the grammar of vals.

pub mod ambient;
pub mod grammar;
pub mod source;
