//! Files on their way to nodes: what containers that have not started wait for, as their nodes say
//! with every heartbeat. Shown only.

use bobbin_types::{AttemptId, ContainerId};

use crate::event::Fetching;
use crate::limits;
use crate::manager::ResourceManager;
use crate::node::NodeKey;

/// Characters of a name in words.
const NAME_MAX: usize = 80;
/// Containers of an application whose files are told one by one.
const TOLD_MAX: usize = 3;

impl ResourceManager {
    /// Takes what a node says now in place of what it said before.
    pub(crate) fn note_fetching(&mut self, key: NodeKey, fetching: Vec<Fetching>) {
        let Some(node) = self.nodes.get_mut(&key) else {
            return;
        };
        if fetching.is_empty() && node.fetching.is_empty() {
            return;
        }
        for id in std::mem::take(&mut node.fetching) {
            self.fetching.remove(&id);
            self.pending.changed.insert(id.application());
        }
        for file in fetching.into_iter().take(limits::FETCHING_PER_NODE_MAX) {
            let id = file.container;
            // Of others it has nothing to say.
            if !node.containers.contains(&id) {
                continue;
            }
            node.fetching.insert(id);
            self.fetching.entry(id).or_default().push(file);
            self.pending.changed.insert(id.application());
        }
    }

    /// What a container waits for; `None` once it runs, or when nothing is known.
    pub(crate) fn fetching_of(&self, id: &ContainerId) -> Option<String> {
        let files = self.fetching.get(id)?;
        let waits = (self.containers.get(id)).is_some_and(|c| !c.started && !c.is_stopping());
        let first = files.first().filter(|_| waits)?;
        let name: String = (first.name.chars())
            .filter(|c| !c.is_control())
            .take(NAME_MAX)
            .collect();
        let of_total = match first.bytes_total {
            0 => String::new(),
            total => format!(" of {}", size(total)),
        };
        let more = match files.len() {
            1 => String::new(),
            n => format!(" and {} more files", n - 1),
        };
        let so_far = size(first.bytes);
        Some(format!("fetching '{name}', {so_far}{of_total}{more}"))
    }

    /// What the containers of an attempt wait for, but for its master's.
    pub(crate) fn fetching_reasons(&self, attempt: AttemptId) -> Vec<String> {
        let first = ContainerId {
            attempt,
            epoch: 0,
            number: 0,
        };
        let of_it = self
            .fetching
            .range(first..)
            .take_while(|(id, _)| id.attempt == attempt)
            .filter_map(|(id, _)| {
                let container = self.containers.get(id).filter(|c| !c.is_master)?;
                let node = self.nodes.get(&container.node)?;
                Some(format!("{id} on {} is {}", node.id, self.fetching_of(id)?))
            });
        let mut reasons: Vec<String> = of_it.take(TOLD_MAX + 1).collect();
        if reasons.len() > TOLD_MAX {
            reasons.truncate(TOLD_MAX);
            reasons.push("more containers are fetching files".to_owned());
        }
        reasons
    }
}

/// Bytes in the largest unit of which there is at least one, cut.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("bytes", 0)];
    let (name, shift) = (UNITS.iter())
        .find(|(_, shift)| bytes >> shift > 0)
        .unwrap_or(&("bytes", 0));
    format!("{} {name}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_cut_to_their_unit() {
        let all = [0, 1, 1023, 1024, 5 << 20, (1 << 30) - 1, 1 << 30, u64::MAX];
        let words = all.map(size).join(", ");
        assert_eq!(
            words,
            "0 bytes, 1 bytes, 1023 bytes, 1 KiB, 5 MiB, 1023 MiB, 1 GiB, 17179869183 GiB"
        );
    }
}
