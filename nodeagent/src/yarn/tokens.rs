//! Tokens in Hadoop's layout that prove something at this node: NM tokens (who calls) and container
//! tokens (what may be started). Both are signed with the node's key, which comes with the registration.
//!
//! Source: `NMTokenSecretManagerInNM`, `NMContainerTokenSecretManager`.

use bobbin_hadoop::convert::{read_resource, required};
use bobbin_hadoop::exceptions::{ExceptionClass, RpcException};
use bobbin_hadoop::proto::common::Token;
use bobbin_hadoop::proto::yarn;
use bobbin_hadoop::tokens::MasterKeys;
use bobbin_na_core::ContainerClaims;
use bobbin_types::{AttemptId, ContainerId, NodeId, WallMillis};
use bytes::Bytes;

use crate::launch::{chain, shown};

/// The master of one attempt, proven by its NM token for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Master {
    pub(crate) attempt: AttemptId,
}

fn invalid(words: impl Into<String>) -> RpcException {
    RpcException::new(ExceptionClass::InvalidToken, words)
}

/// Whose token it is, and the password that its owner must know.
///
/// # Errors
/// It is malformed, signed by a key that is none of this node's, or for another node.
pub(super) fn master(
    keys: &MasterKeys,
    node: &NodeId,
    identifier: &Bytes,
) -> Result<(Master, Vec<u8>), RpcException> {
    let (token, password) = keys
        .look_up::<yarn::NmTokenIdentifier>(identifier)
        .map_err(|e| invalid(format!("the NM token: {}", chain(&e))))?;
    let of = token
        .node_id
        .as_ref()
        .map_or_else(String::new, |id| format!("{}:{}", id.host(), id.port()));
    if of != node.as_str() {
        return Err(invalid(format!(
            "the NM token is for node {}, this is {node}",
            shown(&of)
        )));
    }
    let attempt = required("app_attempt_id", token.app_attempt_id.as_ref())
        .and_then(AttemptId::try_from)
        .map_err(|e| invalid(format!("the NM token: {e}")))?;
    Ok((Master { attempt }, password.to_vec()))
}

/// What a container token grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) claims: ContainerClaims,
    /// Of the container: 0 at its start, one more with each change of its size.
    pub(super) version: u32,
}

/// Why a container token is not taken, and the container it names, if it can be told.
#[derive(Debug)]
pub(super) struct BadToken {
    pub(super) container: Option<ContainerId>,
    pub(super) exception: RpcException,
}

/// Verifies a container token: kind, signature, node, contents. Whether it is in time and of the
/// caller's attempt is the core's to judge, with words.
pub(super) fn container(
    keys: &MasterKeys,
    node: &NodeId,
    token: Option<&Token>,
) -> Result<Grant, Box<BadToken>> {
    let bad = |container, words: String| {
        Box::new(BadToken {
            container,
            exception: invalid(words),
        })
    };
    let Some(token) = token else {
        return Err(bad(None, "the container token is missing".to_owned()));
    };
    let identifier = keys
        .verify::<yarn::ContainerTokenIdentifier>(token)
        .map_err(|e| {
            bad(
                claimed(token),
                format!("the container token: {}", chain(&e)),
            )
        })?;
    let id = required("container_id", identifier.container_id.as_ref())
        .and_then(ContainerId::try_from)
        .map_err(|e| bad(None, format!("the container token: {e}")))?;
    if identifier.nm_host_addr() != node.as_str() {
        let words = format!(
            "the token of {id} is for node {}, this is {node}",
            shown(identifier.nm_host_addr())
        );
        return Err(bad(Some(id), words));
    }
    let read = || -> Result<Grant, String> {
        let resource = identifier.resource.as_ref().ok_or("it has no resource")?;
        // The cluster's further kinds are written after these two, in their order.
        let kinds: Vec<String> = resource
            .resource_value_map
            .iter()
            .map(|entry| entry.key.clone())
            .filter(|key| key != "memory-mb" && key != "vcores")
            .collect();
        let expires = identifier.expiry_time_stamp();
        let claims = ContainerClaims {
            container: id,
            user: identifier
                .app_submitter()
                .parse()
                .map_err(|e: bobbin_types::NameError| e.to_string())?,
            resource: read_resource(resource, &kinds).map_err(|e| e.to_string())?,
            expires: WallMillis(u64::try_from(expires).map_err(|_| "it ends before 1970")?),
        };
        let version = u32::try_from(identifier.version()).map_err(|_| "its version is below 0")?;
        Ok(Grant { claims, version })
    };
    read().map_err(|e| bad(Some(id), format!("the token of {id}: {e}")))
}

