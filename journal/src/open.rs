//! Opening: which segments count, replay, the torn tail.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::JournalError;
use crate::frame::{self, Read};
use crate::segment::{self, Current, HEADER_BYTES, Header, Kind};
use crate::{Options, writer};

/// What the writer begins with.
pub(crate) struct Replayed {
    /// `None`: the next append makes a new segment.
    pub(crate) current: Option<Current>,
    pub(crate) next_sequence: u64,
    pub(crate) records: u64,
    pub(crate) bytes_since_snapshot: u64,
    pub(crate) snapshot_bytes: u64,
    pub(crate) notes: Vec<String>,
    pub(crate) lock: Flock<File>,
}

struct Found {
    path: PathBuf,
    header: Header,
    bytes: Vec<u8>,
}

pub(crate) fn open(
    folder: &Path,
    options: Options,
    record: &mut dyn FnMut(u64, &[u8]),
) -> Result<Replayed, JournalError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| JournalError::io("create", folder, e))?;
    sync_parent(folder)?;
    let lock = lock(folder)?;
    let paths = needed_segments(folder)?;
    let mut replayed = Replayed {
        current: None,
        next_sequence: 1,
        records: 0,
        bytes_since_snapshot: 0,
        snapshot_bytes: 0,
        notes: Vec::new(),
        lock,
    };
    let last = paths.len().saturating_sub(1);
    for (i, path) in paths.into_iter().enumerate() {
        let found = load(path)?;
        check_continues(&found, i == 0, replayed.next_sequence)?;
        replayed.next_sequence = found.header.first_sequence;
        replay(&found, i == last, options, &mut replayed, record)?;
    }
    Ok(replayed)
}

fn sync_parent(folder: &Path) -> Result<(), JournalError> {
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    let Some(parent) = parent else { return Ok(()) };
    File::open(parent)
        .and_then(|f| f.sync_all())
        .map_err(|e| JournalError::io("sync", parent, e))
}

fn lock(folder: &Path) -> Result<Flock<File>, JournalError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| JournalError::io("open", &path, e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        if errno == nix::errno::Errno::EWOULDBLOCK {
            JournalError::InUse {
                folder: folder.to_owned(),
            }
        } else {
            JournalError::io("lock", &path, errno.into())
        }
    })
}

/// The segments from the newest snapshot on, in order. Older ones and half-made ones are removed:
/// a crash between a compaction's rename and its removals leaves them.
fn needed_segments(folder: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let list = |e| JournalError::io("list", folder, e);
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(list)? {
        let path = entry.map_err(list)?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if !name.starts_with("segment-") {
            continue;
        }
        if name.ends_with(".tmp") {
            std::fs::remove_file(&path).map_err(|e| JournalError::io("remove", &path, e))?;
        } else if name.ends_with(".log") {
            segments.push(path);
        }
    }
    // Sequences are written with leading zeros, so the names' order is theirs.
    segments.sort();
    let mut first = 0;
    for (i, path) in segments.iter().enumerate() {
        if header_of(path)?.kind == Kind::Snapshot {
            first = i;
        }
    }
    let needed = segments.split_off(first);
    writer::remove_segments(folder, &segments)?;
    Ok(needed)
}

fn header_of(path: &Path) -> Result<Header, JournalError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = u64::try_from(HEADER_BYTES).expect("a header's size fits 64 bits");
    File::open(path)
        .and_then(|f| f.take(limit).read_to_end(&mut bytes))
        .map_err(|e| JournalError::io("read", path, e))?;
    Header::read(&bytes).map_err(|problem| damaged(path, 0, problem))
}

fn load(path: PathBuf) -> Result<Found, JournalError> {
    let bytes = std::fs::read(&path).map_err(|e| JournalError::io("read", &path, e))?;
    let header = Header::read(&bytes).map_err(|problem| damaged(&path, 0, problem))?;
    Ok(Found {
        path,
        header,
        bytes,
    })
}

fn check_continues(found: &Found, first: bool, expected: u64) -> Result<(), JournalError> {
    let sequence = found.header.first_sequence;
    if found.path.file_name() != segment::path_of(Path::new(""), sequence).file_name() {
        return Err(damaged(
            &found.path,
            0,
            "its header has the number of another segment",
        ));
    }
    if first && found.header.kind == Kind::Snapshot {
        return Ok(());
    }
    if sequence != expected {
        let problem = format!(
            "records {expected} to {} are missing before it",
            sequence.saturating_sub(1)
        );
        return Err(JournalError::Damaged {
            file: found.path.clone(),
            offset: 0,
            problem,
        });
    }
    Ok(())
}

fn replay(
    found: &Found,
    is_last: bool,
    options: Options,
    replayed: &mut Replayed,
    record: &mut dyn FnMut(u64, &[u8]),
) -> Result<(), JournalError> {
    let mut at = HEADER_BYTES;
    loop {
        match frame::read(&found.bytes[at..]) {
            Read::Frame(frame) => {
                if frame.first_sequence != replayed.next_sequence {
                    return Err(damaged(&found.path, at, "a frame is out of order"));
                }
                for bytes in &frame.records {
                    record(replayed.next_sequence, bytes);
                    replayed.next_sequence += 1;
                    replayed.records += 1;
                }
                at += frame.bytes;
            }
            Read::End => break,
            Read::Invalid(problem) => {
                let may_be_torn = is_last && found.header.kind == Kind::Log;
                if !may_be_torn || frame::any_frame_in(&found.bytes[at + 1..]) {
                    return Err(damaged(&found.path, at, problem));
                }
                replayed.notes.push(format!(
                    "{}: cut a write that was never acknowledged, at byte {at} after record {} ({problem})",
                    found.path.display(),
                    replayed.next_sequence - 1,
                ));
                break;
            }
        }
    }
    let end = u64::try_from(at).expect("file sizes fit 64 bits");
    match found.header.kind {
        Kind::Snapshot => replayed.snapshot_bytes = end,
        Kind::Log => replayed.bytes_since_snapshot += end,
    }
    if is_last && found.header.kind == Kind::Log {
        replayed.current = Some(reopen(found, end, options)?);
    }
    Ok(())
}

/// Makes everything behind `end` zeros again, so that no old bytes can stand behind new frames.
fn reopen(found: &Found, end: u64, options: Options) -> Result<Current, JournalError> {
    let length = u64::try_from(found.bytes.len()).expect("file sizes fit 64 bits");
    let at = usize::try_from(end).unwrap_or(found.bytes.len());
    let clean = found.bytes[at..].iter().all(|b| *b == 0);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&found.path)
        .map_err(|e| JournalError::io("open", &found.path, e))?;
    if !clean {
        file.set_len(end)
            .and_then(|()| file.sync_all())
            .map_err(|e| JournalError::io("cut", &found.path, e))?;
    }
    // A shorter file is filled again only as far as the disk allows: if not, the next append says so.
    let capacity = if clean && length >= options.segment_bytes {
        length
    } else {
        end
    };
    Ok(Current {
        file,
        path: found.path.clone(),
        offset: end,
        capacity,
    })
}

fn damaged(path: &Path, at: usize, problem: &str) -> JournalError {
    JournalError::Damaged {
        file: path.to_owned(),
        offset: u64::try_from(at).unwrap_or(u64::MAX),
        problem: problem.to_owned(),
    }
}
