//! The driver: PROGRAM as a child in a process group of its own, signals passed on, its end told.
//!
//! In a container its PID 1 ends whatever is left. Elsewhere a small guard process
//! (`bobbin-appmaster --guard`) is the driver's parent: it is told by the kernel when this process
//! dies, however it dies, and ends every descendant of the driver.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bobbin_types::ExitStatus;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::api::AppMasterError;

/// A program that cannot be found, as a shell tells it.
pub(crate) const NOT_FOUND: i32 = 127;
/// A program that cannot be executed, as a shell tells it.
pub(crate) const NOT_EXECUTABLE: i32 = 126;

/// A driver that was started, or could not be.
#[derive(Debug)]
pub(crate) struct DriverProcess {
    /// Whom signals go to.
    receiver: Receiver,
    end: oneshot::Receiver<ExitStatus>,
    signals: Signals,
    /// Why it could not be started.
    pub(crate) start_error: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Receiver {
    Nobody,
    Process(Pid),
    Group(Pid),
}

/// How a process ended, in the numbers of a shell.
pub(crate) fn exit_status(status: std::process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus(code),
        (None, Some(signal)) => ExitStatus::from_signal(signal),
        (None, None) => ExitStatus::ABORTED,
    }
}

/// What a shell's exit code says of a program that could not be started, and words for people.
pub(crate) fn start_failure(program: &str, error: &io::Error) -> (ExitStatus, String) {
    if error.kind() == io::ErrorKind::NotFound {
        let words = format!("cannot run '{program}': there is no such program");
        (ExitStatus(NOT_FOUND), words)
    } else {
        let words = format!("cannot run '{program}': {error}");
        (ExitStatus(NOT_EXECUTABLE), words)
    }
}

/// The only place where a driver's or a guard's command is made.
pub(crate) fn command(program: &Path) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the launch code of drivers and tasks"
    )]
    Command::new(program)
}

/// Finds a program of Bobbin beside this one, or in PATH.
pub(crate) fn find_program(program: &'static str) -> Result<PathBuf, AppMasterError> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent);
    // Tests run from a folder below the one that holds the programs.
    let above = beside.and_then(Path::parent);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = beside
        .into_iter()
        .chain(above)
        .map(Path::to_owned)
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    found.ok_or(AppMasterError::ProgramMissing { program })
}

/// A driver in this container that is started before anything else of this program is: what it
/// starts with is on the way of the first line that people wait for.
#[derive(Debug)]
pub(crate) struct EarlyDriver {
    /// Or the exit status and the words of one that could not be started.
    started: Result<(Child, Pid), (ExitStatus, String)>,
    signals: Signals,
}

impl EarlyDriver {
    /// Starts it. Signals that ask this process to end are from now on kept for it.
    ///
    /// # Errors
    /// Signals cannot be listened to.
    pub(crate) fn start(
        argv: &[String],
        environment: &[(String, String)],
    ) -> Result<EarlyDriver, AppMasterError> {
        // Handlers, not a blocked mask: a mask would be the driver's too.
        let signals = Signals::listen().map_err(AppMasterError::io("listen to signals"))?;
        let program = argv.first().map_or("", String::as_str);
        let mut driver = command(Path::new(program));
        driver.args(argv.iter().skip(1)).process_group(0);
        driver.envs(environment.iter().cloned());
        let started = driver.spawn().and_then(|child| {
            let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
            Ok((child, Pid::from_raw(pid)))
        });
        let started = started.map_err(|e| {
            let (status, words) = start_failure(program, &e);
            say(&words);
            (status, words)
        });
        Ok(EarlyDriver { started, signals })
    }
}

