//! The one task that owns the core: inbox in, records and effects out.
//!
//! Each round takes a batch of inputs, lets the core handle them, hands the records to the journal and
//! performs the effects. Those that need their records wait for the journal; the others leave at once.
//! The next round does not wait for the journal.

use std::collections::HashMap;
use std::sync::Arc;

use bobbin_journal::{Health, JournalError};
use bobbin_na_core::{
    CallError, CallId, CallRequest, ContainerClaims, ContainerReport, ContainerWork, Effect, Event,
    NodeAgent, Origin, Record, Starter, StreamId,
};
use bobbin_proto::v1;
use bobbin_service::{MonotonicClock, wall_now};
use bobbin_types::{ApplicationId, AttemptId, ContainerId};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::launch::{Order, chain};
use crate::node::Node;
use crate::question::Question;
use crate::store::Store;
use crate::supervisor::{self, Command, FoundContainer, Handle};
use crate::translate;

/// Inputs waiting for the driver; senders wait beyond it.
pub(crate) const INBOX_MAX: usize = 4096;
/// Inputs that one round takes.
const BATCH_MAX: usize = 256;
/// Messages on their way to a peer; one that lets more pile up is cut off and comes back.
pub(crate) const OUTBOX_MAX: usize = 16_384;

/// What reaches the driver.
#[derive(Debug)]
pub(crate) enum Input {
    Event(Event),
    /// A start with a verified token.
    Start {
        starter: Starter,
        claims: ContainerClaims,
        order: Box<Order>,
        problem: Option<String>,
    },
    /// A call of a master that holds no stream.
    Called {
        /// Whose token proved it.
        attempt: AttemptId,
        wanted: Wanted,
        reply: oneshot::Sender<CallResult>,
    },
    /// A door looks at the core.
    Question(Question),
    /// A stream to the resource manager is open.
    RmAttached(mpsc::Sender<v1::NodeMessage>),
    /// A master's stream is open; the answer is its number.
    MasterAttached {
        attempt: AttemptId,
        events: mpsc::Sender<Result<v1::ManageEvent, Status>>,
        reply: oneshot::Sender<StreamId>,
    },
}

/// The answer to a call: how its container is now.
pub(crate) type CallResult = Result<Box<ContainerReport>, CallError>;

/// What a call wants.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// With a verified token.
    Start {
        claims: ContainerClaims,
        order: Box<Order>,
        problem: Option<String>,
    },
    Other(CallRequest),
}

