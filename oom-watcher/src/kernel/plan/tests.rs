//! The plan on excerpts of real kernels, and with each fact and each piece of type information taken away in turn.

use std::path::PathBuf;
use std::sync::Arc;

use oom_watcher_common::layout::{
    ABSENT, RSS_ATOMIC, RSS_PERCPU, STAT_COUNT, STATS_INLINE, STATS_POINTER, STATS_REMAPPED,
};
use oom_watcher_common::record::CPUS_MAX;

use super::*;
use crate::kernel::btf::builder::{Builder, fixture, without};
use crate::kernel::facts::{Capabilities, PossibleCpus, Symbol, Symbols, Unread};

/// The kernel that gives most.
const RICHEST: &str = "7.3-rc7-amd64";

fn unread<T>() -> Result<T, Unread> {
    Err(Unread("hidden by the sandbox".to_owned()))
}

/// A machine with everything, and this BTF.
#[track_caller]
fn capable(btf: Vec<u8>, machine: &str) -> Facts {
    Facts {
        kernel_release: Ok("1.2.3".to_owned()),
        machine: machine.to_owned(),
        page_size: 4096,
        possible_cpus: Ok(PossibleCpus { count: 4, contiguous: true }),
        btf: Ok(Btf::parse(btf).unwrap()),
        symbols: Symbols { per_cpu_offset: Symbol::Address(0xffff_1000), stats_index: Symbol::Address(0xffff_2000) },
        kprobe_pmu: Ok(true),
        perf_event_paranoid: Ok(2),
        capabilities: Ok(Capabilities { bpf: true, perfmon: true, ..Capabilities::default() }),
        lockdown: Ok(Lockdown::None),
        memory_cgroup: Ok(MemoryCgroup::V2("/sys/fs/cgroup".into())),
        own_memory_limit: Ok(None),
    }
}

#[track_caller]
fn on(kernel: &str) -> Facts {
    let machine = if kernel.ends_with("arm64") { "aarch64" } else { "x86_64" };
    capable(fixture(kernel), machine)
}

#[track_caller]
fn plan_on(kernel: &str) -> Plan {
    plan(&on(kernel)).unwrap()
}

/// The plan for a kernel whose BTF lacks a name.
#[track_caller]
fn plan_without(kernel: &str, name: &str) -> Plan {
    plan(&capable(without(fixture(kernel), name), "x86_64")).unwrap()
}

fn missing(plan: &Plan) -> Vec<&'static str> {
    plan.missing.iter().map(|missing| missing.field).collect()
}

#[track_caller]
fn methods(plan: &Plan, hook: Hook) -> &[Method] {
    &plan.hooks.iter().find(|plan| plan.hook == hook).unwrap().methods
}

/// Names of the fields that two layouts differ in.
fn differences(one: &Layout, other: &Layout) -> Vec<String> {
    let [one, other] = [one, other].map(|layout| format!("{layout:?}").replace("Layout { ", ""));
    let pairs = one.split(", ").zip(other.split(", ")).filter(|(one, other)| one != other);
    // The further elements of an array have no name; the first one has.
    pairs.filter_map(|(one, _)| Some(one.split_once(": ")?.0.to_owned())).collect()
}

