//! Tokens in Hadoop's layout that the resource manager makes for masters.
//!
//! AMRM tokens are signed with the resource manager's keys, a node's NM and container tokens with the
//! node's, which its agent has since it registered.

use std::collections::BTreeMap;

use bobbin_hadoop::convert::write_resource;
use bobbin_hadoop::proto::common::Token;
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::tokens::{MasterKeys, issue_client_to_am};
use bobbin_rm_core::Grant;
use bobbin_service::{SecretKey, key_generation, signing_keys, wall_now};
use bobbin_types::{AttemptId, NodeId, UserName, WallMillis};

use crate::minter::Minter;

impl Minter {
    /// What proves a master at the scheduler's door. Its service text is empty: masters put there
    /// how they themselves name the door.
    pub(crate) fn amrm_token(&self, attempt: AttemptId) -> Token {
        let identifier = yarn::AmrmTokenIdentifier {
            app_attempt_id: Some(attempt.into()),
            key_id: None,
        };
        signing_keys(self.secret(), wall_now()).issue(identifier, "")
    }

    /// With it a master checks the tokens of its own clients.
    pub(crate) fn client_to_am_key(&self, attempt: AttemptId) -> Vec<u8> {
        self.key_of(&format!("clients of {attempt}"))
    }

    /// What proves `client` to the master of `attempt`, which is reached at `service`.
    pub(crate) fn client_to_am_token(
        &self,
        attempt: AttemptId,
        client: &str,
        service: &str,
    ) -> Token {
        let identifier = yarn::ClientToAmTokenIdentifier {
            app_attempt_id: Some(attempt.into()),
            client_name: Some(client.to_owned()),
        };
        issue_client_to_am(&self.client_to_am_key(attempt), &identifier, service)
    }

    /// Starts the minting of one answer's tokens for nodes.
    pub(crate) fn for_nodes(&self) -> NodeMint<'_> {
        NodeMint {
            secret: self.secret(),
            now: wall_now(),
            container_valid_ms: self.container_valid_ms(),
            keys: BTreeMap::new(),
        }
    }
}

/// The generation of the key that signs now.
pub(crate) fn generation() -> i32 {
    key_generation(wall_now())
}

/// Mints tokens for nodes; each node's key is made once.
#[derive(Debug)]
pub(crate) struct NodeMint<'a> {
    secret: &'a SecretKey,
    now: WallMillis,
    container_valid_ms: u64,
    keys: BTreeMap<NodeId, MasterKeys>,
}

impl NodeMint<'_> {
    fn keys(&mut self, node: &NodeId) -> &MasterKeys {
        let (secret, now) = (self.secret, self.now);
        self.keys
            .entry(node.clone())
            .or_insert_with(|| signing_keys(&secret.for_node(node.as_str()), now))
    }

    /// What proves an attempt's master at one node.
    pub(crate) fn node(
        &mut self,
        attempt: AttemptId,
        node: &NodeId,
        user: &UserName,
    ) -> yarn::NmToken {
        let identifier = yarn::NmTokenIdentifier {
            app_attempt_id: Some(attempt.into()),
            node_id: Some(node.into()),
            app_submitter: Some(user.to_string()),
            key_id: None,
        };
        yarn::NmToken {
            node_id: Some(node.into()),
            token: Some(self.keys(node).issue(identifier, node.as_str())),
        }
    }

    /// The right to start one container, or to give one another size. `started_ms`: when this
    /// resource manager began, YARN's `rmIdentifier`.
    ///
    /// Source: `BaseContainerTokenSecretManager`, `RMContainerTokenSecretManager`.
    pub(crate) fn container(&mut self, grant: &Grant, started_ms: u64) -> Token {
        let ms = |ms: u64| Some(i64::try_from(ms).unwrap_or(i64::MAX));
        let now = self.now.0;
        let identifier = yarn::ContainerTokenIdentifier {
            container_id: Some(grant.container.into()),
            nm_host_addr: Some(grant.node.to_string()),
            app_submitter: Some(grant.user.to_string()),
            resource: Some(write_resource(&grant.resource, &[])),
            expiry_time_stamp: ms(now.saturating_add(self.container_valid_ms)),
            rm_identifier: ms(started_ms),
            priority: Some(yarn::Priority {
                priority: Some(grant.priority),
            }),
            creation_time: ms(now),
            container_type: Some(yarn::ContainerType::Task.into()),
            execution_type: Some(yarn::ExecutionType::Guaranteed.into()),
            version: Some(i32::try_from(grant.version).unwrap_or(i32::MAX)),
            allocation_request_id: Some(grant.request_id),
            ..yarn::ContainerTokenIdentifier::default()
        };
        self.keys(&grant.node)
            .issue(identifier, grant.node.as_str())
    }
}

