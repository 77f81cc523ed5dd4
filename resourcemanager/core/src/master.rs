//! The door of application masters: register, ask, release, say farewell.
//!
//! What a master says on a stream that another one replaced is ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bobbin_types::{
    ASKS_PER_APPLICATION_MAX, ApplicationState, AttemptId, CONTAINERS_PER_ASK_MAX, ContainerId,
    ContainerState, ExitStatus, Millis, Resource,
};

use crate::application::{ApplicationInput, Wanted};
use crate::attempt::{Attempt, AttemptInput};
use crate::authority::{Object, Operation, Principal, may};
use crate::container::{ContainerInput, completed};
use crate::event::{Ask, AskKey, Finish, MasterRegistration, SessionId};
use crate::launch::LaunchContract;
use crate::limits::{
    CONTAINERS_PER_MESSAGE_MAX, REGISTRATIONS_RECORDED_MAX, TEXT_BYTES_MAX, WORD_BYTES_MAX,
};
use crate::liveness::DeadlineKey;
use crate::manager::ResourceManager;
use crate::queue::{DEFAULT_RACK, Reach, WaitingDemand};
use crate::record::Record;
use crate::{CompletedContainer, Effect, Grant, MasterMessage, MasterRegistered, Refusal};

impl ResourceManager {
    /// Sends to the attempt's master if it is the live one and has a stream.
    pub(crate) fn tell_master(
        &mut self,
        attempt: AttemptId,
        message: MasterMessage,
        effects: &mut Vec<Effect>,
    ) {
        let session = self
            .current_attempt_mut(attempt)
            .and_then(|attempt| attempt.session);
        if let Some(session) = session {
            effects.push(Effect::ToMaster {
                attempt,
                session,
                message,
            });
        }
    }

    /// Whether an event of this stream counts; it is a sign of life then.
    pub(crate) fn master_says(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
    ) -> bool {
        match self.current_attempt_mut(attempt) {
            Some(current) if current.session == Some(session) => {
                current.last_heard = now;
                true
            }
            Some(_) | None => false,
        }
    }

    pub(crate) fn on_master_attached(
        &mut self,
        now: Millis,
        session: SessionId,
        (principal, attempt): (&Principal, AttemptId),
        registration: MasterRegistration,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(refusal) = self.master_may_attach(principal, attempt, &registration) {
            let message = MasterMessage::Shutdown {
                reason: refusal.to_string(),
            };
            effects.push(Effect::ToMaster {
                attempt,
                session,
                message,
            });
            effects.push(Effect::CloseSession { session });
            return;
        }
        let Some(current) = self.current_attempt_mut(attempt) else {
            return;
        };
        current.last_heard = now;
        let old = current
            .session
            .replace(session)
            .filter(|old| *old != session);
        if let Some(session) = old {
            effects.push(Effect::CloseSession { session });
        }
        self.register_master(attempt, &registration, effects);
        self.watch_master(now, attempt);
        let registered = self.master_registered(attempt);
        for grant in &registered.containers_from_previous_attempts {
            self.note_node(attempt, grant.container);
        }
        self.tell_master(attempt, MasterMessage::Registered(registered), effects);
        match &registration.containers {
            Some(held) => self.compare_held(attempt, held, effects),
            None => self.deliver(attempt, effects),
        }
        // Asks are absolute: what the master did not repeat it does not want.
        self.withdraw_demands(attempt.application);
        if let Some(application) = self.applications.get_mut(&attempt.application) {
            application.asks.clear();
        }
        self.take_asks(attempt, registration.asks, effects);
    }