/// What kernels keep in different ways, and what each of them lacks.
#[test]
fn modes_of_every_kernel() {
    const A: u32 = ABSENT;
    let v510 = [17, 19, 23, 5, 6, 36, A, 38, 39, 37];
    let v61 = [17, 19, 23, 5, 6, 37, 38, 44, 45, 43];
    let v612 = [17, 19, 23, 5, 6, 37, 38, 48, 49, 47];
    let v72 = [17, 19, 22, 5, 6, 37, 38, 68, 69, 67];
    let cases = [
        ("5.10.223-amd64", MARK_VICTIM_PID, RSS_ATOMIC, STATS_INLINE, v510),
        ("5.10.223-arm64", MARK_VICTIM_PID, RSS_ATOMIC, STATS_INLINE, v510),
        ("5.10.262-amd64", MARK_VICTIM_TASK, RSS_ATOMIC, STATS_INLINE, v510),
        ("6.1.176-amd64", MARK_VICTIM_TASK, RSS_ATOMIC, STATS_POINTER, v61),
        ("6.1.176-arm64", MARK_VICTIM_TASK, RSS_ATOMIC, STATS_POINTER, v61),
        ("6.12.107-amd64", MARK_VICTIM_TASK, RSS_PERCPU, STATS_REMAPPED, v612),
        ("6.12.107-arm64", MARK_VICTIM_TASK, RSS_PERCPU, STATS_REMAPPED, v612),
        ("6.18.44-amd64", MARK_VICTIM_TASK, RSS_PERCPU, STATS_REMAPPED, [17, 19, 22, 5, 6, 36, 37, 52, 53, 51]),
        ("7.2.13-amd64", MARK_VICTIM_TASK, RSS_PERCPU, STATS_REMAPPED, v72),
        ("7.2.13-arm64", MARK_VICTIM_TASK, RSS_PERCPU, STATS_REMAPPED, v72),
        ("7.3-rc7-amd64", MARK_VICTIM_TASK, RSS_PERCPU, STATS_REMAPPED, [17, 19, 22, 5, 6, 37, 38, 70, 71, 69]),
    ];
    for (kernel, mark_victim, rss, stats, items) in cases {
        let plan = plan_on(kernel);
        let Layout { mark_victim_mode, rss_mode, stats_mode, stat_items, .. } = plan.layout;
        assert_eq!((mark_victim_mode, rss_mode, stats_mode), (mark_victim, rss, stats), "{kernel}");
        assert_eq!(stat_items, items, "{kernel}");
        let expected: &[&str] = if kernel.starts_with("5.10") { &["NR_PAGETABLE"] } else { &[] };
        assert_eq!(missing(&plan), expected, "{kernel}: {:?}", plan.missing);
        let percpu = rss == RSS_PERCPU;
        assert_eq!(plan.layout.per_cpu_offset_table, if percpu { 0xffff_1000 } else { 0 }, "{kernel}");
        assert_eq!(plan.layout.possible_cpus, if percpu { 4 } else { 0 }, "{kernel}");
        assert_eq!(plan.layout.stats_index_table, if stats == STATS_REMAPPED { 0xffff_2000 } else { 0 }, "{kernel}");
    }
}

/// The table of the fields is ours, that of the offsets is pahole's.
#[test]
fn every_offset_lands_in_its_field() {
    let table = include_str!("../../../tests/fixtures/btf/offsets.tsv");
    let mut lines =
        table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect::<Vec<_>>());
    let kernels = lines.next().unwrap()[1..].to_vec();
    let rows: Vec<_> = lines.collect();
    for (column, kernel) in kernels.into_iter().enumerate() {
        let layout = plan_on(kernel).layout;
        let mut compared = 0;
        for row in &rows {
            let Some(found) = field(&layout, row[0]) else { continue };
            let expected = row[column + 1].parse().unwrap_or(ABSENT);
            assert_eq!(found, expected, "{} in {kernel}", row[0]);
            compared += 1;
        }
        assert_eq!(compared, rows.len() - 4, "all but rss_stat, vmstats' state and the two architectures' registers");
        let registers = if kernel.ends_with("amd64") { 112 } else { 0 };
        assert_eq!(layout.regs_arg0, registers, "{kernel}");
        assert_eq!((layout.upid_size, layout.vmstats_state), (16, 0), "{kernel}");
    }
}

