//! Processor, memory, heat and processes.

use std::ffi::OsStr;

use sysinfo::{Components, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::governor::readings::{Memory, Reading};

/// Characters that Linux keeps of a process' name.
const SHORT: usize = 15;

/// What the system counts.
pub(super) struct Load {
    system: System,
    components: Option<Components>,
    own: Pid,
}

impl Default for Load {
    fn default() -> Self {
        Self { system: System::new(), components: None, own: Pid::from_u32(std::process::id()) }
    }
}

impl Load {
    /// Share of all cores that others have used since the last call.
    pub(super) fn others_cpu(&mut self) -> Reading<f64> {
        self.system.refresh_cpu_usage();
        let kind = ProcessRefreshKind::nothing().without_tasks().with_cpu();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.own]), false, kind);
        let cores = self.system.cpus().len();
        let own = self.system.process(self.own);
        let (1.., Some(own)) = (cores, own) else { return Err("the system does not count it".to_owned()) };
        let others = self.system.global_cpu_usage() - own.cpu_usage() / cores as f32;
        // Before the second look nothing has been counted, and rounding can go below nothing.
        Ok(if others.is_finite() { f64::from(others / 100.0).clamp(0.0, 1.0) } else { 0.0 })
    }

    /// Memory of the device, or of the container in which this runs, and of this process.
    pub(super) fn memory(&mut self) -> Reading<Memory> {
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let kind = ProcessRefreshKind::nothing().without_tasks().with_memory();
        self.system.refresh_processes_specifics(ProcessesToUpdate::Some(&[self.own]), false, kind);
        let own = self.system.process(self.own).map(sysinfo::Process::memory);
        let (mut total, mut available) = (self.system.total_memory(), self.system.available_memory());
        if let Some(container) = self.system.cgroup_limits() {
            (total, available) = (total.min(container.total_memory), available.min(container.free_memory));
        }
        match own {
            Some(own) if total > 0 => Ok(Memory { total, available, own }),
            _ => Err("the system does not count it".to_owned()),
        }
    }

    /// Of the hottest sensor.
    pub(super) fn temperature(&mut self) -> Reading<f64> {
        let components = self.components.get_or_insert_with(Components::new_with_refreshed_list);
        components.refresh(true);
        let degrees = components.iter().filter_map(sysinfo::Component::temperature);
        let hottest = degrees.filter(|degrees| degrees.is_finite()).reduce(f32::max);
        hottest.map(f64::from).ok_or_else(|| "this device shows no temperature sensor".to_owned())
    }

    /// Which of `names` are names of running processes, this one excepted.
    pub(super) fn running(&mut self, names: &[String]) -> Reading<Vec<String>> {
        let mut system = System::new();
        let kind = ProcessRefreshKind::nothing().without_tasks();
        if system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind) == 0 {
            return Err("the system lists no processes".to_owned());
        }
        let others = || system.processes().iter().filter(|(pid, _)| **pid != self.own);
        let runs = |name: &&String| others().any(|(_, process)| is_called(process.name(), name));
        Ok(names.iter().filter(runs).cloned().collect())
    }
}

/// Whether a process that the system calls `process` is the program `name`.
fn is_called(process: &OsStr, name: &str) -> bool {
    let process = process.to_string_lossy();
    let process = process.strip_suffix(".exe").unwrap_or(&process);
    let name = name.strip_suffix(".exe").unwrap_or(name);
    let cut = cfg!(target_os = "linux") && process.len() == SHORT && name.len() > SHORT;
    process.eq_ignore_ascii_case(name) || (cut && name.as_bytes().starts_with(process.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_system_keeps_them() {
        for (process, name, same) in [
            ("blender", "blender", true),
            ("Game.exe", "game", true),
            ("blender", "blend", false),
            ("gnome-calculato", "gnome-calculator", cfg!(target_os = "linux")),
            ("gnome-cal", "gnome-calculator", false),
        ] {
            assert_eq!(is_called(OsStr::new(process), name), same, "{process} {name}");
        }
    }
}
