//! Applications' pages behind `/proxy`, over the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "test code outside test functions; a test starts the server that it tests against"
)]

#[expect(
    clippy::panic,
    dead_code,
    unused_imports,
    reason = "test code outside test functions: an error there ends the test; shared support"
)]
mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use support::{Agent, Daemon, Master, soon, submission, wait_for_state};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Asks for each of the addresses in its query, in all the ways that a script has.
const HOSTILE: &str = "<html><body><script>(async () => { const out = [];
for (const place of 'TARGETS'.split(',')) {
  for (const method of ['GET', 'POST']) {
    try { const got = await fetch(place, {method, signal: AbortSignal.timeout(1000)}); out.push(method + place + '=' + got.status); }
    catch (e) { out.push(method + place + '=refused'); }
  }
  out.push(await new Promise(done => { const frame = document.createElement('iframe');
    frame.onload = () => { let seen = 'hidden';
      try { seen = frame.contentDocument.body.innerText.slice(0, 40) } catch (e) {}
      done('FRAME' + place + '=' + seen); };
    setTimeout(() => done('FRAME' + place + '=refused'), 1000);
    frame.src = place; document.body.appendChild(frame); }));
}
document.body.innerText = 'DO' + 'NE ' + out.join(' ; '); })()</script></body></html>";

/// An application's page that answers by path and remembers what it was asked.
struct Page {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Page {
    async fn open() -> Page {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = asked.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, address, log.clone()));
            }
        });
        Page { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn last(&self) -> String {
        self.asked
            .lock()
            .unwrap()
            .last()
            .cloned()
            .unwrap_or_default()
    }
}

