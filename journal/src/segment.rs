//! Segment files: name, header, creation that is all or nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::JournalError;

const MAGIC: [u8; 8] = *b"BOBJNL01";
/// Magic, kind, first sequence, checksum.
pub(crate) const HEADER_BYTES: usize = 8 + 4 + 8 + 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Frames follow the segment before.
    Log,
    /// Begins with a whole snapshot: segments before it are no longer needed. It was complete
    /// before it got its name, so it has no torn tail, and is not appended to.
    Snapshot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) first_sequence: u64,
}

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        let kind: u32 = match self.kind {
            Kind::Log => 1,
            Kind::Snapshot => 2,
        };
        bytes[8..12].copy_from_slice(&kind.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.first_sequence.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Result<Header, &'static str> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or("the header is cut short")?;
        if bytes[..8] != MAGIC {
            return Err("this is no segment of a journal");
        }
        if bytes[20..] != crc32fast::hash(&bytes[..20]).to_le_bytes() {
            return Err("the checksum of the header is wrong");
        }
        let kind = match bytes[8..12] {
            [1, 0, 0, 0] => Kind::Log,
            [2, 0, 0, 0] => Kind::Snapshot,
            _ => return Err("the header names an unknown kind of segment"),
        };
        let sequence: [u8; 8] = bytes[12..20]
            .try_into()
            .map_err(|_| "the header is cut short")?;
        Ok(Header {
            kind,
            first_sequence: u64::from_le_bytes(sequence),
        })
    }
}

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    /// Everything before it is durable.
    pub(crate) offset: u64,
    pub(crate) capacity: u64,
}

impl Current {
    /// No frame is in it.
    pub(crate) fn is_empty(&self) -> bool {
        usize::try_from(self.offset) == Ok(HEADER_BYTES)
    }
}

pub(crate) fn path_of(folder: &Path, first_sequence: u64) -> PathBuf {
    folder.join(format!("segment-{first_sequence:020}.log"))
}

/// Creates a segment with `content` behind its header, filled with zeros up to `capacity`; it has
/// its name only when all of that is durable.
pub(crate) fn create(
    folder: &Path,
    header: Header,
    content: &[u8],
    capacity: u64,
) -> Result<Current, JournalError> {
    let path = path_of(folder, header.first_sequence);
    let temporary = path.with_extension("tmp");
    let used = HEADER_BYTES + content.len();
    let used = u64::try_from(used).expect("file sizes fit 64 bits");
    let write = || -> io::Result<File> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&header.encode())?;
        file.write_all(content)?;
        zero_fill(&file, used, capacity)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(file)
    };
    match write() {
        Ok(file) => Ok(Current {
            file,
            path,
            offset: used,
            capacity: capacity.max(used),
        }),
        Err(source) => {
            // On a full disk the half-made file is part of the problem. A snapshot that has its name
            // but perhaps not durably must not outlive the error: the records it would replace go on.
            let _ = std::fs::remove_file(&temporary);
            if header.kind == Kind::Snapshot {
                let _ = std::fs::remove_file(&path);
            }
            Err(JournalError::io("create", &path, source))
        }
    }
}

/// Writes zeros: reserved but unwritten blocks would cost a metadata commit at every sync.
pub(crate) fn zero_fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at)
            .unwrap_or(ZEROS.len())
            .min(ZEROS.len());
        file.write_all_at(&ZEROS[..length], at)?;
        at += u64::try_from(length).expect("a block's length fits 64 bits");
    }
    Ok(())
}
