//! One render: from a plan to finished manifests.

pub mod parameters;
pub mod plan;
pub mod repository;
