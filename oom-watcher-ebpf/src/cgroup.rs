//! The walk from a memory cgroup to the root.
//!
//! It follows `css->parent` and not the cgroup's own links, whose names change between kernels; the memory controller's css
//! is taken from the task's `css_set`, so that it is the right hierarchy on cgroup v1 too. `struct mem_cgroup` starts with
//! its css (the agent checks that in BTF), so both have one address.

use oom_watcher_common::{
    layout::ABSENT,
    record::{LEVEL_OOM_GROUP, Level, NO_LEVEL, NameLevel, valid},
};

use crate::kernel::{Address, layout};

/// A level may lack this many pages to its limit and still be the one that ran out: the kernel charges in batches of 64,
/// and other CPUs free pages while this one selects a victim.
const SLACK_PAGES_MAX: u64 = 512;

/// The names of a record, filled from the front.
pub(crate) struct Names {
    start: *mut u8,
    used: u32,
    capacity: u32,
    name_max: u32,
}

impl Names {
    #[inline(always)]
    pub(crate) fn new(start: *mut u8, capacity: u32, name_max: u32) -> Self {
        Self { start, used: 0, capacity, name_max }
    }

    /// Appends the name of a cgroup: where it starts, and its length. Nothing when it does not fit.
    #[inline(always)]
    fn push(&mut self, name: Address) -> Option<(u16, u16)> {
        let offset = self.used;
        // Room for the longest name must be left: the verifier knows the bounds of `offset`, not of what is read there.
        if offset > self.capacity - self.name_max {
            return None;
        }
        // SAFETY: `offset + name_max` is within the names, as just checked.
        let place = unsafe { self.start.add(offset as usize) };
        let read = name.read_string(place, self.name_max)?;
        if read == self.name_max && self.name_max < oom_watcher_common::record::LEVEL_NAME_MAX as u32 {
            return None; // perhaps cut; the larger record takes the longest name there is
        }
        self.used = offset + read - 1;
        Some((offset as u16, (read - 1) as u16))
    }
}

/// What the walk of the victim's cgroup found.
pub(crate) struct Walk {
    /// Levels written.
    pub(crate) count: u32,
    /// All levels and names fitted.
    pub(crate) complete: bool,
    /// Bits of `valid`.
    pub(crate) valid: u64,
    /// The level that `oom_control` names.
    pub(crate) oom_level: u32,
    /// Its css.
    pub(crate) oom_css: Address,
    /// The level that is nearest to its limit, if one is near.
    pub(crate) tight_level: u32,
    /// Its css.
    pub(crate) tight_css: Address,
}

/// The css of the memory controller that the task is in.
#[inline(always)]
pub(crate) fn memory_of(task: Address) -> Option<Address> {
    task.follow(layout!(task_cgroups))?.follow(layout!(css_set_memory))
}

/// Writes the levels of the victim's memory cgroup, leaf first.
#[inline(always)]
pub(crate) fn fill_levels<const LEVELS: usize>(
    places: *mut Level,
    leaf: Address,
    oom_memcg: u64,
    names: &mut Names,
) -> Walk {
    let mut walk = Walk {
        count: 0,
        complete: false,
        valid: valid::CGROUP,
        oom_level: NO_LEVEL,
        oom_css: Address(0),
        tight_level: NO_LEVEL,
        tight_css: Address(0),
    };
    if layout!(memcg_usage) != ABSENT {
        walk.valid |= valid::USAGE;
    }
    if layout!(memcg_max) != ABSENT {
        walk.valid |= valid::LIMIT;
    }
    if layout!(memcg_oom_group) != ABSENT {
        walk.valid |= valid::OOM_GROUP;
    }
    let mut css = leaf;
    let mut tightest = SLACK_PAGES_MAX;
    for index in 0..LEVELS {
        let Some(node) = node_of(css) else { break };
        let Some((name_offset, name_len)) = node.follow(layout!(kn_name)).and_then(|name| names.push(name)) else { break };
        let usage_pages = css.read_field::<u64>(layout!(memcg_usage)).unwrap_or(0);
        let limit_pages = css.read_field::<u64>(layout!(memcg_max)).unwrap_or(u64::MAX);
        let group = css.read_field::<u8>(layout!(memcg_oom_group)).unwrap_or(0);
        let level = Level {
            id: node.read_field::<u64>(layout!(kn_id)).unwrap_or(0),
            usage_pages,
            limit_pages,
            name_offset,
            name_len,
            flags: if group == 0 { 0 } else { LEVEL_OOM_GROUP },
        };
        // SAFETY: `index` is below LEVELS, the length of the array that `places` points to.
        let place = unsafe { places.add(index) };
        // SAFETY: `place` is in the record, as just said.
        unsafe { place.write(level) };
        let slack = limit_pages.saturating_sub(usage_pages);
        if slack < tightest {
            tightest = slack;
            walk.tight_level = index as u32;
            walk.tight_css = css;
        }
        if css.0 == oom_memcg {
            walk.oom_level = index as u32;
            walk.oom_css = css;
        }
        walk.count = index as u32 + 1;
        match css.follow(layout!(css_parent)) {
            Some(parent) => css = parent,
            None => {
                walk.complete = true;
                break;
            }
        }
    }
    walk
}

/// Writes the names of the trigger's memory cgroup, leaf first: how many, and whether all fitted.
#[inline(always)]
pub(crate) fn fill_names<const LEVELS: usize>(
    places: *mut NameLevel,
    leaf: Address,
    names: &mut Names,
) -> (u32, bool) {
    let mut css = leaf;
    let mut count = 0;
    for index in 0..LEVELS {
        let Some(node) = node_of(css) else { break };
        let Some((name_offset, name_len)) = node.follow(layout!(kn_name)).and_then(|name| names.push(name)) else { break };
        let id = node.read_field::<u64>(layout!(kn_id)).unwrap_or(0);
        // SAFETY: `index` is below LEVELS, the length of the array that `places` points to.
        let place = unsafe { places.add(index) };
        // SAFETY: `place` is in the record, as just said.
        unsafe { place.write(NameLevel { id, name_offset, name_len, pad: 0 }) };
        count = index as u32 + 1;
        match css.follow(layout!(css_parent)) {
            Some(parent) => css = parent,
            None => return (count, true),
        }
    }
    (count, false)
}

#[inline(always)]
fn node_of(css: Address) -> Option<Address> {
    css.follow(layout!(css_cgroup))?.follow(layout!(cgroup_kn))
}
