//! What the driver has to do: closed enums of domain types.

use bobbin_types::{ApplicationId, ContainerId, ContainerState, ExitStatus, Resource, UserName};

use crate::calls::{CallError, CallId};
use crate::event::{ContainerSignal, NodeUsage, Record, StreamId};

/// A container as the resource manager and its master are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerReport {
    pub container: ContainerId,
    /// Acquired: on its way; Running; Completed.
    pub state: ContainerState,
    /// Set when completed.
    pub exit_status: Option<ExitStatus>,
    pub diagnostics: String,
    pub resource: Resource,
}

/// What a supervisor needs beside the launch context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerWork {
    pub container: ContainerId,
    pub user: UserName,
    pub resource: Resource,
}

/// The changing part of a registration; the driver adds what never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub containers: Vec<ContainerReport>,
    /// Applications that have folders here and are not known to have ended.
    pub applications: Vec<ApplicationId>,
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub usage: NodeUsage,
    pub problems: Vec<String>,
}

/// Imperatives, in the order in which they have to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Effects after this one that say so ([`Effect::needs_records`]) wait until it is durable.
    Persist(Record),
    /// Make the folders, fetch the local resources; answers `Localized` or `LocalizeFailed`.
    /// A crash after it and before its record is harmless: nothing runs.
    Localize(ContainerWork),
    /// Answers `Launched` or `LaunchFailed`, then `Exited`.
    Launch(ContainerId),
    /// End it: cancel its localization, or TERM, grace, KILL. Answered by the same events.
    Terminate(ContainerId),
    /// To what runs in it.
    Signal {
        container: ContainerId,
        signal: ContainerSignal,
    },
    /// Change its limits; what cannot be had is told as an order to end it.
    Resize {
        container: ContainerId,
        resource: Resource,
    },
    /// Remove its group, work folder, secrets; keep its logs and exit file; answers `CleanedUp`.
    CleanUp(ContainerId),
    /// Remove its exit file too: nobody will ask again.
    Forget(ContainerId),
    /// Remove the application's caches; logs stay.
    CleanUpApplication(ApplicationId),
    /// Answers `LogsDeleted`.
    DeleteLogs(ApplicationId),

    RegisterWithRm(Registration),
    HeartbeatToRm(Heartbeat),
    ReportStartedToRm(ContainerReport),
    ReportExitToRm(ContainerReport),
    ReportToMaster {
        stream: StreamId,
        report: ContainerReport,
    },
    /// The one answer to a call.
    AnswerCall {
        call: CallId,
        result: Result<Box<ContainerReport>, CallError>,
    },
    /// The stream's attempt is dead, or it opened another stream.
    CloseMaster {
        stream: StreamId,
        reason: String,
    },
}

impl Effect {
    /// Whether this effect may leave only when every record before it is durable.
    ///
    /// A launch must (never twice), and so must what destroys the only other evidence, and the answer
    /// to a call, which nobody makes again. Reports need not: after a crash the same report is made
    /// again from the exit file.
    #[must_use]
    pub fn needs_records(&self) -> bool {
        match self {
            Effect::Launch(_)
            | Effect::Forget(_)
            | Effect::CleanUpApplication(_)
            | Effect::DeleteLogs(_)
            | Effect::AnswerCall { .. } => true,
            Effect::Persist(_)
            | Effect::Localize(_)
            | Effect::Terminate(_)
            | Effect::Signal { .. }
            | Effect::Resize { .. }
            | Effect::CleanUp(_)
            | Effect::RegisterWithRm(_)
            | Effect::HeartbeatToRm(_)
            | Effect::ReportStartedToRm(_)
            | Effect::ReportExitToRm(_)
            | Effect::ReportToMaster { .. }
            | Effect::CloseMaster { .. } => false,
        }
    }
}
