//! What containers see of the host beyond the system's folders: `sandbox.readable_dirs`, and Java.

use std::path::{Component, Path};

use anyhow::Context;
use bobbin_sandbox::{Bind, is_system_path};

use crate::config::Sandbox;

/// Folders to bind read-only, none inside another.
#[derive(Debug, Default)]
struct Binds(Vec<Bind>);

impl Binds {
    fn add(&mut self, source: &Path, target: &Path, sandbox: &Sandbox) {
        let is_shared = (sandbox.shared_dirs.iter()).any(|dir| target.starts_with(dir));
        let is_there = self.0.iter().any(|bind| target.starts_with(&bind.target));
        if !is_system_path(target) && !is_shared && !is_there {
            self.0.push(Bind {
                source: source.to_owned(),
                target: target.to_owned(),
                writable: false,
            });
        }
    }
}

/// The readable folders at the paths of the settings and, where links lead elsewhere, there too; and a
/// Java that is in none of them.
///
/// # Errors
/// A folder of the setting cannot be used.
pub(crate) fn readable(sandbox: &Sandbox, java_home: Option<&Path>) -> anyhow::Result<Vec<Bind>> {
    let mut all = Binds::default();
    for dir in &sandbox.readable_dirs {
        let real = dir.canonicalize().with_context(|| {
            format!(
                "the setting sandbox.readable_dirs: {} cannot be used",
                dir.display()
            )
        })?;
        all.add(&real, &real, sandbox);
        let is_plain = (dir.components().skip(1)).all(|part| matches!(part, Component::Normal(_)));
        if is_plain {
            all.add(&real, dir, sandbox);
        }
    }
    if let Some(home) = java_home
        && home.join("bin/java").is_file()
    {
        all.add(home, home, sandbox);
    }
    Ok(all.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn targets(sandbox: &Sandbox, java_home: Option<&Path>) -> Vec<(PathBuf, PathBuf)> {
        let binds = readable(sandbox, java_home).unwrap();
        assert!(binds.iter().all(|bind| !bind.writable));
        binds.into_iter().map(|b| (b.source, b.target)).collect()
    }

    #[test]
    fn folders_are_bound_where_they_are_and_where_the_setting_says() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["spark-3.5/jars", "jdk/bin", "shared/jdk"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["jdk", "shared/jdk"] {
            std::fs::create_dir_all(root.join(name).join("bin")).unwrap();
            std::fs::write(root.join(name).join("bin/java"), "").unwrap();
        }
        std::os::unix::fs::symlink("spark-3.5", root.join("spark")).unwrap();
        let sandbox = Sandbox {
            shared_dirs: vec![root.join("shared")],
            readable_dirs: vec![
                root.join("spark"),
                root.join("spark-3.5/jars"),
                "/usr".into(),
            ],
            ..Sandbox::default()
        };
        let (real, link, jdk) = (root.join("spark-3.5"), root.join("spark"), root.join("jdk"));
        let spark = [(real.clone(), real.clone()), (real, link)];
        assert_eq!(targets(&sandbox, None), spark);
        let all = targets(&sandbox, Some(&jdk));
        assert_eq!(all[2..], [(jdk.clone(), jdk)]);
        for home in ["/usr/lib/jvm/any", "/nowhere"] {
            assert_eq!(targets(&sandbox, Some(Path::new(home))), spark, "{home}");
        }
        assert_eq!(targets(&sandbox, Some(&root.join("shared/jdk"))), spark);
    }

    #[test]
    fn a_folder_that_is_not_there_is_refused_by_its_key() {
        let sandbox = Sandbox {
            readable_dirs: vec!["/no/such/folder".into()],
            ..Sandbox::default()
        };
        let words = readable(&sandbox, None).unwrap_err().to_string();
        assert!(
            words.contains("sandbox.readable_dirs: /no/such/folder"),
            "{words}"
        );
    }
}
