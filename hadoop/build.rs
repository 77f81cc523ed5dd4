//! Generates the messages with protox, a compiler in Rust: protoc need not be on the machine.
//!
//! The descriptors are written beside them: a test compares them with those in Hadoop's jars.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 7] = [
    "hadoop/rpc.proto",
    "hadoop/security.proto",
    "hadoop/yarn_records.proto",
    "hadoop/yarn_requests.proto",
    "hadoop/yarn_tokens.proto",
    "hadoop/yarn_admin.proto",
    "hadoop/yarn_protocols.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // Bytes stay slices of the frame they came in.
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
