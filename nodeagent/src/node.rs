//! What all parts of one agent share, and the key that its tokens are checked with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bobbin_hadoop::tokens::MasterKeys;
use bobbin_sandbox::{Bind, CgroupRoot, Launcher};
use bobbin_service::{
    Claims, FileError, SecretKey, TokenError, TokenKind, atomic_write, hadoop_keys, key_generation,
    wall_now,
};
use bobbin_types::{NodeId, Resource};
use tokio_util::task::TaskTracker;

use crate::account::Accounts;
use crate::config::Config;
use crate::folders::Folders;
use crate::live::Live;
use crate::localizer::Localizer;
use crate::logs::Logs;
use crate::systemd::Scope;
use crate::yarn::Extras;
use crate::yarn::contract::NodeEnvironment;

/// The parts of an agent; all of them may be used from any task.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) node_id: NodeId,
    /// What the node has in all and what it keeps back.
    pub(crate) offered: (Resource, Resource),
    /// What the profile lacks by design.
    pub(crate) lacks: Vec<String>,
    /// host:port where masters and the log relay reach this agent.
    pub(crate) grpc_address: String,
    pub(crate) http_address: String,
    pub(crate) folders: Arc<Folders>,
    pub(crate) localizer: Arc<Localizer>,
    pub(crate) launcher: Launcher,
    /// `None`: the rootless profile without groups; memory is then measured.
    pub(crate) cgroups: Option<CgroupRoot>,
    /// What keeps the groups' place on a host that systemd runs.
    pub(crate) _scope: Option<Scope>,
    /// The folder that is bound at `/run/bobbin/bin`.
    pub(crate) bin: PathBuf,
    /// The settings' shared folders without links in them.
    pub(crate) shared_dirs: Vec<PathBuf>,
    /// What containers see beyond the system's folders, read-only.
    pub(crate) readable: Vec<Bind>,
    /// What YARN's containers find in their environment.
    pub(crate) environment: NodeEnvironment,
    /// How far the files of YARN's containers are.
    pub(crate) extras: Extras,
    pub(crate) logs: Logs,
    pub(crate) live: Live,
    pub(crate) keys: Keys,
    pub(crate) accounts: Accounts,
    /// Work that may outlive its container: emptying the trash, giving groups back.
    pub(crate) background: TaskTracker,
}

/// The node's key, as the last registration gave it.
#[derive(Debug)]
pub(crate) struct Keys {
    file: PathBuf,
    key: RwLock<Option<SecretKey>>,
    /// What Hadoop's tokens are checked with, made of a key in a generation.
    hadoop: Mutex<Option<(SecretKey, i32, Arc<MasterKeys>)>>,
}

/// Why a token is not taken here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("this node has not registered yet: it has no key to check tokens with")]
    NoKey,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token is for node {token}, this is {node}")]
    OtherNode { token: String, node: NodeId },
}

impl Keys {
    /// Reads the key that an earlier registration left, so that tokens can be checked while the
    /// resource manager is away.
    pub(crate) fn open(lib: &Path) -> Keys {
        let file = lib.join("node_key");
        let key = match std::fs::read(&file) {
            Ok(bytes) => SecretKey::from_bytes(&bytes),
            Err(e) => {
                tracing::debug!("no node key yet: {e}");
                None
            }
        };
        Keys {
            file,
            key: RwLock::new(key),
            hadoop: Mutex::new(None),
        }
    }

