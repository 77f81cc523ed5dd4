//! A restarted agent: records replayed, then what was found of each container on record.

use bobbin_types::{ContainerId, ExitStatus, Millis};

use crate::agent::NodeAgent;
use crate::container::{Container, ContainerEvent, ContainerPhase};
use crate::effect::Effect;
use crate::event::{ContainerClaims, Exit, Found, Origin, Record};

impl NodeAgent {
    /// Replays one record; no effects, since nothing may be done before all are replayed.
    pub(crate) fn on_recovered(&mut self, record: Record) {
        match record {
            Record::Admitted { claims, origin } => self.recover_admitted(claims, origin),
            Record::StopRequested { container, exit } => {
                if let Some(container) = self.containers.get_mut(&container) {
                    container.stop.get_or_insert(exit);
                }
            }
            Record::Exited { container, exit } => {
                if let Some(container) = self.containers.get_mut(&container) {
                    container.exit = Some(exit);
                }
            }
            Record::Done { container, expires } => {
                if let Some(container) = self.containers.remove(&container)
                    && container.phase.holds_resource()
                {
                    self.accounting.release(&container.resource);
                }
                if !self.ended.contains_key(&container.application()) {
                    self.used.insert(container, expires);
                }
            }
            Record::AttemptRevoked {
                attempt,
                keep_containers,
            } => {
                if !self.ended.contains_key(&attempt.application) {
                    self.revoked.insert(attempt, keep_containers);
                }
            }
            Record::Resized {
                container,
                resource,
                version,
            } => {
                if let Some(container) = self.containers.get_mut(&container) {
                    self.accounting.release(&container.resource);
                    self.accounting.count_found(&resource);
                    container.resource = resource;
                    container.version = version;
                }
            }
            Record::ApplicationEnded { application, ended } => {
                self.ended.insert(application, ended);
                self.ending.insert(application);
                self.applications.remove(&application);
                self.forget_tokens_of(application);
            }
            Record::LogsDeleted(application) => {
                self.ended.remove(&application);
                self.ending.remove(&application);
            }
        }
    }

    fn recover_admitted(&mut self, claims: ContainerClaims, origin: Origin) {
        let ContainerClaims {
            container: id,
            user,
            resource,
            expires,
        } = claims;
        if self.containers.contains_key(&id) || self.used.contains_key(&id) {
            return;
        }
        self.accounting.count_found(&resource);
        self.on_application_found(id.application());
        self.containers.insert(
            id,
            Container {
                id,
                user,
                resource,
                expires,
                origin,
                phase: ContainerPhase::New,
                version: 0,
                stop: None,
                exit: None,
                report_again: None,
            },
        );
    }

    pub(crate) fn on_found(
        &mut self,
        now: Millis,
        id: ContainerId,
        found: Found,
        effects: &mut Vec<Effect>,
    ) {
        match found {
            Found::Running => self.on_found_running(now, id, effects),
            Found::Ended(exit) => {
                self.on_ended(id, ContainerEvent::FoundEndedOrGone, exit, effects);
            }
            Found::Gone => {
                let exit = Exit {
                    exit_status: ExitStatus::ABORTED,
                    diagnostics: format!(
                        "nothing was left of the container when the agent of node {} came back: \
                         it had not been launched, or the host was restarted",
                        self.config.node
                    ),
                };
                self.on_ended(id, ContainerEvent::FoundEndedOrGone, exit, effects);
            }
        }
    }

    fn on_found_running(&mut self, now: Millis, id: ContainerId, effects: &mut Vec<Effect>) {
        let Some(container) = self.step(&id, ContainerEvent::FoundRunning) else {
            return;
        };
        let stop = container.stop.take().or_else(|| {
            // Its end was on record while something of it still ran: finish the work.
            container.exit.take()
        });
        let ended = self.ended.contains_key(&id.application())
            || self.revoked.get(&id.attempt) == Some(&false);
        match stop {
            Some(exit) => self.stop_known(now, id, exit, effects),
            None if ended => {
                let exit = Exit {
                    exit_status: ExitStatus::KILLED_BY_RESOURCEMANAGER,
                    diagnostics: format!("{} has ended", id.attempt),
                };
                self.stop_known(now, id, exit, effects);
            }
            None => {}
        }
    }

    /// Records that rebuild this state: what a compacted journal holds.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (application, ended) in &self.ended {
            records.push(Record::ApplicationEnded {
                application: *application,
                ended: *ended,
            });
        }
        records.extend(self.revoked.iter().map(|(attempt, keep_containers)| {
            Record::AttemptRevoked {
                attempt: *attempt,
                keep_containers: *keep_containers,
            }
        }));
        for (container, expires) in &self.used {
            records.push(Record::Done {
                container: *container,
                expires: *expires,
            });
        }
        for c in self.containers.values() {
            let claims = ContainerClaims {
                container: c.id,
                user: c.user.clone(),
                resource: c.resource,
                expires: c.expires,
            };
            records.push(Record::Admitted {
                claims,
                origin: c.origin,
            });
            if c.version > 0 {
                records.push(Record::Resized {
                    container: c.id,
                    resource: c.resource,
                    version: c.version,
                });
            }
            if let Some(exit) = &c.stop {
                records.push(Record::StopRequested {
                    container: c.id,
                    exit: exit.clone(),
                });
            }
            if let Some(exit) = &c.exit {
                records.push(Record::Exited {
                    container: c.id,
                    exit: exit.clone(),
                });
            }
        }
        records
    }
}
