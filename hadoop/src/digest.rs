//! DIGEST-MD5 with md5-sess, as Hadoop uses it for tokens: the server's side.
//!
//! The user name is the token's identifier and the password its password, both in base64; the realm
//! is `default` and the digest-uri `/default`. The client takes one of the offered qualities of
//! protection; [`crate::wrap`] makes their keys of [`Verified::session_key`].
//!
//! Source: RFC 2831, `SaslRpcServer`, `SaslRpcServer.SaslDigestCallbackHandler`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::protection::{Protection, Quality};

const REALM: &str = "default";
const DIGEST_URI: &str = "/default";
/// The only cipher that is offered: all others that Java has are weaker.
const CIPHER: &str = "3des";
/// Longest response, bytes: the identifier of a container is some hundred bytes.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;
/// Random bytes in a nonce.
const NONCE_BYTES: usize = 30;

/// A response that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("DIGEST-MD5: the response is {0} bytes long")]
    Long(usize),
    #[error("DIGEST-MD5: the response is malformed at byte {0}")]
    Malformed(usize),
    #[error("DIGEST-MD5: the response names {0} twice")]
    Twice(&'static str),
    #[error("DIGEST-MD5: the response lacks {0}")]
    Missing(&'static str),
    #[error("DIGEST-MD5: the response has an unexpected {0}")]
    Unexpected(&'static str),
    #[error("DIGEST-MD5: digest response format violation. Mismatched response.")]
    Mismatch,
    #[error("the system gives no random bytes")]
    Random,
}

/// What the server asks; good for one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    nonce: String,
    protection: Protection,
}

impl Challenge {
    /// With a fresh nonce.
    ///
    /// # Errors
    /// `Random`.
    pub fn new(protection: Protection) -> Result<Self, DigestError> {
        let mut random = [0; NONCE_BYTES];
        getrandom::fill(&mut random).map_err(|_| DigestError::Random)?;
        Ok(Self::with_nonce(BASE64.encode(random), protection))
    }

    /// With a nonce that must never have been used: only for tests against recorded exchanges.
    #[must_use]
    pub fn with_nonce(nonce: String, protection: Protection) -> Self {
        Self { nonce, protection }
    }

    /// The challenge as sent.
    #[must_use]
    pub fn text(&self) -> String {
        let qops: Vec<_> = self.protection.offered().map(Quality::qop).collect();
        let cipher = if self.protection.offers(Quality::Privacy) {
            format!(",cipher=\"{CIPHER}\"")
        } else {
            String::new()
        };
        format!(
            "realm=\"{REALM}\",nonce=\"{}\",qop=\"{}\",charset=utf-8{cipher},algorithm=md5-sess",
            self.nonce,
            qops.join(",")
        )
    }
}

/// A response, read but not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    username: String,
    nonce: String,
    cnonce: String,
    response: [u8; 32],
    quality: Quality,
    identifier: Bytes,
}

