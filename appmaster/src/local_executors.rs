//! Executors of local mode: child processes of this one, granted as soon as they are asked for.

use std::collections::HashMap;
use std::path::PathBuf;

use bobbin_am_core::{Ask, Completed, Event, Grant};
use bobbin_types::{AttemptId, ContainerId, ExitStatus, NodeId};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::backend::ExecutorLaunch;
use crate::input::{Inbox, Input};
use crate::processes::end_marked;

/// In the environment of everything that one executor starts.
const MARK_VARIABLE: &str = "BOBBIN_LOCAL_CONTAINER";
const LOG_VARIABLE: &str = "BOBBIN_LOG";

pub(crate) struct LocalExecutors {
    pub(crate) inbox: Inbox,
    pub(crate) attempt: AttemptId,
    /// The application's own, unique on this host.
    pub(crate) folder: PathBuf,
    pub(crate) node: NodeId,
    pub(crate) program: PathBuf,
    pub(crate) launch: ExecutorLaunch,
    /// Process groups of executors whose end has not been seen.
    pub(crate) groups: HashMap<ContainerId, Pid>,
    pub(crate) granted: u32,
}

impl LocalExecutors {
    pub(crate) fn grant(&mut self, ask: &Ask) -> Vec<Event> {
        let mut grants = Vec::new();
        for _ in 0..ask.count {
            self.granted += 1;
            grants.push(Grant {
                // Number 1 is the driver's.
                container: ContainerId {
                    attempt: self.attempt,
                    epoch: 0,
                    number: self.granted + 1,
                },
                node: self.node.clone(),
                resource: ask.capability,
            });
        }
        vec![Event::Granted(grants)]
    }

    pub(crate) fn start(&mut self, container: ContainerId) {
        let inbox = self.inbox.clone();
        // Ids of two local applications can be the same, their folders cannot.
        let mark = format!("{}/{container}", self.folder.display());
        #[expect(
            clippy::disallowed_methods,
            reason = "this is launch code: local mode's executor is a child of this process"
        )]
        let mut command = tokio::process::Command::new(&self.program);
        command
            .envs(&self.launch.environment)
            .env("BOBBIN_CONTAINER_ID", container.to_string())
            .env(MARK_VARIABLE, &mark)
            .stdin(std::process::Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        // Its stderr is the user's terminal.
        if std::env::var_os(LOG_VARIABLE).is_none() {
            command.env(LOG_VARIABLE, "error");
        }
        let (pid, child) = match command.spawn() {
            Ok(child) => {
                let pid = child.id().and_then(|id| i32::try_from(id).ok());
                (pid.map(Pid::from_raw), Ok(child))
            }
            Err(e) => (None, Err(e)),
        };
        if let Some(pid) = pid {
            self.groups.insert(container, pid);
        }
        let program = self.program.clone();
        tokio::spawn(async move {
            let (exit_status, diagnostics) = match child {
                Ok(mut child) => match child.wait().await {
                    Ok(status) => (crate::driver::exit_status(status), String::new()),
                    Err(e) => (ExitStatus::ABORTED, format!("cannot wait for it: {e}")),
                },
                Err(e) => (
                    ExitStatus(127),
                    format!("cannot start {}: {e}", program.display()),
                ),
            };
            // A killed executor could not end its tasks, and no container does it here.
            let mark = format!("{MARK_VARIABLE}={mark}");
            let _ = tokio::task::spawn_blocking(move || end_marked(&mark)).await;
            let ended = Completed {
                container,
                exit_status,
                diagnostics,
            };
            let event = Event::ContainersCompleted(vec![ended]);
            // Without a master nobody needs to know.
            let _ = inbox.send(Input::Event(event)).await;
        });
    }

    /// Its tasks are in groups of their own: a dismissed executor has ended them, and one that
    /// hangs loses its stream with the master.
    pub(crate) fn end(&mut self, containers: &[ContainerId]) {
        for container in containers {
            if let Some(group) = self.groups.get(container) {
                let _ = killpg(*group, Signal::SIGTERM);
            }
        }
    }

    pub(crate) fn forget(&mut self, container: ContainerId) {
        self.groups.remove(&container);
    }
}
