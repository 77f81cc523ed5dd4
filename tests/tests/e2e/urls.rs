//! Files that nodes fetch from web servers: `--files URL`, to the driver and to its executors.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use bobbin_tests::{Cluster, skip_without_root, wait_for};

const DATA: &str = "0123456789";
const SHA256: &str = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";

/// A web server: `/data.txt` for everybody, `/locked` for who has the token, `/slow` whose second half
/// waits until it is let go.
struct Web {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    let_go: Arc<(Mutex<bool>, Condvar)>,
}

impl Web {
    fn start() -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Web {
            port: listener.local_addr().unwrap().port(),
            seen: Arc::default(),
            let_go: Arc::default(),
        };
        let (seen, let_go) = (web.seen.clone(), web.let_go.clone());
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, let_go) = (seen.clone(), let_go.clone());
                std::thread::spawn(move || answer(&stream, &seen, &let_go));
            }
        });
        web
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    fn seen(&self, words: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|head| head.contains(words)).count()
    }
}

fn answer(stream: &TcpStream, seen: &Mutex<Vec<String>>, let_go: &(Mutex<bool>, Condvar)) {
    let head: Vec<String> = BufReader::new(stream)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let head = head.join("\n");
    seen.lock().unwrap().push(head.clone());
    let mut stream = stream;
    let mut say = |text: &str| drop(stream.write_all(text.as_bytes()));
    let is_locked = head.contains(" /locked ") && !head.contains("Bearer hush");
    if is_locked {
        say("HTTP/1.1 401 Unauthorized\r\ncontent-length: 7\r\n\r\nno key!");
        return;
    }
    say("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\netag: \"1\"\r\n\r\n");
    if head.starts_with("HEAD") {
        return;
    }
    say(&DATA[..5]);
    if head.contains(" /slow ") {
        let waiting = let_go.0.lock().unwrap();
        drop(let_go.1.wait_while(waiting, |is_free| !*is_free).unwrap());
    }
    say(&DATA[5..]);
}

/// Lets the nodes fetch from this host: that is the administrator's to say.
fn allow_localhost(cluster: &Cluster) {
    for entry in std::fs::read_dir(cluster.dir().join("conf"))
        .unwrap()
        .flatten()
    {
        let path = entry.path();
        // Beside the settings are the folders of tokens.
        let Ok(mut text) = std::fs::read_to_string(&path) else {
            continue;
        };
        if text.contains("[sandbox]") {
            text.push_str("\n[localizer]\nurl_hosts = [\"localhost\"]\n");
            std::fs::write(&path, text).unwrap();
        }
    }
    cluster.kill_daemons("node");
    cluster.up_again(1);
}

#[test]
fn nodes_fetch_urls_for_drivers_and_executors() {
    if skip_without_root("nodes_fetch_urls_for_drivers_and_executors") {
        return;
    }
    let (cluster, web) = (Cluster::up(1), Web::start());
    let small = ["--driver-memory", "32m", "--max-attempts", "1"];
    let submit = |files: &str, more: &[&str], script: &str| {
        let flags = [&small[..], &["--files", files], more].concat();
        cluster.submit(&flags, script)
    };
    // Whoever is trusted because of where it stands is not reached through a node.
    let refused = submit(&web.url("/data.txt"), &[], "true");
    assert_ne!(refused.code, 0);
    let words = &refused.stderr;
    assert!(
        words.contains("loopback") && words.contains("url_hosts"),
        "{words}"
    );
    assert_eq!(web.seen(""), 0);

    allow_localhost(&cluster);
    let named = format!("{}#in.txt&sha256={SHA256}", web.url("/data.txt?sig=hush"));
    let executors = ["--num-executors", "1", "--executor-memory", "32m"];
    let run = submit(
        &named,
        &executors,
        "cat in.txt; echo; echo x | bobbin map -- cat in.txt",
    );
    let run = run.expect_code(0);
    assert_eq!(
        run.stdout.trim(),
        format!("{DATA}\n{DATA}"),
        "{}",
        run.stderr
    );
    assert_eq!(web.seen("GET /data.txt"), 1, "one copy is enough");
    // The same by its digest from elsewhere: nobody is asked.
    let again = format!("http://elsewhere.invalid/x#in.txt&sha256={SHA256}");
    assert_eq!(
        submit(&again, &[], "cat in.txt").expect_code(0).stdout,
        DATA
    );

    let wrong = format!(
        "{}#sha256={}",
        web.url("/data.txt?sig=hush"),
        "0".repeat(64)
    );
    let run = submit(&wrong, &[], "true");
    assert_ne!(run.code, 0);
    assert!(run.stderr.contains("its SHA-256 is"), "{}", run.stderr);
    assert!(
        !run.stderr.contains("hush"),
        "a signature is nobody's: {}",
        run.stderr
    );
}

#[test]
fn progress_is_told_and_keys_are_not() {
    if skip_without_root("progress_is_told_and_keys_are_not") {
        return;
    }
    let (cluster, web) = (Cluster::up(1), Web::start());
    allow_localhost(&cluster);
    let small = ["--driver-memory", "32m", "--max-attempts", "1"];
    let slow = web.url("/slow");
    let id = cluster.submit_detached(&[&small[..], &["--files", &slow]].concat(), "cat slow");
    let waiting = wait_for("the progress to be told", 20, || {
        let status = cluster.status(&id);
        let waiting = status["waiting"].as_str().unwrap_or("").to_owned();
        if waiting.contains("fetching") {
            Ok(waiting)
        } else {
            Err(status.to_string())
        }
    });
    assert!(
        waiting.contains("fetching 'slow', 0 bytes of 10 bytes"),
        "{waiting}"
    );
    *web.let_go.0.lock().unwrap() = true;
    web.let_go.1.notify_all();
    let _ = cluster.wait_state(&id, "FINISHED");
    let log = cluster.run(&["app", "logs", &id]).expect_code(0);
    assert_eq!(log.stdout, DATA);

    let keys = cluster.dir().join("keys.toml");
    let entry = format!(
        "[[store]]\nurl = '{}'\nbearer_token = 'hush'\n",
        web.url("")
    );
    std::fs::write(&keys, entry).unwrap();
    let locked = web.url("/locked");
    let refused = cluster.submit(&[&small[..], &["--files", &locked]].concat(), "true");
    assert!(refused.stderr.contains("401"), "{}", refused.stderr);
    let keys = keys.to_str().unwrap();
    let flags = [&small[..], &["--files", &locked, "--object-store", keys]].concat();
    // As little as possible of its environment and words has it; its own secret folder does.
    let script = "cat locked; echo; env; cat /run/bobbin/secrets/object-store.toml | grep -c hush";
    let id = cluster.submit_detached(&flags, script);
    let _ = cluster.wait_state(&id, "FINISHED");
    let log = cluster.run(&["app", "logs", &id]).expect_code(0).stdout;
    assert!(
        log.starts_with(DATA) && log.trim_end().ends_with('1'),
        "{log}"
    );
    assert!(!log.contains("hush"), "{log}");
    assert!(!cluster.status(&id).to_string().contains("hush"));
    assert!(!cluster.daemon_logs().contains("hush"));
}
