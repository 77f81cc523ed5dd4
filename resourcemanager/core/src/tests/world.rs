//! A resource manager under test: scripts go in, a transcript of effects comes out. After every
//! event the invariants are checked, and a copy that is handed the same event must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use bobbin_types::{
    ApplicationId, AttemptId, ContainerId, ExitStatus, FinalStatus, Millis, NodeId, Resource,
    WallMillis,
};

use super::show::show;
use crate::launch::{LaunchContext, LaunchContract};
use crate::{
    Ask, AskKey, Config, ContainerExit, ContainerSignal, ContainerUpdate, Effect, Event, Finish,
    Groups, MasterMessage, MasterRegistration, NodeCommand, NodeHeartbeat, NodeRegistration,
    Principal, Record, ReportedContainer, ReportedStatus, RequestId, ResourceManager, SessionId,
    Submission, UpdateKind,
};

pub(super) const STAMP: u64 = 1000;

pub(super) struct World {
    pub(super) rm: ResourceManager,
    pub(super) now: Millis,
    pub(super) journal: Vec<Record>,
    pub(super) transcript: String,
    /// Every container id that was granted, to see that none comes twice.
    pub(super) granted: BTreeSet<ContainerId>,
    pub(super) node_sessions: BTreeMap<String, SessionId>,
    pub(super) master_sessions: BTreeMap<AttemptId, SessionId>,
    pub(super) quiet: bool,
    /// Nodes that came back smaller: they may be over full.
    pub(super) shrunk: bool,
    next: u64,
}

pub(crate) fn application(sequence: u32) -> ApplicationId {
    ApplicationId {
        cluster_timestamp: STAMP,
        sequence,
    }
}

pub(super) fn attempt(sequence: u32, attempt: u32) -> AttemptId {
    AttemptId {
        application: application(sequence),
        attempt,
    }
}

pub(super) fn user(name: &str) -> Principal {
    Principal::User {
        name: name.parse().unwrap(),
        administrator: false,
        groups: Groups::default(),
    }
}

pub(super) fn node_id(name: &str) -> NodeId {
    format!("{name}:1").parse().unwrap()
}

/// `1.2#3` is container 3 of attempt 2 of application 1 in epoch 1; `e2.1.2#3` in epoch 2.
pub(super) fn container(text: &str) -> ContainerId {
    let (epoch, rest) = match text.strip_prefix('e') {
        Some(rest) => rest.split_once('.').unwrap(),
        None => ("1", text),
    };
    let (attempt_text, number) = rest.split_once('#').unwrap();
    ContainerId {
        attempt: attempt_of(attempt_text),
        epoch: epoch.parse().unwrap(),
        number: number.parse().unwrap(),
    }
}

pub(super) fn attempt_of(text: &str) -> AttemptId {
    let (sequence, number) = text.split_once('.').unwrap();
    attempt(sequence.parse().unwrap(), number.parse().unwrap())
}

pub(super) fn short_attempt(id: AttemptId) -> String {
    format!("{}.{}", id.application.sequence, id.attempt)
}

pub(super) fn short(id: ContainerId) -> String {
    let epoch = if id.epoch == 1 {
        String::new()
    } else {
        format!("e{}.", id.epoch)
    };
    format!("{epoch}{}#{}", short_attempt(id.attempt), id.number)
}

pub(crate) fn submission() -> Submission {
    Submission {
        application: None,
        name: "test".to_owned(),
        queue: String::new(),
        priority: 0,
        unmanaged: false,
        launch: LaunchContext {
            argv: vec!["true".to_owned()],
            ..LaunchContext::default()
        },
        resource: Resource::new(1024, 1),
        overhead: Resource::default(),
        max_attempts: 0,
        tags: Vec::new(),
        timeout_ms: 0,
        tie_to_client: false,
        application_type: String::new(),
        settings: BTreeMap::new(),
        node_label: String::new(),
        keep_containers: false,
        failures_validity_ms: None,
        view_acl: String::new(),
        modify_acl: String::new(),
    }
}

