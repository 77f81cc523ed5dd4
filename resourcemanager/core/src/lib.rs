//! The resource manager's state machine and scheduler: no I/O, no clock, no threads.
//!
//! One [`ResourceManager`] is owned by one task of the daemon, its driver. The driver hands it every
//! [`Event`] with the time, and does what the emitted [`Effect`]s say, in their order. Doors
//! (gRPC, Hadoop, web) only translate to events; questions are answered from [`view`] by the same
//! owner, so there is no lock.
//!
//! Deliberately absent: clocks, randomness, serialization, logging, hash maps, floats.

mod application;
mod attempt;
mod authority;
mod blacklist;
mod change;
mod config;
mod container;
mod effect;
mod event;
mod fetching;
mod grants;
mod invariants;
mod launch;
pub mod limits;
mod live;
mod liveness;
mod manager;
mod master;
mod metrics;
mod node;
mod queue;
mod record;
mod recovery;
mod refusal;
mod relaunch;
mod reports;
mod resize;
mod scheduler;
mod submission;
mod text;
mod usage;
pub mod view;

pub use authority::{
    Acls, ApplicationRights, Denied, Groups, Object, Operation, Principal, may, principal_of_uid,
};
pub use config::Config;
pub use effect::{
    CompletedContainer, Effect, Grant, IllegalTransition, MasterMessage, MasterRegistered,
    NodeCommand, Reply, StartContainer, Transition, UpdatedContainer,
};
pub use event::{
    Ask, AskKey, ContainerExit, ContainerSignal, ContainerUpdate, Event, Fetching, Finish,
    MasterRegistration, NodeHeartbeat, NodeRegistration, ReportedContainer, ReportedStatus,
    RequestId, SessionId, Submission, UpdateKind,
};
pub use launch::{LaunchContext, LaunchContract, LocalResource, ResourceKind, Secret, Visibility};
pub use manager::ResourceManager;
pub use record::{Lifetime, Record, SubmittedApplication};
pub use refusal::{Refusal, RefusalKind};
pub use usage::ResourceSeconds;

#[cfg(test)]
mod tests;
