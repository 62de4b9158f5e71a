//! A memory cgroup's statistics, which kernels keep in three ways.
//!
//! The array's length tells the ways apart: as long as the enumeration, it is indexed by it; shorter, the index goes through
//! the table `mem_cgroup_stats_index`. BTF does not describe static tables, so nothing else in it says so.

use oom_watcher_common::layout::{Layout, STAT_COUNT, STATS_INLINE, STATS_POINTER, STATS_REMAPPED};
use oom_watcher_common::record::stat;

use super::Missing;
use super::layout::{address, array};
use crate::kernel::btf::{Btf, MemberPlace, Shape};
use crate::kernel::facts::Facts;

const NODE: &str = "node_stat_item";
const MEMCG: &str = "memcg_stat_item";

/// Index in [`stat`], enumeration, enumerator, what a report lacks without it.
const ITEMS: [(usize, &str, &str, &str); STAT_COUNT] = [
    (stat::ANON, NODE, "NR_ANON_MAPPED", "memory.anon_bytes"),
    (stat::FILE, NODE, "NR_FILE_PAGES", "memory.file_bytes"),
    (stat::SHMEM, NODE, "NR_SHMEM", "memory.shmem_bytes"),
    (stat::SLAB_RECLAIMABLE, NODE, "NR_SLAB_RECLAIMABLE_B", "memory.slab_bytes"),
    (stat::SLAB_UNRECLAIMABLE, NODE, "NR_SLAB_UNRECLAIMABLE_B", "memory.slab_bytes"),
    (stat::KERNEL_STACK, NODE, "NR_KERNEL_STACK_KB", "memory.kernel_stack_bytes"),
    // Before 5.11 it is an item of the zone and not kept by memory cgroup; the node's enumeration then lacks it.
    (stat::PAGE_TABLES, NODE, "NR_PAGETABLE", "memory.page_tables_bytes"),
    (stat::SOCK, MEMCG, "MEMCG_SOCK", "memory.sock_bytes"),
    (stat::PERCPU, MEMCG, "MEMCG_PERCPU_B", "memory.percpu_bytes"),
    (stat::SWAP, MEMCG, "MEMCG_SWAP", "memory.swap_bytes"),
];

/// Where the statistics are.
struct Place {
    mode: u32,
    vmstats: u32,
    state: u32,
    /// Address of the index table, 0 where none is needed.
    table: u64,
}

/// Finds the array and the items in it.
pub(super) fn resolve(facts: &Facts, btf: &Btf, layout: &mut Layout, missing: &mut Missing) {
    let items = match btf.enumerator(Some(MEMCG), "MEMCG_NR_STAT") {
        Ok(items) => items,
        Err(error) => return missing.add("MEMCG_NR_STAT", "memory", error.to_string()),
    };
    let place = match place(facts, btf, items) {
        Ok(place) => place,
        Err(reason) => return missing.add("mem_cgroup.vmstats", "memory", reason),
    };
    layout.stats_mode = place.mode;
    layout.memcg_vmstats = place.vmstats;
    layout.vmstats_state = place.state;
    layout.stats_index_table = place.table;
    for (index, enumeration, name, costs) in ITEMS {
        match btf.enumerator(Some(enumeration), name) {
            Ok(value) if (0..items).contains(&value) => layout.stat_items[index] = value as u32,
            Ok(value) => missing.add(name, costs, format!("{name} is {value}, beyond MEMCG_NR_STAT, {items}")),
            Err(error) => missing.add(name, costs, error.to_string()),
        }
    }
}

fn place(facts: &Facts, btf: &Btf, items: i64) -> Result<Place, String> {
    let vmstats = btf.member("mem_cgroup.vmstats").map_err(|error| error.to_string())?;
    let shape = btf.shape(vmstats.ty).map_err(|error| error.to_string())?;
    let (mode, state, array_place) = match shape {
        Shape::Array { .. } => (STATS_INLINE, 0, vmstats),
        // 5.13 to 6.0: the structure itself, not a pointer to it.
        Shape::Composite { name: "memcg_vmstats", .. } => {
            let state = btf.member("mem_cgroup.vmstats.state").map_err(|error| error.to_string())?;
            (STATS_INLINE, 0, state)
        }
        Shape::Pointer => {
            let state = btf.member("memcg_vmstats.state").map_err(|error| error.to_string())?;
            (STATS_POINTER, state.offset, state)
        }
        _ => return Err(format!("mem_cgroup.vmstats has another form in this kernel: {shape:?}")),
    };
    let vmstats = if mode == STATS_INLINE { array_place.offset } else { vmstats.offset };
    let length = length(btf, array_place)?;
    if i64::from(length) == items {
        return Ok(Place { mode, vmstats, state, table: 0 });
    }
    if i64::from(length) > items || mode == STATS_INLINE {
        return Err(format!("{length} statistics for {items} items: the index is not known"));
    }
    // 6.10 and 6.11 count the table's entries from 1 and not from 0, and BTF does not tell: the table is static in both. What
    // tells is a member that came with the same release as the count from 0.
    if btf.member("mem_cgroup.memory_peaks").is_err() {
        return Err("mem_cgroup_stats_index may count from 1 in this kernel".to_owned());
    }
    let table = address(&facts.symbols.stats_index);
    let table = table.map_err(|reason| format!("the index goes through mem_cgroup_stats_index: {reason}"))?;
    Ok(Place { mode: STATS_REMAPPED, vmstats, state, table })
}

/// Length of the array of counters, which are words.
fn length(btf: &Btf, place: MemberPlace) -> Result<u32, String> {
    match array(btf, place).map_err(|error| error.to_string())? {
        (8, length) => Ok(length),
        (size, _) => Err(format!("a memory cgroup's statistics have {size} bytes, not 8")),
    }
}
