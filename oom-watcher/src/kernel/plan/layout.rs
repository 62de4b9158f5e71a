//! Where things are in this kernel: one table from the kernel's names to the fields of [`Layout`].

use oom_watcher_common::layout::{Layout, RSS_ATOMIC, RSS_PERCPU};
use oom_watcher_common::record::CPUS_MAX;

use super::{Missing, stats};
use crate::kernel::btf::{Btf, BtfError, MemberPlace, Shape};
use crate::kernel::facts::{Facts, Symbol};

/// What the kernel program reads at an offset. Another form means that the name has changed its meaning.
#[derive(Clone, Copy)]
enum Form {
    /// A value of so many bytes that is no pointer.
    Bytes(u32),
    /// A pointer.
    Pointer,
    /// An array of structures that only the first element's offset is taken of.
    Array,
}

use Form::{Array, Bytes, Pointer};

/// One field of [`Layout`].
struct Row {
    /// Path in BTF.
    path: &'static str,
    form: Form,
    /// What a report lacks without it.
    costs: &'static str,
    slot: fn(&mut Layout) -> &mut u32,
}

const fn row(path: &'static str, form: Form, costs: &'static str, slot: fn(&mut Layout) -> &mut u32) -> Row {
    Row { path, form, costs, slot }
}

const CGROUP: &str = "cgroup, incident.memcg_path, attribution";
const NAMESPACE_PID: &str = "victim.namespace_pid";
const NODENAME: &str = "victim.nodename";
const SWAP: &str = "incident.swap_usage_bytes, incident.swap_limit_bytes";

/// All fields that are a member's offset and nothing else. A path is a name, not a promise: kernels move members into
/// anonymous structures and change their types, which `Btf::member` and `Form` take care of.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("task_struct.pid", Bytes(4), "victim.pid, trigger.pid", |l| &mut l.task_pid),
    row("task_struct.tgid", Bytes(4), "victim.tgid, trigger.tgid", |l| &mut l.task_tgid),
    row("task_struct.comm", Bytes(16), "victim.comm, trigger.comm", |l| &mut l.task_comm),
    row("task_struct.mm", Pointer, "victim's sizes", |l| &mut l.task_mm),
    row("task_struct.signal", Pointer, "victim.oom_score_adj", |l| &mut l.task_signal),
    row("task_struct.real_cred", Pointer, "victim.uid", |l| &mut l.task_real_cred),
    row("task_struct.group_leader", Pointer, "victim.comm of a thread", |l| &mut l.task_group_leader),
    row("task_struct.start_boottime", Bytes(8), "victim.started_at", |l| &mut l.task_start_boottime),
    row("task_struct.cgroups", Pointer, CGROUP, |l| &mut l.task_cgroups),
    row("task_struct.nsproxy", Pointer, NODENAME, |l| &mut l.task_nsproxy),
    row("task_struct.thread_pid", Pointer, NAMESPACE_PID, |l| &mut l.task_thread_pid),
    row("signal_struct.oom_score_adj", Bytes(2), "victim.oom_score_adj", |l| &mut l.signal_oom_score_adj),
    row("cred.uid", Bytes(4), "victim.uid", |l| &mut l.cred_uid),
    row("mm_struct.total_vm", Bytes(8), "victim.total_vm_bytes", |l| &mut l.mm_total_vm),
    row("mm_struct.mm_users", Bytes(4), "who else uses the victim's memory", |l| &mut l.mm_users),
    row("signal_struct.nr_threads", Bytes(4), "who else uses the victim's memory", |l| &mut l.signal_nr_threads),
    row("mm_struct.pgtables_bytes", Bytes(8), "victim.page_tables_bytes", |l| &mut l.mm_pgtables_bytes),
    row("pid.level", Bytes(4), NAMESPACE_PID, |l| &mut l.pid_level),
    row("pid.numbers", Array, NAMESPACE_PID, |l| &mut l.pid_numbers),
    row("upid.nr", Bytes(4), NAMESPACE_PID, |l| &mut l.upid_nr),
    row("nsproxy.uts_ns", Pointer, NODENAME, |l| &mut l.nsproxy_uts_ns),
    row("uts_namespace.name.nodename", Bytes(65), NODENAME, |l| &mut l.uts_nodename),
    row("cgroup_subsys_state.cgroup", Pointer, CGROUP, |l| &mut l.css_cgroup),
    row("cgroup_subsys_state.parent", Pointer, CGROUP, |l| &mut l.css_parent),
    row("cgroup.kn", Pointer, CGROUP, |l| &mut l.cgroup_kn),
    row("kernfs_node.id", Bytes(8), CGROUP, |l| &mut l.kn_id),
    row("kernfs_node.name", Pointer, CGROUP, |l| &mut l.kn_name),
    row("oom_control.memcg", Pointer, "incident.memcg_path", |l| &mut l.oc_memcg),
    row("oom_control.gfp_mask", Bytes(4), "incident.gfp_flags", |l| &mut l.oc_gfp_mask),
    row("oom_control.order", Bytes(4), "incident.order, the cause SysRq", |l| &mut l.oc_order),
    row("oom_control.totalpages", Bytes(8), "the size of the domain", |l| &mut l.oc_totalpages),
    row("oom_control.chosen_points", Bytes(8), "incident.oom_kill_allocating_task", |l| &mut l.oc_chosen_points),
    row("oom_control.constraint", Bytes(4), "incident.constraint", |l| &mut l.oc_constraint),
];

