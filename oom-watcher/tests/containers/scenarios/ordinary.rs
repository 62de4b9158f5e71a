//! Kills as they happen every day: a container's own limit, whatever the container is.

use super::{IDLE, LATER, LIMIT, ON_SIGNAL, Stage, eventually, spec, watch};
use crate::{
    account::Watch,
    expect::{assert_counted, assert_linked, assert_scope},
    kubelet::{Container, Pod},
    pods::{self, Qos},
    watcher::{number, text},
};

/// Limits of pod and container are the same, and the kernel names the pod where the container is meant.
pub(super) fn one_container(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("web-0", Qos::Burstable, Some(LIMIT));
    let container = pod.run_container(spec("app", LATER), 0);
    let kill = stage.kill(&watch);
    assert_linked(&kill, &container);
    assert_scope(&kill, "container");
    assert_eq!(number(&kill, "/incident/limit_bytes"), LIMIT);
    assert_eq!(text(&kill, "/victim/comm"), "tail");
    println!("the kernel names {}", text(&kill, "/incident/memcg_path"));
    assert_counted(&watch, &container, 1);
    watch
}

pub(super) fn guaranteed(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("db-0", Qos::Guaranteed, Some(2 * LIMIT));
    let other = pod.run_container(spec("metrics", IDLE), 0);
    let container = pod.run_container(spec("db", LATER), 3);
    let kill = stage.kill(&watch);
    assert_linked(&kill, &container);
    assert_scope(&kill, "container");
    assert_eq!(text(&kill, "/incident/memcg_path"), container.cgroup());
    assert_counted(&watch, &container, 1);
    assert!(!other.has_exited());
    watch
}

/// The container lives on, and is killed in again: on v1 always, on v2 with the kubelet's `singleProcessOOMKill`.
pub(super) fn a_child_only(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet().killing_single_processes();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("worker", Qos::Burstable, Some(LIMIT));
    let container = pod.run_container(spec("app", "for i in 1 2; do sleep 0.3; tail /dev/zero; done; sleep 1000"), 0);
    for kill in stage.kills(&watch, 2) {
        assert_linked(&kill, &container);
        assert_scope(&kill, "container");
        assert_eq!(text(&kill, "/victim/comm"), "tail");
        assert_eq!(number(&kill, "/incident/victims"), 1);
        assert_eq!(kill["incident"]["group_kill"], false, "{kill:#}");
    }
    assert_counted(&watch, &container, 2);
    assert_eq!(pods::oom_kills(&container.cgroup()), Some(2), "the kernel counts them in the container");
    assert!(!container.has_exited(), "its first process lives on");
    watch
}

/// `memory.oom.group`, which the kubelet sets by default: all of a container's processes die, and it is one incident. How many of
/// them the OOM killer kills is the kernel's to say: with the first process its pid namespace ends, and takes along those that
/// the OOM killer has not come to.
pub(super) fn a_whole_container(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("server", Qos::Burstable, Some(LIMIT));
    let script = "sleep 1000 & sleep 1000 & sleep 0.3; tail /dev/zero; sleep 1000";
    let container = pod.run_container(spec("app", script), 0);
    let kills = watch.incident(&stage.name);
    for kill in &kills {
        assert_linked(kill, &container);
        assert_scope(kill, "container");
        assert_eq!(kill["incident"]["group_kill"], true, "{kill:#}");
    }
    let victims: Vec<&str> = kills.iter().map(|kill| text(kill, "/victim/comm")).collect();
    println!("killed: {victims:?}");
    assert_eq!(victims[0], "tail", "the one that was chosen comes first");
    assert!(victims[1..].contains(&"sh"), "the first process is killed too");
    assert!(victims.len() <= 4, "nobody else was there");
    assert_counted(&watch, &container, kills.len() as u64);
    eventually("the container has ended", || container.has_exited());
    watch
}

/// Such containers differ in nothing that the node shows.
pub(super) fn init_and_ephemeral(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("batch-7c9d", Qos::Burstable, Some(LIMIT));
    for name in ["init-schema", "debugger-x7k2p"] {
        let container = pod.run_container(spec(name, "sleep 0.2; exec tail /dev/zero"), 0);
        let kill = stage.kill(&watch);
        assert_linked(&kill, &container);
        assert_scope(&kill, "container");
        assert_counted(&watch, &container, 1);
    }
    watch
}

/// In six pods, of five containers and with some overhead: five full containers and the sandbox are more than the sum of the
/// containers' limits, and then it would be the pod's limit that runs out.
pub(super) fn thirty_at_once(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pods: Vec<Pod> =
        (0..6).map(|number| kubelet.run_pod(&format!("herd-{number}"), Qos::Burstable, Some(6 * LIMIT))).collect();
    let names: Vec<String> = (0..5).map(|number| format!("app-{number}")).collect();
    let containers: Vec<Container> =
        pods.iter().flat_map(|pod| names.iter().map(move |name| pod.run_container(spec(name, ON_SIGNAL), 0))).collect();
    let _open = kubelet.open_gate();
    let kills = stage.kills(&watch, containers.len());
    for container in &containers {
        let of_it = kills.iter().find(|kill| text(kill, "/kubernetes/container_id") == container.id);
        let kill = of_it.unwrap_or_else(|| panic!("no kill of {} in {}", container.name, container.pod.name));
        assert_linked(kill, container);
        assert_scope(kill, "container");
        assert_counted(&watch, container, 1);
    }
    watch
}
