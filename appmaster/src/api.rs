//! What the command line and the binaries hand in and get back.

use std::collections::BTreeMap;

use bobbin_service::Target;
use bobbin_types::{AttemptId, ExitStatus};

use crate::settings::AppSettings;
use crate::shipped_files::ShippedFiles;

/// A client-mode application: submitted unmanaged, its driver runs here.
#[derive(Clone, Debug)]
pub struct ClientMode {
    /// Where the resource manager's `ApplicationMaster` service is.
    pub resource_manager: Target,
    pub attempt: AttemptId,
    pub attempt_token: String,
    /// The driver's program and arguments.
    pub argv: Vec<String>,
    /// For the driver, on top of this process's own environment, and for the executors.
    pub environment: BTreeMap<String, String>,
    pub settings: AppSettings,
    /// Localized into every executor's working folder.
    pub files: ShippedFiles,
}

/// An application without any cluster: driver and executors on this host.
#[derive(Clone, Debug)]
pub struct LocalMode {
    /// Task slots; `None` is one per core (`local[*]`).
    pub slots: Option<u32>,
    pub argv: Vec<String>,
    /// For the driver, on top of this process's own environment, and for the executor.
    pub environment: BTreeMap<String, String>,
    pub settings: AppSettings,
}

/// How a driver, and with it the application, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverEnd {
    /// The driver's own: its code, 128+n for a signal, 127 not found, 126 not executable.
    pub exit_status: ExitStatus,
    /// Why, when the driver's exit status does not say it; empty otherwise.
    pub diagnostics: String,
    /// Whether the resource manager has acknowledged the end (always, in local mode).
    pub acknowledged: bool,
    /// The application failed although the driver may have ended well: no executor could be had,
    /// or the cluster ended the application.
    pub failed: bool,
}

/// Why an application master could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum AppMasterError {
    #[error("{program} is not beside this program and not in PATH")]
    ProgramMissing { program: &'static str },
    #[error("cannot {action}")]
    Io {
        action: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot serve executors or the driver")]
    Serve(#[source] bobbin_service::ServeError),
    #[error("cannot connect to the resource manager")]
    Connect(#[source] bobbin_service::ConnectError),
    #[error("{variable} is missing or wrong in the environment: {problem}")]
    Environment {
        variable: &'static str,
        problem: String,
    },
    #[error("the application's settings cannot be used")]
    Settings(#[source] crate::settings::AppSettingsError),
}

impl AppMasterError {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> AppMasterError {
        let action = action.into();
        move |source| AppMasterError::Io { action, source }
    }
}
