//! The one outward type: what happened, to whom, and which source said so.
//!
//! Sinks render it; nothing in it belongs to one sink. Its JSON form is the contract of `docs/event.schema.json`: a field
//! that the kernel (or Kubernetes) did not give is left out, so absent is never zero. Sizes are in bytes, times are RFC 3339.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

/// Version of the JSON form: raised when a field changes its meaning or goes away, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// One process that the kernel's OOM killer killed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OomReport {
    /// Version of this form ([`SCHEMA_VERSION`]).
    pub schema_version: u32,
    /// When the kernel marked the victim.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub time: Timestamp,
    /// The same in nanoseconds since boot: the order of kills, whatever becomes of the wall clock. Not outward: it means nothing
    /// to another boot.
    #[serde(skip)]
    pub boot_time_ns: u64,
    /// Name of the node that this agent watches (`NODE_NAME`, else the host name).
    pub node: String,
    /// The process that was killed.
    pub victim: Victim,
    /// The task whose request started the OOM killer; often not the victim.
    pub trigger: Trigger,
    /// The victim's memory cgroup. Absent where the kernel gave no task, or where the record that has it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Arc<Cgroup>>,
    /// The decision of the OOM killer that this kill belongs to.
    pub incident: Incident,
    /// What filled the memory of the cgroup that ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryBreakdown>,
    /// How far the victim could be attributed, and which source said so.
    pub attribution: Attribution,
    /// The pod and container, when the victim was in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    /// The container, when the victim was in one that Kubernetes does not own (docker, podman).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<PlainContainer>,
    /// The systemd unit, when the victim was in one and in no container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd_unit: Option<String>,
}

/// The process that was killed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Victim {
    /// Thread that the kernel marked, in the initial pid namespace. The process's own id but where its leader had exited.
    pub pid: u32,
    /// Process id, in the initial pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tgid: Option<u32>,
    /// Process id as the container sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_pid: Option<u32>,
    /// Name of the process (its group leader's, at most 15 bytes; invalid UTF-8 is replaced).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Real user id, in the initial user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// `oom_score_adj`: -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// When the process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub started_at: Option<Timestamp>,
    /// Virtual size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_vm_bytes: Option<u64>,
    /// Resident anonymous memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_rss_bytes: Option<u64>,
    /// Resident file mappings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_rss_bytes: Option<u64>,
    /// Resident shared memory (tmpfs, memfd, SysV).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_rss_bytes: Option<u64>,
    /// How far each of the three RSS figures may be off, either way: present where the kernel keeps a part of the counter
    /// on each CPU and that part could not be read. Absent: the figures are the kernel's exact sums.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_error_bytes: Option<u64>,
    /// Swapped-out memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Page tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_tables_bytes: Option<u64>,
    /// Node name of the victim's UTS namespace: in a pod without host network, its host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodename: Option<String>,
    /// Killed because it shares its memory with the process that was picked; the kernel neither marks, counts nor logs it.
    #[serde(skip_serializing_if = "is_false")]
    pub shared_mm: bool,
    /// False: this kernel could not tell a kill from the mark of a process that was already dying.
    #[serde(skip_serializing_if = "is_true")]
    pub confirmed: bool,
}

/// The task that entered the OOM killer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trigger {
    /// Thread id, in the initial pid namespace.
    pub pid: u32,
    /// Process id.
    pub tgid: u32,
    /// Name of the thread.
    pub comm: String,
    /// Path of its memory cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
}

/// A memory cgroup, from the kernel's own tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cgroup {
    /// Absolute path in the (memory) hierarchy, of the initial cgroup namespace.
    pub path: String,
    /// True: deeper than 40 levels (16 for a process that is killed for sharing the victim's memory), so the outermost part of the
    /// path is missing.
    #[serde(skip_serializing_if = "is_false")]
    pub truncated: bool,
    /// The levels from the root (empty name) to the leaf.
    pub levels: Vec<Level>,
}

/// One level of a memory cgroup.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Level {
    /// Name of the directory; empty at the root.
    pub name: String,
    /// Inode number of the directory (`stat -c %i`).
    pub id: u64,
    /// `memory.current` at the kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// `memory.max`; absent without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// `memory.oom.group`.
    #[serde(skip_serializing_if = "is_false")]
    pub oom_group: bool,
}

/// Whose limit ran out, as a person would say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The container's limit; also when the kernel names the pod but the pod's limit equals the container's.
    Container,
    /// A limit of the whole pod: the killed container may be innocent.
    Pod,
    /// The limit of a QoS class.
    Qos,
    /// The limit of all pods (node allocatable).
    Kubepods,
    /// The machine's memory.
    Node,
    /// Any other cgroup's limit.
    Cgroup,
    /// The kernel gave too little to tell.
    #[default]
    Unknown,
}

/// Who said what ran out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScopeSource {
    /// The kernel's `oom_control`.
    Kernel,
    /// Deduced from the usage and limit of each level at the kill.
    #[default]
    Deduced,
}

