//! YARN's REST, the pages for people and the metrics, over the real binary.

#![expect(
    clippy::unwrap_used,
    reason = "test code outside test functions: an error there ends the test"
)]

#[expect(
    clippy::panic,
    dead_code,
    unused_imports,
    reason = "test code outside test functions: an error there ends the test; shared support"
)]
mod support;

use bobbin_proto::v1;
use futures::StreamExt;
use serde_json::{Value, json};
use support::{Agent, Daemon, Master, soon, submission, wait_for_state};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| Value::String(self.body.clone()))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|l| l.split_once(": "));
        lines
            .into_iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// One request on its own connection; `extra` are further header lines, each with its line break.
async fn ask(address: &str, line: &str, extra: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let host = if extra.starts_with("Host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let request = format!(
        "{line} HTTP/1.1\r\n{host}{extra}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body,
    }
}

/// The content of a chunked body; texts here are ASCII.
fn unchunked(mut rest: &str) -> String {
    let mut content = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        content.push_str(&after[..length]);
        rest = &after[length + 2..];
    }
    content
}

async fn get(daemon: &Daemon, path: &str) -> Answer {
    let line = format!("GET /ws/v1/cluster{path}");
    ask(&daemon.http(), &line, "", "").await
}

async fn get_xml(daemon: &Daemon, path: &str) -> Answer {
    let line = format!("GET /ws/v1/cluster{path}");
    ask(&daemon.http(), &line, "Accept: application/xml\r\n", "").await
}

