//! Many applications at once.

use bobbin_tests::{Cluster, skip_without_root};

#[test]
fn a_thousand_applications_by_eight_clients() {
    if skip_without_root("a_thousand_applications_by_eight_clients") {
        return;
    }
    let cluster = Cluster::up(2);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..125 {
                        let run = cluster.run(&[
                            "submit",
                            "--deploy-mode",
                            "cluster",
                            "--driver-memory",
                            "32m",
                            "--",
                            "true",
                        ]);
                        let _ = run.expect_code(0);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
    });
    let list = cluster
        .run(&["app", "list", "-o", "json"])
        .expect_code(0)
        .json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 1000);
    for application in list {
        assert_eq!(application["state"], "FINISHED", "{application}");
        assert_eq!(application["final_status"], "SUCCEEDED", "{application}");
        assert_eq!(application["exit_status"], 0, "{application}");
    }
    let nodes = cluster
        .run(&["node", "list", "-o", "json"])
        .expect_code(0)
        .json();
    for node in nodes.as_array().unwrap() {
        assert_eq!(node["containers"], 0, "{node}");
        assert_eq!(node["memory_used_mib"], 0, "{node}");
    }
}