    fn master_may_attach(
        &self,
        principal: &Principal,
        attempt: AttemptId,
        registration: &MasterRegistration,
    ) -> Result<(), Refusal> {
        may(
            principal,
            Operation::AttachMaster,
            &Object::Attempt(attempt),
        )?;
        let over = |reason: String| Refusal::AttemptOver { attempt, reason };
        let application = self
            .applications
            .get(&attempt.application)
            .ok_or_else(|| Refusal::UnknownApplication(attempt.application.to_string()))?;
        if let Some(end) = &application.end {
            return Err(over(format!(
                "its application has ended: {}",
                end.diagnostics
            )));
        }
        if application.state == ApplicationState::Killing {
            let reason = application.kill.clone().unwrap_or_default();
            return Err(over(format!("its application is being killed: {reason}")));
        }
        match application.live_attempt() {
            Some(current) if current.id == attempt => {
                // A managed master that waits for its container cannot be here.
                if current.place.is_none() && !application.spec.submission.unmanaged {
                    return Err(over("its container is not granted yet".to_owned()));
                }
            }
            Some(current) => return Err(over(format!("attempt {} follows", current.id.attempt))),
            None => return Err(over("it has ended".to_owned())),
        }
        for (what, text, max) in [
            ("host", &registration.host, WORD_BYTES_MAX),
            ("tracking URL", &registration.tracking_url, TEXT_BYTES_MAX),
        ] {
            if !text.is_empty() {
                bobbin_types::check_text(what, text, max)?;
            }
        }
        let number = registration.containers.as_ref().map_or(0, Vec::len);
        too_many(
            "containers of a registration",
            number,
            CONTAINERS_PER_MESSAGE_MAX,
        )
    }

    fn register_master(
        &mut self,
        id: AttemptId,
        registration: &MasterRegistration,
        effects: &mut Vec<Effect>,
    ) {
        let Some(attempt) = self.current_attempt_mut(id) else {
            return;
        };
        let is_new = attempt.state == bobbin_types::AttemptState::Launched
            || attempt.host != registration.host
            || attempt.rpc_port != registration.rpc_port
            || attempt.tracking_url != registration.tracking_url;
        attempt.host.clone_from(&registration.host);
        attempt.rpc_port = registration.rpc_port;
        attempt.tracking_url.clone_from(&registration.tracking_url);
        if is_new {
            self.record_registration(id, effects);
        }
        self.step_attempt(id, AttemptInput::MasterRegistered, effects);
        self.step_application(id.application, ApplicationInput::MasterRegistered, effects);
    }

    /// Puts on record where the master is. One that keeps changing it writes no journal full.
    fn record_registration(&mut self, id: AttemptId, effects: &mut Vec<Effect>) {
        let wall = self.wall;
        let Some(attempt) = self.current_attempt_mut(id) else {
            return;
        };
        attempt.registrations += 1;
        if attempt.registrations > REGISTRATIONS_RECORDED_MAX {
            attempt.registrations = REGISTRATIONS_RECORDED_MAX;
            return;
        }
        effects.push(Effect::Persist(Record::AttemptRegistered {
            attempt: id,
            host: attempt.host.clone(),
            rpc_port: attempt.rpc_port,
            tracking_url: attempt.tracking_url.clone(),
            wall,
        }));
    }

    fn master_registered(&self, attempt: AttemptId) -> MasterRegistered {
        let application = self
            .applications
            .get(&attempt.application)
            .expect("an attached master's application");
        MasterRegistered {
            attempt,
            user: application.spec.user.clone(),
            largest_container: self.largest_container(),
            heartbeat_interval_ms: self.config.heartbeat_interval_ms,
            nodes_running: self.index.len(),
            queue: application.queue.clone(),
            view_acl: application.spec.submission.view_acl.clone(),
            modify_acl: application.spec.submission.modify_acl.clone(),
            containers_from_previous_attempts: self.inherited(attempt),
            node_changes: self.node_changes,
        }
    }

