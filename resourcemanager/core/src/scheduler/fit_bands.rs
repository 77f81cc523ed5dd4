//! An ordered map like [`FitTree`] whose search visits few entries however mixed they are.
//!
//! In one tree the most memory and the most vcores of a subtree may be two entries', so that a
//! subtree looks promising in which nothing fits; with nodes that have either none of the one or
//! none of the other free, a search visits them all. So entries are kept in one tree per band of
//! vcores: one value wide up to 31, then eight bands for every doubling. In all bands beyond the
//! probe's own every entry has vcores enough, so only memory decides and a search needs at most two
//! paths from the root. The probe's own band is searched value by value, likewise. Countable kinds
//! beside memory and vcores are only pruned.
//!
//! A grid of free cells, as in the placement measurements, with exact edges.

use std::collections::BTreeMap;

use bobbin_types::Resource;

use super::fit_tree::{Fit, FitTree};

/// Bands up to here hold one value each.
const SINGLE_VALUES: u32 = 32;

/// The band of a number of vcores; larger numbers have the same or a later band.
fn band_of(vcores: u32) -> u32 {
    if vcores < SINGLE_VALUES {
        return vcores;
    }
    let octave = vcores.ilog2();
    let eighth = (vcores >> (octave - 3)) & 7;
    SINGLE_VALUES + (octave - 5) * 8 + eighth
}

#[derive(Clone, Debug)]
struct Band<K, F> {
    all: FitTree<K, F>,
    /// The same entries by their exact number of vcores; empty in a band of one value.
    by_vcores: BTreeMap<u32, FitTree<K, F>>,
}

/// See the module's description.
#[derive(Clone, Debug)]
pub(crate) struct FitBands<K, F> {
    bands: BTreeMap<u32, Band<K, F>>,
    len: usize,
}