/// A response that was made with the token's password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    /// H(A1), from which the keys of auth-int and auth-conf are derived.
    pub session_key: [u8; 16],
    /// What the client chose of the offer.
    pub quality: Quality,
    /// What the server answers, to prove that it knows the password too.
    pub rspauth: String,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified")
            .field("quality", &self.quality)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// Reads a response.
    ///
    /// # Errors
    /// It is none to any challenge of ours.
    pub fn parse(bytes: &[u8]) -> Result<Self, DigestError> {
        if bytes.len() > RESPONSE_BYTES_MAX {
            return Err(DigestError::Long(bytes.len()));
        }
        let directives = Directives::parse(bytes)?;
        let fixed = |key, expected: &str| match directives.get(key) {
            Ok(value) if value.eq_ignore_ascii_case(expected) => Ok(()),
            Ok(_) => Err(DigestError::Unexpected(key)),
            Err(error) => Err(error),
        };
        fixed("realm", REALM)?;
        fixed("digest-uri", DIGEST_URI)?;
        fixed("nc", "00000001")?;
        let quality = match directives.get("qop") {
            Ok(qop) => Quality::from_qop(qop).ok_or(DigestError::Unexpected("qop"))?,
            // RFC 2831 gives it a default, as it does the charset.
            Err(_) => Quality::Authentication,
        };
        if quality == Quality::Privacy {
            fixed("cipher", CIPHER)?;
        }
        if directives.get("charset").is_ok() {
            fixed("charset", "utf-8")?;
        }
        let username = directives.get("username")?;
        let cnonce = directives.get("cnonce")?;
        if cnonce.is_empty() {
            return Err(DigestError::Unexpected("cnonce"));
        }
        let identifier = BASE64
            .decode(username)
            .map_err(|_| DigestError::Unexpected("username"))?;
        Ok(Self {
            username: username.to_owned(),
            nonce: directives.get("nonce")?.to_owned(),
            cnonce: cnonce.to_owned(),
            response: directives
                .get("response")?
                .as_bytes()
                .try_into()
                .map_err(|_| DigestError::Unexpected("response"))?,
            quality,
            identifier: identifier.into(),
        })
    }

    /// The identifier of the token: not proven before [`Response::verify`].
    #[must_use]
    pub fn identifier(&self) -> &Bytes {
        &self.identifier
    }

    /// Checks the response against the challenge it must belong to and the token's password.
    ///
    /// # Errors
    /// `Unexpected("nonce")`, `Unexpected("qop")` if that was not offered, and `Mismatch`.
    pub fn verify(&self, challenge: &Challenge, password: &[u8]) -> Result<Verified, DigestError> {
        if !equal_in_constant_time(self.nonce.as_bytes(), challenge.nonce.as_bytes()) {
            return Err(DigestError::Unexpected("nonce"));
        }
        if !challenge.protection.offers(self.quality) {
            return Err(DigestError::Unexpected("qop"));
        }
        let session_key = self.session_key(password);
        let expected = self.keyed(&session_key, "AUTHENTICATE");
        if !equal_in_constant_time(expected.as_bytes(), &self.response) {
            return Err(DigestError::Mismatch);
        }
        let rspauth = format!("rspauth={}", self.keyed(&session_key, ""));
        Ok(Verified {
            session_key,
            quality: self.quality,
            rspauth,
        })
    }

    /// H(A1).
    fn session_key(&self, password: &[u8]) -> [u8; 16] {
        let password = BASE64.encode(password);
        let secret = Md5::digest(format!("{}:{REALM}:{password}", self.username));
        let mut a1 = Md5::new();
        a1.update(secret);
        a1.update(format!(":{}:{}", self.nonce, self.cnonce));
        a1.finalize().into()
    }

    fn keyed(&self, session_key: &[u8; 16], method: &str) -> String {
        let body = match self.quality {
            Quality::Authentication => "",
            // A hash of a body that there is not.
            Quality::Integrity | Quality::Privacy => ":00000000000000000000000000000000",
        };
        let a2 = hex(&Md5::digest(format!("{method}:{DIGEST_URI}{body}")));
        hex(&Md5::digest(format!(
            "{}:{}:00000001:{}:{}:{a2}",
            hex(session_key),
            self.nonce,
            self.cnonce,
            self.quality.qop()
        )))
    }
}

/// Compares without telling by its duration where two texts differ; their lengths are no secret.
#[must_use]
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0, |difference, (x, y)| {
        std::hint::black_box(difference | (x ^ y))
    });
    difference == 0
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|n| char::from(DIGITS[usize::from(n)]))
        .collect()
}

/// The directives a response may have; others are skipped, as RFC 2831 wants.
const KNOWN: [&str; 10] = [
    "username",
    "realm",
    "nonce",
    "cnonce",
    "nc",
    "qop",
    "digest-uri",
    "response",
    "charset",
    "cipher",
];

/// `key=value` or `key="value"`, separated by commas.
#[derive(Debug, Default)]
struct Directives {
    values: [Option<String>; KNOWN.len()],
}

impl Directives {
    fn parse(bytes: &[u8]) -> Result<Self, DigestError> {
        let text =
            std::str::from_utf8(bytes).map_err(|e| DigestError::Malformed(e.valid_up_to()))?;
        let mut found = Self::default();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n', ',']);
            if rest.is_empty() {
                return Ok(found);
            }
            let at = text.len() - rest.len();
            let (key, after) = rest.split_once('=').ok_or(DigestError::Malformed(at))?;
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => unquote(quoted).ok_or(DigestError::Malformed(at))?,
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    (after[..end].trim().to_owned(), &after[end..])
                }
            };
            found.put(key.trim(), value)?;
            rest = after;
        }
    }

    fn put(&mut self, key: &str, value: String) -> Result<(), DigestError> {
        let Some(index) = KNOWN.iter().position(|k| k.eq_ignore_ascii_case(key)) else {
            return Ok(());
        };
        if self.values[index].replace(value).is_some() {
            return Err(DigestError::Twice(KNOWN[index]));
        }
        Ok(())
    }

    fn get(&self, key: &'static str) -> Result<&str, DigestError> {
        KNOWN
            .iter()
            .position(|k| *k == key)
            .and_then(|index| self.values[index].as_deref())
            .ok_or(DigestError::Missing(key))
    }
}

