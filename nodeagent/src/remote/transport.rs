//! One HTTP request on a connection of its own, to an address that the gate let through: the only place
//! where a socket is opened for a URL that a user named.
//!
//! No proxy, no redirect and no variable of the environment counts here.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use url::Url;

use super::gate::Gate;
use crate::fetch::FetchError;

/// Of an answer that is read whole: a refusal.
const WORDS_BYTES_MAX: usize = 64 << 10;
const WORDS_MAX: usize = 300;
/// Where Linux distributions keep the authorities that they trust.
const AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// For a connection, the greeting of TLS with it.
    pub(crate) connect: Duration,
    /// For an answer's head.
    pub(crate) head: Duration,
    /// Between two pieces of a body.
    pub(crate) idle: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

/// What goes wrong below HTTP; it travels through the store library's own errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It may go better the next time.
    #[error("{0}")]
    Away(String),
    /// It may not.
    #[error("{0}")]
    Final(String),
}

impl From<Fault> for FetchError {
    fn from(fault: Fault) -> FetchError {
        match fault {
            Fault::Away(words) => FetchError::Away(words),
            Fault::Final(words) => FetchError::Place(words),
        }
    }
}

/// The client side of HTTP/1.1 over TCP and TLS.
#[derive(Debug)]
pub(crate) struct Transport {
    /// Setting localizer.ca_file; empty: the system's.
    ca_file: PathBuf,
    pub(crate) waits: Waits,
    tls: OnceCell<Arc<ClientConfig>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn away(url: &Url, words: impl std::fmt::Display) -> FetchError {
    let host = url.host_str().unwrap_or("");
    FetchError::Away(format!("{host}: {words}"))
}

fn in_seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f32())
}

impl Transport {
    pub(crate) fn new(ca_file: PathBuf, waits: Waits) -> Transport {
        Transport {
            ca_file,
            waits,
            tls: OnceCell::new(),
        }
    }

    /// Asks a URL's host; the request has the target, and Host unless the URL's own will do.
    ///
    /// # Errors
    /// `Away`: no connection or no answer. `Place`: its address is refused, or there is no TLS with it.
    pub(crate) async fn send(
        &self,
        gate: &Gate,
        url: &Url,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<ServerBody>, FetchError> {
        let stream = tokio::time::timeout(self.waits.connect, self.connect(gate, url))
            .await
            .map_err(|_| {
                let time = in_seconds(self.waits.connect);
                away(url, format_args!("no connection within {time}"))
            })??;
        let headers = request.headers_mut();
        if !headers.contains_key(HOST) {
            let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
            let host = HeaderValue::from_str(host)
                .map_err(|e| FetchError::Place(format!("its host cannot be asked: {e}")))?;
            headers.insert(HOST, host);
        }
        let agent = concat!("bobbin/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let answering = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let connection = Connection(tokio::spawn(connection.map(drop)));
            Ok::<_, hyper::Error>((sender.send_request(request).await?, connection))
        };
        let (response, connection) = tokio::time::timeout(self.waits.head, answering)
            .await
            .map_err(|_| {
                let time = in_seconds(self.waits.head);
                away(url, format_args!("no answer within {time}"))
            })?
            .map_err(|e| away(url, in_words(&e)))?;
        let idle = self.waits.idle;
        Ok(response.map(|incoming| ServerBody {
            incoming,
            idle,
            patience: Box::pin(tokio::time::sleep(idle)),
            _connection: connection,
        }))
    }

    async fn connect(&self, gate: &Gate, url: &Url) -> Result<Box<dyn Stream>, FetchError> {
        let mut last = None;
        for address in gate.addresses(url).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A short request must not wait for an acknowledgement; else it is only slower.
                    drop(stream.set_nodelay(true));
                    return if url.scheme() == "https" {
                        self.greet(url, stream).await
                    } else {
                        Ok(Box::new(stream))
                    };
                }
                Err(e) => last = Some(e),
            }
        }
        Err(match last {
            Some(e) => away(url, e),
            None => away(url, "it has no address"),
        })
    }

    async fn greet(&self, url: &Url, stream: TcpStream) -> Result<Box<dyn Stream>, FetchError> {
        let config = self.tls.get_or_try_init(|| self.config()).await?.clone();
        let host = url.host_str().unwrap_or("");
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(name.to_owned())
            .map_err(|e| FetchError::Place(format!("'{host}' cannot be in a certificate: {e}")))?;
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            // Another certificate will not come by itself.
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(FetchError::Place(
                format!("{host} is not trusted: {e} (setting localizer.ca_file)"),
            )),
            Err(e) => Err(away(url, e)),
        }
    }

    /// Read when it is needed first: many an agent never speaks TLS.
    async fn config(&self) -> Result<Arc<ClientConfig>, FetchError> {
        let given = self.ca_file.clone();
        let reading = tokio::task::spawn_blocking(move || authorities(given));
        let refused = |words: String| FetchError::Place(format!("https: is not possible: {words}"));
        let roots = reading
            .await
            .map_err(|e| refused(e.to_string()))?
            .map_err(refused)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| refused(e.to_string()))?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Who may vouch for a server. Blocks.
fn authorities(given: PathBuf) -> Result<RootCertStore, String> {
    let file =
        if given.as_os_str().is_empty() {
            let known = AUTHORITIES.iter().map(PathBuf::from);
            known.into_iter().find(|path| path.exists()).ok_or_else(|| {
            "this host has no certificates of authorities where they are looked for: install \
             ca-certificates, or set localizer.ca_file"
                .to_owned()
        })?
        } else {
            given
        };
    let unreadable = |e: rustls::pki_types::pem::Error| {
        format!("{} (setting localizer.ca_file): {e}", file.display())
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&file).map_err(unreadable)? {
        // Systems carry some that are not understood; the others count.
        roots.add_parsable_certificates([certificate.map_err(unreadable)?]);
    }
    if roots.is_empty() {
        return Err(format!("{} has no certificate", file.display()));
    }
    Ok(roots)
}

fn in_words(error: &dyn std::error::Error) -> String {
    crate::launch::chain(error)
}

/// The task that moves a body; it ends with the body.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A body whose pieces must not keep one waiting.
pub(crate) struct ServerBody {
    incoming: Incoming,
    idle: Duration,
    patience: Pin<Box<tokio::time::Sleep>>,
    _connection: Connection,
}

impl std::fmt::Debug for ServerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBody").finish_non_exhaustive()
    }
}

impl Body for ServerBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(context) {
            let idle = self.idle;
            self.patience
                .as_mut()
                .reset(tokio::time::Instant::now() + idle);
            return Poll::Ready(frame.map(|frame| {
                frame.map_err(|e| Fault::Away(format!("the data broke off: {}", in_words(&e))))
            }));
        }
        match self.patience.as_mut().poll(context) {
            Poll::Ready(()) => {
                let words = format!("nothing came for {}", in_seconds(self.idle));
                Poll::Ready(Some(Err(Fault::Away(words))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What an answer that is no file means: whether it is worth another try, and the server's words.
pub(crate) async fn refusal(response: Response<ServerBody>) -> Fault {
    let status = response.status();
    let limited = Limited::new(response.into_body(), WORDS_BYTES_MAX);
    let body = match limited.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let words = String::from_utf8_lossy(&body);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let words: String = words
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS_MAX)
        .collect();
    let all = format!("its server says: {status} {words}");
    if is_passing(status) {
        Fault::Away(all.trim_end().to_owned())
    } else {
        Fault::Final(all.trim_end().to_owned())
    }
}

/// Whether a server that says so may say something else soon. Source: RFC 9110, RFC 6585.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}
