//! A node: the agent's process with its disk, and what its supervisors do.

use std::collections::{BTreeMap, VecDeque};

use bobbin_na_core::{
    CallId, CallRequest, ContainerReport, ContainerSignal, Effect, Event, Exit, Found, NodeAgent,
    NodeConfig, Origin, Record, Registration, Starter, StreamId,
};
use bobbin_rm_core::{NodeCommand, NodeRegistration, ReportedContainer, ReportedStatus};
use bobbin_types::{ContainerId, ContainerState, ExitStatus, Millis, NodeId, Resource};

use crate::link::{Ends, LinkId, Message, To};
use crate::rng::Rng;
use crate::world::{Action, Process, Sabotage, World};

/// What a supervisor is at with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Localizing,
    Launching { stop: bool },
    Running,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    pub(crate) life: u64,
    pub(crate) core: Option<NodeAgent>,
    pub(crate) total: Resource,
    /// Nobody reaches it before this.
    pub(crate) partitioned_until: Millis,
    /// When the resource manager last held it for lost.
    pub(crate) given_up_at: Option<Millis>,
    disk: Vec<Record>,
    unsynced: VecDeque<Record>,
    written: u64,
    synced: u64,
    /// Work on containers, in order, with the records it depends on.
    outbox: VecDeque<(u64, Effect)>,
    work: BTreeMap<ContainerId, Work>,
    rm_link: Option<LinkId>,
    tick: Option<Millis>,
}

impl Node {
    pub(crate) fn new(index: usize, rng: &mut Rng) -> Node {
        let memory = rng.range(1, 4) * 1024;
        let vcores = u32::try_from(rng.range(2, 8)).unwrap_or(2);
        Node {
            id: format!("host{index}:1").parse().expect("a valid node id"),
            up: false,
            life: 0,
            core: None,
            total: Resource::new(memory, vcores),
            partitioned_until: Millis(0),
            given_up_at: None,
            disk: Vec::new(),
            unsynced: VecDeque::new(),
            written: 0,
            synced: 0,
            outbox: VecDeque::new(),
            work: BTreeMap::new(),
            rm_link: None,
            tick: None,
        }
    }

    /// The registration as its door translates it.
    pub(crate) fn registration(&self, registration: Registration) -> NodeRegistration {
        NodeRegistration {
            node: self.id.clone(),
            grpc_address: self.id.to_string(),
            http_address: format!("{}:8042", self.id.host()),
            total: self.total,
            reserved: Resource::default(),
            profile: "full".to_owned(),
            problems: registration.problems,
            lacks: Vec::new(),
            containers: registration.containers.into_iter().map(reported).collect(),
            version: "1".to_owned(),
            applications: registration.applications,
        }
    }
}

fn reported(report: ContainerReport) -> ReportedContainer {
    let status = match (report.exit_status, report.state) {
        (Some(exit_status), _) => ReportedStatus::Ended {
            exit_status,
            diagnostics: report.diagnostics,
        },
        (None, ContainerState::Running) => ReportedStatus::Running,
        (None, _) => ReportedStatus::Starting,
    };
    ReportedContainer {
        container: report.container,
        resource: report.resource,
        status,
    }
}

fn signal_of(signal: bobbin_rm_core::ContainerSignal) -> ContainerSignal {
    match signal {
        bobbin_rm_core::ContainerSignal::ThreadDump => ContainerSignal::ThreadDump,
        bobbin_rm_core::ContainerSignal::Graceful => ContainerSignal::Graceful,
        bobbin_rm_core::ContainerSignal::Forceful => ContainerSignal::Forceful,
    }
}

fn exit(code: i32, words: &str) -> Exit {
    Exit {
        exit_status: ExitStatus(code),
        diagnostics: words.to_owned(),
    }
}

impl World {
    pub(crate) fn reachable(&self, node: usize) -> bool {
        self.nodes[node].up && self.nodes[node].partitioned_until <= self.now
    }

