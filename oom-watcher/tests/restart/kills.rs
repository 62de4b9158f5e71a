//! Kills to order.

use std::collections::BTreeSet;

use crate::{
    agent::{Agent, tgid},
    cgroup::Cgroup,
    hog::Hog,
};

const LIMIT: u64 = 8 << 20;
/// More than the limit allows.
const TOO_MUCH: &str = "33554432";

/// Victims that the kernel killed, by their process ids.
pub(crate) type Victims = BTreeSet<u64>;

/// Has so many processes killed, one after the other, each in a cgroup too small for it.
#[track_caller]
pub(crate) fn kill(count: usize) -> Victims {
    let cgroup = Cgroup::new("victims");
    (0..count).map(|_| kill_in(&cgroup)).collect()
}

/// Has a process killed in this cgroup.
#[track_caller]
pub(crate) fn kill_in(cgroup: &Cgroup) -> u64 {
    cgroup.limit(LIMIT);
    let mut hog = Hog::start(cgroup, &["anon", TOO_MUCH]);
    hog.go();
    hog.must_be_killed();
    u64::from(hog.pid())
}

/// Has a process and so many children killed as a group (`memory.oom.group`).
#[track_caller]
pub(crate) fn kill_group(children: u64) {
    let cgroup = Cgroup::new("group");
    cgroup.limit(LIMIT + (children << 20));
    cgroup.write("memory.oom.group", "1");
    let mut hog = Hog::start(&cgroup, &["group", &(LIMIT + (64 << 20)).to_string(), &children.to_string()]);
    hog.go();
    hog.must_be_killed();
}

/// The victims of these events, each of which must be another process.
#[track_caller]
pub(crate) fn victims(events: &[serde_json::Value]) -> Victims {
    let victims: Victims = events.iter().map(tgid).collect();
    assert_eq!(victims.len(), events.len(), "a victim was reported twice: {events:#?}");
    victims
}

/// Kills that the kernel has counted on this machine.
pub(crate) fn counted() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").expect("vmstat is there");
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("the kernel counts kills");
    line.trim().parse().expect("a number")
}

/// The kernel's count from the end of a watcher to the start of the next: with nobody else's kills, one number.
pub(crate) struct Gap {
    before_end: u64,
    after_end: u64,
}

impl Gap {
    /// Ends a watcher.
    pub(crate) fn open(end: impl FnOnce()) -> Self {
        let before_end = counted();
        end();
        Self { before_end, after_end: counted() }
    }

    /// Starts the next one, which must say how many kills there were.
    #[track_caller]
    pub(crate) fn close(self, start: impl FnOnce() -> Agent) -> Agent {
        let before_start = counted();
        let agent = start();
        let said = agent.metric("oom_watcher_unwatched_kills").expect("it knows the gap") as u64;
        let (least, most) = (before_start - self.after_end, counted() - self.before_end);
        assert!((least..=most).contains(&said), "{said} is not in {least}..={most}");
        agent
    }
}

/// Of kills that may have been too many for the ring buffer, each is told or counted as lost.
#[track_caller]
pub(crate) fn account(killed: &Victims, told: &Victims, lost: f64, others: u64) {
    let (killed_count, told_count, lost) = (killed.len() as u64, told.len() as u64, lost as u64);
    assert!(told.is_subset(killed), "only the killed are told");
    assert!(lost > 0, "the buffer was to be too small");
    let accounted = told_count + lost;
    // A kill of somebody else's may be among the lost.
    assert!(
        (killed_count..=killed_count + others).contains(&accounted),
        "{told_count} told, {lost} lost of {killed_count}"
    );
    println!("{killed_count} kills: {told_count} told, {lost} counted as lost");
}