impl DriverProcess {
    /// Attends to a driver that was started before.
    pub(crate) fn adopt(driver: EarlyDriver) -> DriverProcess {
        let (ended, end) = oneshot::channel();
        let (receiver, start_error) = match driver.started {
            Ok((mut child, pid)) => {
                let thread = std::thread::Builder::new().name("driver".to_owned());
                let waiting = thread.spawn(move || {
                    let status = child.wait().map_or(ExitStatus::ABORTED, exit_status);
                    // Nobody waits for it any more when this process ends.
                    let _ = ended.send(status);
                });
                if let Err(e) = waiting {
                    tracing::error!("cannot start a thread for the driver: {e}");
                }
                (Receiver::Group(pid), None)
            }
            Err((status, words)) => {
                // The receiver is in this function, so the send succeeds.
                let _ = ended.send(status);
                (Receiver::Nobody, Some(words))
            }
        };
        DriverProcess {
            receiver,
            end,
            signals: driver.signals,
            start_error,
        }
    }

    /// Starts the driver below a guard, with this process's terminal.
    pub(crate) fn start_guarded(
        guard: &Path,
        folder: &Path,
        argv: &[String],
        environment: &[(String, String)],
    ) -> Result<DriverProcess, AppMasterError> {
        let mut driver = command(guard);
        let own = std::process::id().to_string();
        driver
            .args(["--guard", &own])
            .arg(folder)
            .arg("--")
            .args(argv);
        driver.envs(environment.iter().cloned());
        DriverProcess::launch(driver, &argv[0], Receiver::Process)
    }

    /// A thread of its own starts the child and waits for it: the guard is told when its parent
    /// *thread* ends, and threads of a runtime come and go.
    fn launch(
        mut driver: Command,
        program: &str,
        receiver: fn(Pid) -> Receiver,
    ) -> Result<DriverProcess, AppMasterError> {
        // Before the start: from now on a signal is the driver's, even one that comes before it.
        let signals = Signals::listen().map_err(AppMasterError::io("listen to signals"))?;
        let (started, start) = std::sync::mpsc::channel();
        let (ended, end) = oneshot::channel();
        let program = program.to_owned();
        let thread = std::thread::Builder::new().name("driver".to_owned());
        let spawned = thread.spawn(move || {
            driver.stdin(Stdio::inherit());
            let status = match driver.spawn() {
                Ok(mut child) => {
                    let _ = started.send(i32::try_from(child.id()).map_err(|e| e.to_string()));
                    child.wait().map_or(ExitStatus::ABORTED, exit_status)
                }
                Err(e) => {
                    let (status, words) = start_failure(&program, &e);
                    say(&words);
                    let _ = started.send(Err(words));
                    status
                }
            };
            let _ = ended.send(status);
        });
        if let Err(e) = spawned {
            tracing::error!("cannot start a thread for the driver: {e}");
        }
        let pid = start
            .recv()
            .unwrap_or_else(|_| Err("the thread for the driver did not start".to_owned()));
        Ok(DriverProcess {
            signals,
            receiver: match pid {
                Ok(pid) => receiver(Pid::from_raw(pid)),
                Err(_) => Receiver::Nobody,
            },
            end,
            start_error: pid.err(),
        })
    }

    /// Until the driver has ended. Signals that ask this process to end go to the driver instead.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        loop {
            let signal = tokio::select! {
                biased;
                ended = &mut self.end => return ended.unwrap_or(ExitStatus::ABORTED),
                signal = self.signals.next() => signal,
            };
            self.signal(signal);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let sent = match self.receiver {
            Receiver::Nobody => Ok(()),
            Receiver::Process(pid) => kill(pid, signal),
            Receiver::Group(group) => killpg(group, signal),
        };
        if let Err(e) = sent {
            tracing::debug!("the driver was not signalled: {e}");
        }
    }

    /// Ends what the driver left behind in its group; a guard does so itself.
    pub(crate) fn end_group(&self) {
        match self.receiver {
            Receiver::Group(_) => self.signal(Signal::SIGKILL),
            Receiver::Nobody | Receiver::Process(_) => {}
        }
    }
}

/// Signals that ask this process to end.
#[derive(Debug)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.hangup.recv() => Signal::SIGHUP,
            _ = self.quit.recv() => Signal::SIGQUIT,
        }
    }
}

/// One line on stderr, where a shell would say it too.
pub(crate) fn say(words: &str) {
    use std::io::Write;
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "bobbin: {words}");
}
