//! Hadoop IPC, tokens and YARN's messages.

pub mod proto;
