//! A container's way through the node: admitted, launched, ended, cleaned up, acknowledged.

use bobbin_types::{
    AttemptId, ContainerId, ContainerState, ExitStatus, Millis, Resource, WallMillis,
};

use crate::agent::NodeAgent;
use crate::calls::CallError;
use crate::container::{Container, ContainerEvent, ContainerPhase};
use crate::effect::{ContainerReport, ContainerWork, Effect};
use crate::event::{ContainerClaims, Exit, Origin, Record, Starter};
use crate::limits;

/// The exit status of a container that could not be prepared or started for a reason of its own
/// (a file that is not there, an archive that is refused): it counts as a failed attempt.
///
/// Source: `ContainerExitStatus.INVALID`.
pub const INVALID: ExitStatus = ExitStatus(-1000);

/// Why a start is refused, and what becomes of it.
enum Refusal {
    /// Told to whoever asked, nothing is kept: its side knows, or the id is spoken for.
    Answer(String),
    /// The grant is used up: told until it is acknowledged, like an end.
    Exit(Exit),
}

impl NodeAgent {
    pub(crate) fn on_start(
        &mut self,
        now: Millis,
        starter: Starter,
        claims: ContainerClaims,
        problem: Option<String>,
        wall: WallMillis,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(known) = self.containers.get(&claims.container) {
            // A repeat: never run twice, tell what became of the first.
            match starter {
                Starter::Call { call, attempt } => {
                    let error = self.repeated(&attempt, claims.container);
                    NodeAgent::answer_start(call, Err(error), effects);
                }
                Starter::ResourceManager | Starter::Master(_) => {
                    self.answer(starter, known.report(), effects);
                }
            }
            return;
        }
        match self.admit(starter, &claims, problem, wall) {
            Ok(()) => {
                let id = claims.container;
                self.admit_container(starter, claims, effects);
                if let Starter::Call { call, .. } = starter {
                    NodeAgent::answer_start(call, Ok(self.containers[&id].report()), effects);
                }
            }
            Err(Refusal::Answer(diagnostics)) => {
                let report = ContainerReport {
                    container: claims.container,
                    state: ContainerState::Completed,
                    exit_status: Some(ExitStatus::ABORTED),
                    diagnostics,
                    resource: claims.resource,
                };
                self.answer(starter, report, effects);
            }
            Err(Refusal::Exit(exit)) => self.refuse(now, starter, claims, exit, effects),
        }
    }

    /// What the caller of a start may know of a container that is known already.
    fn repeated(&self, attempt: &AttemptId, id: ContainerId) -> CallError {
        if self.is_revoked(attempt) {
            CallError::AttemptEnded(*attempt)
        } else if self.manages(attempt, &id) {
            CallError::AlreadyStarted(id)
        } else {
            CallError::NotYours {
                container: id,
                attempt: *attempt,
            }
        }
    }

    fn admit(
        &mut self,
        starter: Starter,
        claims: &ContainerClaims,
        problem: Option<String>,
        wall: WallMillis,
    ) -> Result<(), Refusal> {
        let id = claims.container;
        let node = &self.config.node;
        let proven = match starter {
            Starter::Master(stream) => self.masters.get(&stream) == Some(&id.attempt),
            Starter::Call { attempt, .. } => attempt == id.attempt,
            Starter::ResourceManager => true,
        };
        if !proven {
            let text = format!("{id} is not of the attempt whose master asks to start it");
            return Err(Refusal::Answer(text));
        }
        if self.ended.contains_key(&id.application()) {
            let text = format!("{} has ended: {id} is not started", id.application());
            return Err(Refusal::Answer(text));
        }
        if self.revoked.contains_key(&id.attempt) {
            let text = format!(
                "{} has ended: its tokens are dead on node {node}",
                id.attempt
            );
            return Err(Refusal::Answer(text));
        }
        if self.used.contains_key(&id) {
            let text = format!("the token of {id} was used already: a container runs once");
            return Err(Refusal::Answer(text));
        }
        if claims.expires <= wall {
            let text = format!(
                "the token of {id} expired {} ms ago; the grant was not used in time",
                wall.0 - claims.expires.0
            );
            return Err(Refusal::Answer(text));
        }
        let aborted = |diagnostics| Exit {
            exit_status: ExitStatus::ABORTED,
            diagnostics,
        };
        if self.containers.len() >= limits::CONTAINERS_MAX
            || self.used.len() >= limits::USED_TOKENS_MAX
        {
            let text = format!(
                "node {node} knows {} containers and {} used tokens, which is its limit",
                self.containers.len(),
                self.used.len()
            );
            return Err(Refusal::Answer(text));
        }
        if !self.problems.is_empty() {
            let text = format!("node {node} takes no work: {}", self.problems.join("; "));
            return Err(Refusal::Exit(aborted(text)));
        }
        if let Some(diagnostics) = problem {
            return Err(Refusal::Exit(Exit {
                exit_status: INVALID,
                diagnostics,
            }));
        }
        self.accounting.admit(&claims.resource).map_err(|no_room| {
            Refusal::Exit(aborted(format!("node {node} cannot start {id}: {no_room}")))
        })
    }

