//! The agent's own groups: made below one root, pooled while empty, measured, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{
    CgroupError, CgroupLease, CgroupLimits, Controller, Hierarchy, Layout, MemoryEvents, Usage,
};
use crate::spec::CpuMode;

/// Most empty groups that are kept.
const POOL_MAX: usize = 64;
/// A released group that still counts more than this (page cache) is made anew instead of pooled.
const LEFTOVER_BYTES_MAX: u64 = 4 << 20;
/// Source: Documentation/scheduler/sched-bwc.rst, the default period.
const CPU_PERIOD_USEC: u64 = 100_000;

/// The folder `bobbin-<agent name>` in each hierarchy, and the slots below it.
#[derive(Debug)]
pub struct CgroupRoot {
    layout: Layout,
    /// One per hierarchy, in the layout's order.
    bases: Vec<PathBuf>,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    /// Empty groups and the limits they still have.
    free: BTreeMap<u32, CgroupLimits>,
    /// Leased groups, with their limits if this process has set them.
    used: BTreeMap<u32, Option<CgroupLimits>>,
    /// Slots that could not be removed yet.
    stuck: BTreeSet<u32>,
    /// Slots that somebody is removing.
    removing: BTreeSet<u32>,
}

impl Slots {
    fn first_unknown(&self) -> u32 {
        (0..)
            .find(|slot| {
                !self.used.contains_key(slot)
                    && !self.free.contains_key(slot)
                    && !self.stuck.contains(slot)
                    && !self.removing.contains(slot)
            })
            .unwrap_or(u32::MAX)
    }
}

impl CgroupRoot {
    /// Finds the hierarchies and makes the agent's base group in each.
    ///
    /// `setting` is a path inside the hierarchies (or below the v2 mount) to stand under instead of
    /// the own group, such as a delegated scope.
    /// On v2 the calling process moves itself into a leaf, since a group with processes in it may
    /// not hand out controllers; no other process is touched.
    ///
    /// # Errors
    /// When there is no memory controller, or the groups cannot be made.
    pub fn detect(setting: Option<&Path>, agent_name: &str) -> Result<CgroupRoot, CgroupError> {
        let layout = Layout::read_at(|hierarchy| {
            let place = place_of(setting, hierarchy)?;
            make(&place)?;
            Ok(place)
        })?;
        if layout.of(Controller::Memory).is_none() {
            return Err(CgroupError::NoMemoryController);
        }
        let mut bases = Vec::with_capacity(layout.hierarchies.len());
        for hierarchy in &layout.hierarchies {
            let base = base_of(hierarchy, agent_name);
            make(&base)?;
            if hierarchy.version == 2 {
                delegate(hierarchy, &base, agent_name)?;
            }
            bases.push(base);
        }
        Ok(CgroupRoot {
            layout,
            bases,
            slots: Mutex::default(),
        })
    }

    /// Removes what an agent of this name left, killing what is still in there, and makes nothing.
    ///
    /// # Errors
    /// The first group that could not be removed; the others are removed all the same.
    pub fn remove_leftovers_of(
        setting: Option<&Path>,
        agent_name: &str,
    ) -> Result<(), CgroupError> {
        let layout = Layout::read_at(|hierarchy| place_of(setting, hierarchy))?;
        let mut failure = None;
        for hierarchy in &layout.hierarchies {
            if let Err(error) = remove_base(&base_of(hierarchy, agent_name)) {
                failure = failure.or(Some(error));
            }
            // Empty, or with processes in it that are not a container's.
            let _ = fs::remove_dir(leaf_of(hierarchy, agent_name));
        }
        failure.map_or(Ok(()), Err)
    }

    /// The hierarchies in use.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // The set is updated after the file work, so a panic elsewhere leaves it consistent.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Groups for one container with these limits, from the pool if it has any.
    ///
    /// # Errors
    /// When a group cannot be made or a limit cannot be set; then nothing is leased.
    pub fn lease(&self, name: &str, limits: &CgroupLimits) -> Result<CgroupLease, CgroupError> {
        let (slot, former) = {
            let mut slots = self.slots();
            let taken = slots.free.pop_first();
            let slot = taken
                .as_ref()
                .map_or_else(|| slots.first_unknown(), |(slot, _)| *slot);
            slots.used.insert(slot, Some(*limits));
            (slot, taken.map(|(_, limits)| limits))
        };
        let prepared = self.prepare(slot, former.as_ref(), limits);
        if let Err(error) = prepared {
            let mut slots = self.slots();
            slots.used.remove(&slot);
            slots.stuck.insert(slot);
            drop(slots);
            self.sweep();
            return Err(error);
        }
        Ok(self.describe(slot, name))
    }

