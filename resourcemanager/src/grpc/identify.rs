//! Who calls: a unix socket's peer by its uid, anybody by a token; and the audit log.
//!
//! What a message says about its sender is never looked at here. Whether the caller may do what it
//! asks is the core's authority function's word; this module only asks it and writes the audit line.

use bobbin_rm_core::{
    Denied, Groups, Object, Operation, Principal, Refusal, may, principal_of_uid,
};
use bobbin_service::{
    Peer, SecretKey, TokenError, TokenKind, account_of_name, account_of_uid, bearer, claimed_node,
    own_uid, peer, wall_now,
};
use bobbin_types::UserName;
use tonic::{Request, Status};

use super::status::refused;
use crate::revoked::Revoked;

/// Proves callers. Clones share nothing that changes.
#[derive(Clone, Debug)]
pub(crate) struct Doorkeeper {
    secret: SecretKey,
    own_uid: u32,
    root_runs_as: UserName,
    revoked: Revoked,
}

impl Doorkeeper {
    /// `secret` is the cluster's; `root_runs_as` the account that root's applications run as.
    pub(crate) fn new(secret: SecretKey, root_runs_as: UserName) -> Doorkeeper {
        Doorkeeper {
            secret,
            own_uid: own_uid(),
            root_runs_as,
            revoked: Revoked::default(),
        }
    }

    /// With the list of canceled tokens.
    #[must_use]
    pub(crate) fn with_revoked(self, revoked: Revoked) -> Doorkeeper {
        Doorkeeper { revoked, ..self }
    }

    /// Canceled tokens: Bobbin's by their text, Hadoop's by their identifier.
    pub(crate) fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Who sent `request`: by its token if it has one, else by the uid of its unix socket.
    ///
    /// # Errors
    /// `Unauthenticated`, with what is missing and how to get it.
    pub(crate) fn principal<T>(&self, request: &Request<T>) -> Result<Principal, Status> {
        let named = match bearer(request.metadata()) {
            Ok(token) => self
                .by_token(token)
                .map_err(|e| Status::unauthenticated(e.to_string())),
            Err(TokenError::Missing) => self.by_peer(peer(request)),
            Err(e) => Err(Status::unauthenticated(e.to_string())),
        };
        if let Err(status) = &named {
            tracing::info!(target: "audit", peer = ?peer(request), result = status.message(), "refused");
        }
        named
    }

    /// Whom an account submits as: root's applications are another account's, whatever door it uses.
    pub(crate) fn submitter_called(&self, account: UserName) -> UserName {
        if account.as_str() == "root" {
            self.root_runs_as.clone()
        } else {
            account
        }
    }

    fn by_peer(&self, peer: Option<Peer>) -> Result<Principal, Status> {
        let uid = match peer {
            Some(Peer::Unix { uid, .. }) => uid,
            Some(Peer::Tcp(_)) | None => {
                return Err(Status::unauthenticated(
                    "no token: on this port 'authorization: Bearer <token>' says who calls; \
                     make one with 'bobbin token create' on the resource manager's host",
                ));
            }
        };
        self.by_uid(uid).map_err(Status::unauthenticated)
    }

    /// Whom a uid that the kernel proved stands for.
    ///
    /// # Errors
    /// It has no account, or one whose name cannot be a user's here; in words.
    pub(crate) fn by_uid(&self, uid: u32) -> Result<Principal, String> {
        let (account, groups) = match account_of_uid(uid) {
            Ok(account) => (account.name, account.group_names),
            // Root needs no account: it submits as another.
            Err(_) if uid == 0 => ("root".to_owned(), Vec::new()),
            Err(e) => return Err(e.to_string()),
        };
        let account = account
            .parse()
            .map_err(|e: bobbin_types::NameError| e.to_string())?;
        Ok(principal_of_uid(
            uid,
            &account,
            self.own_uid,
            &self.root_runs_as,
            Groups(groups.into()),
        ))
    }

    /// A user whose name a token proves. A token proves a user, never an administrator: that takes
    /// the host's own proof.
    pub(crate) fn user_called(&self, name: UserName) -> Principal {
        let groups = account_of_name(name.as_str()).map_or_else(|_| Vec::new(), |a| a.group_names);
        Principal::User {
            name,
            administrator: false,
            groups: Groups(groups.into()),
        }
    }

    /// Whom a token stands for.
    ///
    /// # Errors
    /// The first of its checks that failed.
    pub(crate) fn by_token(&self, token: &str) -> Result<Principal, TokenError> {
        let own = [TokenKind::User, TokenKind::Node, TokenKind::Attempt];
        let claims = match self.secret.verify(token, &own, wall_now()) {
            // A container's token is signed with its node's key.
            Err(TokenError::Signature) => {
                let node = claimed_node(token).ok_or(TokenError::Signature)?;
                let key = self.secret.for_node(&node);
                key.verify(token, &[TokenKind::Container, TokenKind::Files], wall_now())?
            }
            other => other?,
        };
        if claims.kind == TokenKind::User && self.revoked.contains(token.as_bytes()) {
            return Err(TokenError::Canceled);
        }
        let malformed = |()| TokenError::Malformed;
        Ok(match claims.kind {
            TokenKind::User => self.user_called(claims.user.parse().map_err(|_| malformed(()))?),
            TokenKind::Node => Principal::Node(claims.node),
            TokenKind::Attempt => {
                Principal::Attempt(claims.attempt.parse().map_err(|_| malformed(()))?)
            }
            TokenKind::Container => {
                Principal::Container(claims.container.parse().map_err(|_| malformed(()))?)
            }
            TokenKind::Files => {
                Principal::Tenant(claims.container.parse().map_err(|_| malformed(()))?)
            }
            TokenKind::AmNode | TokenKind::Relay => {
                return Err(TokenError::WrongKind);
            }
        })
    }
}

