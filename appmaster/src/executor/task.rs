//! One attempt of a task: a child process in a group of its own.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bobbin_proto::v1;
use bobbin_types::{CHUNK_BYTES, ExitStatus};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{HIDDEN_VARIABLES, message, result};
use crate::driver::{command, exit_status, start_failure};

/// After a task's end, for pipes that a process outside its group still holds.
const DRAIN: Duration = Duration::from_secs(1);
/// First read buffer, bytes; it grows with what a task really writes.
const BUFFER_BYTES: usize = 8 << 10;

/// Variable by which a process is known to be an attempt's, whatever group it moved to.
const MARK: &str = "BOBBIN_TASK_REF";

fn mark(task: &v1::TaskRef) -> String {
    format!("{}.{}", task.task_id, task.attempt)
}

/// Children that the runtime waits for; every other child is an orphan this process inherited.
pub(super) type Waited = Arc<Mutex<BTreeSet<i32>>>;

/// A task that was started, or could not be.
pub(super) struct RunningTask {
    task: v1::TaskRef,
    child: Result<Child, (ExitStatus, String)>,
    stdin: Vec<u8>,
    output_bytes_max: u64,
    waited: Waited,
    result_format: v1::ResultFormat,
}

/// Starts it now, so that the order of launches is the order of commands.
pub(super) fn start(
    task: v1::TaskRef,
    launch: v1::LaunchTask,
    output_bytes_max: u64,
    waited: &Waited,
) -> RunningTask {
    let result_format = launch.result_format();
    let child = match launch.argv.first() {
        Some(program) => spawn(program, &launch).map_err(|e| start_failure(program, &e)),
        None => Err((ExitStatus(126), "the task has no program".to_owned())),
    };
    if let Ok(child) = &child
        && let Some(group) = group_of(child)
    {
        lock(waited).insert(group.as_raw());
    }
    RunningTask {
        task,
        child,
        stdin: launch.stdin,
        output_bytes_max,
        waited: Arc::clone(waited),
        result_format,
    }
}

/// Without a pre-exec step and without a PATH of its own this is a posix_spawn, whose cost does not
/// depend on the executor's size.
fn spawn(program: &str, launch: &v1::LaunchTask) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut task = command(Path::new(program));
    task.args(&launch.argv[1..])
        .envs(&launch.environment)
        .process_group(0)
        .stdin(if launch.stdin.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(of) = &launch.task {
        task.env(MARK, mark(of));
    }
    for variable in HIDDEN_VARIABLES {
        task.env_remove(variable);
    }
    tokio::process::Command::from(task).spawn()
}

impl RunningTask {
    /// Until nothing of the task is left and its end is on its way to the master.
    pub(super) async fn run(
        self,
        outward: mpsc::Sender<v1::ExecutorMessage>,
        kill: CancellationToken,
    ) {
        let task = self.task;
        let (exit_status, problem, arrow) = match self.child {
            Err((status, words)) => (status, words, None),
            Ok(child) => {
                let started = v1::TaskStarted { task: Some(task) };
                let started = v1::executor_message::Message::TaskStarted(started);
                let _ = outward.send(message(started)).await;
                let (checked, check) = match self.result_format {
                    v1::ResultFormat::Bytes => (None, None),
                    v1::ResultFormat::ArrowIpcStream => {
                        let (checked, check) = result::start_check();
                        (Some(checked), Some(check))
                    }
                };
                let output = Output {
                    checked,
                    task,
                    outward: &outward,
                    group: group_of(&child),
                    left: AtomicU64::new(self.output_bytes_max),
                };
                let (status, problem) = attend(child, self.stdin, &output, &kill).await;
                end_strays(&task, output.group, &self.waited);
                // The check ends with what it is given.
                drop(output);
                let problem = problem.map(|p| match p {
                    Problem::Killed => "it was ended by the executor".to_owned(),
                    Problem::TooLong => format!(
                        "its output is longer than {} bytes (task.output-bytes-max)",
                        self.output_bytes_max
                    ),
                });
                let problem = problem.unwrap_or_default();
                match check {
                    // What a program writes that failed is not looked at.
                    Some(check) if status.is_success() && problem.is_empty() => {
                        let (arrow, problem) = result::outcome(check.await);
                        (status, problem, Some(arrow))
                    }
                    Some(_) | None => (status, problem, None),
                }
            }
        };
        let ended = v1::TaskEnded {
            task: Some(task),
            exit_status: exit_status.0,
            problem,
            arrow,
        };
        let ended = v1::executor_message::Message::TaskEnded(ended);
        // A broken stream has cancelled us, and the master counts the task as lost.
        let _ = outward.send(message(ended)).await;
    }
}

enum Problem {
    Killed,
    TooLong,
}

