//! Processes of a cluster: its daemons and whatever runs in its containers.

use std::path::Path;

use super::Layout;
use crate::text::printable;

/// A process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Its command line, for a message.
    pub(crate) command: String,
}

/// Every process that is this cluster's: a program of Bobbin with settings of this folder, or one whose
/// environment puts it into a container below it. A shell that has merely read `DIR/env` is not.
pub(crate) fn processes(layout: &Layout) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let command = read("cmdline");
        if is_daemon(&command, layout) || is_contained(&read("environ"), layout) {
            let shown = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(Process {
                pid,
                command: printable(shown.trim()).chars().take(200).collect(),
            });
        }
    }
    found
}

/// The pid of a daemon that runs with this settings file: one that starts has no run file yet.
pub(crate) fn daemon_with(program: &str, conf: &Path) -> Option<i32> {
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if runs_with(&command, program, conf) {
            return Some(pid);
        }
    }
    None
}

fn runs_with(command: &[u8], program: &str, conf: &Path) -> bool {
    let words: Vec<_> = command
        .split(|b| *b == 0)
        .map(String::from_utf8_lossy)
        .collect();
    let is_program = words
        .first()
        .is_some_and(|w| Path::new(w.as_ref()).ends_with(program));
    let has = |word: &Path| words.iter().any(|w| Path::new(w.as_ref()) == word);
    // The one that only ends containers is no daemon.
    is_program && has(conf) && !has(Path::new("--end-containers"))
}

fn is_daemon(command: &[u8], layout: &Layout) -> bool {
    let mut words = command.split(|b| *b == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    let name = Path::new(program.as_ref())
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or("");
    let conf = layout.conf();
    name.starts_with("bobbin-") && words.any(|w| Path::new(w.as_ref()).starts_with(&conf))
}

fn is_contained(environment: &[u8], layout: &Layout) -> bool {
    let lib = layout.lib();
    let mut in_container = false;
    let mut below = false;
    for variable in environment.split(|b| *b == 0) {
        let text = String::from_utf8_lossy(variable);
        match text.split_once('=') {
            Some(("BOBBIN_CONTAINER_ID", _)) => in_container = true,
            Some(("HOME", home)) => below = Path::new(home).starts_with(&lib),
            _ => {}
        }
    }
    in_container && below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            dir: "/tmp/c".into(),
        }
    }

    #[test]
    fn daemons_by_their_settings() {
        let layout = layout();
        for (command, ours) in [
            (
                "/x/bobbin-nodeagent\0--conf\0/tmp/c/conf/node1.toml\0",
                true,
            ),
            (
                "/x/bobbin-nodeagent\0--conf\0/tmp/cc/conf/node1.toml\0",
                false,
            ),
            ("vim\0/tmp/c/conf/node1.toml\0", false),
            ("", false),
        ] {
            assert_eq!(is_daemon(command.as_bytes(), &layout), ours, "{command:?}");
        }
    }

    #[test]
    fn a_daemon_that_starts_by_its_settings_file() {
        let conf = Path::new("/tmp/c/conf/node1.toml");
        for (command, ours) in [
            (
                "/x/bobbin-nodeagent\0--conf\0/tmp/c/conf/node1.toml\0",
                true,
            ),
            (
                "/x/bobbin-nodeagent\0--conf\0/tmp/c/conf/node11.toml\0",
                false,
            ),
            (
                "/x/bobbin-resourcemanager\0--conf\0/tmp/c/conf/node1.toml\0",
                false,
            ),
            (
                "/x/bobbin-nodeagent\0--conf\0/tmp/c/conf/node1.toml\0--end-containers\0",
                false,
            ),
            ("", false),
        ] {
            assert_eq!(
                runs_with(command.as_bytes(), "bobbin-nodeagent", conf),
                ours,
                "{command:?}"
            );
        }
    }

    #[test]
    fn containers_by_their_environment() {
        let layout = layout();
        for (environment, ours) in [
            (
                "BOBBIN_CONTAINER_ID=c1\0HOME=/tmp/c/lib/node1/local/usercache\0",
                true,
            ),
            ("BOBBIN_DIR=/tmp/c\0HOME=/home/me\0", false),
            ("BOBBIN_CONTAINER_ID=c1\0HOME=/tmp/other/lib\0", false),
            ("", false),
        ] {
            assert_eq!(
                is_contained(environment.as_bytes(), &layout),
                ours,
                "{environment:?}"
            );
        }
    }
}
