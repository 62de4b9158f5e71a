//! The account of kills: what the kernel counts, what the agent's lines say and what its metrics say must be the same number.
//!
//! The kernel's figures are `oom_kill` of /proc/vmstat, which is the machine's, and on cgroup v2 `oom_kill` of the pods'
//! `memory.events`. Both count the first victim of a group twice. v1 counts a kill only in the victim's own cgroup, which
//! the runtime removes a moment later; so there the machine's figure stands alone.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    ops::Deref,
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    expect, machine,
    pods::{self, Kills},
    watcher::{Watcher, number, text},
};

/// The agent audits itself every ten seconds, and believes what it has found twice.
const AUDITS: Duration = Duration::from_secs(21);

/// An agent, and the account of the kills since it watches.
pub(crate) struct Watch {
    watcher: Watcher,
    opened: Counted,
    /// All lines so far.
    lines: Cell<u64>,
    /// Those of kills in pods.
    in_pods: Cell<u64>,
    /// Incident and process of each.
    victims: RefCell<BTreeSet<(String, u64)>>,
}

/// What the kernel has counted.
struct Counted {
    machine: u64,
    pods: Option<Kills>,
}

impl Counted {
    #[track_caller]
    fn read() -> Self {
        Self { machine: machine::vmstat_kills(), pods: pods::kills_in_pods() }
    }
}

impl Watch {
    /// Opens the account of an agent that has just begun to watch.
    #[track_caller]
    pub(crate) fn new(watcher: Watcher) -> Self {
        let (lines, in_pods) = (Cell::default(), Cell::default());
        Self { watcher, opened: Counted::read(), lines, in_pods, victims: RefCell::default() }
    }

    /// Exactly these many kills in the suite's cgroups, and then no more. Kills elsewhere on the machine are counted, and not
    /// looked at.
    #[track_caller]
    pub(crate) fn kills(&self, scenario: &str, count: usize) -> Vec<Value> {
        let kills = self.next_kills(scenario, count);
        self.assert_quiet();
        kills
    }

    /// All kills of the next incident in the suite's cgroups, as many as it says, and then no more.
    #[track_caller]
    pub(crate) fn incident(&self, scenario: &str) -> Vec<Value> {
        let mut kills = self.next_kills(scenario, 1);
        let victims = number(&kills[0], "/incident/victims");
        kills.extend(self.next_kills(scenario, victims as usize - 1));
        self.assert_quiet();
        let same = |kill: &Value| kill["incident"]["id"] == kills[0]["incident"]["id"];
        assert!(kills.iter().all(same), "one incident: {kills:#?}");
        kills
    }

    #[track_caller]
    fn next_kills(&self, scenario: &str, count: usize) -> Vec<Value> {
        let mut kills = Vec::new();
        while kills.len() < count {
            let (came, event) = self.watcher.events_and_times(1).remove(0);
            self.enter(&event);
            if is_ours(&event) {
                expect::measure(scenario, came, &event);
                kills.push(event);
            }
        }
        kills
    }

    #[track_caller]
    fn assert_quiet(&self) {
        let rest: Vec<Value> = self.take_rest().into_iter().filter(is_ours).collect();
        assert!(rest.is_empty(), "kills that did not happen: {rest:#?}");
    }

    fn take_rest(&self) -> Vec<Value> {
        let rest = self.watcher.rest();
        for event in &rest {
            self.enter(event);
        }
        rest
    }

    #[track_caller]
    fn enter(&self, event: &Value) {
        self.lines.set(self.lines.get() + 1);
        self.in_pods.set(self.in_pods.get() + u64::from(pods::is_in_pods(path(event))));
        let victim = (text(event, "/incident/id").to_owned(), number(event, "/victim/pid"));
        assert!(self.victims.borrow_mut().insert(victim), "a victim is reported twice: {event:#}");
    }

    /// Asserts that the account is right, when the scenario is over: everything that it made is gone.
    #[track_caller]
    pub(crate) fn settle(self) {
        self.assert_quiet();
        self.assert();
    }

    /// Takes whatever lines have come, of scenarios that had agents of their own, and asserts that the account is right and that
    /// the agent's own audit says so too; what was counted, for whoever reads.
    #[track_caller]
    pub(crate) fn settle_all(self) -> String {
        self.take_rest();
        thread::sleep(AUDITS);
        self.take_rest();
        self.assert()
    }

    #[track_caller]
    fn assert(&self) -> String {
        let now = Counted::read();
        let machine = now.machine - self.opened.machine;
        let (lines, in_pods) = (self.lines.get(), self.in_pods.get());
        let mut doubled = 0;
        let mut of_pods = String::new();
        if let (Some(before), Some(now)) = (&self.opened.pods, &now.pods) {
            doubled = now.groups - before.groups;
            let counted = now.processes - before.processes;
            assert_eq!(counted - doubled, in_pods, "oom_kill in memory.events of the pods ({doubled} counted twice)");
            of_pods = format!(", {counted} of them in pods");
        }
        assert_eq!(machine - doubled, lines, "oom_kill of /proc/vmstat ({doubled} counted twice)");
        let page = self.watcher.get("/metrics");
        assert_eq!(sum(&page, "oom_kills_per_node_total{"), lines, "the metric of the node");
        assert_eq!(sum(&page, "oom_kills_total{"), lines, "the metrics of containers and of the rest");
        for loss in ["oom_watcher_missed_kills_total", "oom_watcher_lost_events_total{"] {
            assert_eq!(sum(&page, loss), 0, "{loss}");
        }
        format!("the kernel counts {machine}{of_pods}, {doubled} of them twice; lines and metrics say {lines}")
    }
}

impl Deref for Watch {
    type Target = Watcher;

    fn deref(&self) -> &Watcher {
        &self.watcher
    }
}

fn is_ours(event: &Value) -> bool {
    pods::is_own(path(event))
}

/// Empty where the kernel gave none, which the suite's own always have.
fn path(event: &Value) -> &str {
    event.pointer("/cgroup/path").and_then(Value::as_str).unwrap_or_default()
}

/// The sum of all samples that begin so; there must be one.
#[track_caller]
fn sum(page: &str, start: &str) -> u64 {
    let samples: Vec<&str> = page.lines().filter(|line| line.starts_with(start)).collect();
    assert!(!samples.is_empty(), "no {start} in {page}");
    let value = |line: &&str| line.rsplit(' ').next()?.parse::<f64>().ok();
    samples.iter().filter_map(value).sum::<f64>() as u64
}
