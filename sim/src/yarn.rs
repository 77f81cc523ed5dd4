//! Masters of YARN's contract: they do not list what they hold, say which ends they know of, bar
//! hosts, and give their containers other sizes.
//!
//! The door that speaks YARN's protocol is in the resource manager's process: their streams break
//! with it or with them, not on the way.

use std::collections::BTreeSet;

use bobbin_rm_core::{ContainerUpdate, UpdateKind, UpdatedContainer};
use bobbin_types::{ContainerId, Resource};

use crate::link::{Ends, Link, Message, To};
use crate::world::World;

/// By how much a container grows or shrinks.
const STEP_MIB: u64 = 64;

impl World {
    /// Whether this stream is a YARN master's with the resource manager.
    pub(crate) fn is_inside(&self, link: &Link) -> bool {
        match link.ends {
            Ends::MasterToRm { master } => self.masters[master].yarn,
            Ends::NodeToRm { .. } | Ends::MasterToNode { .. } => false,
        }
    }

    pub(crate) fn acknowledge_ends(&mut self, master: usize, ended: Vec<ContainerId>) {
        if self.masters[master].yarn {
            self.tell_rm(master, Message::MasterAcknowledge(ended));
        }
    }

    /// What such a master does now and then beside its work.
    pub(crate) fn yarn_step(&mut self, master: usize) {
        if !self.masters[master].yarn {
            return;
        }
        if !self.chaos {
            // A host barred for ever could keep it from ending.
            let removals = std::mem::take(&mut self.masters[master].barred);
            self.bar(master, BTreeSet::new(), removals);
            return;
        }
        match self.rng.range(0, 9) {
            0 => {
                let host = self.some_host();
                let added = BTreeSet::from([host.clone()]);
                self.masters[master].barred.insert(host);
                self.bar(master, added, BTreeSet::new());
            }
            1 => {
                let removals = std::mem::take(&mut self.masters[master].barred);
                self.bar(master, BTreeSet::new(), removals);
            }
            2..5 => self.resize_some(master),
            _ => {}
        }
    }

    fn some_host(&mut self) -> String {
        let node = self.rng.index(self.nodes.len());
        self.nodes[node].id.host().to_owned()
    }

    fn bar(&mut self, master: usize, additions: BTreeSet<String>, removals: BTreeSet<String>) {
        if additions.is_empty() && removals.is_empty() {
            return;
        }
        let message = Message::MasterBlacklist {
            additions: additions.into_iter().collect(),
            removals: removals.into_iter().collect(),
        };
        self.tell_rm(master, message);
    }

    fn resize_some(&mut self, master: usize) {
        let held: Vec<ContainerId> = self.masters[master].granted().collect();
        if held.is_empty() {
            return;
        }
        let container = held[self.rng.index(held.len())];
        let Some(has) = self.processes.get(&container).map(|p| p.resource) else {
            return;
        };
        let grows = self.rng.chance(500) || has.memory_mib <= STEP_MIB;
        let memory_mib = if grows {
            has.memory_mib + STEP_MIB
        } else {
            has.memory_mib - STEP_MIB
        };
        let versions = &self.masters[master].versions;
        let update = ContainerUpdate {
            container,
            version: versions.get(&container).copied().unwrap_or(0),
            kind: if grows {
                UpdateKind::Increase
            } else {
                UpdateKind::Decrease
            },
            resource: Resource { memory_mib, ..has },
        };
        self.tell_rm(master, Message::MasterUpdate(update));
    }

    /// The resource manager has granted other sizes: the tokens go to the nodes.
    pub(crate) fn containers_updated(&mut self, master: usize, updated: Vec<UpdatedContainer>) {
        for UpdatedContainer { container, .. } in updated {
            let (id, version) = (container.container, container.version);
            self.masters[master].versions.insert(id, version);
            let node = self.node_index(&container.node);
            let claims = self.claims(id, container.resource);
            if let Some(link) = self.masters[master].node_links.get(&node).copied() {
                let attempt = self.masters[master].attempt;
                let message = Message::Update {
                    attempt,
                    claims,
                    version,
                };
                self.send(link, To::Called, message);
            }
        }
    }

    /// Containers of an attempt before: this driver has no use for them.
    pub(crate) fn inherited(&mut self, master: usize, containers: Vec<ContainerId>) {
        if !containers.is_empty() {
            self.say(|| format!("master {master} inherits {containers:?}"));
            self.tell_rm(master, Message::MasterRelease(containers));
        }
    }
}