/// Asks the authority function and writes the audit line: of every refusal, and of every call that
/// changes something.
///
/// # Errors
/// `PermissionDenied` with the rule.
pub(crate) fn authorize(
    principal: &Principal,
    operation: Operation,
    object: &Object<'_>,
) -> Result<(), Status> {
    decide(principal, operation, object).map_err(|denied| refused(&Refusal::Denied(denied)))
}

/// As [`authorize`], for every door.
///
/// # Errors
/// Who may do it instead.
pub(crate) fn decide(
    principal: &Principal,
    operation: Operation,
    object: &Object<'_>,
) -> Result<(), Denied> {
    match may(principal, operation, object) {
        Ok(()) => {
            if operation.changes() {
                tracing::info!(target: "audit", %principal, operation = operation.as_str(), %object, result = "allowed");
            }
            Ok(())
        }
        Err(denied) => {
            tracing::info!(target: "audit", %principal, operation = operation.as_str(), %object, result = "denied");
            Err(denied)
        }
    }
}

#[cfg(test)]
mod tests {
    use bobbin_service::Claims;
    use bobbin_types::WallMillis;

    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_bytes(&[7; 32]).unwrap()
    }

    fn doorkeeper() -> Doorkeeper {
        Doorkeeper::new(secret(), "nobody".parse().unwrap())
    }

    fn with_token(token: &str) -> Request<()> {
        let mut request = Request::new(());
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    }

    fn later() -> WallMillis {
        WallMillis(wall_now().0 + 60_000)
    }

    fn from_unix(uid: u32) -> Request<()> {
        let mut request = Request::new(());
        request.extensions_mut().insert(Peer::Unix {
            uid,
            gid: uid,
            pid: None,
        });
        request
    }

    #[test]
    fn the_kernel_names_the_user_of_a_unix_socket() {
        let root = doorkeeper().principal(&from_unix(0)).unwrap();
        assert!(matches!(
            root,
            Principal::User { name, administrator: true, .. } if name.as_str() == "nobody"
        ));
        let status = doorkeeper()
            .principal(&from_unix(4_000_000_001))
            .unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
    }

    #[test]
    fn a_token_wins_over_the_socket_and_never_administers() {
        let mut claims = Claims::new(TokenKind::User, later());
        claims.user = "alice".to_owned();
        let mut request = with_token(&secret().mint(&claims));
        request.extensions_mut().insert(Peer::Unix {
            uid: 0,
            gid: 0,
            pid: None,
        });
        let alice = "alice".parse().unwrap();
        let principal = doorkeeper().principal(&request).unwrap();
        assert_eq!(
            principal,
            Principal::User {
                name: alice,
                administrator: false,
                groups: Groups::default(),
            }
        );
    }

    #[test]
    fn a_containers_token_is_checked_with_its_nodes_key() {
        let mut claims = Claims::new(TokenKind::Container, later());
        claims.node = "h:1".to_owned();
        claims.container = "container_e01_1_0001_01_000001".to_owned();
        let right = with_token(&secret().for_node("h:1").mint(&claims));
        assert!(matches!(
            doorkeeper().principal(&right),
            Ok(Principal::Container(_))
        ));
        let wrong = with_token(&secret().for_node("h:2").mint(&claims));
        assert!(doorkeeper().principal(&wrong).is_err());
    }

    #[test]
    fn root_submits_as_another() {
        let called = |name: &str| doorkeeper().submitter_called(name.parse().unwrap());
        assert_eq!(called("root").as_str(), "nobody");
        assert_eq!(called("alice").as_str(), "alice");
    }

    #[test]
    fn everything_else_is_refused() {
        assert!(doorkeeper().principal(&Request::new(())).is_err());
        assert!(doorkeeper().principal(&with_token("nonsense")).is_err());
        let mut claims = Claims::new(TokenKind::User, WallMillis(1));
        claims.user = "alice".to_owned();
        assert!(
            doorkeeper()
                .principal(&with_token(&secret().mint(&claims)))
                .is_err()
        );
        claims.expires_ms = later().0;
        let other = SecretKey::from_bytes(&[8; 32]).unwrap();
        assert!(
            doorkeeper()
                .principal(&with_token(&other.mint(&claims)))
                .is_err()
        );
        claims.kind = TokenKind::Relay;
        assert!(
            doorkeeper()
                .principal(&with_token(&secret().mint(&claims)))
                .is_err()
        );
    }
}
