//! The resource manager's process: the core, its journal on a disk that loses what was not synced,
//! and the outbox that holds back what depends on it.

use std::collections::{BTreeMap, VecDeque};

use bobbin_rm_core::{
    Config, Effect, Event, MasterMessage, NodeCommand, Principal, Record, Refusal, Reply,
    RequestId, ResourceManager, SessionId,
};
use bobbin_types::Millis;

use crate::link::{Ends, LinkId, Message, To};
use crate::world::{Action, Sabotage, World};

/// What leaves, in the order of its peer.
#[derive(Debug)]
enum Out {
    Reply(RequestId, Box<Result<Reply, Refusal>>),
    Node(LinkId, NodeCommand),
    Master(LinkId, MasterMessage),
    Close(LinkId),
}

/// The process and its disk.
#[derive(Debug)]
pub(crate) struct Rm {
    pub(crate) up: bool,
    /// Doors are open: its start is durable.
    pub(crate) open: bool,
    pub(crate) life: u64,
    pub(crate) core: Option<ResourceManager>,
    disk: Vec<Record>,
    unsynced: VecDeque<Record>,
    written: u64,
    synced: u64,
    outbox: BTreeMap<u64, VecDeque<(u64, Out)>>,
    /// Who waits for which request: the client's index.
    pub(crate) requests: BTreeMap<RequestId, usize>,
    tick: Option<Millis>,
}

impl Rm {
    pub(crate) fn new() -> Rm {
        Rm {
            up: false,
            open: false,
            life: 0,
            core: None,
            disk: Vec::new(),
            unsynced: VecDeque::new(),
            written: 0,
            synced: 0,
            outbox: BTreeMap::new(),
            requests: BTreeMap::new(),
            tick: None,
        }
    }
}

impl Rm {
    /// Whether everything the core knows is on disk.
    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }
}

/// Short times, so that expiries happen within a run.
fn config() -> Config {
    Config {
        am_expiry_ms: 12_000,
        client_lease_ms: 4_000,
        node_expiry_ms: 6_000,
        allocation_expiry_ms: 30_000,
        finish_grace_ms: 8_000,
        max_am_share_permille: 600,
        ..Config::default()
    }
}

impl World {
    pub(crate) fn rm_start(&mut self) {
        if self.rm.up {
            return;
        }
        let (mut epoch, mut timestamp) = (0, self.wall().0);
        for record in &self.rm.disk {
            if let Record::Epoch {
                epoch: e,
                cluster_timestamp,
            } = record
            {
                (epoch, timestamp) = (*e, *cluster_timestamp);
            }
        }
        let epoch = match self.sabotage {
            Sabotage::SameEpoch if epoch > 0 => epoch,
            _ => epoch + 1,
        };
        self.rm.life = self.number();
        self.rm.up = true;
        self.rm.open = false;
        self.rm.tick = None;
        self.rm.core = Some(ResourceManager::new(config(), epoch, timestamp));
        self.say(|| format!("rm starts, epoch {epoch}"));
        let mut events: Vec<Event> = vec![Event::WallClock(self.wall())];
        events.extend(self.rm.disk.iter().cloned().map(Event::Recovered));
        events.push(Event::RecoveryDone);
        self.rm_handle(events);
        if self.rm.unsynced.is_empty() {
            self.rm.open = true;
        }
    }

    /// kill -9: what was not synced is lost, up to a point that nobody chooses.
    pub(crate) fn rm_crash(&mut self) {
        if !self.rm.up {
            return;
        }
        self.summary.crashes += 1;
        let kept = self.rng.index(self.rm.unsynced.len() + 1);
        let unsynced = std::mem::take(&mut self.rm.unsynced);
        let lost = unsynced.len() - kept;
        self.rm.disk.extend(unsynced.into_iter().take(kept));
        self.rm.written = u64::try_from(self.rm.disk.len()).unwrap_or(0);
        self.rm.synced = self.rm.written;
        self.say(|| format!("rm crashes, {lost} records lost"));
        self.rm.up = false;
        self.rm.open = false;
        self.rm.core = None;
        self.rm.outbox.clear();
        self.rm.requests.clear();
        let life = self.rm.life;
        for link in self.links_where(|l| {
            l.rm_life == life && matches!(l.ends, Ends::NodeToRm { .. } | Ends::MasterToRm { .. })
        }) {
            self.break_link(link);
        }
        let back = if self.chaos {
            self.rng.range(10, 9_000)
        } else {
            10
        };
        self.at(back, Action::RmStart);
    }

