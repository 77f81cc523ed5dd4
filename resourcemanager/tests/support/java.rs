//! Hadoop's own client classes in a Java process, driven line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The jars of an unmodified Spark, which hold Hadoop's client; `None`, said loudly, if something is
/// missing.
#[expect(
    clippy::disallowed_methods,
    reason = "a test starts the clients that it tests against"
)]
pub(crate) fn jars(test: &str, variable: &str) -> Option<PathBuf> {
    let mut missing = Vec::new();
    let jars = std::env::var_os(variable).map(PathBuf::from);
    if !jars.as_deref().is_some_and(Path::is_dir) {
        missing.push(format!("{variable} names no folder of jars"));
    }
    let there = |name: &str| {
        let mut command = Command::new(name);
        let command = command
            .arg("-version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !there("javac") || !there("java") {
        missing.push("no javac or java on this machine".to_owned());
    }
    if missing.is_empty() {
        return jars;
    }
    // Past the harness, which would swallow it.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {}", missing.join("; "));
    None
}

/// A Java process that runs commands.
pub(crate) struct Commands {
    _folder: tempfile::TempDir,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Commands {
    /// `class` is compiled from `tests/java`; `site` is its yarn-site.xml.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test starts the clients that it tests against"
    )]
    pub(crate) fn start(
        class: &str,
        jars: &Path,
        site: &[(&str, String)],
        token_file: Option<&[u8]>,
    ) -> Commands {
        let folder = tempfile::Builder::new()
            .prefix("bobbin-test-")
            .tempdir()
            .unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/java/{class}.java"));
        let compiled = Command::new("javac")
            .args(["-nowarn", "-cp"])
            .arg(format!("{}/*", jars.display()))
            .arg("-d")
            .arg(folder.path())
            .arg(source)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{words}");
        let site = site.iter().map(|(name, value)| {
            format!("<property><name>{name}</name><value>{value}</value></property>")
        });
        let site = format!(
            "<configuration>{}</configuration>",
            site.collect::<String>()
        );
        std::fs::write(folder.path().join("yarn-site.xml"), site).unwrap();
        let mut command = Command::new("java");
        command
            .args([
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
            ])
            .arg(format!("{}:{}/*", folder.path().display(), jars.display()))
            .arg(class)
            // Stated, and ignored.
            .env("HADOOP_USER_NAME", "mallory")
            .env_remove("HADOOP_TOKEN_FILE_LOCATION")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(bytes) = token_file {
            let path = folder.path().join("token");
            std::fs::write(&path, bytes).unwrap();
            command.env("HADOOP_TOKEN_FILE_LOCATION", path);
        }
        let mut child = command.spawn().unwrap();
        Commands {
            _folder: folder,
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Exit code and output of one command.
    pub(crate) fn run(&mut self, command: &str) -> (i32, String) {
        writeln!(self.input, "{command}").unwrap();
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "{command} ended the process: {text}");
            if let Some(code) = line.strip_prefix("== exit ") {
                return (code.trim().parse().unwrap(), text);
            }
            text.push_str(&line);
        }
    }

    pub(crate) fn good(&mut self, command: &str, expected: &[&str]) -> String {
        let (code, text) = self.run(command);
        assert_eq!(code, 0, "{command}: {text}");
        contains(command, &text, expected);
        text
    }

    pub(crate) fn bad(&mut self, command: &str, expected: &[&str]) {
        let (code, text) = self.run(command);
        assert_ne!(code, 0, "{command}: {text}");
        contains(command, &text, expected);
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Blanks and tabs are the printer's own matter.
pub(crate) fn contains(command: &str, text: &str, expected: &[&str]) {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let squeezed = squeeze(text);
    for part in expected {
        assert!(
            squeezed.contains(&squeeze(part)),
            "{command}: no '{part}' in\n{text}"
        );
    }
}
