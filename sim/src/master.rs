//! Application masters with their drivers and executors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bobbin_am_core::{
    ApplicationMaster, Completed, Config, Effect, Event, Grant, StageId, TaskKey, TaskRef,
};
use bobbin_na_core::{ContainerClaims, ContainerReport, StreamId};
use bobbin_rm_core::{Ask, AskKey, Finish, MasterMessage, MasterRegistration};
use bobbin_types::{AttemptId, ContainerId, ExitStatus, FinalStatus, Millis, Resource, WallMillis};

use crate::link::{Ends, ExecutorMessage, LinkId, Message, To};
use crate::world::{Action, World, user};

/// One attempt's master: a process in a container, or a client-mode submitter.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) attempt: AttemptId,
    /// `None` for a client-mode submitter.
    pub(crate) container: Option<ContainerId>,
    pub(crate) client: usize,
    pub(crate) alive: bool,
    core: ApplicationMaster,
    rm_link: Option<LinkId>,
    pub(crate) node_links: BTreeMap<usize, LinkId>,
    connecting: BTreeSet<usize>,
    /// Of YARN's contract.
    pub(crate) yarn: bool,
    pub(crate) barred: BTreeSet<String>,
    /// Of containers whose size was changed.
    pub(crate) versions: BTreeMap<ContainerId, u32>,
    grants: BTreeMap<ContainerId, (usize, ContainerClaims)>,
    /// Said to nodes, and said again after a lost stream.
    starts: BTreeMap<ContainerId, usize>,
    stops: BTreeMap<ContainerId, usize>,
    final_tasks: BTreeSet<u64>,
    /// The driver's work is done: this is its exit code.
    ended: Option<i32>,
    finish: Option<Finish>,
    tick: Option<Millis>,
}

impl Master {
    pub(crate) fn granted(&self) -> impl Iterator<Item = ContainerId> + '_ {
        self.grants.keys().copied()
    }

    /// For the message when a run does not end.
    pub(crate) fn words(&self) -> String {
        let Master {
            attempt,
            container,
            rm_link,
            starts,
            stops,
            ended,
            finish,
            ..
        } = self;
        format!(
            "master of {attempt} in {container:?} lives: stream {rm_link:?}, starts {starts:?}, stops \
             {stops:?}, driver ended {ended:?}, says {finish:?}, {:?}, executors {:?}",
            self.core.counts(),
            self.core.executors().collect::<Vec<_>>()
        )
    }
}

/// The driver's one stage.
const STAGE: StageId = StageId(1);
const MONTH_MS: u64 = 30 * 24 * 3600 * 1000;

impl World {
    pub(crate) fn claims(&self, container: ContainerId, resource: Resource) -> ContainerClaims {
        let expires = WallMillis(self.wall().0 + MONTH_MS);
        ContainerClaims {
            container,
            user: user(),
            resource,
            expires,
        }
    }

    /// A process was launched: it is a master, or the executor of one.
    pub(crate) fn begin_process(&mut self, container: ContainerId, is_master: bool) {
        let attempt = container.attempt;
        if is_master {
            self.begin_master(attempt, Some(container));
            return;
        }
        let master = self.master_of.get(&attempt).copied();
        if let Some(process) = self.processes.get_mut(&container) {
            process.master = master;
        }
        match master {
            Some(master) if self.masters[master].alive => {
                let delay = self.rng.range(5, 200);
                let message = ExecutorMessage::Register;
                self.at(
                    delay,
                    Action::FromExecutor {
                        master,
                        container,
                        message,
                    },
                );
            }
            // Nobody answers: it leaves.
            Some(_) | None => self.at(
                5_000,
                Action::ProcessEnds {
                    container,
                    exit_status: 1,
                },
            ),
        }
    }

