//! Control groups: where containers are limited and measured.
//!
//! The agent detects the hierarchies once (`detect.rs`), leases a group per container and controller
//! from a small pool (`root.rs`), and reads usage from it.
//! Groups stand only below the agent's own group, or below the setting `cgroup_root`:
//! `<root>/bobbin-<agent name>/slot-<n>` in every hierarchy.
//! The number of the slot is in the container's start file, so a restarted agent finds its groups.

mod detect;
mod root;

pub(crate) use root::stat_field;

use std::io;
use std::path::PathBuf;

pub use detect::{Controller, Hierarchy, Layout};
pub use root::CgroupRoot;

use crate::spec::CpuMode;

/// Why groups could not be found, made or read.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {value:?} to {}", path.display())]
    Write {
        path: PathBuf,
        value: String,
        source: io::Error,
    },
    #[error("cannot make the control group {}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot remove the control group {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("no control group hierarchy is mounted with the memory controller")]
    NoMemoryController,
    #[error("cgroup_root: {reason}: {}", path.display())]
    BadRoot { path: PathBuf, reason: &'static str },
    #[error("control group slot {slot} is in use already")]
    SlotInUse { slot: u32 },
}

/// What a container may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CgroupLimits {
    pub memory_mib: u64,
    pub vcores: u32,
    pub cpu: CpuMode,
    pub pids_max: u32,
}

/// Which way a leased group counts memory and tells of a shortage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryEvents {
    /// v1: `memory.oom_control` is disabled and an eventfd tells.
    V1,
    /// v2: `memory.events`, the kernel ends the whole group.
    V2,
}

/// The groups of one container. Plain data: it is sent to the launcher and survives the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLease {
    /// Number of the slot below the agent's root.
    pub slot: u32,
    /// The container (or other name) it was leased for.
    pub name: String,
    /// Every group to join, one per hierarchy, absolute paths.
    pub groups: Vec<PathBuf>,
    /// The group to join at birth, if there is a v2 hierarchy with controllers.
    pub into_v2: Option<PathBuf>,
    /// The group that counts memory.
    pub memory: Option<(PathBuf, MemoryEvents)>,
    /// Processor time that the group had used before it was leased, in microseconds.
    pub cpu_base_usec: u64,
}

/// What a container uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    /// Since the container started.
    pub cpu_usec: u64,
    pub pids: u64,
}
