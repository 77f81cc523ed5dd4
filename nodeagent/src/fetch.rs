//! Getting the bytes of a local resource: from the node as the user, or from the resource manager.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bobbin_proto::v1;
use bobbin_proto::v1::staging_client::StagingClient;
use bobbin_service::{RpcChannel, status_words};
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};
use sha2::{Digest, Sha256};

use crate::account::{Rights, with_rights};
use crate::remote::place::RemotePlace;
use crate::remote::transfer::Counter;
use crate::webhdfs::Place;

const BUFFER_BYTES: usize = 128 << 10;

/// Where a resource comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the resource manager's file tree: the whole text, it is asked for as it stands.
    Staged(String),
    /// In a tree that speaks WebHDFS.
    WebHdfs(Place),
    /// On a web server or in an object store.
    Remote(RemotePlace),
    /// An absolute path on this node.
    File(PathBuf),
}

/// What the bytes must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// 0: not said.
    pub(crate) size: u64,
    /// 0: not said.
    pub(crate) mtime_ms: u64,
    /// Empty: not said.
    pub(crate) sha256: Vec<u8>,
    pub(crate) bytes_max: u64,
    /// The source, for words.
    pub(crate) shown: String,
}

/// Why the bytes cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(
        "a source is bobbin:/path, webhdfs://host:port/path, file:/absolute/path, http(s)://host/path, \
         s3://bucket/key, abfs://container@account/path or gs://bucket/key, without '..' and control \
         characters"
    )]
    Source,
    #[error(
        "{0}: files are not localized from there: ship it, or name an http(s):, s3:, abfs:, gs:, webhdfs: or file: source"
    )]
    Scheme(String),
    #[error("{0}")]
    Place(String),
    #[error("its server says: {0}")]
    WebHdfs(String),
    #[error("its server went away: {0}")]
    Away(String),
    #[error("not everybody may read it, because of {0}, so it cannot be PUBLIC")]
    NotPublicThere(String),
    #[error("cannot open it as the user")]
    Open(#[source] io::Error),
    #[error("not everybody may read it, so it cannot be PUBLIC")]
    NotPublic(#[source] io::Error),
    #[error("it needs credentials that are not everybody's, so it cannot be PUBLIC")]
    NotPublicByKey,
    #[error("it was changed while it was fetched")]
    Changed,
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it has {actual} bytes, {expected} were expected: it was changed or cut")]
    Size { actual: u64, expected: u64 },
    // Source: the words of `FSDownload.verifyAndCopy`.
    #[error("Resource {resource} changed on src filesystem - expected {expected}, was {actual}")]
    Time {
        resource: String,
        expected: u64,
        actual: u64,
    },
    #[error("its SHA-256 is {actual}, {expected} was expected")]
    Digest { actual: String, expected: String },
    #[error(
        "it has more than the {0} bytes that this node localizes (setting localizer.file_bytes_max)"
    )]
    TooLarge(u64),
    #[error("cannot copy it")]
    Copy(#[source] io::Error),
    #[error("the resource manager does not give it: {0}")]
    Staging(String),
}

impl Source {
    pub(crate) fn parse(text: &str) -> Result<Source, FetchError> {
        if text.starts_with("bobbin:/") {
            return Ok(Source::Staged(text.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("webhdfs:") {
            return Ok(Source::WebHdfs(Place::parse(rest)?));
        }
        if let Some(place) = RemotePlace::parse(text)? {
            return Ok(Source::Remote(place));
        }
        let Some(path) = text.strip_prefix("file:") else {
            return Err(other_scheme(text));
        };
        // file:///path is file:/path. Source: RFC 8089.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.contains('\0') {
            return Err(FetchError::Source);
        }
        Ok(Source::File(PathBuf::from(path)))
    }
}

/// Names a scheme that is nobody's here.
fn other_scheme(text: &str) -> FetchError {
    match text.split_once(':') {
        Some((scheme, _))
            if (1..20).contains(&scheme.len())
                && scheme != "bobbin"
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            FetchError::Scheme(scheme.to_owned())
        }
        Some(_) | None => FetchError::Source,
    }
}

impl Expected {
    /// Whether a file of so many bytes may be fetched.
    pub(crate) fn check_size(&self, size: u64) -> Result<(), FetchError> {
        if self.size > 0 && size != self.size {
            return Err(FetchError::Size {
                actual: size,
                expected: self.size,
            });
        }
        if size > self.bytes_max {
            return Err(FetchError::TooLarge(self.bytes_max));
        }
        Ok(())
    }