    pub(crate) fn begin_master(&mut self, attempt: AttemptId, container: Option<ContainerId>) {
        let client = self
            .clients
            .iter()
            .position(|c| c.id == Some(attempt.application));
        let Some(client) = client else {
            self.violate(format!("{attempt} runs but nobody submitted it"));
            return;
        };
        let spec = self.clients[client].spec;
        let index = self.masters.len();
        self.masters.push(Master {
            attempt,
            container,
            client,
            alive: true,
            // Short, so that a node that chaos had excluded is used again within the run.
            core: ApplicationMaster::new(Config {
                exclusion_ms: 60_000,
                ..Config::new(spec.executors, spec.executor)
            }),
            rm_link: None,
            node_links: BTreeMap::new(),
            connecting: BTreeSet::new(),
            yarn: spec.yarn,
            barred: BTreeSet::new(),
            versions: BTreeMap::new(),
            grants: BTreeMap::new(),
            starts: BTreeMap::new(),
            stops: BTreeMap::new(),
            final_tasks: BTreeSet::new(),
            ended: None,
            finish: None,
            tick: None,
        });
        self.master_of.insert(attempt, index);
        if let Some(process) = container.and_then(|c| self.processes.get_mut(&c)) {
            process.master = Some(index);
        }
        self.at(1, Action::MasterConnect { master: index });
        self.at(1_000, Action::MasterHeartbeat { master: index });
        if spec.tasks > 0 {
            self.master_event(index, Event::StageOpened { stage: STAGE });
            for task in 0..spec.tasks {
                let task = TaskKey(task);
                self.master_event(
                    index,
                    Event::TaskSubmitted {
                        stage: STAGE,
                        task,
                        slots: 1,
                    },
                );
            }
            self.master_event(index, Event::StageClosed { stage: STAGE });
        } else {
            let work = self.rng.range(10, 6_000);
            self.at(work, Action::DriverStep { master: index });
        }
    }

    fn master_node(&self, master: usize) -> Option<usize> {
        let container = self.masters[master].container?;
        self.processes.get(&container).map(|p| p.node)
    }

    fn master_reaches(&self, master: usize, node: usize) -> bool {
        self.master_node(master) == Some(node) || self.nodes[node].partitioned_until <= self.now
    }

    pub(crate) fn master_connect(&mut self, master: usize) {
        let this = &self.masters[master];
        if !this.alive || this.rm_link.is_some() {
            return;
        }
        let cut = self
            .master_node(master)
            .is_some_and(|n| self.nodes[n].partitioned_until > self.now);
        if !self.rm.open || cut {
            self.at(400, Action::MasterConnect { master });
            return;
        }
        let link = self.open(Ends::MasterToRm { master });
        let this = &mut self.masters[master];
        this.rm_link = Some(link);
        let (ask, containers) = this.core.registration();
        let registration = MasterRegistration {
            host: "h".to_owned(),
            tracking_url: String::new(),
            asks: vec![rm_ask(&ask)],
            rpc_port: -1,
            containers: (!this.yarn).then_some(containers),
        };
        self.send(link, To::Called, Message::MasterRegister(registration));
    }

    pub(crate) fn master_lost_rm(&mut self, master: usize, link: LinkId) {
        let this = &mut self.masters[master];
        if this.alive && this.rm_link == Some(link) {
            this.rm_link = None;
            self.at(100, Action::MasterConnect { master });
        }
    }

    pub(crate) fn master_heartbeat(&mut self, master: usize) {
        if !self.masters[master].alive {
            return;
        }
        if let Some(link) = self.masters[master].rm_link {
            self.send(link, To::Called, Message::MasterHeartbeat);
            self.yarn_step(master);
        }
        let heard: Vec<ContainerId> = self.masters[master]
            .core
            .executors()
            .map(|e| e.container)
            .collect();
        for container in heard {
            if self.processes.get(&container).is_some_and(|p| p.alive) {
                self.master_event(master, Event::ExecutorHeard { container });
            }
        }
        self.at(1_000, Action::MasterHeartbeat { master });
    }

    pub(crate) fn master_tick(&mut self, master: usize, due: Millis) {
        let this = &mut self.masters[master];
        if this.alive && this.tick == Some(due) {
            this.tick = None;
            self.master_event(master, Event::Tick);
        }
    }

    pub(crate) fn master_event(&mut self, master: usize, event: Event) {
        let now = self.now;
        let this = &mut self.masters[master];
        if !this.alive {
            return;
        }
        let mut effects = Vec::new();
        this.core.handle(now, event, &mut effects);
        if let Err(error) = this.core.check_invariants() {
            let attempt = this.attempt;
            self.violate(format!("{attempt}: {error}"));
        }
        for effect in effects {
            self.master_effect(master, effect);
        }
        let this = &mut self.masters[master];
        if let Some(due) = this.core.next_deadline() {
            let due = due.max(now);
            if this.tick.is_none_or(|tick| due < tick) {
                this.tick = Some(due);
                self.at(due.since(now), Action::MasterTick { master, due });
            }
        }
    }

