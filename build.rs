//! Generates the gRPC messages and service from `proto/`, without protoc, and lists what is linked into the program.

use std::error::Error;

#[path = "build/inventory.rs"]
#[allow(
    clippy::disallowed_methods,
    reason = "rules of the program; cargo speaks to a build script by its environment"
)]
mod inventory;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/plugin.proto", "proto/keyservice.proto"], ["proto"])?;
    // Chunks of the archive stay slices of the receive buffer.
    tonic_prost_build::configure().bytes(".plugin.File").compile_fds(files)?;
    inventory::write()
}
