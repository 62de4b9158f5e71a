//! What is known of the victim and of the trigger at the mark.

use aya_ebpf::helpers::{bpf_get_current_comm, generated::bpf_get_current_task};
use oom_watcher_common::{
    layout::{ABSENT, hook},
    record::{
        FLAG_CGROUP_TRUNCATED, FLAG_CHOSEN, FLAG_LIMIT_WRITE, FLAG_MEMCG_OOM, FLAG_SHARED_MM,
        FLAG_TRIGGER_CGROUP_TRUNCATED, FLAG_TRIGGER_SAME_CGROUP, Kill, KillRecord, NODENAME_LEN, valid,
    },
};

use crate::{
    cgroup::{self, Names, walk},
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
    let control = slot.control_of(trigger);
    if control.0 != 0 {
        fill_control(kill, control, slot.entry_usage);
    }
}

#[inline(always)]
fn fill_task(kill: &mut Kill, task: Address) {
    if task.0 == 0 {
        return;
    }
    kill.pid = task.get(layout!(task_pid));
    kill.tgid = task.get(layout!(task_tgid));
    // The marked task may be any thread; what a person calls the process is its leader.
    let leader = if layout!(task_group_leader) == ABSENT { task } else { task.follow(layout!(task_group_leader)) };
    let cred = task.follow(layout!(task_cred));
    let signal = task.follow(layout!(task_signal));
    let uts = task.follow(layout!(task_nsproxy)).follow(layout!(nsproxy_uts_ns));
    kill.uid = cred.get(layout!(cred_uid));
    kill.oom_score_adj = i32::from(signal.get::<i16>(layout!(signal_oom_score_adj)));
    kill.start_boottime_ns = leader.get(layout!(task_start_boottime));
    kill.namespace_pid = namespace_pid(leader);
    if layout!(task_comm) != ABSENT {
        leader.read_into(layout!(task_comm), &raw mut kill.comm);
    }
    if layout!(uts_nodename) != ABSENT {
        // A task without namespaces (it is past its exit) leaves the name empty.
        uts.at(layout!(uts_nodename)).read_string((&raw mut kill.nodename).cast(), NODENAME_LEN as u32);
    }
    kill.valid |= task_bits();
}

/// Bits of `valid` for what every task has, as far as this kernel's layout knows where.
#[inline(always)]
fn task_bits() -> u64 {
    let mut bits = 0;
    if layout!(task_tgid) != ABSENT {
        bits |= valid::TGID;
    }
    if layout!(task_comm) != ABSENT {
        bits |= valid::COMM;
    }
    if layout!(task_start_boottime) != ABSENT {
        bits |= valid::START_TIME;
    }
    if layout!(task_cred) != ABSENT && layout!(cred_uid) != ABSENT {
        bits |= valid::UID;
    }
    if layout!(task_signal) != ABSENT && layout!(signal_oom_score_adj) != ABSENT {
        bits |= valid::OOM_SCORE_ADJ;
    }
    if layout!(upid_nr) != ABSENT && layout!(pid_numbers) != ABSENT && layout!(task_thread_pid) != ABSENT {
        bits |= valid::NAMESPACE_PID;
    }
    if layout!(uts_nodename) != ABSENT && layout!(nsproxy_uts_ns) != ABSENT && layout!(task_nsproxy) != ABSENT {
        bits |= valid::NODENAME;
    }
    bits
}

/// Process id inside the process's own pid namespace: `task->thread_pid->numbers[level].nr` of the leader; 0 when it has been
/// detached from its pid already.
#[inline(always)]
fn namespace_pid(leader: Address) -> u32 {
    if layout!(pid_numbers) == ABSENT || layout!(upid_size) == ABSENT {
        return 0;
    }
    let pid = leader.follow(layout!(task_thread_pid));
    // MAX_PID_NS_LEVEL of the kernel is 32.
    let level = pid.get::<u32>(layout!(pid_level)) & 63;
    pid.at(layout!(pid_numbers)).at(level * layout!(upid_size)).get(layout!(upid_nr))
}

#[inline(always)]
fn fill_control(kill: &mut Kill, control: Address, entry_usage: u64) {
    if layout!(oc_memcg) == ABSENT || layout!(oc_order) == ABSENT || layout!(oc_gfp_mask) == ABSENT {
        return;
    }
    if control.get::<u64>(layout!(oc_memcg)) != 0 {
        kill.flags |= FLAG_MEMCG_OOM;
        if layout!(memcg_usage) != ABSENT {
            kill.entry_usage_pages = entry_usage;
            kill.valid |= valid::ENTRY_USAGE;
        }
    }
    kill.order = control.get(layout!(oc_order));
    kill.gfp_mask = control.get(layout!(oc_gfp_mask));
    kill.constraint = control.get(layout!(oc_constraint));
    kill.total_pages = control.get(layout!(oc_totalpages));
    kill.chosen_points = control.get(layout!(oc_chosen_points));
    kill.valid |= valid::OOM_CONTROL;
}

/// Fills the levels of the victim's and the trigger's memory cgroup and the figures of the one that ran out. False: they do
/// not fit this record.
#[inline(always)]
pub(crate) fn fill_cgroups<const LEVELS: usize, const NAMES: usize>(
    record: *mut KillRecord<LEVELS, NAMES>,
    task: Address,
    control: Address,
    name_max: u32,
) -> bool {
    // SAFETY: `record` is the reserved entry, as large as the type; its fixed part is initialised.
    let kill = unsafe { &mut (*record).kill };
    let css = cgroup::memory_of(task);
    if css.0 == 0 {
        return true;
    }
    let Some(walk) = cgroup::begin() else { return true };
    // SAFETY: as above; only the address is formed.
    let start = unsafe { &raw mut (*record).names }.cast();
    let names = Names { start, capacity: NAMES as u32, name_max };
    // SAFETY: as above; only the address is formed.
    let levels = unsafe { &raw mut (*record).levels }.cast();
    cgroup::fill_levels::<LEVELS>(levels, css, control.get(layout!(oc_memcg)), names, walk);
    kill.valid |= cgroup::valid_bits();
    kill.level_count = walk!(walk, count) as u16;
    kill.oom_level = walk!(walk, oom_level);
    memory::fill_memcg(kill, walk, control.0 != 0);
    if walk!(walk, complete) == 0 {
        kill.flags |= FLAG_CGROUP_TRUNCATED;
        return false;
    }
    // SAFETY: the helper takes no arguments.
    let trigger = cgroup::memory_of(Address(unsafe { bpf_get_current_task() }));
    kill.valid |= valid::TRIGGER_CGROUP;
    if trigger == css {
        kill.flags |= FLAG_TRIGGER_SAME_CGROUP;
        return true;
    }
    // SAFETY: as above; only the address is formed.
    let places = unsafe { &raw mut (*record).trigger_levels }.cast();
    cgroup::fill_names::<LEVELS>(places, trigger, names, walk);
    kill.trigger_level_count = walk!(walk, count) as u16;
    if walk!(walk, complete) == 0 {
        kill.flags |= FLAG_TRIGGER_CGROUP_TRUNCATED;
        return false;
    }
    true
}
