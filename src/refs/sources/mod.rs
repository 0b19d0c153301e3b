//! The backends, one file each. They never import each other; `schemes` alone lists them.

mod aws;
pub(super) mod awskms;
pub(super) mod awssecrets;
pub(super) mod awsssm;
pub(super) mod azurekeyvault;
mod ciphertext;
#[cfg(test)]
mod conformance;
pub(super) mod doppler;
pub(super) mod echo;
pub(super) mod envsubst;
pub(super) mod file;
pub(super) mod gcpsecrets;
pub(super) mod gcs;
pub(super) mod gitlab;
pub(super) mod gkms;
mod google;
mod grouped;
mod http;
pub(super) mod httpjson;
pub(super) mod k8s;
#[cfg(test)]
mod mock;
mod objects;
pub(super) mod onepasswordconnect;
pub(super) mod s3;
pub(super) mod sops;
pub(super) mod tfstate;
pub(super) mod vault;
