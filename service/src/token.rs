//! Tokens: `bobbin1.<base64url(claims)>.<base64url(hmac-sha256)>`.
//!
//! A token is a list of claims and a proof that the holder of a key made them. It says who somebody
//! is, never what they may do. The text of the claims is signed as it travels, so nothing depends
//! on how they are written down again.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bobbin_types::{Resource, WallMillis};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{FileError, atomic_write};

/// The first part of every token; another scheme gets another word.
const PREFIX: &str = "bobbin1";
/// Longest token that is looked at, bytes.
const TOKEN_BYTES_MAX: usize = 4096;
const KEY_BYTES: usize = 32;

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// A person, at the resource manager. Signed with the master secret.
    User,
    /// A node agent's right to register as one host. Signed with the master secret.
    Node,
    /// An application master, at the resource manager. Signed with the master secret.
    Attempt,
    /// The right to start one granted container. Signed with its node's key.
    Container,
    /// An application master, at one node. Signed with that node's key.
    AmNode,
    /// The resource manager reading logs for a client. Signed with the node's key.
    Relay,
    /// Whatever runs in one container, at the resource manager's file tree, as its user and as long
    /// as it lives there. Signed with its node's key.
    Files,
}

/// What a token claims. Fields that its kind does not use are empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub kind: TokenKind,
    /// Unix milliseconds; there is no token without an end.
    pub expires_ms: u64,
    /// The user on whose behalf: of a user token its owner, of a container token whom it runs as.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub application: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attempt: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// A node token's host name; the node id elsewhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// A container token's grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ClaimedResource>,
    /// Which key signed it, see [`SecretKey::id`]; filled by [`SecretKey::mint`].
    #[serde(default)]
    pub key: String,
}

/// A resource inside a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedResource {
    pub memory_mib: u64,
    pub vcores: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countable: Vec<u64>,
}

impl From<Resource> for ClaimedResource {
    fn from(resource: Resource) -> ClaimedResource {
        let kinds = resource
            .countable
            .iter()
            .rposition(|u| *u > 0)
            .map_or(0, |i| i + 1);
        ClaimedResource {
            memory_mib: resource.memory_mib,
            vcores: resource.vcores,
            countable: resource.countable[..kinds].to_vec(),
        }
    }
}

impl From<&ClaimedResource> for Resource {
    fn from(claimed: &ClaimedResource) -> Resource {
        let mut resource = Resource::new(claimed.memory_mib, claimed.vcores);
        for (unit, value) in resource.countable.iter_mut().zip(&claimed.countable) {
            *unit = *value;
        }
        resource
    }
}

impl Claims {
    /// Claims of `kind` until `expires`, everything else empty.
    #[must_use]
    pub fn new(kind: TokenKind, expires: WallMillis) -> Claims {
        Claims {
            kind,
            expires_ms: expires.0,
            user: String::new(),
            application: String::new(),
            attempt: String::new(),
            container: String::new(),
            node: String::new(),
            resource: None,
            key: String::new(),
        }
    }

    /// The granted resource of a container token.
    #[must_use]
    pub fn granted(&self) -> Option<Resource> {
        self.resource.as_ref().map(Resource::from)
    }
}

/// Why a token is not taken. No variant repeats the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("no token: send it as 'authorization: Bearer <token>'")]
    Missing,
    #[error("this is not a token of Bobbin")]
    Malformed,
    #[error(
        "the token was signed by another key: it is another cluster's, another node's, or made up"
    )]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token was canceled")]
    Canceled,
    #[error("a token of another kind is needed here")]
    WrongKind,
}

/// A key that signs and checks tokens. Its bytes are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; KEY_BYTES]);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id())
    }
}

impl SecretKey {
    /// The key of exactly 32 bytes; `None` for any other length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<SecretKey> {
        bytes.try_into().ok().map(SecretKey)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// 8 hexadecimal digits that tell keys apart and give nothing of them away.
    #[must_use]
    pub fn id(&self) -> String {
        let digest = Sha256::new()
            .chain_update(b"bobbin key id")
            .chain_update(self.0)
            .finalize();
        digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
    }

    /// The key that a node's agent checks tokens with: HMAC of its id under this one, so the
    /// resource manager keeps none and an agent that loses its own loses nobody else's.
    #[must_use]
    pub fn for_node(&self, node_id: &str) -> SecretKey {
        SecretKey(
            self.mac(format!("node:{node_id}").as_bytes())
                .finalize()
                .into_bytes()
                .into(),
        )
    }

    /// The secret of one generation of Hadoop tokens.
    pub(crate) fn for_hadoop(&self, generation: i32) -> [u8; 32] {
        self.mac(format!("hadoop-key:{generation}").as_bytes())
            .finalize()
            .into_bytes()
            .into()
    }

    /// Signs the claims.
    #[must_use]
    pub fn mint(&self, claims: &Claims) -> String {
        let claims = Claims {
            key: self.id(),
            ..claims.clone()
        };
        let json = serde_json::to_vec(&claims).expect("claims are strings and numbers");
        let mut text = format!("{PREFIX}.{}", URL_SAFE_NO_PAD.encode(json));
        let signature = self.mac(text.as_bytes()).finalize().into_bytes();
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature));
        text
    }

    /// Checks signature (in constant time), then expiry, then kind.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn verify(
        &self,
        token: &str,
        kinds: &[TokenKind],
        now: WallMillis,
    ) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let body = signed
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('.'))
            .ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::Malformed)?;
        self.mac(signed.as_bytes())
            .verify_slice(&signature)
            .map_err(|_| TokenError::Signature)?;
        let json = URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| TokenError::Malformed)?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)?;
        if claims.expires_ms <= now.0 {
            return Err(TokenError::Expired);
        }
        if !kinds.contains(&claims.kind) {
            return Err(TokenError::WrongKind);
        }
        Ok(claims)
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0)
            .expect("HMAC takes keys of any length");
        mac.update(bytes);
        mac
    }
}

