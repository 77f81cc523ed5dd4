//! Who calls the doors of clients (8032) and of administrators (8033).
//!
//! A token proves its owner. Without one, on loopback, the kernel says whose the socket is; what the
//! client states about itself is ignored, but for `--proxy-user`: a proven caller may act for another
//! user if he may make a token of that user. Off loopback a stated name proves nothing, and the
//! refusal, which the client prints at once, says what does.

use bobbin_hadoop::connection::Introduction;
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::yarn::YarnDelegationTokenIdentifier;
use bobbin_hadoop::server::{AuditedCall, Authenticator, Caller, Outcome, Peer, TokenProof};
use bobbin_rm_core::{Object, Operation, Principal};
use bobbin_service::{socket_owner, wall_now};
use bobbin_types::{UserName, WallMillis};
use bytes::Bytes;
use tokio::net::TcpStream;

use super::exceptions::denied;
use crate::grpc::identify::{Doorkeeper, decide};
use crate::minter::Minter;

const REMEDY: &str = "run 'bobbin token create --hadoop FILE' on the resource manager's host and \
     'export HADOOP_TOKEN_FILE_LOCATION=FILE' here, then try again";

/// A proven caller.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) principal: Principal,
    /// Of the token that proves him; `None`: his socket does.
    pub(crate) token: Option<TokenLife>,
}

/// From when until when a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenLife {
    pub(crate) issued: WallMillis,
    pub(crate) expires: WallMillis,
}

/// One line for a call that is over: who, from where, what he calls himself, and how it ended. What
/// was decided about him has a line of its own.
pub(crate) fn audit(
    caller: &Caller<Client>,
    call: &AuditedCall<'_>,
    outcome: Outcome<'_>,
    is_change: bool,
) {
    let principal = &caller.principal.principal;
    let (remote, method) = (caller.peer.remote, call.method);
    let context = call.caller_context.unwrap_or_default();
    match outcome {
        Outcome::Answered if is_change => {
            tracing::info!(target: "audit", %principal, %remote, method, context, "answered");
        }
        Outcome::Answered => {}
        Outcome::Refused(exception) => {
            let result = exception.message.as_str();
            let method: String = method
                .chars()
                .filter(|c| !c.is_control())
                .take(80)
                .collect();
            tracing::debug!(target: "audit", %principal, %remote, method, context, result, "refused");
        }
        Outcome::Abandoned => {
            tracing::debug!(target: "audit", %principal, %remote, method, context, "abandoned");
        }
    }
}

impl Client {
    /// The user, if it is one: nobody else calls here.
    pub(crate) fn user(&self) -> Option<&UserName> {
        match &self.principal {
            Principal::User { name, .. } => Some(name),
            Principal::Attempt(_)
            | Principal::Node(_)
            | Principal::Container(_)
            | Principal::Tenant(_) => None,
        }
    }

    /// What an expired token is still good for.
    pub(crate) fn expired(&self, now: WallMillis) -> Option<TokenLife> {
        self.token.filter(|life| life.expires <= now)
    }
}

impl TokenLife {
    /// The refusal of what an expired token is not good for.
    pub(crate) fn over(self) -> RpcException {
        let words = format!(
            "the token expired at {}: {REMEDY}",
            super::iso_time::format(self.expires)
        );
        RpcException::new(ExceptionClass::InvalidToken, words)
    }
}

/// Proves callers of the client and the admin door.
#[derive(Clone)]
pub(crate) struct ClientDoorman {
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) minter: Minter,
}

impl ClientDoorman {
    /// A token of the resource manager: whom it stands for, and the password that proves it.
    ///
    /// An expired one is let in: it stays good for what was submitted with it, and each method says
    /// whether it is that.
    fn of_token(&self, identifier: &Bytes) -> Result<TokenProof<Client>, RpcException> {
        let invalid = |words: String| RpcException::new(ExceptionClass::InvalidToken, words);
        if self.doorkeeper.revoked().contains(identifier) {
            return Err(invalid(format!("the token was canceled: {REMEDY}")));
        }
        let (token, password) = self
            .minter
            .hadoop_keys()
            .look_up::<YarnDelegationTokenIdentifier>(identifier)
            .map_err(|e| invalid(format!("{e}: {REMEDY}")))?;
        let owner: UserName = token
            .owner()
            .parse()
            .map_err(|e: bobbin_types::NameError| invalid(e.to_string()))?;
        let moment = |ms: i64| WallMillis(u64::try_from(ms).unwrap_or_default());
        Ok(TokenProof {
            password: password.to_vec(),
            principal: Client {
                // A token proves a user, never an administrator: that takes the host's own proof.
                principal: self
                    .doorkeeper
                    .user_called(self.doorkeeper.submitter_called(owner)),
                token: Some(TokenLife {
                    issued: moment(token.issue_date()),
                    expires: moment(token.max_date()),
                }),
            },
        })
    }

