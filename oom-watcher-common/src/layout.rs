//! The read-only global that tells the kernel program where things are in this kernel.
//!
//! The agent fills it from the running kernel's BTF before load (facts → plan → globals); the verifier then sees constants,
//! so a branch on an absent field costs nothing. Offsets are in bytes from the start of the structure that the name begins
//! with. [`ABSENT`] says that this kernel has no such field: the program then leaves the matching `valid` bit clear.

/// An offset that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// `mark_victim` carries the task (5.10.262, 6.1.176, 6.9 and later).
pub const MARK_VICTIM_TASK: u32 = 1;
/// `mark_victim` carries only the thread id (5.10.223 and others before the change).
pub const MARK_VICTIM_PID: u32 = 2;

/// `mm_struct.rss_stat` is `atomic_long_t count[]`: exact but for what threads cache.
pub const RSS_ATOMIC: u32 = 1;
/// `mm_struct.rss_stat` is `struct percpu_counter[]` (6.2 and later): the sum needs every CPU's part.
pub const RSS_PERCPU: u32 = 2;

/// `mem_cgroup.vmstats` is an array of `atomic_long_t` in the structure itself (5.10).
pub const STATS_INLINE: u32 = 1;
/// `mem_cgroup.vmstats` points to a structure with the array `state` (6.1).
pub const STATS_POINTER: u32 = 2;
/// As [`STATS_POINTER`], and the index goes through the static table `mem_cgroup_stats_index` (6.12 and later).
pub const STATS_REMAPPED: u32 = 3;

/// How many memory statistics of the OOM memcg a record carries; see [`crate::record::stat`].
pub const STAT_COUNT: usize = 10;

/// Bits of the one entry of the map `HOOKS`: what the agent attached beside `mark_victim`. It is a map and not part of the
/// read-only global because some hooks fail only at attach, after the global is frozen.
pub mod hook {
    /// `signal_generate`: a mark can be told from a kill.
    pub const SIGNAL: u32 = 1 << 0;
    /// Entry and return of `memory_max_write`.
    pub const LIMIT_WRITE: u32 = 1 << 1;
}

macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Where things are in this kernel; see the module's description.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Layout {
            /// Kernel address of the table `__per_cpu_offset`, 0 when unknown (kallsyms hidden).
            pub per_cpu_offset_table: u64,
            /// Kernel address of the table `mem_cgroup_stats_index` (bytes), 0 when unknown.
            pub stats_index_table: u64,
            /// Enumerators of the statistics, in the order of [`crate::record::stat`].
            pub stat_items: [u32; STAT_COUNT],
            $($(#[$doc])* pub $name: u32,)+
        }

        impl Layout {
            /// Nothing known: every offset [`ABSENT`], every mode 0.
            pub const UNKNOWN: Self = Self {
                per_cpu_offset_table: 0,
                stats_index_table: 0,
                stat_items: [ABSENT; STAT_COUNT],
                $($name: ABSENT,)+
            };
        }
    };
}

layout! {
    /// One of `MARK_VICTIM_*`.
    mark_victim_mode,
    /// One of `RSS_*`.
    rss_mode,
    /// One of `STATS_*`.
    stats_mode,
    /// How many possible CPUs the per-CPU sums go over; at most [`crate::record::CPUS_MAX`].
    possible_cpus,
    /// `task_struct.pid`
    task_pid,
    /// `task_struct.tgid`
    task_tgid,
    /// `task_struct.comm`
    task_comm,
    /// `task_struct.mm`
    task_mm,
    /// `task_struct.signal`
    task_signal,
    /// `task_struct.real_cred`
    task_real_cred,
    /// `task_struct.group_leader`
    task_group_leader,
    /// `task_struct.start_boottime`
    task_start_boottime,
    /// `task_struct.cgroups`
    task_cgroups,
    /// `task_struct.nsproxy`
    task_nsproxy,
    /// `task_struct.thread_pid`
    task_thread_pid,
    /// `signal_struct.oom_score_adj`
    signal_oom_score_adj,
    /// `cred.uid`
    cred_uid,
    /// `mm_struct.total_vm`
    mm_total_vm,
    /// `mm_struct.mm_users`
    mm_users,
    /// `signal_struct.nr_threads`
    signal_nr_threads,
    /// `mm_struct.pgtables_bytes`
    mm_pgtables_bytes,
    /// Offset of the first counter's value in `mm_struct`: `rss_stat.count` or `rss_stat[0].count`.
    mm_rss_value,
    /// Bytes from one RSS counter to the next.
    rss_stride,
    /// Offset of the first counter's `counters` pointer in `mm_struct` (per-CPU mode).
    mm_rss_percpu,
    /// `pid.level`
    pid_level,
    /// `pid.numbers`
    pid_numbers,
    /// Size of `struct upid`.
    upid_size,
    /// `upid.nr`
    upid_nr,
    /// `nsproxy.uts_ns`
    nsproxy_uts_ns,
    /// `uts_namespace.name.nodename`
    uts_nodename,
    /// Offset in `css_set` of the memory controller's `cgroup_subsys_state` pointer: `subsys[memory_cgrp_id]`.
    css_set_memory,
    /// `cgroup_subsys_state.cgroup`
    css_cgroup,
    /// `cgroup_subsys_state.parent`
    css_parent,
    /// `cgroup.kn`
    cgroup_kn,
    /// `kernfs_node.id`
    kn_id,
    /// `kernfs_node.name`
    kn_name,
    /// `mem_cgroup.memory.usage`
    memcg_usage,
    /// `mem_cgroup.memory.max`
    memcg_max,
    /// `mem_cgroup.swap.usage` (v2) or `memsw.usage` (v1): one union.
    memcg_swap_usage,
    /// `mem_cgroup.swap.max` (v2) or `memsw.max` (v1).
    memcg_swap_max,
    /// `mem_cgroup.oom_group`
    memcg_oom_group,
    /// `mem_cgroup.vmstats`
    memcg_vmstats,
    /// Offset of the array `state` in `memcg_vmstats`; 0 in [`STATS_INLINE`].
    vmstats_state,
    /// `oom_control.memcg`
    oc_memcg,
    /// `oom_control.gfp_mask`
    oc_gfp_mask,
    /// `oom_control.order`
    oc_order,
    /// `oom_control.totalpages`
    oc_totalpages,
    /// `oom_control.chosen_points`
    oc_chosen_points,
    /// `oom_control.constraint`
    oc_constraint,
    /// Offset of the first argument in `pt_regs` (kprobes): `di` on x86-64, `regs` on arm64.
    regs_arg0,
}

const _: () = assert!(
    size_of::<Layout>() == core::mem::offset_of!(Layout, regs_arg0) + 4,
    "the global must have no trailing padding"
);
