use super::*;

use std::collections::VecDeque;
use std::sync::Mutex;

use bobbin_hadoop::credentials::Version;
use bobbin_hadoop::proto::common::Token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that gives scripted answers, one a connection, and keeps the heads that it got.
pub(crate) struct Scripted {
    pub(crate) address: String,
    answers: Arc<Mutex<VecDeque<String>>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub(crate) async fn start() -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = Arc::new(Mutex::new(VecDeque::<String>::new()));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (answers.clone(), heads.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                seen.lock().unwrap().push(String::from_utf8(head).unwrap());
                let answer = script.lock().unwrap().pop_front();
                stream
                    .write_all(answer.unwrap_or_default().as_bytes())
                    .await
                    .unwrap();
            }
        });
        Scripted {
            address,
            answers,
            heads,
        }
    }

    pub(crate) fn script(&self, answers: &[String]) {
        self.answers.lock().unwrap().extend(answers.iter().cloned());
    }

    /// The request lines so far, and whether all of them had the bearer token.
    pub(crate) fn seen(&self) -> (Vec<String>, bool) {
        let heads = self.heads.lock().unwrap();
        let lines = heads
            .iter()
            .map(|h| h.lines().next().unwrap().to_owned())
            .collect();
        let bearer = |h: &String| h.contains("authorization: Bearer secret\r\n");
        (lines, heads.iter().all(bearer))
    }
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn status_of(length: u64, time: u64, mode: &str) -> String {
    answer(
        "200 OK",
        &format!(
            "{{\"FileStatus\":{{\"length\":{length},\"modificationTime\":{time},\
             \"permission\":\"{mode}\",\"type\":\"FILE\",\"owner\":\"x\"}}}}"
        ),
    )
}

pub(crate) fn data(text: &str) -> String {
    answer("200 OK", text)
}

fn proof(credentials: &Credentials) -> Proof {
    Proof {
        user: "alice".to_owned(),
        container_token: "secret".into(),
        credentials: credentials.write(Version::Writable),
    }
}

fn expected(size: u64) -> Expected {
    Expected {
        size,
        mtime_ms: 77,
        sha256: Vec::new(),
        bytes_max: 1000,
        shown: String::new(),
    }
}

struct Outcome {
    result: Result<u64, FetchError>,
    content: String,
}

async fn fetch(trees: &Trees, source: &str, public: bool, size: u64) -> Outcome {
    let target = tempfile::NamedTempFile::new().unwrap();
    let place = Place::parse(source.strip_prefix("webhdfs:").unwrap()).unwrap();
    let file = target.reopen().unwrap();
    let proof = proof(&Credentials::default());
    let result = trees
        .fetch(
            (source, &place),
            &proof,
            public,
            (&expected(size), &Counter::default()),
            &file,
        )
        .await;
    Outcome {
        result,
        content: std::fs::read_to_string(target.path()).unwrap(),
    }
}

async fn bench() -> (Scripted, Trees, String) {
    let server = Scripted::start().await;
    let trees = Trees::new("127.0.0.1:8034", Vec::new());
    trees.set_own(&server.address);
    let port = server.address.rsplit_once(':').unwrap().1;
    // Another name of the same host.
    let source = format!("webhdfs://localhost:{port}/user/a b/f%1.zip");
    (server, trees, source)
}

#[tokio::test]
async fn the_managers_file_comes_with_the_containers_token() {
    let (server, trees, source) = bench().await;
    let good = status_of(5, 77, "600");
    server.script(&[good.clone(), data("hello"), good]);
    let outcome = fetch(&trees, &source, false, 5).await;
    assert_eq!(outcome.result.unwrap(), 5);
    assert_eq!(outcome.content, "hello");
    let (lines, bearer) = server.seen();
    assert!(bearer);
    let path = "/webhdfs/v1/user/a%20b/f%251.zip";
    assert_eq!(
        lines,
        [
            format!("GET {path}?op=GETFILESTATUS HTTP/1.1"),
            format!("GET {path}?op=OPEN HTTP/1.1"),
            format!("GET {path}?op=GETFILESTATUS HTTP/1.1"),
        ]
    );
}

