//! Random lives: any events in any order, restarts with a journal cut anywhere. After each event
//! the invariants hold and a copy agrees; at the end everything heals and every application ends.

use std::collections::BTreeMap;

use bobbin_types::{
    ApplicationState, AttemptId, ContainerId, ExitStatus, FinalStatus, Resource, WallMillis,
};
use proptest::prelude::*;

use super::world::{World, application, ask, attempt, registration, submission, user};
use crate::view::ApplicationReport;
use crate::{
    Config, Effect, Event, Fetching, Finish, MasterMessage, MasterRegistration, NodeCommand,
    NodeHeartbeat, ReportedContainer, ReportedStatus, SessionId,
};

const NODES: [&str; 3] = ["a", "b", "c"];

/// What the nodes would really hold: fed by the effects, reported by the events.
#[derive(Default)]
struct Truth {
    /// By container: its node and whether it was told to end.
    containers: BTreeMap<ContainerId, (String, Resource, bool)>,
    /// Ends that were not acknowledged.
    ended: BTreeMap<ContainerId, (String, i32)>,
}

#[derive(Clone, Debug)]
enum Step {
    Submit {
        unmanaged: bool,
        memory: u64,
        tied: bool,
    },
    Kill(u32, bool),
    Register(usize, u64),
    NodeLost(usize),
    Ill(usize, bool),
    Started(usize),
    Exited(usize, i32),
    Attach(u32, u32),
    MasterLost(u32, u32),
    Asks(u32, u32, u32, u64),
    Release(u32, u32, usize),
    Finish(u32, u32),
    Beat(u32, u32),
    Blacklist(u32, u32, usize, bool),
    Acknowledge(u32, u32),
    Update(u32, u32, usize, u64),
    Change(u8, u32, u32),
    Stale(usize),
    Pass(u64),
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let app = 1..5_u32;
    let att = 1..4_u32;
    prop_oneof![
        3 => (any::<bool>(), 1..3000_u64, any::<bool>())
            .prop_map(|(unmanaged, memory, tied)| Step::Submit { unmanaged, memory, tied }),
        2 => (app.clone(), any::<bool>()).prop_map(|(a, w)| Step::Kill(a, w)),
        6 => (0..3_usize, 1000..5000_u64).prop_map(|(n, m)| Step::Register(n, m)),
        2 => (0..3_usize).prop_map(Step::NodeLost),
        1 => (0..3_usize, any::<bool>()).prop_map(|(n, i)| Step::Ill(n, i)),
        8 => any::<usize>().prop_map(Step::Started),
        6 => (any::<usize>(), prop::sample::select(vec![0, 7, -100, -104, 137]))
            .prop_map(|(c, s)| Step::Exited(c, s)),
        8 => (app.clone(), att.clone()).prop_map(|(a, n)| Step::Attach(a, n)),
        2 => (app.clone(), att.clone()).prop_map(|(a, n)| Step::MasterLost(a, n)),
        8 => (app.clone(), att.clone(), 0..4_u32, 1..1500_u64)
            .prop_map(|(a, n, c, m)| Step::Asks(a, n, c, m)),
        2 => (app.clone(), att.clone(), any::<usize>()).prop_map(|(a, n, c)| Step::Release(a, n, c)),
        2 => (app.clone(), att.clone()).prop_map(|(a, n)| Step::Finish(a, n)),
        2 => (app.clone(), att.clone()).prop_map(|(a, n)| Step::Beat(a, n)),
        3 => (app.clone(), att.clone(), 0..3_usize, any::<bool>())
            .prop_map(|(a, n, h, add)| Step::Blacklist(a, n, h, add)),
        3 => (app.clone(), att.clone()).prop_map(|(a, n)| Step::Acknowledge(a, n)),
        3 => (app.clone(), att.clone(), any::<usize>(), 1..1500_u64)
            .prop_map(|(a, n, c, m)| Step::Update(a, n, c, m)),
        4 => (0..5_u8, app, att).prop_map(|(k, a, n)| Step::Change(k, a, n)),
        1 => any::<usize>().prop_map(Step::Stale),
        3 => (0..40_000_u64).prop_map(Step::Pass),
        1 => (0..6_usize).prop_map(Step::Restart),
    ]
}

struct Life {
    world: World,
    truth: Truth,
    /// Records that were emitted by the last event: a crash may lose any tail of them.
    fresh: usize,
}