/// Why the driver ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    #[error("the journal failed")]
    Journal(#[source] JournalError),
    #[error("the agent's folders cannot be read")]
    Folders(#[source] std::io::Error),
}

pub(crate) struct Driver {
    node: Arc<Node>,
    core: NodeAgent,
    store: Store,
    clock: MonotonicClock,
    inbox: mpsc::Receiver<Input>,
    sender: mpsc::Sender<Input>,
    /// Launch contexts between a start's arrival and its localization.
    orders: HashMap<ContainerId, Order>,
    supervisors: HashMap<ContainerId, Handle>,
    masters: HashMap<StreamId, mpsc::Sender<Result<v1::ManageEvent, Status>>>,
    next_stream: u64,
    calls: HashMap<CallId, oneshot::Sender<CallResult>>,
    next_call: u64,
    rm: Option<mpsc::Sender<v1::NodeMessage>>,
    /// Effects that wait for the journal, in order.
    blocked: FuturesOrdered<BoxFuture<'static, Result<Vec<Effect>, JournalError>>>,
    compaction: Option<BoxFuture<'static, Result<u64, JournalError>>>,
    health: watch::Receiver<Health>,
    /// Why this agent takes no work whatever the journal's health.
    problems: Vec<String>,
    illegal_seen: u64,
}

impl Driver {
    /// Replays the records and looks for every container on record; what was found running is
    /// supervised again, what nobody knows is ended.
    pub(crate) async fn recover(
        node: Arc<Node>,
        mut core: NodeAgent,
        store: Store,
        records: Vec<Record>,
        problems: Vec<String>,
        channel: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    ) -> Result<Driver, DriverError> {
        let clock = MonotonicClock::start();
        let mut effects = Vec::new();
        let count = records.len();
        for record in records {
            core.handle(clock.now(), Event::Recovered(record), &mut effects);
        }
        core.handle(clock.now(), Event::Problems(problems.clone()), &mut effects);
        let health = store.health();
        let (sender, inbox) = channel;
        let mut driver = Driver {
            node,
            core,
            store,
            clock,
            inbox,
            sender,
            orders: HashMap::new(),
            supervisors: HashMap::new(),
            masters: HashMap::new(),
            next_stream: 0,
            calls: HashMap::new(),
            next_call: 0,
            rm: None,
            blocked: FuturesOrdered::new(),
            compaction: None,
            health,
            problems,
            illegal_seen: 0,
        };
        let found = driver.look_for_containers().await?;
        tracing::info!(records = count, containers = found.len(), "recovered");
        for container in found {
            let event = Event::Found {
                container: container.id,
                found: container.found.clone(),
            };
            let handle = supervisor::resume(&driver.node, &driver.sender, container);
            if let Event::Found { container, .. } = &event {
                driver.supervisors.insert(*container, handle);
            }
            driver.core.handle(driver.clock.now(), event, &mut effects);
        }
        if let Some(cgroups) = &driver.node.cgroups
            && let Err(e) = cgroups.remove_leftovers()
        {
            tracing::error!("groups of an earlier agent are left: {}", chain(&e));
        }
        driver.release(effects);
        Ok(driver)
    }

    async fn look_for_containers(&mut self) -> Result<Vec<FoundContainer>, DriverError> {
        let known: Vec<_> = self
            .core
            .containers()
            .map(|c| (c.container, c.user.to_string()))
            .collect();
        let node = self.node.clone();
        let looking = move || -> std::io::Result<(Vec<FoundContainer>, Vec<_>)> {
            let found: Vec<_> = known
                .iter()
                .map(|(id, user)| supervisor::look(&node, *id, user))
                .collect();
            for id in node.folders.private_containers()? {
                if !known.iter().any(|(known, _)| *known == id) {
                    end_unknown(&node, id);
                }
            }
            Ok((found, node.folders.applications()?))
        };
        let (found, applications) = tokio::task::spawn_blocking(looking)
            .await
            .map_err(|e| DriverError::Folders(std::io::Error::other(e)))?
            .map_err(DriverError::Folders)?;
        let mut effects = Vec::new();
        for application in applications {
            let event = Event::ApplicationFound(application);
            self.core.handle(self.clock.now(), event, &mut effects);
        }
        Ok(found)
    }

    /// Runs until `stop`; containers go on after it.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), DriverError> {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let deadline = self.core.next_deadline().map(|at| self.clock.instant(at));
            let tick = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let compacted = async {
                match &mut self.compaction {
                    Some(completion) => completion.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(effects) = self.blocked.next(), if !self.blocked.is_empty() => {
                    for effect in effects.map_err(DriverError::Journal)? {
                        self.perform(effect);
                    }
                }
                count = self.inbox.recv_many(&mut batch, BATCH_MAX) => {
                    // The driver holds a sender itself, so the inbox never closes.
                    debug_assert!(count > 0, "the inbox is open");
                    let mut effects = Vec::new();
                    for input in batch.drain(..) {
                        self.take(input, &mut effects);
                    }
                    self.release(effects);
                }
                () = tick => {
                    let mut effects = Vec::new();
                    self.handle(Event::Tick { wall: wall_now() }, &mut effects);
                    self.release(effects);
                }
                Ok(()) = self.health.changed() => self.on_health(),
                result = compacted => {
                    self.compaction = None;
                    self.store.compacted();
                    if let Err(e) = result {
                        tracing::error!("the journal could not be compacted: {}", chain(&e));
                    }
                }
            }
        }
    }

    fn handle(&mut self, event: Event, effects: &mut Vec<Effect>) {
        tracing::debug!(?event);
        self.core.handle(self.clock.now(), event, effects);
        let illegal = self.core.illegal_transitions();
        if illegal > self.illegal_seen {
            tracing::warn!(
                illegal,
                "an event came where it cannot happen; it was ignored"
            );
            self.illegal_seen = illegal;
        }
    }

    fn on_health(&mut self) {
        let mut problems = self.problems.clone();
        if let Some(e) = self.health.borrow_and_update().problem() {
            problems.push(format!("the journal cannot be written: {}", chain(e)));
        }
        let mut effects = Vec::new();
        self.handle(Event::Problems(problems), &mut effects);
        self.release(effects);
    }

    fn take(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Event(event) => {
                if event == Event::RmLost {
                    self.rm = None;
                }
                if let Event::MasterLost(stream) = &event {
                    self.masters.remove(stream);
                }
                self.handle(event, effects);
            }
            Input::Start {
                starter,
                claims,
                order,
                problem,
            } => self.start(starter, claims, *order, problem, effects),
            Input::Called {
                attempt,
                wanted,
                reply,
            } => self.call(attempt, wanted, reply, effects),
            Input::Question(question) => question.answer(&self.core),
            Input::RmAttached(sender) => {
                self.rm = Some(sender);
                self.handle(Event::RmAttached, effects);
            }
            Input::MasterAttached {
                attempt,
                events,
                reply,
            } => {
                let stream = StreamId(self.next_stream);
                self.next_stream += 1;
                self.masters.insert(stream, events);
                // A stream that was given up meanwhile says so itself.
                let _ = reply.send(stream);
                self.handle(Event::MasterAttached { stream, attempt }, effects);
            }
        }
    }

    fn start(
        &mut self,
        starter: Starter,
        claims: ContainerClaims,
        order: Order,
        problem: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        let id = claims.container;
        let first = effects.len();
        let event = Event::Start {
            starter,
            claims,
            problem,
            wall: wall_now(),
        };
        self.handle(event, effects);
        // A repeat must not touch the order of the first.
        let admitted = effects[first..]
            .iter()
            .any(|e| matches!(e, Effect::Localize(work) if work.container == id));
        if admitted {
            self.orders.insert(id, order);
        }
    }

    fn call(
        &mut self,
        attempt: AttemptId,
        wanted: Wanted,
        reply: oneshot::Sender<CallResult>,
        effects: &mut Vec<Effect>,
    ) {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, reply);
        match wanted {
            Wanted::Start {
                claims,
                order,
                problem,
            } => {
                let starter = Starter::Call { call, attempt };
                self.start(starter, claims, *order, problem, effects);
            }
            Wanted::Other(request) => {
                let event = Event::Call {
                    call,
                    attempt,
                    request,
                    wall: wall_now(),
                };
                self.handle(event, effects);
            }
        }
    }

    /// Journals the records and performs what need not wait for them.
    fn release(&mut self, effects: Vec<Effect>) {
        let mut records = Vec::new();
        let mut waiting = Vec::new();
        for effect in effects {
            let waits = effect.needs_records();
            if let Effect::Persist(record) = effect {
                if let Record::Exited { container, exit } = &record {
                    tracing::info!(%container, exit_status = exit.exit_status.0, "ended");
                }
                records.push(record);
            } else if waits {
                waiting.push(effect);
            } else {
                self.perform(effect);
            }
        }
        let nothing_unsynced = records.is_empty() && self.blocked.is_empty();
        if nothing_unsynced {
            for effect in waiting {
                self.perform(effect);
            }
        } else if !records.is_empty() || !waiting.is_empty() {
            let completion = self.store.append(&records);
            self.blocked
                .push_back(Box::pin(async move { completion.await.map(|_| waiting) }));
        }
        if self.store.wants_compaction() {
            let completion = self.store.compact(&self.core.snapshot());
            self.compaction = Some(Box::pin(completion));
        }
    }

    fn perform(&mut self, effect: Effect) {
        tracing::debug!(?effect);
        match effect {
            // Taken out in `release`.
            Effect::Persist(_) => {}
            Effect::Localize(work) => self.localize(work),
            Effect::Launch(id) => self.command(&id, Command::Launch),
            Effect::Terminate(id) => self.command(&id, Command::Terminate),
            Effect::Signal { container, signal } => {
                self.command(&container, Command::Signal(signal));
            }
            Effect::Resize {
                container,
                resource,
            } => self.command(&container, Command::Resize(resource)),
            Effect::CleanUp(id) => self.command(&id, Command::CleanUp),
            Effect::Forget(id) => {
                let ended = self.core.has_ended(&id.application());
                self.command(&id, Command::Forget { ended });
                self.supervisors.remove(&id);
            }
            Effect::CleanUpApplication(application) => self.clean_up_application(application),
            Effect::DeleteLogs(application) => self.delete_logs(application),
            Effect::RegisterWithRm(registration) => {
                self.tell_rm(translate::registration(&self.node, registration));
            }
            Effect::HeartbeatToRm(heartbeat) => {
                let fetching = self.node.localizer.fetching();
                self.tell_rm(translate::heartbeat(heartbeat, fetching));
            }
            Effect::ReportStartedToRm(report) => self.tell_rm(translate::started(&report)),
            Effect::ReportExitToRm(report) => {
                self.tell_rm(translate::exited(&self.node, report));
            }
            Effect::ReportToMaster { stream, report } => {
                let event = v1::ManageEvent {
                    status: Some(translate::status(&self.node, report)),
                };
                self.tell_master(stream, Ok(event));
            }
            Effect::AnswerCall { call, result } => {
                if let Some(reply) = self.calls.remove(&call) {
                    // A caller that is gone needs no answer.
                    let _ = reply.send(result);
                }
            }
            Effect::CloseMaster { stream, reason } => {
                self.tell_master(stream, Err(Status::permission_denied(reason)));
                self.masters.remove(&stream);
            }
        }
    }

    fn localize(&mut self, work: ContainerWork) {
        let id = work.container;
        let Some(order) = self.orders.remove(&id) else {
            return;
        };
        let principal = match self.core.container(&id).map(|c| c.origin) {
            Some(Origin::Master) => id.attempt.to_string(),
            Some(Origin::ResourceManager) | None => "resourcemanager".to_owned(),
        };
        tracing::info!(
            target: "audit",
            principal,
            operation = "start",
            object = %id,
            user = %work.user,
            result = "allowed"
        );
        let handle = supervisor::start(&self.node, &self.sender, work, order);
        self.supervisors.insert(id, handle);
    }

    fn clean_up_application(&self, application: ApplicationId) {
        self.node
            .localizer
            .forget_application(&application.to_string());
        let node = self.node.clone();
        self.node.background.spawn_blocking(move || {
            if let Err(e) = node.folders.clean_up_application(&application) {
                tracing::error!(%application, "clean-up: {e}");
            }
        });
    }

    fn delete_logs(&self, application: ApplicationId) {
        let (node, sender) = (self.node.clone(), self.sender.clone());
        self.node.background.spawn_blocking(move || {
            match node.folders.delete_logs(&application) {
                Ok(()) => {
                    // A driver that is gone deletes them after its restart.
                    let _ = sender.blocking_send(Input::Event(Event::LogsDeleted(application)));
                }
                Err(e) => tracing::error!(%application, "logs: {e}"),
            }
        });
    }

    fn command(&self, id: &ContainerId, command: Command) {
        if let Some(handle) = self.supervisors.get(id) {
            handle.send(command);
        }
    }

    fn tell_rm(&mut self, message: v1::NodeMessage) {
        if let Some(rm) = &self.rm
            && rm.try_send(message).is_err()
        {
            // Gone or choking: the link opens another stream, whose registration says it all.
            self.rm = None;
        }
    }

    fn tell_master(&mut self, stream: StreamId, event: Result<v1::ManageEvent, Status>) {
        if let Some(master) = self.masters.get(&stream)
            && master.try_send(event).is_err()
        {
            // Gone or choking: it opens another stream and is told of every container again.
            self.masters.remove(&stream);
        }
    }
}

/// Ends a container that no record knows: its journal was lost or is another's.
fn end_unknown(node: &Node, id: ContainerId) {
    use bobbin_sandbox::{Adopted, Stop, adopt, signal_container};
    tracing::error!(container = %id, "a container that is on no record is ended");
    let private = node.folders.paths(&id, "unknown").private;
    if let Ok(Adopted::Running { pidfd, .. }) = adopt(&private)
        && let Err(e) = signal_container(&pidfd, Stop::Kill)
    {
        tracing::error!(container = %id, "cannot end it: {e}");
    }
    let clean_up = || -> std::io::Result<()> {
        for user in node.folders.local.folder("usercache")?.names()? {
            for name in node.folders.clean_up_container(&id, &user)? {
                node.folders.empty(&name)?;
            }
        }
        node.folders.forget_container(&id, true)
    };
    if let Err(e) = clean_up() {
        tracing::error!(container = %id, "clean-up: {e}");
    }
}
