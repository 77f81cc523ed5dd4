//! One attempt of an application: it waits for its master's container, which is granted, launched,
//! runs, says farewell, ends. An unmanaged attempt has no container: its submitter's stream and
//! lease stand for it.
//!
//! A successor is made only when the master's container is reported gone or its node is given up,
//! and after the old attempt's tokens are revoked: never two live masters.

use std::collections::BTreeSet;
use std::sync::Arc;

use bobbin_types::{
    ApplicationId, ApplicationState, AttemptId, AttemptState, ContainerId, ContainerState,
    ExitStatus, FinalStatus, Millis, NodeId, WallMillis,
};

use crate::application::{ApplicationInput, End};
use crate::container::ContainerInput;
use crate::event::{Finish, SessionId};
use crate::limits::ATTEMPTS_TOTAL_MAX;
use crate::liveness::DeadlineKey;
use crate::manager::ResourceManager;
use crate::node::NodeKey;
use crate::queue::{Reach, WaitingDemand};
use crate::record::Record;
use crate::{Effect, MasterMessage, NodeCommand, Transition};

/// What moves an attempt on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptInput {
    /// It waits for its master's container.
    Scheduled,
    ContainerGranted,
    /// The start is on its way to the node; or its submitter's process is the master.
    Launched,
    MasterRegistered,
    MasterUnregistered,
    /// The master's container is gone, or an unmanaged master's lease is over.
    MasterEnded,
    /// Its application was killed and its master is gone.
    Killed,
}

impl AttemptInput {
    #[cfg(test)]
    pub(crate) const ALL: &'static [AttemptInput] = &[
        AttemptInput::Scheduled,
        AttemptInput::ContainerGranted,
        AttemptInput::Launched,
        AttemptInput::MasterRegistered,
        AttemptInput::MasterUnregistered,
        AttemptInput::MasterEnded,
        AttemptInput::Killed,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            AttemptInput::Scheduled => "scheduled",
            AttemptInput::ContainerGranted => "container granted",
            AttemptInput::Launched => "launched",
            AttemptInput::MasterRegistered => "master registered",
            AttemptInput::MasterUnregistered => "master unregistered",
            AttemptInput::MasterEnded => "master ended",
            AttemptInput::Killed => "killed",
        }
    }
}

/// The state after an input, `None` where the pair is impossible.
///
/// Source: the transition table of YARN's `RMAppAttemptImpl`.
pub(crate) fn next_state(state: AttemptState, input: AttemptInput) -> Option<AttemptState> {
    use AttemptInput as I;
    use AttemptState as S;
    match (state, input) {
        (S::New, I::Scheduled) => Some(S::Scheduled),
        (S::Scheduled, I::ContainerGranted) => Some(S::Allocated),
        (S::New | S::Allocated, I::Launched) => Some(S::Launched),
        (S::Launched | S::Running, I::MasterRegistered) => Some(S::Running),
        (S::Finishing, I::MasterRegistered) => Some(S::Finishing),
        (S::Running | S::Finishing, I::MasterUnregistered) => Some(S::Finishing),
        (S::Launched | S::Running, I::MasterEnded) => Some(S::Failed),
        (S::Finishing, I::MasterEnded) => Some(S::Finished),
        (
            S::New | S::Scheduled | S::Allocated | S::Launched | S::Running | S::Finishing,
            I::Killed,
        ) => Some(S::Killed),
        (
            S::New
            | S::Scheduled
            | S::Allocated
            | S::Launched
            | S::Running
            | S::Finishing
            | S::Finished
            | S::Failed
            | S::Killed,
            I::Scheduled
            | I::ContainerGranted
            | I::Launched
            | I::MasterRegistered
            | I::MasterUnregistered
            | I::MasterEnded
            | I::Killed,
        ) => None,
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) state: AttemptState,
    /// Its master's container with the node's name; none while it waits, and for unmanaged ones.
    pub(crate) place: Option<(ContainerId, NodeId)>,
    /// The master's stream.
    pub(crate) session: Option<SessionId>,
    pub(crate) host: String,
    pub(crate) rpc_port: i32,
    pub(crate) tracking_url: String,
    /// How often these went on record.
    pub(crate) registrations: u32,
    pub(crate) started: Option<WallMillis>,
    pub(crate) finished: Option<WallMillis>,
    /// When its master last said something, or lost its stream.
    pub(crate) last_heard: Millis,
    /// Of the last container granted to it in this epoch.
    pub(crate) container_number: u32,
    pub(crate) finish: Option<Finish>,
    pub(crate) exit_status: Option<ExitStatus>,
    pub(crate) diagnostics: Arc<str>,
    /// It used one of the application's attempts up.
    pub(crate) counted: bool,
    /// Why the cluster itself ends the master: then the attempt failed, whatever the exit status.
    pub(crate) verdict: Option<Arc<str>>,
    /// Containers that the master holds from before a restart and no node has reported yet.
    pub(crate) awaited: BTreeSet<ContainerId>,
    /// Containers that ended while its master had no stream: it is told when it is back, unless it
    /// names what it holds itself.
    pub(crate) undelivered: BTreeSet<ContainerId>,
    /// Ends that a master of YARN's contract was told, or is to be told, and has not said to know.
    pub(crate) unacknowledged: BTreeSet<ContainerId>,
    /// Hosts on which it wants no containers.
    pub(crate) blacklist: Arc<BTreeSet<String>>,
    /// Nodes that had containers of it.
    pub(crate) nodes: BTreeSet<NodeKey>,
}