    pub(crate) fn node_start(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        let life = self.number();
        let this = &mut self.nodes[node];
        this.life = life;
        this.up = true;
        this.tick = None;
        this.core = Some(NodeAgent::new(NodeConfig {
            node: this.id.clone(),
            total: this.total,
            reserved: Resource::default(),
            log_retain_ms: 600_000,
        }));
        let mut records = this.disk.clone();
        if self.sabotage == Sabotage::ForgetAdmitted {
            records.clear();
        }
        self.say(|| format!("node {node} starts with {} records", records.len()));
        for record in records {
            self.node_event(node, Event::Recovered(record));
        }
        let known: Vec<ContainerId> = match &self.nodes[node].core {
            Some(core) => core.containers().map(|c| c.container).collect(),
            None => Vec::new(),
        };
        for container in known {
            let found = match self.processes.get(&container) {
                Some(process) if process.alive => {
                    self.nodes[node].work.insert(container, Work::Running);
                    Found::Running
                }
                Some(Process {
                    exit_status: Some(code),
                    ..
                }) => Found::Ended(exit(*code, "kept")),
                Some(_) | None => Found::Gone,
            };
            self.node_event(node, Event::Found { container, found });
        }
        self.at(1, Action::NodeConnect { node, life });
    }

    /// kill -9 of the agent: its containers go on.
    pub(crate) fn node_crash(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.summary.crashes += 1;
        self.say(|| format!("agent of node {node} crashes"));
        let kept = self.rng.index(self.nodes[node].unsynced.len() + 1);
        let this = &mut self.nodes[node];
        let unsynced = std::mem::take(&mut this.unsynced);
        this.disk.extend(unsynced.into_iter().take(kept));
        this.written = u64::try_from(this.disk.len()).unwrap_or(0);
        this.synced = this.written;
        this.up = false;
        this.core = None;
        this.outbox.clear();
        this.work.clear();
        this.rm_link = None;
        let life = this.life;
        for link in self.links_where(|l| match l.ends {
            Ends::NodeToRm { node: n, life: at }
            | Ends::MasterToNode {
                node: n, life: at, ..
            } => n == node && at == life,
            Ends::MasterToRm { .. } => false,
        }) {
            self.break_link(link);
        }
        let back = if self.chaos {
            self.rng.range(10, 15_000)
        } else {
            10
        };
        self.at(back, Action::NodeStart { node });
    }

    /// The machine goes down with everything on it; its disk stays.
    pub(crate) fn host_crash(&mut self, node: usize) {
        self.say(|| format!("host of node {node} crashes"));
        self.node_crash(node);
        let on_it: Vec<ContainerId> = self
            .processes
            .iter()
            .filter(|(_, p)| p.node == node && p.alive)
            .map(|(id, _)| *id)
            .collect();
        for container in on_it {
            self.process_dies(container, None);
        }
    }

    pub(crate) fn node_connect(&mut self, node: usize, life: u64) {
        if !self.nodes[node].up || self.nodes[node].life != life {
            return;
        }
        if !self.rm.open || !self.reachable(node) {
            self.at(300, Action::NodeConnect { node, life });
            return;
        }
        if let Some(old) = self.nodes[node].rm_link.take() {
            self.break_link(old);
        }
        let link = self.open(Ends::NodeToRm { node, life });
        self.nodes[node].rm_link = Some(link);
        self.node_event(node, Event::RmAttached);
    }

    pub(crate) fn node_lost_rm(&mut self, node: usize, life: u64, link: LinkId) {
        let this = &self.nodes[node];
        if this.up && this.life == life && this.rm_link == Some(link) {
            self.nodes[node].rm_link = None;
            self.node_event(node, Event::RmLost);
            self.at(100, Action::NodeConnect { node, life });
        }
    }

    pub(crate) fn node_tick(&mut self, node: usize, life: u64, due: Millis) {
        let this = &mut self.nodes[node];
        if this.up && this.life == life && this.tick == Some(due) {
            this.tick = None;
            let wall = self.wall();
            self.node_event(node, Event::Tick { wall });
        }
    }

