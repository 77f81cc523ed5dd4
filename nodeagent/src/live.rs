//! Containers that run here, and what they use at the moment when somebody asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bobbin_proto::v1;
use bobbin_sandbox::{CgroupLease, CgroupRoot, running_ms, usage_of_tree};
use bobbin_service::wall_now;
use bobbin_types::{ApplicationId, ContainerId};
use tokio::sync::Semaphore;

/// Measurements at the same time: however many ask, measuring takes no more than this of the machine.
const MEASURING_MAX: usize = 2;

/// Where a running container's use is found.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) lease: Option<CgroupLease>,
    pub(crate) monitor_pid: i32,
    pub(crate) monitor_start_ticks: u64,
}

/// All that run; supervisors keep it.
#[derive(Debug)]
pub(crate) struct Live {
    running: Mutex<BTreeMap<ContainerId, Running>>,
    measuring: Semaphore,
}

impl Default for Live {
    fn default() -> Live {
        Live {
            running: Mutex::default(),
            measuring: Semaphore::new(MEASURING_MAX),
        }
    }
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Running>> {
        // Every change is one insertion or removal, so a panic elsewhere leaves it consistent.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn started(&self, id: ContainerId, running: Running) {
        self.lock().insert(id, running);
    }

    pub(crate) fn ended(&self, id: &ContainerId) {
        self.lock().remove(id);
    }

    /// Waits for its turn; measure while it is held.
    pub(crate) async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // Closed never, so there always is a permit.
        self.measuring.acquire().await.ok()
    }

    /// What this application's running containers use now. Blocks on the kernel's files.
    pub(crate) fn measure(
        &self,
        application: &ApplicationId,
        cgroups: Option<&CgroupRoot>,
    ) -> Vec<v1::ContainerUsage> {
        let of_it = |(id, running): (&ContainerId, &Running)| {
            (id.application() == *application).then(|| (*id, running.clone()))
        };
        let running: Vec<(ContainerId, Running)> = self.lock().iter().filter_map(of_it).collect();
        let mut usages = Vec::with_capacity(running.len());
        for (id, running) in running {
            let usage = match (cgroups, &running.lease) {
                (Some(cgroups), Some(lease)) => cgroups.usage(lease),
                (None, _) | (_, None) => usage_of_tree(running.monitor_pid),
            };
            // Its group may have been another's meanwhile.
            if !self.lock().contains_key(&id) {
                continue;
            }
            usages.push(v1::ContainerUsage {
                container_id: id.to_string(),
                memory_bytes: usage.memory_bytes,
                cpu_usec: usage.cpu_usec,
                processes: usage.pids,
                measured_ms: wall_now().0,
                running_ms: running_ms(running.monitor_start_ticks),
            });
        }
        usages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_and_is_asked_for() {
        let live = Live::default();
        let running = || Running {
            lease: None,
            monitor_pid: i32::try_from(std::process::id()).unwrap(),
            monitor_start_ticks: 0,
        };
        let id = |text: &str| text.parse::<ContainerId>().unwrap();
        let (one, two) = (
            id("container_e01_7_0001_01_000001"),
            id("container_e01_7_0001_01_000002"),
        );
        live.started(one, running());
        live.started(two, running());
        live.started(id("container_e01_7_0002_01_000001"), running());
        let measured = |live: &Live| -> Vec<String> {
            let usages = live.measure(&one.application(), None);
            usages.into_iter().map(|usage| usage.container_id).collect()
        };
        assert_eq!(measured(&live), [one.to_string(), two.to_string()]);
        live.ended(&two);
        assert_eq!(measured(&live), [one.to_string()]);
    }
}