impl Attempt {
    pub(crate) fn new(id: AttemptId) -> Attempt {
        Attempt {
            id,
            state: AttemptState::New,
            place: None,
            session: None,
            host: String::new(),
            rpc_port: -1,
            tracking_url: String::new(),
            registrations: 0,
            started: None,
            finished: None,
            last_heard: Millis(0),
            container_number: 0,
            finish: None,
            exit_status: None,
            diagnostics: Arc::from(""),
            counted: false,
            verdict: None,
            awaited: BTreeSet::new(),
            undelivered: BTreeSet::new(),
            unacknowledged: BTreeSet::new(),
            blacklist: Arc::default(),
            nodes: BTreeSet::new(),
        }
    }
}

impl Attempt {
    /// The hosts on which its asks are not served, if there are any.
    pub(crate) fn barred(&self) -> Option<Arc<BTreeSet<String>>> {
        (!self.blacklist.is_empty()).then(|| Arc::clone(&self.blacklist))
    }

    /// Its master's user interface; once it has unregistered, what it named for its history.
    pub(crate) fn shown_url(&self) -> String {
        match &self.finish {
            Some(finish) => finish.tracking_url.clone(),
            None => self.tracking_url.clone(),
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(crate) struct AttemptEnd {
    pub(crate) input: AttemptInput,
    pub(crate) exit_status: Option<ExitStatus>,
    pub(crate) diagnostics: Arc<str>,
    pub(crate) counted: bool,
}

impl ResourceManager {
    pub(crate) fn attempt(&self, id: AttemptId) -> Option<&Attempt> {
        let application = self.applications.get(&id.application)?;
        application
            .attempts
            .iter()
            .rev()
            .find(|attempt| attempt.id == id)
    }

    /// The attempt if it is its application's current one.
    pub(crate) fn current_attempt_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        let application = self.applications.get_mut(&id.application)?;
        application.current_mut().filter(|attempt| attempt.id == id)
    }

    pub(crate) fn step_attempt(
        &mut self,
        id: AttemptId,
        input: AttemptInput,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(attempt) = self.current_attempt_mut(id) else {
            return false;
        };
        let from = attempt.state;
        let Some(to) = next_state(from, input) else {
            self.illegal(id.to_string(), from.as_str(), input.as_str(), effects);
            return false;
        };
        attempt.state = to;
        self.pending.changed.insert(id.application);
        if from != to {
            effects.push(Effect::Transitioned(Transition::Attempt {
                attempt: id,
                from,
                to,
            }));
        }
        true
    }

    /// The next attempt: a managed one waits in the queue, an unmanaged one is its submitter.
    pub(crate) fn start_attempt(
        &mut self,
        now: Millis,
        application: ApplicationId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(app) = self.applications.get_mut(&application) else {
            return;
        };
        let number = app
            .attempts
            .last()
            .map_or(1, |attempt| attempt.id.attempt.saturating_add(1));
        let id = AttemptId {
            application,
            attempt: number,
        };
        app.attempts.push(Attempt {
            last_heard: now,
            ..Attempt::new(id)
        });
        if app.spec.submission.unmanaged {
            let wall = self.wall;
            effects.push(Effect::Persist(Record::AttemptStarted {
                attempt: id,
                place: None,
                wall,
            }));
            self.step_attempt(id, AttemptInput::Launched, effects);
            if let Some(attempt) = self.current_attempt_mut(id) {
                attempt.started = Some(wall);
            }
            self.watch_master(now, id);
        } else {
            self.step_attempt(id, AttemptInput::Scheduled, effects);
            self.hold_back(now, application);
            self.queue_master(application);
        }
    }

    /// Lets the attempt that waits for its master's container stand in the queue, unless a former
    /// master is still there or it is held back.
    pub(crate) fn queue_master(&mut self, id: ApplicationId) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        let waits = application
            .live_attempt()
            .is_some_and(|attempt| attempt.state == AttemptState::Scheduled);
        if !waits || application.held_back || application.former_master().is_some() {
            return;
        }
        let demand = application.master_demand();
        let size = application.spec.submission.resource;
        let avoided = self.nodes_to_avoid(application);
        let reach = if avoided.is_empty() {
            Reach::Anywhere
        } else {
            Reach::NotOn(avoided)
        };
        self.queue.insert(
            demand.clone(),
            WaitingDemand {
                size,
                reach,
                barred: None,
            },
        );
        self.pending.demands.insert(demand);
    }

    /// A node that had been given up is back with this container. A kill waits for its end, and if
    /// it is a former attempt's master, the next one does.
    pub(crate) fn hold_successor(&mut self, id: ContainerId) {
        let Some(application) = self.applications.get_mut(&id.application()) else {
            return;
        };
        application.former.insert(id);
        if application.former_master().is_some() {
            let demand = application.master_demand();
            self.queue.remove(&demand);
        }
    }

    /// A former container is gone, or its node is given up again.
    pub(crate) fn free_successor(
        &mut self,
        now: Millis,
        id: ContainerId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(application) = self.applications.get_mut(&id.application()) else {
            return;
        };
        if application.former.remove(&id) {
            self.queue_master(id.application());
            self.settle(now, id.application(), effects);
        }
    }

    /// Takes all demands of an application out of the queue; its asks are still known.
    pub(crate) fn withdraw_demands(&mut self, id: ApplicationId) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        self.queue.remove(&application.master_demand());
        for key in application.asks.keys() {
            let demand = application.ask_demand(key);
            self.queue.remove(&demand);
            self.pending.demands.remove(&demand);
        }
        self.pending
            .grants
            .retain(|attempt, _| attempt.application != id);
    }

