//! Raw tracepoint `signal:signal_generate`
//! (`int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result`).
//!
//! `__oom_kill_process` sends `SIGKILL` with `SEND_SIG_PRIV` just before it marks the victim, so a mark that follows no such
//! signal of the same task killed nobody. The signal also gives the task on kernels whose mark carries only a pid, and it is
//! the only trace of a process that is killed for sharing the victim's memory. A raw tracepoint needs no kprobe: neither
//! `perf_event_paranoid` nor a missing kprobe PMU stands in its way.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use oom_watcher_common::{counter, record::FLAG_SHARED_MM};

use crate::{
    incident::{self, slot},
    kernel::{Address, layout},
    maps::{SIGNALLED, count},
    mark_victim::{Mark, report},
};

const SIGKILL: u32 = 9;
/// It was not pending yet (include/trace/events/signal.h).
const TRACE_SIGNAL_DELIVERED: u32 = 0;
/// Levels of a process that was killed for sharing memory and is in another cgroup than the victim, which nobody does by
/// accident; each costs the verifier time at every start.
const SHARER_LEVELS: usize = 16;
/// `SEND_SIG_PRIV` (include/linux/signal.h): the kernel itself sends it.
const SEND_SIG_PRIV: u64 = 1;

/// `signal_generate` by raw tracepoint.
#[raw_tracepoint(tracepoint = "signal_generate")]
fn signal_generate(ctx: RawTracePointContext) -> u32 {
    if ctx.arg::<u32>(0) == SIGKILL && ctx.arg::<u64>(1) == SEND_SIG_PRIV {
        let delivered = ctx.arg::<u32>(4) == TRACE_SIGNAL_DELIVERED;
        kernel_kills(bpf_get_current_pid_tgid(), Address(ctx.arg::<u64>(2)), delivered);
    }
    0
}

#[inline(always)]
fn kernel_kills(sender: u64, task: Address, delivered: bool) {
    if !incident::is_of(sender) {
        return remember(sender, task);
    }
    let Some(slot) = slot() else { return };
    let tgid: u32 = task.get(layout!(task_tgid));
    if slot.trigger == sender {
        slot.signalled = task.0;
        if tgid == slot.first_tgid {
            count(counter::KILLS_COUNTED_TWICE);
            // Once in a call: any further signal is for sharing memory with another member.
            slot.first_tgid = 0;
        }
    } else {
        remember(sender, task);
    }
    // Who has the signal already was killed, and reported, before.
    let shares = slot.last_trigger == sender && slot.last_mm != 0 && task.follow(layout!(task_mm)).0 == slot.last_mm;
    if shares && tgid != slot.last_tgid && delivered {
        count(counter::SHARED_MM_KILLS);
        // The trigger's cgroup was told with the victim.
        report::<SHARER_LEVELS>(&Mark { task, pid: tgid, flags: FLAG_SHARED_MM, confirmed: true }, slot, Address(0));
    }
}

/// Outside of a call that was seen to start. It fails only when the map cannot make room; the mark then counts as one without a kill.
#[inline(always)]
fn remember(sender: u64, task: Address) {
    let _ = SIGNALLED.insert(sender, task.0, 0);
}
