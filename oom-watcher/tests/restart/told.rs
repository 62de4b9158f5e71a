//! What a watcher had and had not told when it ended: made = told + counted by the next one.

use std::{fs, path::PathBuf, thread, time::Duration};

use rustix::process::Signal;

use crate::{
    Scenario,
    agent::{Agent, Launch},
    anywhere,
    cgroup::Cgroup,
    hog::Hog,
    kills::{Victims, counted, kill, kill_in, victims},
    machine,
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("killed-while-names-are-searched", || with_and_without_pins("searched", killed_while_names_are_searched)),
    anywhere("killed-with-lines-unread", || with_and_without_pins("unread", killed_with_lines_unread)),
    Scenario {
        name: "killed-with-an-incident-in-hand",
        impossible: machine::unpinnable,
        run: killed_with_an_incident_in_hand,
    },
    anywhere("ended-with-lines-unread", || with_and_without_pins("ended-unread", ended_with_lines_unread)),
];

const UNWATCHED: &str = "oom_watcher_unwatched_kills";
const REPORTED: &str = r#"oom_watcher_events_total{stage="report"}"#;
const DECODED: &str = r#"oom_watcher_events_total{stage="decode"}"#;

/// Where a watcher keeps what it leaves.
struct Places {
    pins: Option<Disk>,
    state: PathBuf,
    /// What the kernel had counted at the start of the scenario.
    counted: u64,
}

impl Places {
    fn new(name: &str, pinned: bool) -> Self {
        let pins = pinned.then(|| Disk::bpf(&format!("{name}-pins")));
        Self { pins, state: world::directory(name), counted: counted() }
    }

    fn arguments(&self) -> Vec<String> {
        let state = format!("--state-dir={}", self.state.display());
        let pins = self.pins.as_ref().map(|disk| format!("--pin-dir={}", disk.path().join("pins").display()));
        [state].into_iter().chain(pins).collect()
    }

    /// What the state file says of records.
    fn records(&self) -> Option<(u64, u64)> {
        let text = fs::read_to_string(self.state.join("state.json")).ok()?;
        let state: serde_json::Value = serde_json::from_str(&text).expect("a state is JSON");
        let figure = |name: &str| state["records"][name].as_u64();
        Some((figure("taken")?, figure("untold")?))
    }

    #[track_caller]
    fn wait_for_records(&self, taken: u64, untold: u64) {
        for _ in 0..2000 {
            if self.records() == Some((taken, untold)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{taken} taken and {untold} untold were to be in the file: {:?}", self.records());
    }
}

fn with_and_without_pins(name: &str, scenario: fn(&Places)) {
    for pinned in [false, true] {
        if let Some(reason) = machine::unpinnable().filter(|_| pinned) {
            println!("{name}: not possible with pins: {reason}");
            continue;
        }
        scenario(&Places::new(&format!("{name}-{}", if pinned { "pinned" } else { "alone" }), pinned));
    }
}

/// The next watcher tells and counts the rest, and the one after it knows of nothing more; how many were counted. A kill of
/// somebody else's on this machine may be among them.
#[track_caller]
fn check_account(places: &Places, killed: &Victims, told_before: &[serde_json::Value]) -> u64 {
    let agent = Agent::start(&places.arguments());
    let told_now = agent.rest();
    let lost = agent.metric(UNWATCHED).expect("it knows the gap") as u64;
    let told = victims(&[told_before, &told_now].concat());
    assert!(told.is_subset(killed), "only the killed are told");
    let (made, accounted) = (killed.len() as u64, told.len() as u64 + lost);
    let others = (counted() - places.counted).saturating_sub(made);
    println!("{made} kills: {} told before, {} after, {lost} counted", told_before.len(), told_now.len());
    assert!((made..=made + others).contains(&accounted), "{accounted} of {made}, and {others} of others");
    assert_eq!(agent.stop(), Vec::<serde_json::Value>::new());
    let agent = Agent::start(&places.arguments());
    let again = agent.metric(UNWATCHED).expect("it knows the gap") as u64;
    assert!(again <= (counted() - places.counted).saturating_sub(made), "each is counted once: {again}");
    lost
}

/// Two kills in a container that has no name yet, which may come for two seconds.
fn killed_while_names_are_searched(places: &Places) {
    let links = world::directory(&format!("links-{}", places.pins.is_some()));
    let mut arguments = places.arguments();
    arguments.push(format!("--container-log-dir={}", links.display()));
    let mut agent = Agent::start(&arguments);
    let told = kill(1);
    let events = agent.exactly(1);
    assert_eq!(victims(&events), told);
    places.wait_for_records(1, 0);
    let outer = Cgroup::new("unnamed");
    let kubepods = outer.child("kubepods");
    let pod = kubepods.child("pod00000000-0000-4000-8000-000000000002");
    let container = pod.child("d".repeat(64));
    let killed: Victims = (0..2).map(|_| kill_in(&container)).collect();
    agent.wait_for_metric("oom_watcher_name_searches", 2.0);
    let last = agent.kill();
    assert_eq!(last.len(), 0, "their names were not known");
    let killed = &killed | &told;
    assert!(check_account(places, &killed, &events) >= 2, "nobody told of them");
}

/// Nobody reads standard output, which holds a line or two; then it is killed.
fn killed_with_lines_unread(places: &Places) {
    let lost = end_with_lines_unread(places, Signal::KILL);
    assert!(lost > 0, "more was to be unread");
}

/// The same, but it is asked to stop: it waits for a reader no longer than it may.
fn ended_with_lines_unread(places: &Places) {
    let lost = end_with_lines_unread(places, Signal::TERM);
    assert!(lost > 0, "more was to be unread");
}

fn end_with_lines_unread(places: &Places, signal: Signal) -> u64 {
    let mut agent = Launch::new(&places.arguments()).unread().start();
    let killed = kill(6);
    agent.wait_for_metric(REPORTED, 6.0);
    settle();
    agent.signal(signal);
    let status = loop {
        if let Some(status) = agent.has_ended() {
            break status;
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.success(), signal == Signal::TERM, "{status}");
    let told = agent.read_at_last();
    check_account(places, &killed, &told)
}

/// Two processes that share their memory are killed together, and are held until it is known how many they are: 250 ms where no
/// hook tells the end of an incident.
fn killed_with_an_incident_in_hand() {
    let places = Places::new("hand", true);
    let agent = Agent::start(&places.arguments());
    places.wait_for_records(0, 0);
    let cgroup = Cgroup::new("sharers");
    cgroup.limit(8 << 20);
    let mut hog = Hog::start(&cgroup, &["shared-mm", "33554432"]);
    hog.go();
    let sharer: u64 = hog.expect_line("sharer").parse().expect("a process id");
    hog.must_be_killed();
    let killed = Victims::from([u64::from(hog.pid()), sharer]);
    while agent.metric(DECODED) != Some(2.0) {
        thread::sleep(Duration::from_millis(1));
    }
    let in_hand = 2.0 - agent.metric(REPORTED).expect("it is counted from the start");
    if in_hand < 2.0 {
        println!("the end of the incident is told here: nothing waits for it");
        settle();
    }
    let told = agent.kill();
    check_account(&places, &killed, &told);
}

/// Long enough for the state file to be as things are.
fn settle() {
    thread::sleep(Duration::from_secs(1));
}
