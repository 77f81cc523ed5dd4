use super::*;
use std::collections::VecDeque;
use std::time::Duration;

use crate::fetch::Expected;
use sha2::Digest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use transfer::{Counter, transfer};
use transport::Waits;

mod real;

/// Nothing is waited for long.
pub(crate) fn remote(allowed: &[&str]) -> Remote {
    with_file(allowed, PathBuf::new(), PathBuf::new())
}

fn with_file(allowed: &[&str], credentials: PathBuf, ca_file: PathBuf) -> Remote {
    let allowed = allowed.iter().map(|host| AllowedHost::parse(host).unwrap());
    let gate = Gate::new(allowed.collect(), Vec::new(), "192.0.2.7:1".to_owned());
    let waits = Waits {
        idle: Duration::from_millis(500),
        ..Waits::default()
    };
    let transport = Transport::new(ca_file, waits);
    Remote::new(gate, transport, credentials, patience())
}

fn patience() -> Patience {
    Patience {
        tries: 4,
        time: Duration::from_secs(20),
        pause: Duration::ZERO,
        progress_bytes: 1000,
    }
}

/// What a server does after it has read a request; then it closes.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Say(String),
    /// Chunks of a body until nobody listens.
    Endless,
    /// Nothing more, until the other side is gone.
    Hang,
}

/// A server that says what it is told to, connection by connection.
pub(crate) struct Liar {
    pub(crate) address: String,
    script: Arc<Mutex<VecDeque<Vec<Part>>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

pub(crate) fn say(text: &str) -> Vec<Part> {
    vec![Part::Say(text.to_owned())]
}

/// An answer with its length and more headers.
pub(crate) fn whole(headers: &str, body: &str) -> Vec<Part> {
    say(&format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    ))
}

impl Liar {
    pub(crate) async fn start() -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let liar = Liar {
            address: listener.local_addr().unwrap().to_string(),
            script: Arc::default(),
            requests: Arc::default(),
        };
        let (script, requests) = (liar.script.clone(), liar.requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script.clone(), requests.clone()));
            }
        });
        liar
    }

    /// With TLS, and the certificate to trust.
    async fn start_tls() -> (Liar, String) {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = key.cert.pem();
        let chain = vec![key.cert.der().clone()];
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, private.unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let liar = Liar {
            address: format!("localhost:{port}"),
            script: Arc::default(),
            requests: Arc::default(),
        };
        let (script, requests) = (liar.script.clone(), liar.requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, requests) = (script.clone(), requests.clone());
                let greeting = acceptor.accept(stream);
                tokio::spawn(async move {
                    if let Ok(stream) = greeting.await {
                        serve(stream, script, requests).await;
                    }
                });
            }
        });
        (liar, certificate)
    }

    pub(crate) fn script(&self, answers: &[Vec<Part>]) {
        self.requests.lock().unwrap().clear();
        *self.script.lock().unwrap() = answers.iter().cloned().collect();
    }

    /// The requests' heads since the script was given.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/f", self.address)
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Arc<Mutex<VecDeque<Vec<Part>>>>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    requests.lock().unwrap().push(head);
    let over = || say("HTTP/1.1 410 Gone\r\ncontent-length: 18\r\n\r\nthe script is over");
    let answer = script.lock().unwrap().pop_front().unwrap_or_else(over);
    for part in answer {
        match part {
            Part::Say(text) => drop(stream.write_all(text.as_bytes()).await),
            Part::Endless => {
                let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            }
            Part::Hang => drop(stream.read(&mut [0; 1]).await),
        }
    }
    drop(stream.shutdown().await);
}

fn expected() -> Expected {
    Expected {
        size: 0,
        mtime_ms: 0,
        sha256: Vec::new(),
        bytes_max: 1 << 20,
        shown: "it".to_owned(),
    }
}

struct Outcome {
    result: Result<u64, String>,
    content: String,
    counter: (u64, u64),
}

impl Outcome {
    #[track_caller]
    fn refused(&self, words: &str) {
        let refused = self.result.as_ref().unwrap_err();
        assert!(refused.contains(words), "'{words}' in: {refused}");
    }
}