    fn current(&self) -> Option<SecretKey> {
        // One assignment is the only change, so a panic elsewhere leaves it consistent.
        self.key
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes the registration's key and keeps it, 0600. Blocks when it is a new one.
    pub(crate) fn set(&self, bytes: &[u8]) -> Result<(), FileError> {
        let Some(key) = SecretKey::from_bytes(bytes) else {
            tracing::error!(
                "the resource manager sent a node key of {} bytes",
                bytes.len()
            );
            return Ok(());
        };
        if self.current().as_ref() != Some(&key) {
            atomic_write(&self.file, bytes, 0o600)?;
            *self.key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
        }
        Ok(())
    }

    /// Checks a token for this node.
    ///
    /// # Errors
    /// No key yet, or the token is not of this node, of these kinds, and in time.
    pub(crate) fn verify(
        &self,
        node: &NodeId,
        token: &str,
        kinds: &[TokenKind],
    ) -> Result<Claims, KeyError> {
        self.verify_at(node, token, kinds, wall_now())
    }

    /// As [`Keys::verify`] whatever the token's end: the core judges that, with words.
    pub(crate) fn verify_ended(
        &self,
        node: &NodeId,
        token: &str,
        kinds: &[TokenKind],
    ) -> Result<Claims, KeyError> {
        self.verify_at(node, token, kinds, bobbin_types::WallMillis(0))
    }

    /// What tokens in Hadoop's layout are checked with at this time; `None` before the first
    /// registration.
    pub(crate) fn hadoop(&self) -> Option<Arc<MasterKeys>> {
        let key = self.current()?;
        let now = wall_now();
        let generation = key_generation(now);
        // One assignment is the only change, so a panic elsewhere leaves it consistent.
        let mut made = self.hadoop.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, at, keys)) = &*made
            && *of == key
            && *at == generation
        {
            return Some(keys.clone());
        }
        let keys = Arc::new(hadoop_keys(&key, now));
        *made = Some((key, generation, keys.clone()));
        Some(keys)
    }

    /// A token of one container that this agent starts for a master of YARN's, whose own tokens have
    /// another form: what the container's files are fetched with. Empty without a key.
    pub(crate) fn container_token(&self, claims: &Claims) -> Arc<str> {
        let claims = Claims {
            kind: TokenKind::Container,
            ..claims.clone()
        };
        self.current()
            .map_or_else(|| "".into(), |key| key.mint(&claims).into())
    }

    /// What proves the program in a container at the resource manager's file tree; `None` without a
    /// key.
    pub(crate) fn files_token(&self, claims: &Claims) -> Option<String> {
        let claims = Claims {
            kind: TokenKind::Files,
            ..claims.clone()
        };
        self.current().map(|key| key.mint(&claims))
    }

    fn verify_at(
        &self,
        node: &NodeId,
        token: &str,
        kinds: &[TokenKind],
        now: bobbin_types::WallMillis,
    ) -> Result<Claims, KeyError> {
        let key = self.current().ok_or(KeyError::NoKey)?;
        let claims = key.verify(token, kinds, now)?;
        if claims.node != node.as_str() {
            return Err(KeyError::OtherNode {
                token: claims.node,
                node: node.clone(),
            });
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bobbin_types::WallMillis;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_kept_private_and_checks_tokens_of_this_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let node: NodeId = "node1:1".parse().unwrap();
        let keys = Keys::open(dir.path());
        assert!(matches!(
            keys.verify(&node, "x", &[TokenKind::Relay]),
            Err(KeyError::NoKey)
        ));
        keys.set(&[7; 32]).unwrap();
        let mode = std::fs::metadata(dir.path().join("node_key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let keys = Keys::open(dir.path());
        let signer = SecretKey::from_bytes(&[7; 32]).unwrap();
        let mint = |node: &str, expires| {
            let mut claims = Claims::new(TokenKind::Relay, WallMillis(expires));
            claims.node = node.to_owned();
            signer.mint(&claims)
        };
        let kinds = [TokenKind::Relay];
        assert!(
            keys.verify(&node, &mint("node1:1", u64::MAX), &kinds)
                .is_ok()
        );
        assert!(matches!(
            keys.verify(&node, &mint("node2:1", u64::MAX), &kinds),
            Err(KeyError::OtherNode { .. })
        ));
        let old = mint("node1:1", 5);
        assert!(keys.verify(&node, &old, &kinds).is_err());
        assert!(keys.verify_ended(&node, &old, &kinds).is_ok());
        assert!(keys.verify(&node, &old, &[TokenKind::AmNode]).is_err());
    }
}
