//! Servers that nobody here wrote: Python's, moto (S3), Azurite (Azure), fake-gcs-server (Google).
//! `tests/stores-install` puts them below `target/stores`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener as StdListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

/// Azurite's only account. Source: its documentation; everybody has it.
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A process that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The program of an installed server; says loudly when there is none.
fn installed(test: &str, below: &str) -> Option<PathBuf> {
    let stores = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stores");
    let program = stores.join(below);
    if program.exists() {
        return Some(program);
    }
    eprintln!("SKIPPED: {test} needs {below}: run tests/stores-install");
    None
}

/// Not a container's: a server of the test's own, ended with it.
#[expect(
    clippy::disallowed_methods,
    reason = "these are the other side, not what an agent launches"
)]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

fn free_port() -> u16 {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs a server until it listens; its own words are shown when it does not.
fn start(command: &mut Command, port: u16) -> Server {
    let log = tempfile::NamedTempFile::new().unwrap();
    let child = command
        .stdin(Stdio::null())
        .stdout(log.reopen().unwrap())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    let mut server = Server(child);
    let began = std::time::Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let words = || std::fs::read_to_string(log.path()).unwrap();
        assert!(server.0.try_wait().unwrap().is_none(), "{}", words());
        assert!(began.elapsed() < Duration::from_secs(60), "{}", words());
        std::thread::yield_now();
    }
    server
}

