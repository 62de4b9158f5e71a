//! Records of the ring buffer.
//!
//! Every record starts with a [`Header`] and is exactly as long as what it says. A kill is a [`KillHead`], followed by the
//! levels of the victim's memory cgroup and then by those of the trigger's, if it is another one: each a [`Level`], its name,
//! and up to the next multiple of [`ALIGN`] whatever was there. Who is killed in the same cgroup and by the same decision as
//! one before has no levels, and names that record instead ([`Kill::levels_of_ns`]): a group of a thousand processes shares
//! what is said of their cgroup.

use crate::layout::STAT_COUNT;

/// [`Header::kind`] of a kill.
pub const KIND_KILL: u16 = 1;
/// [`Header::kind`] of an [`IncidentEnd`].
pub const KIND_INCIDENT_END: u16 = 3;

/// `TASK_COMM_LEN` of the kernel, with the final NUL.
pub const COMM_LEN: usize = 16;
/// `__NEW_UTS_LEN + 1` of the kernel (65), rounded up to whole words.
pub const NODENAME_LEN: usize = 72;
/// `NAME_MAX + 1` of the kernel: the longest name of one cgroup level, with the final NUL.
pub const LEVEL_NAME_MAX: usize = 256;
/// CPUs that a per-CPU sum goes over; on a larger machine the counters are approximate and the record says so.
pub const CPUS_MAX: u32 = 512;

/// Levels of victim and trigger together. The deepest that Kubernetes makes, kind in a pod, are 12 each.
pub const LEVELS_MAX: usize = 40;
/// What a [`Level`] with its name begins at a multiple of.
pub const ALIGN: usize = 8;
/// Bytes of a level with the longest name.
pub const LEVEL_MAX: usize = size_of::<Level>() + LEVEL_NAME_MAX;
/// Bytes of the levels of the longest kill.
pub const TAIL_MAX: usize = LEVELS_MAX * LEVEL_MAX;

/// The head of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// [`crate::ABI_VERSION`] of the program that wrote it.
    pub abi_version: u16,
    /// One of `KIND_*`.
    pub kind: u16,
    /// Bytes of the whole record.
    pub size: u32,
    /// Time of the event: `CLOCK_BOOTTIME` in nanoseconds.
    pub time_ns: u64,
    /// The incident: time at which `out_of_memory` was entered, in nanoseconds of `CLOCK_BOOTTIME`; 0 when not known.
    /// `oom_lock` lets only one call run at a time on the machine, so it is unique within a boot.
    pub incident_ns: u64,
}

/// Bits of [`Kill::valid`]: which fields the kernel gave.
pub mod valid {
    /// `tgid`
    pub const TGID: u64 = 1 << 0;
    /// `namespace_pid`
    pub const NAMESPACE_PID: u64 = 1 << 1;
    /// `comm`
    pub const COMM: u64 = 1 << 2;
    /// `uid`
    pub const UID: u64 = 1 << 3;
    /// `oom_score_adj`
    pub const OOM_SCORE_ADJ: u64 = 1 << 4;
    /// `start_boottime_ns`
    pub const START_TIME: u64 = 1 << 5;
    /// `total_vm_pages`
    pub const TOTAL_VM: u64 = 1 << 6;
    /// `file_pages`, `anon_pages`, `swap_entries`, `shmem_pages`
    pub const RSS: u64 = 1 << 7;
    /// The RSS counters are the exact sums, not the approximate global part.
    pub const RSS_EXACT: u64 = 1 << 8;
    /// `page_tables_bytes`
    pub const PAGE_TABLES: u64 = 1 << 9;
    /// `nodename`
    pub const NODENAME: u64 = 1 << 10;
    /// `levels` and the names of the victim's memory cgroup.
    pub const CGROUP: u64 = 1 << 11;
    /// `trigger_levels` and their names, or [`super::FLAG_TRIGGER_SAME_CGROUP`].
    pub const TRIGGER_CGROUP: u64 = 1 << 12;
    /// The fields of `oom_control`: `constraint`, `order`, `gfp_mask`, `total_pages`, `chosen_points`, `oom_level`.
    pub const OOM_CONTROL: u64 = 1 << 13;
    /// `usage_pages` of the levels.
    pub const USAGE: u64 = 1 << 14;
    /// `limit_pages` of the levels.
    pub const LIMIT: u64 = 1 << 15;
    /// `swap_usage_pages` and `swap_limit_pages`.
    pub const SWAP: u64 = 1 << 16;
    /// `stats`, of the level `stats_level`. An item that the kernel does not have is `i64::MIN`.
    pub const STATS: u64 = 1 << 17;
    /// `FLAG_KILL_CONFIRMED` tells a kill from a mark; without this bit every mark is taken for a kill.
    pub const CONFIRMED: u64 = 1 << 18;
    /// `LEVEL_OOM_GROUP` of the levels.
    pub const OOM_GROUP: u64 = 1 << 19;
    /// `FLAG_LIMIT_WRITE` tells whether a write to `memory.max` was the cause.
    pub const LIMIT_WRITE: u64 = 1 << 20;
    /// `entry_usage_pages`
    pub const ENTRY_USAGE: u64 = 1 << 21;
}

