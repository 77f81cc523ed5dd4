//! Compares what is written here with Hadoop's own jars, and lets its own clients call the server.
//!
//! Needs `javac` and `java`, and the `jars` folders of two Sparks, for example of the package pyspark:
//! `BOBBIN_SPARK_JARS` of one for Hadoop 3.3, `BOBBIN_SPARK4_JARS` of one for Hadoop 3.4. Each test runs
//! with both; it says loudly what it lacks.
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
