use super::*;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

fn id() -> ContainerId {
    "container_e01_7_0001_01_000001".parse().unwrap()
}

struct Bench {
    dir: tempfile::TempDir,
    logs: Logs,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let folders =
            Arc::new(Folders::open(&dir.path().join("local"), &dir.path().join("log")).unwrap());
        let logs = Logs::new(folders, Arc::default(), "node1:1".into());
        std::fs::create_dir_all(
            dir.path()
                .join("log")
                .join(id().application().to_string())
                .join(id().to_string()),
        )
        .unwrap();
        Bench { dir, logs }
    }

    fn path(&self, file: &str) -> PathBuf {
        let folder = self
            .dir
            .path()
            .join("log")
            .join(id().application().to_string());
        folder.join(id().to_string()).join(file)
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    async fn read(&self, request: ReadRequest) -> Result<(String, bool), LogError> {
        let (out, mut chunks) = mpsc::channel(1);
        let logs = self.logs.clone();
        let reading = tokio::spawn(async move { logs.read(request, &out).await });
        let (mut text, mut end) = (String::new(), false);
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.unwrap();
            text.push_str(std::str::from_utf8(&chunk.data).unwrap());
            end = chunk.end;
        }
        reading.await.unwrap()?;
        Ok((text, end))
    }
}

fn request(file: &str) -> ReadRequest {
    ReadRequest {
        container: id(),
        file: file.to_owned(),
        offset: 0,
        tail_lines: None,
        follow: false,
        since_ms: 0,
    }
}

#[tokio::test]
async fn whole_offset_and_tail() {
    let bench = Bench::new();
    let text: String = (1..=50_000).map(|n| format!("line {n}\n")).collect();
    bench.write("stdout", &text);
    assert_eq!(
        bench.read(request("stdout")).await.unwrap(),
        (text.clone(), true)
    );
    let tail = |lines| ReadRequest {
        tail_lines: Some(lines),
        ..request("stdout")
    };
    assert_eq!(
        bench.read(tail(2)).await.unwrap().0,
        "line 49999\nline 50000\n"
    );
    assert_eq!(bench.read(tail(0)).await.unwrap().0, "");
    assert_eq!(bench.read(tail(1_000_000)).await.unwrap().0, text);
    let last = bench.read(tail(20_000)).await.unwrap().0;
    assert_eq!(last.lines().count(), 20_000);
    let offset = ReadRequest {
        offset: 7,
        ..request("stdout")
    };
    assert_eq!(bench.read(offset).await.unwrap().0, text[7..]);
    let since = ReadRequest {
        since_ms: u64::MAX,
        ..request("stdout")
    };
    assert_eq!(bench.read(since).await.unwrap().0, "");
    bench.write("partial", "a\nb");
    let partial = ReadRequest {
        tail_lines: Some(1),
        ..request("partial")
    };
    assert_eq!(bench.read(partial).await.unwrap().0, "b");
}

/// A container can make a file of terabytes that takes no room. Looking for its last line must
/// neither hold the agent's threads (it was LOST for the cluster) nor go on for nobody.
#[tokio::test]
async fn the_tail_of_an_endless_file_holds_nobody_up() {
    let bench = Bench::new();
    let length = 8 << 40;
    File::create(bench.path("endless"))
        .unwrap()
        .set_len(length)
        .unwrap();
    let tail = ReadRequest {
        tail_lines: Some(1),
        ..request("endless")
    };
    // This runtime has one thread: a search that held it would never see the client go.
    let (out, chunks) = mpsc::channel(1);
    let logs = bench.logs.clone();
    let reading = tokio::spawn(async move { logs.read(tail, &out).await });
    tokio::task::yield_now().await;
    drop(chunks);
    reading.await.unwrap().unwrap();
    // With a client that stays, it is given up far from the beginning.
    let reader = Reader {
        file: Arc::new(File::open(bench.path("endless")).unwrap()),
        offset: None,
        tail_readers: Arc::new(Semaphore::new(1)),
    };
    let (out, _chunks) = mpsc::channel(1);
    let start = reader
        .tail_offset((length, 8 << 20), 1, &out)
        .await
        .unwrap();
    assert_eq!(start, Some(length - (8 << 20)));
}

