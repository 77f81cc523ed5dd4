//! Messages protected by the keys of a DIGEST-MD5 exchange: `auth-int` and `auth-conf`.
//!
//! Every message has a code, ten bytes of HMAC-MD5 over its number and itself; with `auth-conf` both
//! are encrypted by 3DES in CBC, whose chain goes on over all messages of a direction. The ciphers
//! rc4 and des are not offered and not written. What this is worth: it stops reading and altering by
//! whoever stands between, no more; there is no forward secrecy, and the block is of 64 bits.
//!
//! Source: RFC 2831 2.3 and 2.4, `com.sun.security.sasl.digest.DigestMD5Base`.

use bytes::{Bytes, BytesMut};
use des::TdesEde2;
use des::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac as _};
use md5::{Digest as _, Md5};

use crate::digest::{Verified, equal_in_constant_time};
use crate::protection::Quality;

/// Bytes of a message's code.
const CODE_BYTES: usize = 10;
/// The type (1) and the number behind a message.
const TRAILER_BYTES: usize = 6;
const TYPE: [u8; 2] = [0, 1];
/// Bytes of a block of DES.
const BLOCK_BYTES: usize = 8;
/// Most bytes that protection adds to a message.
pub const OVERHEAD_BYTES: usize = CODE_BYTES + TRAILER_BYTES + BLOCK_BYTES;

const SIGNING_TO_SERVER: &str = "Digest session key to client-to-server signing key magic constant";
const SIGNING_TO_CLIENT: &str = "Digest session key to server-to-client signing key magic constant";
const SEALING_TO_SERVER: &str = "Digest H(A1) to client-to-server sealing key magic constant";
const SEALING_TO_CLIENT: &str = "Digest H(A1) to server-to-client sealing key magic constant";

/// A message that is not as its sender protected it, or not the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    #[error("a protected message of {0} bytes")]
    Length(usize),
    #[error("a protected message of an unknown type")]
    Type,
    #[error("protected message {found} where {expected} comes next")]
    Sequence { found: u32, expected: u32 },
    /// Also for bad padding: nobody may learn which of the two it was.
    #[error("a protected message was altered")]
    Altered,
}

/// Both directions of one connection.
#[derive(Debug)]
pub struct Wrapper {
    receive: Direction,
    send: Direction,
}

/// One direction of it.
struct Direction {
    signing: [u8; 16],
    cipher: Option<Chain>,
    /// Number of the next message; wraps around, as Java's does.
    sequence: u32,
}

impl std::fmt::Debug for Direction {
    /// No keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direction")
            .field("encrypts", &self.cipher.is_some())
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// 3DES in CBC, over all messages of a direction.
struct Chain {
    cipher: TdesEde2,
    last: [u8; BLOCK_BYTES],
}

impl Wrapper {
    /// The server's, of the quality that the client chose; `None`: frames go as they are.
    #[must_use]
    pub fn of_server(verified: &Verified) -> Option<Self> {
        let receive = Direction::new(verified, SIGNING_TO_SERVER, SEALING_TO_SERVER)?;
        let send = Direction::new(verified, SIGNING_TO_CLIENT, SEALING_TO_CLIENT)?;
        Some(Self { receive, send })
    }

    /// The client's: for what plays one in tests.
    #[must_use]
    pub fn of_client(verified: &Verified) -> Option<Self> {
        let Self { receive, send } = Self::of_server(verified)?;
        Some(Self {
            receive: send,
            send: receive,
        })
    }

    /// The message in the next protected one of the peer.
    ///
    /// # Errors
    /// It is not the next, or was altered: the connection cannot go on.
    pub fn open(&mut self, token: &Bytes) -> Result<Bytes, WrapError> {
        self.receive.open(token)
    }

    /// The next message for the peer, protected.
    #[must_use]
    pub fn seal(&mut self, message: &[u8]) -> Bytes {
        self.send.seal(message)
    }
}

impl Direction {
    fn new(verified: &Verified, signing: &str, sealing: &str) -> Option<Self> {
        let key = |magic: &str| -> [u8; 16] {
            let mut hash = Md5::new();
            hash.update(verified.session_key);
            hash.update(magic);
            hash.finalize().into()
        };
        let cipher = match verified.quality {
            Quality::Authentication => return None,
            Quality::Integrity => None,
            Quality::Privacy => Some(Chain::new(&key(sealing))),
        };
        Some(Self {
            signing: key(signing),
            cipher,
            sequence: 0,
        })
    }

