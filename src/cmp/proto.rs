//! The generated messages, client and service of `proto/`.

/// Package `plugin`: the Config Management Plugin contract.
#[allow(clippy::pedantic, unused_qualifications, missing_docs, reason = "generated")]
pub mod plugin {
    tonic::include_proto!("plugin");
}

/// Package `repository`: what the contract borrows from Argo CD's repository service.
#[allow(clippy::pedantic, missing_docs, reason = "generated")]
pub mod repository {
    tonic::include_proto!("repository");
}
