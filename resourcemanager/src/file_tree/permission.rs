//! Who may do what in the tree. Source: the POSIX model of HDFS, `FSPermissionChecker`.

use super::attributes::Attributes;
use super::error::FilesError;
use super::path::TreePath;

/// Somebody proven, with his groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) name: String,
    /// The first one is the primary group.
    pub(crate) groups: Vec<String>,
    /// Administrators pass every check.
    pub(crate) administrator: bool,
}

/// Bits as in one digit of a mode: 4 read, 2 write, 1 execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(u32);

impl Access {
    pub(crate) const READ: Access = Access(4);
    pub(crate) const WRITE: Access = Access(2);
    pub(crate) const ENTER: Access = Access(1);
    pub(crate) const LIST: Access = Access(5);
    pub(crate) const CHANGE: Access = Access(3);
    pub(crate) const ALL: Access = Access(7);

    /// Reads `rwx`-like text; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Access> {
        let mut bits = 0;
        for (letter, (known, bit)) in text.chars().zip([('r', 4), ('w', 2), ('x', 1)]) {
            if letter == known {
                bits |= bit;
            } else if letter != '-' {
                return None;
            }
        }
        (text.chars().count() == 3).then_some(Access(bits))
    }

    fn letters(self) -> &'static str {
        const LETTERS: [&str; 8] = [
            "NONE",
            "EXECUTE",
            "WRITE",
            "WRITE_EXECUTE",
            "READ",
            "READ_EXECUTE",
            "READ_WRITE",
            "ALL",
        ];
        LETTERS.get(self.0 as usize).copied().unwrap_or("ALL")
    }
}

impl Person {
    pub(super) fn group(&self) -> &str {
        self.groups.first().map_or(&self.name, |g| g)
    }

    pub(super) fn owns(&self, attributes: &Attributes) -> bool {
        self.administrator || attributes.owner == self.name
    }

    /// # Errors
    /// [`FilesError::Denied`], in HDFS's words.
    pub(super) fn check(
        &self,
        path: &TreePath,
        attributes: &Attributes,
        access: Access,
    ) -> Result<(), FilesError> {
        let shift = if attributes.owner == self.name {
            6
        } else if self.groups.contains(&attributes.group) {
            3
        } else {
            0
        };
        if self.administrator || (attributes.mode >> shift) & access.0 == access.0 {
            return Ok(());
        }
        Err(FilesError::Denied(format!(
            "user={}, access={}, inode=\"{path}\":{}:{}:{:o}",
            self.name,
            access.letters(),
            attributes.owner,
            attributes.group,
            attributes.mode
        )))
    }

    /// In a sticky folder only the owners of entry and folder take the entry away.
    pub(super) fn check_sticky(
        &self,
        path: &TreePath,
        folder: &Attributes,
        entry: &Attributes,
    ) -> Result<(), FilesError> {
        if folder.mode & 0o1000 == 0 || self.owns(folder) || self.owns(entry) {
            return Ok(());
        }
        Err(FilesError::Denied(format!(
            "sticky bit set: user={}, path=\"{path}\":{}:{}, its folder belongs to {}",
            self.name, entry.owner, entry.group, folder.owner
        )))
    }

    /// # Errors
    /// [`FilesError::Denied`]: only the owner does this.
    pub(super) fn check_owner(
        &self,
        path: &TreePath,
        attributes: &Attributes,
    ) -> Result<(), FilesError> {
        if self.owns(attributes) {
            return Ok(());
        }
        Err(FilesError::Denied(format!(
            "user={} is not the owner of inode={path}",
            self.name
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        let path = TreePath::parse("/x").unwrap();
        let attributes = Attributes {
            owner: "ann".to_owned(),
            group: "staff".to_owned(),
            mode: 0o074,
        };
        let person = |name: &str, group: &str| Person {
            name: name.to_owned(),
            groups: vec![group.to_owned()],
            administrator: false,
        };
        let may = |p: &Person, a| p.check(&path, &attributes, a).is_ok();
        assert!(
            !may(&person("ann", "staff"), Access::READ),
            "owner: nothing"
        );
        assert!(may(&person("bob", "staff"), Access::ALL));
        assert!(may(&person("bob", "bob"), Access::READ));
        assert!(!may(&person("bob", "bob"), Access::LIST));
        let root = Person {
            administrator: true,
            ..person("root", "root")
        };
        assert!(may(&root, Access::ALL));
    }

    #[test]
    fn letters() {
        assert_eq!(Access::parse("r-x"), Some(Access::LIST));
        for text in ["", "rw", "rwxr", "xwr", "755"] {
            assert_eq!(Access::parse(text), None, "{text}");
        }
    }
}