    /// Changes the limits of a container that runs.
    ///
    /// # Errors
    /// When the kernel refuses one: memory below what is in use, most likely. The others may have
    /// changed by then.
    pub fn resize(&self, lease: &CgroupLease, limits: &CgroupLimits) -> Result<(), CgroupError> {
        let former = self
            .slots()
            .used
            .insert(lease.slot, Some(*limits))
            .flatten();
        let result = self.prepare_changed(lease.slot, former.as_ref(), limits);
        if result.is_err() {
            // Nothing is known of it any more: the next one writes everything.
            self.slots().used.insert(lease.slot, None);
        }
        result
    }

    fn prepare_changed(
        &self,
        slot: u32,
        former: Option<&CgroupLimits>,
        limits: &CgroupLimits,
    ) -> Result<(), CgroupError> {
        for (hierarchy, base) in self.layout.hierarchies.iter().zip(&self.bases) {
            set_limits(
                hierarchy,
                &base.join(format!("slot-{slot}")),
                former,
                limits,
            )?;
        }
        Ok(())
    }

    fn prepare(
        &self,
        slot: u32,
        former: Option<&CgroupLimits>,
        limits: &CgroupLimits,
    ) -> Result<(), CgroupError> {
        for (hierarchy, base) in self.layout.hierarchies.iter().zip(&self.bases) {
            let group = base.join(format!("slot-{slot}"));
            if former.is_none() {
                make(&group)?;
                first_settings(hierarchy, &group)?;
            }
            set_limits(hierarchy, &group, former, limits)?;
        }
        Ok(())
    }

    /// The lease of a slot that an earlier agent process made, found in a start file.
    ///
    /// # Errors
    /// When this process has given the slot to somebody already.
    pub fn readopt(&self, slot: u32, name: &str) -> Result<CgroupLease, CgroupError> {
        let mut slots = self.slots();
        slots.free.remove(&slot);
        if slots.used.contains_key(&slot) {
            return Err(CgroupError::SlotInUse { slot });
        }
        slots.used.insert(slot, None);
        drop(slots);
        let mut lease = self.describe(slot, name);
        // What the former agent had noted is lost; the slot's own count is the best there is.
        lease.cpu_base_usec = 0;
        Ok(lease)
    }

    fn describe(&self, slot: u32, name: &str) -> CgroupLease {
        let group = |base: &PathBuf| base.join(format!("slot-{slot}"));
        let of = |controller| {
            let index = self
                .layout
                .hierarchies
                .iter()
                .position(|hierarchy| hierarchy.controllers.contains(&controller))?;
            Some((
                group(&self.bases[index]),
                self.layout.hierarchies[index].version,
            ))
        };
        let version_2 = self.layout.hierarchies.iter().position(|h| h.version == 2);
        let mut lease = CgroupLease {
            slot,
            name: name.to_owned(),
            groups: self
                .layout
                .hierarchies
                .iter()
                .zip(&self.bases)
                .filter(|(hierarchy, _)| hierarchy.version == 1)
                .map(|(_, base)| group(base))
                .collect(),
            into_v2: version_2.map(|index| group(&self.bases[index])),
            memory: of(Controller::Memory).map(|(path, version)| {
                (
                    path,
                    if version == 2 {
                        MemoryEvents::V2
                    } else {
                        MemoryEvents::V1
                    },
                )
            }),
            cpu_base_usec: 0,
        };
        lease.cpu_base_usec = self.cpu_usec(&lease);
        lease
    }

