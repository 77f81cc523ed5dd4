//! `bobbin top` on a terminal, and what it prints for programs.

use bobbin_tests::{Cluster, Terminal, skip_without_root};
use nix::sys::signal::Signal;

/// An invisible turn of the reading, a tower of marks, and letters of two columns.
const NAME: &str = "wide日本\u{202e}e\u{301}\u{301}\u{301}\u{301}z";

fn short(id: &str) -> &str {
    id.rsplit('_').next().unwrap()
}

fn line_with<'a>(screen: &'a str, text: &str) -> &'a str {
    let found = screen.lines().find(|line| line.contains(text));
    found.unwrap_or_else(|| unreachable!("no '{text}' in\n{screen}"))
}

#[test]
fn applications_nodes_and_containers_on_a_terminal() {
    if skip_without_root("applications_nodes_and_containers_on_a_terminal") {
        return;
    }
    let cluster = Cluster::up(1);
    let small = ["--driver-memory", "64m", "--name"];
    let busy = cluster.submit_detached(
        &[&small[..], &[NAME]].concat(),
        "echo begun; while :; do :; done",
    );
    let calm = cluster.submit_detached(&[&small[..], &["calm"]].concat(), "sleep 1000");
    cluster.wait_log(&busy, "begun");
    let _ = cluster.wait_state(&calm, "RUNNING");

    let mut top = Terminal::start(&cluster.bobbin(&["top", "--interval", "200ms"]), 24, 80);
    let screen = top.wait_screen("both", |screen| {
        screen.contains("calm") && screen.contains("wide日本") && screen.contains("nodes 1")
    });
    let busy_line = line_with(&screen, "wide日本");
    assert!(
        busy_line.starts_with(short(&busy)) && busy_line.contains("RUNNING"),
        "{screen}"
    );
    assert!(!screen.contains('\u{202e}'), "{screen:?}");

    top.press("2");
    let screen = top.wait_screen("the node with its load", |screen| {
        screen.contains("[2 Nodes]") && screen.contains('%')
    });
    assert!(screen.contains("IN USE"), "{screen}");

    // The busy one's container uses a core, or what of it the others leave.
    top.press("1/wide\r");
    let _ = top.wait_text("1 of 2");
    top.press("c");
    let _ = top.wait_screen("a container that uses memory and a processor", |screen| {
        let row = screen.lines().find(|line| line.contains("01_000001"));
        let words: Vec<&str> = row.unwrap_or("").split_whitespace().collect();
        let cpu = words.iter().rev().find_map(|word| word.strip_suffix('%'));
        words.iter().filter(|word| **word == "MiB").count() == 2
            && cpu.is_some_and(|cpu| cpu.parse::<f64>().is_ok_and(|percent| percent > 5.0))
    });
    top.press("l");
    let _ = top.wait_text("begun");
    top.press("\x1b");
    let _ = top.wait_text("q quit");

    // Any size, and back.
    top.resize(8, 34);
    let _ = top.wait_screen("a small screen", |screen| {
        screen.lines().count() == 8 && screen.ends_with('…')
    });
    top.resize(30, 140);
    let _ = top.wait_screen("whole ids on a large screen", |screen| {
        screen
            .lines()
            .nth(3)
            .is_some_and(|row| row.starts_with("container_e"))
    });
    top.resize(10, 40);
    top.resize(24, 80);
    let _ = top.wait_screen("nothing of the other sizes", |screen| {
        let lines: Vec<&str> = screen.lines().collect();
        lines.len() == 24
            && lines[0].starts_with("bobbin top")
            && lines[3].starts_with("01_000001")
            && lines[4..23].iter().all(|line| line.is_empty())
            && lines[23].starts_with("q quit")
    });

    // Only after a yes.
    top.press("1\x1b");
    let _ = top.wait_text("2 of 2");
    top.press("/calm\rK");
    let _ = top.wait_text(&format!("kill {calm}? y/n"));
    top.press("n");
    let _ = top.wait_text("is not killed");
    assert_eq!(cluster.status(&calm)["state"], "RUNNING");
    top.press("Ky");
    let killed = cluster.wait_state(&calm, "KILLED");
    assert!(
        killed["diagnostics"]
            .as_str()
            .unwrap()
            .contains("bobbin top"),
        "{killed}"
    );
    let _ = top.wait_text("0 of 1");
    top.press("\x1ba");
    let screen = top.wait_text("KILLED");
    assert!(line_with(&screen, "KILLED").contains("calm"), "{screen}");
    top.press("\r");
    let _ = top.wait_text("diagnostics:");
    top.press("qq");
    assert_eq!(top.ended(), 0);
    let text = String::from_utf8_lossy(&top.bytes).into_owned();
    assert!(
        !text.contains('\u{202e}'),
        "the name was passed on as it is"
    );
    let _ = cluster.run(&["app", "kill", &busy]).expect_code(0);
    cluster.down();
}

