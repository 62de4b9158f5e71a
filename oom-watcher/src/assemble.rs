//! All that is known of one kill → the report.
//!
//! Pure: decode said what happened, incident who belongs together, scope whose limit it was, attribution who it was.

use crate::{
    attribute::Attributed,
    decode::{OomControl, OomKill},
    incident::Member,
    report::{Cause, Incident, MemoryBreakdown, OomReport, SCHEMA_VERSION},
    scope::{Decision, OomMemcg},
};

/// Names of this node, for all its reports.
#[derive(Clone, Debug)]
pub struct NodeNames {
    /// Name of the node.
    pub node: String,
    /// The boot's id (`/proc/sys/kernel/random/boot_id`), shortened: makes incidents of two boots different.
    pub boot: String,
}

/// What the kernel says ran out.
pub fn oom_memcg(kill: &OomKill) -> OomMemcg {
    match (kill.control, kill.oom_level) {
        (Some(OomControl { memcg: false, .. }), _) => OomMemcg::Global,
        (Some(_), Some(level)) => OomMemcg::Level(level),
        // The path is whole, and it is not on it: the victim shares memory with a process of another cgroup.
        (Some(_), None) if kill.cgroup.as_ref().is_some_and(|cgroup| !cgroup.truncated) => OomMemcg::Elsewhere,
        // Without `oom_control`, or its part of the path is cut off.
        _ => OomMemcg::NotGiven,
    }
}

/// Puts the report together.
pub fn report(names: &NodeNames, member: Member, decision: Decision, who: Attributed) -> OomReport {
    let memory = memory(&member.kill, &decision);
    let incident = incident(names, &member, decision);
    let kill = *member.kill;
    OomReport {
        schema_version: SCHEMA_VERSION,
        time: kill.time,
        boot_time_ns: kill.time_ns,
        node: names.node.clone(),
        victim: kill.victim,
        trigger: kill.trigger,
        cgroup: kill.cgroup,
        memory,
        incident,
        attribution: who.attribution,
        kubernetes: who.kubernetes,
        container: who.container,
        systemd_unit: who.systemd_unit,
    }
}

/// What filled the memory, when it was read of the level that ran out.
fn memory(kill: &OomKill, decision: &Decision) -> Option<MemoryBreakdown> {
    let figures = kill.memcg.filter(|figures| Some(figures.level) == decision.level)?;
    figures.memory
}

fn incident(names: &NodeNames, member: &Member, decision: Decision) -> Incident {
    let kill = &*member.kill;
    let swap = kill.memcg.filter(|figures| Some(figures.level) == decision.level).and_then(|figures| figures.swap);
    let level = decision.level.and_then(|index| kill.cgroup.as_ref()?.levels.get(index));
    let control = kill.control;
    Incident {
        id: format!("{}-{:x}", names.boot, member.incident_ns),
        victims: member.victims,
        complete: member.complete,
        group_kill: member.group_kill,
        scope: decision.scope,
        scope_source: decision.source,
        cause: cause(kill),
        oom_kill_allocating_task: kill_allocating_task(kill),
        constraint: control.map(|control| control.constraint),
        order: control.and_then(|control| u32::try_from(control.order).ok()),
        gfp_flags: control.map(|control| format!("{:#x}", control.gfp_mask)),
        memcg_path: decision.memcg_path,
        memcg_id: level.map(|level| level.id),
        limit_bytes: decision.limit_bytes.or_else(|| control.filter(|control| !control.memcg).map(|c| c.total_bytes)),
        usage_bytes: decision.usage_bytes,
        swap_usage_bytes: swap.map(|swap| swap.usage_bytes),
        swap_limit_bytes: swap.and_then(|swap| swap.limit_bytes),
        duration_seconds: member.duration.map(|duration| duration.as_secs_f64()),
    }
}

/// `order` is -1 for SysRq f alone (`is_sysrq_oom`, mm/oom_kill.c).
fn cause(kill: &OomKill) -> Option<Cause> {
    let control = kill.control?;
    if control.order == -1 {
        return Some(Cause::Sysrq);
    }
    match kill.limit_write {
        Some(true) => Some(Cause::LimitWrite),
        Some(false) => Some(Cause::Allocation),
        // The machine runs out only for an allocation; a memory cgroup may have had its limit lowered.
        None => (!control.memcg).then_some(Cause::Allocation),
    }
}

/// `vm.oom_kill_allocating_task`: the trigger is taken without computing anybody's badness (`out_of_memory`).
fn kill_allocating_task(kill: &OomKill) -> bool {
    kill.control.is_some_and(|control| !control.memcg && control.order >= 0 && control.chosen_points == 0)
        && kill.chosen
        && kill.victim.tgid == Some(kill.trigger.tgid)
}
