//! What unmodified Hadoop clients speak: Hadoop IPC version 9, tokens, Credentials, YARN's messages.
//!
//! Everything but [`server`] does no I/O: [`connection::Connection`] takes bytes and gives events.
//! Nothing here decides: who a client is and what a call does are the caller's, through
//! [`server::Authenticator`] and [`server::Service`].
//!
//! Absent on purpose: a client, the Writable engines, Kerberos, compression, TLS, and the ciphers of
//! DIGEST-MD5 that are weaker than 3DES.

pub mod connection;
pub mod convert;
pub mod credentials;
pub mod digest;
pub mod exceptions;
pub mod frame;
pub mod protection;
pub mod proto;
pub mod protocol;
pub mod rpc;
pub mod sasl;
pub mod server;
pub mod tokens;
pub mod vint;
pub mod wire;
pub mod wrap;

#[cfg(test)]
mod test_client;
