//! Containers that fill the disk are ended, and told why.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    dead_code,
    unreachable_pub,
    reason = "test code outside test functions; shared support"
)]

mod common;

use common::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_the_disk_is_ended_with_the_reason() {
    if skip("who_fills_the_disk_is_ended_with_the_reason") {
        return;
    }
    let (mut rm, mut agent) = pair().await;
    assert!(agent.stop().success());
    let conf = agent.dir.path().join("conf.toml");
    let limits =
        "work_dir_bytes_max = 3000000\nwork_dir_inodes_max = 500\n[logs]\nmax_bytes = 1000000\n";
    let text = std::fs::read_to_string(&conf).unwrap() + limits;
    std::fs::write(&conf, text).unwrap();
    agent.restart();
    rm.expect_registration().await;
    agent.read_info();
    // Below the first level, where only a walk finds it.
    let cases = [
        (
            "mkdir -p a/b && head -c 5000000 /dev/urandom > a/b/big",
            -1000,
            "the container's work folder takes more than the 3000000 bytes",
        ),
        (
            "mkdir many && cd many && seq 600 | xargs touch",
            -1000,
            "more than the 500 files and folders that are allowed (setting \
             sandbox.work_dir_inodes_max)",
        ),
        (
            "mkdir $BOBBIN_LOG_DIR/a && head -c 5000000 /dev/urandom > $BOBBIN_LOG_DIR/a/big",
            -109,
            "the container's log folder takes more than the 2000000 bytes",
        ),
    ];
    for (number, (script, _, _)) in (1..).zip(&cases) {
        let script = format!("{script}; exec sleep 1000");
        let id = container(number);
        rm.order(start(container_token(&rm, &agent, &id), shell(&script)));
    }
    for (number, (_, status, words)) in (1..).zip(&cases) {
        let exit = rm.expect_exit_in_any_order(&container(number)).await;
        assert_eq!(exit.exit_status, Some(*status), "{exit:?}");
        assert!(exit.diagnostics.contains(words), "{exit:?}");
    }
    // One that keeps to it goes on, however much it writes into its own /tmp.
    let id = container(9);
    let modest = "head -c 5000000 /dev/zero > /tmp/x; head -c 100000 /dev/zero > x; echo fine";
    rm.order(start(container_token(&rm, &agent, &id), shell(modest)));
    let exit = rm.expect_exit_in_any_order(&id).await;
    assert_eq!(exit.exit_status, Some(0), "{exit:?}");
}