#[tokio::test]
async fn a_file_that_changed_is_refused_in_yarns_words() {
    let (server, trees, source) = bench().await;
    let words = format!("Resource {source} changed on src filesystem - expected 77, was 78");
    server.script(&[status_of(5, 78, "600")]);
    let before = fetch(&trees, &source, false, 5).await;
    assert_eq!(before.result.unwrap_err().to_string(), words);
    server.script(&[
        status_of(5, 77, "600"),
        data("hello"),
        status_of(5, 78, "600"),
    ]);
    let meanwhile = fetch(&trees, &source, false, 5).await;
    assert_eq!(meanwhile.result.unwrap_err().to_string(), words);
    server.script(&[status_of(6, 77, "600")]);
    let size = fetch(&trees, &source, false, 5).await;
    assert!(matches!(
        size.result,
        Err(FetchError::Size { actual: 6, .. })
    ));
    server.script(&[status_of(1001, 77, "600")]);
    let large = fetch(&trees, &source, false, 0).await;
    assert!(matches!(large.result, Err(FetchError::TooLarge(1000))));
    server.script(&[answer(
        "404 Not Found",
        "{\"RemoteException\":{\"exception\":\"FileNotFoundException\",\"message\":\"gone\\n\"}}",
    )]);
    let gone = fetch(&trees, &source, false, 5).await;
    let words = gone.result.unwrap_err().to_string();
    assert!(words.contains("gone (status 404)"), "{words}");
}

