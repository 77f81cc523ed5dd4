//! The application master's one task: it owns the core, takes every input in order, and performs
//! the core's effects.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bobbin_am_core::{ApplicationMaster, Completed, Effect, Event, StageId, TaskKey, TaskRef};
use bobbin_proto::v1;
use bobbin_service::MonotonicClock;
use bobbin_types::{ContainerId, ContainerState, ExitStatus, Millis, NodeId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::backend::{Backend, wire_ask};
use crate::gateway::HEARTBEAT_INTERVAL_MS;
use crate::held::Held;
use crate::input::{
    AttachedExecutor, Commands, ExecutorWord, Input, StageItem, StageOut, THROTTLE_ABOVE,
};

/// Words of life to the resource manager, until it says its own interval.
const RM_HEARTBEAT: Duration = Duration::from_secs(1);

/// Tells a task that its stdout must be an Arrow IPC stream.
const ARROW_VARIABLE: (&str, &str) = ("BOBBIN_TASK_RESULT_FORMAT", "arrow-ipc-stream");

/// What ends an application from outside its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No executor can be had.
    Failed(String),
    /// The resource manager has ended the attempt.
    Over(String),
}

pub(crate) struct Master {
    clock: MonotonicClock,
    core: ApplicationMaster,
    backend: Backend,
    inbox: mpsc::Receiver<Input>,
    /// What to say of host and web page at each registration.
    host: String,
    rm_heartbeat: Duration,

    executors: HashMap<ContainerId, Connection>,
    stages: HashMap<StageId, StageState>,
    tasks: HashMap<TaskKey, TaskState>,
    next_stage: u64,
    next_task: u64,
    watchers: Vec<mpsc::Sender<Result<v1::ExecutorEvent, tonic::Status>>>,
    /// Executors that are up, for new watchers.
    up: HashMap<ContainerId, (NodeId, u32)>,

    /// Output of the attempt whose end is being handled.
    current_output: Option<(TaskRef, Held)>,
    verdict: watch::Sender<Option<Verdict>>,
    ending: Option<Ending>,
}

struct Connection {
    number: u64,
    commands: Commands,
}

struct StageState {
    out: StageOut,
    /// The driver's numbers of tasks that are not final.
    by_id: HashMap<u64, TaskKey>,
}

struct TaskState {
    stage: StageId,
    task: v1::NewTask,
}

struct Ending {
    finish: Option<v1::Finish>,
    reply: Option<oneshot::Sender<bool>>,
}

impl Master {
    pub(crate) fn new(
        core: ApplicationMaster,
        backend: Backend,
        inbox: mpsc::Receiver<Input>,
        host: String,
    ) -> (Master, watch::Receiver<Option<Verdict>>) {
        let (verdict, verdicts) = watch::channel(None);
        let master = Master {
            clock: MonotonicClock::start(),
            core,
            backend,
            inbox,
            host,
            rm_heartbeat: RM_HEARTBEAT,
            executors: HashMap::new(),
            stages: HashMap::new(),
            tasks: HashMap::new(),
            next_stage: 0,
            next_task: 0,
            watchers: Vec::new(),
            up: HashMap::new(),
            current_output: None,
            verdict,
            ending: None,
        };
        (master, verdicts)
    }

