//! Unpacking archives that anybody may have made.
//!
//! Everything is written below an open folder that nobody else can reach yet, with the user's rights,
//! through openat2 without following links. Refused with the entry's name: absolute names, `..`,
//! entries that go through a link, links that lead out (but to the system's programs, which every
//! container sees read-only), devices, fifos, too many entries or bytes.
//! Setuid, setgid and sticky bits are dropped; a file keeps whether it can be executed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::AtFlags;

use crate::folder::{Folder, give};

/// Longest name of an entry, bytes. Source: `PATH_MAX`.
const NAME_BYTES_MAX: usize = 4096;
/// Bytes that every archive may unpack to, whatever its size: small ones compress well.
const ALWAYS_ALLOWED_BYTES: u64 = 64 << 20;
const BUFFER_BYTES: usize = 128 << 10;
/// Where absolute links may lead: a packed virtual environment names the node's Python so.
/// Nothing outside a container ever follows what an archive brought.
const SYSTEM_FOLDERS: [&str; 6] = ["/usr", "/opt", "/bin", "/sbin", "/lib", "/lib64"];

/// What an archive is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    Zip,
    Tar,
    TarGzip,
    TarZstd,
}

/// What an archive may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArchiveLimits {
    pub(crate) bytes_max: u64,
    pub(crate) entries_max: u64,
    /// Unpacked bytes for each byte of the archive.
    pub(crate) ratio_max: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("'{name}' is not an archive by its name: .zip .jar .tar .tar.gz .tgz .tar.zst .tzst")]
    Kind { name: String },
    #[error("archive '{archive}': entry '{entry}' {problem}")]
    Entry {
        archive: String,
        entry: String,
        problem: String,
    },
    #[error("archive '{archive}' {problem}")]
    Limit { archive: String, problem: String },
    #[error("archive '{archive}' cannot be read{place}: {source}")]
    Read {
        archive: String,
        place: String,
        source: io::Error,
    },
    #[error("archive '{archive}': entry '{entry}' cannot be written: {source}")]
    Write {
        archive: String,
        entry: String,
        source: io::Error,
    },
}

impl ArchiveKind {
    /// # Errors
    /// The name has no known ending.
    pub(crate) fn of(name: &str) -> Result<ArchiveKind, ArchiveError> {
        let lower = name.to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|e| lower.ends_with(e));
        if ends(&[".zip", ".jar"]) {
            Ok(ArchiveKind::Zip)
        } else if ends(&[".tar.gz", ".tgz"]) {
            Ok(ArchiveKind::TarGzip)
        } else if ends(&[".tar.zst", ".tzst"]) {
            Ok(ArchiveKind::TarZstd)
        } else if ends(&[".tar"]) {
            Ok(ArchiveKind::Tar)
        } else {
            Err(ArchiveError::Kind {
                name: name.to_owned(),
            })
        }
    }
}

/// Unpacks `archive` (called `name` in errors) into `root`; returns the bytes written.
///
/// # Errors
/// The first entry that is refused or cannot be written; what was written stays for the caller to
/// remove.
pub(crate) fn unpack(
    mut archive: File,
    kind: ArchiveKind,
    name: &str,
    root: &Folder,
    limits: ArchiveLimits,
) -> Result<u64, ArchiveError> {
    let read_error = |source| ArchiveError::Read {
        archive: name.to_owned(),
        place: String::new(),
        source,
    };
    let archive_bytes = archive.metadata().map_err(read_error)?.len();
    archive.seek(SeekFrom::Start(0)).map_err(read_error)?;
    let by_ratio = archive_bytes
        .saturating_mul(limits.ratio_max)
        .max(ALWAYS_ALLOWED_BYTES);
    let mut unpacker = Unpacker {
        archive: name,
        root,
        limits,
        bytes_left: limits.bytes_max.min(by_ratio),
        bytes_allowed: limits.bytes_max.min(by_ratio),
        entries: 0,
        buffer: vec![0; BUFFER_BYTES],
    };
    let buffered = io::BufReader::with_capacity(BUFFER_BYTES, &archive);
    match kind {
        ArchiveKind::Zip => unpack_zip(&archive, &mut unpacker)?,
        ArchiveKind::Tar => unpack_tar(buffered, &mut unpacker)?,
        ArchiveKind::TarGzip => {
            // Several gzip members one after the other are one stream, as gzip(1) takes them.
            unpack_tar(
                flate2::bufread::MultiGzDecoder::new(buffered),
                &mut unpacker,
            )?;
        }
        ArchiveKind::TarZstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(buffered).map_err(read_error)?;
            // A frame may ask for a window of gigabytes otherwise. 2^27 is zstd's own default.
            decoder.window_log_max(27).map_err(read_error)?;
            unpack_tar(decoder, &mut unpacker)?;
        }
    }
    Ok(unpacker.bytes_allowed - unpacker.bytes_left)
}