    pub(crate) fn rm_tick(&mut self, life: u64, due: Millis) {
        if self.rm.up && self.rm.life == life && self.rm.tick == Some(due) {
            self.rm.tick = None;
            self.rm_event(Event::Tick);
        }
    }

    pub(crate) fn rm_event(&mut self, event: Event) {
        let wall = Event::WallClock(self.wall());
        self.rm_handle(vec![wall, event]);
    }

    /// One batch, as the driver does it.
    fn rm_handle(&mut self, events: Vec<Event>) {
        let Some(core) = self.rm.core.as_mut() else {
            return;
        };
        let mut effects = Vec::new();
        for event in events {
            core.handle(self.now, event, &mut effects);
        }
        let before = self.rm.written;
        for effect in effects {
            self.rm_effect(effect);
        }
        if self.rm.written > before {
            let (life, upto) = (self.rm.life, self.rm.written);
            let delay = self.sync_delay();
            self.at(delay, Action::RmSynced { life, upto });
        }
        self.rm_flush();
        self.rm_schedule_tick();
    }

    fn rm_schedule_tick(&mut self) {
        let Some(due) = self
            .rm
            .core
            .as_ref()
            .and_then(ResourceManager::next_deadline)
        else {
            return;
        };
        let due = due.max(self.now);
        if self.rm.tick.is_none_or(|tick| due < tick) {
            self.rm.tick = Some(due);
            let life = self.rm.life;
            self.at(due.since(self.now), Action::RmTick { life, due });
        }
    }

    fn rm_effect(&mut self, effect: Effect) {
        let needs = match self.sabotage {
            Sabotage::ReplyBeforeSync => 0,
            _ if effect.needs_sync() => self.rm.written,
            _ => 0,
        };
        let (peer, out) = match effect {
            Effect::Persist(record) => {
                self.rm.unsynced.push_back(record);
                self.rm.written += 1;
                return;
            }
            Effect::Reply { request, result } => (request.0, Out::Reply(request, Box::new(result))),
            Effect::ToNode {
                session, command, ..
            } => {
                if self.sabotage == Sabotage::NoStops
                    && matches!(
                        command,
                        NodeCommand::StopContainer { .. } | NodeCommand::RevokeAttempt { .. }
                    )
                {
                    return;
                }
                (session.0, Out::Node(LinkId(session.0), command))
            }
            Effect::ToMaster {
                session, message, ..
            } => (session.0, Out::Master(LinkId(session.0), message)),
            Effect::CloseSession { session } => (session.0, Out::Close(LinkId(session.0))),
            Effect::Transitioned(transition) => {
                self.say(|| format!("rm {transition:?}"));
                return;
            }
            Effect::Illegal(illegal) => {
                self.say(|| format!("rm {illegal:?}"));
                return;
            }
            Effect::ApplicationChanged(_) | Effect::DeleteStaging { .. } => return,
        };
        self.rm
            .outbox
            .entry(peer)
            .or_default()
            .push_back((needs, out));
    }

    pub(crate) fn rm_synced(&mut self, life: u64, upto: u64) {
        if !self.rm.up || self.rm.life != life {
            return;
        }
        while self.rm.synced < upto {
            let Some(record) = self.rm.unsynced.pop_front() else {
                break;
            };
            self.rm.disk.push(record);
            self.rm.synced += 1;
        }
        self.rm.open = true;
        // Now and then the journal is compacted to what rebuilds the same state.
        if self.rm.unsynced.is_empty()
            && self.rng.chance(20)
            && let Some(core) = &self.rm.core
        {
            self.rm.disk = core.snapshot();
        }
        self.rm_flush();
    }

