//! After a restart: the state is rebuilt from the records, and completed by what nodes and masters
//! say when they register again.
//!
//! A container of a master on record is taken to be on its node, which is taken to be away, until
//! the node registers or its expiry is over: so nothing special is needed for it afterwards.

use std::sync::Arc;

use bobbin_types::{
    ApplicationId, ApplicationState, AttemptId, AttemptState, ContainerState, Millis, NodeId,
};

use crate::Effect;
use crate::application::{ApplicationInput, End, next_state};
use crate::attempt::Attempt;
use crate::container::Container;
use crate::event::Finish;
use crate::liveness::DeadlineKey;
use crate::manager::ResourceManager;
use crate::record::{Lifetime, Record};
use crate::usage::{ResourceSeconds, Usage};

impl ResourceManager {
    /// One record of the journal. Emits nothing: what it meant has been done, or is done when all
    /// are read.
    pub(crate) fn on_recovered(&mut self, record: Record) {
        if self.ready {
            self.illegal_transitions += 1;
            return;
        }
        match record {
            Record::Epoch { .. } => {}
            Record::SequenceReserved { sequence, floor } => {
                self.ids.last = self.ids.last.max(sequence);
                self.ids.reserved = self.ids.reserved.max(sequence);
                self.ids.floor = self.ids.floor.max(floor);
            }
            Record::NodeKnown { node } => {
                self.known_nodes.insert(node);
            }
            Record::NodeForgotten { node } => {
                self.known_nodes.remove(&node);
            }
            Record::AttemptStarted { .. }
            | Record::AttemptRegistered { .. }
            | Record::AttemptFailing { .. }
            | Record::AttemptFinishing { .. } => self.recover_attempt(record),
            Record::AttemptFinished { .. } => self.recover_attempt_end(record),
            Record::ApplicationSubmitted(_)
            | Record::KillRequested { .. }
            | Record::ApplicationFinished { .. }
            | Record::ApplicationUpdated { .. }
            | Record::ApplicationRemoved { .. } => self.recover_application(record),
        }
    }

