//! The kills, each with what the agent must say of it.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime, clock_settime};
use serde_json::Value;

use crate::{
    cgroup,
    containerd::{self, Containerd},
    expect::{
        assert_counted, assert_full, assert_identifiers, assert_linked, assert_pod, assert_scope, counted, kills,
        labelled,
    },
    kubelet::{Container, Kubelet, Pod, Spec},
    pods::{self, Qos},
    scenario::anywhere,
    watcher::{Watcher, number, text},
};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 20 * MIB;
/// Takes memory until it is killed, at once.
const HOG: &str = "exec tail /dev/zero";
/// Takes it all with its first read, some 15 to 40 ms after its first instruction.
const GULP: &str = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
/// The same, when it has long had its link.
const LATER: &str = "sleep 0.5; exec tail /dev/zero";
/// The same, when the suite says so.
const ON_SIGNAL: &str = "read go < /shared/gate; exec tail /dev/zero";
const IDLE: &str = "exec sleep 1000";

/// One scenario, for each runtime.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether this machine can have it; the reason why not.
    pub(crate) possible: fn() -> Result<(), String>,
    pub(crate) run: fn(&Stage),
}

/// Where a scenario plays.
pub(crate) struct Stage<'a> {
    pub(crate) containerd: &'a Containerd,
    pub(crate) handler: &'static str,
    /// The scenario's name with the runtime's.
    pub(crate) name: String,
}

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "one-container", possible: anywhere, run: one_container },
    Scenario { name: "guaranteed", possible: anywhere, run: guaranteed },
    Scenario { name: "a-child-only", possible: anywhere, run: a_child_only },
    Scenario { name: "at-the-start", possible: anywhere, run: at_the_start },
    Scenario { name: "before-the-link", possible: anywhere, run: before_the_link },
    Scenario { name: "in-the-sandbox", possible: anywhere, run: in_the_sandbox },
    Scenario { name: "restart-loop", possible: anywhere, run: restart_loop },
    Scenario { name: "pod-removed-at-once", possible: anywhere, run: pod_removed_at_once },
    Scenario { name: "thirty-at-once", possible: anywhere, run: thirty_at_once },
    Scenario { name: "init-and-ephemeral", possible: anywhere, run: init_and_ephemeral },
    Scenario { name: "the-pods-limit", possible: anywhere, run: the_pods_limit },
    Scenario { name: "nobody-knows-it", possible: anywhere, run: nobody_knows_it },
    Scenario { name: "a-sibling-is-known", possible: anywhere, run: a_sibling_is_known },
    Scenario { name: "the-runtime-knows-it", possible: anywhere, run: the_runtime_knows_it },
    Scenario { name: "zero-series", possible: anywhere, run: zero_series },
    Scenario { name: "the-clock-is-set", possible: in_a_guest, run: the_clock_is_set },
];

impl Stage<'_> {
    fn kubelet(&self) -> Kubelet<'_> {
        Kubelet::new(self.containerd, self.handler)
    }

    #[track_caller]
    fn kills(&self, watcher: &Watcher, count: usize) -> Vec<Value> {
        kills(&self.name, watcher, count)
    }

    #[track_caller]
    fn kill(&self, watcher: &Watcher) -> Value {
        self.kills(watcher, 1).remove(0)
    }
}

/// An agent that has the links, as by default.
#[track_caller]
fn watch(kubelet: &Kubelet) -> Watcher {
    watch_with(kubelet, &[])
}

#[track_caller]
fn watch_with(kubelet: &Kubelet, arguments: &[&str]) -> Watcher {
    let links = kubelet.links();
    let links = links.to_str().expect("the suite's own paths are text");
    Watcher::start_with(&[&["--container-log-dir", links], arguments].concat())
}

fn spec<'a>(name: &'a str, script: &'a str) -> Spec<'a> {
    Spec { name, script, limit: Some(LIMIT) }
}

/// Limits of pod and container are the same, and the kernel names the pod where the container is meant.
fn one_container(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("web-0", Qos::Burstable, Some(LIMIT));
    let container = pod.run_container(spec("app", LATER), 0);
    let kill = stage.kill(&watcher);
    assert_linked(&kill, &container);
    assert_scope(&kill, "container");
    assert_eq!(number(&kill, "/incident/limit_bytes"), LIMIT);
    assert_eq!(text(&kill, "/victim/comm"), "tail");
    println!("the kernel names {}", text(&kill, "/incident/memcg_path"));
    assert_counted(&watcher, &container, 1);
}