    fn admit_container(
        &mut self,
        starter: Starter,
        claims: ContainerClaims,
        effects: &mut Vec<Effect>,
    ) {
        let id = claims.container;
        let origin = starter.origin();
        self.applications.insert(id.application());
        self.insert(&claims, origin);
        self.step(&id, ContainerEvent::Admitted)
            .expect("a new container can be admitted");
        // Before its record: folders and files may be made while the record is on its way to the
        // disk, since a crash leaves only what the next start sweeps away.
        effects.push(Effect::Localize(ContainerWork {
            container: id,
            user: claims.user.clone(),
            resource: claims.resource,
        }));
        effects.push(Effect::Persist(Record::Admitted { claims, origin }));
    }

    /// Keeps a refused grant as an end, so that it is told until it is acknowledged.
    fn refuse(
        &mut self,
        now: Millis,
        starter: Starter,
        claims: ContainerClaims,
        exit: Exit,
        effects: &mut Vec<Effect>,
    ) {
        let id = claims.container;
        if let Starter::Call { call, .. } = starter {
            let error = CallError::Refused(exit.diagnostics.clone());
            NodeAgent::answer_start(call, Err(error), effects);
        }
        let none = ContainerClaims {
            resource: Resource::default(),
            ..claims
        };
        self.insert(&none, starter.origin());
        let container = self
            .step(&id, ContainerEvent::Refused)
            .expect("a new container can be refused");
        container.exit = Some(exit);
        self.report_exit(now, id, effects);
    }

    fn insert(&mut self, claims: &ContainerClaims, origin: Origin) {
        self.containers.insert(
            claims.container,
            Container {
                id: claims.container,
                user: claims.user.clone(),
                resource: claims.resource,
                expires: claims.expires,
                origin,
                phase: ContainerPhase::New,
                version: 0,
                stop: None,
                exit: None,
                report_again: None,
            },
        );
    }

    /// Answers whoever asked for a start.
    fn answer(&self, starter: Starter, report: ContainerReport, effects: &mut Vec<Effect>) {
        match starter {
            Starter::Master(stream) => effects.push(Effect::ReportToMaster { stream, report }),
            Starter::Call { call, .. } => {
                let error = CallError::Refused(report.diagnostics);
                NodeAgent::answer_start(call, Err(error), effects);
            }
            Starter::ResourceManager => match report.state {
                ContainerState::Completed => effects.push(Effect::ReportExitToRm(report)),
                ContainerState::Running => {
                    effects.push(Effect::ReportStartedToRm(report));
                }
                ContainerState::New
                | ContainerState::Reserved
                | ContainerState::Allocated
                | ContainerState::Acquired
                | ContainerState::Expired
                | ContainerState::Released
                | ContainerState::Killed => {}
            },
        }
    }

    pub(crate) fn on_localized(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        let Some(container) = self.step(&id, ContainerEvent::Localized) else {
            return;
        };
        if container.phase == ContainerPhase::Launching {
            effects.push(Effect::Launch(id));
        } else {
            let exit = Exit {
                exit_status: ExitStatus::ABORTED,
                diagnostics: "it was ended before it was launched".to_owned(),
            };
            self.end(id, exit, effects);
        }
    }

    pub(crate) fn on_launched(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        let Some(container) = self.step(&id, ContainerEvent::Launched) else {
            return;
        };
        if container.phase == ContainerPhase::Stopping {
            // The order to end it may have come before there was anything to end.
            effects.push(Effect::Terminate(id));
            return;
        }
        let report = container.report();
        let by_master = container.origin == Origin::Master;
        if self.rm_attached {
            effects.push(Effect::ReportStartedToRm(report.clone()));
        }
        if by_master {
            self.report_to_master(&report, effects);
        }
    }