async fn send(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Answer {
    let line = format!("{method} /ws/v1/cluster{path}");
    let extra = "Content-Type: application/json\r\n";
    ask(&daemon.http(), &line, extra, &body.to_string()).await
}

fn exception(answer: &Answer) -> String {
    let value = answer.json();
    let exception = value["RemoteException"]["exception"].as_str();
    exception.unwrap_or("none").to_owned()
}

async fn token(daemon: &Daemon, user: &str) -> String {
    let subject = Some(v1::create_token_request::Subject::User(user.to_owned()));
    let request = v1::CreateTokenRequest {
        subject,
        ..Default::default()
    };
    let made = daemon.client().await.create_token(request).await.unwrap();
    made.into_inner().token
}

async fn unmanaged(daemon: &Daemon, name: &str) -> v1::SubmitApplicationResponse {
    let mut request = submission(name);
    request.unmanaged = true;
    request.launch = None;
    request.tags = vec!["nightly".to_owned()];
    let submitted = daemon.client().await.submit_application(request).await;
    submitted.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_and_its_nodes() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let empty = get(&daemon, "/nodes").await;
    assert_eq!(empty.body, r#"{"nodes":{}}"#);
    let _agent = Agent::attach(&daemon, &mut client, "h2:1235").await;

    for path in ["", "/", "/info"] {
        let info = get(&daemon, path).await;
        assert_eq!(info.status, 200);
        let started = info.json()["clusterInfo"]["startedOn"].as_u64().unwrap();
        assert!(started > 1_700_000_000_000, "{}", info.body);
        let kind = info.header("content-type").unwrap();
        assert_eq!(kind, "application/json;charset=utf-8");
    }
    let xml = get_xml(&daemon, "/info").await;
    assert!(xml.body.contains("<clusterInfo><id>"), "{}", xml.body);
    // Hadoop's command line begins so.
    let options = ask(&daemon.http(), "OPTIONS /ws/v1/cluster/info", "", "").await;
    assert_eq!((options.status, options.body.as_str()), (200, ""));
    let metrics = get(&daemon, "/metrics").await.json();
    assert_eq!(metrics["clusterMetrics"]["totalMB"], 4096);
    assert_eq!(metrics["clusterMetrics"]["activeNodes"], 1);
    let scheduler = get(&daemon, "/scheduler").await.json();
    let info = &scheduler["scheduler"]["schedulerInfo"];
    assert_eq!(info["queues"]["queue"][0]["queueName"], "default");
    let nodes = get(&daemon, "/nodes?states=running").await.json();
    assert_eq!(nodes["nodes"]["node"][0]["id"], "h2:1235");
    assert_eq!(
        get(&daemon, "/nodes?states=LOST").await.body,
        r#"{"nodes":{}}"#
    );
    assert_eq!(get(&daemon, "/nodes?state=BUSY").await.status, 400);
    let node = get(&daemon, "/nodes/h2:1235").await.json();
    assert_eq!(node["node"]["availMemoryMB"], 4096);
    let missing = get(&daemon, "/nodes/h3:1").await;
    assert_eq!(
        (missing.status, exception(&missing).as_str()),
        (404, "NotFoundException")
    );
    let user = get(&daemon, "/userinfo").await.json();
    assert_eq!(user["clusterUserInfo"]["requestedUser"], daemon.user());

    let metrics = ask(&daemon.http(), "GET /metrics", "", "").await;
    assert!(
        metrics
            .body
            .contains("bobbin_rm_nodes{state=\"running\"} 1")
    );
    let page = ask(&daemon.http(), "GET /", "", "").await;
    assert!(page.body.contains("h2:1235"), "{}", page.body);
    assert_eq!(page.header("x-frame-options"), Some("SAMEORIGIN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_from_submission_to_its_end() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let mut agent = Agent::attach(&daemon, &mut client, "h2:1235").await;
    assert_eq!(get(&daemon, "/apps").await.body, r#"{"apps":{}}"#);
    assert!(get_xml(&daemon, "/apps").await.body.ends_with("<apps/>"));

    let new = send(&daemon, "POST", "/apps/new-application", &json!({})).await;
    assert_eq!(new.status, 200, "{}", new.body);
    let new = new.json();
    assert_eq!(new["maximum-resource-capability"]["memory"], 4096);
    let id = new["application-id"].as_str().unwrap().to_owned();
    let context = json!({
        "application-id": id,
        "application-name": "<b>rest</b>",
        "am-container-spec": {"commands": {"command": "/bin/true"},
            "environment": {"entry": {"key": "A", "value": "{{B}}"}}},
        "resource": {"memory": 128, "vCores": 1},
        "application-type": "REST",
        "application-tags": {"tag": ["a", "b"]}
    });
    let submitted = send(&daemon, "POST", "/apps", &context).await;
    assert_eq!((submitted.status, submitted.body.as_str()), (202, ""));
    let place = format!("http://{}/ws/v1/cluster/apps/{id}", daemon.http());
    assert_eq!(submitted.header("location"), Some(place.as_str()));
    let start = agent.start_command().await;
    let launch = start.launch.unwrap();
    assert_eq!(launch.contract, v1::LaunchContract::Yarn as i32);
    assert_eq!(launch.environment["A"], "{{B}}");

    let app = get(&daemon, &format!("/apps/{id}")).await.json();
    assert_eq!(app["app"]["name"], "<b>rest</b>");
    assert_eq!(app["app"]["applicationTags"], "a,b");
    assert_eq!(app["app"]["runningContainers"], 1);
    let xml = get_xml(&daemon, &format!("/apps/{id}")).await;
    assert!(xml.body.contains("<name>&lt;b&gt;rest&lt;/b&gt;</name>"));
    let page = ask(&daemon.http(), &format!("GET /cluster/app/{id}"), "", "").await;
    assert!(page.body.contains("&lt;b&gt;rest&lt;/b&gt;") && !page.body.contains("<b>"));
    let attempts = get(&daemon, &format!("/apps/{id}/appattempts"))
        .await
        .json();
    let attempt = &attempts["appAttempts"]["appAttempt"][0];
    assert_eq!(attempt["nodeId"], "h2:1235");
    let attempt = attempt["appAttemptId"].as_str().unwrap();
    let base = format!("/apps/{id}/appattempts/{attempt}");
    let one = get(&daemon, &base).await.json();
    assert_eq!(one["appAttempt"]["appAttemptId"], attempt);
    let containers = get(&daemon, &format!("{base}/containers")).await.json();
    let container = &containers["containers"]["container"][0];
    assert_eq!(container["allocatedMB"], 128);
    let container = container["containerId"].as_str().unwrap();
    let one = get(&daemon, &format!("{base}/containers/{container}")).await;
    assert_eq!(one.json()["container"]["assignedNodeId"], "h2:1235");

    let signal = format!("/containers/{container}/signal");
    let sent = send(&daemon, "POST", &format!("{signal}/GO"), &json!({})).await;
    assert_eq!(sent.status, 400, "{}", sent.body);
    // The agent has not said that it runs.
    let sent = send(
        &daemon,
        "POST",
        &format!("{signal}/GRACEFUL_SHUTDOWN"),
        &json!({}),
    )
    .await;
    assert!(sent.body.contains("does not run"), "{}", sent.body);

    let path = format!("/apps/{id}/priority");
    let priority = send(&daemon, "PUT", &path, &json!({"priority": 8})).await;
    assert_eq!(
        (priority.status, priority.body.as_str()),
        (200, r#"{"priority":8}"#)
    );
    assert_eq!(get(&daemon, &path).await.body, r#"{"priority":8}"#);
    let queue = format!("/apps/{id}/queue");
    assert_eq!(get(&daemon, &queue).await.body, r#"{"queue":"default"}"#);
    let moved = send(&daemon, "PUT", &queue, &json!({"queue": "nowhere"})).await;
    assert_eq!(
        (moved.status, exception(&moved).as_str()),
        (400, "BadRequestException")
    );
    let timeout =
        json!({"timeout": {"type": "LIFETIME", "expiryTime": "2099-01-01T00:00:00.000Z"}});
    let set = send(&daemon, "PUT", &format!("/apps/{id}/timeout"), &timeout).await;
    assert_eq!(set.status, 200, "{}", set.body);
    let timeouts = get(&daemon, &format!("/apps/{id}/timeouts/LIFETIME"))
        .await
        .json();
    assert_eq!(
        timeouts["timeout"]["expiryTime"],
        "2099-01-01T00:00:00.000+0000"
    );

    let state = format!("/apps/{id}/state");
    assert_eq!(get(&daemon, &state).await.body, r#"{"state":"ACCEPTED"}"#);
    let running = send(&daemon, "PUT", &state, &json!({"state": "RUNNING"})).await;
    assert_eq!(
        running.json()["RemoteException"]["message"],
        "java.lang.Exception: Only 'KILLED' is allowed as a target state."
    );
    let killed = send(&daemon, "PUT", &state, &json!({"state": "KILLED"})).await;
    assert_eq!(killed.status, 202, "{}", killed.body);
    agent.stopped(container).await;
    agent.exited(container, -105).await;
    wait_for_state(&mut client, &id, "KILLED").await;
    let killed = send(&daemon, "PUT", &state, &json!({"state": "KILLED"})).await;
    assert_eq!(
        (killed.status, killed.body.as_str()),
        (200, r#"{"state":"KILLED"}"#)
    );
    let counts = get(
        &daemon,
        "/appstatistics?states=killed&applicationTypes=rest",
    )
    .await;
    assert_eq!(
        counts.body,
        r#"{"appStatInfo":{"statItem":[{"state":"KILLED","type":"rest","count":1}]}}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_comes_in_pages_and_is_filtered() {
    let daemon = Daemon::start();
    let names = futures::stream::iter(0..600).map(|n| {
        let daemon = &daemon;
        async move { unmanaged(daemon, &format!("app {n}")).await.application_id }
    });
    let mut ids: Vec<String> = names.buffer_unordered(32).collect().await;
    ids.sort_unstable();
    ids.reverse();
    let listed = |answer: &Answer| -> Vec<String> {
        let value = answer.json();
        let rows = value["apps"]["app"].as_array().cloned().unwrap_or_default();
        let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
        rows.iter().map(id).collect()
    };
    assert_eq!(listed(&get(&daemon, "/apps").await), ids);
    assert_eq!(listed(&get(&daemon, "/apps?limit=300").await), ids[..300]);
    let xml = get_xml(&daemon, "/apps").await;
    assert_eq!(xml.body.matches("<app>").count(), 600);
    assert!(xml.body.ends_with("</app></apps>"));
    for (filter, count) in [
        ("name=app%207", 1),
        ("applicationTags=NIGHTLY", 600),
        ("applicationTags=other", 0),
        ("applicationTypes=bobbin", 600),
        ("applicationTypes=SPARK", 0),
        ("states=FINISHED,FAILED", 0),
        ("finalStatus=UNDEFINED&queue=default", 600),
        ("user=somebody", 0),
        ("startedTimeBegin=1&startedTimeEnd=2", 0),
        ("finishedTimeBegin=1", 0),
    ] {
        let rows = listed(&get(&daemon, &format!("/apps?{filter}")).await);
        assert_eq!(rows.len(), count, "{filter}");
    }
    for wrong in [
        "queue=none",
        "limit=0",
        "states=BUSY",
        "deSelects=all",
        "user=a/b",
    ] {
        let answer = get(&daemon, &format!("/apps?{wrong}")).await;
        assert_eq!(
            (answer.status, exception(&answer).as_str()),
            (400, "BadRequestException")
        );
    }
    let page = ask(&daemon.http(), "GET /", "", "").await;
    assert!(page.body.contains(&format!("/?after={}", ids[99])));
    let next = ask(&daemon.http(), &format!("GET /?after={}", ids[99]), "", "").await;
    assert!(next.body.contains(&ids[100]) && !next.body.contains(&ids[99]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_unproven_and_no_other_user() {
    let daemon = Daemon::start();
    let id = unmanaged(&daemon, "mine").await.application_id;
    let address = daemon.http();
    let everything = [
        "GET /ws/v1/cluster/info".to_owned(),
        format!("PUT /ws/v1/cluster/apps/{id}/state"),
        "POST /ws/v1/cluster/apps/new-application".to_owned(),
        format!("GET /proxy/{id}/"),
        "GET /metrics".to_owned(),
        "GET /".to_owned(),
        "GET /nowhere".to_owned(),
    ];
    for line in &everything {
        for proof in [
            "Authorization: Bearer wrong\r\n",
            "Authorization: Basic cm9vdDpyb290\r\n",
            "Host: evil.example\r\n",
            "Origin: http://evil.example\r\n",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\n",
        ] {
            let answer = ask(&address, line, proof, "").await;
            assert_eq!(answer.status, 401, "{line} {proof}: {}", answer.body);
        }
    }
    let other = format!(
        "Authorization: Bearer {}\r\n",
        token(&daemon, "mallory").await
    );
    let list = ask(&address, "GET /ws/v1/cluster/apps", &other, "").await;
    assert_eq!(list.body, r#"{"apps":{}}"#);
    let app = ask(
        &address,
        &format!("GET /ws/v1/cluster/apps/{id}"),
        &other,
        "",
    )
    .await;
    assert_eq!(app.json()["app"]["startedTime"], 0);
    assert_eq!(app.json()["app"]["user"], daemon.user());
    let kill = format!("PUT /ws/v1/cluster/apps/{id}/state");
    let extra = format!("{other}Content-Type: application/json\r\n");
    let killed = ask(&address, &kill, &extra, r#"{"state":"KILLED"}"#).await;
    assert_eq!(
        (killed.status, exception(&killed).as_str()),
        (403, "ForbiddenException")
    );
    for path in ["state", "queue", "priority", "timeouts", "appattempts"] {
        let line = format!("GET /ws/v1/cluster/apps/{id}/{path}");
        assert_eq!(ask(&address, &line, &other, "").await.status, 403, "{path}");
    }
    for line in [
        format!("GET /proxy/{id}/"),
        format!("GET /cluster/app/{id}"),
    ] {
        assert_eq!(ask(&address, &line, &other, "").await.status, 403, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_or_not_offered_is_said_in_words() {
    let daemon = Daemon::start();
    let address = daemon.http();
    for (method, path, status, words) in [
        ("GET", "/nowhere", 404, "no such page"),
        ("DELETE", "/apps", 405, "GET, POST"),
        ("POST", "/info", 405, "GET"),
        ("GET", "/apps/new-application", 405, "POST"),
        ("GET", "/apps/application_1_0001", 404, "application_1_0001"),
        ("GET", "/apps/job_1", 400, "application id"),
        ("GET", "/scheduler/activities", 400, "bobbin app why"),
        ("POST", "/delegation-token", 400, "bobbin token create"),
        (
            "PUT",
            "/delegation-token/expiration",
            400,
            "bobbin token create",
        ),
        ("DELETE", "/delegation-token", 400, "bobbin token create"),
        ("POST", "/reservation/new-reservation", 400, "reservations"),
        ("GET", "/scheduler-conf", 400, "settings"),
        (
            "PUT",
            "/apps/application_1_0001/state",
            404,
            "application_1_0001",
        ),
    ] {
        let line = format!("{method} /ws/v1/cluster{path}");
        let answer = ask(&address, &line, "", "").await;
        assert_eq!(answer.status, status, "{line}: {}", answer.body);
        assert!(answer.body.contains(words), "{line}: {}", answer.body);
        assert!(answer.body.contains("RemoteException"), "{line}");
    }
    let line = "GET /ws/v1/cluster/nowhere";
    let xml = ask(&address, line, "Accept: application/xml\r\n", "").await;
    assert!(
        xml.body
            .contains("<RemoteException><exception>NotFoundException")
    );
    let text = ask(&address, line, "Accept: text/plain\r\n", "").await;
    assert_eq!(text.status, 406);
    let body = "POST /ws/v1/cluster/apps";
    assert_eq!(ask(&address, body, "", "x=1").await.status, 415);
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(5 << 20));
    let extra = "Content-Type: application/json\r\n";
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "{body} HTTP/1.1\r\nHost: {address}\r\n{extra}Content-Length: {}\r\n\r\n",
        huge.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The daemon answers before it has taken everything.
    let _ = stream.write_all(huge.as_bytes()).await;
    let mut start = [0; 12];
    soon("the answer", stream.read_exact(&mut start))
        .await
        .unwrap();
    assert_eq!(&start, b"HTTP/1.1 400");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_and_its_end_are_seen() {
    let daemon = Daemon::start();
    let submitted = unmanaged(&daemon, "seen").await;
    let mut master = Master::attach_at(&daemon, &submitted.attempt_token, "http://h:4040").await;
    let id = submitted.application_id;
    let app = get(&daemon, &format!("/apps/{id}")).await.json();
    assert_eq!(app["app"]["state"], "RUNNING");
    assert_eq!(app["app"]["trackingUI"], "ApplicationMaster");
    let proxy = format!("http://{}/proxy/{id}/", daemon.http());
    assert_eq!(app["app"]["trackingUrl"], proxy);
    master.finish().await;
    wait_for_state(&mut daemon.client().await, &id, "FINISHED").await;
    let app = get(&daemon, &format!("/apps/{id}?deSelects=appTimeouts"))
        .await
        .json();
    assert_eq!(app["app"]["finalStatus"], "SUCCEEDED");
    assert_eq!(app["app"]["trackingUI"], "History");
    assert_eq!(app["app"]["timeouts"], Value::Null);
}