    pub(crate) fn on_master_acknowledges(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
        containers: &[ContainerId],
        effects: &mut Vec<Effect>,
    ) {
        if !self.master_says(now, attempt, session) {
            return;
        }
        for id in containers.iter().take(CONTAINERS_PER_MESSAGE_MAX) {
            let Some(current) = self.current_attempt_mut(attempt) else {
                return;
            };
            if current.unacknowledged.remove(id) {
                self.acknowledge_exit(*id, effects);
            }
        }
    }

    /// Running containers of earlier attempts that were kept for this one.
    fn inherited(&self, attempt: AttemptId) -> Vec<Grant> {
        let Some(application) = self.applications.get(&attempt.application) else {
            return Vec::new();
        };
        let runs = |id: &ContainerId| {
            let container = self.containers.get(id);
            container.is_some_and(|c| !c.is_master && c.state == ContainerState::Running)
        };
        application
            .live
            .iter()
            .filter(|id| id.attempt != attempt && runs(id))
            .filter_map(|id| self.grant_of(*id))
            .collect()
    }

    /// Tells a master that does not list what it holds of what ended while it was away.
    fn deliver(&mut self, attempt: AttemptId, effects: &mut Vec<Effect>) {
        let Some(current) = self.current_attempt_mut(attempt) else {
            return;
        };
        let ended = std::mem::take(&mut current.undelivered);
        current.awaited.clear();
        let Some(application) = self.applications.get(&attempt.application) else {
            return;
        };
        let completed: Vec<CompletedContainer> = ended
            .into_iter()
            .map(|id| match application.ended_containers.get(&id) {
                Some(ended) => completed(id, ended),
                None => unknown_container(id),
            })
            .collect();
        if !completed.is_empty() {
            self.tell_master(attempt, MasterMessage::Completed(completed), effects);
        }
    }

    /// Compares what the master holds with what is on record. A grant it does not name was never
    /// received and is taken back; a container that nobody knows any more is completed, except
    /// that one of a former epoch may still be reported by its node.
    fn compare_held(
        &mut self,
        attempt: AttemptId,
        held: &[ContainerId],
        effects: &mut Vec<Effect>,
    ) {
        let recovering = self.is_recovering();
        let epoch = self.epoch;
        let Some(application) = self.applications.get(&attempt.application) else {
            return;
        };
        let held: BTreeSet<ContainerId> = held.iter().copied().collect();
        let master = application
            .current()
            .and_then(|a| a.place.as_ref())
            .map(|(id, _)| *id);
        let unreceived: Vec<ContainerId> = application
            .live
            .iter()
            .filter(|id| id.attempt == attempt && Some(**id) != master && !held.contains(id))
            .copied()
            .collect();
        let mut gone = Vec::new();
        let mut awaited = BTreeSet::new();
        for id in held {
            if application.live.contains(&id) || Some(id) == master {
                continue;
            }
            match application.ended_containers.get(&id) {
                Some(ended) => gone.push(completed(id, ended)),
                None if id.attempt == attempt && id.epoch < epoch && recovering => {
                    awaited.insert(id);
                }
                None => gone.push(unknown_container(id)),
            }
        }
        if let Some(current) = self.current_attempt_mut(attempt) {
            current.awaited = awaited;
            current.undelivered.clear();
        }
        for id in unreceived {
            let (input, status) = (ContainerInput::ReleaseAsked, ExitStatus::ABORTED);
            let reason = "its application master does not hold it";
            self.stop_container(id, input, status, reason, effects);
        }
        if !gone.is_empty() {
            self.tell_master(attempt, MasterMessage::Completed(gone), effects);
        }
    }

    /// A container of a former epoch was reported by its node: it runs.
    pub(crate) fn adopted(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        self.no_longer_awaited(id);
        if let Some(heir) = self.heir(id) {
            self.note_node(heir, id);
            let grant = self.grant_of(id).filter(|_| heir != id.attempt);
            if let Some(grant) = grant {
                self.tell_master(heir, MasterMessage::Inherited(vec![grant]), effects);
            }
        }
        self.pending.changed.insert(id.application());
    }

