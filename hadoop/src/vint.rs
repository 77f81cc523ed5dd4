//! Hadoop's own integers and texts of variable length (not protobuf's).
//!
//! Source: `org.apache.hadoop.io.WritableUtils`, `Text`.

use bytes::{Buf, Bytes};

/// Bytes that are no such value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VintError {
    #[error("the bytes end inside a value")]
    Truncated,
    #[error("a length is negative or above {0}")]
    Length(usize),
    #[error("a text is not UTF-8")]
    Utf8,
}

/// Appends a number in 1 to 9 bytes.
pub fn put_long(out: &mut Vec<u8>, value: i64) {
    if let Ok(small @ -112..) = i8::try_from(value) {
        out.push(small.cast_unsigned());
        return;
    }
    // Negative numbers are sent as their one's complement.
    let (magnitude, base) = if value < 0 {
        (!value, -120_i8)
    } else {
        (value, -112_i8)
    };
    let bytes = magnitude.to_be_bytes();
    let skipped = bytes.iter().take_while(|b| **b == 0).count();
    let length = i8::try_from(bytes.len() - skipped).expect("at most 8 bytes");
    out.push((base - length).cast_unsigned());
    out.extend_from_slice(&bytes[skipped..]);
}

/// Takes a number off the front.
///
/// # Errors
/// `Truncated`.
pub fn take_long(bytes: &mut Bytes) -> Result<i64, VintError> {
    let first = take_byte(bytes)?.cast_signed();
    let (length, negative) = match first {
        -120..=-113 => (-112 - first, false),
        ..=-121 => (-120 - first, true),
        -112.. => return Ok(i64::from(first)),
    };
    let mut value: i64 = 0;
    for _ in 0..length {
        value = (value << 8) | i64::from(take_byte(bytes)?);
    }
    Ok(if negative { !value } else { value })
}

fn take_byte(bytes: &mut Bytes) -> Result<u8, VintError> {
    if bytes.has_remaining() {
        Ok(bytes.get_u8())
    } else {
        Err(VintError::Truncated)
    }
}

/// Takes a length or a count off the front.
///
/// # Errors
/// `Truncated`; `Length` when it is negative or above `max`.
pub fn take_length(bytes: &mut Bytes, max: usize) -> Result<usize, VintError> {
    let value = take_long(bytes)?;
    usize::try_from(value)
        .ok()
        .filter(|length| *length <= max)
        .ok_or(VintError::Length(max))
}

/// Appends bytes preceded by their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(
        out,
        i64::try_from(bytes.len()).expect("lengths are far below 2^63"),
    );
    out.extend_from_slice(bytes);
}

/// Takes bytes preceded by their length, which may be at most `max`.
///
/// # Errors
/// `Truncated` and `Length`, before anything is copied.
pub fn take_bytes(bytes: &mut Bytes, max: usize) -> Result<Bytes, VintError> {
    let length = take_length(bytes, max)?;
    if length > bytes.len() {
        return Err(VintError::Truncated);
    }
    Ok(bytes.split_to(length))
}

/// Takes a text preceded by its length in bytes.
///
/// # Errors
/// As [`take_bytes`], and `Utf8`.
pub fn take_text(bytes: &mut Bytes, max: usize) -> Result<String, VintError> {
    let text = take_bytes(bytes, max)?;
    String::from_utf8(text.into()).map_err(|_| VintError::Utf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        put_long(&mut out, value);
        out
    }

    #[test]
    fn forms() {
        assert_eq!(put(0), [0]);
        assert_eq!(put(127), [127]);
        assert_eq!(put(-112), [0x90]);
        assert_eq!(put(-113), [0x87, 112]);
        assert_eq!(put(128), [0x8f, 128]);
        assert_eq!(put(1000), [0x8e, 0x03, 0xe8]);
        assert_eq!(put(i64::MAX)[0], 0x88);
        assert_eq!(put(i64::MIN)[0], 0x80);
    }

    #[test]
    fn bad_lengths() {
        let take = |bytes: &[u8]| take_bytes(&mut Bytes::copy_from_slice(bytes), 100);
        assert_eq!(take(&[0xff]), Err(VintError::Length(100)));
        assert_eq!(take(&[101]), Err(VintError::Length(100)));
        assert_eq!(take(&[3, 1, 2]), Err(VintError::Truncated));
        assert_eq!(take(&[0x8c, 0x7f, 0xff]), Err(VintError::Truncated));
        assert_eq!(
            take(&[0x8c, 0x7f, 0xff, 0xff, 0xff]),
            Err(VintError::Length(100))
        );
    }

    proptest! {
        #[test]
        fn there_and_back(value: i64) {
            let mut bytes = Bytes::from(put(value));
            prop_assert_eq!(take_long(&mut bytes), Ok(value));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn any_bytes_are_safe(bytes: Vec<u8>) {
            let _ = take_text(&mut Bytes::from(bytes), 50);
        }
    }
}
