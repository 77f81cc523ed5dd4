//! The repository the tests were built from.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate is a folder of the root")
}

/// Every file git tracks or would track, below the root.
#[expect(clippy::disallowed_methods, reason = "git tells which files there are")]
#[must_use]
pub fn tracked_files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(listed.status.success(), "git ls-files failed");
    let text = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    text.lines()
        .map(PathBuf::from)
        .filter(|p| root().join(p).is_file())
        .collect()
}
