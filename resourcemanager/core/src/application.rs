//! One application: submitted, accepted into its queue, running while a master is registered,
//! finishing from the master's farewell to its container's end; or failed, or killed.
//!
//! `New`, `NewSaving` and `FinalSaving` never last: the core goes on at once and the driver holds
//! back what depends on the record until it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bobbin_types::{
    ApplicationId, ApplicationState, ContainerId, ContainerState, ExitStatus, FinalStatus, Millis,
    NodeId, Resource, WallMillis,
};

use crate::attempt::Attempt;
use crate::authority::Acls;
use crate::event::{AskKey, RequestId, SessionId};
use crate::liveness::DeadlineKey;
use crate::manager::ResourceManager;
use crate::node::NodeKey;
use crate::record::{Lifetime, Record, SubmittedApplication};
use crate::scheduler::{DemandKey, Turn};
use crate::usage::{ResourceSeconds, Usage};
use crate::{Effect, NodeCommand, Reply, Transition};

/// What moves an application on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApplicationInput {
    Submitted,
    Queued,
    MasterRegistered,
    /// Its attempt ended and another one follows.
    AttemptFollows,
    /// Its master said its final status.
    MasterUnregistered,
    /// Its last attempt ended after its farewell.
    AttemptFinished,
    /// Its last attempt failed.
    AttemptFailed,
    KillRequested,
    /// Killed, and nothing of it runs any more.
    AllGone,
}

impl ApplicationInput {
    #[cfg(test)]
    pub(crate) const ALL: &'static [ApplicationInput] = &[
        ApplicationInput::Submitted,
        ApplicationInput::Queued,
        ApplicationInput::MasterRegistered,
        ApplicationInput::AttemptFollows,
        ApplicationInput::MasterUnregistered,
        ApplicationInput::AttemptFinished,
        ApplicationInput::AttemptFailed,
        ApplicationInput::KillRequested,
        ApplicationInput::AllGone,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ApplicationInput::Submitted => "submitted",
            ApplicationInput::Queued => "queued",
            ApplicationInput::MasterRegistered => "master registered",
            ApplicationInput::AttemptFollows => "attempt follows",
            ApplicationInput::MasterUnregistered => "master unregistered",
            ApplicationInput::AttemptFinished => "attempt finished",
            ApplicationInput::AttemptFailed => "attempt failed",
            ApplicationInput::KillRequested => "kill requested",
            ApplicationInput::AllGone => "all gone",
        }
    }
}

/// The state after an input, `None` where the pair is impossible.
///
/// Source: the transition table of YARN's `RMAppImpl`.
pub(crate) fn next_state(
    state: ApplicationState,
    input: ApplicationInput,
) -> Option<ApplicationState> {
    use ApplicationInput as I;
    use ApplicationState as S;
    match (state, input) {
        (S::New, I::Submitted) => Some(S::Submitted),
        (S::Submitted, I::Queued) => Some(S::Accepted),
        (S::Accepted | S::Running, I::MasterRegistered) => Some(S::Running),
        (S::Accepted | S::Running, I::AttemptFollows) => Some(S::Accepted),
        (S::Running | S::Finishing, I::MasterUnregistered) => Some(S::Finishing),
        (S::Running | S::Finishing, I::AttemptFinished) => Some(S::Finished),
        (S::Accepted | S::Running, I::AttemptFailed) => Some(S::Failed),
        (S::Submitted | S::Accepted | S::Running | S::Killing, I::KillRequested) => {
            Some(S::Killing)
        }
        (S::Killing, I::AllGone) => Some(S::Killed),
        (S::Finishing, I::MasterRegistered) => Some(S::Finishing),
        (
            S::New
            | S::NewSaving
            | S::Submitted
            | S::Accepted
            | S::Running
            | S::FinalSaving
            | S::Finishing
            | S::Finished
            | S::Failed
            | S::Killing
            | S::Killed,
            I::Submitted
            | I::Queued
            | I::MasterRegistered
            | I::AttemptFollows
            | I::MasterUnregistered
            | I::AttemptFinished
            | I::AttemptFailed
            | I::KillRequested
            | I::AllGone,
        ) => None,
    }
}

