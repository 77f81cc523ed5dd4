//! Ends containers that fill the disk: their log folders, their work folders, and what their
//! application's containers share.
//!
//! What a container makes is measured from outside, so the walk is bounded and follows no link; it
//! may be wrong by what changes meanwhile, and does not see a file that has no name any more.
//! Source: `yarn.nodemanager.container-log-monitor.enable`; YARN measures no work folders.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bobbin_na_core::{Event, Exit, INVALID};
use bobbin_service::wall_now;
use bobbin_types::{ContainerId, ExitStatus};
use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstatat};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::driver::Input;
use crate::folder::Folder;
use crate::folders::found;
use crate::node::Node;
use crate::question::ask;

const INTERVAL: Duration = Duration::from_secs(5);
/// Measuring takes at most one part in so many of the time.
const REST_FACTOR: u32 = 20;
/// Folders below each other; a tree that is deeper cannot be measured, so it is too much.
const DEPTH_MAX: usize = 100;
/// Entries that are looked at when their number has no limit.
const ENTRIES_MAX: u64 = 1_000_000;

/// What a tree takes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) bytes: u64,
    /// Files and folders.
    pub(crate) inodes: u64,
    pub(crate) too_deep: bool,
}

/// 0: no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskLimits {
    pub(crate) bytes_max: u64,
    pub(crate) inodes_max: u64,
}

impl DiskLimits {
    fn is_any(self) -> bool {
        self.bytes_max > 0 || self.inodes_max > 0
    }

    /// Why this is too much; `None` when it is not.
    fn problem(self, measured: Measured, what: &str, settings: (&str, &str)) -> Option<String> {
        if measured.too_deep {
            return Some(format!("{what} is deeper than {DEPTH_MAX} folders"));
        }
        if self.bytes_max > 0 && measured.bytes > self.bytes_max {
            return Some(format!(
                "{what} takes more than the {} bytes of disk that are allowed, {} so far (setting {})",
                self.bytes_max, measured.bytes, settings.0
            ));
        }
        if self.inodes_max > 0 && measured.inodes > self.inodes_max {
            return Some(format!(
                "{what} has more than the {} files and folders that are allowed (setting {})",
                self.inodes_max, settings.1
            ));
        }
        None
    }
}

/// A walk that ends as soon as the answer is known.
struct Walk<'a> {
    limits: DiskLimits,
    measured: Measured,
    /// Files with several names that were counted.
    counted: HashSet<(u64, u64)>,
    /// Names at the top that are left out.
    skipped: &'a dyn Fn(&str) -> bool,
}

/// Measures what is below a folder. Blocks.
///
/// # Errors
/// A folder cannot be listed; one that goes away meanwhile is no error.
pub(crate) fn measure(
    folder: &Folder,
    limits: DiskLimits,
    skipped: &dyn Fn(&str) -> bool,
) -> io::Result<Measured> {
    let mut walk = Walk {
        limits,
        measured: Measured::default(),
        counted: HashSet::new(),
        skipped,
    };
    walk.add(folder, 0)?;
    Ok(walk.measured)
}

impl Walk<'_> {
    fn is_known(&self) -> bool {
        let (limits, measured) = (self.limits, self.measured);
        let entries_max = if limits.inodes_max > 0 {
            limits.inodes_max
        } else {
            ENTRIES_MAX
        };
        measured.too_deep
            || measured.inodes > entries_max
            || (limits.bytes_max > 0 && measured.bytes > limits.bytes_max)
    }

    fn add(&mut self, folder: &Folder, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            self.measured.too_deep = true;
            return Ok(());
        }
        // A description of its own, read entry by entry: a folder may have any number of them.
        let mut entries = nix::dir::Dir::from_fd(folder.folder(".")?.into())?;
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            let top_name = || name.to_str().is_ok_and(|name| (self.skipped)(name));
            if name == c"." || name == c".." || (depth == 0 && top_name()) {
                continue;
            }
            let stat = match fstatat(folder.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(nix::errno::Errno::ENOENT) => continue,
                Err(e) => return Err(e.into()),
            };
            self.measured.inodes += 1;
            if stat.st_nlink < 2 || self.counted.insert((stat.st_dev, stat.st_ino)) {
                let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
                let bytes = blocks.saturating_mul(512);
                self.measured.bytes = self.measured.bytes.saturating_add(bytes);
            }
            if self.is_known() {
                return Ok(());
            }
            let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
            if kind == SFlag::S_IFDIR {
                let name: &std::ffi::OsStr =
                    std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes());
                if let Some(below) = found(folder.folder(Path::new(name)))? {
                    self.add(&below, depth + 1)?;
                }
                if self.is_known() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Looks at the folders of living containers until `stop`.
pub(crate) async fn run(node: Arc<Node>, driver: mpsc::Sender<Input>, stop: CancellationToken) {
    let mut pause = INTERVAL;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let began = tokio::time::Instant::now();
        for container in node.logs.stages.living() {
            let user = ask(&driver, move |core| core.container(&container)).await;
            let Some(user) = user else { return };
            let Some(user) = user.map(|view| view.user.to_string()) else {
                continue;
            };
            let looking = {
                let node = node.clone();
                move || problem(&node, &container, &user)
            };
            let Ok(Some(exit)) = tokio::task::spawn_blocking(looking).await else {
                continue;
            };
            tracing::warn!(%container, "it is ended: {}", exit.diagnostics);
            let event = Event::Stop {
                container,
                exit,
                wall: wall_now(),
            };
            if driver.send(Input::Event(event)).await.is_err() {
                return;
            }
        }
        pause = INTERVAL.max(began.elapsed() * REST_FACTOR);
    }
}

