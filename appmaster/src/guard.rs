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

use crate::driver::{command, say, start_failure};
use crate::processes::{end_all_descendants, reap_descendants};

/// What the kernel sends when the parent has died.
const PARENT_DIED: Signal = Signal::SIGUSR1;

/// Runs the driver and returns its exit code. `parent` is the process that started the guard;
/// `folder` is its own and removed when it died without doing so.
pub fn run_guard(parent: i32, folder: &Path, argv: &[String]) -> ExitCode {
    let Some(program) = argv.first() else {
        say("the guard needs a program");
        return ExitCode::from(2);
    };
    let mut signals = SigSet::empty();
    for signal in [
        PARENT_DIED,
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        // Giving the terminal back from the background must not stop the guard.
        Signal::SIGTTOU,
    ] {
        signals.add(signal);
    }
    if let Err(e) = signals.thread_block() {
        say(&format!("cannot block signals: {e}"));
        return ExitCode::from(125);
    }
    reap_descendants();
    if let Err(e) = set_pdeathsig(PARENT_DIED) {
        say(&format!("cannot be told of the parent's death: {e}"));
        return ExitCode::from(125);
    }
    // It may have died before the kernel was asked.
    if getppid().as_raw() != parent {
        return ExitCode::from(125);
    }
    let mut driver = command(Path::new(program));
    driver.args(&argv[1..]).process_group(0);
    let child = match driver.spawn() {
        Ok(child) => child,
        Err(e) => {
            let (status, words) = start_failure(program, &e);
            say(&words);
            return ExitCode::from(status.process_code());
        }
    };
    let Ok(pid) = i32::try_from(child.id()) else {
        return ExitCode::from(125);
    };
    let group = Pid::from_raw(pid);
    let terminal = give_terminal(group);
    let status = watch(&signals, group);
    // Whatever is left, in whatever session.
    end_all_descendants();
    if getppid().as_raw() != parent {
        let _ = std::fs::remove_dir_all(folder);
    }
    if let Some(owner) = terminal {
        let _ = tcsetpgrp(io::stdin(), owner);
    }
    ExitCode::from(status.process_code())
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

fn watch(signals: &SigSet, driver: Pid) -> ExitStatus {
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(status) = reap(driver) {
                    return status;
                }
            }
            Ok(PARENT_DIED) | Err(_) => return ExitStatus::from_signal(9),
            Ok(Signal::SIGTTOU) => {}
            Ok(signal) => {
                let _ = killpg(driver, signal);
            }
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