/// Fetches a source as the agent does; of one without digest its server is asked first if `looks`.
async fn fetch_as(remote: &Remote, source: &str, own: &str, expected: &Expected) -> Outcome {
    let target = tempfile::NamedTempFile::new().unwrap();
    let counter = Arc::new(Counter::default());
    let fetching = async {
        let place = RemotePlace::parse(source)?.expect("a remote source");
        let file = remote.file(&place, "anna", own.as_bytes()).await?;
        let to = target.reopen().unwrap();
        let counted = (expected, &counter);
        transfer(&file.origin, None, counted, &to, remote.patience).await
    };
    let result = fetching.await.map_err(|e| crate::launch::chain(&e));
    Outcome {
        result,
        content: std::fs::read_to_string(target.path()).unwrap(),
        counter: counter.get(),
    }
}

async fn fetch(liar: &Liar, expected: &Expected) -> Outcome {
    let remote = remote(&[&liar.address]);
    fetch_as(&remote, &liar.url(), "", expected).await
}

#[tokio::test]
async fn whole_files_come_in_every_framing() {
    let liar = Liar::start().await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
    for answer in [
        whole("", "abcd"),
        say(chunked),
        say("HTTP/1.0 200 OK\r\n\r\nabcd"),
    ] {
        liar.script(&[answer]);
        let outcome = fetch(&liar, &expected()).await;
        assert_eq!((outcome.result, outcome.content.as_str()), (Ok(4), "abcd"));
    }
    liar.script(&[whole("", "")]);
    assert_eq!(fetch(&liar, &expected()).await.result, Ok(0));
    let request = liar.seen().remove(0).to_ascii_lowercase();
    assert!(request.starts_with("get /f http/1.1\r\n"), "{request}");
    assert!(request.contains("accept-encoding: identity"), "{request}");
    assert!(!request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let liar = Liar::start().await;
    let cut = say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"a\"\r\n\r\n0123");
    let rest = |range: &str, etag: &str, body: &str| {
        say(&format!(
            "HTTP/1.1 206 Partial\r\ncontent-length: {}\r\netag: {etag}\r\ncontent-range: {range}\r\n\r\n{body}",
            body.len()
        ))
    };
    let good = rest("bytes 4-9/10", "\"a\"", "456789");
    let half = say(
        "HTTP/1.1 206 Partial\r\ncontent-length: 6\r\netag: \"a\"\r\ncontent-range: bytes 4-9/10\r\n\r\n45",
    );
    liar.script(&[cut.clone(), half, rest("bytes 6-9/10", "\"a\"", "6789")]);
    let sha256 = sha2::Sha256::digest(b"0123456789").to_vec();
    let digest = Expected {
        sha256,
        ..expected()
    };
    let outcome = fetch(&liar, &digest).await;
    assert_eq!(
        (outcome.result, outcome.content.as_str()),
        (Ok(10), "0123456789")
    );
    assert_eq!(outcome.counter, (10, 10));
    let seen = liar.seen();
    assert!(
        seen[1].contains("range: bytes=4-\r\nif-range: \"a\""),
        "{}",
        seen[1]
    );
    assert!(seen[2].contains("range: bytes=6-"), "{}", seen[2]);
    // A server that begins again.
    liar.script(&[cut.clone(), whole("etag: \"a\"\r\n", "0123456789")]);
    assert_eq!(fetch(&liar, &digest).await.result, Ok(10));
    // One that is silent in the middle.
    let mut silent = cut.clone();
    silent.push(Part::Hang);
    liar.script(&[silent, good]);
    assert_eq!(fetch(&liar, &digest).await.result, Ok(10));
    for (answer, words) in [
        (rest("bytes 4-9/10", "\"b\"", "456789"), "was changed"),
        (rest("bytes 4-10/11", "\"a\"", "456789x"), "was changed"),
        (rest("bytes 3-9/10", "\"a\"", "3456789"), "sends others"),
        (rest("bytes 4-5/10", "\"a\"", "45"), "sends others"),
        (
            rest("bytes 4-9/10", "\"a\"", "456789abc"),
            "more bytes than it announced",
        ),
        (whole("etag: \"b\"\r\n", "abcdefghij"), "was changed"),
        (
            say("HTTP/1.1 416 No\r\ncontent-length: 0\r\n\r\n"),
            "was changed",
        ),
    ] {
        liar.script(&[cut.clone(), answer]);
        fetch(&liar, &expected()).await.refused(words);
    }
}

