//! What a container sees, from inside.

use bobbin_tests::{Cluster, skip_without_root};

#[test]
fn a_container_sees_its_own_world_only() {
    if skip_without_root("a_container_sees_its_own_world_only") {
        return;
    }
    let cluster = Cluster::up(1);
    let script = r"
        echo uid=$(id -u) gid=$(id -g) groups=$(id -G)
        echo processes=$(ls -d /proc/[0-9]* | wc -l)
        grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\t'
        echo fds=$(ls /proc/self/fd | tr '\n' ' ')
        for p in /etc/mine /usr/mine /mine /sys/mine /proc/sys/kernel/hostname; do (echo x > $p) 2>/dev/null && echo WRITABLE $p; done
        for p in /root /home /var/lib; do [ -n $(ls -A $p 2>/dev/null | head -1) ] 2>/dev/null && ls -A $p 2>/dev/null | grep -q . && echo VISIBLE $p; done
        unshare -U true 2>/dev/null && echo UNSHARED
        mount -t tmpfs x /tmp 2>/dev/null && echo MOUNTED
        touch /tmp/private && echo tmp=ok
        echo path=$PATH
        env | grep -i -E 'secret|token|LD_' && echo LEAKED
        pwd
    ";
    let run = cluster.submit(&["--max-attempts", "1"], script);
    let out = &run.stdout;
    assert!(!out.contains("uid=0") && !out.contains("gid=0"), "{run:?}");
    for bad in ["WRITABLE", "VISIBLE", "UNSHARED", "MOUNTED", "LEAKED"] {
        assert!(!out.contains(bad), "{bad}: {run:?}");
    }
    for good in [
        "CapEff:0000000000000000",
        "CapBnd:0000000000000000",
        "NoNewPrivs:1",
        "Seccomp:2",
        "tmp=ok",
        "path=/run/bobbin/bin:",
    ] {
        assert!(out.contains(good), "{good}: {run:?}");
    }
    assert!(
        out.contains("/usercache/nobody/appcache/application_"),
        "{run:?}"
    );
    assert!(!std::path::Path::new("/tmp/private").exists());
}

#[test]
fn one_user_may_not_touch_anothers_application() {
    if skip_without_root("one_user_may_not_touch_anothers_application") {
        return;
    }
    let cluster = Cluster::up(1);
    let id = cluster.submit_detached(&[], "echo mine; sleep 1000");
    cluster.wait_log(&id, "mine");
    // Another uid of the host, through the same socket.
    let other = |args: &str| {
        let script =
            format!("exec setpriv --reuid 65533 --regid 65533 --clear-groups bobbin {args}");
        bobbin_tests::RunExt::run(&mut cluster.sh(&script))
    };
    for args in [format!("app kill {id}"), format!("app logs {id}")] {
        let run = other(&args);
        assert_eq!(run.code, 5, "{args}: {run:?}");
        assert!(!run.stdout.contains("mine"), "{args}: {run:?}");
    }
    assert_eq!(cluster.status(&id)["state"], "RUNNING");
    let _ = cluster.run(&["app", "kill", &id]).expect_code(0);
}