enum What {
    Folder,
    File { executable: bool },
    Link(OsString),
    HardLink(OsString),
}

struct Unpacker<'a> {
    archive: &'a str,
    root: &'a Folder,
    limits: ArchiveLimits,
    bytes_left: u64,
    bytes_allowed: u64,
    entries: u64,
    buffer: Vec<u8>,
}

fn shown(name: &OsStr) -> String {
    name.to_string_lossy()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect()
}

impl Unpacker<'_> {
    fn refuse(&self, entry: &OsStr, problem: &str) -> ArchiveError {
        ArchiveError::Entry {
            archive: self.archive.to_owned(),
            entry: shown(entry),
            problem: problem.to_owned(),
        }
    }

    fn read_error(&self, entry: Option<&OsStr>, source: io::Error) -> ArchiveError {
        let place = entry.map_or_else(String::new, |e| format!(" at entry '{}'", shown(e)));
        ArchiveError::Read {
            archive: self.archive.to_owned(),
            place,
            source,
        }
    }

    fn count(&mut self) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            return Err(ArchiveError::Limit {
                archive: self.archive.to_owned(),
                problem: format!(
                    "has more than {} entries (setting localizer.archive_entries_max)",
                    self.limits.entries_max
                ),
            });
        }
        Ok(())
    }

    fn add(
        &mut self,
        entry: &OsStr,
        what: What,
        content: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        self.count()?;
        let path = self.checked_path(entry)?;
        let Some(name) = path.file_name() else {
            // "./": the folder itself.
            return Ok(());
        };
        let parent = self.parent(entry, &path)?;
        let depth = path.components().count() - 1;
        match what {
            What::Folder => {
                make_folder(&parent, name).map_err(|e| self.write_error(entry, e))?;
            }
            What::File { executable } => {
                self.write_file(entry, &parent, name, executable, content)?;
            }
            What::Link(target) => {
                self.check_link(entry, &target, depth)?;
                replace(&parent, name)
                    .and_then(|()| parent.symlink(&target, name))
                    .map_err(|e| self.write_error(entry, e))?;
            }
            What::HardLink(target) => self.hard_link(entry, &parent, name, &target)?,
        }
        Ok(())
    }

    /// The entry's place below the root: plain components only.
    fn checked_path(&self, entry: &OsStr) -> Result<PathBuf, ArchiveError> {
        if entry.len() > NAME_BYTES_MAX {
            return Err(self.refuse(entry, "has too long a name"));
        }
        if entry.as_bytes().contains(&0) {
            return Err(self.refuse(entry, "has NUL in its name"));
        }
        let mut path = PathBuf::new();
        for component in Path::new(entry).components() {
            match component {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => {
                    return Err(self.refuse(entry, "has an absolute name"));
                }
                Component::ParentDir => {
                    return Err(self.refuse(entry, "has '..' in its name"));
                }
            }
        }
        Ok(path)
    }

    /// Opens the entry's folder, making what is missing.
    fn parent(&self, entry: &OsStr, path: &Path) -> Result<Folder, ArchiveError> {
        let write_error = |e| self.write_error(entry, e);
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        if parent.as_os_str().is_empty() {
            return self.root.try_clone().map_err(write_error);
        }
        match self.root.folder(parent) {
            Ok(folder) => return Ok(folder),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(self.through(entry, e)),
        }
        let mut folder = self.root.try_clone().map_err(write_error)?;
        for part in parent.components() {
            folder = make_folder(&folder, part.as_os_str()).map_err(|e| self.through(entry, e))?;
        }
        Ok(folder)
    }

    fn through(&self, entry: &OsStr, error: io::Error) -> ArchiveError {
        match error.raw_os_error() {
            Some(libc::ELOOP) => self.refuse(entry, "goes through a link"),
            Some(libc::ENOTDIR) => self.refuse(entry, "goes through a file"),
            _ => self.write_error(entry, error),
        }
    }

    fn write_error(&self, entry: &OsStr, source: io::Error) -> ArchiveError {
        if source.raw_os_error() == Some(libc::ELOOP) {
            return self.refuse(entry, "goes through a link");
        }
        ArchiveError::Write {
            archive: self.archive.to_owned(),
            entry: shown(entry),
            source,
        }
    }

    fn write_file(
        &mut self,
        entry: &OsStr,
        parent: &Folder,
        name: &OsStr,
        executable: bool,
        content: &mut dyn Read,
    ) -> Result<(), ArchiveError> {
        replace(parent, name).map_err(|e| self.write_error(entry, e))?;
        let mut file = parent
            .create(name, 0o600)
            .map_err(|e| self.write_error(entry, e))?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = loop {
            match content.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    let bytes = u64::try_from(n).unwrap_or(u64::MAX);
                    if bytes > self.bytes_left {
                        break Err(self.too_large(entry));
                    }
                    self.bytes_left -= bytes;
                    if let Err(e) = file.write_all(&buffer[..n]) {
                        break Err(self.write_error(entry, e));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(self.read_error(Some(entry), e)),
            }
        };
        self.buffer = buffer;
        written?;
        let mode = if executable { 0o755 } else { 0o644 };
        give(&file, mode, None).map_err(|e| self.write_error(entry, e))
    }

    fn too_large(&self, entry: &OsStr) -> ArchiveError {
        self.refuse(
            entry,
            &format!(
                "makes it larger than the {} bytes it may unpack to (settings \
                 localizer.archive_bytes_max and localizer.archive_ratio_max)",
                self.bytes_allowed
            ),
        )
    }

    /// A link may go up only at its beginning and not above the root: what follows are plain names
    /// in real folders or through links that were checked in the same way. An absolute one leads to
    /// the system's programs.
    fn check_link(&self, entry: &OsStr, target: &OsStr, depth: usize) -> Result<(), ArchiveError> {
        let refuse = || {
            Err(self.refuse(
                entry,
                &format!("is a link that leads out, to '{}'", shown(target)),
            ))
        };
        if target.is_empty() || target.len() > NAME_BYTES_MAX || target.as_bytes().contains(&0) {
            return Err(self.refuse(entry, "is a link without a usable target"));
        }
        if leads_to_system(Path::new(target)) {
            return Ok(());
        }
        let mut up = 0;
        let mut down = false;
        for component in Path::new(target).components() {
            match component {
                Component::RootDir | Component::Prefix(_) => return refuse(),
                Component::ParentDir if down => return refuse(),
                Component::ParentDir => up += 1,
                Component::CurDir => {}
                Component::Normal(_) => down = true,
            }
        }
        if up > depth { refuse() } else { Ok(()) }
    }

    fn hard_link(
        &self,
        entry: &OsStr,
        parent: &Folder,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<(), ArchiveError> {
        let lead_out = || {
            self.refuse(
                entry,
                &format!("is a hard link that leads out, to '{}'", shown(target)),
            )
        };
        let path = self.checked_path(target).map_err(|_| lead_out())?;
        let Some(target_name) = path.file_name() else {
            return Err(lead_out());
        };
        let folder = match path.parent() {
            Some(up) if !up.as_os_str().is_empty() => {
                self.root.folder(up).map_err(|_| lead_out())?
            }
            _ => self
                .root
                .try_clone()
                .map_err(|e| self.write_error(entry, e))?,
        };
        let stat = folder
            .look(target_name)
            .map_err(|e| self.write_error(entry, e))?
            .ok_or_else(|| self.refuse(entry, "is a hard link to what is not in the archive"))?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(self.refuse(entry, "is a hard link to what is not a file"));
        }
        replace(parent, name)
            .and_then(|()| {
                nix::unistd::linkat(
                    &folder,
                    Path::new(target_name),
                    parent,
                    Path::new(name),
                    AtFlags::empty(),
                )
                .map_err(io::Error::from)
            })
            .map_err(|e| self.write_error(entry, e))
    }
}

