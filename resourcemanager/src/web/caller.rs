//! Who sends an HTTP request: by a token, or on loopback by the owner of its socket.
//!
//! A stated name (`user.name=`) is never looked at. A socket's owner is a weaker proof than a token
//! in one respect: a browser of that user sends whatever a foreign page tells it to. So a request
//! without a token must be for this host by name, and must not come from a page.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bobbin_rm_core::Principal;
use bobbin_service::{SocketOwnerError, TokenError, account_of_name};
use hyper::ext::ReasonPhrase;

use super::delegation;
use super::door::Web;
use crate::file_tree::Person;

const REMEDY: &str = "make a token with 'bobbin token create' on the resource manager's host and \
     send it as 'Authorization: Bearer <token>' or 'delegation=<token>'";

/// Where a connection comes from, in the kernel's words.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// Both ends are on the loopback address: its owner's uid, or why it has none.
    Loopback(Result<u32, Arc<str>>),
    Elsewhere,
}

impl Origin {
    pub(super) fn of(
        local: SocketAddr,
        peer: SocketAddr,
        owner: Result<u32, SocketOwnerError>,
    ) -> Origin {
        let on_loopback = |a: SocketAddr| a.ip().to_canonical().is_loopback();
        if !on_loopback(local) || !on_loopback(peer) {
            return Origin::Elsewhere;
        }
        Origin::Loopback(owner.map_err(|e| e.to_string().into()))
    }
}

/// Nobody was proven.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unproven {
    #[error("{0}")]
    Nothing(String),
    #[error("{0}")]
    Token(TokenError),
}

impl Web {
    /// Who sent this.
    ///
    /// # Errors
    /// Nobody is proven; the words say what would prove somebody.
    pub(super) fn principal(
        &self,
        parts: &Parts,
        delegation: Option<&str>,
    ) -> Result<Principal, Unproven> {
        let proven = self.prove(parts, delegation);
        if let Err(unproven) = &proven {
            let origin = parts.extensions.get::<Origin>();
            tracing::info!(target: "audit", ?origin, result = %unproven, "refused");
        }
        proven
    }

    fn prove(&self, parts: &Parts, delegation: Option<&str>) -> Result<Principal, Unproven> {
        if let Some(value) = parts.headers.get(AUTHORIZATION) {
            let token = value
                .to_str()
                .ok()
                .and_then(|text| text.strip_prefix("Bearer "))
                .ok_or(Unproven::Token(TokenError::Malformed))?;
            return self
                .doorkeeper
                .by_token(token.trim())
                .map_err(Unproven::Token);
        }
        if let Some(text) = delegation {
            let token = delegation::decode(text).ok_or(Unproven::Token(TokenError::Malformed))?;
            return self.doorkeeper.by_token(&token).map_err(Unproven::Token);
        }
        let uid = match parts.extensions.get::<Origin>() {
            Some(Origin::Loopback(Ok(uid))) => *uid,
            Some(Origin::Loopback(Err(why))) => {
                return Err(Unproven::Nothing(format!("no token, and {why}; {REMEDY}")));
            }
            Some(Origin::Elsewhere) | None => {
                return Err(Unproven::Nothing(format!(
                    "no token, and a stated name proves nothing; {REMEDY}"
                )));
            }
        };
        refuse_browsers(&parts.headers)?;
        self.doorkeeper.by_uid(uid).map_err(Unproven::Nothing)
    }
}

/// Refuses what a page of another site can make a browser send.
fn refuse_browsers(headers: &HeaderMap) -> Result<(), Unproven> {
    let refused = |why: &str| Err(Unproven::Nothing(format!("{why}; {REMEDY}")));
    let host = headers.get(HOST).and_then(|h| h.to_str().ok());
    if !host.is_some_and(is_this_host) {
        return refused("without a token the request must be to localhost or this host's name");
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if headers.contains_key(ORIGIN)
        || site.is_some_and(|site| site != b"none" && site != b"same-origin")
    {
        return refused("without a token nothing is taken from a web page");
    }
    Ok(())
}

fn is_this_host(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => authority,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    name.eq_ignore_ascii_case("localhost")
        || nix::unistd::gethostname().is_ok_and(|own| {
            own.to_str()
                .is_some_and(|own| name.eq_ignore_ascii_case(own))
        })
}

/// A user with the groups that the host gives him. Asks the name service: blocking.
pub(super) fn person(name: &str, administrator: bool) -> Person {
    let mut groups = Vec::new();
    // Who has no account here, only a token, is in the group of his own name.
    if let Ok(account) = account_of_name(name) {
        groups = account.group_names;
    }
    if groups.is_empty() {
        groups.push(name.to_owned());
    }
    Person {
        name: name.to_owned(),
        groups,
        administrator,
    }
}

/// 401. Hadoop's client shows its user the reason phrase only, so the words are there too.
pub(super) fn unknown_caller(unproven: &Unproven) -> Response {
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
    use super::*;

    #[test]
    fn a_browsers_requests_need_a_token() {
        let of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            refuse_browsers(&headers).is_ok()
        };
        for host in ["localhost:8088", "127.0.0.1", "[::1]:8088", "127.8.8.8:1"] {
            assert!(of(&[("host", host)]), "{host}");
        }
        for host in [
            "",
            "evil.example:8088",
            "127.0.0.1.evil.example",
            "10.0.0.1:8088",
        ] {
            assert!(!of(&[("host", host)]), "{host}");
        }
        assert!(!of(&[]));
        assert!(!of(&[("host", "localhost"), ("origin", "null")]));
        assert!(!of(&[
            ("host", "localhost"),
            ("sec-fetch-site", "cross-site")
        ]));
        assert!(of(&[("host", "localhost"), ("sec-fetch-site", "none")]));
    }

    #[test]
    fn only_loopback_has_an_owner() {
        let local = "127.0.0.1:1".parse().unwrap();
        let far = "192.0.2.1:1".parse().unwrap();
        assert!(matches!(
            Origin::of(local, local, Ok(7)),
            Origin::Loopback(Ok(7))
        ));
        assert!(matches!(Origin::of(local, far, Ok(7)), Origin::Elsewhere));
        assert!(matches!(Origin::of(far, local, Ok(7)), Origin::Elsewhere));
    }
}