    fn rm_flush(&mut self) {
        let mut leaving = Vec::new();
        let synced = self.rm.synced;
        for queue in self.rm.outbox.values_mut() {
            while queue.front().is_some_and(|(needs, _)| *needs <= synced) {
                if let Some((_, out)) = queue.pop_front() {
                    leaving.push(out);
                }
            }
        }
        self.rm.outbox.retain(|_, queue| !queue.is_empty());
        for out in leaving {
            match out {
                Out::Reply(request, result) => self.client_hears(request, *result),
                Out::Node(link, command) => self.send(link, To::Caller, Message::ToNode(command)),
                Out::Master(link, message) => {
                    self.send(link, To::Caller, Message::ToMaster(message));
                }
                Out::Close(link) => self.close_link(link),
            }
        }
    }

    /// A message on one of its streams; the stream's number is the session.
    pub(crate) fn rm_hears(&mut self, link: LinkId, message: Message) {
        if !self.rm.open {
            return;
        }
        let session = SessionId(link.0);
        let ends = self.links[&link].ends.clone();
        let event = match ends {
            Ends::NodeToRm { node, .. } => self.node_message(node, session, message),
            Ends::MasterToRm { master } => self.master_message(master, session, message),
            Ends::MasterToNode { .. } => None,
        };
        if let Some(event) = event {
            self.rm_event(event);
        }
    }

    fn node_message(&self, node: usize, session: SessionId, message: Message) -> Option<Event> {
        let id = self.nodes[node].id.clone();
        Some(match message {
            Message::NodeRegister(registration) => Event::NodeRegistered {
                session,
                principal: Principal::Node(id.host().to_owned()),
                registration: Box::new(self.nodes[node].registration(registration)),
            },
            Message::NodeHeartbeat(heartbeat) => Event::NodeHeartbeat {
                node: id,
                session,
                heartbeat: bobbin_rm_core::NodeHeartbeat {
                    memory_used_mib: heartbeat.usage.memory_used_mib,
                    cpu_permille: heartbeat.usage.cpu_permille,
                    problems: heartbeat.problems,
                    fetching: Vec::new(),
                },
            },
            Message::NodeStarted(report) => Event::ContainerStarted {
                node: id,
                session,
                container: report.container,
                resource: Some(report.resource),
            },
            Message::NodeExited(report) => Event::ContainerExited {
                node: id,
                session,
                exit: bobbin_rm_core::ContainerExit {
                    container: report.container,
                    exit_status: report.exit_status?,
                    diagnostics: report.diagnostics,
                },
            },
            _ => return None,
        })
    }

    fn master_message(&self, master: usize, session: SessionId, message: Message) -> Option<Event> {
        let attempt = self.masters[master].attempt;
        Some(match message {
            Message::MasterRegister(registration) => Event::MasterAttached {
                session,
                principal: Principal::Attempt(attempt),
                attempt,
                registration: Box::new(registration),
            },
            Message::MasterAsks(asks) => Event::MasterAsks {
                attempt,
                session,
                asks,
            },
            Message::MasterRelease(containers) => Event::MasterReleases {
                attempt,
                session,
                containers,
            },
            Message::MasterBlacklist {
                additions,
                removals,
            } => Event::MasterBlacklist {
                attempt,
                session,
                additions,
                removals,
            },
            Message::MasterUpdate(update) => Event::MasterUpdates {
                attempt,
                session,
                updates: vec![update],
            },
            Message::MasterAcknowledge(containers) => Event::MasterAcknowledges {
                attempt,
                session,
                containers,
            },
            Message::MasterFinish(finish) => Event::MasterFinishes {
                attempt,
                session,
                finish,
            },
            Message::MasterHeartbeat => Event::MasterHeartbeat {
                attempt,
                session,
                progress_permille: 0,
                tracking_url: None,
            },
            _ => return None,
        })
    }

    pub(crate) fn rm_lost_link(&mut self, link: LinkId) {
        let session = SessionId(link.0);
        let event = match self.links[&link].ends.clone() {
            Ends::NodeToRm { node, .. } => Event::NodeStreamLost {
                node: self.nodes[node].id.clone(),
                session,
            },
            Ends::MasterToRm { master } => Event::MasterStreamLost {
                attempt: self.masters[master].attempt,
                session,
            },
            Ends::MasterToNode { .. } => return,
        };
        self.rm_event(event);
    }
}
