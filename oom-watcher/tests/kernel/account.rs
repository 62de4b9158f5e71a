//! The kernel's own account of kills, before and after: /proc/vmstat for the machine, memory.events and memory.events.local
//! for a cgroup (v2), memory.oom_control (v1).
//!
//! The one place of the suite that knows how the kernel counts:
//! - `oom_kill` counts each process that was killed, in its cgroup and those above; the first victim of a group kill twice,
//!   and not those that die for sharing a victim's memory, nor the ones that are only marked;
//! - `oom` counts how often the killer was asked, in the cgroup whose limit ran out and those above;
//! - `oom_group_kill` counts each group once, in the group's cgroup and those above (since Linux 5.17);
//! - v1 counts kills in the victim's cgroup only, and nothing else.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{cgroup::Cgroup, machine};

/// When kills were last accounted for.
static LAST_KILL: Mutex<Option<Instant>> = Mutex::new(None);

/// The counters of a machine and of some cgroups at one moment.
pub(crate) struct Account<'a> {
    vmstat: u64,
    cgroups: Vec<(&'a Cgroup, Counts)>,
}

/// What must have been counted since.
#[derive(Default)]
pub(crate) struct Expected<'a> {
    /// Cgroups whose limit ran out; none when the machine did, or nothing.
    pub(crate) ran_out: &'a [&'a Cgroup],
    /// The killer may have been asked more than once: while a victim dies, or because nobody could be killed.
    pub(crate) asked_again: bool,
    /// Kills as the kernel counts them, by the victims' own cgroup.
    pub(crate) kills: &'a [(&'a Cgroup, u64)],
    /// The cgroup that was killed as a group.
    pub(crate) group: Option<&'a Cgroup>,
}

type Counters = BTreeMap<String, u64>;

#[derive(Debug)]
enum Counts {
    V1(Counters),
    V2 { tree: Counters, local: Counters },
}

impl<'a> Account<'a> {
    /// Opens the account of these cgroups and of the machine.
    #[track_caller]
    pub(crate) fn open(cgroups: &[&'a Cgroup]) -> Self {
        let cgroups = cgroups.iter().map(|&cgroup| (cgroup, Counts::read(cgroup))).collect();
        Self { vmstat: machine::vmstat_kills(), cgroups }
    }

    /// Asserts that the kernel has counted exactly this since.
    #[track_caller]
    pub(crate) fn assert(&self, expected: &Expected<'_>) {
        let kills: u64 = expected.kills.iter().map(|(_, kills)| kills).sum();
        assert_eq!(machine::vmstat_kills() - self.vmstat, kills, "oom_kill of /proc/vmstat");
        for (cgroup, before) in &self.cgroups {
            match (before, Counts::read(cgroup)) {
                (Counts::V1(before), Counts::V1(now)) => {
                    assert_eq!(grown(&now, before, "oom_kill"), Some(expected.kills_in(cgroup)), "{}", cgroup.path());
                }
                (Counts::V2 { tree, local }, Counts::V2 { tree: tree_now, local: local_now }) => {
                    expected.assert_tree(cgroup, tree, &tree_now);
                    expected.assert_local(cgroup, local, &local_now);
                }
                _ => panic!("{} has changed its version", cgroup.path()),
            }
        }
        if kills > 0 {
            *LAST_KILL.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }
}

impl Expected<'_> {
    /// memory.events of a cgroup: with all below it.
    #[track_caller]
    fn assert_tree(&self, cgroup: &Cgroup, before: &Counters, now: &Counters) {
        let path = cgroup.path();
        let kills: u64 = self.kills.iter().filter(|(at, _)| cgroup.holds(at)).map(|(_, kills)| kills).sum();
        assert_eq!(grown(now, before, "oom_kill"), Some(kills), "oom_kill in memory.events of {path}");
        let ran_out = self.ran_out.iter().filter(|at| cgroup.holds(at)).count() as u64;
        self.assert_asked(grown(now, before, "oom"), ran_out, &format!("memory.events of {path}"));
        let groups = u64::from(self.group.is_some_and(|group| cgroup.holds(group)));
        // Linux 5.10 does not count groups.
        assert!(grown(now, before, "oom_group_kill").is_none_or(|n| n == groups), "oom_group_kill of {path}: {now:?}");
    }

    /// memory.events.local of a cgroup: itself.
    #[track_caller]
    fn assert_local(&self, cgroup: &Cgroup, before: &Counters, now: &Counters) {
        let path = cgroup.path();
        let kills = grown(now, before, "oom_kill");
        assert_eq!(kills, Some(self.kills_in(cgroup)), "oom_kill in memory.events.local of {path}");
        let ran_out = self.ran_out.iter().filter(|at| at.path() == path).count() as u64;
        self.assert_asked(grown(now, before, "oom"), ran_out, &format!("memory.events.local of {path}"));
        let groups = u64::from(self.group.is_some_and(|group| group.path() == path));
        assert!(grown(now, before, "oom_group_kill").is_none_or(|n| n == groups), "oom_group_kill of {path}: {now:?}");
    }

    #[track_caller]
    fn assert_asked(&self, asked: Option<u64>, ran_out: u64, file: &str) {
        let asked = asked.unwrap_or_else(|| panic!("no oom in {file}"));
        let right = if self.asked_again && ran_out > 0 { asked >= ran_out } else { asked == ran_out };
        assert!(right, "oom in {file}: {asked}, of {ran_out} that ran out");
    }

    fn kills_in(&self, cgroup: &Cgroup) -> u64 {
        self.kills.iter().filter(|(at, _)| at.path() == cgroup.path()).map(|(_, kills)| kills).sum()
    }
}

impl Counts {
    #[track_caller]
    fn read(cgroup: &Cgroup) -> Self {
        if let Some(text) = cgroup.read("memory.oom_control") {
            return Self::V1(parse(&text));
        }
        let read = |file: &str| parse(&cgroup.read(file).expect("the kernel counts kills"));
        Self::V2 { tree: read("memory.events"), local: read("memory.events.local") }
    }
}

fn parse(text: &str) -> Counters {
    let pair =
        |line: &str| line.split_once(' ').map(|(name, n)| (name.to_owned(), n.trim().parse().expect("a number")));
    text.lines().filter_map(pair).collect()
}

/// What a counter has grown by; `None` where the kernel does not have it.
fn grown(now: &Counters, before: &Counters, name: &str) -> Option<u64> {
    Some(now.get(name)? - before.get(name).copied().unwrap_or_default())
}

/// Time since the last kill that was accounted for.
pub(crate) fn since_last_kill() -> Option<Duration> {
    LAST_KILL.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
}