    /// The attempt has a container there: its tokens are revoked there in the end.
    fn note_node(&mut self, attempt: AttemptId, id: ContainerId) {
        let node = self.containers.get(&id).map(|container| container.node);
        if let (Some(node), Some(attempt)) = (node, self.current_attempt_mut(attempt)) {
            attempt.nodes.insert(node);
        }
    }

    pub(crate) fn no_longer_awaited(&mut self, id: ContainerId) {
        if let Some(attempt) = self.current_attempt_mut(id.attempt) {
            attempt.awaited.remove(&id);
        }
    }

    /// The time for nodes to come back is over: what masters still wait for is gone.
    pub(crate) fn give_up_awaited(&mut self, effects: &mut Vec<Effect>) {
        let live: Vec<_> = self.live_applications.iter().copied().collect();
        for id in live {
            let Some(attempt) = self.applications.get_mut(&id).and_then(|a| a.current_mut()) else {
                continue;
            };
            let awaited = std::mem::take(&mut attempt.awaited);
            let attempt = attempt.id;
            if !awaited.is_empty() {
                let gone = awaited.into_iter().map(unknown_container).collect();
                self.tell_master(attempt, MasterMessage::Completed(gone), effects);
            }
        }
    }

    pub(crate) fn on_master_stream_lost(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
    ) {
        if !self.master_says(now, attempt, session) {
            return;
        }
        if let Some(current) = self.current_attempt_mut(attempt) {
            current.session = None;
        }
        // Nobody would learn of a grant: asks rest until the master is back and repeats them.
        self.withdraw_demands(attempt.application);
        self.watch_master(now, attempt);
        self.pending.changed.insert(attempt.application);
    }

    pub(crate) fn on_master_asks(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
        asks: Vec<Ask>,
        effects: &mut Vec<Effect>,
    ) {
        if self.master_says(now, attempt, session) {
            self.take_asks(attempt, asks, effects);
        }
    }

    fn take_asks(&mut self, attempt: AttemptId, asks: Vec<Ask>, effects: &mut Vec<Effect>) {
        if !self.attempt_takes_containers(attempt) {
            return;
        }
        for ask in asks {
            if let Err(reason) = self.take_ask(attempt, &ask) {
                let AskKey {
                    priority,
                    request_id,
                    ..
                } = *ask.key;
                let message = MasterMessage::AskRefused {
                    priority,
                    request_id,
                    reason,
                };
                self.tell_master(attempt, message, effects);
            }
        }
        self.pending.changed.insert(attempt.application);
    }

    /// One absolute ask: it replaces what was wanted under its key.
    fn take_ask(&mut self, attempt: AttemptId, ask: &Ask) -> Result<(), Refusal> {
        let reach = self.check_ask(ask)?;
        let Some(application) = self.applications.get_mut(&attempt.application) else {
            return Ok(());
        };
        let demand = application.ask_demand(&ask.key);
        let barred = application.current().and_then(Attempt::barred);
        if ask.count == 0 {
            application.asks.remove(&ask.key);
            self.queue.remove(&demand);
            self.pending.demands.remove(&demand);
            return Ok(());
        }
        let known = application.asks.len();
        if !application.asks.contains_key(&ask.key) && known >= ASKS_PER_APPLICATION_MAX {
            let what = "different asks of an application";
            return Err(full(what, known + 1, ASKS_PER_APPLICATION_MAX));
        }
        application.asks.insert(
            Arc::clone(&ask.key),
            Wanted {
                count: ask.count,
                relax_locality: ask.relax_locality,
            },
        );
        let size = ask.key.capability;
        self.queue.insert(
            demand.clone(),
            WaitingDemand {
                size,
                reach,
                barred,
            },
        );
        self.pending.demands.insert(demand);
        Ok(())
    }

