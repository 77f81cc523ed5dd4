//! One bounded HTTP GET: a connection of its own, time-outs for every wait, no redirect followed.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, LOCATION};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::fetch::FetchError;

const CONNECT_TIME: Duration = Duration::from_secs(5);
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Between two pieces of a body.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(60);
/// Of an answer that is read whole: a status, or a refusal.
const SMALL_BYTES_MAX: usize = 64 << 10;
const WORDS_MAX: usize = 500;

/// An answer whose body is still to come.
pub(super) struct Get {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) body: Body,
}

/// A body, and the task that moves it; it ends with the body.
pub(super) struct Body {
    incoming: Incoming,
    connection: JoinHandle<()>,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Body {
    pub(super) async fn frame(
        &mut self,
    ) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
        self.incoming.frame().await
    }
}

/// Asks `address` for `path`.
///
/// # Errors
/// `Away` when the server cannot be reached or broke off; `WebHdfs` when it does not answer.
pub(super) async fn get(
    address: &str,
    path: &str,
    bearer: Option<&str>,
) -> Result<Get, FetchError> {
    let away = |words: String| FetchError::Away(format!("{address}: {words}"));
    let connecting = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(address));
    let stream = match connecting.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(e)) => return Err(away(e.to_string())),
        Err(_) => return Err(away("no connection in time".to_owned())),
    };
    // A short request must not wait for the peer's acknowledgement; without it, it is only slower.
    drop(stream.set_nodelay(true));
    let mut request = hyper::Request::get(path).header(HOST, address);
    if let Some(token) = bearer {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|e| FetchError::WebHdfs(format!("it cannot be asked for: {e}")))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| away(e.to_string()))?;
    let connection = tokio::spawn(async move {
        // What goes wrong is seen at the body.
        drop(connection.await);
    });
    let answered = tokio::time::timeout(HEAD_TIME, sender.send_request(request)).await;
    let response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => return Err(away(e.to_string())),
        Err(_) => {
            connection.abort();
            return Err(FetchError::WebHdfs(format!(
                "{address} did not answer for {} s",
                HEAD_TIME.as_secs()
            )));
        }
    };
    let status = response.status();
    let location = status
        .is_redirection()
        .then(|| response.headers().get(LOCATION)?.to_str().ok())
        .flatten()
        .map(str::to_owned);
    Ok(Get {
        status: status.as_u16(),
        location,
        body: Body {
            incoming: response.into_body(),
            connection,
        },
    })
}

/// A whole small body.
pub(super) async fn small_body(mut body: Body) -> Result<Bytes, FetchError> {
    let limited = Limited::new(&mut body.incoming, SMALL_BYTES_MAX);
    match tokio::time::timeout(HEAD_TIME, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) => Err(FetchError::WebHdfs(format!(
            "its answer cannot be read: {e}"
        ))),
        Err(_) => Err(FetchError::WebHdfs("its answer does not end".to_owned())),
    }
}

/// Source: `RemoteException` of the WebHDFS documentation.
#[derive(Debug, Deserialize)]
struct Remote {
    #[serde(rename = "RemoteException")]
    exception: Exception,
}

#[derive(Debug, Deserialize)]
struct Exception {
    message: String,
}

/// A refusal in the server's own words.
pub(super) fn refusal(status: u16, body: &[u8]) -> FetchError {
    let words = match serde_json::from_slice::<Remote>(body) {
        Ok(remote) => remote.exception.message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let words: String = words
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(WORDS_MAX)
        .collect();
    let words = format!("{words} (status {status})");
    if status == 503 {
        // It is there, and soon knows more: it was restarted.
        FetchError::Away(words)
    } else {
        FetchError::WebHdfs(words)
    }
}