/// Reads up to the closing quote; returns the value and what follows the quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "a+AUjm3q/i7o61SbG2DslMLvers+NDtOE0bVGL73";
    const RESPONSE: &str = "charset=utf-8,username=\"Cg0KCQgBEJ3U+p6gNBABEAE=\",realm=\"default\",nonce=\"a+AUjm3q/i7o61SbG2DslMLvers+NDtOE0bVGL73\",nc=00000001,cnonce=\"oVlu8jlkUErsVdHW/hpmFW34ivJr2M0D0t2tgzip\",digest-uri=\"/default\",maxbuf=65536,response=0246fdf51ab27ba3059634ad3453d033,qop=auth";
    const PASSWORD: [u8; 20] = [
        0xb3, 0xb9, 0x31, 0x54, 0x71, 0x92, 0xfe, 0x39, 0x96, 0x52, 0x07, 0x4c, 0x47, 0xa5, 0xf9,
        0x36, 0xe0, 0x2a, 0x5e, 0x85,
    ];

    fn verify(text: &str, nonce: &str, password: &[u8]) -> Result<String, DigestError> {
        let challenge = Challenge::with_nonce(nonce.to_owned(), Protection::default());
        let verified = Response::parse(text.as_bytes())?.verify(&challenge, password)?;
        Ok(verified.rspauth)
    }

    #[test]
    fn what_a_spark_master_sent() {
        assert_eq!(
            verify(RESPONSE, NONCE, &PASSWORD),
            Ok("rspauth=93a5cd776ff832d5682380cf818ddd4f".to_owned())
        );
    }

    #[test]
    fn every_changed_part_is_refused() {
        for (from, to) in [
            ("BEAE=", "BEAI="),
            ("0246f", "0246e"),
            ("oVlu8", "oVlu9"),
            ("GL73\",nc", "GL74\",nc"),
            ("/default", "/other"),
            ("realm=\"default\"", "realm=\"x\""),
            ("nc=00000001", "nc=00000002"),
            ("qop=auth", "qop=auth-int"),
            ("qop=auth", "qop=auth-conf"),
            ("qop=auth", "qop=auth-conf,cipher=\"3des\""),
            ("qop=auth", "qop=auth-conf,cipher=\"rc4\""),
            ("qop=auth", "qop=none"),
            ("charset=utf-8", "charset=x"),
            ("response=", "respons="),
            ("nonce=\"a+", "nonce=\"a+\",nonce=\"a+"),
        ] {
            assert!(RESPONSE.contains(from));
            let changed = RESPONSE.replacen(from, to, 1);
            assert!(verify(&changed, NONCE, &PASSWORD).is_err(), "{to}");
        }
        assert_eq!(verify(RESPONSE, NONCE, b"x"), Err(DigestError::Mismatch));
        assert_eq!(
            verify(RESPONSE, "another", &PASSWORD),
            Err(DigestError::Unexpected("nonce"))
        );
    }

    #[test]
    fn a_quality_that_was_not_offered_is_refused() {
        let response = Response::parse(RESPONSE.as_bytes()).unwrap();
        for quality in Quality::ALL {
            let challenge = Challenge::with_nonce(NONCE.to_owned(), quality.into());
            let verified = response.verify(&challenge, &PASSWORD);
            assert_eq!(verified.is_ok(), quality == Quality::Authentication);
            assert_eq!(
                challenge.text().contains("cipher=\"3des\""),
                quality == Quality::Privacy
            );
        }
    }

    #[test]
    fn nonces_differ() {
        let challenge = || Challenge::new(Protection::default()).unwrap();
        assert_ne!(challenge(), challenge());
        assert_eq!(challenge().nonce.len(), 40);
    }

    #[test]
    fn quotes() {
        assert_eq!(
            unquote("a\\\"b\\\\c\",x"),
            Some(("a\"b\\c".to_owned(), ",x"))
        );
        assert_eq!(unquote("a"), None);
        assert_eq!(unquote("a\\"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Response::parse(&bytes);
        }

        #[test]
        fn any_directives_are_safe(text in "[a-z]{0,4}(=|,|\"|\\\\|nonce|username|é){0,30}") {
            let _ = Response::parse(text.as_bytes());
        }

        #[test]
        fn equality(a: Vec<u8>, b: Vec<u8>) {
            prop_assert_eq!(equal_in_constant_time(&a, &b), a == b);
            prop_assert!(equal_in_constant_time(&a, &a));
        }
    }
}
