//! What bad input gets: a sentence, the documented code, and nothing lost.

use std::io::Write;
use std::net::TcpStream;

use bobbin_tests::{Cluster, RunExt, bobbin, skip_without_root};

#[test]
fn bad_words_on_the_command_line() {
    let submit = |args: &[&str]| bobbin().arg("submit").args(args).run();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--no-such-flag", "--", "true"], 2, "--no-such-flag"),
        (&["--driver-memory", "1gb2", "--", "true"], 2, "1gb2"),
        (&["--driver-memory", "0", "--", "true"], 2, "memory"),
        (&["--driver-memory=-5m", "--", "true"], 2, "-5m"),
        (&["--name", "a\u{7}b", "--", "true"], 2, "control"),
        (&["--env", "=x", "--", "true"], 2, "environment"),
        (
            &["--files", "/no/such/file", "--", "true"],
            2,
            "/no/such/file",
        ),
        (
            &["--deploy-mode", "cluster", "--", "./no-such-program"],
            127,
            "no-such-program",
        ),
        (
            &[
                "--executor-cores",
                "0",
                "--num-executors",
                "1",
                "--",
                "true",
            ],
            2,
            "cores",
        ),
    ];
    for (args, code, word) in cases {
        let run = submit(args);
        assert_eq!(run.code, code, "{args:?}: {run:?}");
        assert!(
            run.stderr.contains(word),
            "{args:?} does not name {word}: {run:?}"
        );
        assert!(run.stdout.is_empty(), "{args:?}: {run:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let nowhere = |args: &[&str]| {
        bobbin()
            .args(args)
            .env("BOBBIN_RM_SOCKET", folder.path().join("none.sock"))
            .run()
    };
    let run = nowhere(&["app", "list"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(
        run.stderr.contains("none.sock"),
        "it says where it looked: {run:?}"
    );
    assert_eq!(
        nowhere(&["submit", "--deploy-mode", "cluster", "--", "true"]).code,
        125
    );
}

#[test]
#[expect(clippy::disallowed_methods, reason = "daemons started by hand")]
fn settings_that_daemons_do_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("daemon.toml");
    for (text, word) in [
        ("no_such_key = 1\n", "no_such_key"),
        ("[grpc\n", "daemon.toml"),
    ] {
        std::fs::write(&conf, text).unwrap();
        for daemon in ["bobbin-resourcemanager", "bobbin-nodeagent"] {
            let run = std::process::Command::new(bobbin_tests::program(daemon))
                .arg("--conf")
                .arg(&conf)
                .run();
            assert_eq!(run.code, 2, "{daemon}: {run:?}");
            assert!(
                run.stderr.contains(word),
                "{daemon} does not name {word}: {run:?}"
            );
        }
    }
}

#[test]
fn refusals_of_a_living_cluster() {
    if skip_without_root("refusals_of_a_living_cluster") {
        return;
    }
    let cluster = Cluster::up(1);
    let one = ["--max-attempts", "1"];
    // A size no node has names the largest.
    let run = cluster.submit(&["--driver-memory", "1t"], "true");
    assert_ne!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("MiB"), "{run:?}");
    // Programs of the node's own.
    let run = cluster.run(&[
        "submit",
        "--deploy-mode",
        "cluster",
        one[0],
        one[1],
        "--",
        "no-such-program-anywhere",
    ]);
    assert_eq!(run.code, 127, "{run:?}");
    assert!(run.stderr.contains("no-such-program-anywhere"), "{run:?}");
    let run = cluster.run(&[
        "submit",
        "--deploy-mode",
        "cluster",
        one[0],
        one[1],
        "--",
        "/etc/passwd",
    ]);
    assert_eq!(run.code, 126, "{run:?}");
    // Ids.
    for (id, code) in [
        ("application_1_0001", 3),
        ("nonsense", 2),
        ("application_x", 2),
    ] {
        for verb in ["status", "kill", "logs", "wait", "attempts", "containers"] {
            let run = cluster.run(&["app", verb, id]);
            assert!(
                run.code == code || (code == 2 && run.code == 3),
                "app {verb} {id}: {run:?}"
            );
            assert!(run.stderr.contains(id), "app {verb} {id}: {run:?}");
        }
    }
    // A second cluster on the same folder is the same cluster; a second daemon is refused.
    #[expect(clippy::disallowed_methods, reason = "a daemon started by hand")]
    let second = std::process::Command::new(bobbin_tests::program("bobbin-resourcemanager"))
        .arg("--conf")
        .arg(cluster.dir().join("conf/resourcemanager.toml"))
        .run();
    assert_ne!(second.code, 0, "{second:?}");
    assert!(
        second.stderr.contains("another") || second.stderr.contains("already"),
        "{second:?}"
    );
    // Everything is still well.
    let _ = cluster.submit(&one, "exit 0").expect_code(0);
}

