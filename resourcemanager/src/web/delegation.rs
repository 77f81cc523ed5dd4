//! A user's token in the form of a Hadoop delegation token, as WebHDFS clients send it.
//!
//! The text is base64url of: identifier and password (each with its length as a VInt), then kind
//! and service as Text. Hadoop's clients take any identifier, so it is the signed part of a user's
//! token, and the password is the signature: both doors check the same proof.
//! Source: `Token.encodeToUrlString`, `WritableUtils.writeVInt` of Hadoop.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Source: `WebHdfsConstants.WEBHDFS_TOKEN_KIND`.
const KIND: &[u8] = b"WEBHDFS delegation";
/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 8_192;

/// A user's token in Hadoop's form; `None` if it is none of ours. The service is left empty: the
/// client fills in what it was given the token for.
pub(crate) fn encode(token: &str) -> Option<String> {
    let (identifier, signature) = token.rsplit_once('.')?;
    let password = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let mut bytes = Vec::new();
    for part in [identifier.as_bytes(), &password, KIND, b""] {
        write_vint(&mut bytes, part.len())?;
        bytes.extend_from_slice(part);
    }
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// The user's token in a text of Hadoop's form, unproven. A token of Bobbin stands for itself.
pub(crate) fn decode(text: &str) -> Option<String> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    if text.contains('.') {
        return Some(text.to_owned());
    }
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
    let mut rest = bytes.as_slice();
    let identifier = std::str::from_utf8(read_part(&mut rest)?).ok()?;
    let password = read_part(&mut rest)?;
    if read_part(&mut rest)? != KIND {
        return None;
    }
    Some(format!("{identifier}.{}", URL_SAFE_NO_PAD.encode(password)))
}

/// Writes a length below 2^32 as Hadoop does: up to 127 as itself, else -112 - n and n bytes.
fn write_vint(bytes: &mut Vec<u8>, length: usize) -> Option<()> {
    if let Ok(small) = u8::try_from(length)
        && small <= 127
    {
        bytes.push(small);
        return Some(());
    }
    let all = u32::try_from(length).ok()?.to_be_bytes();
    let skip = all.iter().take_while(|b| **b == 0).count();
    bytes.push(143 - u8::try_from(3 - skip).ok()?);
    bytes.extend_from_slice(&all[skip..]);
    Some(())
}

fn read_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (first, after) = rest.split_first()?;
    let (length, after) = match *first {
        small @ 0..=127 => (usize::from(small), after),
        // One to four bytes follow; longer and negative lengths are nobody's.
        marker @ 140..=143 => {
            let (digits, after) = after.split_at_checked(usize::from(144 - marker))?;
            let length = digits
                .iter()
                .fold(0_usize, |sum, digit| (sum << 8) | usize::from(*digit));
            (length, after)
        }
        128..=139 | 144..=255 => return None,
    };
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let token = format!("bobbin1.{}.AQID", "x".repeat(300));
        let text = encode(&token).unwrap();
        assert_eq!(decode(&text).unwrap(), token);
        assert_eq!(decode(&token).unwrap(), token);
        // 308 bytes: marker for two bytes of length (-114), then 0x0134.
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        assert_eq!(&bytes[..3], [0x8e, 0x01, 0x34]);
        let mut one = Vec::new();
        write_vint(&mut one, 200).unwrap();
        assert_eq!(one, [0x8f, 200]);
    }

    #[test]
    fn any_text_is_read_or_refused() {
        use proptest::prelude::*;
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in ".{0,100}")| {
            drop(decode(&URL_SAFE_NO_PAD.encode(bytes)));
            drop(decode(&text));
        });
        assert!(decode(&"A".repeat(9_000)).is_none());
    }
}
