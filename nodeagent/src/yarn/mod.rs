//! What unmodified YARN masters and their containers need of a node.
//!
//! [`contract`] makes a process of a launch context of YARN's, whichever way it came. [`door`] is
//! ContainerManagementProtocol, by which YARN's masters start and watch their containers: it translates
//! to the same events as the native door (`grpc.rs`), and knows nobody but holders of NM tokens.

mod answers;
pub(crate) mod contract;
pub(crate) mod door;
mod extra;
mod launch_context;
mod tokens;

pub(crate) use extra::{Extras, Progress, files_token};