/// Archives made by the system's python, each refused with a sentence and without effect.
const ARCHIVES: &str = r#"
import io, os, tarfile, zipfile, sys
d = sys.argv[1]
def tar(name, *entries):
    with tarfile.open(os.path.join(d, name), 'w:gz') as t:
        for (entry, kind, data) in entries:
            i = tarfile.TarInfo(entry)
            if kind == 'file':
                i.size = len(data); t.addfile(i, io.BytesIO(data))
            else:
                i.type = {'sym': tarfile.SYMTYPE, 'hard': tarfile.LNKTYPE, 'dev': tarfile.CHRTYPE, 'fifo': tarfile.FIFOTYPE}[kind]
                i.linkname = data or ''; t.addfile(i)
tar('dotdot.tgz', ('../escaped', 'file', b'x'))
tar('absolute.tgz', ('/tmp/bobbin-escaped', 'file', b'x'))
tar('link.tgz', ('out', 'sym', '/etc'), ('out/mine', 'file', b'x'))
tar('hard.tgz', ('hard', 'hard', '/etc/passwd'))
tar('device.tgz', ('device', 'dev', None))
with zipfile.ZipFile(os.path.join(d, 'dotdot.zip'), 'w') as z:
    z.writestr('../escaped', 'x')
"#;

#[test]
#[expect(clippy::disallowed_methods, reason = "python makes the archives")]
fn archives_that_would_escape() {
    if skip_without_root("archives_that_would_escape") {
        return;
    }
    let cluster = Cluster::up(1);
    let folder = tempfile::tempdir().unwrap();
    let _ = std::process::Command::new("/usr/bin/python3")
        .args(["-c", ARCHIVES])
        .arg(folder.path())
        .run()
        .expect_code(0);
    for name in [
        "dotdot.tgz",
        "absolute.tgz",
        "link.tgz",
        "hard.tgz",
        "device.tgz",
        "dotdot.zip",
    ] {
        let archive = folder.path().join(name).display().to_string();
        let run = cluster.submit(&["--max-attempts", "1", "--archives", &archive], "echo ran");
        assert_ne!(run.code, 0, "{name}: {run:?}");
        assert!(!run.stdout.contains("ran"), "{name}: {run:?}");
        assert!(run.stderr.contains(name), "{name} is not named: {run:?}");
    }
    assert!(!std::path::Path::new("/tmp/bobbin-escaped").exists());
    let _ = cluster.submit(&[], "exit 0").expect_code(0);
}

#[test]
fn random_bytes_on_every_port() {
    if skip_without_root("random_bytes_on_every_port") {
        return;
    }
    let cluster = Cluster::up(1);
    let mut ports = Vec::new();
    for entry in std::fs::read_dir(cluster.dir().join("run"))
        .unwrap()
        .flatten()
    {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if let Ok(json) = serde_json::from_str::<serde_json::Value>(&text)
            && let Some(address) = json["grpc"].as_str()
        {
            ports.push(address.to_owned());
        }
    }
    assert_eq!(ports.len(), 2, "{ports:?}");
    let before = cluster.daemons();
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    for address in ports {
        for size in [1_usize, 7, 100, 5000, 100_000] {
            let mut stream = TcpStream::connect(&address).unwrap();
            let bytes: Vec<u8> = (0..size)
                .map(|_| {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    noise.to_le_bytes()[0]
                })
                .collect();
            // The other side may close at once: that is an answer.
            let _ = stream.write_all(&bytes);
        }
    }
    assert_eq!(cluster.daemons(), before);
    let _ = cluster.submit(&[], "exit 0").expect_code(0);
}
