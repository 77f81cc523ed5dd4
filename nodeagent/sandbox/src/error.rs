//! Why a container could not be started.

use std::io;
use std::path::PathBuf;

/// Why a launch failed. Nothing of the container is left when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot start the container launcher {}", program.display())]
    StartLauncher { program: PathBuf, source: io::Error },
    #[error("the container launcher ended while it was needed")]
    LauncherGone,
    #[error("cannot talk to the container launcher")]
    Control { source: io::Error },
    #[error("container specification: {field}: {reason}")]
    BadSpec { field: &'static str, reason: String },
    #[error("the container launcher's answer is malformed: {reason}")]
    BadAnswer { reason: &'static str },
    #[error("program not found: {program}")]
    NotFound { program: String },
    #[error("program cannot be executed: {program}")]
    NotExecutable { program: String, source: io::Error },
    #[error("cannot set up the container: {step}")]
    Setup { step: String, source: io::Error },
}

impl LaunchError {
    /// The exit status a shell would give: 127 not found, 126 not executable.
    ///
    /// `None` when the program was not even tried.
    #[must_use]
    pub fn exit_status(&self) -> Option<i32> {
        match self {
            LaunchError::NotFound { .. } => Some(127),
            LaunchError::NotExecutable { .. } => Some(126),
            LaunchError::StartLauncher { .. }
            | LaunchError::LauncherGone
            | LaunchError::Control { .. }
            | LaunchError::BadSpec { .. }
            | LaunchError::BadAnswer { .. }
            | LaunchError::Setup { .. } => None,
        }
    }
}
