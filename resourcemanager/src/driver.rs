//! The one task that owns the core: events in, records to the journal, effects out.
//!
//! Inputs are drained in batches. A batch's records are handed to the journal, which is not waited
//! for: the next batch is handled while they are synced, and what depends on them leaves then.
//! Questions come on a channel of their own, so that they are answered even while the journal cannot
//! be written and changes are refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bobbin_journal::{Health, Journal, JournalError};
use bobbin_rm_core::{
    Effect, Event, MasterMessage, NodeCommand, Record, Refusal, Reply, RequestId, ResourceManager,
    SessionId, Transition,
};
use bobbin_service::{MonotonicClock, wall_now};
use bobbin_types::ApplicationId;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::file_tree::FileTree;
use crate::outbox::{Answer, Held, Outbox};
use crate::records;
use crate::store::Store;
use crate::watchers::Watchers;

/// Inputs that wait; beyond it the doors wait.
const INBOX: usize = 4_096;
/// Inputs handled before their records are handed to the journal.
const BATCH_MAX: usize = 256;
/// Batches that are being synced; beyond it no input is taken.
const IN_FLIGHT_MAX: usize = 64;
/// Messages a peer may be behind; beyond it its stream is closed, and it registers again.
pub(crate) const PEER_BEHIND_MAX: usize = 65_536;
/// The journal is compacted when so many bytes, and twice its last snapshot, were appended.
pub(crate) const COMPACT_BYTES: u64 = 64 << 20;
/// An orderly stop waits so long for the journal.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What a node's or a master's stream is sent.
#[derive(Debug)]
pub(crate) enum PeerMessage {
    Node(NodeCommand),
    Master(MasterMessage),
}

/// Why a request has no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("nothing new can be taken on: {0}; what runs goes on, and it is tried again")]
    NotDurable(String),
    #[error("the resource manager is stopping")]
    Stopping,
    #[error("the resource manager answered with something else; see its log")]
    Unexpected,
}

/// The driver cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    #[error("the journal failed")]
    Journal(#[source] JournalError),
}

type ReplySender = oneshot::Sender<Result<Reply, Failure>>;
type Question = Box<dyn FnOnce(&ResourceManager) -> Answer + Send>;

enum Input {
    Event(Event),
    Request {
        request: RequestId,
        event: Event,
        reply: ReplySender,
    },
    Open {
        session: SessionId,
        messages: mpsc::Sender<PeerMessage>,
    },
    Close {
        session: SessionId,
    },
    /// Several events at once, and a look at what has come of them.
    Exchange {
        events: Vec<Event>,
        look: Look,
    },
}

/// Looks at the state at the end of an inbox turn; the answer is sent when everything has left that
/// the turn brought about and that depends on no record.
type Look = Box<dyn FnOnce(&ResourceManager) -> Answer + Send>;

/// What the doors hold: every way into the core.
#[derive(Clone)]
pub(crate) struct DriverHandle {
    inputs: mpsc::Sender<Input>,
    questions: mpsc::Sender<Question>,
    numbers: Arc<AtomicU64>,
    watchers: Watchers,
}

impl DriverHandle {
    /// A number for a request or a session, never used twice in this process.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends an event and waits for its reply.
    pub(crate) async fn request(
        &self,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<Reply, Failure> {
        self.request_numbered(self.request_id(), event).await
    }

    pub(crate) fn request_id(&self) -> RequestId {
        RequestId(self.number())
    }

    /// As [`DriverHandle::request`], for callers that may have to abandon it.
    pub(crate) async fn request_numbered(
        &self,
        request: RequestId,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<Reply, Failure> {
        let (reply, answer) = oneshot::channel();
        let input = Input::Request {
            request,
            event: event(request),
            reply,
        };
        self.inputs
            .send(input)
            .await
            .map_err(|_| Failure::Stopping)?;
        answer.await.map_err(|_| Failure::Stopping)?
    }

    /// Sends an event that has no reply; when the driver has stopped nobody is left to care.
    pub(crate) async fn event(&self, event: Event) {
        drop(self.inputs.send(Input::Event(event)).await);
    }

    /// Hands events over in one piece and looks at the state behind them, all in one turn of the
    /// inbox. When it returns, what they brought about for a peer and depends on no record is in
    /// that peer's receiver.
    ///
    /// Unlike [`DriverHandle::read`] it does not wait for the journal: what is looked at must not
    /// need to be durable.
    pub(crate) async fn exchange<T: Send + 'static>(
        &self,
        events: Vec<Event>,
        look: impl FnOnce(&ResourceManager) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, answer) = oneshot::channel();
        let look: Look = Box::new(move |core| {
            let value = look(core);
            // The asker may have gone away.
            Box::new(move || drop(sender.send(value)))
        });
        self.inputs
            .send(Input::Exchange { events, look })
            .await
            .map_err(|_| Failure::Stopping)?;
        answer.await.map_err(|_| Failure::Stopping)
    }

