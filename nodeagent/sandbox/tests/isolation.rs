//! What a program finds, and what it is refused, seen from inside real containers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests are tests, which clippy does not see in this folder"
)]

mod common;

use std::fs;
use std::path::Path;

use bobbin_sandbox::{LaunchError, Limits};
use common::{Host, UID, bind, is_root};

#[test]
fn exit_codes_signals_and_programs_that_are_not_there() {
    if !is_root("exit codes") {
        return;
    }
    let host = Host::new();
    let (record, out, err) = host.run(host.sh("echo out; echo err >&2; exit 7"));
    assert_eq!(
        (
            record.exit_status,
            record.signal,
            record.diagnostics.as_str()
        ),
        (7, None, "")
    );
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    assert!(record.ended_ms > 1_700_000_000_000);
    let (record, ..) = host.run(host.sh("kill -SEGV $$"));
    assert_eq!((record.exit_status, record.signal), (139, Some(11)));
    let (record, ..) = host.run(host.spec(&["true"]));
    assert_eq!(record.exit_status, 0);

    let not_found = host.refused(&host.spec(&["no-such-program"]));
    assert!(
        matches!(&not_found, LaunchError::NotFound { program } if program == "no-such-program")
    );
    assert_eq!(not_found.exit_status(), Some(127));
    let spec = host.spec(&["./data"]);
    fs::write(spec.work_dir.join("data"), "x").unwrap();
    let not_executable = host.refused(&spec);
    assert!(
        matches!(not_executable, LaunchError::NotExecutable { .. }),
        "{not_executable:?}"
    );
    assert_eq!(not_executable.exit_status(), Some(126));
    assert!(!spec.private_dir.join("start.json").exists());
    let error = host.refused(&host.spec(&["/etc"]));
    assert_eq!(error.exit_status(), Some(126), "{error:?}");
}

#[test]
fn identity_namespaces_and_rights() {
    if !is_root("identity") {
        return;
    }
    let host = Host::new();
    let mut spec = host.sh("id -u; id -g; id -G");
    spec.groups = vec![60_001, 60_002];
    let (_, out, _) = host.run(spec);
    assert_eq!(out, format!("{UID}\n{UID}\n{UID} 60001 60002\n"));

    // The program is the second process of its own pid namespace, in a session of its own.
    assert_eq!(
        host.out("echo $$; ps -e -o pid= | tr -d ' ' | head -2 | tr '\\n' ,"),
        "2\n1,2,"
    );
    assert_eq!(
        host.out("cut -d' ' -f5,6 /proc/self/stat")
            .split(' ')
            .next(),
        Some("2")
    );
    for namespace in ["pid", "mnt", "ipc", "uts"] {
        let inside = host.out(&format!("readlink /proc/self/ns/{namespace}"));
        let outside = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        assert_ne!(Path::new(&inside), outside, "{namespace}");
    }
    let host_name = nix::unistd::gethostname().unwrap();
    assert_eq!(host.out("uname -n"), host_name.to_str().unwrap());

    let status = host.out("cat /proc/self/status");
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "Umask:\t0027",
    ] {
        assert!(
            status.lines().any(|found| found == line),
            "{line} is not in\n{status}"
        );
    }
    assert_eq!(host.out("ulimit -c"), "0");
    assert_eq!(host.out("cat /proc/self/oom_score_adj"), "500");
    let mut spec = host.sh("cat /proc/self/oom_score_adj; ulimit -n");
    spec.limits = Limits {
        oom_score_adj: 700,
        open_files: 100,
        ..spec.limits
    };
    assert_eq!(host.run(spec).1, "700\n100\n");
}

