//! The promises, against the truth.

use bobbin_rm_core::ResourceManager;
use bobbin_types::{ApplicationId, ContainerId, NodeState, Resource};

use crate::world::World;

impl World {
    /// Whether the resource manager does not reach a node now.
    fn given_up(&self, node: usize) -> bool {
        let id = &self.nodes[node].id;
        match self.rm.core.as_ref().and_then(|core| core.node(id)) {
            Some(report) => report.state == NodeState::Lost || !report.connected,
            None => true,
        }
    }

    /// Remembers which nodes were given up, and when last.
    fn note_lost_nodes(&mut self) {
        let Some(core) = &self.rm.core else { return };
        for node in &mut self.nodes {
            if core
                .node(&node.id)
                .is_none_or(|report| report.state == NodeState::Lost)
            {
                node.given_up_at = Some(self.now);
            }
        }
    }

    /// Before a process starts: never twice, never two masters, never more than the node has.
    pub(crate) fn check_launch(
        &mut self,
        node: usize,
        container: ContainerId,
        resource: Resource,
        is_master: bool,
    ) {
        if self.processes.contains_key(&container) {
            self.violate(format!("{container} is launched twice"));
        }
        if is_master {
            let other = self.processes.iter().find(|(id, p)| {
                p.alive
                    && id.application() == container.application()
                    && p.master
                        .is_some_and(|m| self.masters[m].container == Some(**id))
            });
            // The old one's node was given up after it began: it can do nothing any more, and is
            // ended when its node is heard of again.
            if let Some((other, process)) = other
                && self.nodes[process.node]
                    .given_up_at
                    .is_none_or(|at| at < process.began)
            {
                let words = format!("{container} is launched while {other} still runs");
                self.violate(words);
            }
        }
        let used = self
            .processes
            .values()
            .filter(|p| p.alive && p.node == node)
            .try_fold(resource, |sum, p| sum.checked_add(&p.resource));
        let total = self.nodes[node].total;
        if used.is_none_or(|used| !used.fits_in(&total)) {
            self.violate(format!(
                "node {node} of {total} is oversubscribed by {container}"
            ));
        }
    }

    /// After a kill was answered nothing of the application runs, but where nobody can look.
    pub(crate) fn check_killed(&mut self, application: ApplicationId) {
        let left = self
            .processes
            .iter()
            .find(|(id, p)| p.alive && id.application() == application && !self.given_up(p.node))
            .map(|(id, _)| *id);
        if let Some(left) = left {
            self.violate(format!(
                "{application} is said to be killed but {left} runs"
            ));
        }
    }

    /// After every event.
    pub(crate) fn check(&mut self) {
        if !self.rm.open {
            return;
        }
        self.note_lost_nodes();
        let Some(core) = &self.rm.core else { return };
        let broken = core.check_invariants().err().map(|e| format!("rm: {e}"));
        let mut broken = broken;
        if !self.rm.is_synced() {
            // People are shown what is durable.
            if let Some(words) = broken {
                self.violate(words);
            }
            return;
        }
        for client in &mut self.clients {
            let (Some(id), true) = (client.id, client.acknowledged) else {
                continue;
            };
            broken = broken.or_else(|| seen(core, id, &mut client.ended));
        }
        if let Some(words) = broken {
            self.violate(words);
        }
    }

    /// Everything that was acknowledged has ended and nothing runs.
    pub(crate) fn is_over(&self) -> bool {
        self.rm.open
            && self
                .clients
                .iter()
                .all(|c| c.acknowledged && c.ended.is_some())
            && self.clients.iter().all(|c| !c.wants_kill || c.killed)
            && self.processes.values().all(|p| !p.alive)
            && self.masters.iter().all(|m| !m.alive)
            && self.nodes.iter().all(|n| {
                n.core
                    .as_ref()
                    .is_some_and(|core| core.containers().next().is_none())
            })
            && self.rm.core.as_ref().is_some_and(ends_empty)
    }

    /// For the message when a run does not end.
    pub(crate) fn what_hangs(&self) -> String {
        let mut words = Vec::new();
        for (n, client) in self.clients.iter().enumerate() {
            if client.ended.is_none() || (client.wants_kill && !client.killed) {
                let report = client
                    .id
                    .and_then(|id| self.rm.core.as_ref().and_then(|core| core.application(id)));
                words.push(format!("client {n} ({:?}): {report:?}", client.spec));
                let held = client
                    .id
                    .zip(self.rm.core.as_ref())
                    .map(|(id, core)| core.containers(id, 0, None).rows)
                    .unwrap_or_default();
                for row in held.iter().filter(|row| row.exit_status.is_none()) {
                    let (id, state, why) = (row.container, row.state, &row.diagnostics);
                    words.push(format!("rm has {id} as {state} ({why})"));
                }
            }
        }
        for (id, process) in self.processes.iter().filter(|(_, p)| p.alive) {
            words.push(format!("{id} runs on node {}", process.node));
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let held: Vec<_> = node
                .core
                .iter()
                .flat_map(|core| core.containers())
                .collect();
            if !held.is_empty() {
                words.push(format!("node {n} holds {held:?}"));
            }
        }
        for master in self.masters.iter().filter(|m| m.alive) {
            words.push(master.words());
        }
        if let Some(core) = &self.rm.core {
            words.push(format!(
                "rm counts {} as used, {:?}",
                core.cluster().used,
                core.nodes()
            ));
        }
        words.join("; ")
    }
}

/// Every node is back and the resource manager counts nothing on any of them.
fn ends_empty(core: &ResourceManager) -> bool {
    core.cluster().used.is_zero()
        && core
            .nodes()
            .iter()
            .all(|n| n.connected && n.containers == 0)
}

/// An acknowledged application is known, and its end does not change.
fn seen(
    core: &ResourceManager,
    id: ApplicationId,
    ended: &mut Option<(
        bobbin_types::ApplicationState,
        Option<bobbin_types::ExitStatus>,
    )>,
) -> Option<String> {
    let Some(report) = core.application(id) else {
        return Some(format!("{id} was acknowledged and is lost"));
    };
    let now = (report.state, report.exit_status);
    match ended {
        Some(before) if *before != now => {
            Some(format!("{id} had ended as {before:?} and is now {now:?}"))
        }
        Some(_) => None,
        None => {
            if report.state.is_ended() {
                *ended = Some(now);
            }
            None
        }
    }
}
