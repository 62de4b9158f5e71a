//! Without pinned hooks: the kills between two watchers are a number.

use std::{fs, thread, time::Duration};

use rustix::process::Signal;

use crate::{
    Scenario,
    agent::Agent,
    anywhere,
    kills::{Gap, counted, kill, victims},
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("the-gap-is-a-number", the_gap_is_a_number),
    anywhere("the-gap-after-a-kill-9", the_gap_after_a_kill_9),
    anywhere("a-state-that-cannot-be-used", a_state_that_cannot_be_used),
    anywhere("another-boot", another_boot),
    anywhere("the-disk-of-the-state-is-full", the_disk_of_the_state_is_full),
    anywhere("the-disk-of-the-state-is-read-only", the_disk_of_the_state_is_read_only),
    anywhere("the-disk-of-the-state-is-stuck", the_disk_of_the_state_is_stuck),
    anywhere("a-pipe-for-a-state", a_pipe_for_a_state),
    anywhere("sigterm-drains", sigterm_drains),
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
        while kept(&dir, "/kernel_kills") < reported {
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

/// The older state that is on it is the last that the next one knows.
fn the_disk_of_the_state_is_read_only() {
    let disk = Disk::memory("read-only-disk");
    let mut agent = Agent::start(&arguments(disk.path()));
    agent.exactly(0);
    agent.stop();
    let (written, before) = (kept(disk.path(), "/kernel_kills"), counted());
    disk.make_read_only();
    let mut agent = Agent::start(&arguments(disk.path()));
    let killed = kill(2);
    assert_eq!(victims(&agent.exactly(2)), killed, "kills are reported all the same");
    agent.wait_for_log("Read-only file system");
    let errors = agent.metric(r#"oom_watcher_state_errors_total{operation="write"}"#);
    assert!(errors.is_some_and(|errors| errors >= 1.0), "{errors:?}");
    agent.stop();
    assert_eq!(kept(disk.path(), "/kernel_kills"), written);
    let agent = Agent::start(&arguments(disk.path()));
    let unwatched = agent.metric(UNWATCHED).expect("it knows the gap") as u64;
    assert!(
        (before - written + 2..=counted() - written).contains(&unwatched),
        "the two that were told too: {unwatched}"
    );
}

/// A write that never ends: a pipe that nobody reads is opened as a file on a disk that hangs.
fn the_disk_of_the_state_is_stuck() {
    let dir = world::directory("stuck");
    world::pipe(&dir.join("state.new"));
    let mut agent = Agent::start(&arguments(&dir));
    for _ in 0..2 {
        let killed = kill(2);
        assert_eq!(victims(&agent.exactly(2)), killed, "kills are reported all the same");
    }
    agent.wait_for_metric(r#"oom_watcher_state_errors_total{operation="write"}"#, 0.0);
    agent.signal(Signal::TERM);
    agent.wait_for_log("could not be written in time");
    let (status, told) = agent.end();
    assert!(status.success() && told.is_empty(), "{status}");
}

/// In the place of the file there is a pipe, which is no state and is not waited for.
fn a_pipe_for_a_state() {
    let dir = world::directory("pipe");
    world::pipe(&dir.join("state.json"));
    let mut agent = Agent::start(&arguments(&dir));
    assert_eq!(agent.metric(UNWATCHED), None);
    agent.wait_for_log("is not a state file");
    let gap = Gap::open(|| drop(agent.stop()));
    gap.close(|| Agent::start(&arguments(&dir)));
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

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot has an id");
    id[..8].to_owned()
}

/// A figure in the state file, by its place.
#[track_caller]
pub(crate) fn kept(dir: &std::path::Path, figure: &str) -> u64 {
    let text = fs::read_to_string(dir.join("state.json")).expect("there is a state file");
    let state: serde_json::Value = serde_json::from_str(&text).expect("a state is JSON");
    state.pointer(figure).and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("no {figure} in {text}"))
}