fn guaranteed(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("db-0", Qos::Guaranteed, Some(2 * LIMIT));
    let other = pod.run_container(spec("metrics", IDLE), 0);
    let container = pod.run_container(spec("db", LATER), 3);
    let kill = stage.kill(&watcher);
    assert_linked(&kill, &container);
    assert_scope(&kill, "container");
    assert_eq!(text(&kill, "/incident/memcg_path"), container.cgroup());
    assert_counted(&watcher, &container, 1);
    assert!(!other.has_exited());
}

/// On v1 the container lives on, and is killed in again; on v2 the whole container dies, and both are reported.
fn a_child_only(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("worker", Qos::Burstable, Some(LIMIT));
    let container = pod.run_container(spec("app", "for i in 1 2; do sleep 0.3; tail /dev/zero; done; sleep 1000"), 0);
    let found = stage.kills(&watcher, 2);
    for kill in &found {
        assert_linked(kill, &container);
        assert_scope(kill, "container");
    }
    assert_counted(&watcher, &container, 2);
    if cgroup::hierarchy().v2 {
        container.wait_for_exit();
        assert!(found.iter().all(|kill| kill["incident"]["group_kill"] == true), "{found:#?}");
    } else {
        assert!(!container.has_exited(), "its first process lives on");
    }
}

/// The kill races with the link, which comes as soon as a kubelet's.
fn at_the_start(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    for round in 0..3 {
        let pod = kubelet.run_pod(&format!("hasty-{round}"), Qos::Burstable, Some(LIMIT));
        let container = pod.run_container(spec("app", GULP), 0);
        let kill = stage.kill(&watcher);
        assert_linked(&kill, &container);
        assert_scope(&kill, "container");
        assert_counted(&watcher, &container, 1);
    }
}

/// The latest link that was measured came 28 ms after the kill.
fn before_the_link(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("early", Qos::Burstable, Some(LIMIT));
    let container = pod.create(spec("app", HOG), 0);
    container.start();
    container.wait_for_kill();
    thread::sleep(Duration::from_millis(28));
    container.link();
    let kill = stage.kill(&watcher);
    assert_full(&kill, &container, "rescan");
    assert_scope(&kill, "container");
    assert_counted(&watcher, &container, 1);
}

/// A limit that not even the sandbox fits in: only the pod's log directory knows the name.
fn in_the_sandbox(stage: &Stage) {
    let kubelet = stage.kubelet();
    let logs = kubelet.pod_logs();
    let watcher = watch_with(&kubelet, &["--pod-log-dir", logs.to_str().expect("text")]);
    // runc is killed as its own first process; crun is so small that it is the sandbox's program that cannot start.
    let mut pod = kubelet.pod("too-small", Qos::Burstable, Some(if stage.handler == "crun" { 64 << 10 } else { MIB }));
    match pod.run() {
        Ok(()) => println!("the sandbox has started"),
        Err(status) => println!("{}", status.message()),
    }
    let kill = stage.kill(&watcher);
    assert_pod(&kill, &pod);
    let attribution = (text(&kill, "/attribution/result"), text(&kill, "/attribution/source"));
    assert_eq!(attribution, ("pod", "pod_directory"), "{kill:#}");
    assert!(kill["kubernetes"].get("container").is_none(), "no container is to blame: {kill:#}");
    assert_eq!(text(&kill, "/incident/memcg_path"), pod.cgroup);
    println!("killed: {}", text(&kill, "/victim/comm"));
}