/// Where output goes and how much of it may still come.
struct Output<'a> {
    task: v1::TaskRef,
    outward: &'a mpsc::Sender<v1::ExecutorMessage>,
    group: Option<Pid>,
    left: AtomicU64,
    /// Where stdout goes too when it is to be an Arrow IPC stream.
    checked: Option<mpsc::Sender<Vec<u8>>>,
}

#[derive(Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

impl Output<'_> {
    /// Pumps one pipe to its end; false when there is too much of it.
    async fn pump(&self, pipe: Option<impl AsyncRead + Unpin>, which: Which) -> bool {
        let Some(mut pipe) = pipe else { return true };
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = match pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => return true,
                Ok(read) => read,
            };
            let bytes = u64::try_from(read).unwrap_or(u64::MAX);
            let left = self.left.load(Ordering::Relaxed).checked_sub(bytes);
            let Some(left) = left else {
                end_group(self.group);
                return false;
            };
            self.left.store(left, Ordering::Relaxed);
            let chunk = buffer[..read].to_vec();
            if let (Which::Stdout, Some(checked)) = (which, &self.checked) {
                // A check that has ended has seen enough.
                let _ = checked.send(chunk.clone()).await;
            }
            let (stdout, stderr) = match which {
                Which::Stdout => (chunk, Vec::new()),
                Which::Stderr => (Vec::new(), chunk),
            };
            let output = v1::TaskOutput {
                task: Some(self.task),
                stdout,
                stderr,
            };
            let output = v1::executor_message::Message::TaskOutput(output);
            // The bounded channel is the back pressure: a full one stops the task at its pipe.
            if self.outward.send(message(output)).await.is_err() {
                return true;
            }
            if read == buffer.len() && buffer.len() < CHUNK_BYTES {
                buffer.resize((buffer.len() * 4).min(CHUNK_BYTES), 0);
            }
        }
    }
}

async fn attend(
    mut child: Child,
    stdin: Vec<u8>,
    output: &Output<'_>,
    cancelled: &CancellationToken,
) -> (ExitStatus, Option<Problem>) {
    let group = output.group;
    let (input, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut input) = input {
            // A task that does not read its input is not wrong.
            let _ = input.write_all(&stdin).await;
        }
    };
    let mut problem = None;
    let mut status = None;
    {
        let pumps = async {
            let (_, out, err) = tokio::join!(
                feed,
                output.pump(stdout, Which::Stdout),
                output.pump(stderr, Which::Stderr)
            );
            out && err
        };
        tokio::pin!(pumps);
        let mut pumped = false;
        // A task ends when its process has ended and its pipes are empty.
        let drained = loop {
            tokio::select! {
                biased;
                () = cancelled.cancelled(), if problem.is_none() => {
                    problem = Some(Problem::Killed);
                    end_group(group);
                }
                whole = &mut pumps, if !pumped => {
                    pumped = true;
                    if !whole {
                        problem = Some(Problem::TooLong);
                    }
                    if status.is_some() {
                        break true;
                    }
                }
                waited = child.wait(), if status.is_none() => {
                    status = Some(waited.map_or(ExitStatus::ABORTED, exit_status));
                    // What it left in its group holds its pipes.
                    end_group(group);
                    if pumped {
                        break true;
                    }
                    break false;
                }
            }
        };
        if !drained {
            let rest = tokio::time::timeout(DRAIN, &mut pumps);
            tokio::select! {
                rest = rest => if rest == Ok(false) {
                    problem = Some(Problem::TooLong);
                },
                () = cancelled.cancelled() => problem = Some(Problem::Killed),
            }
        }
    }
    (status.unwrap_or(ExitStatus::ABORTED), problem)
}

fn end_group(group: Option<Pid>) {
    if let Some(group) = group {
        // Nobody left in it is the usual case.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// Ends processes that left the task's group: orphans become children of this process (it reaps
/// its descendants), and their environment still says whose they are. Reaps those that ended by
/// themselves.
fn end_strays(task: &v1::TaskRef, group: Option<Pid>, waited: &Waited) {
    let mut waited = lock(waited);
    if let Some(group) = group {
        waited.remove(&group.as_raw());
    }
    let own = nix::unistd::getpid();
    let Ok(children) = std::fs::read_to_string(format!("/proc/self/task/{own}/children")) else {
        return;
    };
    let mine = format!("{MARK}={}", mark(task));
    let pids = children.split_whitespace().filter_map(|p| p.parse().ok());
    for pid in pids.filter(|pid| !waited.contains(pid)) {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_mine = environment.split(|b| *b == 0).any(|v| v == mine.as_bytes());
        let pid = Pid::from_raw(pid);
        if is_mine {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        } else {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

fn group_of(child: &Child) -> Option<Pid> {
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    id.map(Pid::from_raw)
}

fn lock(waited: &Waited) -> MutexGuard<'_, BTreeSet<i32>> {
    // A set of numbers is whole whatever happened to who held the lock.
    waited.lock().unwrap_or_else(PoisonError::into_inner)
}
