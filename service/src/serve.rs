//! The server's end: listeners, connection limits, and a stop that does not wait for ever.
//!
//! Random bytes, half-open connections and failed accepts cost only their own connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::Connected;

use crate::identity::Peer;

const KEEPALIVE: Duration = Duration::from_secs(10);
/// Time for the first byte of a connection.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no free descriptors): trying again at once would only burn cpu.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const WINDOW_BYTES: u32 = 8 << 20;
/// Length of `sun_path`, its final NUL included. Source: unix(7).
const SOCKET_PATH_BYTES: usize = 108;

/// What one listener admits.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Connections at a time; further ones are closed at once.
    pub connections_max: usize,
    /// Streams at a time on one connection.
    pub streams_max: u32,
    /// After the stop began, calls that still run get this long.
    pub stop_grace: Duration,
}

impl Default for ServeLimits {
    fn default() -> ServeLimits {
        ServeLimits {
            connections_max: 16_384,
            streams_max: 4_096,
            stop_grace: Duration::from_millis(500),
        }
    }
}

/// A listener that cannot be had, or a server that failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}")]
    Bind {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("the gRPC server failed")]
    Server(#[source] tonic::transport::Error),
}

/// A bound socket, TCP or unix.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds `host:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is malformed, taken, or not this host's.
    pub async fn tcp(address: &str) -> Result<Listener, ServeError> {
        let bind = |source| ServeError::Bind {
            address: address.to_owned(),
            source,
        };
        let socket = TcpListener::bind(address).await.map_err(bind)?;
        Ok(Listener {
            socket: Socket::Tcp(socket),
        })
    }

    /// Binds a unix socket with `mode`, replacing one that a dead process left. The caller holds
    /// the daemon's folder lock, so nobody living serves it.
    ///
    /// # Errors
    /// The folder is missing or not writable, or something else has the name.
    pub fn unix(path: &Path, mode: u32) -> Result<Listener, ServeError> {
        Listener::of_unix(Listener::bind_unix(path, mode)?)
    }

    /// As [`Listener::unix`], before there is a runtime; for [`Listener::of_unix`].
    ///
    /// # Errors
    /// As there.
    pub fn bind_unix(
        path: &Path,
        mode: u32,
    ) -> Result<std::os::unix::net::UnixListener, ServeError> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let bind = |source| ServeError::Bind {
            address: path.display().to_string(),
            source,
        };
        match std::fs::symlink_metadata(path) {
            Ok(old) if old.file_type().is_socket() => std::fs::remove_file(path).map_err(bind)?,
            Ok(_) => {
                return Err(bind(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "a file that is no socket is there",
                )));
            }
            Err(_) => {}
        }
        let short = short_socket_path(path).map_err(bind)?;
        let socket = std::os::unix::net::UnixListener::bind(short.path()).map_err(bind)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(bind)?;
        Ok(socket)
    }

    /// Takes a bound socket into this runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn of_unix(socket: std::os::unix::net::UnixListener) -> Result<Listener, ServeError> {
        let watch = |source| ServeError::Bind {
            address: "a unix socket".to_owned(),
            source,
        };
        socket.set_nonblocking(true).map_err(watch)?;
        Ok(Listener {
            socket: Socket::Unix(UnixListener::from_std(socket).map_err(watch)?),
        })
    }

    /// The bound address of a TCP listener.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }
}

/// Serves `routes` on every listener until `stop` is cancelled; then running calls get
/// `limits.stop_grace`, and connections end.
///
/// # Errors
/// A server failed for a reason that is not one connection's.
pub async fn serve(
    routes: Routes,
    listeners: Vec<Listener>,
    limits: ServeLimits,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners {
        let incoming = Incoming {
            socket: listener.socket,
            permits: Arc::new(Semaphore::new(limits.connections_max)),
            pause: None,
        };
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(limits.streams_max)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .add_routes(routes.clone())
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        let stop = stop.clone();
        servers.spawn(async move {
            tokio::select! {
                done = server => done,
                () = async {
                    stop.cancelled().await;
                    tokio::time::sleep(limits.stop_grace).await;
                } => Ok(()),
            }
        });
    }
    while let Some(done) = servers.join_next().await {
        // A panic has ended the process through the hook; a cancelled task cannot be here.
        if let Ok(Err(e)) = done {
            return Err(ServeError::Server(e));
        }
    }
    Ok(())
}