/// Still wanted under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) count: u32,
    pub(crate) relax_locality: bool,
}

/// What is remembered of a container that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndedContainer {
    /// `None`: its resource manager was restarted before it was seen again.
    pub(crate) node: Option<NodeId>,
    pub(crate) resource: Resource,
    pub(crate) state: ContainerState,
    pub(crate) exit_status: ExitStatus,
    pub(crate) diagnostics: Arc<str>,
    pub(crate) is_master: bool,
    pub(crate) priority: i32,
    pub(crate) version: u32,
    /// `None`: its resource manager was restarted before it was seen again.
    pub(crate) created: Option<WallMillis>,
    pub(crate) finished: WallMillis,
}

/// How an application ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) final_status: FinalStatus,
    pub(crate) exit_status: Option<ExitStatus>,
    pub(crate) diagnostics: Arc<str>,
    pub(crate) wall: WallMillis,
}

#[derive(Clone, Debug)]
pub(crate) struct Application {
    /// Without its launch context once it has ended.
    pub(crate) spec: Arc<SubmittedApplication>,
    pub(crate) turn: Turn,
    pub(crate) queue: String,
    pub(crate) lifetime: Option<Lifetime>,
    pub(crate) state: ApplicationState,
    /// In order; the last is the current one.
    pub(crate) attempts: Vec<Attempt>,
    /// Containers of any attempt whose end is not known.
    pub(crate) live: BTreeSet<ContainerId>,
    pub(crate) used: Resource,
    /// `used` over time.
    pub(crate) usage: Usage,
    /// What it had used when it ended.
    pub(crate) final_usage: Option<ResourceSeconds>,
    pub(crate) asks: BTreeMap<Arc<AskKey>, Wanted>,
    pub(crate) ended_containers: BTreeMap<ContainerId, EndedContainer>,
    /// Nodes that had containers of it.
    pub(crate) nodes: BTreeSet<NodeKey>,
    /// Containers that turned out to be still there when their node, which had been given up, came
    /// back: no kill is done, and with a master among them no other master starts, before they are
    /// gone.
    pub(crate) former: BTreeSet<ContainerId>,
    /// Its next attempt does not stand in the queue before the pause after the last one is over.
    pub(crate) held_back: bool,
    /// Its uploads were told to go.
    pub(crate) staging_deleted: bool,
    /// Why it was killed.
    pub(crate) kill: Option<String>,
    pub(crate) kill_waiters: Vec<(RequestId, bool)>,
    /// Ends with its submitter's lease.
    pub(crate) tied: bool,
    pub(crate) lease: Option<SessionId>,
    pub(crate) end: Option<End>,
    pub(crate) progress_permille: u16,
}

impl Application {
    pub(crate) fn new(spec: Arc<SubmittedApplication>, order: u64) -> Application {
        let turn = Turn {
            priority: std::cmp::Reverse(spec.submission.priority),
            order,
            application: spec.application,
        };
        Application {
            tied: spec.submission.tie_to_client,
            queue: spec.submission.queue.clone(),
            lifetime: Lifetime::of(&spec),
            spec,
            turn,
            state: ApplicationState::New,
            attempts: Vec::new(),
            live: BTreeSet::new(),
            used: Resource::default(),
            usage: Usage::default(),
            final_usage: None,
            asks: BTreeMap::new(),
            ended_containers: BTreeMap::new(),
            nodes: BTreeSet::new(),
            former: BTreeSet::new(),
            held_back: false,
            staging_deleted: false,
            kill: None,
            kill_waiters: Vec::new(),
            lease: None,
            end: None,
            progress_permille: 0,
        }
    }