/// The fields in `struct mem_cgroup`, which are reached through its `cgroup_subsys_state`.
#[rustfmt::skip]
const MEMCG_ROWS: &[Row] = &[
    row("mem_cgroup.memory.usage", Bytes(8), "cgroup.levels[].usage_bytes", |l| &mut l.memcg_usage),
    row("mem_cgroup.memory.max", Bytes(8), "cgroup.levels[].limit_bytes", |l| &mut l.memcg_max),
    row("mem_cgroup.swap.usage", Bytes(8), SWAP, |l| &mut l.memcg_swap_usage),
    row("mem_cgroup.swap.max", Bytes(8), SWAP, |l| &mut l.memcg_swap_max),
    row("mem_cgroup.oom_group", Bytes(1), "cgroup.levels[].oom_group", |l| &mut l.memcg_oom_group),
];

/// Finds every field; what cannot be found stays `ABSENT` and is added to `missing`.
pub(super) fn resolve(facts: &Facts, btf: &Btf, missing: &mut Missing) -> Layout {
    let mut layout = Layout { mark_victim_mode: 0, rss_mode: 0, stats_mode: 0, possible_cpus: 0, ..Layout::UNKNOWN };
    fill(btf, ROWS, &mut layout, missing);
    match btf.size_of_struct("upid") {
        Ok(size) => layout.upid_size = size,
        Err(error) => missing.add("upid", NAMESPACE_PID, error.to_string()),
    }
    match css_set_memory(btf) {
        Ok(offset) => layout.css_set_memory = offset,
        Err(reason) => missing.add("css_set.subsys", CGROUP, reason),
    }
    regs_arg0(facts, btf, &mut layout, missing);
    rss(facts, btf, &mut layout, missing);
    memcg(facts, btf, &mut layout, missing);
    layout
}

fn fill(btf: &Btf, rows: &[Row], layout: &mut Layout, missing: &mut Missing) {
    for row in rows {
        match offset(btf, row.path, row.form) {
            Ok(offset) => *(row.slot)(layout) = offset,
            Err(reason) => missing.add(row.path, row.costs, reason),
        }
    }
}

/// Offset of a member that has the form that the kernel program reads.
fn offset(btf: &Btf, path: &str, form: Form) -> Result<u32, String> {
    let place = btf.member(path).map_err(|error| error.to_string())?;
    let shape = btf.shape(place.ty).map_err(|error| error.to_string())?;
    let fits = match form {
        Bytes(size) => place.size == size && shape != Shape::Pointer,
        Pointer => shape == Shape::Pointer,
        Array => matches!(shape, Shape::Array { .. }),
    };
    if fits { Ok(place.offset) } else { Err(format!("{path} has another form in this kernel: {shape:?}")) }
}

/// Offset of the memory controller's pointer in `css_set.subsys`.
fn css_set_memory(btf: &Btf) -> Result<u32, String> {
    let place = btf.member("css_set.subsys").map_err(|error| error.to_string())?;
    let index = btf.enumerator(Some("cgroup_subsys_id"), "memory_cgrp_id");
    let index = index.map_err(|error| format!("{error}: the kernel has no memory controller (CONFIG_MEMCG)"))?;
    let (stride, length) = array(btf, place).map_err(|error| error.to_string())?;
    match u32::try_from(index) {
        Ok(index) if stride == 8 && index < length => Ok(place.offset + stride * index),
        _ => Err(format!("css_set.subsys has {length} elements of {stride} bytes, and memory_cgrp_id is {index}")),
    }
}

/// Element size and length of the array at `place`.
pub(super) fn array(btf: &Btf, place: MemberPlace) -> Result<(u32, u32), BtfError> {
    match btf.shape(place.ty)? {
        Shape::Array { element, length } => Ok((btf.size_of(element)?, length)),
        _ => Err(BtfError::NotA { type_id: place.ty.0, expected: "array" }),
    }
}

/// Offset of the first argument among the registers, which a kprobe gets.
fn regs_arg0(facts: &Facts, btf: &Btf, layout: &mut Layout, missing: &mut Missing) {
    let found = match facts.machine.as_str() {
        "x86_64" => offset(btf, "pt_regs.di", Bytes(8)),
        "aarch64" => offset(btf, "pt_regs.regs", Array),
        other => Err(format!("the calling convention of {other} is not known")),
    };
    match found {
        Ok(offset) => layout.regs_arg0 = offset,
        Err(reason) => missing.add("pt_regs", "kprobe of out_of_memory", reason),
    }
}

