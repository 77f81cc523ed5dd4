//! One container's life cycle.
//!
//! A start makes it Localizing; its files there, it is Launching; its program running, it is Running;
//! told to end, Stopping; its processes gone, `CleaningUp`; nothing of it left but logs, Exited, until
//! the resource manager has acknowledged the end: Done, and the agent forgets all but the used token.
//! After a restart of the agent a container on record is New until it was looked for.

use bobbin_types::{ContainerId, ContainerState, Millis, Resource, UserName, WallMillis};

use crate::effect::ContainerReport;
use crate::event::{Exit, Origin};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerPhase {
    /// On record, not yet looked for (restart), or not yet admitted.
    New,
    /// Its supervisor makes folders and fetches files; nothing of it runs.
    Localizing,
    /// Its launch was ordered; it may run.
    Launching,
    Running,
    /// Told to end; its supervisor reports when it has.
    Stopping,
    /// Its processes are gone; its groups and folders go.
    CleaningUp,
    /// Only logs and the exit are left; reported until acknowledged.
    Exited,
    /// Acknowledged. Not kept.
    Done,
}

impl ContainerPhase {
    pub const ALL: [ContainerPhase; 8] = [
        Self::New,
        Self::Localizing,
        Self::Launching,
        Self::Running,
        Self::Stopping,
        Self::CleaningUp,
        Self::Exited,
        Self::Done,
    ];

    /// Whether the container counts against the node's capacity.
    #[must_use]
    pub fn holds_resource(self) -> bool {
        match self {
            Self::New | Self::Localizing | Self::Launching | Self::Running | Self::Stopping => true,
            Self::CleaningUp | Self::Exited | Self::Done => false,
        }
    }
}

/// What can happen to one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    Admitted,
    Refused,
    FoundRunning,
    FoundEndedOrGone,
    Localized,
    LocalizeFailed,
    Launched,
    LaunchFailed,
    StopRequested,
    Exited,
    CleanedUp,
    Acknowledged,
}

impl ContainerEvent {
    pub const ALL: [ContainerEvent; 12] = [
        Self::Admitted,
        Self::Refused,
        Self::FoundRunning,
        Self::FoundEndedOrGone,
        Self::Localized,
        Self::LocalizeFailed,
        Self::Launched,
        Self::LaunchFailed,
        Self::StopRequested,
        Self::Exited,
        Self::CleanedUp,
        Self::Acknowledged,
    ];
}

/// What an event does to a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Go(ContainerPhase),
    /// Legal, noted, no change.
    Stay,
    /// Cannot happen in this phase (or is a repeat); counted and ignored.
    Illegal,
}

/// The transition table; `docs/states/nodeagent-container.md` is printed from it.
#[must_use]
pub fn next_phase(phase: ContainerPhase, event: ContainerEvent) -> Next {
    use ContainerEvent as E;
    use ContainerPhase as P;
    match (phase, event) {
        (P::New, E::Admitted) => Next::Go(P::Localizing),
        (P::New, E::Refused) => Next::Go(P::Exited),
        (P::New, E::FoundRunning) => Next::Go(P::Running),
        (P::New, E::FoundEndedOrGone) => Next::Go(P::CleaningUp),
        (P::Localizing, E::Localized) => Next::Go(P::Launching),
        (P::Launching, E::Launched) => Next::Go(P::Running),
        (P::Localizing | P::Stopping, E::LocalizeFailed)
        | (P::Launching | P::Stopping, E::LaunchFailed)
        | (P::Running | P::Stopping, E::Exited)
        // Told to end before it was launched: it is not launched any more.
        | (P::Stopping, E::Localized) => Next::Go(P::CleaningUp),
        (P::Localizing | P::Launching | P::Running, E::StopRequested) => Next::Go(P::Stopping),
        // New: acted on when it is found. Stopping from Launching: it is told again once it runs.
        (P::New | P::Stopping | P::CleaningUp | P::Exited, E::StopRequested)
        | (P::Stopping, E::Launched) => Next::Stay,
        (P::CleaningUp, E::CleanedUp) => Next::Go(P::Exited),
        (P::Exited, E::Acknowledged) => Next::Go(P::Done),
        (
            P::Localizing
            | P::Launching
            | P::Running
            | P::Stopping
            | P::CleaningUp
            | P::Exited
            | P::Done,
            E::Admitted | E::Refused | E::FoundRunning | E::FoundEndedOrGone,
        )
        | (
            P::New | P::Launching | P::Running | P::CleaningUp | P::Exited | P::Done,
            E::Localized | E::LocalizeFailed,
        )
        | (
            P::New | P::Localizing | P::Running | P::CleaningUp | P::Exited | P::Done,
            E::Launched | E::LaunchFailed,
        )
        | (P::Done, E::StopRequested)
        | (
            P::New | P::Localizing | P::Launching | P::CleaningUp | P::Exited | P::Done,
            E::Exited,
        )
        | (
            P::New
            | P::Localizing
            | P::Launching
            | P::Running
            | P::Stopping
            | P::Exited
            | P::Done,
            E::CleanedUp,
        )
        | (
            P::New
            | P::Localizing
            | P::Launching
            | P::Running
            | P::Stopping
            | P::CleaningUp
            | P::Done,
            E::Acknowledged,
        ) => Next::Illegal,
    }
}

/// What the agent knows of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    // What the token said; never changes.
    pub(crate) id: ContainerId,
    pub(crate) user: UserName,
    pub(crate) resource: Resource,
    pub(crate) expires: WallMillis,
    pub(crate) origin: Origin,
    // What changes.
    pub(crate) phase: ContainerPhase,
    /// Of its size: grows with every change.
    pub(crate) version: u32,
    /// Why the cluster ends it: wins over how its processes ended.
    pub(crate) stop: Option<Exit>,
    /// Set from `CleaningUp` on.
    pub(crate) exit: Option<Exit>,
    /// When its end is reported again.
    pub(crate) report_again: Option<Millis>,
}

impl Container {
    /// Whether something of it may still use the application's folders.
    pub(crate) fn exit_is_pending(&self) -> bool {
        self.phase < ContainerPhase::Exited
    }

    /// How it is told outside. Before it is cleaned up an ended container still shows as running.
    pub(crate) fn report(&self) -> ContainerReport {
        let (state, exit) = match self.phase {
            ContainerPhase::New
            | ContainerPhase::Running
            | ContainerPhase::Stopping
            | ContainerPhase::CleaningUp => (ContainerState::Running, None),
            ContainerPhase::Localizing | ContainerPhase::Launching => {
                (ContainerState::Acquired, None)
            }
            ContainerPhase::Exited | ContainerPhase::Done => {
                (ContainerState::Completed, self.exit.as_ref())
            }
        };
        ContainerReport {
            container: self.id,
            state,
            exit_status: exit.map(|e| e.exit_status),
            diagnostics: exit.map(|e| e.diagnostics.clone()).unwrap_or_default(),
            resource: self.resource,
        }
    }
}
