//! The resource manager's HTTP door: WebHDFS over the file tree, YARN's REST, applications' own pages
//! behind a proxy, a page for people, and metrics.
//!
//! One task a connection; every request is proven and asked of the authority function before
//! anything is done. HTTP/1.1 only, because that is what Hadoop's clients speak.
//! Deliberately absent: trust in anything that a request says about its sender, and pages
//! that a browser on this host could be lured to (see `caller.rs` and `browser.rs`).

mod browser;
mod caller;
pub(crate) mod delegation;
mod door;
mod metrics;
mod pages;
mod proxy;
mod rest;
mod webhdfs;

pub(crate) use bobbin_service::http::bind;
pub(crate) use door::{Web, serve};
pub(crate) use proxy::Seats;