    pub(crate) fn tell_rm(&mut self, master: usize, message: Message) {
        if let Some(link) = self.masters[master].rm_link {
            self.send(link, To::Called, message);
        }
    }

    pub(crate) fn node_index(&self, id: &bobbin_types::NodeId) -> usize {
        self.nodes
            .iter()
            .position(|n| n.id == *id)
            .expect("grants name nodes of this world")
    }

    fn master_effect(&mut self, master: usize, effect: Effect) {
        match effect {
            Effect::SendAsk(ask) => self.tell_rm(master, Message::MasterAsks(vec![rm_ask(&ask)])),
            Effect::Release(containers) => self.tell_rm(master, Message::MasterRelease(containers)),
            Effect::StartExecutor { container, node } => {
                let node = self.node_index(&node);
                self.masters[master].starts.insert(container, node);
                self.say_to_node(master, node, container, true);
            }
            Effect::StopExecutor { container, node } => {
                let node = self.node_index(&node);
                self.masters[master].stops.insert(container, node);
                self.say_to_node(master, node, container, false);
            }
            Effect::DismissExecutor { container, .. } => {
                self.at(
                    20,
                    Action::ProcessEnds {
                        container,
                        exit_status: 0,
                    },
                );
            }
            Effect::LaunchTask { container, task } => {
                if let Some(process) = self.processes.get_mut(&container)
                    && process.alive
                {
                    process.tasks.insert((task.task.0, task.attempt));
                    let work = self.rng.range(5, 1_500);
                    self.at(work, Action::TaskEnds { container, task });
                }
            }
            Effect::KillTask { container, task } => {
                self.at(5, Action::TaskEnds { container, task });
            }
            Effect::TaskFinal { task, .. } => {
                if !self.masters[master].final_tasks.insert(task.0) {
                    let attempt = self.masters[master].attempt;
                    self.violate(format!("task {} of {attempt} is final twice", task.0));
                }
            }
            Effect::StageEnded { .. } => {
                let spec = self.clients[self.masters[master].client].spec;
                let done = u64::try_from(self.masters[master].final_tasks.len()).unwrap_or(0);
                // A stage that the end of the driver breaks ends without all results.
                if done != spec.tasks && self.masters[master].ended.is_none() {
                    let attempt = self.masters[master].attempt;
                    self.violate(format!(
                        "{attempt}: {done} of {} tasks are final",
                        spec.tasks
                    ));
                }
                self.at(5, Action::DriverStep { master });
            }
            Effect::Fail { diagnostics } => {
                let attempt = self.masters[master].attempt;
                self.say(|| format!("{attempt} fails: {diagnostics}"));
                self.driver_ends(master, 1);
            }
            Effect::DiscardOutput { .. }
            | Effect::TaskRunning { .. }
            | Effect::TaskRetried { .. }
            | Effect::ExecutorUp { .. }
            | Effect::ExecutorDown { .. } => {}
        }
    }

    /// A start or a stop; without a stream it waits for one.
    fn say_to_node(&mut self, master: usize, node: usize, container: ContainerId, start: bool) {
        let Some(link) = self.masters[master].node_links.get(&node).copied() else {
            if self.masters[master].connecting.insert(node) {
                self.at(1, Action::MasterNodeConnect { master, node });
            }
            return;
        };
        let message = match self.masters[master].grants.get(&container) {
            Some((_, claims)) if start => Message::Start(claims.clone()),
            _ => Message::Stop(container),
        };
        self.send(link, To::Called, message);
    }

    pub(crate) fn master_node_connect(&mut self, master: usize, node: usize) {
        let this = &self.masters[master];
        if !this.alive || this.node_links.contains_key(&node) {
            return;
        }
        let attempt = this.attempt;
        let refused = self.nodes[node]
            .core
            .as_ref()
            .is_none_or(|c| c.is_revoked(&attempt));
        if refused || !self.nodes[node].up || !self.master_reaches(master, node) {
            self.at(400, Action::MasterNodeConnect { master, node });
            return;
        }
        let life = self.nodes[node].life;
        let link = self.open(Ends::MasterToNode { master, node, life });
        let this = &mut self.masters[master];
        this.connecting.remove(&node);
        this.node_links.insert(node, link);
        let on_it = |all: &BTreeMap<ContainerId, usize>| -> Vec<ContainerId> {
            all.iter()
                .filter(|(_, n)| **n == node)
                .map(|(c, _)| *c)
                .collect()
        };
        let (starts, stops) = (on_it(&this.starts), on_it(&this.stops));
        self.node_event(
            node,
            bobbin_na_core::Event::MasterAttached {
                stream: StreamId(link.0),
                attempt,
            },
        );
        for container in starts {
            self.say_to_node(master, node, container, true);
        }
        for container in stops {
            self.say_to_node(master, node, container, false);
        }
    }

