//! The `bobbin.v1` protocol: generated messages and services, and conversions to domain types.
//!
//! `TryFrom<wire> for domain` may refuse and names the field; `From<domain> for wire` is total.
//! Nothing here decides anything: it only translates.

mod convert;

pub use convert::{FieldError, field};

/// Generated from `proto/bobbin/v1/*.proto`.
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    rustdoc::invalid_html_tags,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("bobbin.v1");
}