/// One plain request, to set the servers up; the answer's status and body.
fn ask(port: u16, method: &str, target: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

async fn look(remote: &Remote, source: &str, own: &str) -> Result<Said, String> {
    let place = RemotePlace::parse(source).unwrap().unwrap();
    let file = remote.file(&place, "anna", own.as_bytes()).await;
    let file = file.map_err(|e| e.to_string())?;
    let said = file.origin.look(remote.patience).await;
    said.map_err(|e| e.to_string())
}

/// A file's second half, asked for as after a broken connection.
async fn second_half(remote: &Remote, source: &str, own: &str) -> (u64, String) {
    use futures::TryStreamExt;
    let place = RemotePlace::parse(source).unwrap().unwrap();
    let file = remote.file(&place, "anna", own.as_bytes()).await.unwrap();
    let said = file.origin.look(remote.patience).await.unwrap();
    assert!(said.is_resumable(), "{said:?}");
    let opened = match &file.origin {
        Origin::Web(web) => web.open(5, Some(&said)).await.unwrap(),
        Origin::Store(store) => store.open(5, Some(&said)).await.unwrap(),
    };
    let bytes: Vec<_> = opened.body.try_collect().await.unwrap();
    (opened.start, String::from_utf8(bytes.concat()).unwrap())
}

/// What every store must do: a whole file, its second half, another content, none, nobody's key.
async fn check_store(
    (remote, source): (&Remote, &str),
    good: &str,
    wrong: &str,
    change: impl Fn(&str),
) {
    change("0123456789");
    let digest = Expected {
        sha256: sha2::Sha256::digest(b"0123456789").to_vec(),
        ..expected()
    };
    let outcome = fetch_as(remote, source, good, &digest).await;
    assert_eq!(
        (outcome.result, outcome.content.as_str()),
        (Ok(10), "0123456789")
    );
    assert_eq!(
        second_half(remote, source, good).await,
        (5, "56789".to_owned())
    );
    let before = look(remote, source, good).await.unwrap();
    assert!(
        before.modified_ms.unwrap() > 1_600_000_000_000,
        "{before:?}"
    );
    let timed = Expected {
        mtime_ms: before.modified_ms.unwrap(),
        size: 10,
        ..expected()
    };
    assert_eq!(fetch_as(remote, source, good, &timed).await.result, Ok(10));
    change("abcdefghij");
    let after = look(remote, source, good).await.unwrap();
    assert_ne!(before.validator(), after.validator());
    fetch_as(remote, source, good, &digest)
        .await
        .refused("its SHA-256 is");
    let place = RemotePlace::parse(source).unwrap().unwrap();
    let file = remote.file(&place, "anna", good.as_bytes()).await.unwrap();
    let Origin::Store(store) = &file.origin else {
        panic!("{source}")
    };
    // A server that does not care for conditions says whose bytes it sends at least.
    match store.open(5, Some(&before)).await {
        Ok(opened) => assert!(!before.agrees_with(&opened.said), "{:?}", opened.said),
        Err(e) => assert!(matches!(e, FetchError::Changed), "{e}"),
    }
    let missing = format!("{source}-missing");
    fetch_as(remote, &missing, good, &expected())
        .await
        .refused("404");
    assert!(
        fetch_as(remote, source, wrong, &expected())
            .await
            .result
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_pythons_server() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("a b")).unwrap();
    std::fs::write(dir.path().join("a b/data.txt"), "0123456789").unwrap();
    let port = free_port();
    let mut server = command("python3");
    server.args([
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        &port.to_string(),
    ]);
    let _server = start(server.current_dir(dir.path()), port);
    let remote = remote(&["localhost"]);
    let source = format!("http://localhost:{port}/a%20b/data.txt?x=y");
    let outcome = fetch_as(&remote, &source, "", &expected()).await;
    assert_eq!(
        (outcome.result, outcome.content.as_str()),
        (Ok(10), "0123456789")
    );
    let said = look(&remote, &source, "").await.unwrap();
    assert!(
        said.validator().unwrap().starts_with("modified "),
        "{said:?}"
    );
    // It knows no ranges: then everything comes again.
    assert_eq!(
        second_half(&remote, &source, "").await,
        (0, "0123456789".to_owned())
    );
    // A folder without its slash is a redirect, and then a page.
    let folder = format!("http://localhost:{port}/a%20b");
    assert!(
        fetch_as(&remote, &folder, "", &expected())
            .await
            .result
            .is_ok()
    );
    let missing = format!("http://localhost:{port}/none");
    fetch_as(&remote, &missing, "", &expected())
        .await
        .refused("404");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_motos_s3() {
    let Some(program) = installed("objects_of_motos_s3", "moto/bin/moto_server") else {
        return;
    };
    let port = free_port();
    let mut server = command(program);
    server.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let _server = start(&mut server, port);
    assert_eq!(ask(port, "PUT", "/data-bucket", "", "").0, 200);
    let remote = remote(&["127.0.0.1"]);
    let entry = |key: &str| {
        format!(
            "[[store]]\nurl = 's3://data-bucket'\nendpoint = 'http://127.0.0.1:{port}'\n\
             region = 'us-east-1'\naccess_key_id = 'id'\nsecret_access_key = '{key}'\n"
        )
    };
    // moto looks who it is, not whether the signature is right.
    let as_owner = "authorization: AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request, \
                    SignedHeaders=host, Signature=0\r\n";
    let put = |body: &str| {
        let (status, words) = ask(port, "PUT", "/data-bucket/a%20b/k.txt", as_owner, body);
        assert_eq!(status, 200, "{words}");
    };
    let bad_bucket = entry("key")
        .replace("data-bucket", "*")
        .replace("us-east-1", "");
    let wrong = bad_bucket.replace(&port.to_string(), "1");
    let source = "s3a://data-bucket/a b/k.txt";
    check_store((&remote, source), &entry("key"), &wrong, put).await;
    // Unsigned, as of a public bucket.
    let unsigned = format!("[[store]]\nurl = 's3://*'\nendpoint = 'http://127.0.0.1:{port}'\n");
    let outcome = fetch_as(&remote, source, &unsigned, &expected()).await;
    outcome.refused("--object-store");
    let public = format!("{as_owner}x-amz-acl: public-read\r\n");
    assert_eq!(
        ask(port, "PUT", "/data-bucket/open", &public, "abcd").0,
        200
    );
    let outcome = fetch_as(&remote, "s3://data-bucket/open", &unsigned, &expected()).await;
    assert_eq!(outcome.result, Ok(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_azurite() {
    let below = "azurite/node_modules/.bin/azurite-blob";
    let Some(program) = installed("blobs_of_azurite", below) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut server = command(program);
    server.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
    server.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
    server.arg("--location").arg(dir.path());
    let _server = start(&mut server, port);
    let remote = remote(&["127.0.0.1"]);
    let endpoint = format!("http://127.0.0.1:{port}/devstoreaccount1");
    let entry = |key: &str| {
        format!(
            "[[store]]\nurl = 'abfs://box@devstoreaccount1'\nendpoint = '{endpoint}'\n\
             account_key = '{key}'\n"
        )
    };
    // The library itself sets it up: nothing else here signs for Azure.
    let client = store::Client {
        gate: remote.gate.clone(),
        transport: remote.transport.clone(),
    };
    make_container(&endpoint, &client).await;
    let maker = {
        let azure = object_store::azure::MicrosoftAzureBuilder::new()
            .with_account("devstoreaccount1")
            .with_access_key(AZURITE_KEY)
            .with_endpoint(endpoint.clone())
            .with_container_name("box")
            .with_allow_http(true)
            .with_http_connector(client);
        azure.build().unwrap()
    };
    let put = |body: &str| {
        let path = object_store::path::Path::parse("a b/k.txt").unwrap();
        let body = object_store::PutPayload::from(body.to_owned());
        tokio::task::block_in_place(|| {
            let putting = object_store::ObjectStoreExt::put(&maker, &path, body);
            tokio::runtime::Handle::current().block_on(putting).unwrap();
        });
    };
    let source = "abfss://box@devstoreaccount1.dfs.core.windows.net/a b/k.txt";
    let wrong = entry(&AZURITE_KEY.replace("Eby8", "Eby9"));
    check_store((&remote, source), &entry(AZURITE_KEY), &wrong, put).await;
    let unsigned = entry("").replace("account_key = ''", "");
    fetch_as(&remote, source, &unsigned, &expected())
        .await
        .result
        .unwrap_err();
}

/// The library makes no containers, but signs what is asked for one.
async fn make_container(endpoint: &str, client: &store::Client) {
    use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
    use object_store::client::{HttpRequestBody, HttpService};
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURITE_KEY).unwrap());
    let mut request = http::Request::put(format!("{endpoint}/box?restype=container"))
        .header("content-length", "0")
        .body(HttpRequestBody::empty())
        .unwrap();
    let authorizer = AzureAuthorizer::new(&credential, "devstoreaccount1");
    authorizer.try_authorize(&mut request).unwrap();
    assert_eq!(client.call(request).await.unwrap().status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_fake_gcs_server() {
    let Some(program) = installed("objects_of_fake_gcs_server", "gcs/fake-gcs-server") else {
        return;
    };
    let port = free_port();
    let mut server = command(program);
    server.args([
        "-scheme",
        "http",
        "-host",
        "127.0.0.1",
        "-backend",
        "memory",
    ]);
    server.args(["-port", &port.to_string(), "-log-level", "error"]);
    server.args(["-public-host", &format!("127.0.0.1:{port}")]);
    let _server = start(&mut server, port);
    let json = "content-type: application/json\r\n";
    let made = ask(
        port,
        "POST",
        "/storage/v1/b?project=p",
        json,
        "{\"name\":\"data\"}",
    );
    assert_eq!(made.0, 200, "{}", made.1);
    let remote = remote(&["127.0.0.1"]);
    let entry = format!("[[store]]\nurl = 'gs://data'\nendpoint = 'http://127.0.0.1:{port}'\n");
    let put = |body: &str| {
        let target = "/upload/storage/v1/b/data/o?uploadType=media&name=a%20b%2Fk.txt";
        let (status, words) = ask(port, "POST", target, "", body);
        assert_eq!(status, 200, "{words}");
    };
    let wrong = entry.replace(&port.to_string(), "1");
    check_store((&remote, "gs://data/a b/k.txt"), &entry, &wrong, put).await;
}
