//! Who sends an HTTP request: by a token, or on loopback by the owner of its socket.
//!
//! A stated name (`user.name=`) is never looked at. A socket's owner is a weaker proof than a token
//! in one respect: a browser of that user sends whatever a foreign page tells it to. So a request
//! without a token must be for this host by name, and must not come from a page, unless it only
//! takes the user himself to another one (a link that he follows).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::ext::ReasonPhrase;
use tokio::sync::{OnceCell, Semaphore};

use crate::socket_owner::{SocketOwner, SocketOwnerError};
use crate::token::TokenError;

/// Where a connection comes from, in the kernel's words.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Both ends are on the loopback address: its owner, or why it has none.
    Loopback(Result<Arc<LocalPeer>, Arc<str>>),
    Elsewhere,
}

/// The other end of a loopback connection.
#[derive(Debug)]
pub struct LocalPeer {
    socket: SocketOwner,
    /// Found when the first request without a token asks for it, then true of the connection.
    proven: OnceCell<Result<u32, Arc<str>>>,
}

impl LocalPeer {
    /// Whose share of the connections it takes.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.socket.uid()
    }

    /// The uid, if no container holds the socket.
    async fn proven(&self) -> Result<u32, Arc<str>> {
        let look = || async {
            let Ok(_turn) = LOOKS.acquire().await else {
                return Err("the daemon stops".into());
            };
            let socket = self.socket;
            let looking = tokio::task::spawn_blocking(move || socket.uid_outside_containers());
            match looking.await {
                Ok(found) => found.map_err(|e| e.to_string().into()),
                Err(_) => Err("the daemon stops".into()),
            }
        };
        self.proven.get_or_init(look).await.clone()
    }
}

/// Each look reads a file of every process of the host: so many at a time.
static LOOKS: Semaphore = Semaphore::const_new(4);

impl Origin {
    #[must_use]
    pub fn of(
        local: SocketAddr,
        peer: SocketAddr,
        owner: Result<SocketOwner, SocketOwnerError>,
    ) -> Origin {
        let on_loopback = |a: SocketAddr| a.ip().to_canonical().is_loopback();
        if !on_loopback(local) || !on_loopback(peer) {
            return Origin::Elsewhere;
        }
        let peer = |socket| {
            Arc::new(LocalPeer {
                socket,
                proven: OnceCell::new(),
            })
        };
        Origin::Loopback(owner.map(peer).map_err(|e| e.to_string().into()))
    }
}

/// Nobody was proven.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unproven {
    #[error("{0}")]
    Nothing(String),
    #[error("{0}")]
    Token(TokenError),
}

/// The token in the request's `Authorization` header, unproven; `None` without the header.
///
/// # Errors
/// The header holds something else.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Unproven> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let token = value.to_str().ok().and_then(|t| t.strip_prefix("Bearer "));
    match token {
        Some(token) => Ok(Some(token.trim())),
        None => Err(Unproven::Token(TokenError::Malformed)),
    }
}

/// The uid that owns the socket of a request without a token; `remedy` ends every refusal. A page
/// may have sent it: see [`browser_problem`]. A container's socket has its user's uid and proves
/// nobody.
///
/// # Errors
/// The socket proves nobody.
pub async fn socket_uid(parts: &Parts, remedy: &str) -> Result<u32, Unproven> {
    let unproven = |why: &str| Unproven::Nothing(format!("no token, and {why}; {remedy}"));
    match parts.extensions.get::<Origin>() {
        Some(Origin::Loopback(Ok(peer))) => peer.proven().await.map_err(|why| unproven(&why)),
        Some(Origin::Loopback(Err(why))) => Err(unproven(why)),
        Some(Origin::Elsewhere) | None => Err(Unproven::Nothing(format!(
            "no token, and a stated name proves nothing; {remedy}"
        ))),
    }
}

/// What a page of another site could have made a browser send without a token, in words. `names`
/// are further names of this host.
#[must_use]
pub fn browser_problem(
    method: &Method,
    headers: &HeaderMap,
    names: &[&str],
) -> Option<&'static str> {
    let host = headers.get(HOST).and_then(|h| h.to_str().ok());
    if !host.is_some_and(|host| is_this_host(host, names)) {
        return Some("without a token the request must be to localhost or this host's name");
    }
    let says =
        |name: &str, value: &[u8]| headers.get(name).map(HeaderValue::as_bytes) == Some(value);
    // Following a link shows its page to the user alone: the site that it stood on learns nothing.
    let follows_a_link = method == Method::GET
        && says("sec-fetch-mode", b"navigate")
        && says("sec-fetch-dest", b"document");
    let own_site = !headers.contains_key("sec-fetch-site")
        || says("sec-fetch-site", b"none")
        || says("sec-fetch-site", b"same-origin");
    // A form of this host's own page names that page's origin, which is the host checked above.
    let own_form = says("sec-fetch-site", b"same-origin")
        && headers.get_all(ORIGIN).iter().count() == 1
        && headers.get(ORIGIN).is_some_and(|origin| {
            let own = origin.as_bytes().strip_prefix(b"http://");
            own.is_some() && own == headers.get(HOST).map(HeaderValue::as_bytes)
        });
    let foreign = headers.contains_key(ORIGIN) && !own_form;
    if foreign || !(own_site || follows_a_link) {
        return Some("without a token nothing is taken from a web page");
    }
    None
}