struct Incoming {
    socket: Socket,
    permits: Arc<Semaphore>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream_, Peer)>> {
        match &self.socket {
            Socket::Tcp(socket) => socket.poll_accept(cx).map_ok(|(stream, address)| {
                // Small messages must not wait for the peer's acknowledgement.
                let _ = stream.set_nodelay(true);
                (Stream_::Tcp(stream), Peer::Tcp(address))
            }),
            Socket::Unix(socket) => socket.poll_accept(cx).map(|accepted| {
                let (stream, _) = accepted?;
                let credentials = stream.peer_cred()?;
                let peer = Peer::Unix {
                    uid: credentials.uid(),
                    gid: credentials.gid(),
                    pid: credentials.pid(),
                };
                Ok((Stream_::Unix(stream), peer))
            }),
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                match pause.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => self.pause = None,
                }
            }
            match self.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(e)) => {
                    tracing::warn!("accept failed: {e}");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
                Poll::Ready(Ok((stream, peer))) => {
                    let Ok(permit) = self.permits.clone().try_acquire_owned() else {
                        tracing::warn!(?peer, "too many connections: one is closed");
                        continue;
                    };
                    return Poll::Ready(Some(Ok(Connection {
                        stream,
                        peer,
                        first_byte: Some(Box::pin(tokio::time::sleep(HANDSHAKE))),
                        _permit: permit,
                    })));
                }
            }
        }
    }
}

#[derive(Debug)]
enum Stream_ {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One accepted connection; gives its place back when it is dropped.
#[derive(Debug)]
struct Connection {
    stream: Stream_,
    peer: Peer,
    /// Runs until the first byte has come.
    first_byte: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut self.stream {
            Stream_::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream_::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        match (read, &mut self.first_byte) {
            (Poll::Pending, Some(limit)) => match limit.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
            (Poll::Pending, None) => Poll::Pending,
            (ready, _) => {
                self.first_byte = None;
                ready
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream_::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream_::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream_::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream_::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream_::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream_::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream_::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream_::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// A path that fits a socket address: the given one, or the same through an open folder.
pub(crate) struct ShortSocketPath {
    path: PathBuf,
    _folder: Option<std::fs::File>,
}

impl ShortSocketPath {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Deep folders make paths that no socket address holds; `/proc/self/fd` shortens them.
pub(crate) fn short_socket_path(path: &Path) -> io::Result<ShortSocketPath> {
    if path.as_os_str().len() < SOCKET_PATH_BYTES {
        return Ok(ShortSocketPath {
            path: path.to_owned(),
            _folder: None,
        });
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = std::fs::File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok(ShortSocketPath {
        path: short,
        _folder: Some(folder),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::{Target, connect};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Without services every call is answered with "unimplemented", which is an answer.
    fn routes() -> Routes {
        Routes::default()
    }

    async fn call(target: &Target) -> tonic::Status {
        let channel = connect(target, None).await.unwrap();
        bobbin_proto::v1::client_client::ClientClient::new(channel)
            .get_cluster(bobbin_proto::v1::GetClusterRequest {})
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn both_doors_answer_and_random_bytes_cost_one_connection() {
        let folder = tempfile::tempdir().unwrap();
        // Longer than a socket address.
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("s.sock");
        let tcp = Listener::tcp("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = Listener::unix(&path, 0o666).unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(
            routes(),
            vec![tcp, unix],
            ServeLimits::default(),
            stop.clone(),
        ));

        let mut rubbish = TcpStream::connect(address).await.unwrap();
        rubbish.write_all(&[0xA5; 4096]).await.unwrap();
        let mut answer = Vec::new();
        // The server closes it; a reset is as good as an end.
        let _ = rubbish.read_to_end(&mut answer).await;

        for target in [Target::Tcp(address.to_string()), Target::Unix(path.clone())] {
            assert_eq!(
                call(&target).await.code(),
                tonic::Code::Unimplemented,
                "{target}"
            );
        }
        stop.cancel();
        server.await.unwrap().unwrap();
        // A stale socket is replaced, a file is not.
        Listener::unix(&path, 0o666).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "x").unwrap();
        assert!(Listener::unix(&path, 0o666).is_err());
    }

    #[tokio::test]
    async fn connections_above_the_limit_are_closed() {
        let tcp = Listener::tcp("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let stop = CancellationToken::new();
        let limits = ServeLimits {
            connections_max: 1,
            ..ServeLimits::default()
        };
        let server = tokio::spawn(serve(routes(), vec![tcp], limits, stop.clone()));
        let first = connect(&Target::Tcp(address.to_string()), None)
            .await
            .unwrap();
        let mut client = bobbin_proto::v1::client_client::ClientClient::new(first);
        assert!(
            client
                .get_cluster(bobbin_proto::v1::GetClusterRequest {})
                .await
                .is_err()
        );
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut byte = [0_u8; 1];
        assert!(matches!(second.read(&mut byte).await, Ok(0) | Err(_)));
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
