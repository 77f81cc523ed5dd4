//! The link to the resource manager and the masters' streams: who is told what, and when again.

use bobbin_types::{AttemptId, Millis, WallMillis};

use crate::agent::NodeAgent;
use crate::container::ContainerPhase;
use crate::effect::{ContainerReport, Effect, Heartbeat, Registration};
use crate::event::{Origin, StreamId};
use crate::limits;

impl NodeAgent {
    pub(crate) fn on_rm_attached(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.rm_attached = true;
        for container in self.containers.values_mut() {
            if container.phase == ContainerPhase::Exited {
                container.report_again = Some(now.after(limits::REPORT_AGAIN_MS));
            }
        }
        effects.push(Effect::RegisterWithRm(Registration {
            containers: self
                .containers
                .values()
                .map(crate::container::Container::report)
                .collect(),
            applications: self.applications.iter().copied().collect(),
            problems: self.problems.clone(),
        }));
    }

    pub(crate) fn on_rm_lost(&mut self) {
        // Containers go on and ends are kept: the next registration tells them all.
        self.rm_attached = false;
        self.heartbeat_due = None;
    }

    pub(crate) fn on_rm_registered(
        &mut self,
        now: Millis,
        heartbeat_interval_ms: u64,
        wall: WallMillis,
        effects: &mut Vec<Effect>,
    ) {
        if !self.rm_attached {
            return;
        }
        // An interval of 0 would spin.
        self.heartbeat_interval_ms = Some(heartbeat_interval_ms.max(1));
        self.heartbeat_due = Some(now);
        self.on_tick(now, wall, effects);
    }

    pub(crate) fn on_tick(&mut self, now: Millis, wall: WallMillis, effects: &mut Vec<Effect>) {
        if self.heartbeat_due.is_some_and(|due| due <= now) {
            self.heartbeat_due = self
                .heartbeat_interval_ms
                .map(|interval| now.after(interval));
            effects.push(Effect::HeartbeatToRm(Heartbeat {
                usage: self.usage,
                problems: self.problems.clone(),
            }));
        }
        if self.rm_attached {
            for container in self.containers.values_mut() {
                if container.report_again.is_some_and(|due| due <= now) {
                    container.report_again = Some(now.after(limits::REPORT_AGAIN_MS));
                    effects.push(Effect::ReportExitToRm(container.report()));
                }
            }
        }
        if self.housekeeping_due.is_some_and(|due| due <= now) {
            self.housekeep(now, wall, effects);
        }
    }

    pub(crate) fn on_master_attached(
        &mut self,
        stream: StreamId,
        attempt: AttemptId,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_revoked(&attempt) {
            let reason = format!("{attempt} has ended: its tokens are dead on this node");
            effects.push(Effect::CloseMaster { stream, reason });
            return;
        }
        if let Some(old) = self.stream_of(&attempt) {
            self.masters.remove(&old);
            let reason = format!("{attempt} opened another stream to this node");
            effects.push(Effect::CloseMaster {
                stream: old,
                reason,
            });
        }
        if self.masters.len() >= limits::MASTERS_MAX {
            let reason = format!(
                "this node serves {} masters, which is its limit",
                limits::MASTERS_MAX
            );
            effects.push(Effect::CloseMaster { stream, reason });
            return;
        }
        self.masters.insert(stream, attempt);
        for container in self.containers.values() {
            // Its own container is the resource manager's business.
            if self.manages(&attempt, &container.id) && container.origin == Origin::Master {
                effects.push(Effect::ReportToMaster {
                    stream,
                    report: container.report(),
                });
            }
        }
    }

    /// Tells the container's master, if it is attached here.
    pub(crate) fn report_to_master(&self, report: &ContainerReport, effects: &mut Vec<Effect>) {
        if let Some(stream) = self.stream_for(&report.container) {
            effects.push(Effect::ReportToMaster {
                stream,
                report: report.clone(),
            });
        }
    }
}