    fn open(&mut self, token: &Bytes) -> Result<Bytes, WrapError> {
        let Some(at) = token.len().checked_sub(TRAILER_BYTES) else {
            return Err(WrapError::Length(token.len()));
        };
        let (protected, trailer) = token.split_at(at);
        let (kind, number) = trailer.split_at(TYPE.len());
        if kind != TYPE {
            return Err(WrapError::Type);
        }
        let number: [u8; 4] = number.try_into().expect("the trailer has four bytes more");
        let found = u32::from_be_bytes(number);
        if found != self.sequence {
            return Err(WrapError::Sequence {
                found,
                expected: self.sequence,
            });
        }
        let message = match &mut self.cipher {
            None => {
                let Some(length) = protected.len().checked_sub(CODE_BYTES) else {
                    return Err(WrapError::Length(token.len()));
                };
                self.check(&protected[..length], &protected[length..], true)?;
                token.slice(..length)
            }
            Some(chain) => {
                if protected.len() < 2 * BLOCK_BYTES || protected.len() % BLOCK_BYTES != 0 {
                    return Err(WrapError::Length(token.len()));
                }
                let mut plain = protected.to_vec();
                chain.decrypt(&mut plain);
                let (padded, code) = plain.split_at(plain.len() - CODE_BYTES);
                let (length, padding_is_good) = without_padding(padded);
                self.check(&padded[..length], code, padding_is_good)?;
                plain.truncate(length);
                Bytes::from(plain)
            }
        };
        self.sequence = self.sequence.wrapping_add(1);
        Ok(message)
    }

    fn seal(&mut self, message: &[u8]) -> Bytes {
        let code = self.code(message);
        let mut out = BytesMut::with_capacity(message.len() + OVERHEAD_BYTES);
        out.extend_from_slice(message);
        if let Some(chain) = &mut self.cipher {
            let short = (message.len() + CODE_BYTES) % BLOCK_BYTES;
            let padding = BLOCK_BYTES - short;
            let value = u8::try_from(padding).expect("1 to 8");
            out.resize(message.len() + padding, value);
            out.extend_from_slice(&code);
            chain.encrypt(&mut out);
        } else {
            out.extend_from_slice(&code);
        }
        out.extend_from_slice(&TYPE);
        out.extend_from_slice(&self.sequence.to_be_bytes());
        self.sequence = self.sequence.wrapping_add(1);
        out.freeze()
    }

    fn check(&self, message: &[u8], code: &[u8], good: bool) -> Result<(), WrapError> {
        // The code is compared whatever the padding was: both take the same time.
        if equal_in_constant_time(&self.code(message), code) && good {
            Ok(())
        } else {
            Err(WrapError::Altered)
        }
    }

    fn code(&self, message: &[u8]) -> [u8; CODE_BYTES] {
        let mut mac =
            Hmac::<Md5>::new_from_slice(&self.signing).expect("HMAC takes keys of any length");
        mac.update(&self.sequence.to_be_bytes());
        mac.update(message);
        let whole: [u8; 16] = mac.finalize().into_bytes().into();
        *whole.first_chunk().expect("a code is the front of a hash")
    }
}

/// How long a message is without its padding, and whether that is as it should be; if it is not, the
/// whole length.
fn without_padding(padded: &[u8]) -> (usize, bool) {
    let Some(&value) = padded.last() else {
        return (0, false);
    };
    let count = usize::from(value);
    if count == 0 || count > BLOCK_BYTES || count > padded.len() {
        return (padded.len(), false);
    }
    let (message, padding) = padded.split_at(padded.len() - count);
    if padding.iter().all(|b| *b == value) {
        (message.len(), true)
    } else {
        (padded.len(), false)
    }
}

impl Chain {
    fn new(key: &[u8; 16]) -> Self {
        let mut keys = [0; 16];
        spread(&key[..7], &mut keys[..8]);
        spread(&key[7..14], &mut keys[8..]);
        let cipher = TdesEde2::new(&Array(keys));
        let last = *key.last_chunk().expect("a key has 16 bytes");
        Self { cipher, last }
    }

    fn encrypt(&mut self, bytes: &mut [u8]) {
        for block in bytes.as_chunks_mut::<BLOCK_BYTES>().0 {
            let mixed = std::array::from_fn(|i| block[i] ^ self.last[i]);
            let mut array = Array(mixed);
            self.cipher.encrypt_block(&mut array);
            *block = array.0;
            self.last = *block;
        }
    }

