//! Copies of stragglers on a whole cluster.

use bobbin_tests::{Cluster, skip_without_root};

#[test]
fn a_straggler_is_run_again_elsewhere_and_the_first_to_end_counts() {
    if skip_without_root("a_straggler_is_run_again_elsewhere_and_the_first_to_end_counts") {
        return;
    }
    let cluster = Cluster::up(2);
    let flags = [
        ["--driver-memory", "32m"],
        ["--num-executors", "2"],
        ["--executor-memory", "32m"],
        ["--executor-cores", "3"],
        ["--timeout", "50s"],
        ["--conf", "task.speculation=true"],
        ["--conf", "task.speculation.interval=100ms"],
        ["--conf", "task.speculation.quantile=0.5"],
        ["--conf", "task.speculation.min-task-runtime=200ms"],
    ];
    // Whichever attempt comes first would never end.
    let task = "echo $BOBBIN_CONTAINER_ID >>$BOBBIN_SHARED_DIR/{}; \
                if [ {} = slow ] && mkdir $BOBBIN_SHARED_DIR/first 2>/dev/null; then sleep 1000; fi; \
                echo {} $BOBBIN_CONTAINER_ID";
    let script = format!("printf '%s\\n' 1 2 3 slow 4 5 | bobbin map -- sh -c '{task}'");
    let run = cluster.submit(&flags.concat(), &script).expect_code(0);
    let lines: Vec<&str> = run.stdout.lines().collect();
    let names: Vec<&str> = lines.iter().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(names, ["1", "2", "3", "slow", "4", "5"], "{run:?}");
    let attempts = std::fs::read_to_string(cluster.dir().join("shared/slow")).unwrap();
    let attempts: Vec<&str> = attempts.lines().collect();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_ne!(attempts[0], attempts[1], "a copy goes to another executor");
    assert_eq!(lines[3], format!("slow {}", attempts[1]));
    cluster.down();
}
