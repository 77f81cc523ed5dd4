//! What the machine has and uses, through sysinfo.

use bobbin_na_core::NodeUsage;
use sysinfo::System;

const MIB: u64 = 1 << 20;

/// The machine, looked at again and again.
#[derive(Debug)]
pub(crate) struct Machine {
    system: System,
}

impl Machine {
    /// # Errors
    /// The system does not tell.
    pub(crate) fn new() -> Result<Machine, sysinfo::Error> {
        let mut system = System::new()?;
        system.refresh_memory();
        system.refresh_cpu_usage();
        Ok(Machine { system })
    }

    /// Memory of the machine, or of the group that the agent is confined to, MiB.
    pub(crate) fn memory_mib(&self) -> u64 {
        let total = self.system.total_memory();
        let confined = self
            .system
            .cgroup_limits()
            .map_or(total, |limits| limits.total_memory);
        total.min(confined) / MIB
    }

    pub(crate) fn cores(&self) -> u32 {
        u32::try_from(self.system.cpus().len()).unwrap_or(u32::MAX)
    }

    /// Looks now; the processor's part is since the last look.
    pub(crate) fn sample(&mut self) -> NodeUsage {
        self.system.refresh_memory();
        self.system.refresh_cpu_usage();
        let permille = (self.system.global_cpu_usage() * 10.0).clamp(0.0, 1000.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it was just clamped to 0 to 1000"
        )]
        let cpu_permille = permille.round() as u32;
        NodeUsage {
            memory_used_mib: self.system.used_memory() / MIB,
            cpu_permille,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_something() {
        let mut machine = Machine::new().unwrap();
        assert!(machine.memory_mib() > 0 && machine.cores() > 0);
        let usage = machine.sample();
        assert!(usage.memory_used_mib > 0 && usage.cpu_permille <= 1000);
    }
}
