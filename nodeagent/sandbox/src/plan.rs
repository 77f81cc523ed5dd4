//! From a specification to what is mounted where, in order. Pure: nothing is looked up on the host.
//!
//! Monitor and PID 1 both make the plan from the same specification, so only numbers and
//! descriptors travel between them.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::LaunchError;
use crate::spec::{ContainerSpec, Profile};
use crate::sys::Depth;

/// Where `run_dir` is bound.
pub(crate) const RUN_TARGET: &str = "/run/bobbin";
/// Folders of the host that are in every container, read-only, if the host has them.
pub(crate) const SYSTEM_FOLDERS: [&str; 9] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt",
];
/// Whether a path is in a folder of the host that every container sees.
#[must_use]
pub fn is_system_path(path: &Path) -> bool {
    let top = path.components().nth(1);
    top.is_some_and(|top| {
        SYSTEM_FOLDERS
            .iter()
            .any(|folder| top.as_os_str() == *folder)
    })
}

/// Folders nothing may be bound into: the launcher makes them itself.
const OWN_FOLDERS: [&str; 3] = ["proc", "sys", "dev"];

/// Binds in one container: more would make mounting the bulk of a launch.
pub(crate) const BINDS_MAX: usize = 1_000;

/// One thing of the host that appears in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) writable: bool,
    pub(crate) depth: Depth,
    /// May be absent on the host.
    pub(crate) optional: bool,
    /// Folders to make on the way to the target, outermost first, all in a tmpfs of this container.
    pub(crate) parents: Vec<CString>,
    /// Whether the mount point itself has to be made; otherwise it exists, read-only or a user's.
    pub(crate) fresh: bool,
}

/// What the root of one container gets on top of the base that all share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootPlan {
    /// First components (`var`) that get a tmpfs of their own to hold mount points.
    pub(crate) tops: Vec<CString>,
    pub(crate) attachments: Vec<Attachment>,
}

fn refused(field: &'static str, reason: impl Into<String>) -> LaunchError {
    LaunchError::BadSpec {
        field,
        reason: reason.into(),
    }
}

/// Checks a specification against what the launcher can promise.
///
/// # Errors
/// `BadSpec` with the field and the reason.
pub(crate) fn check(spec: &ContainerSpec) -> Result<(), LaunchError> {
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err(refused("argv", "there is no program"));
    }
    if spec.argv.iter().any(|word| word.contains('\0')) {
        return Err(refused("argv", "an argument holds a NUL byte"));
    }
    for (name, value) in &spec.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(refused("environment", format!("{name:?} cannot be set")));
        }
    }
    if spec.profile == Profile::Full && (spec.uid == 0 || spec.gid == 0) {
        return Err(refused("uid", "a container is not run as root"));
    }
    if spec.uid == u32::MAX || spec.gid == u32::MAX {
        return Err(refused("uid", "-1 is not a user"));
    }
    if spec.binds.len() > BINDS_MAX {
        return Err(refused(
            "binds",
            format!("{} of at most {BINDS_MAX}", spec.binds.len()),
        ));
    }
    let own = [
        ("work_dir", &spec.work_dir),
        ("log_dir", &spec.log_dir),
        ("private_dir", &spec.private_dir),
        ("run_dir", &spec.run_dir),
    ];
    own.into_iter()
        .try_for_each(|(field, path)| check_path(field, path))?;
    spec.binds.iter().try_for_each(|bind| {
        check_path("binds.source", &bind.source)?;
        check_path("binds.target", &bind.target)
    })
}

fn check_path(field: &'static str, path: &Path) -> Result<(), LaunchError> {
    let plain = path
        .components()
        .skip(1)
        .all(|component| matches!(component, Component::Normal(_)));
    let bytes = path.as_os_str().as_bytes();
    if !path.is_absolute() || !plain || path.parent().is_none() || bytes.contains(&0) {
        return Err(refused(
            field,
            format!("{} is not a plain absolute path", path.display()),
        ));
    }
    Ok(())
}

