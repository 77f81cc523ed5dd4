//! The real program: exit codes and words, without any cluster.
#![expect(
    clippy::unwrap_used,
    reason = "what is missing fails the test as it should"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the program under test is started"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program with nothing of this process's cluster settings.
fn bobbin(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bobbin"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("BOBBIN_")) {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it; code, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// One sentence, one line with what to try, nothing on standard output.
#[track_caller]
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let (ended, stdout, stderr) = run(command);
    assert_eq!(ended, code, "{stdout}{stderr}");
    assert_eq!(stdout, "", "{stderr}");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(
        lines[0].starts_with("bobbin: ") && lines[1].starts_with("try: "),
        "{stderr}"
    );
    for word in words {
        assert!(stderr.contains(word), "'{word}' is not in: {stderr}");
    }
}

#[test]
fn unknown_flags_and_words() {
    refused(
        &mut bobbin(&["submit", "--driver-memry", "1g", "--", "true"]),
        2,
        &["--driver-memry", "--driver-memory"],
    );
    refused(
        &mut bobbin(&["submit", "--nothing-like-it", "true"]),
        2,
        &["--nothing-like-it"],
    );
    refused(&mut bobbin(&["ap", "list"]), 2, &["'ap'", "try: app"]);
    refused(
        &mut bobbin(&["app", "list", "-o", "xml"]),
        2,
        &["xml", "json"],
    );
}

#[test]
fn sizes_and_names() {
    for (flags, word) in [
        (["--driver-memory", "1gb2"], "1gb2"),
        (["--driver-memory", "0"], "memory"),
        (["--executor-memory", "99999999999t"], "larger"),
        (["--driver-cores", "0"], "cores"),
        (["--num-executors", "-1"], "-1"),
        (["--name", "a\u{7}b"], "control"),
        (["--env", "=x"], "environment"),
        (["--env", "BOBBIN_ATTEMPT=9"], "BOBBIN_ATTEMPT"),
        (["--timeout", "soon"], "duration"),
        (["--conf", "task.max-failure=2"], "task.max-failures"),
        (["--files", "/no/such/file"], "/no/such/file"),
        (["--max-attempts", "0"], "attempts"),
        (["--master", "mesos://x"], "local[N]"),
    ] {
        refused(
            bobbin(&["submit"]).args(flags).args(["--", "true"]),
            2,
            &[word],
        );
    }
}

#[test]
fn programs_that_cannot_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("plain"), "").unwrap();
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    for mode in ["client", "cluster"] {
        for (program, code) in [("./missing", 127), ("./plain", 126), ("./folder", 126)] {
            let mut command = bobbin(&["submit", "--deploy-mode", mode, "--", program]);
            let (ended, _, stderr) = run(command.current_dir(folder.path()));
            assert_eq!(ended, code, "{mode} {program}: {stderr}");
            assert!(stderr.contains(program), "{stderr}");
        }
    }
    refused(
        &mut bobbin(&["submit", "--master", "local", "--", "no-such-program"]),
        127,
        &["no-such-program"],
    );
}

#[test]
fn nobody_there_and_where_it_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let nowhere = |args: &[&str]| {
        let mut command = bobbin(args);
        command.env("BOBBIN_RM_SOCKET", &socket);
        command
    };
    for args in [
        &["app", "list"][..],
        &["app", "status", "@last"],
        &["app", "kill", "application_1_0001"],
        &["app", "logs", "@last"],
        &["app", "wait", "@last"],
        &["node", "list"],
        &["token", "create"],
    ] {
        refused(&mut nowhere(args), 4, &["none.sock", "bobbin up"]);
    }
    for mode in ["client", "cluster"] {
        refused(
            &mut nowhere(&["submit", "--deploy-mode", mode, "--", "true"]),
            125,
            &["none.sock"],
        );
    }
    refused(
        bobbin(&["node", "list"]).args(["--rm", "127.0.0.1:1"]),
        4,
        &["127.0.0.1:1"],
    );
}

#[test]
fn malformed_ids_are_wrong_usage() {
    for verb in ["status", "attempts", "containers", "kill", "logs", "wait"] {
        refused(&mut bobbin(&["app", verb, "a b"]), 2, &["a b"]);
    }
    refused(
        &mut bobbin(&["app", "logs", "@last", "--file", "../x"]),
        2,
        &["../x"],
    );
}

#[test]
fn map_outside_a_driver() {
    refused(
        &mut bobbin(&["map", "--", "echo", "{}"]),
        5,
        &["BOBBIN_DRIVER_SOCKET", "--num-executors"],
    );
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [
        &["--help"][..],
        &["submit", "--help"],
        &["app", "logs", "-h"],
        &["version"],
        &["--version"],
    ] {
        let (code, stdout, stderr) = run(&mut bobbin(args));
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        assert!(
            stdout.to_lowercase().contains("bobbin") && !stdout.contains('\u{1b}'),
            "{stdout}"
        );
    }
    let (code, stdout, stderr) = run(&mut bobbin(&[]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("submit"), "{stderr}");
}

#[test]
fn completions_are_a_script() {
    let folder = tempfile::tempdir().unwrap();
    let (code, script, _) = run(&mut bobbin(&["completions", "bash"]));
    assert_eq!(code, 0);
    let path = folder.path().join("completions");
    std::fs::write(&path, script).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&path).status().unwrap();
    assert!(checked.success());
}

#[test]
fn up_and_down_without_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("none").display().to_string();
    refused(&mut bobbin(&["down", "--dir", &dir]), 3, &[&dir]);
    assert!(!Path::new(&dir).exists(), "nothing is made by looking");
    refused(
        &mut bobbin(&["up", "--nodes", "0", "--dir", &dir]),
        2,
        &["nodes"],
    );
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(bobbin(&["up", "--dir"]).arg(&file), 2, &["it is a file"]);
}

#[test]
fn up_names_the_program_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("bobbin");
    std::fs::copy(env!("CARGO_BIN_EXE_bobbin"), &alone).unwrap();
    std::fs::set_permissions(&alone, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&alone);
    command.args(["up", "--dir"]).arg(folder.path().join("dir"));
    refused(
        &mut command,
        1,
        &["bobbin-resourcemanager", "bobbin-executor", "cargo build"],
    );
}

#[test]
fn local_mode_gives_the_drivers_output_and_status() {
    let script = "echo id=$BOBBIN_APPLICATION_ID attempt=$BOBBIN_ATTEMPT; echo words >&2; exit 7";
    let mut command = bobbin(&["submit", "--master", "local[2]", "--", "sh", "-c", script]);
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, 7, "{stderr}");
    assert!(
        stdout.starts_with("id=application_") && stdout.ends_with(" attempt=1\n"),
        "{stdout}"
    );
    assert_eq!(stderr, "words\n");
    let mut command = bobbin(&[
        "submit",
        "--master",
        "local",
        "--",
        "sh",
        "-c",
        "kill -TERM $$",
    ]);
    assert_eq!(run(&mut command).0, 143);
}
