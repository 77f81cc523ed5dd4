//! Tokens: identifiers, and passwords made from them with a master key.
//!
//! A password is HMAC-SHA1(master key, identifier), so verifying needs the key and nothing else; the
//! identifier names its key, so keys can roll while older tokens stay good.
//!
//! Source: `org.apache.hadoop.security.token.SecretManager`, `BaseNMTokenSecretManager`.

use std::collections::VecDeque;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message;
use sha1::Sha1;

use crate::credentials::{put_token, take_bare_token};
use crate::digest::equal_in_constant_time;
use crate::proto::common::Token;
use crate::proto::yarn::{
    AmrmTokenIdentifier, ClientToAmTokenIdentifier, ContainerTokenIdentifier, NmTokenIdentifier,
    YarnDelegationTokenIdentifier,
};
use crate::vint::{VintError, put_bytes, put_long, take_long, take_text};
use crate::wire::{self, WireError};

/// Bytes of a password.
pub const PASSWORD_BYTES: usize = 20;
/// Bytes of a master key.
pub const KEY_BYTES: usize = 32;
/// Earlier keys that stay good; the oldest goes when one more would.
const EARLIER_KEYS_MAX: usize = 64;
/// Longest identifier that is looked at, bytes.
const IDENTIFIER_BYTES_MAX: usize = 64 * 1024;
/// Longest text in a WebHDFS identifier, bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// A token that is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is of kind '{found}' where {expected} is expected")]
    Kind {
        found: String,
        expected: &'static str,
    },
    #[error("the token's identifier is malformed")]
    Identifier(#[source] WireError),
    #[error("the token's identifier is malformed")]
    Writable(#[source] VintError),
    #[error("the token was signed with key {0}, which is not known or has been retired")]
    Key(i32),
    #[error("the token's signature is wrong")]
    Password,
    #[error("the token's text is not base64")]
    Text,
}

/// The password of an identifier.
#[must_use]
pub fn password(key: &[u8], identifier: &[u8]) -> [u8; PASSWORD_BYTES] {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(identifier);
    mac.finalize().into_bytes().into()
}

/// A secret that tokens are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKey {
    pub id: i32,
    pub secret: [u8; KEY_BYTES],
}

