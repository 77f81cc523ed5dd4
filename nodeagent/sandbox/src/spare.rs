//! A monitor before its container: born early, with PID 1 already in its namespaces, it takes one
//! launch and sets it up.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::Pid;

use crate::base::{Failed, failed};
use crate::error::LaunchError;
use crate::inside::{self, Inherited};
use crate::memory::Watch;
use crate::monitor::{Monitor, Parts};
use crate::mounts;
use crate::plain;
use crate::plan::{self, RootPlan};
use crate::process;
use crate::pump::{self, Pump};
use crate::server::Server;
use crate::spec::{ContainerSpec, Profile};
use crate::sys;
use crate::warm;
use crate::wire::{self, Answer, Malformed};

/// A monitor that waits for its container, with PID 1 already born.
struct Spare {
    first: First,
    pump: Pump,
    signals: SignalFd,
    start_ticks: u64,
}

/// PID 1, seen from outside.
pub(crate) struct First {
    pub(crate) pid: Pid,
    pub(crate) socket: UnixStream,
    /// Whether the kernel ends everything with it.
    pub(crate) has_namespace: bool,
}

impl First {
    pub(crate) fn kill(&self) {
        if !self.has_namespace {
            return plain::kill_below();
        }
        // It is our child and not reaped, so the pid is its own.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

/// The whole life of a monitor. The code is only for the server's eyes.
pub(crate) fn run(server: &mut Server) -> i32 {
    // A failure is kept for the launch that meets it.
    let spare = Spare::new(server).map_err(setup);
    let stream = match receive_launch(server) {
        Ok(Some(stream)) => stream,
        // The agent is gone; PID 1 sees the end of its socket.
        Ok(None) | Err(_) => return 0,
    };
    // Only spares need it; the agent's end must not seem open because of a container.
    server.let_go_of_control();
    let started = spare.and_then(|spare| start(server, &stream, spare));
    let (answer, monitor) = match started {
        Ok((monitor, answer)) => (answer, Some(monitor)),
        Err(error) => (Answer::Failed(error), None),
    };
    let pidfd = process::open_pidfd(nix::unistd::getpid().as_raw()).ok();
    // An agent that has gone meanwhile finds the container by its start file.
    let _ = send_answer(&stream, &answer, pidfd.as_ref());
    drop((stream, pidfd));
    // Not before: forking the next spare would take a processor from the container's start.
    server.spare_is_used();
    let Some(mut monitor) = monitor else { return 1 };
    monitor.reserve_exit();
    monitor.watch_until_end();
    if monitor.write_exit().is_ok() { 0 } else { 1 }
}

/// Sets the container up and waits until its program runs. On an error nothing of it is left.
fn start(
    server: &Server,
    stream: &UnixStream,
    spare: Spare,
) -> Result<(Monitor, Answer), LaunchError> {
    let mut monitor = prepare(server, stream, spare)?;
    match monitor.wait_started() {
        Ok(monitor_start_ticks) => {
            let monitor_pid = nix::unistd::getpid().as_raw();
            Ok((
                monitor,
                Answer::Started {
                    monitor_pid,
                    monitor_start_ticks,
                },
            ))
        }
        Err(error) => {
            monitor.give_up();
            Err(error)
        }
    }
}

fn setup(error: Failed) -> LaunchError {
    LaunchError::Setup {
        step: error.step,
        source: error.source,
    }
}

impl Spare {
    fn new(server: &Server) -> Result<Spare, Failed> {
        // A session of its own: no terminal's signals.
        let _ = nix::unistd::setsid();
        sys::set_name(c"bobbin-spare");
        let own = nix::unistd::getpid().as_raw();
        let start_ticks = process::start_ticks(own).ok_or_else(|| {
            failed("read own start time")(io::Error::from_raw_os_error(libc::EIO))
        })?;
        let mut wanted = SigSet::empty();
        for signal in inside::WAITED_FOR {
            wanted.add(signal);
        }
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&wanted, flags).map_err(failed("signalfd"))?;
        if server.profile == Profile::Plain {
            sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(failed("take orphans in"))?;
        }
        let (first, pump) = birth(server, None)?;
        warm::warm(&server.mappings);
        Ok(Spare {
            first,
            pump,
            signals,
            start_ticks,
        })
    }

    /// For a lease with a v2 group: a new PID 1 that is born in it.
    ///
    /// Moving a process into a v2 group waits for a grace period of the kernel (some 10 ms on a
    /// machine that was idle); being born there does not.
    fn reborn(mut self, server: &Server, group: &Path) -> Result<Spare, Failed> {
        self.first.kill();
        let folder = open_folder(group)?;
        (self.first, self.pump) = birth(server, Some(folder.as_fd()))?;
        Ok(self)
    }
}

/// PID 1 in its namespaces (and in a v2 group), and the pipes of the program's output.
fn birth(server: &Server, group: Option<BorrowedFd<'_>>) -> Result<(First, Pump), Failed> {
    let (stdout, stdout_write) = pump::log_pipe().map_err(failed("pipe"))?;
    let (stderr, stderr_write) = pump::log_pipe().map_err(failed("pipe"))?;
    let (ours, theirs) = UnixStream::pair().map_err(failed("socket pair"))?;
    let own = libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let namespaces = match server.profile {
        Profile::Full => own,
        Profile::Rootless => own | libc::CLONE_NEWUSER | libc::CLONE_NEWNS,
        Profile::Plain => 0,
    };
    let forked = sys::fork_into(u64::from(namespaces.unsigned_abs()), group)
        .map_err(failed("new namespaces"))?;
    let Some(pid) = forked else {
        drop((ours, stdout, stderr));
        server.close_in_child();
        inside::run(Inherited {
            monitor: theirs,
            stdout: stdout_write,
            stderr: stderr_write,
            filter: &server.filter,
            mappings: &server.mappings,
            profile: server.profile,
            base: server.base.as_ref().map(|base| base.namespace.as_fd()),
            resolv: server.resolv.as_deref(),
        })
    };
    if server.profile == Profile::Rootless {
        map_user(pid)?;
    }
    Ok((
        First {
            pid: Pid::from_raw(pid),
            socket: ours,
            has_namespace: server.profile != Profile::Plain,
        },
        Pump::new(stdout, stderr),
    ))
}

/// Maps the own uid and gid, and nothing else, into the container's user namespace.
pub(crate) fn map_user(pid: i32) -> Result<(), Failed> {
    let uid = nix::unistd::geteuid();
    let gid = nix::unistd::getegid();
    for (file, text) in [
        ("uid_map", format!("{uid} {uid} 1")),
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("{gid} {gid} 1")),
    ] {
        fs::write(format!("/proc/{pid}/{file}"), text)
            .map_err(failed(format!("map the user ({file})")))?;
    }
    Ok(())
}

