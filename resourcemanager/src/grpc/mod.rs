//! The doors of `bobbin.v1`: they prove the caller, ask the authority function, and translate.

pub(crate) mod app_master;
pub(crate) mod client;
pub(crate) mod identify;
pub(crate) mod logs;
pub(crate) mod node;
mod pages;
pub(crate) mod staging;
pub(crate) mod status;
pub(crate) mod translate;
mod usages;

use std::time::Duration;

use bobbin_proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::driver::DriverHandle;
use crate::minter::Minter;
use crate::yarn::Addresses;
use identify::Doorkeeper;

/// A stream's first message must come within this.
const REGISTRATION: Duration = Duration::from_secs(10);

/// What every service needs.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) driver: DriverHandle,
    pub(crate) minter: Minter,
    /// Where the other doors are, for those who are told.
    pub(crate) addresses: Addresses,
    /// What `bobbin client-config` is told.
    pub(crate) hadoop: v1::HadoopDoors,
    /// Cancelled at the stop: streams end.
    pub(crate) stop: CancellationToken,
}

/// The first message of a peer's stream.
async fn first_message<T>(inbound: &mut Streaming<T>) -> Result<T, Status> {
    match tokio::time::timeout(REGISTRATION, inbound.message()).await {
        Ok(message) => message?
            .ok_or_else(|| Status::invalid_argument("the stream ended before its registration")),
        Err(_) => Err(Status::deadline_exceeded(
            "no registration came within 10 s",
        )),
    }
}