    /// A record of an application's life.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the caller lists the records"
    )]
    fn recover_application(&mut self, record: Record) {
        match record {
            Record::ApplicationSubmitted(spec) => {
                let id = spec.application;
                self.insert_application(spec);
                self.recover_state(id, ApplicationInput::Submitted);
                self.recover_state(id, ApplicationInput::Queued);
            }
            Record::KillRequested {
                application,
                reason,
                ..
            } => {
                self.recover_state(application, ApplicationInput::KillRequested);
                if let Some(application) = self.applications.get_mut(&application) {
                    application.kill = Some(reason);
                }
            }
            Record::ApplicationFinished {
                application,
                state,
                final_status,
                exit_status,
                diagnostics,
                used,
                wall,
            } => {
                self.recover_usage(application, used);
                if let Some(application) = self.applications.get_mut(&application) {
                    application.final_usage = Some(used);
                }
                let end = End {
                    final_status,
                    exit_status,
                    diagnostics,
                    wall,
                };
                self.recover_end(application, state, end);
            }
            Record::ApplicationUpdated {
                application,
                queue,
                priority,
                lifetime,
            } => {
                if let Some(application) = self.applications.get_mut(&application) {
                    application.queue = queue;
                    application.turn.priority = std::cmp::Reverse(priority);
                    application.lifetime = lifetime;
                }
            }
            Record::ApplicationRemoved { application } => {
                // Nearly always the first: the oldest go first.
                if let Some(at) = self.ended.iter().position(|id| *id == application) {
                    self.ended.remove(at);
                }
                self.live_applications.remove(&application);
                self.forget_application(application);
            }
            _ => {}
        }
    }

    /// A transition on record. Those of one that had to be answered are not made again.
    fn recover_state(&mut self, id: ApplicationId, input: ApplicationInput) {
        match self.applications.get_mut(&id) {
            Some(application) => match next_state(application.state, input) {
                Some(to) => application.state = to,
                None => self.illegal_transitions += 1,
            },
            None => self.illegal_transitions += 1,
        }
    }

    /// A record of an attempt's life, its end apart.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the caller lists the records"
    )]
    fn recover_attempt(&mut self, record: Record) {
        match record {
            Record::AttemptStarted {
                attempt: id,
                place,
                wall,
            } => {
                let Some(application) = self.applications.get_mut(&id.application) else {
                    self.illegal_transitions += 1;
                    return;
                };
                let mut attempt = Attempt::new(id);
                attempt.state = AttemptState::Launched;
                attempt.place = place;
                attempt.started = Some(wall);
                application.attempts.push(attempt);
            }
            Record::AttemptRegistered {
                attempt: id,
                host,
                rpc_port,
                tracking_url,
                ..
            } => {
                let Some(attempt) = self.recovered_attempt(id) else {
                    return;
                };
                if attempt.state == AttemptState::Launched {
                    attempt.state = AttemptState::Running;
                }
                attempt.host = host;
                attempt.rpc_port = rpc_port;
                attempt.tracking_url = tracking_url;
                self.recover_state(id.application, ApplicationInput::MasterRegistered);
            }
            Record::AttemptFailing {
                attempt: id,
                reason,
            } => {
                if let Some(attempt) = self.recovered_attempt(id) {
                    attempt.verdict = Some(reason);
                }
            }
            Record::AttemptFinishing {
                attempt: id,
                final_status,
                exit_status,
                diagnostics,
                tracking_url,
            } => {
                let Some(attempt) = self.recovered_attempt(id) else {
                    return;
                };
                attempt.state = AttemptState::Finishing;
                let diagnostics = diagnostics.to_string();
                attempt.finish = Some(Finish {
                    final_status,
                    exit_status,
                    diagnostics,
                    tracking_url,
                });
                self.recover_state(id.application, ApplicationInput::MasterUnregistered);
            }
            _ => {}
        }
    }

    fn recover_attempt_end(&mut self, record: Record) {
        let Record::AttemptFinished {
            attempt: id,
            state,
            exit_status,
            diagnostics,
            counted,
            used,
            wall,
        } = record
        else {
            return;
        };
        self.recover_usage(id.application, used);
        self.recover_unlaunched(id);
        let Some(attempt) = self.recovered_attempt(id) else {
            return;
        };
        attempt.state = state;
        attempt.exit_status = exit_status;
        attempt.diagnostics = diagnostics;
        attempt.counted = counted;
        attempt.finished = Some(wall);
        let Some(application) = self.applications.get_mut(&id.application) else {
            return;
        };
        // What a later attempt does starts from here.
        if application.state == ApplicationState::Running && state == AttemptState::Failed {
            application.state = ApplicationState::Accepted;
        }
    }

    fn recover_usage(&mut self, id: ApplicationId, used: ResourceSeconds) {
        let now = self.now;
        if let Some(application) = self.applications.get_mut(&id) {
            application.usage = Usage::resumed(used, now);
        }
    }

    fn recovered_attempt(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        if self.attempt(id).is_none() {
            self.illegal_transitions += 1;
        }
        let application = self.applications.get_mut(&id.application)?;
        application
            .attempts
            .iter_mut()
            .rev()
            .find(|attempt| attempt.id == id)
    }

    /// An attempt that ended before it was launched (killed while it waited) has no other record.
    fn recover_unlaunched(&mut self, id: AttemptId) {
        if self.attempt(id).is_some() {
            return;
        }
        if let Some(application) = self.applications.get_mut(&id.application) {
            application.attempts.push(Attempt::new(id));
        }
    }

    fn recover_end(&mut self, id: ApplicationId, state: ApplicationState, end: End) {
        let Some(application) = self.applications.get_mut(&id) else {
            self.illegal_transitions += 1;
            return;
        };
        application.state = state;
        application.end = Some(end);
        application.slim();
        self.live_applications.remove(&id);
        self.ended.push_back(id);
    }

    /// The journal is read: everything that was under way goes on.
    pub(crate) fn on_recovery_done(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.ready, true) {
            self.illegal_transitions += 1;
            return;
        }
        effects.push(Effect::Persist(Record::Epoch {
            epoch: self.epoch,
            cluster_timestamp: self.cluster_timestamp,
        }));
        self.recovering = true;
        self.awaited_nodes.clone_from(&self.known_nodes);
        self.submissions_recovered = self.submissions;
        let until = now + self.config.node_expiry_ms;
        self.deadlines.set(DeadlineKey::Recovery, until);
        // Their uploads should be gone; a crash may have come between.
        let ended: Vec<ApplicationId> = self.ended.iter().copied().collect();
        for id in ended {
            self.all_gone(id, effects);
        }
        let live: Vec<ApplicationId> = self.live_applications.iter().copied().collect();
        for id in live {
            self.watch_application(now, id);
            self.resume_application(now, id, effects);
        }
    }

    fn resume_application(&mut self, now: Millis, id: ApplicationId, effects: &mut Vec<Effect>) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        let killing = application.state == ApplicationState::Killing;
        let last = application
            .current()
            .map(|attempt| (attempt.id, attempt.state));
        match last {
            Some((attempt, state)) if !state.is_ended() => {
                self.resume_attempt(now, attempt, effects);
            }
            None | Some(_) if killing => {}
            None => self.start_attempt(now, id, effects),
            // Its end is on record but not what followed from it.
            Some((attempt, AttemptState::Finished)) => self.finish_resumed(now, attempt, effects),
            Some((attempt, _)) => {
                let ended = self.attempt(attempt);
                let status = ended.and_then(|attempt| attempt.exit_status);
                let words = ended.map_or_else(|| Arc::from(""), |a| Arc::clone(&a.diagnostics));
                self.follow_failed_attempt(now, attempt, status, &words, effects);
            }
        }
        if killing {
            self.carry_out_kill(now, id, effects);
        }
    }

    fn finish_resumed(&mut self, now: Millis, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let Some(ended) = self.attempt(attempt) else {
            return;
        };
        let finish = ended.finish.as_ref();
        let end = End {
            final_status: finish.map_or(bobbin_types::FinalStatus::Undefined, |finish| {
                finish.final_status
            }),
            exit_status: ended.exit_status,
            diagnostics: Arc::clone(&ended.diagnostics),
            wall: self.wall,
        };
        let input = ApplicationInput::AttemptFinished;
        self.end_application(now, attempt.application, input, end, effects);
    }

    /// A live attempt on record: its container is where the record says, its node is away.
    fn resume_attempt(&mut self, now: Millis, id: AttemptId, effects: &mut Vec<Effect>) {
        let Some(application) = self.applications.get(&id.application) else {
            return;
        };
        let resource = application.spec.submission.resource;
        let unmanaged = application.spec.submission.unmanaged;
        let Some(attempt) = self.current_attempt_mut(id) else {
            return;
        };
        attempt.last_heard = now;
        let (state, place) = (attempt.state, attempt.place.clone());
        let began = attempt.started.unwrap_or_default();
        let has_finished = attempt.finish.is_some();
        let verdict = attempt.verdict.clone();
        if let Some((container, node)) = place {
            let node = self.node_key(&node);
            // Whether it runs its node says. A registered master did.
            let started = state != AttemptState::Launched;
            self.add_container(Container {
                id: container,
                node,
                resource,
                state: if started {
                    ContainerState::Running
                } else {
                    ContainerState::Acquired
                },
                is_master: true,
                started,
                stop: None,
                priority: 0,
                request_id: -1,
                version: 0,
                version_known: true,
                shrinks_to: None,
                created: began,
                accounted: true,
            });
            if let Some(attempt) = self.current_attempt_mut(id) {
                attempt.nodes.insert(node);
            }
            if let Some(node) = self.nodes.get_mut(&node) {
                node.last_heard = now;
            }
            self.watch_node(now, node);
            if !started {
                let until = now + self.config.allocation_expiry_ms;
                self.deadlines
                    .set(DeadlineKey::Allocation(container), until);
            }
        }
        if has_finished && unmanaged {
            self.unmanaged_finished(now, id, effects);
            return;
        }
        if has_finished {
            let until = now + self.config.finish_grace_ms;
            self.deadlines.set(DeadlineKey::FinishGrace(id), until);
        }
        if unmanaged || state != AttemptState::Launched {
            self.watch_master(now, id);
        }
        if let Some(reason) = verdict {
            self.condemn(id, reason, effects);
        }
    }

    /// A node registers: from now on it is on record.
    pub(crate) fn note_known(&mut self, node: &NodeId, effects: &mut Vec<Effect>) {
        if self.known_nodes.insert(node.clone()) {
            let node = node.clone();
            effects.push(Effect::Persist(Record::NodeKnown { node }));
        }
    }

    /// A node is given up with all that it ran: it is not on record any more.
    pub(crate) fn forget_known(&mut self, now: Millis, node: &NodeId, effects: &mut Vec<Effect>) {
        if self.known_nodes.remove(node) {
            let node = node.clone();
            effects.push(Effect::Persist(Record::NodeForgotten { node }));
        }
        self.no_longer_expected(now, node, effects);
    }

    /// After a restart a node on record has said what it runs, or was given up. With the last of
    /// them nothing of before the start is unseen, so kills that waited for that come to their end.
    ///
    /// What was granted but not started yet is in no node's list: such containers are taken over,
    /// and masters' others awaited, until the time for nodes to come back is over.
    pub(crate) fn no_longer_expected(
        &mut self,
        now: Millis,
        node: &NodeId,
        effects: &mut Vec<Effect>,
    ) {
        if self.awaited_nodes.remove(node) && self.awaited_nodes.is_empty() {
            self.nodes_are_back = true;
            self.settle_unseen(now, effects);
        }
    }

    /// The time for nodes to come back is over: those that have not are given up.
    pub(crate) fn recovery_due(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.recovering = false;
        for node in self.awaited_nodes.clone() {
            self.forget_known(now, &node, effects);
        }
        self.give_up_awaited(effects);
        self.settle_unseen(now, effects);
    }

    /// Records that rebuild what must survive: a journal without its history. Ended applications
    /// come first, in the order of their ends, then live ones in the order of their submission.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = vec![
            Record::Epoch {
                epoch: self.epoch,
                cluster_timestamp: self.cluster_timestamp,
            },
            Record::SequenceReserved {
                sequence: self.ids.reserved.max(self.ids.last),
                floor: self.ids.floor,
            },
        ];
        let known = self.known_nodes.iter().cloned();
        records.extend(known.map(|node| Record::NodeKnown { node }));
        let mut live: Vec<ApplicationId> = self.live_applications.iter().copied().collect();
        live.sort_by_key(|id| self.applications.get(id).map(|a| a.turn.order));
        for id in self.ended.iter().chain(&live) {
            self.snapshot_application(*id, &mut records);
        }
        records
    }

    fn snapshot_application(&self, id: ApplicationId, records: &mut Vec<Record>) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        records.push(Record::ApplicationSubmitted(Arc::clone(&application.spec)));
        for attempt in &application.attempts {
            snapshot_attempt(attempt, application.used_seconds(self.now), records);
        }
        let submission = &application.spec.submission;
        let is_changed = application.queue != submission.queue
            || application.turn.priority.0 != submission.priority
            || application.lifetime != Lifetime::of(&application.spec);
        if is_changed {
            records.push(application.updated());
        }
        if let Some(reason) = &application.kill {
            let (reason, wall) = (reason.clone(), self.wall);
            records.push(Record::KillRequested {
                application: id,
                reason,
                wall,
            });
        }
        if let Some(end) = &application.end {
            records.push(Record::ApplicationFinished {
                application: id,
                state: application.state,
                final_status: end.final_status,
                exit_status: end.exit_status,
                diagnostics: Arc::clone(&end.diagnostics),
                used: application.used_seconds(self.now),
                wall: end.wall,
            });
        }
    }
}

