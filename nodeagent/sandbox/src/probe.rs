//! What the full profile needs and this host or this account does not have.

use std::fs;
use std::path::Path;

use crate::cgroup::{Controller, Layout};
use crate::sys;

/// The first version of Landlock that closes abstract sockets. Source: landlock(7).
const SCOPES: u32 = 6;

/// The parts of the full profile that cannot be had here, in words; empty when all is well.
///
/// An agent that gets a non-empty list takes no work, unless it runs the rootless profile.
#[must_use]
pub fn probe() -> Vec<String> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root: other users' containers need it".to_owned());
    }
    for name in ["pid", "mnt", "ipc", "uts"] {
        if !Path::new("/proc/self/ns").join(name).exists() {
            missing.push(format!("kernel: no {name} namespaces"));
        }
    }
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    if !actions.split_whitespace().any(|action| action == "errno") {
        missing.push("kernel: no seccomp filters".to_owned());
    }
    match Layout::read() {
        Err(error) => missing.push(format!("cgroups: {error}")),
        Ok(layout) => {
            for controller in [Controller::Memory, Controller::Cpu, Controller::Pids] {
                if layout.of(controller).is_none() {
                    missing.push(format!("cgroups: no {} controller", controller.name()));
                }
            }
        }
    }
    missing
}

/// Why containers can reach abstract unix sockets of others, if so: no path leads to them, so no mount
/// hides them, and containers share the host's network.
#[must_use]
pub fn lacks_socket_scope() -> Option<String> {
    let version = sys::landlock_version();
    (version < SCOPES).then(|| {
        format!(
            "abstract unix sockets of others are not closed to containers: the kernel's Landlock is \
             version {version} of {SCOPES}; cure: Linux 6.12 with `landlock` in /sys/kernel/security/lsm"
        )
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_ordinary_user_is_told() {
        let missing = super::probe();
        assert_eq!(
            missing.iter().any(|part| part.starts_with("root:")),
            !nix::unistd::geteuid().is_root()
        );
    }
}