/// The field of the layout that a member's offset belongs to.
fn field(l: &Layout, path: &str) -> Option<u32> {
    Some(match path {
        "task_struct.pid" => l.task_pid,
        "task_struct.tgid" => l.task_tgid,
        "task_struct.comm" => l.task_comm,
        "task_struct.mm" => l.task_mm,
        "task_struct.signal" => l.task_signal,
        "task_struct.real_cred" => l.task_real_cred,
        "task_struct.group_leader" => l.task_group_leader,
        "task_struct.start_boottime" => l.task_start_boottime,
        "task_struct.cgroups" => l.task_cgroups,
        "task_struct.nsproxy" => l.task_nsproxy,
        "task_struct.thread_pid" => l.task_thread_pid,
        "signal_struct.oom_score_adj" => l.signal_oom_score_adj,
        "signal_struct.nr_threads" => l.signal_nr_threads,
        "cred.uid" => l.cred_uid,
        "mm_struct.total_vm" => l.mm_total_vm,
        "mm_struct.mm_users" => l.mm_users,
        "mm_struct.pgtables_bytes" => l.mm_pgtables_bytes,
        "pid.level" => l.pid_level,
        "pid.numbers" => l.pid_numbers,
        "upid.nr" => l.upid_nr,
        "nsproxy.uts_ns" => l.nsproxy_uts_ns,
        "uts_namespace.name.nodename" => l.uts_nodename,
        // memory_cgrp_id is 4 in all of them.
        "css_set.subsys" => l.css_set_memory - 4 * 8,
        "cgroup_subsys_state.cgroup" => l.css_cgroup,
        "cgroup_subsys_state.parent" => l.css_parent,
        "cgroup.kn" => l.cgroup_kn,
        "kernfs_node.id" => l.kn_id,
        "kernfs_node.name" => l.kn_name,
        "mem_cgroup.memory.usage" => l.memcg_usage,
        "mem_cgroup.memory.max" => l.memcg_max,
        "mem_cgroup.swap.usage" => l.memcg_swap_usage,
        "mem_cgroup.swap.max" => l.memcg_swap_max,
        "mem_cgroup.oom_group" => l.memcg_oom_group,
        "mem_cgroup.vmstats" => l.memcg_vmstats,
        "oom_control.memcg" => l.oc_memcg,
        "oom_control.gfp_mask" => l.oc_gfp_mask,
        "oom_control.order" => l.oc_order,
        "oom_control.totalpages" => l.oc_totalpages,
        "oom_control.chosen_points" => l.oc_chosen_points,
        "oom_control.constraint" => l.oc_constraint,
        _ => return None,
    })
}

#[test]
fn resident_set_is_found_in_both_forms() {
    // rss_stat is at 720 and 1200; a per-CPU counter has 40 bytes with its value at 8 and its per-CPU part at 32.
    let rss = |kernel| {
        let Layout { mm_rss_value, rss_stride, mm_rss_percpu, .. } = plan_on(kernel).layout;
        (mm_rss_value, rss_stride, mm_rss_percpu)
    };
    assert_eq!(rss("6.1.176-amd64"), (720, 8, ABSENT));
    assert_eq!(rss("7.3-rc7-amd64"), (1208, 40, 1232));
}

#[test]
fn hooks_of_a_machine_with_everything() {
    for kernel in ["5.10.262-amd64", "6.1.176-arm64", RICHEST] {
        let plan = plan_on(kernel);
        let hooks: Vec<_> = plan.hooks.iter().map(|hook| (hook.hook, hook.methods.as_slice())).collect();
        let both: &[Method] = &[Method::Fentry, Method::Kprobe];
        let raw: &[Method] = &[Method::RawTracepoint];
        let expected = [
            (Hook::MarkVictim, raw),
            (Hook::SignalGenerate, raw),
            (Hook::OutOfMemory, both),
            (Hook::MemoryMaxWrite, both),
        ];
        assert_eq!(hooks, expected, "{kernel}");
        assert!(plan.hooks.iter().all(|hook| hook.ruled_out.is_empty()), "{kernel}: {:?}", plan.hooks);
    }
}

