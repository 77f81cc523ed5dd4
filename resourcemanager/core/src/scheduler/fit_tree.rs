//! An ordered map from keys to resources that finds the first key whose resource fits, without
//! visiting the others as long as one kind decides; [`super::fit_bands`] sees to that.
//!
//! A treap in which every subtree knows the best of its resources, kind by kind: a subtree whose
//! best does not fit is skipped whole. Nodes are kept by their room (the best is the largest) and
//! demands by their size (the best is the smallest). The heap order comes from a counter, so equal
//! histories give equal trees.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ops::Bound;

use bobbin_types::Resource;

/// What "fits" and "best" mean in a tree.
pub(crate) trait Fit: Clone + std::fmt::Debug {
    fn best(a: &Resource, b: &Resource) -> Resource;
    fn fits(candidate: &Resource, probe: &Resource) -> bool;
    /// The bands, beside the probe's own, in which every candidate has vcores that fit.
    fn beyond(own: u32) -> (Bound<u32>, Bound<u32>);
    /// The numbers of vcores that fit.
    fn with(vcores: u32) -> (Bound<u32>, Bound<u32>);
}

/// Resources are rooms, the probe is a demand.
#[derive(Clone, Debug)]
pub(crate) struct Rooms;

/// Resources are demands, the probe is a room.
#[derive(Clone, Debug)]
pub(crate) struct Demands;

fn kind_by_kind(
    a: &Resource,
    b: &Resource,
    pick_u64: fn(u64, u64) -> u64,
    pick_u32: fn(u32, u32) -> u32,
) -> Resource {
    let mut best = Resource::new(
        pick_u64(a.memory_mib, b.memory_mib),
        pick_u32(a.vcores, b.vcores),
    );
    for (i, unit) in best.countable.iter_mut().enumerate() {
        *unit = pick_u64(a.countable[i], b.countable[i]);
    }
    best
}

impl Fit for Rooms {
    fn best(a: &Resource, b: &Resource) -> Resource {
        kind_by_kind(a, b, u64::max, u32::max)
    }
    fn fits(candidate: &Resource, probe: &Resource) -> bool {
        probe.fits_in(candidate)
    }
    fn beyond(own: u32) -> (Bound<u32>, Bound<u32>) {
        (Bound::Excluded(own), Bound::Unbounded)
    }
    fn with(vcores: u32) -> (Bound<u32>, Bound<u32>) {
        (Bound::Included(vcores), Bound::Unbounded)
    }
}

impl Fit for Demands {
    fn best(a: &Resource, b: &Resource) -> Resource {
        kind_by_kind(a, b, u64::min, u32::min)
    }
    fn fits(candidate: &Resource, probe: &Resource) -> bool {
        candidate.fits_in(probe)
    }
    fn beyond(own: u32) -> (Bound<u32>, Bound<u32>) {
        (Bound::Unbounded, Bound::Excluded(own))
    }
    fn with(vcores: u32) -> (Bound<u32>, Bound<u32>) {
        (Bound::Unbounded, Bound::Included(vcores))
    }
}

#[derive(Clone, Debug)]
struct Branch<K> {
    key: K,
    resource: Resource,
    best: Resource,
    weight: u64,
    left: Link<K>,
    right: Link<K>,
}

type Link<K> = Option<Box<Branch<K>>>;

/// See the module's description.
#[derive(Clone, Debug)]
pub(crate) struct FitTree<K, F> {
    root: Link<K>,
    /// The first key: a search that has found an earlier one elsewhere passes by.
    first: Option<K>,
    len: usize,
    inserted: u64,
    fit: PhantomData<F>,
}

