//! The client's end: a channel to a unix socket or to host:port, with a bearer token.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that is silent so long after a ping is gone; streams then break and are opened again.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// HTTP/2 window, bytes: a few messages of the largest kind.
const WINDOW_BYTES: u32 = 8 << 20;

/// A channel that adds the token to every call; generated clients take it as it is.
pub type RpcChannel = InterceptedService<Channel, Bearer>;

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix socket {}", path.display()),
            Target::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Nobody answers there.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("'{address}' is not host:port")]
    Address { address: String },
    #[error("the token is not a text that can be sent")]
    Token,
    #[error("nobody answers at {target}: {reason}")]
    Refused { target: Target, reason: String },
}

/// Adds `authorization: Bearer <token>`; without a token it adds nothing.
#[derive(Clone, Debug, Default)]
pub struct Bearer {
    value: Option<MetadataValue<Ascii>>,
}

impl Bearer {
    /// # Errors
    /// The token holds characters that no header can.
    pub fn new(token: Option<&str>) -> Result<Bearer, ConnectError> {
        let value = token
            .map(|t| {
                let mut value: MetadataValue<Ascii> = format!("Bearer {}", t.trim())
                    .parse()
                    .map_err(|_| ConnectError::Token)?;
                // Keeps it out of debug prints.
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        Ok(Bearer { value })
    }
}

impl Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.value {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Connects now, so that the error can say where was looked.
///
/// # Errors
/// Nobody answers, or the address or the token is malformed.
pub async fn connect(target: &Target, token: Option<&str>) -> Result<RpcChannel, ConnectError> {
    let bearer = Bearer::new(token)?;
    let refused = |e: tonic::transport::Error| ConnectError::Refused {
        target: target.clone(),
        reason: root_cause(&e),
    };
    let channel = match target {
        Target::Unix(path) => {
            endpoint("http://bobbin")?
                .connect_with_connector(unix_connector(path))
                .await
        }
        Target::Tcp(address) => endpoint(&format!("http://{address}"))?.connect().await,
    }
    .map_err(refused)?;
    Ok(InterceptedService::new(channel, bearer))
}

/// Connects at the first call and again after every loss; calls fail while nobody answers.
///
/// # Errors
/// The address or the token is malformed.
pub fn connect_lazy(target: &Target, token: Option<&str>) -> Result<RpcChannel, ConnectError> {
    Ok(InterceptedService::new(
        channel_lazy(target)?,
        Bearer::new(token)?,
    ))
}

/// As [`connect_lazy`] without a token: for callers that share a channel among many tokens.
///
/// # Errors
/// The address is malformed.
pub fn channel_lazy(target: &Target) -> Result<Channel, ConnectError> {
    Ok(match target {
        Target::Unix(path) => {
            endpoint("http://bobbin")?.connect_with_connector_lazy(unix_connector(path))
        }
        Target::Tcp(address) => endpoint(&format!("http://{address}"))?.connect_lazy(),
    })
}

/// A status for people: its message, or the code's words when there is none.
#[must_use]
pub fn status_words(status: &tonic::Status) -> String {
    if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status.message().to_owned()
    }
}

fn endpoint(uri: &str) -> Result<Endpoint, ConnectError> {
    let malformed = || ConnectError::Address {
        address: uri.trim_start_matches("http://").to_owned(),
    };
    let has_port = uri
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if uri != "http://bobbin" && !has_port {
        return Err(malformed());
    }
    Ok(Endpoint::from_shared(uri.to_owned())
        .map_err(|_| malformed())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}

fn unix_connector(
    path: &Path,
) -> impl tower::Service<
    tonic::transport::Uri,
    Response = TokioIo<tokio::net::UnixStream>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<TokioIo<tokio::net::UnixStream>>> + Send,
> + Send
+ 'static {
    let path = path.to_owned();
    tower::service_fn(move |_| {
        let path = path.clone();
        async move {
            // The handle keeps the short name alive while connecting.
            let short = crate::serve::short_socket_path(&path)?;
            Ok(TokioIo::new(
                tokio::net::UnixStream::connect(short.path()).await?,
            ))
        }
    })
}

/// The innermost error: "Connection refused" says more than "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_say_where_was_looked() {
        let target = Target::Unix("/nonexistent/bobbin.sock".into());
        let error = connect(&target, None).await.unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent/bobbin.sock") && error.contains("No such file"),
            "{error}"
        );
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = connect(&Target::Tcp(free.to_string()), None)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&free.to_string()) && error.contains("refused"),
            "{error}"
        );
        for address in ["", "host", "host:port", "a b:1"] {
            let error = connect(&Target::Tcp(address.into()), None)
                .await
                .unwrap_err();
            assert!(
                matches!(error, ConnectError::Address { .. }),
                "{address}: {error}"
            );
        }
    }

    #[test]
    fn tokens_with_line_ends_are_trimmed_and_others_refused() {
        assert!(Bearer::new(Some("abc\n")).unwrap().value.is_some());
        assert!(matches!(
            Bearer::new(Some("a\nb")),
            Err(ConnectError::Token)
        ));
    }
}
