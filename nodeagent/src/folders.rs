//! The agent's folders: YARN's tree below the local and log folders.
//!
//! ```text
//! <local>/filecache/<n>/content                                      PUBLIC resources
//! <local>/usercache/<user>/filecache/<n>/content                     PRIVATE resources
//! <local>/usercache/<user>/appcache/<application>/filecache/<n>/content APPLICATION resources
//! <local>/usercache/<user>/appcache/<application>/<container>/       work folder, the user's; tmp in it
//! <local>/usercache/<user>/appcache/<application>/local/             what YARN's containers share; they see it
//!                                                                   in place of <application>/
//! <local>/nmPrivate/<application>/<container>/                       start and exit file; run/ becomes /run/bobbin
//! <local>/trash/                                                    trees on their way out
//! <local>/spare/                                                    folders to be used again
//! <log>/<application>/<container>/{stdout,stderr,...}
//! ```
//! Every folder above a work folder belongs to the agent, so no user can swap one for a link.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bobbin_sandbox::{EXIT_FILE, EXIT_TEMPORARY, START_FILE, START_TEMPORARY};
use bobbin_service::{Account, FileError, create_folder};
use bobbin_types::{ApplicationId, ContainerId};
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::account::owner;
use crate::folder::{Folder, Owner};
use crate::spare_folders::{Kind, SpareFolders};

/// The agent's root folders, open.
#[derive(Debug)]
pub(crate) struct Folders {
    pub(crate) local_path: PathBuf,
    pub(crate) log_path: PathBuf,
    pub(crate) local: Folder,
    pub(crate) log: Folder,
    pub(crate) private: Folder,
    trash: Folder,
    spares: SpareFolders,
    trash_counter: AtomicU64,
}

/// Where one container's things are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerPaths {
    /// The application's; containers of YARN's see `shared` here, so that work folders of others are
    /// closed to them.
    pub(crate) application: PathBuf,
    pub(crate) shared: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) private: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) log: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FoldersError {
    #[error(transparent)]
    Create(#[from] FileError),
    #[error("cannot use folder {}", path.display())]
    Use {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "folder {} is not the agent's own: it belongs to uid {uid} and has mode {mode:o}, so others could \
         change what containers are given; choose another for folders.local, or chown and chmod it",
        path.display()
    )]
    NotOwn { path: PathBuf, uid: u32, mode: u32 },
}

/// Whoever else could write here could give containers other files, or swap a folder for a link.
fn check_own(folder: &Folder, path: &Path) -> Result<(), FoldersError> {
    let stat = nix::sys::stat::fstat(folder).map_err(|e| FoldersError::Use {
        path: path.to_owned(),
        source: e.into(),
    })?;
    let (uid, mode) = (stat.st_uid, stat.st_mode & 0o7777);
    if [0, bobbin_service::own_uid()].contains(&uid) && mode & 0o022 == 0 {
        return Ok(());
    }
    let path = path.to_owned();
    Err(FoldersError::NotOwn { path, uid, mode })
}

/// The folder of an application that its YARN containers share.
const SHARED: &str = "local";

/// Groups that may pass through a user's folders: only that user's, when the agent is root.
fn passable(owner: Owner) -> Owner {
    owner.map(|(_, gid)| (0, gid))
}

