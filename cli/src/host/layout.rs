//! The folder of a cluster: where everything is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Kind};
use crate::parse;

/// The resource manager's name in run files, settings and logs.
pub(crate) const RESOURCEMANAGER: &str = "resourcemanager";

/// What a cluster puts into its folder.
const OWN_ENTRIES: [&str; 7] = ["bin", "conf", "env", "lib", "log", "run", "shared"];

/// Everything below DIR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
}

impl Layout {
    /// The folder that is meant: the flag's, BOBBIN_DIR, or the user's state folder. Absolute, links
    /// resolved as far as it exists.
    ///
    /// # Errors
    /// No folder can be meant, or its name cannot be written into settings.
    pub(crate) fn of(dir: Option<&Path>) -> Result<Layout, Failure> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let dir = match dir {
            Some(dir) => dir.to_owned(),
            None => variable("BOBBIN_DIR")
                .or_else(|| variable("XDG_STATE_HOME").map(|state| state.join("bobbin")))
                .or_else(|| variable("HOME").map(|home| home.join(".local/state/bobbin")))
                .ok_or_else(|| {
                    Failure::usage("no folder for the cluster is known").try_this("--dir DIR")
                })?,
        };
        Layout::absolute(&dir)
    }

    fn absolute(dir: &Path) -> Result<Layout, Failure> {
        let shown = parse::shown(&dir.display().to_string());
        let unusable = |why: &str| {
            Failure::usage(format!("the folder '{shown}' cannot hold a cluster: {why}"))
                .try_this("another --dir")
        };
        if dir.as_os_str().is_empty() {
            return Err(unusable("its name is empty"));
        }
        let absolute = std::path::absolute(dir).map_err(|e| unusable(&e.to_string()))?;
        let absolute = resolve(&absolute);
        match absolute.to_str() {
            None => Err(unusable("its name is not UTF-8")),
            Some(text) if text.chars().any(char::is_control) => {
                Err(unusable("its name has a control character"))
            }
            Some(_) if absolute.exists() && !absolute.is_dir() => Err(unusable("it is a file")),
            Some(_) => Ok(Layout { dir: absolute }),
        }
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.dir.join("conf")
    }

    pub(crate) fn conf_of(&self, name: &str) -> PathBuf {
        self.conf().join(format!("{name}.toml"))
    }

    pub(crate) fn lib(&self) -> PathBuf {
        self.dir.join("lib")
    }

    pub(crate) fn lib_of(&self, name: &str) -> PathBuf {
        self.lib().join(name)
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// What the daemon itself says.
    pub(crate) fn log_of(&self, name: &str) -> PathBuf {
        self.log().join(format!("{name}.log"))
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run().join("resourcemanager.sock")
    }

    pub(crate) fn shared(&self) -> PathBuf {
        self.dir.join("shared")
    }

    pub(crate) fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    pub(crate) fn env(&self) -> PathBuf {
        self.dir.join("env")
    }

    /// The configuration of Hadoop's clients.
    pub(crate) fn hadoop_conf(&self) -> PathBuf {
        self.conf().join("hadoop")
    }

    /// The tokens of whoever runs `up`, for Hadoop's clients. Not beside their configuration, which
    /// they ship with applications.
    pub(crate) fn hadoop_token(&self) -> PathBuf {
        self.lib().join("hadoop.token")
    }

    /// A node agent's token for the resource manager.
    pub(crate) fn token_of(&self, name: &str) -> PathBuf {
        self.lib_of(name).join("token")
    }

    /// Whether a cluster has been made here.
    pub(crate) fn exists(&self) -> bool {
        self.conf_of(RESOURCEMANAGER).exists()
    }

    /// The nodes that this cluster has settings of, in order.
    pub(crate) fn nodes(&self) -> Vec<String> {
        let mut numbers: Vec<u32> = std::fs::read_dir(self.conf())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                name.to_str()?
                    .strip_prefix("node")?
                    .strip_suffix(".toml")?
                    .parse()
                    .ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers.into_iter().map(node_name).collect()
    }

    /// Refuses a folder that is somebody else's: nothing is strewn into it.
    ///
    /// # Errors
    /// It holds what no cluster puts there.
    pub(crate) fn check_new(&self) -> Result<(), Failure> {
        let stranger = std::fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name())
            .find(|name| !name.to_str().is_some_and(|n| OWN_ENTRIES.contains(&n)));
        match stranger {
            None => Ok(()),
            Some(name) => Err(Failure::new(
                Kind::Refused,
                format!(
                    "{} is not empty and holds no cluster (there is '{}')",
                    self.dir.display(),
                    parse::shown(&name.to_string_lossy())
                ),
            )
            .try_this("a new folder: --dir DIR")),
        }
    }

    /// Makes the folders. DIR can be passed through by containers' users; the daemons' own state is
    /// theirs alone; the shared folder is everybody's, as /tmp is.
    ///
    /// # Errors
    /// A folder cannot be made or is not ours.
    pub(crate) fn create(&self, nodes: &[String]) -> Result<(), Failure> {
        let mut folders = vec![
            (self.conf(), 0o755),
            (self.lib(), 0o711),
            (self.log(), 0o755),
            (self.run(), 0o755),
            (self.bin(), 0o755),
            (self.shared(), 0o1777),
            (self.lib_of(RESOURCEMANAGER), 0o700),
        ];
        folders.extend(nodes.iter().map(|node| (self.lib_of(node), 0o711)));
        self.create_itself()?;
        for (folder, mode) in folders {
            let failed = |e: &std::io::Error| Failure::file("cannot make the folder", &folder, e);
            std::fs::create_dir_all(&folder).map_err(|e| failed(&e))?;
            // Whatever the umask is.
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&folder, permissions).map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// DIR may be there before, with a mode somebody chose: it is only made passable.
    fn create_itself(&self) -> Result<(), Failure> {
        let failed = |e: &std::io::Error| Failure::file("cannot make the folder", &self.dir, e);
        std::fs::create_dir_all(&self.dir).map_err(|e| failed(&e))?;
        let mode = std::fs::metadata(&self.dir)
            .map_err(|e| failed(&e))?
            .permissions()
            .mode();
        if mode & 0o055 == 0o055 {
            return Ok(());
        }
        let permissions = std::fs::Permissions::from_mode((mode & 0o7777) | 0o055);
        std::fs::set_permissions(&self.dir, permissions).map_err(|e| failed(&e))
    }

    /// There is no cluster in this folder.
    pub(crate) fn nothing_here(&self) -> Failure {
        Failure::new(
            Kind::NotFound,
            format!("there is no cluster in {}", self.dir.display()),
        )
        .try_this("--dir DIR with the folder that `bobbin up` was given")
    }
}