    /// Asks about the state; the answer comes when what it has seen is durable.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&ResourceManager) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, answer) = oneshot::channel();
        let question: Question = Box::new(move |core| {
            let value = question(core);
            // The asker may have gone away.
            Box::new(move || drop(sender.send(value)))
        });
        self.questions
            .send(question)
            .await
            .map_err(|_| Failure::Stopping)?;
        answer.await.map_err(|_| Failure::Stopping)
    }

    /// Opens a session for a stream; messages to it come through the receiver, which ends when the
    /// session is closed.
    pub(crate) async fn open_session(
        &self,
    ) -> Result<(SessionId, mpsc::Receiver<PeerMessage>), Failure> {
        let session = SessionId(self.number());
        let (messages, receiver) = mpsc::channel(PEER_BEHIND_MAX);
        let input = Input::Open { session, messages };
        self.inputs
            .send(input)
            .await
            .map_err(|_| Failure::Stopping)?;
        Ok((session, receiver))
    }

    /// A session without messages, such as a lease's.
    pub(crate) fn silent_session(&self) -> SessionId {
        SessionId(self.number())
    }

    pub(crate) async fn close_session(&self, session: SessionId) {
        drop(self.inputs.send(Input::Close { session }).await);
    }

    /// Wakes after every change of the application from now on.
    pub(crate) fn watch(&self, application: ApplicationId) -> watch::Receiver<()> {
        self.watchers.subscribe(application)
    }
}

/// The files the driver's effects end in.
pub(crate) struct Backing {
    pub(crate) journal: Journal,
    pub(crate) store: Store,
    pub(crate) tree: FileTree,
    /// Normally [`COMPACT_BYTES`].
    pub(crate) compact_bytes: u64,
}

type Syncing = BoxFuture<'static, (u64, Vec<Record>, Result<u64, JournalError>)>;

/// See the module's text.
pub(crate) struct Driver {
    core: ResourceManager,
    clock: MonotonicClock,
    backing: Backing,
    inputs: mpsc::Receiver<Input>,
    questions: mpsc::Receiver<Question>,
    outbox: Outbox,
    in_flight: FuturesOrdered<Syncing>,
    replies: HashMap<RequestId, ReplySender>,
    sessions: HashMap<SessionId, mpsc::Sender<PeerMessage>>,
    watchers: Watchers,
    health: watch::Receiver<Health>,
    /// Why nothing becomes durable, while that is so.
    failing: Option<String>,
    compacting: Option<BoxFuture<'static, Result<u64, JournalError>>>,
}

impl Driver {
    /// A driver of a core that has read its journal; `effects` are what that brought about.
    pub(crate) fn new(
        core: ResourceManager,
        clock: MonotonicClock,
        backing: Backing,
        effects: Vec<Effect>,
    ) -> (Driver, DriverHandle) {
        let (input_sender, inputs) = mpsc::channel(INBOX);
        let (question_sender, questions) = mpsc::channel(INBOX);
        let watchers = Watchers::default();
        let handle = DriverHandle {
            inputs: input_sender,
            questions: question_sender,
            numbers: Arc::new(AtomicU64::new(1)),
            watchers: watchers.clone(),
        };
        let health = backing.journal.health();
        let mut driver = Driver {
            core,
            clock,
            backing,
            inputs,
            questions,
            outbox: Outbox::default(),
            in_flight: FuturesOrdered::new(),
            replies: HashMap::new(),
            sessions: HashMap::new(),
            watchers,
            health,
            failing: None,
            compacting: None,
        };
        driver.commit(effects);
        (driver, handle)
    }

