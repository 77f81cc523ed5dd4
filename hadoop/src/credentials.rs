//! Credentials: the tokens and secrets in a launch context, and the file that holds a user's tokens.
//!
//! Source: `org.apache.hadoop.security.Credentials`; version 0 is its Writable form, 1 protobuf.

use bytes::{Bytes, BytesMut};

use crate::proto::common;
use crate::proto::common::Token;
use crate::vint::{VintError, put_bytes, put_long, take_bytes, take_length, take_text};
use crate::wire::{WireError, put_delimited, take_message};

const MAGIC: [u8; 4] = *b"HDTS";
/// Most tokens, and most secrets.
const ENTRIES_MAX: usize = 4096;
/// Longest alias, identifier, password or secret, bytes.
const FIELD_BYTES_MAX: usize = 1024 * 1024;
/// Longest stream, bytes.
pub const STREAM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The two forms of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// What Hadoop 3 and Spark write.
    Writable,
    Protobuf,
}

/// Bytes that are no Credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("the credentials do not start with 'HDTS'")]
    Magic,
    #[error("the credentials have version {0}, which is unknown")]
    Version(u8),
    #[error("the credentials are {0} bytes long, at most {STREAM_BYTES_MAX} are read")]
    Long(usize),
    #[error("the credentials hold more than {ENTRIES_MAX} tokens or secrets")]
    Entries,
    #[error("the credentials are malformed")]
    Writable(#[source] VintError),
    #[error("the credentials are malformed")]
    Protobuf(#[source] WireError),
}

/// A secret under its alias, for example Spark's `sparkCookie`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub alias: String,
    pub value: Bytes,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("alias", &self.alias)
            .finish_non_exhaustive()
    }
}

/// Tokens and secrets, in the order of the stream.
#[derive(Clone, Default, PartialEq)]
pub struct Credentials {
    /// With their aliases, which are free: clients look tokens up by kind and service.
    pub tokens: Vec<(String, Token)>,
    pub secrets: Vec<Secret>,
}

impl std::fmt::Debug for Credentials {
    /// Kinds and aliases: never a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<_> = self.tokens.iter().map(|(_, t)| t.kind.as_str()).collect();
        f.debug_struct("Credentials")
            .field("kinds", &kinds)
            .field("secrets", &self.secrets)
            .finish()
    }
}

impl Credentials {
    /// Reads a stream. Bytes after the last secret are ignored: Spark pads with zeros. No bytes at
    /// all are no credentials.
    ///
    /// # Errors
    /// The bytes are no Credentials, or hold more than is reasonable.
    pub fn read(stream: Bytes) -> Result<Self, CredentialsError> {
        if stream.is_empty() {
            return Ok(Self::default());
        }
        if stream.len() > STREAM_BYTES_MAX {
            return Err(CredentialsError::Long(stream.len()));
        }
        let Some((magic, &[version, ..])) = stream.split_first_chunk::<4>() else {
            return Err(CredentialsError::Magic);
        };
        if *magic != MAGIC {
            return Err(CredentialsError::Magic);
        }
        let body = stream.slice(MAGIC.len() + 1..);
        match version {
            0 => Self::read_writable(body),
            1 => Self::read_protobuf(body),
            other => Err(CredentialsError::Version(other)),
        }
    }

    fn read_writable(mut body: Bytes) -> Result<Self, CredentialsError> {
        let body = &mut body;
        let mut found = Self::default();
        for _ in 0..take_count(body)? {
            found
                .tokens
                .push(take_token(body).map_err(CredentialsError::Writable)?);
        }
        for _ in 0..take_count(body)? {
            found
                .secrets
                .push(take_secret(body).map_err(CredentialsError::Writable)?);
        }
        Ok(found)
    }

    fn read_protobuf(mut body: Bytes) -> Result<Self, CredentialsError> {
        let message: common::Credentials =
            take_message(&mut body).map_err(CredentialsError::Protobuf)?;
        if message.tokens.len().max(message.secrets.len()) > ENTRIES_MAX {
            return Err(CredentialsError::Entries);
        }
        let token = |entry: common::CredentialsKv| (entry.alias, entry.token.unwrap_or_default());
        let secret = |entry: common::CredentialsKv| Secret {
            alias: entry.alias,
            value: entry.secret.unwrap_or_default(),
        };
        Ok(Self {
            tokens: message.tokens.into_iter().map(token).collect(),
            secrets: message.secrets.into_iter().map(secret).collect(),
        })
    }

