//! Harness for tests over real processes, and what the end-to-end and tidy tests share.
//!
//! A test starts a whole cluster with `bobbin up` in a folder of its own, talks to it only through
//! the command line, and ends it with `bobbin down`; the harness then checks that nothing stayed
//! behind. The programs are those in the target folder the tests were built in.

mod cluster;
mod leftovers;
mod repository;
mod terminal;
mod wait;

pub use cluster::{Cluster, Run, RunExt, bobbin, program};
pub use leftovers::leftovers;
pub use repository::{root, tracked_files};
pub use terminal::Terminal;
pub use wait::{skip_without_root, skipped, wait_for};
