//! One task a container: prepare, launch, wait, clean up, forget.
//!
//! It tells the driver what happened and is told what to do next; it decides nothing. It waits for the
//! container's end on the pidfd of its monitor, which has then left the exit file.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bobbin_na_core::{ContainerSignal, ContainerWork, Event, Exit, Found, INVALID};
use bobbin_sandbox::{
    Adopted, CgroupLease, ContainerSpec, LaunchError, Launched, PassedSignal, RecordError,
    StartRecord, Stop, adopt, change_memory, forbid_start, pass_signal, process, read_exit,
    signal_container,
};
use bobbin_service::wall_now;
use bobbin_types::{ContainerId, DIAGNOSTICS_BYTES_MAX, ExitStatus, Resource};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::driver::Input;
use crate::launch::{HOLDS_FILE, Order, Prepared, chain, limits, prepare};
use crate::live::Running;
use crate::localizer::Hold;
use crate::logs::Stage;
use crate::node::Node;
use crate::ready::when_readable;
use crate::yarn::Progress;
use crate::yarn::contract::is_yarn;

/// After TERM, the grace and the monitor's own KILL: how long until the agent steps in.
const ESCALATE: Duration = Duration::from_secs(5);

/// What the driver orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Launch,
    Terminate,
    Signal(ContainerSignal),
    Resize(Resource),
    CleanUp,
    /// `ended`: so has its application.
    Forget {
        ended: bool,
    },
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    pub(crate) fn send(&self, command: Command) {
        // A supervisor that is gone has nothing left to do.
        let _ = self.commands.send(command);
    }
}

struct Supervisor {
    node: Arc<Node>,
    id: ContainerId,
    user: String,
    commands: mpsc::UnboundedReceiver<Command>,
    driver: mpsc::Sender<Input>,
    holds: Vec<Hold>,
    lease: Option<CgroupLease>,
}

/// A container that an earlier agent process started, as it was found.
#[derive(Debug)]
pub(crate) struct FoundContainer {
    pub(crate) id: ContainerId,
    pub(crate) user: String,
    pub(crate) found: Found,
    running: Option<(StartRecord, OwnedFd)>,
}

/// Starts the supervisor of a new container.
pub(crate) fn start(
    node: &Arc<Node>,
    driver: &mpsc::Sender<Input>,
    work: ContainerWork,
    order: Order,
) -> Handle {
    let (commands, receiver) = mpsc::unbounded_channel();
    node.logs.stages.set(work.container, Stage::Preparing);
    let supervisor = Supervisor {
        node: node.clone(),
        id: work.container,
        user: work.user.to_string(),
        commands: receiver,
        driver: driver.clone(),
        holds: Vec::new(),
        lease: None,
    };
    node.background.spawn(supervisor.run(work, order));
    Handle { commands }
}

/// Adopts, or makes sure that what has not started never will.
fn adopt_or_forbid(private: &std::path::Path) -> Result<Adopted, RecordError> {
    let found = adopt(private)?;
    if matches!(found, Adopted::Gone) {
        forbid_start(private)?;
        // A monitor that was quicker is there now, or has ended already.
        return adopt(private);
    }
    Ok(found)
}

/// Looks for a container on record. Blocks.
pub(crate) fn look(node: &Node, id: ContainerId, user: &str) -> FoundContainer {
    let private = node.folders.paths(&id, user).private;
    let (found, running) = match adopt_or_forbid(&private) {
        Ok(Adopted::Running { start, pidfd }) => (Found::Running, Some((start, pidfd))),
        Ok(Adopted::Ended(record)) => {
            let exit = Exit {
                exit_status: ExitStatus(record.exit_status),
                diagnostics: record.diagnostics,
            };
            (Found::Ended(with_tail(node, &id, exit)), None)
        }
        Ok(Adopted::Gone) => (Found::Gone, None),
        Err(e) => {
            let diagnostics = format!(
                "the agent came back and cannot read what became of it: {}",
                chain(&e)
            );
            (
                Found::Ended(Exit {
                    exit_status: ExitStatus::ABORTED,
                    diagnostics,
                }),
                None,
            )
        }
    };
    FoundContainer {
        id,
        user: user.to_owned(),
        found,
        running,
    }
}

