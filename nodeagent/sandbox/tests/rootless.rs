//! The profile of an ordinary user: one user namespace, no groups, the same way of ending.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests are tests, which clippy does not see in this folder"
)]

mod common;

use bobbin_sandbox::{ContainerSpec, LaunchError, Profile, Stop, signal_container};
use common::{Host, UID, is_root};

fn rootless(host: &Host, script: &str) -> ContainerSpec {
    ContainerSpec {
        profile: Profile::Rootless,
        ..host.sh(script)
    }
}

#[test]
fn an_ordinary_user_has_containers_too() {
    // Root is needed to become an ordinary user here.
    if !is_root("rootless") {
        return;
    }
    let host = Host::rootless();
    let script = "id -u; id -g; echo $$; ls -A /tmp | wc -l; echo x > /etc/x; pwd; exit 3";
    let (record, out, err) = host.run(rootless(&host, script));
    assert_eq!(record.exit_status, 3, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    let uid = UID.to_string();
    // The work folder lies below /tmp here, so its first component is there.
    assert_eq!(&lines[..4], [uid.as_str(), uid.as_str(), "2", "1"]);
    assert!(err.contains("Read-only file system"), "{err}");
    let (_, status, _) = host.run(rootless(&host, "cat /proc/self/status"));
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(
            status.lines().any(|found| found == line),
            "{line} is not in\n{status}"
        );
    }
    let mut spec = rootless(
        &host,
        "python3 -c 'x=bytearray(300<<20); input()' < /dev/zero",
    );
    spec.memory_mib = 64;
    let (record, ..) = host.run(spec);
    assert_eq!(record.exit_status, -104, "{record:?}");
    let container = host.start(rootless(&host, "setsid sleep 1000 & exec sleep 1000"));
    signal_container(&container.launched.pidfd, Stop::TermThenKill).unwrap();
    assert_eq!(container.wait().signal, Some(15));
}

#[test]
fn a_profile_is_not_changed_silently() {
    if !is_root("profiles") {
        return;
    }
    let host = Host::rootless();
    assert!(matches!(
        host.refused(&host.sh("true")),
        LaunchError::BadSpec { .. }
    ));
    let host = Host::new();
    assert!(matches!(
        host.refused(&rootless(&host, "true")),
        LaunchError::BadSpec { .. }
    ));
}