    /// The stream in one of its forms.
    #[must_use]
    pub fn write(&self, version: Version) -> Bytes {
        match version {
            Version::Writable => self.write_writable(),
            Version::Protobuf => self.write_protobuf(),
        }
    }

    fn write_writable(&self) -> Bytes {
        let mut out = MAGIC.to_vec();
        out.push(0);
        put_count(&mut out, self.tokens.len());
        for (alias, token) in &self.tokens {
            put_bytes(&mut out, alias.as_bytes());
            put_token(&mut out, token);
        }
        put_count(&mut out, self.secrets.len());
        for secret in &self.secrets {
            put_bytes(&mut out, secret.alias.as_bytes());
            put_bytes(&mut out, &secret.value);
        }
        Bytes::from(out)
    }

    fn write_protobuf(&self) -> Bytes {
        let token = |(alias, token): &(String, Token)| common::CredentialsKv {
            alias: alias.clone(),
            token: Some(token.clone()),
            secret: None,
        };
        let secret = |secret: &Secret| common::CredentialsKv {
            alias: secret.alias.clone(),
            token: None,
            secret: Some(secret.value.clone()),
        };
        let message = common::Credentials {
            tokens: self.tokens.iter().map(token).collect(),
            secrets: self.secrets.iter().map(secret).collect(),
        };
        let mut out = BytesMut::from(&MAGIC[..]);
        out.extend_from_slice(&[1]);
        put_delimited(&mut out, &message);
        out.freeze()
    }

    /// Adds a token under its service's name, in place of any under the same alias.
    pub fn add(&mut self, token: Token) {
        let alias = token.service.clone();
        self.tokens.retain(|(old, _)| *old != alias);
        self.tokens.push((alias, token));
    }

    /// Takes away every token of a kind: an executor must not hold its master's AMRM token.
    pub fn remove_kind(&mut self, kind: &str) {
        self.tokens.retain(|(_, token)| token.kind != kind);
    }

    /// The first token of a kind.
    #[must_use]
    pub fn of_kind(&self, kind: &str) -> Option<&Token> {
        self.tokens
            .iter()
            .map(|(_, token)| token)
            .find(|t| t.kind == kind)
    }
}

fn take_count(body: &mut Bytes) -> Result<usize, CredentialsError> {
    take_length(body, ENTRIES_MAX).map_err(|error| match error {
        VintError::Length(_) => CredentialsError::Entries,
        VintError::Truncated | VintError::Utf8 => CredentialsError::Writable(error),
    })
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_long(
        out,
        i64::try_from(count).expect("counts are far below 2^63"),
    );
}

fn take_token(body: &mut Bytes) -> Result<(String, Token), VintError> {
    let alias = take_text(body, FIELD_BYTES_MAX)?;
    Ok((alias, take_bare_token(body)?))
}

fn take_secret(body: &mut Bytes) -> Result<Secret, VintError> {
    Ok(Secret {
        alias: take_text(body, FIELD_BYTES_MAX)?,
        value: take_bytes(body, FIELD_BYTES_MAX)?,
    })
}

/// Takes a token in its Writable form.
pub(crate) fn take_bare_token(body: &mut Bytes) -> Result<Token, VintError> {
    Ok(Token {
        identifier: take_bytes(body, FIELD_BYTES_MAX)?,
        password: take_bytes(body, FIELD_BYTES_MAX)?,
        kind: take_text(body, FIELD_BYTES_MAX)?,
        service: take_text(body, FIELD_BYTES_MAX)?,
    })
}