    pub(crate) fn node_event(&mut self, node: usize, event: Event) {
        let now = self.now;
        let Some(core) = self.nodes[node].core.as_mut() else {
            return;
        };
        let mut effects = Vec::new();
        core.handle(now, event, &mut effects);
        if let Err(error) = core.check_invariants() {
            self.violate(format!("node {node}: {error}"));
        }
        let before = self.nodes[node].written;
        for effect in effects {
            self.node_effect(node, effect);
        }
        let this = &self.nodes[node];
        if this.written > before {
            let (life, upto) = (this.life, this.written);
            let delay = self.sync_delay();
            self.at(delay, Action::NodeSynced { node, life, upto });
        }
        self.node_flush(node);
        self.node_schedule_tick(node);
    }

    fn node_schedule_tick(&mut self, node: usize) {
        let now = self.now;
        let this = &mut self.nodes[node];
        let Some(due) = this.core.as_ref().and_then(NodeAgent::next_deadline) else {
            return;
        };
        let due = due.max(now);
        if this.tick.is_none_or(|tick| due < tick) {
            this.tick = Some(due);
            let life = this.life;
            self.at(due.since(now), Action::NodeTick { node, life, due });
        }
    }

    pub(crate) fn node_synced(&mut self, node: usize, life: u64, upto: u64) {
        let this = &mut self.nodes[node];
        if !this.up || this.life != life {
            return;
        }
        while this.synced < upto {
            let Some(record) = this.unsynced.pop_front() else {
                break;
            };
            this.disk.push(record);
            this.synced += 1;
        }
        if this.unsynced.is_empty() && self.rng.chance(20) {
            let this = &mut self.nodes[node];
            if let Some(core) = &this.core {
                this.disk = core.snapshot();
            }
        }
        self.node_flush(node);
    }

    fn node_flush(&mut self, node: usize) {
        loop {
            let this = &mut self.nodes[node];
            let synced = this.synced;
            if this.outbox.front().is_none_or(|(needs, _)| *needs > synced) {
                return;
            }
            if let Some((_, effect)) = this.outbox.pop_front() {
                self.node_work(node, effect);
            }
        }
    }

    fn node_effect(&mut self, node: usize, effect: Effect) {
        let say = |link: Option<LinkId>, message| link.map(|link| (link, message));
        let this = &mut self.nodes[node];
        let rm = this.rm_link;
        let message = match effect {
            Effect::Persist(record) => {
                this.unsynced.push_back(record);
                this.written += 1;
                None
            }
            Effect::RegisterWithRm(registration) => say(rm, Message::NodeRegister(registration)),
            Effect::HeartbeatToRm(heartbeat) => say(rm, Message::NodeHeartbeat(heartbeat)),
            Effect::ReportStartedToRm(report) => say(rm, Message::NodeStarted(report)),
            Effect::ReportExitToRm(report) => say(rm, Message::NodeExited(report)),
            // At once: what gives up memory has given it up before that is said.
            Effect::Resize {
                container,
                resource,
            } => {
                if let Some(process) = self.processes.get_mut(&container) {
                    process.resource = resource;
                }
                None
            }
            Effect::ReportToMaster { stream, report } => {
                self.send(LinkId(stream.0), To::Caller, Message::Report(report));
                None
            }
            Effect::CloseMaster { stream, .. } => {
                self.close_link(LinkId(stream.0));
                None
            }
            work => {
                let needs = if work.needs_records() {
                    this.written
                } else {
                    0
                };
                this.outbox.push_back((needs, work));
                None
            }
        };
        if let Some((link, message)) = message {
            self.send(link, To::Called, message);
        }
    }

