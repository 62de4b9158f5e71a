//! What is known of the victim and of the trigger at the mark.

use aya_ebpf::helpers::bpf_get_current_comm;
use oom_watcher_common::{
    layout::{ABSENT, hook},
    record::{
        FLAG_CGROUP_TRUNCATED, FLAG_CHOSEN, FLAG_KILL_CONFIRMED, FLAG_LIMIT_WRITE, FLAG_MEMCG_OOM, FLAG_SHARED_MM,
        FLAG_TRIGGER_CGROUP_TRUNCATED, FLAG_TRIGGER_SAME_CGROUP, Kill, NODENAME_LEN, valid,
    },
};

use crate::{
    cgroup::{self, walk},
    draft::Draft,
    incident::Slot,
    kernel::{Address, layout},
    maps::attached,
    mark_victim::Mark,
    memory,
    memory_max_write::writes_limit,
};

/// Fills the fixed part but for the cgroups' figures.
#[inline(always)]
pub(crate) fn fill(draft: *mut Draft, mark: &Mark, slot: &Slot, trigger: u64) {
    let kill = kill_of(draft);
    kill.flags = mark.flags;
    if attached(hook::SIGNAL) {
        kill.valid |= valid::CONFIRMED;
    }
    if mark.confirmed {
        kill.flags |= FLAG_KILL_CONFIRMED;
    }
    kill.pid = mark.pid;
    kill.trigger_tgid = (trigger >> 32) as u32;
    kill.trigger_pid = trigger as u32;
    if let Ok(comm) = bpf_get_current_comm() {
        kill.trigger_comm = comm;
    }
    // This one is counted already.
    if slot.kills == 1 && slot.trigger == trigger && mark.flags & FLAG_SHARED_MM == 0 {
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

/// The fixed part of the draft.
#[inline(always)]
fn kill_of(draft: *mut Draft) -> &'static mut Kill {
    // SAFETY: the draft is an entry of a map, which lives as long as the program, and this hook alone uses it (`draft`); its
    // head is initialised, and no caller holds two of these.
    unsafe { &mut (*draft).head.kill }
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
    // What the kernel logs (`task_uid`); `task->cred` may be replaced for a while (`override_creds`), as overlayfs does.
    let cred = task.follow(layout!(task_real_cred));
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
    if layout!(task_real_cred) != ABSENT && layout!(cred_uid) != ABSENT {
        bits |= valid::UID;
    }
    if layout!(task_signal) != ABSENT && layout!(signal_oom_score_adj) != ABSENT {
        bits |= valid::OOM_SCORE_ADJ;
    }
    if knows_namespace_pid() {
        bits |= valid::NAMESPACE_PID;
    }
    if layout!(uts_nodename) != ABSENT && layout!(nsproxy_uts_ns) != ABSENT && layout!(task_nsproxy) != ABSENT {
        bits |= valid::NODENAME;
    }
    bits
}

#[inline(always)]
fn knows_namespace_pid() -> bool {
    layout!(task_thread_pid) != ABSENT
        && layout!(pid_level) != ABSENT
        && layout!(pid_numbers) != ABSENT
        && layout!(upid_size) != ABSENT
        && layout!(upid_nr) != ABSENT
}

/// Process id inside the process's own pid namespace: `task->thread_pid->numbers[level].nr` of the leader; 0 when it has been
/// detached from its pid already.
#[inline(always)]
fn namespace_pid(leader: Address) -> u32 {
    if !knows_namespace_pid() {
        return 0;
    }
    let pid = leader.follow(layout!(task_thread_pid));
    // MAX_PID_NS_LEVEL of the kernel is 32.
    let level = pid.get::<u32>(layout!(pid_level)) & 63;
    pid.at(layout!(pid_numbers)).at(level * layout!(upid_size)).get(layout!(upid_nr))
}

/// Whether all of `oom_control` is where this kernel's layout says: one bit of `valid` stands for the whole.
#[inline(always)]
fn knows_control() -> bool {
    layout!(oc_memcg) != ABSENT
        && layout!(oc_order) != ABSENT
        && layout!(oc_gfp_mask) != ABSENT
        && layout!(oc_constraint) != ABSENT
        && layout!(oc_totalpages) != ABSENT
        && layout!(oc_chosen_points) != ABSENT
}

#[inline(always)]
fn fill_control(kill: &mut Kill, control: Address, entry_usage: u64) {
    if !knows_control() {
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

/// Says that the cgroup is that of another record.
#[inline(always)]
pub(crate) fn refer(draft: *mut Draft, levels_ns: u64) {
    kill_of(draft).levels_of_ns = levels_ns;
}

/// Fills the levels of the victim's memory cgroup and of the trigger's (a null address: not wanted), and the figures of the one
/// that ran out.
#[inline(always)]
pub(crate) fn fill_cgroups<const LEVELS: usize>(draft: *mut Draft, trigger: Address) {
    let victim = walk!(draft, victim);
    if victim == 0 {
        return;
    }
    let kill = kill_of(draft);
    kill.valid |= cgroup::valid_bits();
    if trigger.0 != 0 {
        kill.valid |= valid::TRIGGER_CGROUP;
    }
    let mut other = trigger;
    if trigger.0 == victim {
        kill.flags |= FLAG_TRIGGER_SAME_CGROUP;
        other = Address(0);
    }
    if !cgroup::fill::<LEVELS>(draft, other) {
        kill.flags |= if walk!(draft, victim_done) == 0 {
            FLAG_CGROUP_TRUNCATED | FLAG_TRIGGER_CGROUP_TRUNCATED
        } else {
            FLAG_TRIGGER_CGROUP_TRUNCATED
        };
    }
    kill.level_count = walk!(draft, count) as u16;
    kill.trigger_level_count = walk!(draft, trigger_count) as u16;
    kill.oom_level = walk!(draft, oom_level);
    memory::fill_memcg(kill, draft);
}
