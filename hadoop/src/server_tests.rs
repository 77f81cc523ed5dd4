use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::exceptions::ExceptionClass;
use crate::test_client::{self, HEADER_NONE, HEADER_SASL};

/// Takes the token `who`, and anybody from loopback if `simple`.
struct Doorman {
    simple: bool,
}

impl Authenticator for Doorman {
    type Principal = String;

    async fn simple(&self, peer: &Peer) -> Result<String, RpcException> {
        assert!(peer.remote.ip().is_loopback());
        if self.simple {
            Ok("uid".to_owned())
        } else {
            Err(RpcException::new(
                ExceptionClass::AccessControl,
                "get a token",
            ))
        }
    }

    async fn token(
        &self,
        _: &Peer,
        identifier: &Bytes,
    ) -> Result<TokenProof<String>, RpcException> {
        if identifier == "who" {
            Ok(TokenProof {
                password: b"secret".to_vec(),
                principal: "token".to_owned(),
            })
        } else {
            Err(RpcException::new(ExceptionClass::InvalidToken, "unknown"))
        }
    }

    async fn introduced(
        &self,
        principal: String,
        introduction: &Introduction,
    ) -> Result<String, RpcException> {
        match introduction.effective_user.as_deref() {
            Some("mallory") => Err(RpcException::new(ExceptionClass::Authorization, "no")),
            _ => Ok(principal),
        }
    }
}

/// `echo` answers at once with the principal; `wait` when the test says so.
#[derive(Default)]
struct Echo {
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    calls: AtomicUsize,
    audited: Mutex<Vec<String>>,
}

impl Service<String> for Echo {
    async fn call(
        &self,
        caller: &Caller<String>,
        _: &str,
        method: &str,
        request: Bytes,
    ) -> Result<Bytes, RpcException> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match method {
            "echo" => Ok(Bytes::from(format!(
                "{}{}",
                caller.principal,
                request.len()
            ))),
            "wait" => {
                let (sender, receiver) = oneshot::channel();
                self.waiting.lock().unwrap().push(sender);
                let _ = receiver.await;
                Ok(request)
            }
            "fill" => Ok(Bytes::from(vec![7; 512 * 1024])),
            _ => Err(RpcException::not_offered(method, "it is a test")),
        }
    }

    fn audit(&self, caller: &Caller<String>, call: &AuditedCall<'_>, outcome: Outcome<'_>) {
        let outcome = match outcome {
            Outcome::Answered => "answered",
            Outcome::Refused(_) => "refused",
            Outcome::Abandoned => "abandoned",
        };
        let context = call.caller_context.unwrap_or("-");
        let line = format!("{} {} {context} {outcome}", caller.principal, call.method);
        self.audited.lock().unwrap().push(line);
    }
}

struct World {
    address: SocketAddr,
    echo: Arc<Echo>,
    ended: mpsc::UnboundedReceiver<Ended>,
    _stop: oneshot::Sender<()>,
}

async fn world(simple: bool, limits: Limits) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = Arc::new(Echo::default());
    let (sender, ended) = mpsc::unbounded_channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let observer = move |_: SocketAddr, reason: &Ended| {
        let _ = sender.send(reason.clone());
    };
    let service = echo.clone();
    tokio::spawn(async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        serve(
            listener,
            Doorman { simple },
            service,
            observer,
            limits,
            shutdown,
        )
        .await;
    });
    World {
        address,
        echo,
        ended,
        _stop: stop,
    }
}

struct Client(TcpStream);

impl Client {
    async fn new(world: &World, parts: &[&[u8]]) -> Client {
        let mut client = Client(TcpStream::connect(world.address).await.unwrap());
        for part in parts {
            client.send(part).await;
        }
        client
    }