    /// What a supervisor is told to do.
    fn node_work(&mut self, node: usize, effect: Effect) {
        let life = self.nodes[node].life;
        let delay = self.rng.range(1, 40);
        let answer = |event| Action::Supervised {
            node,
            life,
            event: Box::new(event),
        };
        match effect {
            Effect::Localize(work) => {
                let container = work.container;
                self.nodes[node].work.insert(container, Work::Localizing);
                let event = if self.chaos && self.rng.chance(20) {
                    let exit = exit(-1000, "a file has changed");
                    Event::LocalizeFailed { container, exit }
                } else {
                    Event::Localized(container)
                };
                self.at(delay, answer(event));
            }
            Effect::Launch(container) => {
                self.nodes[node]
                    .work
                    .insert(container, Work::Launching { stop: false });
                self.at(
                    delay,
                    Action::LaunchNow {
                        node,
                        life,
                        container,
                    },
                );
            }
            Effect::Terminate(container) => self.terminate(node, container),
            Effect::Signal { container, .. } => {
                let exit_status = 143;
                self.at(
                    delay,
                    Action::ProcessEnds {
                        container,
                        exit_status,
                    },
                );
            }
            Effect::CleanUp(container) => {
                self.nodes[node].work.remove(&container);
                self.at(delay, answer(Event::CleanedUp(container)));
            }
            Effect::DeleteLogs(application) => {
                self.at(delay, answer(Event::LogsDeleted(application)));
            }
            _ => {}
        }
    }

    fn terminate(&mut self, node: usize, container: ContainerId) {
        let life = self.nodes[node].life;
        match self.nodes[node].work.get(&container).copied() {
            Some(Work::Localizing) => {
                self.nodes[node].work.remove(&container);
                let exit = exit(-105, "localization was cancelled");
                let event = Box::new(Event::LocalizeFailed { container, exit });
                self.at(1, Action::Supervised { node, life, event });
            }
            Some(Work::Launching { .. }) => {
                self.nodes[node]
                    .work
                    .insert(container, Work::Launching { stop: true });
            }
            Some(Work::Running) => {
                // Some obey TERM, some have to be killed after the grace.
                let delay = self.rng.range(0, 400);
                self.at(
                    delay,
                    Action::ProcessEnds {
                        container,
                        exit_status: 143,
                    },
                );
            }
            None => {}
        }
    }

    pub(crate) fn supervised(&mut self, node: usize, life: u64, event: Event) {
        if !self.nodes[node].up || self.nodes[node].life != life {
            return;
        }
        // A localization that was cancelled does not answer twice.
        if let Event::Localized(container) = &event
            && self.nodes[node].work.get(container) != Some(&Work::Localizing)
        {
            return;
        }
        self.node_event(node, event);
    }

    /// The launch message is carried out, even if its agent died a moment ago.
    pub(crate) fn launch_now(&mut self, node: usize, life: u64, container: ContainerId) {
        let same = self.nodes[node].life == life;
        let alive = self.nodes[node].up && same;
        if !alive && (!same || self.rng.chance(500)) {
            return;
        }
        let view = self.nodes[node]
            .core
            .as_ref()
            .and_then(|c| c.container(&container));
        let is_master = match &view {
            Some(view) => view.origin == Origin::ResourceManager,
            None => self.nodes[node].disk.iter().any(|r| {
                matches!(r, Record::Admitted { claims, origin: Origin::ResourceManager } if claims.container == container)
            }),
        };
        let resource = self.nodes[node].disk.iter().find_map(|r| match r {
            Record::Admitted { claims, .. } if claims.container == container => {
                Some(claims.resource)
            }
            _ => None,
        });
        let resource = view.map(|v| v.resource).or(resource).unwrap_or_default();
        let stop = self.nodes[node].work.get(&container) == Some(&Work::Launching { stop: true });
        if alive && self.chaos && self.rng.chance(15) {
            let exit = exit(126, "it cannot be executed");
            let event = Box::new(Event::LaunchFailed { container, exit });
            self.at(1, Action::Supervised { node, life, event });
            return;
        }
        self.check_launch(node, container, resource, is_master);
        self.summary.containers += 1;
        self.say(|| format!("{container} runs on node {node}"));
        let process = Process {
            node,
            resource,
            began: self.now,
            master: None,
            alive: true,
            exit_status: None,
            tasks: std::collections::BTreeSet::new(),
        };
        self.processes.insert(container, process);
        if alive {
            self.nodes[node].work.insert(container, Work::Running);
            let event = Box::new(Event::Launched(container));
            self.at(0, Action::Supervised { node, life, event });
        }
        self.begin_process(container, is_master);
        if stop {
            self.at(
                5,
                Action::ProcessEnds {
                    container,
                    exit_status: 143,
                },
            );
        }
    }

