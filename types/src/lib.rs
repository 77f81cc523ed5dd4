//! Domain types every part of Bobbin shares: ids, resources, states, exit statuses, time.
//!
//! No I/O, no clocks, no serialization: wires and stores have their own types and convert.
//! Text forms are YARN's, so that what one tool prints another can read.

mod exit_status;
mod ids;
mod limits;
mod names;
mod resource;
mod state;
mod time;

pub use exit_status::ExitStatus;
pub use ids::{ApplicationId, AttemptId, ContainerId, IdError, NodeId};
pub use limits::*;
pub use names::{NameError, OBJECT_STORE_SECRET, UserName, check_environment_name, check_text};
pub use resource::{MAX_COUNTABLE_KINDS, Resource, ResourceError};
pub use state::{
    ApplicationState, AttemptState, ContainerState, FinalStatus, NodeState, YarnApplicationState,
};
pub use time::{Millis, WallMillis};