/// `used` is what its application has used so far.
fn snapshot_attempt(attempt: &Attempt, used: ResourceSeconds, records: &mut Vec<Record>) {
    let id = attempt.id;
    // One that still waits is made again.
    if let Some(wall) = attempt.started {
        let place = attempt.place.clone();
        records.push(Record::AttemptStarted {
            attempt: id,
            place,
            wall,
        });
    }
    let has_registered = !attempt.host.is_empty()
        || attempt.finish.is_some()
        || matches!(
            attempt.state,
            AttemptState::Running | AttemptState::Finishing
        );
    if has_registered {
        records.push(Record::AttemptRegistered {
            attempt: id,
            host: attempt.host.clone(),
            rpc_port: attempt.rpc_port,
            tracking_url: attempt.tracking_url.clone(),
            wall: attempt.started.unwrap_or_default(),
        });
    }
    if let Some(finish) = &attempt.finish {
        records.push(Record::AttemptFinishing {
            attempt: id,
            final_status: finish.final_status,
            exit_status: finish.exit_status,
            diagnostics: crate::text::clip(&finish.diagnostics),
            tracking_url: finish.tracking_url.clone(),
        });
    }
    if let (Some(reason), false) = (&attempt.verdict, attempt.state.is_ended()) {
        let reason = Arc::clone(reason);
        records.push(Record::AttemptFailing {
            attempt: id,
            reason,
        });
    }
    if attempt.state.is_ended() {
        records.push(Record::AttemptFinished {
            attempt: id,
            state: attempt.state,
            exit_status: attempt.exit_status,
            diagnostics: Arc::clone(&attempt.diagnostics),
            counted: attempt.counted,
            used,
            wall: attempt.finished.unwrap_or_default(),
        });
    }
}
