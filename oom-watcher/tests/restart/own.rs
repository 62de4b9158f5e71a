//! The watcher among the victims: kills beside it, and its own.

use std::{os::unix::process::ExitStatusExt as _, thread, time::Duration};

use crate::{
    Scenario,
    agent::{Agent, Launch, procs, tgid},
    anywhere,
    cgroup::Cgroup,
    hog::Hog,
    kills::victims,
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("a-kill-beside-it", a_kill_beside_it),
    anywhere("its-own-death", its_own_death),
    anywhere("too-little-memory", too_little_memory),
];

/// Room for a watcher at its start, and to spare.
const ROOM: u64 = 192 << 20;

/// A process in the watcher's own cgroup is killed, at the watcher's own limit.
fn a_kill_beside_it() {
    let cgroup = Cgroup::new("beside");
    cgroup.limit(ROOM);
    let mut agent = Launch::new::<&str>(&[]).inside(procs(&cgroup)).start();
    let mut hog = Hog::start(&cgroup, &["anon", "536870912", "1000"]);
    hog.go();
    hog.must_be_killed();
    let event = agent.exactly(1).remove(0);
    assert_eq!(tgid(&event), u64::from(hog.pid()));
    agent.stop();
}

/// The watcher itself is what the kernel picks: the next one tells of it, for the hooks were pinned.
fn its_own_death() {
    let (disk, state) = (Disk::bpf("own"), world::directory("own-state"));
    let cgroup = Cgroup::new("own");
    cgroup.limit(ROOM);
    let arguments =
        [format!("--pin-dir={}", disk.path().join("pins").display()), format!("--state-dir={}", state.display())];
    let agent = Launch::new(&arguments).inside(procs(&cgroup)).start();
    let pid = u64::from(agent.pid());
    let adjustment = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(adjustment, "1000").expect("a process can be offered");
    // The watcher goes first; then it is the hog's turn.
    let mut hog = Hog::start(&cgroup, &["anon", "536870912"]);
    hog.go();
    hog.must_be_killed();
    let (status, told) = agent.end();
    assert_eq!(status.signal(), Some(9), "{status}");
    assert!(told.is_empty(), "the dead tell nothing: {told:#?}");
    let mut agent = Agent::start(&arguments);
    let events = agent.exactly(2);
    assert_eq!(victims(&events), [pid, u64::from(hog.pid())].into());
    assert_eq!(events[0]["victim"]["comm"], "oom-watcher", "it came first");
    agent.stop();
}

/// Less memory than it needs to start: it ends by the kernel or with an error, never hangs, and leaves nothing attached.
fn too_little_memory() {
    let mut witness = Agent::start::<&str>(&[]);
    let cgroup = Cgroup::new("small");
    cgroup.limit(2 << 20);
    let said = Launch::new::<&str>(&[]).inside(procs(&cgroup)).must_fail();
    assert!(!said.contains("Watching for OOM kills"), "{said}");
    thread::sleep(Duration::from_millis(100));
    let events = witness.rest();
    assert_eq!(events.len() as u64, kills_in(&cgroup), "the kernel's kill of it is reported by another: {events:#?}");
    assert!(said.contains("panicked") || said.contains("memory") || !events.is_empty(), "{said}");
    witness.exactly(0);
    witness.stop();
}

/// Kills that the cgroup counts, as memory.events (v2) or memory.oom_control (v1) has them.
#[track_caller]
fn kills_in(cgroup: &Cgroup) -> u64 {
    let file = if crate::cgroup::hierarchy().v2 { "memory.events" } else { "memory.oom_control" };
    let text = cgroup.read(file).expect("the kernel counts kills");
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a line oom_kill");
    line.trim().parse().expect("a number")
}