    /// Its process runs: from now on it has to register in time.
    pub(crate) fn master_runs(&mut self, now: Millis, id: AttemptId, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.current_attempt_mut(id) else {
            return;
        };
        if attempt.state.is_ended() {
            self.illegal(id.to_string(), "ENDED", "container started", effects);
            return;
        }
        attempt.last_heard = now;
        self.watch_master(now, id);
    }

    /// Whether the attempt is the live one of an application that goes on.
    pub(crate) fn attempt_takes_containers(&self, id: AttemptId) -> bool {
        self.applications
            .get(&id.application)
            .is_some_and(|application| {
                matches!(
                    application.state,
                    ApplicationState::Accepted | ApplicationState::Running
                ) && application
                    .live_attempt()
                    .is_some_and(|attempt| attempt.id == id)
            })
    }

    /// The live attempt that a container belongs to: its own, or the one it was kept for.
    pub(crate) fn heir(&self, id: ContainerId) -> Option<AttemptId> {
        let application = self.applications.get(&id.application())?;
        let live = application.live_attempt()?.id;
        let is_kept =
            application.spec.submission.keep_containers && id.attempt.attempt < live.attempt;
        ((live == id.attempt || is_kept) && self.attempt_takes_containers(live)).then_some(live)
    }

    /// Whether the master's container may still run somewhere.
    pub(crate) fn master_is_live(&self, id: AttemptId) -> bool {
        let container = self.attempt(id).and_then(|attempt| attempt.place.as_ref());
        container.is_some_and(|(id, _)| self.containers.get(id).is_some_and(|c| c.accounted))
    }

    /// Tells a master that it is over, and ends its stream.
    pub(crate) fn dismiss_master(
        &mut self,
        id: AttemptId,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let message = MasterMessage::Shutdown {
            reason: reason.to_owned(),
        };
        self.tell_master(id, message, effects);
        let Some(attempt) = self.current_attempt_mut(id) else {
            return;
        };
        if let Some(session) = attempt.session.take() {
            effects.push(Effect::CloseSession { session });
        }
    }

