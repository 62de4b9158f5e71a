//! Whose limit ran out: the cases that were measured on a kubelet, and those that its documents describe.

use oom_watcher::cgroup::{Node, identify};
use oom_watcher::report::{Level, Scope, ScopeSource};
use oom_watcher::scope::{Decision, OomMemcg, PageCounters, decide};

const MIB: u64 = 1 << 20;
const COUNTERS: PageCounters = PageCounters { page_size: 4096, cpus: 4 };

const ID: &str = "9148f5c0ffee00112233445566778899aabbccddeeff00112233445566772ff5";

/// A cgroup path with figures: `name[=usage:limit]` for each level, in KiB, a limit of `-` for none.
fn levels(path: &str) -> Vec<Level> {
    let expanded = path.replace("{C}", ID);
    let level = |part: &str| {
        let (name, figures) = part.split_once('=').unwrap_or((part, ""));
        let (usage, limit) = figures.split_once(':').unwrap_or(("", ""));
        let bytes = |text: &str| text.parse::<u64>().ok().map(|kib| kib << 10);
        Level { name: name.into(), usage_bytes: bytes(usage), limit_bytes: bytes(limit), ..Level::default() }
    };
    expanded.split('/').map(level).collect()
}

#[track_caller]
fn decided(path: &str, oom_memcg: OomMemcg) -> Decision {
    let levels = levels(path);
    let names: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
    decide(&identify(&names, &Node::default()), &levels, oom_memcg, COUNTERS)
}

#[track_caller]
fn check(path: &str, named: usize, expected: Scope) {
    let decision = decided(path, OomMemcg::Level(named));
    assert_eq!(
        (decision.scope, decision.source, decision.level),
        (expected, ScopeSource::Kernel, Some(named)),
        "{path}"
    );
}

#[track_caller]
fn check_deduced(path: &str, expected: Scope, level: Option<usize>) {
    let decision = decided(path, OomMemcg::NotGiven);
    assert_eq!((decision.scope, decision.source, decision.level), (expected, ScopeSource::Deduced, level), "{path}");
}

#[test]
fn the_pod_is_named_for_its_one_containers_limit() {
    // 93 of 93 such kills on v1 and 5 of 5 on v2: the pod also carries pause.
    check("/kubepods=900000:8000000/burstable/podu=20480:20480/{C}=20180:20480", 3, Scope::Container);
    // Only limits known.
    check("/kubepods/burstable/podu=:20480/{C}=:20480", 3, Scope::Container);
    // CRI-O with conmon in the pod, crun's level below the container.
    check(
        "/kubepods.slice/kubepods-podu.slice=65536:65536/crio-{C}.scope=60000:65536/container=60000:65536",
        2,
        Scope::Container,
    );
}

#[test]
fn the_pod_is_named_for_a_limit_of_its_own() {
    // Two limited containers: 20 + 20 MiB, and the pod full before either.
    check("/kubepods/burstable/podu=40960:40960/{C}=18000:20480", 3, Scope::Pod);
    // Pod-level resources, a container without a limit.
    check("/kubepods/burstable/podu=40960:40960/{C}=18000:-", 3, Scope::Pod);
    // Pod-level resources: the kubelet gives such a container the pod's limit, but another one used the memory.
    check("/kubepods/burstable/podu=102400:102400/{C}=20480:102400", 3, Scope::Pod);
    // A tmpfs that outlived its container is charged to the pod.
    check("/kubepods/podu=524288:524288/{C}=131072:524288", 2, Scope::Pod);
    // gVisor, and runc's init in a sandbox whose pod is too small.
    check("/kubepods/burstable/podu=20480:20480", 3, Scope::Pod);
    check("/kubepods/burstable/podu=1024:1024/{C}=600:-", 3, Scope::Pod);
    // conmon in the pod's slice is not the container.
    check("/kubepods.slice/kubepods-podu.slice=20480:20480/crio-conmon-{C}.scope=1000:20480", 2, Scope::Pod);
}

#[test]
fn the_container_is_named_where_the_pod_has_more_or_no_limit() {
    check("/kubepods/burstable/podu=20780:-/{C}=20480:20480", 4, Scope::Container);
    check("/kubepods/burstable/podu=20780:40960/{C}=20480:20480", 4, Scope::Container);
    check("/kubepods-besteffort-podu.slice:cri-containerd:{C}=20480:20480", 1, Scope::Container);
    check("/docker/{C}=20480:20480", 2, Scope::Container);
    check("/machine.slice/libpod-{C}.scope=20480:20480/container=20480:-", 2, Scope::Container);
}

