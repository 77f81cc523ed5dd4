//! The launch server: `bobbin-container-init --serve`.
//!
//! Single-threaded and tiny, because a fork costs what the forking process is big.
//! It keeps a few spare monitors, each with PID 1 already in its namespaces, which all wait on the
//! control socket; whoever gets a launch tells the server, which forks the next spare while the
//! container starts.
//! What is the same for every container is done here once and inherited: no new privileges, empty
//! bounding set, a fresh session keyring, limits, the compiled filter, the base root.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::base::{self, Base, Failed, failed};
use crate::inside;
use crate::launcher::CONTROL_FD;
use crate::plain;
use crate::seccomp;
use crate::spare;
use crate::spec::Profile;
use crate::sys;
use crate::warm::{self, Mapping};

/// Monitors that wait: launches of one agent come in bursts, and the next spare is forked only when
/// a container has started.
const SPARES: usize = 3;
/// Below this they are made at once.
const SPARES_MIN: usize = 2;
/// Otherwise this long after a launch, when a short program has had its processor.
const REFILL_AFTER: Duration = Duration::from_millis(3);
/// Spares that may die unused before the server gives up.
const CRASHES_MAX: u32 = 100;

/// Everything a monitor inherits.
pub(crate) struct Server {
    control: Option<OwnedFd>,
    /// A spare writes its pid here when it takes a launch.
    used: Option<std::fs::File>,
    pub(crate) filter: Vec<libc::sock_filter>,
    /// What spares fill their page tables with.
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) profile: Profile,
    /// Only in the full profile.
    pub(crate) base: Option<Base>,
    pub(crate) resolv: Option<PathBuf>,
}

/// Serves launches on descriptor 3 until its other end closes. Containers go on afterwards.
///
/// # Errors
/// When the server cannot be set up, or its spares keep dying.
pub fn serve() -> io::Result<()> {
    // SAFETY: by the contract of `--serve` descriptor 3 is the control socket and nobody else's.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    nix::fcntl::fcntl(
        &control,
        nix::fcntl::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )?;
    sys::close_from(CONTROL_FD.unsigned_abs() + 1)?;
    let tell = |word: &[u8]| send(CONTROL_FD, word, MsgFlags::MSG_NOSIGNAL);
    match set_up(control) {
        Ok((mut server, used, no_namespaces)) => {
            match no_namespaces {
                None => tell(b"R")?,
                Some(error) => {
                    let words = format!("P{}: {}", error.step, error.source);
                    tell(&words.as_bytes()[..words.len().min(512)])?
                }
            };
            server.run(used)
        }
        Err(error) => {
            let words = format!("E{}: {}", error.step, error.source);
            tell(&words.as_bytes()[..words.len().min(512)])?;
            Err(error.source)
        }
    }
}

/// The server, the other end of its pipe, and why containers can have no namespaces, if so.
fn set_up(control: OwnedFd) -> Result<(Server, std::fs::File, Option<Failed>), Failed> {
    // No signals from a terminal.
    let _ = nix::unistd::setsid();
    // Files are made with the modes given.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    sys::default_signals();
    sys::ignore_broken_pipes();
    inside::block_signals().map_err(failed("block signals"))?;
    let full = nix::unistd::geteuid().is_root();
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed("no new privileges"))?;
    for limit in [libc::RLIMIT_CORE, libc::RLIMIT_RTPRIO, libc::RLIMIT_NICE] {
        sys::set_limit(limit, 0).map_err(failed("lower a limit"))?;
    }
    // Without keys in the kernel there is nothing to let go of.
    let _ = sys::new_session_keyring();
    let base = if full {
        // In the rootless profile this would take the right to map the user.
        sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(failed("hide the launcher"))?;
        let base = Base::build()?;
        for set in [
            caps::CapSet::Ambient,
            caps::CapSet::Bounding,
            caps::CapSet::Inheritable,
        ] {
            caps::clear(None, set).map_err(|error| Failed {
                step: format!("empty a capability set: {error}"),
                source: io::Error::from_raw_os_error(libc::EPERM),
            })?;
        }
        Some(base)
    } else {
        None
    };
    let no_namespaces = if full {
        None
    } else {
        plain::try_namespaces().err()
    };
    let profile = match (full, &no_namespaces) {
        (true, _) => Profile::Full,
        (false, None) => Profile::Rootless,
        (false, Some(_)) => Profile::Plain,
    };
    let (used_read, used_write) =
        nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("pipe"))?;
    let server = Server {
        control: Some(control),
        used: Some(std::fs::File::from(used_write)),
        filter: seccomp::filter(),
        mappings: warm::mappings(),
        profile,
        base,
        resolv: base::resolv_target(),
    };
    Ok((server, std::fs::File::from(used_read), no_namespaces))
}

