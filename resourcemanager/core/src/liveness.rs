//! Deadlines: who has to say something until when, and what follows if they do not.
//!
//! A sign of life only notes the time. Its deadline is looked at when it falls due and moved on if
//! there was one since, so that a heartbeat costs nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bobbin_types::{ApplicationId, AttemptId, AttemptState, ContainerId, ExitStatus, Millis};

use crate::Effect;
use crate::attempt::{AttemptEnd, AttemptInput};
use crate::container::ContainerInput;
use crate::event::SessionId;
use crate::launch::LaunchContract;
use crate::limits::YARN_REGISTRATION_MS_MAX;
use crate::manager::ResourceManager;
use crate::node::NodeKey;

/// What falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DeadlineKey {
    /// A node is given up.
    Node(NodeKey),
    /// A granted container is taken back.
    Allocation(ContainerId),
    /// A master, or an unmanaged one's client, is given up.
    Master(AttemptId),
    /// A master that said farewell is ended.
    FinishGrace(AttemptId),
    /// A submitter's lease is over.
    Lease(ApplicationId),
    /// An application has run long enough.
    Timeout(ApplicationId),
    /// A pause between two attempts is over.
    Relaunch(ApplicationId),
    /// After a restart: nodes that have not come back had nothing.
    Recovery,
}

/// An ordered set of deadlines, at most one a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deadlines {
    by_time: BTreeSet<(Millis, DeadlineKey)>,
    by_key: BTreeMap<DeadlineKey, Millis>,
}

impl Deadlines {
    pub(crate) fn set(&mut self, key: DeadlineKey, at: Millis) {
        if let Some(old) = self.by_key.insert(key, at) {
            self.by_time.remove(&(old, key));
        }
        self.by_time.insert((at, key));
    }

