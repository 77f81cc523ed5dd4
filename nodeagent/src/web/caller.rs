//! Who stands before the door, and what of the node he may see.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::request::Parts;
use bobbin_service::http::caller::{Unproven, bearer, browser_problem, socket_uid};
use bobbin_service::{Claims, TokenError, TokenKind, account_of_name, account_of_uid, own_uid};
use bobbin_types::ContainerId;
use sha2::{Digest, Sha256};

use super::Web;
use crate::grpc::may_read;
use crate::node::KeyError;

const REMEDY: &str = "ask from this host, send a token of 'bobbin token create' as 'Authorization: \
     Bearer <token>', or read logs with 'bobbin app logs'";
/// How long the resource manager's word about a token holds.
const KNOWN_FOR: Duration = Duration::from_secs(30);
const KNOWN_MAX: usize = 1_000;

/// A proven caller.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    Person {
        /// `None`: he has no account on this host.
        uid: Option<u32>,
        name: String,
        administrator: bool,
    },
    /// A token of this node's key: the log relay's, a master's, a container's.
    Token(Claims),
}

/// Tokens by their digest, with their users.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<[u8; 32], (Instant, String)>>);

impl Known {
    fn get(&self, key: &[u8; 32]) -> Option<String> {
        // Every change is one statement, so a panic elsewhere leaves the map consistent.
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, name) = known.get(key)?;
        (since.elapsed() < KNOWN_FOR).then(|| name.clone())
    }

    fn put(&self, key: [u8; 32], name: String) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, (Instant::now(), name));
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Person { name, .. } => write!(f, "user {name}"),
            Caller::Token(claims) => match claims.kind {
                TokenKind::Container => write!(f, "{}", claims.container),
                TokenKind::AmNode => write!(f, "{}", claims.attempt),
                TokenKind::Relay
                | TokenKind::User
                | TokenKind::Node
                | TokenKind::Attempt
                | TokenKind::Files => f.write_str("the log relay"),
            },
        }
    }
}

impl Caller {
    /// Whether the logs of a container are his; `owner` is whom its log folder belongs to.
    pub(super) fn may_read_logs(&self, container: &ContainerId, owner: Option<u32>) -> bool {
        match self {
            Caller::Person {
                administrator: true,
                ..
            } => true,
            Caller::Person { uid, .. } => uid.is_some() && *uid == owner,
            Caller::Token(claims) => may_read(claims, &container.application(), Some(container)),
        }
    }

    /// Whether a container that `user` runs is shown to him.
    pub(super) fn sees(&self, container: &ContainerId, user: &str) -> bool {
        match self {
            Caller::Person {
                name,
                administrator,
                ..
            } => *administrator || name == user,
            Caller::Token(claims) => may_read(claims, &container.application(), Some(container)),
        }
    }
}

impl Web {
    /// Who sent this.
    ///
    /// # Errors
    /// Nobody is proven; the words say what would prove somebody.
    pub(super) async fn prove(&self, parts: &Parts) -> Result<Caller, Unproven> {
        if let Some(token) = bearer(&parts.headers)? {
            return self.by_token(token).await;
        }
        let uid = socket_uid(parts, REMEDY).await?;
        let names = [self.node.node_id.host()];
        if let Some(problem) = browser_problem(&parts.method, &parts.headers, &names) {
            return Err(Unproven::Nothing(format!("{problem}; {REMEDY}")));
        }
        let account = tokio::task::spawn_blocking(move || account_of_uid(uid))
            .await
            .map_err(|_| Unproven::Nothing("the agent stops".to_owned()))?;
        let administrator = uid == 0 || uid == own_uid();
        match account {
            Ok(account) => Ok(Caller::Person {
                uid: Some(uid),
                name: account.name,
                administrator,
            }),
            Err(_) if administrator => Ok(Caller::Person {
                uid: Some(uid),
                name: uid.to_string(),
                administrator,
            }),
            Err(e) => Err(Unproven::Nothing(e.to_string())),
        }
    }

    async fn by_token(&self, token: &str) -> Result<Caller, Unproven> {
        let kinds = [TokenKind::Relay, TokenKind::AmNode, TokenKind::Container];
        let node = &self.node;
        match node.keys.verify(&node.node_id, token, &kinds) {
            Ok(claims) => Ok(Caller::Token(claims)),
            // A user's is signed with a key that is the resource manager's alone: it is asked.
            Err(KeyError::Token(TokenError::Signature) | KeyError::NoKey) => {
                self.by_manager(token).await
            }
            Err(KeyError::Token(e)) => Err(Unproven::Token(e)),
            Err(e @ KeyError::OtherNode { .. }) => Err(Unproven::Nothing(e.to_string())),
        }
    }

    async fn by_manager(&self, token: &str) -> Result<Caller, Unproven> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let name = match self.known.get(&key) {
            Some(name) => name,
            None => {
                let trees = &self.node.localizer.trees;
                let name = trees.user_of_token(token).await.map_err(|e| {
                    Unproven::Nothing(format!("the resource manager does not take the token: {e}"))
                })?;
                self.known.put(key, name.clone());
                name
            }
        };
        let wanted = name.clone();
        let account = tokio::task::spawn_blocking(move || account_of_name(&wanted))
            .await
            .map_err(|_| Unproven::Nothing("the agent stops".to_owned()))?;
        Ok(Caller::Person {
            uid: account.ok().map(|account| account.uid),
            name,
            // A token proves a user, never an administrator.
            administrator: false,
        })
    }
}
