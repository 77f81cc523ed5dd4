//! WebHDFS over the real binary: as a plain HTTP client, and as Hadoop's own file system shell.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test code outside test functions; a test starts the clients that it tests against"
)]

#[expect(
    clippy::panic,
    dead_code,
    unused_imports,
    reason = "test code outside test functions: an error there ends the test; shared support"
)]
#[path = "../support/mod.rs"]
mod support;

mod shell;

use std::process::Command;

use bobbin_proto::v1;
use bobbin_service::{Claims, TokenKind};
use bobbin_types::WallMillis;
use support::{Agent, Daemon, soon, started, submission};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request on its own connection: status and everything after the head, and the head.
async fn ask(address: &str, head: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The daemon may answer and close before it has taken everything.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    soon("the answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = answer.split_off(end + 4);
    if head.contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    (status, head, body)
}

/// Takes chunked pieces apart.
fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = raw.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&raw[..at]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        body.extend_from_slice(&raw[at + 2..at + 2 + size]);
        raw = &raw[at + 4 + size..];
    }
    body
}

async fn call(address: &str, method: &str, path: &str, extra: &str, body: &[u8]) -> (u16, String) {
    let head = format!("{method} /webhdfs/v1{path} HTTP/1.1\r\nHost: {address}{extra}");
    let (status, head, body) = ask(address, &head, body).await;
    if status == 307 {
        return (status, head);
    }
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn json(address: &str, method: &str, path: &str) -> (u16, serde_json::Value) {
    let (status, text) = call(address, method, path, "", b"").await;
    let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
    (status, value)
}

/// Both steps of CREATE or APPEND.
async fn put(address: &str, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let (status, head) = call(address, method, path, "", b"").await;
    if status != 307 {
        return (status, head);
    }
    let location = head
        .lines()
        .find_map(|l| l.strip_prefix("location: "))
        .unwrap();
    let path = location
        .strip_prefix(&format!("http://{address}/webhdfs/v1"))
        .unwrap();
    call(address, method, path, "", body).await
}

fn exception(value: &serde_json::Value) -> &str {
    value["RemoteException"]["exception"]
        .as_str()
        .unwrap_or("none")
}

#[tokio::test(flavor = "multi_thread")]
async fn files_live_and_survive_a_kill() {
    let mut daemon = Daemon::start();
    let address = daemon.http();
    let home = format!("/user/{}", daemon.user());
    let file = format!("{home}/a/b%20c");
    let created = put(
        &address,
        "PUT",
        &format!("{file}?op=CREATE&permission=640"),
        b"hello",
    )
    .await;
    assert_eq!(created.0, 201, "{created:?}");
    let appended = put(&address, "POST", &format!("{file}?op=APPEND"), b" world").await;
    assert_eq!(appended.0, 200, "{appended:?}");
    let again = put(&address, "PUT", &format!("{file}?op=CREATE"), b"x").await;
    assert_eq!(again.0, 403);
    assert!(
        again.1.contains("FileAlreadyExistsException"),
        "{}",
        again.1
    );
    let set = format!("{file}?op=SETTIMES&modificationtime=1700000000123&accesstime=-1");
    assert_eq!(call(&address, "PUT", &set, "", b"").await.0, 200);

    daemon.kill_and_start();
    let address = daemon.http();
    let (status, value) = json(&address, "GET", &format!("{file}?op=GETFILESTATUS")).await;
    assert_eq!(status, 200, "{value}");
    let entry = &value["FileStatus"];
    assert_eq!(entry["owner"], daemon.user());
    assert_eq!(entry["permission"], "640");
    assert_eq!(entry["length"], 11);
    assert_eq!(entry["modificationTime"], 1_700_000_000_123_u64);
    let part = call(
        &address,
        "GET",
        &format!("{file}?op=OPEN&offset=6&length=3"),
        "",
        b"",
    )
    .await;
    assert_eq!(part, (200, "wor".to_owned()));
    let (_, listed) = json(&address, "GET", &format!("{home}/a?op=LISTSTATUS")).await;
    assert_eq!(listed["FileStatuses"]["FileStatus"][0]["pathSuffix"], "b c");
    let moved = format!("{file}?op=RENAME&destination={home}/d");
    assert_eq!(json(&address, "PUT", &moved).await.1["boolean"], true);
    let (status, value) = json(&address, "GET", &format!("{file}?op=OPEN")).await;
    assert_eq!((status, exception(&value)), (404, "FileNotFoundException"));
    let delete = format!("{home}/a?op=DELETE&recursive=true");
    assert_eq!(json(&address, "DELETE", &delete).await.1["boolean"], true);
    assert_eq!(json(&address, "DELETE", &delete).await.1["boolean"], false);
    let (_, value) = json(
        &address,
        "PUT",
        &format!("{home}/x?op=CREATE&noredirect=true"),
    )
    .await;
    let location = value["Location"].as_str().unwrap();
    assert!(
        location.ends_with("op=CREATE&data=true&made=true"),
        "{location}"
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proves_nobody_gets_nothing() {
    let daemon = Daemon::start();
    let address = daemon.http();
    let question = "/?op=LISTSTATUS";
    let evil = format!("GET /webhdfs/v1{question} HTTP/1.1\r\nHost: evil.example");
    let (status, head, _) = ask(&address, &evil, b"").await;
    assert_eq!(status, 401);
    assert!(
        head.lines().next().unwrap().contains("bobbin token create"),
        "{head}"
    );
    let page = call(
        &address,
        "GET",
        question,
        "\r\nOrigin: http://localhost",
        b"",
    )
    .await;
    assert_eq!(page.0, 401);
    let wrong = call(
        &address,
        "GET",
        question,
        "\r\nAuthorization: Bearer bobbin1.e30.AAAA",
        b"",
    )
    .await;
    assert_eq!(wrong.0, 401);
    assert!(
        wrong.1.contains("SecretManager$InvalidToken"),
        "{}",
        wrong.1
    );
    let wrong = call(&address, "GET", "/?op=LISTSTATUS&delegation=AAAA", "", b"").await;
    assert_eq!(wrong.0, 401);
    // A stated name changes nothing: the home is the socket owner's.
    let (_, home) = json(&address, "GET", "/?op=GETHOMEDIRECTORY&user.name=somebody").await;
    assert_eq!(home["Path"], format!("/user/{}", daemon.user()));
    // A token counts more than the socket; it cannot make another one.
    let (_, value) = json(&address, "GET", "/?op=GETDELEGATIONTOKEN").await;
    let token = value["Token"]["urlString"].as_str().unwrap().to_owned();
    let with = |op: &str| format!("/?op={op}&delegation={token}");
    let (_, home) = json(&address, "GET", &with("GETHOMEDIRECTORY")).await;
    assert_eq!(home["Path"], format!("/user/{}", daemon.user()));
    let (status, value) = json(&address, "GET", &with("GETDELEGATIONTOKEN")).await;
    assert_eq!((status, exception(&value)), (403, "AccessControlException"));
    let renew = format!("/?op=RENEWDELEGATIONTOKEN&token={token}");
    assert!(json(&address, "PUT", &renew).await.1["long"].is_u64());
    // No token of root's administers.
    let (status, value) = json(&address, "PUT", &with("MKDIRS").replace("/?", "/x?")).await;
    assert_eq!((status, exception(&value)), (403, "AccessControlException"));
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_token_is_nobodys_from_then_on() {
    let mut daemon = Daemon::start();
    let address = daemon.http();
    let token = async || {
        let (_, value) = json(&address, "GET", "/?op=GETDELEGATIONTOKEN&renewer=yarn").await;
        value["Token"]["urlString"].as_str().unwrap().to_owned()
    };
    let (gone, other) = (token().await, daemon_token(&daemon, "alice").await);
    let home = |token: &str| format!("/?op=GETHOMEDIRECTORY&delegation={token}");
    let cancel = |token: &str| format!("/?op=CANCELDELEGATIONTOKEN&token={token}");
    assert_eq!(json(&address, "GET", &home(&gone)).await.0, 200);
    // Alice's own token cancels nobody else's.
    let as_alice = format!("{}&delegation={other}", cancel(&gone));
    let (status, value) = json(&address, "PUT", &as_alice).await;
    assert_eq!((status, exception(&value)), (403, "AccessControlException"));
    assert_eq!(json(&address, "PUT", &cancel("AAAA")).await.0, 401);
    assert_eq!(json(&address, "PUT", &cancel(&gone)).await.0, 200);
    for _ in 0..2 {
        let address = daemon.http();
        let (status, value) = json(&address, "GET", &home(&gone)).await;
        assert_eq!(
            (status, exception(&value)),
            (401, "SecretManager$InvalidToken")
        );
        let words = value["RemoteException"]["message"].as_str().unwrap();
        assert!(words.contains("canceled"), "{words}");
        assert_eq!(json(&address, "GET", &home(&other)).await.0, 200);
        // Twice is as good as once; renewing does not bring it back.
        assert_eq!(json(&address, "PUT", &cancel(&gone)).await.0, 401);
        daemon.kill_and_start();
    }
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_acts_for_others_as_they_are() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let daemon = Daemon::start();
    let address = daemon.http();
    let file = "/user/daemon/f?op=CREATE&permission=600&doas=daemon&user.name=root";
    assert_eq!(put(&address, "PUT", file, b"daemon's").await.0, 201);
    let (_, value) = json(&address, "GET", "/user/daemon/f?op=GETFILESTATUS").await;
    assert_eq!(value["FileStatus"]["owner"], "daemon");
    let (_, home) = json(&address, "GET", "/?op=GETHOMEDIRECTORY&doas=daemon").await;
    assert_eq!(home["Path"], "/user/daemon");
    // As daemon he may no more than daemon.
    put(&address, "PUT", "/user/nobody/s?op=CREATE", b"secret").await;
    let (status, value) = json(&address, "GET", "/user/nobody/s?op=OPEN&doas=daemon").await;
    assert_eq!((status, exception(&value)), (403, "AccessControlException"));
    // Others act for nobody, and a token for its own user only.
    let alice = daemon_token(&daemon, "alice").await;
    for (user, status) in [("alice", 200), ("daemon", 403)] {
        let path = format!("/?op=GETHOMEDIRECTORY&delegation={alice}&doas={user}");
        assert_eq!(json(&address, "GET", &path).await.0, status, "{user}");
    }
    daemon.stop();
}

/// A token of a user, in Bobbin's own form.
async fn daemon_token(daemon: &Daemon, user: &str) -> String {
    let request = v1::CreateTokenRequest {
        subject: Some(v1::create_token_request::Subject::User(user.to_owned())),
        valid_ms: 600_000,
        ..v1::CreateTokenRequest::default()
    };
    let made = daemon.client().await.create_token(request).await.unwrap();
    made.into_inner().token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_while_it_is_written_and_keeps_what_came() {
    let daemon = Daemon::start();
    let address = daemon.http();
    let path = format!("/user/{}/logs/app.inprogress", daemon.user());
    let head = format!(
        "PUT /webhdfs/v1{path}?op=CREATE&data=true&permission=660 HTTP/1.1\r\nHost: {address}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    let mut writing = TcpStream::connect(&address).await.unwrap();
    writing.write_all(head.as_bytes()).await.unwrap();
    let mut sent = String::new();
    for line in ["one\n", "two\n", "three\n"] {
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        writing.write_all(chunk.as_bytes()).await.unwrap();
        sent.push_str(line);
        let seen = async {
            loop {
                let (status, text) =
                    call(&address, "GET", &format!("{path}?op=OPEN"), "", b"").await;
                if status == 200 && text == sent {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        soon("what was written", seen).await;
        // Others go on meanwhile, large changes too.
        let folder = format!("/user/{}/d/e?op=MKDIRS", daemon.user());
        assert_eq!(json(&address, "PUT", &folder).await.1["boolean"], true);
        let folder = format!("/user/{}/d?op=DELETE&recursive=true", daemon.user());
        assert_eq!(json(&address, "DELETE", &folder).await.1["boolean"], true);
        let (_, sum) = json(&address, "GET", "/user?op=GETCONTENTSUMMARY").await;
        assert_eq!(sum["ContentSummary"]["length"], sent.len());
    }
    let (_, value) = json(&address, "GET", &format!("{path}?op=GETFILESTATUS")).await;
    assert_eq!(value["FileStatus"]["length"], sent.len());
    let refused = put(&address, "POST", &format!("{path}?op=APPEND"), b"x").await;
    assert!(
        refused.1.contains("AlreadyBeingCreatedException"),
        "{refused:?}"
    );
    // Its driver dies in the middle of a chunk.
    writing.write_all(b"ff\r\nhalf").await.unwrap();
    drop(writing);
    let appended = async {
        while put(&address, "POST", &format!("{path}?op=APPEND"), b"|")
            .await
            .0
            != 200
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the writer", appended).await;
    let (_, text) = call(&address, "GET", &format!("{path}?op=OPEN"), "", b"").await;
    assert!(text.starts_with(&sent) && text.ends_with('|'), "{text}");
    let to = format!(
        "{path}?op=RENAME&destination=/user/{}/logs/app",
        daemon.user()
    );
    assert_eq!(json(&address, "PUT", &to).await.1["boolean"], true);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_created_file_is_there_before_its_data() {
    let daemon = Daemon::start();
    let address = daemon.http();
    let path = format!("/user/{}/log", daemon.user());
    let create = format!("{path}?op=CREATE&overwrite=false&permission=600");
    let (status, head) = call(&address, "PUT", &create, "", b"").await;
    assert_eq!(status, 307, "{head}");
    // What a client asks that does not wait for its second step.
    let mode = format!("{path}?op=SETPERMISSION&permission=660");
    assert_eq!(call(&address, "PUT", &mode, "", b"").await.0, 200);
    let location = head
        .lines()
        .find_map(|l| l.strip_prefix("location: "))
        .unwrap();
    let step = location
        .strip_prefix(&format!("http://{address}/webhdfs/v1"))
        .unwrap();
    // The second step may be tried again: what came of the first try is replaced.
    for data in [b"half".as_slice(), b"whole"] {
        assert_eq!(call(&address, "PUT", step, "", data).await.0, 201);
    }
    let (_, text) = call(&address, "GET", &format!("{path}?op=OPEN"), "", b"").await;
    assert_eq!(text, "whole");
    let again = put(&address, "PUT", &create, b"x").await;
    assert!(again.1.contains("FileAlreadyExistsException"), "{again:?}");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_typed_answer() {
    let daemon = Daemon::start();
    let address = daemon.http();
    let long = "x".repeat(256);
    for (method, path, status, class) in [
        (
            "GET",
            "/tmp/../x?op=OPEN",
            400,
            "HadoopIllegalArgumentException",
        ),
        (
            "GET",
            "/tmp/%2e%2e/x?op=OPEN",
            400,
            "HadoopIllegalArgumentException",
        ),
        (
            "PUT",
            "/tmp/a%00b?op=CREATE",
            400,
            "HadoopIllegalArgumentException",
        ),
        (
            "PUT",
            "/tmp/a%0Ab?op=CREATE",
            400,
            "HadoopIllegalArgumentException",
        ),
        (
            "PUT",
            &format!("/tmp/{long}?op=MKDIRS"),
            400,
            "HadoopIllegalArgumentException",
        ),
        ("GET", "/tmp?op=NONSENSE", 400, "IllegalArgumentException"),
        ("GET", "/tmp", 400, "IllegalArgumentException"),
        (
            "GET",
            "/tmp?op=OPEN&offset=-1",
            404,
            "FileNotFoundException",
        ),
        ("GET", "/none?op=OPEN", 404, "FileNotFoundException"),
        (
            "PUT",
            "/tmp?op=SETPERMISSION&permission=9",
            400,
            "IllegalArgumentException",
        ),
        (
            "PUT",
            "/tmp/x?op=RENAME&destination=../x",
            400,
            "HadoopIllegalArgumentException",
        ),
        (
            "POST",
            "/tmp/x?op=CONCAT",
            400,
            "UnsupportedOperationException",
        ),
        (
            "DELETE",
            "/tmp?op=DELETE&recursive=true",
            403,
            "AccessControlException",
        ),
        (
            "GET",
            "/tmp?op=LISTSTATUS&doas=../x",
            403,
            "AuthorizationException",
        ),
    ] {
        let (got, value) = json(&address, method, path).await;
        let expected = if path.contains("offset=-1") {
            (400, "IllegalArgumentException")
        } else {
            (status, class)
        };
        assert_eq!(
            (got, exception(&value)),
            expected,
            "{method} {path}: {value}"
        );
    }
    // Rubbish and heads without end cost their own connection only.
    for bytes in [
        vec![0xA5_u8; 4096],
        [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 200_000]].concat(),
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut answer)).await;
    }
    assert_eq!(json(&address, "GET", "/tmp?op=LISTSTATUS").await.0, 200);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_held_to_the_modes() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let daemon = Daemon::start();
    let address = daemon.http();
    assert_eq!(
        put(&address, "PUT", "/user/nobody/s?op=CREATE", b"secret")
            .await
            .0,
        201
    );
    // The account daemon (uid 1) asks through its own socket.
    let script = format!(
        "exec 3<>/dev/tcp/{}; printf 'GET /webhdfs/v1/user/nobody/s?op=OPEN&user.name=nobody \
         HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3",
        address.replace(':', "/")
    );
    let output = run(Command::new("setpriv").args([
        "--reuid=1",
        "--regid=1",
        "--clear-groups",
        "bash",
        "-c",
        &script,
    ]));
    assert!(output.contains("403"), "{output}");
    assert!(output.contains("user=daemon, access=EXECUTE"), "{output}");
    assert!(!output.contains("secret"), "{output}");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_streams() {
    let daemon = Daemon::start();
    let address = daemon.http();
    let content: Vec<u8> = (0..40_u32 << 20).map(|n| n.to_le_bytes()[1]).collect();
    assert_eq!(
        put(&address, "PUT", "/tmp/big?op=CREATE", &content).await.0,
        201
    );
    let head = format!("GET /webhdfs/v1/tmp/big?op=OPEN HTTP/1.1\r\nHost: {address}");
    let (status, _, got) = ask(&address, &head, b"").await;
    assert!(status == 200 && got == content);
    assert!(
        daemon.peak_memory_kib() < 120 << 10,
        "{}",
        daemon.peak_memory_kib()
    );
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_token_reads_as_its_applications_user_while_it_lives() {
    let mut daemon = Daemon::start();
    let address = daemon.http();
    let home = format!("/user/{}", daemon.user());
    let file = format!("{home}/.sparkStaging/a/lib.zip");
    for (path, body) in [(&file, b"the zip".as_slice()), (&"/tmp/x".to_owned(), b"x")] {
        let path = format!("{path}?op=CREATE&permission=600");
        assert_eq!(put(&address, "PUT", &path, body).await.0, 201);
    }
    let chmod = format!("{home}/.sparkStaging?op=SETPERMISSION&permission=700");
    assert_eq!(call(&address, "PUT", &chmod, "", b"").await.0, 200);
    let mut client = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut client, "h1:1").await;
    client.submit_application(submission("app")).await.unwrap();
    let start = agent.start_command().await;
    let bearer = format!("\r\nAuthorization: Bearer {}", start.container_token);
    let with = async |method: &str, path: &str, extra: &str| {
        let (status, text) = call(&address, method, path, extra, b"").await;
        let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::Null);
        (status, exception(&value).to_owned(), text)
    };
    let open = format!("{file}?op=OPEN");
    let opened = with("GET", &open, &bearer).await;
    assert_eq!((opened.0, opened.2.as_str()), (200, "the zip"));
    let status = with("GET", &format!("{file}?op=GETFILESTATUS"), &bearer).await;
    assert_eq!(status.0, 200);
    // It changes nothing, and makes no token.
    for (method, path) in [
        ("PUT", format!("{home}/new?op=CREATE")),
        ("DELETE", format!("{file}?op=DELETE")),
        ("PUT", format!("{home}/new?op=MKDIRS")),
        ("GET", "/?op=GETDELEGATIONTOKEN".to_owned()),
    ] {
        let refused = with(method, &path, &bearer).await;
        assert_eq!(
            (refused.0, refused.1.as_str()),
            (403, "AccessControlException"),
            "{path}"
        );
    }
    // A node's key opens nobody's files but those of its own living containers.
    let mut claims = Claims::new(TokenKind::Container, WallMillis(u64::MAX));
    claims.container = started(&start);
    for (node, container, status) in [
        ("h1:1", started(&start), 200),
        ("h2:1", started(&start), 403),
        ("h1:1", started(&start).replace("_000001", "_000009"), 403),
    ] {
        claims.node = node.to_owned();
        claims.container = container;
        let token = daemon.secret().for_node(node).mint(&claims);
        let extra = format!("\r\nAuthorization: Bearer {token}");
        assert_eq!(with("GET", &open, &extra).await.0, status, "{claims:?}");
    }
    agent.exited(&started(&start), 1).await;
    let second = agent.start_command().await;
    let ended = with("GET", &open, &bearer).await;
    assert_eq!(
        (ended.0, ended.1.as_str()),
        (403, "AccessControlException"),
        "{}",
        ended.2
    );
    assert!(ended.2.contains("does not live on the node"), "{}", ended.2);
    let lives = format!("\r\nAuthorization: Bearer {}", second.container_token);
    assert_eq!(with("GET", &open, &lives).await.0, 200);
    // After a restart the master's is on record; of others nothing is known until their node is
    // back, so the agent is told to ask again.
    daemon.kill_and_start();
    let address = daemon.http();
    claims.container = started(&start).replace("_000001", "_000009");
    claims.node = "h1:1".to_owned();
    let unknown = daemon.secret().for_node("h1:1").mint(&claims);
    let unknown = format!("\r\nAuthorization: Bearer {unknown}");
    let after = async |extra: &str| call(&address, "GET", &open, extra, b"").await;
    let early = after(&unknown).await;
    assert_eq!(early.0, 503, "{}", early.1);
    assert!(early.1.contains("RetriableException"), "{}", early.1);
    agent
        .attach_again(&daemon, &[started(&second).as_str()])
        .await;
    let back = async {
        while after(&unknown).await.0 != 403 {
            tokio::task::yield_now().await;
        }
    };
    soon("the node's word about its containers", back).await;
    assert_eq!(after(&lives).await.0, 200);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_any_size_is_listed() {
    let daemon = Daemon::start();
    let address = daemon.http();
    let folder = format!("/user/{}/many", daemon.user());
    let of = async |path: &str| json(&address, "GET", &format!("{path}?op=LISTSTATUS")).await;
    let names = |value: &serde_json::Value| -> Vec<String> {
        let rows = value["FileStatuses"]["FileStatus"].as_array().unwrap();
        let names = rows.iter().map(|row| row["pathSuffix"].as_str().unwrap());
        names.map(str::to_owned).collect()
    };
    json(&address, "PUT", &format!("{folder}?op=MKDIRS")).await;
    assert_eq!(names(&of(&folder).await.1), Vec::<String>::new());
    let disk = daemon.lib().join("files").join(&folder[1..]);
    for n in 0..2_500 {
        std::fs::write(disk.join(format!("{n:05}")), "").unwrap();
    }
    let (status, value) = of(&folder).await;
    assert_eq!(status, 200);
    let expected: Vec<String> = (0..2_500).map(|n| format!("{n:05}")).collect();
    assert_eq!(names(&value), expected);
    assert_eq!(names(&of(&format!("{folder}/00007")).await.1), [""]);
    let (status, value) = of(&format!("{folder}/none")).await;
    assert_eq!((status, exception(&value)), (404, "FileNotFoundException"));
    daemon.stop();
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
