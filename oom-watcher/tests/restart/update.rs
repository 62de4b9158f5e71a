//! One watcher follows another while processes are killed: what is told by the one, by the other, or counted by the next.

use std::{fs, io::Write as _, net::TcpStream, thread, time::Duration, time::Instant};

use rustix::process::Signal;

use crate::{
    Scenario,
    agent::{Agent, Launch},
    anywhere,
    cgroup::Cgroup,
    foreign,
    kills::{Victims, counted, kill, kill_in, victims},
    machine,
    pinned::{self, pins, settle},
    world::{self, Disk},
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a-rolling-update-under-kills",
        impossible: machine::unpinnable,
        run: a_rolling_update_under_kills,
    },
    anywhere("a-rolling-update-without-pins", a_rolling_update_without_pins),
    Scenario {
        name: "an-update-across-a-record-version",
        impossible: machine::unpinnable,
        run: an_update_across_a_record_version,
    },
    anywhere("kills-while-it-ends", kills_while_it_ends),
    anywhere("it-ends-in-time", it_ends_in_time),
];

const UNWATCHED: &str = "oom_watcher_unwatched_kills";
const CHART: &str = include_str!("../../../helm/oom-watcher/values.yaml");

/// The time that the chart gives it to end.
#[track_caller]
fn grace() -> Duration {
    let line = CHART.lines().find_map(|line| line.strip_prefix("terminationGracePeriodSeconds: "));
    Duration::from_secs(line.expect("the chart has a time").trim().parse().expect("a number of seconds"))
}

/// Kills in a container that has no name, so that one is searched for, for seconds.
struct Unnamed {
    container: Cgroup,
    // Removed in this order.
    _above: [Cgroup; 3],
}

impl Unnamed {
    fn new() -> Self {
        let outer = Cgroup::new("unnamed");
        let kubepods = outer.child("kubepods");
        let pod = kubepods.child("pod00000000-0000-4000-8000-000000000001");
        let container = pod.child("c".repeat(64));
        Self { container, _above: [pod, kubepods, outer] }
    }

    /// Kills one, and waits until the agent searches.
    #[track_caller]
    fn kill(&self, agent: &mut Agent) -> u64 {
        let victim = kill_in(&self.container);
        agent.wait_for_metric("oom_watcher_name_searches", 1.0);
        victim
    }
}

/// The old one is asked to end, and the new one starts, while processes are killed without pause; what the two told, and what
/// was killed.
#[track_caller]
fn roll(arguments: &[String]) -> (Victims, Victims, Agent) {
    let old = Agent::start(arguments);
    let killing = thread::spawn(|| (0..10).flat_map(|_| kill(2)).collect::<Victims>());
    thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    old.signal(Signal::TERM);
    let (status, mut told) = old.end();
    let took = asked.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < grace(), "it took {took:?}");
    let by_old = told.len();
    let agent = Agent::start(arguments);
    let killed = killing.join().expect("the kills are made");
    told.extend(agent.rest());
    println!("{} kills: {by_old} told by the old one, {} by the new one", killed.len(), told.len() - by_old);
    (victims(&told), killed, agent)
}

/// With pinned hooks, each is told by one of them.
fn a_rolling_update_under_kills() {
    let (disk, state) = (Disk::bpf("rolling"), world::directory("rolling-state"));
    let (told, killed, agent) = roll(&pinned::arguments(&disk, &state));
    assert_eq!(told, killed);
    assert_eq!(agent.stop(), Vec::<serde_json::Value>::new());
}

/// As the chart installs it, with a state file: each is told by one of them, or counted by the new one.
fn a_rolling_update_without_pins() {
    let state = world::directory("rolling-without-pins");
    let before = counted();
    let (told, killed, agent) = roll(&[format!("--state-dir={}", state.display())]);
    assert!(told.is_subset(&killed), "only the killed are told");
    let untold = (killed.len() - told.len()) as u64;
    let others = counted() - before - killed.len() as u64;
    let unwatched = agent.metric(UNWATCHED).expect("it knows the gap") as u64;
    // The kernel counts a kill a moment before the hooks see it: one in the moment of the start is counted and told.
    assert!((untold..=untold + others + 1).contains(&unwatched), "{unwatched} counted, {untold} told by nobody");
    assert_eq!(agent.stop(), Vec::<serde_json::Value>::new());
}