/// Appends a token in its Writable form.
pub(crate) fn put_token(out: &mut Vec<u8>, token: &Token) {
    put_bytes(out, &token.identifier);
    put_bytes(out, &token.password);
    put_bytes(out, token.kind.as_bytes());
    put_bytes(out, token.service.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(kind: &str) -> Token {
        Token {
            identifier: Bytes::from_static(b"who"),
            password: Bytes::from_static(b"secret"),
            kind: kind.to_owned(),
            service: format!("{kind}-service"),
        }
    }

    #[test]
    fn an_empty_stream_as_spark_writes_it() {
        let bytes = Bytes::from_static(b"HDTS\x00\x00\x00");
        assert_eq!(Credentials::read(bytes.clone()), Ok(Credentials::default()));
        assert_eq!(Credentials::default().write(Version::Writable), bytes);
        assert_eq!(Credentials::read(Bytes::new()), Ok(Credentials::default()));
    }

    #[test]
    fn padding_after_the_last_secret_is_ignored() {
        let mut credentials = Credentials::default();
        credentials.add(token("NMToken"));
        credentials.secrets.push(Secret {
            alias: "sparkCookie".to_owned(),
            value: Bytes::from(vec![7; 64]),
        });
        let mut padded = credentials.write(Version::Writable).to_vec();
        padded.extend_from_slice(&[0; 37]);
        assert_eq!(Credentials::read(padded.into()), Ok(credentials));
    }

    #[test]
    fn the_master_token_is_stripped_and_secrets_stay() {
        let mut credentials = Credentials::default();
        credentials.add(token("YARN_AM_RM_TOKEN"));
        credentials.add(token("WEBHDFS delegation"));
        credentials.add(token("YARN_AM_RM_TOKEN"));
        assert_eq!(credentials.tokens.len(), 2, "an alias holds one token");
        credentials.remove_kind("YARN_AM_RM_TOKEN");
        assert_eq!(credentials.of_kind("YARN_AM_RM_TOKEN"), None);
        assert!(credentials.of_kind("WEBHDFS delegation").is_some());
    }

    #[test]
    fn refusals() {
        let read = |bytes: &[u8]| Credentials::read(Bytes::copy_from_slice(bytes));
        assert_eq!(read(b"HDT"), Err(CredentialsError::Magic));
        assert_eq!(read(b"HDTX\x00\x00\x00"), Err(CredentialsError::Magic));
        assert_eq!(read(b"HDTS\x02\x00\x00"), Err(CredentialsError::Version(2)));
        assert_eq!(
            read(b"HDTS\x00\x8c\x7f\xff\xff\xff"),
            Err(CredentialsError::Entries)
        );
        assert_eq!(read(b"HDTS\x00\xff"), Err(CredentialsError::Entries));
        assert_eq!(
            read(b"HDTS\x00\x01"),
            Err(CredentialsError::Writable(VintError::Truncated))
        );
        assert_eq!(
            read(b"HDTS\x00\x00"),
            Err(CredentialsError::Writable(VintError::Truncated))
        );
        assert_eq!(
            Credentials::read(vec![0; STREAM_BYTES_MAX + 1].into()),
            Err(CredentialsError::Long(STREAM_BYTES_MAX + 1))
        );
    }

    #[test]
    fn passwords_are_not_printed() {
        let mut credentials = Credentials::default();
        credentials.add(token("NMToken"));
        assert!(!format!("{credentials:?}").contains("secret\""));
    }

    prop_compose! {
        fn any_token()(identifier: Vec<u8>, password: Vec<u8>, kind: String, service: String) -> Token {
            Token { identifier: identifier.into(), password: password.into(), kind, service }
        }
    }

    proptest! {
        #[test]
        fn there_and_back(
            tokens in proptest::collection::vec((any::<String>(), any_token()), 0..5),
            secrets in proptest::collection::vec((any::<String>(), any::<Vec<u8>>()), 0..5),
        ) {
            let secrets = secrets.into_iter().map(|(alias, value)| Secret { alias, value: value.into() });
            let credentials = Credentials { tokens, secrets: secrets.collect() };
            for version in [Version::Writable, Version::Protobuf] {
                let read = Credentials::read(credentials.write(version));
                prop_assert_eq!(read.as_ref(), Ok(&credentials));
            }
        }

        #[test]
        fn any_bytes_are_safe(version in 0_u8..3, bytes: Vec<u8>) {
            let mut stream = b"HDTS".to_vec();
            stream.push(version);
            stream.extend_from_slice(&bytes);
            let _ = Credentials::read(stream.into());
            let _ = Credentials::read(bytes.into());
        }
    }
}