    /// Until `stop`, or until everybody who could send an input is gone.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        if matches!(self.backend, Backend::Local(_)) {
            // Nobody registers: the first asks are made here.
            let (ask, _) = self.core.registration();
            let events = self.backend.ask(&ask);
            self.handle_all(events);
        }
        let mut heartbeat = tokio::time::interval(self.rm_heartbeat);
        loop {
            let deadline = self.core.next_deadline();
            let due = self.clock.instant(deadline.unwrap_or(Millis(u64::MAX)));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                input = self.inbox.recv() => {
                    let Some(input) = input else { return };
                    self.on_input(input);
                }
                () = tokio::time::sleep_until(due.into()), if deadline.is_some() => {
                    self.handle(Event::Tick);
                }
                _ = heartbeat.tick() => {
                    if heartbeat.period() != self.rm_heartbeat {
                        heartbeat = tokio::time::interval(self.rm_heartbeat);
                    }
                    self.tell_rm(v1::am_message::Message::Heartbeat(v1::AmHeartbeat { progress: 0.0 }));
                }
            }
        }
    }

    fn tell_rm(&self, message: v1::am_message::Message) {
        if let Backend::Cluster(cluster) = &self.backend {
            cluster.tell(message);
        }
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if let Event::ContainersCompleted(ended) = &event {
                    self.forget_containers(ended);
                }
                self.handle(event);
            }
            Input::RmAttaching(reply) => self.on_rm_attaching(reply),
            Input::Rm(message) => self.on_rm(message),
            Input::RmLost => {
                if let Backend::Cluster(cluster) = &mut self.backend {
                    cluster.rm = None;
                }
            }
            Input::RmRefused(words) => self.on_over(words),
            Input::Container(status) => self.on_container(&status),
            Input::ExecutorAttached(attached) => self.on_executor_attached(attached),
            Input::ExecutorWord {
                container,
                connection,
                word,
            } => {
                if self.is_current(container, connection) {
                    self.on_executor_word(container, word);
                }
            }
            Input::ExecutorGone {
                container,
                connection,
            } => {
                if self.is_current(container, connection) {
                    self.executors.remove(&container);
                    self.handle(Event::ExecutorDetached { container });
                }
            }
            Input::OpenStage { out, reply } => self.on_open_stage(out, reply),
            Input::Submit { stage, task } => self.on_submit(stage, task),
            Input::Cancel { stage, task_id } => {
                let task = self.stages.get(&stage).and_then(|s| s.by_id.get(&task_id));
                if let Some(task) = task.copied() {
                    self.handle(Event::TaskCancelled { stage, task });
                }
            }
            Input::Info(reply) => {
                let _ = reply.send(self.core.counts());
            }
            Input::Watch(watcher) => self.on_watch(watcher),
            Input::End { finish, reply } => self.on_end(finish, reply),
        }
    }

    fn handle_all(&mut self, events: Vec<Event>) {
        for event in events {
            self.handle(event);
        }
    }

    /// Hands an event to the core and performs what it wants, and what follows from that.
    fn handle(&mut self, event: Event) {
        let mut queue = VecDeque::from([event]);
        let mut effects = Vec::new();
        while let Some(event) = queue.pop_front() {
            self.core.handle(self.clock.now(), event, &mut effects);
            for effect in effects.drain(..) {
                queue.extend(self.perform(effect));
            }
        }
        self.current_output = None;
    }

    fn perform(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::SendAsk(ask) => return self.backend.ask(&ask),
            Effect::Release(containers) => self.backend.release(&containers),
            Effect::StartExecutor { container, node } => {
                tracing::info!(%container, %node, "starting an executor");
                self.backend.start(container);
            }
            Effect::StopExecutor { container, .. } => self.backend.stop(container),
            Effect::DismissExecutor { container, reason } => self.dismiss(container, reason),
            Effect::LaunchTask { container, task } => self.launch_task(container, task),
            Effect::KillTask { container, task } => {
                let kill = v1::KillTask {
                    task: Some(wire_ref(task)),
                };
                self.command(container, v1::executor_command::Command::KillTask(kill));
            }
            Effect::DiscardOutput { task } => {
                if self
                    .current_output
                    .as_ref()
                    .is_some_and(|(t, _)| *t == task)
                {
                    self.current_output = None;
                }
            }
            Effect::TaskRunning {
                stage,
                task,
                container,
                node,
            } => self.tell_running(stage, task, container, &node),
            Effect::TaskRetried {
                stage,
                task,
                exit_status,
                problem,
            } => self.tell_retried(stage, task, exit_status, problem),
            Effect::TaskFinal {
                stage,
                task,
                output_of,
                exit_status,
                attempts,
                problem,
            } => {
                let ended = v1::TaskFinal {
                    exit_status: exit_status.0,
                    attempts,
                    problem,
                    arrow: None,
                };
                return self.finish_task(stage, task, output_of, ended);
            }
            Effect::StageEnded { stage } => self.forget_stage(stage),
            Effect::ExecutorUp {
                container,
                node,
                slots,
            } => self.on_up(container, node, slots),
            Effect::ExecutorDown {
                container,
                node,
                reason,
            } => self.on_down(container, &node, reason),
            Effect::Fail { diagnostics } => self.judge(Verdict::Failed(diagnostics)),
        }
        Vec::new()
    }

    // The resource manager.

    fn on_rm_attaching(
        &mut self,
        reply: oneshot::Sender<(v1::RegisterMaster, mpsc::UnboundedReceiver<v1::AmMessage>)>,
    ) {
        let Backend::Cluster(cluster) = &mut self.backend else {
            return;
        };
        let (messages, receiver) = mpsc::unbounded_channel();
        cluster.rm = Some(messages);
        let (ask, held) = self.core.registration();
        let register = v1::RegisterMaster {
            host: self.host.clone(),
            tracking_url: String::new(),
            asks: vec![wire_ask(&ask)],
            containers: held.iter().map(ToString::to_string).collect(),
        };
        let _ = reply.send((register, receiver));
        let finish = self.ending.as_ref().and_then(|e| e.finish.clone());
        if let Some(finish) = finish {
            self.tell_rm(v1::am_message::Message::Finish(finish));
        }
    }

    fn on_rm(&mut self, message: v1::rm_message::Message) {
        match message {
            v1::rm_message::Message::Registered(registered) => {
                if registered.heartbeat_interval_ms > 0 {
                    let interval = registered.heartbeat_interval_ms.clamp(100, 60_000);
                    self.rm_heartbeat = Duration::from_millis(interval);
                }
                let nodes_running = registered.nodes_running;
                self.handle(Event::MasterRegistered { nodes_running });
            }
            v1::rm_message::Message::Grants(grants) => {
                if let Backend::Cluster(cluster) = &mut self.backend {
                    let event = cluster.take_grants(grants);
                    self.handle(event);
                }
            }
            v1::rm_message::Message::Completed(completed) => {
                let ended: Vec<_> = completed
                    .containers
                    .iter()
                    .filter_map(ended_container)
                    .collect();
                self.forget_containers(&ended);
                self.handle(Event::ContainersCompleted(ended));
            }
            v1::rm_message::Message::Shutdown(shutdown) => self.on_over(shutdown.reason),
            v1::rm_message::Message::FinishAcknowledged(_) => {
                if let Some(ending) = &mut self.ending
                    && let Some(reply) = ending.reply.take()
                {
                    let _ = reply.send(true);
                }
            }
            v1::rm_message::Message::AskRefused(refused) => {
                tracing::warn!("the resource manager refuses executors: {}", refused.reason);
                let reason = refused.reason;
                self.handle(Event::AskRefused { reason });
            }
        }
    }

    fn on_container(&mut self, status: &v1::ContainerStatus) {
        if let Some(ended) = ended_container(status) {
            let ended = vec![ended];
            self.forget_containers(&ended);
            self.handle(Event::ContainersCompleted(ended));
        } else if let Ok(container) = status.container_id.parse() {
            self.handle(Event::ContainerStarted { container });
        }
    }

    fn forget_containers(&mut self, ended: &[Completed]) {
        for ended in ended {
            tracing::info!(container = %ended.container, exit_status = %ended.exit_status,
                "an executor's container has ended: {}", ended.diagnostics);
            if let Backend::Local(local) = &mut self.backend {
                local.forget(ended.container);
            }
        }
        self.backend.forget(ended);
        self.end_without_acknowledgement();
    }

    /// The resource manager has ended the attempt: who waits for an acknowledgement has it.
    fn on_over(&mut self, reason: String) {
        if let Some(ending) = &mut self.ending
            && let Some(reply) = ending.reply.take()
        {
            let _ = reply.send(true);
        }
        self.judge(Verdict::Over(reason));
    }

    fn judge(&self, verdict: Verdict) {
        self.verdict.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(verdict);
            }
            first
        });
    }

    fn on_end(&mut self, finish: Option<v1::Finish>, reply: oneshot::Sender<bool>) {
        self.handle(Event::ShutDown);
        let over = matches!(*self.verdict.borrow(), Some(Verdict::Over(_)));
        let reply = Some(reply);
        match finish {
            Some(finish) if !over => {
                self.tell_rm(v1::am_message::Message::Finish(finish.clone()));
                let finish = Some(finish);
                self.ending = Some(Ending { finish, reply });
            }
            Some(_) | None => {
                self.ending = Some(Ending {
                    finish: None,
                    reply,
                });
                self.end_without_acknowledgement();
            }
        }
    }

    /// With nobody to acknowledge it, the end has come when every local executor has gone; those
    /// of a cluster are ended by their agents.
    fn end_without_acknowledgement(&mut self) {
        let waits = match &self.backend {
            Backend::Local(local) => !local.groups.is_empty(),
            Backend::Cluster(_) => false,
        };
        if !waits
            && let Some(ending) = &mut self.ending
            && ending.finish.is_none()
            && let Some(reply) = ending.reply.take()
        {
            let _ = reply.send(true);
        }
    }

    // Executors.

    fn is_current(&self, container: ContainerId, connection: u64) -> bool {
        self.executors
            .get(&container)
            .is_some_and(|c| c.number == connection)
    }

    fn on_executor_attached(&mut self, attached: AttachedExecutor) {
        let AttachedExecutor {
            container,
            connection,
            slots,
            commands,
        } = attached;
        let registered = v1::ExecutorRegistered {
            heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
        };
        let number = connection;
        self.executors
            .insert(container, Connection { number, commands });
        self.command(
            container,
            v1::executor_command::Command::Registered(registered),
        );
        self.handle(Event::ExecutorRegistered { container, slots });
    }

    fn on_executor_word(&mut self, container: ContainerId, word: ExecutorWord) {
        match word {
            ExecutorWord::Heartbeat => self.handle(Event::ExecutorHeard { container }),
            ExecutorWord::Started(task) => self.handle(Event::TaskStarted { container, task }),
            ExecutorWord::Ended {
                task,
                exit_status,
                problem,
                output,
            } => {
                self.current_output = Some((task, output));
                self.handle(Event::TaskEnded {
                    container,
                    task,
                    exit_status,
                    problem,
                });
            }
        }
    }

    fn command(&self, container: ContainerId, command: v1::executor_command::Command) {
        if let Some(connection) = self.executors.get(&container) {
            // A broken connection is an input of its own.
            let _ = connection.commands.send(Ok(v1::ExecutorCommand {
                command: Some(command),
            }));
        }
    }

    fn dismiss(&mut self, container: ContainerId, reason: String) {
        let shutdown = v1::ExecutorShutdown { reason };
        self.command(container, v1::executor_command::Command::Shutdown(shutdown));
        self.executors.remove(&container);
    }

    fn launch_task(&self, container: ContainerId, task: TaskRef) {
        let Some(state) = self.tasks.get(&task.task) else {
            return;
        };
        let mut environment = state.task.environment.clone();
        environment.insert("BOBBIN_TASK_ID".to_owned(), state.task.task_id.to_string());
        environment.insert("BOBBIN_TASK_ATTEMPT".to_owned(), task.attempt.to_string());
        let result_format = state.task.result_format();
        if result_format == v1::ResultFormat::ArrowIpcStream {
            let (name, value) = ARROW_VARIABLE;
            environment.insert(name.to_owned(), value.to_owned());
        }
        let launch = v1::LaunchTask {
            task: Some(wire_ref(task)),
            argv: state.task.argv.clone(),
            environment,
            stdin: state.task.stdin.clone(),
            result_format: result_format.into(),
        };
        self.command(container, v1::executor_command::Command::LaunchTask(launch));
    }

    fn on_up(&mut self, container: ContainerId, node: NodeId, slots: u32) {
        tracing::info!(%container, %node, slots, "an executor is up");
        self.tell_watchers(&v1::ExecutorEvent {
            container_id: container.to_string(),
            node_id: node.to_string(),
            up: true,
            reason: String::new(),
            slots,
        });
        self.up.insert(container, (node, slots));
    }

    fn on_down(&mut self, container: ContainerId, node: &NodeId, reason: String) {
        tracing::info!(%container, %node, "an executor is gone: {reason}");
        let slots = self.up.remove(&container).map_or(0, |(_, slots)| slots);
        self.tell_watchers(&v1::ExecutorEvent {
            container_id: container.to_string(),
            node_id: node.to_string(),
            up: false,
            reason,
            slots,
        });
    }

    /// A watcher that does not read loses its stream, not everybody's time.
    fn tell_watchers(&mut self, event: &v1::ExecutorEvent) {
        self.watchers
            .retain(|w| w.try_send(Ok(event.clone())).is_ok());
    }

    fn on_watch(&mut self, watcher: mpsc::Sender<Result<v1::ExecutorEvent, tonic::Status>>) {
        for (container, (node, slots)) in &self.up {
            let event = v1::ExecutorEvent {
                container_id: container.to_string(),
                node_id: node.to_string(),
                up: true,
                reason: String::new(),
                slots: *slots,
            };
            if watcher.try_send(Ok(event)).is_err() {
                return;
            }
        }
        self.watchers.push(watcher);
    }

    // Stages and tasks.

    fn on_open_stage(&mut self, out: StageOut, reply: oneshot::Sender<StageId>) {
        let stage = StageId(self.next_stage);
        self.next_stage += 1;
        let by_id = HashMap::new();
        self.stages.insert(stage, StageState { out, by_id });
        self.handle(Event::StageOpened { stage });
        let _ = reply.send(stage);
    }

    fn on_submit(&mut self, stage: StageId, task: v1::NewTask) {
        let Some(state) = self.stages.get_mut(&stage) else {
            return;
        };
        let key = TaskKey(self.next_task);
        if state.by_id.contains_key(&task.task_id) {
            let words = format!("task {} is in this stream already", task.task_id);
            let refused = StageItem::Refused(tonic::Status::already_exists(words));
            let _ = state.out.items.send(refused);
            self.handle(Event::StageBroken { stage });
            return;
        }
        self.next_task += 1;
        state.by_id.insert(task.task_id, key);
        let slots = task.slots;
        self.tasks.insert(key, TaskState { stage, task });
        self.handle(Event::TaskSubmitted {
            stage,
            task: key,
            slots,
        });
    }

    fn task_event(&self, stage: StageId, task: TaskKey, event: v1::task_event::Event) {
        let (Some(state), Some(task)) = (self.stages.get(&stage), self.tasks.get(&task)) else {
            return;
        };
        let _ = state.out.items.send(StageItem::Event(v1::TaskEvent {
            task_id: task.task.task_id,
            event: Some(event),
        }));
    }

    fn tell_running(&self, stage: StageId, task: TaskRef, container: ContainerId, node: &NodeId) {
        let running = v1::TaskRunning {
            container_id: container.to_string(),
            node_id: node.to_string(),
            attempt: task.attempt,
        };
        self.task_event(stage, task.task, v1::task_event::Event::Running(running));
    }

    fn tell_retried(
        &self,
        stage: StageId,
        task: TaskRef,
        exit_status: ExitStatus,
        problem: String,
    ) {
        let retry = v1::TaskRetry {
            exit_status: exit_status.0,
            attempt: task.attempt,
            problem,
        };
        self.task_event(stage, task.task, v1::task_event::Event::Retry(retry));
    }

    fn finish_task(
        &mut self,
        stage: StageId,
        key: TaskKey,
        output_of: Option<TaskRef>,
        mut ended: v1::TaskFinal,
    ) -> Vec<Event> {
        let Some(task) = self.tasks.remove(&key) else {
            return Vec::new();
        };
        let Some(state) = self.stages.get_mut(&stage) else {
            return Vec::new();
        };
        state.by_id.remove(&task.task.task_id);
        let output = match self.current_output.take() {
            Some((of, held)) if Some(of) == output_of => held,
            Some(_) | None => Held::default(),
        };
        ended.arrow = output.arrow().cloned();
        let shared = &state.out.shared;
        let waiting = output.bytes();
        let waiting = shared.undelivered.fetch_add(waiting, Ordering::Relaxed) + waiting;
        let _ = state.out.items.send(StageItem::Final {
            task_id: task.task.task_id,
            output,
            ended,
        });
        let throttle = waiting > THROTTLE_ABOVE && !shared.throttled.swap(true, Ordering::Relaxed);
        let event = Event::StageThrottled {
            stage,
            throttled: true,
        };
        if throttle { vec![event] } else { Vec::new() }
    }

    /// Dropping the sender ends the driver's stream after what is still on its way.
    fn forget_stage(&mut self, stage: StageId) {
        if let Some(state) = self.stages.remove(&stage) {
            for key in state.by_id.values() {
                if self.tasks.get(key).is_some_and(|t| t.stage == stage) {
                    self.tasks.remove(key);
                }
            }
        }
    }
}

fn wire_ref(task: TaskRef) -> v1::TaskRef {
    v1::TaskRef {
        task_id: task.task.0,
        attempt: task.attempt,
    }
}

fn ended_container(status: &v1::ContainerStatus) -> Option<Completed> {
    let state: ContainerState = status.state.parse().ok()?;
    if !state.is_ended() {
        return None;
    }
    Some(Completed {
        container: status.container_id.parse().ok()?,
        exit_status: status.exit_status.map_or(ExitStatus::ABORTED, ExitStatus),
        diagnostics: status.diagnostics.clone(),
    })
}