pub(super) fn registration(name: &str, total: Resource) -> NodeRegistration {
    NodeRegistration {
        node: node_id(name),
        grpc_address: format!("{name}:2"),
        http_address: format!("{name}:3"),
        total,
        reserved: Resource::default(),
        profile: "full".to_owned(),
        problems: Vec::new(),
        lacks: Vec::new(),
        containers: Vec::new(),
        version: "1".to_owned(),
        applications: Vec::new(),
    }
}

pub(super) fn ask(count: u32, memory_mib: u64, vcores: u32, request_id: i64) -> Ask {
    Ask {
        key: Arc::new(AskKey {
            priority: 1,
            request_id,
            place: "*".to_owned(),
            capability: Resource::new(memory_mib, vcores),
            node_label: String::new(),
        }),
        count,
        relax_locality: true,
    }
}

impl World {
    pub(super) fn new(config: Config) -> World {
        let mut world = World {
            rm: ResourceManager::new(config, 1, STAMP),
            now: Millis(0),
            journal: Vec::new(),
            transcript: String::new(),
            granted: BTreeSet::new(),
            node_sessions: BTreeMap::new(),
            master_sessions: BTreeMap::new(),
            quiet: false,
            shrunk: false,
            next: 0,
        };
        world.quietly(Event::RecoveryDone);
        world
    }

    pub(super) fn session(&mut self) -> SessionId {
        self.next += 1;
        SessionId(self.next)
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    pub(super) fn quietly(&mut self, event: Event) -> Vec<Effect> {
        let quiet = std::mem::replace(&mut self.quiet, true);
        let effects = self.handle(event);
        self.quiet = quiet;
        effects
    }

    /// One event, with all checks.
    pub(super) fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut copy = self.rm.clone();
        let (mut effects, mut again) = (Vec::new(), Vec::new());
        self.rm.handle(self.now, event.clone(), &mut effects);
        copy.handle(self.now, event.clone(), &mut again);
        assert_eq!(effects, again, "two copies disagree on {event:?}");
        if let Err(broken) = self.rm.check_invariants() {
            panic!("after {event:?}: {broken}\n{}", self.transcript);
        }
        if !self.shrunk {
            let over = self.rm.oversubscribed();
            assert!(over.is_empty(), "after {event:?}: {over:?}");
        }
        for effect in &effects {
            self.note(effect);
        }
        effects
    }

    fn note(&mut self, effect: &Effect) {
        match effect {
            Effect::Persist(record) => self.journal.push(record.clone()),
            Effect::ToNode {
                command: NodeCommand::StartContainer(start),
                ..
            } => {
                self.granted.insert(start.container);
            }
            Effect::ToMaster {
                message: MasterMessage::Granted(grants),
                ..
            } => {
                for grant in grants {
                    assert!(
                        self.granted.insert(grant.container),
                        "{} twice",
                        grant.container
                    );
                }
            }
            _ => {}
        }
        if !self.quiet
            && let Some(line) = show(effect)
        {
            writeln!(self.transcript, "    {line}").unwrap();
        }
    }

    /// A new process: only the records are left, the clock starts anew.
    pub(super) fn restart(&mut self) {
        let epoch = self.rm.epoch + 1;
        self.rm = ResourceManager::new(self.rm.config.clone(), epoch, STAMP);
        self.node_sessions.clear();
        self.master_sessions.clear();
        let wall = self.now.0;
        for record in self.journal.clone() {
            self.quietly(Event::Recovered(record));
        }
        self.quietly(Event::WallClock(WallMillis(wall)));
        self.handle(Event::RecoveryDone);
        assert_eq!(
            self.rm.illegal_transitions, 0,
            "the journal does not fit itself"
        );
    }

