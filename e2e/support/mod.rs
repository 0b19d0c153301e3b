//! What the tests in `e2e/` share: the pinned tools, the product as a process, repositories, keys and servers.
//!
//! Nothing here skips a test: a tool that is missing is a failure that says how to get it. Every process gets an
//! environment of its own, never the developer's, and every server listens on loopback and ends with the test
//! process, however that ends.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test target compiles this module and uses its own part of it"
)]
#![allow(clippy::disallowed_methods, reason = "tests start programs and look for tools themselves")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::new_without_default, reason = "a new key is not a default one")]

pub mod argocd;
pub mod beside_vals;
pub mod cluster;
pub mod collector;
pub mod delay;
pub mod desk;
pub mod differential;
pub mod documents;
pub mod fake_aws;
pub mod fake_dns;
pub mod grpc_go;
pub mod helm;
pub mod keys;
pub mod kubernetes;
pub mod mock_azure;
pub mod mock_huawei;
pub mod moto;
pub mod openbao;
pub mod process;
pub mod product;
pub mod proxy;
pub mod repository;
pub mod server;
pub mod sidecar;
pub mod sops;
pub mod tools;
pub mod wrapped_helm;

/// Stands in every test secret whose value is free, so that a test can look for leaks by one string.
pub const MARKER: &str = "STRONGROOM-MARKER";
