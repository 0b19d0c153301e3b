//! The sidecar's service: Argo CD's Config Management Plugin contract over gRPC on a unix socket.
//!
//! It takes the place of `argocd-cmp-server`. [`server`] owns the socket, [`service`] answers the calls, [`intake`]
//! and [`archive`] receive the repository, [`plugin`] reads `plugin.yaml`, [`authority`] lets grpc-go in, and [`health`] asks from outside. The
//! rendering itself comes in through [`service::Generate`].

pub mod archive;
pub mod authority;
pub mod health;
pub mod intake;
pub mod plugin;
pub mod proto;
pub mod server;
pub mod service;

#[cfg(test)]
mod tests;
