//! Kills at a bad moment: before there is a link, when everything is being removed, again and again.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime, clock_settime};
use serde_json::Value;

use super::{HOG, LIMIT, MIB, ON_SIGNAL, Stage, rounds, spec, spread, watch, watch_with};
use crate::{
    account::Watch,
    expect::{assert_counted, assert_full, assert_linked, assert_pod, assert_scope, counted},
    kubelet::{Container, Kubelet},
    pods::Qos,
    watcher::text,
};

/// Takes all memory with its first read, some 15 to 40 ms after its first instruction.
const GULP: &str = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
/// One every 300 ms.
const RESTART: Duration = Duration::from_millis(300);

/// The kill races with the link, which comes as soon as a kubelet's.
pub(super) fn at_the_start(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    for round in 0..rounds(5, 2) {
        let pod = kubelet.run_pod(&format!("hasty-{round}"), Qos::Burstable, Some(LIMIT));
        let container = pod.run_container(spec("app", GULP), 0);
        let kill = stage.kill(&watch);
        assert_linked(&kill, &container);
        assert_scope(&kill, "container");
        assert_counted(&watch, &container, 1);
    }
    watch
}

/// The latest link that was measured came 28 ms after the kill.
pub(super) fn before_the_link(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("early", Qos::Burstable, Some(LIMIT));
    let container = pod.create(spec("app", HOG), 0);
    container.start();
    container.wait_for_kill();
    thread::sleep(Duration::from_millis(28));
    container.link();
    let kill = stage.kill(&watch);
    assert_full(&kill, &container, "rescan");
    assert_scope(&kill, "container");
    assert_counted(&watch, &container, 1);
    watch
}

/// A limit that not even the sandbox fits in: only the pod's log directory knows the name.
pub(super) fn in_the_sandbox(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let logs = kubelet.pod_logs();
    let watch = watch_with(&kubelet, &["--pod-log-dir", logs.to_str().expect("text")]);
    if stage.handler == "crun" {
        // It is so small that it is the sandbox's program that cannot start.
        assert!(kill_in_sandbox(stage, &kubelet, &watch, 64 << 10).is_some(), "the sandbox has started");
        return watch;
    }
    // runc first copies itself, some 10 MiB, and is moved into the pod's cgroup meanwhile. Where the copy is charged to the pod
    // the smallest limit kills it by the name that it has until then, and a larger one kills the sandbox's first process.
    let mut victims =
        [1, 9, 10, 11, 12, 13, 14, 16].into_iter().map(|limit| kill_in_sandbox(stage, &kubelet, &watch, limit * MIB));
    assert!(
        victims.any(|victim| victim.is_some_and(|comm| comm.starts_with("runc:["))),
        "runc is never killed as the first process of the sandbox"
    );
    watch
}

/// Who is killed in the sandbox of a pod with this limit; none if it starts.
#[track_caller]
fn kill_in_sandbox(stage: &Stage, kubelet: &Kubelet, watch: &Watch, limit: u64) -> Option<String> {
    let mut pod = kubelet.pod(&format!("too-small-{limit}"), Qos::Burstable, Some(limit));
    let status = pod.run().err()?;
    let kill = stage.kill(watch);
    assert_pod(&kill, &pod);
    let attribution = (text(&kill, "/attribution/result"), text(&kill, "/attribution/source"));
    assert_eq!(attribution, ("pod", "pod_directory"), "{kill:#}");
    assert!(kill["kubernetes"].get("container").is_none(), "no container is to blame: {kill:#}");
    let sandbox = kill.pointer("/kubernetes/container_id").and_then(Value::as_str).unwrap_or_default();
    assert_eq!(
        counted(watch, &pod.name, sandbox),
        Some(1),
        "it is counted in the pod, by the id of its sandbox if that is known"
    );
    assert_eq!(text(&kill, "/incident/memcg_path"), pod.cgroup);
    let victim = text(&kill, "/victim/comm");
    println!("killed with a limit of {} KiB: {victim}; the runtime says: {}", limit >> 10, status.message());
    Some(victim.to_owned())
}

