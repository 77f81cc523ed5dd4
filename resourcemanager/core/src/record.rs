//! What the resource manager remembers across its restarts. The daemon encodes and journals these.
//!
//! Replayed in order as [`crate::Event::Recovered`] into a new core they rebuild what must survive.

use std::sync::Arc;

use bobbin_types::{
    ApplicationId, ApplicationState, AttemptId, AttemptState, ContainerId, ExitStatus, FinalStatus,
    NodeId, UserName, WallMillis,
};

use crate::event::Submission;
use crate::usage::ResourceSeconds;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A start of the resource manager. The next start's epoch is one more.
    Epoch { epoch: u32, cluster_timestamp: u64 },
    /// No application id up to `sequence` may be handed out again; one up to `floor` that is not
    /// on record has ended and was forgotten.
    SequenceReserved { sequence: u32, floor: u32 },
    /// The node has registered: after a restart it is expected back.
    NodeKnown { node: NodeId },
    /// The node was given up with all that it ran: nobody waits for it after a restart.
    NodeForgotten { node: NodeId },
    /// Everything that is needed to launch it again.
    ApplicationSubmitted(Arc<SubmittedApplication>),
    KillRequested {
        application: ApplicationId,
        reason: String,
        wall: WallMillis,
    },
    /// Its master's container is granted on a node and may be started from now on. An unmanaged
    /// attempt has neither.
    AttemptStarted {
        attempt: AttemptId,
        place: Option<(ContainerId, NodeId)>,
        wall: WallMillis,
    },
    AttemptRegistered {
        attempt: AttemptId,
        host: String,
        rpc_port: i32,
        tracking_url: String,
        wall: WallMillis,
    },
    /// The master has unregistered with this.
    AttemptFinishing {
        attempt: AttemptId,
        final_status: FinalStatus,
        exit_status: Option<ExitStatus>,
        diagnostics: Arc<str>,
        tracking_url: String,
    },
    /// Its owner wants it to have failed: its master is ended, and it counts.
    AttemptFailing {
        attempt: AttemptId,
        reason: Arc<str>,
    },
    AttemptFinished {
        attempt: AttemptId,
        /// Finished, Failed or Killed.
        state: AttemptState,
        exit_status: Option<ExitStatus>,
        diagnostics: Arc<str>,
        /// It used one of the application's attempts up.
        counted: bool,
        /// Of the application so far.
        used: ResourceSeconds,
        wall: WallMillis,
    },
    ApplicationFinished {
        application: ApplicationId,
        /// Finished, Failed or Killed.
        state: ApplicationState,
        final_status: FinalStatus,
        exit_status: Option<ExitStatus>,
        diagnostics: Arc<str>,
        used: ResourceSeconds,
        wall: WallMillis,
    },
    /// What may change of an application while it lives, as it is from now on.
    ApplicationUpdated {
        application: ApplicationId,
        queue: String,
        priority: i32,
        lifetime: Option<Lifetime>,
    },
    /// Forgotten: more than the retained number have ended since.
    ApplicationRemoved { application: ApplicationId },
}

/// How long an application may live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// It is ended then.
    pub expires: WallMillis,
    /// From when this was said until then, in milliseconds: a wall clock that was set back lets it
    /// live at most so long again.
    pub span_ms: u64,
}

impl Lifetime {
    /// What a submission asks for.
    pub(crate) fn of(spec: &SubmittedApplication) -> Option<Lifetime> {
        let span_ms = spec.submission.timeout_ms;
        (span_ms > 0).then(|| Lifetime {
            expires: WallMillis(spec.submitted.0.saturating_add(span_ms)),
            span_ms,
        })
    }

    /// How much of it is left, in milliseconds.
    pub(crate) fn remaining_ms(&self, wall: WallMillis) -> u64 {
        self.expires.0.saturating_sub(wall.0).min(self.span_ms)
    }
}

/// A submission that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmittedApplication {
    pub application: ApplicationId,
    pub user: UserName,
    /// Its `queue`, `max_attempts` and `application_type` are resolved.
    pub submission: Submission,
    pub submitted: WallMillis,
}
