//! The node agent's state machine: container life cycle and the node's accounting.
//!
//! Pure: no clocks, no files, no processes. [`NodeAgent::handle`] takes one [`Event`] and appends
//! [`Effect`]s; the daemon's driver (or the simulator) owns it and performs them.
//!
//! Deliberately absent: launch contexts (the driver keeps them by container id until the launch; a
//! container is never launched from a record), tokens (the driver verifies them and hands in the
//! claims), paths, and everything of a container's inside.

mod accounting;
mod agent;
mod calls;
mod container;
mod effect;
mod event;
mod heartbeat;
mod invariants;
mod life;
pub mod limits;
mod logs;
mod recovery;
mod resize;

pub use accounting::Accounting;
pub use agent::{ContainerView, NodeAgent};
pub use calls::{CallError, CallId, CallRequest};
pub use container::{ContainerEvent, ContainerPhase, Next, next_phase};
pub use effect::{ContainerReport, ContainerWork, Effect, Heartbeat, Registration};
pub use event::{
    ContainerClaims, ContainerSignal, Event, Exit, Found, NodeConfig, NodeUsage, Origin, Record,
    Starter, StreamId,
};
pub use invariants::InvariantError;
pub use life::INVALID;

#[cfg(test)]
mod tests;