/// Why the OOM killer ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The trigger asked for memory.
    Allocation,
    /// The trigger lowered `memory.max` below the usage.
    LimitWrite,
    /// SysRq `f`.
    Sysrq,
}

/// `oom_control.constraint` (`enum oom_constraint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// `CONSTRAINT_NONE`: the whole machine.
    None,
    /// `CONSTRAINT_CPUSET`
    Cpuset,
    /// `CONSTRAINT_MEMORY_POLICY`
    MemoryPolicy,
    /// `CONSTRAINT_MEMCG`
    Memcg,
}

/// One decision of the OOM killer: one trigger, one scope, one or more victims.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Incident {
    /// The same for all victims of one decision; unique on this node.
    pub id: String,
    /// Processes killed in it.
    pub victims: u32,
    /// False: the incident had not ended when this was reported, so `victims` counts those so far.
    #[serde(skip_serializing_if = "is_true")]
    pub complete: bool,
    /// All processes of a cgroup were killed together (`memory.oom.group`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_kill: Option<bool>,
    /// Whose limit ran out.
    pub scope: Scope,
    /// Who said so.
    pub scope_source: ScopeSource,
    /// Why the OOM killer ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// `vm.oom_kill_allocating_task` made the trigger the victim.
    #[serde(skip_serializing_if = "is_false")]
    pub oom_kill_allocating_task: bool,
    /// What the allocation was constrained to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
    /// Order of the allocation: it asked for 2^order pages. Absent for SysRq.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<u32>,
    /// `gfp_mask` of the allocation, as the kernel prints it (hexadecimal).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gfp_flags: Option<String>,
    /// Path of the memory cgroup that ran out; absent when the machine did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memcg_path: Option<String>,
    /// Inode number of that cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memcg_id: Option<u64>,
    /// Its limit, or the memory that the allocation was constrained to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Its usage when the OOM killer was entered; without the hooks of `out_of_memory`, at the first victim's mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// Swap charged to it (cgroup v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_usage_bytes: Option<u64>,
    /// Its swap limit (cgroup v2); absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_limit_bytes: Option<u64>,
    /// From the entry of the OOM killer to the last kill known here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
}

/// What filled the memory of the cgroup that ran out: the counters of `memory.stat`, read in the kernel at the kill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemoryBreakdown {
    /// Anonymous memory (`anon`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_bytes: Option<u64>,
    /// Page cache, with tmpfs (`file`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// tmpfs, memfd and SysV shared memory (`shmem`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_bytes: Option<u64>,
    /// Kernel objects, reclaimable and not (`slab`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_bytes: Option<u64>,
    /// Kernel stacks (`kernel_stack`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_stack_bytes: Option<u64>,
    /// Page tables (`pagetables`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_tables_bytes: Option<u64>,
    /// Socket buffers (`sock`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sock_bytes: Option<u64>,
    /// Per-CPU objects (`percpu`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percpu_bytes: Option<u64>,
    /// Swap (`memory.swap.current`'s share by statistics).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
}

/// How far a victim was attributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttributionResult {
    /// Namespace, pod and container by name.
    Full,
    /// Namespace and pod by name, the container by its id.
    Pod,
    /// Only the identifiers of the cgroup path: pod UID, container id.
    Id,
    /// Not in a pod: the host, or a container that Kubernetes does not own.
    Host,
    /// Outside of this node, on the machine that carries it and others (kind, k3d): there its own agent counts it, or nobody.
    Foreign,
    /// The kernel gave no cgroup.
    #[default]
    None,
}

/// Which source gave the names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttributionSource {
    /// The cgroup path alone.
    #[default]
    Path,
    /// The index of `/var/log/containers`, in memory.
    Index,
    /// That directory after a miss: the link came later than the kill.
    Rescan,
    /// Another container of the same pod in the index.
    Sibling,
    /// `/var/log/pods`.
    PodDirectory,
    /// The bundle that CRI-O made of the container.
    Bundle,
    /// The container runtime over CRI.
    Cri,
    /// A file that the runtime keeps about the container.
    RuntimeFile,
}

/// How far the victim was attributed, and by whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attribution {
    /// How far.
    pub result: AttributionResult,
    /// By whom.
    pub source: AttributionSource,
}

/// The pod and container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Kubernetes {
    /// Namespace of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// UID that the kubelet uses for the pod (a static pod's is a hash of 32 digits).
    pub pod_uid: String,
    /// Name of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Id of the container, whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Runtime, when the path tells: `containerd`, `cri-o`, `docker`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// `guaranteed`, `burstable` or `besteffort`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_class: Option<String>,
    /// Restarts of the container before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u32>,
    /// Cgroup below the container's, when the victim was deeper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_cgroup: Option<String>,
}

/// A container that Kubernetes does not own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlainContainer {
    /// Its id, whole.
    pub id: String,
    /// Its name, where a readable file gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Runtime, when the path tells: `docker`, `podman`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_true(value: &bool) -> bool {
    *value
}