    pub(crate) fn acls(&self) -> Acls<'_> {
        Acls {
            view: &self.spec.submission.view_acl,
            modify: &self.spec.submission.modify_acl,
        }
    }

    pub(crate) fn id(&self) -> ApplicationId {
        self.spec.application
    }

    pub(crate) fn current(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    pub(crate) fn current_mut(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut()
    }

    /// The attempt that has not ended: at most the last one.
    pub(crate) fn live_attempt(&self) -> Option<&Attempt> {
        self.current().filter(|attempt| !attempt.state.is_ended())
    }

    pub(crate) fn used_seconds(&self, now: Millis) -> ResourceSeconds {
        let so_far = || self.usage.seconds(&self.used, now);
        self.final_usage.unwrap_or_else(so_far)
    }

    /// What may have changed of it since its submission.
    pub(crate) fn updated(&self) -> Record {
        Record::ApplicationUpdated {
            application: self.id(),
            queue: self.queue.clone(),
            priority: self.turn.priority.0,
            lifetime: self.lifetime,
        }
    }

    /// Attempts that used one up, and still count at this moment.
    ///
    /// Source: `RMAppImpl.getNumFailedAppAttempts`.
    pub(crate) fn failures(&self, wall: WallMillis) -> u32 {
        let valid_ms = self.spec.submission.failures_validity_ms;
        let is_recent = |attempt: &&Attempt| match (valid_ms, attempt.finished) {
            (None, _) | (_, None) => true,
            (Some(ms), Some(finished)) => finished.0.saturating_add(ms) > wall.0,
        };
        let counted = self.attempts.iter().filter(|attempt| attempt.counted);
        u32::try_from(counted.filter(is_recent).count()).unwrap_or(u32::MAX)
    }

    /// Whether nothing of it runs, as far as is known.
    pub(crate) fn is_gone(&self) -> bool {
        self.live.is_empty() && self.former.is_empty()
    }

    /// A former attempt's master that is still there.
    pub(crate) fn former_master(&self) -> Option<ContainerId> {
        let is_master = |id: &ContainerId| {
            self.attempts.iter().any(|attempt| {
                let place = attempt.place.as_ref();
                attempt.state.is_ended() && place.is_some_and(|(container, _)| container == id)
            })
        };
        self.former.iter().copied().find(is_master)
    }

    pub(crate) fn master_demand(&self) -> DemandKey {
        DemandKey {
            turn: self.turn,
            ask: None,
        }
    }

    pub(crate) fn ask_demand(&self, key: &Arc<AskKey>) -> DemandKey {
        DemandKey {
            turn: self.turn,
            ask: Some(Arc::clone(key)),
        }
    }

    /// Drops what is needed only to start it again: thousands of ended ones are remembered.
    pub(crate) fn slim(&mut self) {
        let spec = &self.spec;
        self.spec = Arc::new(SubmittedApplication {
            application: spec.application,
            user: spec.user.clone(),
            submission: spec.submission.without_launch(),
            submitted: spec.submitted,
        });
        self.asks.clear();
    }
}

impl ResourceManager {
    /// Moves an application on. False, and counted, if its state does not know the input.
    pub(crate) fn step_application(
        &mut self,
        id: ApplicationId,
        input: ApplicationInput,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(application) = self.applications.get_mut(&id) else {
            return false;
        };
        let from = application.state;
        let Some(to) = next_state(from, input) else {
            self.illegal(id.to_string(), from.as_str(), input.as_str(), effects);
            return false;
        };
        application.state = to;
        self.pending.changed.insert(id);
        if from != to {
            effects.push(Effect::Transitioned(Transition::Application {
                application: id,
                from,
                to,
            }));
        }
        true
    }

