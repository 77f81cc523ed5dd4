//! Whether a socket is held on this host itself or in a container of it.
//!
//! What is looked at cannot be changed by a process about itself: the number of pid namespaces it
//! stands in, the group its socket was made in, which descriptors it has. A container is whatever
//! stands in a pid namespace below this one's: Bobbin's containers, and anybody else's.
//!
//! A socket counts as the host's only if a process of the host is seen to hold it. One that is in
//! nobody's table (on its way through a unix socket, say) is nobody's.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// Where the unified hierarchy is mounted: alone, or beside those of version 1.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// What the kernel says of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Socket {
    pub(crate) uid: u32,
    pub(crate) inode: u32,
    /// The unified group in which it was made.
    pub(crate) cgroup: Option<u64>,
}

/// Where a socket's holder lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    Host,
    Container,
    /// The user has containers here, and the socket may be one's.
    Unclear,
    /// No process of the user can be seen.
    Unseen,
}

/// What is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    processes: PathBuf,
    unified: Option<PathBuf>,
}

/// The processes of one user, by their numbers in /proc.
#[derive(Debug, Default)]
struct OfUser {
    on_host: Vec<u32>,
    in_containers: Vec<u32>,
}

/// What a status file says.
struct Status {
    uids: [u32; 4],
    in_container: bool,
    /// It has ended, its parent has not looked yet.
    is_dead: bool,
}

impl Host {
    pub(crate) fn this() -> Host {
        let is_unified = |path: &&str| {
            statfs(*path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
        };
        Host {
            processes: PathBuf::from("/proc"),
            unified: UNIFIED.into_iter().find(is_unified).map(PathBuf::from),
        }
    }

    /// Where `socket` is held.
    ///
    /// # Errors
    /// The processes cannot be listed.
    pub(crate) fn home(&self, socket: &Socket) -> io::Result<Home> {
        let of_user = self.of_user(socket.uid)?;
        if of_user.in_containers.is_empty() {
            let home = if of_user.on_host.is_empty() {
                Home::Unseen
            } else {
                Home::Host
            };
            return Ok(home);
        }
        Ok(self
            .by_group(socket, &of_user)
            .unwrap_or_else(|| self.by_holder(socket, &of_user)))
    }

    fn of_user(&self, uid: u32) -> io::Result<OfUser> {
        let mut found = OfUser::default();
        for entry in std::fs::read_dir(&self.processes)? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // It may have ended meanwhile.
            let status = std::fs::read_to_string(self.of(pid, "status"));
            let Some(status) = status.ok().and_then(|text| Status::parse(&text)) else {
                continue;
            };
            if !status.uids.contains(&uid) {
                continue;
            }
            if status.in_container {
                found.in_containers.push(pid);
            } else if !status.is_dead {
                found.on_host.push(pid);
            }
        }
        Ok(found)
    }

    /// By the group that the socket was made in, which it keeps: `None` where that tells nothing.
    /// Needs no right over anybody's process.
    fn by_group(&self, socket: &Socket, of_user: &OfUser) -> Option<Home> {
        let group = socket.cgroup?;
        let groups = |pids: &[u32]| -> BTreeSet<u64> {
            pids.iter().filter_map(|pid| self.group_of(*pid)).collect()
        };
        let in_containers = groups(&of_user.in_containers).contains(&group);
        let on_host = groups(&of_user.on_host).contains(&group);
        match (in_containers, on_host) {
            (true, false) => Some(Home::Container),
            (false, true) => Some(Home::Host),
            // With version 1 everybody stands in the root of the unified hierarchy.
            (true, true) | (false, false) => None,
        }
    }

    fn group_of(&self, pid: u32) -> Option<u64> {
        let text = std::fs::read_to_string(self.of(pid, "cgroup")).ok()?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        // "/.." is what stands outside of this process' own view.
        if path.split('/').any(|step| step == "..") {
            return None;
        }
        let folder = self.unified.as_ref()?.join(path);
        Some(std::fs::metadata(folder).ok()?.ino())
    }

    /// By who has a descriptor of the socket. Containers whose descriptors cannot be read may have
    /// one.
    fn by_holder(&self, socket: &Socket, of_user: &OfUser) -> Home {
        let mut all_read = true;
        for pid in &of_user.in_containers {
            match self.holds(*pid, socket.inode) {
                Some(true) => return Home::Container,
                Some(false) => {}
                None => all_read = false,
            }
        }
        let on_host = || {
            let mut pids = of_user.on_host.iter();
            pids.any(|pid| self.holds(*pid, socket.inode) == Some(true))
        };
        if all_read && on_host() {
            Home::Host
        } else {
            Home::Unclear
        }
    }

    /// Whether a process has a descriptor of the socket; `None`: it may not be asked. One that is
    /// gone has none.
    fn holds(&self, pid: u32, inode: u32) -> Option<bool> {
        let wanted = format!("socket:[{inode}]");
        let entries = match std::fs::read_dir(self.of(pid, "fd")) {
            Ok(entries) => entries,
            Err(e) => return is_gone(&e).then_some(false),
        };
        for entry in entries {
            let target = entry.and_then(|entry| std::fs::read_link(entry.path()));
            match target {
                Ok(target) if target == Path::new(&wanted) => return Some(true),
                Ok(_) => {}
                Err(e) if is_gone(&e) => {}
                Err(_) => return None,
            }
        }
        Some(false)
    }