    /// Its processes are gone, or never were.
    pub(crate) fn on_ended(
        &mut self,
        id: ContainerId,
        event: ContainerEvent,
        exit: Exit,
        effects: &mut Vec<Effect>,
    ) {
        if self.step(&id, event).is_some() {
            self.end(id, exit, effects);
        }
    }

    fn end(&mut self, id: ContainerId, exit: Exit, effects: &mut Vec<Effect>) {
        let container = self
            .containers
            .get_mut(&id)
            .expect("the caller has stepped it");
        if container.exit.is_none() {
            let exit = final_exit(container.stop.as_ref(), exit);
            container.exit = Some(exit.clone());
            effects.push(Effect::Persist(Record::Exited {
                container: id,
                exit,
            }));
        }
        effects.push(Effect::CleanUp(id));
    }

    pub(crate) fn on_cleaned_up(
        &mut self,
        now: Millis,
        id: ContainerId,
        effects: &mut Vec<Effect>,
    ) {
        if self.step(&id, ContainerEvent::CleanedUp).is_none() {
            return;
        }
        self.report_exit(now, id, effects);
        self.clean_up_application_if_last(id.application(), effects);
    }

    fn report_exit(&mut self, now: Millis, id: ContainerId, effects: &mut Vec<Effect>) {
        let attached = self.rm_attached;
        let container = self
            .containers
            .get_mut(&id)
            .expect("the caller has stepped it");
        container.report_again = Some(now.after(limits::REPORT_AGAIN_MS));
        let report = container.report();
        let by_master = container.origin == Origin::Master;
        if by_master {
            self.report_to_master(&report, effects);
        }
        if attached {
            effects.push(Effect::ReportExitToRm(report));
        }
    }

    pub(crate) fn on_acknowledged(&mut self, id: ContainerId, effects: &mut Vec<Effect>) {
        // A repeat, or the acknowledgment of a refusal that was not kept.
        if !self.containers.contains_key(&id) {
            return;
        }
        if self.step(&id, ContainerEvent::Acknowledged).is_none() {
            return;
        }
        let container = self.containers.remove(&id).expect("it was just stepped");
        let ended = self.ended.contains_key(&id.application());
        if !ended {
            self.used.insert(id, container.expires);
        }
        effects.push(Effect::Persist(Record::Done {
            container: id,
            expires: container.expires,
        }));
        effects.push(Effect::Forget(id));
    }

    pub(crate) fn on_stop(
        &mut self,
        now: Millis,
        id: ContainerId,
        exit: Exit,
        wall: WallMillis,
        effects: &mut Vec<Effect>,
    ) {
        if self.containers.contains_key(&id) {
            self.stop_known(now, id, exit, effects);
        } else {
            self.stop_unseen(id, wall, effects);
            if self.rm_attached {
                effects.push(Effect::ReportExitToRm(unseen_report(id, exit)));
            }
        }
    }

    pub(crate) fn on_stop_by_master(
        &mut self,
        now: Millis,
        stream: crate::event::StreamId,
        id: ContainerId,
        wall: WallMillis,
        effects: &mut Vec<Effect>,
    ) {
        let attempt = self.masters.get(&stream);
        if !attempt.is_some_and(|attempt| self.manages(attempt, &id)) {
            let text = format!("{id} is not of the attempt whose master asks to end it");
            let exit = Exit {
                exit_status: ExitStatus::ABORTED,
                diagnostics: text,
            };
            effects.push(Effect::ReportToMaster {
                stream,
                report: unseen_report(id, exit),
            });
            return;
        }
        let exit = Exit {
            exit_status: ExitStatus::KILLED_BY_APPMASTER,
            diagnostics: "ended by its application master".to_owned(),
        };
        if self.containers.contains_key(&id) {
            self.stop_known(now, id, exit, effects);
        } else {
            self.stop_unseen(id, wall, effects);
            effects.push(Effect::ReportToMaster {
                stream,
                report: unseen_report(id, exit),
            });
        }
    }

