//! PID 1 of a container: makes what the program sees, starts it, reaps, and tells the monitor.
//!
//! It is forked before its specification is known and prepares what every container has (`/proc`,
//! terminals), then waits. With the specification and the detached mounts it finishes the root,
//! becomes the user and starts the program as its child without copying memory.
//! It takes nothing from the program: its only input afterwards is a signal.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::base::{self, Builder, Failed, failed};
use crate::mounts;
use crate::plain;
use crate::plan;
use crate::program::{NotExecuted, Program};
use crate::spec::{ContainerSpec, Limits, Profile};
use crate::sys;
use crate::warm::{self, Mapping};
use crate::wire;

/// Descriptors that fit into one message. Source: SCM_MAX_FD, net/scm.h, is 253.
pub(crate) const FDS_PER_MESSAGE: usize = 128;
/// The number of a descriptor that is a control group's and no mount.
pub(crate) const GROUP: usize = 0xffff;
/// What the monitor sends when the program may start.
pub(crate) const GO: u8 = b'G';
/// What PID 1 tells its monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The program has been executed.
    Started,
    /// It was not: the step, and the kernel's error number.
    Failed { step: String, errno: i32 },
    /// No such program, in no folder of PATH.
    NotFound,
    /// There, but it cannot be executed.
    NotExecutable { errno: i32 },
    /// The program has ended with this status of wait(2).
    Ended { status: i32 },
}

impl Event {
    fn parts(&self) -> (u32, i32, &str) {
        match self {
            Event::Started => (1, 0, ""),
            Event::Failed { step, errno } => (2, *errno, step),
            Event::NotFound => (3, 0, ""),
            Event::NotExecutable { errno } => (4, *errno, ""),
            Event::Ended { status } => (5, *status, ""),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, number, text) = self.parts();
        let text = &text.as_bytes()[..text.len().min(1024)];
        let mut out = Vec::with_capacity(12 + text.len());
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(text);
        out
    }

    /// The first event in `buffer` and its length, if it is all there.
    pub(crate) fn decode(buffer: &[u8]) -> Option<(Event, usize)> {
        let word = |at: usize| buffer.get(at..at + 4)?.try_into().ok();
        let kind = u32::from_le_bytes(word(0)?);
        let number = i32::from_le_bytes(word(4)?);
        let length = usize::try_from(u32::from_le_bytes(word(8)?)).ok()?;
        let text = buffer.get(12..12_usize.checked_add(length)?)?;
        let event = match kind {
            1 => Event::Started,
            3 => Event::NotFound,
            4 => Event::NotExecutable { errno: number },
            5 => Event::Ended { status: number },
            _ => Event::Failed {
                step: String::from_utf8_lossy(text).into_owned(),
                errno: number,
            },
        };
        Some((event, 12 + length))
    }
}

/// What PID 1 has from its monitor by inheritance.
#[derive(Debug)]
pub(crate) struct Inherited<'a> {
    pub(crate) monitor: UnixStream,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) filter: &'a [libc::sock_filter],
    pub(crate) mappings: &'a [Mapping],
    pub(crate) profile: Profile,
    /// The namespace to start from; only in the full profile.
    pub(crate) base: Option<BorrowedFd<'a>>,
    pub(crate) resolv: Option<&'a Path>,
}

/// The life of PID 1. Never returns.
pub(crate) fn run(inherited: Inherited<'_>) -> ! {
    sys::set_name(c"bobbin-pid1");
    // Rust ignores SIGPIPE and an ignored signal would stay so in the program. Here it may kill: it
    // can only mean that the monitor is gone.
    // SAFETY: the default disposition runs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let early = match inherited.profile {
        Profile::Full => inherited.base.map_or(Ok(()), prepare_early),
        Profile::Rootless => Ok(()),
        Profile::Plain => {
            sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(failed("take orphans in"))
        }
    };
    warm::warm(inherited.mappings);
    let event = match start(&inherited, early) {
        Ok((child, grace)) => reap(&inherited, child, grace),
        Err(NotStarted::MonitorGone) => sys::leave(1),
        Err(NotStarted::Because(event)) => event,
    };
    // If nobody listens the container ends all the same.
    let _ = (&inherited.monitor).write_all(&event.encode());
    sys::leave(0)
}