    fn check_ask(&self, ask: &Ask) -> Result<Reach, Refusal> {
        let key = &ask.key;
        bobbin_types::check_text("place of an ask", &key.place, WORD_BYTES_MAX)?;
        if !key.node_label.is_empty() {
            bobbin_types::check_text("node label", &key.node_label, WORD_BYTES_MAX)?;
            return Err(Refusal::UnknownLabel(key.node_label.clone()));
        }
        if ask.count > CONTAINERS_PER_ASK_MAX {
            return Err(Refusal::TooMany {
                what: "containers of an ask",
                number: u64::from(ask.count),
                max: u64::from(CONTAINERS_PER_ASK_MAX),
            });
        }
        if ask.count > 0 {
            self.check_asked_size(&key.capability)?;
        }
        match key.place.as_str() {
            "*" | DEFAULT_RACK => Ok(Reach::Anywhere),
            place if place.starts_with('/') && ask.relax_locality => Ok(Reach::Anywhere),
            place if place.starts_with('/') => Err(Refusal::UnknownRack(place.to_owned())),
            host if ask.relax_locality => Ok(Reach::Prefer(host.to_owned())),
            host => Ok(Reach::Only(host.to_owned())),
        }
    }

    /// While nodes are awaited after a restart nobody knows what is too large: a master that repeats
    /// its asks before they are back must not be refused for it.
    fn check_asked_size(&self, size: &Resource) -> Result<(), Refusal> {
        match self.check_size(size) {
            Err(Refusal::LargerThanLargestNode { .. }) if !self.awaited_nodes.is_empty() => Ok(()),
            checked => checked,
        }
    }

    pub(crate) fn on_master_releases(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
        containers: &[ContainerId],
        effects: &mut Vec<Effect>,
    ) {
        if !self.master_says(now, attempt, session) {
            return;
        }
        let master = self
            .attempt(attempt)
            .and_then(|a| a.place.as_ref())
            .map(|(container, _)| *container);
        let contract = self
            .applications
            .get(&attempt.application)
            .map(|a| a.spec.submission.launch.contract);
        let (status, reason) = match contract {
            // As YARN's scheduler says it. Source: `SchedulerUtils.RELEASED_CONTAINER`.
            Some(LaunchContract::Yarn) => {
                (ExitStatus::ABORTED, "Container released by application")
            }
            Some(LaunchContract::Bobbin) | None => (
                ExitStatus::KILLED_BY_APPMASTER,
                "released by its application master",
            ),
        };
        // Beyond the limit the rest is simply not released: the master still holds it and says so.
        for id in containers.iter().take(CONTAINERS_PER_MESSAGE_MAX) {
            let known = self.containers.get(id).is_some_and(|c| {
                matches!(
                    c.state,
                    ContainerState::Allocated | ContainerState::Acquired | ContainerState::Running
                )
            });
            if self.heir(*id) == Some(attempt) && Some(*id) != master && known {
                self.stop_container(*id, ContainerInput::ReleaseAsked, status, reason, effects);
            }
        }
    }

    pub(crate) fn on_master_finishes(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
        finish: Finish,
        effects: &mut Vec<Effect>,
    ) {
        if !self.master_says(now, attempt, session) {
            return;
        }
        let Some(current) = self.attempt(attempt) else {
            return;
        };
        // Said again after a lost stream: the first one counts.
        if current.finish.is_none() {
            self.unregister_master(now, attempt, finish, effects);
        }
        self.tell_master(attempt, MasterMessage::FinishAcknowledged, effects);
        let unmanaged = self
            .applications
            .get(&attempt.application)
            .is_some_and(|application| application.spec.submission.unmanaged);
        if unmanaged {
            self.unmanaged_finished(now, attempt, effects);
        }
    }