/// Starts the supervisor of a container that was found.
pub(crate) fn resume(
    node: &Arc<Node>,
    driver: &mpsc::Sender<Input>,
    container: FoundContainer,
) -> Handle {
    let (commands, receiver) = mpsc::unbounded_channel();
    let FoundContainer {
        id, user, running, ..
    } = container;
    let mut supervisor = Supervisor {
        node: node.clone(),
        id,
        user,
        commands: receiver,
        driver: driver.clone(),
        holds: Vec::new(),
        lease: None,
    };
    match running {
        Some((start, monitor)) => {
            node.logs.stages.set(id, Stage::Running);
            supervisor.readopt(&start);
            supervisor.runs(start.monitor_pid, start.monitor_start_ticks);
            node.background.spawn(async move {
                supervisor.watch(monitor).await;
                supervisor.end().await;
            });
        }
        None => {
            node.logs.stages.set(id, Stage::Ended);
            node.background.spawn(supervisor.end());
        }
    }
    Handle { commands }
}

impl Supervisor {
    async fn tell(&self, event: Event) {
        // A driver that is gone is a daemon that stops; containers go on.
        let _ = self.driver.send(Input::Event(event)).await;
    }

    async fn run(mut self, work: ContainerWork, order: Order) {
        if let Some(spec) = self.localize(work, order).await {
            let launched = self.launch(spec).await;
            match launched {
                Ok(launched) => {
                    self.node.logs.stages.set(self.id, Stage::Running);
                    self.runs(launched.monitor_pid, launched.monitor_start_ticks);
                    self.tell(Event::Launched(self.id)).await;
                    self.watch(launched.pidfd).await;
                }
                Err(exit) => {
                    self.node.logs.stages.set(self.id, Stage::Ended);
                    self.tell(Event::LaunchFailed {
                        container: self.id,
                        exit,
                    })
                    .await;
                }
            }
        }
        self.end().await;
    }

    /// Makes it ready and waits for the order to launch; `None` when it shall not be launched.
    async fn localize(&mut self, work: ContainerWork, order: Order) -> Option<ContainerSpec> {
        // Not cut off when it is told to end: its blocking parts would go on, and the clean-up must
        // come after them.
        let cancel = CancellationToken::new();
        let yarns = is_yarn(&order.launch);
        let names: Vec<String> = (order.launch.local_resources.iter())
            .filter(|_| yarns)
            .map(|resource| resource.name.clone())
            .collect();
        self.node.extras.note(self.id, &names, &Progress::Pending);
        let outcome = {
            let mut preparing = std::pin::pin!(prepare(&self.node, work, order, &cancel));
            tokio::select! {
                outcome = &mut preparing => outcome,
                () = until(&mut self.commands, Command::Terminate) => {
                    cancel.cancel();
                    preparing.await
                }
            }
        };
        match outcome {
            Ok(Prepared { spec, holds }) => {
                self.holds = holds;
                self.lease.clone_from(&spec.cgroups);
                let extras = &self.node.extras;
                extras.note(self.id, &names, &Progress::Completed);
                self.tell(Event::Localized(self.id)).await;
                self.wait_for_launch().await.then_some(spec)
            }
            Err(exit) => {
                let progress = Progress::Failed(exit.diagnostics.clone());
                self.node.extras.note(self.id, &names, &progress);
                self.node.logs.stages.set(self.id, Stage::Ended);
                self.tell(Event::LocalizeFailed {
                    container: self.id,
                    exit,
                })
                .await;
                None
            }
        }
    }

    async fn wait_for_launch(&mut self) -> bool {
        loop {
            match self.commands.recv().await {
                Some(Command::Launch) => return true,
                // Nothing runs yet: the core says next what to do instead of the launch.
                Some(Command::Terminate | Command::Signal(_) | Command::Resize(_)) => {}
                Some(Command::CleanUp) => {
                    self.node.logs.stages.set(self.id, Stage::Ended);
                    self.clean_up().await;
                    return false;
                }
                Some(Command::Forget { .. }) | None => return false,
            }
        }
    }

