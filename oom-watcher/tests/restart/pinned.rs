//! With pinned hooks: what happens while no watcher runs is told by the next one, once.

use std::{fs, path::PathBuf};

use crate::{
    Scenario,
    agent::{Agent, Launch},
    anywhere,
    kills::{account, counted, kill, kill_group, victims},
    machine,
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "three-kills-while-nobody-watches",
        impossible: machine::unpinnable,
        run: three_kills_while_nobody_watches,
    },
    Scenario {
        name: "a-group-killed-while-nobody-watches",
        impossible: || machine::unpinnable().or_else(machine::no_groups),
        run: a_group_killed_while_nobody_watches,
    },
    Scenario { name: "a-pin-of-another-program", impossible: machine::unpinnable, run: a_pin_of_another_program },
    anywhere("two-watchers-and-one-pin", two_watchers_and_one_pin),
    Scenario { name: "a-stale-pin", impossible: machine::unpinnable, run: a_stale_pin },
    anywhere("a-read-only-pin-directory", a_read_only_pin_directory),
    anywhere("no-bpf-file-system", no_bpf_file_system),
    anywhere("a-read-only-bpf-file-system", a_read_only_bpf_file_system),
    Scenario { name: "probes-that-cannot-be-pinned", impossible: machine::pinnable, run: probes_that_cannot_be_pinned },
    Scenario {
        name: "the-ring-fills-while-nobody-reads",
        impossible: machine::unpinnable,
        run: the_ring_fills_while_nobody_reads,
    },
];

const RECOVERED: &str = "oom_watcher_recovered_kills_total";
const LOST: &str = r#"oom_watcher_lost_events_total{stage="ring_buffer"}"#;

/// Arguments of a watcher that pins in a directory of `disk`, and keeps its state in memory beside it.
pub(crate) fn arguments(disk: &Disk, state: &std::path::Path) -> Vec<String> {
    vec![format!("--pin-dir={}", disk.path().join("pins").display()), format!("--state-dir={}", state.display())]
}

/// What is in that directory.
#[track_caller]
pub(crate) fn pins(disk: &Disk) -> Vec<PathBuf> {
    let entries = fs::read_dir(disk.path().join("pins")).expect("it is there");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Long enough for the state file to be as things are.
pub(crate) fn settle() {
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

/// The kernel counts one of a group twice; that is no kill that nobody saw.
fn a_group_killed_while_nobody_watches() {
    let (disk, state) = (Disk::bpf("group"), world::directory("group-state"));
    let agent = Agent::start(&arguments(&disk, &state));
    settle();
    agent.kill();
    let before = counted();
    kill_group(4);
    assert_eq!(counted() - before, 6, "five victims, one of them twice");
    let mut agent = Agent::start(&arguments(&disk, &state));
    assert_eq!(victims(&agent.exactly(5)).len(), 5);
    assert_eq!(agent.metric("oom_watcher_unwatched_kills"), Some(0.0), "the hooks saw them all");
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

/// Nothing was ever pinned in it, so that the directory is missing too.
fn a_read_only_bpf_file_system() {
    let (disk, state) = (Disk::bpf("read-only-all"), world::directory("read-only-all-state"));
    disk.make_read_only();
    let mut agent = Agent::start(&arguments(&disk, &state));
    agent.wait_for_log("cannot make the pin directory");
    assert_eq!(agent.metric("oom_watcher_pinned"), Some(0.0));
    let killed = kill(1);
    assert_eq!(victims(&agent.exactly(1)), killed, "it watches, without a pin");
    // A disk of another kind that refuses is not one that pins were ever possible on.
    let disk = Disk::memory("read-only-other");
    disk.make_read_only();
    let said = Launch::new(&arguments(&disk, &state)).must_fail();
    assert!(said.contains("is not in a BPF file system"), "{said}");
}

/// It watches without a pin, by the same hooks, and leaves nothing in the directory that would be taken for one.
fn probes_that_cannot_be_pinned() {
    let (disk, state) = (Disk::bpf("probes"), world::directory("probes-state"));
    let mut agent = Agent::start(&arguments(&disk, &state));
    agent.wait_for_log("is a probe of a kind that this kernel does not pin");
    assert_eq!(agent.metric("oom_watcher_pinned"), Some(0.0));
    assert_eq!(agent.metric(r#"oom_watcher_hook_attached{hook="out_of_memory",method="kprobe"}"#), Some(1.0));
    let killed = kill(2);
    assert_eq!(victims(&agent.exactly(2)), killed, "each once: no hook is left of the attempt");
    settle();
    agent.kill();
    let killed = kill(2).len();
    let agent = Agent::start(&arguments(&disk, &state));
    assert_eq!(agent.metric("oom_watcher_unwatched_kills"), Some(killed as f64), "nobody watched");
    assert_eq!(agent.metric("oom_watcher_lost_events_total{stage=\"ring_buffer\"}"), Some(0.0));
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
