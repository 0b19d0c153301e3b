//! From a plan to manifests: helm's call, its output's check, and what a dry run shows of it.

pub mod set;