    async fn launch(&self, spec: ContainerSpec) -> Result<Launched, Exit> {
        let node = self.node.clone();
        let launched = tokio::task::spawn_blocking(move || {
            let result = node.launcher.launch(&spec);
            result.map_err(|e| launch_exit(&node, &spec, &e))
        })
        .await;
        match launched {
            Ok(result) => result,
            Err(e) => Err(Exit {
                exit_status: INVALID,
                diagnostics: format!("the agent could not launch it: {e}"),
            }),
        }
    }

    /// From now on its use can be asked for.
    fn runs(&self, monitor_pid: i32, monitor_start_ticks: u64) {
        let running = Running {
            lease: self.lease.clone(),
            monitor_pid,
            monitor_start_ticks,
        };
        self.node.live.started(self.id, running);
    }

    /// Takes an adopted container's groups and copies again.
    fn readopt(&mut self, start: &StartRecord) {
        if let (Some(cgroups), Some(slot)) = (&self.node.cgroups, start.cgroup_slot) {
            match cgroups.readopt(slot, &self.id.to_string()) {
                Ok(lease) => self.lease = Some(lease),
                Err(e) => tracing::error!(container = %self.id, "groups: {}", chain(&e)),
            }
        }
        let private = self.node.folders.paths(&self.id, &self.user).private;
        match std::fs::read(private.join(HOLDS_FILE)) {
            Ok(bytes) => match serde_json::from_slice::<Vec<std::path::PathBuf>>(&bytes) {
                Ok(folders) => self.holds = self.node.localizer.hold_again(&folders),
                Err(e) => tracing::error!(container = %self.id, "{HOLDS_FILE}: {e}"),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => tracing::error!(container = %self.id, "{HOLDS_FILE}: {e}"),
        }
    }

    /// Waits for the container's end, ends it when told, and reports.
    async fn watch(&mut self, monitor: OwnedFd) {
        let registered = monitor.try_clone().and_then(when_readable);
        let monitor = match registered {
            Ok(registered) => registered,
            Err(e) => {
                // Without a waker nobody would see its end; it cannot go on unwatched.
                tracing::error!(container = %self.id, "cannot watch the monitor: {e}");
                self.signal(&monitor, Stop::Kill);
                let waiting = tokio::task::spawn_blocking(move || wait_blocking(&monitor));
                let _ = waiting.await;
                self.report_end().await;
                return;
            }
        };
        let mut next = Stop::TermThenKill;
        let mut escalation = None;
        loop {
            let stepping_in = async {
                match escalation {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                result = monitor.readable() => match result {
                    Ok(mut ready) => {
                        if process::has_ended(monitor.get_ref()) {
                            break;
                        }
                        ready.clear_ready();
                    }
                    Err(e) => {
                        tracing::error!(container = %self.id, "cannot watch the monitor: {e}");
                        break;
                    }
                },
                command = self.commands.recv() => match command {
                    Some(Command::Terminate) if escalation.is_none() => {
                        self.signal(monitor.get_ref(), Stop::TermThenKill);
                        next = Stop::Kill;
                        let grace =
                            Duration::from_millis(self.node.config.sandbox.kill_grace_ms.into());
                        escalation = Some(tokio::time::Instant::now() + grace + ESCALATE);
                    }
                    Some(Command::Signal(signal)) => self.pass(monitor.get_ref(), signal),
                    Some(Command::Resize(resource)) => self.resize(resource).await,
                    Some(
                        Command::Terminate
                        | Command::Launch
                        | Command::CleanUp
                        | Command::Forget { .. },
                    ) => {}
                    // The daemon stops; the container goes on.
                    None => return,
                },
                () = stepping_in => {
                    tracing::warn!(container = %self.id, "it has not ended: {next:?}");
                    self.signal(monitor.get_ref(), next);
                    next = Stop::KillMonitor;
                    escalation = Some(tokio::time::Instant::now() + ESCALATE);
                }
            }
        }
        self.report_end().await;
    }

    fn signal(&self, monitor: &OwnedFd, stop: Stop) {
        if let Err(e) = signal_container(monitor, stop) {
            tracing::error!(container = %self.id, "cannot end it: {e}");
        }
    }

    fn pass(&self, monitor: &OwnedFd, signal: ContainerSignal) {
        let passed = match signal {
            ContainerSignal::ThreadDump => pass_signal(monitor, PassedSignal::Quit),
            ContainerSignal::Graceful => pass_signal(monitor, PassedSignal::Term),
            ContainerSignal::Forceful => signal_container(monitor, Stop::Kill),
        };
        if let Err(e) = passed {
            tracing::error!(container = %self.id, "cannot signal it: {e}");
        }
    }

    /// Gives the container other limits, or has it ended when the kernel refuses them: it would use
    /// what has been promised to others.
    async fn resize(&mut self, resource: Resource) {
        let (node, id, user) = (self.node.clone(), self.id, self.user.clone());
        let lease = self.lease.clone();
        let changing = move || -> Result<(), String> {
            let private = node.folders.paths(&id, &user).private;
            change_memory(&private, resource.memory_mib).map_err(|e| e.to_string())?;
            match (&node.cgroups, &lease) {
                (Some(cgroups), Some(lease)) => cgroups
                    .resize(lease, &limits(&node, &resource))
                    .map_err(|e| chain(&e)),
                (None, _) | (_, None) => Ok(()),
            }
        };
        let changed = tokio::task::spawn_blocking(changing).await;
        let Err(why) = changed.unwrap_or_else(|e| Err(e.to_string())) else {
            return;
        };
        tracing::error!(container = %self.id, %resource, "its size cannot be changed: {why}");
        let exit = Exit {
            exit_status: ExitStatus::KILLED_EXCEEDED_PMEM,
            diagnostics: format!("it does not fit into its new size of {resource}: {why}"),
        };
        self.tell(Event::Stop {
            container: self.id,
            exit,
            wall: wall_now(),
        })
        .await;
    }

    async fn report_end(&self) {
        self.node.live.ended(&self.id);
        let (node, id, user) = (self.node.clone(), self.id, self.user.clone());
        let exit = tokio::task::spawn_blocking(move || {
            let private = node.folders.paths(&id, &user).private;
            let exit = match read_exit(&private) {
                Ok(Some(record)) => Exit {
                    exit_status: ExitStatus(record.exit_status),
                    diagnostics: record.diagnostics,
                },
                Ok(None) => Exit {
                    exit_status: ExitStatus::from_signal(9),
                    diagnostics: "its monitor was killed, and the container with it".to_owned(),
                },
                Err(e) => Exit {
                    exit_status: ExitStatus::ABORTED,
                    diagnostics: chain(&e),
                },
            };
            with_tail(&node, &id, exit)
        })
        .await;
        let exit = exit.unwrap_or_else(|e| Exit {
            exit_status: ExitStatus::ABORTED,
            diagnostics: format!("its exit file could not be read: {e}"),
        });
        self.node.logs.stages.set(self.id, Stage::Ended);
        self.tell(Event::Exited {
            container: self.id,
            exit,
        })
        .await;
    }

    /// Does what is ordered of an ended container until it is forgotten.
    async fn end(mut self) {
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::CleanUp => self.clean_up().await,
                Command::Forget { ended } => {
                    let (node, id) = (self.node.clone(), self.id);
                    let forget = move || node.folders.forget_container(&id, ended);
                    self.log_error("forget", tokio::task::spawn_blocking(forget).await);
                    self.node.logs.stages.forget(&self.id);
                    return;
                }
                // It has ended.
                Command::Terminate | Command::Launch | Command::Signal(_) | Command::Resize(_) => {}
            }
        }
    }

