//! The scheduler: a pure function from what the cluster looks like to what shall be granted.
//!
//! It is asked on every event that brings room or a demand, never on a timer. Between events no
//! demand waits that has room somewhere (apart from masters beyond their share), so a demand need
//! be searched a node for only when it comes, and a node a demand only when it gets room.

use bobbin_types::{Millis, Resource};

use super::node_index::{NodeIndex, smaller};
use super::waiting::DemandKey;
use crate::node::NodeKey;
use crate::queue::{Queue, Reach, WaitingDemand};

/// What [`plan`] may see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterView<'a> {
    pub(crate) index: &'a NodeIndex,
    pub(crate) queue: &'a Queue,
    /// What masters may take together.
    pub(crate) am_limit: Resource,
    /// Room and host of the node of a [`Trigger::Room`].
    pub(crate) node: Option<(&'a str, Resource)>,
}

/// Why the scheduler is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// This node has room that it had not.
    Room(NodeKey),
    /// Masters may take more than before.
    Masters,
    /// This demand is new.
    Demand(DemandKey),
}

/// What shall be granted; whoever applies it checks it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) grants: Vec<PlannedGrant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedGrant {
    pub(crate) demand: DemandKey,
    pub(crate) size: Resource,
    pub(crate) node: NodeKey,
}

/// The next grant that the trigger makes possible; an empty plan when there is none (any more).
///
/// First in, first out over what fits; nodes by least dominant share. The time is for policies that
/// wait; this one does not.
pub(crate) fn plan(view: &ClusterView<'_>, trigger: &Trigger, _now: Millis) -> Plan {
    let grant = match trigger {
        Trigger::Room(node) => for_room(view, *node),
        Trigger::Masters => for_masters(view),
        Trigger::Demand(demand) => for_demand(view, demand),
    };
    Plan {
        grants: grant.into_iter().collect(),
    }
}

fn for_room(view: &ClusterView<'_>, node: NodeKey) -> Option<PlannedGrant> {
    let (host, room) = view.node?;
    if !view.index.contains(node) {
        return None;
    }
    let for_master = smaller(&room, &view.queue.am_room(&view.am_limit));
    let candidates = [
        view.queue.masters.first_fitting(&for_master, None),
        view.queue.asks.first_fitting(&room, None),
        view.queue.choosy_for(host, &room),
        view.queue
            .asks_of_host(host)
            .and_then(|asks| asks.first_fitting(&room, None)),
    ];
    let demand = candidates.into_iter().flatten().min()?;
    let waiting = view.queue.waiting(demand)?;
    // The room of this event may be on a node that the demand avoids, beside another's.
    let node = match &waiting.reach {
        Reach::NotOn(avoided) if avoided.contains(&node) => node_for(view.index, waiting)?,
        Reach::Anywhere | Reach::Prefer(_) | Reach::NotOn(_) | Reach::Only(_) => node,
    };
    Some(PlannedGrant {
        demand: demand.clone(),
        size: waiting.size,
        node,
    })
}

fn for_masters(view: &ClusterView<'_>) -> Option<PlannedGrant> {
    let probe = smaller(&view.index.most_room(), &view.queue.am_room(&view.am_limit));
    let mut after = None;
    // One step per size class: a class that found no node is not looked at again.
    while let Some(demand) = view.queue.masters.first_fitting(&probe, after) {
        let waiting = view.queue.waiting(demand)?;
        if let Some(node) = node_for(view.index, waiting) {
            return Some(PlannedGrant {
                demand: demand.clone(),
                size: waiting.size,
                node,
            });
        }
        after = Some(demand);
    }
    None
}

fn for_demand(view: &ClusterView<'_>, demand: &DemandKey) -> Option<PlannedGrant> {
    let waiting = view.queue.waiting(demand)?;
    if demand.ask.is_none() && !waiting.size.fits_in(&view.queue.am_room(&view.am_limit)) {
        return None;
    }
    let node = node_for(view.index, waiting)?;
    Some(PlannedGrant {
        demand: demand.clone(),
        size: waiting.size,
        node,
    })
}

/// The node that a demand gets now, if any has room for it.
pub(crate) fn node_for(index: &NodeIndex, waiting: &WaitingDemand) -> Option<NodeKey> {
    let size = &waiting.size;
    let anywhere = || match &waiting.barred {
        None => index.least_used_with_room(size),
        Some(hosts) => index.least_used_but(size, &index.nodes_of(hosts)),
    };
    // A host has one agent, or a few: looking at each is no scan.
    let on_host = |host: &str| {
        let is_well = !waiting.bars(host);
        is_well
            .then(|| index.on_host_with_room(host, size))
            .flatten()
    };
    match &waiting.reach {
        Reach::Anywhere => anywhere(),
        Reach::NotOn(avoided) => index
            .least_used_but(size, avoided)
            .or_else(|| index.least_used_with_room(size)),
        Reach::Prefer(host) => on_host(host).or_else(anywhere),
        Reach::Only(host) => on_host(host),
    }
}
