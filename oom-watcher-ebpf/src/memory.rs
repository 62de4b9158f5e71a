//! The victim's memory figures, and those of the memory cgroup that ran out.

use oom_watcher_common::{
    layout::{ABSENT, RSS_ATOMIC, RSS_PERCPU, STAT_COUNT, STATS_INLINE, STATS_POINTER, STATS_REMAPPED},
    record::{CPUS_MAX, FLAG_MM_SHARED, Kill, stat, valid},
};

use crate::{
    cgroup::walk,
    draft::Draft,
    kernel::{Address, LAYOUT, constant, layout},
};

/// Fills the figures of the process.
#[inline(always)]
pub(crate) fn fill_process(kill: &mut Kill, task: Address) {
    let mm = task.follow(layout!(task_mm));
    if mm.0 == 0 {
        return;
    }
    if layout!(mm_total_vm) != ABSENT {
        kill.total_vm_pages = mm.get(layout!(mm_total_vm));
        kill.valid |= valid::TOTAL_VM;
    }
    if layout!(mm_pgtables_bytes) != ABSENT {
        kill.page_tables_bytes = mm.get(layout!(mm_pgtables_bytes));
        kill.valid |= valid::PAGE_TABLES;
    }
    if shared(task, mm) == Some(true) {
        kill.flags |= FLAG_MM_SHARED;
    }
    if layout!(mm_rss_value) != ABSENT && layout!(rss_stride) != ABSENT {
        fill_rss(kill, mm);
    }
}

/// Whether others use the memory of this process, too; none: this kernel does not tell.
#[inline(always)]
fn shared(task: Address, mm: Address) -> Option<bool> {
    if layout!(mm_users) == ABSENT || layout!(signal_nr_threads) == ABSENT {
        return None;
    }
    let threads = task.follow(layout!(task_signal)).get::<i32>(layout!(signal_nr_threads));
    Some(mm.get::<i32>(layout!(mm_users)) > threads)
}

/// Others may use the memory of this process, too.
#[inline(always)]
pub(crate) fn may_be_shared(task: Address, mm: Address) -> bool {
    shared(task, mm) != Some(false)
}

/// Fills the RSS counters. `MM_FILEPAGES`, `MM_ANONPAGES`, `MM_SWAPENTS`, `MM_SHMEMPAGES`: this order in every kernel since
/// 4.5.
#[inline(always)]
fn fill_rss(kill: &mut Kill, mm: Address) {
    let first = layout!(mm_rss_value);
    let stride = layout!(rss_stride);
    kill.file_pages = mm.get(first);
    kill.anon_pages = mm.get(first + stride);
    kill.swap_entries = mm.get(first + 2 * stride);
    kill.shmem_pages = mm.get(first + 3 * stride);
    kill.valid |= valid::RSS;
    if layout!(rss_mode) == RSS_ATOMIC {
        kill.valid |= valid::RSS_EXACT;
    }
    let known = layout!(per_cpu_offset_table) != 0 && layout!(mm_rss_percpu) != ABSENT;
    if layout!(rss_mode) == RSS_PERCPU && known && layout!(possible_cpus) <= CPUS_MAX {
        add_cpu_parts(kill, mm);
        kill.valid |= valid::RSS_EXACT;
    }
}

/// Adds what each CPU holds of the counters (`struct percpu_counter`).
#[inline(always)]
fn add_cpu_parts(kill: &mut Kill, mm: Address) {
    let first = layout!(mm_rss_percpu);
    let stride = layout!(rss_stride);
    let file = mm.follow(first);
    let anon = mm.follow(first + stride);
    let swap = mm.follow(first + 2 * stride);
    let shmem = mm.follow(first + 3 * stride);
    let table = Address(layout!(per_cpu_offset_table));
    let cpus = layout!(possible_cpus);
    for cpu in 0..CPUS_MAX {
        if cpu >= cpus {
            break;
        }
        let offset: u64 = table.get(cpu * 8);
        let part = |counter: Address| i64::from(Address(counter.0.wrapping_add(offset)).get::<i32>(0));
        kill.file_pages += part(file);
        kill.anon_pages += part(anon);
        kill.swap_entries += part(swap);
        kill.shmem_pages += part(shmem);
    }
}

/// Fills the figures of the memory cgroup that ran out: the one that the kernel named where it could name one, else the one
/// nearest to its limit.
#[inline(always)]
pub(crate) fn fill_memcg(kill: &mut Kill, draft: *mut Draft) {
    let memcg;
    if walk!(draft, control) != 0 {
        memcg = Address(walk!(draft, oom_css));
        kill.stats_level = walk!(draft, oom_level);
    } else {
        memcg = Address(walk!(draft, tight_css));
        kill.stats_level = walk!(draft, tight_level);
    }
    if memcg.0 == 0 {
        return;
    }
    if layout!(memcg_swap_usage) != ABSENT && layout!(memcg_swap_max) != ABSENT {
        kill.swap_usage_pages = memcg.get(layout!(memcg_swap_usage));
        kill.swap_limit_pages = memcg.get(layout!(memcg_swap_max));
        kill.valid |= valid::SWAP;
    }
    let base = match layout!(stats_mode) {
        STATS_INLINE => memcg.at(layout!(memcg_vmstats)),
        STATS_POINTER | STATS_REMAPPED => memcg.follow(layout!(memcg_vmstats)).at(layout!(vmstats_state)),
        _ => return,
    };
    for item in 0..STAT_COUNT {
        kill.stats[item] = read_stat(base, item);
    }
    kill.valid |= valid::STATS;
}

#[inline(always)]
fn read_stat(base: Address, item: usize) -> i64 {
    let mut index = stat_item(item);
    if index == ABSENT {
        return stat::MISSING;
    }
    if layout!(stats_mode) == STATS_REMAPPED {
        index = u32::from(Address(layout!(stats_index_table)).get::<u8>(index));
        if index == u32::from(u8::MAX) {
            return stat::MISSING; // not kept for memory cgroups
        }
    }
    base.get(index * 8)
}

/// The enumerator of an item: one element of the array, read alone.
#[inline(always)]
fn stat_item(item: usize) -> u32 {
    // SAFETY: the callers count to STAT_COUNT, the length of the array; only the address is formed.
    let place = unsafe { (&raw const LAYOUT.stat_items).cast::<u32>().add(item) };
    constant(place)
}
