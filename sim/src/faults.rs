//! What goes wrong, by chance.

use bobbin_types::{ContainerId, Millis};

use crate::link::LinkId;
use crate::world::{Action, World};

impl World {
    /// One fault, and the time of the next.
    pub(crate) fn fault(&mut self) {
        if !self.chaos {
            return;
        }
        let node = self.rng.index(self.nodes.len());
        match self.rng.range(0, 99) {
            0..15 => self.rm_crash(),
            15..33 => self.node_crash(node),
            33..38 => self.host_crash(node),
            38..65 => self.break_some_link(),
            65..75 => self.partition(node),
            _ => self.kill_some_process(),
        }
        let next = self.rng.range(200, 4_000);
        self.at(next, Action::Fault);
    }

    fn break_some_link(&mut self) {
        let all: Vec<LinkId> = self.links_where(|link| !self.is_inside(link));
        if !all.is_empty() {
            let link = all[self.rng.index(all.len())];
            self.say(|| format!("stream {} breaks", link.0));
            self.break_link(link);
        }
    }

    fn partition(&mut self, node: usize) {
        use crate::link::Ends;
        let ms = self.rng.range(300, 12_000);
        self.say(|| format!("node {node} is cut off for {ms} ms"));
        self.nodes[node].partitioned_until = self.now.after(ms);
        let here: Vec<usize> = (0..self.masters.len())
            .filter(|m| {
                let container = self.masters[*m].container;
                container
                    .and_then(|c| self.processes.get(&c))
                    .is_some_and(|p| p.node == node)
            })
            .collect();
        for link in self.links_where(|l| match l.ends {
            Ends::NodeToRm { node: n, .. } => n == node,
            Ends::MasterToRm { master } => here.contains(&master) && !self.masters[master].yarn,
            Ends::MasterToNode {
                master, node: n, ..
            } => (n == node) != here.contains(&master),
        }) {
            self.break_link(link);
        }
    }

    fn kill_some_process(&mut self) {
        let alive: Vec<ContainerId> = self
            .processes
            .iter()
            .filter(|(_, p)| p.alive)
            .map(|(id, _)| *id)
            .collect();
        if !alive.is_empty() {
            let container = alive[self.rng.index(alive.len())];
            self.at(
                0,
                Action::ProcessEnds {
                    container,
                    exit_status: 137,
                },
            );
        }
    }

    /// From now on nothing goes wrong any more, and everything has to come to its end.
    pub(crate) fn heal(&mut self) {
        self.chaos = false;
        self.say(|| "healed".to_owned());
        for node in &mut self.nodes {
            node.partitioned_until = Millis(0);
        }
    }
}