#[test]
fn function_that_btf_lacks_may_still_have_a_kprobe() {
    // BTF of 5.10 on arm64 has global functions only.
    let plan = plan_on("5.10.223-arm64");
    assert_eq!(methods(&plan, Hook::OutOfMemory), [Method::Fentry, Method::Kprobe]);
    assert_eq!(methods(&plan, Hook::MemoryMaxWrite), [Method::Kprobe]);
    let ruled_out = &plan.hooks.iter().find(|hook| hook.hook == Hook::MemoryMaxWrite).unwrap().ruled_out;
    let reason = "BTF has no function memory_max_write".to_owned();
    assert_eq!(*ruled_out, [RuledOut { method: Method::Fentry, reason }]);
}

#[test]
fn function_with_another_argument_is_another_function() {
    let plan = plan_without(RICHEST, "kernfs_open_file");
    assert!(methods(&plan, Hook::MemoryMaxWrite).is_empty());
    assert_eq!(methods(&plan, Hook::OutOfMemory), [Method::Fentry, Method::Kprobe]);
}

/// A fact to take away, the fields of the layout that change, and what is missing then.
type Removal = (&'static str, fn(&mut Facts), &'static [&'static str], &'static [&'static str]);

#[test]
fn each_fact_costs_what_hangs_on_it_and_nothing_else() {
    const EXACT: &[&str] = &["per_cpu_offset_table", "possible_cpus"];
    const STATS: &[&str] = &["stats_index_table", "stat_items", "stats_mode", "memcg_vmstats", "vmstats_state"];
    let removals: &[Removal] = &[
        ("release", |facts| facts.kernel_release = unread(), &[], &[]),
        ("machine", |facts| facts.machine = "riscv64".to_owned(), &["regs_arg0"], &["pt_regs"]),
        ("possible CPUs", |facts| facts.possible_cpus = unread(), EXACT, &["__per_cpu_offset"]),
        ("too many CPUs", |facts| facts.possible_cpus = cpus(CPUS_MAX + 1, true), EXACT, &["__per_cpu_offset"]),
        ("CPUs with holes", |facts| facts.possible_cpus = cpus(3, false), EXACT, &["__per_cpu_offset"]),
        ("most CPUs", |facts| facts.possible_cpus = cpus(CPUS_MAX, true), &["possible_cpus"], &[]),
        ("offsets hidden", |facts| facts.symbols.per_cpu_offset = Symbol::Hidden, EXACT, &["__per_cpu_offset"]),
        ("offsets absent", |facts| facts.symbols.per_cpu_offset = Symbol::Absent, EXACT, &["__per_cpu_offset"]),
        ("index hidden", |facts| facts.symbols.stats_index = Symbol::Hidden, STATS, &["mem_cgroup.vmstats"]),
        ("index absent", |facts| facts.symbols.stats_index = Symbol::Absent, STATS, &["mem_cgroup.vmstats"]),
        ("kprobe unread", |facts| facts.kprobe_pmu = unread(), &[], &[]),
        ("kprobe", |facts| facts.kprobe_pmu = Ok(false), &[], &[]),
        ("paranoid", |facts| facts.perf_event_paranoid = unread(), &[], &[]),
        ("capabilities", |facts| facts.capabilities = unread(), &[], &[]),
        ("lockdown", |facts| facts.lockdown = unread(), &[], &[]),
        ("integrity", |facts| facts.lockdown = Ok(Lockdown::Integrity), &[], &[]),
        ("cgroup", |facts| facts.memory_cgroup = unread(), &[], &[]),
        ("own limit", |facts| facts.own_memory_limit = unread(), &[], &[]),
    ];
    let whole = plan_on(RICHEST);
    for (name, remove, changed, lost) in removals {
        let mut facts = on(RICHEST);
        remove(&mut facts);
        let plan = plan(&facts).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(differences(&whole.layout, &plan.layout), *changed, "{name}");
        assert_eq!(missing(&plan), *lost, "{name}");
        let kprobes = methods(&plan, Hook::OutOfMemory).contains(&Method::Kprobe);
        assert_eq!(kprobes, !["machine", "kprobe"].contains(name), "{name}");
        assert_eq!(methods(&plan, Hook::OutOfMemory)[0], Method::Fentry, "{name}");
        assert_eq!(methods(&plan, Hook::MemoryMaxWrite).len(), 2 - usize::from(*name == "kprobe"), "{name}");
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands where the fact is")]
fn cpus(count: u32, contiguous: bool) -> Result<PossibleCpus, Unread> {
    Ok(PossibleCpus { count, contiguous })
}

#[test]
fn hidden_symbols_cost_nothing_where_none_are_needed() {
    let mut facts = on("6.1.176-amd64");
    facts.symbols = Symbols { per_cpu_offset: Symbol::Hidden, stats_index: Symbol::Hidden };
    assert_eq!(plan(&facts).unwrap(), plan_on("6.1.176-amd64"));
}

#[test]
fn each_name_costs_what_hangs_on_it_and_nothing_else() {
    let cases: &[(&str, &[&str])] = &[
        ("start_boottime", &["task_struct.start_boottime"]),
        ("nsproxy", &["task_struct.nsproxy", "nsproxy.uts_ns"]),
        ("nodename", &["uts_namespace.name.nodename"]),
        ("upid", &["upid.nr", "upid"]),
        ("kernfs_node", &["kernfs_node.id", "kernfs_node.name"]),
        ("memory_cgrp_id", &["css_set.subsys"]),
        ("oom_group", &["mem_cgroup.oom_group"]),
        ("vmstats", &["mem_cgroup.vmstats"]),
        ("memcg_vmstats", &["mem_cgroup.vmstats"]),
        ("memory_peaks", &["mem_cgroup.vmstats"]),
        ("MEMCG_NR_STAT", &["MEMCG_NR_STAT"]),
        ("MEMCG_SWAP", &["MEMCG_SWAP"]),
        ("NR_SHMEM", &["NR_SHMEM"]),
        ("rss_stat", &["mm_struct.rss_stat"]),
        ("percpu_counter", &["mm_struct.rss_stat"]),
        ("MM_SHMEMPAGES", &["mm_struct.rss_stat"]),
        ("totalpages", &["oom_control.totalpages"]),
        ("pt_regs", &["pt_regs"]),
        ("btf_trace_signal_generate", &[]),
        ("out_of_memory", &[]),
        ("mem_cgroup", &["mem_cgroup"]),
    ];
    for (name, lost) in cases {
        assert_eq!(missing(&plan_without(RICHEST, name)), *lost, "{name}");
    }
}

#[test]
fn lost_resident_set_leaves_no_half_of_it() {
    for name in ["rss_stat", "percpu_counter", "MM_SHMEMPAGES"] {
        let Layout { rss_mode, mm_rss_value, rss_stride, mm_rss_percpu, per_cpu_offset_table, .. } =
            plan_without(RICHEST, name).layout;
        assert_eq!((rss_mode, mm_rss_value, rss_stride, mm_rss_percpu), (0, ABSENT, ABSENT, ABSENT), "{name}");
        assert_eq!(per_cpu_offset_table, 0, "{name}");
    }
}

#[test]
fn lost_signal_costs_the_task_only_where_the_mark_has_none() {
    let signal = "btf_trace_signal_generate";
    let plan = plan_without("5.10.223-amd64", signal);
    assert!(methods(&plan, Hook::SignalGenerate).is_empty());
    assert_eq!(missing(&plan), ["NR_PAGETABLE", "oom:mark_victim task"]);
    assert_eq!(missing(&plan_without("5.10.262-amd64", signal)), ["NR_PAGETABLE"]);
}

#[test]
fn what_cannot_run_names_what_is_missing_and_the_remedy() {
    let error = |change: fn(&mut Facts)| {
        let mut facts = on(RICHEST);
        change(&mut facts);
        plan(&facts).unwrap_err()
    };
    let none = error(|facts| facts.capabilities = Ok(Capabilities::default()));
    assert!(
        matches!(&none, PlanError::MissingCapabilities { missing } if *missing == ["CAP_BPF", "CAP_PERFMON"]),
        "{none}"
    );
    assert!(none.to_string().starts_with("missing capabilities: CAP_BPF, CAP_PERFMON; run as root"), "{none}");
    let half = error(|facts| facts.capabilities = Ok(Capabilities { bpf: true, ..Capabilities::default() }));
    assert!(matches!(&half, PlanError::MissingCapabilities { missing } if *missing == ["CAP_PERFMON"]), "{half}");
    let lockdown = error(|facts| facts.lockdown = Ok(Lockdown::Confidentiality));
    assert!(matches!(lockdown, PlanError::Lockdown), "{lockdown}");
    let path = || PathBuf::from("/sys/kernel/btf/vmlinux");
    let no_btf = error(|facts| facts.btf = Err(BtfUnavailable::Absent { path: "/sys/kernel/btf/vmlinux".into() }));
    assert!(no_btf.to_string().contains("CONFIG_DEBUG_INFO_BTF=y"), "{no_btf}");
    for source in [
        BtfUnavailable::Read { path: path(), source: Arc::new(std::io::ErrorKind::PermissionDenied.into()) },
        BtfUnavailable::Parse { path: path(), source: BtfError::UnknownKind { kind: 20, type_id: 7 } },
    ] {
        let facts = Facts { btf: Err(source), ..on(RICHEST) };
        assert!(matches!(plan(&facts), Err(PlanError::NoBtf { .. })));
    }
}

#[test]
fn administrator_needs_no_finer_capability() {
    let facts = Facts { capabilities: Ok(Capabilities { sys_admin: true, ..Capabilities::default() }), ..on(RICHEST) };
    assert_eq!(plan(&facts).unwrap(), plan_on(RICHEST));
}

#[test]
fn mark_in_an_unknown_form_is_never_guessed() {
    let gone = without(fixture(RICHEST), "btf_trace_mark_victim");
    assert!(matches!(plan(&capable(gone, "x86_64")), Err(PlanError::NoMarkVictim { .. })));
    let renamed = without(fixture(RICHEST), "task_struct");
    assert!(matches!(plan(&capable(renamed, "x86_64")), Err(PlanError::UnknownMarkVictim { .. })));
    let forms: [fn(&mut Builder) -> Vec<u32>; 3] =
        [|_| vec![], |b| vec![b.int("long", 8)], |b| vec![b.structure("task_struct", 8, &[])]];
    for form in forms {
        let mut b = Builder::new();
        let args = form(&mut b);
        b.tracepoint("mark_victim", &args);
        assert!(matches!(plan(&capable(b.finish(), "x86_64")), Err(PlanError::UnknownMarkVictim { .. })));
    }
}

#[test]
fn swap_counter_is_named_by_the_hierarchy() {
    let counter = |cgroup| plan(&Facts { memory_cgroup: cgroup, ..on(RICHEST) }).unwrap().swap_counter;
    assert_eq!(counter(Ok(MemoryCgroup::V1("/x".into()))), Some(SwapCounter::MemoryAndSwap));
    assert_eq!(counter(Ok(MemoryCgroup::V2("/x".into()))), Some(SwapCounter::Swap));
    assert_eq!(counter(Ok(MemoryCgroup::None)), None);
    assert_eq!(counter(unread()), None);
}

/// A kernel that has nothing but the mark, and what `add` gives it.
#[track_caller]
fn plan_with(add: impl FnOnce(&mut Builder)) -> Plan {
    let mut b = Builder::new();
    let task = b.forward("task_struct");
    let task = b.pointer(task);
    b.tracepoint("mark_victim", &[task]);
    add(&mut b);
    plan(&capable(b.finish(), "x86_64")).unwrap()
}

#[test]
fn mark_alone_is_enough_to_run() {
    let plan = plan_with(|_| {});
    let nothing =
        Layout { mark_victim_mode: MARK_VICTIM_TASK, rss_mode: 0, stats_mode: 0, possible_cpus: 0, ..Layout::UNKNOWN };
    assert_eq!(plan.layout, nothing);
    assert_eq!(methods(&plan, Hook::MarkVictim), [Method::RawTracepoint]);
    assert!(plan.missing.iter().all(|missing| !missing.reason.is_empty() && !missing.costs.is_empty()));
}

/// `struct mem_cgroup` with counters of `size` bytes in an array of `length`, put where `place` says, and 3 items.
fn add_stats(b: &mut Builder, size: u32, length: u32, css: u32, place: fn(&mut Builder, u32) -> u32) {
    b.enumeration("memcg_stat_item", &[("MEMCG_SWAP", 1), ("MEMCG_SOCK", 7), ("MEMCG_NR_STAT", 3)]);
    let counter = b.int("counter", size);
    let array = b.array(counter, length);
    let vmstats = place(b, array);
    let state = b.structure("cgroup_subsys_state", 8, &[]);
    b.structure("mem_cgroup", 1000, &[("css", state, css), ("vmstats", vmstats, 64)]);
}

fn inside(b: &mut Builder, array: u32) -> u32 {
    b.structure("memcg_vmstats", 500, &[("state", array, 24)])
}

fn behind(b: &mut Builder, array: u32) -> u32 {
    let to = inside(b, array);
    b.pointer(to)
}

#[test]
fn statistics_of_kernels_that_are_not_at_hand() {
    let stats = |layout: Layout| (layout.stats_mode, layout.memcg_vmstats, layout.vmstats_state);
    // 5.15 has the structure itself in mem_cgroup.
    let plan = plan_with(|b| add_stats(b, 8, 3, 0, inside));
    assert_eq!(stats(plan.layout), (STATS_INLINE, 64 + 24, 0));
    let plan = plan_with(|b| add_stats(b, 8, 3, 0, behind));
    assert_eq!(stats(plan.layout), (STATS_POINTER, 64, 24));
    assert_eq!(plan.layout.stat_items[9], 1);
    assert!(missing(&plan).contains(&"MEMCG_SOCK"), "an item beyond the last is no item: {:?}", plan.missing);
}

/// What a kernel has beside the mark.
type Add = fn(&mut Builder);

#[test]
fn statistics_in_doubt_are_absent() {
    let unknown = (0, ABSENT, ABSENT, [ABSENT; STAT_COUNT]);
    let cases: [(&str, Add); 6] = [
        ("longer than its items", |b| add_stats(b, 8, 4, 0, behind)),
        ("shorter, but not behind a pointer", |b| add_stats(b, 8, 2, 0, inside)),
        ("shorter, in a kernel that may count from 1", |b| add_stats(b, 8, 2, 0, behind)),
        ("no words", |b| add_stats(b, 4, 3, 0, behind)),
        ("a number", |b| add_stats(b, 8, 3, 0, |b, _| b.int("number", 8))),
        ("not behind the first member", |b| add_stats(b, 8, 3, 8, behind)),
    ];
    for (name, add) in cases {
        let Layout { stats_mode, memcg_vmstats, vmstats_state, stat_items, .. } = plan_with(add).layout;
        assert_eq!((stats_mode, memcg_vmstats, vmstats_state, stat_items), unknown, "{name}");
    }
}

#[test]
fn members_that_changed_their_form_are_absent() {
    let plan = plan_with(|b| {
        let int = b.int("int", 4);
        let long = b.int("long", 8);
        let pointer = b.pointer(0);
        b.structure(
            "task_struct",
            64,
            &[("pid", long, 0), ("tgid", int, 8), ("mm", long, 16), ("signal", pointer, 24)],
        );
        b.structure("oom_control", 64, &[("totalpages", pointer, 8)]);
    });
    let Layout { task_pid, task_tgid, task_mm, task_signal, oc_totalpages, .. } = plan.layout;
    assert_eq!((task_pid, task_tgid, task_mm, task_signal, oc_totalpages), (ABSENT, 8, ABSENT, 24, ABSENT));
    let reason = &plan.missing.iter().find(|missing| missing.field == "task_struct.pid").unwrap().reason;
    assert_eq!(reason, "task_struct.pid has another form in this kernel: Int { size: 8 }");
}
