//! What a node adds to the environment of YARN's containers when the application does not say.

use std::path::{Path, PathBuf};

/// Variables of the agent itself that its containers inherit. Source: the default of
/// `yarn.nodemanager.env-whitelist`, less PATH and LANG, which every container of Bobbin has.
const INHERITED: [&str; 7] = [
    "HADOOP_COMMON_HOME",
    "HADOOP_HDFS_HOME",
    "HADOOP_CONF_DIR",
    "CLASSPATH_PREPEND_DISTCACHE",
    "HADOOP_YARN_HOME",
    "HADOOP_HOME",
    "TZ",
];

/// Read once, at the agent's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeEnvironment {
    /// Without links in it.
    pub(crate) java_home: Option<PathBuf>,
    inherited: Vec<(&'static str, String)>,
}

impl NodeEnvironment {
    /// `setting` is `yarn.java_home`; without it the agent's JAVA_HOME counts, or else where the `java`
    /// in its PATH is. `variable` reads the agent's environment.
    pub(crate) fn new(
        setting: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> NodeEnvironment {
        let said = (!setting.as_os_str().is_empty()).then(|| setting.to_owned());
        let java_home = said
            .or_else(|| variable("JAVA_HOME").map(PathBuf::from))
            .filter(|home| home.is_absolute())
            .or_else(|| java_in(&variable("PATH")?))
            .map(|home| home.canonicalize().unwrap_or(home));
        let inherited = INHERITED
            .into_iter()
            .filter_map(|name| Some((name, variable(name)?)))
            .collect();
        NodeEnvironment {
            java_home,
            inherited,
        }
    }

    pub(crate) fn defaults(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let java = self.java_home.as_ref();
        java.map(|home| ("JAVA_HOME", home.display().to_string()))
            .into_iter()
            .chain(self.inherited.iter().cloned())
    }
}

/// The home of the first `java` in a PATH: it is `bin/java` there.
fn java_in(path: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter_map(|folder| folder.join("java").canonicalize().ok())
        .find_map(|java| {
            let bin = java.parent()?;
            (bin.file_name()? == "bin").then_some(bin.parent()?.to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_is_where_the_setting_the_environment_or_the_path_say() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("jdk/bin")).unwrap();
        std::fs::write(root.join("jdk/bin/java"), "").unwrap();
        std::fs::create_dir(root.join("bin")).unwrap();
        std::os::unix::fs::symlink(root.join("jdk/bin/java"), root.join("bin/java")).unwrap();
        let path = format!("{}:/nowhere", root.join("bin").display());
        let home = |setting: &str, java_home: Option<&str>, path: &str| {
            NodeEnvironment::new(Path::new(setting), |name| match name {
                "JAVA_HOME" => java_home.map(str::to_owned),
                "PATH" => Some(path.to_owned()),
                "TZ" => Some("UTC".to_owned()),
                _ => None,
            })
        };
        assert_eq!(home("", None, &path).java_home, Some(root.join("jdk")));
        assert_eq!(home("", Some("/j"), &path).java_home, Some("/j".into()));
        assert_eq!(home("/s", Some("/j"), &path).java_home, Some("/s".into()));
        assert_eq!(home("", Some("j"), "").java_home, None);
        let all: Vec<_> = home("/s", None, "").defaults().collect();
        assert_eq!(
            all,
            [("JAVA_HOME", "/s".to_owned()), ("TZ", "UTC".to_owned())]
        );
    }
}
