//! Whole clusters of real processes, used as people use them: through the command line.
#![expect(
    clippy::unwrap_used,
    reason = "what is missing fails the test as it should"
)]

mod container_doors;
mod demo;
mod ends;
mod hadoop_clients;
mod limits;
mod load;
mod logs;
mod modes;
mod probes;
mod refusals;
mod restarts;
mod rootless;
mod sandbox;
mod sdk;
mod several;
mod speculation;
mod top;
mod units;
mod urls;