    fn of(&self, pid: u32, file: &str) -> PathBuf {
        self.processes.join(pid.to_string()).join(file)
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}

impl Status {
    /// Source: proc_pid_status(5).
    fn parse(text: &str) -> Option<Status> {
        let line = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let mut uids = [0; 4];
        let mut given = line("Uid")?.split_ascii_whitespace();
        for uid in &mut uids {
            *uid = given.next()?.parse().ok()?;
        }
        // One number for each pid namespace from this one's down. A kernel that does not say is
        // not believed.
        let depth = line("NSpid").map(|numbers| numbers.split_ascii_whitespace().count());
        let state = line("State").unwrap_or_default().trim_start();
        Some(Status {
            uids,
            in_container: depth != Some(1),
            is_dead: state.starts_with('Z') || state.starts_with('X'),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A host of files.
    struct Made {
        folder: tempfile::TempDir,
        host: Host,
    }

    impl Made {
        fn new() -> Made {
            let folder = tempfile::tempdir().unwrap();
            let host = Host {
                processes: folder.path().join("proc"),
                unified: Some(folder.path().join("cgroup")),
            };
            std::fs::create_dir(&host.processes).unwrap();
            Made { folder, host }
        }

        /// `depth` pid namespaces, a unified group, sockets.
        fn process(&self, pid: u32, uid: u32, depth: usize, group: &str, sockets: &[u32]) {
            let path = self.host.processes.join(pid.to_string());
            std::fs::create_dir_all(path.join("fd")).unwrap();
            let numbers = "\t7".repeat(depth);
            let status = format!(
                "Name:\tx\nState:\tS (sleeping)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:{numbers}\n"
            );
            std::fs::write(path.join("status"), status).unwrap();
            std::fs::write(path.join("cgroup"), format!("8:pids:/x\n0::/{group}\n")).unwrap();
            std::fs::create_dir_all(self.folder.path().join("cgroup").join(group)).unwrap();
            for (number, inode) in sockets.iter().enumerate() {
                let link = path.join("fd").join(number.to_string());
                symlink(format!("socket:[{inode}]"), link).unwrap();
            }
        }

        fn group(&self, path: &str) -> Option<u64> {
            let folder = self.folder.path().join("cgroup").join(path);
            Some(std::fs::metadata(folder).unwrap().ino())
        }

        fn home(&self, uid: u32, inode: u32, cgroup: Option<u64>) -> Home {
            self.host.home(&Socket { uid, inode, cgroup }).unwrap()
        }
    }

    #[test]
    fn without_containers_the_user_is_on_the_host() {
        let made = Made::new();
        made.process(10, 1000, 1, "user", &[]);
        made.process(11, 2000, 2, "box", &[5]);
        assert_eq!(made.home(1000, 99, None), Home::Host);
        assert_eq!(made.home(3000, 99, None), Home::Unseen);
    }

    #[test]
    fn the_group_tells_where_a_socket_was_made() {
        let made = Made::new();
        // Nobody's descriptors are asked: here they would say the contrary.
        made.process(10, 1000, 1, "user", &[7]);
        made.process(11, 1000, 2, "box", &[5]);
        assert_eq!(made.home(1000, 7, made.group("box")), Home::Container);
        assert_eq!(made.home(1000, 5, made.group("user")), Home::Host);
    }

    #[test]
    fn in_one_group_the_holder_tells() {
        let made = Made::new();
        made.process(10, 1000, 1, "", &[5]);
        made.process(11, 1000, 2, "", &[6, 7]);
        made.process(12, 1000, 3, "", &[8]);
        let root = made.group("");
        for (inode, home) in [
            (5, Home::Host),
            (6, Home::Container),
            (7, Home::Container),
            (8, Home::Container),
            // On its way through a unix socket: in nobody's table.
            (9, Home::Unclear),
        ] {
            assert_eq!(made.home(1000, inode, root), home, "{inode}");
            assert_eq!(made.home(1000, inode, None), home, "{inode}");
        }
    }

    #[test]
    fn one_held_on_both_sides_is_the_containers() {
        let made = Made::new();
        made.process(10, 1000, 1, "", &[5]);
        made.process(11, 1000, 2, "", &[5]);
        assert_eq!(made.home(1000, 5, None), Home::Container);
    }

    #[test]
    fn what_may_not_be_asked_may_hold_it() {
        let made = Made::new();
        made.process(10, 1000, 1, "", &[5]);
        made.process(11, 1000, 2, "", &[]);
        // No folder, as another user's cannot be read.
        let descriptors = made.host.processes.join("11/fd");
        std::fs::remove_dir(&descriptors).unwrap();
        std::fs::write(&descriptors, "").unwrap();
        assert_eq!(made.home(1000, 5, None), Home::Unclear);
    }

    #[test]
    fn a_kernel_that_does_not_say_is_not_believed() {
        let text = "Uid:\t1\t1\t1\t1\n";
        assert!(Status::parse(text).unwrap().in_container);
        assert!(
            !Status::parse("Uid:\t1 1 1 1\nNSpid:\t5\n")
                .unwrap()
                .in_container
        );
        for text in ["", "Uid:\t1\n", "Uid:\tx x x x\n", "Uids:\t1 1 1 1\n"] {
            assert!(Status::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn this_process_is_on_its_host() {
        let host = Host::this();
        let own = host.of_user(crate::own_uid()).unwrap();
        assert!(own.on_host.contains(&std::process::id()));
        // A descriptor that a process has is found.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = nix::sys::stat::fstat(&listener).unwrap().st_ino;
        let inode = u32::try_from(inode).unwrap();
        assert_eq!(host.holds(std::process::id(), inode), Some(true));
        drop(listener);
        assert_eq!(host.holds(std::process::id(), inode), Some(false));
    }
}
