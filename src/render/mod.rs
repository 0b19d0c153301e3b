//! One render: from a plan to finished manifests.
//!
//! Value sources are opened, their references resolved, helm is run on the result, and what helm printed is checked.
//! Plaintext passes through memory only. A render either gives everything or an error.

pub mod check;
pub mod helm;
pub mod mask;
pub mod output;
pub mod overrides;
pub mod parameters;
pub mod plan;
pub mod repository;
pub mod set;