    pub(crate) fn process_ends(&mut self, container: ContainerId, exit_status: i32) {
        self.process_dies(container, Some(exit_status));
    }

    /// The end of a process; `None` takes the record of it along (a host crash).
    pub(crate) fn process_dies(&mut self, container: ContainerId, exit_status: Option<i32>) {
        let Some(process) = self.processes.get_mut(&container) else {
            return;
        };
        if !process.alive {
            return;
        }
        process.alive = false;
        process.exit_status = exit_status;
        process.tasks.clear();
        let (node, master) = (process.node, process.master);
        self.say(|| format!("{container} ends with {exit_status:?}"));
        if let (Some(code), true) = (exit_status, self.nodes[node].up) {
            let life = self.nodes[node].life;
            let event = Box::new(Event::Exited {
                container,
                exit: exit(code, "it ended"),
            });
            let delay = self.rng.range(0, 5);
            self.at(delay, Action::Supervised { node, life, event });
        }
        if let Some(master) = master {
            self.process_of_master_died(master, container);
        }
    }

    pub(crate) fn node_hears_rm(&mut self, node: usize, message: Message) {
        let Message::ToNode(command) = message else {
            return;
        };
        let wall = self.wall();
        let event = match command {
            NodeCommand::Registered {
                heartbeat_interval_ms,
                ..
            } => Event::RmRegistered {
                heartbeat_interval_ms,
                wall,
            },
            NodeCommand::Refused { .. } => return,
            NodeCommand::StartContainer(start) => Event::Start {
                starter: Starter::ResourceManager,
                claims: self.claims(start.container, start.resource),
                problem: None,
                wall,
            },
            NodeCommand::StopContainer {
                container,
                exit_status,
                diagnostics,
            } => Event::Stop {
                container,
                exit: Exit {
                    exit_status,
                    diagnostics,
                },
                wall,
            },
            NodeCommand::AcknowledgeExit { container } => Event::ExitAcknowledged(container),
            NodeCommand::ApplicationEnded { application } => {
                Event::ApplicationEnded { application, wall }
            }
            NodeCommand::RevokeAttempt {
                attempt,
                keep_containers,
            } => Event::RevokeAttempt {
                attempt,
                keep_containers,
            },
            NodeCommand::SignalContainer { container, signal } => Event::Signal {
                container,
                signal: signal_of(signal),
            },
            NodeCommand::ResizeContainer {
                container,
                resource,
                version,
            } => Event::Resize {
                container,
                resource,
                version,
            },
        };
        self.node_event(node, event);
    }

    pub(crate) fn node_hears_master(&mut self, node: usize, link: LinkId, message: Message) {
        let (stream, wall) = (StreamId(link.0), self.wall());
        let event = match message {
            Message::Start(claims) => Event::Start {
                starter: Starter::Master(stream),
                claims,
                problem: None,
                wall,
            },
            Message::Update {
                attempt,
                claims,
                version,
            } => Event::Call {
                call: CallId(self.number()),
                attempt,
                request: CallRequest::Update { claims, version },
                wall,
            },
            Message::Stop(container) => Event::StopByMaster {
                stream,
                container,
                wall,
            },
            _ => return,
        };
        self.node_event(node, event);
    }

    pub(crate) fn node_lost_master(&mut self, node: usize, link: LinkId) {
        self.node_event(node, Event::MasterLost(StreamId(link.0)));
    }
}
