//! With pinned hooks: what happens while no watcher runs is told by the next one, once.

use std::{fs, path::PathBuf};

use rustix::process::Signal;

use crate::{
    Scenario,
    agent::{Agent, Launch},
    anywhere,
    kills::{Victims, account, counted, kill, victims},
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("three-kills-while-nobody-watches", three_kills_while_nobody_watches),
    anywhere("a-pin-of-another-program", a_pin_of_another_program),
    anywhere("two-watchers-and-one-pin", two_watchers_and_one_pin),
    anywhere("a-stale-pin", a_stale_pin),
    anywhere("a-read-only-pin-directory", a_read_only_pin_directory),
    anywhere("no-bpf-file-system", no_bpf_file_system),
    anywhere("the-ring-fills-while-nobody-reads", the_ring_fills_while_nobody_reads),
    anywhere("a-rolling-update-under-kills", a_rolling_update_under_kills),
];

const RECOVERED: &str = "oom_watcher_recovered_kills_total";
const LOST: &str = r#"oom_watcher_lost_events_total{stage="ring_buffer"}"#;

/// Arguments of a watcher that pins in a directory of `disk`, and keeps its state in memory beside it.
fn arguments(disk: &Disk, state: &std::path::Path) -> Vec<String> {
    vec![format!("--pin-dir={}", disk.path().join("pins").display()), format!("--state-dir={}", state.display())]
}