#[test]
fn the_terminal_is_given_back_however_it_ends() {
    if skip_without_root("the_terminal_is_given_back_however_it_ends") {
        return;
    }
    let cluster = Cluster::up(1);
    let start = || {
        let mut top = Terminal::start(&cluster.bobbin(&["top", "-d", "100ms"]), 24, 80);
        let _ = top.wait_text("nodes 1");
        top
    };
    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
        (Signal::SIGINT, 130),
        (Signal::SIGQUIT, 131),
    ] {
        let mut top = start();
        top.signal(signal);
        assert_eq!(top.ended(), code, "{signal}");
    }
    let mut top = start();
    top.press("\x03");
    assert_eq!(top.ended(), 0);

    // Stopped, it leaves the terminal to the shell; continued, it takes it again.
    let script = "set -m; bobbin top; echo stopped with $?; read go; fg; echo ended with $?";
    let mut top = Terminal::start(&cluster.sh(script), 24, 80);
    let _ = top.wait_text("nodes 1");
    top.press("\x1a");
    let _ = top.wait_text("stopped with 148");
    top.assert_given_back();
    top.press("\r");
    let _ = top.wait_text("nodes 1");
    assert!(top.is_taken());
    top.press("q");
    let _ = top.wait_text("ended with 0");
    assert_eq!(top.ended(), 0);

    let mut top = start();
    // The resource manager goes away and comes back.
    cluster.kill_daemons("resourcemanager");
    let screen = top.wait_text("RECONNECTING");
    assert!(screen.contains("reconnecting: "), "{screen}");
    cluster.up_again(1);
    let _ = top.wait_screen("the cluster again", |screen| {
        !screen.contains("RECONNECTING") && screen.contains("nodes 1")
    });
    top.press("q");
    assert_eq!(top.ended(), 0);
    cluster.down();
}

#[test]
fn what_top_prints_for_programs() {
    if skip_without_root("what_top_prints_for_programs") {
        return;
    }
    let cluster = Cluster::up(1);
    let refused = cluster.run(&["top"]).expect_code(2);
    assert!(
        refused.stderr.contains("is no terminal") && refused.stderr.contains("--once"),
        "{refused:?}"
    );
    for wrong in [
        &["top", "--interval", "1ms"][..],
        &["top", "-n", "0"],
        &["top", "--once", "-n", "2"],
    ] {
        let _ = cluster.run(wrong).expect_code(2);
    }
    let unknown = cluster.run(&["top", "--once", "9999999"]).expect_code(3);
    assert!(unknown.stderr.contains("9999999"), "{unknown:?}");

    let id = cluster.submit_detached(&["--driver-memory", "64m"], "echo up; while :; do :; done");
    cluster.wait_log(&id, "up");
    let table = cluster.run(&["top", "--once"]).expect_code(0);
    assert!(
        table.stdout.contains(&id) && table.stdout.contains("nodes 1"),
        "{table:?}"
    );
    let all = cluster.run(&["top", "-o", "json"]).expect_code(0).json();
    assert_eq!(all["applications"][0]["id"], id.as_str(), "{all}");
    assert!(
        all["nodes"][0]["machine_memory_used_mib"].as_u64().unwrap() > 0,
        "{all}"
    );

    // Two looks, a line each; the second one's share is of the time between.
    let rounds = ["top", &id, "-n", "2", "-d", "300ms", "-o", "json"];
    let twice = cluster.run(&rounds).expect_code(0);
    let looks: Vec<serde_json::Value> = twice
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(looks.len(), 2, "{twice:?}");
    for look in &looks {
        let usage = &look["containers"][0]["usage"];
        assert!(usage["memory_bytes"].as_u64().unwrap() > 0, "{look}");
        assert!(usage["cpu_permille"].as_u64().is_some(), "{look}");
        assert!(usage["processes"].as_u64().unwrap() > 0, "{look}");
    }
    let cpu_ms =
        |look: &serde_json::Value| look["containers"][0]["usage"]["cpu_ms"].as_u64().unwrap();
    assert!(cpu_ms(&looks[1]) > cpu_ms(&looks[0]), "{looks:?}");

    // A node that cannot be asked is named; the rest is told all the same.
    cluster.kill_daemons("node");
    let silent = cluster
        .run(&["top", &id, "--once", "-o", "json"])
        .expect_code(0)
        .json();
    assert!(
        !silent["silent_nodes"][0].as_str().unwrap().is_empty(),
        "{silent}"
    );
    assert!(silent["containers"][0]["usage"].is_null(), "{silent}");
    cluster.up_again(1);
    let _ = cluster.run(&["app", "kill", &id]).expect_code(0);
    cluster.down();
}
