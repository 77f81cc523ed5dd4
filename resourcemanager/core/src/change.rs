//! What people change of an application that was taken: its priority, queue and lifetime, its
//! attempt, its containers.

use std::cmp::Reverse;
use std::sync::Arc;

use bobbin_types::{
    ApplicationId, AttemptId, AttemptState, ContainerId, ContainerState, ExitStatus, Millis,
    WallMillis,
};

use crate::attempt::{AttemptEnd, AttemptInput};
use crate::authority::{Operation, Principal};
use crate::container::ContainerInput;
use crate::event::{ContainerSignal, Event};
use crate::manager::ResourceManager;
use crate::queue::WaitingDemand;
use crate::record::{Lifetime, Record};
use crate::scheduler::DemandKey;
use crate::{Effect, NodeCommand, Refusal, Reply};

impl ResourceManager {
    /// One of the changes; the caller hands no other event.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the caller lists the changes"
    )]
    pub(crate) fn dispatch_change(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        let (request, result) = match event {
            Event::SetPriority {
                request,
                principal,
                application,
                priority,
            } => {
                let set = self.set_priority(&principal, application, priority, effects);
                (request, set)
            }
            Event::MoveToQueue {
                request,
                principal,
                application,
                queue,
            } => {
                let moved = self.move_to_queue(&principal, application, queue, effects);
                (request, moved)
            }
            Event::SetTimeout {
                request,
                principal,
                application,
                expires,
            } => {
                let set = self.set_timeout(now, &principal, application, expires, effects);
                (request, set)
            }
            Event::FailAttempt {
                request,
                principal,
                attempt,
            } => {
                let failing = self.fail_attempt(now, &principal, attempt, effects);
                (request, failing)
            }
            Event::SignalContainer {
                request,
                principal,
                container,
                signal,
            } => {
                let signaled = self.signal_container(&principal, container, signal, effects);
                (request, signaled)
            }
            _ => return,
        };
        effects.push(Effect::Reply { request, result });
    }

    /// The application may be changed by this principal and lives.
    fn check_change(
        &self,
        principal: &Principal,
        operation: Operation,
        id: ApplicationId,
    ) -> Result<(), Refusal> {
        self.check_ready()?;
        let application = self.application_of(principal, operation, id)?;
        if application.state.is_ended() {
            return Err(Refusal::ApplicationEnded(id));
        }
        Ok(())
    }

    fn record_change(&mut self, id: ApplicationId, effects: &mut Vec<Effect>) {
        if let Some(application) = self.applications.get(&id) {
            effects.push(Effect::Persist(application.updated()));
            self.pending.changed.insert(id);
        }
    }

    fn set_priority(
        &mut self,
        principal: &Principal,
        id: ApplicationId,
        priority: i32,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_change(principal, Operation::SetPriority, id)?;
        let reply = Reply::PrioritySet {
            application: id,
            priority,
        };
        let Some(application) = self.applications.get(&id) else {
            return Err(Refusal::UnknownApplication(id.to_string()));
        };
        if application.turn.priority == Reverse(priority) {
            return Ok(reply);
        }
        // It stands elsewhere in the queue from now on, with all that it waits for.
        let keys = application.asks.keys().map(|key| Some(Arc::clone(key)));
        let turn = application.turn;
        let waiting: Vec<(Option<_>, WaitingDemand)> = keys
            .chain([None])
            .filter_map(|ask| {
                let key = DemandKey { turn, ask };
                let demand = self.queue.waiting(&key)?.clone();
                Some((key.ask, demand))
            })
            .collect();
        for (ask, _) in &waiting {
            let key = DemandKey {
                turn,
                ask: ask.clone(),
            };
            self.queue.remove(&key);
            self.pending.demands.remove(&key);
        }
        let Some(application) = self.applications.get_mut(&id) else {
            return Err(Refusal::UnknownApplication(id.to_string()));
        };
        application.turn.priority = Reverse(priority);
        let turn = application.turn;
        for (ask, demand) in waiting {
            self.queue.insert(DemandKey { turn, ask }, demand);
        }
        self.record_change(id, effects);
        Ok(reply)
    }

    fn move_to_queue(
        &mut self,
        principal: &Principal,
        id: ApplicationId,
        queue: String,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_change(principal, Operation::MoveApplication, id)?;
        self.check_queue_name(&queue)?;
        let Some(application) = self.applications.get_mut(&id) else {
            return Err(Refusal::UnknownApplication(id.to_string()));
        };
        if application.queue != queue {
            application.queue.clone_from(&queue);
            self.record_change(id, effects);
        }
        Ok(Reply::Moved {
            application: id,
            queue,
        })
    }

    fn set_timeout(
        &mut self,
        now: Millis,
        principal: &Principal,
        id: ApplicationId,
        expires: Option<WallMillis>,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_change(principal, Operation::SetTimeout, id)?;
        if let Some(past) = expires.filter(|expires| *expires <= self.wall) {
            return Err(Refusal::TimeoutInPast {
                application: id,
                expires_ms: past.0,
                now_ms: self.wall.0,
            });
        }
        let wall = self.wall;
        if let Some(application) = self.applications.get_mut(&id) {
            application.lifetime = expires.map(|expires| Lifetime {
                expires,
                span_ms: expires.0.saturating_sub(wall.0),
            });
        }
        self.watch_lifetime(now, id);
        self.record_change(id, effects);
        Ok(Reply::TimeoutSet {
            application: id,
            expires,
        })
    }

    fn fail_attempt(
        &mut self,
        now: Millis,
        principal: &Principal,
        id: AttemptId,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_change(principal, Operation::FailAttempt, id.application)?;
        let attempt = self.attempt(id).ok_or(Refusal::UnknownAttempt(id))?;
        let over = |reason: &str| Refusal::AttemptOver {
            attempt: id,
            reason: reason.to_owned(),
        };
        match attempt.state {
            AttemptState::Finished | AttemptState::Failed | AttemptState::Killed => {
                return Err(over("it has ended"));
            }
            AttemptState::Finishing => return Err(over("its master has unregistered")),
            AttemptState::New | AttemptState::Scheduled | AttemptState::Allocated => {
                return Err(Refusal::AttemptNotStarted(id));
            }
            AttemptState::Launched | AttemptState::Running => {}
        }
        let reason = format!("failed by {principal}");
        let is_new = attempt.verdict.is_none();
        if attempt.place.is_some() {
            let reason = crate::text::clip(&reason);
            if is_new {
                effects.push(Effect::Persist(Record::AttemptFailing {
                    attempt: id,
                    reason: Arc::clone(&reason),
                }));
            }
            self.condemn(id, reason, effects);
        } else {
            let end = AttemptEnd {
                input: AttemptInput::MasterEnded,
                exit_status: Some(ExitStatus::KILLED_BY_RESOURCEMANAGER),
                diagnostics: crate::text::clip(&reason),
                counted: true,
            };
            self.attempt_failed(now, id, end, effects);
        }
        Ok(Reply::AttemptFailing { attempt: id })
    }

    /// Ends an attempt's master for a reason that makes the attempt a failed one.
    pub(crate) fn condemn(&mut self, id: AttemptId, reason: Arc<str>, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.current_attempt_mut(id) else {
            return;
        };
        let Some((container, _)) = attempt.place.clone() else {
            return;
        };
        attempt.verdict = Some(Arc::clone(&reason));
        let status = ExitStatus::KILLED_BY_RESOURCEMANAGER;
        let input = ContainerInput::KillOrdered;
        self.stop_container(container, input, status, &reason, effects);
    }

    fn signal_container(
        &mut self,
        principal: &Principal,
        id: ContainerId,
        signal: ContainerSignal,
        effects: &mut Vec<Effect>,
    ) -> Result<Reply, Refusal> {
        self.check_ready()?;
        let operation = Operation::SignalContainer;
        let application = self.application_of(principal, operation, id.application())?;
        let Some(container) = self.containers.get(&id) else {
            let has_ended = application.ended_containers.contains_key(&id);
            return Err(if has_ended {
                Refusal::ContainerNotRunning(id)
            } else {
                Refusal::UnknownContainer(id)
            });
        };
        if container.state != ContainerState::Running {
            return Err(Refusal::ContainerNotRunning(id));
        }
        let node = self.nodes.get(&container.node);
        if let Some(node) = node.filter(|node| node.session.is_none()) {
            return Err(Refusal::NodeAway {
                node: node.id.clone(),
                container: id,
            });
        }
        let command = NodeCommand::SignalContainer {
            container: id,
            signal,
        };
        self.tell_node(container.node, command, effects);
        Ok(Reply::Signaled { container: id })
    }
}