/// The container that a token names, unproven: only for saying which start failed.
fn claimed(token: &Token) -> Option<ContainerId> {
    let identifier: yarn::ContainerTokenIdentifier =
        bobbin_hadoop::wire::decode(token.identifier.clone()).ok()?;
    ContainerId::try_from(identifier.container_id.as_ref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bobbin_hadoop::convert::write_resource;
    use bobbin_hadoop::tokens::Identifier as _;
    use bobbin_service::{SecretKey, hadoop_keys};
    use bobbin_types::Resource;

    fn node() -> NodeId {
        "node1:8041".parse().unwrap()
    }

    fn id() -> ContainerId {
        "container_e01_7_0001_01_000002".parse().unwrap()
    }

    fn keys(of: &str) -> MasterKeys {
        let secret = SecretKey::from_bytes(&[9; 32]).unwrap();
        hadoop_keys(&secret.for_node(of), bobbin_service::wall_now())
    }

    fn nm_token(node: &str) -> yarn::NmTokenIdentifier {
        yarn::NmTokenIdentifier {
            app_attempt_id: Some(id().attempt.into()),
            node_id: Some((&node.parse::<NodeId>().unwrap()).into()),
            app_submitter: Some("alice".into()),
            key_id: None,
        }
    }

    fn container_token() -> yarn::ContainerTokenIdentifier {
        let mut resource = Resource::new(512, 2);
        resource.countable[0] = 3;
        yarn::ContainerTokenIdentifier {
            container_id: Some(id().into()),
            nm_host_addr: Some("node1:8041".into()),
            app_submitter: Some("alice".into()),
            resource: Some(write_resource(&resource, &["gpu".to_owned()])),
            expiry_time_stamp: Some(99),
            version: Some(4),
            ..yarn::ContainerTokenIdentifier::default()
        }
    }

    #[test]
    fn a_master_is_its_token_for_this_node() {
        let token = keys("node1:8041").issue(nm_token("node1:8041"), "any");
        let (found, password) = master(&keys("node1:8041"), &node(), &token.identifier).unwrap();
        assert_eq!(found.attempt, id().attempt);
        assert_eq!(password, token.password);
        // Another node's key signs another password: the exchange fails on it.
        let (_, other) = master(&keys("node2:8041"), &node(), &token.identifier).unwrap();
        assert_ne!(other, token.password);
        let elsewhere = keys("node1:8041").issue(nm_token("node2:8041"), "");
        let refused = master(&keys("node1:8041"), &node(), &elsewhere.identifier).unwrap_err();
        assert_eq!(
            refused.message,
            "the NM token is for node node2:8041, this is node1:8041"
        );
        for bytes in [&b""[..], b"\xff", b"\x0a\x00"] {
            let bytes = Bytes::copy_from_slice(bytes);
            assert!(master(&keys("node1:8041"), &node(), &bytes).is_err());
        }
    }

    #[test]
    fn a_container_token_says_what_is_granted() {
        let keys = keys("node1:8041");
        let token = keys.issue(container_token(), "");
        let grant = container(&keys, &node(), Some(&token)).unwrap();
        assert_eq!(grant.version, 4);
        assert_eq!(grant.claims.user.as_str(), "alice");
        assert_eq!(grant.claims.resource.countable[0], 3);
        assert_eq!(grant.claims.expires, WallMillis(99));
    }

    #[test]
    fn altered_foreign_and_unfit_container_tokens() {
        let own = keys("node1:8041");
        let refusal = |token: Option<&Token>| {
            let bad = container(&own, &node(), token).unwrap_err();
            assert_eq!(bad.exception.class, ExceptionClass::InvalidToken);
            (bad.container, bad.exception.message)
        };
        let token = own.issue(container_token(), "");
        let mut altered = container_token();
        altered.key_id_of(own.current().id);
        altered.resource = Some(write_resource(&Resource::new(1 << 20, 64), &[]));
        let altered = Token {
            identifier: altered.to_bytes(),
            ..token.clone()
        };
        let (named, words) = refusal(Some(&altered));
        assert_eq!(named, Some(id()));
        assert!(words.contains("signature is wrong"), "{words}");
        let foreign = keys("node2:8041").issue(container_token(), "");
        assert!(refusal(Some(&foreign)).1.contains("signature is wrong"));
        let kind = Token {
            kind: "NMToken".into(),
            ..token
        };
        assert!(refusal(Some(&kind)).1.contains("of kind 'NMToken'"));
        let as_container = own.issue(nm_token("node1:8041"), "");
        let mixed = Token {
            kind: "ContainerToken".into(),
            ..as_container
        };
        refusal(Some(&mixed));
        for change in [
            (|t: &mut yarn::ContainerTokenIdentifier| t.nm_host_addr = Some("node2:8041".into()))
                as fn(&mut yarn::ContainerTokenIdentifier),
            |t| t.container_id = None,
            |t| t.resource = None,
            |t| t.app_submitter = Some("../x".into()),
            |t| t.expiry_time_stamp = Some(-1),
            |t| t.version = Some(-1),
        ] {
            let mut identifier = container_token();
            change(&mut identifier);
            refusal(Some(&own.issue(identifier, "")));
        }
        assert_eq!(refusal(None).1, "the container token is missing");
    }

    trait KeyOf {
        fn key_id_of(&mut self, id: i32);
    }

    impl KeyOf for yarn::ContainerTokenIdentifier {
        fn key_id_of(&mut self, id: i32) {
            self.master_key_id = Some(id);
        }
    }

    proptest::proptest! {
        /// Whatever a token holds: it is refused in words, or says what its signer wrote.
        #[test]
        fn any_token_is_survived(
            identifier in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
            flip in proptest::prelude::any::<(usize, u8)>(),
        ) {
            let keys = keys("node1:8041");
            let bytes = Bytes::from(identifier);
            let _ = master(&keys, &node(), &bytes);
            let good = keys.issue(container_token(), "");
            let mut token = Token {
                identifier: bytes,
                ..good.clone()
            };
            proptest::prop_assert!(container(&keys, &node(), Some(&token)).is_err());
            let mut altered = good.identifier.to_vec();
            let at = flip.0 % altered.len();
            altered[at] ^= flip.1;
            let is_same = altered == good.identifier;
            token.identifier = altered.into();
            proptest::prop_assert_eq!(container(&keys, &node(), Some(&token)).is_ok(), is_same);
        }
    }
}