/// What the hooks of another version recorded cannot be understood: each kill is counted as lost where it is decoded.
fn an_update_across_a_record_version() {
    let (disk, state) = (Disk::bpf("version"), world::directory("version-state"));
    let arguments = pinned::arguments(&disk, &state);
    let old = Launch::of(&foreign::agent(), &arguments).start();
    settle();
    old.kill();
    let pin = pins(&disk);
    let before = counted();
    let killed = kill(3).len() as u64;
    let mut agent = Agent::start(&arguments);
    agent.exactly(0);
    agent.wait_for_log(&format!("a record of ABI version {}", foreign::VERSION));
    let lost = agent.metric(r#"oom_watcher_lost_events_total{stage="decode"}"#).expect("it is counted") as u64;
    let others = counted() - before - killed;
    assert!((killed..=killed + others).contains(&lost), "{lost} counted as lost");
    assert_eq!(agent.metric(UNWATCHED), Some(0.0), "the hooks saw them");
    let new = pins(&disk);
    assert!(new.len() == 1 && new != pin, "its own pin, and no other: {new:?}");
    let more = kill(2);
    assert_eq!(victims(&agent.exactly(2)), more);
    agent.stop();
}

/// A name is searched for, which takes seconds, when it is asked to stop; what is killed meanwhile is told or counted.
fn kills_while_it_ends() {
    let (state, links) = (world::directory("ends"), world::directory("ends-links"));
    let arguments = [format!("--state-dir={}", state.display()), format!("--container-log-dir={}", links.display())];
    let unnamed = Unnamed::new();
    let mut agent = Agent::start(&arguments);
    let first = unnamed.kill(&mut agent);
    let before = counted();
    agent.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(500));
    let meanwhile = kill(3);
    let (status, told) = agent.end();
    assert!(status.success(), "{status}");
    let told = victims(&told);
    assert!(told.contains(&first), "the search has ended and the kill is told");
    let agent = Agent::start(&arguments);
    let unwatched = agent.metric(UNWATCHED).expect("it knows the gap") as u64;
    let untold = meanwhile.difference(&told).count() as u64;
    let others = counted() - before - 3;
    println!("3 kills while it ended: {} told, {unwatched} counted as unwatched", 3 - untold);
    assert!((untold..=untold + others).contains(&unwatched), "{unwatched} counted, {untold} told by nobody");
}

/// Everything that it waits for at its end is stuck: a name that is not found, the state's disk, its reader, connections.
fn it_ends_in_time() {
    let (state, links) = (world::directory("in-time"), world::directory("in-time-links"));
    world::pipe(&state.join("state.new"));
    let arguments = [format!("--state-dir={}", state.display()), format!("--container-log-dir={}", links.display())];
    let unnamed = Unnamed::new();
    let mut agent = Launch::new(&arguments).unread().start();
    // More lines than the pipe to nobody holds.
    kill(60);
    let mut connections: Vec<TcpStream> =
        (0..3).filter_map(|_| TcpStream::connect(("127.0.0.1", agent.port())).ok()).collect();
    for connection in &mut connections {
        connection.write_all(b"GET /metrics HTT").expect("it takes the half of a request");
    }
    unnamed.kill(&mut agent);
    let asked = Instant::now();
    agent.signal(Signal::TERM);
    let (status, _) = agent.end();
    let took = asked.elapsed();
    println!("it ended {:.1} s after SIGTERM, of {} s", took.as_secs_f32(), grace().as_secs());
    assert!(status.success() && took < grace(), "{status} after {took:?}");
    assert!(!fs::exists(state.join("state.json")).expect("it can be looked"), "the disk was stuck");
}
