//! Compiles and runs the small programs in `tests/java` against the jars.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Which Hadoop the jars are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hadoop {
    V33,
    V34,
}

impl Hadoop {
    fn variable(self) -> &'static str {
        match self {
            Hadoop::V33 => "BOBBIN_SPARK_JARS",
            Hadoop::V34 => "BOBBIN_SPARK4_JARS",
        }
    }

    fn jar(self) -> &'static str {
        match self {
            Hadoop::V33 => "hadoop-client-api-3.3.",
            Hadoop::V34 => "hadoop-client-api-3.4.",
        }
    }
}

/// A Java on this machine, and the jars.
pub(crate) struct Java {
    pub(crate) hadoop: Hadoop,
    pub(crate) folder: TempDir,
    class_path: String,
}

impl Java {
    /// With each Hadoop that there is and one program of `tests/java` compiled; what is missing is said
    /// loudly.
    pub(crate) fn each(test: &str, program: &str) -> Vec<Java> {
        let there = |name: &str| {
            let version = Command::new(name)
                .arg("-version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            version.is_ok_and(|status| status.success())
        };
        if !there("javac") || !there("java") {
            skipped(test, "no javac or java on this machine");
            return Vec::new();
        }
        [Hadoop::V33, Hadoop::V34]
            .into_iter()
            .filter_map(|hadoop| {
                let variable = hadoop.variable();
                let jars = env::var_os(variable).map(PathBuf::from);
                if jars.is_none() {
                    skipped(test, &format!("{variable} names no folder of jars"));
                }
                Some(Java::new(hadoop, &jars?, program))
            })
            .collect()
    }

    fn new(hadoop: Hadoop, jars: &Path, program: &str) -> Java {
        let is_there = std::fs::read_dir(jars).unwrap().any(|entry| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().starts_with(hadoop.jar())
        });
        // The variable was set for this test: a wrong one is a mistake, not a missing part.
        assert!(is_there, "{} has no {}*", jars.display(), hadoop.jar());
        let folder = TempDir::with_prefix("bobbin-test-java-").unwrap();
        let class_path = format!("{}:{}/*", folder.path().display(), jars.display());
        let java = Java {
            hadoop,
            folder,
            class_path,
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/java")
            .join(program);
        let mut command = Command::new("javac");
        command
            .arg("-cp")
            .arg(&java.class_path)
            .arg("-d")
            .arg(java.folder.path())
            .arg(source);
        check(command.output().unwrap());
        java
    }

    /// A command that runs a class.
    pub(crate) fn command(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-cp"]);
        command.arg(format!(
            "{}:{}",
            self.folder.path().display(),
            self.class_path
        ));
        command.arg(class).stdin(Stdio::null());
        command
    }

    /// What a class prints; it must succeed.
    pub(crate) fn run(&self, class: &str, arguments: &[&str]) -> String {
        check(self.command(class).args(arguments).output().unwrap())
    }
}

/// Past the test harness, which would swallow it.
fn skipped(test: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: {test}: {why}");
}

fn check(output: Output) -> String {
    assert!(
        output.status.success(),
        "{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