    /// The master's container is gone.
    pub(crate) fn master_ended(
        &mut self,
        now: Millis,
        id: AttemptId,
        exit_status: ExitStatus,
        diagnostics: &Arc<str>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(application) = self.applications.get(&id.application) else {
            return;
        };
        let killing = application.state == ApplicationState::Killing;
        let Some(attempt) = application.live_attempt().filter(|a| a.id == id) else {
            return;
        };
        if killing {
            self.attempt_killed(now, id, effects);
            return;
        }
        match &attempt.finish {
            Some(finish) => {
                let end = AttemptEnd {
                    input: AttemptInput::MasterEnded,
                    exit_status: finish.exit_status.or(Some(exit_status)),
                    diagnostics: crate::text::clip(&finish.diagnostics),
                    counted: false,
                };
                self.attempt_finished(now, id, end, effects);
            }
            None => {
                let verdict = attempt.verdict.clone();
                let counted = verdict.is_some() || exit_status.counts_as_failure();
                let end = AttemptEnd {
                    input: AttemptInput::MasterEnded,
                    exit_status: Some(exit_status),
                    diagnostics: verdict
                        .unwrap_or_else(|| failure_in_words(exit_status, diagnostics)),
                    counted,
                };
                self.attempt_failed(now, id, end, effects);
            }
        }
    }

    /// The application is being killed and its master is gone.
    pub(crate) fn attempt_killed(
        &mut self,
        _now: Millis,
        id: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        let reason = self
            .applications
            .get(&id.application)
            .and_then(|a| a.kill.clone());
        let end = AttemptEnd {
            input: AttemptInput::Killed,
            exit_status: Some(ExitStatus::KILLED_BY_RESOURCEMANAGER),
            diagnostics: crate::text::clip(reason.as_deref().unwrap_or("killed")),
            counted: false,
        };
        let status = ExitStatus::KILLED_BY_RESOURCEMANAGER;
        self.end_attempt(id, end, (status, false), effects);
    }

    /// It ended after its farewell: so does its application.
    pub(crate) fn attempt_finished(
        &mut self,
        now: Millis,
        id: AttemptId,
        end: AttemptEnd,
        effects: &mut Vec<Effect>,
    ) {
        let final_status = self
            .attempt(id)
            .and_then(|attempt| attempt.finish.as_ref())
            .map_or(FinalStatus::Undefined, |finish| finish.final_status);
        let application_end = End {
            final_status,
            exit_status: end.exit_status,
            diagnostics: Arc::clone(&end.diagnostics),
            wall: self.wall,
        };
        let status = ExitStatus::KILLED_AFTER_APP_COMPLETION;
        if self.end_attempt(id, end, (status, false), effects) {
            let input = ApplicationInput::AttemptFinished;
            self.end_application(now, id.application, input, application_end, effects);
        }
    }

    /// It ended without a farewell: another one follows, or the application has failed.
    pub(crate) fn attempt_failed(
        &mut self,
        now: Millis,
        id: AttemptId,
        end: AttemptEnd,
        effects: &mut Vec<Effect>,
    ) {
        let (exit_status, diagnostics) = (end.exit_status, Arc::clone(&end.diagnostics));
        let keeps = self
            .applications
            .get(&id.application)
            .is_some_and(|a| a.spec.submission.keep_containers && !a.spec.submission.unmanaged);
        if !self.end_attempt(id, end, (ExitStatus::ABORTED, keeps), effects) {
            return;
        }
        self.follow_failed_attempt(now, id, exit_status, &diagnostics, effects);
    }

