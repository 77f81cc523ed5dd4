//! What unmodified YARN masters and their containers need of a node.
//!
//! [`contract`] makes a process of a launch context of YARN's, whichever way it came.

pub(crate) mod contract;
