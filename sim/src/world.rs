//! The world: virtual time, the queue of what happens next, and the truth about processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bobbin_am_core::TaskRef;
use bobbin_types::{AttemptId, ContainerId, Millis, Resource, UserName, WallMillis};

use crate::client::Client;
use crate::link::{Ends, ExecutorMessage, Link, LinkId, Message, To};
use crate::master::Master;
use crate::node::Node;
use crate::rm::Rm;
use crate::rng::Rng;

/// A promise that was broken, with the moment and what was seen.
#[derive(Clone, Debug)]
pub struct Violation {
    pub seed: u64,
    pub at_ms: u64,
    pub words: String,
    /// The last steps before it.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(
            f,
            "seed {} at {} ms: {}\nrepeat it: cargo run -p bobbin-sim -- --seed {}",
            self.seed, self.at_ms, self.words, self.seed
        )
    }
}

/// Deliberate faults of the product itself, which the simulator must catch: tests of the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    #[default]
    None,
    /// The resource manager answers before its records are durable.
    ReplyBeforeSync,
    /// A restarted resource manager keeps its epoch.
    SameEpoch,
    /// A restarted agent forgets what it had admitted.
    ForgetAdmitted,
    /// The resource manager never tells nodes that an attempt is over.
    NoStops,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub events: u64,
    pub applications: u64,
    pub containers: u64,
    pub crashes: u64,
    pub virtual_ms: u64,
    /// Of the whole trace: two runs of a seed must agree.
    pub hash: u64,
}

/// What happens at a moment. `life` tells a process from its successor.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    RmStart,
    RmTick {
        life: u64,
        due: Millis,
    },
    RmSynced {
        life: u64,
        upto: u64,
    },
    NodeStart {
        node: usize,
    },
    NodeConnect {
        node: usize,
        life: u64,
    },
    NodeTick {
        node: usize,
        life: u64,
        due: Millis,
    },
    NodeSynced {
        node: usize,
        life: u64,
        upto: u64,
    },
    /// An answer of a container's supervisor to its agent.
    Supervised {
        node: usize,
        life: u64,
        event: Box<bobbin_na_core::Event>,
    },
    LaunchNow {
        node: usize,
        life: u64,
        container: ContainerId,
    },
    ProcessEnds {
        container: ContainerId,
        exit_status: i32,
    },
    Deliver {
        link: LinkId,
        to: To,
        message: Message,
    },
    Lost {
        link: LinkId,
        to: To,
    },
    MasterConnect {
        master: usize,
    },
    MasterNodeConnect {
        master: usize,
        node: usize,
    },
    MasterTick {
        master: usize,
        due: Millis,
    },
    MasterHeartbeat {
        master: usize,
    },
    DriverStep {
        master: usize,
    },
    FromExecutor {
        master: usize,
        container: ContainerId,
        message: ExecutorMessage,
    },
    TaskEnds {
        container: ContainerId,
        task: TaskRef,
    },
    Close {
        link: LinkId,
    },
    Client {
        client: usize,
    },
    KillByUser {
        client: usize,
    },
    ChangeByUser {
        client: usize,
    },
    Fault,
}

/// A process that a launch made: the truth, whatever anybody believes.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) node: usize,
    pub(crate) resource: Resource,
    pub(crate) began: Millis,
    /// Which master it is, or whose executor.
    pub(crate) master: Option<usize>,
    pub(crate) alive: bool,
    /// `None` while it runs, and after a host crash took the record along.
    pub(crate) exit_status: Option<i32>,
    /// Tasks of an executor that run.
    pub(crate) tasks: BTreeSet<(u64, u32)>,
}

/// The whole simulated cluster.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Millis,
    pub(crate) rng: Rng,
    pub(crate) sabotage: Sabotage,
    queue: BTreeMap<(Millis, u64), Action>,
    numbers: u64,
    pub(crate) rm: Rm,
    pub(crate) nodes: Vec<Node>,
    pub(crate) masters: Vec<Master>,
    pub(crate) clients: Vec<Client>,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) processes: BTreeMap<ContainerId, Process>,
    /// Attempt by which a client-mode submitter runs.
    pub(crate) master_of: BTreeMap<AttemptId, usize>,
    /// Faults happen.
    pub(crate) chaos: bool,
    pub(crate) summary: Summary,
    trace: Vec<String>,
    pub(crate) verbose: bool,
    pub(crate) violation: Option<String>,
}

