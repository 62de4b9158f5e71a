//! The walk from a memory cgroup to the root.
//!
//! It follows `css->parent` and not the cgroup's own links, whose names change between kernels; the memory controller's css
//! is taken from the task's `css_set`, so that it is the right hierarchy on cgroup v1 too. `struct mem_cgroup` starts with
//! its css (the agent checks that in BTF), so both have one address.
//!
//! Where the walk is and what it found lies in map memory ([`Walk`]): the verifier does not track what is in there, so all ways
//! through one level look alike to it at the next, and its work grows with the levels and not with two to their power. For the
//! same reason the levels of victim and trigger are one loop.

use oom_watcher_common::{
    layout::ABSENT,
    record::{ALIGN, LEVEL_MAX, LEVEL_NAME_MAX, LEVEL_OOM_GROUP, Level, NO_LEVEL, TAIL_MAX, valid},
};

use crate::{
    draft::Draft,
    kernel::{Address, layout},
};

/// A level may lack this many pages to its limit and still be the one that ran out: the kernel charges in batches of 64,
/// and other CPUs free pages while this one selects a victim.
const SLACK_PAGES_MAX: u64 = 512;

/// A walk, and what it found so far.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    /// Css of the victim: where the walk starts.
    pub(crate) victim: u64,
    /// Address of the trigger's `oom_control`; 0: not known.
    pub(crate) control: u64,
    /// Css of the level that comes next; 0 at the end.
    next: u64,
    /// Css at which the trigger's walk starts; 0: it is not wanted, or under way.
    trigger: u64,
    /// The memory cgroup that is looked for among the victim's: the one that `oom_control` names, or 0.
    oom_memcg: u64,
    /// Css of the level that `oom_control` names.
    pub(crate) oom_css: u64,
    /// Css of the level nearest to its limit.
    pub(crate) tight_css: u64,
    /// What that level lacks, in pages; none lacks less than nothing.
    tight_slack: u64,
    /// Level that `oom_control` names.
    pub(crate) oom_level: u32,
    /// Level nearest to its limit.
    pub(crate) tight_level: u32,
    /// Bytes of the tail that are written.
    pub(crate) used: u32,
    /// Levels of the victim that are written.
    pub(crate) count: u32,
    /// Levels of the trigger that are written.
    pub(crate) trigger_count: u32,
    /// 1 when the victim's root is written, and what follows are the trigger's levels.
    pub(crate) victim_done: u32,
}

/// Reads or writes one field of the walk in map memory: volatile, or the compiler would keep it in a register.
macro_rules! walk {
    ($draft:expr, $field:ident) => {
        // SAFETY: `$draft` is the map's one entry (checked where it was looked up), aligned, plain integers.
        unsafe { (&raw const (*$draft).walk.$field).read_volatile() }
    };
    ($draft:expr, $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: as above.
        unsafe { (&raw mut (*$draft).walk.$field).write_volatile(value) }
    }};
}
pub(crate) use walk;

/// The css of the memory controller that the task is in.
#[inline(always)]
pub(crate) fn memory_of(task: Address) -> Address {
    task.follow(layout!(task_cgroups)).follow(layout!(css_set_memory))
}

/// Bits of `valid` for the levels.
#[inline(always)]
pub(crate) fn valid_bits() -> u64 {
    let mut bits = valid::CGROUP;
    if layout!(memcg_usage) != ABSENT {
        bits |= valid::USAGE;
    }
    if layout!(memcg_max) != ABSENT {
        bits |= valid::LIMIT;
    }
    if layout!(memcg_oom_group) != ABSENT {
        bits |= valid::OOM_GROUP;
    }
    bits
}