enum NotStarted {
    MonitorGone,
    Because(Event),
}

impl From<Failed> for NotStarted {
    fn from(failed: Failed) -> NotStarted {
        NotStarted::Because(Event::Failed {
            step: failed.step,
            errno: failed.source.raw_os_error().unwrap_or(libc::EIO),
        })
    }
}

/// What can be done before the specification is known.
fn prepare_early(base: BorrowedFd<'_>) -> Result<(), Failed> {
    sys::enter_mount_namespace(base).map_err(failed("enter the base's mount namespace"))?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(failed("own mount namespace"))?;
    mounts::mount_proc(c"/proc")?;
    mounts::mount_kernel_files(Builder::Root)?;
    set_oom_score(Limits::default().oom_score_adj)
}

fn set_oom_score(score: u32) -> Result<(), Failed> {
    std::fs::write("/proc/self/oom_score_adj", score.min(1000).to_string())
        .map_err(failed("set oom_score_adj"))
}

/// From the specification to the running program; returns its pid in the container, and the time
/// between TERM and KILL.
fn start(
    inherited: &Inherited<'_>,
    early: Result<(), Failed>,
) -> Result<(Pid, Duration), NotStarted> {
    let bytes = receive_spec(&inherited.monitor).map_err(|_| NotStarted::MonitorGone)?;
    let spec = wire::decode_spec(&bytes).map_err(|wire::Malformed(reason)| Failed {
        step: format!("read the specification: {reason}"),
        source: io::Error::from_raw_os_error(libc::EPROTO),
    })?;
    early?;
    let plan = plan::plan(&spec, inherited.resolv).map_err(|error| Failed {
        step: error.to_string(),
        source: io::Error::from_raw_os_error(libc::EINVAL),
    })?;
    let received = receive_fds(&inherited.monitor).map_err(|_| NotStarted::MonitorGone)?;
    let (groups, received): (Vec<_>, Vec<_>) =
        received.into_iter().partition(|(index, _)| *index == GROUP);
    for (_, group) in groups {
        File::from(group)
            .write_all(b"0")
            .map_err(failed("join a control group"))?;
    }
    let trees = match spec.profile {
        Profile::Plain => {
            plain::place(&spec)?;
            Vec::new()
        }
        Profile::Full => received,
        Profile::Rootless => {
            let trees = mounts::open_trees(&plan)?;
            base::assemble(Builder::UserNamespace)?;
            mounts::make_tops(libc::AT_FDCWD, &plan)?;
            // A user namespace may mount /proc only while it still sees another one.
            mounts::mount_proc(c"proc")?;
            base::finish()?;
            mounts::mount_kernel_files(Builder::UserNamespace)?;
            trees
        }
    };
    if spec.profile != Profile::Plain {
        mounts::mount_private(&spec.limits, &plan)?;
    }
    for (index, tree) in &trees {
        if let Some(attachment) = plan.attachments.get(*index) {
            mounts::place(attachment, tree).map_err(failed(format!(
                "bind {} at {}",
                attachment.source.display(),
                attachment.target.display()
            )))?;
        }
    }
    drop(trees);
    let outputs = [inherited.stdout.as_fd(), inherited.stderr.as_fd()];
    restrict_self(&spec, outputs, inherited.filter)?;
    let grace = Duration::from_millis(u64::from(spec.kill_grace_ms));
    start_program(inherited, &spec).map(|child| (child, grace))
}

fn receive_spec(monitor: &UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0_u8; 4];
    (&*monitor).read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > wire::SPEC_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0_u8; length];
    (&*monitor).read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Control groups to join, and the detached mounts with the number of their attachment in the plan.