    fn decrypt(&mut self, bytes: &mut [u8]) {
        for block in bytes.as_chunks_mut::<BLOCK_BYTES>().0 {
            let mut array = Array(*block);
            self.cipher.decrypt_block(&mut array);
            let plain = std::array::from_fn(|i| array.0[i] ^ self.last[i]);
            self.last = *block;
            *block = plain;
        }
    }
}

/// 56 bits to the 64 of a DES key, whose every eighth bit says nothing.
fn spread(bits: &[u8], key: &mut [u8]) {
    let value = bits.iter().fold(0_u64, |v, b| (v << 8) | u64::from(*b));
    for (position, byte) in (0_u32..8).zip(key) {
        let seven = (value >> (49 - 7 * position)) & 0x7f;
        *byte = u8::try_from(seven << 1).expect("seven bits and a zero");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(quality: Quality) -> (Wrapper, Wrapper) {
        let verified = Verified {
            session_key: [7; 16],
            quality,
            rspauth: String::new(),
        };
        (
            Wrapper::of_server(&verified).unwrap(),
            Wrapper::of_client(&verified).unwrap(),
        )
    }

    #[test]
    fn authentication_wraps_nothing() {
        let verified = Verified {
            session_key: [7; 16],
            quality: Quality::Authentication,
            rspauth: String::new(),
        };
        assert!(Wrapper::of_server(&verified).is_none());
    }

    #[test]
    fn keys_are_spread() {
        let mut key = [0; 8];
        spread(&[0xff; 7], &mut key);
        assert_eq!(key, [0xfe; 8]);
        spread(&[0x80, 0, 0, 0, 0, 0, 1], &mut key);
        assert_eq!(key, [0x80, 0, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn repeated_and_reordered_messages_are_refused() {
        for quality in [Quality::Integrity, Quality::Privacy] {
            let (mut server, mut client) = pair(quality);
            let first = client.seal(b"first");
            let second = client.seal(b"second");
            let found = WrapError::Sequence {
                found: 1,
                expected: 0,
            };
            assert_eq!(server.open(&second), Err(found));
            assert_eq!(server.open(&first).unwrap(), b"first".as_slice());
            assert!(matches!(
                server.open(&first),
                Err(WrapError::Sequence { .. })
            ));
        }
    }

    #[test]
    fn what_went_one_way_does_not_come_back() {
        let (mut server, mut client) = pair(Quality::Integrity);
        let sent = server.seal(b"x");
        assert_eq!(server.open(&sent), Err(WrapError::Altered));
        assert_eq!(client.open(&sent).unwrap(), b"x".as_slice());
    }

    #[test]
    fn the_text_is_hidden_by_privacy_alone() {
        let text = b"a secret of forty bytes and a few, about";
        let (_, mut client) = pair(Quality::Privacy);
        let hidden = client.seal(text);
        assert!(!hidden.windows(8).any(|w| text.windows(8).any(|t| t == w)));
        let (_, mut client) = pair(Quality::Integrity);
        assert!(client.seal(text).starts_with(text));
    }

    proptest! {
        #[test]
        fn there_and_back(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6),
            privacy: bool,
        ) {
            let quality = if privacy { Quality::Privacy } else { Quality::Integrity };
            let (mut server, mut client) = pair(quality);
            for message in messages {
                let token = client.seal(&message);
                prop_assert!(token.len() <= message.len() + OVERHEAD_BYTES);
                prop_assert_eq!(server.open(&token).unwrap(), message.clone());
                let token = server.seal(&message);
                prop_assert_eq!(client.open(&token).unwrap(), message);
            }
        }

        #[test]
        fn any_change_is_seen(
            message in proptest::collection::vec(any::<u8>(), 0..40), at: usize, bit in 0_u8..8, privacy: bool,
        ) {
            let quality = if privacy { Quality::Privacy } else { Quality::Integrity };
            let (mut server, mut client) = pair(quality);
            let mut token = client.seal(&message).to_vec();
            let at = at % token.len();
            token[at] ^= 1 << bit;
            prop_assert!(server.open(&Bytes::from(token)).is_err());
        }

        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..80), privacy: bool) {
            let quality = if privacy { Quality::Privacy } else { Quality::Integrity };
            let (mut server, _) = pair(quality);
            let mut token = bytes.clone();
            token.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
            let _ = server.open(&Bytes::from(bytes));
            prop_assert!(server.open(&Bytes::from(token)).is_err());
        }
    }
}