/// The plan for a specification that `check` has passed.
///
/// # Errors
/// `BadSpec` when two things want one place, or a place is not to be had.
pub(crate) fn plan(spec: &ContainerSpec, resolv: Option<&Path>) -> Result<RootPlan, LaunchError> {
    let mut attachments = vec![
        own(&spec.work_dir, &spec.work_dir, true),
        own(&spec.log_dir, &spec.log_dir, true),
        own(&spec.run_dir, Path::new(RUN_TARGET), true),
    ];
    let bin = Path::new(RUN_TARGET).join("bin");
    if !spec.binds.iter().any(|bind| bind.target == bin) {
        let source = spec.run_dir.join("bin");
        attachments.push(Attachment {
            optional: true,
            ..own(&source, &bin, false)
        });
    }
    for bind in &spec.binds {
        attachments.push(Attachment {
            depth: Depth::WithSubmounts,
            ..own(&bind.source, &bind.target, bind.writable)
        });
    }
    if let Some(target) = resolv {
        attachments.push(Attachment {
            optional: true,
            ..own(target, target, false)
        });
    }
    // Stable: what is deeper comes later, what was named first stays first.
    attachments.sort_by_key(|attachment| attachment.target.components().count());
    let mut seen = BTreeSet::new();
    for attachment in &attachments {
        let target = &attachment.target;
        if !seen.insert(target.clone()) {
            return Err(refused(
                "binds",
                format!("{} is bound twice", target.display()),
            ));
        }
        if OWN_FOLDERS
            .iter()
            .any(|own| target.starts_with(Path::new("/").join(own)))
        {
            return Err(refused(
                "binds",
                format!("{} is the launcher's own", target.display()),
            ));
        }
    }
    place(attachments)
}

fn own(source: &Path, target: &Path, writable: bool) -> Attachment {
    Attachment {
        source: source.to_owned(),
        target: target.to_owned(),
        writable,
        depth: Depth::Alone,
        optional: false,
        parents: Vec::new(),
        fresh: false,
    }
}

/// Decides for each target whether its mount point must be made, and with which folders before it.
fn place(mut attachments: Vec<Attachment>) -> Result<RootPlan, LaunchError> {
    let run_is_fresh = attachments
        .iter()
        .any(|a| a.target.starts_with("/run") && !a.target.starts_with(RUN_TARGET));
    let mut tops: Vec<CString> = Vec::new();
    let mut made: BTreeSet<PathBuf> = BTreeSet::new();
    for index in 0..attachments.len() {
        let target = attachments[index].target.clone();
        let inside_another = attachments[..index]
            .iter()
            .any(|earlier| target.starts_with(&earlier.target));
        let Some(Component::Normal(top)) = target.components().nth(1) else {
            continue;
        };
        let in_system = SYSTEM_FOLDERS.iter().any(|folder| top == *folder);
        let in_base = target == Path::new(RUN_TARGET) && !run_is_fresh;
        if inside_another || in_system || in_base {
            continue;
        }
        let top_path = Path::new("/").join(top);
        if top != "tmp" {
            let name = c_string(&top_path)?;
            if !tops.contains(&name) {
                tops.push(name);
            }
        }
        let attachment = &mut attachments[index];
        // A target that is itself a first component needs no folder: the base has one.
        attachment.fresh = target != top_path;
        if !attachment.fresh {
            tops.retain(|name| name.as_bytes() != top_path.as_os_str().as_bytes());
            continue;
        }
        let mut parents: Vec<&Path> = target
            .ancestors()
            .skip(1)
            .take_while(|ancestor| *ancestor != top_path)
            .filter(|ancestor| made.insert((*ancestor).to_owned()))
            .collect();
        parents.reverse();
        attachment.parents = parents
            .into_iter()
            .map(c_string)
            .collect::<Result<_, _>>()?;
    }
    Ok(RootPlan { tops, attachments })
}

