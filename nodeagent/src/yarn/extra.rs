//! Files for containers of YARN's: how far each is, and those that a master adds to one that runs.
//!
//! A running container's view of the host is closed, so an added file is copied into its work folder
//! instead of being linked to.
//!
//! Source: `ContainerManagementProtocol.localize`, `ResourceSet`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bobbin_proto::v1;
use bobbin_service::{Account, Claims, TokenKind, wall_now};
use bobbin_types::{ContainerId, LOCAL_RESOURCES_MAX, UserName, WallMillis};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::owner;
use crate::folder::{Folder, Owner, give};
use crate::launch::chain;
use crate::localizer::Asker;
use crate::node::Node;

/// How long the token holds that a file is fetched with.
const FETCH_MS: u64 = 24 * 3_600_000;
/// Longest that a container can use its user's files. Its end ends that at once: this is only the
/// end that every token has.
const FILES_MS: u64 = 400 * 24 * 3_600_000;

/// How far one file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Pending,
    Completed,
    Failed(String),
}

#[derive(Debug, Default)]
struct Files {
    progress: BTreeMap<String, Progress>,
    /// Ends what is being added, when the container has ended.
    cancel: CancellationToken,
    adding: TaskTracker,
}

/// The files of the containers that this agent process supervises.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    all: Mutex<HashMap<ContainerId, Files>>,
}

impl Extras {
    fn all(&self) -> MutexGuard<'_, HashMap<ContainerId, Files>> {
        // Every change is one statement, so a panic elsewhere leaves the map consistent.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how far a container's first files are.
    pub(crate) fn note(&self, id: ContainerId, names: &[String], progress: &Progress) {
        let mut all = self.all();
        let files = all.entry(id).or_default();
        for name in names {
            files.progress.insert(name.clone(), progress.clone());
        }
    }

    /// How far each file of a container is; none of one that an earlier agent process started.
    pub(crate) fn of(&self, id: &ContainerId) -> Vec<(String, Progress)> {
        let all = self.all();
        let files = all.get(id).map(|files| files.progress.iter());
        files
            .into_iter()
            .flatten()
            .map(|(name, progress)| (name.clone(), progress.clone()))
            .collect()
    }

    /// Ends what is being added and waits for it; the container's folders can go then.
    pub(crate) async fn end(&self, id: &ContainerId) {
        let files = self.all().remove(id);
        if let Some(files) = files {
            files.cancel.cancel();
            files.adding.close();
            files.adding.wait().await;
        }
    }

    fn set(&self, id: ContainerId, name: &str, progress: Progress) {
        if let Some(files) = self.all().get_mut(&id) {
            files.progress.insert(name.to_owned(), progress);
        }
    }

    /// Takes names for files to come.
    fn begin(
        &self,
        id: ContainerId,
        names: &[String],
    ) -> Result<(CancellationToken, TaskTracker), String> {
        let mut all = self.all();
        let files = all.entry(id).or_default();
        if let Some(name) = names.iter().find(|name| {
            matches!(
                files.progress.get(*name),
                Some(Progress::Pending | Progress::Completed)
            )
        }) {
            return Err(format!("'{name}' is a local resource of {id} already"));
        }
        if files.progress.len() + names.len() > LOCAL_RESOURCES_MAX {
            return Err(format!(
                "{id} would have more than {LOCAL_RESOURCES_MAX} local resources"
            ));
        }
        for name in names {
            files.progress.insert(name.clone(), Progress::Pending);
        }
        Ok((files.cancel.clone(), files.adding.clone()))
    }
}

/// Adds files to a running container, each when it has come; checked names.
///
/// # Errors
/// A name is taken, or there are too many.
pub(super) fn add(
    node: &Arc<Node>,
    id: ContainerId,
    user: &UserName,
    resources: Vec<v1::LocalResource>,
) -> Result<(), String> {
    let names: Vec<String> = resources.iter().map(|r| r.name.clone()).collect();
    let (cancel, adding) = node.extras.begin(id, &names)?;
    let account = node
        .accounts
        .resolve(user, &node.config)
        .map_err(|e| format!("on node {}: {e}", node.node_id))?;
    let asker = Arc::new(Asker {
        application: id.application().to_string(),
        container: id.to_string(),
        container_token: node.keys.container_token(&fetch_claims(node, id, &account)),
        account: Arc::new(account),
        credentials: Bytes::new(),
        stores: Bytes::new(),
    });
    for resource in resources {
        let (node, asker, cancel) = (node.clone(), asker.clone(), cancel.clone());
        adding.spawn(async move {
            let result = tokio::select! {
                result = add_one(&node, id, &resource, &asker) => result,
                () = cancel.cancelled() => return,
            };
            let progress = match result {
                Ok(()) => Progress::Completed,
                Err(words) => Progress::Failed(words),
            };
            node.extras.set(id, &resource.name, progress);
        });
    }
    Ok(())
}