    async fn of_socket(&self, peer: &Peer, socket: &TcpStream) -> Result<Client, RpcException> {
        let refused = |why: String| {
            // Also asked of those who then show a token: the door logs whom it refuses.
            tracing::debug!(remote = %peer.remote, why, "not without a token");
            let words = format!(
                "SIMPLE authentication is not enabled.  Available:[TOKEN]. {why}, and a stated \
                 name proves nothing here: {REMEDY}"
            );
            RpcException::new(ExceptionClass::AccessControl, words)
        };
        let owner =
            socket_owner(socket, peer.local, peer.remote).map_err(|e| refused(e.to_string()))?;
        // A container's socket has its user's uid: whatever runs there is not the user himself.
        let looking = tokio::task::spawn_blocking(move || owner.uid_outside_containers());
        let uid = looking
            .await
            .map_err(|_| refused("the resource manager stops".to_owned()))?
            .map_err(|e| refused(e.to_string()))?;
        let principal = self.doorkeeper.by_uid(uid).map_err(refused)?;
        Ok(Client {
            principal,
            token: None,
        })
    }

    /// `--proxy-user`: the caller acts as another if he may have that one's token.
    fn acting_for(&self, caller: Client, wanted: &str) -> Result<Client, RpcException> {
        let named: UserName = wanted.parse().map_err(|e: bobbin_types::NameError| {
            RpcException::new(ExceptionClass::Authorization, e.to_string())
        })?;
        let user = self.doorkeeper.submitter_called(named);
        if caller.user() == Some(&user) {
            return Ok(caller);
        }
        let object = Object::User(&user);
        decide(&caller.principal, Operation::CreateUserToken, &object).map_err(denied)?;
        Ok(Client {
            principal: self.doorkeeper.user_called(user),
            token: caller.token,
        })
    }
}

impl Authenticator for ClientDoorman {
    type Principal = Client;

    async fn simple(&self, peer: &Peer) -> Result<Client, RpcException> {
        // Without its socket nobody is proven; the server asks by `simple_on`.
        let words = format!("nothing proves who calls from {}: {REMEDY}", peer.remote);
        Err(RpcException::new(ExceptionClass::AccessControl, words))
    }

    async fn simple_on(&self, peer: &Peer, socket: &TcpStream) -> Result<Client, RpcException> {
        self.of_socket(peer, socket).await
    }

    async fn token(
        &self,
        peer: &Peer,
        identifier: &Bytes,
    ) -> Result<TokenProof<Client>, RpcException> {
        self.of_token(identifier).inspect_err(|e| {
            tracing::info!(target: "audit", remote = %peer.remote, result = e.message, "refused");
        })
    }

    async fn introduced(
        &self,
        caller: Client,
        introduction: &Introduction,
    ) -> Result<Client, RpcException> {
        match (&introduction.real_user, &introduction.effective_user) {
            (Some(_), Some(wanted)) => self.acting_for(caller, wanted),
            (Some(_) | None, None) | (None, Some(_)) => Ok(caller),
        }
    }
}

/// A fresh token that proves `user` at the client door; `real_user` asked for it.
pub(crate) fn token_for(
    user: &UserName,
    real_user: &str,
    renewer: &str,
    expires: WallMillis,
) -> YarnDelegationTokenIdentifier {
    let now = wall_now().0;
    let ms = |ms: u64| Some(i64::try_from(ms).unwrap_or(i64::MAX));
    YarnDelegationTokenIdentifier {
        owner: Some(user.to_string()),
        renewer: Some(renewer.to_owned()),
        real_user: Some(real_user.to_owned()),
        issue_date: ms(now),
        max_date: ms(expires.0),
        // Tells apart what one user is given in different milliseconds; nothing looks it up.
        sequence_number: Some(i32::try_from(now & 0x7fff_ffff).unwrap_or_default()),
        master_key_id: None,
    }
}