fn is_this_host(authority: &str, names: &[&str]) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => authority,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| name.eq_ignore_ascii_case(own))
        || nix::unistd::gethostname().is_ok_and(|own| {
            own.to_str()
                .is_some_and(|own| name.eq_ignore_ascii_case(own))
        })
}

/// 401. Hadoop's client shows its user the reason phrase only, so the words are there too.
#[must_use]
pub fn unknown_caller(unproven: &Unproven) -> Response {
    let words = unproven.to_string();
    let mut response = (StatusCode::UNAUTHORIZED, format!("{words}\n")).into_response();
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    if let Ok(reason) = ReasonPhrase::try_from(words.into_bytes()) {
        response.extensions_mut().insert(reason);
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::socket_owner::socket_owner;

    async fn loopback() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        (listener.accept().await.unwrap().0, client.unwrap())
    }

    fn problem(method: Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        browser_problem(&method, &headers, &["node7"]).is_some()
    }

    #[test]
    fn a_browsers_requests_need_a_token() {
        for host in [
            "localhost:8088",
            "127.0.0.1",
            "[::1]:8088",
            "127.8.8.8:1",
            "Node7:1",
        ] {
            assert!(!problem(Method::PUT, &[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example:8088",
            "127.0.0.1.evil.example",
            "10.0.0.1:8088",
        ] {
            assert!(problem(Method::GET, &[("host", host)]), "{host}");
        }
        assert!(problem(Method::GET, &[]));
        let local = ("host", "localhost");
        assert!(problem(Method::GET, &[local, ("origin", "null")]));
        assert!(problem(
            Method::GET,
            &[local, ("sec-fetch-site", "cross-site")]
        ));
        assert!(!problem(Method::GET, &[local, ("sec-fetch-site", "none")]));
    }

    #[test]
    fn an_own_form_may_be_sent() {
        let form = [
            ("host", "localhost:8088"),
            ("origin", "http://localhost:8088"),
            ("sec-fetch-site", "same-origin"),
        ];
        assert!(!problem(Method::POST, &form));
        for (place, value) in [
            (0, "evil.example:8088"),
            (1, "http://localhost:8089"),
            (1, "https://localhost:8088"),
            (1, "null"),
            (2, "cross-site"),
            (2, "none"),
        ] {
            let mut foreign = form;
            foreign[place].1 = value;
            assert!(problem(Method::POST, &foreign), "{value}");
        }
        assert!(problem(Method::POST, &form[..2]));
    }

    #[test]
    fn a_link_may_be_followed() {
        let link = [
            ("host", "localhost"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(!problem(Method::GET, &link));
        assert!(problem(Method::POST, &link));
        let mut framed = link;
        framed[3].1 = "iframe";
        assert!(problem(Method::GET, &framed));
        let mut elsewhere = link;
        elsewhere[0].1 = "evil.example";
        assert!(problem(Method::GET, &elsewhere));
    }

    #[tokio::test]
    async fn only_loopback_has_an_owner() {
        let (server, client) = loopback().await;
        let (local, peer) = (server.local_addr().unwrap(), client.local_addr().unwrap());
        let owner = || socket_owner(&server, local, peer);
        let far = "192.0.2.1:1".parse().unwrap();
        let Origin::Loopback(Ok(own)) = Origin::of(local, peer, owner()) else {
            panic!("an owner");
        };
        assert_eq!(own.uid(), crate::own_uid());
        assert_eq!(own.proven().await, Ok(crate::own_uid()));
        assert!(matches!(Origin::of(local, far, owner()), Origin::Elsewhere));
        assert!(matches!(Origin::of(far, local, owner()), Origin::Elsewhere));
        // What was once proven of a connection stays so: its client may half close it.
        drop(client);
        assert_eq!(own.proven().await, Ok(crate::own_uid()));
        let late = Origin::of(local, peer, owner());
        assert!(matches!(late, Origin::Loopback(Err(_))), "{late:?}");
    }
}
