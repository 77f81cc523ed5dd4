//! Generates the services with protox, a compiler in Rust: protoc need not be on the machine.

use std::error::Error;

const FILES: [&str; 7] = [
    "bobbin/v1/client.proto",
    "bobbin/v1/staging.proto",
    "bobbin/v1/node.proto",
    "bobbin/v1/application_master.proto",
    "bobbin/v1/container_manager.proto",
    "bobbin/v1/executor.proto",
    "bobbin/v1/driver.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=bobbin");
    let descriptors = protox::compile(FILES, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
