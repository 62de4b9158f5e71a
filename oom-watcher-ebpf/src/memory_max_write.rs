//! Entry and return of `memory_max_write` (mm/memcontrol.c): who lowers `memory.max` below the usage starts the OOM killer
//! without asking for memory. The usage alone does not tell: a dying task's forced charges exceed the limit too.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, kprobe, kretprobe},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};

use crate::maps::LIMIT_WRITERS;

/// `memory_max_write` by fentry.
#[fentry(function = "memory_max_write")]
fn limit_entry_fentry(_ctx: FEntryContext) -> u32 {
    enter();
    0
}

/// `memory_max_write` by fexit.
#[fexit(function = "memory_max_write")]
fn limit_return_fexit(_ctx: FExitContext) -> u32 {
    leave();
    0
}

/// `memory_max_write` by kprobe.
#[kprobe]
fn limit_entry_kprobe(_ctx: ProbeContext) -> u32 {
    enter();
    0
}

/// `memory_max_write` by kretprobe.
#[kretprobe]
fn limit_return_kretprobe(_ctx: RetProbeContext) -> u32 {
    leave();
    0
}

/// Whether this task is inside a write to `memory.max`.
#[inline(always)]
pub(crate) fn writes_limit(task: u64) -> bool {
    LIMIT_WRITERS.get_ptr(task).is_some()
}

#[inline(always)]
fn enter() {
    // It fails only when the map cannot make room; then the cause is reported as an allocation's.
    let _ = LIMIT_WRITERS.insert(bpf_get_current_pid_tgid(), 0, 0);
}

#[inline(always)]
fn leave() {
    let _ = LIMIT_WRITERS.remove(bpf_get_current_pid_tgid());
}
