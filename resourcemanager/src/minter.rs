//! Tokens the resource manager makes. Each says what it is for and when it ends.

use bobbin_hadoop::tokens::MasterKeys;
use bobbin_rm_core::Grant;
use bobbin_service::{Claims, SecretKey, TokenError, TokenKind, hadoop_keys, wall_now};
use bobbin_types::{ApplicationId, AttemptId, ContainerId, NodeId, Resource, UserName, WallMillis};

use crate::config::Tokens;

/// A log relay's token is used at once.
const RELAY_VALID_MS: u64 = 60_000;

/// Holds the cluster's secret and the tokens' lives.
#[derive(Clone, Debug)]
pub(crate) struct Minter {
    secret: SecretKey,
    tokens: Tokens,
}

impl Minter {
    pub(crate) fn new(secret: SecretKey, tokens: Tokens) -> Minter {
        Minter { secret, tokens }
    }

    /// What signs the resource manager's own tokens in Hadoop's form: AMRM and delegation tokens.
    pub(crate) fn hadoop_keys(&self) -> MasterKeys {
        hadoop_keys(&self.secret, wall_now())
    }

    /// A secret of its own for `what`, which is no node's id: it has a blank.
    pub(crate) fn key_of(&self, what: &str) -> Vec<u8> {
        self.secret.for_node(what).as_bytes().to_vec()
    }

    /// What every key and signature here is made from.
    pub(crate) fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// How long a container's token can be used after the grant, milliseconds.
    pub(crate) fn container_valid_ms(&self) -> u64 {
        self.tokens.container_valid_ms
    }

    pub(crate) fn node_key(&self, node: &NodeId) -> Vec<u8> {
        self.secret.for_node(node.as_str()).as_bytes().to_vec()
    }

    /// A user's token, for at most the longest life there is; 0: the default one.
    pub(crate) fn user(&self, user: &UserName, valid_ms: u64) -> (String, WallMillis) {
        let valid_ms = if valid_ms == 0 {
            self.tokens.user_valid_ms
        } else {
            valid_ms
        };
        let expires = after(valid_ms.min(self.tokens.user_valid_max_ms));
        let mut claims = Claims::new(TokenKind::User, expires);
        claims.user = user.to_string();
        (self.secret.mint(&claims), expires)
    }

    /// When a user's token ends.
    ///
    /// # Errors
    /// It is not one, or has ended.
    pub(crate) fn user_expiry(&self, token: &str) -> Result<WallMillis, TokenError> {
        let claims = self.secret.verify(token, &[TokenKind::User], wall_now())?;
        Ok(WallMillis(claims.expires_ms))
    }

    /// A node agent's token; 0: the default life.
    pub(crate) fn node(&self, host: &str, valid_ms: u64) -> (String, WallMillis) {
        let valid_ms = if valid_ms == 0 {
            self.tokens.node_valid_ms
        } else {
            valid_ms
        };
        let expires = after(valid_ms.min(self.tokens.node_valid_ms));
        let mut claims = Claims::new(TokenKind::Node, expires);
        claims.node = host.to_owned();
        (self.secret.mint(&claims), expires)
    }

    /// A master's, at the resource manager.
    pub(crate) fn attempt(&self, attempt: AttemptId, user: &UserName) -> String {
        let mut claims = Claims::new(TokenKind::Attempt, after(self.tokens.attempt_valid_ms));
        claims.user = user.to_string();
        claims.application = attempt.application.to_string();
        claims.attempt = attempt.to_string();
        self.secret.mint(&claims)
    }

    /// The right to start one container.
    pub(crate) fn container(
        &self,
        container: ContainerId,
        node: &NodeId,
        user: &UserName,
        resource: Resource,
    ) -> String {
        let mut claims = Claims::new(TokenKind::Container, after(self.tokens.container_valid_ms));
        claims.user = user.to_string();
        claims.application = container.application().to_string();
        claims.attempt = container.attempt.to_string();
        claims.container = container.to_string();
        claims.node = node.to_string();
        claims.resource = Some(resource.into());
        self.secret.for_node(node.as_str()).mint(&claims)
    }

    /// A grant's two tokens: the attempt's at the node, and the container's.
    pub(crate) fn grant(&self, attempt: AttemptId, grant: &Grant) -> (String, String) {
        let mut claims = Claims::new(TokenKind::AmNode, after(self.tokens.attempt_valid_ms));
        claims.user = grant.user.to_string();
        claims.application = attempt.application.to_string();
        claims.attempt = attempt.to_string();
        claims.node = grant.node.to_string();
        let at_node = self.secret.for_node(grant.node.as_str()).mint(&claims);
        (
            at_node,
            self.container(grant.container, &grant.node, &grant.user, grant.resource),
        )
    }

    /// Reads one application's logs at one node.
    pub(crate) fn relay(
        &self,
        application: ApplicationId,
        node: &NodeId,
        user: &UserName,
    ) -> String {
        let mut claims = Claims::new(TokenKind::Relay, after(RELAY_VALID_MS));
        claims.user = user.to_string();
        claims.application = application.to_string();
        claims.node = node.to_string();
        self.secret.for_node(node.as_str()).mint(&claims)
    }
}

fn after(ms: u64) -> WallMillis {
    WallMillis(wall_now().0.saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minter() -> (Minter, SecretKey) {
        let secret = SecretKey::from_bytes(&[5; 32]).unwrap();
        (Minter::new(secret.clone(), Tokens::default()), secret)
    }

    #[test]
    fn a_grants_tokens_are_the_nodes_and_say_everything() {
        let (minter, secret) = minter();
        let container: ContainerId = "container_e02_1_0003_01_000004".parse().unwrap();
        let grant = Grant {
            container,
            node: "h:1".parse().unwrap(),
            node_grpc_address: "h:2".to_owned(),
            user: "alice".parse().unwrap(),
            resource: Resource::new(64, 2),
            priority: 0,
            request_id: 0,
            node_http_address: String::new(),
            version: 0,
        };
        let (at_node, token) = minter.grant(container.attempt, &grant);
        let key = secret.for_node("h:1");
        let claims = key
            .verify(&token, &[TokenKind::Container], wall_now())
            .unwrap();
        assert_eq!(claims.granted(), Some(Resource::new(64, 2)));
        assert_eq!(
            (claims.user.as_str(), claims.node.as_str()),
            ("alice", "h:1")
        );
        assert_eq!(claims.container, container.to_string());
        let claims = key
            .verify(&at_node, &[TokenKind::AmNode], wall_now())
            .unwrap();
        assert_eq!(claims.attempt, container.attempt.to_string());
        assert!(
            secret
                .verify(&token, &[TokenKind::Container], wall_now())
                .is_err()
        );
    }

    #[test]
    fn lives_are_bounded() {
        let (minter, _) = minter();
        let longest = wall_now().0 + Tokens::default().user_valid_max_ms;
        let (_, expires) = minter.user(&"alice".parse().unwrap(), u64::MAX);
        assert!(expires.0 <= longest + 10_000, "{expires:?}");
    }
}
