//! The guard: the parent of a driver that runs outside containers.
//!
//! It reaps every descendant of the driver, passes signals on, gives the driver the terminal, and
//! ends everything when the driver ends or when the process that started the guard dies.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use bobbin_types::ExitStatus;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgrp, getppid, tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::{SignalKind, signal};

use crate::client_mode::BOBBIN_FAILED;
use crate::driver::{command, say, start_failure};
use crate::processes::{end_all_descendants, reap_descendants};

/// What the kernel sends when the parent has died; also sent by a parent that has lost patience.
const PARENT_DIED: Signal = Signal::SIGUSR1;

/// Runs the driver and returns its exit code. `parent` is the process that started the guard;
/// `folder` is its own and removed when it died without doing so.
pub fn run_guard(parent: i32, folder: &Path, argv: &[String]) -> ExitCode {
    let Some(program) = argv.first() else {
        say("the guard needs a program");
        return ExitCode::from(2);
    };
    // Handlers, not a blocked mask: a mask would be the driver's too.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.and_then(|runtime| {
        let _inside = runtime.enter();
        let signals = Signals::new()?;
        runtime.block_on(guard(parent, folder, (program, &argv[1..]), signals))
    });
    outcome.unwrap_or_else(|e| {
        say(&format!("cannot guard '{program}': {e}"));
        ExitCode::from(BOBBIN_FAILED)
    })
}

async fn guard(
    parent: i32,
    folder: &Path,
    (program, arguments): (&str, &[String]),
    mut signals: Signals,
) -> io::Result<ExitCode> {
    reap_descendants();
    set_pdeathsig(PARENT_DIED)?;
    // It may have died before the kernel was asked.
    if getppid().as_raw() != parent {
        return Ok(ExitCode::from(BOBBIN_FAILED));
    }
    let mut driver = command(Path::new(program));
    driver.args(arguments).process_group(0);
    let child = match driver.spawn() {
        Ok(child) => child,
        Err(e) => {
            let (status, words) = start_failure(program, &e);
            say(&words);
            return Ok(ExitCode::from(status.process_code()));
        }
    };
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let group = Pid::from_raw(pid);
    let terminal = give_terminal(group);
    let status = signals.watch(group).await;
    // Whatever is left, in whatever session.
    end_all_descendants();
    if status.is_none() {
        let _ = std::fs::remove_dir_all(folder);
    }
    if let Some(owner) = terminal {
        // From the background this would stop the guard.
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTTOU);
        stop.thread_block()?;
        let _ = tcsetpgrp(io::stdin(), owner);
    }
    // Without a status the driver was killed here.
    let status = status.unwrap_or_else(|| ExitStatus::from_signal(9));
    Ok(ExitCode::from(status.process_code()))
}

/// Makes the driver's group the foreground one of the terminal, if this one is. Returns whom to
/// give it back to.
fn give_terminal(group: Pid) -> Option<Pid> {
    let owner = tcgetpgrp(io::stdin()).ok()?;
    if owner != getpgrp() {
        return None;
    }
    tcsetpgrp(io::stdin(), group).ok()?;
    // It may have read from the terminal before and been stopped for it.
    let _ = killpg(group, Signal::SIGCONT);
    Some(owner)
}

struct Signals {
    parent_died: tokio::signal::unix::Signal,
    child: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            parent_died: signal(SignalKind::user_defined1())?,
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Until the driver has ended; `None` when nobody waits for it any more. (The parent's id tells
    /// nothing then: the signal comes with the death of its first thread.)
    async fn watch(&mut self, driver: Pid) -> Option<ExitStatus> {
        loop {
            let signal = tokio::select! {
                _ = self.parent_died.recv() => return None,
                _ = self.child.recv() => {
                    match reap(driver) {
                        Some(status) => return Some(status),
                        None => continue,
                    }
                }
                _ = self.terminate.recv() => Signal::SIGTERM,
                _ = self.interrupt.recv() => Signal::SIGINT,
                _ = self.hangup.recv() => Signal::SIGHUP,
                _ = self.quit.recv() => Signal::SIGQUIT,
            };
            let _ = killpg(driver, signal);
        }
    }
}

/// Reaps everything that has ended; the driver's status if it is among it.
fn reap(driver: Pid) -> Option<ExitStatus> {
    let mut status = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == driver => status = Some(ExitStatus(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == driver => {
                status = Some(ExitStatus::from_signal(signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return status,
            Ok(_) => {}
        }
    }
}
