//! Slots of the kernel program's counter map: an array of `u64` that the agent maps into its memory.

/// Calls of the `mark_victim` hook.
pub const MARKS: u32 = 0;
/// Marks that were not followed or preceded by a kill: the task was already dying (`task_will_free_mem`).
pub const MARKS_WITHOUT_KILL: u32 = 1;
/// Kill records written to the ring buffer.
pub const KILLS_SENT: u32 = 2;
/// Kill records that found no room in the ring buffer: each is one lost kill.
pub const KILLS_LOST: u32 = 3;
/// Incident records that found no room in the ring buffer.
pub const INCIDENTS_LOST: u32 = 4;
/// Calls of `out_of_memory` that killed (needs the incident hooks, as the next one does).
pub const INVOCATIONS_KILLED: u32 = 5;
/// Calls of `out_of_memory` that killed nobody: no killable task, or a victim was already dying. The kernel calls it again and
/// again while one dies.
pub const INVOCATIONS_WITHOUT_VICTIM: u32 = 6;
/// Kills of processes that share a victim's memory (`CLONE_VM`): the kernel neither marks, counts nor logs them.
pub const SHARED_MM_KILLS: u32 = 7;
/// Calls of `mark_victim` in which the task could not be told, so that only its pid was reported.
pub const VICTIMS_WITHOUT_TASK: u32 = 8;
/// Kills that the kernel counted a second time (needs the incident hooks): of a group it kills the victim that it picked first and
/// then once more as a member.
pub const KILLS_COUNTED_TWICE: u32 = 9;

/// How many slots there are.
pub const COUNT: u32 = 10;
