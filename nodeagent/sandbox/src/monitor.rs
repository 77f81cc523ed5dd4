//! The monitor: a container's parent outside its namespaces, from before its birth to its exit file.
//!
//! Life: born as a spare with PID 1 already waiting; takes one launch from the shared control
//! socket; sets the container up together with PID 1; answers the agent; pumps output, watches
//! memory and signals; writes the exit file; ends.
//! SIGTERM asks for TERM, grace, KILL; SIGUSR1 for KILL; SIGUSR2 for TERM alone; SIGQUIT for QUIT, upon
//! which a JVM prints its threads. Killing the monitor itself makes the kernel
//! kill PID 1, and with it the container.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::MsgFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::base::{Failed, failed};
use crate::error::LaunchError;
use crate::inside::{self, Event};
use crate::memory::{self, Watch};
use crate::plain;
use crate::pump::Pump;
use crate::record::{EXIT_FILE, ExitRecord, START_FILE, StartRecord, changed_memory};
use crate::spare::First;
use crate::spec::ContainerSpec;
use crate::sys;

/// Time between two measurements of a container that the kernel does not limit.
const SAMPLE_UNLIMITED: Duration = Duration::from_millis(150);
/// The same where it does; only to have a recent list of processes for the post mortem.
const SAMPLE_LIMITED: Duration = Duration::from_millis(1000);

/// Where the records are written before they get their names. Files that are there already are
/// written anew: an agent may have left them so that none need be made.
pub const START_TEMPORARY: &str = "start.json.tmp";
/// As [`START_TEMPORARY`].
pub const EXIT_TEMPORARY: &str = "exit.json.tmp";
/// Room kept for it on the disk.
const EXIT_RESERVED_BYTES: i64 = 4096;

/// What a set-up container consists of.
pub(crate) struct Parts {
    pub(crate) spec: ContainerSpec,
    pub(crate) first: First,
    pub(crate) pump: Pump,
    pub(crate) signals: SignalFd,
    pub(crate) private_dir: File,
    pub(crate) watch: Option<Watch>,
    /// Of this process.
    pub(crate) start_ticks: u64,
}

/// A container being watched.
pub(crate) struct Monitor {
    spec: ContainerSpec,
    first: First,
    pump: Pump,
    signals: SignalFd,
    private_dir: File,
    /// Made and not yet written.
    exit_file: Option<File>,
    watch: Option<Watch>,
    /// Bytes that have come from PID 1 and are not yet a whole event.
    received: Vec<u8>,
    /// The start file is ours.
    announced: bool,
    /// The program has been executed.
    started: bool,
    /// PID 1 says no more.
    socket_ended: bool,
    /// Of this process, for the agent.
    start_ticks: u64,
    /// When KILL follows TERM.
    kill_at: Option<Instant>,
    sample_at: Option<Instant>,
    last_sample: Vec<memory::Process>,
    /// Words about memory, when it was the reason of the end.
    over_memory: Option<String>,
    program_status: Option<i32>,
    first_status: Option<WaitStatus>,
}

/// Makes a file, or opens the one that is there with what is in it.
fn create(dir: &File, name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_NOFOLLOW;
    sys::open_strict(dir.as_raw_fd(), &name, flags, 0o600).map(File::from)
}

/// Writes the whole content. An older one is not cut to nothing first: at the close of such a file
/// ext4 starts to write to the disk at once (`auto_da_alloc`).
fn write_whole(file: &mut File, content: &str) -> io::Result<()> {
    file.write_all(content.as_bytes())?;
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    Ok(())
}

/// Puts a written file in its place, whole or not at all.
fn rename(dir: &File, from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (CString::new(from)?, CString::new(to)?);
    nix::fcntl::renameat(dir, from.as_c_str(), dir, to.as_c_str())?;
    Ok(())
}

impl Monitor {
    pub(crate) fn new(parts: Parts) -> Monitor {
        let Parts {
            spec,
            first,
            pump,
            signals,
            private_dir,
            watch,
            start_ticks,
        } = parts;
        Monitor {
            spec,
            first,
            pump,
            signals,
            private_dir,
            watch,
            start_ticks,
            exit_file: None,
            received: Vec::new(),
            announced: false,
            started: false,
            socket_ended: false,
            kill_at: None,
            sample_at: None,
            last_sample: Vec::new(),
            over_memory: None,
            program_status: None,
            first_status: None,
        }
    }