    /// Ends an application's processes, whoever wants it. Its state decides what that means.
    pub(crate) fn kill_application(
        &mut self,
        now: Millis,
        id: ApplicationId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(application) = self.applications.get_mut(&id) else {
            return;
        };
        let diagnostics = crate::text::clip(reason);
        match application.state {
            ApplicationState::Finished | ApplicationState::Failed | ApplicationState::Killed => {
                self.stop_all(
                    id,
                    ExitStatus::KILLED_AFTER_APP_COMPLETION,
                    &diagnostics,
                    effects,
                );
            }
            // It has said its final status already: only its processes are ended.
            ApplicationState::Finishing => {
                self.stop_all(
                    id,
                    ExitStatus::KILLED_BY_RESOURCEMANAGER,
                    &diagnostics,
                    effects,
                );
            }
            ApplicationState::Killing => {}
            ApplicationState::New
            | ApplicationState::NewSaving
            | ApplicationState::Submitted
            | ApplicationState::Accepted
            | ApplicationState::Running
            | ApplicationState::FinalSaving => {
                application.kill = Some(diagnostics.to_string());
                effects.push(Effect::Persist(Record::KillRequested {
                    application: id,
                    reason: diagnostics.to_string(),
                    wall: self.wall,
                }));
                self.step_application(id, ApplicationInput::KillRequested, effects);
                self.carry_out_kill(now, id, effects);
            }
        }
    }

    /// Ends what an application in `Killing` still has. Also after a restart.
    pub(crate) fn carry_out_kill(
        &mut self,
        now: Millis,
        id: ApplicationId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        let reason = crate::text::clip(application.kill.as_deref().unwrap_or("killed"));
        let attempt = application.live_attempt().map(|attempt| attempt.id);
        self.withdraw_demands(id);
        if let Some(application) = self.applications.get_mut(&id) {
            application.asks.clear();
        }
        self.stop_all(id, ExitStatus::KILLED_BY_RESOURCEMANAGER, &reason, effects);
        if let Some(attempt) = attempt {
            self.dismiss_master(attempt, &reason, effects);
            // With a master's container the attempt ends when that is reported gone.
            if !self.master_is_live(attempt) {
                self.attempt_killed(now, attempt, effects);
            }
        }
        self.settle(now, id, effects);
    }

    /// Tells the nodes to end every container of the application that is not being ended already.
    pub(crate) fn stop_all(
        &mut self,
        id: ApplicationId,
        exit_status: ExitStatus,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        let live: Vec<ContainerId> = application.live.iter().copied().collect();
        for container in live {
            self.stop_container(
                container,
                crate::container::ContainerInput::KillOrdered,
                exit_status,
                reason,
                effects,
            );
        }
    }

