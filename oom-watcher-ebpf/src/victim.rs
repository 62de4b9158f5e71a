//! What is known of the victim and of the trigger at the mark.

use aya_ebpf::helpers::{bpf_get_current_comm, generated::bpf_get_current_task};
use oom_watcher_common::{
    layout::hook,
    record::{
        FLAG_CGROUP_TRUNCATED, FLAG_CHOSEN, FLAG_LIMIT_WRITE, FLAG_MEMCG_OOM, FLAG_SHARED_MM,
        FLAG_TRIGGER_CGROUP_TRUNCATED, FLAG_TRIGGER_SAME_CGROUP, Kill, KillRecord, NODENAME_LEN, valid,
    },
};

use crate::{
    cgroup::{self, Names},
    incident::Slot,
    kernel::{Address, layout},
    maps::attached,
    mark_victim::Mark,
    memory,
    memory_max_write::writes_limit,
};

/// Fills the fixed part but for the cgroups' figures.
#[inline(always)]
pub(crate) fn fill(kill: &mut Kill, mark: &Mark, slot: &Slot, trigger: u64) {
    kill.pid = mark.pid;
    kill.trigger_tgid = (trigger >> 32) as u32;
    kill.trigger_pid = trigger as u32;
    if let Ok(comm) = bpf_get_current_comm() {
        kill.trigger_comm = comm;
    }
    if slot.kills == 0 && slot.trigger == trigger && mark.flags & FLAG_SHARED_MM == 0 {
        kill.flags |= FLAG_CHOSEN;
    }
    if attached(hook::LIMIT_WRITE) {
        kill.valid |= valid::LIMIT_WRITE;
        if writes_limit(trigger) {
            kill.flags |= FLAG_LIMIT_WRITE;
        }
    }
    fill_task(kill, mark.task);
    memory::fill_process(kill, mark.task);
    if let Some(control) = slot.control_of(trigger) {
        fill_control(kill, control);
    }
}

#[inline(always)]
fn fill_task(kill: &mut Kill, task: Address) {
    if let Some(pid) = task.read_field::<u32>(layout!(task_pid)) {
        kill.pid = pid;
    }
    if let Some(tgid) = task.read_field::<u32>(layout!(task_tgid)) {
        kill.tgid = tgid;
        kill.valid |= valid::TGID;
    }
    // The marked task may be any thread; what a person calls the process is its leader.
    let leader = task.follow(layout!(task_group_leader)).unwrap_or(task);
    if leader.field(layout!(task_comm)).is_some_and(|comm| comm.read_into(&raw mut kill.comm)) {
        kill.valid |= valid::COMM;
    }
    if let Some(start) = leader.read_field::<u64>(layout!(task_start_boottime)) {
        kill.start_boottime_ns = start;
        kill.valid |= valid::START_TIME;
    }
    if let Some(pid) = namespace_pid(leader) {
        kill.namespace_pid = pid;
        kill.valid |= valid::NAMESPACE_PID;
    }
    if let Some(uid) = task.follow(layout!(task_cred)).and_then(|cred| cred.read_field::<u32>(layout!(cred_uid))) {
        kill.uid = uid;
        kill.valid |= valid::UID;
    }
    let signal = task.follow(layout!(task_signal));
    if let Some(adj) = signal.and_then(|signal| signal.read_field::<i16>(layout!(signal_oom_score_adj))) {
        kill.oom_score_adj = i32::from(adj);
        kill.valid |= valid::OOM_SCORE_ADJ;
    }
    let uts = task.follow(layout!(task_nsproxy)).and_then(|proxy| proxy.follow(layout!(nsproxy_uts_ns)));
    if let Some(name) = uts.and_then(|uts| uts.field(layout!(uts_nodename)))
        && name.read_string((&raw mut kill.nodename).cast(), NODENAME_LEN as u32).is_some()
    {
        kill.valid |= valid::NODENAME;
    }
}