/// The bearer token of a request's metadata.
///
/// # Errors
/// There is none, or it is no text.
pub fn bearer(metadata: &tonic::metadata::MetadataMap) -> Result<&str, TokenError> {
    let value = metadata.get("authorization").ok_or(TokenError::Missing)?;
    let text = value.to_str().map_err(|_| TokenError::Malformed)?;
    text.strip_prefix("Bearer ")
        .map(str::trim)
        .ok_or(TokenError::Malformed)
}

/// Whether a text begins as a token of Bobbin's does.
pub(crate) fn is_ours(text: &str) -> bool {
    let rest = text.strip_prefix(PREFIX);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// The node that a token says it is for, unproven: it only chooses the key to check it with.
#[must_use]
pub fn claimed_node(token: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (signed, _) = token.rsplit_once('.')?;
    let body = signed.strip_prefix(PREFIX)?.strip_prefix('.')?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
    (!claims.node.is_empty()).then_some(claims.node)
}

/// The cluster's secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MasterSecretError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} must hold {KEY_BYTES} bytes, it has {length}: put the right file back, or remove it and give every agent and user a new token", path.display())]
    Length { path: PathBuf, length: usize },
    #[error("{} can be read by others: chmod 0600 it", path.display())]
    Readable { path: PathBuf },
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Reads the secret at `path`, or makes one (0600) when there is none.
///
/// # Errors
/// It cannot be read or made, has another length, or others can read it.
pub fn load_or_create_secret(path: &Path) -> Result<SecretKey, MasterSecretError> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::read(path) {
        Ok(bytes) => {
            let mode = std::fs::metadata(path)
                .map_err(FileError::new("read", path))?
                .permissions()
                .mode();
            if mode & 0o077 != 0 {
                return Err(MasterSecretError::Readable {
                    path: path.to_owned(),
                });
            }
            SecretKey::from_bytes(&bytes).ok_or_else(|| MasterSecretError::Length {
                path: path.to_owned(),
                length: bytes.len(),
            })
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = [0_u8; KEY_BYTES];
            getrandom::fill(&mut bytes).map_err(MasterSecretError::Random)?;
            atomic_write(path, &bytes, 0o600)?;
            Ok(SecretKey(bytes))
        }
        Err(e) => Err(FileError::new("read", path)(e).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: WallMillis = WallMillis(1000);

    fn key() -> SecretKey {
        SecretKey([7; KEY_BYTES])
    }

    fn claims() -> Claims {
        let mut claims = Claims::new(TokenKind::Container, WallMillis(2000));
        claims.user = "nobody".into();
        claims.container = "container_1_0001_01_000001".into();
        claims.resource = Some(Resource::new(128, 1).into());
        claims
    }

    #[test]
    fn minted_tokens_verify_and_say_what_was_claimed() {
        let read = key()
            .verify(&key().mint(&claims()), &[TokenKind::Container], NOW)
            .unwrap();
        assert_eq!(
            read,
            Claims {
                key: key().id(),
                ..claims()
            }
        );
        assert_eq!(read.granted(), Some(Resource::new(128, 1)));
    }

    #[test]
    fn refusals() {
        let token = key().mint(&claims());
        let all = [TokenKind::Container];
        assert_eq!(
            key().verify(&token, &all, WallMillis(2000)),
            Err(TokenError::Expired)
        );
        assert_eq!(
            key().verify(&token, &[TokenKind::User], NOW),
            Err(TokenError::WrongKind)
        );
        assert_eq!(
            key().for_node("a:1").verify(&token, &all, NOW),
            Err(TokenError::Signature)
        );
        assert_ne!(key().for_node("a:1"), key().for_node("a:2"));
        for text in [
            "",
            ".",
            "..",
            "bobbin1",
            "bobbin1.",
            "bobbin1..",
            "bobbin2.e30.AAAA",
        ] {
            assert!(key().verify(text, &all, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn the_key_does_not_print_itself() {
        let text = format!("{:?}", key());
        assert!(!text.contains("07"), "{text}");
        assert_eq!(key().id().len(), 8);
    }

    #[test]
    fn the_secret_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let made = load_or_create_secret(&path).unwrap();
        assert_eq!(load_or_create_secret(&path).unwrap(), made);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            load_or_create_secret(&path),
            Err(MasterSecretError::Readable { .. })
        ));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(
            load_or_create_secret(&path),
            Err(MasterSecretError::Length { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_changed_token_is_taken(position in 0_usize..400, byte in 0x20_u8..0x7f) {
            let token = key().mint(&claims());
            let position = position % token.len();
            let mut changed = token.clone().into_bytes();
            changed[position] = byte;
            let changed = String::from_utf8(changed).unwrap();
            // The last digit of base64 carries spare bits; a strict decoder refuses those too.
            prop_assert_eq!(
                key().verify(&changed, &[TokenKind::Container], NOW).is_ok(),
                changed == token
            );
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,300}") {
            prop_assert!(key().verify(&text, &[TokenKind::User], NOW).is_err());
        }
    }
}