impl MasterKey {
    /// Each kind has a key of its own below this one: the bytes of one kind never pass as another's.
    fn sign<I: Identifier>(&self, identifier: &[u8]) -> [u8; PASSWORD_BYTES] {
        password(&password(&self.secret, I::KIND.as_bytes()), identifier)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The key that signs now and the earlier ones that still verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterKeys {
    current: MasterKey,
    /// Newest first.
    earlier: VecDeque<MasterKey>,
}

impl MasterKeys {
    #[must_use]
    pub fn new(current: MasterKey) -> Self {
        Self {
            current,
            earlier: VecDeque::new(),
        }
    }

    #[must_use]
    pub fn current(&self) -> &MasterKey {
        &self.current
    }

    /// Signs with `next` from now on; what earlier keys signed stays good until they are retired.
    /// A key of the same id replaces the old one.
    pub fn roll(&mut self, next: MasterKey) {
        let old = std::mem::replace(&mut self.current, next);
        self.earlier.push_front(old);
        let id = self.current.id;
        self.earlier.retain(|key| key.id != id);
        self.earlier.truncate(EARLIER_KEYS_MAX);
    }

    /// Ends every token signed with an earlier key.
    pub fn retire(&mut self, id: i32) {
        self.earlier.retain(|key| key.id != id);
    }

    fn find(&self, id: i32) -> Result<&MasterKey, TokenError> {
        std::iter::once(&self.current)
            .chain(&self.earlier)
            .find(|key| key.id == id)
            .ok_or(TokenError::Key(id))
    }

    /// Signs an identifier with the current key. `service` is what clients look the token up by.
    #[must_use]
    pub fn issue<I: Identifier>(&self, mut identifier: I, service: impl Into<String>) -> Token {
        identifier.set_key(self.current.id);
        let identifier = identifier.to_bytes();
        Token {
            password: Bytes::copy_from_slice(&self.current.sign::<I>(&identifier)),
            identifier,
            kind: I::KIND.to_owned(),
            service: service.into(),
        }
    }

    /// Reads an identifier and gives the password that its owner must know: for SASL.
    ///
    /// # Errors
    /// `Identifier` and `Key`.
    pub fn look_up<I: Identifier>(
        &self,
        identifier: &Bytes,
    ) -> Result<(I, [u8; PASSWORD_BYTES]), TokenError> {
        if identifier.len() > IDENTIFIER_BYTES_MAX {
            return Err(TokenError::Identifier(WireError::Length));
        }
        let decoded = I::from_bytes(identifier)?;
        let key = self.find(decoded.key())?;
        Ok((decoded, key.sign::<I>(identifier)))
    }

    /// Verifies a whole token, password included: for tokens inside messages.
    ///
    /// # Errors
    /// Whatever is wrong with it.
    pub fn verify<I: Identifier>(&self, token: &Token) -> Result<I, TokenError> {
        if token.kind != I::KIND {
            return Err(TokenError::Kind {
                found: token.kind.chars().take(80).collect(),
                expected: I::KIND,
            });
        }
        let (identifier, expected) = self.look_up(&token.identifier)?;
        if !equal_in_constant_time(&expected, &token.password) {
            return Err(TokenError::Password);
        }
        Ok(identifier)
    }
}

/// What a token says, with the id of the key that signed it.
pub trait Identifier: Sized {
    /// The kind text by which clients tell tokens apart.
    const KIND: &'static str;

    /// The id of the key.
    fn key(&self) -> i32;
    fn set_key(&mut self, id: i32);
    /// The bytes that are signed.
    fn to_bytes(&self) -> Bytes;

    /// # Errors
    /// The bytes are no identifier of this kind.
    fn from_bytes(bytes: &Bytes) -> Result<Self, TokenError>;
}

macro_rules! identifiers {
    ($($message:ident, $key:ident = $kind:literal;)*) => {
        $(impl Identifier for $message {
            const KIND: &'static str = $kind;

            fn key(&self) -> i32 {
                self.$key()
            }

            fn set_key(&mut self, id: i32) {
                self.$key = Some(id);
            }

            fn to_bytes(&self) -> Bytes {
                Bytes::from(self.encode_to_vec())
            }

            fn from_bytes(bytes: &Bytes) -> Result<Self, TokenError> {
                wire::decode(bytes.clone()).map_err(TokenError::Identifier)
            }
        })*
    };
}

identifiers! {
    AmrmTokenIdentifier, key_id = "YARN_AM_RM_TOKEN";
    NmTokenIdentifier, key_id = "NMToken";
    ContainerTokenIdentifier, master_key_id = "ContainerToken";
    YarnDelegationTokenIdentifier, master_key_id = "RM_DELEGATION_TOKEN";
}

/// Kind of the token with which a client calls an application master.
pub const CLIENT_TO_AM_KIND: &str = "YARN_CLIENT_TOKEN";

/// A token for a client of an application master, signed with the attempt's own key
/// (`client_to_am_token_master_key`), which the master is given when it registers.
#[must_use]
pub fn issue_client_to_am(
    key: &[u8],
    identifier: &ClientToAmTokenIdentifier,
    service: impl Into<String>,
) -> Token {
    let identifier = Bytes::from(identifier.encode_to_vec());
    Token {
        password: Bytes::copy_from_slice(&password(key, &identifier)),
        identifier,
        kind: CLIENT_TO_AM_KIND.to_owned(),
        service: service.into(),
    }
}

/// What a WebHDFS token says; it is no protobuf message.
///
/// Source: `AbstractDelegationTokenIdentifier`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebHdfsIdentifier {
    pub owner: String,
    pub renewer: String,
    pub real_user: String,
    /// Unix milliseconds.
    pub issue_ms: i64,
    /// Unix milliseconds.
    pub max_ms: i64,
    pub sequence: i32,
    pub key_id: i32,
}

/// Kind of a WebHDFS token over http.
pub const WEBHDFS_KIND: &str = "WEBHDFS delegation";
/// Kind of a WebHDFS token over https.
pub const SWEBHDFS_KIND: &str = "SWEBHDFS delegation";

impl Identifier for WebHdfsIdentifier {
    const KIND: &'static str = WEBHDFS_KIND;

