//! What Spark and Hadoop's clients need on this host.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bobbin_proto::v1;

use super::Findings;

/// Folders that containers see without a setting.
const SEEN_IN_CONTAINERS: [&str; 5] = ["/usr", "/opt", "/bin", "/lib", "/etc"];
/// What a Credentials file begins with.
const CREDENTIALS_MAGIC: &[u8] = b"HDTS";

pub(crate) fn check() -> Findings {
    let mut found = Findings::of("spark");
    java(&mut found);
    jars(&mut found);
    token_file(
        &mut found,
        std::env::var_os("HADOOP_TOKEN_FILE_LOCATION").map(PathBuf::from),
    );
    found
}

/// What a program prints, both streams; `None`: it is not there or fails.
#[expect(
    clippy::disallowed_methods,
    reason = "asks Java and Python what they are"
)]
fn printed(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let both = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&both).into_owned())
}

fn java(found: &mut Findings) {
    let home = std::env::var_os("JAVA_HOME").filter(|h| !h.is_empty());
    let program = home.map_or_else(
        || PathBuf::from("java"),
        |home| PathBuf::from(home).join("bin/java"),
    );
    let Some(text) = printed(&program, &["-version"]) else {
        found.bad(
            "Java",
            format!("'{}' does not run", program.display()),
            "install a Java 17 runtime, for example openjdk-17-jre-headless, or set JAVA_HOME",
        );
        return;
    };
    match java_version(&text) {
        Some(17..) => found.ok("Java", first_line(&text)),
        Some(8..) => found.note(
            "Java",
            format!("{}: enough for Spark 3, not for Spark 4", first_line(&text)),
            "install a Java 17 runtime",
        ),
        Some(_) | None => found.bad(
            "Java",
            format!("'{}' is no Java that Spark runs on", first_line(&text)),
            "install a Java 17 runtime",
        ),
    }
    in_containers(found, &program);
}

/// Containers of applications run the Java of their node, and must be able to read it.
fn in_containers(found: &mut Findings, program: &Path) {
    let Some(real) = which(program).and_then(|p| std::fs::canonicalize(p).ok()) else {
        return;
    };
    if !SEEN_IN_CONTAINERS.iter().any(|f| real.starts_with(f)) {
        let folder = real.parent().and_then(Path::parent).unwrap_or(&real);
        found.note(
            "Java in containers",
            format!("{} is not seen in them", folder.display()),
            format!(
                "sandbox.readable_dirs = [\"{}\"] in the node agent's settings",
                folder.display()
            ),
        );
    }
}

fn which(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|p| p.is_file())
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    crate::text::printable(line).chars().take(120).collect()
}

/// The feature release: 8 of `1.8.0_402`, 17 of `17.0.15`.
fn java_version(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version \"")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    match numbers.next()?.parse().ok()? {
        1 => numbers.next()?.parse().ok(),
        version => Some(version),
    }
}

/// Where `bobbin-yarn` would find Spark's jars.
fn jars_folder() -> Option<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    variable("BOBBIN_SPARK_JARS")
        .or_else(|| variable("SPARK_HOME").map(|home| home.join("jars")))
        .or_else(|| {
            let line = "import os, pyspark; print(os.path.dirname(pyspark.__file__))";
            let text = printed(Path::new("python3"), &["-c", line])?;
            Some(Path::new(text.lines().next()?).join("jars"))
        })
}

fn jars(found: &mut Findings) {
    let cure = "pip install pyspark, or SPARK_HOME=FOLDER of a Spark with Hadoop's client";
    let Some(folder) = jars_folder() else {
        found.note("Spark", "none was found here", cure);
        return;
    };
    match hadoop_version(&folder) {
        Some(version) => found.ok(
            "Spark",
            format!("{} with Hadoop's client {version}", folder.display()),
        ),
        None => found.bad(
            "Spark",
            format!("{} has no hadoop-client-api jar", folder.display()),
            cure,
        ),
    }
}

fn hadoop_version(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries.flatten().find_map(|entry| {
        let name = entry.file_name();
        let name = name.to_str()?.strip_prefix("hadoop-client-api-")?;
        Some(name.strip_suffix(".jar")?.to_owned())
    })
}

/// The file that clients take their tokens from.
fn token_file(found: &mut Findings, path: Option<PathBuf>) {
    const SUBJECT: &str = "token file";
    let cure = "bobbin token create --hadoop FILE; export HADOOP_TOKEN_FILE_LOCATION=FILE";
    let Some(path) = path else {
        found.ok(
            SUBJECT,
            "HADOOP_TOKEN_FILE_LOCATION is not set: on the resource manager's host none is needed",
        );
        return;
    };
    let shown = path.display();
    let (bytes, meta) = match (std::fs::read(&path), std::fs::metadata(&path)) {
        (Ok(bytes), Ok(meta)) => (bytes, meta),
        (Err(e), _) | (_, Err(e)) => {
            let words = format!("{shown}: {}", crate::failure::io_words(&e));
            found.bad(SUBJECT, words, cure);
            return;
        }
    };
    if !bytes.starts_with(CREDENTIALS_MAGIC) {
        found.bad(
            SUBJECT,
            format!("{shown} holds no tokens of Hadoop's form"),
            cure,
        );
    } else if meta.permissions().mode() & 0o077 != 0 {
        found.bad(
            SUBJECT,
            format!("others can read {shown}: whoever can is you"),
            format!("chmod 600 {}", crate::host::quote(&shown.to_string())),
        );
    } else if meta.uid() != bobbin_service::own_uid() {
        found.note(SUBJECT, format!("{shown} is somebody else's"), cure);
    } else {
        found.ok(SUBJECT, shown.to_string());
    }
}