    /// Time passes, with all ticks that fall due.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(due) = self.rm.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.quietly(Event::WallClock(WallMillis(self.now.0)));
            self.handle(Event::Tick);
        }
        self.now = end;
        self.quietly(Event::WallClock(WallMillis(end.0)));
    }

    /// Time passes for nodes that beat.
    fn live(&mut self, ms: u64) {
        for _ in 0..ms / 5_000 {
            for (name, session) in self.node_sessions.clone() {
                if let Ok(node) = format!("{name}:1").parse() {
                    let problems = Vec::new();
                    let heartbeat = NodeHeartbeat {
                        memory_used_mib: 1,
                        cpu_permille: 1,
                        problems,
                        fetching: Vec::new(),
                    };
                    self.handle(Event::NodeHeartbeat {
                        node,
                        session,
                        heartbeat,
                    });
                }
            }
            self.pass(5_000);
        }
    }

    pub(super) fn register(&mut self, registration: NodeRegistration) {
        let name = registration.node.host().to_owned();
        let session = self.session();
        self.node_sessions.insert(name.clone(), session);
        self.handle(Event::NodeRegistered {
            session,
            principal: Principal::Node(name),
            registration: Box::new(registration),
        });
    }

    pub(super) fn attach(&mut self, attempt: AttemptId, registration: MasterRegistration) {
        let session = self.session();
        self.master_sessions.insert(attempt, session);
        self.handle(Event::MasterAttached {
            session,
            principal: Principal::Attempt(attempt),
            attempt,
            registration: Box::new(registration),
        });
    }

    pub(super) fn submit(&mut self, submission: Submission) -> Vec<Effect> {
        let request = self.request();
        let submission = Box::new(submission);
        self.handle(Event::Submit {
            request,
            principal: user("ann"),
            submission,
        })
    }

    pub(super) fn on_node(&self, id: ContainerId) -> String {
        let report = self.rm.container(id);
        report.map_or_else(
            || "nowhere".to_owned(),
            |report| report.node.host().to_owned(),
        )
    }

    /// Runs a script, one event a line; see the match for the words.
    /// Runs a script. What stands before a line `--` is a known beginning: it is left out of the
    /// transcript.
    pub(super) fn run(&mut self, script: &str) {
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            if line == "--" {
                self.transcript.clear();
                continue;
            }
            writeln!(self.transcript, "{line}").unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            self.run_line(&words);
        }
    }

    fn run_line(&mut self, words: &[&str]) {
        match words {
            ["node", name, memory, vcores, containers @ ..] => {
                let total = Resource::new(memory.parse().unwrap(), vcores.parse().unwrap());
                let mut registration = registration(name, total);
                registration.containers = containers.iter().map(|text| reported(text)).collect();
                let held = registration
                    .containers
                    .iter()
                    .map(|c| c.container.application());
                registration.applications = held.collect();
                self.register(registration);
            }
            ["node-lost", name] => {
                let (node, session) = (node_id(name), self.node_sessions[*name]);
                self.handle(Event::NodeStreamLost { node, session });
            }
            ["ill", name, problems @ ..] => {
                let (node, session) = (node_id(name), self.node_sessions[*name]);
                let problems = problems.iter().map(|p| (*p).to_owned()).collect();
                let heartbeat = NodeHeartbeat {
                    memory_used_mib: 1,
                    cpu_permille: 1,
                    problems,
                    fetching: Vec::new(),
                };
                self.handle(Event::NodeHeartbeat {
                    node,
                    session,
                    heartbeat,
                });
            }
            ["submit", fields @ ..] => {
                let submission = submission_of(fields);
                self.submit(submission);
            }
            ["kill", sequence, wait] => {
                let application = application(sequence.parse().unwrap());
                let (request, principal) = (self.request(), user("ann"));
                let (wait, reason) = (*wait == "wait", String::new());
                self.handle(Event::Kill {
                    request,
                    principal,
                    application,
                    wait,
                    reason,
                });
            }
            ["attach-yarn", id] => {
                let registration = MasterRegistration {
                    host: "m".to_owned(),
                    rpc_port: 99,
                    tracking_url: "http://m:4040".to_owned(),
                    ..MasterRegistration::default()
                };
                self.attach(attempt_of(id), registration);
            }
            ["priority" | "move" | "ends-at" | "fail" | "signal", ..] => self.run_change(words),
            ["lease", sequence] => {
                let application = application(sequence.parse().unwrap());
                let (request, session) = (self.request(), self.session());
                let principal = user("ann");
                self.handle(Event::LeaseHeld {
                    request,
                    principal,
                    application,
                    session,
                });
                self.node_sessions
                    .insert(format!("lease{sequence}"), session);
            }
            ["lease-lost", sequence] => {
                let application = application(sequence.parse().unwrap());
                let session = self.node_sessions[&format!("lease{sequence}")];
                self.handle(Event::LeaseLost {
                    application,
                    session,
                });
            }
            ["started", id] => {
                let id = container(id);
                let name = self.on_node(id);
                self.started(&name, id);
            }
            ["exited", id, status, diagnostics @ ..] => {
                let id = container(id);
                let name = self.on_node(id);
                self.exited(&name, id, status.parse().unwrap(), &diagnostics.join(" "));
            }
            ["resized", id, memory] => {
                let id = container(id);
                let (name, resource) =
                    (self.on_node(id), Resource::new(memory.parse().unwrap(), 1));
                self.started_with(&name, id, resource);
            }
            ["restart"] => self.restart(),
            ["live", ms] => self.live(ms.parse().unwrap()),
            ["pass", ms] => self.pass(ms.parse().unwrap()),
            [command, id, rest @ ..] => self.run_master(command, attempt_of(id), rest),
            [] | [_] => panic!("not a line: {words:?}"),
        }
    }

    /// What people change of a running application.
    fn run_change(&mut self, words: &[&str]) {
        let (request, principal) = (self.request(), user("ann"));
        let application = |text: &str| application(text.parse().unwrap());
        let event = match words {
            ["priority", sequence, priority] => Event::SetPriority {
                request,
                principal,
                application: application(sequence),
                priority: priority.parse().unwrap(),
            },
            ["move", sequence, queue] => Event::MoveToQueue {
                request,
                principal,
                application: application(sequence),
                queue: (*queue).to_owned(),
            },
            ["ends-at", sequence, ms] => Event::SetTimeout {
                request,
                principal,
                application: application(sequence),
                expires: ms.parse().ok().map(WallMillis),
            },
            ["fail", id] => Event::FailAttempt {
                request,
                principal,
                attempt: attempt_of(id),
            },
            ["signal", id] => Event::SignalContainer {
                request,
                principal,
                container: container(id),
                signal: ContainerSignal::Graceful,
            },
            _ => panic!("not a line: {words:?}"),
        };
        self.handle(event);
    }

    fn run_master(&mut self, command: &str, attempt: AttemptId, words: &[&str]) {
        let session = self
            .master_sessions
            .get(&attempt)
            .copied()
            .unwrap_or(SessionId(0));
        let event = match (command, words) {
            ("attach", held) => {
                let registration = MasterRegistration {
                    host: "m".to_owned(),
                    containers: Some(held.iter().map(|id| container(id)).collect()),
                    ..MasterRegistration::default()
                };
                self.attach(attempt, registration);
                return;
            }
            ("master-lost", []) => Event::MasterStreamLost { attempt, session },
            ("ask", [count, memory, vcores]) => {
                let (memory, vcores) = (memory.parse().unwrap(), vcores.parse().unwrap());
                let asks = vec![ask(count.parse().unwrap(), memory, vcores, 0)];
                Event::MasterAsks {
                    attempt,
                    session,
                    asks,
                }
            }
            ("ask-on", [host, relax, count, memory]) => {
                let mut wanted = ask(count.parse().unwrap(), memory.parse().unwrap(), 1, 7);
                let key = AskKey {
                    place: (*host).to_owned(),
                    ..(*wanted.key).clone()
                };
                wanted.key = Arc::new(key);
                wanted.relax_locality = *relax == "relaxed";
                Event::MasterAsks {
                    attempt,
                    session,
                    asks: vec![wanted],
                }
            }
            ("acknowledge", ids) => Event::MasterAcknowledges {
                attempt,
                session,
                containers: ids.iter().map(|id| container(id)).collect(),
            },
            ("blacklist", hosts) => {
                let signed = |sign: char| -> Vec<String> {
                    let some = hosts.iter().filter_map(|host| host.strip_prefix(sign));
                    some.map(str::to_owned).collect()
                };
                Event::MasterBlacklist {
                    attempt,
                    session,
                    additions: signed('+'),
                    removals: signed('-'),
                }
            }
            ("update", [kind, id, version, memory]) => Event::MasterUpdates {
                attempt,
                session,
                updates: vec![ContainerUpdate {
                    container: container(id),
                    version: version.parse().unwrap(),
                    kind: if *kind == "more" {
                        UpdateKind::Increase
                    } else {
                        UpdateKind::Decrease
                    },
                    resource: Resource::new(memory.parse().unwrap(), 1),
                }],
            },
            ("release", ids) => {
                let containers = ids.iter().map(|id| container(id)).collect();
                Event::MasterReleases {
                    attempt,
                    session,
                    containers,
                }
            }
            ("finish", [status]) => {
                let finish = Finish {
                    final_status: FinalStatus::Succeeded,
                    exit_status: Some(ExitStatus(status.parse().unwrap())),
                    diagnostics: String::new(),
                    tracking_url: String::new(),
                };
                Event::MasterFinishes {
                    attempt,
                    session,
                    finish,
                }
            }
            ("beat", []) => Event::MasterHeartbeat {
                attempt,
                session,
                progress_permille: 5,
                tracking_url: None,
            },
            _ => panic!("not a line: {command} {words:?}"),
        };
        self.handle(event);
    }

    pub(super) fn started(&mut self, name: &str, id: ContainerId) {
        self.started_with(name, id, Resource::new(512, 1));
    }

    fn started_with(&mut self, name: &str, id: ContainerId, resource: Resource) {
        let session = self
            .node_sessions
            .get(name)
            .copied()
            .unwrap_or(SessionId(0));
        let node = node_id(name);
        let resource = Some(resource);
        self.handle(Event::ContainerStarted {
            node,
            session,
            container: id,
            resource,
        });
    }

    pub(super) fn exited(&mut self, name: &str, id: ContainerId, status: i32, words: &str) {
        let session = self
            .node_sessions
            .get(name)
            .copied()
            .unwrap_or(SessionId(0));
        let exit = ContainerExit {
            container: id,
            exit_status: ExitStatus(status),
            diagnostics: words.to_owned(),
        };
        self.handle(Event::ContainerExited {
            node: node_id(name),
            session,
            exit,
        });
    }
}