    /// Leaves word of itself, then lets PID 1 execute the program.
    pub(crate) fn announce(&mut self) -> Result<(), Failed> {
        let id = &self.spec.container_id;
        let suffix = &id.as_bytes()[id.len().saturating_sub(3)..];
        let name = [b"bobbin-init:", suffix].concat();
        sys::set_name(&CString::new(name).unwrap_or_default());
        let record = StartRecord {
            container_id: id.clone(),
            monitor_pid: nix::unistd::getpid().as_raw(),
            monitor_start_ticks: self.start_ticks,
            cgroup_slot: self.spec.cgroups.as_ref().map(|lease| lease.slot),
        };
        self.write_start(&record)
            .map_err(failed("write the start file"))?;
        self.announced = true;
        match (&self.first.socket).write_all(&[inside::GO]) {
            // It has ended, and said why: that is read next.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            result => result.map_err(failed("let PID 1 go on"))?,
        }
        let period = if self.watch.is_some() {
            SAMPLE_LIMITED
        } else {
            SAMPLE_UNLIMITED
        };
        self.sample_at = Some(Instant::now() + period);
        Ok(())
    }

    /// Whole, and only if there is none: an agent that came back and found no start file may have
    /// forbidden the start by making one (`forbid_start`).
    fn write_start(&self, record: &StartRecord) -> io::Result<()> {
        let mut file = create(&self.private_dir, START_TEMPORARY)?;
        write_whole(&mut file, &record.to_json())?;
        let (from, to) = (CString::new(START_TEMPORARY)?, CString::new(START_FILE)?);
        let only_new = nix::fcntl::RenameFlags::RENAME_NOREPLACE;
        let dir = &self.private_dir;
        nix::fcntl::renameat2(dir, from.as_c_str(), dir, to.as_c_str(), only_new)?;
        Ok(())
    }

