//! Owner, group and mode of a file or folder, kept with it as an extended attribute.
//!
//! The attribute moves with its inode and names accounts, which this host need not have. What has
//! none (staging, and the tree's own folders) is described by where it stands.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bobbin_types::UserName;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use super::error::{FilesError, disk};
use super::path::TreePath;

const NAME: &str = "user.bobbin.attributes";
/// Two names and a mode.
const BYTES_MAX: usize = 1024;
/// The first line: which form the rest has.
const VERSION: &str = "1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) owner: String,
    pub(crate) group: String,
    /// Permission bits and the sticky bit.
    pub(crate) mode: u32,
}

impl Attributes {
    /// Of what stands at `path`, on disk at `disk_path`.
    pub(super) fn read(
        path: &TreePath,
        disk_path: &Path,
        metadata: &std::fs::Metadata,
        superuser: &str,
    ) -> Result<Attributes, FilesError> {
        let mut buffer = [0_u8; BYTES_MAX];
        let failed = disk("read the attributes of", disk_path);
        match getxattr(disk_path, NAME, &mut buffer) {
            Ok(length) => decode(buffer.get(..length).unwrap_or_default()).ok_or_else(|| {
                failed(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the attributes were written by something else",
                ))
            }),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(by_place(path, metadata, superuser)),
            Err(e) => Err(failed(e.into())),
        }
    }

    pub(super) fn write(&self, disk_path: &Path) -> Result<(), FilesError> {
        let text = format!("{VERSION}\n{}\n{}\n{:o}", self.owner, self.group, self.mode);
        setxattr(disk_path, NAME, text.as_bytes(), XattrFlags::empty())
            .map_err(|e| disk("write the attributes of", disk_path)(e.into()))
    }
}

/// Whether attributes can be kept below `root`.
pub(super) fn are_kept(root: &Path) -> io::Result<()> {
    setxattr(root, "user.bobbin.probe", b"1", XattrFlags::empty()).map_err(io::Error::from)
}

fn decode(bytes: &[u8]) -> Option<Attributes> {
    let text = std::str::from_utf8(bytes).ok()?;
    let [VERSION, owner, group, mode] = text.split('\n').collect::<Vec<_>>()[..] else {
        return None;
    };
    Some(Attributes {
        owner: owner.to_owned(),
        group: group.to_owned(),
        mode: u32::from_str_radix(mode, 8).ok()? & 0o1777,
    })
}

fn by_place(path: &TreePath, metadata: &std::fs::Metadata, superuser: &str) -> Attributes {
    let owner = path
        .home_owner()
        .filter(|user| user.parse::<UserName>().is_ok())
        .unwrap_or(superuser);
    let mode = match path.components().as_slice() {
        [] | ["user"] => 0o755,
        ["tmp"] => 0o1777,
        _ if metadata.is_dir() => 0o700,
        _ => metadata.permissions().mode() & 0o777,
    };
    Attributes {
        owner: owner.to_owned(),
        group: owner.to_owned(),
        mode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = std::fs::metadata(folder.path()).unwrap();
        let path = TreePath::parse("/user/alice/x").unwrap();
        let read = || Attributes::read(&path, folder.path(), &metadata, "root").unwrap();
        let by_place = Attributes {
            owner: "alice".to_owned(),
            group: "alice".to_owned(),
            mode: 0o700,
        };
        assert_eq!(read(), by_place);
        let changed = Attributes {
            group: "staff".to_owned(),
            mode: 0o1771,
            ..by_place
        };
        changed.write(folder.path()).unwrap();
        assert_eq!(read(), changed);
        setxattr(folder.path(), NAME, b"rubbish", XattrFlags::empty()).unwrap();
        assert!(Attributes::read(&path, folder.path(), &metadata, "root").is_err());
    }
}