/// What proves the container when a file is fetched for it.
pub(super) fn fetch_claims(node: &Node, id: ContainerId, account: &Account) -> Claims {
    claims(node, id, account, FETCH_MS)
}

/// What proves the container's own program at the resource manager's file tree.
pub(crate) fn files_token(node: &Node, id: ContainerId, account: &Account) -> Option<String> {
    node.keys.files_token(&claims(node, id, account, FILES_MS))
}

fn claims(node: &Node, id: ContainerId, account: &Account, valid_ms: u64) -> Claims {
    let expires = WallMillis(wall_now().0.saturating_add(valid_ms));
    let mut claims = Claims::new(TokenKind::Container, expires);
    claims.user.clone_from(&account.name);
    claims.application = id.application().to_string();
    claims.attempt = id.attempt.to_string();
    claims.container = id.to_string();
    claims.node = node.node_id.to_string();
    claims
}

async fn add_one(
    node: &Arc<Node>,
    id: ContainerId,
    resource: &v1::LocalResource,
    asker: &Asker,
) -> Result<(), String> {
    let hold = node
        .localizer
        .localize(resource, asker)
        .await
        .map_err(|e| chain(&e))?;
    let (node, account) = (node.clone(), asker.account.clone());
    let name = resource.name.clone();
    // Not cut off half-way: whoever waits for the container's end waits for it.
    let copying = tokio::task::spawn_blocking(move || {
        let path = format!(
            "usercache/{}/appcache/{}/{id}",
            account.name,
            id.application()
        );
        let work = node.folders.local.folder(path)?;
        copy(&hold.path(), &work, &name, owner(&account))
    });
    match copying.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("cannot place it in the work folder: {e}")),
        Err(e) => Err(e.to_string()),
    }
}

/// Copies what only the agent can change into a folder that its user can.
fn copy(from: &Path, to: &Folder, name: &str, own: Owner) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return to.symlink(fs::read_link(from)?.as_os_str(), OsStr::new(name));
    }
    if !kind.is_dir() {
        let mut file = to.create(OsStr::new(name), 0o600)?;
        io::copy(&mut fs::File::open(from)?, &mut file)?;
        return give(&file, 0o700, own);
    }
    if to.look(OsStr::new(name))?.is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let folder = to.make(name, 0o700, own)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| io::Error::other("a name in it is not UTF-8"))?;
        copy(&entry.path(), &folder, name, own)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContainerId {
        "container_e01_7_0001_01_000002".parse().unwrap()
    }

    #[tokio::test]
    async fn progress_is_told_until_the_end() {
        let extras = Extras::default();
        let names = ["a".to_owned(), "b".to_owned()];
        extras.note(id(), &names[..1], &Progress::Completed);
        assert!(extras.begin(id(), &names).unwrap_err().contains("'a'"));
        extras.begin(id(), &names[1..]).unwrap();
        extras.set(id(), "b", Progress::Failed("gone".into()));
        assert_eq!(
            extras.of(&id()),
            [
                ("a".to_owned(), Progress::Completed),
                ("b".to_owned(), Progress::Failed("gone".into()))
            ]
        );
        extras.begin(id(), &names[1..]).unwrap();
        let many: Vec<String> = (0..LOCAL_RESOURCES_MAX).map(|n| n.to_string()).collect();
        assert!(extras.begin(id(), &many).is_err());
        extras.end(&id()).await;
        assert_eq!(extras.of(&id()), []);
    }

    #[test]
    fn a_copy_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("in")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("in/file"), "text").unwrap();
        std::os::unix::fs::symlink("in/file", from.join("link")).unwrap();
        let folder = Folder::open(&to).unwrap();
        copy(&from, &folder, "tree", None).unwrap();
        assert_eq!(fs::read_to_string(to.join("tree/link")).unwrap(), "text");
        assert!(copy(&from, &folder, "tree", None).is_err());
        assert!(copy(&from.join("in/file"), &folder, "tree", None).is_err());
        std::os::unix::fs::symlink(dir.path(), to.join("out")).unwrap();
        assert!(copy(&from.join("in/file"), &folder, "out", None).is_err());
    }
}
