//! Answers about the cluster as a whole: nodes by state, queues, what masters are told of both.

use std::collections::BTreeSet;

use bobbin_types::{ApplicationState, AttemptId, NodeState, Resource};

use crate::application::Application;
use crate::manager::ResourceManager;
use crate::reports::{node_report, saturating_sum};
use crate::view::{ClusterMetrics, MasterView, NodeCounts, QueueReport, QueueStatistics};

impl ResourceManager {
    /// Looks at every application: for people and their tools.
    #[must_use]
    pub fn metrics(&self) -> ClusterMetrics {
        ClusterMetrics {
            nodes: self.node_counts(),
            total: self.cluster_total,
            statistics: self.statistics(|_| true),
        }
    }

    fn node_counts(&self) -> NodeCounts {
        let mut counts = NodeCounts::default();
        for node in self.nodes.values() {
            match node.state {
                // Known from before a restart only.
                NodeState::New => {}
                NodeState::Running => counts.running += 1,
                NodeState::Unhealthy => counts.unhealthy += 1,
                NodeState::Decommissioning => counts.decommissioning += 1,
                NodeState::Decommissioned => counts.decommissioned += 1,
                NodeState::Lost => counts.lost += 1,
                NodeState::Rebooted => counts.rebooted += 1,
                NodeState::Shutdown => counts.shutdown += 1,
            }
        }
        counts
    }

    /// Every queue, in the order of the configuration.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueReport> {
        let names = self.config.queues.iter();
        names.filter_map(|name| self.queue_report(name)).collect()
    }

    /// The queue of that name, if there is one.
    #[must_use]
    pub fn queue_report(&self, name: &str) -> Option<QueueReport> {
        self.check_queue_name(name).ok()?;
        let statistics = self.statistics(|application| application.queue == name);
        let share = statistics.allocated.dominant_share(&self.cluster_total) / 1000;
        Some(QueueReport {
            name: name.to_owned(),
            capacity_permille: if self.config.queues.len() == 1 {
                1000
            } else {
                0
            },
            maximum_permille: 1000,
            used_permille: u32::try_from(share).unwrap_or(u32::MAX).min(1000),
            statistics,
        })
    }

    fn statistics(&self, of: impl Fn(&Application) -> bool) -> QueueStatistics {
        let mut sums = QueueStatistics::default();
        let mut users = BTreeSet::new();
        for application in self.applications.values().filter(|a| of(a)) {
            sums.submitted += 1;
            match application.state {
                ApplicationState::New
                | ApplicationState::NewSaving
                | ApplicationState::Submitted
                | ApplicationState::Accepted => sums.pending += 1,
                ApplicationState::Running
                | ApplicationState::FinalSaving
                | ApplicationState::Finishing
                | ApplicationState::Killing => sums.running += 1,
                ApplicationState::Finished => sums.completed += 1,
                ApplicationState::Failed => sums.failed += 1,
                ApplicationState::Killed => sums.killed += 1,
            }
            if application.state.is_ended() {
                continue;
            }
            users.insert(&application.spec.user);
            sums.allocated = saturating_sum(&sums.allocated, &application.used, 1);
            sums.allocated_containers += application.live.len();
            let (wanted, count) = self.wanted(application);
            sums.wanted = saturating_sum(&sums.wanted, &wanted, 1);
            sums.wanted_containers = sums.wanted_containers.saturating_add(count);
        }
        sums.users = users.len();
        sums.available = self.available();
        sums
    }

    /// What nobody has. A node that came back smaller than what runs on it has nothing, not less.
    fn available(&self) -> Resource {
        crate::scheduler::room(&self.cluster_total, &self.cluster_used)
    }

    /// What the master of this attempt is told; `None` if it is over. `since` is the number of
    /// node changes that it knows: from its registration, then from the last answer.
    #[must_use]
    pub fn master_view(&self, attempt: AttemptId, since: u64) -> Option<MasterView> {
        let application = self.applications.get(&attempt.application)?;
        application.live_attempt().filter(|a| a.id == attempt)?;
        let changed_nodes = if since < self.node_changes {
            let nodes = self.nodes.values().filter(|node| node.changed > since);
            nodes.map(node_report).collect()
        } else {
            Vec::new()
        };
        Some(MasterView {
            nodes_running: self.index.len(),
            available: self.available(),
            priority: application.turn.priority.0,
            node_changes: self.node_changes,
            changed_nodes,
        })
    }
}