    pub(crate) fn cancel(&mut self, key: DeadlineKey) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key));
        }
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        self.by_time.first().map(|(at, _)| *at)
    }

    pub(crate) fn is_set(&self, key: DeadlineKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Takes one that is due.
    fn pop_due(&mut self, now: Millis) -> Option<DeadlineKey> {
        let (at, key) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.remove(&(at, key));
        self.by_key.remove(&key);
        Some(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &DeadlineKey> {
        self.by_key.keys()
    }

    pub(crate) fn is_consistent(&self) -> bool {
        self.by_time.len() == self.by_key.len()
            && self
                .by_key
                .iter()
                .all(|(key, at)| self.by_time.contains(&(*at, *key)))
    }
}

impl ResourceManager {
    pub(crate) fn on_tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        // What a deadline sets anew lies later than now, so this ends.
        while let Some(key) = self.deadlines.pop_due(now) {
            match key {
                DeadlineKey::Node(node) => self.node_due(now, node, effects),
                DeadlineKey::Allocation(container) => {
                    self.allocation_due(container, effects);
                }
                DeadlineKey::Master(attempt) => self.master_due(now, attempt, effects),
                DeadlineKey::FinishGrace(attempt) => self.finish_due(attempt, effects),
                DeadlineKey::Lease(application) => self.lease_due(now, application, effects),
                DeadlineKey::Timeout(application) => {
                    let reason = "its time is over (--timeout)";
                    self.kill_application(now, application, reason, effects);
                }
                DeadlineKey::Relaunch(application) => {
                    self.let_go(application);
                    self.queue_master(application);
                }
                DeadlineKey::Recovery => self.recovery_due(now, effects),
            }
        }
    }

    fn node_due(&mut self, now: Millis, key: NodeKey, effects: &mut Vec<Effect>) {
        let Some(node) = self.nodes.get(&key) else {
            return;
        };
        let until = node.last_heard + self.config.node_expiry_ms;
        if until > now {
            self.deadlines.set(DeadlineKey::Node(key), until);
        } else {
            self.node_expired(now, key, effects);
        }
    }

    fn allocation_due(&mut self, container: ContainerId, effects: &mut Vec<Effect>) {
        let reason = format!(
            "it was not started for {} ms after it was granted",
            self.config.allocation_expiry_ms
        );
        let input = ContainerInput::NeverStarted;
        self.stop_container(container, input, ExitStatus::ABORTED, &reason, effects);
    }

    /// How long the master of an attempt may say nothing.
    fn master_patience_ms(&self, attempt: AttemptId) -> u64 {
        let Some(application) = self.applications.get(&attempt.application) else {
            return self.config.am_expiry_ms;
        };
        let Some(attempt) = self.attempt(attempt) else {
            return self.config.am_expiry_ms;
        };
        let submission = &application.spec.submission;
        match (submission.launch.contract, submission.unmanaged) {
            // Its stream tells at once that it is gone.
            (LaunchContract::Bobbin, true) if attempt.session.is_none() => {
                self.config.client_lease_ms
            }
            (LaunchContract::Yarn, false) if attempt.state == AttemptState::Launched => {
                self.config.am_expiry_ms.max(YARN_REGISTRATION_MS_MAX)
            }
            // YARN's have no stream, only heartbeats.
            (LaunchContract::Bobbin | LaunchContract::Yarn, true | false) => {
                self.config.am_expiry_ms
            }
        }
    }

    /// Starts, or starts again, the time a master has to say something.
    pub(crate) fn watch_master(&mut self, now: Millis, attempt: AttemptId) {
        let until = now + self.master_patience_ms(attempt);
        self.deadlines.set(DeadlineKey::Master(attempt), until);
    }

    fn master_due(&mut self, now: Millis, id: AttemptId, effects: &mut Vec<Effect>) {
        let patience_ms = self.master_patience_ms(id);
        let Some(attempt) = self.attempt(id).filter(|attempt| !attempt.state.is_ended()) else {
            return;
        };
        let until = attempt.last_heard + patience_ms;
        if until > now {
            self.deadlines.set(DeadlineKey::Master(id), until);
            return;
        }
        // After its farewell the other deadline decides.
        if attempt.finish.is_some() {
            return;
        }
        let Some((container, _)) = attempt.place.clone() else {
            self.client_gone(now, id, patience_ms, effects);
            return;
        };
        let on_living_node = self
            .containers
            .get(&container)
            .and_then(|container| self.nodes.get(&container.node))
            .is_some_and(|node| node.session.is_some());
        if !on_living_node {
            // Its node decides: it comes back or is given up. Then the master gets its time again.
            self.deadlines
                .set(DeadlineKey::Master(id), now + patience_ms);
            return;
        }
        let reason = format!("its master said nothing for {patience_ms} ms");
        self.condemn(id, Arc::from(reason), effects);
    }

    fn client_gone(
        &mut self,
        now: Millis,
        id: AttemptId,
        patience_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let contract = self.applications.get(&id.application);
        let reason = match contract.map(|a| a.spec.submission.launch.contract) {
            Some(LaunchContract::Yarn) => format!("its master said nothing for {patience_ms} ms"),
            Some(LaunchContract::Bobbin) | None => {
                format!("its client went away and was not back within {patience_ms} ms")
            }
        };
        let end = AttemptEnd {
            input: AttemptInput::MasterEnded,
            exit_status: Some(ExitStatus::ABORTED),
            diagnostics: Arc::from(reason),
            counted: true,
        };
        self.attempt_failed(now, id, end, effects);
    }

    fn finish_due(&mut self, id: AttemptId, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.attempt(id) else {
            return;
        };
        if let Some((container, _)) = attempt.place.clone() {
            let reason = format!(
                "its master did not end within {} ms after it had unregistered",
                self.config.finish_grace_ms
            );
            let input = ContainerInput::KillOrdered;
            let status = ExitStatus::KILLED_AFTER_APP_COMPLETION;
            self.stop_container(container, input, status, &reason, effects);
        }
    }

    fn lease_due(&mut self, now: Millis, id: ApplicationId, effects: &mut Vec<Effect>) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        if application.lease.is_none() && application.tied {
            let reason = format!(
                "its submitter went away and was not back within {} ms",
                self.config.client_lease_ms
            );
            self.kill_application(now, id, &reason, effects);
        }
    }

    /// A submitter holds its application's lease over this stream.
    pub(crate) fn lease_held(&mut self, id: ApplicationId, session: SessionId) {
        let Some(application) = self.applications.get_mut(&id) else {
            return;
        };
        if !application.state.is_ended() {
            application.tied = true;
            application.lease = Some(session);
            self.deadlines.cancel(DeadlineKey::Lease(id));
        }
    }

    pub(crate) fn on_lease_lost(&mut self, now: Millis, id: ApplicationId, session: SessionId) {
        let Some(application) = self.applications.get_mut(&id) else {
            return;
        };
        if application.lease == Some(session) && !application.state.is_ended() {
            application.lease = None;
            let until = now + self.config.client_lease_ms;
            self.deadlines.set(DeadlineKey::Lease(id), until);
        }
    }

    /// Starts the clocks of a live application: at its submission and after a restart.
    pub(crate) fn watch_application(&mut self, now: Millis, id: ApplicationId) {
        let Some(application) = self.applications.get(&id) else {
            return;
        };
        if application.tied {
            self.deadlines
                .set(DeadlineKey::Lease(id), now + self.config.client_lease_ms);
        }
        self.watch_lifetime(now, id);
    }

    /// Starts, or starts again, the clock of an application's lifetime.
    pub(crate) fn watch_lifetime(&mut self, now: Millis, id: ApplicationId) {
        let lifetime = self.applications.get(&id).and_then(|a| a.lifetime);
        let key = DeadlineKey::Timeout(id);
        match lifetime {
            Some(lifetime) => self
                .deadlines
                .set(key, now + lifetime.remaining_ms(self.wall)),
            None => self.deadlines.cancel(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_deadline_a_key() {
        let mut deadlines = Deadlines::default();
        let key = DeadlineKey::Node(NodeKey(1));
        deadlines.set(key, Millis(5));
        deadlines.set(key, Millis(9));
        deadlines.set(DeadlineKey::Recovery, Millis(7));
        assert_eq!(deadlines.next(), Some(Millis(7)));
        assert_eq!(deadlines.pop_due(Millis(6)), None);
        assert_eq!(deadlines.pop_due(Millis(7)), Some(DeadlineKey::Recovery));
        assert!(deadlines.is_set(key) && deadlines.is_consistent());
        deadlines.cancel(key);
        assert_eq!(deadlines.next(), None);
    }
}