impl Life {
    fn new() -> Life {
        let mut world = World::new(Config {
            applications_retained: 3,
            ..Config::default()
        });
        world.quiet = true;
        // Nodes come back in any size here.
        world.shrunk = true;
        Life {
            world,
            truth: Truth::default(),
            fresh: 0,
        }
    }

    fn event(&mut self, event: Event) {
        let before = self.world.journal.len();
        let effects = self.world.handle(event);
        self.fresh = self.world.journal.len() - before;
        self.learn(&effects);
    }

    fn learn(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::ToMaster {
                    message: MasterMessage::Granted(grants),
                    ..
                } => {
                    for grant in grants {
                        let held = (grant.node.host().to_owned(), grant.resource, false);
                        self.truth.containers.insert(grant.container, held);
                    }
                }
                Effect::ToNode { node, command, .. } => match command {
                    NodeCommand::StartContainer(start) => {
                        let id = start.container;
                        if !self.truth.ended.contains_key(&id) {
                            let held = (node.host().to_owned(), start.resource, false);
                            self.truth.containers.entry(id).or_insert(held);
                        }
                    }
                    NodeCommand::StopContainer { container, .. } => {
                        let name = node.host().to_owned();
                        let held = (name, Resource::new(1, 1), true);
                        self.truth.containers.entry(*container).or_insert(held).2 = true;
                    }
                    NodeCommand::ResizeContainer {
                        container,
                        resource,
                        ..
                    } => {
                        if let Some(held) = self.truth.containers.get_mut(container) {
                            held.1 = *resource;
                        }
                    }
                    NodeCommand::AcknowledgeExit { container } => {
                        self.truth.ended.remove(container);
                        self.truth.containers.remove(container);
                    }
                    NodeCommand::Registered { .. }
                    | NodeCommand::Refused { .. }
                    | NodeCommand::ApplicationEnded { .. }
                    | NodeCommand::RevokeAttempt { .. }
                    | NodeCommand::SignalContainer { .. } => {}
                },
                _ => {}
            }
        }
    }

    fn pick(&self, index: usize) -> Option<(ContainerId, String)> {
        let live: Vec<_> = self
            .truth
            .containers
            .iter()
            .filter(|(id, _)| !self.truth.ended.contains_key(id))
            .collect();
        let (id, (node, ..)) = live.get(index.checked_rem(live.len())?)?;
        Some((**id, node.clone()))
    }

    fn session_of(&self, node: &str) -> SessionId {
        self.world
            .node_sessions
            .get(node)
            .copied()
            .unwrap_or(SessionId(0))
    }

    fn master(&self, id: AttemptId) -> SessionId {
        self.world
            .master_sessions
            .get(&id)
            .copied()
            .unwrap_or(SessionId(0))
    }

    fn exited(&mut self, id: ContainerId, node: &str, status: i32) {
        self.truth.ended.insert(id, (node.to_owned(), status));
        let event = Event::ContainerExited {
            node: super::world::node_id(node),
            session: self.session_of(node),
            exit: crate::ContainerExit {
                container: id,
                exit_status: ExitStatus(status),
                diagnostics: String::new(),
            },
        };
        self.event(event);
    }

    fn register(&mut self, name: &str, memory: u64) {
        let mut report = registration(name, Resource::new(memory, 8));
        for (id, (node, resource, _)) in &self.truth.containers {
            if node != name {
                continue;
            }
            let status = match self.truth.ended.get(id) {
                Some((_, status)) => ReportedStatus::Ended {
                    exit_status: ExitStatus(*status),
                    diagnostics: String::new(),
                },
                None if id.number % 3 == 2 => continue,
                None if id.number % 3 == 1 => ReportedStatus::Running,
                None => ReportedStatus::Starting,
            };
            report.applications.push(id.application());
            let (container, resource) = (*id, *resource);
            report.containers.push(ReportedContainer {
                container,
                resource,
                status,
            });
        }
        let session = self.world.session();
        self.world.node_sessions.insert(name.to_owned(), session);
        self.event(Event::NodeRegistered {
            session,
            principal: crate::Principal::Node(name.to_owned()),
            registration: Box::new(report),
        });
    }

    fn attach(&mut self, id: AttemptId) {
        let held = self
            .truth
            .containers
            .keys()
            .filter(|c| c.attempt == id && c.number % 5 != 0);
        let registration = MasterRegistration {
            host: "m".to_owned(),
            asks: vec![ask(1, 300, 1, 1)],
            containers: id
                .application
                .sequence
                .is_multiple_of(2)
                .then(|| held.copied().collect()),
            ..MasterRegistration::default()
        };
        let session = self.world.session();
        self.world.master_sessions.insert(id, session);
        self.event(Event::MasterAttached {
            session,
            principal: crate::Principal::Attempt(id),
            attempt: id,
            registration: Box::new(registration),
        });
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Submit {
                unmanaged,
                memory,
                tied,
            } => {
                let mut wanted = submission();
                wanted.resource = Resource::new(memory, 1);
                wanted.tie_to_client = tied;
                wanted.timeout_ms = if memory.is_multiple_of(5) { 50_000 } else { 0 };
                if unmanaged {
                    wanted.unmanaged = true;
                    wanted.launch = crate::LaunchContext::default();
                }
                wanted.keep_containers = memory.is_multiple_of(3);
                wanted.failures_validity_ms = memory.is_multiple_of(7).then_some(20_000);
                if memory.is_multiple_of(2) {
                    wanted.launch.contract = crate::LaunchContract::Yarn;
                }
                let (request, principal) = (self.world.request(), user("ann"));
                let submission = Box::new(wanted);
                self.event(Event::Submit {
                    request,
                    principal,
                    submission,
                });
            }
            Step::Kill(sequence, wait) => {
                let (request, principal) = (self.world.request(), user("ann"));
                let (application, reason) = (application(sequence), String::new());
                self.event(Event::Kill {
                    request,
                    principal,
                    application,
                    wait,
                    reason,
                });
            }
            Step::Register(index, memory) => self.register(NODES[index], memory),
            Step::NodeLost(index) => {
                let (node, session) = (
                    super::world::node_id(NODES[index]),
                    self.session_of(NODES[index]),
                );
                self.event(Event::NodeStreamLost { node, session });
            }
            Step::Ill(index, ill) => {
                let problems = if ill {
                    vec!["ill".to_owned()]
                } else {
                    Vec::new()
                };
                self.beat_node(NODES[index], problems);
            }
            Step::Started(index) => {
                let Some((container, name)) = self.pick(index) else {
                    return;
                };
                let (node, session) = (super::world::node_id(&name), self.session_of(&name));
                let held = self.truth.containers.get(&container);
                let resource = held.map(|(_, resource, _)| *resource);
                self.event(Event::ContainerStarted {
                    node,
                    session,
                    container,
                    resource,
                });
            }
            Step::Exited(index, status) => {
                let Some((id, node)) = self.pick(index) else {
                    return;
                };
                self.exited(id, &node, status);
            }
            Step::Attach(a, n) => self.attach(attempt(a, n)),
            Step::Stale(index) => self.stale(index),
            Step::Pass(ms) => self.pass(ms),
            Step::Restart(lost) => self.restart(lost),
            Step::MasterLost(..)
            | Step::Asks(..)
            | Step::Release(..)
            | Step::Finish(..)
            | Step::Blacklist(..)
            | Step::Acknowledge(..)
            | Step::Update(..)
            | Step::Beat(..) => self.take_master(step),
            Step::Change(kind, a, n) => self.change(kind, a, n),
        }
    }

    fn take_master(&mut self, step: &Step) {
        let event = match *step {
            Step::MasterLost(a, n) => {
                let attempt = attempt(a, n);
                Event::MasterStreamLost {
                    attempt,
                    session: self.master(attempt),
                }
            }
            Step::Asks(a, n, count, memory) => {
                let attempt = attempt(a, n);
                let mut wanted = ask(count, memory, 1, i64::from(count % 2));
                if memory % 4 == 0 {
                    let key = crate::AskKey {
                        place: "b".to_owned(),
                        ..(*wanted.key).clone()
                    };
                    wanted.key = std::sync::Arc::new(key);
                    wanted.relax_locality = memory % 8 == 0;
                }
                Event::MasterAsks {
                    attempt,
                    session: self.master(attempt),
                    asks: vec![wanted],
                }
            }
            Step::Release(a, n, index) => {
                let attempt = attempt(a, n);
                let containers = self.pick(index).map(|(id, _)| id).into_iter().collect();
                Event::MasterReleases {
                    attempt,
                    session: self.master(attempt),
                    containers,
                }
            }
            Step::Finish(a, n) => {
                let attempt = attempt(a, n);
                let finish = Finish {
                    final_status: FinalStatus::Succeeded,
                    exit_status: Some(ExitStatus(0)),
                    diagnostics: String::new(),
                    tracking_url: String::new(),
                };
                Event::MasterFinishes {
                    attempt,
                    session: self.master(attempt),
                    finish,
                }
            }
            Step::Blacklist(a, n, host, add) => {
                let attempt = attempt(a, n);
                let hosts = vec![NODES[host].to_owned()];
                let (additions, removals) = if add {
                    (hosts, Vec::new())
                } else {
                    (Vec::new(), hosts)
                };
                Event::MasterBlacklist {
                    attempt,
                    session: self.master(attempt),
                    additions,
                    removals,
                }
            }
            Step::Acknowledge(a, n) => {
                let attempt = attempt(a, n);
                let ended = self.truth.ended.keys().copied();
                Event::MasterAcknowledges {
                    attempt,
                    session: self.master(attempt),
                    containers: ended.collect(),
                }
            }
            Step::Update(a, n, index, memory) => {
                let attempt = attempt(a, n);
                let Some((container, _)) = self.pick(index) else {
                    return;
                };
                let report = self.world.rm.container(container);
                let has = report
                    .as_ref()
                    .map_or(0, |report| report.resource.memory_mib);
                Event::MasterUpdates {
                    attempt,
                    session: self.master(attempt),
                    updates: vec![crate::ContainerUpdate {
                        container,
                        version: report.map_or(0, |report| report.version),
                        kind: if memory > has {
                            crate::UpdateKind::Increase
                        } else {
                            crate::UpdateKind::Decrease
                        },
                        resource: Resource::new(memory, 1),
                    }],
                }
            }
            Step::Beat(a, n) => {
                let attempt = attempt(a, n);
                let session = self.master(attempt);
                Event::MasterHeartbeat {
                    attempt,
                    session,
                    progress_permille: 3,
                    tracking_url: None,
                }
            }
            _ => return,
        };
        self.event(event);
    }

    fn change(&mut self, kind: u8, sequence: u32, number: u32) {
        let (request, principal) = (self.world.request(), user("ann"));
        let application = application(sequence);
        self.event(match kind {
            0 => Event::SetPriority {
                request,
                principal,
                application,
                priority: i32::try_from(number).unwrap(),
            },
            1 => Event::MoveToQueue {
                request,
                principal,
                application,
                queue: "default".to_owned(),
            },
            2 => Event::SetTimeout {
                request,
                principal,
                application,
                expires: Some(WallMillis(self.world.now.0 + u64::from(number) * 20_000)),
            },
            3 => Event::SetTimeout {
                request,
                principal,
                application,
                expires: None,
            },
            _ => Event::FailAttempt {
                request,
                principal,
                attempt: attempt(sequence, number),
            },
        });
    }

    fn beat_node(&mut self, name: &str, problems: Vec<String>) {
        let (node, session) = (super::world::node_id(name), self.session_of(name));
        // Of any container, whether it is there or not.
        let fetching = self.world.now.0 % 3;
        let fetching = (1..=fetching).map(|number| Fetching {
            container: format!("container_1000_000{number}_01_000001")
                .parse()
                .unwrap(),
            name: "file".to_owned(),
            bytes: number,
            bytes_total: 0,
        });
        let heartbeat = NodeHeartbeat {
            memory_used_mib: 1,
            cpu_permille: 1,
            problems,
            fetching: fetching.collect(),
        };
        self.event(Event::NodeHeartbeat {
            node,
            session,
            heartbeat,
        });
    }

    /// An event of a stream that is long gone changes nothing and is answered by nothing.
    fn stale(&mut self, index: usize) {
        let Some((container, name)) = self.pick(index) else {
            return;
        };
        let (node, session) = (super::world::node_id(&name), SessionId(0));
        let before = format!("{:?}", self.world.rm);
        let effects = self.world.handle(Event::ContainerStarted {
            node,
            session,
            container,
            resource: None,
        });
        assert_eq!(effects, []);
        assert_eq!(before, format!("{:?}", self.world.rm));
    }

    fn pass(&mut self, ms: u64) {
        let end = self.world.now + ms;
        while let Some(due) = self.world.rm.next_deadline().filter(|due| *due <= end) {
            self.world.now = self.world.now.max(due);
            self.event(Event::Tick);
        }
        self.world.now = end;
        self.event(Event::WallClock(WallMillis(end.0)));
    }

    /// A crash after any of the last event's records, or after all.
    fn restart(&mut self, lost: usize) {
        let lost = lost.min(self.fresh);
        let length = self.world.journal.len() - lost;
        self.world.journal.truncate(length);
        self.world.granted.clear();
        let known: Vec<_> = self.world.rm.applications.keys().copied().collect();
        let before: Vec<_> = known
            .iter()
            .map(|id| self.world.rm.application(*id))
            .collect();
        if length.is_multiple_of(2) && lost == 0 {
            self.world.journal = self.world.rm.snapshot();
        }
        let nodes = self.world.rm.known_nodes.clone();
        self.world.restart();
        assert!(lost > 0 || nodes == self.world.rm.known_nodes);
        self.fresh = 0;
        if lost > 0 {
            return;
        }
        for (id, before) in known.into_iter().zip(before) {
            // A kill may come to its end at once.
            if before
                .as_ref()
                .is_some_and(|report| report.state == ApplicationState::Killing)
            {
                continue;
            }
            let after = self.world.rm.application(id);
            assert_eq!(survives(before), survives(after), "{id}");
        }
    }

    /// Every node is there and does as it is told, every master says farewell: all must end.
    fn heal(&mut self) {
        for name in NODES {
            self.register(name, 8000);
        }
        for _ in 0..60 {
            for name in NODES {
                if self
                    .world
                    .rm
                    .node(&super::world::node_id(name))
                    .is_none_or(|n| !n.connected)
                {
                    self.register(name, 8000);
                }
                self.beat_node(name, Vec::new());
            }
            let live: Vec<_> = self.world.rm.live_applications.iter().copied().collect();
            for id in live {
                let Some(report) = self.world.rm.application(id) else {
                    continue;
                };
                let Some(current) = report.attempts.last() else {
                    continue;
                };
                if !self.world.rm.attempt_is_live(current.attempt) {
                    continue;
                }
                self.attach(current.attempt);
                let (attempt, session) = (current.attempt, self.master(current.attempt));
                let finish = Finish {
                    final_status: FinalStatus::Succeeded,
                    exit_status: Some(ExitStatus(0)),
                    diagnostics: String::new(),
                    tracking_url: String::new(),
                };
                self.event(Event::MasterFinishes {
                    attempt,
                    session,
                    finish,
                });
            }
            let held: Vec<_> = self
                .truth
                .containers
                .iter()
                .map(|(id, (n, ..))| (*id, n.clone()))
                .collect();
            for (id, node) in held {
                self.exited(id, &node, 0);
            }
            self.pass(5_000);
        }
        for report in self.world.rm.applications.keys() {
            let report = self.world.rm.application(*report).unwrap();
            assert!(
                report.state.is_ended() && report.containers == 0,
                "{report:?}"
            );
        }
        let nodes = self.world.rm.nodes();
        assert!(nodes.iter().all(|node| node.used.is_zero()), "{nodes:?}");
        assert_eq!(self.world.rm.queue.am_used, Resource::default());
        let (held, ended) = (&self.truth.containers, &self.truth.ended);
        assert!(held.is_empty() && ended.is_empty(), "{held:?} {ended:?}");
    }
}