    /// What the container uses now. A counter that cannot be read counts as 0.
    #[must_use]
    pub fn usage(&self, lease: &CgroupLease) -> Usage {
        let memory_bytes = lease.memory.as_ref().map_or(0, |(group, events)| {
            let (file, inactive) = match events {
                MemoryEvents::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
                MemoryEvents::V2 => ("memory.current", "inactive_file"),
            };
            // Cache that nobody touches is given back before anything is refused.
            let cache = stat_field(&group.join("memory.stat"), inactive).unwrap_or(0);
            number(&group.join(file)).unwrap_or(0).saturating_sub(cache)
        });
        let pids = self
            .group_of(lease, Controller::Pids)
            .and_then(|group| number(&group.join("pids.current")))
            .unwrap_or(0);
        let cpu_usec = self.cpu_usec(lease).saturating_sub(lease.cpu_base_usec);
        Usage {
            memory_bytes,
            cpu_usec,
            pids,
        }
    }

    fn cpu_usec(&self, lease: &CgroupLease) -> u64 {
        if let Some(group) = self.group_of(lease, Controller::Cpuacct) {
            return number(&group.join("cpuacct.usage")).unwrap_or(0) / 1000;
        }
        lease
            .into_v2
            .as_ref()
            .and_then(|group| stat_field(&group.join("cpu.stat"), "usage_usec"))
            .unwrap_or(0)
    }

    fn group_of(&self, lease: &CgroupLease, controller: Controller) -> Option<PathBuf> {
        let index = self
            .layout
            .hierarchies
            .iter()
            .position(|hierarchy| hierarchy.controllers.contains(&controller))?;
        Some(self.bases[index].join(format!("slot-{}", lease.slot)))
    }

    /// Takes the groups of an ended container back: into the pool with counters reset, or away.
    ///
    /// Whatever process is still in them is killed. May block for some ms: not for a hot path.
    ///
    /// # Errors
    /// When a group cannot be removed; it is tried again at the next release.
    pub fn release(&self, lease: CgroupLease) -> Result<(), CgroupError> {
        let slot = lease.slot;
        let clean = self.is_clean(&lease);
        let mut slots = self.slots();
        let limits = slots.used.remove(&slot).flatten();
        if let Some(limits) = limits
            && clean
            && slots.free.len() < POOL_MAX
        {
            slots.free.insert(slot, limits);
            return Ok(());
        }
        slots.stuck.insert(slot);
        drop(slots);
        self.sweep().map_or(Ok(()), Err)
    }

    /// Without a process in it. Every process of a container is in all of its groups, and one number is
    /// much less work for the kernel than the list of each group.
    fn is_empty(&self, lease: &CgroupLease) -> bool {
        let counted = self
            .group_of(lease, Controller::Pids)
            .and_then(|group| number(&group.join("pids.current")));
        match counted {
            Some(count) => count == 0,
            None => lease
                .groups
                .iter()
                .chain(&lease.into_v2)
                .all(|group| pids(group).is_empty()),
        }
    }

    /// Empty, without much left on its account, never short of memory: as good as new.
    fn is_clean(&self, lease: &CgroupLease) -> bool {
        let empty = self.is_empty(lease);
        let Some((group, events)) = &lease.memory else {
            return empty;
        };
        match events {
            MemoryEvents::V1 => {
                let used = number(&group.join("memory.usage_in_bytes")).unwrap_or(u64::MAX);
                empty
                    && used <= LEFTOVER_BYTES_MAX
                    && stat_field(&group.join("memory.oom_control"), "oom_kill").unwrap_or(0) == 0
                    && write(&group.join("memory.max_usage_in_bytes"), "0").is_ok()
                    && write(&group.join("memory.failcnt"), "0").is_ok()
            }
            MemoryEvents::V2 => {
                let used = number(&group.join("memory.current")).unwrap_or(u64::MAX);
                empty
                    && used <= LEFTOVER_BYTES_MAX
                    && stat_field(&group.join("memory.events"), "oom").unwrap_or(0) == 0
            }
        }
    }

    /// Removes every slot that an earlier process left and nobody has adopted.
    ///
    /// Call it once after the last `readopt`.
    ///
    /// # Errors
    /// The first group that could not be removed; the others are removed all the same.
    pub fn remove_leftovers(&self) -> Result<(), CgroupError> {
        let mut slots = self.slots();
        for base in &self.bases {
            for slot in slots_on_disk(base) {
                if !slots.used.contains_key(&slot) && !slots.free.contains_key(&slot) {
                    slots.stuck.insert(slot);
                }
            }
        }
        drop(slots);
        self.sweep().map_or(Ok(()), Err)
    }

