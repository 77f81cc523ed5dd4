//! What must be true between any two events. Tests and the simulator ask after each.

use std::collections::BTreeMap;

use bobbin_types::{ApplicationState, AttemptState, NodeState, Resource};

use crate::application::Application;
use crate::liveness::DeadlineKey;
use crate::manager::{Pending, ResourceManager};
use crate::scheduler::{node_for, room};

impl ResourceManager {
    /// Checks the whole state; slow.
    ///
    /// # Errors
    /// The first thing that is not as it must be, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check_nodes()?;
        self.check_containers()?;
        self.check_applications()?;
        self.check_queue()?;
        if self.pending != Pending::default() {
            return Err(format!("work was left over: {:?}", self.pending));
        }
        if !self.deadlines.is_consistent() {
            return Err("the deadlines disagree with each other".to_owned());
        }
        for key in self.deadlines.keys() {
            self.check_deadline(*key)?;
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), String> {
        let (mut total, mut fetching) = (Resource::default(), 0);
        for (key, node) in &self.nodes {
            let name = &node.id;
            if self.node_keys.get(name) != Some(key) || node.key != *key {
                return Err(format!("{name} is not found under its name"));
            }
            let mut used = Resource::default();
            for id in &node.containers {
                let container = self
                    .containers
                    .get(id)
                    .ok_or_else(|| format!("{id} is in no table"))?;
                if container.node != *key {
                    return Err(format!("{id} is on two nodes"));
                }
                used = used
                    .checked_add(&container.resource)
                    .ok_or("sums overflow")?;
            }
            if let Some(id) = node
                .fetching
                .iter()
                .find(|id| !self.fetching.contains_key(id))
            {
                return Err(format!("{name} fetches for {id}, nobody knows what"));
            }
            fetching += node.fetching.len();
            if used != node.used {
                return Err(format!("{name} uses {used}, its sum says {}", node.used));
            }
            // Before it registers nobody knows its size; one that shrank is full.
            let listed = self.totals.get(key);
            if let Some(listed) = listed {
                total = total.checked_add(listed).ok_or("totals overflow")?;
                if *listed != node.total {
                    return Err(format!("{name} is counted with another size"));
                }
            }
            let is_counted = matches!(node.state, NodeState::Running | NodeState::Unhealthy);
            if is_counted != listed.is_some() {
                return Err(format!(
                    "{name} is {} and counted: {}",
                    node.state, !is_counted
                ));
            }
            if is_counted && !self.known_nodes.contains(name) {
                return Err(format!("{name} is {} and not on record", node.state));
            }
            if self.index.contains(*key) != node.takes_work() {
                return Err(format!("{name} is indexed wrongly"));
            }
            let is_watched = self.deadlines.is_set(DeadlineKey::Node(*key));
            if is_counted && !is_watched {
                return Err(format!("nobody watches {name}"));
            }
        }
        if fetching != self.fetching.len() {
            return Err(format!(
                "files of {fetching} containers are on their way to nodes, not {}",
                self.fetching.len()
            ));
        }
        self.check_sums(&total)
    }

    /// What the cluster has and uses, and which nodes it waits for. `total` is the nodes' sum.
    fn check_sums(&self, total: &Resource) -> Result<(), String> {
        let counted = self
            .nodes
            .values()
            .filter(|n| self.totals.contains_key(&n.key));
        let used = counted
            .map(|node| &node.used)
            .try_fold(Resource::default(), |sum, used| sum.checked_add(used));
        if used != Some(self.cluster_used) {
            return Err(format!(
                "{used:?} is used, the sum says {}",
                self.cluster_used
            ));
        }
        if let Some(name) = self.awaited_nodes.difference(&self.known_nodes).next() {
            return Err(format!("{name} is awaited and not on record"));
        }
        if !self.recovering && !self.awaited_nodes.is_empty() {
            return Err("nodes are awaited for ever".to_owned());
        }
        if *total != self.cluster_total {
            return Err(format!(
                "the cluster has {total}, its sum says {}",
                self.cluster_total
            ));
        }
        Ok(())
    }

    /// Nodes on which more is granted than they have, that did not shrink: there must be none.
    /// `shrunk` says of which node that is known.
    #[must_use]
    pub fn oversubscribed(&self) -> Vec<String> {
        let nodes = self
            .nodes
            .values()
            .filter(|node| self.totals.contains_key(&node.key));
        nodes
            .filter(|node| !node.used.fits_in(&node.total))
            .map(|node| format!("{} has {} and gives {}", node.id, node.total, node.used))
            .collect()
    }

    fn check_containers(&self) -> Result<(), String> {
        let mut used: BTreeMap<_, (Resource, usize)> = BTreeMap::new();
        let mut masters = Resource::default();
        for (id, container) in &self.containers {
            let node = self
                .nodes
                .get(&container.node)
                .ok_or_else(|| format!("{id} is on no node"))?;
            if container.id != *id || !node.containers.contains(id) {
                return Err(format!("{id} is not on its node"));
            }
            if container.is_stopping() != container.stop.is_some() {
                return Err(format!("{id} is {} without an order", container.state));
            }
            if container.accounted {
                let (sum, count) = used.entry(id.application()).or_default();
                *sum = sum
                    .checked_add(&container.resource)
                    .ok_or("sums overflow")?;
                *count += 1;
                if container.is_master {
                    masters = masters
                        .checked_add(&container.resource)
                        .ok_or("sums overflow")?;
                }
            }
        }
        if masters != self.queue.am_used {
            return Err(format!(
                "masters use {masters}, their sum says {}",
                self.queue.am_used
            ));
        }
        for (id, application) in &self.applications {
            let (sum, count) = used.remove(id).unwrap_or_default();
            if sum != application.used || count != application.live.len() {
                return Err(format!(
                    "{id} uses {sum}, its sum says {}",
                    application.used
                ));
            }
        }
        match used.keys().next() {
            Some(id) => Err(format!(
                "containers of {id} are accounted, but it is unknown"
            )),
            None => Ok(()),
        }
    }

