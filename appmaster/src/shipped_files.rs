//! Files and archives that a submission ships: every executor finds them in its working folder, as
//! the driver does.
//!
//! They travel as a secret file of the master's container, since their sources are nobody else's
//! business and the environment has a limit. Source: `spark.files`, `spark.archives`.

use std::path::Path;

use bobbin_proto::v1;
use prost::Message;

/// Name of the master's secret that lists them.
pub const SHIPPED_FILES_SECRET: &str = "shipped-files";

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
pub(crate) fn read_shipped_files(folder: &Path) -> std::io::Result<Vec<v1::LocalResource>> {
    match std::fs::read(folder.join(SHIPPED_FILES_SECRET)) {
        Ok(bytes) => Ok(v1::LaunchContext::decode(bytes.as_slice())?.local_resources),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_shipped_files(folder.path()).unwrap(), []);
        let file = v1::LocalResource {
            name: "data.txt".to_owned(),
            size: 7,
            ..Default::default()
        };
        let secret = folder.path().join(SHIPPED_FILES_SECRET);
        std::fs::write(&secret, encode_shipped_files(std::slice::from_ref(&file))).unwrap();
        assert_eq!(read_shipped_files(folder.path()).unwrap(), [file]);
        std::fs::write(&secret, b"\xff\xff\xff").unwrap();
        assert!(read_shipped_files(folder.path()).is_err());
    }
}