/// [`Kill::flags`]: the killer sent the fatal signal before the mark.
pub const FLAG_KILL_CONFIRMED: u32 = 1 << 0;
/// [`Kill::flags`]: this process was killed because it shares the memory of the victim; it was never marked.
pub const FLAG_SHARED_MM: u32 = 1 << 1;
/// [`Kill::flags`]: the trigger is inside a write to `memory.max`.
pub const FLAG_LIMIT_WRITE: u32 = 1 << 2;
/// [`Kill::flags`]: the trigger is in the same memory cgroup as the victim, so its levels are not repeated.
pub const FLAG_TRIGGER_SAME_CGROUP: u32 = 1 << 3;
/// [`Kill::flags`]: the first kill of its incident: the process that the killer picked.
pub const FLAG_CHOSEN: u32 = 1 << 4;
/// [`Kill::flags`]: the victim's cgroup has more levels than the record holds.
pub const FLAG_CGROUP_TRUNCATED: u32 = 1 << 5;
/// [`Kill::flags`]: the same for the trigger's cgroup.
pub const FLAG_TRIGGER_CGROUP_TRUNCATED: u32 = 1 << 6;
/// [`Kill::flags`]: `oom_control.memcg` was set: a memory cgroup ran out, not the machine.
pub const FLAG_MEMCG_OOM: u32 = 1 << 7;
/// [`Kill::flags`]: more tasks use the victim's memory than it has threads, so others may be killed with it.
pub const FLAG_MM_SHARED: u32 = 1 << 8;

/// [`Level::flags`]: `memory.oom.group` is set on this level.
pub const LEVEL_OOM_GROUP: u32 = 1 << 0;

/// [`Kill::oom_level`] when no level of the victim's cgroup ran out, or it is not known.
pub const NO_LEVEL: u32 = u32::MAX;

/// Indices of [`Kill::stats`]. Units are those of `enum node_stat_item` and `enum memcg_stat_item`.
pub mod stat {
    /// `NR_ANON_MAPPED`: pages.
    pub const ANON: usize = 0;
    /// `NR_FILE_PAGES`: pages, with shmem.
    pub const FILE: usize = 1;
    /// `NR_SHMEM`: pages.
    pub const SHMEM: usize = 2;
    /// `NR_SLAB_RECLAIMABLE_B`: bytes.
    pub const SLAB_RECLAIMABLE: usize = 3;
    /// `NR_SLAB_UNRECLAIMABLE_B`: bytes.
    pub const SLAB_UNRECLAIMABLE: usize = 4;
    /// `NR_KERNEL_STACK_KB`: KiB.
    pub const KERNEL_STACK: usize = 5;
    /// `NR_PAGETABLE`: pages.
    pub const PAGE_TABLES: usize = 6;
    /// `MEMCG_SOCK`: pages.
    pub const SOCK: usize = 7;
    /// `MEMCG_PERCPU_B`: bytes.
    pub const PERCPU: usize = 8;
    /// `MEMCG_SWAP`: pages.
    pub const SWAP: usize = 9;
    /// The value of an item that this kernel does not have.
    pub const MISSING: i64 = i64::MIN;
}

/// One level of a memory cgroup, before its name; the leaf comes first, the root last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// kernfs node id: the inode number of the directory in the cgroup file system.
    pub id: u64,
    /// `page_counter.usage`, in pages.
    pub usage_pages: u64,
    /// `page_counter.max`, in pages; no limit is `PAGE_COUNTER_MAX` (`LONG_MAX / PAGE_SIZE`).
    pub limit_pages: u64,
    /// Bytes of the name, without NUL.
    pub name_len: u32,
    /// `LEVEL_*`.
    pub flags: u32,
}

impl Kill {
    /// Nothing known.
    pub const EMPTY: Self = Self {
        valid: 0,
        flags: 0,
        pid: 0,
        tgid: 0,
        namespace_pid: 0,
        uid: 0,
        oom_score_adj: 0,
        start_boottime_ns: 0,
        total_vm_pages: 0,
        file_pages: 0,
        anon_pages: 0,
        swap_entries: 0,
        shmem_pages: 0,
        page_tables_bytes: 0,
        comm: [0; COMM_LEN],
        nodename: [0; NODENAME_LEN],
        trigger_pid: 0,
        trigger_tgid: 0,
        trigger_comm: [0; COMM_LEN],
        constraint: 0,
        order: 0,
        gfp_mask: 0,
        oom_level: NO_LEVEL,
        total_pages: 0,
        chosen_points: 0,
        entry_usage_pages: 0,
        swap_usage_pages: 0,
        swap_limit_pages: 0,
        stats: [stat::MISSING; STAT_COUNT],
        stats_level: NO_LEVEL,
        level_count: 0,
        trigger_level_count: 0,
        levels_of_ns: 0,
    };
}

