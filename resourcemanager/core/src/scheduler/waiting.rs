//! Demands that no node has room for now, in the order in which they will be served.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bobbin_types::{ApplicationId, Resource};

use super::fit_bands::FitBands;
use super::fit_tree::Demands;
use crate::event::AskKey;

/// Where an application stands in its queue: the more urgent first, then first come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) priority: Reverse<i32>,
    /// The number of its submission.
    pub(crate) order: u64,
    pub(crate) application: ApplicationId,
}

/// One waiting demand: a master's container (no key) or one ask of a running application.
///
/// Ordered by turn, then by the ask's priority number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DemandKey {
    pub(crate) turn: Turn,
    pub(crate) ask: Option<Arc<AskKey>>,
}

/// An ordered set of demands that finds the first one that fits into a room.
///
/// Demands of one size form a class; the tree holds the head of every class, so a room event costs
/// the logarithm of the number of different sizes however many applications wait.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    classes: BTreeMap<Resource, BTreeSet<DemandKey>>,
    heads: FitBands<DemandKey, Demands>,
    len: usize,
}

impl Waiting {
    pub(crate) fn new() -> Waiting {
        Waiting {
            classes: BTreeMap::new(),
            heads: FitBands::new(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, key: DemandKey, size: Resource) {
        let class = self.classes.entry(size).or_default();
        let old_head = class.first().cloned();
        if !class.insert(key.clone()) {
            return;
        }
        self.len += 1;
        if old_head.as_ref().is_none_or(|head| key < *head) {
            if let Some(head) = old_head {
                self.heads.remove(&head, &size);
            }
            self.heads.insert(key, size);
        }
    }

    pub(crate) fn remove(&mut self, key: &DemandKey, size: &Resource) {
        let Some(class) = self.classes.get_mut(size) else {
            return;
        };
        let was_head = class.first() == Some(key);
        if !class.remove(key) {
            return;
        }
        self.len -= 1;
        if was_head {
            self.heads.remove(key, size);
            match class.first().cloned() {
                Some(head) => self.heads.insert(head, *size),
                None => {
                    self.classes.remove(size);
                }
            }
        }
    }

    pub(crate) fn contains(&self, key: &DemandKey, size: &Resource) -> bool {
        self.classes
            .get(size)
            .is_some_and(|class| class.contains(key))
    }

    /// The first demand that fits into the room. With `after`, the first of another size class
    /// whose head comes after it: for a caller that found no node for the classes before.
    pub(crate) fn first_fitting(
        &self,
        room: &Resource,
        after: Option<&DemandKey>,
    ) -> Option<&DemandKey> {
        self.heads.first_fitting(room, after)
    }

    /// How many demands stand before this one. Scans: for explanations only.
    pub(crate) fn ahead_of(&self, key: &DemandKey) -> usize {
        self.classes
            .values()
            .map(|class| class.range(..key.clone()).count())
            .sum()
    }

    /// Whether the tree of heads agrees with the classes.
    pub(crate) fn is_consistent(&self) -> bool {
        let heads = self
            .classes
            .iter()
            .filter_map(|(size, class)| Some((class.first()?, size)));
        let mut expected: Vec<_> = heads.collect();
        expected.sort();
        self.heads.iter().eq(expected)
            && self.classes.values().all(|class| !class.is_empty())
            && self.len == self.classes.values().map(BTreeSet::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(order: u64) -> DemandKey {
        let application = ApplicationId {
            cluster_timestamp: 1,
            sequence: 1,
        };
        DemandKey {
            turn: Turn {
                priority: Reverse(0),
                order,
                application,
            },
            ask: None,
        }
    }

    #[test]
    fn urgent_first_then_first_come() {
        let application = ApplicationId {
            cluster_timestamp: 1,
            sequence: 1,
        };
        let turn = |priority, order| Turn {
            priority: Reverse(priority),
            order,
            application,
        };
        assert!(turn(5, 9) < turn(0, 1));
        assert!(turn(0, 1) < turn(0, 2));
    }

    proptest! {
        #[test]
        fn finds_the_first_that_fits(
            steps in prop::collection::vec((any::<bool>(), 0..30_u64, 1..5_u64, 1..6_u64), 0..150)
        ) {
            let mut waiting = Waiting::new();
            let mut model = BTreeMap::new();
            for (insert, order, size, room) in steps {
                if insert {
                    if model.contains_key(&order) {
                        continue;
                    }
                    model.insert(order, size);
                    waiting.insert(key(order), Resource::new(size, 1));
                } else if let Some(size) = model.remove(&order) {
                    waiting.remove(&key(order), &Resource::new(size, 1));
                }
                prop_assert!(waiting.is_consistent());
                prop_assert_eq!(waiting.len(), model.len());
                let expected = model.iter().find(|(_, size)| **size <= room).map(|(o, _)| key(*o));
                prop_assert_eq!(
                    waiting.first_fitting(&Resource::new(room, 1), None),
                    expected.as_ref()
                );
            }
        }
    }
}
