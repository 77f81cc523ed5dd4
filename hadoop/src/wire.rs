//! Messages preceded by their length, read with limits.
//!
//! A protobuf message of two bytes an entry can become a hundred times its size in memory, so the
//! number of fields is bounded before anything is built.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

/// Most fields, nested ones included, of one message: what a real client sends has thousands.
pub const FIELDS_MAX: usize = 200_000;

/// Depth to which fields are counted one by one; below it each two bytes count as a field.
const COUNT_DEPTH_MAX: usize = 16;

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the bytes end inside a message")]
    Truncated,
    #[error("a length is no varint of 32 bits")]
    Length,
    #[error("a message has more than {FIELDS_MAX} fields")]
    Fields,
    #[error("a message is malformed")]
    Message(#[source] prost::DecodeError),
}

/// Splits a length and the bytes it announces off the front.
///
/// # Errors
/// `Length` and `Truncated`; nothing is allocated for a length, however large it is.
pub fn take_delimited(bytes: &mut Bytes) -> Result<Bytes, WireError> {
    let mut length: u64 = 0;
    for position in 0..5 {
        if !bytes.has_remaining() {
            return Err(WireError::Truncated);
        }
        let byte = bytes.get_u8();
        length |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            let length = u32::try_from(length).map_err(|_| WireError::Length)?;
            let length = usize::try_from(length).map_err(|_| WireError::Length)?;
            if length > bytes.len() {
                return Err(WireError::Truncated);
            }
            return Ok(bytes.split_to(length));
        }
    }
    Err(WireError::Length)
}

/// Decodes one message that fills `bytes`.
///
/// # Errors
/// `Fields` and `Message`.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, WireError> {
    // What does not parse is left to prost, which says what is wrong with it.
    if count_fields(&bytes, 0).is_some_and(|n| n > FIELDS_MAX) {
        return Err(WireError::Fields);
    }
    M::decode(bytes).map_err(WireError::Message)
}

/// `take_delimited` and `decode`.
///
/// # Errors
/// As these.
pub fn take_message<M: Message + Default>(bytes: &mut Bytes) -> Result<M, WireError> {
    decode(take_delimited(bytes)?)
}

/// Appends a message preceded by its length.
pub fn put_delimited(out: &mut BytesMut, message: &impl Message) {
    message
        .encode_length_delimited(out)
        .expect("a BytesMut grows as needed");
}

/// An upper bound of the fields in a message whose schema is not known: whatever could be a nested
/// message is counted as one. `None`: the bytes are no message.
fn count_fields(mut bytes: &[u8], depth: usize) -> Option<usize> {
    if depth == COUNT_DEPTH_MAX {
        return Some(bytes.len() / 2);
    }
    let mut count: usize = 0;
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        if key >> 3 == 0 {
            return None;
        }
        count += 1;
        let skip = match key & 7 {
            0 => {
                take_varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let inner = bytes.get(..length)?;
                count += count_fields(inner, depth + 1).unwrap_or(0);
                length
            }
            // Both ends of a group, which prost skips as unknown fields.
            3 | 4 => 0,
            5 => 4,
            _ => return None,
        };
        bytes = bytes.get(skip..)?;
    }
    Some(count)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for position in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::yarn::{AllocateRequest, ResourceRequest};

    fn take(bytes: &'static [u8]) -> Result<Bytes, WireError> {
        take_delimited(&mut Bytes::from_static(bytes))
    }

    #[test]
    fn lengths() {
        assert_eq!(take(&[0]), Ok(Bytes::new()));
        assert_eq!(take(&[2, 7, 8, 9]), Ok(Bytes::from_static(&[7, 8])));
        assert_eq!(take(&[]), Err(WireError::Truncated));
        assert_eq!(take(&[0x80]), Err(WireError::Truncated));
        assert_eq!(take(&[0x80, 0x80, 0x80]), Err(WireError::Truncated));
        assert_eq!(take(&[3, 7, 8]), Err(WireError::Truncated));
        // 2 GiB and more.
        assert_eq!(
            take(&[0x80, 0x80, 0x80, 0x80, 0x08]),
            Err(WireError::Truncated)
        );
        assert_eq!(
            take(&[0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Err(WireError::Length)
        );
    }

    #[test]
    fn a_message_of_a_million_empty_entries_is_refused() {
        // Field 1 (ask), length 0; nested once and twice too.
        let flat = [0x0a, 0].repeat(FIELDS_MAX + 1);
        assert_eq!(
            decode::<AllocateRequest>(Bytes::from(flat.clone())),
            Err(WireError::Fields)
        );
        let mut bytes = Bytes::from(flat);
        for _ in 0..40 {
            let mut outer = BytesMut::new();
            prost::encoding::bytes::encode(1, &bytes, &mut outer);
            bytes = outer.freeze();
            assert_eq!(
                decode::<AllocateRequest>(bytes.clone()),
                Err(WireError::Fields)
            );
        }
    }

    #[test]
    fn a_large_request_is_read() {
        let request = AllocateRequest {
            ask: vec![ResourceRequest::default(); 10_000],
            ..AllocateRequest::default()
        };
        let bytes = Bytes::from(request.encode_to_vec());
        assert_eq!(decode::<AllocateRequest>(bytes), Ok(request));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = Bytes::from(bytes);
            let _ = decode::<AllocateRequest>(bytes.clone());
            while let Ok(part) = take_delimited(&mut bytes) {
                let _ = decode::<AllocateRequest>(part);
            }
        }

        #[test]
        fn what_prost_takes_is_counted(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            // Otherwise a message could pass uncounted.
            if AllocateRequest::decode(bytes.as_slice()).is_ok() {
                prop_assert!(count_fields(&bytes, 0).is_some());
            }
        }
    }
}
