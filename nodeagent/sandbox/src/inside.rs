//! PID 1 of a container: makes what the program sees, starts it, reaps, and tells the monitor.
//!
//! It is forked before its specification is known and prepares what every container has (`/proc`,
//! terminals), then waits. With the specification and the detached mounts it finishes the root,
//! becomes the user and starts the program as its child without copying memory.
//! It takes nothing from the program: its only input afterwards is a signal.

use std::ffi::{CStr, CString};
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::{Mode, SFlag, fstat, mknod};
use nix::unistd::Pid;

use crate::base::{self, Builder, Failed, failed};
use crate::plan::{self, Attachment, RootPlan};
use crate::spec::{ContainerSpec, Limits, Profile};
use crate::sys;
use crate::wire;

/// Descriptors that fit into one message. Source: SCM_MAX_FD, net/scm.h, is 253.
pub(crate) const FDS_PER_MESSAGE: usize = 128;
/// What the monitor sends when the program may start.
pub(crate) const GO: u8 = b'G';
/// Stack of the program's process until it executes the program.
const CHILD_STACK_BYTES: usize = 64 << 10;

/// Files of `/proc` that tell about the host or act on it.
const MASKED: [&CStr; 5] = [
    c"/proc/kcore",
    c"/proc/keys",
    c"/proc/sysrq-trigger",
    c"/proc/timer_list",
    c"/proc/kmsg",
];

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
    /// The namespace to start from; `None` in the rootless profile.
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
    let early = inherited.base.map_or(Ok(()), prepare_early);
    let monitor = &inherited.monitor;
    let event = match start(&inherited, early) {
        Ok(child) => reap(monitor.as_raw_fd(), child),
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
    mount_proc(c"/proc")?;
    mount_kernel_files(Builder::Root)?;
    set_oom_score(Limits::default().oom_score_adj)
}

fn mount_proc(to: &CStr) -> Result<(), Failed> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    sys::mount_new(c"proc", to, flags, c"").map_err(failed("mount /proc"))
}

