//! The bytes of a frame: all records of one sync, under one checksum.
//!
//! One checksum for all makes a batch all or nothing: pages of an unsynced write reach the disk in
//! any order, so a valid second record behind a torn first one would prove nothing.

const MAGIC: [u8; 4] = *b"BFr1";
/// Magic, body length, checksum, count, first sequence.
pub(crate) const HEADER_BYTES: usize = 4 + 4 + 4 + 4 + 8;

/// A frame that was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) first_sequence: u64,
    pub(crate) records: Vec<&'a [u8]>,
    /// Of the whole frame.
    pub(crate) bytes: usize,
}

/// What is at a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read<'a> {
    Frame(Frame<'a>),
    /// Nothing was written here: the bytes' end, or zeros up to it.
    End,
    Invalid(&'static str),
}

/// Writes a frame; `None` when it would not fit the length field.
pub(crate) fn encode(first_sequence: u64, records: &[Vec<u8>]) -> Option<Vec<u8>> {
    let body: usize = records.iter().map(|r| r.len() + 4).sum();
    let count = u32::try_from(records.len()).ok()?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&u32::try_from(body).ok()?.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&first_sequence.to_le_bytes());
    for record in records {
        bytes.extend_from_slice(&u32::try_from(record.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(record);
    }
    let checksum = checksum(&bytes);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    Some(bytes)
}

/// Everything but the checksum's own place.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..8]);
    hasher.update(&frame[12..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads what stands at the beginning of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Read<'_> {
    let head = &bytes[..bytes.len().min(HEADER_BYTES)];
    if head.iter().all(|b| *b == 0) {
        return if bytes.iter().all(|b| *b == 0) {
            Read::End
        } else {
            Read::Invalid("zeros where a frame should begin, and something behind them")
        };
    }
    match parse(bytes) {
        Ok(frame) => Read::Frame(frame),
        Err(problem) => Read::Invalid(problem),
    }
}

fn parse(bytes: &[u8]) -> Result<Frame<'_>, &'static str> {
    const SHORT: &str = "the frame is cut short";
    if !bytes.starts_with(&MAGIC) {
        return Err("no frame begins here");
    }
    let body = usize::try_from(u32_at(bytes, 4).ok_or(SHORT)?).map_err(|_| SHORT)?;
    let stored = u32_at(bytes, 8).ok_or(SHORT)?;
    let count = u32_at(bytes, 12).ok_or(SHORT)?;
    let sequence = bytes.get(16..HEADER_BYTES).ok_or(SHORT)?;
    let first_sequence = u64::from_le_bytes(sequence.try_into().map_err(|_| SHORT)?);
    let end = HEADER_BYTES.checked_add(body).ok_or(SHORT)?;
    let frame = bytes.get(..end).ok_or(SHORT)?;
    if checksum(frame) != stored {
        return Err("the checksum of a frame is wrong");
    }
    // From here on the bytes are what was written; the checks below guard the writer's own code.
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    while at < end {
        let length = u32_at(frame, at).ok_or("a record's length is outside its frame")?;
        let start = at + 4;
        at = usize::try_from(length)
            .ok()
            .and_then(|length| start.checked_add(length))
            .ok_or("a record's end is outside its frame")?;
        records.push(
            frame
                .get(start..at)
                .ok_or("a record's end is outside its frame")?,
        );
    }
    if u32::try_from(records.len()) != Ok(count) {
        return Err("a frame's number of records is wrong");
    }
    Ok(Frame {
        first_sequence,
        records,
        bytes: end,
    })
}

/// Whether a valid frame stands anywhere in `bytes`: then what is before it was synced once.
pub(crate) fn any_frame_in(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.windows(MAGIC.len()).position(|w| w == MAGIC) {
        if parse(&rest[at..]).is_ok() {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(first: u64, records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let bytes = encode(first, &records).unwrap();
            let Read::Frame(frame) = read(&bytes) else { panic!("no frame") };
            prop_assert_eq!(frame.first_sequence, first);
            prop_assert_eq!(frame.bytes, bytes.len());
            let read: Vec<Vec<u8>> = frame.records.iter().map(|r| r.to_vec()).collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn no_flipped_bit_is_taken(at in 0_usize..1000, bit in 0_u8..8) {
            let mut bytes = encode(7, &[b"some record".to_vec(), b"another".to_vec()]).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(read(&bytes), Read::Frame(_)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!matches!(read(&bytes), Read::Frame(_)));
            prop_assert!(!any_frame_in(&bytes));
        }
    }

    #[test]
    fn zeros_are_the_end() {
        assert_eq!(read(&[]), Read::End);
        assert_eq!(read(&[0; 100]), Read::End);
        let mut bytes = vec![0; 100];
        bytes[99] = 1;
        assert!(matches!(read(&bytes), Read::Invalid(_)));
    }
}