/// `1.1#1` runs with 1024 MiB; `1.1#1=7` ended with 7; `1.1#1?` is starting.
fn reported(text: &str) -> ReportedContainer {
    let (id, status) = match text.split_once('=') {
        Some((id, status)) => (
            id,
            ReportedStatus::Ended {
                exit_status: ExitStatus(status.parse().unwrap()),
                diagnostics: String::new(),
            },
        ),
        None => match text.strip_suffix('?') {
            Some(id) => (id, ReportedStatus::Starting),
            None => (text, ReportedStatus::Running),
        },
    };
    ReportedContainer {
        container: container(id),
        resource: Resource::new(1024, 1),
        status,
    }
}

fn submission_of(fields: &[&str]) -> Submission {
    let mut submission = submission();
    for field in fields {
        match field.split_once('=') {
            Some(("memory", value)) => submission.resource.memory_mib = value.parse().unwrap(),
            Some(("vcores", value)) => submission.resource.vcores = value.parse().unwrap(),
            Some(("attempts", value)) => submission.max_attempts = value.parse().unwrap(),
            Some(("timeout", value)) => submission.timeout_ms = value.parse().unwrap(),
            Some(("priority", value)) => submission.priority = value.parse().unwrap(),
            Some(("id", value)) => {
                submission.application = Some(application(value.parse().unwrap()));
            }
            None if *field == "unmanaged" => {
                submission.unmanaged = true;
                submission.launch = LaunchContext::default();
            }
            Some(("validity", value)) => {
                submission.failures_validity_ms = Some(value.parse().unwrap());
            }
            None if *field == "tied" => submission.tie_to_client = true,
            None if *field == "keep" => submission.keep_containers = true,
            None if *field == "yarn" => submission.launch.contract = LaunchContract::Yarn,
            _ => panic!("not a field: {field}"),
        }
    }
    submission
}

/// A world of the default settings after a script.
pub(super) fn ran(script: &str) -> World {
    let mut world = World::new(Config::default());
    world.run(script);
    world
}

/// Compares what a script does with what it should.
pub(super) fn check(script: &str, expected: &expect_test::Expect) {
    expected.assert_eq(&ran(script).transcript);
}
