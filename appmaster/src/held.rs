//! Output of one attempt, held back until the attempt is known to count.

use bobbin_proto::v1;
use bytes::{Bytes, BytesMut};

use crate::spool::{Piece, Spool};

/// Small writes are put together up to this many bytes.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputStream {
    Stdout,
    Stderr,
}

/// Pieces in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pieces: Vec<(OutputStream, Piece)>,
    tail: Option<(OutputStream, BytesMut)>,
    bytes: u64,
    /// Why something is missing.
    problem: Option<String>,
    /// What the executor read of it, when it was to be an Arrow IPC stream.
    arrow: Option<v1::ArrowResult>,
}

impl Held {
    pub(crate) fn push(&mut self, spool: &Spool, stream: OutputStream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        match &mut self.tail {
            Some((kind, tail)) if *kind == stream && tail.len() + bytes.len() <= PIECE_BYTES => {
                tail.extend_from_slice(bytes);
            }
            Some(_) | None => {
                self.settle(spool);
                self.tail = Some((stream, BytesMut::from(bytes)));
            }
        }
    }

    /// Nothing more will come: puts what is left into the spool.
    pub(crate) fn settle(&mut self, spool: &Spool) {
        if let Some((stream, tail)) = self.tail.take() {
            match spool.put(Bytes::from(tail)) {
                Ok(piece) => self.pieces.push((stream, piece)),
                Err(e) => self.problem = Some(format!("its output cannot be kept: {e}")),
            }
        }
    }

    pub(crate) fn arrow(&self) -> Option<&v1::ArrowResult> {
        self.arrow.as_ref()
    }

    pub(crate) fn set_arrow(&mut self, arrow: Option<v1::ArrowResult>) {
        self.arrow = arrow;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub(crate) fn into_pieces(self) -> Vec<(OutputStream, Piece)> {
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_writes_become_one_piece_and_order_stays() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path());
        let mut held = Held::default();
        for _ in 0..100 {
            held.push(&spool, OutputStream::Stdout, b"a");
        }
        held.push(&spool, OutputStream::Stderr, b"b");
        held.push(&spool, OutputStream::Stdout, b"c");
        held.settle(&spool);
        assert_eq!(held.bytes(), 102);
        let pieces = held.into_pieces();
        let text: Vec<_> = pieces
            .iter()
            .map(|(s, p)| (*s, p.read().unwrap().to_vec()))
            .collect();
        assert_eq!(
            text,
            [
                (OutputStream::Stdout, vec![b'a'; 100]),
                (OutputStream::Stderr, b"b".to_vec()),
                (OutputStream::Stdout, b"c".to_vec()),
            ]
        );
    }
}