    /// What follows a failed attempt. Also after a restart between its record and the next.
    pub(crate) fn follow_failed_attempt(
        &mut self,
        now: Millis,
        id: AttemptId,
        exit_status: Option<ExitStatus>,
        diagnostics: &Arc<str>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(application) = self.applications.get(&id.application) else {
            return;
        };
        let submission = &application.spec.submission;
        let max = submission.max_attempts;
        let failures = application.failures(self.wall);
        let goes_on = !submission.unmanaged && failures < max && id.attempt < ATTEMPTS_TOTAL_MAX;
        if goes_on {
            self.step_application(id.application, ApplicationInput::AttemptFollows, effects);
            self.start_attempt(now, id.application, effects);
            return;
        }
        let diagnostics = if submission.unmanaged {
            Arc::clone(diagnostics)
        } else {
            let number = id.attempt;
            crate::text::clip(&format!(
                "attempt {number} failed ({failures} of {max}): {diagnostics}"
            ))
        };
        let end = End {
            final_status: FinalStatus::Failed,
            // A master that ended well without a farewell says nothing about its driver.
            exit_status: exit_status.filter(|status| !status.is_success()),
            diagnostics,
            wall: self.wall,
        };
        let input = ApplicationInput::AttemptFailed;
        self.end_application(now, id.application, input, end, effects);
    }

    /// The attempt's last transition: recorded, its tokens revoked, its containers told to end
    /// (those that run are kept if `keeps`).
    fn end_attempt(
        &mut self,
        id: AttemptId,
        end: AttemptEnd,
        (stop_status, keeps): (ExitStatus, bool),
        effects: &mut Vec<Effect>,
    ) -> bool {
        if !self.step_attempt(id, end.input, effects) {
            return false;
        }
        let wall = self.wall;
        self.deadlines.cancel(DeadlineKey::Master(id));
        self.deadlines.cancel(DeadlineKey::FinishGrace(id));
        self.let_go(id.application);
        let Some(application) = self.applications.get_mut(&id.application) else {
            return false;
        };
        let used = application.used_seconds(self.now);
        let Some(attempt) = application.current_mut() else {
            return false;
        };
        attempt.exit_status = end.exit_status;
        attempt.diagnostics = Arc::clone(&end.diagnostics);
        attempt.counted = end.counted;
        attempt.finished = Some(wall);
        attempt.awaited.clear();
        attempt.undelivered.clear();
        let unacknowledged = std::mem::take(&mut attempt.unacknowledged);
        effects.push(Effect::Persist(Record::AttemptFinished {
            attempt: id,
            state: attempt.state,
            exit_status: end.exit_status,
            diagnostics: Arc::clone(&end.diagnostics),
            counted: end.counted,
            used,
            wall,
        }));
        let nodes: Vec<NodeKey> = attempt.nodes.iter().copied().collect();
        for container in unacknowledged {
            self.acknowledge_exit(container, effects);
        }
        self.withdraw_demands(id.application);
        if let Some(application) = self.applications.get_mut(&id.application) {
            application.asks.clear();
        }
        let reason = if end.diagnostics.is_empty() {
            "it is over"
        } else {
            &end.diagnostics
        };
        self.dismiss_master(id, reason, effects);
        for node in nodes {
            let command = NodeCommand::RevokeAttempt {
                attempt: id,
                keep_containers: keeps,
            };
            self.tell_node(node, command, effects);
        }
        self.stop_attempt(id, (stop_status, keeps), effects);
        true
    }

    /// Ends every container of one attempt, and what it had been handed; if `keeps` only what does
    /// not run.
    fn stop_attempt(
        &mut self,
        id: AttemptId,
        (status, keeps): (ExitStatus, bool),
        effects: &mut Vec<Effect>,
    ) {
        let Some(application) = self.applications.get(&id.application) else {
            return;
        };
        let is_kept = |id: &ContainerId| {
            keeps
                && self
                    .containers
                    .get(id)
                    .is_some_and(|c| !c.is_master && c.state == ContainerState::Running)
        };
        let live = application
            .live
            .iter()
            .filter(|container| container.attempt.attempt <= id.attempt && !is_kept(container));
        for container in live.copied().collect::<Vec<_>>() {
            let input = ContainerInput::KillOrdered;
            self.stop_container(container, input, status, "its attempt is over", effects);
        }
    }
}

fn failure_in_words(exit_status: ExitStatus, diagnostics: &Arc<str>) -> Arc<str> {
    let how = if exit_status.is_success() {
        "its master ended without having unregistered".to_owned()
    } else {
        format!("its master's container ended with exit status {exit_status}")
    };
    if diagnostics.is_empty() {
        Arc::from(how)
    } else {
        crate::text::clip(&format!("{how}: {diagnostics}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_states_have_no_way_out() {
        for state in AttemptState::ALL.iter().filter(|s| s.is_ended()) {
            for input in AttemptInput::ALL {
                assert_eq!(next_state(*state, *input), None, "{state} {input:?}");
            }
        }
    }
}
