//! Containers of a node agent: launched, shut in, watched and ended.
//!
//! Three processes make a container. The agent talks to one small *server*
//! (`bobbin-container-init --serve`, see `launcher.rs`), which forks a *monitor* per container.
//! The monitor is the container's parent outside its pid namespace: it pumps the output into the log
//! files, watches memory, ends the container when asked by a signal, writes the exit file, and
//! outlives the agent. Its child is *PID 1* of the new namespaces, which builds what the program
//! sees, starts the program and reaps.
//!
//! This is the only crate of the workspace with unsafe code: the kernel is spoken to directly, since
//! each system call and each page copied by a fork is paid on every launch.
//! Deliberately absent: tokio, serde, threads, and any trust in paths a user can change.
#![allow(
    unsafe_code,
    reason = "this crate is where the workspace talks to the kernel directly"
)]

pub mod bare;
mod base;
pub mod cgroup;
mod error;
mod holder;
mod inside;
mod json;
mod launcher;
mod measure;
mod memory;
mod monitor;
mod mounts;
mod plain;
mod plan;
mod probe;
pub mod process;
mod program;
mod pump;
mod record;
mod seccomp;
mod server;
mod spare;
mod spec;
mod sys;
mod warm;
mod wire;

pub use cgroup::{CgroupLease, CgroupLimits, CgroupRoot, Usage};
pub use error::LaunchError;
pub use holder::{Holder, hold};
pub use launcher::{Launched, Launcher, Stop, is_running, pass_signal, signal_container};
pub use measure::{running_ms, usage_of_tree};
pub use monitor::{EXIT_TEMPORARY, START_TEMPORARY};
pub use plan::is_system_path;
pub use probe::{lacks_socket_scope, probe};
pub use record::{
    Adopted, EXIT_FILE, ExitRecord, RecordError, START_FILE, StartRecord, adopt, change_memory,
    forbid_start, read_exit, read_start,
};
pub use server::serve;
pub use spec::{Bind, ContainerSpec, CpuMode, Limits, OutputFiles, PassedSignal, Profile};
