//! The watcher audits itself: kills that the kernel counted (`/proc/vmstat` `oom_kill`) against kills that its own hooks saw.
//!
//! Both are counted in the kernel, so nothing that happens on the way to the agent matters here. The kernel counts the first
//! victim of a group kill twice (`__oom_kill_process` runs once for it as the victim that was picked and once as a member),
//! and does not count processes that die for sharing a victim's memory. The kernel program counts both; the former only with the
//! hooks of `out_of_memory`, without which one is allowed for each group.

use std::{io, path::Path};

use oom_watcher_common::counter;

use crate::telemetry::KernelCounters;

/// Why the kernel's own figure is not known.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not count kills (before Linux 4.13, or without CONFIG_VM_EVENT_COUNTERS).
    #[error("{0} has no line oom_kill")]
    NotCounted(String),
}

/// Kills since boot, as the kernel counts them.
pub fn kernel_kills(proc: &Path) -> Result<u64, AuditError> {
    let path = proc.join("vmstat");
    let name = path.display().to_string();
    let text = std::fs::read_to_string(&path).map_err(|source| AuditError::Read { path: name.clone(), source })?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .ok_or(AuditError::NotCounted(name))
}

/// The account since the hooks were attached.
#[derive(Clone, Copy, Debug)]
pub struct Audit {
    kernel_at_start: u64,
    at_start: KernelCounters,
    group_kills: u64,
    last: u64,
}

impl Audit {
    /// Opens the account.
    pub fn new(kernel: u64, counters: &KernelCounters) -> Self {
        Self { kernel_at_start: kernel, at_start: *counters, group_kills: 0, last: 0 }
    }

    /// Kills that the kernel had counted when the account was opened.
    pub fn kills_before_start(&self) -> u64 {
        self.kernel_at_start
    }

    /// What the kernel program had counted by then: pinned hooks go on counting from watcher to watcher.
    pub fn counters_at_start(&self) -> &KernelCounters {
        &self.at_start
    }

    /// A group kill was reported, or a kill of which it is not known, without the hooks that would have seen whether its first
    /// victim counts twice.
    pub fn group_kill(&mut self) {
        self.group_kills += 1;
    }

    /// Kills that no hook saw. The two figures are not read at one instant, so a difference counts when it was there the
    /// last time too.
    pub fn missed(&mut self, kernel: u64, counters: &KernelCounters) -> u64 {
        let counted = kernel.saturating_sub(self.kernel_at_start);
        let seen = seen(counters).saturating_sub(seen(&self.at_start));
        let difference = counted.saturating_sub(seen + self.group_kills);
        let missed = difference.min(self.last);
        self.last = difference;
        missed
    }
}

/// Kills that the hooks saw, as often as the kernel counts them.
pub fn seen(counters: &KernelCounters) -> u64 {
    let count = |slot: u32| counters[slot as usize];
    (count(counter::KILLS_SENT) + count(counter::KILLS_LOST) + count(counter::KILLS_COUNTED_TWICE))
        .saturating_sub(count(counter::SHARED_MM_KILLS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(sent: u64, lost: u64, shared: u64) -> KernelCounters {
        let mut counters = KernelCounters::default();
        counters[counter::KILLS_SENT as usize] = sent;
        counters[counter::KILLS_LOST as usize] = lost;
        counters[counter::SHARED_MM_KILLS as usize] = shared;
        counters
    }

    #[test]
    fn nothing_is_missed_when_the_figures_agree() {
        let mut audit = Audit::new(100, &counters(3, 0, 0));
        assert_eq!(audit.missed(105, &counters(8, 0, 0)), 0);
        assert_eq!(audit.missed(107, &counters(9, 1, 0)), 0, "a kill lost in the ring buffer was seen");
        assert_eq!(audit.missed(107, &counters(11, 1, 2)), 0, "the kernel does not count who shares memory");
        assert_eq!(audit.kills_before_start(), 100);
    }

    #[test]
    fn a_kill_that_was_seen_to_be_counted_twice_is_no_missed_one_and_hides_none() {
        let mut after = counters(6, 0, 0);
        after[counter::KILLS_COUNTED_TWICE as usize] = 1;
        let mut audit = Audit::new(0, &counters(0, 0, 0));
        assert_eq!(audit.missed(7, &after), 0);
        assert_eq!(audit.missed(7, &after), 0);
        assert_eq!([audit.missed(8, &after), audit.missed(8, &after)], [0, 1]);
    }

    #[test]
    fn a_kill_that_no_hook_saw_counts_the_second_time() {
        let mut audit = Audit::new(0, &counters(0, 0, 0));
        assert_eq!(audit.missed(2, &counters(1, 0, 0)), 0, "perhaps the hook is running this very moment");
        assert_eq!(audit.missed(2, &counters(1, 0, 0)), 1);
        assert_eq!(audit.missed(3, &counters(2, 0, 0)), 1);
    }

    #[test]
    fn the_first_victim_of_a_group_is_allowed_its_second_count() {
        let mut audit = Audit::new(0, &counters(0, 0, 0));
        audit.group_kill();
        assert_eq!(audit.missed(7, &counters(6, 0, 0)), 0);
        assert_eq!(audit.missed(7, &counters(6, 0, 0)), 0);
    }

    #[test]
    fn the_kernels_line_is_found() {
        let dir = std::env::temp_dir().join(format!("oom-watcher-audit-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("vmstat"), "oom_killer 7\noom_kill 12\n").unwrap();
        assert_eq!(kernel_kills(&dir).unwrap(), 12);
        std::fs::write(dir.join("vmstat"), "nr_free_pages 7\n").unwrap();
        assert!(matches!(kernel_kills(&dir), Err(AuditError::NotCounted(_))));
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(kernel_kills(&dir), Err(AuditError::Read { .. })));
    }
}
