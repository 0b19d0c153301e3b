//! Generates the gRPC messages and service from `proto/`, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/plugin.proto"], ["proto"])?;
    // Chunks of the archive stay slices of the receive buffer.
    tonic_prost_build::configure().bytes(".plugin.File").compile_fds(files)?;
    Ok(())
}