/// Whether Hadoop's configuration is that of the resource manager that answers.
pub(crate) fn check_configuration(doors: Option<&v1::HadoopDoors>) -> Findings {
    let mut found = Findings::of("spark");
    let folder = std::env::var_os("HADOOP_CONF_DIR").filter(|v| !v.is_empty());
    configuration(&mut found, folder.map(PathBuf::from), doors);
    found
}

fn configuration(found: &mut Findings, folder: Option<PathBuf>, doors: Option<&v1::HadoopDoors>) {
    const SUBJECT: &str = "HADOOP_CONF_DIR";
    let cure = "bobbin client-config --out FOLDER; export HADOOP_CONF_DIR=FOLDER";
    let Some(folder) = folder else {
        found.bad(SUBJECT, "is not set: Spark does not find the cluster", cure);
        return;
    };
    let file = folder.join("yarn-site.xml");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) => {
            let words = format!("{}: {}", file.display(), crate::failure::io_words(&e));
            found.bad(SUBJECT, words, cure);
            return;
        }
    };
    let Some(address) = crate::hadoop_conf::value(&text, "yarn.resourcemanager.address") else {
        let words = format!("{} has no yarn.resourcemanager.address", file.display());
        found.note(SUBJECT, words, cure);
        return;
    };
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    match doors {
        Some(doors) if port(&doors.client) != port(address) => found.bad(
            SUBJECT,
            format!(
                "{} leads to {address}; the resource manager that answers is at {}",
                folder.display(),
                doors.client
            ),
            cure,
        ),
        Some(_) | None => found.ok(SUBJECT, format!("{} leads to {address}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn versions_of_java() {
        assert_eq!(java_version("openjdk version \"17.0.15\" 2025"), Some(17));
        assert_eq!(java_version("java version \"1.8.0_402\""), Some(8));
        assert_eq!(java_version("openjdk version \"21-ea\""), Some(21));
        assert_eq!(java_version("no such thing"), None);
    }

    #[test]
    fn versions_of_hadoop() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(hadoop_version(folder.path()), None);
        std::fs::write(folder.path().join("hadoop-client-api-3.4.2.jar"), "").unwrap();
        assert_eq!(hadoop_version(folder.path()).as_deref(), Some("3.4.2"));
    }

    #[test]
    fn token_files() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = |bytes: Option<&[u8]>, mode| {
            let path = folder.path().join("t");
            let _ = std::fs::remove_file(&path);
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
                let permissions = std::fs::Permissions::from_mode(mode);
                std::fs::set_permissions(&path, permissions).unwrap();
            }
            let mut found = Findings::of("x");
            token_file(&mut found, Some(path));
            found.list[0].verdict
        };
        assert_eq!(verdict(Some(b"HDTS\0\0\0"), 0o600), Verdict::Ok);
        assert_eq!(verdict(Some(b"HDTS\0\0\0"), 0o640), Verdict::Bad);
        assert_eq!(verdict(Some(b"bobbin1"), 0o600), Verdict::Bad);
        assert_eq!(verdict(None, 0), Verdict::Bad);
        let mut found = Findings::of("x");
        token_file(&mut found, None);
        assert_eq!(found.list[0].verdict, Verdict::Ok);
    }

    #[test]
    fn configurations() {
        let folder = tempfile::tempdir().unwrap();
        let doors = v1::HadoopDoors {
            client: "0.0.0.0:8032".to_owned(),
            ..v1::HadoopDoors::default()
        };
        let verdict = |site: Option<&str>| {
            let path = folder.path().join("yarn-site.xml");
            let _ = std::fs::remove_file(&path);
            if let Some(site) = site {
                let text = format!(
                    "<property><name>yarn.resourcemanager.address</name>\n<value>{site}</value></property>"
                );
                std::fs::write(path, text).unwrap();
            }
            let mut found = Findings::of("x");
            configuration(&mut found, Some(folder.path().to_owned()), Some(&doors));
            found.list[0].verdict
        };
        assert_eq!(verdict(Some("rm:8032")), Verdict::Ok);
        assert_eq!(verdict(Some("rm:28032")), Verdict::Bad);
        assert_eq!(verdict(None), Verdict::Bad);
    }
}
