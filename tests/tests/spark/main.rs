//! Unmodified Spark on Bobbin, as its users run it: `spark-submit --master yarn`, from PyPI's packages.
//!
//! `tests/spark-install` puts the two Sparks below target/; without them every test says that it is
//! skipped. The tests need root, since the jobs' processes are told apart and killed from outside.
//! Each test has a cluster of its own; the jars are in its file tree once, named by
//! `spark.yarn.archive`, but for the test of the bare command.
#![expect(
    clippy::unwrap_used,
    reason = "what is missing fails the test as it should"
)]

mod elastic;
mod ends;
mod hosts;
mod jobs;
mod pages;
mod python;
mod shells;
mod spark;
