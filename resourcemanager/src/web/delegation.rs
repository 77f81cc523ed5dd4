//! A user's token in the text form of a Hadoop delegation token, as WebHDFS clients send it.
//!
//! Source: `Token.encodeToUrlString` of Hadoop.

use bobbin_hadoop::tokens::{from_url_text, to_url_text};
use bobbin_service::{from_hadoop_form, to_hadoop_form};

/// Longest text that is looked at.
const TEXT_BYTES_MAX: usize = 8_192;

/// A user's token in Hadoop's form; `None` if it is none of ours. The service is left empty: the
/// client fills in what it was given the token for.
pub(crate) fn encode(token: &str) -> Option<String> {
    to_hadoop_form(token, "").map(|token| to_url_text(&token))
}

/// The token in a text of Hadoop's form, unproven. A token of Bobbin stands for itself.
pub(crate) fn decode(text: &str) -> Option<String> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    if text.contains('.') {
        return Some(text.to_owned());
    }
    from_hadoop_form(&from_url_text(text).ok()?)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn there_and_back() {
        let token = format!("bobbin1.{}.AQID", "x".repeat(300));
        let text = encode(&token).unwrap();
        assert_eq!(decode(&text).unwrap(), token);
        assert_eq!(decode(&token).unwrap(), token);
        // As some clients pad it.
        assert_eq!(decode(&format!("{text}==")).unwrap(), token);
        // 308 bytes: marker for two bytes of length (-114), then 0x0134.
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        assert_eq!(&bytes[..3], [0x8e, 0x01, 0x34]);
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
