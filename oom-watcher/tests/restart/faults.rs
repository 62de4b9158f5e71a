//! What the machine can do to a watcher that runs: stop it, starve it, take its files away.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::process::Signal;

use crate::{
    Scenario,
    agent::{Agent, Launch},
    anywhere,
    kills::{Gap, Victims, account, counted, kill, victims},
    machine, tracer, world,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("stopped-under-kills", stopped_under_kills),
    anywhere("stopped-for-a-minute", stopped_for_a_minute),
    anywhere("few-open-files", few_open_files),
    Scenario { name: "starved-of-cpu", impossible: CpuQuota::missing, run: starved_of_cpu },
    anywhere("the-links-go-and-return", the_links_go_and_return),
    Scenario { name: "the-clock-jumps", impossible: machine::not_a_guest, run: the_clock_jumps },
    anywhere("a-hook-is-removed", a_hook_is_removed),
];

const LOST: &str = r#"oom_watcher_lost_events_total{stage="ring_buffer"}"#;
const MISSED: &str = "oom_watcher_missed_kills_total";
const MINUTE: Duration = Duration::from_mins(1);

/// It is stopped for a minute, longer than its silence may last, while kills go on: all are in the ring buffer as it is by
/// default, and are told when it goes on.
fn stopped_for_a_minute() {
    let mut agent = Agent::start::<&str>(&[]);
    assert_eq!(agent.livez(), Some(200));
    agent.signal(Signal::STOP);
    let begun = Instant::now();
    let mut killed = Victims::new();
    while begun.elapsed() < MINUTE {
        killed.extend(kill(1));
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(agent.livez(), None, "who asks gets no answer, which is not being alive");
    agent.signal(Signal::CONT);
    assert_eq!(victims(&agent.exactly(killed.len())), killed);
    assert_eq!(agent.metric(LOST), Some(0.0));
    assert_eq!(agent.metric(MISSED), Some(0.0));
    assert_eq!(agent.livez(), Some(200), "it has read, and lives");
    println!("{} kills in a minute, told when it went on", killed.len());
    agent.stop();
}

/// It is stopped while more is killed than the ring buffer holds: told and lost are all, and nothing is missed.
fn stopped_under_kills() {
    let mut agent = Agent::start(&["--ring-buffer-size=65536"]);
    agent.signal(Signal::STOP);
    let before = counted();
    let killed = kill(150);
    agent.signal(Signal::CONT);
    let told = victims(&agent.rest());
    let others = counted() - before - 150;
    account(&killed, &told, agent.metric(LOST).expect("it is counted from the start"), others);
    let more = kill(2);
    assert_eq!(victims(&agent.exactly(2)), more, "and it goes on");
    assert_eq!(agent.metric(MISSED), Some(0.0), "the hooks saw the lost ones");
}

/// Some more than the agent has open when it stands by.
const FEW_FILES: u64 = 32;

fn open_files(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count() as u64
}

/// With hardly a file to open, and all that are left taken by connections that say nothing.
fn few_open_files() {
    let mut agent = Launch::new::<&str>(&[]).open_files(FEW_FILES).start();
    let connections: Vec<TcpStream> =
        (0..40).filter_map(|_| TcpStream::connect(("127.0.0.1", agent.port())).ok()).collect();
    for mut connection in &connections {
        // It may have been closed by now.
        let _ = connection.write_all(b"GET /metrics HTT");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while open_files(agent.pid()) < FEW_FILES {
        assert!(Instant::now() < deadline, "it has files left to open: {} of {FEW_FILES}", open_files(agent.pid()));
        thread::sleep(Duration::from_millis(20));
    }
    let killed = kill(2);
    assert_eq!(victims(&agent.exactly(2)), killed);
    drop(connections);
    agent.wait_for_metric(LOST, 0.0);
    agent.stop();
}

/// A twentieth of a CPU.
fn starved_of_cpu() {
    let quota = CpuQuota::new();
    let mut agent = Agent::start::<&str>(&[]);
    quota.admit(agent.pid());
    let killed = kill(30);
    assert_eq!(victims(&agent.exactly(30)), killed);
    assert_eq!(agent.metric(LOST), Some(0.0));
    let throttled = quota.throttled();
    println!("30 kills; the agent had used up its quota {throttled} times");
    assert!(throttled > 0, "it was never short of CPU");
    agent.stop();
}

/// A cgroup with 5 ms of CPU in 100 ms.
struct CpuQuota(std::path::PathBuf);

impl CpuQuota {
    const V1: &str = "/sys/fs/cgroup/cpu";
    const V2: &str = "/sys/fs/cgroup";

    fn missing() -> Option<&'static str> {
        let controllers = fs::read_to_string(format!("{}/cgroup.controllers", Self::V2)).unwrap_or_default();
        let v2 = controllers.split_whitespace().any(|controller| controller == "cpu");
        (!v2 && !fs::exists(Self::V1).unwrap_or(false)).then_some("there is no CPU controller")
    }

    fn new() -> Self {
        let v1 = Path::new(Self::V1);
        let parent = if v1.exists() { v1 } else { Path::new(Self::V2) };
        let cgroup = Self(parent.join(format!("oom-test-cpu-{}", std::process::id())));
        if parent != v1 {
            fs::write(parent.join("cgroup.subtree_control"), "+cpu").expect("the controller can be delegated");
        }
        fs::create_dir(&cgroup.0).expect("a cgroup can be made");
        let (file, quota) = if parent == v1 { ("cpu.cfs_quota_us", "5000") } else { ("cpu.max", "5000 100000") };
        fs::write(cgroup.0.join(file), quota).expect("the quota can be set");
        cgroup
    }

    #[track_caller]
    fn admit(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("a process can be admitted");
    }

    /// How often the quota was used up before its period was over.
    #[track_caller]
    fn throttled(&self) -> u64 {
        let text = fs::read_to_string(self.0.join("cpu.stat")).expect("the kernel counts");
        let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled ")).expect("a line nr_throttled");
        line.parse().expect("a number")
    }
}

impl Drop for CpuQuota {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(200));
        // What is left shows in the machine's list of cgroups.
        let _ = fs::remove_dir(&self.0);
    }
}