/// A path for the kernel.
///
/// # Errors
/// When it holds a NUL byte.
pub(crate) fn c_string(path: &Path) -> Result<CString, LaunchError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| refused("path", format!("{} holds a NUL byte", path.display())))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::spec::{Bind, CpuMode, Limits, OutputFiles};

    /// A specification with all folders below `dir`, for tests.
    pub(crate) fn spec_in(dir: &Path) -> ContainerSpec {
        ContainerSpec {
            container_id: "container_e01_1_0001_01_000001".into(),
            argv: vec!["true".into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            uid: 65534,
            gid: 65534,
            groups: Vec::new(),
            user_name: "nobody".into(),
            host_name: String::new(),
            work_dir: dir.join("work"),
            binds: Vec::new(),
            log_dir: dir.join("log"),
            output_files: OutputFiles::Standard,
            log_bytes_max: 1 << 20,
            private_dir: dir.join("private"),
            run_dir: dir.join("run"),
            memory_mib: 64,
            vcores: 1,
            cpu: CpuMode::Share,
            pids_max: 64,
            limits: Limits::default(),
            kill_grace_ms: 250,
            profile: Profile::Full,
            cgroups: None,
        }
    }

    fn shape(plan: &RootPlan) -> Vec<String> {
        let tops = plan
            .tops
            .iter()
            .map(|top| format!("tmpfs {}", top.to_str().unwrap()));
        let rest = plan.attachments.iter().map(|a| {
            let parents: Vec<&str> = a.parents.iter().map(|p| p.to_str().unwrap()).collect();
            format!(
                "{}{} {} {parents:?}",
                if a.writable { "rw" } else { "ro" },
                if a.fresh { " fresh" } else { "" },
                a.target.display(),
            )
        });
        tops.chain(rest).collect()
    }

    #[test]
    fn an_installed_agent() {
        let mut spec = spec_in(Path::new("/var/lib/bobbin"));
        spec.binds.push(Bind {
            source: "/data/in".into(),
            target: "/var/lib/bobbin/work/in".into(),
            writable: false,
        });
        spec.binds.push(Bind {
            source: "/opt/jdk".into(),
            target: "/opt/jdk".into(),
            writable: false,
        });
        let plan = plan(&spec, Some(Path::new("/run/systemd/resolve/stub.conf"))).unwrap();
        assert_eq!(
            shape(&plan),
            [
                "tmpfs /run",
                "tmpfs /var",
                "rw fresh /run/bobbin []",
                "ro /opt/jdk []",
                "ro /run/bobbin/bin []",
                "rw fresh /var/lib/bobbin/work [\"/var/lib\", \"/var/lib/bobbin\"]",
                "rw fresh /var/lib/bobbin/log []",
                "ro fresh /run/systemd/resolve/stub.conf \
                 [\"/run/systemd\", \"/run/systemd/resolve\"]",
                "ro /var/lib/bobbin/work/in []",
            ]
        );
    }

    #[test]
    fn below_tmp_needs_no_further_tmpfs() {
        let plan = plan(&spec_in(Path::new("/tmp/x/y")), None).unwrap();
        assert!(plan.tops.is_empty());
        let work = plan
            .attachments
            .iter()
            .find(|a| a.target == Path::new("/tmp/x/y/work"));
        assert_eq!(
            work.unwrap().parents,
            [c"/tmp/x".to_owned(), c"/tmp/x/y".to_owned()]
        );
    }

    #[test]
    fn parents_come_before_children() {
        let mut spec = spec_in(Path::new("/a/b"));
        for target in ["/z/1/2/3", "/z/1", "/z", "/z/1/2"] {
            let bind = Bind {
                source: "/s".into(),
                target: target.into(),
                writable: true,
            };
            spec.binds.push(bind);
        }
        let plan = plan(&spec, None).unwrap();
        let targets: Vec<_> = plan
            .attachments
            .iter()
            .map(|a| a.target.as_path())
            .collect();
        for (index, target) in targets.iter().enumerate() {
            assert!(
                !targets[..index]
                    .iter()
                    .any(|earlier| earlier.starts_with(target))
            );
        }
        assert_eq!(plan.tops, [c"/a".to_owned()]);
    }

    #[test]
    fn what_is_refused() {
        let good = || spec_in(Path::new("/var/b"));
        let cases: Vec<(&str, ContainerSpec)> = vec![
            (
                "no program",
                ContainerSpec {
                    argv: vec![],
                    ..good()
                },
            ),
            (
                "NUL",
                ContainerSpec {
                    argv: vec!["a\0b".into()],
                    ..good()
                },
            ),
            (
                "=",
                ContainerSpec {
                    environment: vec![("A=".into(), String::new())],
                    ..good()
                },
            ),
            ("root", ContainerSpec { uid: 0, ..good() }),
            ("root group", ContainerSpec { gid: 0, ..good() }),
            (
                "relative",
                ContainerSpec {
                    work_dir: "w".into(),
                    ..good()
                },
            ),
            (
                "..",
                ContainerSpec {
                    work_dir: "/w/../x".into(),
                    ..good()
                },
            ),
            (
                "the root",
                ContainerSpec {
                    log_dir: "/".into(),
                    ..good()
                },
            ),
        ];
        for (what, spec) in cases {
            assert!(
                matches!(check(&spec), Err(LaunchError::BadSpec { .. })),
                "{what}"
            );
        }
        check(&good()).unwrap();
        for target in ["/proc/x", "/dev/shm", "/sys", "/var/b/work"] {
            let bind = Bind {
                source: "/s".into(),
                target: target.into(),
                writable: true,
            };
            let spec = ContainerSpec {
                binds: vec![bind],
                ..good()
            };
            assert!(plan(&spec, None).is_err(), "{target}");
        }
    }
}