#[test]
fn a_limit_below_the_container_is_the_workloads() {
    check("/kubepods/burstable/podu/{C}=20480:65536/job=4096:4096", 5, Scope::Cgroup);
    check("/docker/{C}=20480:-/job=4096:4096", 3, Scope::Cgroup);
    // crun's own level carries the container's limit, or all of it.
    check("/kubepods.slice/kubepods-podu.slice/crio-{C}.scope=4096:4096/container=4096:4096", 4, Scope::Container);
    check("/kubepods.slice/kubepods-podu.slice/crio-{C}.scope=4096:-/container=4096:4096", 4, Scope::Container);
    // A workload's level may be called so too, where the container has a limit of its own.
    check("/kubepods.slice/kubepods-podu.slice/crio-{C}.scope=4096:8192/container=4096:4096", 4, Scope::Cgroup);
    check("/kubepods/burstable/podu/job=4096:4096", 4, Scope::Cgroup);
}

#[test]
fn the_levels_above_the_pod_have_their_own_names() {
    let path = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice\
                /kubelet-kubepods-burstable-podu.slice/cri-containerd-{C}.scope";
    for (named, expected) in
        [Scope::Node, Scope::Cgroup, Scope::Kubepods, Scope::Qos, Scope::Pod, Scope::Container].into_iter().enumerate()
    {
        check(path, named, expected);
    }
    check("/kubepods=100:100/burstable", 1, Scope::Kubepods);
    check("/kubepods/burstable=100:100", 2, Scope::Qos);
    check("/kubepods=100:100", 1, Scope::Kubepods);
    check("/system.slice/web.service=100:100", 2, Scope::Cgroup);
    check("/system.slice=100:100/docker-{C}.scope", 1, Scope::Cgroup);
    check("/docker/{C}/kubepods", 2, Scope::Container);
}

#[test]
fn the_machine_is_named_by_no_memcg() {
    let decision = decided("/kubepods=100:100/podu=100:100/{C}=100:100", OomMemcg::Global);
    assert_eq!(decision, Decision { scope: Scope::Node, source: ScopeSource::Kernel, ..Decision::default() });
}

#[test]
fn the_named_memcg_is_kept_beside_the_answer() {
    let decision = decided("/kubepods/burstable/podu=20480:20480/{C}=20180:20480", OomMemcg::Level(3));
    assert_eq!(decision.scope, Scope::Container);
    assert_eq!(decision.memcg_path.as_deref(), Some("/kubepods/burstable/podu"));
    assert_eq!((decision.limit_bytes, decision.usage_bytes), (Some(20 * MIB), Some(20 * MIB)));
}

#[test]
fn the_fullest_level_is_deduced_where_the_kernel_names_none() {
    // The pod by a page, for its one container.
    check_deduced("/kubepods=1:9000000/burstable=1:-/podu=20476:20480/{C}=20180:20480", Scope::Container, Some(3));
    // A tie: a charge stops at the innermost.
    check_deduced("/kubepods=1:9000000/burstable=1:-/podu=20480:20480/{C}=20480:20480", Scope::Container, Some(4));
    check_deduced("/kubepods=9000000:9000000/burstable=1:-/podu=1:-/{C}=1:20480", Scope::Kubepods, Some(1));
    // Above its limit: memory.max was lowered.
    check_deduced("/docker=1:-/{C}=40960:20480", Scope::Container, Some(2));
}

#[test]
fn nothing_is_deduced_from_levels_with_room() {
    check_deduced("/kubepods=1:9000000/burstable=1:-/podu=10240:20480/{C}=10000:20480", Scope::Unknown, None);
    // Four CPUs could hold 1 MiB, but a sixteenth of the limit bounds it; 32 KiB are always allowed.
    check_deduced("/docker=1:-/{C}=19190:20480", Scope::Unknown, None);
    check_deduced("/docker=1:-/{C}=19500:20480", Scope::Container, Some(2));
    check_deduced("/docker=1:-/{C}=68:100", Scope::Container, Some(2));
    check_deduced("/docker=1:-/{C}=67:100", Scope::Unknown, None);
    // Figures that were not given prove nothing.
    check_deduced("/docker/{C}", Scope::Unknown, None);
    check_deduced("/docker/{C}=:20480", Scope::Unknown, None);
}

#[test]
fn without_a_limit_anywhere_it_was_the_machine() {
    check_deduced("/system.slice=10:-/web.service=10:-", Scope::Node, None);
    check_deduced("/", Scope::Unknown, None);
}

/// A victim that shares memory with a process of the cgroup that ran out says nothing of whose limit it was.
#[test]
fn a_memcg_elsewhere_is_not_guessed() {
    for path in ["/docker/{C}=:20480", "/system.slice=10:-/web.service=10:-"] {
        assert_eq!(decided(path, OomMemcg::Elsewhere), Decision { source: ScopeSource::Kernel, ..Decision::default() });
    }
}

#[test]
fn levels_that_do_not_exist_name_nothing() {
    let decision = decided("/docker/{C}", OomMemcg::Level(9));
    assert_eq!(decision, Decision { source: ScopeSource::Kernel, ..Decision::default() });
    let truncated = [Level { name: "deep".into(), limit_bytes: Some(MIB), ..Level::default() }];
    let decision = decide(&identify(&["deep"], &Node::default()), &truncated, OomMemcg::Level(0), COUNTERS);
    assert_eq!((decision.scope, decision.memcg_path), (Scope::Cgroup, None));
}
