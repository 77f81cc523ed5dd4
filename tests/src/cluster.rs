//! A whole cluster of real daemons in a temporary folder, driven through the command line.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::{leftovers, wait_for};

/// A finished command: what it printed and how it ended.
#[derive(Clone, Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Running commands to their end.
pub trait RunExt {
    /// Runs it with no standard input and collects everything.
    fn run(&mut self) -> Run;
}

impl RunExt for Command {
    fn run(&mut self) -> Run {
        let output = self
            .stdin(Stdio::null())
            .output()
            .expect("the program can be started");
        Run::from(output)
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        Run {
            // As a shell tells a signal.
            code: output.status.code().unwrap_or_else(|| {
                use std::os::unix::process::ExitStatusExt;
                128 + output.status.signal().unwrap_or(0)
            }),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Run {
    /// Panics with everything printed unless the command ended with `code`.
    #[track_caller]
    #[must_use]
    pub fn expect_code(self, code: i32) -> Run {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| unreachable_output(&format!("no JSON ({e})"), self))
    }
}

#[track_caller]
fn unreachable_output(what: &str, run: &Run) -> ! {
    unreachable!("{what}; stdout:\n{}\nstderr:\n{}", run.stdout, run.stderr)
}

/// A program of this workspace, beside the test programs.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let folder = test
        .parent()
        .and_then(Path::parent)
        .expect("tests are in target/<profile>/deps");
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --workspace` first",
        path.display()
    );
    path
}

/// `bobbin` with nothing of this process's cluster settings.
#[expect(
    clippy::disallowed_methods,
    reason = "the harness runs the programs under test"
)]
#[must_use]
pub fn bobbin() -> Command {
    let mut command = Command::new(program("bobbin"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("BOBBIN_")) {
            command.env_remove(name);
        }
    }
    command
}

/// A running cluster; ended, and checked for leftovers, when dropped.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
}

impl Cluster {
    /// `bobbin up --nodes N --detach` in a new folder.
    #[track_caller]
    #[must_use]
    pub fn up(nodes: u32) -> Cluster {
        let folder = tempfile::Builder::new()
            .prefix("bobbin-test-")
            .tempdir()
            .expect("/tmp is writable");
        let cluster = Cluster { folder };
        cluster.up_again(nodes);
        cluster
    }

    /// `bobbin up` on the same folder: starts what is dead.
    #[track_caller]
    pub fn up_again(&self, nodes: u32) {
        let run = bobbin()
            .args(["up", "--detach", "--nodes", &nodes.to_string(), "--dir"])
            .arg(self.dir())
            .run();
        assert_eq!(
            run.code,
            0,
            "bobbin up: {}{}\n{}",
            run.stdout,
            run.stderr,
            self.daemon_logs()
        );
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// A command in a shell that has read the cluster's `env`, as a person would type it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the harness runs the programs under test"
    )]
    #[must_use]
    pub fn sh(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|n| n.starts_with("BOBBIN_")) {
                command.env_remove(name);
            }
        }
        command
            .arg("-c")
            .arg(format!(". \"$0/env\"; {script}"))
            .arg(self.dir());
        command
    }

    /// `bobbin ARGS...` against this cluster.
    #[must_use]
    pub fn bobbin<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.sh("exec bobbin \"$@\"");
        command.args(args);
        command
    }

    /// Runs `bobbin ARGS...` to its end.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        self.bobbin(args).run()
    }

    /// Submits in cluster mode with `flags`, a shell script as the driver, and waits for its end.
    #[must_use]
    pub fn submit(&self, flags: &[&str], script: &str) -> Run {
        let mut args = vec!["submit", "--deploy-mode", "cluster"];
        args.extend(flags);
        args.extend(["--", "sh", "-c", script]);
        self.run(&args)
    }

    /// Submits in cluster mode without waiting; the application's id.
    #[track_caller]
    #[must_use]
    pub fn submit_detached(&self, flags: &[&str], script: &str) -> String {
        let mut all = vec!["--detach"];
        all.extend(flags);
        let run = self.submit(&all, script).expect_code(0);
        let id = run.stdout.trim().to_owned();
        assert!(
            id.starts_with("application_"),
            "--detach prints the id alone: {:?}",
            run.stdout
        );
        id
    }

    /// `bobbin app status ID -o json`.
    #[track_caller]
    #[must_use]
    pub fn status(&self, id: &str) -> Value {
        self.run(&["app", "status", id, "-o", "json"])
            .expect_code(0)
            .json()
    }

    /// Waits until the application's state is `state`; its status then.
    #[track_caller]
    #[must_use]
    pub fn wait_state(&self, id: &str, state: &str) -> Value {
        wait_for(&format!("{id} to be {state}"), 60, || {
            let status = self.status(id);
            if status["state"] == state {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
    }

    /// Waits until the driver's stdout holds `text`.
    #[track_caller]
    pub fn wait_log(&self, id: &str, text: &str) {
        wait_for(&format!("'{text}' in the log of {id}"), 60, || {
            let run = self.run(&["app", "logs", id, "--driver", "--file", "stdout"]);
            if run.stdout.contains(text) {
                Ok(())
            } else {
                Err(format!("{run:?}"))
            }
        });
    }

    /// Process ids of the daemons, from their run files: `resourcemanager` and the agents' names.
    #[must_use]
    pub fn daemons(&self) -> Vec<(String, i32)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.dir().join("run"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "pid") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let name = path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                if let Ok(pid) = text.trim().parse() {
                    found.push((name, pid));
                }
            }
        }
        assert!(
            !found.is_empty(),
            "no run files in {}",
            self.dir().display()
        );
        found
    }

    /// kill -9 of the daemons whose name starts with `prefix`; returns when they are gone.
    pub fn kill_daemons(&self, prefix: &str) {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;
        for (name, pid) in self.daemons() {
            if name.starts_with(prefix) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).expect("the daemon runs");
                wait_for(&format!("{name} to be gone"), 10, || {
                    // A zombie that nobody reaps yet is gone for our purpose.
                    let stat =
                        std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                    let state = stat
                        .rsplit(')')
                        .next()
                        .unwrap_or("")
                        .trim_start()
                        .chars()
                        .next();
                    if matches!(state, None | Some('Z')) {
                        Ok(())
                    } else {
                        Err(stat)
                    }
                });
            }
        }
    }

    /// Starts a command in the background with its output collected in files.
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Child {
        self.bobbin(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started")
    }

    /// The last lines of every daemon's log, for messages.
    #[must_use]
    pub fn daemon_logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir().join("log"))
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Ok(log) = std::fs::read_to_string(entry.path()) {
                let lines: Vec<_> = log.lines().rev().take(15).collect();
                text += &format!("--- {}\n", entry.path().display());
                text.extend(lines.iter().rev().map(|l| format!("{l}\n")));
            }
        }
        text
    }

    /// Ends the cluster and panics if anything of it is left.
    pub fn down(&self) {
        let marks = vec![self.mark()];
        let run = bobbin().args(["down", "--dir"]).arg(self.dir()).run();
        assert_eq!(
            run.code,
            0,
            "bobbin down: {}{}\n{}",
            run.stdout,
            run.stderr,
            self.daemon_logs()
        );
        let left = leftovers(self.dir(), &marks);
        assert!(
            left.is_empty(),
            "left behind by {}: {left:#?}",
            self.dir().display()
        );
    }

    /// The part of an application id that is this cluster's alone: its start's time stamp.
    fn mark(&self) -> String {
        let run = self.run(&["app", "list", "-o", "json"]);
        let id = serde_json::from_str::<Value>(&run.stdout)
            .ok()
            .and_then(|list| list[0]["id"].as_str().map(str::to_owned));
        id.and_then(|id| id.split('_').nth(1).map(str::to_owned))
            .unwrap_or_else(|| "no-application-was-submitted".to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The first failure is the one to read; still leave nothing running.
            let _ = bobbin().args(["down", "--dir"]).arg(self.dir()).run();
        } else {
            self.down();
        }
    }
}
