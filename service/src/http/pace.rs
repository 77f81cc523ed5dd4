//! How slow a peer may be: who keeps a connection must use it.
//!
//! A request's body must come at a pace, unless its handler has proven its sender and waits for as
//! long as it takes (a log that is written while its program runs). An answer must be taken.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Nothing of a body came for so long.
    pub(super) body_idle: Duration,
    /// All the waiting for a body: so long, and a second more for so many of its bytes.
    pub(super) body_grace: Duration,
    pub(super) body_bytes_per_second: u64,
    /// Nothing of an answer was taken for so long.
    pub(super) answer_idle: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            body_idle: Duration::from_secs(30),
            body_grace: Duration::from_secs(30),
            body_bytes_per_second: 4_096,
            // Source: `dfs.datanode.socket.write.timeout` (480 s), what HDFS' readers are used to.
            answer_idle: Duration::from_secs(480),
        }
    }
}

/// In every request: its handler says that its body may come as slowly as it likes.
#[derive(Clone, Debug, Default)]
pub struct Patience(Arc<AtomicBool>);

impl Patience {
    /// For senders who are proven, and of whom there is a bounded number.
    pub fn wait_for_ever(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_endless(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A body that came too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlowBody {
    #[error("nothing of the request's body came for {} s: send it in one go", .0.as_secs())]
    Idle(Duration),
    #[error("the request's body came with fewer than {0} bytes a second: send it in one go")]
    Rate(u64),
}

/// A request's body, as fast as [`Pace`] asks for.
pub(super) struct PacedBody {
    inner: Incoming,
    pace: Pace,
    patience: Patience,
    bytes: u64,
    /// For the peer, before the present wait. What the handler takes for its work is its own time.
    waited: Duration,
    waiting: Option<Wait>,
}

struct Wait {
    since: Instant,
    end: Pin<Box<Sleep>>,
    what: SlowBody,
}

impl PacedBody {
    pub(super) fn new(inner: Incoming, pace: Pace, patience: Patience) -> PacedBody {
        PacedBody {
            inner,
            pace,
            patience,
            bytes: 0,
            waited: Duration::ZERO,
            waiting: None,
        }
    }

    fn begin_wait(&self) -> Wait {
        let pace = &self.pace;
        let earned = Duration::from_secs(self.bytes / pace.body_bytes_per_second.max(1));
        let left = (pace.body_grace + earned).saturating_sub(self.waited);
        let (limit, what) = if left < pace.body_idle {
            (left, SlowBody::Rate(pace.body_bytes_per_second))
        } else {
            (pace.body_idle, SlowBody::Idle(pace.body_idle))
        };
        let since = Instant::now();
        Wait {
            since,
            end: Box::pin(sleep_until(since + limit)),
            what,
        }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            if let Some(wait) = self.waiting.take() {
                self.waited += wait.since.elapsed();
            }
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.bytes += data.len() as u64;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if self.patience.is_endless() {
            return Poll::Pending;
        }
        let mut wait = match self.waiting.take() {
            Some(wait) => wait,
            None => self.begin_wait(),
        };
        match wait.end.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(wait.what.into()))),
            Poll::Pending => {
                self.waiting = Some(wait);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection whose peer takes what is sent.
pub(super) struct Taken<S> {
    stream: S,
    idle: Duration,
    /// Runs while something waits to be sent.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Taken<S> {
    pub(super) fn new(stream: S, pace: &Pace) -> Taken<S> {
        Taken {
            stream,
            idle: pace.answer_idle,
            end: None,
        }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.end = None;
            return written;
        }
        let idle = self.idle;
        let end = self
            .end
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + idle)));
        match end.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::http::{bind, serve_at};

    const QUICK: Pace = Pace {
        body_idle: Duration::from_millis(200),
        body_grace: Duration::from_millis(400),
        body_bytes_per_second: 100,
        answer_idle: Duration::from_millis(200),
    };

    async fn count(request: Request) -> Result<String, (StatusCode, String)> {
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
        body.map(|bytes| bytes.len().to_string()).map_err(|e| {
            let mut words = e.to_string();
            let mut source = std::error::Error::source(&e);
            while let Some(inner) = source {
                words = inner.to_string();
                source = inner.source();
            }
            (StatusCode::REQUEST_TIMEOUT, words)
        })
    }

    async fn patiently(request: Request) -> Result<String, (StatusCode, String)> {
        request
            .extensions()
            .get::<Patience>()
            .unwrap()
            .wait_for_ever();
        count(request).await
    }

    /// Says when it is dropped.
    struct Held(tokio::sync::mpsc::Sender<()>);

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }

    /// Bytes without end, and word of when nobody is sent any more.
    fn endless(gone: tokio::sync::mpsc::Sender<()>) -> axum::body::Body {
        let held = Held(gone);
        let chunks = std::iter::repeat_with(move || {
            let _held = &held;
            Ok::<_, io::Error>(Bytes::from_static(&[b'x'; 65_536]))
        });
        axum::body::Body::from_stream(tokio_stream::iter(chunks))
    }

    async fn served() -> TcpStream {
        served_with(tokio::sync::mpsc::channel(1).0).await
    }

    async fn served_with(gone: tokio::sync::mpsc::Sender<()>) -> TcpStream {
        let router = Router::new()
            .route("/", post(count))
            .route("/patiently", post(patiently))
            .route("/endless", get(move || async move { endless(gone) }));
        let (listener, address) = bind("127.0.0.1:0").await.unwrap();
        tokio::spawn(serve_at(QUICK, listener, router, CancellationToken::new()));
        TcpStream::connect(address).await.unwrap()
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    fn head(path: &str, length: usize) -> String {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
    }

    /// `count` bytes, one every 50 ms: 20 a second.
    async fn drip(stream: &mut TcpStream, count: usize) {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..count {
            ticks.tick().await;
            // Refused already: the answer says so.
            if stream.write_all(b"x").await.is_err() {
                return;
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_stops_is_answered_and_its_connection_ends() {
        let mut stream = served().await;
        stream.write_all(head("/", 10).as_bytes()).await.unwrap();
        stream.write_all(b"12345").await.unwrap();
        let text = answer(stream).await;
        assert!(text.contains(" 408 "), "{text}");
        assert!(
            text.contains("nothing of the request's body came"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_body_of_drops_is_refused_and_a_patient_handler_takes_it() {
        let mut stream = served().await;
        stream.write_all(head("/", 1_000).as_bytes()).await.unwrap();
        drip(&mut stream, 15).await;
        let text = answer(stream).await;
        assert!(text.contains("fewer than 100 bytes a second"), "{text}");
        let mut stream = served().await;
        let head = head("/patiently", 15);
        stream.write_all(head.as_bytes()).await.unwrap();
        drip(&mut stream, 15).await;
        let text = answer(stream).await;
        assert!(text.contains(" 200 ") && text.ends_with("15"), "{text}");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_ends_its_connection() {
        let (gone, mut ended) = tokio::sync::mpsc::channel(1);
        let mut stream = served_with(gone).await;
        let request = b"GET /endless HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        // Nothing is read here, and the server gives up.
        assert_eq!(ended.recv().await, Some(()));
    }
}