const TRACE_LINES: usize = 60;
/// Unix time at which every world begins.
const BEGINNING: u64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage, verbose: bool) -> World {
        let mut rng = Rng::new(seed);
        let nodes = usize::try_from(rng.range(1, 4)).unwrap_or(1);
        let clients = rng.range(3, 10);
        let mut world = World {
            seed,
            now: Millis(0),
            sabotage,
            queue: BTreeMap::new(),
            numbers: 0,
            rm: Rm::new(),
            nodes: (0..nodes).map(|n| Node::new(n, &mut rng)).collect(),
            masters: Vec::new(),
            clients: (0..clients).map(|_| Client::new(&mut rng)).collect(),
            links: BTreeMap::new(),
            processes: BTreeMap::new(),
            master_of: BTreeMap::new(),
            chaos: true,
            summary: Summary::default(),
            trace: Vec::new(),
            verbose,
            violation: None,
            rng,
        };
        world.at(0, Action::RmStart);
        for node in 0..world.nodes.len() {
            world.at(0, Action::NodeStart { node });
        }
        for client in 0..world.clients.len() {
            let start = world.rng.range(0, 20_000);
            world.at(start, Action::Client { client });
            if world.rng.chance(200) {
                let kill = world.rng.range(0, 40_000);
                world.at(kill, Action::KillByUser { client });
            }
            for _ in 0..world.rng.range(0, 2) {
                let change = world.rng.range(0, 60_000);
                world.at(change, Action::ChangeByUser { client });
            }
        }
        world.at(500, Action::Fault);
        world
    }

    /// The next of the world's numbers: lives, links, sessions, requests.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(crate) fn at(&mut self, delay_ms: u64, action: Action) {
        let number = self.number();
        self.queue
            .insert((self.now.after(delay_ms), number), action);
    }

    pub(crate) fn wall(&self) -> WallMillis {
        WallMillis(BEGINNING + self.now.0)
    }

    pub(crate) fn violate(&mut self, words: String) {
        if self.violation.is_none() {
            self.violation = Some(words);
        }
    }

    /// Writes a line into the trace and its hash; the words are made only when somebody reads them.
    pub(crate) fn say(&mut self, words: impl FnOnce() -> String) {
        let line = format!("{:>8} {}", self.now.0, words());
        for byte in line.bytes() {
            self.summary.hash =
                (self.summary.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if !self.verbose && self.trace.len() >= TRACE_LINES {
            self.trace.remove(0);
        }
        self.trace.push(line);
    }

    /// A short random delay of a message or a local step.
    pub(crate) fn delay(&mut self) -> u64 {
        match self.rng.range(0, 19) {
            0 if self.chaos => self.rng.range(100, 3_000),
            n => n / 4,
        }
    }

    /// How long a disk takes; now and then it is slow, so that a crash comes in between.
    pub(crate) fn sync_delay(&mut self) -> u64 {
        if self.chaos && self.rng.chance(60) {
            self.rng.range(20, 800)
        } else {
            self.rng.range(0, 6)
        }
    }

    /// Opens a stream; nothing is said on it yet.
    pub(crate) fn open(&mut self, ends: Ends) -> LinkId {
        let id = LinkId(self.number());
        let rm_life = self.rm.life;
        let last = [self.now; 2];
        self.links.insert(
            id,
            Link {
                ends,
                rm_life,
                broken: false,
                last,
            },
        );
        id
    }

    /// Sends on a stream; a stream that is broken swallows it.
    pub(crate) fn send(&mut self, link: LinkId, to: To, message: Message) {
        let delay = self.delay();
        // Repeats come at once behind: both sides promise to take them without effect.
        let twice = self.chaos && self.rng.chance(30) && is_repeatable(&message);
        let arrival = self.now.after(delay);
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        if entry.broken {
            return;
        }
        let last = &mut entry.last[usize::from(to == To::Called)];
        *last = (*last).max(arrival);
        let delay = last.since(self.now);
        if twice {
            self.at(
                delay,
                Action::Deliver {
                    link,
                    to,
                    message: message.clone(),
                },
            );
        }
        self.at(delay, Action::Deliver { link, to, message });
    }

    /// Breaks a stream; each end learns of it in its own time.
    pub(crate) fn break_link(&mut self, link: LinkId) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        if entry.broken {
            return;
        }
        entry.broken = true;
        for to in [To::Caller, To::Called] {
            let delay = if self.chaos {
                self.rng.range(0, 2_500)
            } else {
                1
            };
            self.at(delay, Action::Lost { link, to });
        }
    }

    /// Closes a stream in order: what was sent before still arrives.
    pub(crate) fn close_link(&mut self, link: LinkId) {
        if let Some(entry) = self.links.get(&link) {
            let delay = entry.last[0].max(entry.last[1]).since(self.now) + 1;
            self.at(delay, Action::Close { link });
        }
    }

    pub(crate) fn links_where(&self, keep: impl Fn(&Link) -> bool) -> Vec<LinkId> {
        self.links
            .iter()
            .filter(|(_, l)| !l.broken && keep(l))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Runs until everything has ended well, or a promise is broken.
    pub(crate) fn run(mut self) -> Result<Summary, Violation> {
        const CHAOS_MS: u64 = 60_000;
        const END_MS: u64 = 1_200_000;
        const EVENTS_MAX: u64 = 3_000_000;
        while let Some(((at, _), action)) = self.queue.pop_first() {
            self.now = self.now.max(at);
            self.summary.events += 1;
            if self.chaos && self.now.0 >= CHAOS_MS {
                self.heal();
            }
            self.act(action);
            self.check();
            if !self.chaos && self.violation.is_none() && self.is_over() {
                break;
            }
            if self.now.0 > END_MS || self.summary.events > EVENTS_MAX {
                let words = self.what_hangs();
                self.violate(format!("it does not come to an end: {words}"));
            }
            if self.violation.is_some() {
                break;
            }
        }
        self.summary.virtual_ms = self.now.0;
        match self.violation.take() {
            None => Ok(self.summary),
            Some(words) => Err(Violation {
                seed: self.seed,
                at_ms: self.now.0,
                words,
                trace: self.trace,
            }),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::RmStart => self.rm_start(),
            Action::RmTick { life, due } => self.rm_tick(life, due),
            Action::RmSynced { life, upto } => self.rm_synced(life, upto),
            Action::NodeStart { node } => self.node_start(node),
            Action::NodeConnect { node, life } => self.node_connect(node, life),
            Action::NodeTick { node, life, due } => self.node_tick(node, life, due),
            Action::NodeSynced { node, life, upto } => self.node_synced(node, life, upto),
            Action::Supervised { node, life, event } => self.supervised(node, life, *event),
            Action::LaunchNow {
                node,
                life,
                container,
            } => self.launch_now(node, life, container),
            Action::ProcessEnds {
                container,
                exit_status,
            } => {
                self.process_ends(container, exit_status);
            }
            Action::Deliver { link, to, message } => self.deliver(link, to, message),
            Action::Lost { link, to } => self.lost(link, to),
            Action::MasterConnect { master } => self.master_connect(master),
            Action::MasterNodeConnect { master, node } => self.master_node_connect(master, node),
            Action::MasterTick { master, due } => self.master_tick(master, due),
            Action::MasterHeartbeat { master } => self.master_heartbeat(master),
            Action::DriverStep { master } => self.driver_step(master),
            Action::FromExecutor {
                master,
                container,
                message,
            } => {
                self.hear_executor(master, container, message);
            }
            Action::TaskEnds { container, task } => self.task_ends(container, task),
            Action::Close { link } => self.break_link(link),
            Action::Client { client } => self.client_step(client),
            Action::KillByUser { client } => self.kill_by_user(client),
            Action::ChangeByUser { client } => self.change_by_user(client),
            Action::Fault => self.fault(),
        }
    }

    fn deliver(&mut self, link: LinkId, to: To, message: Message) {
        let Some(entry) = self.links.get(&link) else {
            return;
        };
        if entry.broken {
            return;
        }
        let (ends, rm_life) = (entry.ends.clone(), entry.rm_life);
        match (ends, to) {
            (Ends::NodeToRm { .. } | Ends::MasterToRm { .. }, To::Called) => {
                if self.rm.up && rm_life == self.rm.life {
                    self.rm_hears(link, message);
                }
            }
            (Ends::NodeToRm { node, life }, To::Caller) => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    self.node_hears_rm(node, message);
                }
            }
            (Ends::MasterToRm { master }, To::Caller) => self.master_hears_rm(master, message),
            (Ends::MasterToNode { master, node, .. }, To::Caller) => {
                self.master_hears_node(master, node, message);
            }
            (Ends::MasterToNode { node, life, .. }, To::Called) => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    self.node_hears_master(node, link, message);
                }
            }
        }
    }

    fn lost(&mut self, link: LinkId, to: To) {
        let Some(entry) = self.links.get(&link) else {
            return;
        };
        let (ends, rm_life) = (entry.ends.clone(), entry.rm_life);
        match (ends, to) {
            (Ends::NodeToRm { .. } | Ends::MasterToRm { .. }, To::Called) => {
                if self.rm.up && rm_life == self.rm.life {
                    self.rm_lost_link(link);
                }
            }
            (Ends::NodeToRm { node, life }, To::Caller) => self.node_lost_rm(node, life, link),
            (Ends::MasterToRm { master }, To::Caller) => self.master_lost_rm(master, link),
            (Ends::MasterToNode { master, node, .. }, To::Caller) => {
                self.master_lost_node(master, node, link);
            }
            (Ends::MasterToNode { node, life, .. }, To::Called) => {
                if self.nodes[node].up && self.nodes[node].life == life {
                    self.node_lost_master(node, link);
                }
            }
        }
    }
}

/// First messages of a stream and heartbeats are not repeated on the same stream.
fn is_repeatable(message: &Message) -> bool {
    !matches!(
        message,
        Message::NodeRegister(_)
            | Message::MasterRegister(_)
            | Message::NodeHeartbeat(_)
            | Message::MasterHeartbeat
            // A repeated ask after a grant in between would be a new ask: streams keep their order,
            // so only what is sent again after a reconnection comes twice.
            | Message::MasterAsks(_)
            // Changes of what was there before.
            | Message::MasterBlacklist { .. }
            | Message::MasterUpdate(_)
            | Message::ToMaster(_)
    )
}

/// The user of every simulated application.
pub(crate) fn user() -> UserName {
    "alice".parse().expect("a valid name")
}
