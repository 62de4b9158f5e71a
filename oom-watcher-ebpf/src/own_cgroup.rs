//! The agent's own memory cgroup, as the kernel has it.
//!
//! Inside a cgroup namespace a process sees a path that begins at itself, and so cannot say in which of several nodes on one
//! machine it is. This program is never attached: the agent runs it once, before it attaches anything, in its own context
//! (`BPF_PROG_TEST_RUN`), and gets a record like that of a kill.

use aya_ebpf::{helpers::generated::bpf_get_current_task, macros::raw_tracepoint, programs::RawTracePointContext};
use oom_watcher_common::record::LEVELS_MAX;

use crate::{
    cgroup::{self, walk},
    draft,
    kernel::Address,
    victim,
};

/// Sends the levels of the current task's memory cgroup. 1: they were sent.
#[raw_tracepoint(tracepoint = "own_cgroup")]
fn own_cgroup(_ctx: RawTracePointContext) -> u32 {
    let Some(draft) = draft::begin(0, 0) else { return 0 };
    // SAFETY: the helper takes no arguments.
    let current = Address(unsafe { bpf_get_current_task() });
    walk!(draft, victim = cgroup::memory_of(current).0);
    walk!(draft, control = 0);
    victim::fill_cgroups::<LEVELS_MAX>(draft, Address(0));
    u32::from(draft::send(draft))
}
