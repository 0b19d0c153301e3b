//! All that a source may use of the outside world. A source never reads the process environment itself.

use std::sync::Arc;

use crate::address::Address;
use crate::aws::Aws;
use crate::azure::Azure;
use crate::environment::Environment;
use crate::google::Google;
use crate::kubernetes::Kubernetes;
use crate::sops::keys::Keyring;
use crate::sops::open::OpenOptions;
use crate::vault::Vault;

/// Shared by all sources of a process.
#[derive(Clone, Debug)]
pub struct Ambient {
    /// Snapshot of the environment.
    pub environment: Environment,
    /// Addresses that references may name.
    pub addresses: Vec<Address>,
    /// AWS configuration and its one HTTP client.
    pub aws: Arc<Aws>,
    /// Azure, with the login to it.
    pub azure: Arc<Azure>,
    /// Google Cloud, with the login to it.
    pub google: Arc<Google>,
    /// Clusters of Kubernetes.
    pub kubernetes: Arc<Kubernetes>,
    /// Vault and OpenBao, with the logins to them.
    pub vault: Arc<Vault>,
    /// The keys that open SOPS files.
    pub keyring: Arc<Keyring>,
    /// How strictly SOPS files are opened.
    pub sops: OpenOptions,
    /// Environment variables that `envsubst` may see; `None` is all of them (a laptop).
    pub envsubst: Option<Vec<String>>,
}
