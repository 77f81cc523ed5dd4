//! When and where the next attempt of an application starts whose masters keep ending through no
//! fault of their own: a node that refuses every launch must not be tried a thousand times a second.
//!
//! Everything is derived from the attempts on record, so a restart changes nothing.

use std::collections::BTreeSet;

use bobbin_types::{ApplicationId, AttemptState, Millis, NodeId};

use crate::application::Application;
use crate::attempt::Attempt;
use crate::limits::{NODES_AVOIDED_MAX, RELAUNCH_PAUSES_MS, RELAUNCH_SOUND_MS};
use crate::liveness::DeadlineKey;
use crate::manager::ResourceManager;
use crate::node::NodeKey;

/// It ended soon, and it did not use one of the application's attempts up.
fn failed_early(attempt: &Attempt) -> bool {
    let lived_ms = match (attempt.started, attempt.finished) {
        (Some(started), Some(finished)) => finished.0.saturating_sub(started.0),
        (None, _) | (_, None) => 0,
    };
    attempt.state == AttemptState::Failed && !attempt.counted && lived_ms < RELAUNCH_SOUND_MS
}

/// The last attempts in a row that ended like this, the newest first.
fn row(application: &Application) -> impl Iterator<Item = &Attempt> {
    let ended = application.attempts.iter().rev();
    ended
        .skip_while(|attempt| !attempt.state.is_ended())
        .take_while(|attempt| failed_early(attempt))
}

/// How long the next attempt of the application is held back.
pub(crate) fn pause_ms(application: &Application) -> u64 {
    let failures = row(application).take(RELAUNCH_PAUSES_MS.len()).count();
    let last = failures.checked_sub(1);
    last.and_then(|last| RELAUNCH_PAUSES_MS.get(last).copied())
        .unwrap_or(0)
}

/// Why the next attempt is held back, in words.
pub(crate) fn pause_in_words(application: &Application) -> String {
    let failures = row(application).count();
    let pause_ms = pause_ms(application);
    let last = row(application).next();
    let place = last.and_then(|attempt| attempt.place.as_ref());
    let node = place.map_or_else(String::new, |(_, node)| format!(" on {node}"));
    let why = last.map_or("", |attempt| &attempt.diagnostics);
    format!(
        "a pause of {pause_ms} ms before its next attempt, because its last {failures} ended soon \
         after their start through no fault of their own, the last one{node}: {why}"
    )
}

impl ResourceManager {
    /// Nodes on which a master of the application ended like this: others are preferred.
    pub(crate) fn nodes_to_avoid(&self, application: &Application) -> BTreeSet<NodeKey> {
        let names: BTreeSet<&NodeId> = row(application)
            .filter_map(|attempt| attempt.place.as_ref())
            .map(|(_, node)| node)
            .take(NODES_AVOIDED_MAX)
            .collect();
        let keys = names
            .into_iter()
            .filter_map(|name| self.node_keys.get(name));
        keys.copied().collect()
    }

    /// Holds the next attempt back if it must be.
    pub(crate) fn hold_back(&mut self, now: Millis, id: ApplicationId) {
        let Some(application) = self.applications.get_mut(&id) else {
            return;
        };
        let pause_ms = pause_ms(application);
        application.held_back = pause_ms > 0;
        if application.held_back {
            self.deadlines
                .set(DeadlineKey::Relaunch(id), now + pause_ms);
        }
    }

    /// The attempt that was held back ended, or its pause is over.
    pub(crate) fn let_go(&mut self, id: ApplicationId) {
        self.deadlines.cancel(DeadlineKey::Relaunch(id));
        if let Some(application) = self.applications.get_mut(&id) {
            application.held_back = false;
        }
    }
}
