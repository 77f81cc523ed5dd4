//! People: they submit, repeat what was not answered, kill, and remember what they were told.

use std::collections::BTreeMap;

use bobbin_rm_core::{
    ContainerSignal, Event, Groups, LaunchContext, LaunchContract, Principal, Refusal, Reply,
    RequestId, SessionId, Submission,
};
use bobbin_types::{
    ApplicationId, ApplicationState, ContainerId, ExitStatus, Resource, WallMillis,
};

use crate::rng::Rng;
use crate::world::{Action, World, user};

/// What is submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    pub(crate) unmanaged: bool,
    pub(crate) tied: bool,
    /// Its masters are of YARN's contract.
    pub(crate) yarn: bool,
    /// Executors outlive an attempt.
    pub(crate) keep: bool,
    pub(crate) executors: u32,
    pub(crate) tasks: u64,
    /// Drivers of attempts up to this one end with an error.
    pub(crate) failing_attempts: u32,
    pub(crate) master: Resource,
    pub(crate) executor: Resource,
}

/// One application's submitter.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) spec: Spec,
    pub(crate) id: Option<ApplicationId>,
    /// The submission was acknowledged: from now on it may not be lost.
    pub(crate) acknowledged: bool,
    pub(crate) wants_kill: bool,
    pub(crate) killed: bool,
    /// Its lease's session and the resource manager it was held at.
    lease: Option<(SessionId, u64)>,
    /// It will not be heard of again.
    gone: bool,
    /// What was once seen of an ended application stays so.
    pub(crate) ended: Option<(ApplicationState, Option<ExitStatus>)>,
}

impl Client {
    pub(crate) fn new(rng: &mut Rng) -> Client {
        let executors = if rng.chance(600) { rng.range(1, 3) } else { 0 };
        let unmanaged = rng.chance(200);
        Client {
            spec: Spec {
                unmanaged,
                tied: !unmanaged && rng.chance(150),
                yarn: rng.chance(400),
                keep: rng.chance(300),
                executors: u32::try_from(executors).unwrap_or(0),
                tasks: if executors > 0 { rng.range(1, 8) } else { 0 },
                failing_attempts: u32::try_from(rng.range(0, 9).saturating_sub(7)).unwrap_or(0),
                master: Resource::new(rng.range(1, 6) * 64, 1),
                // On the smallest node there is room for one beside as many masters as may run:
                // else two masters could wait for each other's room for ever.
                executor: Resource::new(rng.range(1, 8).min(6) * 64, 1),
            },
            id: None,
            acknowledged: false,
            wants_kill: false,
            killed: false,
            lease: None,
            gone: false,
            ended: None,
        }
    }
}

fn principal() -> Principal {
    Principal::User {
        name: user(),
        administrator: false,
        groups: Groups::default(),
    }
}

impl World {
    /// What a client does next; it looks again in a while.
    pub(crate) fn client_step(&mut self, client: usize) {
        let this = &self.clients[client];
        let (id, acknowledged) = (this.id, this.acknowledged);
        if acknowledged && !this.spec.tied {
            return;
        }
        if self.rm.open && !this.gone {
            match id {
                None => {
                    let request = self.request(client);
                    let principal = principal();
                    self.rm_event(Event::NewApplication { request, principal });
                }
                Some(id) if !acknowledged => self.submit(client, id),
                Some(id) => self.hold_lease(client, id),
            }
        }
        if self.clients[client].ended.is_none() {
            self.at(1_000, Action::Client { client });
        }
    }

    fn request(&mut self, client: usize) -> RequestId {
        let request = RequestId(self.number());
        self.rm.requests.insert(request, client);
        request
    }

    fn submit(&mut self, client: usize, id: ApplicationId) {
        let spec = self.clients[client].spec;
        let argv = if spec.unmanaged {
            Vec::new()
        } else {
            vec!["driver".to_owned()]
        };
        let submission = Submission {
            application: Some(id),
            name: format!("client {client}"),
            queue: String::new(),
            priority: 0,
            unmanaged: spec.unmanaged,
            launch: LaunchContext {
                argv,
                contract: if spec.yarn {
                    LaunchContract::Yarn
                } else {
                    LaunchContract::Bobbin
                },
                ..LaunchContext::default()
            },
            resource: if spec.unmanaged {
                Resource::default()
            } else {
                spec.master
            },
            overhead: Resource::default(),
            max_attempts: 2,
            tags: Vec::new(),
            timeout_ms: 0,
            tie_to_client: spec.tied,
            application_type: String::new(),
            settings: BTreeMap::new(),
            node_label: String::new(),
            keep_containers: spec.keep,
            failures_validity_ms: None,
            view_acl: String::new(),
            modify_acl: String::new(),
        };
        let request = self.request(client);
        let principal = principal();
        self.rm_event(Event::Submit {
            request,
            principal,
            submission: Box::new(submission),
        });
    }

