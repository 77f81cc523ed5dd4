//! The connection header and frames: a length of 32 bits, big endian, and that many bytes.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the connection header.
pub const HEADER_BYTES: usize = 7;

/// The only version of the IPC that is spoken.
pub const IPC_VERSION: u8 = 9;

/// What a connection starts with. Source: `org.apache.hadoop.ipc.RpcConstants.HEADER`.
pub const MAGIC: [u8; 4] = *b"hrpc";

/// The last byte of the connection header. Source: `Server.AuthProtocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthProtocol {
    /// 0: no proof is offered; the connection context follows.
    None,
    /// -33: SASL frames follow.
    Sasl,
}

/// A connection header that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the connection speaks HTTP")]
    Http,
    #[error("the connection does not start with 'hrpc'")]
    Magic,
    #[error("the connection speaks version {0} of the IPC")]
    Version(u8),
    #[error("the connection names authentication {0:#04x}, which does not exist")]
    Auth(u8),
}

/// Reads the connection header once there is enough of it; `None`: more bytes are needed.
///
/// # Errors
/// As soon as the bytes can no longer become a good header.
pub fn parse_header(bytes: &[u8]) -> Result<Option<AuthProtocol>, HeaderError> {
    const HTTP: [&[u8]; 8] = [
        b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN",
    ];
    let start = &bytes[..bytes.len().min(MAGIC.len())];
    if !MAGIC.starts_with(start) {
        return match HTTP.iter().find(|verb| verb.starts_with(start)) {
            Some(verb) if verb.len() == start.len() => Err(HeaderError::Http),
            Some(_) => Ok(None),
            None => Err(HeaderError::Magic),
        };
    }
    match bytes.get(MAGIC.len()) {
        None => return Ok(None),
        Some(&IPC_VERSION) => {}
        Some(&other) => return Err(HeaderError::Version(other)),
    }
    // Byte 5, the service class, is a hint for queues that nobody uses.
    match bytes.get(HEADER_BYTES - 1) {
        None => Ok(None),
        Some(0x00) => Ok(Some(AuthProtocol::None)),
        Some(0xdf) => Ok(Some(AuthProtocol::Sasl)),
        Some(&other) => Err(HeaderError::Auth(other)),
    }
}

/// A frame longer than allowed at this point of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes, {limit} are allowed")]
pub struct FrameTooLong {
    pub length: u32,
    pub limit: u32,
}

/// Bytes received and not yet taken. Grows with what arrives, never with what is announced.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: BytesMut,
}

impl FrameBuffer {
    /// What was received; bytes are appended here.
    pub fn bytes_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes at the front that the connection header may be in.
    #[must_use]
    pub fn peek(&self) -> &[u8] {
        &self.bytes
    }

    /// Drops bytes from the front.
    pub fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    /// Bytes still missing from the frame at the front: 0 when it is whole or has not begun.
    #[must_use]
    pub fn missing(&self) -> u32 {
        match self.announced() {
            Some(length) => length.saturating_sub(self.body_bytes()),
            None => 0,
        }
    }

    /// Takes the next whole frame, without its length.
    ///
    /// # Errors
    /// As soon as the length is there, if it is above `limit`.
    pub fn next_frame(&mut self, limit: u32) -> Result<Option<Bytes>, FrameTooLong> {
        let Some(length) = self.announced() else {
            return Ok(None);
        };
        if length > limit {
            return Err(FrameTooLong { length, limit });
        }
        if self.body_bytes() < length {
            return Ok(None);
        }
        self.bytes.advance(4);
        let length = usize::try_from(length).expect("a length below the limit fits in memory");
        let frame = self.bytes.split_to(length).freeze();
        if self.bytes.is_empty() {
            // An idle connection keeps no buffer.
            self.bytes = BytesMut::new();
        }
        Ok(Some(frame))
    }

    fn announced(&self) -> Option<u32> {
        let prefix = self.bytes.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*prefix))
    }

    fn body_bytes(&self) -> u32 {
        u32::try_from(self.bytes.len().saturating_sub(4)).unwrap_or(u32::MAX)
    }
}

/// Puts the length before a frame.
#[must_use]
pub fn frame(body: &[u8]) -> Bytes {
    let length = u32::try_from(body.len()).expect("answers are far below 4 GiB");
    let mut out = BytesMut::with_capacity(body.len() + 4);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_byte_by_byte() {
        for (bytes, expected) in [
            (b"hrpc\x09\x00\x00", AuthProtocol::None),
            (b"hrpc\x09\x00\xdf", AuthProtocol::Sasl),
        ] {
            for length in 0..HEADER_BYTES {
                assert_eq!(parse_header(&bytes[..length]), Ok(None), "{length}");
            }
            assert_eq!(parse_header(bytes), Ok(Some(expected)));
        }
    }

    #[test]
    fn headers_refused() {
        assert_eq!(parse_header(b"GE"), Ok(None));
        assert_eq!(parse_header(b"GET / HTTP/1.1\r\n"), Err(HeaderError::Http));
        assert_eq!(parse_header(b"\x16\x03\x01"), Err(HeaderError::Magic));
        assert_eq!(parse_header(b"hrpd"), Err(HeaderError::Magic));
        assert_eq!(parse_header(b"hrpc\x08"), Err(HeaderError::Version(8)));
        assert_eq!(
            parse_header(b"hrpc\x09\x00\x50"),
            Err(HeaderError::Auth(0x50))
        );
    }

    #[test]
    fn two_gibibytes_are_refused_before_a_byte_of_them() {
        for length in [0x8000_0000_u32, u32::MAX, 0x7fff_ffff, 101] {
            let mut buffer = FrameBuffer::default();
            buffer.bytes_mut().extend_from_slice(&length.to_be_bytes());
            assert_eq!(
                buffer.next_frame(100),
                Err(FrameTooLong { length, limit: 100 })
            );
            assert!(buffer.bytes_mut().capacity() < 4096);
        }
    }

    #[test]
    fn what_is_missing() {
        let mut buffer = FrameBuffer::default();
        buffer.bytes_mut().extend_from_slice(&[0, 0, 0]);
        assert_eq!(buffer.missing(), 0);
        buffer.bytes_mut().extend_from_slice(&[5, 1, 2]);
        assert_eq!(buffer.missing(), 3);
        assert_eq!(buffer.next_frame(100), Ok(None));
    }

    proptest! {
        #[test]
        fn frames_cut_anywhere(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..6),
            step in 1_usize..20,
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|f| frame(f)).collect();
            let mut buffer = FrameBuffer::default();
            let mut found = Vec::new();
            for part in stream.chunks(step) {
                buffer.bytes_mut().extend_from_slice(part);
                while let Some(next) = buffer.next_frame(1000).unwrap() {
                    found.push(next.to_vec());
                }
            }
            prop_assert_eq!(found, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_header_is_safe(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = parse_header(&bytes);
        }
    }
}