    /// Waits until what recovery has written is durable; the doors open after that.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub(crate) async fn settle(&mut self) -> Result<(), DriverError> {
        while !self.in_flight.is_empty() {
            tokio::select! {
                Some((batch, records, result)) = self.in_flight.next() => {
                    self.on_synced(batch, &records, result)?;
                }
                Ok(()) = self.health.changed() => {
                    if let Some(problem) = self.health.borrow_and_update().problem() {
                        return Err(DriverError::Journal(problem.clone()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs until `stop`, then lets the journal finish.
    ///
    /// # Errors
    /// The journal's thread has ended.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), DriverError> {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let deadline = self
                .core
                .next_deadline()
                .map(|moment| self.clock.instant(moment));
            let room = self.in_flight.len() < IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((number, records, result)) = self.in_flight.next() => {
                    self.on_synced(number, &records, result)?;
                }
                Ok(()) = self.health.changed() => self.on_health(),
                Some(question) = self.questions.recv() => self.answer(question),
                Some(result) = done(&mut self.compacting) => self.on_compacted(result),
                received = self.inputs.recv_many(&mut batch, BATCH_MAX), if room => {
                    if received > 0 {
                        self.handle(batch.drain(..));
                    }
                }
                () = until(deadline), if room => self.handle(std::iter::empty()),
            }
        }
        self.finish().await;
        Ok(())
    }

    fn handle(&mut self, inputs: impl Iterator<Item = Input>) {
        let now = self.clock.now();
        let mut effects = Vec::new();
        let mut looks = Vec::new();
        self.core
            .handle(now, Event::WallClock(wall_now()), &mut effects);
        for input in inputs {
            match input {
                Input::Event(event) => self.core.handle(now, event, &mut effects),
                Input::Request {
                    request,
                    event,
                    reply,
                } => {
                    if let Some(problem) = &self.failing {
                        // The caller may have gone away.
                        drop(reply.send(Err(Failure::NotDurable(problem.clone()))));
                    } else {
                        self.replies.insert(request, reply);
                        self.core.handle(now, event, &mut effects);
                    }
                }
                Input::Open { session, messages } => {
                    self.sessions.insert(session, messages);
                }
                Input::Close { session } => {
                    self.sessions.remove(&session);
                }
                Input::Exchange { events, look } => {
                    for event in events {
                        self.core.handle(now, event, &mut effects);
                    }
                    looks.push(look);
                }
            }
        }
        if self
            .core
            .next_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.core.handle(now, Event::Tick, &mut effects);
        }
        self.commit(effects);
        for look in looks {
            look(&self.core)();
        }
    }

    /// Hands the records to the journal, and lets go what need not wait for them.
    fn commit(&mut self, effects: Vec<Effect>) {
        let mut records = Vec::new();
        let mut free = Vec::new();
        for effect in effects {
            if let Effect::Persist(record) = effect {
                records.push(record);
            } else {
                free.extend(self.outbox.admit(effect, !records.is_empty()));
            }
        }
        // First, so that the disk works while the rest is done (which writes the log, too).
        if !records.is_empty() {
            self.append(records);
        }
        for effect in free {
            self.release(effect);
        }
    }

    fn append(&mut self, records: Vec<Record>) {
        let number = self.outbox.next_batch();
        self.outbox.appended();
        let synced = self
            .backing
            .journal
            .append(records.iter().map(records::encode).collect());
        self.in_flight
            .push_back(Box::pin(async move { (number, records, synced.await) }));
        if self.failing.is_some() {
            self.tell_waiting();
        }
    }

    fn on_synced(
        &mut self,
        batch: u64,
        records: &[Record],
        result: Result<u64, JournalError>,
    ) -> Result<(), DriverError> {
        let sequence = result.map_err(DriverError::Journal)?;
        // Before the replies: who has one finds his application in the index.
        self.backing.store.apply(sequence, records);
        self.outbox.synced(batch);
        while let Some(held) = self.outbox.pop() {
            match held {
                Held::Effect(effect) => self.release(*effect),
                Held::Answer(answer) => answer(),
            }
        }
        let (since, snapshot) = self.backing.journal.bytes();
        if self.compacting.is_none()
            && since > self.backing.compact_bytes.max(snapshot.saturating_mul(2))
        {
            let state = self.core.snapshot().iter().map(records::encode).collect();
            self.compacting = Some(Box::pin(self.backing.journal.compact(state)));
        }
        Ok(())
    }

    fn on_compacted(&mut self, result: Result<u64, JournalError>) {
        self.compacting = None;
        match result {
            Ok(sequence) => tracing::info!(sequence, "the journal was compacted"),
            Err(e) => tracing::warn!("the journal could not be compacted: {}", e.words()),
        }
    }

    fn on_health(&mut self) {
        self.failing = self
            .health
            .borrow_and_update()
            .problem()
            .map(JournalError::words);
        if self.failing.is_some() {
            self.tell_waiting();
        }
    }

    /// Tells callers that nothing becomes durable, and answers questions.
    fn tell_waiting(&mut self) {
        let problem = self.failing.clone().unwrap_or_default();
        let (answers, replies) = self.outbox.take_waiting();
        for answer in answers {
            answer();
        }
        for effect in replies {
            if let Effect::Reply { request, .. } = effect {
                self.reply(request, Err(Failure::NotDurable(problem.clone())));
            }
        }
    }

    fn answer(&mut self, question: Question) {
        let answer = question(&self.core);
        if self.failing.is_some() {
            answer();
        } else if let Some(answer) = self.outbox.admit_answer(answer) {
            answer();
        }
    }

    fn reply(&mut self, request: RequestId, result: Result<Reply, Failure>) {
        if let Some(sender) = self.replies.remove(&request) {
            // The caller may have gone away.
            drop(sender.send(result));
        }
    }

    fn release(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(_) => {}
            Effect::Reply { request, result } => self.reply(request, result.map_err(Failure::from)),
            Effect::ToNode {
                session, command, ..
            } => {
                self.deliver(session, PeerMessage::Node(command));
            }
            Effect::ToMaster {
                session, message, ..
            } => {
                self.deliver(session, PeerMessage::Master(message));
            }
            Effect::CloseSession { session } => {
                // The receiver ends behind what was sent.
                self.sessions.remove(&session);
            }
            Effect::ApplicationChanged(application) => self.watchers.wake(application),
            Effect::DeleteStaging { application, user } => {
                let tree = self.backing.tree.clone();
                tokio::task::spawn_blocking(move || {
                    if let Err(e) = tree.remove(&user, &application) {
                        tracing::warn!(%application, "its uploads cannot be removed: {e}");
                    }
                });
            }
            Effect::Transitioned(transition) => log_transition(&transition),
            Effect::Illegal(illegal) => {
                tracing::warn!(
                    object = illegal.object,
                    state = illegal.state,
                    input = illegal.input,
                    "illegal transition"
                );
            }
        }
    }

    fn deliver(&mut self, session: SessionId, message: PeerMessage) {
        if let Entry::Occupied(peer) = self.sessions.entry(session)
            && let Err(e) = peer.get().try_send(message)
        {
            tracing::warn!(?session, "a peer's stream is closed: {e}");
            peer.remove();
        }
    }

    /// Waits for what is in flight, then closes the journal and the index.
    async fn finish(mut self) {
        self.sessions.clear();
        let flush = async {
            while let Some((batch, records, result)) = self.in_flight.next().await {
                if let Err(e) = self.on_synced(batch, &records, result) {
                    tracing::error!("{:#}", anyhow::Error::new(e));
                    return;
                }
            }
            if let Err(e) = self.backing.journal.clone().close().await {
                tracing::error!("the journal was not closed in order: {}", e.words());
            }
            let store = self.backing.store.clone();
            // Only a panic makes it fail, and that has ended the process.
            drop(tokio::task::spawn_blocking(move || store.flush()).await);
        };
        if tokio::time::timeout(STOP_GRACE, flush).await.is_err() {
            tracing::error!("stopping without the journal's last word");
        }
    }
}

/// Resolves when the deadline has come; never without one.
async fn until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the work is done; never without any.
async fn done<T>(work: &mut Option<BoxFuture<'static, T>>) -> Option<T> {
    match work {
        Some(work) => Some(work.await),
        None => std::future::pending().await,
    }
}

fn log_transition(transition: &Transition) {
    match transition {
        Transition::Application {
            application,
            from,
            to,
        } => {
            tracing::info!(%application, %from, %to, "application");
        }
        Transition::Attempt { attempt, from, to } => {
            tracing::info!(%attempt, %from, %to, "attempt");
        }
        Transition::Node { node, from, to } => tracing::info!(%node, %from, %to, "node"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bobbin_rm_core::{Config, LaunchContext, Principal, Submission};
    use bobbin_types::Resource;

    use super::*;

    fn submission(name: &str) -> Submission {
        Submission {
            application: None,
            name: name.to_owned(),
            queue: String::new(),
            priority: 0,
            unmanaged: false,
            launch: LaunchContext {
                argv: vec!["true".to_owned()],
                ..LaunchContext::default()
            },
            resource: Resource::new(100, 1),
            overhead: Resource::default(),
            max_attempts: 0,
            tags: Vec::new(),
            timeout_ms: 0,
            tie_to_client: false,
            application_type: String::new(),
            settings: std::collections::BTreeMap::new(),
            node_label: String::new(),
            keep_containers: false,
            failures_validity_ms: None,
            view_acl: String::new(),
            modify_acl: String::new(),
        }
    }

    fn principal() -> Principal {
        Principal::User {
            name: "alice".parse().unwrap(),
            administrator: false,
            groups: bobbin_rm_core::Groups::default(),
        }
    }

    /// A driver over the journal in `folder`, compacted after so many bytes.
    fn open(folder: &Path, compact_bytes: u64) -> (Driver, DriverHandle, u64) {
        let clock = MonotonicClock::start();
        let mut core = ResourceManager::new(Config::default(), 1, 7);
        let mut effects = Vec::new();
        let opened = Journal::open(
            &folder.join("journal"),
            bobbin_journal::Options::default(),
            &mut |_, bytes| {
                let event = Event::Recovered(records::decode(bytes).unwrap());
                core.handle(clock.now(), event, &mut effects);
            },
        )
        .unwrap();
        core.handle(clock.now(), Event::RecoveryDone, &mut effects);
        let backing = Backing {
            journal: opened.journal,
            store: Store::open(&folder.join("index")).unwrap().store,
            tree: FileTree::open(&folder.join("files"), 1).unwrap(),
            compact_bytes,
        };
        let (driver, handle) = Driver::new(core, clock, backing, effects);
        (driver, handle, opened.records)
    }

    #[tokio::test]
    async fn a_compacted_journal_brings_everything_back() {
        let folder = tempfile::tempdir().unwrap();
        let (driver, handle, _) = open(folder.path(), 2_000);
        let stop = CancellationToken::new();
        let running = tokio::spawn(driver.run(stop.clone()));
        let submit = |name: String| {
            let handle = handle.clone();
            async move {
                let submission = Box::new(submission(&name));
                let event = |request| Event::Submit {
                    request,
                    principal: principal(),
                    submission,
                };
                handle.request(event).await.unwrap()
            }
        };
        let mut killed = None;
        for n in 0..60 {
            let reply = submit(format!("n{n}")).await;
            let Reply::Submitted { application, .. } = reply else {
                panic!("{reply:?}")
            };
            if n % 2 == 0 {
                let event = |request| Event::Kill {
                    request,
                    principal: principal(),
                    application,
                    wait: true,
                    reason: "test".to_owned(),
                };
                handle.request(event).await.unwrap();
                killed = Some(application);
            }
        }
        let read = |handle: DriverHandle| async move {
            let read =
                handle.read(|core| core.applications(&principal(), &Default::default(), 100, None));
            read.await.unwrap().rows
        };
        let before = read(handle.clone()).await;
        stop.cancel();
        running.await.unwrap().unwrap();

        let (driver, handle, records) = open(folder.path(), COMPACT_BYTES);
        // 60 submissions and 30 kills are about 150 records when nothing was compacted.
        assert!(
            driver.backing.journal.bytes().1 > 0,
            "a snapshot was read, {records} records"
        );
        let stop = CancellationToken::new();
        let running = tokio::spawn(driver.run(stop.clone()));
        let after = read(handle.clone()).await;
        assert_eq!(after, before);
        assert_eq!(before.len(), 60);
        let event = |request| Event::Kill {
            request,
            principal: principal(),
            application: killed.unwrap(),
            wait: true,
            reason: String::new(),
        };
        let again = handle.request(event).await.unwrap();
        assert!(
            matches!(
                again,
                Reply::Killed {
                    already_ended: true,
                    ..
                }
            ),
            "{again:?}"
        );
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_stopped_driver_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (driver, handle, _) = open(folder.path(), COMPACT_BYTES);
        let stop = CancellationToken::new();
        stop.cancel();
        driver.run(stop).await.unwrap();
        assert!(matches!(
            handle.read(|core| core.cluster()).await,
            Err(Failure::Stopping)
        ));
    }
}