#[tokio::test]
async fn tries_are_bounded() {
    let liar = Liar::start().await;
    let cut = say("HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"a\"\r\n\r\n0123");
    let nothing = say(
        "HTTP/1.1 206 P\r\ncontent-length: 6\r\netag: \"a\"\r\ncontent-range: bytes 4-9/10\r\n\r\n",
    );
    liar.script(&[&[cut][..], &vec![nothing; 20]].concat());
    fetch(&liar, &expected())
        .await
        .refused("4 bytes so far, given up after 4 tries");
    assert_eq!(liar.seen().len(), 4);
    // Without a tag the rest may belong to another file: it comes whole, or not at all.
    let big = "x".repeat(1500);
    let cut = say(&format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n{big}"
    ));
    liar.script(&vec![cut; 20]);
    let outcome = fetch(&liar, &expected()).await;
    assert!(outcome.result.is_err());
    assert!(liar.seen().len() <= 6, "{}", liar.seen().len());
    assert!(liar.seen().iter().all(|head| !head.contains("range")));
    // A server that is too busy for a moment, and one that says no.
    let busy = say("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nlate");
    liar.script(&[busy.clone(), whole("", "abcd")]);
    assert_eq!(fetch(&liar, &expected()).await.result, Ok(4));
    liar.script(&vec![busy; 20]);
    fetch(&liar, &expected())
        .await
        .refused("503 Service Unavailable late");
    liar.script(&[say("HTTP/1.1 403 No\r\n\r\n<p>\u{7}no\nway</p>")]);
    fetch(&liar, &expected())
        .await
        .refused("its server says: 403 Forbidden <p>no way</p>");
    assert_eq!(liar.seen().len(), 1);
    // Nobody is there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let url = format!("http://{address}/x");
    let outcome = fetch_as(&remote(&[&address]), &url, "", &expected()).await;
    outcome.refused("refused");
}

#[tokio::test]
async fn lengths_digests_and_endless_bodies() {
    let liar = Liar::start().await;
    let of = |change: fn(&mut Expected)| {
        let mut changed = expected();
        change(&mut changed);
        changed
    };
    liar.script(&[whole("", "abcd")]);
    fetch(&liar, &of(|e| e.size = 5))
        .await
        .refused("has 4 bytes, 5 were expected");
    liar.script(&[whole("", "abcd")]);
    fetch(&liar, &of(|e| e.sha256 = vec![7; 32]))
        .await
        .refused("its SHA-256 is 88d4");
    liar.script(&[whole("", "abcd")]);
    fetch(&liar, &of(|e| e.mtime_ms = 5))
        .await
        .refused("expected 5, was 0");
    liar.script(&[whole(
        "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "abcd",
    )]);
    let dated = fetch(&liar, &of(|e| e.mtime_ms = 784_111_777_000)).await;
    assert_eq!(dated.result, Ok(4));
    let announced = "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\n";
    liar.script(&[vec![Part::Say(announced.into()), Part::Hang]]);
    fetch(&liar, &expected())
        .await
        .refused("more than the 1048576 bytes");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    liar.script(&[vec![Part::Say(chunked.into()), Part::Endless]]);
    let endless = fetch(&liar, &expected()).await;
    endless.refused("more than the 1048576 bytes");
    assert!(endless.content.len() <= 1 << 20);
    // The head is bounded too.
    let head = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(2 << 20));
    liar.script(&vec![say(&head); 9]);
    assert!(fetch(&liar, &expected()).await.result.is_err());
}

