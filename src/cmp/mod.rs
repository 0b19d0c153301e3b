//! The sidecar's service: Argo CD's Config Management Plugin contract over gRPC on a unix socket.

pub mod archive;
pub mod authority;
pub mod intake;
pub mod proto;
