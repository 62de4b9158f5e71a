//! The victim's memory figures, and those of the memory cgroup that ran out.

use oom_watcher_common::{
    layout::{ABSENT, RSS_ATOMIC, RSS_PERCPU, STAT_COUNT, STATS_INLINE, STATS_POINTER, STATS_REMAPPED},
    record::{CPUS_MAX, FLAG_MM_SHARED, Kill, stat, valid},
};

use crate::{
    cgroup::Walk,
    kernel::{Address, LAYOUT, constant, layout},
};

/// `MM_FILEPAGES`, `MM_ANONPAGES`, `MM_SWAPENTS`, `MM_SHMEMPAGES`: the same order in every kernel since 4.5.
const RSS_COUNTERS: u32 = 4;

/// Fills the figures of the process.
#[inline(always)]
pub(crate) fn fill_process(kill: &mut Kill, task: Address) {
    let Some(mm) = task.follow(layout!(task_mm)) else { return };
    if let Some(pages) = mm.read_field::<u64>(layout!(mm_total_vm)) {
        kill.total_vm_pages = pages;
        kill.valid |= valid::TOTAL_VM;
    }
    if let Some(bytes) = mm.read_field::<u64>(layout!(mm_pgtables_bytes)) {
        kill.page_tables_bytes = bytes;
        kill.valid |= valid::PAGE_TABLES;
    }
    let users = mm.read_field::<i32>(layout!(mm_users));
    let threads = task.follow(layout!(task_signal)).and_then(|signal| signal.read_field::<i32>(layout!(signal_nr_threads)));
    if let (Some(users), Some(threads)) = (users, threads)
        && users > threads
    {
        kill.flags |= FLAG_MM_SHARED;
    }
    let stride = layout!(rss_stride);
    let Some(first) = mm.field(layout!(mm_rss_value)) else { return };
    if stride == ABSENT {
        return;
    }
    let value = |index: u32| Address(first.0 + u64::from(index * stride)).read::<i64>();
    let (Some(file), Some(anon), Some(swap), Some(shmem)) = (value(0), value(1), value(2), value(3)) else { return };
    kill.file_pages = file;
    kill.anon_pages = anon;
    kill.swap_entries = swap;
    kill.shmem_pages = shmem;
    kill.valid |= valid::RSS;
    if layout!(rss_mode) == RSS_ATOMIC || (layout!(rss_mode) == RSS_PERCPU && add_cpu_parts(kill, mm)) {
        kill.valid |= valid::RSS_EXACT;
    }
}

/// Adds what each CPU holds of the counters (`struct percpu_counter`). False: it could not be read, nothing was added.
#[inline(always)]
fn add_cpu_parts(kill: &mut Kill, mm: Address) -> bool {
    let cpus = layout!(possible_cpus);
    let table = Address(layout!(per_cpu_offset_table));
    if cpus > CPUS_MAX || table.0 == 0 {
        return false;
    }
    let stride = layout!(rss_stride);
    let Some(first) = mm.field(layout!(mm_rss_percpu)) else { return false };
    let mut parts = [0_u64; RSS_COUNTERS as usize];
    for (index, part) in (0..RSS_COUNTERS).zip(parts.iter_mut()) {
        let Some(address) = Address(first.0 + u64::from(index * stride)).read::<u64>() else { return false };
        *part = address;
    }
    let mut sums = [0_i64; RSS_COUNTERS as usize];
    for cpu in 0..CPUS_MAX {
        if cpu >= cpus {
            break;
        }
        let Some(offset) = Address(table.0 + u64::from(cpu) * 8).read::<u64>() else { return false };
        for (part, sum) in parts.iter().zip(sums.iter_mut()) {
            let Some(count) = Address(part.wrapping_add(offset)).read::<i32>() else { return false };
            *sum += i64::from(count);
        }
    }
    kill.file_pages += sums[0];
    kill.anon_pages += sums[1];
    kill.swap_entries += sums[2];
    kill.shmem_pages += sums[3];
    true
}

/// Fills the figures of the memory cgroup that ran out: the one that the kernel named (`named`: it could name one), else the
/// one nearest to its limit.
#[inline(always)]
pub(crate) fn fill_memcg(kill: &mut Kill, walk: &Walk, named: bool) {
    let (level, memcg) = if named { (walk.oom_level, walk.oom_css) } else { (walk.tight_level, walk.tight_css) };
    if memcg.0 == 0 {
        return;
    }
    kill.stats_level = level;
    if let (Some(usage), Some(limit)) =
        (memcg.read_field::<u64>(layout!(memcg_swap_usage)), memcg.read_field::<u64>(layout!(memcg_swap_max)))
    {
        kill.swap_usage_pages = usage;
        kill.swap_limit_pages = limit;
        kill.valid |= valid::SWAP;
    }
    fill_stats(kill, memcg);
}

#[inline(always)]
fn fill_stats(kill: &mut Kill, memcg: Address) {
    let mode = layout!(stats_mode);
    let base = match mode {
        STATS_INLINE => memcg.field(layout!(memcg_vmstats)),
        STATS_POINTER | STATS_REMAPPED => {
            memcg.follow(layout!(memcg_vmstats)).and_then(|stats| stats.field(layout!(vmstats_state)))
        }
        _ => None,
    };
    let Some(base) = base else { return };
    for item in 0..STAT_COUNT {
        if let Some(value) = read_stat(base, mode, item) {
            kill.stats[item] = value;
        }
    }
    kill.valid |= valid::STATS;
}

#[inline(always)]
fn read_stat(base: Address, mode: u32, item: usize) -> Option<i64> {
    let enumerator = stat_item(item);
    if enumerator == ABSENT {
        return None;
    }
    let mut index = u64::from(enumerator);
    if mode == STATS_REMAPPED {
        let slot = Address(layout!(stats_index_table).checked_add(index)?).read::<u8>()?;
        if slot == u8::MAX {
            return None; // not kept for memory cgroups
        }
        index = u64::from(slot);
    }
    let value = Address(base.0 + index * 8).read::<i64>()?;
    if value == stat::MISSING { None } else { Some(value) }
}

/// The enumerator of an item: one element of the array, read alone.
#[inline(always)]
fn stat_item(item: usize) -> u32 {
    // SAFETY: the callers count to STAT_COUNT, the length of the array; only the address is formed.
    let place = unsafe { (&raw const LAYOUT.stat_items).cast::<u32>().add(item) };
    constant(place)
}
