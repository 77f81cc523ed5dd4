//! What this host has to give.

/// Kept for the system and the daemons: a tenth, at least this.
const RESERVE_MIN_MIB: u64 = 512;
/// A node with less could not hold an application master.
const NODE_MIN_MIB: u64 = 256;

/// Each node's part of this host's memory, MiB. Source: DESIGN, "`bobbin up`: memory is divided".
pub(crate) fn node_memory_mib(nodes: u32) -> u64 {
    part(host_memory_mib(), nodes)
}

/// Each node's vcores: shares, not cores, so every node offers them whole.
pub(crate) fn node_vcores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores)
        .unwrap_or(u32::MAX)
        .saturating_mul(4)
        .max(8)
}

fn part(total_mib: u64, nodes: u32) -> u64 {
    let reserve = (total_mib / 10).max(RESERVE_MIN_MIB);
    let parts = u64::from(nodes.max(1));
    (total_mib.saturating_sub(reserve) / parts).max(NODE_MIN_MIB)
}

/// Memory of this host, or of the group that this process is confined to when that is less.
fn host_memory_mib() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = total_kib(&meminfo).unwrap_or(NODE_MIN_MIB << 10) >> 10;
    let limit = group_limit_bytes().map_or(u64::MAX, |bytes| bytes >> 20);
    total.min(limit)
}

/// Source: proc(5), `MemTotal:  24682496 kB`.
fn total_kib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The smallest memory limit on the way from this process's group to the root; v1 and v2.
fn group_limit_bytes() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut limits = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else {
            continue;
        };
        let folder = std::path::PathBuf::from(format!("{root}{path}"));
        for folder in folder.ancestors().take_while(|f| f.starts_with(root)) {
            let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            limits.extend(text.trim().parse::<u64>());
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divided_less_the_reserve() {
        assert_eq!(part(24_000, 2), 10_800);
        assert_eq!(part(2_000, 1), 1_488);
        assert_eq!(part(100, 4), NODE_MIN_MIB);
    }

    #[test]
    fn this_host() {
        assert_eq!(
            total_kib("MemTotal:       24682496 kB\nMemFree: 1 kB\n"),
            Some(24_682_496)
        );
        assert!(host_memory_mib() >= 64);
        assert!(node_vcores() >= 8);
    }
}
