//! What a container uses, looked up in the process table where no group counts it.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use crate::cgroup::Usage;
use crate::memory::tree;

/// What all processes below a container's monitor use, without the monitor itself.
///
/// Memory that several of them share counts once for each; processor time of processes whose parent
/// has ended before it asked for their end is lost. Blocks on `/proc`.
///
/// Source: fields 14 to 17 of proc_pid_stat(5), and proc_pid_statm(5).
#[must_use]
pub fn usage_of_tree(monitor_pid: i32) -> Usage {
    let (page, ticks) = (setting(SysconfVar::PAGE_SIZE), setting(SysconfVar::CLK_TCK));
    let mut usage = Usage::default();
    for pid in tree(monitor_pid).into_iter().skip(1) {
        let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let Some(statm) = text("statm") else { continue };
        let pages = statm
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse::<u64>().ok());
        let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        let used = cpu_ticks(&stat).unwrap_or(0);
        usage.pids += 1;
        usage.memory_bytes = usage
            .memory_bytes
            .saturating_add(pages.unwrap_or(0).saturating_mul(page));
        usage.cpu_usec = usage
            .cpu_usec
            .saturating_add(used.saturating_mul(1_000_000) / ticks);
    }
    usage
}

/// How long a process has run, from the start time in its record; milliseconds.
#[must_use]
pub fn running_ms(start_ticks: u64) -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split_whitespace().next().unwrap_or("");
    // "12345.67": hundredths, always two digits.
    let hundredths: u64 = seconds.replace('.', "").parse().unwrap_or(0);
    let started = start_ticks.saturating_mul(1000) / setting(SysconfVar::CLK_TCK);
    hundredths.saturating_mul(10).saturating_sub(started)
}

/// User and system time of a process and of those of its children that it has reaped.
fn cpu_ticks(stat: &[u8]) -> Option<u64> {
    // The name may hold spaces and parentheses; what follows its last parenthesis does not.
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let fields = rest.split_ascii_whitespace().skip(11).take(4);
    Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum())
}

fn setting(name: SysconfVar) -> u64 {
    let value = sysconf(name).ok().flatten();
    value
        .and_then(|v| u64::try_from(v).ok())
        .map_or(1, |v| v.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_behind_any_name() {
        let stat = b"42 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 20 3 4 15 16 17 18 7777 20";
        assert_eq!(cpu_ticks(stat), Some(127));
        assert_eq!(cpu_ticks(b"no"), None);
    }

    #[test]
    fn a_tree_is_its_processes_without_the_root() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let (whole, alone) = (usage_of_tree(own), usage_of_tree(pid));
        let ticks = crate::process::start_ticks(pid).unwrap();
        let ran = running_ms(ticks);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(whole.pids >= 1 && whole.memory_bytes > 0, "{whole:?}");
        assert_eq!(alone, Usage::default());
        assert!(ran < 60_000, "{ran}");
    }
}
