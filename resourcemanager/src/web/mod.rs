//! The resource manager's HTTP door: WebHDFS over the file tree.
//!
//! One task a connection; every request is proven and asked of the authority function before
//! anything is done. HTTP/1.1 only, because that is what Hadoop's clients speak.
//! Deliberately absent: trust in anything that a request says about its sender, and pages for a
//! browser on the same host to be lured to (see `caller.rs`).

mod caller;
pub(crate) mod delegation;
mod door;
mod webhdfs;

pub(crate) use bobbin_service::http::bind;
pub(crate) use door::{Web, serve};