    /// Waits until the program runs or cannot; its output is pumped meanwhile.
    pub(crate) fn wait_started(&mut self) -> Result<u64, LaunchError> {
        loop {
            match self.next_event() {
                Some(Event::Started) => {
                    self.started = true;
                    return Ok(self.start_ticks);
                }
                Some(Event::Failed { step, errno }) => {
                    return Err(LaunchError::Setup {
                        step,
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
                Some(Event::NotFound) => {
                    return Err(LaunchError::NotFound {
                        program: self.program(),
                    });
                }
                Some(Event::NotExecutable { errno }) => {
                    return Err(LaunchError::NotExecutable {
                        program: self.program(),
                        source: io::Error::from_raw_os_error(errno),
                    });
                }
                Some(Event::Ended { .. }) => {}
                None if self.first_status.is_some() => return Err(self.ended_too_early()),
                None => self.turn(),
            }
        }
    }

    fn program(&self) -> String {
        self.spec.argv.first().cloned().unwrap_or_default()
    }

    fn ended_too_early(&self) -> LaunchError {
        let step = match &self.over_memory {
            Some(words) => format!("the program does not fit into its memory: {words}"),
            None => "PID 1 ended before the program could start".to_owned(),
        };
        LaunchError::Setup {
            step,
            source: io::Error::from_raw_os_error(libc::ECHILD),
        }
    }

    /// Undoes a launch: nothing of the container is left.
    pub(crate) fn give_up(&mut self) {
        self.first.kill();
        if self.first_status.is_none() {
            self.first_status = waitpid(self.first.pid, None).ok();
        }
        self.end_orphans();
        if !self.announced {
            return;
        }
        // Without it the container was never there.
        let _ = nix::unistd::unlinkat(
            &self.private_dir,
            START_FILE,
            nix::unistd::UnlinkatFlags::NoRemoveDir,
        );
    }

    pub(crate) fn watch_until_end(&mut self) {
        while self.first_status.is_none() {
            self.turn();
        }
        self.end_orphans();
        self.pump.drain();
        self.take_events();
        while let Some(event) = self.next_event() {
            if let Event::Ended { status } = event {
                self.program_status = Some(status);
            }
        }
    }

    /// Without a pid namespace PID 1's end is nobody else's.
    fn end_orphans(&self) {
        if !self.first.has_namespace {
            plain::kill_below();
            plain::reap_orphans(self.first.pid);
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        let (event, length) = Event::decode(&self.received)?;
        self.received.drain(..length);
        Some(event)
    }

    /// Waits for one thing to happen and handles all that has.
    fn turn(&mut self) {
        const PIPES: [u8; 2] = [0, 1];
        let mut what = Vec::with_capacity(5);
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        what.push(Source::Signals);
        for (index, pipe) in PIPES.into_iter().zip(self.pump.pipes()) {
            if let Some(pipe) = pipe {
                fds.push(PollFd::new(pipe, PollFlags::POLLIN));
                what.push(Source::Pipe(index));
            }
        }
        // Once the program runs, PID 1 has only its end to tell, and its own end says so too: what it
        // has sent waits in the socket, and nobody is woken for it.
        if !self.started && !self.socket_ended {
            fds.push(PollFd::new(self.first.socket.as_fd(), PollFlags::POLLIN));
            what.push(Source::First);
        }
        if let (Some(watch), None) = (&self.watch, &self.over_memory) {
            let flags = match watch {
                Watch::V1 { .. } => PollFlags::POLLIN,
                Watch::V2 { .. } => PollFlags::POLLPRI,
            };
            fds.push(PollFd::new(watch.fd(), flags));
            what.push(Source::Memory);
        }
        let count = poll(&mut fds, self.timeout());
        let ready: Vec<Source> = match count {
            Ok(_) => fds
                .iter()
                .zip(&what)
                .filter(|(fd, _)| fd.revents().is_some_and(|revents| !revents.is_empty()))
                .map(|(_, source)| *source)
                .collect(),
            Err(_) => Vec::new(),
        };
        drop(fds);
        for source in ready {
            match source {
                Source::Signals => self.take_signals(),
                Source::Pipe(index) => {
                    self.pump.pump(usize::from(index));
                }
                Source::First => self.take_events(),
                Source::Memory => self.memory_event(),
            }
        }
        self.deadlines();
    }

    fn timeout(&self) -> PollTimeout {
        let next = [self.kill_at, self.sample_at].into_iter().flatten().min();
        next.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up, so that the deadline has passed when it wakes.
            let ms = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            PollTimeout::from(ms)
        })
    }

    fn deadlines(&mut self) {
        let now = Instant::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.first.kill();
        }
        if self.sample_at.is_some_and(|at| at <= now) {
            self.sample_at = None;
            self.sample();
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(information)) = self.signals.read_signal() {
            match Signal::try_from(i32::try_from(information.ssi_signo).unwrap_or(0)) {
                Ok(Signal::SIGTERM) => self.stop(),
                Ok(Signal::SIGUSR1) => self.first.kill(),
                // Ended already is fine.
                Ok(Signal::SIGUSR2) => drop(kill(self.first.pid, Signal::SIGTERM)),
                Ok(Signal::SIGQUIT) => drop(kill(self.first.pid, Signal::SIGQUIT)),
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// TERM to the program's group, KILL to all after the grace time. Once: the time runs already.
    fn stop(&mut self) {
        if self.kill_at.is_some() {
            return;
        }
        let _ = kill(self.first.pid, Signal::SIGTERM);
        let grace = Duration::from_millis(u64::from(self.spec.kill_grace_ms));
        self.kill_at = Some(Instant::now() + grace);
    }

    fn reap(&mut self) {
        match waitpid(self.first.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => {}
            Ok(status) => self.first_status = Some(status),
        }
    }

    fn take_events(&mut self) {
        let mut bytes = [0_u8; 2048];
        let result = nix::sys::socket::recv(
            self.first.socket.as_raw_fd(),
            &mut bytes,
            MsgFlags::MSG_DONTWAIT,
        );
        match result {
            Ok(0) | Err(nix::Error::ECONNRESET) => self.socket_ended = true,
            Ok(count) => self.received.extend_from_slice(&bytes[..count]),
            Err(_) => {}
        }
    }

    /// What it was launched with, unless the agent has changed it since.
    fn limit_bytes(&self) -> u64 {
        changed_memory(&self.private_dir)
            .unwrap_or(self.spec.memory_mib)
            .saturating_mul(1 << 20)
    }

    /// The group has no memory left: write down who used it, then end the container.
    fn memory_event(&mut self) {
        let Some(watch) = self.watch.as_mut() else {
            return;
        };
        if !watch.is_short() {
            return;
        }
        let processes = memory::sample(&watch.pids());
        let processes = if processes.is_empty() {
            &self.last_sample
        } else {
            &processes
        };
        // The kernel frees memory of what it kills before we look; the limit is what was reached.
        let usage = watch.usage_bytes().unwrap_or(0).max(self.limit_bytes());
        let id = &self.spec.container_id;
        let words = memory::post_mortem(
            id,
            usage,
            self.limit_bytes(),
            &without_first(processes, &self.first),
        );
        self.over_memory = Some(words);
        self.first.kill();
    }

    /// Without a limit by the kernel the monitor measures; with one it keeps a recent list.
    fn sample(&mut self) {
        match &self.watch {
            Some(Watch::V1 { .. }) => return,
            Some(watch @ Watch::V2 { .. }) => {
                self.last_sample = memory::sample(&watch.pids());
                self.sample_at = Some(Instant::now() + SAMPLE_LIMITED);
                return;
            }
            None => {}
        }
        let processes = memory::sample(&memory::tree(self.first.pid.as_raw()));
        let used: u64 = processes.iter().map(|process| process.rss_bytes).sum();
        if used > self.limit_bytes() && self.over_memory.is_none() {
            let id = &self.spec.container_id;
            let listed = without_first(&processes, &self.first);
            self.over_memory = Some(memory::post_mortem(id, used, self.limit_bytes(), &listed));
            self.first.kill();
        }
        self.sample_at = Some(Instant::now() + SAMPLE_UNLIMITED);
    }

    /// Makes the exit file's place while the program runs: its end is told sooner, and a disk that
    /// fills up meanwhile cannot take it away.
    pub(crate) fn reserve_exit(&mut self) {
        let Ok(file) = create(&self.private_dir, EXIT_TEMPORARY) else {
            return;
        };
        let keep_size = nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // Not every file system can; then the block is taken at the end.
        let _ = nix::fcntl::fallocate(&file, keep_size, 0, EXIT_RESERVED_BYTES);
        self.exit_file = Some(file);
    }

    /// The record of the end. Nothing of the container lives any more when it is written.
    ///
    /// # Errors
    /// A full disk: the agent finds no record and says so. Trying for ever would keep a dead
    /// container on the books.
    pub(crate) fn write_exit(&mut self) -> io::Result<()> {
        let killed = self
            .program_status
            .is_none_or(|status| libc::WIFSIGNALED(status));
        let by_kernel = killed
            && self.over_memory.is_none()
            && self.watch.as_ref().is_some_and(Watch::has_killed);
        if by_kernel {
            let id = &self.spec.container_id;
            let listed = without_first(&self.last_sample, &self.first);
            let limit = self.limit_bytes();
            self.over_memory = Some(memory::post_mortem(id, limit, limit, &listed));
        }
        let mut record = exit_record(self.over_memory.take(), self.program_status);
        if let Some(words) = self.pump.lost_words() {
            let gap = if record.diagnostics.is_empty() {
                ""
            } else {
                "\n"
            };
            record.diagnostics = format!("{}{gap}{words}", record.diagnostics);
        }
        let mut file = match self.exit_file.take() {
            Some(file) => file,
            None => create(&self.private_dir, EXIT_TEMPORARY)?,
        };
        write_whole(&mut file, &record.to_json())?;
        rename(&self.private_dir, EXIT_TEMPORARY, EXIT_FILE)
    }
}

#[derive(Clone, Copy)]
enum Source {
    Signals,
    Pipe(u8),
    First,
    Memory,
}

fn without_first(processes: &[memory::Process], first: &First) -> Vec<memory::Process> {
    let own = first.pid.as_raw();
    processes
        .iter()
        .filter(|process| process.pid != own)
        .cloned()
        .collect()
}

fn exit_record(over_memory: Option<String>, program_status: Option<i32>) -> ExitRecord {
    let ended_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0);
    if let Some(diagnostics) = over_memory {
        let exit_status = bobbin_types::ExitStatus::KILLED_EXCEEDED_PMEM.0;
        return ExitRecord {
            exit_status,
            signal: Some(libc::SIGKILL),
            diagnostics,
            ended_ms,
        };
    }
    // Without a status PID 1 was killed, and the program with it.
    let status = program_status.unwrap_or(libc::SIGKILL);
    if libc::WIFEXITED(status) {
        let exit_status = libc::WEXITSTATUS(status);
        return ExitRecord {
            exit_status,
            signal: None,
            diagnostics: String::new(),
            ended_ms,
        };
    }
    let signal = libc::WTERMSIG(status);
    let exit_status = bobbin_types::ExitStatus::from_signal(signal).0;
    ExitRecord {
        exit_status,
        signal: Some(signal),
        diagnostics: String::new(),
        ended_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn how_ends_are_recorded() {
        let record = exit_record(None, Some(7 << 8));
        assert_eq!((record.exit_status, record.signal), (7, None));
        let record = exit_record(None, Some(libc::SIGSEGV | 0x80));
        assert_eq!(
            (record.exit_status, record.signal),
            (139, Some(libc::SIGSEGV))
        );
        let record = exit_record(None, None);
        assert_eq!((record.exit_status, record.signal), (137, Some(9)));
        let record = exit_record(Some("words".into()), Some(0));
        assert_eq!(
            (record.exit_status, record.diagnostics.as_str()),
            (-104, "words")
        );
    }

    #[test]
    fn nothing_of_an_older_record_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let folder = File::open(dir.path()).unwrap();
        for content in ["a long record", "short", "as long again"] {
            let mut file = create(&folder, EXIT_TEMPORARY).unwrap();
            write_whole(&mut file, content).unwrap();
            let read = fs::read_to_string(dir.path().join(EXIT_TEMPORARY)).unwrap();
            assert_eq!(read, content);
        }
    }

    #[test]
    fn a_record_gets_its_name_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = File::open(dir.path()).unwrap();
        create(&folder, EXIT_TEMPORARY)
            .unwrap()
            .write_all(b"text")
            .unwrap();
        assert!(!dir.path().join(EXIT_FILE).exists());
        rename(&folder, EXIT_TEMPORARY, EXIT_FILE).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join(EXIT_FILE)).unwrap(),
            "text"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
