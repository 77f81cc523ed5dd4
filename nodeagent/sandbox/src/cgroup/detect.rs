//! Which hierarchies there are, which controllers each has, and where the own group stands in each.
//!
//! Source: cgroups(7), proc_pid_mountinfo(5).

use std::fs;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// The controllers that limit or measure a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    Memory,
    Cpu,
    /// v1 only; v2 counts processor time in every group.
    Cpuacct,
    Pids,
}

impl Controller {
    fn from_name(name: &str) -> Option<Controller> {
        match name {
            "memory" => Some(Controller::Memory),
            "cpu" => Some(Controller::Cpu),
            "cpuacct" => Some(Controller::Cpuacct),
            "pids" => Some(Controller::Pids),
            _ => None,
        }
    }

    /// The kernel's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Cpuacct => "cpuacct",
            Controller::Pids => "pids",
        }
    }
}

/// One mounted hierarchy that has at least one of our controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// 1 or 2.
    pub version: u8,
    pub controllers: Vec<Controller>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The group the asking process is in, as a folder.
    pub own: PathBuf,
}

/// All hierarchies of this host that matter: v1, v2 or a mixture, controller by controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub hierarchies: Vec<Hierarchy>,
}

impl Layout {
    /// Reads the layout as the calling process sees it.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn read() -> Result<Layout, CgroupError> {
        Layout::read_at(|hierarchy| Ok(hierarchy.own.clone()))
    }

    /// As [`Layout::read`], with `place` saying which group is to count as the own one.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or `place` fails.
    pub fn read_at(
        place: impl Fn(&Hierarchy) -> Result<PathBuf, CgroupError>,
    ) -> Result<Layout, CgroupError> {
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|source| CgroupError::Read {
                path: PathBuf::from(path),
                source,
            })
        };
        let mut layout = Layout::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        for hierarchy in &mut layout.hierarchies {
            if hierarchy.version == 2 && is_agents_leaf(&hierarchy.own) {
                hierarchy.own.pop();
            }
            hierarchy.own = place(hierarchy)?;
            if hierarchy.version == 2 {
                // Which controllers there are depends on the group, since each is handed down.
                // An absent file means no controllers: the empty v2 tree of a hybrid host.
                let listed = fs::read_to_string(hierarchy.own.join("cgroup.controllers"));
                hierarchy.controllers = listed
                    .unwrap_or_default()
                    .split_whitespace()
                    .filter_map(Controller::from_name)
                    .collect();
            }
        }
        layout
            .hierarchies
            .retain(|hierarchy| !hierarchy.controllers.is_empty());
        Ok(layout)
    }

    /// Joins the two files of `/proc/self`; v2 controllers are filled in by `read`.
    fn parse(mountinfo: &str, own_groups: &str) -> Layout {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let Some(group) = own_groups.lines().find_map(|line| mount.own_group(line)) else {
                continue;
            };
            // The mount may show only a part of the hierarchy (in a container).
            let below = Path::new(&group)
                .strip_prefix(&mount.root)
                .unwrap_or_else(|_| Path::new(""));
            let version = if mount.v2 { 2 } else { 1 };
            let already = hierarchies
                .iter()
                .any(|known| known.version == version && known.controllers == mount.controllers);
            if !already {
                hierarchies.push(Hierarchy {
                    version,
                    own: mount.point.join(below),
                    controllers: mount.controllers,
                    mount: mount.point,
                });
            }
        }
        hierarchies.retain(|hierarchy| hierarchy.version == 2 || !hierarchy.controllers.is_empty());
        Layout { hierarchies }
    }

    /// The hierarchy that has `controller`.
    #[must_use]
    pub fn of(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers.contains(&controller))
    }
}

/// Whether an agent (this process, or one it was started by) has moved itself there to hand out the
/// controllers of the group above.
fn is_agents_leaf(group: &Path) -> bool {
    let name = group.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("bobbin-") && name.ends_with("-agent"))
}

struct Mount {
    v2: bool,
    controllers: Vec<Controller>,
    options: Vec<String>,
    root: PathBuf,
    point: PathBuf,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let root = unescape(left.nth(3)?);
        let point = unescape(left.next()?);
        let mut right = right.split(' ');
        let v2 = match right.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options: Vec<String> = right.nth(1)?.split(',').map(str::to_owned).collect();
        let controllers = if v2 {
            Vec::new()
        } else {
            options
                .iter()
                .filter_map(|option| Controller::from_name(option))
                .collect()
        };
        Some(Mount {
            v2,
            controllers,
            options,
            root: root.into(),
            point: point.into(),
        })
    }

    /// The path in a line of `/proc/self/cgroup`, if the line is about this mount.
    fn own_group(&self, line: &str) -> Option<String> {
        let mut parts = line.splitn(3, ':');
        let id = parts.next()?;
        let names = parts.next()?;
        let path = parts.next()?;
        let same = if self.v2 {
            id == "0" && names.is_empty()
        } else {
            !names.is_empty()
                && names
                    .split(',')
                    .all(|name| self.options.iter().any(|o| o == name))
        };
        same.then(|| path.to_owned())
    }
}

/// Undoes mountinfo's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_host_with_every_controller_apart() {
        let mounts = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let own = "9:name=systemd:/\n8:pids:/\n4:memory:/machine/x y\n2:cpuacct:/\n1:cpu:/\n0::/\n";
        let layout = Layout::parse(mounts, own);
        let memory = layout.of(Controller::Memory).unwrap();
        assert_eq!(memory.own, Path::new("/sys/fs/cgroup/memory/machine/x y"));
        assert_eq!(memory.version, 1);
        assert_eq!(
            layout.of(Controller::Cpu).unwrap().own,
            Path::new("/sys/fs/cgroup/cpu")
        );
        assert_eq!(
            layout.hierarchies.iter().filter(|h| h.version == 2).count(),
            1
        );
        assert_eq!(layout.hierarchies.len(), 5);
    }

    #[test]
    fn joined_controllers_are_one_hierarchy() {
        let mounts = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let layout = Layout::parse(mounts, "3:cpu,cpuacct:/user.slice\n");
        assert_eq!(layout.hierarchies.len(), 1);
        assert_eq!(
            layout.hierarchies[0].controllers,
            [Controller::Cpu, Controller::Cpuacct]
        );
        assert_eq!(
            layout.hierarchies[0].own,
            Path::new("/sys/fs/cgroup/cpu,cpuacct/user.slice")
        );
    }

    #[test]
    fn unified_host_and_a_mount_of_a_part() {
        let mounts = "30 23 0:26 /a/b /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let layout = Layout::parse(mounts, "0::/a/b/c.scope\n");
        assert_eq!(
            layout.hierarchies[0].own,
            Path::new("/sys/fs/cgroup/c.scope")
        );
    }

    #[test]
    fn an_agents_leaf_is_known() {
        assert!(is_agents_leaf(Path::new(
            "/sys/fs/cgroup/x.service/bobbin-node1-agent"
        )));
        assert!(!is_agents_leaf(Path::new(
            "/sys/fs/cgroup/x.service/bobbin-node1"
        )));
        assert!(!is_agents_leaf(Path::new("/")));
    }

    #[test]
    fn this_host_can_be_read() {
        Layout::read().unwrap();
    }

    #[test]
    fn escapes_of_mountinfo() {
        assert_eq!(unescape(r"a\040b\134c\x"), r"a b\c\x");
    }
}
