//! The walk from a memory cgroup to the root.
//!
//! It follows `css->parent` and not the cgroup's own links, whose names change between kernels; the memory controller's css
//! is taken from the task's `css_set`, so that it is the right hierarchy on cgroup v1 too. `struct mem_cgroup` starts with
//! its css (the agent checks that in BTF), so both have one address.
//!
//! What the walk finds lies in map memory ([`Walk`]): the verifier does not track what is in there, so all ways through one
//! level look alike to it at the next, and its work grows with the levels and not with two to their power.

use oom_watcher_common::{
    layout::ABSENT,
    record::{LEVEL_NAME_MAX, LEVEL_OOM_GROUP, Level, NO_LEVEL, NameLevel, valid},
};

use crate::{
    kernel::{Address, layout},
    maps,
};

/// A level may lack this many pages to its limit and still be the one that ran out: the kernel charges in batches of 64,
/// and other CPUs free pages while this one selects a victim.
const SLACK_PAGES_MAX: u64 = 512;

/// What a walk found so far.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    /// Css of the level that `oom_control` names.
    pub(crate) oom_css: u64,
    /// Css of the level nearest to its limit.
    pub(crate) tight_css: u64,
    /// What that level lacks, in pages.
    tight_slack: u64,
    /// Bytes of names used.
    names_used: u32,
    /// Level that `oom_control` names.
    pub(crate) oom_level: u32,
    /// Level nearest to its limit.
    pub(crate) tight_level: u32,
    /// Levels written.
    pub(crate) count: u32,
    /// 1 when all levels and names fitted.
    pub(crate) complete: u32,
    pad: u32,
}

/// Reads or writes one field of the walk in map memory: volatile, or the compiler would keep it in a register.
macro_rules! walk {
    ($walk:expr, $field:ident) => {
        // SAFETY: `walk` points to the map's one entry (checked where it was looked up), aligned, plain integers.
        unsafe { (&raw const (*$walk).$field).read_volatile() }
    };
    ($walk:expr, $field:ident = $value:expr) => {{
        let value = $value;
        // SAFETY: as above.
        unsafe { (&raw mut (*$walk).$field).write_volatile(value) }
    }};
}
pub(crate) use walk;

/// The names of a record.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    pub(crate) start: *mut u8,
    pub(crate) capacity: u32,
    pub(crate) name_max: u32,
}

/// The css of the memory controller that the task is in.
#[inline(always)]
pub(crate) fn memory_of(task: Address) -> Address {
    task.follow(layout!(task_cgroups)).follow(layout!(css_set_memory))
}

/// Starts a walk.
#[inline(always)]
pub(crate) fn begin() -> Option<*mut Walk> {
    let walk = maps::WALK.get_ptr_mut(0)?;
    walk!(walk, names_used = 0);
    walk!(walk, oom_css = 0);
    walk!(walk, oom_level = NO_LEVEL);
    walk!(walk, tight_css = 0);
    walk!(walk, tight_level = NO_LEVEL);
    walk!(walk, tight_slack = SLACK_PAGES_MAX);
    Some(walk)
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

/// Writes the levels of the victim's memory cgroup, leaf first.
#[inline(always)]
pub(crate) fn fill_levels<const LEVELS: usize>(
    places: *mut Level,
    leaf: Address,
    oom_memcg: u64,
    names: Names,
    walk: *mut Walk,
) {
    walk!(walk, count = 0);
    walk!(walk, complete = 0);
    let mut css = leaf;
    for index in 0..LEVELS {
        let node = node_of(css);
        let Some((name_offset, name_len)) = push(node, names, walk) else { return };
        let usage_pages = css.get::<u64>(layout!(memcg_usage));
        let limit_pages = css.get::<u64>(layout!(memcg_max));
        // A byte that is 0 or 1 (`bool oom_group`): the flag itself.
        let flags = u32::from(css.get::<u8>(layout!(memcg_oom_group))) & LEVEL_OOM_GROUP;
        let level = Level { id: node.get(layout!(kn_id)), usage_pages, limit_pages, name_offset, name_len, flags };
        // SAFETY: `index` is below LEVELS, the length of the array that `places` points to.
        let place = unsafe { places.add(index) };
        // SAFETY: `place` is in the record, as just said.
        unsafe { place.write(level) };
        let slack = limit_pages.saturating_sub(usage_pages);
        if slack < walk!(walk, tight_slack) {
            walk!(walk, tight_slack = slack);
            walk!(walk, tight_level = index as u32);
            walk!(walk, tight_css = css.0);
        }
        if css.0 == oom_memcg {
            walk!(walk, oom_level = index as u32);
            walk!(walk, oom_css = css.0);
        }
        walk!(walk, count = index as u32 + 1);
        css = css.follow(layout!(css_parent));
        if css.0 == 0 {
            walk!(walk, complete = 1);
            return;
        }
    }
}

/// Writes the names of the trigger's memory cgroup, leaf first.
#[inline(always)]
pub(crate) fn fill_names<const LEVELS: usize>(places: *mut NameLevel, leaf: Address, names: Names, walk: *mut Walk) {
    walk!(walk, count = 0);
    walk!(walk, complete = 0);
    let mut css = leaf;
    for index in 0..LEVELS {
        let node = node_of(css);
        let Some((name_offset, name_len)) = push(node, names, walk) else { return };
        let id = node.get(layout!(kn_id));
        // SAFETY: `index` is below LEVELS, the length of the array that `places` points to.
        let place = unsafe { places.add(index) };
        // SAFETY: `place` is in the record, as just said.
        unsafe { place.write(NameLevel { id, name_offset, name_len, pad: 0 }) };
        walk!(walk, count = index as u32 + 1);
        css = css.follow(layout!(css_parent));
        if css.0 == 0 {
            walk!(walk, complete = 1);
            return;
        }
    }
}

/// Appends the name of a cgroup: where it starts, and its length. Nothing when it does not fit.
#[inline(always)]
fn push(node: Address, names: Names, walk: *mut Walk) -> Option<(u16, u16)> {
    let offset = walk!(walk, names_used);
    // Room for the longest name must be left: the verifier knows the bounds of `offset`, not of what is read there.
    if offset > names.capacity - names.name_max {
        return None;
    }
    // SAFETY: `offset + name_max` is within the names, as just checked.
    let place = unsafe { names.start.add(offset as usize) };
    let read = node.follow(layout!(kn_name)).read_string(place, names.name_max);
    // A name that fills the place may have been cut; the larger record takes the longest name there is.
    if read <= 0 || (read >= i64::from(names.name_max) && names.name_max < LEVEL_NAME_MAX as u32) {
        return None;
    }
    let len = read as u32 - 1;
    walk!(walk, names_used = offset + len);
    Some((offset as u16, len as u16))
}

#[inline(always)]
fn node_of(css: Address) -> Address {
    css.follow(layout!(css_cgroup)).follow(layout!(cgroup_kn))
}