/// Whether an absolute path is below one of the system's folders of programs, without `..`.
fn leads_to_system(target: &Path) -> bool {
    target.components().all(|c| c != Component::ParentDir)
        && SYSTEM_FOLDERS
            .iter()
            .any(|folder| target.starts_with(folder) && target != Path::new(folder))
}

/// A later entry of the same name replaces a file or link; never a folder, and not itself a link.
fn replace(parent: &Folder, name: &OsStr) -> io::Result<()> {
    match parent.look(name)? {
        None => Ok(()),
        Some(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a folder has that name",
        )),
        Some(_) => parent.unlink(name),
    }
}

fn make_folder(parent: &Folder, name: &OsStr) -> io::Result<Folder> {
    let path = Path::new(name);
    match nix::sys::stat::mkdirat(
        parent,
        path,
        nix::sys::stat::Mode::from_bits_truncate(0o755),
    ) {
        Ok(()) => {
            let made = parent.folder(path)?;
            made.set_mode(0o755)?;
            Ok(made)
        }
        Err(nix::errno::Errno::EEXIST) => parent.folder(path),
        Err(e) => Err(e.into()),
    }
}

fn unpack_tar<R: Read>(reader: R, unpacker: &mut Unpacker<'_>) -> Result<(), ArchiveError> {
    use tar::EntryType;
    let mut archive = tar::Archive::new(reader);
    let entries = archive
        .entries()
        .map_err(|e| unpacker.read_error(None, e))?;
    for entry in entries {
        let mut entry = entry.map_err(|e| unpacker.read_error(None, e))?;
        let name = OsString::from_vec(entry.path_bytes().into_owned());
        let link = entry
            .link_name_bytes()
            .map(|l| OsString::from_vec(l.into_owned()));
        let kind = entry.header().entry_type();
        let mode = entry.header().mode().unwrap_or(0o644);
        let what = match kind {
            EntryType::Directory => What::Folder,
            // Old archives mark folders by a slash only.
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
                if name.as_bytes().ends_with(b"/") =>
            {
                What::Folder
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => What::File {
                executable: mode & 0o111 != 0,
            },
            EntryType::Symlink => What::Link(link.unwrap_or_default()),
            EntryType::Link => What::HardLink(link.unwrap_or_default()),
            EntryType::XGlobalHeader | EntryType::XHeader => {
                unpacker.count()?;
                continue;
            }
            EntryType::Char | EntryType::Block => return Err(unpacker.refuse(&name, "is a device")),
            EntryType::Fifo => return Err(unpacker.refuse(&name, "is a fifo")),
            // Long names and what is private to some tar never come out of the reader as entries.
            EntryType::GNULongName | EntryType::GNULongLink => {
                return Err(unpacker.refuse(&name, "is of an unknown kind"));
            }
            _ => return Err(unpacker.refuse(&name, "is of an unknown kind")),
        };
        unpacker.add(&name, what, &mut entry)?;
    }
    Ok(())
}

fn unpack_zip(archive: &File, unpacker: &mut Unpacker<'_>) -> Result<(), ArchiveError> {
    let zip_error = |e: zip::result::ZipError| io::Error::new(io::ErrorKind::InvalidData, e);
    let entries = zip_entries(archive).map_err(|e| unpacker.read_error(None, e))?;
    if entries > unpacker.limits.entries_max {
        // Before the whole directory is read into memory.
        unpacker.entries = unpacker.limits.entries_max;
        unpacker.count()?;
    }
    let mut zip =
        zip::ZipArchive::new(archive).map_err(|e| unpacker.read_error(None, zip_error(e)))?;
    for i in 0..zip.len() {
        let mut entry = zip
            .by_index(i)
            .map_err(|e| unpacker.read_error(None, zip_error(e)))?;
        let name = OsString::from_vec(entry.name_raw().to_vec());
        let mode = entry.unix_mode().unwrap_or(0o644);
        let what = match mode & libc::S_IFMT {
            libc::S_IFLNK => {
                let mut target = Vec::new();
                let most = u64::try_from(NAME_BYTES_MAX).unwrap_or(4096) + 1;
                entry
                    .by_ref()
                    .take(most)
                    .read_to_end(&mut target)
                    .map_err(|e| unpacker.read_error(Some(&name), e))?;
                What::Link(OsString::from_vec(target))
            }
            libc::S_IFCHR | libc::S_IFBLK => return Err(unpacker.refuse(&name, "is a device")),
            libc::S_IFIFO => return Err(unpacker.refuse(&name, "is a fifo")),
            libc::S_IFSOCK => return Err(unpacker.refuse(&name, "is a socket")),
            _ if entry.is_dir() => What::Folder,
            _ => What::File {
                executable: mode & 0o111 != 0,
            },
        };
        unpacker.add(&name, what, &mut entry)?;
    }
    Ok(())
}

/// How many entries the end of a zip file claims, 0 when that cannot be seen.
///
/// Source: PKWARE APPNOTE 4.3.14 to 4.3.16 (end of central directory, also of zip64).
fn zip_entries(mut archive: &File) -> io::Result<u64> {
    const END_BYTES: u64 = 22 + 65_535 + 20 + 56;
    let length = archive.seek(SeekFrom::End(0))?;
    archive.seek(SeekFrom::Start(length.saturating_sub(END_BYTES)))?;
    let mut tail = Vec::new();
    archive.take(END_BYTES).read_to_end(&mut tail)?;
    archive.seek(SeekFrom::Start(0))?;
    let last = |signature: &[u8]| tail.windows(signature.len()).rposition(|w| w == signature);
    if let Some(at) = last(b"PK\x06\x06")
        && let Some(count) = tail.get(at + 32..at + 40)
    {
        return Ok(count
            .iter()
            .rev()
            .fold(0_u64, |n, b| (n << 8) | u64::from(*b)));
    }
    let count = last(b"PK\x05\x06").and_then(|at| tail.get(at + 10..at + 12));
    Ok(count.map_or(0, |c| u64::from(c[0]) | (u64::from(c[1]) << 8)))
}

#[cfg(test)]
mod tests;