#[tokio::test]
async fn public_means_everybody_may_read() {
    let (server, trees, source) = bench().await;
    let folder = |mode| status_of(0, 1, mode);
    let file = status_of(5, 77, "644");
    let all = [folder("755"), folder("711"), folder("755")];
    server.script(&[file.clone(), file.clone()]);
    server.script(&all);
    server.script(&[data("hello"), file.clone()]);
    assert_eq!(fetch(&trees, &source, true, 5).await.result.unwrap(), 5);
    for (script, named) in [
        (vec![status_of(5, 77, "640")], "/user/a b/f%1.zip"),
        (vec![file.clone(), folder("750")], "/user/a b"),
        (vec![file.clone(), folder("755"), folder("700")], "/user"),
    ] {
        server.script(std::slice::from_ref(&file));
        server.script(&script);
        match fetch(&trees, &source, true, 5).await.result {
            Err(FetchError::NotPublicThere(path)) => assert_eq!(path, named),
            other => unreachable!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_is_asked_again() {
    let (server, trees, source) = bench().await;
    let good = status_of(5, 77, "600");
    let broken = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nXXX".to_owned();
    let busy = answer("503 X", "{}");
    server.script(&[String::new(), busy, good.clone(), broken, good.clone()]);
    server.script(&[data("hello"), good]);
    let outcome = fetch(&trees, &source, false, 5).await;
    assert_eq!(outcome.result.unwrap(), 5);
    assert_eq!(outcome.content, "hello", "the first try left nothing");
}

#[tokio::test]
async fn it_goes_to_no_other_host() {
    let (server, trees, source) = bench().await;
    let other = Scripted::start().await;
    let good = status_of(5, 77, "600");
    let to = |address: &str| {
        format!("HTTP/1.1 307 X\r\nLocation: http://{address}/x?y\r\nContent-Length: 0\r\n\r\n")
    };
    server.script(&[
        good.clone(),
        to(&server.address),
        data("hello"),
        good.clone(),
    ]);
    assert_eq!(fetch(&trees, &source, false, 5).await.result.unwrap(), 5);
    server.script(&[good.clone(), to(&other.address)]);
    let words = fetch(&trees, &source, false, 5)
        .await
        .result
        .unwrap_err()
        .to_string();
    assert!(words.contains("it sends to another host"), "{words}");
    server.script(&[good]);
    server.script(&vec![to(&server.address); 9]);
    let words = fetch(&trees, &source, false, 5)
        .await
        .result
        .unwrap_err()
        .to_string();
    assert!(words.contains("more than 3 times"), "{words}");
    let elsewhere = format!("webhdfs://{}/x", other.address);
    let words = fetch(&trees, &elsewhere, false, 5)
        .await
        .result
        .unwrap_err()
        .to_string();
    assert!(words.contains("localizer.webhdfs_hosts"), "{words}");
    let nowhere = Trees::new("127.0.0.1:1", Vec::new());
    let words = fetch(&nowhere, &elsewhere, false, 5)
        .await
        .result
        .unwrap_err()
        .to_string();
    assert!(words.contains("has registered"), "{words}");
    assert_eq!(other.seen().0, Vec::<String>::new());
}

#[tokio::test]
async fn anothers_loopback_is_not_this_nodes() {
    let (server, _, source) = bench().await;
    let far = Trees::new("192.0.2.1:8034", Vec::new());
    far.set_own(&server.address);
    let outcome = fetch(&far, &source, false, 5).await;
    let words = outcome.result.unwrap_err().to_string();
    assert!(words.contains("set http.listen there"), "{words}");
    assert_eq!(server.seen().0, Vec::<String>::new());
}

#[tokio::test]
async fn the_manager_says_whose_a_token_is() {
    let (server, trees, _) = bench().await;
    server.script(&[data("{\"Path\":\"/user/ann\"}")]);
    assert_eq!(trees.user_of_token("secret").await.unwrap(), "ann");
    assert!(server.seen().1, "with that token");
    for bad in [
        answer("401 no", "no"),
        data("{}"),
        data("{\"Path\":\"/user/\"}"),
        data("{\"Path\":\"/x\"}"),
        String::new(),
    ] {
        server.script(&[bad]);
        assert!(trees.user_of_token("secret").await.is_err());
    }
    assert!(
        Trees::new("h:1", Vec::new())
            .user_of_token("x")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_named_host_gets_the_applications_own_token() {
    let server = Scripted::start().await;
    let trees = Trees::new("127.0.0.1:1", vec![server.address.clone()]);
    let place = Place::parse(&format!("//{}/x", server.address)).unwrap();
    let mut credentials = Credentials::default();
    let named = trees.server(&place, &proof(&credentials)).await.unwrap();
    assert_eq!(
        (named.query.as_str(), named.bearer),
        ("&user.name=alice", None)
    );
    for (kind, service) in [
        (TOKEN_KIND, "127.0.0.1:1"),
        ("YARN_AM_RM_TOKEN", &server.address),
        (TOKEN_KIND, &server.address),
    ] {
        credentials.tokens.push((
            "alias".to_owned(),
            Token {
                identifier: vec![1].into(),
                password: vec![2].into(),
                kind: kind.to_owned(),
                service: service.to_owned(),
            },
        ));
    }
    let named = trees.server(&place, &proof(&credentials)).await.unwrap();
    let text = named.query.strip_prefix("&delegation=").unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
    let mut form = vec![1, 1, 1, 2, 18];
    form.extend_from_slice(TOKEN_KIND.as_bytes());
    form.push(u8::try_from(server.address.len()).unwrap());
    form.extend_from_slice(server.address.as_bytes());
    assert_eq!(bytes, form);
    assert_eq!(named.bearer, None);
}

#[test]
fn an_address_that_binds_everything_is_the_managers_host() {
    let trees = Trees::new("rm.example:8034", Vec::new());
    for (said, kept) in [
        ("0.0.0.0:8088", "rm.example:8088"),
        ("[::]:8088", "rm.example:8088"),
        ("10.0.0.1:8088", "10.0.0.1:8088"),
    ] {
        trees.set_own(said);
        assert_eq!(*trees.own.read().unwrap(), kept);
    }
}
