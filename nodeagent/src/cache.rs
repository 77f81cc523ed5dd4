//! What is localized already: entries, who holds them, which go first when room is short.
//!
//! Bookkeeping only; the files are made and removed by the localizer.

use std::collections::HashMap;
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
    /// What a server said that tells one content from another.
    #[serde(default)]
    pub(crate) validator: String,
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
    /// When it was given out or given back last, Unix milliseconds.
    used_ms: u64,
}

/// How large and how old the shared scopes may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes_max: u64,
    /// Since the last use; 0: however old.
    pub(crate) age_max_ms: u64,
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
    pub(crate) fn hold(&mut self, key: &CacheKey, now_ms: u64) -> Option<Entry> {
        self.clock += 1;
        let slot = self.slots.get_mut(key)?;
        slot.holds += 1;
        slot.used = self.clock;
        slot.used_ms = now_ms;
        Some(slot.entry.clone())
    }

    /// Takes a hold by folder, for a container that an earlier agent started.
    pub(crate) fn hold_folder(
        &mut self,
        folder: &std::path::Path,
        now_ms: u64,
    ) -> Option<(CacheKey, Entry)> {
        let key = self
            .slots
            .iter()
            .find(|(_, s)| s.entry.folder == folder)
            .map(|(k, _)| k.clone())?;
        let entry = self.hold(&key, now_ms)?;
        Some((key, entry))
    }

    /// `used_ms` is when it was used last: now, or as an earlier agent left it.
    pub(crate) fn insert(&mut self, key: CacheKey, entry: Entry, used_ms: u64) {
        self.clock += 1;
        self.slots.insert(
            key,
            Slot {
                entry,
                holds: 0,
                used: self.clock,
                used_ms,
            },
        );
    }

    /// Entries of all scopes, and their bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let bytes = self.slots.values().map(|slot| slot.entry.bytes);
        (self.slots.len(), bytes.fold(0, u64::saturating_add))
    }

    pub(crate) fn release(&mut self, key: &CacheKey, now_ms: u64) {
        self.clock += 1;
        if let Some(slot) = self.slots.get_mut(key) {
            slot.holds = slot.holds.saturating_sub(1);
            slot.used = self.clock;
            slot.used_ms = now_ms;
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

    /// Takes out entries that nobody holds: those that were not used for too long, then the least
    /// recently used until the shared scopes fit; the caller removes their folders.
    pub(crate) fn evict(&mut self, bounds: Bounds, now_ms: u64) -> Vec<Entry> {
        let shared = |key: &CacheKey| !matches!(key.scope, Scope::Application { .. });
        let mut bytes = 0_u64;
        let mut idle = Vec::new();
        for (key, slot) in self.slots.iter().filter(|(key, _)| shared(key)) {
            bytes = bytes.saturating_add(slot.entry.bytes);
            if slot.holds == 0 {
                idle.push((slot.used_ms, slot.used, slot.entry.bytes, key.clone()));
            }
        }
        // By the wall, which an earlier agent's entries have too; the count tells moments apart.
        idle.sort_by_key(|(used_ms, used, ..)| (*used_ms, *used));
        let mut gone = Vec::new();
        for (used_ms, _, size, key) in idle {
            let age_ms = now_ms.saturating_sub(used_ms);
            let is_old = bounds.age_max_ms > 0 && age_ms >= bounds.age_max_ms;
            if !is_old && bytes <= bounds.bytes_max {
                break;
            }
            bytes = bytes.saturating_sub(size);
            gone.extend(self.slots.remove(&key).map(|slot| slot.entry));
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestCaseError;

    fn key(scope: Scope, source: &str) -> CacheKey {
        CacheKey {
            scope,
            source: source.to_owned(),
            size: 10,
            mtime_ms: 1,
            sha256: Vec::new(),
            validator: String::new(),
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

    fn to(bytes_max: u64) -> Bounds {
        Bounds {
            bytes_max,
            age_max_ms: 0,
        }
    }

    #[test]
    fn what_was_not_used_for_long_goes_whatever_room_there_is() {
        let mut cache = Cache::default();
        let keys: Vec<_> = ["a", "b", "c"].map(|s| key(Scope::Public, s)).into();
        for (k, used_ms) in keys.iter().zip([100, 200, 300]) {
            cache.insert(k.clone(), entry(&k.source), used_ms);
        }
        let bounds = Bounds {
            bytes_max: u64::MAX,
            age_max_ms: 1000,
        };
        assert!(cache.hold(&keys[0], 400).is_some());
        assert_eq!(cache.evict(bounds, 1199), vec![]);
        assert_eq!(cache.evict(bounds, 1200), vec![entry("b")]);
        assert_eq!(cache.evict(bounds, 50), vec![], "a clock that was set back");
        assert_eq!(cache.evict(bounds, 9999), vec![entry("c")], "a is held");
        cache.release(&keys[0], 10_000);
        assert_eq!(
            cache.evict(bounds, 10_999),
            vec![],
            "used until a moment ago"
        );
        assert_eq!(cache.evict(bounds, 11_000), vec![entry("a")]);
    }

    #[test]
    fn the_longest_unused_goes_first_and_held_ones_stay() {
        let mut cache = Cache::default();
        let keys: Vec<_> = ["a", "b", "c"].map(|s| key(Scope::Public, s)).into();
        for k in &keys {
            cache.insert(k.clone(), entry(&k.source), 1);
        }
        assert!(cache.hold(&keys[0], 1).is_some());
        cache.release(&keys[0], 1);
        assert!(cache.hold(&keys[1], 1).is_some());
        assert_eq!(cache.evict(to(30), 1), vec![]);
        assert_eq!(cache.evict(to(25), 1), vec![entry("c")]);
        assert_eq!(cache.evict(to(0), 1), vec![entry("a")], "b is held");
        cache.release(&keys[1], 1);
        assert_eq!(cache.evict(to(0), 1), vec![entry("b")]);
        assert_eq!(cache.hold(&keys[1], 1), None);
    }

    #[test]
    fn another_digest_user_or_kind_is_another_entry() {
        let mut cache = Cache::default();
        let base = key(Scope::Private { user: "a".into() }, "s");
        cache.insert(base.clone(), entry("x"), 1);
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
            assert_eq!(cache.hold(&other, 1), None);
        }
        assert!(cache.hold(&base, 1).is_some());
    }

    #[test]
    fn an_application_takes_its_entries_along() {
        let mut cache = Cache::default();
        let scope = Scope::Application {
            user: "a".into(),
            application: "application_1_0001".into(),
        };
        let of_app = key(scope, "s");
        cache.insert(of_app.clone(), entry("x"), 1);
        assert_eq!(
            cache.evict(to(0), 1),
            vec![],
            "the application's go with it only"
        );
        cache.forget_application("application_1_0001");
        assert_eq!(cache.hold(&of_app, 1), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u64),
        Hold(u8),
        Release(u8),
        Pass(u64),
        Evict(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..8_u8, 1..50_u64).prop_map(|(k, bytes)| Step::Insert(k, bytes)),
            (0..8_u8).prop_map(Step::Hold),
            (0..8_u8).prop_map(Step::Release),
            (1..40_u64).prop_map(Step::Pass),
            (0..150_u64, 0..100_u64).prop_map(|(bytes, age)| Step::Evict(bytes, age)),
        ];
        proptest::collection::vec(step, 0..60)
    }

    /// Even ones are shared, odd ones an application's.
    fn numbered(number: u8) -> CacheKey {
        let application = Scope::Application {
            user: "a".into(),
            application: "application_1_0001".into(),
        };
        let scope = if number.is_multiple_of(2) {
            Scope::Public
        } else {
            application
        };
        key(scope, &number.to_string())
    }

    /// What the cache shall do, said slowly.
    #[derive(Default)]
    struct Model(Vec<(u8, u64, u64, u64)>);

    impl Model {
        fn find(&mut self, number: u8) -> Option<&mut (u8, u64, u64, u64)> {
            self.0.iter_mut().find(|row| row.0 == number)
        }

        /// The rows that must go, and whether what is left fits or is all in use.
        fn check(&mut self, gone: &[u8], bounds: Bounds, now: u64) -> Result<(), TestCaseError> {
            let old = |row: &(u8, u64, u64, u64)| {
                bounds.age_max_ms > 0 && now - row.3 >= bounds.age_max_ms
            };
            let before: u64 = self
                .0
                .iter()
                .filter(|r| r.0.is_multiple_of(2))
                .map(|r| r.1)
                .sum();
            let mut bytes = before;
            for number in gone {
                let row = *self.find(*number).expect("it was there");
                prop_assert!(
                    row.2 == 0 && row.0.is_multiple_of(2),
                    "held or not shared: {row:?}"
                );
                prop_assert!(old(&row) || bytes > bounds.bytes_max, "no reason: {row:?}");
                bytes -= row.1;
                self.0.retain(|r| r.0 != *number);
                // Nothing that stays was used less lately.
                let idle = self.0.iter().filter(|r| r.2 == 0 && r.0.is_multiple_of(2));
                prop_assert!(
                    idle.clone().all(|r| r.3 >= row.3),
                    "{row:?} before an older one"
                );
            }
            let mut idle = self.0.iter().filter(|r| r.2 == 0 && r.0.is_multiple_of(2));
            prop_assert!(idle.clone().all(|row| !old(row)), "an old one stays");
            prop_assert!(
                bytes <= bounds.bytes_max || idle.next().is_none(),
                "too large"
            );
            Ok(())
        }
    }

    proptest::proptest! {
        #[test]
        fn the_bounds_hold_and_nothing_in_use_goes(steps in steps()) {
            let (mut cache, mut model, mut now) = (Cache::default(), Model::default(), 1_u64);
            for step in steps {
                match step {
                    Step::Insert(number, bytes) => if model.find(number).is_none() {
                        let entry = Entry { bytes, ..entry(&number.to_string()) };
                        cache.insert(numbered(number), entry, now);
                        model.0.push((number, bytes, 0, now));
                    },
                    Step::Hold(number) => {
                        let held = cache.hold(&numbered(number), now).is_some();
                        let row = model.find(number);
                        prop_assert_eq!(held, row.is_some());
                        if let Some(row) = row { row.2 += 1; row.3 = now; }
                    }
                    Step::Release(number) => if let Some(row) = model.find(number)
                        && row.2 > 0
                    {
                        row.2 -= 1;
                        row.3 = now;
                        cache.release(&numbered(number), now);
                    },
                    Step::Pass(ms) => now += ms,
                    Step::Evict(bytes_max, age_max_ms) => {
                        let bounds = Bounds { bytes_max, age_max_ms };
                        let gone = cache.evict(bounds, now);
                        let gone: Vec<u8> = gone
                            .iter()
                            .map(|e| e.folder.to_str().unwrap().parse().unwrap())
                            .collect();
                        model.check(&gone, bounds, now)?;
                    }
                }
                let (entries, bytes) = cache.totals();
                let of_model: u64 = model.0.iter().map(|row| row.1).sum();
                prop_assert_eq!((entries, bytes), (model.0.len(), of_model));
            }
        }
    }
}
