//! What a YARN master still wants, and what the core is told of it.
//!
//! A YARN master states one wish up to three times: for hosts, for their racks and for any place
//! (`*`), and each grant takes one from every level that it satisfies; the count of `*` is the total.
//! The core's asks are each for themselves. This book keeps YARN's levels and says, whenever they
//! change, what the core's asks are then.
//!
//! Source: `AppSchedulingInfo`, `LocalityAppPlacementAllocator`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bobbin_rm_core::{Ask, AskKey, Grant};
use bobbin_types::{ASKS_PER_APPLICATION_MAX, Resource};

/// Any place.
pub(crate) const ANY: &str = "*";
/// All nodes are in it.
pub(crate) const DEFAULT_RACK: &str = "/default-rack";

/// One ask as a master states it: absolute, it replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatedAsk {
    pub(crate) priority: i32,
    pub(crate) request_id: i64,
    pub(crate) capability: Resource,
    /// [`ANY`], a rack (`/rack`) or a host.
    pub(crate) place: String,
    pub(crate) count: u32,
    /// Containers may be at this level, instead of only at one below it.
    pub(crate) relax_locality: bool,
    /// Of the nodes; empty: any. Counts at [`ANY`] only.
    pub(crate) node_label: String,
}

/// More different asks than one master may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} different asks (priority, place, size, request id), at most {ASKS_PER_APPLICATION_MAX} are \
     held for one application"
)]
pub(crate) struct TooManyAsks(usize);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    priority: i32,
    request_id: i64,
    capability: Resource,
}