pub(crate) fn node_name(number: u32) -> String {
    format!("node{number}")
}

/// Resolves links in the part of a path that exists, so that the cluster is known by one name.
fn resolve(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut part = path;
    loop {
        if let Ok(found) = std::fs::canonicalize(part) {
            return rest.iter().rev().fold(found, |path, name| path.join(name));
        }
        match (part.parent(), part.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                part = parent;
            }
            (_, _) => return path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_for_one_folder() {
        let folder = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(folder.path()).unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        let layout = Layout::of(Some(&real.join("link/new/x"))).unwrap();
        assert_eq!(layout.dir, real.join("new/x"));
    }

    #[test]
    fn folders_that_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for bad in [Path::new(""), Path::new("/tmp/a\nb"), &file] {
            assert_eq!(
                Layout::of(Some(bad)).unwrap_err().kind,
                Kind::Usage,
                "{}",
                bad.display()
            );
        }
    }

    #[test]
    fn somebody_elses_folder_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(Some(folder.path())).unwrap();
        assert_eq!(layout.check_new(), Ok(()));
        std::fs::create_dir(layout.log()).unwrap();
        assert_eq!(layout.check_new(), Ok(()), "a first start that failed");
        std::fs::write(folder.path().join("thesis.tex"), "").unwrap();
        assert!(
            layout
                .check_new()
                .unwrap_err()
                .message
                .contains("thesis.tex")
        );
    }

    #[test]
    fn made_with_their_modes_and_nodes_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::of(Some(folder.path())).unwrap();
        assert!(!layout.exists());
        let names: Vec<_> = (1..=11).map(node_name).collect();
        layout.create(&names).unwrap();
        for name in names.iter().chain([&RESOURCEMANAGER.to_owned()]) {
            std::fs::write(layout.conf_of(name), "").unwrap();
        }
        assert!(layout.exists());
        assert_eq!(layout.nodes(), names);
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(layout.shared()), 0o1777);
        assert_eq!(mode(layout.lib_of(RESOURCEMANAGER)), 0o700);
        assert_eq!(mode(layout.dir), 0o755);
    }
}
