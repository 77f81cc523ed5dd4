//! Life-cycle states with YARN's names.

use std::fmt;
use std::str::FromStr;

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The name as YARN prints it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|s| s.as_str() == text).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|s| s.as_str()).collect();
                    format!("'{text}' is none of {}", all.join(", "))
                })
            }
        }
    };
}

states! {
    /// An application inside the resource manager. Source: `RMAppState`.
    ApplicationState {
        New = "NEW",
        /// Its submission is on the way to the journal.
        NewSaving = "NEW_SAVING",
        /// Journaled; the queue has not taken it yet.
        Submitted = "SUBMITTED",
        /// In its queue; its application master has not registered.
        Accepted = "ACCEPTED",
        Running = "RUNNING",
        /// Its final status is on the way to the journal.
        FinalSaving = "FINAL_SAVING",
        /// Its master has unregistered but its container still runs.
        Finishing = "FINISHING",
        Finished = "FINISHED",
        Failed = "FAILED",
        /// Killed by someone; its containers are being ended.
        Killing = "KILLING",
        Killed = "KILLED",
    }
}

states! {
    /// An application as clients see it. Source: `YarnApplicationState`.
    YarnApplicationState {
        New = "NEW",
        NewSaving = "NEW_SAVING",
        Submitted = "SUBMITTED",
        Accepted = "ACCEPTED",
        Running = "RUNNING",
        Finished = "FINISHED",
        Failed = "FAILED",
        Killed = "KILLED",
    }
}

states! {
    /// One attempt. Source: `RMAppAttemptState`, the states that Bobbin's attempts pass.
    AttemptState {
        New = "NEW",
        /// Waits for its master's container.
        Scheduled = "SCHEDULED",
        /// The container is granted, its start is on the way to the journal and the node.
        Allocated = "ALLOCATED",
        /// The node has been told to start it.
        Launched = "LAUNCHED",
        Running = "RUNNING",
        /// Unregistered; its container still runs.
        Finishing = "FINISHING",
        Finished = "FINISHED",
        Failed = "FAILED",
        Killed = "KILLED",
    }
}

states! {
    /// A container in the resource manager. Source: `RMContainerState`.
    ContainerState {
        New = "NEW",
        Reserved = "RESERVED",
        /// Granted; its application master has not been told or has not fetched it.
        Allocated = "ALLOCATED",
        /// Its application master has it.
        Acquired = "ACQUIRED",
        Running = "RUNNING",
        Completed = "COMPLETED",
        /// Never started in time.
        Expired = "EXPIRED",
        Released = "RELEASED",
        Killed = "KILLED",
    }
}

states! {
    /// A node. Source: `NodeState`.
    NodeState {
        New = "NEW",
        Running = "RUNNING",
        /// Its agent cannot enforce its profile or is ill; takes no work.
        Unhealthy = "UNHEALTHY",
        Decommissioning = "DECOMMISSIONING",
        Decommissioned = "DECOMMISSIONED",
        /// Its agent has not been heard of for the expiry interval.
        Lost = "LOST",
        Rebooted = "REBOOTED",
        Shutdown = "SHUTDOWN",
    }
}

states! {
    /// What the application said, or was said of it, at its end. Source: `FinalApplicationStatus`.
    FinalStatus {
        Undefined = "UNDEFINED",
        Succeeded = "SUCCEEDED",
        Failed = "FAILED",
        Killed = "KILLED",
    }
}

impl ApplicationState {
    /// The state clients see. Source: `RMServerUtils.createApplicationState`.
    #[must_use]
    pub fn as_yarn(self) -> YarnApplicationState {
        match self {
            ApplicationState::New => YarnApplicationState::New,
            ApplicationState::NewSaving => YarnApplicationState::NewSaving,
            ApplicationState::Submitted => YarnApplicationState::Submitted,
            ApplicationState::Accepted => YarnApplicationState::Accepted,
            ApplicationState::Running
            | ApplicationState::Killing
            | ApplicationState::FinalSaving => YarnApplicationState::Running,
            // As YARN: finished for clients as soon as the master has said its final status.
            ApplicationState::Finishing | ApplicationState::Finished => {
                YarnApplicationState::Finished
            }
            ApplicationState::Failed => YarnApplicationState::Failed,
            ApplicationState::Killed => YarnApplicationState::Killed,
        }
    }

    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Killed)
    }
}

impl YarnApplicationState {
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Killed)
    }
}

impl AttemptState {
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Killed)
    }
}

impl ContainerState {
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Expired | Self::Released | Self::Killed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        for state in ApplicationState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        assert!("BUSY".parse::<NodeState>().is_err());
    }
}
