//! Raw tracepoint `oom:mark_victim`: every victim passes here, the task in hand, under `oom_lock` and the victim's
//! `task_lock`. Its argument is the task (`struct task_struct *task, uid_t uid`) or only `int pid`; which one, BTF says, and
//! no version number does.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use oom_watcher_common::{
    ABI_VERSION, counter,
    layout::{MARK_VICTIM_PID, hook},
    record::{
        FLAG_KILL_CONFIRMED, Header, KIND_LARGE_KILL, KIND_SMALL_KILL, Kill, KillRecord, LARGE_LEVELS, LARGE_NAMES,
        LEVEL_NAME_MAX, SMALL_LEVELS, SMALL_NAME_MAX, SMALL_NAMES, valid,
    },
};

use crate::{
    incident::{Slot, slot},
    kernel::{Address, layout},
    maps::{EVENTS, SIGNALLED, attached, count},
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
    let signalled = take_signalled(trigger);
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
    report(&mark, slot);
    slot.last_trigger = trigger;
    slot.last_mm = mark.task.follow(layout!(task_mm)).0;
    slot.last_tgid = mark.task.get(layout!(task_tgid));
}

/// The task that this task last sent a fatal signal to, or a null address; asked once per mark.
#[inline(always)]
fn take_signalled(sender: u64) -> Address {
    let Some(entry) = SIGNALLED.get_ptr(sender) else { return Address(0) };
    // SAFETY: the pointer is to a value of the map and was checked; values are plain words.
    let task = unsafe { entry.read_volatile() };
    let _ = SIGNALLED.remove(sender);
    Address(task)
}

/// Sends one kill in the smallest record that holds it.
#[inline(always)]
pub(crate) fn report(mark: &Mark, slot: &mut Slot) {
    let sent = send::<SMALL_LEVELS, SMALL_NAMES>(mark, slot, KIND_SMALL_KILL, SMALL_NAME_MAX as u32, false)
        || send::<LARGE_LEVELS, LARGE_NAMES>(mark, slot, KIND_LARGE_KILL, LEVEL_NAME_MAX as u32, true);
    slot.kills += 1;
    if sent {
        count(counter::KILLS_SENT);
    } else {
        slot.kills_lost += 1;
        count(counter::KILLS_LOST);
    }
}

/// Fills and submits one record. False: there was no room, or the cgroup did not fit and `last` allows another try.
#[inline(always)]
fn send<const LEVELS: usize, const NAMES: usize>(
    mark: &Mark,
    slot: &Slot,
    kind: u16,
    name_max: u32,
    last: bool,
) -> bool {
    let Some(mut entry) = EVENTS.reserve::<KillRecord<LEVELS, NAMES>>(0) else { return false };
    let record = entry.as_mut_ptr();
    let trigger = bpf_get_current_pid_tgid();
    let control = slot.control_of(trigger);
    // SAFETY: the helper takes no arguments.
    let time_ns = unsafe { bpf_ktime_get_boot_ns() };
    let header = Header {
        abi_version: ABI_VERSION,
        kind,
        size: size_of::<KillRecord<LEVELS, NAMES>>() as u32,
        time_ns,
        incident_ns: if control.0 == 0 { 0 } else { slot.entered_ns },
    };
    // SAFETY: `record` is the reserved entry, as large as the type and aligned to 8 bytes.
    unsafe { (&raw mut (*record).header).write(header) };
    // SAFETY: as above.
    unsafe { (&raw mut (*record).kill).write(Kill::EMPTY) };
    // SAFETY: as above; the fixed part was initialised by the line before.
    let kill = unsafe { &mut (*record).kill };
    kill.flags = mark.flags;
    if attached(hook::SIGNAL) {
        kill.valid |= valid::CONFIRMED;
    }
    if mark.confirmed {
        kill.flags |= FLAG_KILL_CONFIRMED;
    }
    victim::fill(kill, mark, slot, trigger);
    let fits = victim::fill_cgroups::<LEVELS, NAMES>(record, mark.task, control, name_max);
    if fits || last {
        entry.submit(0);
        return true;
    }
    entry.discard(0);
    false
}