impl<K: Ord + Clone, F: Fit> FitBands<K, F> {
    pub(crate) fn new() -> Self {
        FitBands {
            bands: BTreeMap::new(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The best of all resources, kind by kind; `None` when there is none.
    pub(crate) fn best(&self) -> Option<Resource> {
        let bands = self.bands.values().filter_map(|band| band.all.best());
        bands.reduce(|a, b| F::best(&a, &b))
    }

    /// Puts a key in that is not there.
    pub(crate) fn insert(&mut self, key: K, resource: Resource) {
        let vcores = resource.vcores;
        let band = self.bands.entry(band_of(vcores)).or_insert_with(|| Band {
            all: FitTree::new(),
            by_vcores: BTreeMap::new(),
        });
        let before = band.all.len();
        if vcores >= SINGLE_VALUES {
            let tree = band.by_vcores.entry(vcores).or_insert_with(FitTree::new);
            tree.insert(key.clone(), resource);
        }
        band.all.insert(key, resource);
        self.len += band.all.len() - before;
    }

    /// Takes a key out that was put in with this resource. Whether it was there.
    pub(crate) fn remove(&mut self, key: &K, resource: &Resource) -> bool {
        let number = band_of(resource.vcores);
        let Some(band) = self.bands.get_mut(&number) else {
            return false;
        };
        if !band.all.remove(key) {
            return false;
        }
        self.len -= 1;
        if let Some(tree) = band.by_vcores.get_mut(&resource.vcores) {
            tree.remove(key);
            if tree.len() == 0 {
                band.by_vcores.remove(&resource.vcores);
            }
        }
        if band.all.len() == 0 {
            self.bands.remove(&number);
        }
        true
    }

    /// The first key (after `after`, if given) whose resource fits the probe.
    pub(crate) fn first_fitting(&self, probe: &Resource, after: Option<&K>) -> Option<&K> {
        self.search(probe, after, &mut 0)
    }

    fn search(&self, probe: &Resource, after: Option<&K>, visits: &mut usize) -> Option<&K> {
        let own = band_of(probe.vcores);
        let mut found: Option<&K> = None;
        // The most room first: there the nodes are that are used least, and a tree whose first key
        // comes later than what was found is not searched.
        for band in self.bands.range(F::beyond(own)).rev().map(|(_, band)| band) {
            found = band.all.earlier(found, probe, after, visits);
        }
        let Some(band) = self.bands.get(&own) else {
            return found;
        };
        if own < SINGLE_VALUES {
            return band.all.earlier(found, probe, after, visits);
        }
        for (_, tree) in band.by_vcores.range(F::with(probe.vcores)).rev() {
            found = tree.earlier(found, probe, after, visits);
        }
        found
    }

    /// All entries in order. For checks and explanations, not for decisions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &Resource)> {
        let mut all: Vec<_> = self.bands.values().flat_map(|b| b.all.iter()).collect();
        all.sort_by(|a, b| a.0.cmp(b.0));
        all.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::fit_tree::{Demands, Rooms};
    use super::*;

    #[test]
    fn bands_are_in_order_and_few() {
        let mut last = 0;
        for vcores in 0..=65_536_u32 {
            let band = band_of(vcores);
            assert!(band == last || band == last + 1, "{vcores}");
            last = band;
        }
        assert_eq!(band_of(31), 31);
        assert_eq!(band_of(32), 32);
        assert_eq!(last, 120);
        assert_eq!(band_of(u32::MAX), 247);
    }

    fn agrees<F: Fit>(steps: &[(u8, u64, u32, Option<u8>)]) {
        let mut bands = FitBands::<u8, F>::new();
        let mut model: BTreeMap<u8, Resource> = BTreeMap::new();
        for (key, memory, vcores, after) in steps {
            let resource = Resource::new(*memory, *vcores);
            if let Some(old) = model.remove(key) {
                assert!(bands.remove(key, &old) && !bands.remove(key, &old));
            } else {
                bands.insert(*key, resource);
                model.insert(*key, resource);
            }
            let fitting = model
                .iter()
                .find(|(k, r)| after.is_none_or(|a| **k > a) && F::fits(r, &resource));
            assert_eq!(
                bands.first_fitting(&resource, after.as_ref()),
                fitting.map(|(k, _)| k)
            );
            assert_eq!(bands.len(), model.len());
            assert!(bands.iter().eq(model.iter()));
            let best = model.values().copied().reduce(|a, b| F::best(&a, &b));
            assert_eq!(bands.best(), best);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_scan(steps in prop::collection::vec(
            (any::<u8>(), 0..40_u64, prop_oneof![0..40_u32, 30..300_u32], any::<Option<u8>>()),
            0..150,
        )) {
            agrees::<Rooms>(&steps);
            agrees::<Demands>(&steps);
        }
    }

    /// The most visits of any of these probes, in bands and in one tree.
    fn most_visits(
        nodes: u32,
        room: fn(u64) -> Resource,
        probe: fn(u64) -> Resource,
    ) -> [usize; 2] {
        let scramble = |n: u64| {
            let z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 16
        };
        let (mut bands, mut tree) = (FitBands::<u32, Rooms>::new(), FitTree::<u32, Rooms>::new());
        for node in 0..nodes {
            let room = room(scramble(u64::from(node)));
            bands.insert(node, room);
            tree.insert(node, room);
        }
        let mut most = [0, 0];
        for number in 0..200 {
            let probe = probe(scramble(1_000_000 + number));
            let (mut by_bands, mut by_tree) = (0, 0);
            let found = bands.search(&probe, None, &mut by_bands);
            assert_eq!(found, tree.earlier(None, &probe, None, &mut by_tree));
            most = [most[0].max(by_bands), most[1].max(by_tree)];
        }
        most
    }

    /// Nodes that have either much memory or many vcores free, and demands for some of both.
    fn either(n: u64) -> Resource {
        let small = (n >> 8) % 1000;
        if n.is_multiple_of(2) {
            Resource::new(200_000 + small, 8)
        } else {
            Resource::new(1000 + small, 200)
        }
    }

    fn any_room(n: u64) -> Resource {
        Resource::new(n % 262_144, u32::try_from((n >> 20) % 256).unwrap())
    }

    #[test]
    fn a_search_visits_few_nodes() {
        let both = |n: u64| Resource::new(4000 + n % 100_000, 9 + u32::try_from(n % 100).unwrap());
        let large =
            |n: u64| Resource::new(255_000 + n % 9_000, 200 + u32::try_from(n % 56).unwrap());
        let mut report = Vec::new();
        for nodes in [1_000, 10_000, 50_000] {
            let [bands, tree] = most_visits(nodes, either, both);
            let challenged = usize::try_from(nodes).unwrap() / 2;
            assert!(
                tree >= challenged,
                "a single tree is not challenged: {tree}"
            );
            assert!(bands <= 10, "{bands}");
            let [mixed, mixed_tree] = most_visits(nodes, any_room, any_room);
            let [full, full_tree] = most_visits(nodes, any_room, large);
            assert!(mixed <= 600 && full <= 600, "{mixed} {full}");
            report.push((nodes, bands, tree, mixed, mixed_tree, full, full_tree));
        }
        println!("nodes, visits (bands, tree): either, any, large {report:?}");
    }
}