/// Each instance has its own id and link; the old link goes when the next instance has died.
fn restart_loop(stage: &Stage) {
    const RESTARTS: u32 = 6;
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("crashing", Qos::Burstable, Some(LIMIT));
    let mut instances: Vec<Container> = Vec::new();
    for attempt in 0..RESTARTS {
        let due = Instant::now() + Duration::from_millis(300);
        let container = pod.run_container(spec("app", "sleep 0.05; exec tail /dev/zero"), attempt);
        container.wait_for_exit();
        if let Some(last) = instances.last() {
            last.unlink();
        }
        instances.push(container);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let kills = stage.kills(&watcher, instances.len());
    for (kill, container) in kills.iter().zip(&instances) {
        assert_linked(kill, container);
        assert_scope(kill, "container");
    }
    assert_counted(&watcher, &instances[0], u64::from(RESTARTS));
}

/// Links, logs, cgroups and the runtime's state go at the moment of the kill.
fn pod_removed_at_once(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let mut removal = Duration::MAX;
    for round in 0..3 {
        let mut pod = kubelet.run_pod(&format!("gone-{round}"), Qos::Burstable, Some(LIMIT));
        let (name, id) = {
            let container = pod.run_container(spec("app", "sleep 0.2; exec tail /dev/zero"), 0);
            container.wait_for_kill();
            let killed = Instant::now();
            container.unlink();
            removal = removal.min(killed.elapsed());
            (container.name.clone(), container.id.clone())
        };
        pod.remove();
        let kill = stage.kill(&watcher);
        assert_eq!(text(&kill, "/attribution/result"), "full", "{kill:#}");
        assert_pod(&kill, &pod);
        assert_eq!((text(&kill, "/kubernetes/container"), text(&kill, "/kubernetes/container_id")), (&*name, &*id));
        assert_scope(&kill, "container");
        assert_eq!(counted(&watcher, &pod.name, &name), Some(1));
    }
    assert!(removal < Duration::from_millis(100), "the links were gone {removal:?} after the kill");
}

fn thirty_at_once(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pods: Vec<Pod> =
        (0..6).map(|number| kubelet.run_pod(&format!("herd-{number}"), Qos::Burstable, Some(5 * LIMIT))).collect();
    let names: Vec<String> = (0..5).map(|number| format!("app-{number}")).collect();
    let containers: Vec<Container> =
        pods.iter().flat_map(|pod| names.iter().map(move |name| pod.run_container(spec(name, ON_SIGNAL), 0))).collect();
    let _open = kubelet.open_gate();
    let kills = stage.kills(&watcher, containers.len());
    for container in &containers {
        let of_it = kills.iter().find(|kill| text(kill, "/kubernetes/container_id") == container.id);
        let kill = of_it.unwrap_or_else(|| panic!("no kill of {} in {}", container.name, container.pod.name));
        assert_linked(kill, container);
        assert_scope(kill, "container");
        assert_counted(&watcher, container, 1);
    }
}

/// Such containers differ in nothing that the node shows.
fn init_and_ephemeral(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("batch-7c9d", Qos::Burstable, Some(LIMIT));
    for name in ["init-schema", "debugger-x7k2p"] {
        let container = pod.run_container(spec(name, "sleep 0.2; exec tail /dev/zero"), 0);
        let kill = stage.kill(&watcher);
        assert_linked(&kill, &container);
        assert_scope(&kill, "container");
        assert_counted(&watcher, &container, 1);
    }
}

/// One container holds the memory, another asks for more than the pod may have; both are within their own limits.
fn the_pods_limit(stage: &Stage) {
    // What is left must be enough for runc itself, which starts inside the container.
    const POD: u64 = 36 * MIB;
    let limit = Some(24 * MIB);
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("shared", Qos::Burstable, Some(POD));
    let holder = pod.run_container(
        Spec { limit, ..spec("cache", "dd if=/dev/zero of=/dev/shm/fill bs=1M count=16 2>/dev/null; exec sleep 1000") },
        0,
    );
    wait_for_usage(&holder, 16 * MIB);
    let asker = pod.run_container(Spec { limit, ..spec("app", LATER) }, 0);
    let kill = stage.kill(&watcher);
    assert_linked(&kill, &asker);
    assert_scope(&kill, "pod");
    assert_eq!(text(&kill, "/incident/memcg_path"), pod.cgroup);
    assert_eq!(number(&kill, "/incident/limit_bytes"), POD);
    assert_counted(&watcher, &asker, 1);
    assert!(!holder.has_exited());
}

#[track_caller]
fn wait_for_usage(container: &Container, bytes: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while pods::usage(&container.cgroup()) < bytes {
        assert!(Instant::now() < deadline, "{} does not take its memory", container.name);
        thread::sleep(Duration::from_millis(10));
    }
}

/// No link, no log directory, no runtime: the identifiers are the labels.
fn nobody_knows_it(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("nameless", Qos::Burstable, Some(LIMIT));
    let container = pod.create(spec("app", LATER), 0);
    container.start();
    let kill = stage.kill(&watcher);
    let attribution = (text(&kill, "/attribution/result"), text(&kill, "/attribution/source"));
    assert_eq!(attribution, ("id", "path"), "{kill:#}");
    assert_identifiers(&kill, &pod);
    assert_eq!(text(&kill, "/kubernetes/container_id"), container.id);
    assert_scope(&kill, "container");
    let page = watcher.get("/metrics");
    let series = format!("{} 1", labelled("", &pod.uid, &container.id));
    assert!(page.lines().any(|line| line == series), "no {series} in {page}");
}

/// Another container of the pod has a link: the pod is known, the container is not.
fn a_sibling_is_known(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("pair", Qos::Burstable, Some(2 * LIMIT));
    let _sibling = pod.run_container(spec("known", IDLE), 0);
    let container = pod.create(spec("app", LATER), 0);
    container.start();
    let kill = stage.kill(&watcher);
    let attribution = (text(&kill, "/attribution/result"), text(&kill, "/attribution/source"));
    assert_eq!(attribution, ("pod", "sibling"), "{kill:#}");
    assert_pod(&kill, &pod);
    assert_eq!(text(&kill, "/kubernetes/container_id"), container.id);
    assert_eq!(counted(&watcher, &pod.name, &container.id), Some(1));
}

/// Nothing but the runtime has the name.
fn the_runtime_knows_it(stage: &Stage) {
    let kubelet = stage.kubelet();
    let socket = containerd::socket();
    let watcher = watch_with(&kubelet, &["--cri-socket", socket.to_str().expect("text")]);
    let pod = kubelet.run_pod("unlinked", Qos::Burstable, Some(LIMIT));
    let container = pod.create(spec("app", LATER), 2);
    container.start();
    let kill = stage.kill(&watcher);
    assert_full(&kill, &container, "cri");
    assert_scope(&kill, "container");
    assert_counted(&watcher, &container, 1);
    let answered = watcher.metric("oom_watcher_cri_requests_total{result=\"answered\"}");
    assert!((answered - 1.0).abs() < 0.1, "{answered} questions");
}

/// Series are there before the first kill, and a restart changes nothing.
fn zero_series(stage: &Stage) {
    let kubelet = stage.kubelet();
    let pod = kubelet.run_pod("quiet", Qos::Burstable, Some(LIMIT));
    let first = pod.run_container(spec("app", "exec sleep 1"), 0);
    let watcher = watch(&kubelet);
    wait_for_series(&watcher, &first);
    first.wait_for_exit();
    let second = pod.run_container(spec("app", ON_SIGNAL), 1);
    first.unlink();
    // One more look at the changes of the index.
    thread::sleep(Duration::from_secs(11));
    assert_counted(&watcher, &second, 0);
    let _open = kubelet.open_gate();
    let kill = stage.kill(&watcher);
    assert_linked(&kill, &second);
    assert_counted(&watcher, &second, 1);
}

#[track_caller]
fn wait_for_series(watcher: &Watcher, container: &Container) {
    // Series follow the index every ten seconds.
    let deadline = Instant::now() + Duration::from_secs(12);
    while counted(watcher, &container.pod.name, &container.name).is_none() {
        assert!(Instant::now() < deadline, "no series of {}", container.name);
        thread::sleep(Duration::from_millis(100));
    }
    assert_counted(watcher, container, 0);
}

/// A machine whose clock may be set.
fn in_a_guest() -> Result<(), String> {
    Path::new("/suite").exists().then_some(()).ok_or_else(|| "the clock of a machine in use is not set".to_owned())
}

/// Ahead by more than names of gone containers are kept, and back: names age by another clock.
fn the_clock_is_set(stage: &Stage) {
    let kubelet = stage.kubelet();
    let watcher = watch(&kubelet);
    let pod = kubelet.run_pod("punctual", Qos::Burstable, Some(LIMIT));
    for (attempt, hours) in [(0, 1), (1, -1)] {
        let container = pod.run_container(spec("app", ON_SIGNAL), attempt);
        thread::sleep(Duration::from_millis(100));
        container.unlink();
        thread::sleep(Duration::from_millis(100));
        set_clock(hours);
        let _open = kubelet.open_gate();
        let kill = stage.kill(&watcher);
        assert_full(&kill, &container, "index");
        assert_counted(&watcher, &container, u64::from(attempt) + 1);
    }
}

#[track_caller]
fn set_clock(hours: i64) {
    let mut time = clock_gettime(ClockId::Realtime);
    time.tv_sec += hours * 3600;
    clock_settime(ClockId::Realtime, time).expect("the clock of a guest can be set");
}
