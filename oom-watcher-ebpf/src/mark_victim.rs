//! Raw tracepoint `oom:mark_victim`: every victim passes here, the task in hand, under `oom_lock` and the victim's
//! `task_lock`. Its argument is the task (`struct task_struct *task, uid_t uid`) or only `int pid`; which one, BTF says, and
//! no version number does.

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_current_task, bpf_ktime_get_boot_ns},
    },
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use oom_watcher_common::{
    counter,
    layout::{MARK_VICTIM_PID, hook},
    record::LEVELS_MAX,
};

use crate::{
    cgroup::{self, walk},
    draft,
    incident::{Slot, slot},
    kernel::{Address, layout},
    maps::{SIGNALLED, attached, count},
    memory,
    victim,
};

/// `mark_victim` by raw tracepoint.
#[raw_tracepoint(tracepoint = "mark_victim")]
fn mark_victim(ctx: RawTracePointContext) -> u32 {
    marked(ctx.arg::<u64>(0));
    0
}

/// One victim, as the hooks see it.
pub(crate) struct Mark {
    /// The task; a null address where only its pid is known.
    pub(crate) task: Address,
    /// Its thread id; used only where there is no task.
    pub(crate) pid: u32,
    /// `FLAG_*`.
    pub(crate) flags: u32,
    /// A fatal signal was seen to go to it.
    pub(crate) confirmed: bool,
}

#[inline(always)]
fn marked(argument: u64) {
    count(counter::MARKS);
    let trigger = bpf_get_current_pid_tgid();
    let Some(slot) = slot() else { return };
    slot.marks += 1;
    let signalled = take_signalled(slot, trigger);
    let mark = if layout!(mark_victim_mode) == MARK_VICTIM_PID {
        let pid = argument as u32;
        if signalled.0 != 0 && signalled.get::<u32>(layout!(task_pid)) == pid {
            Mark { task: signalled, pid, flags: 0, confirmed: true }
        } else {
            Mark { task: Address(0), pid, flags: 0, confirmed: false }
        }
    } else {
        Mark { task: Address(argument), pid: 0, flags: 0, confirmed: signalled.0 == argument }
    };
    if attached(hook::SIGNAL) && !mark.confirmed {
        count(counter::MARKS_WITHOUT_KILL);
        return;
    }
    if mark.task.0 == 0 {
        count(counter::VICTIMS_WITHOUT_TASK);
    }
    // SAFETY: the helper takes no arguments.
    let current = Address(unsafe { bpf_get_current_task() });
    report::<LEVELS_MAX>(&mark, slot, cgroup::memory_of(current));
    let mm = mark.task.follow(layout!(task_mm));
    let inside = slot.trigger == trigger;
    slot.last_trigger = trigger;
    slot.last_tgid = mark.task.get(layout!(task_tgid));
    // Without an end of the call nothing says when the address is another's: then it is kept only for who may look for sharers.
    slot.last_mm = if inside || memory::may_be_shared(mark.task, mm) { mm.0 } else { 0 };
    if inside && slot.kills == 1 {
        slot.first_tgid = slot.last_tgid;
    }
}

/// The task that this task last sent a fatal signal to, or a null address; asked once per mark.
#[inline(always)]
fn take_signalled(slot: &mut Slot, sender: u64) -> Address {
    if slot.trigger == sender {
        let task = slot.signalled;
        slot.signalled = 0;
        return Address(task);
    }
    let Some(entry) = SIGNALLED.get_ptr(sender) else { return Address(0) };
    // SAFETY: the pointer is to a value of the map and was checked; values are plain words.
    let task = unsafe { entry.read_volatile() };
    let _ = SIGNALLED.remove(sender);
    Address(task)
}

/// Sends one kill, with at most `LEVELS` levels of its cgroup and of the trigger's (a null address: not wanted).
#[inline(always)]
pub(crate) fn report<const LEVELS: usize>(mark: &Mark, slot: &mut Slot, trigger_css: Address) {
    slot.kills += 1;
    if send::<LEVELS>(mark, slot, trigger_css) {
        count(counter::KILLS_SENT);
    } else {
        slot.kills_lost += 1;
        count(counter::KILLS_LOST);
    }
}

/// Makes one record and sends it. False: there was no room.
#[inline(always)]
fn send<const LEVELS: usize>(mark: &Mark, slot: &mut Slot, trigger_css: Address) -> bool {
    let trigger = bpf_get_current_pid_tgid();
    let control = slot.control_of(trigger);
    // SAFETY: the helper takes no arguments.
    let time_ns = unsafe { bpf_ktime_get_boot_ns() };
    let Some(draft) = draft::begin(time_ns, if control.0 == 0 { 0 } else { slot.entered_ns }) else { return false };
    victim::fill(draft, mark, slot, trigger);
    walk!(draft, victim = cgroup::memory_of(mark.task).0);
    walk!(draft, control = control.0);
    if slot.has_levels(draft) {
        victim::refer(draft, slot.levels_ns);
        return draft::send(draft);
    }
    victim::fill_cgroups::<LEVELS>(draft, trigger_css);
    let sent = draft::send(draft);
    if sent && walk!(draft, control) != 0 {
        slot.levels_css = walk!(draft, victim);
        slot.levels_ns = time_ns;
    }
    sent
}