    async fn clean_up(&mut self) {
        self.node.extras.end(&self.id).await;
        let (node, id, user) = (self.node.clone(), self.id, self.user.clone());
        let (driver, lease) = (self.driver.clone(), self.lease.take());
        let holds = std::mem::take(&mut self.holds);
        let (done, waiting) = oneshot::channel();
        self.node.background.spawn_blocking(move || {
            let trashed = match node.folders.clean_up_container(&id, &user) {
                Ok(trashed) => trashed,
                Err(e) => {
                    tracing::error!(container = %id, "clean-up: {e}");
                    Vec::new()
                }
            };
            drop(holds);
            // A driver that is gone is a daemon that stops.
            let _ = driver.blocking_send(Input::Event(Event::CleanedUp(id)));
            // Nothing of these can be seen or used any more; how long they take is nobody's wait.
            let _ = done.send(());
            if let (Some(cgroups), Some(lease)) = (&node.cgroups, lease)
                && let Err(e) = cgroups.release(lease)
            {
                tracing::error!(container = %id, "groups: {}", chain(&e));
            }
            for name in trashed {
                if let Err(e) = node.folders.empty(&name) {
                    tracing::error!(container = %id, "clean-up: {e}");
                }
            }
        });
        // It cannot be dropped without a word: the thread ends after it.
        let _ = waiting.await;
    }