/// Process id inside the process's own pid namespace: `task->thread_pid->numbers[level].nr` of the leader.
#[inline(always)]
fn namespace_pid(leader: Address) -> Option<u32> {
    let pid = leader.follow(layout!(task_thread_pid))?;
    let level = pid.read_field::<u32>(layout!(pid_level))?;
    // MAX_PID_NS_LEVEL of the kernel: anything above is not a level.
    if level > 32 {
        return None;
    }
    let numbers = pid.field(layout!(pid_numbers))?;
    let number = numbers.field(level * layout!(upid_size))?;
    number.read_field::<u32>(layout!(upid_nr))
}

#[inline(always)]
fn fill_control(kill: &mut Kill, control: Address) {
    let Some(memcg) = control.read_field::<u64>(layout!(oc_memcg)) else { return };
    if memcg != 0 {
        kill.flags |= FLAG_MEMCG_OOM;
    }
    let (Some(order), Some(gfp_mask)) =
        (control.read_field::<i32>(layout!(oc_order)), control.read_field::<u32>(layout!(oc_gfp_mask)))
    else {
        return;
    };
    kill.order = order;
    kill.gfp_mask = gfp_mask;
    kill.constraint = control.read_field::<u32>(layout!(oc_constraint)).unwrap_or(0);
    kill.total_pages = control.read_field::<u64>(layout!(oc_totalpages)).unwrap_or(0);
    kill.chosen_points = control.read_field::<i64>(layout!(oc_chosen_points)).unwrap_or(0);
    kill.valid |= valid::OOM_CONTROL;
}

/// Fills the levels of the victim's and the trigger's memory cgroup and the figures of the one that ran out. False: they do
/// not fit this record.
#[inline(always)]
pub(crate) fn fill_cgroups<const LEVELS: usize, const NAMES: usize>(
    record: *mut KillRecord<LEVELS, NAMES>,
    task: Address,
    control: Option<Address>,
    name_max: u32,
) -> bool {
    // SAFETY: `record` is the reserved entry, as large as the type; its fixed part is initialised.
    let kill = unsafe { &mut (*record).kill };
    // SAFETY: as above; only the address is formed.
    let mut names = Names::new(unsafe { &raw mut (*record).names }.cast(), NAMES as u32, name_max);
    let Some(css) = cgroup::memory_of(task) else { return true };
    let oom_memcg = control.and_then(|control| control.read_field::<u64>(layout!(oc_memcg))).unwrap_or(0);
    // SAFETY: as above; only the address is formed.
    let levels = unsafe { &raw mut (*record).levels }.cast();
    let walk = cgroup::fill_levels::<LEVELS>(levels, css, oom_memcg, &mut names);
    kill.valid |= walk.valid;
    kill.level_count = walk.count as u16;
    kill.oom_level = walk.oom_level;
    memory::fill_memcg(kill, &walk, control.is_some());
    // SAFETY: the helper takes no arguments.
    let current = Address(unsafe { bpf_get_current_task() });
    let mut trigger_complete = true;
    if let Some(trigger) = cgroup::memory_of(current) {
        if trigger == css {
            kill.flags |= FLAG_TRIGGER_SAME_CGROUP;
            kill.valid |= valid::TRIGGER_CGROUP;
        } else if walk.complete {
            // SAFETY: as above; only the address is formed.
            let places = unsafe { &raw mut (*record).trigger_levels }.cast();
            let (count, complete) = cgroup::fill_names::<LEVELS>(places, trigger, &mut names);
            kill.trigger_level_count = count as u16;
            kill.valid |= valid::TRIGGER_CGROUP;
            trigger_complete = complete;
        }
    }
    if !walk.complete {
        kill.flags |= FLAG_CGROUP_TRUNCATED;
    }
    if !trigger_complete {
        kill.flags |= FLAG_TRIGGER_CGROUP_TRUNCATED;
    }
    walk.complete && trigger_complete
}
