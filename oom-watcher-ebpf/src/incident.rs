//! The call of `out_of_memory` that is under way, and what is known of it so far.

use crate::{cgroup::walk, draft::Draft, kernel::Address, maps::INCIDENT};

/// What one call of `out_of_memory` leaves for the hooks inside it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    /// `bpf_get_current_pid_tgid` of the task inside `out_of_memory`; 0 when there is none.
    pub(crate) trigger: u64,
    /// Address of its `oom_control`: on its stack, so good only until it returns.
    pub(crate) oom_control: u64,
    /// Time of the entry (`CLOCK_BOOTTIME`, nanoseconds).
    pub(crate) entered_ns: u64,
    /// Pages charged to its memory cgroup at the entry.
    pub(crate) entry_usage: u64,
    /// The task that marked the last victim.
    pub(crate) last_trigger: u64,
    /// Address of the last victim's `mm_struct`.
    pub(crate) last_mm: u64,
    /// The memory cgroup whose levels the last record in this call that has any is of; 0: there is none yet.
    pub(crate) levels_css: u64,
    /// The time in that record's header.
    pub(crate) levels_ns: u64,
    /// Address of the task that this call has sent a fatal signal to and not marked yet; 0: none.
    pub(crate) signalled: u64,
    /// The last victim's process.
    pub(crate) last_tgid: u32,
    /// The first victim's process in this call, as long as the kernel may come to it once more; 0: it will not.
    pub(crate) first_tgid: u32,
    /// Marks in this call.
    pub(crate) marks: u32,
    /// Kills in this call.
    pub(crate) kills: u32,
    /// Kills that found no room.
    pub(crate) kills_lost: u32,
}

/// The slot. `None` cannot happen (the map has one entry), but the verifier asks.
#[inline(always)]
pub(crate) fn slot() -> Option<&'static mut Slot> {
    let slot = INCIDENT.get_ptr_mut(0)?;
    // SAFETY: the entry lives as long as the map, and who comes here holds `oom_lock`: no other reference is in use. (Where the
    // hooks of `out_of_memory` are not attached, a task that `is_of` knows from its last mark may come without the lock; it kills
    // outside of the OOM killer then, and reads two words that it wrote itself.)
    Some(unsafe { &mut *slot })
}

/// Whether it is this task that is inside `out_of_memory`, or marked the last victim. Asked for every fatal signal of the kernel,
/// whoever sends it.
#[inline(always)]
pub(crate) fn is_of(task: u64) -> bool {
    let Some(slot) = INCIDENT.get_ptr_mut(0) else { return false };
    // SAFETY: the entry lives as long as the map. Another CPU may write it at this moment, so no reference is made: two words
    // are read, each at once, and only the task itself writes its own name there.
    let (inside, marked) =
        unsafe { ((&raw const (*slot).trigger).read_volatile(), (&raw const (*slot).last_trigger).read_volatile()) };
    // An idle CPU's task is 0, too, which in the slot means nobody.
    task != 0 && (inside == task || marked == task)
}

impl Slot {
    /// The `oom_control` of this task's call; a null address when it is not inside one that was seen to start.
    #[inline(always)]
    pub(crate) fn control_of(&self, task: u64) -> Address {
        if self.trigger == task { Address(self.oom_control) } else { Address(0) }
    }

    /// Whether a record of this call has the levels of the draft's cgroup.
    #[inline(always)]
    pub(crate) fn has_levels(&self, draft: *mut Draft) -> bool {
        let css = walk!(draft, victim);
        walk!(draft, control) != 0 && css != 0 && css == self.levels_css
    }
}