    async fn open(world: &World) -> Client {
        Client::new(world, &[HEADER_NONE, &test_client::context(Some("alice"))]).await
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    async fn frame(&mut self) -> Bytes {
        let length = self.0.read_u32().await.unwrap();
        let mut frame = BytesMut::from(&length.to_be_bytes()[..]);
        frame.resize(4 + usize::try_from(length).unwrap(), 0);
        self.0.read_exact(&mut frame[4..]).await.unwrap();
        frame.freeze()
    }

    /// Call id and message of the next answer.
    async fn answer(&mut self) -> (u32, String) {
        let (header, mut rest) = test_client::answer(self.frame().await);
        assert_eq!(header.status, 0, "{}", header.error_msg());
        let message = crate::wire::take_delimited(&mut rest).unwrap();
        (header.call_id, String::from_utf8(message.to_vec()).unwrap())
    }

    /// Waits until a call has come to the service and waits there.
    async fn call_and_wait(&mut self, world: &World, id: i32) {
        let before = world.echo.waiting.lock().unwrap().len();
        self.send(&test_client::call(id, "wait", b"")).await;
        while world.echo.waiting.lock().unwrap().len() == before {
            tokio::task::yield_now().await;
        }
    }

    async fn is_closed(&mut self) {
        let mut rest = Vec::new();
        // Either the end or a reset.
        let _ = self.0.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn the_whole_exchange_with_a_token() {
    let world = world(false, Limits::default()).await;
    let mut client = Client::new(&world, &[HEADER_SASL, &test_client::negotiate()]).await;
    let offer = test_client::sasl_answer(client.frame().await);
    let challenge = offer.auths[0].challenge.clone().unwrap();
    let (response, rspauth) = test_client::digest(&challenge, b"who", b"secret");
    client
        .send(&test_client::initiate(&offer.auths[0], Some(response)))
        .await;
    let end = test_client::sasl_answer(client.frame().await);
    assert_eq!(end.token.unwrap(), rspauth);
    client.send(&test_client::context(None)).await;
    client.send(&test_client::call(3, "echo", b"abc")).await;
    assert_eq!(client.answer().await, (3, "token3".to_owned()));
}

#[tokio::test]
async fn unknown_tokens_and_stated_users_are_refused() {
    let mut world = world(true, Limits::default()).await;
    let mut client = Client::new(&world, &[HEADER_SASL, &test_client::negotiate()]).await;
    let offer = test_client::sasl_answer(client.frame().await);
    let challenge = offer.auths[0].challenge.clone().unwrap();
    let (response, _) = test_client::digest(&challenge, b"other", b"secret");
    client
        .send(&test_client::initiate(&offer.auths[0], Some(response)))
        .await;
    let (header, _) = test_client::answer(client.frame().await);
    assert_eq!(header.error_msg(), "unknown");
    drop(client);
    assert!(matches!(world.ended.recv().await, Some(Ended::Protocol(_))));

    let context = test_client::context(Some("mallory"));
    let mut client = Client::new(&world, &[HEADER_NONE, &context]).await;
    let (header, _) = test_client::answer(client.frame().await);
    assert_eq!(header.status, 2);
    client.is_closed().await;
}

#[tokio::test]
async fn a_refused_client_reads_why() {
    let mut world = world(false, Limits::default()).await;
    // It sends on, as a real client does, before it reads.
    let context = test_client::context(Some("alice"));
    let call = test_client::call(0, "echo", b"");
    let mut client = Client::new(&world, &[HEADER_NONE, &context, &call]).await;
    let (header, _) = test_client::answer(client.frame().await);
    assert_eq!(header.error_msg(), "get a token");
    drop(client);
    assert!(matches!(world.ended.recv().await, Some(Ended::Protocol(_))));
    assert_eq!(world.echo.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn answers_come_when_they_are_ready() {
    let world = world(true, Limits::default()).await;
    let mut client = Client::open(&world).await;
    client.send(&test_client::call(0, "wait", b"w")).await;
    client.send(&test_client::call(1, "echo", b"")).await;
    assert_eq!(client.answer().await, (1, "uid0".to_owned()));
    for sender in world.echo.waiting.lock().unwrap().drain(..) {
        sender.send(()).unwrap();
    }
    assert_eq!(client.answer().await, (0, "w".to_owned()));
    client.send(&test_client::call(2, "nothing", b"")).await;
    let (header, _) = test_client::answer(client.frame().await);
    assert_eq!((header.call_id, header.status), (2, 1));
}

#[tokio::test]
async fn calls_under_way_are_limited() {
    let limits = Limits {
        connection_calls_max: 2,
        ..Limits::default()
    };
    let world = world(true, limits).await;
    let mut client = Client::open(&world).await;
    for id in 0..3 {
        client.send(&test_client::call(id, "wait", b"")).await;
    }
    client.send(&test_client::call(3, "echo", b"")).await;
    // Two wait; the others are not read until one of them is let go.
    let mut ids = Vec::new();
    for _ in 0..3 {
        let sender = loop {
            if let Some(sender) = world.echo.waiting.lock().unwrap().pop() {
                break sender;
            }
            tokio::task::yield_now().await;
        };
        let begun = world.echo.calls.load(Ordering::SeqCst);
        assert!(
            begun <= ids.len() + 2,
            "{begun} calls begun, {ids:?} answered"
        );
        sender.send(()).unwrap();
        ids.push(client.answer().await.0);
    }
    ids.push(client.answer().await.0);
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3]);
}

#[tokio::test]
async fn large_frames_are_read_and_answered() {
    let world = world(true, Limits::default()).await;
    let mut client = Client::open(&world).await;
    for id in 0..3 {
        let call = test_client::call(id, "echo", &vec![7; 3 * 1024 * 1024]);
        client.send(&call).await;
        assert_eq!(client.answer().await.1, "uid3145728");
    }
}

#[tokio::test]
async fn memory_for_large_frames_is_shared() {
    let limits = Limits {
        large_bytes_max: 1024 * 1024,
        ..Limits::default()
    };
    let world = world(true, limits).await;
    // The first holds three quarters of it until it is answered, the second has to wait.
    let message = vec![7; 768 * 1024];
    let mut first = Client::open(&world).await;
    first.send(&test_client::call(0, "wait", &message)).await;
    while world.echo.waiting.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut second = Client::open(&world).await;
    let call = test_client::call(0, "echo", &message);
    let sent = tokio::spawn(async move {
        second.send(&call).await;
        second.answer().await
    });
    let mut third = Client::open(&world).await;
    third.send(&test_client::call(0, "echo", b"small")).await;
    assert_eq!(third.answer().await.1, "uid5");
    assert_eq!(world.echo.calls.load(Ordering::SeqCst), 2);
    world
        .echo
        .waiting
        .lock()
        .unwrap()
        .pop()
        .unwrap()
        .send(())
        .unwrap();
    first.frame().await;
    assert_eq!(sent.await.unwrap().1, "uid786432");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_cut() {
    let mut world = world(true, Limits::default()).await;
    let limits = Limits::default();
    let mut silent = Client::new(&world, &[b"hrpc"]).await;
    silent.is_closed().await;
    assert_eq!(
        world.ended.recv().await,
        Some(Ended::Handshake(limits.handshake))
    );

    let mut idle = Client::open(&world).await;
    idle.send(&test_client::call(0, "echo", b"")).await;
    idle.frame().await;
    idle.is_closed().await;
    assert_eq!(world.ended.recv().await, Some(Ended::Idle(limits.idle)));

    let mut stalled = Client::open(&world).await;
    stalled.send(&test_client::call(0, "echo", b"")).await;
    stalled.frame().await;
    stalled.send(&[0, 0]).await;
    stalled.is_closed().await;
    assert_eq!(world.ended.recv().await, Some(Ended::Stalled(limits.stall)));
}

#[tokio::test]
async fn connections_in_use_are_limited() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let mut world = world(true, limits).await;
    let mut first = Client::open(&world).await;
    first.call_and_wait(&world, 0).await;
    let mut second = Client::open(&world).await;
    second.is_closed().await;
    assert_eq!(world.ended.recv().await, Some(Ended::TooMany(1)));
    drop(first);
    assert_eq!(world.ended.recv().await, Some(Ended::ByPeer));
    let mut third = Client::open(&world).await;
    third.send(&test_client::call(0, "echo", b"")).await;
    assert_eq!(third.answer().await.1, "uid0");
}

#[tokio::test]
async fn the_idle_leave_for_the_new() {
    let limits = Limits {
        connections_per_peer_max: 2,
        ..Limits::default()
    };
    let mut world = world(true, limits).await;
    let mut idle = Client::open(&world).await;
    idle.send(&test_client::call(0, "echo", b"")).await;
    idle.answer().await;
    let mut silent = Client::new(&world, &[HEADER_SASL, &test_client::negotiate()]).await;
    silent.frame().await;
    // Who has proven nothing goes first.
    let mut third = Client::open(&world).await;
    third.send(&test_client::call(0, "echo", b"")).await;
    assert_eq!(third.answer().await.1, "uid0");
    silent.is_closed().await;
    assert_eq!(world.ended.recv().await, Some(Ended::Displaced(2)));
    third.call_and_wait(&world, 1).await;
    let mut fourth = Client::open(&world).await;
    fourth.send(&test_client::call(0, "echo", b"")).await;
    assert_eq!(fourth.answer().await.1, "uid0");
    idle.is_closed().await;
    assert_eq!(world.ended.recv().await, Some(Ended::Displaced(2)));
}

#[tokio::test]
async fn calls_of_all_connections_are_limited() {
    let limits = Limits {
        calls_max: 1,
        ..Limits::default()
    };
    let world = world(true, limits).await;
    let mut first = Client::open(&world).await;
    first.call_and_wait(&world, 0).await;
    let mut second = Client::open(&world).await;
    second.send(&test_client::call(0, "echo", b"")).await;
    second.send(&test_client::call(1, "echo", b"b")).await;
    // It has come this far when its context is judged, and yet no call begins.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.echo.calls.load(Ordering::SeqCst), 1);
    let sender = world.echo.waiting.lock().unwrap().pop().unwrap();
    sender.send(()).unwrap();
    first.answer().await;
    assert_eq!(second.answer().await, (0, "uid0".to_owned()));
    assert_eq!(second.answer().await, (1, "uid1".to_owned()));
}

#[tokio::test]
async fn who_reads_no_answers_is_cut_when_memory_is_short() {
    let limits = Limits {
        unread_bytes_max: 1024 * 1024,
        connection_calls_max: 8,
        ..Limits::default()
    };
    let mut world = world(true, limits).await;
    let mut glutton = Client::open(&world).await;
    let mut fair = Client::open(&world).await;
    for id in 0..100 {
        // More than the system's buffers hold; the server may cut it before the last.
        let call = test_client::call(id, "fill", b"");
        if glutton.0.write_all(&call).await.is_err() {
            break;
        }
    }
    let Some(Ended::Unread(bytes)) = world.ended.recv().await else {
        panic!("it was not cut");
    };
    assert!(bytes > 256 * 1024, "{bytes}");
    fair.send(&test_client::call(0, "echo", b"")).await;
    assert_eq!(fair.answer().await.1, "uid0");
}

#[tokio::test]
async fn every_call_is_audited() {
    let mut world = world(true, Limits::default()).await;
    let mut client = Client::open(&world).await;
    client
        .send(&test_client::call_of(
            0,
            "echo",
            b"",
            Some("CLI\n\u{1b}[31m"),
        ))
        .await;
    client.answer().await;
    client.send(&test_client::call(1, "nothing", b"")).await;
    client.frame().await;
    client.call_and_wait(&world, 2).await;
    drop(client);
    assert_eq!(world.ended.recv().await, Some(Ended::ByPeer));
    while world.echo.audited.lock().unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        *world.echo.audited.lock().unwrap(),
        [
            "uid echo CLI[31m answered",
            "uid nothing - refused",
            "uid wait - abandoned"
        ]
    );
}

#[tokio::test]
async fn a_protected_exchange() {
    use crate::digest::{Challenge, Response};
    use crate::protection::Protection;
    use crate::sasl;
    use crate::wrap::Wrapper;
    let limits = Limits {
        protection: "privacy".parse().unwrap(),
        ..Limits::default()
    };
    let world = world(false, limits).await;
    let mut client = Client::new(&world, &[HEADER_SASL, &test_client::negotiate()]).await;
    let offer = test_client::sasl_answer(client.frame().await);
    let challenge = offer.auths[0].challenge.clone().unwrap();
    let text = std::str::from_utf8(&challenge).unwrap();
    assert!(text.contains("qop=\"auth-conf\""), "{text}");
    let (response, _) = test_client::digest_with(&challenge, b"who", b"secret", "auth-conf");
    let nonce = text.split('"').nth(3).unwrap().to_owned();
    let known = Challenge::with_nonce(nonce, Protection::default());
    let verified = Response::parse(response.as_bytes()).unwrap();
    let verified = verified.verify(&known, b"secret").unwrap();
    let mut keys = Wrapper::of_client(&verified).unwrap();
    client
        .send(&test_client::initiate(&offer.auths[0], Some(response)))
        .await;
    client.frame().await;
    // The first protected message, large at once: a context and a call of 3 MiB.
    let mut first = test_client::context(None).to_vec();
    first.extend_from_slice(&test_client::call(0, "echo", &vec![7; 3 * 1024 * 1024]));
    client
        .send(&test_client::sasl(&sasl::wrap(keys.seal(&first))))
        .await;
    let message = test_client::sasl_answer(client.frame().await);
    let frame = keys.open(&message.token.unwrap()).unwrap();
    let (header, mut rest) = test_client::answer(frame);
    assert_eq!(header.status, 0);
    let answer = crate::wire::take_delimited(&mut rest).unwrap();
    assert_eq!(answer, "token3145728");
}

/// Bytes of memory this process has in use. Source: proc(5), field 2 of `statm`.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test]
async fn ten_thousand_idle_connections() {
    let limits = Limits::default();
    let mut world = world(true, limits).await;
    let before = resident_bytes();
    let mut strangers = Vec::new();
    let mut ended = 0;
    for number in 0..10_000_usize {
        let stream = match std::net::TcpStream::connect(world.address) {
            Ok(stream) => stream,
            // A machine that allows fewer files; the limit is reached all the same.
            Err(_) if number > 2 * limits.connections_per_peer_max => break,
            Err(error) => panic!("{number}: {error}"),
        };
        // Some say nothing, some stop half-way, some are whole and idle.
        let parts: &[&[u8]] = match number % 3 {
            0 => &[],
            1 => &[b"hrpc\x09"],
            _ => &[HEADER_NONE, &test_client::context(Some("alice"))],
        };
        stream.set_nonblocking(true).unwrap();
        for part in parts {
            std::io::Write::write_all(&mut &stream, part).unwrap();
        }
        strangers.push(stream);
        tokio::task::yield_now().await;
        while world.ended.try_recv().is_ok() {
            ended += 1;
        }
    }
    // Somebody else is served as if they were not there.
    let mut client = Client::open(&world).await;
    client.send(&test_client::call(0, "echo", b"")).await;
    assert_eq!(client.answer().await.1, "uid0");
    while ended < strangers.len() - limits.connections_per_peer_max {
        world.ended.recv().await.unwrap();
        ended += 1;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes more in use");
}

#[tokio::test]
async fn noise_ends_with_one_line() {
    let mut world = world(true, Limits::default()).await;
    for (bytes, reason) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "the connection speaks HTTP"),
        (
            &b"\x16\x03\x01"[..],
            "the connection does not start with 'hrpc'",
        ),
        (
            &b"hrpc\x08"[..],
            "the connection speaks version 8 of the IPC",
        ),
    ] {
        let mut client = Client::new(&world, &[bytes]).await;
        client.0.shutdown().await.unwrap();
        client.is_closed().await;
        assert_eq!(world.ended.recv().await.unwrap().to_string(), reason);
    }
}