/// The parts of a report that a restart must not change. What follows at once from the records (the
/// end of a client's lease, a next attempt) is not among them.
fn survives(report: Option<ApplicationReport>) -> Option<ApplicationReport> {
    let mut report = report?;
    report.waiting.clear();
    // Its master asks again.
    report.asks.clear();
    report.progress_permille = 0;
    report.containers = 0;
    report.used = Resource::default();
    // What is asked for and where nodes are is said again.
    report.wanted = Resource::default();
    report.wanted_containers = 0;
    if let Some(master) = &mut report.master {
        master.node_http_address.clear();
    }
    for attempt in &mut report.attempts {
        attempt.node_http_address.clear();
        attempt.blacklist.clear();
    }
    // One that waits for its container is made anew.
    report
        .attempts
        .retain(|attempt| attempt.node.is_some() || attempt.started.is_some());
    if report.attempts.is_empty() {
        report.started = None;
    }
    if !report.state.is_ended() {
        // Kept at the end of an attempt only.
        report.used_seconds = crate::ResourceSeconds::default();
        report.started = None;
        report.tracking_url.clear();
    }
    Some(report)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_life_keeps_the_invariants_and_ends(steps in prop::collection::vec(step(), 1..120)) {
        let mut life = Life::new();
        for step in &steps {
            life.take(step);
        }
        life.heal();
    }
}