    /// Tries to remove the stuck slots; the first failure.
    ///
    /// Each is taken by one caller: of a thousand containers that end at once, none waits for the
    /// groups of the others.
    fn sweep(&self) -> Option<CgroupError> {
        let stuck = {
            let mut slots = self.slots();
            let stuck = std::mem::take(&mut slots.stuck);
            slots.removing.extend(&stuck);
            stuck
        };
        let mut failure = None;
        for slot in stuck {
            let removed = self.remove_slot(slot);
            let mut slots = self.slots();
            slots.removing.remove(&slot);
            if let Err(error) = removed {
                slots.stuck.insert(slot);
                failure = failure.or(Some(error));
            }
        }
        failure
    }

    fn remove_slot(&self, slot: u32) -> Result<(), CgroupError> {
        self.bases
            .iter()
            .try_for_each(|base| remove(&base.join(format!("slot-{slot}"))))
    }

    /// Removes the pooled groups; for an orderly stop that leaves the containers running.
    ///
    /// # Errors
    /// The first group that could not be removed; the others are removed all the same.
    pub fn drain_pool(&self) -> Result<(), CgroupError> {
        let mut slots = self.slots();
        let free: Vec<u32> = slots.free.keys().copied().collect();
        slots.free.clear();
        slots.stuck.extend(free);
        drop(slots);
        self.sweep().map_or(Ok(()), Err)
    }

    /// Removes everything below and including the base groups, killing what is still in there.
    ///
    /// # Errors
    /// The first group that could not be removed; the others are removed all the same.
    pub fn remove_all(&self) -> Result<(), CgroupError> {
        let mut failure = None;
        for base in &self.bases {
            if let Err(error) = remove_base(base) {
                failure = failure.or(Some(error));
            }
        }
        *self.slots() = Slots::default();
        failure.map_or(Ok(()), Err)
    }
}

/// The agent's group for slots in a hierarchy.
fn base_of(hierarchy: &Hierarchy, agent_name: &str) -> PathBuf {
    hierarchy.own.join(format!("bobbin-{agent_name}"))
}

/// The group that an agent moves itself into, where it may not be beside its slots.
fn leaf_of(hierarchy: &Hierarchy, agent_name: &str) -> PathBuf {
    hierarchy.own.join(format!("bobbin-{agent_name}-agent"))
}

/// Removes the slots and the base; the first failure.
fn remove_base(base: &Path) -> Result<(), CgroupError> {
    let mut failure = None;
    for slot in slots_on_disk(base) {
        if let Err(error) = remove(&base.join(format!("slot-{slot}"))) {
            failure = failure.or(Some(error));
        }
    }
    let removed = remove(base);
    failure.map_or(removed, Err)
}

/// The folder that `setting` means in a hierarchy; the own group without one.
fn place_of(setting: Option<&Path>, hierarchy: &Hierarchy) -> Result<PathBuf, CgroupError> {
    let Some(setting) = setting else {
        return Ok(hierarchy.own.clone());
    };
    let bad = |reason| CgroupError::BadRoot {
        path: setting.to_owned(),
        reason,
    };
    if !setting.is_absolute() {
        return Err(bad("must be absolute"));
    }
    if setting
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        return Err(bad("must not contain .."));
    }
    let inside = setting.strip_prefix(&hierarchy.mount).unwrap_or(setting);
    Ok(hierarchy
        .mount
        .join(inside.strip_prefix("/").unwrap_or(inside)))
}

/// v2: hands the controllers down to the base and its slots.
fn delegate(hierarchy: &Hierarchy, base: &Path, agent_name: &str) -> Result<(), CgroupError> {
    let words: Vec<String> = hierarchy
        .controllers
        .iter()
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    let words = words.join(" ");
    let top = hierarchy.own.join("cgroup.subtree_control");
    if write(&top, &words).is_err() {
        let leaf = leaf_of(hierarchy, agent_name);
        make(&leaf)?;
        write(&leaf.join("cgroup.procs"), "0")?;
        write(&top, &words)?;
    }
    write(&base.join("cgroup.subtree_control"), &words)
}

/// What is set once in a new slot.
fn first_settings(hierarchy: &Hierarchy, group: &Path) -> Result<(), CgroupError> {
    if !hierarchy.controllers.contains(&Controller::Memory) {
        return Ok(());
    }
    if hierarchy.version == 1 {
        write_if_there(&group.join("memory.swappiness"), "0")?;
        // The monitor ends the container itself, after it has written down who used what.
        write(&group.join("memory.oom_control"), "1")
    } else {
        write_if_there(&group.join("memory.swap.max"), "0")?;
        write(&group.join("memory.oom.group"), "1")
    }
}