    /// Looks whether an application that lost a container, or its attempt, has come to its end.
    pub(crate) fn settle(&mut self, now: Millis, id: ApplicationId, effects: &mut Vec<Effect>) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        if !application.is_gone() {
            return;
        }
        if application.state == ApplicationState::Killing && application.live_attempt().is_none() {
            if self.may_run_unseen(application) {
                return;
            }
            let diagnostics = crate::text::clip(application.kill.as_deref().unwrap_or("killed"));
            let end = End {
                final_status: FinalStatus::Killed,
                exit_status: Some(ExitStatus::KILLED_BY_RESOURCEMANAGER),
                diagnostics,
                wall: self.wall,
            };
            self.end_application(now, id, ApplicationInput::AllGone, end, effects);
            return;
        }
        if application.state.is_ended() {
            self.all_gone(id, effects);
        }
    }

    /// After a restart, while nodes on record still come back, containers may run that nobody has
    /// named yet.
    pub(crate) fn may_run_unseen(&self, application: &Application) -> bool {
        !self.nodes_are_back && self.is_of_former_epoch(application)
    }

    /// It ran before a restart that is so recent that masters may hold grants nobody knows of.
    fn is_of_former_epoch(&self, application: &Application) -> bool {
        let is_older = application.turn.order <= self.submissions_recovered;
        let has_run = |attempt: &Attempt| attempt.started.is_some();
        self.recovering && is_older && application.attempts.iter().any(has_run)
    }

    /// All nodes have said what they run, or their time is over: whatever is killed and unseen is
    /// gone.
    pub(crate) fn settle_unseen(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let live: Vec<ApplicationId> = self.live_applications.iter().copied().collect();
        for id in live {
            self.settle(now, id, effects);
        }
    }

    /// The application's last transition. Containers may still be on their way out.
    pub(crate) fn end_application(
        &mut self,
        _now: Millis,
        id: ApplicationId,
        input: ApplicationInput,
        end: End,
        effects: &mut Vec<Effect>,
    ) {
        if !self.step_application(id, input, effects) {
            return;
        }
        self.withdraw_demands(id);
        // A node refuses what an ended application's master wants to start there: every one has to
        // know, because nobody knows where grants of before a restart are.
        let has_unknown_grants = self
            .applications
            .get(&id)
            .is_some_and(|application| self.is_of_former_epoch(application));
        let Some(application) = self.applications.get_mut(&id) else {
            return;
        };
        let used = application.used_seconds(self.now);
        application.final_usage = Some(used);
        effects.push(Effect::Persist(Record::ApplicationFinished {
            application: id,
            state: application.state,
            final_status: end.final_status,
            exit_status: end.exit_status,
            diagnostics: Arc::clone(&end.diagnostics),
            used,
            wall: end.wall,
        }));
        application.end = Some(end);
        application.slim();
        let mut nodes: Vec<NodeKey> = application.nodes.iter().copied().collect();
        let gone = application.is_gone();
        if input == ApplicationInput::AllGone && has_unknown_grants {
            nodes = self.totals.keys().copied().collect();
        }
        self.live_applications.remove(&id);
        self.deadlines.cancel(DeadlineKey::Lease(id));
        self.deadlines.cancel(DeadlineKey::Timeout(id));
        self.stop_all(
            id,
            ExitStatus::KILLED_AFTER_APP_COMPLETION,
            "its application has ended",
            effects,
        );
        for node in nodes {
            self.tell_node(
                node,
                NodeCommand::ApplicationEnded { application: id },
                effects,
            );
        }
        if gone {
            self.all_gone(id, effects);
        }
        self.retain_ended(id, effects);
    }

    /// It has ended and nothing of it runs.
    pub(crate) fn all_gone(&mut self, id: ApplicationId, effects: &mut Vec<Effect>) {
        let Some(application) = self.applications.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut application.staging_deleted, true) {
            effects.push(Effect::DeleteStaging {
                application: id,
                user: application.spec.user.clone(),
            });
        }
        for (request, already_ended) in std::mem::take(&mut application.kill_waiters) {
            effects.push(Effect::Reply {
                request,
                result: Ok(Reply::Killed {
                    application: id,
                    already_ended,
                }),
            });
        }
    }

    /// Remembers one more ended application and forgets the oldest beyond the limit.
    pub(crate) fn retain_ended(&mut self, id: ApplicationId, effects: &mut Vec<Effect>) {
        self.ended.push_back(id);
        while self.ended.len() > self.config.applications_retained {
            // One whose processes are not all gone stays until they are: its kill may be awaited.
            let is_gone =
                |id: &ApplicationId| self.applications.get(id).is_none_or(Application::is_gone);
            let Some(at) = self.ended.iter().take(64).position(is_gone) else {
                return;
            };
            let Some(oldest) = self.ended.remove(at) else {
                return;
            };
            self.forget_application(oldest);
            effects.push(Effect::Persist(Record::ApplicationRemoved {
                application: oldest,
            }));
        }
    }

    pub(crate) fn forget_application(&mut self, id: ApplicationId) {
        self.applications.remove(&id);
        self.ids.floor = self.ids.floor.max(id.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_states_have_no_way_out() {
        for state in ApplicationState::ALL.iter().filter(|s| s.is_ended()) {
            for input in ApplicationInput::ALL {
                assert_eq!(next_state(*state, *input), None, "{state} {input:?}");
            }
        }
    }
}