    fn key(&self) -> i32 {
        self.key_id
    }

    fn set_key(&mut self, id: i32) {
        self.key_id = id;
    }

    fn to_bytes(&self) -> Bytes {
        let mut out = vec![0];
        for text in [&self.owner, &self.renewer, &self.real_user] {
            put_bytes(&mut out, text.as_bytes());
        }
        let numbers = [
            self.issue_ms,
            self.max_ms,
            i64::from(self.sequence),
            i64::from(self.key_id),
        ];
        for number in numbers {
            put_long(&mut out, number);
        }
        Bytes::from(out)
    }

    fn from_bytes(bytes: &Bytes) -> Result<Self, TokenError> {
        let bytes = &mut bytes.clone();
        let number = |bytes: &mut Bytes| {
            i32::try_from(take_long(bytes)?).map_err(|_| VintError::Length(usize::MAX))
        };
        let read = |bytes: &mut Bytes| {
            if take_long(bytes)? != 0 {
                return Err(VintError::Length(0));
            }
            Ok(Self {
                owner: take_text(bytes, TEXT_BYTES_MAX)?,
                renewer: take_text(bytes, TEXT_BYTES_MAX)?,
                real_user: take_text(bytes, TEXT_BYTES_MAX)?,
                issue_ms: take_long(bytes)?,
                max_ms: take_long(bytes)?,
                sequence: number(bytes)?,
                key_id: number(bytes)?,
            })
        };
        read(bytes).map_err(TokenError::Writable)
    }
}

/// A token as text, for the `delegation` parameter of WebHDFS. It holds the password: a bearer
/// secret that belongs into no log.
///
/// Source: `Token.encodeToUrlString`.
#[must_use]
pub fn to_url_text(token: &Token) -> String {
    let mut out = Vec::new();
    put_token(&mut out, token);
    URL_SAFE_NO_PAD.encode(out)
}

/// The token of a text.
///
/// # Errors
/// `Text` and `Writable`.
pub fn from_url_text(text: &str) -> Result<Token, TokenError> {
    if text.len() > IDENTIFIER_BYTES_MAX {
        return Err(TokenError::Text);
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(text.trim_end_matches('='))
        .map_err(|_| TokenError::Text)?;
    take_bare_token(&mut Bytes::from(bytes)).map_err(TokenError::Writable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    fn key(id: i32) -> MasterKey {
        MasterKey {
            id,
            secret: [u8::try_from(id).unwrap(); KEY_BYTES],
        }
    }

    fn identifier() -> NmTokenIdentifier {
        NmTokenIdentifier {
            app_submitter: Some("carol".to_owned()),
            ..NmTokenIdentifier::default()
        }
    }

    #[test]
    fn recorded_passwords() {
        assert_eq!(
            password(
                b"bobbin-golden-vector",
                &hex("0a0d0a090801109dd4fa9ea03410011001")
            ),
            hex("b3b931547192fe399652074c47a5f936e02a5e85").as_slice()
        );
        let client = hex("0a04726f6f7412001a0020e1f39d9fa03428e1d0f9a0a03430013801");
        assert_eq!(
            password(b"bobbin-golden-client-key", &client),
            hex("43483e1ab87fb4a2078075794097ec842428467f").as_slice()
        );
    }

    #[test]
    fn identifiers_in_hadoops_bytes() {
        let delegation = YarnDelegationTokenIdentifier {
            owner: Some("carol".to_owned()),
            renewer: Some("yarn".to_owned()),
            real_user: Some("root".to_owned()),
            issue_date: Some(1000),
            max_date: Some(2000),
            sequence_number: Some(7),
            master_key_id: Some(3),
        };
        assert_eq!(
            delegation.encode_to_vec(),
            hex("0a056361726f6c12047961726e1a04726f6f7420e80728d00f30073803")
        );
        let webhdfs = WebHdfsIdentifier {
            owner: "carol".to_owned(),
            renewer: "yarn".to_owned(),
            real_user: String::new(),
            issue_ms: 1000,
            max_ms: 2000,
            sequence: 7,
            key_id: 3,
        };
        let bytes = hex("00056361726f6c047961726e008e03e88e07d00703");
        assert_eq!(webhdfs.to_bytes(), bytes);
        assert_eq!(WebHdfsIdentifier::from_bytes(&bytes.into()), Ok(webhdfs));
    }

    #[test]
    fn keys_roll() {
        let mut keys = MasterKeys::new(key(1));
        let old = keys.issue(identifier(), "h:1");
        keys.roll(key(2));
        let new = keys.issue(identifier(), "h:1");
        assert_ne!(old, new);
        for token in [&old, &new] {
            let verified: NmTokenIdentifier = keys.verify(token).unwrap();
            assert_eq!(verified.app_submitter(), "carol");
        }
        keys.retire(1);
        assert_eq!(
            keys.verify::<NmTokenIdentifier>(&old),
            Err(TokenError::Key(1))
        );
        assert!(keys.verify::<NmTokenIdentifier>(&new).is_ok());
    }

    #[test]
    fn altered_tokens_are_refused() {
        let keys = MasterKeys::new(key(1));
        let token = keys.issue(identifier(), "h:1");
        let mut other = token.clone();
        other.identifier = Bytes::from(
            NmTokenIdentifier {
                app_submitter: Some("mallory".to_owned()),
                key_id: Some(1),
                ..NmTokenIdentifier::default()
            }
            .encode_to_vec(),
        );
        assert_eq!(
            keys.verify::<NmTokenIdentifier>(&other),
            Err(TokenError::Password)
        );
        assert!(matches!(
            keys.verify::<AmrmTokenIdentifier>(&token),
            Err(TokenError::Kind { .. })
        ));
        // One kind's bytes must not pass as another's, though one master key signs both.
        let delegation = keys.issue(YarnDelegationTokenIdentifier::default(), "");
        let signed = keys
            .current()
            .sign::<NmTokenIdentifier>(&delegation.identifier);
        assert_ne!(delegation.password, signed.as_slice());
    }

    #[test]
    fn client_to_master() {
        let identifier = ClientToAmTokenIdentifier {
            client_name: Some("carol".to_owned()),
            ..ClientToAmTokenIdentifier::default()
        };
        let token = issue_client_to_am(b"key", &identifier, "");
        assert_eq!(
            token.password,
            password(b"key", &token.identifier).as_slice()
        );
    }

    proptest! {
        #[test]
        fn url_text_there_and_back(identifier: Vec<u8>, password: Vec<u8>, kind: String, service: String) {
            let token = Token { identifier: identifier.into(), password: password.into(), kind, service };
            prop_assert_eq!(from_url_text(&to_url_text(&token)), Ok(token));
        }

        #[test]
        fn any_text_is_safe(text in ".{0,80}", base64 in "[A-Za-z0-9_-]{0,80}", bytes: Vec<u8>) {
            let _ = from_url_text(&text);
            let _ = from_url_text(&base64);
            let bytes = Bytes::from(bytes);
            let _ = WebHdfsIdentifier::from_bytes(&bytes);
            let keys = MasterKeys::new(key(1));
            let _ = keys.look_up::<ContainerTokenIdentifier>(&bytes);
            let _ = keys.look_up::<YarnDelegationTokenIdentifier>(&bytes);
        }
    }
}