#[tokio::test]
async fn nothing_but_plain_files_is_read() {
    let bench = Bench::new();
    let secret = bench.dir.path().join("secret");
    std::fs::write(&secret, "foreign").unwrap();
    symlink(&secret, bench.path("link")).unwrap();
    symlink("stdout", bench.path("inner")).unwrap();
    std::fs::hard_link(&secret, bench.path("hard")).unwrap();
    std::fs::create_dir(bench.path("folder")).unwrap();
    nix::unistd::mkfifo(&bench.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    bench.write("stdout", "mine");
    for file in ["link", "inner", "hard", "folder", "fifo"] {
        let error = bench.read(request(file)).await.unwrap_err();
        assert!(
            matches!(error, LogError::NotPlain { .. }),
            "{file}: {error}"
        );
    }
    for file in [
        "",
        ".",
        "..",
        "../secret",
        "/etc/passwd",
        "a/b",
        "a\nb",
        &"x".repeat(256),
    ] {
        let error = bench.read(request(file)).await.unwrap_err();
        assert!(matches!(error, LogError::Name(_)), "{file}: {error}");
    }
    let error = bench.read(request("none")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has no log 'none' on node node1:1"),
        "{error}"
    );
    let listed = bench.logs.list(&id().application(), None).unwrap();
    assert_eq!(
        listed.iter().map(|l| l.file.as_str()).collect::<Vec<_>>(),
        ["stdout"]
    );
}

#[tokio::test]
async fn a_folder_swapped_for_a_link_is_not_followed() {
    let bench = Bench::new();
    let folder = bench.path("");
    let outside = bench.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("stdout"), "foreign").unwrap();
    std::fs::remove_dir(&folder).unwrap();
    symlink(&outside, folder.to_str().unwrap().trim_end_matches('/')).unwrap();
    let error = bench.read(request("stdout")).await.unwrap_err();
    assert!(matches!(error, LogError::NotPlain { .. }), "{error}");
}

#[tokio::test]
async fn following_sees_each_line_and_ends_with_the_container() {
    let bench = Bench::new();
    bench.logs.stages.set(id(), Stage::Running);
    let (out, mut chunks) = mpsc::channel(1);
    let logs = bench.logs.clone();
    let follow = ReadRequest {
        follow: true,
        ..request("stdout")
    };
    let reading = tokio::spawn(async move { logs.read(follow, &out).await });
    // The file comes after the following began.
    let mut file = std::fs::File::create(bench.path("stdout")).unwrap();
    let mut seen = String::new();
    for n in 0..20 {
        writeln!(file, "line {n}").unwrap();
        while !seen.contains(&format!("line {n}\n")) {
            let chunk = chunks.recv().await.unwrap().unwrap();
            assert_eq!(chunk.offset, seen.len() as u64);
            assert!(!chunk.end);
            seen.push_str(std::str::from_utf8(&chunk.data).unwrap());
        }
    }
    write!(file, "the end").unwrap();
    bench.logs.stages.forget(&id());
    let mut last = None;
    while let Some(chunk) = chunks.recv().await {
        let chunk = chunk.unwrap();
        seen.push_str(std::str::from_utf8(&chunk.data).unwrap());
        last = Some(chunk.end);
    }
    assert_eq!(last, Some(true));
    assert!(seen.ends_with("line 19\nthe end"));
    reading.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_following() {
    let bench = Bench::new();
    bench.logs.stages.set(id(), Stage::Preparing);
    let (out, chunks) = mpsc::channel(1);
    drop(chunks);
    let follow = ReadRequest {
        follow: true,
        ..request("stdout")
    };
    bench.logs.read(follow, &out).await.unwrap();
}

#[test]
fn diagnostics_get_the_last_lines() {
    let bench = Bench::new();
    assert_eq!(bench.logs.stderr_tail(&id()), "");
    bench.write("stderr", "one\ntwo\x1b[1m\n\n");
    assert_eq!(bench.logs.stderr_tail(&id()), "one\ntwo[1m");
    let long: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    bench.write("stderr", &long);
    let tail = bench.logs.stderr_tail(&id());
    assert!(tail.len() <= 4096 && tail.starts_with("line ") && tail.ends_with("line 999"));
}