    pub(crate) fn master_lost_node(&mut self, master: usize, node: usize, link: LinkId) {
        let this = &mut self.masters[master];
        if !this.alive || this.node_links.get(&node) != Some(&link) {
            return;
        }
        this.node_links.remove(&node);
        let wanted = this
            .starts
            .values()
            .chain(this.stops.values())
            .any(|n| *n == node);
        if wanted && this.connecting.insert(node) {
            self.at(100, Action::MasterNodeConnect { master, node });
        }
    }

    pub(crate) fn master_hears_node(&mut self, master: usize, _node: usize, message: Message) {
        let Message::Report(report) = message else {
            return;
        };
        let ContainerReport {
            container,
            exit_status,
            diagnostics,
            ..
        } = report;
        let this = &mut self.masters[master];
        let event = match exit_status {
            Some(exit_status) => {
                this.starts.remove(&container);
                this.stops.remove(&container);
                Event::ContainersCompleted(vec![Completed {
                    container,
                    exit_status,
                    diagnostics,
                }])
            }
            None => Event::ContainerStarted { container },
        };
        self.master_event(master, event);
    }

    pub(crate) fn master_hears_rm(&mut self, master: usize, message: Message) {
        let Message::ToMaster(message) = message else {
            return;
        };
        if !self.masters[master].alive {
            return;
        }
        match message {
            MasterMessage::Registered(registered) => {
                let nodes_running = u32::try_from(registered.nodes_running).unwrap_or(u32::MAX);
                self.master_event(master, Event::MasterRegistered { nodes_running });
                let kept = registered.containers_from_previous_attempts;
                self.inherited(master, kept.into_iter().map(|g| g.container).collect());
                if let Some(finish) = self.masters[master].finish.clone() {
                    self.tell_rm(master, Message::MasterFinish(finish));
                }
            }
            MasterMessage::Granted(grants) => self.master_granted(master, grants),
            MasterMessage::Completed(completed) => {
                let ids = completed.iter().map(|c| c.container).collect();
                let ended = completed.into_iter().map(|c| Completed {
                    container: c.container,
                    exit_status: c.exit_status,
                    diagnostics: c.diagnostics,
                });
                self.master_event(master, Event::ContainersCompleted(ended.collect()));
                self.acknowledge_ends(master, ids);
            }
            MasterMessage::AskRefused { reason, .. } => {
                let reason = reason.to_string();
                self.master_event(master, Event::AskRefused { reason });
            }
            MasterMessage::Inherited(kept) => {
                self.inherited(master, kept.into_iter().map(|g| g.container).collect());
            }
            MasterMessage::Updated(updated) => self.containers_updated(master, updated),
            MasterMessage::UpdateRefused {
                update, version, ..
            } => {
                if let Some(version) = version {
                    let versions = &mut self.masters[master].versions;
                    versions.insert(update.container, version);
                }
            }
            MasterMessage::BlacklistRefused { reason } => {
                self.violate(format!("a short blacklist is refused: {reason}"));
            }
            MasterMessage::Shutdown { .. } => self.master_exits(master, 143),
            MasterMessage::FinishAcknowledged => {
                let code = self.masters[master].ended.unwrap_or(0);
                self.master_exits(master, code);
            }
        }
    }

    fn master_granted(&mut self, master: usize, grants: Vec<bobbin_rm_core::Grant>) {
        let mut granted = Vec::new();
        for grant in grants {
            let node = self.node_index(&grant.node);
            let claims = self.claims(grant.container, grant.resource);
            self.masters[master]
                .grants
                .insert(grant.container, (node, claims));
            let bobbin_rm_core::Grant {
                container,
                node,
                resource,
                ..
            } = grant;
            granted.push(Grant {
                container,
                node,
                resource,
            });
        }
        self.master_event(master, Event::Granted(granted));
    }

