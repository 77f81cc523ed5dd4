//! The resource manager's file tree, served by `bobbin.v1.Staging` and by WebHDFS.
//!
//! On disk the tree stands below one folder that only the resource manager can enter, so nothing
//! in it is a link that somebody else made. [`FileTree`] is what submissions ship; [`Files`] is the
//! whole tree with owners, groups and modes, as Hadoop's clients see it. Both name the same files.
//!
//! Blocking: callers keep it off the runtime's own threads.

mod attributes;
mod changes;
mod checksum;
mod content;
mod error;
mod files;
mod path;
mod permission;
mod staging;

pub(crate) use changes::TimesChange;
pub(crate) use content::{Creation, Writer};
pub(crate) use error::FilesError;
pub(crate) use files::{Entry, Files, Page};
pub(crate) use path::{TreePath, home_of};
pub(crate) use permission::{Access, Person};
pub(crate) use staging::{Announcement, FileTree, FileTreeError, Source, Upload, staging_source};