/// What a folder takes; `None` when it is not there or cannot be measured.
fn look(
    root: &Folder,
    path: &Path,
    limits: DiskLimits,
    skipped: &dyn Fn(&str) -> bool,
) -> Option<Measured> {
    let folder = found(root.folder(path)).ok().flatten()?;
    match measure(&folder, limits, skipped) {
        Ok(measured) => Some(measured),
        Err(e) => {
            tracing::debug!("{} cannot be measured: {e}", path.display());
            None
        }
    }
}

/// The exit of a container that is to be ended. Blocks.
fn problem(node: &Node, container: &ContainerId, user: &str) -> Option<Exit> {
    if let Some(diagnostics) = log_problem(node, container) {
        return Some(Exit {
            exit_status: ExitStatus::KILLED_FOR_EXCESS_LOGS,
            diagnostics,
        });
    }
    // Not YARN's status for failed disks: that is the node's fault and would be tried for ever.
    work_problem(node, container, user).map(|diagnostics| Exit {
        exit_status: INVALID,
        diagnostics,
    })
}

/// What their monitor writes it cuts itself; beside that a container may write as much again.
fn log_problem(node: &Node, container: &ContainerId) -> Option<String> {
    let most = node.config.logs.max_bytes;
    let bytes_max = if node.logs.are_own(container) {
        most
    } else {
        most.saturating_mul(2)
    };
    let limits = DiskLimits {
        bytes_max,
        inodes_max: 0,
    };
    let path = PathBuf::from(format!("{}/{container}", container.application()));
    let measured = look(&node.folders.log, &path, limits, &|_| false)?;
    let settings = ("logs.max_bytes", "logs.max_bytes");
    limits.problem(measured, "the container's log folder", settings)
}

fn work_problem(node: &Node, container: &ContainerId, user: &str) -> Option<String> {
    let limits = DiskLimits {
        bytes_max: node.config.sandbox.work_dir_bytes_max,
        inodes_max: node.config.sandbox.work_dir_inodes_max,
    };
    if !limits.is_any() {
        return None;
    }
    let settings = ("sandbox.work_dir_bytes_max", "sandbox.work_dir_inodes_max");
    let shared = format!("usercache/{user}/appcache/{}", container.application());
    let work = PathBuf::from(format!("{shared}/{container}"));
    let local = &node.folders.local;
    let own = look(local, &work, limits, &|_| false)
        .and_then(|measured| limits.problem(measured, "the container's work folder", settings));
    // Localized files have limits of their own, and other containers' folders are not its.
    let others = |name: &str| name == "filecache" || name.starts_with("container_");
    own.or_else(|| {
        let measured = look(local, Path::new(&shared), limits, &others)?;
        let what = "the folder that the application's containers share";
        limits.problem(measured, what, settings)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: DiskLimits = DiskLimits {
        bytes_max: 0,
        inodes_max: 0,
    };

    fn of(path: &Path, limits: DiskLimits) -> Measured {
        measure(&Folder::open(path).unwrap(), limits, &|name| {
            name == "skipped"
        })
        .unwrap()
    }

    #[test]
    fn everything_below_is_counted_once_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir(at("skipped")).unwrap();
        let big = vec![1_u8; 1 << 20];
        std::fs::write(at("a/b/big"), &big).unwrap();
        std::fs::write(at("skipped/big"), &big).unwrap();
        std::fs::hard_link(at("a/b/big"), at("a/again")).unwrap();
        std::os::unix::fs::symlink("/usr", at("a/out")).unwrap();
        std::os::unix::fs::symlink(".", at("a/b/round")).unwrap();
        std::fs::File::create(at("a/hole"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        let measured = of(dir.path(), NO_LIMITS);
        assert_eq!(measured.inodes, 7, "{measured:?}");
        assert!(
            ((1 << 20)..(3 << 20)).contains(&measured.bytes),
            "{measured:?}"
        );
    }

    #[test]
    fn it_ends_when_the_answer_is_known() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..100 {
            std::fs::write(dir.path().join(n.to_string()), vec![1; 4096]).unwrap();
        }
        let few = DiskLimits {
            inodes_max: 9,
            ..NO_LIMITS
        };
        assert_eq!(of(dir.path(), few).inodes, 10);
        let small = DiskLimits {
            bytes_max: 40_000,
            ..NO_LIMITS
        };
        let measured = of(dir.path(), small);
        assert!(
            measured.bytes > 40_000 && measured.inodes < 20,
            "{measured:?}"
        );
        let words = |limits: DiskLimits| limits.problem(of(dir.path(), limits), "it", ("B", "I"));
        assert_eq!(
            words(few).unwrap(),
            "it has more than the 9 files and folders that are allowed (setting I)"
        );
        assert!(words(small).unwrap().contains("(setting B)"));
        assert_eq!(words(NO_LIMITS), None);
        let mut deep = dir.path().to_owned();
        for _ in 0..DEPTH_MAX + 3 {
            deep.push("d");
            std::fs::create_dir(&deep).unwrap();
        }
        assert!(words(NO_LIMITS).unwrap().contains("deeper than 100"));
    }
}
