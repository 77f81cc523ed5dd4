//! The application master's state machine: asks, grants, executors, tasks and their retries.
//!
//! Pure: no clocks, no processes, no messages. [`ApplicationMaster::handle`] takes one [`Event`] and
//! appends [`Effect`]s; the shell (`bobbin-appmaster`, or the simulator) performs them.
//!
//! Deliberately absent: what a task runs and prints (the shell keeps both by [`TaskKey`]), tokens
//! and addresses, and the driver's process. Room is left for resources of tasks (a slot is counted
//! in one place, `executors.rs`).

mod allocation;
mod asks;
mod config;
mod effect;
mod event;
mod exclusion;
mod executors;
mod grants;
mod invariants;
mod master;
mod tasks;

pub use config::{Allocation, Config, DynamicAllocation, Speculation};
pub use effect::{Ask, Effect};
pub use event::{Completed, Event, Grant, StageId, TaskKey, TaskRef};
pub use executors::{ExecutorPhase, ExecutorView};
pub use invariants::InvariantError;
pub use master::{ApplicationMaster, Counts};

#[cfg(test)]
mod tests;
