//! Why an application waits, in words and with the numbers.

use bobbin_types::{ApplicationState, AttemptState, Resource};

use crate::application::Application;
use crate::manager::ResourceManager;
use crate::queue::Reach;

/// Asks that are explained one by one; the rest are counted.
const ASKS_EXPLAINED_MAX: usize = 5;

impl ResourceManager {
    /// Empty when the application waits for nothing.
    pub(crate) fn explain(&self, application: &Application) -> String {
        let id = application.id();
        let reasons = match application.state {
            ApplicationState::New
            | ApplicationState::NewSaving
            | ApplicationState::Submitted
            | ApplicationState::Accepted => self.explain_master(application),
            ApplicationState::Running => self.explain_asks(application),
            ApplicationState::Killing => vec![format!(
                "{} of its containers are still being ended",
                application.live.len()
            )],
            ApplicationState::FinalSaving | ApplicationState::Finishing => {
                vec!["its master has said its final status and is ending".to_owned()]
            }
            ApplicationState::Finished | ApplicationState::Failed | ApplicationState::Killed => {
                Vec::new()
            }
        };
        if reasons.is_empty() {
            return String::new();
        }
        format!("application {id} waits: {}", reasons.join("; "))
    }

    fn explain_master(&self, application: &Application) -> Vec<String> {
        let Some(attempt) = application.live_attempt() else {
            return Vec::new();
        };
        match attempt.state {
            AttemptState::New | AttemptState::Scheduled => {}
            AttemptState::Allocated
            | AttemptState::Launched
            | AttemptState::Running
            | AttemptState::Finishing
            | AttemptState::Finished
            | AttemptState::Failed
            | AttemptState::Killed => {
                let what = match &attempt.place {
                    Some((container, node)) => {
                        let fetching = self.fetching_of(container);
                        let fetching =
                            fetching.map_or_else(String::new, |words| format!(", {words}"));
                        format!(
                            "its master ({container} on {node}) has not registered yet{fetching}"
                        )
                    }
                    None => "its client has not registered as its master yet".to_owned(),
                };
                return vec![what];
            }
        }
        if let Some(former) = application.former_master() {
            return vec![format!(
                "{former}, the master of a former attempt, is still being ended"
            )];
        }
        if application.held_back {
            return vec![crate::relaunch::pause_in_words(application)];
        }
        let size = application.spec.submission.resource;
        let mut words = format!("its master needs {size}; {}", self.explain_size(&size));
        let limit = self.am_limit();
        if !size.fits_in(&self.queue.am_room(&limit)) {
            words = format!(
                "its master needs {size}; masters have {} of the {limit} they may have together",
                self.queue.am_used
            );
        }
        let ahead = self.queue.masters.ahead_of(&application.master_demand());
        if ahead > 0 {
            words = format!("{words}; {ahead} applications wait before it");
        }
        vec![words]
    }

    fn explain_asks(&self, application: &Application) -> Vec<String> {
        let attached = application
            .current()
            .is_some_and(|attempt| attempt.session.is_some());
        if !attached && !application.asks.is_empty() {
            return vec!["its master is away: nobody could take a grant".to_owned()];
        }
        let mut reasons: Vec<String> = application
            .asks
            .iter()
            .take(ASKS_EXPLAINED_MAX)
            .map(|(key, wanted)| {
                let demand = application.ask_demand(key);
                let why = match self.queue.waiting(&demand).map(|demand| &demand.reach) {
                    Some(Reach::Only(host)) => {
                        format!("no room on host {host}, and only that one will do")
                    }
                    Some(Reach::Anywhere | Reach::Prefer(_) | Reach::NotOn(_)) | None => {
                        self.explain_size(&key.capability)
                    }
                };
                let (count, size, priority) = (wanted.count, key.capability, key.priority);
                format!("{count} containers of {size} at priority {priority}: {why}")
            })
            .collect();
        if let Some(attempt) = application.current() {
            reasons.extend(self.fetching_reasons(attempt.id));
        }
        let barred = application.current().map_or(0, |a| a.blacklist.len());
        if barred > 0 && !reasons.is_empty() {
            reasons.push(format!("its master wants nothing on {barred} hosts"));
        }
        if application.asks.len() > ASKS_EXPLAINED_MAX {
            reasons.push(format!(
                "{} more asks",
                application.asks.len() - ASKS_EXPLAINED_MAX
            ));
        }
        reasons
    }

    /// Why a container of this size is not granted now.
    fn explain_size(&self, size: &Resource) -> String {
        let nodes = self.index.len();
        let plural = if nodes == 1 { "node" } else { "nodes" };
        if nodes == 0 {
            return "no node takes work now".to_owned();
        }
        if self.largest.first_fitting(size, None).is_none() {
            return format!(
                "no node is that large; the largest have {}",
                self.largest_container()
            );
        }
        format!(
            "the most that is free now is {} ({nodes} {plural})",
            self.index.most_room()
        )
    }
}