#[tokio::test]
async fn redirects_are_judged_like_the_first_url() {
    let liar = Liar::start().await;
    let to = |location: &str| {
        say(&format!(
            "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        ))
    };
    let port = liar.address.rsplit(':').next().unwrap().to_owned();
    liar.script(&[
        to("/other?a=b"),
        to(&format!("http://127.0.0.1:{port}/x")),
        whole("", "abcd"),
    ]);
    assert_eq!(fetch(&liar, &expected()).await.result, Ok(4));
    assert!(liar.seen()[1].starts_with("GET /other?a=b HTTP"));
    for (location, words) in [
        ("file:/etc/shadow", "a file: URL"),
        ("ftp://127.0.0.1/x", "a ftp: URL"),
        ("gopher://127.0.0.1/x", "gopher"),
        ("http://127.0.0.1:1/x", "loopback"),
        ("http://localhost:8088/x", "loopback"),
        ("http://[::1]/x", "loopback"),
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://0.0.0.0:8042/x", "unspecified"),
        ("http://192.0.2.7/x", "resource manager"),
        ("http://u:p@h/x", "user name or password"),
        ("http://", "not to a URL"),
    ] {
        liar.script(&[to(location)]);
        fetch(&liar, &expected()).await.refused(words);
        assert_eq!(liar.seen().len(), 1, "{location}");
    }
    liar.script(&[say("HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n")]);
    fetch(&liar, &expected()).await.refused("not where to");
    liar.script(&vec![to("/f"); 20]);
    fetch(&liar, &expected()).await.refused("more than 5 times");
    assert_eq!(liar.seen().len(), 6);
}

#[tokio::test]
async fn credentials_go_to_their_own_host_only() {
    let (liar, other) = (Liar::start().await, Liar::start().await);
    let remote = remote(&[&liar.address, &other.address]);
    let own = format!(
        "[[store]]\nurl = 'http://{}'\nbearer_token = 'hush'\n",
        liar.address
    );
    let to = |location: String| {
        say(&format!(
            "HTTP/1.1 307 T\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n"
        ))
    };
    liar.script(&[to("/again".to_owned()), to(other.url())]);
    other.script(&[to(liar.url())]);
    let outcome = fetch_as(&remote, &liar.url(), &own, &expected()).await;
    outcome.refused("410");
    let shows = |head: &String| head.contains("authorization: Bearer hush");
    assert!(liar.seen().iter().all(shows), "{:?}", liar.seen());
    assert_eq!((liar.seen().len(), other.seen().len()), (3, 1));
    assert!(!other.seen()[0].contains("hush"), "{:?}", other.seen());
    // Neither does a secret that cannot be read show itself.
    let bad = fetch_as(&remote, &liar.url(), "[[store]]\nurl = 'hush", &expected()).await;
    bad.refused("object store credentials: line");
    assert!(!bad.result.unwrap_err().contains("hush"));
}

#[tokio::test]
async fn https_is_trusted_by_certificate_and_never_left() {
    let (secure, certificate) = Liar::start_tls().await;
    let plain = Liar::start().await;
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, certificate).unwrap();
    let allowed = [secure.address.as_str(), &plain.address];
    let trusting = with_file(&allowed, PathBuf::new(), ca_file.clone());
    let url = format!("https://{}/f", secure.address);
    secure.script(&[whole("", "abcd")]);
    let outcome = fetch_as(&trusting, &url, "", &expected()).await;
    assert_eq!((outcome.result, outcome.content.as_str()), (Ok(4), "abcd"));
    secure.script(&[say(&format!(
        "HTTP/1.1 302 F\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        plain.url()
    ))]);
    let outcome = fetch_as(&trusting, &url, "", &expected()).await;
    outcome.refused("from https: to http:");
    assert_eq!(plain.seen(), Vec::<String>::new());
    // The certificate is for another name.
    let port = secure.address.rsplit(':').next().unwrap();
    let by_address = with_file(&["127.0.0.1"], PathBuf::new(), ca_file.clone());
    let elsewhere = format!("https://127.0.0.1:{port}/f");
    let outcome = fetch_as(&by_address, &elsewhere, "", &expected()).await;
    outcome.refused("is not trusted");
    std::fs::write(&ca_file, "no certificate").unwrap();
    let without = with_file(&allowed, PathBuf::new(), ca_file);
    let outcome = fetch_as(&without, &url, "", &expected()).await;
    outcome.refused("has no certificate");
}

#[tokio::test]
async fn a_server_that_knows_no_head_is_asked_otherwise() {
    let liar = Liar::start().await;
    let remote = remote(&[&liar.address]);
    let look = || async {
        let place = RemotePlace::parse(&liar.url()).unwrap().unwrap();
        let file = remote.file(&place, "anna", b"").await.unwrap();
        file.origin.look(remote.patience).await
    };
    liar.script(&[whole("etag: \"a\"\r\n", "")]);
    assert_eq!(look().await.unwrap().etag.as_deref(), Some("\"a\""));
    let refused = say("HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n");
    liar.script(&[refused.clone(), whole("etag: \"b\"\r\n", "abcd")]);
    let said = look().await.unwrap();
    assert_eq!((said.etag.as_deref(), said.size), (Some("\"b\""), Some(4)));
    liar.script(&[refused, say("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")]);
    assert!(look().await.unwrap_err().to_string().contains("404"));
}

#[tokio::test]
async fn a_store_that_lies_is_bounded_too() {
    let liar = Liar::start().await;
    let remote = remote(&[&liar.address]);
    let endpoint = format!("endpoint = 'http://{}'", liar.address);
    let stores = [
        ("s3://b/k", format!("[[store]]\nurl = 's3://b'\n{endpoint}")),
        ("gs://b/k", format!("[[store]]\nurl = 'gs://b'\n{endpoint}")),
        (
            "abfs://c@a/k",
            format!("[[store]]\nurl = 'abfs://c@a'\n{endpoint}"),
        ),
    ];
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\netag: \"a\"\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let chunked = "HTTP/1.1 404 No\r\ntransfer-encoding: chunked\r\n\r\n";
    let forbidden = "HTTP/1.1 403 No\r\ntransfer-encoding: chunked\r\n\r\n";
    for (source, own) in &stores {
        liar.script(&[say(&format!("{head}\r\nabcd"))]);
        let outcome = fetch_as(&remote, source, own, &expected()).await;
        assert_eq!(outcome.result, Ok(4), "{source}");
        assert!(
            !liar.seen()[0]
                .to_ascii_lowercase()
                .contains("authorization")
        );
        liar.script(&[vec![Part::Say(chunked.into()), Part::Endless]]);
        fetch_as(&remote, source, own, &expected())
            .await
            .refused("404");
        liar.script(&[vec![Part::Say(forbidden.into()), Part::Endless]]);
        fetch_as(&remote, source, own, &expected())
            .await
            .refused("--object-store");
        // The signature is not for where a redirect leads.
        liar.script(&[say(
            "HTTP/1.1 307 T\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        )]);
        assert!(
            fetch_as(&remote, source, own, &expected())
                .await
                .result
                .is_err()
        );
        assert_eq!(liar.seen().len(), 1);
        // A wrong length, then the rest of it.
        let rest = "HTTP/1.1 206 P\r\ncontent-length: 2\r\netag: \"a\"\r\ncontent-range: bytes 2-3/4\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\ncd";
        liar.script(&[say(&format!("{head}\r\nab")), say(rest)]);
        let outcome = fetch_as(&remote, source, own, &expected()).await;
        assert_eq!(
            (outcome.result, outcome.content.as_str()),
            (Ok(4), "abcd"),
            "{source}"
        );
        let resumed = liar.seen()[1].to_ascii_lowercase();
        assert!(resumed.contains("range: bytes=2-"), "{resumed}");
        assert!(resumed.contains("if-match: \"a\""), "{resumed}");
    }
    // An endpoint that a user names is judged; only the node's own file may name this host.
    let closed = self::remote(&[]);
    let outcome = fetch_as(&closed, "s3://b/k", &stores[0].1, &expected()).await;
    outcome.refused("loopback");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stores.toml");
    let with_users = format!("{}\nusers = ['anna']\n", stores[0].1);
    std::fs::write(&path, with_users).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let of_node = with_file(&[], path, PathBuf::new());
    liar.script(&[say(&format!("{head}\r\nabcd"))]);
    assert_eq!(
        fetch_as(&of_node, "s3://b/k", "", &expected()).await.result,
        Ok(4)
    );
}

/// Without credentials nobody is asked for some: neither a metadata service nor the environment.
#[tokio::test]
async fn stores_without_credentials_are_asked_unsigned_at_once() {
    let remote = remote(&[]);
    for source in ["s3://b/k", "gs://b/k", "abfs://c@a/k"] {
        let place = RemotePlace::parse(source).unwrap().unwrap();
        let file = remote.file(&place, "anna", b"").await.unwrap();
        assert!(file.for_everybody, "{source}");
        let Origin::Store(store) = &file.origin else {
            panic!("{source}")
        };
        let shown = format!("{store:?}");
        assert!(shown.contains("skip_signature: true"), "{shown}");
    }
}
