//! Whose limit ran out: at every level from all pods to what a workload makes for itself.

use super::{LATER, LIMIT, MIB, ON_SIGNAL, Stage, eventually, spec, watch};
use crate::{
    account::Watch,
    expect::{assert_counted, assert_linked, assert_names, assert_scope},
    kubelet::Spec,
    pods::{self, PassingLimit, Qos},
    watcher::{number, text},
};

/// One container holds the memory, another asks for more than the pod may have; both are within their own limits.
pub(super) fn the_pods(stage: &Stage) -> Watch {
    // What is left must be enough for runc itself, which starts inside the container.
    const POD: u64 = 36 * MIB;
    let limit = Some(24 * MIB);
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("shared", Qos::Burstable, Some(POD));
    let holder = pod.run_container(
        Spec { limit, ..spec("cache", "dd if=/dev/zero of=/dev/shm/fill bs=1M count=16 2>/dev/null; exec sleep 1000") },
        0,
    );
    eventually("the cache has its memory", || pods::usage(&holder.cgroup()) >= 16 * MIB);
    let asker = pod.run_container(Spec { limit, ..spec("app", LATER) }, 0);
    let kill = stage.kill(&watch);
    assert_linked(&kill, &asker);
    assert_scope(&kill, "pod");
    assert_eq!(text(&kill, "/incident/memcg_path"), pod.cgroup);
    assert_eq!(number(&kill, "/incident/limit_bytes"), POD);
    assert_counted(&watch, &asker, 1);
    assert!(!holder.has_exited());
    watch
}

/// A limit for all burstable pods, as memory QoS sets it.
pub(super) fn the_qos_levels(stage: &Stage) -> Watch {
    above_the_pod(stage, Qos::Burstable, Qos::Burstable.path(), "qos")
}

/// The node's allocatable memory. A pod without requests and limits goes first, and has no other limit to reach.
pub(super) fn of_all_pods(stage: &Stage) -> Watch {
    above_the_pod(stage, Qos::BestEffort, "/kubepods", "kubepods")
}

/// Neither pod nor container has a limit; the level at `path` has one.
fn above_the_pod(stage: &Stage, qos: Qos, path: &str, scope: &str) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let pod = kubelet.run_pod("unlimited", qos, None);
    let container = pod.run_container(Spec { limit: None, ..spec("app", ON_SIGNAL) }, 0);
    let (_passing, limit) = PassingLimit::set(path, LIMIT);
    let _open = kubelet.open_gate();
    let kill = stage.kill(&watch);
    assert_linked(&kill, &container);
    assert_scope(&kill, scope);
    assert_eq!(text(&kill, "/incident/memcg_path"), path);
    assert_eq!(number(&kill, "/incident/limit_bytes"), limit);
    assert_counted(&watch, &container, 1);
    watch
}

/// A limit below the container's: the container is known, and its limit is not to blame.
pub(super) fn the_workloads_own(stage: &Stage) -> Watch {
    let kubelet = stage.kubelet();
    let watch = watch(&kubelet);
    let limit = Some(4 * LIMIT);
    let pod = kubelet.run_pod("builder", Qos::Burstable, limit);
    let container = pod.run_container(Spec { limit, ..spec("app", ON_SIGNAL) }, 0);
    let job = pods::make_inside(&container.cgroup(), "job", LIMIT);
    let _open = kubelet.open_gate();
    let kill = stage.kill(&watch);
    assert_names(&kill, &container, text(&kill, "/attribution/source"));
    assert_scope(&kill, "cgroup");
    assert_eq!((text(&kill, "/cgroup/path"), text(&kill, "/incident/memcg_path")), (&*job, &*job));
    assert_eq!(text(&kill, "/kubernetes/sub_cgroup"), "job");
    assert_eq!(number(&kill, "/incident/limit_bytes"), LIMIT);
    assert_counted(&watch, &container, 1);
    watch
}