/// Waits for a launch; `None` when the agent is gone.
fn receive_launch(server: &Server) -> io::Result<Option<UnixStream>> {
    let mut word = [0_u8; 16];
    let mut space = nix::cmsg_space!([i32; 1]);
    loop {
        let mut parts = [io::IoSliceMut::new(&mut word)];
        let message = match recvmsg::<()>(
            server.control_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::Error::EINTR) => continue,
            result => result?,
        };
        let length = message.bytes;
        let mut stream = None;
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part {
                for fd in fds {
                    // SAFETY: the kernel just made this descriptor for us.
                    stream = Some(UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
        }
        if length == 0 {
            return Ok(None);
        }
        if word[..length] == wire::LAUNCH_MESSAGE && stream.is_some() {
            return Ok(stream);
        }
        // Another agent's language: closing its stream is the answer.
    }
}

fn send_answer(stream: &UnixStream, answer: &Answer, pidfd: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = wire::encode_answer(answer);
    let fds: Vec<i32> = pidfd.iter().map(|fd| fd.as_raw_fd()).collect();
    let attached = [ControlMessage::ScmRights(&fds)];
    let attached = if fds.is_empty() {
        &[][..]
    } else {
        &attached[..]
    };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&bytes)],
        attached,
        flags,
        None,
    )?;
    Ok(())
}

