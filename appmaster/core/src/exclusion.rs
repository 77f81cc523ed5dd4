//! Failures of executors at start: when a node is excluded, when the application gives up.
//!
//! A failure at start is an executor that ended, for a reason of its own, before it was given a
//! task. An executor that had tasks is only replaced: its tasks carry the bound (`tasks/retry.rs`).

use std::collections::{BTreeMap, VecDeque};

use bobbin_types::{Millis, NodeId};

use crate::effect::Effect;
use crate::master::ApplicationMaster;

/// Failures at start, over all nodes and in a row on each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    recent: VecDeque<Millis>,
    in_a_row: BTreeMap<NodeId, u32>,
    excluded: BTreeMap<NodeId, Millis>,
}

impl Failures {
    pub(crate) fn node_works(&mut self, node: &NodeId) {
        self.in_a_row.remove(node);
    }
}

impl ApplicationMaster {
    pub(crate) fn is_excluded(&self, now: Millis, node: &NodeId) -> bool {
        self.failures
            .excluded
            .get(node)
            .is_some_and(|until| now < *until)
    }

    /// Counts a failure at start and gives up when there is no hope.
    pub(crate) fn count_start_failure(
        &mut self,
        now: Millis,
        node: &NodeId,
        diagnostics: &str,
        effects: &mut Vec<Effect>,
    ) {
        let failures = &mut self.failures;
        failures.recent.push_back(now);
        while failures
            .recent
            .front()
            .is_some_and(|at| now.since(*at) > self.config.failure_window_ms)
        {
            failures.recent.pop_front();
        }
        let in_a_row = failures.in_a_row.entry(node.clone()).or_default();
        *in_a_row = in_a_row.saturating_add(1);
        if *in_a_row >= self.config.node_failures_max {
            let until = now.after(self.config.exclusion_ms);
            failures.excluded.insert(node.clone(), until);
        }
        failures.excluded.retain(|_, until| now < *until);

        let wanted = self.wanted_at_most();
        let most = self
            .config
            .executor_failures_max
            .unwrap_or_else(|| wanted.saturating_mul(2).max(3));
        let count = self.failures.recent.len();
        let excluded = self.failures.excluded.len();
        let nodes = usize::try_from(self.nodes_running).unwrap_or(usize::MAX);
        if count > usize::try_from(most).unwrap_or(usize::MAX) {
            self.give_up(
                format!(
                    "{count} executors failed at their start, at most {most} may; the last one: \
                     {diagnostics}"
                ),
                effects,
            );
        } else if excluded > 0 && excluded >= nodes && self.up_executors() == 0 {
            let names: Vec<_> = self.failures.excluded.keys().map(NodeId::as_str).collect();
            let names = names.join(", ");
            self.give_up(
                format!(
                    "every node is excluded because executors keep failing there ({names}); the \
                     last one: {diagnostics}"
                ),
                effects,
            );
        }
    }

    /// The end of all hope for executors: every task is final with these words.
    fn give_up(&mut self, diagnostics: String, effects: &mut Vec<Effect>) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(diagnostics.clone());
        self.fail_all_tasks(&diagnostics, effects);
        effects.push(Effect::Fail { diagnostics });
    }
}
