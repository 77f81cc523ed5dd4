//! The agent's side of a launch: one small server process, one message per container.
//!
//! Forking costs what the forking process is big, so the agent never forks.
//! It starts `bobbin-container-init --serve` once and sends it a stream socket per launch.
//! The server forks a monitor for it, which reads the specification from the stream, starts the
//! container, answers on the stream and stays as the container's parent.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::error::LaunchError;
use crate::process;
use crate::record::StartRecord;
use crate::spec::{ContainerSpec, PassedSignal};
use crate::wire::{self, Answer};

/// The descriptor on which the server finds its control socket.
pub(crate) const CONTROL_FD: i32 = 3;

/// A started container.
#[derive(Debug)]
pub struct Launched {
    pub monitor_pid: i32,
    /// Start time of the monitor, against reuse of its pid.
    pub monitor_start_ticks: u64,
    /// Becomes readable when the monitor has ended; then the exit file is there.
    pub pidfd: OwnedFd,
}

/// How a container is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// TERM to the program's process group, KILL to everything after the container's grace time.
    TermThenKill,
    /// KILL to everything at once.
    Kill,
    /// Kills the monitor; the kernel then kills the container. Leaves no exit file: a last resort.
    KillMonitor,
}

/// Asks the monitor behind the pidfd to end its container. Repeating it is harmless.
///
/// # Errors
/// When the signal cannot be sent for another reason than that the monitor has ended.
pub fn signal_container(monitor: &OwnedFd, stop: Stop) -> io::Result<()> {
    let signal = match stop {
        Stop::TermThenKill => libc::SIGTERM,
        Stop::Kill => libc::SIGUSR1,
        Stop::KillMonitor => libc::SIGKILL,
    };
    match process::send_signal(monitor, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

/// Has the monitor behind the pidfd pass a signal on to its container's program.
///
/// # Errors
/// When the signal cannot be sent for another reason than that the monitor has ended.
pub fn pass_signal(monitor: &OwnedFd, signal: PassedSignal) -> io::Result<()> {
    let signal = match signal {
        PassedSignal::Term => libc::SIGUSR2,
        PassedSignal::Quit => libc::SIGQUIT,
    };
    match process::send_signal(monitor, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

/// A running launch server. Dropping it ends the server; containers go on.
#[derive(Debug)]
pub struct Launcher {
    program: PathBuf,
    /// The v2 control group that servers, and so monitors, are born in, if not the agent's own.
    group: Option<PathBuf>,
    server: Mutex<Server>,
}

#[derive(Debug)]
struct Server {
    control: Option<OwnedFd>,
    child: Child,
    /// Why its containers have no namespaces, if so.
    no_namespaces: Option<String>,
}

impl Launcher {
    /// Starts the server from `init_program` (the `bobbin-container-init` binary).
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(init_program: &Path) -> Result<Launcher, LaunchError> {
        Launcher::start_in(init_program, None)
    }

    /// As [`Launcher::start`], with the server and all monitors in this v2 control group, so that
    /// none of them counts as a process of the agent's own service.
    ///
    /// # Errors
    /// When the program cannot be started, or the group cannot be joined.
    pub fn start_in(init_program: &Path, group: Option<PathBuf>) -> Result<Launcher, LaunchError> {
        let server = Server::start(init_program, group.as_deref())?;
        Ok(Launcher {
            program: init_program.to_owned(),
            group,
            server: Mutex::new(server),
        })
    }

    /// Process id of the server.
    #[must_use]
    pub fn server_pid(&self) -> u32 {
        self.server().child.id()
    }

    /// Why containers of this account can have no namespaces here; then they are of the profile
    /// [`Profile::Plain`](crate::Profile::Plain).
    #[must_use]
    pub fn no_namespaces(&self) -> Option<String> {
        self.server().no_namespaces.clone()
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        // A panic in `send` leaves a server that is at worst restarted.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one container and returns when its program has been executed.
    ///
    /// Blocks for about a millisecond; several threads may call it at once.
    ///
    /// # Errors
    /// Why the container could not be started. Nothing of it is left then.
    pub fn launch(&self, spec: &ContainerSpec) -> Result<Launched, LaunchError> {
        let message = wire::encode_spec(spec)?;
        let (mut ours, theirs) = UnixStream::pair().map_err(control)?;
        self.hand_over(&theirs)?;
        drop(theirs);
        ours.write_all(&message).map_err(gone_or_control)?;
        let (answer, pidfd) = receive_answer(&ours).map_err(gone_or_control)?;
        match (wire::decode_answer(&answer)?, pidfd) {
            (
                Answer::Started {
                    monitor_pid,
                    monitor_start_ticks,
                },
                Some(pidfd),
            ) => Ok(Launched {
                monitor_pid,
                monitor_start_ticks,
                pidfd,
            }),
            (Answer::Started { .. }, None) => Err(LaunchError::BadAnswer {
                reason: "no pidfd came with it",
            }),
            (Answer::Failed(error), _) => Err(error),
        }
    }

    /// Sends the stream to the server, starting a new server once if the old one is gone.
    fn hand_over(&self, stream: &UnixStream) -> Result<(), LaunchError> {
        let mut server = self.server();
        if server.send(stream).is_ok() {
            return Ok(());
        }
        server.end();
        *server = Server::start(&self.program, self.group.as_deref())?;
        server.send(stream).map_err(gone_or_control)
    }
}

impl Server {
    fn start(program: &Path, group: Option<&Path>) -> Result<Server, LaunchError> {
        let failed = |source: io::Error| LaunchError::StartLauncher {
            program: program.to_owned(),
            source,
        };
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|errno| failed(errno.into()))?;
        let mut command = Command::new(program);
        command
            .arg("--serve")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let control_fd = theirs.as_raw_fd();
        let open = |group: &Path| File::options().write(true).open(group.join("cgroup.procs"));
        let mut joined = group.map(open).transpose().map_err(failed)?;
        // SAFETY: between fork and exec only write, dup2 and fcntl are called, which are safe there.
        unsafe {
            command.pre_exec(move || {
                // 0 is whoever writes it.
                if let Some(procs) = &mut joined {
                    procs.write_all(b"0")?;
                }
                let result = if control_fd == CONTROL_FD {
                    libc::fcntl(control_fd, libc::F_SETFD, 0)
                } else {
                    libc::dup2(control_fd, CONTROL_FD)
                };
                if result < 0 {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(())
                }
            });
        }
        let child = command.spawn().map_err(failed)?;
        let mut server = Server {
            control: Some(ours),
            child,
            no_namespaces: None,
        };
        server.no_namespaces = server.wait_ready().map_err(failed)?;
        Ok(server)
    }

    /// The server's first word tells that its base root stands, or why it cannot; or why there are no
    /// namespaces.
    fn wait_ready(&self) -> io::Result<Option<String>> {
        let Some(control) = &self.control else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let mut word = [0_u8; 512];
        let length = nix::sys::socket::recv(control.as_raw_fd(), &mut word, MsgFlags::empty())?;
        match word[..length].split_first() {
            Some((b'R', _)) => Ok(None),
            Some((b'P', reason)) => Ok(Some(String::from_utf8_lossy(reason).into_owned())),
            Some((_, reason)) => Err(io::Error::other(
                String::from_utf8_lossy(reason).into_owned(),
            )),
            None => Err(io::Error::other("it ended at once")),
        }
    }

    fn send(&self, stream: &UnixStream) -> io::Result<()> {
        let Some(control) = &self.control else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let fds = [stream.as_raw_fd()];
        sendmsg::<()>(
            control.as_raw_fd(),
            &[IoSlice::new(&wire::LAUNCH_MESSAGE)],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }

    /// Closes the control socket, upon which the server ends, and reaps it.
    fn end(&mut self) {
        self.control = None;
        // An error means that somebody else has reaped it.
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The monitor's one message, with its own pidfd: opening one by number could be too late for a
/// program that ends at once.
fn receive_answer(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut answer = vec![0_u8; wire::ANSWER_BYTES_MAX];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(&mut answer)];
    let message = recvmsg::<()>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let length = message.bytes;
    let mut pidfd = None;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            for fd in fds {
                // SAFETY: the kernel just made this descriptor for us.
                pidfd = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    answer.truncate(length);
    Ok((answer, pidfd))
}

/// Whether the container of `start` is still watched by the monitor that wrote the record.
#[must_use]
pub fn is_running(start: &StartRecord) -> bool {
    process::start_ticks(start.monitor_pid) == Some(start.monitor_start_ticks)
}

fn control(source: io::Error) -> LaunchError {
    LaunchError::Control { source }
}

fn gone_or_control(source: io::Error) -> LaunchError {
    let gone = matches!(
        source.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
    );
    if gone {
        LaunchError::LauncherGone
    } else {
        LaunchError::Control { source }
    }
}
