//! Files and archives that a submission ships: every executor finds them in its working folder, as
//! the driver does.
//!
//! They travel as a secret file of the master's container, since their sources are nobody else's
//! business and the environment has a limit. Source: `spark.files`, `spark.archives`.

use std::path::Path;

use bobbin_proto::v1;
use bobbin_types::OBJECT_STORE_SECRET;
use prost::Message;

/// Name of the master's secret that lists them.
pub const SHIPPED_FILES_SECRET: &str = "shipped-files";

/// What every executor finds in its working folder, and what it is fetched with.
#[derive(Clone, Default, PartialEq)]
pub struct ShippedFiles {
    pub files: Vec<v1::LocalResource>,
    /// The application's credentials for object stores and web servers; empty for none.
    pub stores: Vec<u8>,
}

impl std::fmt::Debug for ShippedFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShippedFiles")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// The bytes of the secret.
#[must_use]
pub fn encode_shipped_files(files: &[v1::LocalResource]) -> Vec<u8> {
    let list = v1::LaunchContext {
        local_resources: files.to_vec(),
        ..v1::LaunchContext::default()
    };
    list.encode_to_vec()
}

/// Reads the secret in `folder`; without one nothing is shipped.
///
/// # Errors
/// The file cannot be read, or is not what [`encode_shipped_files`] makes.
pub(crate) fn read_shipped_files(folder: &Path) -> std::io::Result<ShippedFiles> {
    let read = |name: &str| match std::fs::read(folder.join(name)) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    };
    let list = read(SHIPPED_FILES_SECRET)?;
    Ok(ShippedFiles {
        files: v1::LaunchContext::decode(list.as_slice())?.local_resources,
        stores: read(OBJECT_STORE_SECRET)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            read_shipped_files(folder.path()).unwrap(),
            ShippedFiles::default()
        );
        let file = v1::LocalResource {
            name: "data.txt".to_owned(),
            size: 7,
            ..Default::default()
        };
        let secret = folder.path().join(SHIPPED_FILES_SECRET);
        std::fs::write(&secret, encode_shipped_files(std::slice::from_ref(&file))).unwrap();
        std::fs::write(folder.path().join(OBJECT_STORE_SECRET), b"keys").unwrap();
        let read = read_shipped_files(folder.path()).unwrap();
        assert_eq!((read.files, read.stores), (vec![file], b"keys".to_vec()));
        std::fs::write(&secret, b"\xff\xff\xff").unwrap();
        assert!(read_shipped_files(folder.path()).is_err());
    }
}
