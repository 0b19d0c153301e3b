//! Asks a running server whether it serves, as an exec probe does.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::fault::{Class, Fault};

/// A server that is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody answers on the socket.
    #[error("reach the server on {socket:?}: {reason}")]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The question was not answered.
    #[error("ask the server on {socket:?}: {reason}")]
    Refused {
        /// Where.
        socket: PathBuf,
        /// What it said instead.
        reason: String,
    },
    /// It serves no requests now.
    #[error("the server on {0:?} is not serving")]
    NotServing(PathBuf),
}

impl Fault for HealthError {
    fn class(&self) -> Class {
        Class::Unavailable
    }
}

/// Asks the server on `socket`, and waits `patience` for its answer.
pub async fn check(socket: &Path, patience: Duration) -> Result<(), HealthError> {
    let unreachable = |error: tonic::transport::Error| {
        // Each link of its chain repeats the one below.
        let links = std::iter::successors(error.source(), |link: &&dyn Error| (*link).source());
        let reason = links.last().map_or_else(|| error.to_string(), ToString::to_string);
        HealthError::Unreachable { socket: socket.to_owned(), reason }
    };
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).map_err(unreachable)?;
    let channel =
        endpoint.connect_timeout(patience).timeout(patience).connect().await.map_err(unreachable)?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.map_err(|status| {
        HealthError::Refused { socket: socket.to_owned(), reason: status.message().to_owned() }
    })?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        _ => Err(HealthError::NotServing(socket.to_owned())),
    }
}