/// Reads the specification and does the outer half of the set-up, while PID 1 does the inner one.
fn prepare(server: &Server, mut stream: &UnixStream, spare: Spare) -> Result<Monitor, LaunchError> {
    let lost = |source| LaunchError::Control { source };
    let mut length = [0_u8; 4];
    stream.read_exact(&mut length).map_err(lost)?;
    let size = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if size > wire::SPEC_BYTES_MAX {
        return Err(LaunchError::BadAnswer {
            reason: "the specification is too long",
        });
    }
    let mut bytes = vec![0_u8; size];
    stream.read_exact(&mut bytes).map_err(lost)?;
    let spec =
        wire::decode_spec(&bytes).map_err(|Malformed(reason)| LaunchError::BadAnswer { reason })?;
    plan::check(&spec)?;
    if spec.profile != server.profile {
        return Err(LaunchError::BadSpec {
            field: "profile",
            reason: format!("the launcher runs {:?}", server.profile),
        });
    }
    let plan = plan::plan(&spec, server.resolv.as_deref())?;
    let group = spec
        .cgroups
        .as_ref()
        .and_then(|lease| lease.into_v2.as_deref());
    let spare = match group {
        Some(group) => spare.reborn(server, group).map_err(setup)?,
        None => spare,
    };
    let result = set_up(server, &spec, &plan, &spare, (length, &bytes));
    let (private_dir, logs, watch) = result.map_err(|error| {
        spare.first.kill();
        setup(error)
    })?;
    let Spare {
        first,
        mut pump,
        signals,
        start_ticks,
    } = spare;
    let [stdout, stderr] = logs;
    pump.set_files(stdout, stderr, spec.log_bytes_max);
    let parts = Parts {
        spec,
        first,
        pump,
        signals,
        private_dir,
        watch,
        start_ticks,
    };
    let mut monitor = Monitor::new(parts);
    monitor.announce().map_err(|error| {
        monitor.give_up();
        setup(error)
    })?;
    Ok(monitor)
}

type Opened = (File, [File; 2], Option<Watch>);

fn set_up(
    server: &Server,
    spec: &ContainerSpec,
    plan: &RootPlan,
    spare: &Spare,
    message: ([u8; 4], &[u8]),
) -> Result<Opened, Failed> {
    let first = &spare.first;
    let mut socket = &first.socket;
    let lost = || failed("tell PID 1 what to start");
    socket.write_all(&message.0).map_err(lost())?;
    socket.write_all(message.1).map_err(lost())?;
    // PID 1 joins before it mounts, so that this counts as the container's, too.
    let mut fds = open_groups(spec)?;
    if let Some(base) = &server.base {
        mounts::make_tops(base.writable_root.as_raw_fd(), plan)?;
        fds.extend(mounts::open_trees(plan)?);
    }
    send_fds(&first.socket, &fds)?;
    drop(fds);
    let log_dir = open_folder(&spec.log_dir)?;
    let log = |name| {
        pump::open_log(log_dir.as_fd(), name, spec.uid, spec.gid)
            .map_err(failed(format!("open the log file {name:?}")))
    };
    let [stdout, stderr] = spec.output_files.names();
    let logs = [log(stdout)?, log(stderr)?];
    let private_dir = open_folder(&spec.private_dir)?;
    let memory = spec
        .cgroups
        .as_ref()
        .and_then(|lease| lease.memory.as_ref());
    let watch = memory
        .map(|(group, events)| Watch::new(group, *events))
        .transpose()
        .map_err(failed("watch the container's memory"))?;
    Ok((private_dir, logs, watch))
}

/// The v1 groups' files through which a process joins by itself.
///
/// `tasks` and not `cgroup.procs`, and by PID 1 itself: only then does the kernel not wait for a
/// grace period. Source: `cgroup_procs_write_start`, kernel/cgroup/cgroup.c.
fn open_groups(spec: &ContainerSpec) -> Result<Vec<(usize, OwnedFd)>, Failed> {
    let groups = spec.cgroups.as_ref().map_or(&[][..], |lease| &lease.groups);
    groups
        .iter()
        .map(|group| {
            let file = fs::OpenOptions::new().write(true).open(group.join("tasks"));
            let file = file.map_err(failed(format!(
                "join the control group {}",
                group.display()
            )))?;
            Ok((inside::GROUP, OwnedFd::from(file)))
        })
        .collect()
}

fn send_fds(socket: &UnixStream, trees: &[(usize, OwnedFd)]) -> Result<(), Failed> {
    let count = u32::try_from(trees.len()).unwrap_or(u32::MAX);
    let mut stream = socket;
    stream
        .write_all(&count.to_le_bytes())
        .map_err(failed("hand the mounts to PID 1"))?;
    for batch in trees.chunks(inside::FDS_PER_MESSAGE) {
        let numbers: Vec<u8> = batch
            .iter()
            .flat_map(|(index, _)| u16::try_from(*index).unwrap_or(u16::MAX).to_le_bytes())
            .collect();
        let fds: Vec<i32> = batch.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&numbers)],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map_err(failed("hand the mounts to PID 1"))?;
    }
    Ok(())
}

fn open_folder(path: &Path) -> Result<File, Failed> {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    sys::open_strict(libc::AT_FDCWD, &name, libc::O_RDONLY | libc::O_DIRECTORY, 0)
        .map(File::from)
        .map_err(failed(format!("open the folder {}", path.display())))
}