    fn check_applications(&self) -> Result<(), String> {
        self.live_applications.check()?;
        for (id, application) in &self.applications {
            if self.live_applications.contains(id) == application.state.is_ended() {
                return Err(format!(
                    "{id} is {} and in the wrong set",
                    application.state
                ));
            }
            if let Some(former) = application
                .former
                .iter()
                .find(|id| !self.containers.contains_key(id))
            {
                return Err(format!("{former} is waited for and in no table"));
            }
            if application.state.is_ended() != application.end.is_some() {
                return Err(format!("{id} is {} without an end", application.state));
            }
            let live: Vec<_> = application
                .attempts
                .iter()
                .filter(|a| !a.state.is_ended())
                .collect();
            if live.len() > 1 {
                return Err(format!("{id} has {} live attempts", live.len()));
            }
            if application.state.is_ended() && !live.is_empty() {
                return Err(format!("{id} has ended, its attempt has not"));
            }
            if self.ready && !application.state.is_ended() {
                self.check_progress(application)?;
            }
        }
        let ended = self.applications.len() - self.live_applications.len();
        if ended != self.ended.len() {
            return Err(format!(
                "{ended} have ended, {} are remembered",
                self.ended.len()
            ));
        }
        Ok(())
    }

    /// A live application has somebody who moves it on: a demand in the queue, a container whose
    /// end is awaited, or a deadline.
    fn check_progress(&self, application: &Application) -> Result<(), String> {
        let id = application.id();
        let Some(attempt) = application.live_attempt() else {
            let unseen =
                self.may_run_unseen(application) && self.deadlines.is_set(DeadlineKey::Recovery);
            let awaits = application.state == ApplicationState::Killing
                && (!application.is_gone() || unseen);
            return if awaits {
                Ok(())
            } else {
                Err(format!("{id} has nobody to move it on"))
            };
        };
        let is_watched = match attempt.state {
            AttemptState::Scheduled => {
                let is_held = application.former_master().is_some();
                let pauses = self
                    .deadlines
                    .is_set(DeadlineKey::Relaunch(application.id()));
                if pauses != application.held_back {
                    return Err(format!("{id} is held back by no deadline"));
                }
                (is_held || pauses) != self.queue.waiting(&application.master_demand()).is_some()
            }
            AttemptState::Launched | AttemptState::Running | AttemptState::Finishing => {
                match &attempt.place {
                    Some((container, _)) => {
                        application.live.contains(container)
                            && self
                                .containers
                                .get(container)
                                .is_some_and(|c| self.deadlines.is_set(DeadlineKey::Node(c.node)))
                    }
                    None => self.deadlines.is_set(DeadlineKey::Master(attempt.id)),
                }
            }
            AttemptState::New
            | AttemptState::Allocated
            | AttemptState::Finished
            | AttemptState::Failed
            | AttemptState::Killed => false,
        };
        if is_watched {
            Ok(())
        } else {
            Err(format!(
                "{} is {} and nobody moves it on",
                attempt.id, attempt.state
            ))
        }
    }

    fn check_queue(&self) -> Result<(), String> {
        if !self.queue.is_consistent() {
            return Err("the queue's sets disagree".to_owned());
        }
        for (key, demand) in self.queue.demands() {
            let id = key.turn.application;
            let application = self
                .applications
                .get(&id)
                .ok_or_else(|| format!("{id} is queued but unknown"))?;
            if application.turn != key.turn {
                return Err(format!("{id} stands at two places"));
            }
            let is_wanted = match &key.ask {
                None => application
                    .live_attempt()
                    .is_some_and(|attempt| attempt.state == AttemptState::Scheduled),
                Some(ask) => application
                    .asks
                    .get(ask)
                    .is_some_and(|wanted| wanted.count > 0),
            };
            if !is_wanted {
                return Err(format!("{id} is queued for what it does not want"));
            }
            // Nothing waits that has room, apart from masters beyond their share.
            let held_back =
                key.ask.is_none() && !demand.size.fits_in(&self.queue.am_room(&self.am_limit()));
            let anywhere = node_for(&self.index, demand);
            if let (false, Some(node)) = (held_back, anywhere) {
                let room = self
                    .nodes
                    .get(&node)
                    .map(|node| room(&node.total, &node.used));
                return Err(format!("{id} waits for {} beside {room:?}", demand.size));
            }
        }
        Ok(())
    }

    fn check_deadline(&self, key: DeadlineKey) -> Result<(), String> {
        let is_known = match key {
            DeadlineKey::Node(node) => self.nodes.contains_key(&node),
            DeadlineKey::Allocation(container) => self.containers.contains_key(&container),
            DeadlineKey::Master(attempt) | DeadlineKey::FinishGrace(attempt) => self
                .attempt(attempt)
                .is_some_and(|attempt| !attempt.state.is_ended()),
            DeadlineKey::Lease(application) | DeadlineKey::Timeout(application) => {
                self.live_applications.contains(&application)
            }
            DeadlineKey::Relaunch(application) => self
                .applications
                .get(&application)
                .is_some_and(|application| application.held_back),
            DeadlineKey::Recovery => self.recovering,
        };
        if is_known {
            Ok(())
        } else {
            Err(format!("{key:?} belongs to nothing"))
        }
    }
}
