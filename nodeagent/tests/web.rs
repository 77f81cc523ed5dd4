//! The agent's HTTP door over the real program: YARN's shapes, logs as pages and as text, and who
//! may see them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    dead_code,
    unreachable_pub,
    reason = "test code outside test functions; a test asks as another user; shared support"
)]

mod common;

use bobbin_service::TokenKind;
use common::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
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

async fn ask(agent: &Agent, path: &str, extra: &str) -> Answer {
    let address = &agent.info.http;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{extra}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    tokio::time::timeout(std::time::Duration::from_secs(30), reading)
        .await
        .unwrap()
        .unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let raw = &answer[end + 4..];
    let chunked = head.contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(raw) } else { raw.to_vec() };
    Answer { status, head, body }
}

const ALL: &str = "printf '<b>bold</b> \\033[31m \\0 end\\n'; head -c 100000 /dev/zero | tr '\\0' x; \
     echo; echo last >&2";

/// A container that has printed `ALL` and waits to be let go.
async fn printed(rm: &mut Rm, agent: &Agent, id: &str) {
    let script = format!("{ALL}; touch $BOBBIN_SHARED_DIR/{id}; exec sleep 1000");
    rm.order(start(container_token(rm, agent, id), shell(&script)));
    rm.expect_started(id).await;
    let there = agent.shared(id);
    eventually("the container's output", || there.exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_shown_in_yarns_shapes() {
    if skip("the_node_is_shown_in_yarns_shapes") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    printed(&mut rm, &agent, &id).await;
    let node = &agent.info.node_id;
    let info = ask(&agent, "/ws/v1/node/info", "").await.json();
    let info = &info["nodeInfo"];
    assert_eq!(info["id"], **node);
    assert_eq!(info["nodeHostName"], "node1");
    assert_eq!(info["totalPmemAllocatedContainersMB"], 2048);
    assert_eq!(info["totalVCoresAllocatedContainers"], 8);
    assert_eq!(info["nodeHealthy"], true);
    assert_eq!(info["healthReport"], "");
    let xml = ask(&agent, "/ws/v1/node", "Accept: application/xml\r\n").await;
    assert!(xml.head.contains("application/xml"), "{}", xml.head);
    let begin =
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><nodeInfo><healthReport>"#;
    assert!(xml.text().starts_with(begin), "{}", xml.text());

    let apps = ask(&agent, "/ws/v1/node/apps", "").await.json();
    let app = json!({"id": "application_1700000000000_0001", "state": "RUNNING",
        "user": "nobody", "containerids": [id]});
    assert_eq!(apps, json!({"apps": {"app": [app]}}));
    let one = "/ws/v1/node/apps/application_1700000000000_0001";
    assert_eq!(ask(&agent, one, "").await.json(), json!({"app": app}));
    for (query, count) in [("?user=nobody", 1), ("?user=x", 0), ("?state=FINISHED", 0)] {
        let path = format!("/ws/v1/node/apps{query}");
        let apps = ask(&agent, &path, "").await.json();
        let found = apps["apps"]["app"].as_array().map_or(0, Vec::len);
        assert_eq!(found, count, "{query}: {apps}");
    }
    let link = format!("http://{}/node/containerlogs/{id}/nobody", agent.info.http);
    let shown = json!({"id": id, "state": "RUNNING", "exitCode": -1000, "diagnostics": "",
        "user": "nobody", "totalMemoryNeededMB": 128, "totalVCoresNeeded": 1,
        "executionType": "GUARANTEED", "containerLogsLink": link, "nodeId": node,
        "containerLogFiles": ["stderr", "stdout"]});
    let mut containers = ask(&agent, "/ws/v1/node/containers", "").await.json();
    let row = &mut containers["containers"]["container"][0];
    let mut names: Vec<String> = serde_json::from_value(row["containerLogFiles"].take()).unwrap();
    names.sort();
    row["containerLogFiles"] = json!(names);
    assert_eq!(containers, json!({"containers": {"container": [shown]}}));
    let one = ask(&agent, &format!("/ws/v1/node/containers/{id}"), "").await;
    assert_eq!(one.json()["container"]["state"], "RUNNING");
    let logs = ask(&agent, &format!("/ws/v1/node/containers/{id}/logs"), "").await;
    let logs = &logs.json()["containerLogsInfo"];
    assert_eq!(logs["containerLogInfo"][0]["fileName"], "stderr");
    assert_eq!(logs["containerLogInfo"][0]["fileSize"], "5");
    assert_eq!(logs["logAggregationType"], "LOCAL");

    let metrics = ask(&agent, "/metrics", "").await.text();
    for line in [
        "bobbin_node_memory_offered_mib 2048",
        "bobbin_node_memory_granted_mib 128",
        "bobbin_node_containers{phase=\"running\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{metrics}");
    }
    for (path, status, class) in [
        (
            "/ws/v1/node/containers/nonsense",
            400,
            "BadRequestException",
        ),
        (
            "/ws/v1/node/apps/application_1_0001",
            404,
            "NotFoundException",
        ),
        ("/ws/v1/node/apps?state=ODD", 400, "BadRequestException"),
        ("/ws/v1/node/apps?user=", 400, "BadRequestException"),
        ("/ws/v1/node/auxiliaryservices", 400, "BadRequestException"),
    ] {
        let refused = ask(&agent, path, "").await;
        assert_eq!(refused.status, status, "{path}");
        assert_eq!(
            refused.json()["RemoteException"]["exception"],
            class,
            "{path}"
        );
    }
    assert_eq!(ask(&agent, "/nothing", "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_pages_and_text_while_it_runs_and_after() {
    if skip("logs_are_pages_and_text_while_it_runs_and_after") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    printed(&mut rm, &agent, &id).await;
    let base = format!("/node/containerlogs/{id}/nobody");
    for round in ["runs", "ended"] {
        let list = ask(&agent, &base, "").await.text();
        let link =
            format!("<a href=\"{base}/stdout?start=-4096\">stdout : Total file length is 10002");
        assert!(list.contains(&link), "{round}: {list}");
        // As Spark's executor page links to it.
        let tail = ask(&agent, &format!("{base}/stdout?start=-4096"), "").await;
        assert!(
            tail.head
                .contains("content-security-policy: default-src 'none'")
        );
        let text = tail.text();
        assert!(text.contains("Showing 4096 bytes of 100025."));
        let shown = text.split_once("<pre>\n").unwrap().1;
        assert!(shown.starts_with(&format!("{}\n</pre>", "x".repeat(4095))));
        let whole = ask(&agent, &format!("{base}/stdout/?start=0"), "")
            .await
            .text();
        let escaped = "<pre>\n&lt;b&gt;bold&lt;/b&gt; \u{241b}[31m \u{2400} end\nxxx";
        assert!(whole.contains(escaped), "{}", &whole[..900]);
        assert!(whole.ends_with("x\n</pre></body></html>\n"));
        assert!(!whole.contains("Showing"));
        let part = ask(&agent, &format!("{base}/stdout?start=3&end=7"), "").await;
        assert!(part.text().contains("<pre>\nbold</pre>"), "{}", part.text());

        let path = format!("/ws/v1/node/containerlogs/{id}/stderr");
        let plain = ask(&agent, &path, "").await;
        let running = if round == "runs" {
            format!(
                "This log file belongs to a running container ({id}) and so may not be complete."
            )
        } else {
            String::new()
        };
        let stars = "*".repeat(21 + 50);
        let end = format!("LogContents:\nlast\nEnd of LogType:stderr.{running}\n{stars}\n\n");
        assert!(plain.text().ends_with(&end), "{}", plain.text());
        assert!(
            plain
                .text()
                .starts_with(&format!("Container: {id} on node1:"))
        );
        let some = ask(&agent, &format!("{path}?size=-3&format=octet-stream"), "").await;
        assert!(
            some.text().contains("LogContents:\nst\nEnd of"),
            "{}",
            some.text()
        );
        assert!(some.head.contains("application/octet-stream"));
        if round == "runs" {
            let master = token(&rm, &agent, TokenKind::AmNode, |claims| {
                claims.attempt = "appattempt_1700000000000_0001_000001".into();
            });
            let kill = agent.manage(Some(&master)).await.unwrap();
            kill.stop(&id).await;
            rm.expect_exit(&id).await;
            rm.order(acknowledge(&id));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_of_the_node_can_be_read() {
    if skip("nothing_else_of_the_node_can_be_read") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    let script = "cd $BOBBIN_LOG_DIR && ln -s /etc/shadow link && mkfifo fifo && mkdir folder && \
         echo x > \"$(printf 'a<b\\033')\" && echo two > 'two words'";
    rm.order(start(container_token(&rm, &agent, &id), shell(script)));
    assert_eq!(rm.expect_exit(&id).await.exit_status, Some(0));
    let base = format!("/node/containerlogs/{id}/nobody");
    let list = ask(&agent, &base, "").await.text();
    for hidden in ["link", "fifo", "folder", "a&lt;b"] {
        assert!(!list.contains(&format!(">{hidden}")), "{list}");
    }
    let two = ask(&agent, &format!("{base}/two%20words"), "").await;
    assert!(two.text().contains("<pre>\ntwo\n</pre>"), "{}", two.text());
    let rest = format!("/ws/v1/node/containerlogs/{id}");
    for (path, status) in [
        (format!("{base}/link"), 400),
        (format!("{base}/fifo"), 400),
        (format!("{base}/folder"), 400),
        (format!("{base}/none"), 404),
        (format!("{base}/.."), 400),
        (format!("{base}/%2e%2e"), 400),
        (format!("{base}/..%2f..%2f..%2fetc%2fpasswd"), 400),
        (format!("{base}/a%00b"), 400),
        (format!("{base}/a%0Ab"), 400),
        (format!("{base}/{}", "x".repeat(300)), 400),
        (format!("{base}/stdout?start=x"), 400),
        (format!("{base}/stdout?start=99"), 400),
        (format!("{rest}/..%2fstdout"), 400),
        (format!("{rest}/stdout?format=html"), 400),
        (format!("{rest}/stdout?size=1e9"), 400),
        (format!("/node/containerlogs/{}/nobody", container(9)), 404),
        ("/node/containerlogs/..%2f..%2fx/nobody".to_owned(), 400),
        (format!("{base}/%FF"), 400),
    ] {
        let answer = ask(&agent, &path, "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(!answer.text().contains("root:"), "{path}");
    }
}

/// The same question asked through a socket of another user.
fn as_user(agent: &Agent, uid: u32, path: &str) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/{}; printf 'GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n\
         Connection: close\\r\\n\\r\\n' >&3; cat <&3",
        agent.info.http.replace(':', "/")
    );
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
    let output = std::process::Command::new("setpriv")
        .args(ids)
        .args(["--clear-groups", "bash", "-c", &script])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sees_his_own_and_an_administrator_all() {
    if skip("each_sees_his_own_and_an_administrator_all") {
        return;
    }
    let (mut rm, agent) = pair().await;
    let id = container(1);
    printed(&mut rm, &agent, &id).await;
    let page = format!("/node/containerlogs/{id}/nobody/stderr");
    let text = format!("/ws/v1/node/containerlogs/{id}/stderr");
    let files = format!("/ws/v1/node/containers/{id}/logs");
    for path in [&page, &text, &files] {
        assert!(
            as_user(&agent, 65_534, path).starts_with("HTTP/1.1 200"),
            "{path}"
        );
        let refused = as_user(&agent, 1, path);
        assert!(refused.starts_with("HTTP/1.1 403"), "{path}: {refused}");
        assert!(
            refused.contains("only its user and administrators may"),
            "{refused}"
        );
        assert!(!refused.contains("last"));
    }
    let shown = as_user(&agent, 1, "/ws/v1/node/containers");
    assert!(!shown.contains(&id), "{shown}");
    assert!(as_user(&agent, 65_534, "/ws/v1/node/containers").contains(&id));
    assert!(as_user(&agent, 1, &format!("/ws/v1/node/containers/{id}")).contains(" 404 "));
    assert!(as_user(&agent, 1, "/ws/v1/node/info").contains("nodeInfo"));
    assert!(as_user(&agent, 4_000_000_001, "/ws/v1/node/info").starts_with("HTTP/1.1 401"));

    // Tokens count more than the socket, which is root's here.
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let relay = |application: &'static str| {
        token(&rm, &agent, TokenKind::Relay, |c| {
            c.application = application.into()
        })
    };
    let own = bearer(&relay("application_1700000000000_0001"));
    assert_eq!(ask(&agent, &page, &own).await.status, 200);
    let other = bearer(&relay("application_1700000000000_0002"));
    assert_eq!(ask(&agent, &page, &other).await.status, 403);
    let itself = bearer(&container_token(&rm, &agent, &id));
    assert_eq!(ask(&agent, &page, &itself).await.status, 200);
    let neighbor = bearer(&container_token(&rm, &agent, &container(2)));
    assert_eq!(ask(&agent, &page, &neighbor).await.status, 403);
    for made_up in ["nonsense", "bobbin1.e30.AAAA"] {
        let refused = ask(&agent, &page, &bearer(made_up)).await;
        assert_eq!(refused.status, 401, "{made_up}: {}", refused.text());
    }
    // A page of another site may not ask; a link on it may lead here.
    let origin = "Origin: http://evil.example\r\n";
    assert_eq!(ask(&agent, &page, origin).await.status, 401);
    let image =
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
    assert_eq!(ask(&agent, &page, image).await.status, 401);
    let link =
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(ask(&agent, &page, link).await.status, 200);
    let mut stream = TcpStream::connect(&agent.info.http).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}
