//! What a cluster left behind: processes, mounts and cgroups that name its folder.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

fn processes(dir: &[u8], found: &mut Vec<String>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        // The test's own children (git, sh) may carry the folder in their environment as well:
        // only those that still run when the cluster is down count, and none of them does.
        if contains(&command, dir) || contains(&environment, dir) {
            let shown = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("process {pid}: {}", shown.trim()));
        }
    }
}

fn cgroups(dir: &Path, marks: &[String], depth: u32, found: &mut Vec<String>) {
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if marks.iter().any(|mark| name.contains(mark)) {
            found.push(format!("cgroup {}", entry.path().display()));
        }
        cgroups(&entry.path(), marks, depth - 1, found);
    }
}

/// Everything outside `dir` that names it (processes by arguments and environment, mounts) or one of
/// `marks` (cgroups by name, such as application ids), in words; empty when nothing is left.
#[must_use]
pub fn leftovers(dir: &Path, marks: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    let bytes = dir.as_os_str().as_bytes();
    processes(bytes, &mut found);
    for line in fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
    {
        if contains(line.as_bytes(), bytes) {
            found.push(format!("mount {line}"));
        }
    }
    cgroups(Path::new("/sys/fs/cgroup"), marks, 8, &mut found);
    found
}