fn receive_fds(monitor: &UnixStream) -> io::Result<Vec<(usize, OwnedFd)>> {
    let mut count = [0_u8; 4];
    (&*monitor).read_exact(&mut count)?;
    let count = usize::try_from(u32::from_le_bytes(count)).unwrap_or(usize::MAX);
    let mut trees = Vec::with_capacity(count.min(plan::BINDS_MAX + 8));
    let mut space = nix::cmsg_space!([i32; FDS_PER_MESSAGE]);
    while trees.len() < count {
        let mut numbers = [0_u8; FDS_PER_MESSAGE * 2];
        let mut parts = [IoSliceMut::new(&mut numbers)];
        let message = recvmsg::<()>(
            monitor.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut fds = Vec::with_capacity(FDS_PER_MESSAGE);
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = part {
                // SAFETY: the kernel just made these descriptors for us.
                fds.extend(
                    received
                        .into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        for (pair, fd) in numbers.chunks_exact(2).zip(fds) {
            trees.push((usize::from(u16::from_le_bytes([pair[0], pair[1]])), fd));
        }
    }
    Ok(trees)
}

/// Gives up everything the program must not have, in an order in which each step is still allowed.
pub(crate) fn restrict_self(
    spec: &ContainerSpec,
    outputs: [BorrowedFd<'_>; 2],
    filter: &[libc::sock_filter],
) -> Result<(), Failed> {
    let limits = &spec.limits;
    if limits.oom_score_adj != Limits::default().oom_score_adj || spec.profile != Profile::Full {
        set_oom_score(limits.oom_score_adj)?;
    }
    if !spec.host_name.is_empty() {
        nix::unistd::sethostname(&spec.host_name).map_err(failed("set the host name"))?;
    }
    sys::set_limit(libc::RLIMIT_CORE, 0).map_err(failed("limit core files"))?;
    sys::set_limit_within(libc::RLIMIT_NOFILE, limits.open_files)
        .map_err(failed("limit open files"))?;
    if limits.user_processes > 0 {
        sys::set_limit(libc::RLIMIT_NPROC, limits.user_processes)
            .map_err(failed("limit processes"))?;
    }
    for pipe in outputs {
        // So that the program can open /dev/stdout.
        nix::unistd::fchown(pipe, Some(spec.uid.into()), Some(spec.gid.into()))
            .map_err(failed("give the output pipes to the user"))?;
    }
    match spec.profile {
        Profile::Full => {
            sys::become_user(spec.uid, spec.gid, &spec.groups).map_err(failed("become the user"))?
        }
        // An ordinary user has none, and may not say that it shall stay so; no_new_privs does.
        Profile::Plain => {}
        Profile::Rootless => {
            for set in [
                caps::CapSet::Bounding,
                caps::CapSet::Ambient,
                caps::CapSet::Effective,
                caps::CapSet::Inheritable,
                caps::CapSet::Permitted,
            ] {
                caps::clear(None, set).map_err(|error| Failed {
                    step: format!("give up capabilities: {error}"),
                    source: io::Error::from_raw_os_error(libc::EPERM),
                })?;
            }
        }
    }
    sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(failed("hide PID 1"))?;
    let end = match spec.profile {
        Profile::Full | Profile::Rootless => libc::SIGKILL,
        // The kernel would end nobody but this process: it ends the others first.
        Profile::Plain => libc::SIGUSR1,
    };
    sys::prctl(libc::PR_SET_PDEATHSIG, u64::from(end.unsigned_abs()))
        .map_err(failed("end with the monitor"))?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o027));
    // Asks for no_new_privs, which becoming the user has set.
    sys::scope_abstract_sockets().map_err(failed("close others' abstract sockets"))?;
    sys::install_filter(filter).map_err(failed("install the seccomp filter"))
}

/// Waits for the word to go on, then starts the program.
fn start_program(inherited: &Inherited<'_>, spec: &ContainerSpec) -> Result<Pid, NotStarted> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(failed("open /dev/null"))?;
    let stdio = [
        null.as_raw_fd(),
        inherited.stdout.as_raw_fd(),
        inherited.stderr.as_raw_fd(),
    ];
    let program = Program::new(spec, stdio)?;
    let mut go = [0_u8; 1];
    match (&inherited.monitor).read_exact(&mut go) {
        Ok(()) if go == [GO] => {}
        Ok(()) | Err(_) => return Err(NotStarted::MonitorGone),
    }
    match program.start() {
        Ok(pid) => {
            let sent = (&inherited.monitor).write_all(&Event::Started.encode());
            sent.map(|()| pid).map_err(|_| NotStarted::MonitorGone)
        }
        Err(NotExecuted::NotFound) => Err(NotStarted::Because(Event::NotFound)),
        Err(NotExecuted::NotExecutable { errno }) => {
            Err(NotStarted::Because(Event::NotExecutable { errno }))
        }
        Err(NotExecuted::NoWorkDir { errno }) => {
            let source = io::Error::from_raw_os_error(errno);
            Err(failed(format!("enter {}", spec.work_dir.display()))(source).into())
        }
        Err(NotExecuted::NoProcess(source)) => {
            Err(failed("start the program's process")(source).into())
        }
    }
}

/// Reaps until the program has ended; passes TERM and QUIT on to its process group.
///
/// After a TERM what the program leaves behind has the grace time too: a shell that dies of it at once
/// must not take along the program that is putting its things in order.
fn reap(inherited: &Inherited<'_>, program: Pid, grace: Duration) -> Event {
    // Everything but the socket goes, above all the write ends of the log pipes; 0 to 2 are
    // /dev/null. It can only fail on a kernel without the call, which cannot have come so far.
    let socket = inherited.monitor.as_raw_fd().unsigned_abs();
    let _ = sys::close_between(3, socket.saturating_sub(1));
    let _ = sys::close_between(socket + 1, u32::MAX);
    let mut wanted = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGQUIT] {
        wanted.add(signal);
    }
    if inherited.profile == Profile::Plain {
        wanted.add(Signal::SIGUSR1);
    }
    let mut term_at: Option<Instant> = None;
    let mut ended: Option<i32> = None;
    loop {
        let until = match (ended, term_at) {
            (Some(_), Some(at)) => Some(at + grace),
            (Some(_) | None, _) => None,
        };
        let signal = sys::wait_signal(&wanted, until);
        if signal == Some(libc::SIGUSR1) {
            plain::kill_below();
            sys::leave(1);
        }
        if let Some(passed @ (libc::SIGTERM | libc::SIGQUIT)) = signal {
            // Ended already is fine.
            // SAFETY: the call has no pointers.
            let _ = unsafe { libc::kill(-program.as_raw(), passed) };
            if passed == libc::SIGTERM {
                term_at.get_or_insert_with(Instant::now);
            }
        }
        let (status, all_gone) = reap_ended(program);
        ended = ended.or(status);
        let Some(status) = ended else { continue };
        let in_grace = term_at.is_some_and(|at| at.elapsed() < grace);
        if all_gone || !in_grace {
            return Event::Ended { status };
        }
    }
}

/// Reaps all that have ended: the program's status if it was among them, and whether nobody is left.
fn reap_ended(program: Pid) -> (Option<i32>, bool) {
    let mut found = None;
    loop {
        let mut status = 0;
        // SAFETY: the status is a valid place to write to.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid == program.as_raw() {
            found = Some(status);
        }
        if pid <= 0 {
            return (found, pid < 0);
        }
    }
}

/// The signals that PID 1 and the monitor wait for.
pub(crate) const WAITED_FOR: [Signal; 5] = [
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGQUIT,
];

/// Blocks the signals that PID 1 and the monitor wait for; before any of them is forked.
pub(crate) fn block_signals() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    for signal in WAITED_FOR {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&signals), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_one_by_one() {
        let events = [
            Event::Started,
            Event::Failed {
                step: "mount /proc".into(),
                errno: 1,
            },
            Event::NotFound,
            Event::NotExecutable { errno: 13 },
            Event::Ended { status: 256 },
        ];
        let bytes: Vec<u8> = events.iter().flat_map(Event::encode).collect();
        let mut rest = bytes.as_slice();
        for event in events {
            let (decoded, length) = Event::decode(rest).unwrap();
            assert_eq!(decoded, event);
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        assert_eq!(Event::decode(&bytes[..11]), None);
    }
}
