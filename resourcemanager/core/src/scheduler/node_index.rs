//! Nodes that can take work, ordered by how much of them is used.

use std::collections::{BTreeMap, BTreeSet};

use bobbin_types::Resource;

use super::fit_bands::FitBands;
use super::fit_tree::Rooms;
use crate::node::NodeKey;

/// Answers "which node with room for this is used least" without visiting the others.
#[derive(Clone, Debug)]
pub(crate) struct NodeIndex {
    /// By the dominant share in use, then by the node's number.
    by_share: FitBands<(u64, NodeKey), Rooms>,
    share_of: BTreeMap<NodeKey, u64>,
    rooms: BTreeMap<NodeKey, Resource>,
    by_host: BTreeMap<String, BTreeSet<NodeKey>>,
}

impl NodeIndex {
    pub(crate) fn new() -> NodeIndex {
        NodeIndex {
            by_share: FitBands::new(),
            share_of: BTreeMap::new(),
            rooms: BTreeMap::new(),
            by_host: BTreeMap::new(),
        }
    }

    /// Puts a node in, or moves it after its use has changed.
    pub(crate) fn put(&mut self, node: NodeKey, host: &str, total: &Resource, used: &Resource) {
        let share = used.dominant_share(total);
        let room = room(total, used);
        let old_room = self.rooms.insert(node, room);
        match (self.share_of.insert(node, share), old_room) {
            (Some(old), Some(old_room)) => {
                self.by_share.remove(&(old, node), &old_room);
            }
            (None, _) | (_, None) => {
                let nodes = self.by_host.entry(host.to_owned()).or_default();
                nodes.insert(node);
            }
        }
        self.by_share.insert((share, node), room);
    }

    pub(crate) fn remove(&mut self, node: NodeKey, host: &str) {
        if let (Some(share), Some(room)) = (self.share_of.remove(&node), self.rooms.remove(&node)) {
            self.by_share.remove(&(share, node), &room);
            if let Some(nodes) = self.by_host.get_mut(host) {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.by_host.remove(host);
                }
            }
        }
    }

    pub(crate) fn contains(&self, node: NodeKey) -> bool {
        self.share_of.contains_key(&node)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_share.len()
    }

    /// The least used node with room for the demand.
    pub(crate) fn least_used_with_room(&self, demand: &Resource) -> Option<NodeKey> {
        self.by_share
            .first_fitting(demand, None)
            .map(|(_, node)| *node)
    }

    /// The least used node with room for the demand that is none of these few.
    pub(crate) fn least_used_but(
        &self,
        demand: &Resource,
        avoided: &BTreeSet<NodeKey>,
    ) -> Option<NodeKey> {
        let mut found = self.by_share.first_fitting(demand, None)?;
        while avoided.contains(&found.1) {
            found = self.by_share.first_fitting(demand, Some(found))?;
        }
        Some(found.1)
    }

    /// All nodes of these hosts.
    pub(crate) fn nodes_of(&self, hosts: &BTreeSet<String>) -> BTreeSet<NodeKey> {
        let nodes = hosts.iter().filter_map(|host| self.by_host.get(host));
        nodes.flatten().copied().collect()
    }

    /// The least used node of a host with room for the demand. Looks at each: a host has few.
    pub(crate) fn on_host_with_room(&self, host: &str, demand: &Resource) -> Option<NodeKey> {
        let nodes = self.by_host.get(host)?;
        let fitting = nodes.iter().filter(|node| {
            self.rooms
                .get(node)
                .is_some_and(|room| demand.fits_in(room))
        });
        fitting
            .min_by_key(|node| (self.share_of.get(node).copied(), **node))
            .copied()
    }

    /// The most room that any node has, kind by kind (not necessarily on one node).
    pub(crate) fn most_room(&self) -> Resource {
        self.by_share.best().unwrap_or_default()
    }
}

/// What is left of `total`. A node that came back smaller may use more than it has: no room then.
pub(crate) fn room(total: &Resource, used: &Resource) -> Resource {
    let mut room = Resource::new(
        total.memory_mib.saturating_sub(used.memory_mib),
        total.vcores.saturating_sub(used.vcores),
    );
    for (i, unit) in room.countable.iter_mut().enumerate() {
        *unit = total.countable[i].saturating_sub(used.countable[i]);
    }
    room
}

/// The lesser of both, kind by kind.
pub(crate) fn smaller(a: &Resource, b: &Resource) -> Resource {
    let mut least = Resource::new(a.memory_mib.min(b.memory_mib), a.vcores.min(b.vcores));
    for (i, unit) in least.countable.iter_mut().enumerate() {
        *unit = a.countable[i].min(b.countable[i]);
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_used_first_then_by_number() {
        let mut index = NodeIndex::new();
        let total = Resource::new(1000, 10);
        for key in 0..3 {
            index.put(NodeKey(key), "h", &total, &Resource::default());
        }
        let demand = Resource::new(100, 1);
        assert_eq!(index.least_used_with_room(&demand), Some(NodeKey(0)));
        index.put(NodeKey(0), "h", &total, &demand);
        assert_eq!(index.least_used_with_room(&demand), Some(NodeKey(1)));
        index.put(NodeKey(1), "h", &total, &Resource::new(50, 5));
        assert_eq!(index.least_used_with_room(&demand), Some(NodeKey(2)));
        index.remove(NodeKey(2), "h");
        assert_eq!(index.least_used_with_room(&demand), Some(NodeKey(0)));
        assert_eq!(
            index.least_used_with_room(&Resource::new(920, 1)),
            Some(NodeKey(1))
        );
        assert_eq!(index.least_used_with_room(&Resource::new(960, 1)), None);
        assert_eq!(
            index.on_host_with_room("h", &Resource::new(920, 1)),
            Some(NodeKey(1))
        );
        assert_eq!(index.on_host_with_room("g", &demand), None);
        let but = |keys: &[u32]| {
            let avoided = keys.iter().map(|key| NodeKey(*key)).collect();
            index.least_used_but(&demand, &avoided)
        };
        assert_eq!(but(&[0]), Some(NodeKey(1)));
        assert_eq!(but(&[1]), Some(NodeKey(0)));
        assert_eq!(but(&[0, 1]), None);
        assert_eq!(index.most_room(), Resource::new(950, 9));
    }

    #[test]
    fn a_node_that_shrank_has_no_room() {
        assert_eq!(
            room(&Resource::new(100, 4), &Resource::new(200, 1)),
            Resource::new(0, 3)
        );
    }
}
