//! What containers need of the kernel and of this account.

use std::path::Path;

use super::Findings;

/// Namespaces that every container has.
const NAMESPACES: [&str; 4] = ["pid", "mnt", "ipc", "uts"];
/// Controllers that limits are made with.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// Files that an agent with many containers and connections has open.
const OPEN_FILES_MIN: u64 = 4096;

pub(crate) fn check() -> Findings {
    let mut found = Findings::of("node agent");
    account(&mut found);
    namespaces(&mut found);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    seccomp(&mut found, &read("/proc/sys/kernel/seccomp/actions_avail"));
    control_groups(&mut found, &read("/proc/self/mounts"));
    open_files(&mut found);
    found
}

fn account(found: &mut Findings) {
    if bobbin_service::own_uid() == 0 {
        found.ok("account", "root: containers run as their users");
        return;
    }
    found.note(
        "account",
        "not root: only the profile `rootless`, whose containers run as yourself",
        "run the node agent as root (systemd/bobbin-nodeagent.service)",
    );
    let read = |path: &str| std::fs::read_to_string(path).ok();
    user_namespaces(
        found,
        read("/proc/sys/user/max_user_namespaces").as_deref(),
        read("/proc/sys/kernel/unprivileged_userns_clone").as_deref(),
        read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref(),
    );
}

/// Source: user_namespaces(7); the second setting is Debian's, the third Ubuntu's.
fn user_namespaces(
    found: &mut Findings,
    max: Option<&str>,
    clone: Option<&str>,
    apparmor: Option<&str>,
) {
    let is = |value: Option<&str>, bad: &str| value.is_some_and(|v| v.trim() == bad);
    if max.is_none() {
        found.bad(
            "user namespaces",
            "the kernel has none",
            "a kernel with CONFIG_USER_NS, or run the node agent as root",
        );
    } else if is(max, "0") {
        found.bad(
            "user namespaces",
            "none may be made",
            "sysctl user.max_user_namespaces=10000",
        );
    } else if is(clone, "0") {
        found.bad(
            "user namespaces",
            "only root may make one",
            "sysctl kernel.unprivileged_userns_clone=1",
        );
    } else if is(apparmor, "1") {
        found.bad(
            "user namespaces",
            "AppArmor keeps them from ordinary users",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        );
    } else {
        found.ok("user namespaces", "this account may make them");
    }
}

fn namespaces(found: &mut Findings) {
    let missing: Vec<_> = NAMESPACES
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    if missing.is_empty() {
        found.ok("namespaces", NAMESPACES.join(", "));
    } else {
        found.bad(
            "namespaces",
            format!("the kernel has no {} namespaces", missing.join(", ")),
            "a kernel with CONFIG_NAMESPACES and all below it; inside a container of another kind: \
             one that may make them",
        );
    }
}

fn seccomp(found: &mut Findings, actions: &str) {
    if actions.split_whitespace().any(|action| action == "errno") {
        found.ok("seccomp", "filters are there");
    } else {
        found.bad(
            "seccomp",
            "the kernel has no filters",
            "a kernel with CONFIG_SECCOMP_FILTER",
        );
    }
}

/// Controllers of cgroup v1, by the options of their mounts, and v2's mount, if any.
fn mounted(mounts: &str) -> (Vec<&str>, Option<&str>) {
    let mut first = Vec::new();
    let mut second = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(place), Some(kind), Some(options)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        match kind {
            "cgroup" => first.extend(options.split(',').filter(|o| CONTROLLERS.contains(o))),
            "cgroup2" => second = Some(place),
            _ => {}
        }
    }
    (first, second)
}

/// Whether groups can be made below this process's own: only of v2 are they given to ordinary users.
fn owns_group(second: Option<&str>) -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let (Some(place), Some(path)) = (second, path) else {
        return false;
    };
    let folder = Path::new(place).join(path);
    nix::unistd::access(&folder, nix::unistd::AccessFlags::W_OK).is_ok()
}

fn control_groups(found: &mut Findings, mounts: &str) {
    let (first, second) = mounted(mounts);
    let of_second = second
        .and_then(|place| std::fs::read_to_string(Path::new(place).join("cgroup.controllers")).ok())
        .unwrap_or_default();
    let missing: Vec<_> = CONTROLLERS
        .into_iter()
        .filter(|c| !first.contains(c) && !of_second.split_whitespace().any(|o| o == *c))
        .collect();
    let is_root = bobbin_service::own_uid() == 0;
    if missing.is_empty() && !is_root && !owns_group(second) {
        found.note(
            "control groups",
            "this account has none of its own: memory is measured, processor time is not limited",
            "run the node agent as root, or in a delegated group (systemd-run --user -p Delegate=yes)",
        );
    } else if missing.is_empty() {
        let version = if first.is_empty() { "v2" } else { "v1" };
        found.ok(
            "control groups",
            format!("{version}: {}", CONTROLLERS.join(", ")),
        );
    } else if is_root {
        found.bad(
            "control groups",
            format!("no controller for {}", missing.join(", ")),
            "mount -t cgroup2 none /sys/fs/cgroup, or a kernel with them \
             (cgroup_enable=memory on its command line)",
        );
    } else {
        found.note(
            "control groups",
            format!(
                "no controller for {}: memory is measured, processor time is not limited",
                missing.join(", ")
            ),
            "run the node agent as root",
        );
    }
}

fn open_files(found: &mut Findings) {
    use nix::sys::resource::{Resource, getrlimit};
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    if hard >= OPEN_FILES_MIN {
        found.ok("open files", format!("up to {hard}"));
    } else {
        found.note(
            "open files",
            format!("at most {hard}, which limits containers and connections"),
            format!("ulimit -Hn {OPEN_FILES_MIN} or more (LimitNOFILE of a systemd unit)"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn mounts_of_both_versions() {
        let v1 = "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                  cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n";
        assert_eq!(mounted(v1), (vec!["memory", "cpu"], None));
        let v2 = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\nx\n";
        assert_eq!(mounted(v2), (vec![], Some("/sys/fs/cgroup")));
        let mut found = Findings::of("x");
        control_groups(&mut found, "");
        assert!(found.list[0].words.contains("memory, cpu, pids"));
        assert_ne!(found.list[0].verdict, Verdict::Ok);
    }

    #[test]
    fn who_may_make_user_namespaces() {
        for (max, clone, apparmor, expected) in [
            (Some("15000\n"), None, None, Verdict::Ok),
            (Some("15000"), Some("1"), Some("0"), Verdict::Ok),
            (None, None, None, Verdict::Bad),
            (Some("0"), None, None, Verdict::Bad),
            (Some("15000"), Some("0\n"), None, Verdict::Bad),
            (Some("15000"), Some("1"), Some("1"), Verdict::Bad),
        ] {
            let mut found = Findings::of("x");
            user_namespaces(&mut found, max, clone, apparmor);
            assert_eq!(found.list[0].verdict, expected, "{max:?} {clone:?}");
        }
    }

    #[test]
    fn filters() {
        for (actions, expected) in [
            ("kill_process errno allow\n", Verdict::Ok),
            ("", Verdict::Bad),
        ] {
            let mut found = Findings::of("x");
            seccomp(&mut found, actions);
            assert_eq!(found.list[0].verdict, expected);
        }
    }
}