/// SplitMix64's finalizer: spreads a counter over all 64 bits.
fn scramble(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl<K: Ord + Clone, F: Fit> FitTree<K, F> {
    pub(crate) fn new() -> Self {
        FitTree {
            root: None,
            first: None,
            len: 0,
            inserted: 0,
            fit: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The best of all resources, kind by kind; `None` when the tree is empty.
    pub(crate) fn best(&self) -> Option<Resource> {
        self.root.as_ref().map(|branch| branch.best)
    }

    /// Inserts, or replaces the resource of the key.
    pub(crate) fn insert(&mut self, key: K, resource: Resource) {
        self.remove(&key);
        self.inserted += 1;
        if self.first.as_ref().is_none_or(|first| key < *first) {
            self.first = Some(key.clone());
        }
        let (left, right) = Self::split(self.root.take(), &key);
        let branch = Box::new(Branch {
            key,
            resource,
            best: resource,
            weight: scramble(self.inserted),
            left: None,
            right: None,
        });
        self.root = Self::merge(Self::merge(left, Some(branch)), right);
        self.len += 1;
    }

    /// Whether the key was there.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        let removed = Self::remove_from(&mut self.root, key);
        if removed {
            self.len -= 1;
            if self.first.as_ref() == Some(key) {
                let first = self.iter().next().map(|(key, _)| key.clone());
                self.first = first;
            }
        }
        removed
    }

    /// The first key (after `after`, if given) whose resource fits the probe, or `found` if that
    /// comes before it. Counts the entries it visits.
    pub(crate) fn earlier<'a>(
        &'a self,
        found: Option<&'a K>,
        probe: &Resource,
        after: Option<&K>,
        visits: &mut usize,
    ) -> Option<&'a K> {
        let is_later = |first: &K| found.is_some_and(|found| found < first);
        if self.first.as_ref().is_none_or(is_later) {
            return found;
        }
        let own = Self::search(self.root.as_deref(), probe, after, visits);
        match (found, own) {
            (Some(found), Some(own)) => Some(found.min(own)),
            (found, own) => found.or(own),
        }
    }

    /// All entries in order. For checks and explanations, not for decisions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &Resource)> {
        let mut stack = Vec::new();
        let mut next = self.root.as_deref();
        std::iter::from_fn(move || {
            while let Some(branch) = next {
                stack.push(branch);
                next = branch.left.as_deref();
            }
            let branch = stack.pop()?;
            next = branch.right.as_deref();
            Some((&branch.key, &branch.resource))
        })
    }

    fn search<'a>(
        link: Option<&'a Branch<K>>,
        probe: &Resource,
        after: Option<&K>,
        visits: &mut usize,
    ) -> Option<&'a K> {
        let branch = link?;
        *visits += 1;
        if !F::fits(&branch.best, probe) {
            return None;
        }
        let past = after.is_some_and(|after| branch.key <= *after);
        if !past {
            if let Some(found) = Self::search(branch.left.as_deref(), probe, after, visits) {
                return Some(found);
            }
            if F::fits(&branch.resource, probe) {
                return Some(&branch.key);
            }
        }
        // Everything right of a key that is not past `after` is not past it either.
        Self::search(
            branch.right.as_deref(),
            probe,
            if past { after } else { None },
            visits,
        )
    }

    fn refresh(branch: &mut Branch<K>) {
        let mut best = branch.resource;
        for side in [&branch.left, &branch.right].into_iter().flatten() {
            best = F::best(&best, &side.best);
        }
        branch.best = best;
    }

    /// Keys below `key`, and the others.
    fn split(link: Link<K>, key: &K) -> (Link<K>, Link<K>) {
        let Some(mut branch) = link else {
            return (None, None);
        };
        if branch.key < *key {
            let (left, right) = Self::split(branch.right.take(), key);
            branch.right = left;
            Self::refresh(&mut branch);
            (Some(branch), right)
        } else {
            let (left, right) = Self::split(branch.left.take(), key);
            branch.left = right;
            Self::refresh(&mut branch);
            (left, Some(branch))
        }
    }

    /// All keys of `left` are below all of `right`.
    fn merge(left: Link<K>, right: Link<K>) -> Link<K> {
        match (left, right) {
            (None, link) | (link, None) => link,
            (Some(mut left), Some(mut right)) => {
                if left.weight >= right.weight {
                    left.right = Self::merge(left.right.take(), Some(right));
                    Self::refresh(&mut left);
                    Some(left)
                } else {
                    right.left = Self::merge(Some(left), right.left.take());
                    Self::refresh(&mut right);
                    Some(right)
                }
            }
        }
    }

    fn remove_from(link: &mut Link<K>, key: &K) -> bool {
        let Some(branch) = link else { return false };
        let removed = match key.cmp(&branch.key) {
            Ordering::Less => Self::remove_from(&mut branch.left, key),
            Ordering::Greater => Self::remove_from(&mut branch.right, key),
            Ordering::Equal => {
                let (left, right) = (branch.left.take(), branch.right.take());
                *link = Self::merge(left, right);
                return true;
            }
        };
        if removed {
            Self::refresh(branch);
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u64, u32),
        Remove(u8),
        Probe(u64, u32, Option<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<u8>(), 0..20_u64, 0..20_u32).prop_map(|(k, m, v)| Step::Insert(k, m, v)),
            any::<u8>().prop_map(Step::Remove),
            (0..20_u64, 0..20_u32, any::<Option<u8>>()).prop_map(|(m, v, a)| Step::Probe(m, v, a)),
        ]
    }

    fn agrees<F: Fit>(steps: &[Step]) {
        let mut tree = FitTree::<u8, F>::new();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(key, memory, vcores) => {
                    let resource = Resource::new(*memory, *vcores);
                    tree.insert(*key, resource);
                    model.insert(*key, resource);
                }
                Step::Remove(key) => {
                    assert_eq!(tree.remove(key), model.remove(key).is_some());
                }
                Step::Probe(memory, vcores, after) => {
                    let probe = Resource::new(*memory, *vcores);
                    let expected = model
                        .iter()
                        .find(|(k, r)| after.is_none_or(|a| **k > a) && F::fits(r, &probe))
                        .map(|(k, _)| k);
                    assert_eq!(tree.earlier(None, &probe, after.as_ref(), &mut 0), expected);
                }
            }
            assert_eq!(tree.len(), model.len());
            assert!(tree.iter().eq(model.iter()));
            assert_eq!(tree.first.as_ref(), model.keys().next());
            assert_eq!(
                tree.best(),
                model.values().copied().reduce(|a, b| F::best(&a, &b))
            );
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_scan(steps in prop::collection::vec(step(), 0..200)) {
            agrees::<Rooms>(&steps);
            agrees::<Demands>(&steps);
        }
    }

    #[test]
    fn depth_stays_logarithmic() {
        fn depth(link: &Link<u32>) -> usize {
            link.as_ref()
                .map_or(0, |b| 1 + depth(&b.left).max(depth(&b.right)))
        }
        let mut tree = FitTree::<u32, Rooms>::new();
        for key in 0..10_000 {
            tree.insert(key, Resource::new(1, 1));
        }
        assert!(depth(&tree.root) < 60, "{}", depth(&tree.root));
    }
}