impl Folders {
    /// Makes what is missing and empties the trash that a killed agent left.
    pub(crate) fn open(local: &Path, log: &Path) -> Result<Folders, FoldersError> {
        create_folder(local, 0o755)?;
        create_folder(log, 0o755)?;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| FoldersError::Use { path, source }
        };
        // The launcher follows no links, so they are resolved once, here.
        let local_path = local.canonicalize().map_err(at(local))?;
        let log_path = log.canonicalize().map_err(at(log))?;
        let local = Folder::open(&local_path).map_err(at(&local_path))?;
        let log = Folder::open(&log_path).map_err(at(&log_path))?;
        let make = |name: &str, mode| {
            local
                .make(name, mode, None)
                .map_err(at(&local_path.join(name)))
        };
        make("usercache", 0o755)?;
        make("filecache", 0o755)?;
        let private = make("nmPrivate", 0o700)?;
        let trash = make("trash", 0o700)?;
        for name in trash.names().map_err(at(&local_path.join("trash")))? {
            trash
                .remove_tree(&name)
                .map_err(at(&local_path.join("trash")))?;
        }
        let spares =
            SpareFolders::open(make("spare", 0o700)?).map_err(at(&local_path.join("spare")))?;
        let above = Path::new(".");
        for name in [
            above,
            Path::new("filecache"),
            Path::new("usercache"),
            Path::new("nmPrivate"),
            Path::new("trash"),
        ] {
            let path = local_path.join(name);
            let folder = local.folder(name).map_err(at(&path))?;
            check_own(&folder, &path)?;
        }
        Ok(Folders {
            local_path,
            log_path,
            local,
            log,
            private,
            trash,
            spares,
            trash_counter: AtomicU64::new(0),
        })
    }

    pub(crate) fn paths(&self, id: &ContainerId, user: &str) -> ContainerPaths {
        let application = id.application().to_string();
        let name = id.to_string();
        let private = self
            .local_path
            .join("nmPrivate")
            .join(&application)
            .join(&name);
        let log = self.log_path.join(&application).join(&name);
        let application = self
            .local_path
            .join("usercache")
            .join(user)
            .join("appcache")
            .join(application);
        ContainerPaths {
            shared: application.join(SHARED),
            work: application.join(&name),
            application,
            run: private.join("run"),
            private,
            log,
        }
    }

    /// `usercache/<user>`, made when it is missing.
    pub(crate) fn user(&self, account: &Account) -> io::Result<Folder> {
        let mode = if owner(account).is_some() {
            0o710
        } else {
            0o700
        };
        self.local
            .folder("usercache")?
            .make(&account.name, mode, passable(owner(account)))
    }

    /// `usercache/<user>/appcache/<application>`, made when it is missing.
    pub(crate) fn application(
        &self,
        account: &Account,
        application: &ApplicationId,
    ) -> io::Result<Folder> {
        let path = format!("usercache/{}/appcache/{application}", account.name);
        if let Ok(folder) = self.local.folder(&path) {
            return Ok(folder);
        }
        let owner = passable(owner(account));
        self.user(account)?.make("appcache", 0o710, owner)?.make(
            &application.to_string(),
            0o710,
            owner,
        )
    }

    /// Makes everything of a container that must be there before its launch. What an earlier try
    /// with this id left goes first: a record says it never ran.
    pub(crate) fn make_container(
        &self,
        id: &ContainerId,
        account: &Account,
    ) -> io::Result<ContainerFolders> {
        let (application, name) = (id.application(), id.to_string());
        let own = owner(account);
        self.spares.note_owner(application, own);
        let parent = self.application(account, &application)?;
        let work = self.fresh(&parent, Kind::Work, id, own)?;
        work.make("tmp", 0o700, own)?;
        let private = self.private.make(&application.to_string(), 0o700, None)?;
        let private = self.fresh(&private, Kind::Private, id, None)?;
        let run = match self.spares.take(application, Kind::Run, &private, "run")? {
            Some(run) => run,
            None => private.make("run", 0o700, own)?,
        };
        run.make("bin", 0o755, None)?;
        let log = self
            .log
            .make(&application.to_string(), 0o710, passable(own))?;
        log.make(&name, 0o750, own)?;
        Ok(ContainerFolders { work, private, run })
    }

    /// A folder in which nothing is that is not made with it; what was there goes first.
    fn fresh(
        &self,
        parent: &Folder,
        kind: Kind,
        id: &ContainerId,
        owner: Owner,
    ) -> io::Result<Folder> {
        let name = id.to_string();
        if parent.look(std::ffi::OsStr::new(&name))?.is_some()
            && let Some(trashed) = self.discard(parent, &name)?
        {
            self.empty(&trashed)?;
        }
        match self.spares.take(id.application(), kind, parent, &name)? {
            Some(spare) => Ok(spare),
            None => parent.make(&name, 0o700, owner),
        }
    }

    /// Makes the folder that the containers of a YARN application share, and in it the place where
    /// this one sees its work folder.
    pub(crate) fn make_shared(&self, id: &ContainerId, account: &Account) -> io::Result<()> {
        let own = owner(account);
        let application = self.application(account, &id.application())?;
        let shared = application.make(SHARED, 0o700, own)?;
        shared.make(&id.to_string(), 0o700, own)?;
        Ok(())
    }

    /// Moves a tree out of sight at once and returns its name in the trash; [`Folders::empty`] then
    /// removes it. `None` when it is not there.
    pub(crate) fn discard(&self, parent: &Folder, name: &str) -> io::Result<Option<String>> {
        let trashed = format!(
            "{}-{}",
            std::process::id(),
            self.trash_counter.fetch_add(1, Ordering::Relaxed)
        );
        match parent.rename(name, &self.trash, &trashed) {
            Ok(()) => Ok(Some(trashed)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn empty(&self, trashed: &str) -> io::Result<()> {
        self.trash.remove_tree(trashed)
    }

    /// Takes a container's work folder, secrets and run folder away; the exit file and the logs
    /// stay. Returns what is to be emptied.
    pub(crate) fn clean_up_container(
        &self,
        id: &ContainerId,
        user: &str,
    ) -> io::Result<Vec<String>> {
        let (application, name) = (id.application(), id.to_string());
        let mut trashed = Vec::new();
        let appcache = format!("usercache/{user}/appcache/{application}");
        if let Some(folder) = found(self.local.folder(appcache))? {
            trashed.extend(self.retire(&folder, Kind::Work, &application, &name)?);
            if let Ok(shared) = folder.folder(SHARED) {
                // Left empty, unless its user has put something there; then it goes with the rest.
                let _ = unlinkat(&shared, name.as_str(), UnlinkatFlags::RemoveDir);
            }
        }
        if let Some(folder) = found(self.private.folder(format!("{application}/{name}")))? {
            trashed.extend(self.retire(&folder, Kind::Run, &application, "run")?);
        }
        Ok(trashed)
    }

    /// Keeps a folder for the next container, or moves it out of sight.
    fn retire(
        &self,
        parent: &Folder,
        kind: Kind,
        application: &ApplicationId,
        name: &str,
    ) -> io::Result<Option<String>> {
        match self.spares.keep(*application, kind, parent, name) {
            Ok(true) => Ok(None),
            // One that cannot be looked at cannot be kept.
            Ok(false) | Err(_) => self.discard(parent, name),
        }
    }

    /// Removes a container's private folder with its start and exit file, and the application's if
    /// that has ended and this was the last.
    pub(crate) fn forget_container(&self, id: &ContainerId, ended: bool) -> io::Result<()> {
        let application = id.application().to_string();
        let Some(folder) = found(self.private.folder(&application))? else {
            return Ok(());
        };
        let name = id.to_string();
        if let Some(private) = found(folder.folder(&name))? {
            let empty = [(START_FILE, START_TEMPORARY), (EXIT_FILE, EXIT_TEMPORARY)];
            for (file, spare) in empty {
                // One that is not there need not go.
                let _ = private.rename(file, &private, spare);
            }
        }
        if let Some(trashed) = self.retire(&folder, Kind::Private, &id.application(), &name)? {
            self.empty(&trashed)?;
        }
        if ended {
            self.remove_private(&application)?;
        }
        Ok(())
    }

    /// Removes an application's private folder unless a container is left in it.
    fn remove_private(&self, application: &str) -> io::Result<()> {
        match unlinkat(&self.private, application, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes an application's caches of every user that has any.
    pub(crate) fn clean_up_application(&self, application: &ApplicationId) -> io::Result<()> {
        self.spares.forget(application)?;
        let name = application.to_string();
        for user in self.local.folder("usercache")?.names()? {
            let Some(appcache) = found(self.local.folder(format!("usercache/{user}/appcache")))?
            else {
                continue;
            };
            if let Some(trashed) = self.discard(&appcache, &name)? {
                self.empty(&trashed)?;
            }
        }
        // Containers whose end was not acknowledged still have their exit files here.
        self.remove_private(&name)
    }

    pub(crate) fn delete_logs(&self, application: &ApplicationId) -> io::Result<()> {
        if let Some(trashed) = self.move_logs(application)? {
            self.empty(&trashed)?;
        }
        self.clean_up_application(application)
    }

    fn move_logs(&self, application: &ApplicationId) -> io::Result<Option<String>> {
        let name = application.to_string();
        match self.discard(&self.log, &name) {
            // Logs on another file system than the local folder are removed where they are.
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                self.log.remove_tree(&name)?;
                Ok(None)
            }
            moved => moved,
        }
    }

    /// Applications that have folders or logs here.
    pub(crate) fn applications(&self) -> io::Result<Vec<ApplicationId>> {
        let mut all: Vec<ApplicationId> = Vec::new();
        let mut take = |folder: &Folder| -> io::Result<()> {
            all.extend(
                folder
                    .names()?
                    .iter()
                    .filter_map(|n| n.parse::<ApplicationId>().ok()),
            );
            Ok(())
        };
        take(&self.log)?;
        take(&self.private)?;
        for user in self.local.folder("usercache")?.names()? {
            if let Some(appcache) = found(self.local.folder(format!("usercache/{user}/appcache")))?
            {
                take(&appcache)?;
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// Containers that have a private folder here.
    pub(crate) fn private_containers(&self) -> io::Result<Vec<ContainerId>> {
        let mut all = Vec::new();
        for application in self.private.names()? {
            if application.parse::<ApplicationId>().is_ok() {
                let names = self.private.folder(&application)?.names()?;
                all.extend(names.iter().filter_map(|n| n.parse::<ContainerId>().ok()));
            }
        }
        Ok(all)
    }
}

/// A container's folders while they are being filled.
#[derive(Debug)]
pub(crate) struct ContainerFolders {
    pub(crate) work: Folder,
    pub(crate) private: Folder,
    pub(crate) run: Folder,
}

/// What is not there is `None`.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_others_can_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (local, log) = (dir.path().join("local"), dir.path().join("log"));
        drop(Folders::open(&local, &log).unwrap());
        for name in ["", "filecache", "usercache", "nmPrivate", "trash"] {
            let path = local.join(name);
            let before = std::fs::metadata(&path).unwrap().permissions();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
            let words = Folders::open(&local, &log).unwrap_err().to_string();
            assert!(
                words.contains("not the agent's own") && words.contains("777"),
                "{words}"
            );
            std::fs::set_permissions(&path, before).unwrap();
            if bobbin_service::own_uid() == 0 {
                std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
                let words = Folders::open(&local, &log).unwrap_err().to_string();
                assert!(words.contains("uid 65534"), "{words}");
                std::os::unix::fs::chown(&path, Some(0), None).unwrap();
            }
        }
        // A link in its place, or a file.
        std::fs::remove_dir(local.join("filecache")).unwrap();
        std::os::unix::fs::symlink("/usr", local.join("filecache")).unwrap();
        assert!(Folders::open(&local, &log).is_err());
        std::fs::remove_file(local.join("filecache")).unwrap();
        std::fs::write(local.join("filecache"), "").unwrap();
        assert!(Folders::open(&local, &log).is_err());
    }

    use bobbin_service::{account_of_name, account_of_uid, own_uid};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn account() -> Account {
        match own_uid() {
            0 => account_of_name("nobody").unwrap(),
            uid => account_of_uid(uid).unwrap(),
        }
    }

    fn folders(dir: &Path) -> Folders {
        Folders::open(&dir.join("local"), &dir.join("log")).unwrap()
    }

    fn id() -> ContainerId {
        "container_e01_7_0001_01_000001".parse().unwrap()
    }

    #[test]
    fn a_container_has_the_tree_and_leaves_only_logs_and_exit_file() {
        let dir = tempfile::tempdir().unwrap();
        let folders = folders(dir.path());
        let account = account();
        folders.make_container(&id(), &account).unwrap();
        let paths = folders.paths(&id(), &account.name);
        for (path, mode) in [
            (paths.work.clone(), 0o700),
            (paths.work.join("tmp"), 0o700),
            (paths.private.clone(), 0o700),
            (paths.run.clone(), 0o700),
            (paths.log.clone(), 0o750),
        ] {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            assert_eq!(
                metadata.permissions().mode() & 0o7777,
                mode,
                "{}",
                path.display()
            );
        }
        assert_eq!(std::fs::metadata(&paths.work).unwrap().uid(), account.uid);
        std::fs::write(paths.private.join("exit.json"), "{}").unwrap();
        for trashed in folders.clean_up_container(&id(), &account.name).unwrap() {
            folders.empty(&trashed).unwrap();
        }
        assert!(!paths.work.exists() && !paths.run.exists());
        assert!(paths.private.join("exit.json").exists() && paths.log.exists());
        assert_eq!(folders.private_containers().unwrap(), vec![id()]);
        folders.forget_container(&id(), false).unwrap();
        folders.clean_up_application(&id().application()).unwrap();
        assert!(!paths.private.parent().unwrap().exists());
        assert!(!paths.work.parent().unwrap().exists());
        assert_eq!(
            folders.applications().unwrap(),
            vec![id().application()],
            "logs stay"
        );
        folders.delete_logs(&id().application()).unwrap();
        assert_eq!(folders.applications().unwrap(), vec![]);
        assert_eq!(folders.trash.names().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn removal_follows_no_link_and_survives_depth() {
        let dir = tempfile::tempdir().unwrap();
        let folders = folders(dir.path());
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        let account = account();
        folders.make_container(&id(), &account).unwrap();
        let work = folders.paths(&id(), &account.name).work;
        symlink(&outside, work.join("link")).unwrap();
        std::fs::create_dir(work.join("closed")).unwrap();
        std::fs::write(work.join("closed/file"), "").unwrap();
        std::fs::set_permissions(work.join("closed"), std::fs::Permissions::from_mode(0o000))
            .unwrap();
        // Deeper than descriptors or the stack would last.
        let mut folder = Folder::open(&work).unwrap();
        for _ in 0..1_000 {
            folder = folder.make("d", 0o700, None).unwrap();
        }
        drop(folder);
        for trashed in folders.clean_up_container(&id(), &account.name).unwrap() {
            folders.empty(&trashed).unwrap();
        }
        assert!(!work.exists());
        assert!(outside.join("kept").exists());
        assert_eq!(folders.trash.names().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_link_in_place_of_a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folders = folders(dir.path());
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let usercache = dir.path().join("local/usercache");
        symlink(&outside, usercache.join(account().name)).unwrap();
        let error = folders.make_container(&id(), &account()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn trash_of_a_killed_agent_is_emptied_at_start() {
        let dir = tempfile::tempdir().unwrap();
        drop(folders(dir.path()));
        std::fs::create_dir_all(dir.path().join("local/trash/1-2/a/b")).unwrap();
        drop(folders(dir.path()));
        assert_eq!(
            std::fs::read_dir(dir.path().join("local/trash"))
                .unwrap()
                .count(),
            0
        );
    }
}