impl Server {
    /// The control socket's number; only a spare that has not yet taken a launch asks.
    pub(crate) fn control_fd(&self) -> i32 {
        self.control.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// In a spare: tells the server that another one is wanted.
    pub(crate) fn spare_is_used(&mut self) {
        if let Some(mut used) = self.used.take() {
            // A lost word costs a spare until this process ends and is reaped.
            let _ = used.write_all(&nix::unistd::getpid().as_raw().to_le_bytes());
        }
    }

    /// In a spare that has taken a launch.
    pub(crate) fn let_go_of_control(&mut self) {
        self.control = None;
    }

    /// In PID 1: closes what belongs to server and monitor. The owners there keep their copies.
    pub(crate) fn close_in_child(&self) {
        let base_root = self.base.as_ref().map(|base| base.writable_root.as_fd());
        let own: [Option<BorrowedFd<'_>>; 3] = [
            self.control.as_ref().map(AsFd::as_fd),
            self.used.as_ref().map(AsFd::as_fd),
            base_root,
        ];
        for fd in own.into_iter().flatten() {
            // SAFETY: PID 1 never returns to code that uses these, and never drops the owners.
            unsafe { libc::close(fd.as_raw_fd()) };
        }
    }

    fn run(&mut self, mut used: std::fs::File) -> io::Result<()> {
        let mut wanted = SigSet::empty();
        wanted.add(Signal::SIGCHLD);
        wanted.add(Signal::SIGTERM);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&wanted, flags)?;
        let mut spares: Vec<i32> = Vec::with_capacity(SPARES);
        let mut crashes = 0_u32;
        let mut refill_at = Some(Instant::now());
        loop {
            let wanted = SPARES - spares.len();
            if refill_at.is_some_and(|at| at <= Instant::now()) || spares.len() < SPARES_MIN {
                refill_at = None;
                for _ in 0..wanted {
                    match sys::fork_into(0, None)? {
                        Some(pid) => spares.push(pid),
                        None => {
                            drop((signals, used));
                            sys::leave(spare::run(self));
                        }
                    }
                }
            }
            if !self.wait(&signals, &used, refill_at)? {
                return Ok(());
            }
            let before = spares.len();
            let mut word = [0_u8; 4];
            while used.read_exact(&mut word).is_ok() {
                let pid = i32::from_le_bytes(word);
                spares.retain(|spare| *spare != pid);
                crashes = 0;
            }
            while let Ok(Some(information)) = signals.read_signal() {
                if i32::try_from(information.ssi_signo) == Ok(libc::SIGTERM) {
                    return Ok(());
                }
            }
            for pid in reap() {
                if spares.contains(&pid) {
                    spares.retain(|spare| *spare != pid);
                    crashes += 1;
                }
            }
            if spares.len() < before {
                refill_at = Some(Instant::now() + REFILL_AFTER);
            }
            if crashes > CRASHES_MAX {
                return Err(io::Error::other("spare monitors keep dying"));
            }
        }
    }

    /// Waits for a used spare, an ended child or the time to refill. False when the agent is gone.
    fn wait(
        &self,
        signals: &SignalFd,
        used: &std::fs::File,
        refill_at: Option<Instant>,
    ) -> io::Result<bool> {
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(used.as_fd(), PollFlags::POLLIN),
        ];
        // Only its end is waited for: the launches are the spares' to take.
        fds.extend(
            self.control
                .as_ref()
                .map(|control| PollFd::new(control.as_fd(), PollFlags::empty())),
        );
        let timeout = refill_at.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up, so that the time has come when it wakes.
            PollTimeout::from(u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX))
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(!fds.get(2).and_then(PollFd::any).unwrap_or(true))
    }
}

/// Every child that has ended.
fn reap() -> Vec<i32> {
    let mut ended = Vec::new();
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) => {
                ended.push(pid.as_raw());
            }
            WaitStatus::StillAlive => break,
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_) => {}
        }
    }
    ended
}
