//! Compares what is written here with Hadoop's own jars, and lets its own clients call the server.
//!
//! Needs `javac` and `java`, and `BOBBIN_SPARK_JARS`: the `jars` folder of a Spark for Hadoop 3.3
//! or 3.4, for example that of the package pyspark. Without them each test says so and passes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a helper that fails fails its test; a skipped test is said loudly; Java is a process"
)]

mod descriptors;
mod interop;
mod java;
