//! What remains of applications: their caches until they end, their logs for the retention, and
//! the memory of used tokens.

use bobbin_types::{ApplicationId, ExitStatus, Millis, WallMillis};

use crate::agent::NodeAgent;
use crate::effect::Effect;
use crate::event::{Exit, Record};
use crate::limits;

impl NodeAgent {
    pub(crate) fn on_application_ended(
        &mut self,
        now: Millis,
        application: ApplicationId,
        wall: WallMillis,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.applications.remove(&application)
            || self
                .containers
                .keys()
                .any(|id| id.application() == application);
        if self.ended.contains_key(&application) {
            return;
        }
        // Also one that never ran here is remembered: a start that was on its way is refused.
        self.ended.insert(application, wall);
        effects.push(Effect::Persist(Record::ApplicationEnded {
            application,
            ended: wall,
        }));
        self.forget_tokens_of(application);
        let diagnostics = format!("{application} has ended");
        let exit = Exit {
            exit_status: ExitStatus::KILLED_AFTER_APP_COMPLETION,
            diagnostics,
        };
        let ids: Vec<_> = self
            .containers
            .keys()
            .filter(|id| id.application() == application)
            .copied()
            .collect();
        for id in ids {
            self.stop_known(now, id, exit.clone(), effects);
        }
        self.close_masters(|attempt| attempt.application == application, effects);
        if known {
            self.ending.insert(application);
            self.clean_up_application_if_last(application, effects);
        }
        self.housekeeping_due = Some(self.housekeeping_due.map_or(now, |due| due.min(now)));
    }

    pub(crate) fn on_application_found(&mut self, application: ApplicationId) {
        if !self.ended.contains_key(&application) {
            self.applications.insert(application);
        }
    }

    /// After its last container is cleaned up nobody reads the application's caches any more.
    pub(crate) fn clean_up_application_if_last(
        &mut self,
        application: ApplicationId,
        effects: &mut Vec<Effect>,
    ) {
        let busy = self
            .containers
            .values()
            .any(|c| c.id.application() == application && c.exit_is_pending());
        if !busy && self.ending.remove(&application) {
            effects.push(Effect::CleanUpApplication(application));
        }
    }

    pub(crate) fn on_logs_deleted(
        &mut self,
        application: ApplicationId,
        effects: &mut Vec<Effect>,
    ) {
        if self.deleting.remove(&application) {
            self.ended.remove(&application);
            effects.push(Effect::Persist(Record::LogsDeleted(application)));
        }
    }

    /// Deletes logs whose retention is over, drops used tokens that have expired.
    pub(crate) fn housekeep(&mut self, now: Millis, wall: WallMillis, effects: &mut Vec<Effect>) {
        self.used.retain(|_, expires| *expires > wall);
        for application in self.ending.clone() {
            // After a restart nothing else would ask for it.
            self.clean_up_application_if_last(application, effects);
        }
        let over = self
            .ended
            .len()
            .saturating_sub(limits::ENDED_APPLICATIONS_MAX);
        let mut by_age: Vec<_> = self.ended.iter().map(|(id, ended)| (*ended, *id)).collect();
        by_age.sort_unstable();
        let mut next_ms = limits::HOUSEKEEPING_MS;
        for (i, (ended, application)) in by_age.into_iter().enumerate() {
            let due = ended.0.saturating_add(self.config.log_retain_ms);
            if i < over || due <= wall.0 {
                self.delete_logs(application, effects);
            } else {
                next_ms = next_ms.min(due - wall.0);
            }
        }
        self.housekeeping_due = Some(now.after(next_ms.max(1)));
    }

    fn delete_logs(&mut self, application: ApplicationId, effects: &mut Vec<Effect>) {
        let living = self
            .containers
            .keys()
            .any(|id| id.application() == application);
        if !living && self.deleting.insert(application) {
            effects.push(Effect::DeleteLogs(application));
        }
    }

    /// The ended application refuses every start, so single tokens need no memory.
    pub(crate) fn forget_tokens_of(&mut self, application: ApplicationId) {
        self.used.retain(|id, _| id.application() != application);
        self.revoked
            .retain(|attempt, _| attempt.application != application);
    }
}
