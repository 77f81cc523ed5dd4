//! The checksum of a whole file as HDFS gives it, for comparing copies without reading both.
//!
//! Source: `FileChecksumHelper`, `MD5MD5CRC32FileChecksum` of Hadoop: MD5 over one MD5 a block over
//! the CRC32 of every 512 bytes.

use std::io::Read;

use md5::{Digest, Md5};

use super::error::{FilesError, disk};
use super::files::Files;
use super::path::TreePath;
use super::permission::Person;

const BYTES_PER_CRC: usize = 512;
/// Source: `dfs.blocksize`.
const BLOCK_BYTES: usize = 128 << 20;
const CRCS_PER_BLOCK: usize = BLOCK_BYTES / BYTES_PER_CRC;

/// The two fields that a client compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(crate) algorithm: String,
    /// Bytes per CRC (u32), CRCs per block (u64), MD5.
    pub(crate) bytes: Vec<u8>,
}

impl Files {
    /// GETFILECHECKSUM.
    pub(crate) fn checksum(
        &self,
        person: &Person,
        path: &TreePath,
    ) -> Result<Checksum, FilesError> {
        let (file, length) = self.read(person, path, 0)?;
        let failed = disk("read", &path.on_disk(&self.root));
        of(file.take(length)).map_err(failed)
    }
}

fn of(mut content: impl Read) -> std::io::Result<Checksum> {
    let mut whole = Md5::new();
    let mut block = Md5::new();
    let (mut crcs, mut blocks) = (0_usize, 0_usize);
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match content.read(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        for piece in buffer[..filled].chunks(BYTES_PER_CRC) {
            block.update(crc32fast::hash(piece).to_be_bytes());
            crcs += 1;
            if crcs == CRCS_PER_BLOCK {
                whole.update(block.finalize_reset());
                (crcs, blocks) = (0, blocks + 1);
            }
        }
        if filled < buffer.len() {
            break;
        }
    }
    if crcs > 0 {
        whole.update(block.finalize_reset());
        blocks += 1;
    }
    // HDFS writes 0 CRCs per block for one block, and its own constant for none.
    let (per_crc, per_block) = match blocks {
        0 => {
            whole.update([0; 32]);
            (0, 0)
        }
        1 => (BYTES_PER_CRC, 0),
        _ => (BYTES_PER_CRC, CRCS_PER_BLOCK),
    };
    let mut bytes = u32::try_from(per_crc).unwrap_or(0).to_be_bytes().to_vec();
    bytes.extend((per_block as u64).to_be_bytes());
    bytes.extend(whole.finalize());
    Ok(Checksum {
        algorithm: format!("MD5-of-{per_block}MD5-of-{per_crc}CRC32"),
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_hadoop_computes_it() {
        let hex = |c: &Checksum| {
            c.bytes
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<String>()
        };
        let empty = of(&b""[..]).unwrap();
        assert_eq!(empty.algorithm, "MD5-of-0MD5-of-0CRC32");
        // The well-known checksum of every empty file in HDFS.
        assert!(hex(&empty).ends_with("70bc8f4b72a86921468bf8e8441dce51"));
        let one = of(&b"hello\n"[..]).unwrap();
        assert_eq!(one.algorithm, "MD5-of-0MD5-of-512CRC32");
        let crc = crc32fast::hash(b"hello\n").to_be_bytes();
        let expected = Md5::digest(Md5::digest(crc));
        assert_eq!(&one.bytes[12..], expected.as_slice());
        assert_eq!(one.bytes.len(), 28);
    }
}