#[cfg(test)]
mod tests {
    use bobbin_hadoop::tokens::password;
    use bobbin_service::hadoop_keys;
    use prost::Message;

    use super::*;
    use crate::config::Tokens;

    fn minter() -> (Minter, SecretKey) {
        let secret = SecretKey::from_bytes(&[5; 32]).unwrap();
        (Minter::new(secret.clone(), Tokens::default()), secret)
    }

    fn attempt() -> AttemptId {
        "appattempt_1_0003_000002".parse().unwrap()
    }

    #[test]
    fn an_attempts_token_is_the_resource_managers_alone() {
        let (minter, secret) = minter();
        let token = minter.amrm_token(attempt());
        assert_eq!(token.kind, "YARN_AM_RM_TOKEN");
        let found: yarn::AmrmTokenIdentifier = minter.hadoop_keys().verify(&token).unwrap();
        assert_eq!(found.app_attempt_id, Some(attempt().into()));
        assert_eq!(found.key_id(), generation());
        let nodes = hadoop_keys(&secret.for_node("h:1"), wall_now());
        assert!(nodes.verify::<yarn::AmrmTokenIdentifier>(&token).is_err());
    }

    #[test]
    fn a_nodes_tokens_are_that_nodes_alone() {
        let (minter, secret) = minter();
        let container = "container_e02_1_0003_02_000004".parse().unwrap();
        let grant = Grant {
            container,
            node: "h:1".parse().unwrap(),
            node_grpc_address: String::new(),
            node_http_address: String::new(),
            user: "alice".parse().unwrap(),
            resource: bobbin_types::Resource::new(64, 2),
            priority: 7,
            request_id: -1,
            version: 3,
        };
        let mut mint = minter.for_nodes();
        let at_node = mint.node(attempt(), &grant.node, &grant.user);
        let token = mint.container(&grant, 99);
        let keys = hadoop_keys(&secret.for_node("h:1"), wall_now());
        let found: yarn::NmTokenIdentifier = keys.verify(&at_node.token.clone().unwrap()).unwrap();
        assert_eq!(found.app_submitter(), "alice");
        assert_eq!(found.node_id, at_node.node_id);
        let found: yarn::ContainerTokenIdentifier = keys.verify(&token).unwrap();
        assert_eq!(found.container_id, Some(container.into()));
        assert_eq!(
            (found.nm_host_addr(), found.rm_identifier(), found.version()),
            ("h:1", 99, 3)
        );
        assert_eq!(found.allocation_request_id(), -1);
        assert!(found.expiry_time_stamp() > found.creation_time());
        let others = hadoop_keys(&secret.for_node("h:2"), wall_now());
        assert!(
            others
                .verify::<yarn::ContainerTokenIdentifier>(&token)
                .is_err()
        );
    }

    #[test]
    fn a_master_can_check_its_clients_tokens() {
        let (minter, _) = minter();
        let token = minter.client_to_am_token(attempt(), "bob", "h:5");
        let key = minter.client_to_am_key(attempt());
        assert_eq!(token.password, password(&key, &token.identifier).to_vec());
        let said = yarn::ClientToAmTokenIdentifier::decode(token.identifier).unwrap();
        assert_eq!(said.client_name(), "bob");
        let next = "appattempt_1_0003_000003".parse().unwrap();
        assert_ne!(minter.client_to_am_key(next), key);
    }
}
