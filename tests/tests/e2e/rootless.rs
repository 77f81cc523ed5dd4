//! `bobbin up` by an ordinary user, where namespaces may be had and where they are refused.

#![expect(
    clippy::disallowed_methods,
    reason = "the test runs the programs as another user"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bobbin_tests::{Run, RunExt, leftovers, program, skip_without_root, wait_for};
use tempfile::TempDir;

/// An account that every Debian has and that nothing runs as.
const UID: u32 = 5;
const NAME: &str = "games";
const PROGRAMS: [&str; 6] = [
    "bobbin",
    "bobbin-resourcemanager",
    "bobbin-nodeagent",
    "bobbin-container-init",
    "bobbin-appmaster",
    "bobbin-executor",
];

/// A user namespace in which no further one may be made. Its ids are the host's.
struct NoNamespaces(Child);

impl NoNamespaces {
    fn new() -> NoNamespaces {
        let holder = Command::new("unshare")
            .args(["--user", "sleep", "1000"])
            .spawn()
            .unwrap();
        let proc = PathBuf::from(format!("/proc/{}", holder.id()));
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        wait_for("a user namespace", 10, || {
            match fs::read_link(proc.join("ns/user")) {
                Ok(other) if other != own => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        for map in ["uid_map", "gid_map"] {
            fs::write(proc.join(map), "0 0 65536").unwrap();
        }
        let none = NoNamespaces(holder);
        let set = none
            .enter()
            .args(["sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces"])
            .run();
        assert_eq!(set.code, 0, "{set:?}");
        none
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--target", &self.0.id().to_string()]);
        command
    }
}

impl Drop for NoNamespaces {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An ordinary user with a home and programs that it may run.
struct User {
    folder: TempDir,
    refused: Option<NoNamespaces>,
}

impl User {
    fn new(refused: bool) -> User {
        let folder = tempfile::Builder::new()
            .prefix("bobbin-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in PROGRAMS {
            // The target folder may lie where only root can enter.
            let (from, to) = (program(name), bin.join(name));
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).unwrap();
            }
        }
        for name in ["home", "runtime"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            chown(&path, Some(UID), Some(UID)).unwrap();
        }
        User {
            folder,
            refused: refused.then(NoNamespaces::new),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The cluster's folder, as short as anybody's.
    fn cluster(&self) -> PathBuf {
        self.path("home/c")
    }

    /// A shell of the user's, with the cluster's settings if there are any.
    fn sh(&self, script: &str) -> Run {
        let mut command = match &self.refused {
            Some(none) => {
                let mut command = none.enter();
                command.arg("setpriv");
                command
            }
            None => Command::new("setpriv"),
        };
        let uid = UID.to_string();
        command
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--"])
            .args(["env", "-i", "LANG=C.UTF-8"])
            .arg(format!("USER={NAME}"))
            .arg(format!("HOME={}", self.path("home").display()))
            .arg(format!(
                "XDG_RUNTIME_DIR={}",
                self.path("runtime").display()
            ))
            .arg(format!("PATH={}:/usr/bin:/bin", self.path("bin").display()))
            .args(["sh", "-c"])
            .arg(format!("cd; if [ -e c/env ]; then . c/env; fi; {script}"))
            .stdin(Stdio::null())
            .run()
    }

    fn well(&self, script: &str) -> Run {
        self.sh(script).expect_code(0)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // After a failed test the cluster is still there.
        let _ = self.sh("bobbin down --dir c");
    }
}

/// What the user owns in the folder that all share.
fn files_in_tmp() -> Vec<PathBuf> {
    fs::read_dir("/tmp")
        .unwrap()
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|m| m.uid() == UID))
        .map(|entry| entry.path())
        .collect()
}

const SQUARES: &str = "seq 1 20 | bobbin map -- sh -c 'echo $(( {} * {} ))'";

/// Everything that a cluster is for; `lacks` must be said at the start, by the node and in the agent's log.
fn whole_life(user: &User, lacks: &[&str]) {
    let up = user.well("bobbin up --detach --nodes 2 --dir c");
    let status = user.well("bobbin node status 127.0.0.1");
    let log = fs::read_to_string(user.cluster().join("log/node1.log")).unwrap();
    for words in lacks {
        assert!(up.stderr.contains(words), "{words}: {up:?}");
        assert!(status.stdout.contains(words), "{words}: {status:?}");
        let words = words.trim_start_matches("lacks ");
        assert!(
            log.contains(&format!("this node lacks: {words}")),
            "{words}: {log}"
        );
    }
    let submit = "bobbin submit --driver-memory 64m --max-attempts 1";
    let executors = "--num-executors 2 --executor-memory 96m";
    for mode in ["cluster", "client"] {
        let run = user.well(&format!(
            "{submit} --deploy-mode {mode} {executors} -- sh -c \"{}\"",
            SQUARES.replace('$', "\\$")
        ));
        let sum: u64 = run.stdout.lines().map(|l| l.parse::<u64>().unwrap()).sum();
        assert_eq!((run.stdout.lines().count(), sum), (20, 2870), "{run:?}");
    }
    let run = user.sh(&format!(
        "{submit} --deploy-mode cluster -- sh -c 'id -un; exit 3'"
    ));
    assert_eq!((run.code, run.stdout.trim()), (3, NAME), "{run:?}");
    let run = user.well(&format!(
        "echo shipped > f; {submit} --deploy-mode cluster --files f -- sh -c 'cat f; touch $TMPDIR/x'"
    ));
    assert_eq!(run.stdout, "shipped\n");
    too_much_memory(user, submit);
    killed(user, submit);
    user.well("bobbin down --dir c");
    assert_eq!(leftovers(&user.cluster(), &[]), Vec::<String>::new());
    assert_eq!(names(&user.path("home")), ["c", "f"]);
    assert_eq!(names(&user.path("runtime")), Vec::<String>::new());
    assert_eq!(files_in_tmp(), Vec::<PathBuf>::new());
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn too_much_memory(user: &User, submit: &str) {
    let run = user.sh(&format!("{submit} --deploy-mode cluster -- tail /dev/zero"));
    assert_eq!(run.code, 137, "{run:?}");
    assert!(run.stderr.contains("exit status -104"), "{run:?}");
    assert!(
        run.stderr.contains("of 128 MB physical memory used"),
        "{run:?}"
    );
}

/// A driver that has let go of two processes: they go with it all the same.
fn killed(user: &User, submit: &str) {
    let mark = user.path("mark");
    let stay = format!("tail -qf /dev/null {}", mark.display());
    let run = user.well(&format!(
        "{submit} --deploy-mode cluster --detach --num-executors 1 --executor-memory 96m -- \
         sh -c 'setsid {stay} 2>/dev/null & (setsid {stay} 2>/dev/null &); echo up; wait; {stay}'"
    ));
    let id = run.stdout.trim();
    wait_for("the driver's output", 60, || {
        let log = user.sh(&format!("bobbin app logs {id} --driver --file stdout"));
        if log.stdout == "up\n" {
            Ok(())
        } else {
            Err(format!("{log:?}"))
        }
    });
    assert!(!leftovers(&mark, &[]).is_empty());
    user.well(&format!("bobbin app kill {id}"));
    assert_eq!(leftovers(&mark, &[]), Vec::<String>::new());
    // The same words after the end as before.
    let log = user.well(&format!("bobbin app logs {id} --driver --file stdout"));
    assert_eq!(log.stdout, "up\n");
}

#[test]
fn an_ordinary_user_has_a_cluster() {
    if skip_without_root("an_ordinary_user_has_a_cluster") {
        return;
    }
    let user = User::new(false);
    whole_life(&user, &["lacks root: "]);
    let up = user.well("bobbin up --detach --dir c");
    assert!(!up.stderr.contains("lacks namespaces"), "{up:?}");
}

#[test]
fn an_ordinary_user_has_a_cluster_where_namespaces_are_refused() {
    if skip_without_root("an_ordinary_user_has_a_cluster_where_namespaces_are_refused") {
        return;
    }
    let user = User::new(true);
    let words = "namespaces: containers see your other processes";
    whole_life(&user, &["lacks root: ", words]);
    // A monitor that is killed takes its container along.
    user.well("bobbin up --detach --dir c");
    let mark = user.path("mark");
    let script = format!(
        "setsid tail -f /dev/null {0} & tail -f /dev/null {0}",
        mark.display()
    );
    user.well(&format!(
        "bobbin submit --deploy-mode cluster --max-attempts 1 --detach -- sh -c '{script}'"
    ));
    wait_for("the container", 60, || match leftovers(&mark, &[]).len() {
        4.. => Ok(()),
        other => Err(other.to_string()),
    });
    user.well("kill -9 $(pgrep -u games bobbin-init)");
    wait_for("its processes to go", 30, || match leftovers(&mark, &[]) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}
