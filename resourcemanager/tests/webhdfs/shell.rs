//! The same as Hadoop's own file system shell sees it.

use std::path::{Path, PathBuf};
use std::process::Command;

use bobbin_proto::v1;

use super::json;
use super::support::Daemon;

/// The folder of an unmodified Spark's jars, which hold Hadoop's client.
fn jars() -> Option<PathBuf> {
    let jars = std::env::var_os("BOBBIN_SPARK_JARS").map(PathBuf::from);
    if !jars.as_deref().is_some_and(Path::is_dir) {
        println!("SKIPPED: needs Java and a Spark's jars; set BOBBIN_SPARK_JARS to their folder");
        return None;
    }
    jars
}

fn shell_command(jars: &Path, conf: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command
        .arg("-cp")
        .arg(format!("{}:{}/*", conf.display(), jars.display()))
        .arg("org.apache.hadoop.fs.FsShell")
        .args(arguments);
    command
}

fn shell(jars: &Path, conf: &Path, arguments: &[&str]) -> (bool, String) {
    let output = shell_command(jars, conf, arguments).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), text)
}

/// A folder whose core-site.xml leads to the daemon's file tree.
fn configured(daemon: &Daemon) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let conf = format!(
        "<configuration><property><name>fs.defaultFS</name>\
         <value>webhdfs://{}</value></property></configuration>",
        daemon.http()
    );
    std::fs::write(folder.path().join("core-site.xml"), conf).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn hadoops_own_shell_uses_the_token_file() {
    let Some(jars) = jars() else { return };
    let daemon = Daemon::start();
    let folder = configured(&daemon);
    let file = folder.path().join("tokens");
    let request = v1::CreateTokenRequest {
        subject: Some(v1::create_token_request::Subject::User("alice".to_owned())),
        hadoop: true,
        ..v1::CreateTokenRequest::default()
    };
    let made = daemon.client().await.create_token(request).await.unwrap();
    let made = made.into_inner();
    let run = |arguments: &[&str]| {
        let mut command = shell_command(&jars, folder.path(), arguments);
        let output = command
            .env("HADOOP_TOKEN_FILE_LOCATION", &file)
            .output()
            .unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.success(), text)
    };
    std::fs::write(&file, &made.hadoop_credentials).unwrap();
    // The socket is another user's; the token is alice's, and it counts.
    let (success, text) = run(&["-mkdir", "-p", "/user/alice/new"]);
    assert!(success, "{text}");
    let (success, text) = run(&["-stat", "%u", "/user/alice/new"]);
    assert!(success && text.contains("alice"), "{text}");
    let cancel = format!("/?op=CANCELDELEGATIONTOKEN&token={}", made.token);
    let canceled = json(&daemon.http(), "PUT", &cancel).await;
    assert_eq!(canceled.0, 200, "{}", canceled.1);
    let (success, text) = run(&["-ls", "/user/alice"]);
    assert!(
        !success && text.contains("the token was canceled"),
        "{text}"
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn hadoops_own_shell_works() {
    let Some(jars) = jars() else { return };
    let daemon = Daemon::start();
    let folder = configured(&daemon);
    let local = folder.path().join("local");
    std::fs::write(&local, "one\n").unwrap();
    let local = local.to_str().unwrap();
    let home = format!("/user/{}", daemon.user());
    let at = |name: &str| format!("{home}/{name}");
    let ok = |arguments: &[&str], expected: &str| {
        let (success, text) = shell(&jars, folder.path(), arguments);
        assert!(success && text.contains(expected), "{arguments:?}: {text}");
    };
    let refused = |arguments: &[&str], expected: &str| {
        let (success, text) = shell(&jars, folder.path(), arguments);
        assert!(!success && text.contains(expected), "{arguments:?}: {text}");
    };
    ok(&["-mkdir", "-p", &at("d/e")], "");
    ok(&["-put", local, &at("d/f")], "");
    refused(&["-put", local, &at("d/f")], "File exists");
    ok(&["-put", "-f", local, &at("d/f")], "");
    ok(&["-appendToFile", local, &at("d/f")], "");
    ok(&["-cat", &at("d/f")], "one\none\n");
    ok(&["-chmod", "640", &at("d/f")], "");
    ok(&["-ls", &at("d")], "-rw-r-----");
    ok(&["-mv", &at("d/f"), &at("d/e/g")], "");
    ok(
        &["-stat", "%u %b %F", &at("d/e/g")],
        &format!("{} 8 regular file", daemon.user()),
    );
    ok(&["-du", "-s", &at("d")], "8  8");
    ok(&["-count", &at("d")], "2            1                  8");
    ok(&["-checksum", &at("d/e/g")], "MD5-of-0MD5-of-512CRC32");
    ok(
        &[
            "-get",
            &at("d/e/g"),
            folder.path().join("back").to_str().unwrap(),
        ],
        "",
    );
    assert_eq!(
        std::fs::read_to_string(folder.path().join("back")).unwrap(),
        "one\none\n"
    );
    refused(&["-cat", &at("none")], "No such file or directory");
    refused(&["-rm", &at("d")], "Is a directory");
    ok(&["-rm", "-r", &at("d")], "Deleted");
    refused(&["-ls", &at("d")], "No such file or directory");
    daemon.stop();
}
