//! The record of a kill while it is made.
//!
//! It is made in map memory and copied into the ring buffer at its length, so that a kill takes no more room there than what it
//! says: a reservation would have to be of a fixed size. One draft is enough for the machine: a kill is under `oom_lock`.

use oom_watcher_common::{
    ABI_VERSION,
    record::{Header, KIND_KILL, Kill, KillHead, TAIL_MAX},
};

use crate::{
    cgroup::{Walk, walk},
    maps::{DRAFT, EVENTS},
};

/// The one entry of its map.
#[repr(C, align(8))]
pub(crate) struct Draft {
    pub(crate) walk: Walk,
    pub(crate) head: KillHead,
    /// Levels of cgroups; right behind the head.
    pub(crate) tail: [u8; TAIL_MAX],
}

const _: () = assert!(
    core::mem::offset_of!(Draft, tail) == core::mem::offset_of!(Draft, head) + size_of::<KillHead>(),
    "head and tail are one record"
);

/// Begins a record: a head that says nothing yet, and no tail.
#[inline(always)]
pub(crate) fn begin(time_ns: u64, incident_ns: u64) -> Option<*mut Draft> {
    let draft = DRAFT.get_ptr_mut(0)?;
    let header = Header { abi_version: ABI_VERSION, kind: KIND_KILL, size: 0, time_ns, incident_ns };
    // SAFETY: `draft` is the map's one entry, aligned, and nobody else's: see the module's description.
    unsafe { (&raw mut (*draft).head).write(KillHead { header, kill: Kill::EMPTY }) };
    walk!(draft, used = 0);
    Some(draft)
}

/// Copies the record into the ring buffer. False: there is no room.
#[inline(always)]
pub(crate) fn send(draft: *mut Draft) -> bool {
    let tail = walk!(draft, used) as usize;
    if tail > TAIL_MAX {
        return false; // it never is; the verifier asks
    }
    let size = size_of::<KillHead>() + tail;
    // SAFETY: as in `begin`.
    unsafe { (*draft).head.header.size = size as u32 };
    // SAFETY: head and tail are one piece of the entry, at least `size` bytes long, every one of them initialised: map memory
    // starts as zeros.
    let record = unsafe { core::slice::from_raw_parts((&raw const (*draft).head).cast::<u8>(), size) };
    EVENTS.output::<[u8]>(record, 0).is_ok()
}
