//! What is localized already: entries, who holds them, which go first when room is short.
//!
//! Bookkeeping only; the files are made and removed by the localizer.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who may share a localized copy. Source: `LocalResourceVisibility`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    Public,
    Private { user: String },
    Application { user: String, application: String },
}

impl Scope {
    /// The scope's cache folder below the local folder.
    pub(crate) fn folder(&self) -> PathBuf {
        match self {
            Scope::Public => PathBuf::from("filecache"),
            Scope::Private { user } => PathBuf::from(format!("usercache/{user}/filecache")),
            Scope::Application { user, application } => {
                PathBuf::from(format!("usercache/{user}/appcache/{application}/filecache"))
            }
        }
    }
}

/// Everything that makes two requests the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct CacheKey {
    pub(crate) scope: Scope,
    pub(crate) source: String,
    pub(crate) size: u64,
    pub(crate) mtime_ms: u64,
    pub(crate) sha256: Vec<u8>,
    pub(crate) archive: bool,
    pub(crate) executable: bool,
    /// Set when source, size and time do not tell what the content is: then nothing is shared.
    pub(crate) only_for: String,
}

/// A localized copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Below the local folder: `<scope>/filecache/<n>`; the copy is `content` in it.
    pub(crate) folder: PathBuf,
    pub(crate) is_folder: bool,
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    holds: u64,
    used: u64,
}

/// The entries of all scopes.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    slots: HashMap<CacheKey, Slot>,
    /// Counts uses: what was used longest ago goes first.
    clock: u64,
}

impl Cache {
    /// Takes a hold of an entry that is there.
    pub(crate) fn hold(&mut self, key: &CacheKey) -> Option<Entry> {
        self.clock += 1;
        let slot = self.slots.get_mut(key)?;
        slot.holds += 1;
        slot.used = self.clock;
        Some(slot.entry.clone())
    }

    /// Takes a hold by folder, for a container that an earlier agent started.
    pub(crate) fn hold_folder(&mut self, folder: &std::path::Path) -> Option<(CacheKey, Entry)> {
        let key = self
            .slots
            .iter()
            .find(|(_, s)| s.entry.folder == folder)
            .map(|(k, _)| k.clone())?;
        let entry = self.hold(&key)?;
        Some((key, entry))
    }

    pub(crate) fn insert(&mut self, key: CacheKey, entry: Entry) {
        self.clock += 1;
        self.slots.insert(
            key,
            Slot {
                entry,
                holds: 0,
                used: self.clock,
            },
        );
    }

    /// Entries of all scopes, and their bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let bytes = self.slots.values().map(|slot| slot.entry.bytes);
        (self.slots.len(), bytes.fold(0, u64::saturating_add))
    }

    pub(crate) fn release(&mut self, key: &CacheKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.holds = slot.holds.saturating_sub(1);
        }
    }

    /// Forgets an ended application's entries; their folders go with the application's.
    pub(crate) fn forget_application(&mut self, application: &str) {
        self.slots.retain(|key, _| match &key.scope {
            Scope::Application {
                application: of, ..
            } => of != application,
            Scope::Public | Scope::Private { .. } => true,
        });
    }

    /// Takes out entries that nobody holds, least recently used first, until the shared scopes fit
    /// into `bytes_max`; the caller removes their folders.
    pub(crate) fn evict(&mut self, bytes_max: u64) -> Vec<Entry> {
        let shared = |key: &CacheKey| !matches!(key.scope, Scope::Application { .. });
        let mut bytes: u64 = self
            .slots
            .iter()
            .filter(|(k, _)| shared(k))
            .map(|(_, s)| s.entry.bytes)
            .sum();
        let mut idle: Vec<_> = self
            .slots
            .iter()
            .filter(|(k, s)| shared(k) && s.holds == 0)
            .map(|(k, s)| (s.used, s.entry.bytes, k.clone()))
            .collect();
        idle.sort_by_key(|(used, ..)| *used);
        let mut gone = HashSet::new();
        for (_, size, key) in idle {
            if bytes <= bytes_max {
                break;
            }
            bytes -= size;
            gone.insert(key);
        }
        gone.iter()
            .filter_map(|key| self.slots.remove(key))
            .map(|slot| slot.entry)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: Scope, source: &str) -> CacheKey {
        CacheKey {
            scope,
            source: source.to_owned(),
            size: 10,
            mtime_ms: 1,
            sha256: Vec::new(),
            archive: false,
            executable: false,
            only_for: String::new(),
        }
    }

    fn entry(folder: &str) -> Entry {
        Entry {
            folder: folder.into(),
            is_folder: false,
            bytes: 10,
        }
    }

    #[test]
    fn the_longest_unused_goes_first_and_held_ones_stay() {
        let mut cache = Cache::default();
        let keys: Vec<_> = ["a", "b", "c"].map(|s| key(Scope::Public, s)).into();
        for k in &keys {
            cache.insert(k.clone(), entry(&k.source));
        }
        assert!(cache.hold(&keys[0]).is_some());
        cache.release(&keys[0]);
        assert!(cache.hold(&keys[1]).is_some());
        assert_eq!(cache.evict(30), vec![]);
        assert_eq!(cache.evict(25), vec![entry("c")]);
        assert_eq!(cache.evict(0), vec![entry("a")], "b is held");
        cache.release(&keys[1]);
        assert_eq!(cache.evict(0), vec![entry("b")]);
        assert_eq!(cache.hold(&keys[1]), None);
    }

    #[test]
    fn another_digest_user_or_kind_is_another_entry() {
        let mut cache = Cache::default();
        let base = key(Scope::Private { user: "a".into() }, "s");
        cache.insert(base.clone(), entry("x"));
        for other in [
            CacheKey {
                sha256: vec![1],
                ..base.clone()
            },
            CacheKey {
                mtime_ms: 2,
                ..base.clone()
            },
            CacheKey {
                archive: true,
                ..base.clone()
            },
            CacheKey {
                scope: Scope::Private { user: "b".into() },
                ..base.clone()
            },
            CacheKey {
                scope: Scope::Public,
                ..base.clone()
            },
        ] {
            assert_eq!(cache.hold(&other), None);
        }
        assert!(cache.hold(&base).is_some());
    }

    #[test]
    fn an_application_takes_its_entries_along() {
        let mut cache = Cache::default();
        let scope = Scope::Application {
            user: "a".into(),
            application: "application_1_0001".into(),
        };
        let of_app = key(scope, "s");
        cache.insert(of_app.clone(), entry("x"));
        assert_eq!(cache.evict(0), vec![], "the application's go with it only");
        cache.forget_application("application_1_0001");
        assert_eq!(cache.hold(&of_app), None);
    }
}
