//! The one queue: who waits for what, in which order, and what masters take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bobbin_types::{MAX_COUNTABLE_KINDS, Resource};

use crate::node::NodeKey;
use crate::scheduler::{DemandKey, Turn, Waiting};

/// The rack of every node: racks come with the settings that name them.
/// Source: `NetworkTopology.DEFAULT_RACK`.
pub(crate) const DEFAULT_RACK: &str = "/default-rack";

/// Where an ask may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Anywhere,
    /// On this host if it has room now, anywhere otherwise.
    Prefer(String),
    /// On another node than these if one has room now, anywhere otherwise. Masters only.
    NotOn(BTreeSet<NodeKey>),
    /// On this host or not at all.
    Only(String),
}

/// A demand in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WaitingDemand {
    pub(crate) size: Resource,
    pub(crate) reach: Reach,
    /// Hosts that will not do, the same for all asks of an application. Never empty.
    pub(crate) barred: Option<Arc<BTreeSet<String>>>,
}

impl WaitingDemand {
    pub(crate) fn bars(&self, host: &str) -> bool {
        self.barred
            .as_ref()
            .is_some_and(|hosts| hosts.contains(host))
    }
}

/// In which of the queue's sets a demand stands.
enum Stand<'a> {
    Masters,
    Asks,
    Bound(&'a str),
    Choosy(&'a Arc<BTreeSet<String>>),
    /// Only one host would do, and that one is barred: no room can serve it.
    Nowhere,
}

fn stand<'a>(key: &DemandKey, demand: &'a WaitingDemand) -> Stand<'a> {
    match (&key.ask, &demand.reach, &demand.barred) {
        (None, _, _) => Stand::Masters,
        (Some(_), Reach::Only(host), _) if demand.bars(host) => Stand::Nowhere,
        (Some(_), Reach::Only(host), _) => Stand::Bound(host),
        (Some(_), Reach::Anywhere | Reach::Prefer(_) | Reach::NotOn(_), None) => Stand::Asks,
        (Some(_), Reach::Anywhere | Reach::Prefer(_) | Reach::NotOn(_), Some(hosts)) => {
            Stand::Choosy(hosts)
        }
    }
}

/// Asks of one application that hosts are barred for.
#[derive(Clone, Debug)]
struct Choosy {
    barred: Arc<BTreeSet<String>>,
    asks: Waiting,
}

/// First in, first out over what fits: a demand that fits nowhere now blocks nobody.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) masters: Waiting,
    /// Asks that any node can serve.
    pub(crate) asks: Waiting,
    /// Asks that only one host can serve.
    bound: BTreeMap<String, Waiting>,
    /// Asks that any node can serve that is not on a barred host, by application: a room looks at
    /// each of these applications, so that one of them costs the others nothing.
    choosy: BTreeMap<Turn, Choosy>,
    demands: BTreeMap<DemandKey, WaitingDemand>,
    /// Granted to masters now.
    pub(crate) am_used: Resource,
}

impl Queue {
    pub(crate) fn new() -> Queue {
        Queue {
            masters: Waiting::new(),
            asks: Waiting::new(),
            bound: BTreeMap::new(),
            choosy: BTreeMap::new(),
            demands: BTreeMap::new(),
            am_used: Resource::default(),
        }
    }

    pub(crate) fn insert(&mut self, key: DemandKey, demand: WaitingDemand) {
        self.remove(&key);
        let size = demand.size;
        match stand(&key, &demand) {
            Stand::Masters => self.masters.insert(key.clone(), size),
            Stand::Asks => self.asks.insert(key.clone(), size),
            Stand::Bound(host) => {
                let set = self.bound.entry(host.to_owned());
                set.or_insert_with(Waiting::new).insert(key.clone(), size);
            }
            Stand::Choosy(barred) => {
                let choosy = self.choosy.entry(key.turn).or_insert_with(|| Choosy {
                    barred: Arc::clone(barred),
                    asks: Waiting::new(),
                });
                choosy.asks.insert(key.clone(), size);
            }
            Stand::Nowhere => {}
        }
        self.demands.insert(key, demand);
    }

    pub(crate) fn remove(&mut self, key: &DemandKey) {
        let Some(demand) = self.demands.remove(key) else {
            return;
        };
        let size = &demand.size;
        match stand(key, &demand) {
            Stand::Masters => self.masters.remove(key, size),
            Stand::Asks => self.asks.remove(key, size),
            Stand::Bound(host) => {
                if let Some(set) = self.bound.get_mut(host) {
                    set.remove(key, size);
                    if set.len() == 0 {
                        self.bound.remove(host);
                    }
                }
            }
            Stand::Choosy(_) => {
                if let Some(choosy) = self.choosy.get_mut(&key.turn) {
                    choosy.asks.remove(key, size);
                    if choosy.asks.len() == 0 {
                        self.choosy.remove(&key.turn);
                    }
                }
            }
            Stand::Nowhere => {}
        }
    }