/// What of `/proc` is closed, and the terminals, which belong to this container alone.
fn mount_kernel_files(builder: Builder) -> Result<(), Failed> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    sys::mount_flags(c"/proc/sys", c"/proc/sys", libc::MS_BIND)
        .map_err(failed("bind /proc/sys"))?;
    sys::mount_flags(
        c"none",
        c"/proc/sys",
        libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | flags,
    )
    .map_err(failed("make /proc/sys read-only"))?;
    for file in MASKED {
        match sys::mount_flags(c"/dev/null", file, libc::MS_BIND) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                return Err(failed(format!("mask {}", file.to_string_lossy()))(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let options = match builder {
        Builder::Root => c"newinstance,ptmxmode=0666,mode=0620,gid=5",
        Builder::UserNamespace => c"newinstance,ptmxmode=0666,mode=0620",
    };
    sys::mount_new(
        c"devpts",
        c"/dev/pts",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        options,
    )
    .map_err(failed("mount /dev/pts"))
}

fn set_oom_score(score: u32) -> Result<(), Failed> {
    std::fs::write("/proc/self/oom_score_adj", score.min(1000).to_string())
        .map_err(failed("set oom_score_adj"))
}

/// From the specification to the running program; returns its pid in the container.
fn start(inherited: &Inherited<'_>, early: Result<(), Failed>) -> Result<Pid, NotStarted> {
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
    let trees = match spec.profile {
        Profile::Full => receive_trees(&inherited.monitor).map_err(|_| NotStarted::MonitorGone)?,
        Profile::Rootless => {
            let trees = open_trees(&plan)?;
            base::assemble(Builder::UserNamespace)?;
            make_tops(libc::AT_FDCWD, &plan)?;
            // A user namespace may mount /proc only while it still sees another one.
            mount_proc(c"proc")?;
            base::finish()?;
            mount_kernel_files(Builder::UserNamespace)?;
            trees
        }
    };
    mount_private(&spec.limits, &plan)?;
    for (index, tree) in &trees {
        if let Some(attachment) = plan.attachments.get(*index) {
            place(attachment, tree).map_err(failed(format!(
                "bind {} at {}",
                attachment.source.display(),
                attachment.target.display()
            )))?;
        }
    }
    drop(trees);
    restrict_self(inherited, &spec)?;
    start_program(inherited, &spec)
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

/// The detached mounts, each with the number of its attachment in the plan.
fn receive_trees(monitor: &UnixStream) -> io::Result<Vec<(usize, OwnedFd)>> {
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

/// Opens every source of the plan as a detached mount with its restrictions on.
///
/// No symbolic link is followed. Called by whoever sees the host's tree with the needed right: the
/// monitor, or PID 1 itself in its user namespace.
pub(crate) fn open_trees(plan: &RootPlan) -> Result<Vec<(usize, OwnedFd)>, Failed> {
    let mut trees = Vec::with_capacity(plan.attachments.len());
    for (index, attachment) in plan.attachments.iter().enumerate() {
        match open_source(attachment) {
            Ok(tree) => trees.push((index, tree)),
            Err(error) if attachment.optional && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                let step = match source.raw_os_error() {
                    Some(libc::ELOOP) => "open without following a symbolic link",
                    _ => "open",
                };
                return Err(Failed {
                    step: format!("{step} {}", attachment.source.display()),
                    source,
                });
            }
        }
    }
    Ok(trees)
}

fn open_source(attachment: &Attachment) -> io::Result<OwnedFd> {
    let path = CString::new(attachment.source.as_os_str().as_bytes())?;
    let source = sys::open_strict(libc::AT_FDCWD, &path, libc::O_PATH, 0)?;
    let tree = sys::open_tree(source.as_raw_fd(), c"", attachment.depth)?;
    let mut flags = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    if !attachment.writable {
        flags |= sys::MOUNT_ATTR_RDONLY;
    }
    sys::restrict(tree.as_fd(), flags)?;
    Ok(tree)
}

/// Makes the folders of the plan's first components in the base that all containers share.
pub(crate) fn make_tops(base: i32, plan: &RootPlan) -> Result<(), Failed> {
    let mut last: Option<&std::ffi::OsStr> = None;
    for attachment in &plan.attachments {
        let Some(top) = attachment.target.components().nth(1) else {
            continue;
        };
        let top = top.as_os_str();
        if last == Some(top) || top == "tmp" || top == "run" {
            continue;
        }
        last = Some(top);
        if plan::SYSTEM_FOLDERS.iter().any(|folder| top == *folder) {
            continue;
        }
        // SAFETY: the descriptor is either a valid folder or AT_FDCWD and outlives the call.
        let base = unsafe { BorrowedFd::borrow_raw(base) };
        match nix::sys::stat::mkdirat(base, Path::new(top), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => {
                return Err(failed(format!("make /{}", top.to_string_lossy()))(error));
            }
        }
    }
    Ok(())
}

/// The file systems in memory that only this container has.
fn mount_private(limits: &Limits, plan: &RootPlan) -> Result<(), Failed> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    let size = limits.tmp_mib.max(1);
    let options = CString::new(format!("mode=1777,size={size}m")).unwrap_or_default();
    sys::mount_new(c"tmpfs", c"/tmp", flags, &options).map_err(failed("mount /tmp"))?;
    sys::mount_new(c"tmpfs", c"/dev/shm", flags, &options).map_err(failed("mount /dev/shm"))?;
    for top in &plan.tops {
        sys::mount_new(c"tmpfs", top, flags, c"mode=0755,size=1m")
            .map_err(failed(format!("mount {}", top.to_string_lossy())))?;
    }
    Ok(())
}

/// Attaches one tree at its target.
fn place(attachment: &Attachment, tree: &OwnedFd) -> io::Result<()> {
    let target = CString::new(attachment.target.as_os_str().as_bytes())?;
    for parent in &attachment.parents {
        match nix::unistd::mkdir(parent.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if attachment.fresh {
        make_point(&target, tree)?;
        return sys::attach(tree.as_fd(), &target);
    }
    let point = match sys::open_strict(libc::AT_FDCWD, &target, libc::O_PATH, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_point_inside(attachment, tree)?;
            sys::open_strict(libc::AT_FDCWD, &target, libc::O_PATH, 0)?
        }
        result => result?,
    };
    sys::attach_at(tree.as_fd(), point.as_fd())
}

/// A mount point of the tree's own kind in a tmpfs that nobody else has touched.
fn make_point(target: &CStr, tree: &OwnedFd) -> io::Result<()> {
    if is_folder(tree)? {
        nix::unistd::mkdir(target, Mode::from_bits_truncate(0o755))?;
    } else {
        mknod(target, SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)?;
    }
    Ok(())
}

/// The same inside another bind, where a user may have put links: only the last component is made,
/// in a parent that was opened without following any.
fn make_point_inside(attachment: &Attachment, tree: &OwnedFd) -> io::Result<()> {
    let (Some(parent), Some(name)) = (attachment.target.parent(), attachment.target.file_name())
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = CString::new(parent.as_os_str().as_bytes())?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let parent = sys::open_strict(libc::AT_FDCWD, &parent, flags, 0)?;
    let mode = Mode::from_bits_truncate(0o755);
    if is_folder(tree)? {
        nix::sys::stat::mkdirat(parent.as_fd(), Path::new(name), mode)?;
    } else {
        let mode = Mode::from_bits_truncate(0o644);
        nix::sys::stat::mknodat(parent.as_fd(), Path::new(name), SFlag::S_IFREG, mode, 0)?;
    }
    Ok(())
}

fn is_folder(tree: &OwnedFd) -> io::Result<bool> {
    Ok(fstat(tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Gives up everything the program must not have, in an order in which each step is still allowed.
fn restrict_self(inherited: &Inherited<'_>, spec: &ContainerSpec) -> Result<(), Failed> {
    let limits = &spec.limits;
    if limits.oom_score_adj != Limits::default().oom_score_adj || spec.profile == Profile::Rootless
    {
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
    for pipe in [&inherited.stdout, &inherited.stderr] {
        // So that the program can open /dev/stdout.
        nix::unistd::fchown(pipe, Some(spec.uid.into()), Some(spec.gid.into()))
            .map_err(failed("give the output pipes to the user"))?;
    }
    match spec.profile {
        Profile::Full => {
            sys::become_user(spec.uid, spec.gid, &spec.groups).map_err(failed("become the user"))?
        }
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
    let kill = u64::from(libc::SIGKILL.unsigned_abs());
    sys::prctl(libc::PR_SET_PDEATHSIG, kill).map_err(failed("end with the monitor"))?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o027));
    sys::install_filter(inherited.filter).map_err(failed("install the seccomp filter"))
}

/// What the program's process needs between its birth and its execution; nothing is allocated then.
struct Child {
    /// Places to look for the program, in order.
    candidates: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    work_dir: CString,
    stdin: i32,
    stdout: i32,
    stderr: i32,
    no_signals: libc::sigset_t,
    errno: AtomicI32,
    /// Whether it was the work folder that could not be entered.
    no_work_dir: AtomicI32,
}

fn start_program(inherited: &Inherited<'_>, spec: &ContainerSpec) -> Result<Pid, NotStarted> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(failed("open /dev/null"))?;
    let argv = c_strings(spec.argv.iter().cloned())?;
    let environment = c_strings(
        spec.environment
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    )?;
    let work_dir = CString::new(spec.work_dir.as_os_str().as_bytes()).unwrap_or_default();
    let child = Child {
        candidates: candidates(spec)?,
        argv: pointers(&argv),
        envp: pointers(&environment),
        work_dir,
        stdin: null.as_raw_fd(),
        stdout: inherited.stdout.as_raw_fd(),
        stderr: inherited.stderr.as_raw_fd(),
        no_signals: *SigSet::empty().as_ref(),
        errno: AtomicI32::new(0),
        no_work_dir: AtomicI32::new(0),
    };
    let mut go = [0_u8; 1];
    match (&inherited.monitor).read_exact(&mut go) {
        Ok(()) if go == [GO] => {}
        Ok(()) | Err(_) => return Err(NotStarted::MonitorGone),
    }
    let pid = clone_program(&child).map_err(failed("start the program's process"))?;
    let errno = child.errno.load(Ordering::Relaxed);
    if errno == 0 {
        let sent = (&inherited.monitor).write_all(&Event::Started.encode());
        return sent.map(|()| pid).map_err(|_| NotStarted::MonitorGone);
    }
    if child.no_work_dir.load(Ordering::Relaxed) != 0 {
        let source = io::Error::from_raw_os_error(errno);
        return Err(failed(format!("enter {}", spec.work_dir.display()))(source).into());
    }
    Err(NotStarted::Because(why_not_executed(&child, errno)))
}

fn c_strings(texts: impl Iterator<Item = String>) -> Result<Vec<CString>, Failed> {
    texts
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|_| Failed {
            step: "arguments and environment hold a NUL byte".to_owned(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
        })
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Where the program may be: its path, or its name in each folder of the environment's PATH.
fn candidates(spec: &ContainerSpec) -> Result<Vec<CString>, Failed> {
    let program = spec.argv.first().cloned().unwrap_or_default();
    if program.contains('/') {
        return c_strings([program].into_iter());
    }
    let path = spec
        .environment
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH");
    let path = path.map_or("/usr/local/bin:/usr/bin:/bin", |(_, value)| value.as_str());
    c_strings(path.split(':').map(|folder| {
        if folder.is_empty() {
            format!("./{program}")
        } else {
            format!("{folder}/{program}")
        }
    }))
}

/// Starts the program's process on this memory and waits until it has executed or ended.
fn clone_program(child: &Child) -> io::Result<Pid> {
    let mut stack = vec![0_u8; CHILD_STACK_BYTES];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack outlives the child's use of it, since CLONE_VFORK holds this process until
    // the child has executed or ended; its top is 16-byte aligned by the mask. `execute` only makes
    // system calls on memory that `child` keeps alive.
    let pid = unsafe {
        let top = top.sub(top.addr() % 16);
        libc::clone(
            execute,
            top.cast(),
            flags,
            ptr::from_ref(child).cast_mut().cast(),
        )
    };
    if pid < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(Pid::from_raw(pid))
    }
}

/// Runs in the program's process. Only system calls; no allocation, no unwinding.
extern "C" fn execute(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `clone_program` passes a valid `Child` that outlives this function; every pointer in
    // it is NUL-terminated or a NULL-terminated array.
    unsafe {
        let child = &*argument.cast::<Child>();
        libc::setsid();
        libc::dup2(child.stdin, 0);
        libc::dup2(child.stdout, 1);
        libc::dup2(child.stderr, 2);
        // Everything else is close-on-exec already; this holds even if one was forgotten.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 4_u32);
        libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const child.no_signals,
            ptr::null_mut(),
        );
        if libc::chdir(child.work_dir.as_ptr()) != 0 {
            child
                .errno
                .store(*libc::__errno_location(), Ordering::Relaxed);
            child.no_work_dir.store(1, Ordering::Relaxed);
            libc::_exit(127);
        }
        let mut worst = libc::ENOENT;
        for candidate in &child.candidates {
            libc::execve(candidate.as_ptr(), child.argv.as_ptr(), child.envp.as_ptr());
            let errno = *libc::__errno_location();
            match errno {
                libc::ENOENT | libc::ENOTDIR => {}
                // One that may not be executed here may be found further on, as in a shell.
                libc::EACCES => worst = errno,
                _ => {
                    worst = errno;
                    break;
                }
            }
        }
        child.errno.store(worst, Ordering::Relaxed);
        libc::_exit(127)
    }
}

/// Tells "not there" from "there, but its interpreter is not".
fn why_not_executed(child: &Child, errno: i32) -> Event {
    let there = child.candidates.iter().any(|candidate| {
        // SAFETY: the path is NUL-terminated.
        unsafe { libc::access(candidate.as_ptr(), libc::F_OK) == 0 }
    });
    if errno == libc::ENOENT && !there {
        Event::NotFound
    } else {
        Event::NotExecutable { errno }
    }
}

/// Reaps until the program has ended; passes TERM on to its process group.
fn reap(socket: i32, program: Pid) -> Event {
    // Everything but the socket goes, above all the write ends of the log pipes; 0 to 2 are
    // /dev/null. It can only fail on a kernel without the call, which cannot have come so far.
    let socket = socket.unsigned_abs();
    let _ = sys::close_between(3, socket.saturating_sub(1));
    let _ = sys::close_between(socket + 1, u32::MAX);
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    wanted.add(Signal::SIGTERM);
    loop {
        if wanted.wait() == Ok(Signal::SIGTERM) {
            // Ended already is fine.
            let _ = kill(Pid::from_raw(-program.as_raw()), Signal::SIGTERM);
        }
        loop {
            let mut status = 0;
            // SAFETY: the status is a valid place to write to.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid == program.as_raw() {
                return Event::Ended { status };
            }
            if pid <= 0 {
                break;
            }
        }
    }
}

/// Blocks the signals that PID 1 and the monitor wait for; before any of them is forked.
pub(crate) fn block_signals() -> nix::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGUSR1] {
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

    #[test]
    fn a_bare_name_is_looked_up_in_the_environments_path() {
        let mut spec = plan::tests::spec_in(Path::new("/var/b"));
        spec.environment = vec![("PATH".into(), "/a::/b".into())];
        let found = candidates(&spec).unwrap();
        assert_eq!(
            found,
            [
                c"/a/true".to_owned(),
                c"./true".to_owned(),
                c"/b/true".to_owned()
            ]
        );
        spec.argv = vec!["./x".into()];
        assert_eq!(candidates(&spec).unwrap(), [c"./x".to_owned()]);
    }
}