/// The directory of container links is removed and made anew: names are taken up again by themselves.
fn the_links_go_and_return() {
    let links = world::directory("links").join("containers");
    let link = |pod: &str, digit: &str| {
        let id = digit.repeat(64);
        symlink(format!("/var/log/pods/{pod}"), links.join(format!("{pod}_default_main-{id}.log"))).expect("a link");
    };
    let zero =
        |pod: &str| format!(r#"oom_kills_total{{node="test-node",namespace="default",pod="{pod}",container="main"}}"#);
    fs::create_dir(&links).expect("a directory");
    link("first", "a");
    let arguments = [format!("--container-log-dir={}", links.display()), "--node-name=test-node".to_owned()];
    let mut agent = Agent::start(&arguments);
    agent.wait_for_metric(&zero("first"), 0.0);
    fs::remove_dir_all(&links).expect("it can be removed");
    let killed = kill(1);
    assert_eq!(victims(&agent.exactly(1)), killed, "kills are reported without names");
    fs::create_dir(&links).expect("a directory");
    link("second", "b");
    agent.wait_for_metric(&zero("second"), 0.0);
    agent.stop();
}

/// The wall clock is set a day back and two days on: order and durations are of the clock since boot, and only the time that is
/// printed follows. Counters and ages go on.
fn the_clock_jumps() {
    let mut agent = Agent::start(&["--node-name=test-node"]);
    let total = r#"oom_kills_per_node_total{node="test-node"}"#;
    let last = r#"oom_last_timestamp{node="test-node",namespace="",pod="",container=""}"#;
    let mut made = 0;
    for seconds in [0, -86_400, 2 * 86_400, -86_400] {
        set_clock(seconds);
        let killed = kill(2);
        let events = agent.exactly(2);
        assert_eq!(victims(&events), killed, "after {seconds} s");
        for event in &events {
            let time = event["time"].as_str().expect("an event has a time");
            assert_now(time.parse().expect("a time"));
        }
        made += killed.len();
        agent.wait_for_metric(total, made as f64);
        let last = agent.metric(last).expect("there was a kill");
        assert_now(Timestamp::from_millisecond((last * 1000.0) as i64).expect("a time"));
    }
    assert_eq!(agent.livez(), Some(200));
    assert_eq!(agent.metric(MISSED), Some(0.0));
    agent.stop();
}

/// The time of a kill is that of the clock as it is now. An emulated guest may take a while to come here.
#[track_caller]
fn assert_now(time: Timestamp) {
    let ago = Timestamp::now().duration_since(time);
    assert!(ago.as_secs() >= 0 && ago.as_secs() < 60, "{time} is {ago:?} ago");
}

fn set_clock(seconds: i64) {
    use rustix::time::{ClockId, clock_gettime, clock_settime};
    let mut time = clock_gettime(ClockId::Realtime);
    time.tv_sec += seconds;
    clock_settime(ClockId::Realtime, time).expect("the clock can be set");
}

/// The most important hook is taken from under it, as nobody without its files can: kills are not told, and counted to the last.
fn a_hook_is_removed() {
    let state = world::directory("removed");
    let arguments = [format!("--state-dir={}", state.display())];
    let mut agent = Agent::start(&arguments);
    let killed = kill(1);
    assert_eq!(victims(&agent.exactly(1)), killed);
    tracer::take(
        agent.pid(),
        tracer::descriptor(agent.pid(), &["link_type:\traw_tracepoint", "tp_name:\tmark_victim"]),
    );
    let before = counted();
    kill(3);
    agent.exactly(0);
    // Two audits, and perhaps kills of somebody else's meanwhile.
    let deadline = Instant::now() + Duration::from_mins(2);
    while agent.metric(MISSED) != Some((counted() - before) as f64) {
        assert!(Instant::now() < deadline, "{:?} of {}\n{}", agent.metric(MISSED), counted() - before, agent.said());
        thread::sleep(Duration::from_millis(200));
    }
    println!("{} kills without the hook, all counted as missed", counted() - before);
    assert_eq!(agent.livez(), Some(200), "it reads on");
    // They were missed, not unwatched: the next one does not count them again.
    let gap = Gap::open(|| drop(agent.stop()));
    gap.close(|| Agent::start(&arguments));
}
