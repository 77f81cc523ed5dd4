//! Users of this host, and file work with a user's own rights.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bobbin_service::{Account, account_of_name, own_uid};
use bobbin_types::UserName;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::config::Config;

/// Why a container cannot run as this user here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error("user '{0}' is root; containers never run as root")]
    Root(String),
    #[error(
        "user '{name}' has uid {uid}, below {min}, the smallest that this node runs (setting sandbox.min_uid)"
    )]
    TooSmall { name: String, uid: u32, min: u32 },
    #[error("this agent is rootless: it runs containers as its own user '{own}', not as '{name}'")]
    NotOwn { own: String, name: String },
    #[error(transparent)]
    Account(#[from] bobbin_service::AccountError),
}

/// Accounts looked up lately: the name service reads files, or asks the network, each time.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    known: Mutex<HashMap<UserName, (Instant, Account)>>,
}

/// A change of an account is seen after this long.
const KNOWN_FOR: Duration = Duration::from_secs(10);
const KNOWN_MAX: usize = 1000;

impl Accounts {
    /// As [`resolve`], remembered for a moment. May block.
    pub(crate) fn resolve(&self, user: &UserName, config: &Config) -> Result<Account, UserError> {
        let now = Instant::now();
        // Every change is one statement, so a panic elsewhere leaves the map consistent.
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, account)) = known().get(user)
            && now.duration_since(*since) < KNOWN_FOR
        {
            return Ok(account.clone());
        }
        let account = resolve(user, config)?;
        let mut known = known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(user.clone(), (now, account.clone()));
        Ok(account)
    }
}

/// Resolves the user of a token on this host.
///
/// # Errors
/// Unknown, root, too small a uid, or another than the agent's own for a rootless agent.
pub(crate) fn resolve(user: &UserName, config: &Config) -> Result<Account, UserError> {
    let account = account_of_name(user.as_str())?;
    if account.uid == 0 {
        return Err(UserError::Root(account.name));
    }
    let own = own_uid();
    if own != 0 {
        if account.uid != own {
            let own =
                bobbin_service::account_of_uid(own).map_or_else(|_| own.to_string(), |a| a.name);
            return Err(UserError::NotOwn {
                own,
                name: account.name,
            });
        }
        return Ok(account);
    }
    let min = config.sandbox.min_uid;
    if account.uid < min {
        return Err(UserError::TooSmall {
            name: account.name,
            uid: account.uid,
            min,
        });
    }
    Ok(account)
}

/// The owner that a user's files get; a rootless agent's files are the user's already.
pub(crate) fn owner(account: &Account) -> crate::folder::Owner {
    (own_uid() == 0).then_some((account.uid, account.gid))
}

/// Whose rights a piece of file work has.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

impl Rights {
    pub(crate) fn of(account: &Account) -> Rights {
        Rights {
            uid: account.uid,
            gid: account.gid,
            groups: account.groups.clone(),
        }
    }

    /// Rights that everybody has.
    pub(crate) fn nobody() -> Rights {
        Rights {
            uid: 65_534,
            gid: 65_534,
            groups: Vec::new(),
        }
    }
}

/// Runs `work` with these rights over files, in a thread of its own that ends with it. Blocks.
///
/// The file-system uid and gid and the groups are a thread's own (setfsuid(2), credentials(7)); the
/// other ids stay the agent's, so that the user can neither signal nor trace the thread.
pub(crate) fn with_rights<T, F>(rights: &Rights, work: F) -> io::Result<T>
where
    T: Send,
    F: FnOnce() -> io::Result<T> + Send,
{
    if own_uid() != 0 {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("as-user".to_owned());
        let handle = thread.spawn_scoped(scope, || {
            take(rights)?;
            work()
        })?;
        handle
            .join()
            .map_err(|_| io::Error::other("the thread with the user's rights panicked"))?
    })
}

fn take(rights: &Rights) -> io::Result<()> {
    let groups: Vec<_> = rights
        .groups
        .iter()
        .map(|g| rustix::thread::Gid::from_raw(*g))
        .collect();
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(rights.uid), Gid::from_raw(rights.gid));
    setfsgid(gid);
    setfsuid(uid);
    // The calls report no failure; asking again tells what holds.
    if setfsgid(gid) != gid || setfsuid(uid) != uid {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("cannot take the rights of uid {}", rights.uid),
        ));
    }
    // Another fsuid takes only the capabilities over files away; with the others one could still
    // read what the kernel shows of any process. The thread never needs any again.
    let none = rustix::thread::CapabilitySet::empty();
    let sets = rustix::thread::CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_opened_with_the_user_s_rights() {
        if own_uid() != 0 {
            eprintln!("SKIPPED: files_are_opened_with_the_user_s_rights needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("root's");
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let read = |rights| with_rights(&rights, || std::fs::read_to_string(&path));
        assert_eq!(
            read(Rights::nobody()).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        let in_group = Rights {
            groups: vec![0],
            ..Rights::nobody()
        };
        assert_eq!(read(in_group).unwrap(), "secret");
        // No capability helps: the kernel's view of other processes is closed too.
        let other =
            |path: &'static str| with_rights(&Rights::nobody(), move || std::fs::read(path));
        for path in ["/proc/1/environ", "/proc/self/environ", "/etc/shadow"] {
            assert!(other(path).is_err(), "{path}");
        }
        // This thread kept its own.
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret");
    }

    #[test]
    fn root_and_strangers_do_not_run() {
        let config = Config::default();
        let user = |name: &str| name.parse::<UserName>().unwrap();
        assert!(matches!(
            resolve(&user("root"), &config),
            Err(UserError::Root(_))
        ));
        assert!(matches!(
            resolve(&user("no-such-user-here"), &config),
            Err(UserError::Account(_))
        ));
        if own_uid() == 0 {
            assert_eq!(resolve(&user("nobody"), &config).unwrap().uid, 65_534);
        }
    }
}
