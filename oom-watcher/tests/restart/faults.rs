//! What the machine can do to a watcher that runs: stop it, starve it, take its files away.

use std::{fs, io::Write as _, net::TcpStream, os::unix::fs::symlink, path::Path, time::Duration};

use rustix::process::Signal;

use crate::{
    Scenario,
    agent::{Agent, Launch},
    anywhere,
    kills::{account, counted, kill, victims},
    world,
};

pub(crate) const SCENARIOS: &[Scenario] = &[
    anywhere("stopped-under-kills", stopped_under_kills),
    anywhere("few-open-files", few_open_files),
    Scenario { name: "starved-of-cpu", impossible: CpuQuota::missing, run: starved_of_cpu },
    anywhere("the-links-go-and-return", the_links_go_and_return),
    Scenario { name: "the-clock-jumps", impossible: not_a_guest, run: the_clock_jumps },
];

const LOST: &str = r#"oom_watcher_lost_events_total{stage="ring_buffer"}"#;

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
    assert_eq!(agent.metric("oom_watcher_missed_kills_total"), Some(0.0), "the hooks saw the lost ones");
}

/// With hardly a file to open, and all that are left taken by connections that say nothing.
fn few_open_files() {
    let mut agent = Launch::new::<&str>(&[]).open_files(32).start();
    let connections: Vec<TcpStream> =
        (0..40).filter_map(|_| TcpStream::connect(("127.0.0.1", agent.port())).ok()).collect();
    for mut connection in &connections {
        // It may have been closed by now.
        let _ = connection.write_all(b"GET /metrics HTT");
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
}

impl Drop for CpuQuota {
    fn drop(&mut self) {
        std::thread::sleep(Duration::from_millis(200));
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

fn not_a_guest() -> Option<&'static str> {
    (!fs::exists("/suite").unwrap_or(false)).then_some("it is the machine's clock; only in a guest")
}

/// The wall clock is a day back after the kill was recorded: order and durations are of the clock since boot, and only the
/// time that is printed follows.
fn the_clock_jumps() {
    let mut agent = Agent::start::<&str>(&[]);
    let first = kill(1);
    let before = agent.exactly(1);
    assert_eq!(victims(&before), first);
    set_clock(-86_400);
    let second = kill(2);
    let events = agent.exactly(2);
    set_clock(86_400);
    assert_eq!(victims(&events), second);
    assert_eq!(agent.metric("oom_watcher_missed_kills_total"), Some(0.0));
    agent.stop();
}

fn set_clock(seconds: i64) {
    use rustix::time::{ClockId, clock_gettime, clock_settime};
    let mut time = clock_gettime(ClockId::Realtime);
    time.tv_sec += seconds;
    clock_settime(ClockId::Realtime, time).expect("the clock can be set");
}
