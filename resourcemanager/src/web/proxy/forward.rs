//! One request to an application's page, streamed both ways, with time-outs and bounds.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{Request, Response};
use futures::StreamExt;
use futures::stream::unfold;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::seats::Seat;

/// Until the connection stands.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Until the answer begins. Source: `yarn.resourcemanager.proxy.timeout.ms`, a minute.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// Between two pieces of a body, either way.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Of a request's body.
const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// Of an answer's body; event logs are downloaded through the page.
const ANSWER_BYTES_MAX: u64 = 4 << 30;
/// Of an answer's head.
const HEAD_BYTES_MAX: usize = 256 << 10;
const HEADERS_MAX: usize = 200;

/// Why there is no answer of the page; in words for the user.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("the application's page at {0} cannot be reached: {1}")]
    Unreachable(SocketAddr, std::io::Error),
    #[error("the application's page at {0} does not answer within {1:?}")]
    Slow(SocketAddr, Duration),
    #[error("the application's page at {0} does not speak HTTP/1.1: {1}")]
    Broken(SocketAddr, hyper::Error),
}

/// A body ended early.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("more than {0} bytes")]
    Long(u64),
    #[error("nothing came for {0:?}")]
    Idle(Duration),
    #[error("it was cut off")]
    Cut(#[source] axum::Error),
}

/// Connects from `source`, which the filter in front of the page checks, if the page can be reached
/// from there; else from wherever this host does.
pub(super) async fn connect(
    source: IpAddr,
    address: SocketAddr,
) -> Result<TcpStream, ForwardError> {
    let from_source = async {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if !source.is_unspecified() && source.is_ipv4() == address.is_ipv4() {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(address).await
    };
    let connecting = async {
        match from_source.await {
            Ok(stream) => Ok(stream),
            // Refused is refused from everywhere.
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Err(e),
            Err(_) => TcpStream::connect(address).await,
        }
    };
    match timeout(CONNECT_TIME, connecting).await {
        Ok(Ok(stream)) => {
            // Small requests must not wait for the peer's acknowledgement.
            drop(stream.set_nodelay(true));
            Ok(stream)
        }
        Ok(Err(e)) => Err(ForwardError::Unreachable(address, e)),
        Err(_) => Err(ForwardError::Slow(address, CONNECT_TIME)),
    }
}

/// Sends the request and returns the answer, whose body is read while it is passed on.
pub(super) async fn ask(
    stream: TcpStream,
    address: SocketAddr,
    request: Request<Body>,
    seat: Seat,
) -> Result<Response<Body>, ForwardError> {
    let broken = |e| ForwardError::Broken(address, e);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with the answer's body, which holds the handle.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(%address, "a forwarded connection ended early: {e}");
        }
    }));
    let request = request.map(|body| bounded(body, REQUEST_BYTES_MAX, IDLE_TIME, None));
    match timeout(ANSWER_TIME, sender.send_request(request)).await {
        Ok(Ok(response)) => Ok(response.map(|incoming| {
            bounded(
                Body::new(incoming),
                ANSWER_BYTES_MAX,
                IDLE_TIME,
                Some((connection, seat)),
            )
        })),
        Ok(Err(e)) => Err(broken(e)),
        Err(_) => Err(ForwardError::Slow(address, ANSWER_TIME)),
    }
}

/// The connection's task, and the request's place among those that are forwarded.
type Held = (AbortOnDropHandle<()>, Seat);

struct Bounded {
    data: BodyDataStream,
    left: u64,
    max: u64,
    idle: Duration,
    /// Held until the body has ended.
    _held: Option<Held>,
}

/// A body that ends with an error when it is too long or too slow. An empty one stays empty, so that
/// no body is announced where there is none.
fn bounded(body: Body, max: u64, idle: Duration, held: Option<Held>) -> Body {
    use axum::body::HttpBody as _;
    if body.is_end_stream() {
        return Body::empty();
    }
    let state = Bounded {
        data: body.into_data_stream(),
        left: max,
        max,
        idle,
        _held: held,
    };
    Body::from_stream(unfold(Some(state), |state| async {
        let mut state = state?;
        let piece = match timeout(state.idle, state.data.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(e))) => return Some((Err(BodyError::Cut(e)), None)),
            Err(_) => return Some((Err(BodyError::Idle(state.idle)), None)),
        };
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        match state.left.checked_sub(length) {
            Some(left) => {
                state.left = left;
                Some((Ok::<Bytes, BodyError>(piece), Some(state)))
            }
            None => Some((Err(BodyError::Long(state.max)), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    #[tokio::test]
    async fn bodies_are_bounded() {
        let read = |max| to_bytes(bounded(Body::from("12345"), max, IDLE_TIME, None), 100);
        assert_eq!(&read(5).await.unwrap()[..], b"12345");
        assert!(read(4).await.is_err());
    }

    #[tokio::test]
    async fn a_body_that_stops_is_given_up() {
        let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, BodyError>>());
        assert!(
            to_bytes(bounded(endless, 10, Duration::from_millis(1), None), 100)
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn nobody_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let failed = connect([127, 0, 0, 1].into(), address).await.unwrap_err();
        assert!(matches!(failed, ForwardError::Unreachable(..)));
    }

    #[tokio::test]
    async fn the_source_is_the_doors_own_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _stream = connect([127, 0, 0, 9].into(), address).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 9]));
    }
}
