//! What `up`, `client-config`, `doctor` and `bobbin-yarn` do for Hadoop's clients.

use std::path::{Path, PathBuf};

use bobbin_tests::{Cluster, RunExt};

fn value(folder: &Path, file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let (_, rest) = text.split_once(&format!("<name>{name}</name>")).unwrap();
    let (_, rest) = rest.split_once("<value>").unwrap();
    rest.split_once("</value>").unwrap().0.to_owned()
}

fn conf(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.dir().join(format!("conf/{name}.toml"))
}

#[test]
fn a_shell_is_ready_for_hadoops_clients() {
    let cluster = Cluster::up(1);
    let seen = cluster
        .sh(r#"echo "$HADOOP_CONF_DIR"; ls "$HADOOP_TOKEN_FILE_LOCATION"; command -v bobbin-yarn"#)
        .run()
        .expect_code(0);
    let dir = cluster.dir().display();
    assert_eq!(
        seen.stdout,
        format!("{dir}/conf/hadoop\n{dir}/lib/hadoop.token\n{dir}/bin/bobbin-yarn\n")
    );
    let ours = cluster.dir().join("conf/hadoop");
    let settings: String = std::fs::read_to_string(conf(&cluster, "resourcemanager")).unwrap();
    for (name, key) in [
        ("yarn.resourcemanager.address", "client_listen"),
        ("yarn.resourcemanager.scheduler.address", "scheduler_listen"),
        ("yarn.resourcemanager.admin.address", "admin_listen"),
    ] {
        let address = value(&ours, "yarn-site.xml", name);
        assert!(
            settings.contains(&format!("{key} = \"{address}\"")),
            "{name} is {address}: {settings}"
        );
    }
    let http = value(
        &ours,
        "yarn-site.xml",
        "yarn.resourcemanager.webapp.address",
    );
    assert_eq!(
        value(&ours, "core-site.xml", "fs.defaultFS"),
        format!("webhdfs://{http}")
    );

    // The same by hand, and not over the file of another.
    let out = cluster.dir().join("shared/conf");
    let out = out.to_str().unwrap();
    let write = ["client-config", "--out", out];
    let _ = cluster.run(&write).expect_code(0);
    for file in ["core-site.xml", "yarn-site.xml"] {
        let both = [ours.join(file), Path::new(out).join(file)];
        let [a, b] = both.map(|path| std::fs::read_to_string(path).unwrap());
        assert_eq!(a, b);
    }
    std::fs::write(Path::new(out).join("core-site.xml"), "<configuration/>").unwrap();
    let refused = cluster.run(&write).expect_code(5);
    assert!(refused.stderr.contains("core-site.xml"), "{refused:?}");

    let run = cluster
        .run(&["doctor", "--for", "rm", "-o", "json"])
        .expect_code(0);
    let findings = run.json();
    let subjects: Vec<_> = findings
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["subject"].as_str().unwrap())
        .collect();
    for subject in ["resourcemanager", "nodes", "submitting (YARN)"] {
        assert!(subjects.contains(&subject), "{subject}: {subjects:?}");
    }
    // Its daemons gone, it says so and ends with 1.
    cluster.down();
    let run = cluster
        .run(&["doctor", "--for", "rm", "-o", "json"])
        .expect_code(1);
    let bad = run.json();
    let bad = bad.as_array().unwrap().iter();
    let bad: Vec<_> = bad.filter(|f| f["verdict"] == "bad").collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert!(bad[0]["cure"].as_str().unwrap().contains("bobbin up"));
}

#[test]
fn a_cluster_of_an_older_version_gets_the_new_doors() {
    let cluster = Cluster::up(2);
    cluster.down();
    for name in ["resourcemanager", "node1", "node2"] {
        let path = conf(&cluster, name);
        let mut settings: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        assert!(settings.remove("yarn").is_some());
        if name != "resourcemanager" {
            assert!(settings.remove("http").is_some());
        }
        std::fs::write(&path, format!("# mine\n{settings}")).unwrap();
    }
    cluster.up_again(2);
    let text = std::fs::read_to_string(conf(&cluster, "node2")).unwrap();
    assert!(text.starts_with("# mine\n"), "{text}");
    let run = cluster.submit(&[], "echo well").expect_code(0);
    assert_eq!(run.stdout, "well\n");
    let _ = cluster.run(&["doctor", "--for", "rm"]).expect_code(0);
}

/// The folders of jars that there are.
fn jars(test: &str) -> Vec<String> {
    let mut found = Vec::new();
    for variable in ["BOBBIN_SPARK_JARS", "BOBBIN_SPARK4_JARS"] {
        match std::env::var(variable) {
            Ok(folder) => found.push(folder),
            Err(_) => bobbin_tests::skipped(test, &format!("{variable} is not set")),
        }
    }
    found
}

#[test]
fn yarns_own_commands_with_privacy() {
    let jars = jars("yarns_own_commands_with_privacy");
    if jars.is_empty() {
        return;
    }
    let cluster = Cluster::up(1);
    cluster.down();
    let path = conf(&cluster, "resourcemanager");
    let settings = std::fs::read_to_string(&path).unwrap();
    let private = settings.replacen("[yarn]\n", "[yarn]\nrpc_protection = [\"privacy\"]\n", 1);
    assert_ne!(settings, private);
    std::fs::write(&path, private).unwrap();
    cluster.up_again(1);
    let id = cluster.submit_detached(&["--name", "seen-by-yarn"], "sleep 1000");
    let _ = cluster.wait_state(&id, "RUNNING");
    for folder in &jars {
        let yarn = |arguments: &str| {
            cluster
                .sh(&format!("bobbin-yarn {arguments}"))
                .env("BOBBIN_SPARK_JARS", folder)
                .run()
        };
        let list = yarn("application -list").expect_code(0);
        assert!(list.stdout.contains(&id), "{list:?}");
        assert!(list.stdout.contains("seen-by-yarn"), "{list:?}");
        let nodes = yarn("node -list").expect_code(0);
        assert!(nodes.stdout.contains("Total Nodes:1"), "{nodes:?}");
        let path = yarn("classpath --glob").expect_code(0);
        assert!(path.stdout.contains("/hadoop-client-api-"), "{path:?}");
    }
    // Without the configuration's word the two have nothing in common.
    let run = cluster
        .sh("mkdir \"$BOBBIN_SHARED_DIR/c\"; cp \"$HADOOP_CONF_DIR/yarn-site.xml\" \"$BOBBIN_SHARED_DIR/c\"; \
             HADOOP_CONF_DIR=\"$BOBBIN_SHARED_DIR/c\" bobbin-yarn application -list")
        .env("BOBBIN_SPARK_JARS", &jars[0])
        .run();
    assert_ne!(run.code, 0, "{run:?}");
    assert!(run.stderr.contains("No common protection"), "{run:?}");
    let _ = cluster.run(&["app", "kill", &id]).expect_code(0);
}
