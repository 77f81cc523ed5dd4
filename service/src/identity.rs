//! Who is at the other end: the kernel's word for unix sockets, accounts of the host.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::ffi::CString;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The other end of a connection, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Source: `SO_PEERCRED`, unix(7): the credentials at connect time.
    Unix {
        uid: u32,
        gid: u32,
        pid: Option<i32>,
    },
    /// An address proves nothing about a person: only tokens count here.
    Tcp(SocketAddr),
}

/// The peer of a request served by [`crate::serve`]; `None` for requests that came another way.
#[must_use]
pub fn peer<T>(request: &tonic::Request<T>) -> Option<Peer> {
    request.extensions().get::<Peer>().copied()
}

/// An account of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
    /// Names of those groups that have one.
    pub group_names: Vec<String>,
}

/// An account that the host does not have or cannot tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("uid {0} has no account on this host")]
    UnknownUid(u32),
    #[error("user '{0}' has no account on this host")]
    UnknownName(String),
    #[error("cannot look up {what}: {reason}")]
    Lookup { what: String, reason: String },
}

/// How long an account that was found is not looked up again: every call through a socket asks, and a
/// lookup opens files or asks a server. Source: `hadoop.security.groups.cache.secs`, which is 300.
const KNOWN: Duration = Duration::from_secs(5);
/// Accounts that are known at a time; more are looked up each time anew.
const KNOWN_MAX: usize = 1_024;

/// Accounts that were found a moment ago. Those that were not found are never in it.
struct KnownAccounts<K> {
    all: Mutex<HashMap<K, (Instant, Account)>>,
}

static BY_UID: LazyLock<KnownAccounts<u32>> = LazyLock::new(KnownAccounts::default);
static BY_NAME: LazyLock<KnownAccounts<String>> = LazyLock::new(KnownAccounts::default);

impl<K> Default for KnownAccounts<K> {
    fn default() -> KnownAccounts<K> {
        KnownAccounts {
            all: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash> KnownAccounts<K> {
    fn get<Q>(&self, key: &Q, now: Instant) -> Option<Account>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        // Every change is one statement, so a panic elsewhere leaves the map consistent.
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let (found, account) = all.get(key)?;
        (now.duration_since(*found) < KNOWN).then(|| account.clone())
    }

    fn put(&self, key: K, account: &Account, now: Instant) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= KNOWN_MAX {
            all.retain(|_, (found, _)| now.duration_since(*found) < KNOWN);
        }
        if all.len() < KNOWN_MAX || all.contains_key(&key) {
            all.insert(key, (now, account.clone()));
        }
    }
}

/// The account with `uid`, as it was at most five seconds ago.
///
/// # Errors
/// There is none, or the name service fails.
pub fn account_of_uid(uid: u32) -> Result<Account, AccountError> {
    let now = Instant::now();
    if let Some(account) = BY_UID.get(&uid, now) {
        return Ok(account);
    }
    let account = find_uid(uid)?;
    BY_UID.put(uid, &account, now);
    Ok(account)
}

fn find_uid(uid: u32) -> Result<Account, AccountError> {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => account(user),
        Ok(None) => Err(AccountError::UnknownUid(uid)),
        Err(e) => Err(AccountError::Lookup {
            what: format!("uid {uid}"),
            reason: e.to_string(),
        }),
    }
}

/// The account called `name`, as it was at most five seconds ago.
///
/// # Errors
/// There is none, or the name service fails.
pub fn account_of_name(name: &str) -> Result<Account, AccountError> {
    let now = Instant::now();
    if let Some(account) = BY_NAME.get(name, now) {
        return Ok(account);
    }
    let account = find_name(name)?;
    BY_NAME.put(name.to_owned(), &account, now);
    Ok(account)
}

fn find_name(name: &str) -> Result<Account, AccountError> {
    match User::from_name(name) {
        Ok(Some(user)) => account(user),
        Ok(None) => Err(AccountError::UnknownName(name.to_owned())),
        Err(e) => Err(AccountError::Lookup {
            what: format!("user '{name}'"),
            reason: e.to_string(),
        }),
    }
}

/// The effective uid of this process.
#[must_use]
pub fn own_uid() -> u32 {
    Uid::effective().as_raw()
}

fn account(user: User) -> Result<Account, AccountError> {
    let failed = |reason: String| AccountError::Lookup {
        what: format!("groups of '{}'", user.name),
        reason,
    };
    let name = CString::new(user.name.as_str()).map_err(|e| failed(e.to_string()))?;
    let groups = getgrouplist(&name, user.gid).map_err(|e| failed(e.to_string()))?;
    let group_names = groups
        .iter()
        .filter_map(|gid: &Gid| Group::from_gid(*gid).ok().flatten())
        .map(|group| group.name)
        .collect();
    Ok(Account {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.iter().map(|g| g.as_raw()).collect(),
        group_names,
        name: user.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_both_names() {
        let root = account_of_uid(0).unwrap();
        assert_eq!(root.name, "root");
        assert_eq!(account_of_name("root").unwrap(), root);
        assert!(root.groups.contains(&0) && root.group_names.contains(&"root".to_owned()));
    }

    #[test]
    fn an_account_is_known_for_a_while() {
        let known = KnownAccounts::default();
        let (now, root) = (Instant::now(), find_uid(0).unwrap());
        known.put(7, &root, now);
        assert_eq!(known.get(&7, now), Some(root.clone()));
        assert_eq!(known.get(&8, now), None);
        assert_eq!(known.get(&7, now + KNOWN), None);
        // A full list takes nobody new until somebody has grown old.
        for uid in 0..u32::try_from(KNOWN_MAX).unwrap() * 2 {
            known.put(uid, &root, now);
        }
        assert_eq!(known.all.lock().unwrap().len(), KNOWN_MAX);
        known.put(9_999, &root, now + KNOWN);
        assert_eq!(known.all.lock().unwrap().len(), 1);
    }

    #[test]
    fn strangers_are_named() {
        assert_eq!(
            account_of_uid(3_999_999_999),
            Err(AccountError::UnknownUid(3_999_999_999))
        );
        assert_eq!(
            account_of_name("no-such-account-here"),
            Err(AccountError::UnknownName("no-such-account-here".into()))
        );
    }
}