#[cfg(test)]
mod tests {
    use bobbin_service::SecretKey;

    use super::*;
    use crate::config::Tokens;

    fn doorman() -> ClientDoorman {
        let secret = SecretKey::from_bytes(&[7; 32]).unwrap();
        ClientDoorman {
            doorkeeper: Doorkeeper::new(secret.clone(), "nobody".parse().unwrap()),
            minter: Minter::new(secret, Tokens::default()),
        }
    }

    fn of(owner: &str, expires: u64) -> Result<Client, RpcException> {
        let doorman = doorman();
        let token = token_for(&owner.parse().unwrap(), "", "", WallMillis(expires));
        let token = doorman.minter.hadoop_keys().issue(token, "");
        let proof = doorman.of_token(&token.identifier)?;
        assert_eq!(proof.password, token.password);
        Ok(proof.principal)
    }

    #[test]
    fn a_token_proves_its_owner_and_never_an_administrator() {
        let far = wall_now().0 + 60_000;
        let client = of("carol", far).unwrap();
        assert_eq!(client.user().unwrap().as_str(), "carol");
        assert_eq!(client.expired(wall_now()), None);
        let root = of("root", far).unwrap();
        let Principal::User {
            name,
            administrator,
            ..
        } = root.principal
        else {
            panic!("a user");
        };
        assert_eq!((name.as_str(), administrator), ("nobody", false));
    }

    #[test]
    fn an_expired_token_is_let_in_and_known_as_such() {
        let client = of("carol", 1).unwrap();
        let life = client.expired(wall_now()).unwrap();
        assert_eq!(life.over().class, ExceptionClass::InvalidToken);
        assert!(life.over().message.contains("1970-01-01T00:00:00.001"));
    }

    #[test]
    fn what_another_key_signed_is_refused_with_the_remedy() {
        let other = SecretKey::from_bytes(&[8; 32]).unwrap();
        let stranger = Minter::new(other, Tokens::default());
        let token = token_for(&"carol".parse().unwrap(), "", "", WallMillis(1));
        let token = stranger.hadoop_keys().issue(token, "");
        // The key is unknown only by its bytes: the password differs, and SASL refuses it.
        let proof = doorman().of_token(&token.identifier).unwrap();
        assert_ne!(proof.password, token.password);
        let garbage = doorman()
            .of_token(&Bytes::from_static(b"\xff\xff"))
            .unwrap_err();
        assert!(
            garbage.message.contains("bobbin token create --hadoop"),
            "{garbage}"
        );
    }

    #[tokio::test]
    async fn off_loopback_a_name_proves_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let socket = TcpStream::connect(local).await.unwrap();
        let far = Peer {
            remote: "192.0.2.1:4000".parse().unwrap(),
            local,
        };
        let refused = doorman().of_socket(&far, &socket).await.unwrap_err();
        assert_eq!(refused.class, ExceptionClass::AccessControl);
        for words in [
            "SIMPLE authentication is not enabled",
            "bobbin token create --hadoop FILE",
        ] {
            assert!(refused.message.contains(words), "{refused}");
        }
        let (accepted, remote) = listener.accept().await.unwrap();
        let here = Peer { remote, local };
        let own = doorman().of_socket(&here, &accepted).await.unwrap();
        assert_eq!(own.token, None);
    }

    #[test]
    fn acting_for_others_takes_an_administrator() {
        let client = |administrator| Client {
            principal: Principal::User {
                name: "ann".parse().unwrap(),
                administrator,
                groups: bobbin_rm_core::Groups::default(),
            },
            token: None,
        };
        let bob = doorman().acting_for(client(true), "bob").unwrap();
        assert_eq!(bob.user().unwrap().as_str(), "bob");
        let refused = doorman().acting_for(client(false), "bob").unwrap_err();
        assert_eq!(refused.class, ExceptionClass::AccessControl);
        assert!(doorman().acting_for(client(false), "ann").is_ok());
        assert!(doorman().acting_for(client(true), "../x").is_err());
    }
}