    /// A stop that overtook its start: the start must not run it any more.
    fn stop_unseen(&mut self, id: ContainerId, wall: WallMillis, effects: &mut Vec<Effect>) {
        let needless = self.is_revoked(&id.attempt) || self.used.contains_key(&id);
        if !needless && self.used.len() < limits::USED_TOKENS_MAX {
            let expires = WallMillis(wall.0.saturating_add(limits::STOPPED_UNSEEN_MS));
            self.used.insert(id, expires);
            effects.push(Effect::Persist(Record::Done {
                container: id,
                expires,
            }));
        }
    }

    pub(crate) fn stop_known(
        &mut self,
        now: Millis,
        id: ContainerId,
        exit: Exit,
        effects: &mut Vec<Effect>,
    ) {
        let Some(container) = self.step(&id, ContainerEvent::StopRequested) else {
            return;
        };
        match container.phase {
            ContainerPhase::New | ContainerPhase::Stopping => {
                // The first reason stays.
                if container.stop.is_none() {
                    container.stop = Some(exit.clone());
                    effects.push(Effect::Persist(Record::StopRequested {
                        container: id,
                        exit,
                    }));
                }
                if container.phase == ContainerPhase::Stopping {
                    effects.push(Effect::Terminate(id));
                }
            }
            ContainerPhase::Exited => self.report_exit(now, id, effects),
            // Its end is about to be told.
            ContainerPhase::CleaningUp
            | ContainerPhase::Localizing
            | ContainerPhase::Launching
            | ContainerPhase::Running
            | ContainerPhase::Done => {}
        }
    }

    pub(crate) fn on_revoke_attempt(
        &mut self,
        now: Millis,
        attempt: AttemptId,
        keep_containers: bool,
        effects: &mut Vec<Effect>,
    ) {
        if self.ended.contains_key(&attempt.application) {
            return;
        }
        // Once its containers are to end, no repeat saves them.
        let keep_containers = keep_containers && self.revoked.get(&attempt) != Some(&false);
        if self.revoked.insert(attempt, keep_containers) != Some(keep_containers) {
            if self.revoked.len() > limits::REVOKED_ATTEMPTS_MAX {
                // The oldest; its tokens have long expired.
                self.revoked.pop_first();
            }
            effects.push(Effect::Persist(Record::AttemptRevoked {
                attempt,
                keep_containers,
            }));
        }
        let exit = Exit {
            exit_status: ExitStatus::KILLED_BY_RESOURCEMANAGER,
            diagnostics: format!("{attempt} has ended"),
        };
        let ids: Vec<_> = self
            .containers
            .values()
            .filter(|c| c.id.attempt == attempt)
            // Its master ends with it in any case.
            .filter(|c| !keep_containers || c.origin == Origin::ResourceManager)
            .map(|c| c.id)
            .collect();
        for id in ids {
            self.stop_known(now, id, exit.clone(), effects);
        }
        self.close_masters(|a| *a == attempt, effects);
    }

    pub(crate) fn close_masters(
        &mut self,
        dead: impl Fn(&AttemptId) -> bool,
        effects: &mut Vec<Effect>,
    ) {
        let gone: Vec<_> = self
            .masters
            .iter()
            .filter(|(_, a)| dead(a))
            .map(|(s, a)| (*s, *a))
            .collect();
        for (stream, attempt) in gone {
            self.masters.remove(&stream);
            let reason = format!("{attempt} has ended: its tokens are dead on this node");
            effects.push(Effect::CloseMaster { stream, reason });
        }
    }
}

/// The cluster's reason wins over how the processes ended, except over the words that say that the
/// container was above its memory: those explain more.
fn final_exit(stop: Option<&Exit>, ended: Exit) -> Exit {
    match stop {
        Some(stop) if ended.exit_status != ExitStatus::KILLED_EXCEEDED_PMEM => stop.clone(),
        Some(_) | None => ended,
    }
}

fn unseen_report(container: ContainerId, exit: Exit) -> ContainerReport {
    ContainerReport {
        container,
        state: ContainerState::Completed,
        exit_status: Some(exit.exit_status),
        diagnostics: exit.diagnostics,
        resource: Resource::default(),
    }
}

impl Starter {
    fn origin(self) -> Origin {
        match self {
            Starter::ResourceManager => Origin::ResourceManager,
            Starter::Master(_) | Starter::Call { .. } => Origin::Master,
        }
    }
}
