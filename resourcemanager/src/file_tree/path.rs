//! Paths of the tree: absolute, of plain components, so that none leads out of it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::FilesError;

/// Bytes of one component. Source: `NAME_MAX`, linux/limits.h; HDFS's default is the same
/// (`dfs.namenode.fs-limits.max-component-length`).
const COMPONENT_BYTES_MAX: usize = 255;
/// Bytes of a whole path; leaves room for the tree's own folder in `PATH_MAX`.
const PATH_BYTES_MAX: usize = 3_000;
const DEPTH_MAX: usize = 100;
/// Where `bobbin` ships files; WebHDFS reads there and changes nothing.
const STAGING: &str = ".bobbinStaging";

/// A checked path; the root has no components.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TreePath(Vec<String>);

/// `/user/<name>`.
pub(crate) fn home_of(user: &str) -> String {
    format!("/user/{user}")
}

impl TreePath {
    /// Reads an absolute path. Repeated and final slashes are dropped.
    ///
    /// # Errors
    /// It is relative, too long or too deep, or has a component that is no name: `.`, `..`, with a
    /// colon or a control character, longer than 255 bytes, or one of the tree's own temporary ones.
    pub(crate) fn parse(text: &str) -> Result<TreePath, FilesError> {
        let refuse = |why: &str| {
            let shown: String = text
                .chars()
                .flat_map(char::escape_default)
                .take(200)
                .collect();
            Err(FilesError::InvalidPath(format!("'{shown}' {why}")))
        };
        if text.len() > PATH_BYTES_MAX {
            return refuse("is longer than 3000 bytes");
        }
        let Some(rest) = text.strip_prefix('/') else {
            return refuse("is not absolute");
        };
        let mut components = Vec::new();
        for component in rest.split('/').filter(|c| !c.is_empty()) {
            if component == "." || component == ".." {
                return refuse("has a component '.' or '..'");
            }
            if component.len() > COMPONENT_BYTES_MAX {
                return refuse("has a component of more than 255 bytes");
            }
            if component.chars().any(char::is_control) {
                return refuse("has a control character");
            }
            if component.contains(':') {
                return refuse("has a colon");
            }
            if component.starts_with(".upload-") {
                return refuse("is a name that is kept for uploads under way");
            }
            components.push(component.to_owned());
        }
        if components.len() > DEPTH_MAX {
            return refuse("is deeper than 100 folders");
        }
        Ok(TreePath(components))
    }

    pub(super) fn components(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    /// The last component; empty for the root.
    pub(crate) fn name(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// `None` for the root.
    pub(super) fn parent(&self) -> Option<TreePath> {
        let (_, parent) = self.0.split_last()?;
        Some(TreePath(parent.to_vec()))
    }

    /// Every folder above, the root first.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = TreePath> + '_ {
        (0..self.0.len()).map(|n| TreePath(self.0[..n].to_vec()))
    }

    pub(super) fn join(&self, name: &str) -> TreePath {
        let mut components = self.0.clone();
        components.push(name.to_owned());
        TreePath(components)
    }

    /// Whether this is `other` or stands somewhere below it.
    pub(super) fn is_in(&self, other: &TreePath) -> bool {
        self.0.starts_with(&other.0)
    }

    /// Whether `bobbin` alone writes here.
    pub(super) fn is_staging(&self) -> bool {
        matches!(self.components().as_slice(), ["user", _, STAGING, ..])
    }

    /// Whether the tree itself needs it: the root, `/user`, `/tmp`.
    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.components().as_slice(), [] | ["user" | "tmp"])
    }

    /// Whose home this is, or stands in.
    pub(super) fn home_owner(&self) -> Option<&str> {
        match self.components().as_slice() {
            ["user", user, ..] => self.0.get(1).map(String::as_str).filter(|u| u == user),
            _ => None,
        }
    }

    pub(super) fn on_disk(&self, root: &Path) -> PathBuf {
        self.0.iter().fold(root.to_owned(), |path, c| path.join(c))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_are_normalized() {
        for (text, shown) in [("/", "/"), ("//a///b/", "/a/b"), ("/ä b%2F", "/ä b%2F")] {
            assert_eq!(TreePath::parse(text).unwrap().to_string(), shown);
        }
        let path = TreePath::parse("/user/alice/x").unwrap();
        assert_eq!((path.name(), path.home_owner()), ("x", Some("alice")));
        let above: Vec<String> = path.ancestors().map(|p| p.to_string()).collect();
        assert_eq!(above, ["/", "/user", "/user/alice"]);
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let long = format!("/{}", "x".repeat(256));
        let deep = "/a".repeat(101);
        for text in [
            "",
            "a",
            "/..",
            "/a/../b",
            "/.",
            "/a\0b",
            "/a\nb",
            "/a\u{7f}",
            "/a:b",
            "/.upload-x",
            &long,
            &deep,
            &"/a".repeat(2000),
        ] {
            assert!(TreePath::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn any_text_stays_inside() {
        use proptest::prelude::*;
        proptest!(|(text in ".{0,60}")| {
            if let Ok(path) = TreePath::parse(&text) {
                let disk = path.on_disk(Path::new("/r"));
                prop_assert!(disk.starts_with("/r"));
                prop_assert!(disk.components().all(|c| c != std::path::Component::ParentDir));
            }
        });
    }
}
