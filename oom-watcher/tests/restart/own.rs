//! The watcher among the victims: kills beside it, and its own.

use std::{
    fs,
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::{
    Scenario,
    agent::{Agent, Launch, procs, tgid},
    anywhere,
    cgroup::Cgroup,
    hog::Hog,
    kills::{Victims, counted, kill, victims},
    machine, pinned,
    state::kept,
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("a-kill-beside-it", a_kill_beside_it),
    Scenario { name: "its-own-death", impossible: machine::unpinnable, run: its_own_death },
    anywhere("too-little-memory", too_little_memory),
    Scenario { name: "memory-that-cannot-be-had", impossible: machine::unpinnable, run: memory_that_cannot_be_had },
    anywhere("its-place-among-victims", its_place_among_victims),
];

/// The second tick is over, at which the agent gives back what its start has taken.
const GIVEN_BACK: Duration = Duration::from_secs(12);
/// As many names as the agent keeps.
const CONTAINERS_MAX: u32 = 15_000;
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
    fs::write(adjustment, "1000").expect("a process can be offered");
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

/// It gets no more memory while containers are made and killed and its page is asked for, and ends in the middle of it; the next one tells or counts all
/// that it has not told.
fn memory_that_cannot_be_had() {
    let (disk, state, links) = (Disk::bpf("poor"), world::directory("poor-state"), world::directory("poor-links"));
    let mut arguments = pinned::arguments(&disk, &state);
    arguments.push(format!("--container-log-dir={}", links.display()));
    let mut agent = Agent::start(&arguments);
    // Until then it has what starting took, which is more than all of the names take.
    thread::sleep(GIVEN_BACK);
    let before = counted();
    refuse_memory(&agent);
    let mut killed = Victims::new();
    let mut containers = 0..CONTAINERS_MAX;
    while agent.has_ended().is_none() {
        // Each is a name, and series at zero for who scrapes.
        containers.by_ref().take(100).for_each(|number| link(&links, number));
        assert!(!containers.is_empty(), "it goes on without memory: {}", agent.said());
        killed.extend(kill(1));
        agent.scrape();
    }
    let (status, old) = agent.end();
    killed.extend(kill(3));
    // Of some that it told its state does not know: these are told and counted.
    let known = kept(&state, "/records/taken") - kept(&state, "/records/untold");
    let overlap = (old.len() as u64).saturating_sub(known);
    let mut agent = Agent::start(&arguments);
    let new = agent.rest();
    let told = victims(&[old.as_slice(), &new].concat());
    assert!(told.is_subset(&killed), "only the killed are told, each once");
    let unwatched = agent.metric("oom_watcher_unwatched_kills").expect("it knows the gap") as u64;
    let lost = agent.metric(r#"oom_watcher_lost_events_total{stage="ring_buffer"}"#).expect("it is counted") as u64;
    let accounted = told.len() as u64 + unwatched + lost - overlap;
    let made = killed.len() as u64;
    let others = counted() - before - made;
    println!(
        "it ended with {status} at {} containers; {made} kills: {} told by it, {} by the next, {unwatched} counted ({overlap} \
         of them told)",
        containers.start,
        old.len(),
        new.len()
    );
    assert!((made..=made + others).contains(&accounted), "{accounted} of {made}\n{}", agent.said());
    agent.stop();
}

/// The log of a container, as the kubelet links it.
#[track_caller]
fn link(links: &Path, number: u32) {
    let link = links.join(format!("pod-{number}_default_main-{number:064x}.log"));
    symlink(format!("/var/log/pods/default_pod-{number}_{number:032x}/main/0.log"), link).expect("a link can be made");
}

/// Lets a process have no memory beyond what it has: no address space, and no page to write to in what an arena has reserved.
#[track_caller]
fn refuse_memory(agent: &Agent) {
    let limit = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
    let pid = Pid::from_raw(agent.pid() as i32).expect("it has a pid");
    for resource in [Resource::As, Resource::Data] {
        prlimit(Some(pid), resource, limit).expect("its limit can be set");
    }
}

/// It says where it stands, and stands where it may: before nearly everybody only with CAP_SYS_RESOURCE.
fn its_place_among_victims() {
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("the kernel has one").trim().to_owned();
    let may = may_lower();
    let agent = Agent::start::<&str>(&[]);
    let place = agent.proc("oom_score_adj").trim().to_owned();
    println!("oom_score_adj {place}; CAP_SYS_RESOURCE: {may}");
    assert_eq!(place, if may { "-997" } else { &own });
    assert_eq!(agent.metric("oom_watcher_oom_score_adj"), Some(place.parse().expect("a number")));
    agent.stop();
}

/// Whether this process has CAP_SYS_RESOURCE (24).
fn may_lower() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("it can be read");
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("a line CapEff");
    u64::from_str_radix(line, 16).expect("a number") & (1 << 24) != 0
}

/// Kills that the cgroup counts, as memory.events (v2) or memory.oom_control (v1) has them.
#[track_caller]
fn kills_in(cgroup: &Cgroup) -> u64 {
    let file = if crate::cgroup::hierarchy().v2 { "memory.events" } else { "memory.oom_control" };
    let text = cgroup.read(file).expect("the kernel counts kills");
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a line oom_kill");
    line.trim().parse().expect("a number")
}