fn pins(disk: &Disk) -> Vec<PathBuf> {
    let entries = fs::read_dir(disk.path().join("pins")).expect("it is there");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Long enough for the state file to be as things are.
fn settle() {
    std::thread::sleep(std::time::Duration::from_secs(1));
}

fn three_kills_while_nobody_watches() {
    let (disk, state) = (Disk::bpf("three"), world::directory("three-state"));
    let mut agent = Agent::start(&arguments(&disk, &state));
    assert_eq!(agent.metric("oom_watcher_pinned"), Some(1.0));
    let first = kill(1);
    assert_eq!(victims(&agent.exactly(1)), first);
    settle();
    agent.kill();
    let killed = kill(3);
    let mut agent = Agent::start(&arguments(&disk, &state));
    assert_eq!(victims(&agent.exactly(3)), killed);
    let recovered = agent.metric(RECOVERED);
    assert!(recovered.is_some_and(|kills| kills >= 3.0), "{recovered:?}");
    assert_eq!(agent.metric("oom_watcher_unwatched_kills"), Some(0.0), "the hooks saw them");
    let more = kill(2);
    assert_eq!(victims(&agent.exactly(2)), more, "and it goes on");
    assert_eq!(agent.metric(RECOVERED), recovered, "those were there");
    assert_eq!(agent.stop(), Vec::<serde_json::Value>::new());
    let mut agent = Agent::start(&arguments(&disk, &state));
    assert_eq!(agent.exactly(0).len(), 0, "each is told once");
    assert_eq!(agent.metric("oom_watcher_unwatched_kills"), Some(0.0));
}

/// An upgrade: what the program before recorded is told, its hooks are gone, and nothing is told twice.
fn a_pin_of_another_program() {
    let (disk, state) = (Disk::bpf("upgrade"), world::directory("upgrade-state"));
    let agent = Agent::start(&arguments(&disk, &state));
    settle();
    agent.kill();
    let pin = pins(&disk).remove(0);
    fs::rename(&pin, pin.with_file_name("v0-0123456789abcdef")).expect("a pin can be renamed");
    let killed = kill(3);
    let mut agent = Agent::start(&arguments(&disk, &state));
    assert_eq!(victims(&agent.exactly(3)), killed);
    assert_eq!(agent.metric("oom_watcher_unwatched_kills"), Some(0.0));
    assert_eq!(pins(&disk), [pin], "its own pin, and no other");
    let more = kill(2);
    assert_eq!(victims(&agent.exactly(2)), more);
}

fn two_watchers_and_one_pin() {
    let (disk, state) = (Disk::bpf("two"), world::directory("two-state"));
    let mut agent = Agent::start(&arguments(&disk, &state));
    let said = Launch::new(&arguments(&disk, &state)).must_fail();
    assert!(said.contains("another watcher uses the pin directory"), "{said}");
    let killed = kill(1);
    assert_eq!(victims(&agent.exactly(1)), killed, "the first is not disturbed");
}

/// An empty pin of another program, half of one, and one of its own that lacks its most important link.
fn a_stale_pin() {
    let (disk, state) = (Disk::bpf("stale"), world::directory("stale-state"));
    for name in ["pins", "pins/v9-stale", "pins/new", "pins/somebody-elses"] {
        fs::create_dir(disk.path().join(name)).expect("a directory can be made");
    }
    let agent = Agent::start(&arguments(&disk, &state));
    let mut left = pins(&disk);
    left.sort();
    assert_eq!(left.len(), 2, "what is not ours stays: {left:?}");
    agent.kill();
    let own = left.iter().find(|path| !path.ends_with("somebody-elses")).expect("its own");
    fs::remove_file(own.join("mark_victim")).expect("a link can be taken away");
    let mut agent = Agent::start(&arguments(&disk, &state));
    agent.wait_for_log("is not complete");
    assert_eq!(agent.metric("oom_watcher_pinned"), Some(1.0));
    let killed = kill(1);
    assert_eq!(victims(&agent.exactly(1)), killed);
}

fn a_read_only_pin_directory() {
    let (disk, state) = (Disk::bpf("read-only"), world::directory("read-only-state"));
    fs::create_dir(disk.path().join("pins")).expect("a directory can be made");
    disk.make_read_only();
    let mut agent = Agent::start(&arguments(&disk, &state));
    agent.wait_for_log("Read-only file system");
    assert_eq!(agent.metric("oom_watcher_pinned"), Some(0.0));
    let killed = kill(1);
    assert_eq!(victims(&agent.exactly(1)), killed, "it watches, without a pin");
}

fn no_bpf_file_system() {
    let dir = world::directory("no-bpf");
    let said = Launch::new(&[format!("--pin-dir={}", dir.display())]).must_fail();
    assert!(said.contains("is not in a BPF file system") && said.contains("/sys/fs/bpf"), "{said}");
    let said = Launch::new(&["--pin-dir=/no/such/directory"]).must_fail();
    assert!(said.contains("cannot make the pin directory /no/such/directory"), "{said}");
}

/// More than the ring buffer holds: what is told and what is counted as lost are all.
fn the_ring_fills_while_nobody_reads() {
    let (disk, state) = (Disk::bpf("fills"), world::directory("fills-state"));
    let mut arguments = arguments(&disk, &state);
    arguments.push("--ring-buffer-size=65536".to_owned());
    let agent = Agent::start(&arguments);
    settle();
    agent.kill();
    let before = counted();
    let killed = kill(150);
    let agent = Agent::start(&arguments);
    let told = victims(&agent.rest());
    let others = counted() - before - 150;
    account(&killed, &told, agent.metric(LOST).expect("it is counted from the start"), others);
    assert_eq!(agent.metric("oom_watcher_unwatched_kills"), Some(0.0), "they are counted as lost already");
}

/// The old one is asked to end and the new one starts while processes are killed without pause: each is told by one of them.
fn a_rolling_update_under_kills() {
    let (disk, state) = (Disk::bpf("rolling"), world::directory("rolling-state"));
    let old = Agent::start(&arguments(&disk, &state));
    let killing = std::thread::spawn(|| (0..10).flat_map(|_| kill(2)).collect::<Victims>());
    std::thread::sleep(std::time::Duration::from_millis(200));
    old.signal(Signal::TERM);
    let (status, mut told) = old.end();
    assert!(status.success(), "{status}");
    let by_old = told.len();
    let agent = Agent::start(&arguments(&disk, &state));
    let killed = killing.join().expect("the kills are made");
    told.extend(agent.rest());
    told.extend(agent.stop());
    assert_eq!(victims(&told), killed);
    println!("{} kills: {by_old} told by the old one", killed.len());
}
