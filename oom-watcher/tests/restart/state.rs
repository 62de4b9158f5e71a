//! Without pinned hooks: the kills between two watchers are a number.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;

use crate::{
    Scenario,
    agent::Agent,
    anywhere,
    cgroup::Cgroup,
    kills::{Gap, counted, kill, kill_in, victims},
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("the-gap-is-a-number", the_gap_is_a_number),
    anywhere("the-gap-after-a-kill-9", the_gap_after_a_kill_9),
    anywhere("a-state-that-cannot-be-used", a_state_that_cannot_be_used),
    anywhere("another-boot", another_boot),
    anywhere("the-disk-of-the-state-is-full", the_disk_of_the_state_is_full),
    anywhere("sigterm-drains", sigterm_drains),
    anywhere("kills-while-it-ends", kills_while_it_ends),
];

const UNWATCHED: &str = "oom_watcher_unwatched_kills";

fn arguments(dir: &std::path::Path) -> [String; 1] {
    [format!("--state-dir={}", dir.display())]
}

fn the_gap_is_a_number() {
    let dir = world::directory("gap");
    let mut agent = Agent::start(&arguments(&dir));
    assert_eq!(agent.metric(UNWATCHED), None, "the first start knows no gap");
    kill(1);
    agent.exactly(1);
    let gap = Gap::open(|| drop(agent.stop()));
    kill(2);
    let agent = gap.close(|| Agent::start(&arguments(&dir)));
    let gap = Gap::open(|| drop(agent.stop()));
    let mut agent = gap.close(|| Agent::start(&arguments(&dir)));
    assert!(agent.said().contains("Kills since the watcher before"), "{}", agent.said());
}

/// Nobody could write anything at the end; what was reported a moment before is in the file all the same.
fn the_gap_after_a_kill_9() {
    let dir = world::directory("gap-9");
    let mut agent = Agent::start(&arguments(&dir));
    kill(2);
    agent.exactly(2);
    let reported = counted();
    let gap = Gap::open(|| {
        // It follows within a second, or later where others on the machine are killed too.
        while kept(&dir) < reported {
            thread::sleep(Duration::from_millis(50));
        }
        drop(agent.kill());
    });
    kill(3);
    gap.close(|| Agent::start(&arguments(&dir)));
}

fn a_state_that_cannot_be_used() {
    let dir = world::directory("bad-state");
    let boot = boot();
    let ahead =
        format!(r#"{{"version":1,"boot_id":"{boot}","kernel_kills":999999999,"counters_id":1,"kills_seen":0}}"#);
    for text in ["garbage", "", &ahead] {
        fs::write(dir.join("state.json"), text).expect("it can be written");
        let mut agent = Agent::start(&arguments(&dir));
        assert_eq!(agent.metric(UNWATCHED), None, "{text}");
        assert_eq!(agent.metric(r#"oom_watcher_state_errors_total{operation="read"}"#), Some(1.0), "{text}");
        agent.wait_for_log("are not known");
        // It is replaced by a good one.
        let gap = Gap::open(|| drop(agent.stop()));
        gap.close(|| Agent::start(&arguments(&dir)));
    }
}

fn another_boot() {
    let dir = world::directory("boot");
    let text = r#"{"version":1,"boot_id":"ffffffff","kernel_kills":7,"counters_id":1,"kills_seen":0}"#;
    fs::write(dir.join("state.json"), text).expect("it can be written");
    let before = counted();
    let agent = Agent::start(&arguments(&dir));
    let unwatched = agent.metric(UNWATCHED).expect("it knows the gap") as u64;
    assert!((before..=counted()).contains(&unwatched), "all kills of this boot: {unwatched}, {before}");
}

fn the_disk_of_the_state_is_full() {
    let disk = Disk::full("full");
    let mut agent = Agent::start(&arguments(disk.path()));
    let killed = kill(2);
    assert_eq!(victims(&agent.exactly(2)), killed, "kills are reported all the same");
    let errors = agent.metric(r#"oom_watcher_state_errors_total{operation="write"}"#);
    assert!(errors.is_some_and(|errors| errors >= 1.0), "{errors:?}");
    agent.wait_for_log("No space left on device");
    agent.stop();
}

/// What is in the ring buffer when it is asked to stop is reported before it ends.
fn sigterm_drains() {
    let agent = Agent::start::<&str>(&[]);
    agent.signal(Signal::STOP);
    let killed = kill(5);
    agent.signal(Signal::TERM);
    agent.signal(Signal::CONT);
    assert_eq!(victims(&agent.end().1), killed);
}

/// A name is searched for, which takes seconds, when it is asked to stop; what is killed meanwhile is told or counted.
fn kills_while_it_ends() {
    let (dir, links) = (world::directory("ends"), world::directory("ends-links"));
    let [state] = arguments(&dir);
    let mut agent = Agent::start(&[state.clone(), format!("--container-log-dir={}", links.display())]);
    let outer = Cgroup::new("unnamed");
    let kubepods = outer.child("kubepods");
    let pod = kubepods.child("pod00000000-0000-4000-8000-000000000001");
    let container = pod.child(&"c".repeat(64));
    let first = kill_in(&container);
    // Its record has been taken.
    agent.wait_for_metric("oom_watcher_name_searches", 1.0);
    let before = counted();
    agent.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(500));
    let meanwhile = kill(3);
    let (status, told) = agent.end();
    assert!(status.success(), "{status}");
    let told = victims(&told);
    assert!(told.contains(&first), "the search has ended and the kill is told");
    let made = counted() - before;
    let agent = Agent::start(&[state]);
    let unwatched = agent.metric(UNWATCHED).expect("it knows the gap") as u64;
    let untold = meanwhile.difference(&told).count() as u64;
    println!("3 kills while it ended: {} told, {unwatched} counted as unwatched", 3 - untold);
    assert!((untold..=made - 3 + untold).contains(&unwatched), "{unwatched} of {untold}");
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot has an id");
    id[..8].to_owned()
}

/// The kernel's count in the state file.
#[track_caller]
fn kept(dir: &std::path::Path) -> u64 {
    let text = fs::read_to_string(dir.join("state.json")).expect("there is a state file");
    let state: serde_json::Value = serde_json::from_str(&text).expect("a state is JSON");
    state["kernel_kills"].as_u64().expect("a number")
}