    fn unregister_master(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        mut finish: Finish,
        effects: &mut Vec<Effect>,
    ) {
        if bobbin_types::check_text("tracking URL", &finish.tracking_url, TEXT_BYTES_MAX).is_err() {
            // Whether it ends must not hang on where its history is.
            finish.tracking_url.clear();
        }
        if !self.step_attempt(attempt, AttemptInput::MasterUnregistered, effects) {
            return;
        }
        effects.push(Effect::Persist(Record::AttemptFinishing {
            attempt,
            final_status: finish.final_status,
            exit_status: finish.exit_status,
            diagnostics: crate::text::clip(&finish.diagnostics),
            tracking_url: finish.tracking_url.clone(),
        }));
        if let Some(current) = self.current_attempt_mut(attempt) {
            current.finish = Some(finish);
        }
        let application = attempt.application;
        self.step_application(application, ApplicationInput::MasterUnregistered, effects);
        self.withdraw_demands(application);
        if let Some(application) = self.applications.get_mut(&application) {
            application.asks = BTreeMap::new();
        }
        let until = now + self.config.finish_grace_ms;
        self.deadlines.set(DeadlineKey::FinishGrace(attempt), until);
    }

    /// An unmanaged master has no container to wait for: its farewell is its end.
    pub(crate) fn unmanaged_finished(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        let Some(finish) = self.attempt(attempt).and_then(|a| a.finish.clone()) else {
            return;
        };
        let end = crate::attempt::AttemptEnd {
            input: AttemptInput::MasterEnded,
            exit_status: finish.exit_status,
            diagnostics: crate::text::clip(&finish.diagnostics),
            counted: false,
        };
        // It knows: no shutdown behind the acknowledgment.
        let session = self
            .current_attempt_mut(attempt)
            .and_then(|a| a.session.take());
        self.attempt_finished(now, attempt, end, effects);
        if let Some(session) = session {
            effects.push(Effect::CloseSession { session });
        }
    }

    pub(crate) fn on_master_heartbeat(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        session: SessionId,
        (progress_permille, tracking_url): (u16, Option<String>),
        effects: &mut Vec<Effect>,
    ) {
        if !self.master_says(now, attempt, session) {
            return;
        }
        if let Some(application) = self.applications.get_mut(&attempt.application) {
            application.progress_permille = progress_permille.min(1000);
        }
        if let Some(url) = tracking_url {
            self.set_tracking_url(attempt, url, effects);
        }
    }

    /// Its user interface is elsewhere now. One that cannot be is not taken over.
    fn set_tracking_url(&mut self, id: AttemptId, url: String, effects: &mut Vec<Effect>) {
        let is_well = bobbin_types::check_text("tracking URL", &url, TEXT_BYTES_MAX).is_ok();
        let Some(attempt) = self.current_attempt_mut(id) else {
            return;
        };
        if attempt.tracking_url == url || !(is_well || url.is_empty()) {
            return;
        }
        attempt.tracking_url = url;
        self.record_registration(id, effects);
        self.pending.changed.insert(id.application);
    }
}

fn unknown_container(container: ContainerId) -> CompletedContainer {
    CompletedContainer {
        container,
        node: None,
        resource: bobbin_types::Resource::default(),
        exit_status: ExitStatus::ABORTED,
        diagnostics: "no node knows this container any more".to_owned(),
    }
}

/// What is held at once is at its limit.
pub(crate) fn full(what: &'static str, number: usize, max: usize) -> Refusal {
    Refusal::Full {
        what,
        number: u64::try_from(number).unwrap_or(u64::MAX),
        max: u64::try_from(max).unwrap_or(u64::MAX),
    }
}

/// A request has too many parts.
///
/// # Errors
/// When there are more than `max`.
pub(crate) fn too_many(what: &'static str, number: usize, max: usize) -> Result<(), Refusal> {
    if number <= max {
        return Ok(());
    }
    Err(Refusal::TooMany {
        what,
        number: u64::try_from(number).unwrap_or(u64::MAX),
        max: u64::try_from(max).unwrap_or(u64::MAX),
    })
}