    /// The first ask of those that bar hosts, but not this one, that fits into the room.
    pub(crate) fn choosy_for(&self, host: &str, room: &Resource) -> Option<&DemandKey> {
        let willing = self.choosy.values().filter(|c| !c.barred.contains(host));
        // In the order of turns, which is that of their demands.
        willing
            .filter_map(|choosy| choosy.asks.first_fitting(room, None))
            .next()
    }

    pub(crate) fn waiting(&self, key: &DemandKey) -> Option<&WaitingDemand> {
        self.demands.get(key)
    }

    pub(crate) fn size_of(&self, key: &DemandKey) -> Option<Resource> {
        self.demands.get(key).map(|demand| demand.size)
    }

    pub(crate) fn asks_of_host(&self, host: &str) -> Option<&Waiting> {
        self.bound.get(host)
    }

    /// All demands in their order. For checks.
    pub(crate) fn demands(&self) -> impl Iterator<Item = (&DemandKey, &WaitingDemand)> {
        self.demands.iter()
    }

    /// What a further master may take. The first one always fits: an empty cluster must start one.
    pub(crate) fn am_room(&self, am_limit: &Resource) -> Resource {
        if self.am_used.is_zero() {
            return Resource {
                memory_mib: u64::MAX,
                vcores: u32::MAX,
                countable: [u64::MAX; MAX_COUNTABLE_KINDS],
            };
        }
        crate::scheduler::room(am_limit, &self.am_used)
    }

    /// Whether the sets agree with each other.
    pub(crate) fn is_consistent(&self) -> bool {
        let held: usize = self.bound.values().map(Waiting::len).sum();
        let choosy: usize = self.choosy.values().map(|c| c.asks.len()).sum();
        let stood = self.masters.len() + self.asks.len() + held + choosy;
        let mut nowhere = 0;
        let all_stand = self.demands.iter().all(|(key, demand)| {
            let size = &demand.size;
            match stand(key, demand) {
                Stand::Masters => self.masters.contains(key, size),
                Stand::Asks => self.asks.contains(key, size),
                Stand::Bound(host) => {
                    let set = self.bound.get(host);
                    set.is_some_and(|set| set.contains(key, size))
                }
                Stand::Choosy(hosts) => {
                    let choosy = self.choosy.get(&key.turn);
                    choosy.is_some_and(|c| c.barred == *hosts && c.asks.contains(key, size))
                }
                Stand::Nowhere => {
                    nowhere += 1;
                    true
                }
            }
        });
        let sets = self
            .bound
            .values()
            .chain(self.choosy.values().map(|c| &c.asks));
        all_stand
            && self.demands.len() == stood + nowhere
            && self.masters.is_consistent()
            && self.asks.is_consistent()
            && sets
                .into_iter()
                .all(|set| set.len() > 0 && set.is_consistent())
    }
}

/// `permille` thousandths of `total`, rounded down, kind by kind. A kind that the cluster lacks
/// bounds nothing.
pub(crate) fn share_of(total: &Resource, permille: u32) -> Resource {
    let part = |whole: u64| {
        let scaled = u128::from(whole) * u128::from(permille) / 1000;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    let vcores = u32::try_from(part(u64::from(total.vcores))).unwrap_or(u32::MAX);
    let mut share = Resource::new(part(total.memory_mib), vcores);
    for (i, unit) in share.countable.iter_mut().enumerate() {
        *unit = part(total.countable[i]);
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_down() {
        let total = Resource::new(1001, 3);
        assert_eq!(share_of(&total, 500), Resource::new(500, 1));
        assert_eq!(share_of(&total, 1000), total);
        assert_eq!(
            share_of(&Resource::new(u64::MAX, u32::MAX), 2000).memory_mib,
            u64::MAX
        );
    }

    #[test]
    fn the_first_master_always_fits() {
        let mut queue = Queue::new();
        let limit = Resource::new(100, 1);
        assert!(Resource::new(5000, 64).fits_in(&queue.am_room(&limit)));
        queue.am_used = Resource::new(60, 1);
        assert_eq!(queue.am_room(&limit), Resource::new(40, 0));
    }
}