/// Writes the victim's levels and then the trigger's into the tail, each from the leaf on, `LEVELS` at most. False: there are
/// more.
///
/// Whoever calls this has put `victim` and `control` into map memory, too: what is known of them would make the loop another
/// one for each of the ways that lead here.
#[inline(always)]
pub(crate) fn fill<const LEVELS: usize>(draft: *mut Draft, trigger: Address) -> bool {
    walk!(draft, next = walk!(draft, victim));
    walk!(draft, trigger = trigger.0);
    walk!(draft, oom_memcg = Address(walk!(draft, control)).get(layout!(oc_memcg)));
    walk!(draft, oom_css = 0);
    walk!(draft, tight_css = 0);
    walk!(draft, tight_slack = SLACK_PAGES_MAX);
    walk!(draft, oom_level = NO_LEVEL);
    walk!(draft, tight_level = NO_LEVEL);
    walk!(draft, used = 0);
    walk!(draft, count = 0);
    walk!(draft, trigger_count = 0);
    walk!(draft, victim_done = 0);
    for _ in 0..LEVELS {
        if !step(draft) {
            break;
        }
    }
    walk!(draft, next) == 0
}

/// Writes one level and goes on to its parent. False: there is none, or it cannot be written.
///
/// The trigger's levels take the same way as the victim's, with nothing left to find: a branch between them would be one at
/// each level.
#[inline(always)]
fn step(draft: *mut Draft) -> bool {
    let css = Address(walk!(draft, next));
    let Some(slack) = append(draft, css) else { return false };
    let index = walk!(draft, count);
    if slack < walk!(draft, tight_slack) {
        walk!(draft, tight_slack = slack);
        walk!(draft, tight_level = index);
        walk!(draft, tight_css = css.0);
    }
    if css.0 == walk!(draft, oom_memcg) {
        walk!(draft, oom_level = index);
        walk!(draft, oom_css = css.0);
    }
    let victim_done = walk!(draft, victim_done);
    walk!(draft, count = index + 1 - victim_done);
    walk!(draft, trigger_count = walk!(draft, trigger_count) + victim_done);
    let mut next = css.follow(layout!(css_parent)).0;
    if next == 0 {
        walk!(draft, victim_done = 1);
        walk!(draft, tight_slack = 0);
        walk!(draft, oom_memcg = 0);
        next = walk!(draft, trigger);
        walk!(draft, trigger = 0);
    }
    walk!(draft, next = next);
    next != 0
}

/// Appends a level with its name: what it lacks to its limit, in pages. Nothing when there is no room.
#[inline(always)]
fn append(draft: *mut Draft, css: Address) -> Option<u64> {
    let used = walk!(draft, used) as usize;
    // Room for the longest name must be left: the verifier knows the bounds of `used`, not of the name's length.
    if used > TAIL_MAX - LEVEL_MAX {
        return None;
    }
    // SAFETY: only the address is formed.
    let tail = unsafe { &raw mut (*draft).tail }.cast::<u8>();
    // SAFETY: `used + LEVEL_MAX` is within the tail, as just checked.
    let place = unsafe { tail.add(used) };
    // SAFETY: as above: the name is what follows the level.
    let name_place = unsafe { place.add(size_of::<Level>()) };
    let node = css.follow(layout!(css_cgroup)).follow(layout!(cgroup_kn));
    let read = node.follow(layout!(kn_name)).read_string(name_place, LEVEL_NAME_MAX as u32);
    if read <= 0 {
        return None;
    }
    let name_len = read as u32 - 1;
    let usage_pages = css.get::<u64>(layout!(memcg_usage));
    let limit_pages = css.get::<u64>(layout!(memcg_max));
    // A byte that is 0 or 1 (`bool oom_group`): the flag itself.
    let flags = u32::from(css.get::<u8>(layout!(memcg_oom_group))) & LEVEL_OOM_GROUP;
    let level = Level { id: node.get(layout!(kn_id)), usage_pages, limit_pages, name_len, flags };
    // SAFETY: in the tail, as just said, and aligned: `used` is a multiple of ALIGN from an aligned start.
    unsafe { place.cast::<Level>().write(level) };
    let end = used + size_of::<Level>() + name_len as usize;
    walk!(draft, used = end.next_multiple_of(ALIGN) as u32);
    Some(limit_pages.saturating_sub(usage_pages))
}