    fn log_error(&self, what: &str, result: Result<io::Result<()>, tokio::task::JoinError>) {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(container = %self.id, "{what}: {e}"),
            Err(e) => tracing::error!(container = %self.id, "{what}: {e}"),
        }
    }
}

/// Waits for one command and drops the others.
async fn until(commands: &mut mpsc::UnboundedReceiver<Command>, wanted: Command) {
    while let Some(command) = commands.recv().await {
        if command == wanted {
            return;
        }
    }
    // The daemon stops: what is prepared is swept at the next start.
    std::future::pending::<()>().await;
}

fn wait_blocking(monitor: &OwnedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
    while matches!(
        poll(&mut fds, PollTimeout::NONE),
        Err(nix::errno::Errno::EINTR)
    ) {}
}

/// The end of a container that could not be launched, in words with the program's name.
fn launch_exit(node: &Node, spec: &ContainerSpec, error: &LaunchError) -> Exit {
    let path = spec
        .environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value.as_str());
    let node_id = &node.node_id;
    let diagnostics = match error {
        LaunchError::NotFound { program } if program.contains('/') => {
            format!("program '{program}' was not found on node {node_id}")
        }
        LaunchError::NotFound { program } => {
            format!("program '{program}' was not found in PATH of node {node_id} ({path})")
        }
        LaunchError::NotExecutable { program, source } => {
            format!("program '{program}' cannot be executed on node {node_id}: {source}")
        }
        LaunchError::StartLauncher { .. }
        | LaunchError::LauncherGone
        | LaunchError::Control { .. }
        | LaunchError::BadSpec { .. }
        | LaunchError::BadAnswer { .. }
        | LaunchError::Setup { .. } => {
            format!(
                "node {node_id} could not launch the container: {}",
                chain(error)
            )
        }
    };
    let exit_status = error.exit_status().map_or(INVALID, ExitStatus);
    Exit {
        exit_status,
        diagnostics,
    }
}

/// Words for every end that is not a success: what the launcher said, or the number, and the last
/// lines of stderr. Source: YARN's `ContainerLaunch.handleContainerExitWithFailure`.
fn with_tail(node: &Node, id: &ContainerId, mut exit: Exit) -> Exit {
    if exit.exit_status.is_success() {
        return exit;
    }
    if exit.diagnostics.is_empty() {
        let status = exit.exit_status.0;
        exit.diagnostics = if (129..=192).contains(&status) {
            format!(
                "container ended by signal {} (exit status {status})",
                status - 128
            )
        } else {
            format!("container exited with a non-zero exit status {status}")
        };
    }
    let tail = node.logs.stderr_tail(id);
    if !tail.is_empty() {
        exit.diagnostics.push_str("\nlast lines of stderr:\n");
        exit.diagnostics.push_str(&tail);
    }
    if exit.diagnostics.len() > DIAGNOSTICS_BYTES_MAX {
        let cut = (0..=DIAGNOSTICS_BYTES_MAX)
            .rev()
            .find(|at| exit.diagnostics.is_char_boundary(*at))
            .unwrap_or(0);
        exit.diagnostics.truncate(cut);
    }
    exit
}