/// Each instance has its own id and link; the old link goes when the next instance has died. They are created beforehand: what
/// a runtime takes for it would be longer than the time between two kills.
pub(super) fn restart_loop(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("crashing", Qos::Burstable, Some(LIMIT));
    let restarts = rounds(24, 4);
    let instances: Vec<Container> = (0..restarts).map(|attempt| pod.create(spec("app", HOG), attempt)).collect();
    for (attempt, container) in instances.iter().enumerate() {
        let due = Instant::now() + RESTART;
        container.start_with_link();
        container.wait_for_exit();
        if let Some(last) = attempt.checked_sub(1) {
            instances[last].unlink();
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let kills = stage.kills(&watch, instances.len());
    for (kill, container) in kills.iter().zip(&instances) {
        assert_linked(kill, container);
        assert_scope(kill, "container");
    }
    assert_counted(&watch, &instances[0], u64::from(restarts));
    let times: Vec<f64> = kills.iter().map(milliseconds).collect();
    println!("{}", spread("from kill to kill", times.windows(2).map(|pair| pair[1] - pair[0]).collect()));
    // Beside the time from kill to line, which is printed for each scenario.
    let ended = times.iter().zip(&instances).map(|(killed, container)| container.finished() - killed);
    println!("{}", spread("from kill to the end of the container, by the runtime", ended.collect()));
    watch
}

/// When it was, by the wall clock.
fn milliseconds(kill: &Value) -> f64 {
    let time: jiff::Timestamp = text(kill, "/time").parse().expect("a time");
    time.as_duration().as_secs_f64() * 1000.0
}

fn milliseconds_now() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64() * 1000.0
}

/// Link, logs, processes and cgroups go at the moment of the kill, and then what the runtime has, which takes its time.
pub(super) fn pod_removed_at_once(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let (mut to_nameless, mut to_vanished, mut to_removed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds(10, 3) {
        let mut pod = kubelet.run_pod(&format!("gone-{round}"), Qos::Burstable, Some(LIMIT));
        let (name, id) = {
            let container = pod.run_container(spec("app", "sleep 0.2; exec tail /dev/zero"), 0);
            container.wait_for_kill();
            container.unlink();
            (container.name.clone(), container.id.clone())
        };
        let nameless = milliseconds_now();
        pod.vanish();
        let vanished = milliseconds_now();
        pod.remove();
        let removed = milliseconds_now();
        let kill = stage.kill(&watch);
        assert_eq!(text(&kill, "/attribution/result"), "full", "{kill:#}");
        assert_pod(&kill, &pod);
        assert_eq!((text(&kill, "/kubernetes/container"), text(&kill, "/kubernetes/container_id")), (&*name, &*id));
        assert_scope(&kill, "container");
        assert_eq!(counted(&watch, &pod.name, &name), Some(1));
        let killed = milliseconds(&kill);
        to_nameless.push(nameless - killed);
        to_vanished.push(vanished - killed);
        to_removed.push(removed - killed);
    }
    println!("{}", spread("from the kill until link and log are gone", to_nameless));
    println!("{}", spread("from the kill until processes and cgroups are gone", to_vanished));
    println!("{}", spread("from the kill until the runtime has no sandbox", to_removed));
    watch
}

/// Ahead by more than names of gone containers are kept, and back: names age by another clock.
pub(super) fn the_clock_is_set(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("punctual", Qos::Burstable, Some(LIMIT));
    for (attempt, hours) in [(0, 1), (1, -1)] {
        let container = pod.run_container(spec("app", ON_SIGNAL), attempt);
        thread::sleep(Duration::from_millis(100));
        container.unlink();
        thread::sleep(Duration::from_millis(100));
        set_clock(hours);
        let _open = kubelet.open_gate();
        let kill = stage.kill(&watch);
        assert_full(&kill, &container, "index");
        assert_counted(&watch, &container, u64::from(attempt) + 1);
    }
    watch
}

#[track_caller]
fn set_clock(hours: i64) {
    let mut time = clock_gettime(ClockId::Realtime);
    time.tv_sec += hours * 3600;
    clock_settime(ClockId::Realtime, time).expect("the clock of a guest can be set");
}
