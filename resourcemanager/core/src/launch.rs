//! What is started in a master's container, as the submitter described it.

use std::collections::BTreeMap;
use std::fmt;

/// How a launch context becomes a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaunchContract {
    /// `argv` is executed as it is.
    #[default]
    Bobbin,
    /// YARN's: `argv` are the words of a shell command, the environment is unexpanded, the secret
    /// `container_tokens` is a Credentials stream. Its master speaks YARN's protocol: it does not
    /// list what it holds, and its heartbeats alone say that it lives.
    Yarn,
}

/// A program with its environment and files. The core checks its size and names and hands it on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchContext {
    pub argv: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub local_resources: Vec<LocalResource>,
    /// By the name of the file below `/run/bobbin/secrets`.
    pub secrets: BTreeMap<String, Secret>,
    pub contract: LaunchContract,
    /// For auxiliary services of the node, by their names.
    /// Source: `ContainerLaunchContext.service_data`.
    pub service_data: BTreeMap<String, Vec<u8>>,
}

/// A file or an archive that the node fetches before the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResource {
    /// One path component in the container's working folder.
    pub name: String,
    /// `bobbin:/user/...`, `webhdfs://host:port/...` or `file:/...`.
    pub source: String,
    pub size_bytes: u64,
    /// Unix milliseconds; 0 when the digest is given.
    pub mtime_ms: u64,
    /// SHA-256 of the content.
    pub digest: Option<[u8; 32]>,
    pub kind: ResourceKind,
    pub visibility: Visibility,
    pub executable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    File,
    /// Unpacked into a folder of the resource's name.
    Archive,
}

/// Who may share the node's copy. Source: `LocalResourceVisibility`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Visibility {
    Application,
    Private,
    Public,
}

/// Bytes that no log and no error text may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