impl GroupKey {
    fn of(grant: &Grant) -> GroupKey {
        GroupKey {
            priority: grant.priority,
            request_id: grant.request_id,
            capability: grant.resource,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    count: u32,
    relax: bool,
}

/// The levels of one wish.
#[derive(Clone, Debug, Default)]
struct Group {
    places: BTreeMap<String, Wanted>,
    node_label: String,
    /// What the core may hold of it.
    told: BTreeSet<Arc<AskKey>>,
    /// The core has to be told again.
    changed: bool,
    /// Stated in the last call.
    is_new: bool,
}

impl Group {
    fn wanted(&self, place: &str) -> Wanted {
        let none = Wanted {
            count: 0,
            relax: true,
        };
        self.places.get(place).copied().unwrap_or(none)
    }

    fn hosts(&self) -> impl Iterator<Item = (&String, &Wanted)> {
        self.places
            .iter()
            .filter(|(place, _)| *place != ANY && !place.starts_with('/'))
    }

    /// Whether the core's own counting is all there is: it takes each grant from the one ask.
    fn is_plain(&self) -> bool {
        self.places.keys().all(|place| place == ANY)
    }

    /// The core's asks: place, count, whether another place will do.
    fn core_asks(&self) -> Vec<(&str, u32, bool)> {
        let any = self.wanted(ANY);
        let mut left = any.count;
        let mut asks = Vec::new();
        if any.relax {
            for (host, wanted) in self.hosts() {
                let count = wanted.count.min(left);
                left -= count;
                asks.push((host.as_str(), count, true));
            }
            asks.push((ANY, left, true));
            return asks;
        }
        // Hosts may be alternatives of one wish: together more than the total, which the book
        // brings down again after each grant.
        let mut on_hosts = 0_u32;
        for (host, wanted) in self.hosts() {
            let count = wanted.count.min(any.count);
            on_hosts = on_hosts.saturating_add(count);
            asks.push((host.as_str(), count, false));
        }
        let rack = self.wanted(DEFAULT_RACK);
        if rack.relax {
            let count = rack.count.min(any.count).saturating_sub(on_hosts);
            asks.push((ANY, count, true));
        }
        asks
    }
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub(crate) struct AskBook {
    groups: BTreeMap<GroupKey, Group>,
}

impl AskBook {
    /// Takes asks in. `undelivered` are grants of which the master did not know when it stated them:
    /// they count against what it wants.
    ///
    /// # Errors
    /// Too many different ones; nothing is taken in then.
    pub(crate) fn state<'a>(
        &mut self,
        asks: &[StatedAsk],
        undelivered: impl Iterator<Item = &'a Grant> + Clone,
    ) -> Result<(), TooManyAsks> {
        let mut next = self.clone();
        for group in next.groups.values_mut() {
            group.is_new = false;
        }
        for ask in asks {
            next.state_one(ask, undelivered.clone());
        }
        let number = next.groups.values().map(|group| group.places.len()).sum();
        if number > ASKS_PER_APPLICATION_MAX {
            return Err(TooManyAsks(number));
        }
        *self = next;
        Ok(())
    }

    fn state_one<'a>(&mut self, ask: &StatedAsk, undelivered: impl Iterator<Item = &'a Grant>) {
        let key = GroupKey {
            priority: ask.priority,
            request_id: ask.request_id,
            capability: ask.capability,
        };
        let known = undelivered
            .filter(|grant| GroupKey::of(grant) == key && satisfies(grant, &ask.place))
            .count();
        let count = ask
            .count
            .saturating_sub(u32::try_from(known).unwrap_or(u32::MAX));
        if count == 0 && !self.groups.contains_key(&key) {
            return;
        }
        let group = self.groups.entry(key).or_default();
        if ask.place == ANY {
            group.node_label.clone_from(&ask.node_label);
        }
        let wanted = Wanted {
            count,
            relax: ask.relax_locality,
        };
        if count == 0 {
            group.places.remove(&ask.place);
        } else {
            group.places.insert(ask.place.clone(), wanted);
        }
        group.changed = true;
        group.is_new = true;
    }

    /// A container was granted: it is taken from every level that it satisfies.
    pub(crate) fn granted(&mut self, grant: &Grant) {
        let key = GroupKey::of(grant);
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        let is_plain = group.is_plain();
        for (place, wanted) in &mut group.places {
            if satisfies(grant, place) {
                wanted.count = wanted.count.saturating_sub(1);
            }
        }
        group.places.retain(|_, wanted| wanted.count > 0);
        if is_plain {
            if group.places.is_empty() && !group.changed {
                self.groups.remove(&key);
            }
        } else {
            group.changed = true;
        }
    }

    /// The core has no node that large now: it is asked again with the next heartbeat.
    pub(crate) fn too_large_now(&mut self, priority: i32, request_id: i64, capability: Resource) {
        let key = GroupKey {
            priority,
            request_id,
            capability,
        };
        if let Some(group) = self.groups.get_mut(&key) {
            group.changed = true;
        }
    }

    /// Forgets wishes of the last call that the core refused: it has not taken them, and the master
    /// states them again after the refusal of its call.
    pub(crate) fn refused(&mut self, priority: i32, request_id: i64) {
        self.groups.retain(|key, group| {
            !group.is_new || key.priority != priority || key.request_id != request_id
        });
    }

    /// The core's asks that have changed since the last time.
    pub(crate) fn take_changes(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (key, group) in &mut self.groups {
            if !std::mem::take(&mut group.changed) {
                continue;
            }
            let mut gone = std::mem::take(&mut group.told);
            let mut told = BTreeSet::new();
            for (place, count, relax_locality) in group.core_asks() {
                let ask = Arc::new(AskKey {
                    priority: key.priority,
                    request_id: key.request_id,
                    place: place.to_owned(),
                    capability: key.capability,
                    node_label: group.node_label.clone(),
                });
                let was_told = gone.remove(&ask);
                if count > 0 {
                    told.insert(Arc::clone(&ask));
                }
                if count > 0 || was_told {
                    asks.push(Ask {
                        key: ask,
                        count,
                        relax_locality,
                    });
                }
            }
            asks.extend(gone.into_iter().map(|key| Ask {
                key,
                count: 0,
                relax_locality: true,
            }));
            group.told = told;
        }
        self.groups.retain(|_, group| !group.places.is_empty());
        asks
    }
}

/// Whether a container there is one of those asked for at `place`.
fn satisfies(grant: &Grant, place: &str) -> bool {
    place == ANY || place == DEFAULT_RACK || place == grant.node.host()
}

#[cfg(test)]
#[path = "asks_tests.rs"]
mod tests;