fn set_limits(
    hierarchy: &Hierarchy,
    group: &Path,
    former: Option<&CgroupLimits>,
    limits: &CgroupLimits,
) -> Result<(), CgroupError> {
    for controller in &hierarchy.controllers {
        match controller {
            Controller::Memory if former.map(|f| f.memory_mib) != Some(limits.memory_mib) => {
                set_memory(hierarchy.version, group, limits.memory_mib)?;
            }
            Controller::Cpu
                if former.map(|f| (f.vcores, f.cpu)) != Some((limits.vcores, limits.cpu)) =>
            {
                set_cpu(hierarchy.version, group, limits)?;
            }
            Controller::Pids if former.map(|f| f.pids_max) != Some(limits.pids_max) => {
                write(&group.join("pids.max"), &limits.pids_max.to_string())?;
            }
            Controller::Memory | Controller::Cpu | Controller::Pids | Controller::Cpuacct => {}
        }
    }
    Ok(())
}

fn set_memory(version: u8, group: &Path, memory_mib: u64) -> Result<(), CgroupError> {
    let bytes = memory_mib.saturating_mul(1 << 20).to_string();
    if version == 2 {
        return write(&group.join("memory.max"), &bytes);
    }
    let limit = group.join("memory.limit_in_bytes");
    let with_swap = group.join("memory.memsw.limit_in_bytes");
    if !with_swap.exists() {
        return write(&limit, &bytes);
    }
    // The limit with swap may never be below the one without: lift it out of the way first.
    write(&with_swap, "-1")?;
    write(&limit, &bytes)?;
    write(&with_swap, &bytes)
}

fn set_cpu(version: u8, group: &Path, limits: &CgroupLimits) -> Result<(), CgroupError> {
    let vcores = u64::from(limits.vcores);
    let quota = vcores.max(1) * CPU_PERIOD_USEC;
    if version == 2 {
        write(
            &group.join("cpu.weight"),
            &(vcores * 100).clamp(1, 10_000).to_string(),
        )?;
        let max = match limits.cpu {
            CpuMode::Share => format!("max {CPU_PERIOD_USEC}"),
            CpuMode::HardCap => format!("{quota} {CPU_PERIOD_USEC}"),
        };
        return write(&group.join("cpu.max"), &max);
    }
    write(
        &group.join("cpu.shares"),
        &(vcores * 1024).clamp(2, 262_144).to_string(),
    )?;
    let quota = match limits.cpu {
        CpuMode::Share => "-1".to_owned(),
        CpuMode::HardCap => quota.to_string(),
    };
    write_if_there(&group.join("cpu.cfs_quota_us"), &quota)
}

fn make(group: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(group) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(CgroupError::Make {
            path: group.to_owned(),
            source,
        }),
    }
}

/// Removes a group, killing what is in it. An absent group is fine.
fn remove(group: &Path) -> Result<(), CgroupError> {
    const TRIES: u32 = 200;
    for attempt in 1..=TRIES {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) if attempt == TRIES || source.raw_os_error() != Some(libc::EBUSY) => {
                return Err(CgroupError::Remove {
                    path: group.to_owned(),
                    source,
                });
            }
            Err(_) => {}
        }
        for pid in pids(group) {
            // Gone already is what we want.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // The kernel lets a dead process go a moment after its parent has heard of it.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Ok(())
}

fn pids(group: &Path) -> Vec<i32> {
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // Pid 0 is a process of a pid namespace we cannot see; killing it would hit ourselves.
    listed
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .collect()
}

fn slots_on_disk(base: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(base) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            entry
                .ok()?
                .file_name()
                .to_str()?
                .strip_prefix("slot-")?
                .parse()
                .ok()
        })
        .collect()
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

fn write_if_there(path: &Path, value: &str) -> Result<(), CgroupError> {
    match write(path, value) {
        Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        result => result,
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A line `name value` of a flat keyed file.
pub(crate) fn stat_field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (field, value) = line.split_once(' ')?;
        (field == name).then(|| value.trim().parse().ok())?
    })
}
