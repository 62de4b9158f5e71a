//! The maps, each with its size and the reason for it.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, LruHashMap, RingBuf},
};
use oom_watcher_common::counter;

use crate::{draft::Draft, incident::Slot};

/// Records for the agent. The size is the agent's `--ring-buffer-size`; see there for the sum behind its default.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(512 * 1024, 0);

/// Counters; slots in `oom_watcher_common::counter`. One for all CPUs: the hooks run one at a time, under `oom_lock`. Mapped by
/// the agent, which then needs no system call to read them: before Linux 5.19 such a call wants a capability that the agent
/// has given up by then.
#[map]
pub(crate) static COUNTERS: Array<u64> = Array::with_max_entries(counter::COUNT, BPF_F_MMAPABLE);

/// Bits of `oom_watcher_common::layout::hook`: written by the agent as it attaches.
#[map]
pub(crate) static HOOKS: Array<u32> = Array::with_max_entries(1, 0);

/// The one call of `out_of_memory` that can be under way (`oom_lock`).
#[map]
pub(crate) static INCIDENT: Array<Slot> = Array::with_max_entries(1, 0);

/// The record of a kill while it is made. One is enough: every kill is under `oom_lock`.
#[map]
pub(crate) static DRAFT: Array<Draft> = Array::with_max_entries(1, 0);

/// The task that a task last sent a fatal signal in the kernel's own name to (sender → address of the task). Between the
/// signal and the mark lie a few instructions under a spin lock, so the newest entry of a sender is enough; least-recently
/// used ones go, since most senders are not the OOM killer.
#[map]
pub(crate) static SIGNALLED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// Tasks inside a write to `memory.max`; the value says nothing. Bounded by the writers at one moment: kubelet, runtime, systemd.
#[map]
pub(crate) static LIMIT_WRITERS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(1024, 0);

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(slot: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to a slot of the map and was checked; nobody else writes it meanwhile, since the hooks that
        // count run one at a time under `oom_lock`.
        unsafe { *counter += 1 };
    }
}

/// What the agent attached.
#[inline(always)]
pub(crate) fn attached(hook: u32) -> bool {
    HOOKS.get(0).is_some_and(|hooks| hooks & hook != 0)
}