    /// The driver has done its work.
    pub(crate) fn driver_step(&mut self, master: usize) {
        let this = &self.masters[master];
        if !this.alive || this.ended.is_some() {
            return;
        }
        let spec = self.clients[this.client].spec;
        let code = if this.attempt.attempt <= spec.failing_attempts {
            3
        } else {
            0
        };
        self.driver_ends(master, code);
    }

    fn driver_ends(&mut self, master: usize, code: i32) {
        let this = &mut self.masters[master];
        if !this.alive || this.ended.is_some() {
            return;
        }
        this.ended = Some(code);
        let in_client = this.container.is_none();
        self.master_event(master, Event::ShutDown);
        if code == 0 || in_client {
            let finish = Finish {
                final_status: if code == 0 {
                    FinalStatus::Succeeded
                } else {
                    FinalStatus::Failed
                },
                exit_status: Some(ExitStatus(code)),
                diagnostics: String::new(),
                tracking_url: String::new(),
            };
            self.masters[master].finish = Some(finish.clone());
            self.tell_rm(master, Message::MasterFinish(finish));
        } else {
            self.master_exits(master, code);
        }
    }

    /// The master's process is at its end.
    pub(crate) fn master_exits(&mut self, master: usize, code: i32) {
        match self.masters[master].container {
            Some(container) => self.process_dies(container, Some(code)),
            None => self.master_dies(master),
        }
    }

    /// Whatever ended it: its streams break, its executors leave.
    pub(crate) fn master_dies(&mut self, master: usize) {
        self.masters[master].alive = false;
        let ends_here = |ends: &Ends| match ends {
            Ends::MasterToRm { master: m } | Ends::MasterToNode { master: m, .. } => *m == master,
            Ends::NodeToRm { .. } => false,
        };
        for link in self.links_where(|l| ends_here(&l.ends)) {
            self.break_link(link);
        }
        let own: Vec<ContainerId> = self
            .processes
            .iter()
            .filter(|(id, p)| {
                p.alive && p.master == Some(master) && self.masters[master].container != Some(**id)
            })
            .map(|(id, _)| *id)
            .collect();
        for container in own {
            let delay = self.rng.range(0, 5_000);
            self.at(
                delay,
                Action::ProcessEnds {
                    container,
                    exit_status: 1,
                },
            );
        }
    }

    /// A process that belongs to a master has ended: the master itself, or an executor of it.
    pub(crate) fn process_of_master_died(&mut self, master: usize, container: ContainerId) {
        if self.masters[master].container == Some(container) {
            self.master_dies(master);
        } else {
            self.master_event(master, Event::ExecutorDetached { container });
        }
    }

    pub(crate) fn hear_executor(
        &mut self,
        master: usize,
        container: ContainerId,
        message: ExecutorMessage,
    ) {
        if !self.processes.get(&container).is_some_and(|p| p.alive) {
            return;
        }
        let event = match message {
            ExecutorMessage::Register => Event::ExecutorRegistered {
                container,
                slots: 1,
            },
            ExecutorMessage::TaskEnded(task, code) => Event::TaskEnded {
                container,
                task,
                exit_status: ExitStatus(code),
                problem: String::new(),
            },
        };
        self.master_event(master, event);
    }

    pub(crate) fn task_ends(&mut self, container: ContainerId, task: TaskRef) {
        let fails = self.chaos && self.rng.chance(60);
        let Some(process) = self.processes.get_mut(&container) else {
            return;
        };
        if !process.alive || !process.tasks.remove(&(task.task.0, task.attempt)) {
            return;
        }
        if let Some(master) = process.master {
            let delay = self.rng.range(0, 5);
            let message = ExecutorMessage::TaskEnded(task, i32::from(fails));
            self.at(
                delay,
                Action::FromExecutor {
                    master,
                    container,
                    message,
                },
            );
        }
    }
}

fn rm_ask(ask: &bobbin_am_core::Ask) -> Ask {
    Ask {
        key: Arc::new(AskKey {
            priority: ask.priority,
            request_id: 0,
            place: "*".to_owned(),
            capability: ask.capability,
            node_label: String::new(),
        }),
        count: ask.count,
        relax_locality: true,
    }
}
