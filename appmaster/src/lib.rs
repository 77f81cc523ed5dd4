//! The application master: executors, tasks and the driver, for native applications.
//!
//! Tasks of the runtime and what connects them: one [`master`](crate) task owns the pure core
//! (`bobbin-am-core`) and takes every input from one bounded inbox; a task for the stream to the
//! resource manager (`client`), one for each node (`nodes`), one for each executor's connection
//! (`gateway`), two for each of the driver's stages (`driver_service`). The driver's process has a
//! thread of its own (`driver`).
//!
//! Deliberately absent: decisions (they are the core's) and anything of a container's inside.

mod api;
pub mod arrow;
mod backend;
mod client;
mod client_mode;
mod cluster_mode;
mod driver;
mod driver_service;
mod executor;
mod gateway;
mod guard;
mod held;
mod input;
mod local;
mod local_executors;
pub mod map_client;
mod master;
mod nodes;
mod processes;
pub mod sdk;
mod settings;
mod shell;
mod shipped_files;
mod spool;

pub use api::{AppMasterError, ClientMode, DriverEnd, LocalMode};
pub use client_mode::run_client_mode;
pub use cluster_mode::{ClusterMode, run_cluster_mode};
pub use executor::{ExecutorOptions, run_executor};
pub use guard::run_guard;
pub use local::run_local;
pub use settings::{AppSettings, AppSettingsError};
pub use shipped_files::{SHIPPED_FILES_SECRET, ShippedFiles, encode_shipped_files};