async fn serve(mut stream: TcpStream, own: SocketAddr, log: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        if let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut buffer).await.unwrap() {
            0 => return,
            length => request.extend_from_slice(&buffer[..length]),
        }
    };
    let head = String::from_utf8_lossy(&request[..end]).into_owned();
    let length: usize = head
        .lines()
        .filter_map(|l| l.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.parse().unwrap());
    while request.len() < end + length {
        let length = stream.read(&mut buffer).await.unwrap();
        request.extend_from_slice(&buffer[..length]);
    }
    let whole = String::from_utf8_lossy(&request).into_owned();
    log.lock().unwrap().push(whole);
    let path = head.split(' ').nth(1).unwrap();
    let answer = if path.starts_with("/moved") {
        format!("HTTP/1.1 302 Found\r\nLocation: http://{own}/jobs/\r\nContent-Length: 0\r\n\r\n")
    } else if let Some(id) = path.strip_prefix("/filtered/") {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: http://rm:8088/proxy/redirect/{id}/jobs\r\nContent-Length: 0\r\n\r\n"
        )
    } else if let Some(targets) = path.strip_prefix("/hostile?") {
        let page = HOSTILE.replace("TARGETS", targets);
        let length = page.len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
        )
    } else if path.starts_with("/mute") {
        return;
    } else if path.starts_with("/garbage") {
        "SSH-2.0-OpenSSH\r\n\r\n".to_owned()
    } else {
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a=b; Domain=localhost\r\n\
         Connection: close, X-Hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n"
            .to_owned()
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// One request on its own connection: status, head and the rest.
async fn ask(daemon: &Daemon, line: &str, headers: &str, body: &str) -> (u16, String, String) {
    let address = daemon.http();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let host = if headers.starts_with("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let request =
        format!("{line} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

async fn application(daemon: &Daemon) -> (String, String) {
    let mut request = submission("page");
    request.unmanaged = true;
    request.launch = None;
    let submitted = daemon.client().await.submit_application(request).await;
    let submitted = submitted.unwrap().into_inner();
    (submitted.application_id, submitted.attempt_token)
}

/// An application whose master registered `url`.
async fn running(daemon: &Daemon, url: &str) -> (String, Master) {
    let (id, token) = application(daemon).await;
    let master = Master::attach_at(daemon, &token, url).await;
    (id, master)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_forwarded_byte_for_byte() {
    let daemon = Daemon::start();
    let page = Page::open().await;
    let (id, _master) = running(&daemon, &page.url()).await;
    let line = format!("GET /proxy/{id}/a%2Fb%20c//x;y?q=%2F+&delegation=&z");
    let headers = "Accept: text/plain\r\nCookie: session=secret\r\nX-Secret: 1\r\n";
    let (status, head, body) = ask(&daemon, &line, headers, "").await;
    // An empty proof is one that proves nobody.
    assert_eq!(status, 401, "{head}{body}");
    let line = format!("GET /proxy/{id}/a%2Fb%20c//x;y?q=%2F+&z");
    let (status, head, body) = ask(&daemon, &line, headers, "").await;
    assert_eq!(status, 200, "{head}{body}");
    assert!(body.contains("hello"));
    assert!(
        !head.contains("set-cookie") && !head.contains("x-hop"),
        "{head}"
    );
    let asked = page.last();
    assert!(
        asked.starts_with("GET /a%2Fb%20c//x;y?q=%2F+&z HTTP/1.1\r\n"),
        "{asked}"
    );
    assert!(!asked.contains("secret") && !asked.to_lowercase().contains("x-secret"));
    assert!(
        asked.contains(&format!("proxy-user={}", daemon.user())),
        "{asked}"
    );
    assert!(
        asked.contains(&format!("host: {}", page.address)),
        "{asked}"
    );

    let line = format!("POST /proxy/{id}/stages/stage/kill/");
    let (status, _, _) = ask(&daemon, &line, "", "id=1&terminate=true").await;
    assert_eq!(status, 200);
    assert!(
        page.last().ends_with("\r\n\r\nid=1&terminate=true"),
        "{}",
        page.last()
    );
    let (status, _, body) = ask(&daemon, &format!("HEAD /proxy/{id}/"), "", "").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert_eq!(
        ask(&daemon, &format!("PUT /proxy/{id}/"), "", "x").await.0,
        405
    );

    let (status, head, _) = ask(&daemon, &format!("GET /proxy/{id}?a=b"), "", "").await;
    assert_eq!(status, 302);
    assert!(
        head.contains(&format!("location: /proxy/{id}/?a=b")),
        "{head}"
    );
    let (status, head, _) = ask(&daemon, &format!("GET /proxy/{id}/moved"), "", "").await;
    assert_eq!(status, 302);
    assert!(
        head.contains(&format!("location: /proxy/{id}/jobs/")),
        "{head}"
    );
    let line = format!("GET /proxy/redirect/{id}/jobs/");
    assert_eq!(ask(&daemon, &line, "", "").await.0, 200);
    assert!(page.last().starts_with("GET /jobs/ "), "{}", page.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn circles_and_broken_pages_end_in_words() {
    let daemon = Daemon::start();
    let page = Page::open().await;
    let (id, _master) = running(&daemon, &page.url()).await;
    let line = format!("GET /proxy/{id}/filtered/{id}");
    let (status, _, body) = ask(&daemon, &line, "", "").await;
    assert_eq!(status, 508);
    assert!(
        body.contains("yarn.resourcemanager.webapp.address"),
        "{body}"
    );
    let via = "Via: 1.1 bobbin-resourcemanager\r\n";
    assert_eq!(
        ask(&daemon, &format!("GET /proxy/{id}/"), via, "").await.0,
        508
    );
    for path in ["mute", "garbage"] {
        let (status, _, body) = ask(&daemon, &format!("GET /proxy/{id}/{path}"), "", "").await;
        assert_eq!(status, 502, "{body}");
    }
    for path in ["/proxy/", "/proxy/x/", "/proxy/application_1_0001/"] {
        assert_eq!(
            ask(&daemon, &format!("GET {path}"), "", "").await.0,
            404,
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_each_application_under_its_own_name() {
    let daemon = Daemon::start();
    let page = Page::open().await;
    let (id, _master) = running(&daemon, &page.url()).await;
    let port = daemon.http().rsplit_once(':').unwrap().1.to_owned();
    let own = format!("{}.localhost:{port}", id.replace('_', "-"));
    let navigation = "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n\
                      Sec-Fetch-Dest: document\r\nUser-Agent: Mozilla/5.0\r\n";
    let line = format!("GET /proxy/{id}/jobs/?a=b");
    let (status, head, _) = ask(&daemon, &line, navigation, "").await;
    assert_eq!(status, 302);
    let place = format!("location: http://{own}/proxy/{id}/jobs/?a=b");
    assert!(head.contains(&place), "{head}");
    // Some browsers do not say where they come from.
    let old = "User-Agent: Mozilla/4.0\r\n";
    assert_eq!(ask(&daemon, &line, old, "").await.0, 302);

    let there = format!("Host: {own}\r\n{navigation}");
    assert_eq!(ask(&daemon, &line, &there, "").await.0, 200);
    let part = format!("Host: {own}\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n");
    assert_eq!(ask(&daemon, &line, &part, "").await.0, 200);
    let form = format!("Host: {own}\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://{own}\r\n");
    let line = format!("POST /proxy/{id}/kill");
    assert_eq!(ask(&daemon, &line, &form, "id=1").await.0, 200);
    // A page under that name asks for anything else in vain.
    let other = application(&daemon).await.0;
    for path in [
        "/ws/v1/cluster/apps",
        "/webhdfs/v1/?op=LISTSTATUS",
        "/",
        &format!("/proxy/{other}/"),
    ] {
        assert_eq!(
            ask(&daemon, &format!("GET {path}"), &part, "").await.0,
            401,
            "{path}"
        );
    }
    // A link of another site is followed at once only if it is a mere address.
    let foreign = there.replace("Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site");
    let asked = page.asked.lock().unwrap().len();
    let line = format!("GET /proxy/{id}/jobs/job/kill/?id=0");
    let (status, _, body) = ask(&daemon, &line, &foreign, "").await;
    assert_eq!(status, 200);
    assert!(body.contains("another site"), "{body}");
    assert_eq!(page.asked.lock().unwrap().len(), asked);
    assert_eq!(
        ask(&daemon, &format!("GET /proxy/{id}/"), &foreign, "")
            .await
            .0,
        200
    );
    let framed = foreign.replace("document", "iframe");
    assert_eq!(
        ask(&daemon, &format!("GET /proxy/{id}/"), &framed, "")
            .await
            .0,
        401
    );
    let post = foreign.replace("none", "cross-site");
    assert_eq!(
        ask(&daemon, &format!("POST /proxy/{id}/"), &post, "x")
            .await
            .0,
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_applications_own_page_is_asked() {
    let daemon = Daemon::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    // An agent believes whoever its own user is.
    let agents = Page::open().await;
    let door = agents.address.to_string();
    let mut client = daemon.client().await;
    let _agent = Agent::attach_at(&daemon, &mut client, "127.0.0.1:1", &door).await;
    for (url, words) in [
        (agents.url(), "no application"),
        (format!("http://{}", daemon.http()), "no application"),
        (
            format!("http://{}", daemon.http().replace("127.0.0.1", "127.0.0.2")),
            "no application",
        ),
        (
            "http://169.254.169.254/latest/".to_owned(),
            "no application",
        ),
        ("http://[fe80::1]:80/".to_owned(), "no application"),
        ("http://0.0.0.0:22".to_owned(), "no application"),
        (format!("http://{closed}"), "nothing listens"),
        ("https://127.0.0.1:4440".to_owned(), "https"),
        ("ftp://127.0.0.1:21".to_owned(), "no http URL"),
        ("http://no-such-host.invalid:80".to_owned(), "no-such-host"),
    ] {
        let (id, _master) = running(&daemon, &url).await;
        let (status, _, body) = ask(&daemon, &format!("GET /proxy/{id}/"), "", "").await;
        assert_eq!(status, 502, "{url}: {body}");
        assert!(body.contains(words), "{url}: {body}");
    }
}

/// A server of another user, ended when dropped.
struct Foreign(std::process::Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_users_server_is_not_asked() {
    use std::os::unix::process::CommandExt as _;
    const PROGRAM: &str = "import socket,sys\ns=socket.socket()\ns.bind(('127.0.0.1',0))\n\
        s.listen()\nprint(s.getsockname()[1],flush=True)\ns.accept()\n";
    let started = std::process::Command::new("python3")
        .args(["-c", PROGRAM])
        .uid(54_321)
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        println!("SKIPPED: needs python3 and the right to change users");
        return;
    };
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    let _foreign = Foreign(child);
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let daemon = Daemon::start();
    let (id, _master) = running(&daemon, &format!("http://127.0.0.1:{}", line.trim())).await;
    let (status, _, body) = ask(&daemon, &format!("GET /proxy/{id}/"), "", "").await;
    assert_eq!(status, 502, "{body}");
    assert!(body.contains("not its own"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_and_after() {
    let daemon = Daemon::start();
    let page = Page::open().await;
    let (id, token) = application(&daemon).await;
    let line = format!("GET /proxy/{id}/jobs/");
    let (status, head, body) = ask(&daemon, &line, "", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("refresh: 5"), "{head}");
    assert!(body.contains("ACCEPTED"), "{body}");
    let mut master = Master::attach_at(&daemon, &token, &page.url()).await;
    assert_eq!(ask(&daemon, &line, "", "").await.0, 200);
    assert!(page.last().starts_with("GET /jobs/ "));
    master.finish().await;
    wait_for_state(&mut daemon.client().await, &id, "FINISHED").await;
    let (status, _, body) = ask(&daemon, &line, "", "").await;
    assert_eq!(status, 404);
    assert!(
        body.contains("has ended") && body.contains(&format!("/cluster/app/{id}")),
        "{body}"
    );
    // One without a page leads to what the resource manager knows.
    let (id, _master) = running(&daemon, "").await;
    let (status, head, _) = ask(&daemon, &format!("GET /proxy/{id}/"), "", "").await;
    assert_eq!(status, 302);
    assert!(head.contains(&format!("/cluster/app/{id}")), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_page_in_a_real_browser_sees_itself_only() {
    let daemon = Daemon::start();
    let page = Page::open().await;
    let (id, _master) = running(&daemon, &page.url()).await;
    let (other, _other) = running(&daemon, &page.url()).await;
    let door = daemon.http();
    let local = door.replace("127.0.0.1", "localhost");
    let targets = [
        format!("/proxy/{id}/own"),
        "/ws/v1/cluster/apps".to_owned(),
        format!("http://{local}/ws/v1/cluster/apps"),
        format!("http://{door}/ws/v1/cluster/apps/new-application"),
        format!("/proxy/{other}/"),
        format!("http://{local}/proxy/{other}/"),
        "/webhdfs/v1/?op=LISTSTATUS".to_owned(),
    ];
    let profile = tempfile::tempdir().unwrap();
    let url = format!("http://{door}/proxy/{id}/hostile?{}", targets.join(","));
    let run = tokio::process::Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--virtual-time-budget=60000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", &url])
        .kill_on_drop(true)
        .output();
    let Ok(run) = run.await else {
        println!("SKIPPED: needs chromium");
        return;
    };
    let shown = String::from_utf8_lossy(&run.stdout);
    assert!(shown.contains("DONE "), "{shown}");
    let seen = shown.split("DONE ").nth(1).unwrap();
    for (place, got) in seen.split(" ; ").filter_map(|one| one.rsplit_once('=')) {
        if place.ends_with("/own") {
            assert!(
                got.starts_with("200") || got.starts_with("hello"),
                "{place} {got}: {seen}"
            );
            continue;
        }
        let harmless = ["401", "403", "refused", "hidden", "without a token"];
        assert!(
            harmless.iter().any(|h| got.starts_with(h)),
            "{place} {got}: {seen}"
        );
    }
    assert_eq!(seen.split(" ; ").count(), 3 * targets.len(), "{seen}");
}
