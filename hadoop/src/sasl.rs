//! The messages of the SASL exchange, the server's side.
//!
//! The challenge is inside NEGOTIATE, which saves a round trip: NEGOTIATE, NEGOTIATE with the
//! challenge, INITIATE with the response, SUCCESS. After SUCCESS every frame is as without SASL, or, if
//! the client chose auth-int or auth-conf, inside a WRAP message (see [`crate::wrap`]).
//!
//! Source: `Server.Connection.saslProcess`, `SaslRpcClient.saslConnect`.

use bytes::Bytes;

use crate::digest::Challenge;
use crate::proto::common::RpcSasl;
use crate::proto::common::rpc_sasl::{SaslAuth, SaslState};

const METHOD_TOKEN: &str = "TOKEN";
const METHOD_SIMPLE: &str = "SIMPLE";
const MECHANISM: &str = "DIGEST-MD5";
/// A client compares these two with its own table: they must be exactly so.
const PROTOCOL: &str = "";
const SERVER_ID: &str = "default";

/// What a client chose from an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// With the response to the challenge; empty: the client waits for a challenge of its own.
    Token(Bytes),
    /// No answer may be sent: the client goes on with the connection context at once.
    Simple,
}

/// A message that does not fit where the exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    #[error("a SASL message of state {found} where {expected:?} is expected")]
    State { found: i32, expected: SaslState },
    #[error("the client chose none of the offered methods")]
    Method,
}

/// The offer: tokens, and SIMPLE if this peer may come without one.
#[must_use]
pub fn offer(challenge: &Challenge, simple: bool) -> RpcSasl {
    let mut auths = vec![SaslAuth {
        challenge: Some(Bytes::from(challenge.text())),
        ..token_auth()
    }];
    if simple {
        auths.push(SaslAuth {
            method: METHOD_SIMPLE.to_owned(),
            ..SaslAuth::default()
        });
    }
    RpcSasl {
        version: Some(0),
        state: SaslState::Negotiate.into(),
        token: None,
        auths,
    }
}

fn token_auth() -> SaslAuth {
    SaslAuth {
        method: METHOD_TOKEN.to_owned(),
        mechanism: MECHANISM.to_owned(),
        protocol: Some(PROTOCOL.to_owned()),
        server_id: Some(SERVER_ID.to_owned()),
        challenge: None,
    }
}

/// Checks that a message is the NEGOTIATE that begins the exchange.
///
/// # Errors
/// `State`.
pub fn read_negotiate(message: &RpcSasl) -> Result<(), SaslError> {
    expect_state(message, SaslState::Negotiate)
}

/// Reads the client's choice.
///
/// # Errors
/// `State`, and `Method` when `simple` was not offered or the method does not exist.
pub fn read_initiate(message: RpcSasl, simple: bool) -> Result<Choice, SaslError> {
    expect_state(&message, SaslState::Initiate)?;
    let [auth] = message.auths.as_slice() else {
        return Err(SaslError::Method);
    };
    if auth.method == METHOD_SIMPLE && simple {
        return Ok(Choice::Simple);
    }
    let chosen = SaslAuth {
        challenge: None,
        ..auth.clone()
    };
    if chosen == token_auth() {
        Ok(Choice::Token(message.token.unwrap_or_default()))
    } else {
        Err(SaslError::Method)
    }
}

/// Reads the response to a challenge that was sent alone.
///
/// # Errors
/// `State`.
pub fn read_response(message: RpcSasl) -> Result<Bytes, SaslError> {
    expect_state(&message, SaslState::Response)?;
    Ok(message.token.unwrap_or_default())
}

fn expect_state(message: &RpcSasl, expected: SaslState) -> Result<(), SaslError> {
    if message.state == i32::from(expected) {
        Ok(())
    } else {
        Err(SaslError::State {
            found: message.state,
            expected,
        })
    }
}

/// A challenge sent alone.
#[must_use]
pub fn challenge(challenge: &Challenge) -> RpcSasl {
    RpcSasl {
        state: SaslState::Challenge.into(),
        token: Some(Bytes::from(challenge.text())),
        ..RpcSasl::default()
    }
}

/// The end of the exchange; the client checks `rspauth`.
#[must_use]
pub fn success(rspauth: String) -> RpcSasl {
    RpcSasl {
        state: SaslState::Success.into(),
        token: Some(Bytes::from(rspauth)),
        ..RpcSasl::default()
    }
}

/// Reads a protected message.
///
/// # Errors
/// `State`.
pub fn read_wrap(message: RpcSasl) -> Result<Bytes, SaslError> {
    expect_state(&message, SaslState::Wrap)?;
    Ok(message.token.unwrap_or_default())
}

/// A protected message.
#[must_use]
pub fn wrap(token: Bytes) -> RpcSasl {
    RpcSasl {
        state: SaslState::Wrap.into(),
        token: Some(token),
        ..RpcSasl::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initiate(method: &str, mechanism: &str) -> RpcSasl {
        RpcSasl {
            state: SaslState::Initiate.into(),
            auths: vec![SaslAuth {
                method: method.to_owned(),
                mechanism: mechanism.to_owned(),
                ..token_auth()
            }],
            ..RpcSasl::default()
        }
    }

    #[test]
    fn choices() {
        let token = initiate("TOKEN", "DIGEST-MD5");
        assert_eq!(read_initiate(token, false), Ok(Choice::Token(Bytes::new())));
        let simple = initiate("SIMPLE", "");
        assert_eq!(read_initiate(simple.clone(), true), Ok(Choice::Simple));
        assert_eq!(read_initiate(simple, false), Err(SaslError::Method));
        let kerberos = initiate("KERBEROS", "GSSAPI");
        assert_eq!(read_initiate(kerberos, true), Err(SaslError::Method));
        let none = RpcSasl {
            state: SaslState::Initiate.into(),
            ..RpcSasl::default()
        };
        assert_eq!(read_initiate(none, true), Err(SaslError::Method));
    }

    #[test]
    fn order() {
        let wrong = SaslError::State {
            found: 2,
            expected: SaslState::Negotiate,
        };
        assert_eq!(read_negotiate(&initiate("TOKEN", "")), Err(wrong));
        assert!(read_response(initiate("TOKEN", "")).is_err());
    }
}