    fn hold_lease(&mut self, client: usize, application: ApplicationId) {
        if self.chaos && self.rng.chance(60) {
            // kill -9 of the submitter: its stream breaks, nobody holds the lease again.
            self.clients[client].gone = true;
            self.say(|| format!("client {client} is gone"));
            if let Some((session, life)) = self.clients[client].lease
                && life == self.rm.life
            {
                self.rm_event(Event::LeaseLost {
                    application,
                    session,
                });
            }
            return;
        }
        if self.clients[client]
            .lease
            .is_none_or(|(_, life)| life != self.rm.life)
        {
            let session = SessionId(self.number());
            self.clients[client].lease = Some((session, self.rm.life));
            let request = self.request(client);
            let principal = principal();
            self.rm_event(Event::LeaseHeld {
                request,
                principal,
                application,
                session,
            });
        }
    }

    pub(crate) fn kill_by_user(&mut self, client: usize) {
        self.clients[client].wants_kill = true;
        if self.clients[client].killed {
            return;
        }
        if let (Some(application), true, true) = (
            self.clients[client].id,
            self.clients[client].acknowledged,
            self.rm.open,
        ) {
            let request = self.request(client);
            let (principal, reason) = (principal(), "not needed any more".to_owned());
            self.rm_event(Event::Kill {
                request,
                principal,
                application,
                wait: true,
                reason,
            });
        }
        // Asked again until it is answered: kill is idempotent.
        self.at(3_000, Action::KillByUser { client });
    }

    /// Somebody changes what runs: nothing of it may break a promise.
    pub(crate) fn change_by_user(&mut self, client: usize) {
        let id = self.clients[client].id;
        let (Some(application), true) = (id, self.rm.open && self.clients[client].acknowledged)
        else {
            return;
        };
        let core = self.rm.core.as_ref();
        let report = core.and_then(|core| core.application(application));
        let (request, principal) = (self.request(client), principal());
        let kind = self.rng.range(0, 5);
        let event = match (kind, report.and_then(|report| report.current_attempt)) {
            (0, _) => Event::SetPriority {
                request,
                principal,
                application,
                priority: 5,
            },
            (1, _) => Event::MoveToQueue {
                request,
                principal,
                application,
                queue: "default".to_owned(),
            },
            (2, _) => Event::SetTimeout {
                request,
                principal,
                application,
                expires: Some(WallMillis(self.wall().0 + 300_000)),
            },
            (3, Some(attempt)) => Event::SignalContainer {
                request,
                principal,
                container: ContainerId {
                    attempt,
                    epoch: 1,
                    number: 2,
                },
                signal: ContainerSignal::Graceful,
            },
            (4, Some(attempt)) => Event::FailAttempt {
                request,
                principal,
                attempt,
            },
            _ => Event::SetTimeout {
                request,
                principal,
                application,
                expires: None,
            },
        };
        self.rm_event(event);
    }

    pub(crate) fn client_hears(&mut self, request: RequestId, result: Result<Reply, Refusal>) {
        let Some(client) = self.rm.requests.remove(&request) else {
            return;
        };
        match result {
            Ok(Reply::NewApplication { application, .. }) => {
                let taken = self.clients.iter().any(|c| c.id == Some(application));
                if taken {
                    self.violate(format!("{application} was handed out twice"));
                }
                if self.clients[client].id.is_none() {
                    self.clients[client].id = Some(application);
                    self.at(1, Action::Client { client });
                }
            }
            Ok(Reply::Submitted {
                application,
                attempt,
            }) => {
                if !self.clients[client].acknowledged {
                    self.summary.applications += 1;
                    self.clients[client].acknowledged = true;
                    self.say(|| format!("{application} is acknowledged"));
                    if let Some(attempt) = attempt {
                        self.begin_master(attempt, None);
                    }
                }
            }
            Ok(Reply::Killed { application, .. }) => {
                self.clients[client].killed = true;
                self.check_killed(application);
            }
            Ok(
                Reply::LeaseHeld { .. }
                | Reply::PrioritySet { .. }
                | Reply::Moved { .. }
                | Reply::TimeoutSet { .. }
                | Reply::AttemptFailing { .. }
                | Reply::Signaled { .. },
            ) => {}
            Err(refusal) => self.refused(client, &refusal),
        }
    }

    fn refused(&mut self, client: usize, refusal: &Refusal) {
        // What was acknowledged or handed out may not be unknown later.
        let forgotten = matches!(
            refusal,
            Refusal::IdNotIssued(_)
                | Refusal::IdOfAnother(_)
                | Refusal::IdForgotten(_)
                | Refusal::UnknownApplication(_)
        );
        if forgotten {
            self.violate(format!("client {client} was refused: {refusal}"));
        }
        self.say(|| format!("client {client} is refused: {refusal}"));
        // A lease on an application that has ended is refused: there is nothing to hold.
        if matches!(refusal, Refusal::ApplicationEnded(_)) {
            self.clients[client].gone = true;
        }
    }
}
