//! The families of the outward contract: names and labels are kept exactly.

use prometheus_client::{metrics::MetricType, registry::Unit};

use crate::{exposition::Family, report::Scope};

/// All of them, in the order in which they are shown.
pub static FAMILIES: &[&Family] =
    &[&KILLS, &KILLS_PER_NODE, &INCIDENTS, &LAST_TIMESTAMP, &MEMORY_USAGE, &MEMCG_MEMORY, &LIMIT, &USAGE, &POD];

const NO_KILL: &str = "No kill in that container since the watcher started, or --max-series left no room.";

pub(super) static KILLS: Family = Family {
    name: "oom_kills",
    kind: MetricType::Counter,
    unit: None,
    labels: &["node", "namespace", "pod", "container"],
    help: "Processes that the OOM killer killed. In no container: namespace, pod and container are empty. \
           Without names: the pod's UID and the container's id.",
    absent: "No kill in that container, and it does not live on the node or --zero-series is off; or --series-retention has \
             passed since it was gone; or --max-series left no room.",
};
pub(super) static KILLS_PER_NODE: Family = Family {
    name: "oom_kills_per_node",
    kind: MetricType::Counter,
    unit: None,
    labels: &["node"],
    help: "Processes that the OOM killer killed on the node, also those whose labels found no room in oom_kills_total.",
    absent: "Never: it exists at 0 from the start.",
};
pub(super) static INCIDENTS: Family = Family {
    name: "oom_incidents",
    kind: MetricType::Counter,
    unit: None,
    labels: &["node", "namespace", "pod", "container", "scope"],
    help: "Decisions of the OOM killer, each with one victim or more, on the container of its first victim. \
           scope: whose limit ran out.",
    absent: NO_KILL,
};
pub(super) static LAST_TIMESTAMP: Family = Family {
    name: "oom_last_timestamp",
    kind: MetricType::Gauge,
    unit: None,
    labels: &["node", "namespace", "pod", "container"],
    help: "When the last process was killed, in seconds since 1970.",
    absent: NO_KILL,
};
pub(super) static MEMORY_USAGE: Family = Family {
    name: "oom_memory_usage",
    kind: MetricType::Gauge,
    unit: Some(Unit::Bytes),
    labels: &["node", "namespace", "pod", "container", "memory_type"],
    help: "Memory of the process that was killed last. memory_type: total_vm, anon_rss, file_rss, shmem_rss, swap, \
           page_tables.",
    absent: "No kill in that container since the watcher started, or the kernel did not give that figure, or \
             --max-series left no room.",
};
pub(super) static MEMCG_MEMORY: Family = Family {
    name: "oom_memcg_memory",
    kind: MetricType::Gauge,
    unit: Some(Unit::Bytes),
    labels: &["node", "namespace", "pod", "container", "memory_type"],
    help: "What filled the memory of the cgroup that ran out, at the last kill, as its memory.stat has it. memory_type: \
           anon, file (with shmem), shmem, slab, kernel_stack, page_tables, sock, percpu, swap.",
    absent: "As oom_memory_usage_bytes; also where the kernel lets nobody read it (see docs/kernel-support.md), and when \
             the machine ran out.",
};
pub(super) static LIMIT: Family = Family {
    name: "oom_limit",
    kind: MetricType::Gauge,
    unit: Some(Unit::Bytes),
    labels: &["node", "namespace", "pod", "container", "scope"],
    help: "Limit that ran out at the last kill. scope: whose limit; one series per container, of its last kill.",
    absent: "As oom_memory_usage_bytes.",
};
pub(super) static USAGE: Family = Family {
    name: "oom_usage",
    kind: MetricType::Gauge,
    unit: Some(Unit::Bytes),
    labels: &["node", "namespace", "pod", "container", "scope"],
    help: "Memory charged to what ran out, at the last kill. scope: as in oom_limit_bytes.",
    absent: "As oom_memory_usage_bytes.",
};

pub(super) static POD: Family = Family {
    name: "oom_pod",
    kind: MetricType::Info,
    unit: None,
    labels: &["node", "namespace", "pod", "owner_kind", "owner_name"],
    help: "Pod of a kill with its controller, as the Kubernetes API knows it: joins the other series by namespace and pod, \
           also where they have the pod's UID for a name. No controller: owner_kind and owner_name are empty.",
    absent: "No kill in that pod since the watcher started, or --kubernetes-enrichment is off, or the API did not answer, \
             or the pod has no other series any more, or --max-series left no room.",
};

/// Values of the label `memory_type`.
pub(crate) const MEMORY_TYPES: [&str; 6] = ["total_vm", "anon_rss", "file_rss", "shmem_rss", "swap", "page_tables"];

/// Values of the label `memory_type` of what filled a cgroup.
pub(crate) const MEMCG_MEMORY_TYPES: [&str; 9] =
    ["anon", "file", "shmem", "slab", "kernel_stack", "page_tables", "sock", "percpu", "swap"];

/// Values of the label `scope`.
#[cfg(any(test, feature = "docs"))]
pub(crate) const SCOPES: usize = Scope::Unknown as usize + 1;

/// Series that a container has at most: kills, incidents by scope, the time of the last, its limit and usage, and what its victim
/// and its cgroup held.
#[cfg(any(test, feature = "docs"))]
pub(crate) const CONTAINER_SERIES_MAX: usize = 1 + SCOPES + 3 + MEMORY_TYPES.len() + MEMCG_MEMORY_TYPES.len();

/// The label `scope`: the same word as in the JSON report.
pub(super) fn scope_label(scope: Scope) -> &'static str {
    match scope {
        Scope::Container => "container",
        Scope::Pod => "pod",
        Scope::Qos => "qos",
        Scope::Kubepods => "kubepods",
        Scope::Node => "node",
        Scope::Cgroup => "cgroup",
        Scope::Unknown => "unknown",
    }
}