/// The fixed part of a kill: what the kernel knew at the mark.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Which fields the kernel gave: bits of [`valid`].
    pub valid: u64,
    /// `FLAG_*`.
    pub flags: u32,
    /// Thread id of the marked task, in the initial pid namespace. The only field of the victim that is always given.
    pub pid: u32,
    /// Process id, in the initial pid namespace.
    pub tgid: u32,
    /// Process id inside the process's own pid namespace.
    pub namespace_pid: u32,
    /// Real user id, in the initial user namespace.
    pub uid: u32,
    /// `signal_struct.oom_score_adj`: -1000 to 1000.
    pub oom_score_adj: i32,
    /// Start of the process: `CLOCK_BOOTTIME` in nanoseconds.
    pub start_boottime_ns: u64,
    /// Virtual size, in pages.
    pub total_vm_pages: u64,
    /// `MM_FILEPAGES`, in pages.
    pub file_pages: i64,
    /// `MM_ANONPAGES`, in pages.
    pub anon_pages: i64,
    /// `MM_SWAPENTS`, in pages.
    pub swap_entries: i64,
    /// `MM_SHMEMPAGES`, in pages.
    pub shmem_pages: i64,
    /// Bytes of page tables.
    pub page_tables_bytes: u64,
    /// Name of the process: its group leader's.
    pub comm: [u8; COMM_LEN],
    /// Node name of the victim's UTS namespace.
    pub nodename: [u8; NODENAME_LEN],
    /// `current`: the task that entered the OOM killer.
    pub trigger_pid: u32,
    /// Its process.
    pub trigger_tgid: u32,
    /// Its own name (of the thread).
    pub trigger_comm: [u8; COMM_LEN],
    /// `oom_control.constraint`: 0 none, 1 cpuset, 2 memory policy, 3 memory cgroup.
    pub constraint: u32,
    /// `oom_control.order`: -1 is SysRq.
    pub order: i32,
    /// `oom_control.gfp_mask`
    pub gfp_mask: u32,
    /// Index in the levels of the memory cgroup that ran out; [`NO_LEVEL`] when the machine did, or when not known.
    pub oom_level: u32,
    /// `oom_control.totalpages`: the size of the domain that ran out, in pages.
    pub total_pages: u64,
    /// `oom_control.chosen_points`
    pub chosen_points: i64,
    /// `page_counter.usage` of the OOM memcg when `out_of_memory` was entered, in pages. Until the mark, the dump of all tasks
    /// is printed, and memory comes back meanwhile.
    pub entry_usage_pages: u64,
    /// Swap charged to the OOM memcg, in pages (v2), or memory and swap together (v1).
    pub swap_usage_pages: u64,
    /// Its limit.
    pub swap_limit_pages: u64,
    /// Memory statistics of the level `stats_level`; indices and units in [`stat`].
    pub stats: [i64; STAT_COUNT],
    /// The level that `stats`, `swap_usage_pages` and `swap_limit_pages` are of.
    pub stats_level: u32,
    /// Levels of the victim's cgroup that follow.
    pub level_count: u16,
    /// Levels of the trigger's cgroup that follow.
    pub trigger_level_count: u16,
    /// [`Header::time_ns`] of the last kill before in the same incident that has levels: this victim's cgroup, and all that is
    /// said of it, are the same. 0: this kill has its own.
    pub levels_of_ns: u64,
}

/// What every kill has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillHead {
    /// The head.
    pub header: Header,
    /// The fixed part.
    pub kill: Kill,
}

/// The return of an `out_of_memory` that marked somebody.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentEnd {
    /// The head; `time_ns` is the return.
    pub header: Header,
    /// Marks in this call.
    pub marks: u32,
    /// Kills in this call, with those of processes that share a victim's memory.
    pub kills: u32,
    /// Kills whose record found no room.
    pub kills_lost: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 24);
    assert!(size_of::<Level>() == 32);
    assert!(size_of::<Kill>() == 352);
    assert!(size_of::<KillHead>() == 24 + 352);
    assert!(LEVEL_MAX.is_multiple_of(ALIGN) && size_of::<KillHead>().is_multiple_of(ALIGN));
    assert!(size_of::<IncidentEnd>() == 40);
};
