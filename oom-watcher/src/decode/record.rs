//! What a record says, in the agent's own terms.

use std::sync::Arc;

use jiff::Timestamp;

use crate::report::{Cgroup, Constraint, MemoryBreakdown, Trigger, Victim};

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A process was killed.
    Kill(Box<OomKill>),
    /// An incident ended.
    IncidentEnd(IncidentEnd),
}

/// The end of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentEnd {
    /// Time of its start, nanoseconds since boot: the incident's identity.
    pub incident_ns: u64,
    /// Kills in it, with those whose record was lost.
    pub kills: u32,
    /// Kills whose record found no room in the ring buffer.
    pub kills_lost: u32,
}

/// The kernel's `oom_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomControl {
    /// A memory cgroup ran out, not the machine.
    pub memcg: bool,
    /// What the allocation was constrained to.
    pub constraint: Constraint,
    /// Order of the allocation; -1 is SysRq.
    pub order: i32,
    /// Flags of the allocation.
    pub gfp_mask: u32,
    /// Size of the domain that ran out.
    pub total_bytes: u64,
    /// Badness of the process that was picked; 0 when none was computed.
    pub chosen_points: i64,
}

/// Swap charged to a memory cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    /// Charged.
    pub usage_bytes: u64,
    /// Limit, if there is one.
    pub limit_bytes: Option<u64>,
}

/// Figures of the memory cgroup that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemcgFigures {
    /// Which level of [`OomKill::cgroup`] they are of.
    pub level: usize,
    /// Its swap.
    pub swap: Option<Swap>,
    /// What filled it.
    pub memory: Option<MemoryBreakdown>,
}

/// One process that was killed.
#[derive(Clone, Debug, PartialEq)]
pub struct OomKill {
    /// When it was marked.
    pub time: Timestamp,
    /// The same, in nanoseconds since boot.
    pub time_ns: u64,
    /// The incident: time of its start, nanoseconds since boot. Absent without the hooks of `out_of_memory`.
    pub incident_ns: Option<u64>,
    /// The victim.
    pub victim: Victim,
    /// Start of the victim's process, nanoseconds since boot: with the tgid, its identity.
    pub start_boottime_ns: Option<u64>,
    /// The trigger.
    pub trigger: Trigger,
    /// The victim's memory cgroup.
    pub cgroup: Option<Arc<Cgroup>>,
    /// The cgroup is that of the kill at this time, in nanoseconds since boot, and what is said of it there holds here too.
    pub levels_of_ns: Option<u64>,
    /// The kernel's `oom_control`.
    pub control: Option<OomControl>,
    /// The level of [`Self::cgroup`] that the kernel says ran out.
    pub oom_level: Option<usize>,
    /// Usage of the memory cgroup that ran out when the OOM killer was entered.
    pub entry_usage_bytes: Option<u64>,
    /// The trigger was writing `memory.max`.
    pub limit_write: Option<bool>,
    /// The process that the killer picked, not one killed with it.
    pub chosen: bool,
    /// More tasks use its memory than it has threads.
    pub mm_shared: bool,
    /// Figures of the memory cgroup that ran out.
    pub memcg: Option<MemcgFigures>,
}