/// The resident set: an array of atomic counters, or of per-CPU counters.
fn rss(facts: &Facts, btf: &Btf, layout: &mut Layout, missing: &mut Missing) {
    const COSTS: &str = "victim.anon_rss_bytes, file_rss_bytes, shmem_rss_bytes, swap_bytes";
    let found = rss_order(btf).and_then(|()| rss_counters(btf));
    let rss = match found {
        Ok(rss) => rss,
        Err(reason) => return missing.add("mm_struct.rss_stat", COSTS, reason),
    };
    layout.mm_rss_value = rss.value;
    layout.rss_stride = rss.stride;
    let Some(percpu) = rss.percpu else {
        layout.rss_mode = RSS_ATOMIC;
        return;
    };
    layout.rss_mode = RSS_PERCPU;
    layout.mm_rss_percpu = percpu;
    match percpu_table(facts) {
        Ok((table, cpus)) => {
            layout.per_cpu_offset_table = table;
            layout.possible_cpus = cpus;
        }
        Err(reason) => missing.add("__per_cpu_offset", "exact resident sizes: victim.rss_error_bytes is given", reason),
    }
}

/// The program reads counters 0 to 3 as file, anonymous, swap, shared.
fn rss_order(btf: &Btf) -> Result<(), String> {
    for (expected, name) in ["MM_FILEPAGES", "MM_ANONPAGES", "MM_SWAPENTS", "MM_SHMEMPAGES"].into_iter().enumerate() {
        let value = btf.enumerator(None, name).map_err(|error| error.to_string())?;
        if usize::try_from(value) != Ok(expected) {
            return Err(format!("{name} is {value}, not {expected}"));
        }
    }
    Ok(())
}

/// Where the counters are.
struct Rss {
    value: u32,
    stride: u32,
    /// Offset of the first counter's per-CPU pointer.
    percpu: Option<u32>,
}

fn rss_counters(btf: &Btf) -> Result<Rss, String> {
    let text = |error: BtfError| error.to_string();
    let place = btf.member("mm_struct.rss_stat").map_err(text)?;
    let Shape::Array { element, .. } = btf.shape(place.ty).map_err(text)? else {
        // 5.10 to 6.1: a structure with the array `count`.
        let count = btf.member("mm_struct.rss_stat.count").map_err(text)?;
        let (stride, length) = array(btf, count).map_err(text)?;
        return match (stride, length) {
            (8, 4..) => Ok(Rss { value: count.offset, stride, percpu: None }),
            _ => Err(format!("mm_struct.rss_stat.count has {length} elements of {stride} bytes")),
        };
    };
    let (stride, length) = array(btf, place).map_err(text)?;
    match btf.shape(element).map_err(text)? {
        Shape::Composite { name: "percpu_counter", .. } if length >= 4 => {}
        other => return Err(format!("mm_struct.rss_stat has {length} elements of an unknown form: {other:?}")),
    }
    let count = offset(btf, "percpu_counter.count", Bytes(8))?;
    let counters = offset(btf, "percpu_counter.counters", Pointer)?;
    Ok(Rss { value: place.offset + count, stride, percpu: Some(place.offset + counters) })
}

/// Address of the table of per-CPU offsets, and over how many CPUs to sum.
fn percpu_table(facts: &Facts) -> Result<(u64, u32), String> {
    let table = address(&facts.symbols.per_cpu_offset)?;
    let cpus =
        facts.possible_cpus.as_ref().map_err(|unread| format!("the possible CPUs are not known: {}", unread.0))?;
    if cpus.count > CPUS_MAX {
        return Err(format!("the machine has {} possible CPUs, the sum goes over at most {CPUS_MAX}", cpus.count));
    }
    if !cpus.contiguous {
        return Err("the numbers of the possible CPUs have holes".to_owned());
    }
    Ok((table, cpus.count))
}

/// A symbol's address, or why it is not known.
pub(super) fn address(symbol: &Symbol) -> Result<u64, String> {
    match symbol {
        Symbol::Address(address) => Ok(*address),
        Symbol::Hidden => {
            Err("/proc/kallsyms hides addresses (kernel.kptr_restrict; CAP_SYSLOG shows them)".to_owned())
        }
        Symbol::Absent => Err("/proc/kallsyms does not have it (CONFIG_KALLSYMS_ALL)".to_owned()),
        Symbol::Unread(unread) => Err(unread.0.clone()),
    }
}

/// The fields of `struct mem_cgroup`. The program has a pointer to its first member, and takes it for one to the whole.
fn memcg(facts: &Facts, btf: &Btf, layout: &mut Layout, missing: &mut Missing) {
    let css = btf.member("mem_cgroup.css").map_err(|error| error.to_string()).and_then(|css| match css.offset {
        0 => Ok(()),
        offset => Err(format!("mem_cgroup.css is at offset {offset}, not 0")),
    });
    match css {
        Ok(()) => {
            fill(btf, MEMCG_ROWS, layout, missing);
            stats::resolve(facts, btf, layout, missing);
        }
        Err(reason) => missing.add("mem_cgroup", "cgroup.levels[].usage_bytes, limit_bytes, oom_group; memory", reason),
    }
}