    /// Whether a file of this time is the one that is meant; a digest says more.
    pub(crate) fn check_time(&self, modified_ms: Option<u64>) -> Result<(), FetchError> {
        let expected = self.mtime_ms;
        if expected == 0 || !self.sha256.is_empty() || modified_ms == Some(expected) {
            return Ok(());
        }
        Err(FetchError::Time {
            resource: self.shown.clone(),
            expected,
            actual: modified_ms.unwrap_or(0),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Counts and digests what passes, and judges it at the end.
pub(crate) struct Checked {
    expected: Expected,
    digest: Sha256,
    bytes: u64,
}

impl Checked {
    pub(crate) fn new(expected: &Expected) -> Checked {
        Checked {
            expected: expected.clone(),
            digest: Sha256::new(),
            bytes: 0,
        }
    }

    pub(crate) fn pass(&mut self, data: &[u8], to: &mut File) -> Result<(), FetchError> {
        self.bytes = self
            .bytes
            .saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if self.bytes > self.expected.bytes_max {
            return Err(FetchError::TooLarge(self.expected.bytes_max));
        }
        if self.expected.size > 0 && self.bytes > self.expected.size {
            return Err(FetchError::Size {
                actual: self.bytes,
                expected: self.expected.size,
            });
        }
        if !self.expected.sha256.is_empty() {
            self.digest.update(data);
        }
        to.write_all(data).map_err(FetchError::Copy)
    }

    pub(crate) fn finish(self) -> Result<u64, FetchError> {
        let expected = self.expected;
        if expected.size > 0 && self.bytes != expected.size {
            return Err(FetchError::Size {
                actual: self.bytes,
                expected: expected.size,
            });
        }
        if !expected.sha256.is_empty() {
            let actual = self.digest.finalize();
            if actual.as_slice() != expected.sha256 {
                return Err(FetchError::Digest {
                    actual: hex(&actual),
                    expected: hex(&expected.sha256),
                });
            }
        }
        Ok(self.bytes)
    }
}

/// Digests, counts and writes what comes, off the runtime's own threads.
pub(crate) struct Sink {
    checked: Checked,
    file: File,
}

impl Sink {
    pub(crate) fn new(expected: &Expected, file: File) -> Sink {
        Sink {
            checked: Checked::new(expected),
            file,
        }
    }

    pub(crate) async fn run(
        mut self,
        work: impl FnOnce(&mut Sink) -> Result<(), FetchError> + Send + 'static,
    ) -> Result<Sink, FetchError> {
        tokio::task::spawn_blocking(move || work(&mut self).map(|()| self))
            .await
            .map_err(|e| FetchError::Copy(io::Error::other(e)))?
    }

    /// An earlier try may have written something.
    pub(crate) fn begin_again(&mut self) -> Result<(), FetchError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(FetchError::Copy)
    }

    pub(crate) fn pass(&mut self, data: &[u8]) -> Result<(), FetchError> {
        self.checked.pass(data, &mut self.file)
    }

    pub(crate) fn finish(self) -> Result<u64, FetchError> {
        self.checked.finish()
    }
}

/// Copies a file of this node, opened with the user's rights; a public one with nobody's. Blocks.
pub(crate) fn copy_file(
    path: &Path,
    rights: &Rights,
    public: bool,
    expected: &Expected,
    to: &mut File,
) -> Result<u64, FetchError> {
    // Without waiting: a fifo would wait for its other end.
    let open = || {
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
    };
    let mut file = with_rights(rights, open).map_err(FetchError::Open)?;
    if public {
        with_rights(&Rights::nobody(), open).map_err(FetchError::NotPublic)?;
    }
    let check = |file: &File| -> Result<(), FetchError> {
        let metadata = file.metadata().map_err(FetchError::Copy)?;
        // The kernel's own views are no files to copy: they show a reader itself, here the agent.
        let kernel_view = [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(
            &fstatfs(file)
                .map_err(|e| FetchError::Copy(e.into()))?
                .filesystem_type(),
        );
        if !metadata.is_file() || kernel_view {
            return Err(FetchError::NotAFile);
        }
        if public && metadata.mode() & 0o004 == 0 {
            return Err(FetchError::NotPublic(
                io::ErrorKind::PermissionDenied.into(),
            ));
        }
        expected.check_size(metadata.len())?;
        let mtime_ms = metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000;
        let mtime_ms = u64::try_from(mtime_ms).unwrap_or(0);
        expected.check_time(Some(mtime_ms))
    };
    check(&file)?;
    let mut checked = Checked::new(expected);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => checked.pass(&buffer[..n], to)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(FetchError::Copy(e)),
        }
    }
    // Changed while it was read.
    check(&file)?;
    checked.finish()
}

/// Fetches a file of the resource manager's tree with the container's token.
pub(crate) async fn fetch_staged(
    channel: RpcChannel,
    source: &str,
    container_token: &str,
    (expected, counter): (&Expected, &Arc<Counter>),
    to: &mut File,
) -> Result<u64, FetchError> {
    let staging = |status: tonic::Status| FetchError::Staging(status_words(&status));
    let mut request = tonic::Request::new(v1::FetchRequest {
        source: source.to_owned(),
        offset: 0,
    });
    let bearer = format!("Bearer {container_token}")
        .parse()
        .map_err(|_| FetchError::Staging("the container's token is no text".to_owned()))?;
    request.metadata_mut().insert("authorization", bearer);
    let mut client = StagingClient::new(channel);
    let mut chunks = client.fetch(request).await.map_err(staging)?.into_inner();
    let mut checked = Checked::new(expected);
    while let Some(chunk) = chunks.message().await.map_err(staging)? {
        checked.pass(&chunk.data, to)?;
        counter.set_done(checked.bytes);
    }
    checked.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn expected() -> Expected {
        Expected {
            size: 0,
            mtime_ms: 0,
            sha256: Vec::new(),
            bytes_max: 1000,
            shown: String::new(),
        }
    }

    fn rights() -> Rights {
        if bobbin_service::own_uid() == 0 {
            Rights::nobody()
        } else {
            Rights {
                uid: bobbin_service::own_uid(),
                gid: 0,
                groups: Vec::new(),
            }
        }
    }

    fn copy(path: &Path, public: bool, expected: &Expected) -> Result<Vec<u8>, FetchError> {
        let target = tempfile::NamedTempFile::new().unwrap();
        let mut file = target.reopen().unwrap();
        copy_file(path, &rights(), public, expected, &mut file)?;
        Ok(std::fs::read(target.path()).unwrap())
    }

    #[test]
    fn sources() {
        assert_eq!(
            Source::parse("file:/a/b").unwrap(),
            Source::File("/a/b".into())
        );
        assert_eq!(
            Source::parse("file:///a/b").unwrap(),
            Source::File("/a/b".into())
        );
        assert!(matches!(
            Source::parse("bobbin:/user/x"),
            Ok(Source::Staged(_))
        ));
        assert!(matches!(
            Source::parse("webhdfs://h:1/x"),
            Ok(Source::WebHdfs(_))
        ));
        for bad in [
            "",
            "/a",
            "file:a",
            "file://host/a",
            "bobbin:x",
            "file:/a\0",
            "webhdfs:/x",
        ] {
            assert!(
                matches!(Source::parse(bad), Err(FetchError::Source)),
                "{bad}"
            );
        }
        for remote in ["http://x/y", "s3a://b/x", "gs://b/x", "abfs://c@a/x"] {
            assert!(
                matches!(Source::parse(remote), Ok(Source::Remote(_))),
                "{remote}"
            );
        }
        for other in ["hdfs://nn/x", "swebhdfs://h:1/x", "ftp://h/x"] {
            assert!(
                matches!(Source::parse(other), Err(FetchError::Scheme(_))),
                "{other}"
            );
        }
    }

    #[test]
    fn size_time_and_digest_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "content").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mtime = std::fs::metadata(&path).unwrap();
        let mtime_ms =
            u64::try_from(mtime.mtime() * 1000 + mtime.mtime_nsec() / 1_000_000).unwrap();
        let sha256 = Sha256::digest(b"content").to_vec();
        let good = Expected {
            size: 7,
            mtime_ms,
            sha256,
            bytes_max: 7,
            shown: String::new(),
        };
        assert_eq!(copy(&path, true, &good).unwrap(), b"content");
        let bad = |change: fn(&mut Expected)| {
            let mut expected = good.clone();
            change(&mut expected);
            copy(&path, false, &expected).unwrap_err()
        };
        assert!(matches!(
            bad(|e| e.size = 8),
            FetchError::Size {
                actual: 7,
                expected: 8
            }
        ));
        assert!(matches!(
            bad(|e| e.sha256[0] ^= 1),
            FetchError::Digest { .. }
        ));
        assert!(matches!(bad(|e| e.bytes_max = 6), FetchError::TooLarge(6)));
        let late = |e: &mut Expected| {
            e.mtime_ms += 1;
            e.sha256.clear();
        };
        assert!(matches!(bad(late), FetchError::Time { .. }));
    }

    #[test]
    fn a_fifo_a_folder_and_a_closed_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
        std::fs::set_permissions(&fifo, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            copy(&fifo, false, &expected()),
            Err(FetchError::NotAFile)
        ));
        assert!(matches!(
            copy(dir.path(), false, &expected()),
            Err(FetchError::NotAFile)
        ));
        for view in [
            "/proc/self/maps",
            "/proc/cmdline",
            "/sys/kernel/uevent_seqnum",
        ] {
            let refused = copy(Path::new(view), false, &expected()).unwrap_err();
            assert!(
                matches!(refused, FetchError::NotAFile | FetchError::Open(_)),
                "{view}"
            );
        }
        let closed = dir.path().join("closed");
        std::fs::write(&closed, "x").unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o640)).unwrap();
        if bobbin_service::own_uid() == 0 {
            assert!(matches!(
                copy(&closed, false, &expected()),
                Err(FetchError::Open(_))
            ));
            std::os::unix::fs::chown(&closed, Some(65_534), Some(0)).unwrap();
        }
        assert!(matches!(
            copy(&closed, true, &expected()),
            Err(FetchError::NotPublic(_))
        ));
        assert_eq!(copy(&closed, false, &expected()).unwrap(), b"x");
    }
}