#[test]
fn nothing_is_inherited() {
    if !is_root("inheritance") {
        return;
    }
    let host = Host::new();
    assert_eq!(host.out("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3");
    let (_, out, _) = host.run(host.spec(&["/usr/bin/env"]));
    assert_eq!(
        out,
        "PATH=/run/bobbin/bin:/usr/local/bin:/usr/bin:/bin\nA=1 é\n"
    );
    assert_eq!(host.out("readlink /proc/self/fd/0"), "/dev/null");
    // PID 1 keeps nothing of the agent and tells nothing.
    assert_eq!(
        host.out("cat /proc/1/environ 2>&1 >/dev/null | grep -c Permission"),
        "1"
    );
    assert_eq!(host.out("ls /proc/1/fd 2>&1 | grep -c Permission"), "1");
    assert_eq!(
        host.out("echo hidden > /dev/stderr; echo shown > /dev/stdout"),
        "shown"
    );
}

#[test]
fn files_that_are_seen_and_files_that_are_not() {
    if !is_root("files") {
        return;
    }
    let host = Host::new();
    let spec = host.sh("pwd; echo data > f; ls; echo > /etc/x; echo > /usr/x; echo > /x; echo end");
    let work_dir = spec.work_dir.clone();
    let (record, out, err) = host.run(spec);
    assert_eq!(record.exit_status, 0);
    assert_eq!(out, format!("{}\nf\nend\n", work_dir.display()));
    assert_eq!(err.matches("Read-only file system").count(), 3, "{err}");
    assert_eq!(fs::read_to_string(work_dir.join("f")).unwrap(), "data\n");

    let root = host.out("ls / | tr '\\n' ' '");
    for hidden in ["root", "home", "srv", "mnt", "boot", "lost+found"] {
        assert!(
            !root.split(' ').any(|name| name == hidden),
            "{hidden} in {root}"
        );
    }
    assert_eq!(
        host.out("ls /run /run/bobbin | tr '\\n' ' '"),
        "/run: bobbin  /run/bobbin:"
    );
    assert_eq!(
        host.out("echo x > /tmp/f; cat /tmp/f; ls /dev/shm; ls -A /tmp | sort | head -3 | tail -1"),
        "x\nf"
    );
    // Another container's /tmp.
    assert_eq!(host.out("ls /tmp/f 2>/dev/null || echo none"), "none");
    assert_eq!(
        host.out("ls /dev | tr '\\n' ' '"),
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    assert_eq!(
        host.out("echo x > /dev/null; head -c3 /dev/zero | wc -c; ls /dev/pts"),
        "3\nptmx"
    );
    assert_eq!(
        host.out("df -m --output=size /tmp | tail -1 | tr -d ' '"),
        "16"
    );
    assert_eq!(host.out("cat /proc/keys /proc/timer_list | wc -c"), "0");
    assert_eq!(host.out("echo 1 > /proc/sys/kernel/ns_last_pid; echo 1 > /proc/sysrq-trigger; echo 1 > /sys/kernel/uevent_helper; echo 1 > /proc/sys/kernel/core_pattern; true"), "");
    assert_eq!(host.out("ls -A /sys/fs/cgroup | wc -l"), "0");
    let mounts = host.out("cat /proc/self/mountinfo");
    for line in mounts.lines() {
        assert!(line.contains("nosuid"), "{line}");
        let device = line.contains(" /dev") || line.contains(" /null ");
        assert!(line.contains("nodev") || device, "{line}");
    }
}

#[test]
fn binds_below_tmp_below_closed_folders_and_over_others() {
    if !is_root("binds") {
        return;
    }
    let host = Host::new();
    let outside = host.dir.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("deep/file"), "seen\n").unwrap();
    let mut spec = host.sh("cat /a/b/c/deep/file /data/file in/file; echo x > /a/b/c/new; cat one");
    fs::create_dir(spec.run_dir.join("bin")).unwrap();
    fs::write(spec.run_dir.join("bin/tool"), "#!/bin/sh\necho tool\n").unwrap();
    spec.binds = vec![
        bind(outside.clone(), "/a/b/c", false),
        bind(outside.join("deep"), "/data", false),
        bind(outside.join("deep"), spec.work_dir.join("in"), false),
        bind(outside.join("deep/file"), spec.work_dir.join("one"), false),
    ];
    let (record, out, err) = host.run(spec);
    assert_eq!(out, "seen\nseen\nseen\nseen\n", "{err}");
    assert!(err.contains("Read-only"), "{err}");
    assert_eq!(record.exit_status, 0);

    let spec =
        host.sh("touch /run/bobbin/socket; touch /run/bobbin/bin/x 2>/dev/null || echo closed");
    fs::create_dir(spec.run_dir.join("bin")).unwrap();
    std::os::unix::fs::chown(spec.run_dir.join("bin"), Some(UID), Some(UID)).unwrap();
    let run_dir = spec.run_dir.clone();
    assert_eq!(host.run(spec).1, "closed\n");
    assert!(run_dir.join("socket").exists());

    let mut spec = host.sh("true");
    std::os::unix::fs::symlink("/etc", host.dir.path().join("link")).unwrap();
    spec.binds = vec![bind(host.dir.path().join("link"), "/l", true)];
    let error = host.refused(&spec);
    assert!(error.to_string().contains("symbolic link"), "{error}");
    // A link that the user put where the mount point should be made.
    let mut spec = host.sh("true");
    std::os::unix::fs::symlink("/etc", spec.work_dir.join("in")).unwrap();
    spec.binds = vec![bind(outside, spec.work_dir.join("in"), true)];
    assert!(matches!(host.refused(&spec), LaunchError::Setup { .. }));
}

#[test]
fn calls_that_are_refused() {
    if !is_root("seccomp") {
        return;
    }
    let host = Host::new();
    for command in [
        "unshare -m true",
        "unshare -U true",
        "unshare -r true",
        "mount -t tmpfs x /tmp",
        "umount /tmp",
        "dmesg",
        "chroot /tmp /bin/true",
        "mknod /tmp/n b 8 0",
        "nsenter -t 1 -m true",
        "renice -n -5 $$",
        "chrt -f 10 true",
        "hostname x",
        "date -s 2001-01-01",
        "head -c1 /proc/kcore | grep -q .",
        "cat /etc/shadow",
        "kill -9 1; kill -0 1 && exit 1",
    ] {
        let (record, out, err) = host.run(host.sh(command));
        assert_ne!(record.exit_status, 0, "{command}: {out}{err}");
        assert_eq!(
            record.signal, None,
            "{command} was killed instead of refused"
        );
    }
    // What programs need goes on: threads, pipes, children, an own shell script.
    assert_eq!(
        host.out("for i in 1 2 3; do (echo $i | cat) & done; wait")
            .lines()
            .count(),
        3
    );
}

#[test]
fn runtimes_of_languages_work_as_they_are() {
    if !is_root("languages") {
        return;
    }
    let host = Host::new();
    let script = "import threading, subprocess, multiprocessing, tempfile\n\
        t = threading.Thread(target=lambda: print('thread', flush=True)); t.start(); t.join()\n\
        print(subprocess.check_output(['echo', 'child']).decode().strip(), flush=True)\n\
        q = multiprocessing.SimpleQueue(); q.put(1); print(tempfile.gettempdir())";
    let mut spec = host.spec(&["/usr/bin/python3", "-c", script]);
    spec.memory_mib = 1024;
    let (record, out, err) = host.run(spec);
    assert_eq!(
        (record.exit_status, out.as_str()),
        (0, "thread\nchild\n/tmp\n"),
        "{err}"
    );
    if !Path::new("/usr/bin/java").exists() {
        println!("SKIPPED: the JVM part needs /usr/bin/java");
        return;
    }
    let mut spec = host.sh("java -Xmx64m -Xshare:auto -version");
    spec.memory_mib = 1024;
    let (record, _, err) = host.run(spec);
    assert_eq!(record.exit_status, 0, "{err}");
    assert!(err.contains("version"), "{err}");
}

#[test]
fn hard_links_and_symlinks_for_log_files_are_not_followed() {
    if !is_root("log files") {
        return;
    }
    let host = Host::new();
    let secret = host.dir.path().join("secret");
    fs::write(&secret, "s").unwrap();
    let spec = host.sh("echo evil");
    std::os::unix::fs::symlink(&secret, spec.log_dir.join("stdout")).unwrap();
    assert!(matches!(host.refused(&spec), LaunchError::Setup { .. }));
    fs::remove_file(spec.log_dir.join("stdout")).unwrap();
    fs::hard_link(&secret, spec.log_dir.join("stdout")).unwrap();
    assert!(matches!(host.refused(&spec), LaunchError::Setup { .. }));
    assert_eq!(fs::read_to_string(&secret).unwrap(), "s");
    // Swapped while it runs: the monitor writes on into the file it has opened.
    let spec = host.sh(&format!(
        "cd \"$0\"; mv stdout old; ln -s {} stdout; echo evil; exit 3",
        secret.display()
    ));
    let spec = bobbin_sandbox::ContainerSpec {
        argv: [spec.argv.clone(), vec![spec.log_dir.display().to_string()]].concat(),
        ..spec
    };
    let log_dir = spec.log_dir.clone();
    let container = host.start(spec);
    assert_eq!(container.wait().exit_status, 3);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "s");
    assert_eq!(fs::read_to_string(log_dir.join("old")).unwrap(), "evil\n");
}

/// A unix socket with a name instead of a file: no mount hides it.
#[test]
fn abstract_sockets_of_others_are_closed() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    if !is_root("abstract sockets") {
        return;
    }
    let host = Host::new();
    let name = format!("bobbin-test-{}", std::process::id());
    let _outside =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let script = format!(
        "import socket
def dial(name):
    try:
        socket.socket(socket.AF_UNIX).connect('\\0' + name)
        return 'allowed'
    except PermissionError:
        return 'refused'
own = socket.socket(socket.AF_UNIX)
own.bind('\\0{name}-own')
own.listen()
print(dial('{name}'), dial('{name}-own'))"
    );
    let spec = host.spec(&["/usr/bin/python3", "-c", &script]);
    let (_, out, err) = host.run(spec);
    assert_eq!(out, "refused allowed\n", "{err}");
}
