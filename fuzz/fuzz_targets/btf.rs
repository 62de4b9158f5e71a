//! No type information, however broken, makes the parser, the queries or the plan panic or run without end.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use oom_watcher::kernel::{
    btf::Btf,
    facts::{BtfUnavailable, Capabilities, Facts, Lockdown, MemoryCgroup, PossibleCpus, Symbol, Symbols},
    plan::plan,
};

fuzz_target!(|data: &[u8]| {
    let btf = match Btf::parse(data.to_vec()) {
        Ok(btf) => btf,
        Err(error) => {
            black_box(error.to_string());
            return;
        }
    };
    match plan(&facts(Ok(btf))) {
        Ok(plan) => drop(black_box(format!("{plan:?}"))),
        Err(error) => drop(black_box(error.to_string())),
    }
});

/// A machine with everything else: what is left out is left out because of the type information.
fn facts(btf: Result<Btf, BtfUnavailable>) -> Facts {
    Facts {
        kernel_release: Ok("1.2.3".to_owned()),
        machine: "x86_64".to_owned(),
        page_size: 4096,
        possible_cpus: Ok(PossibleCpus { count: 4, contiguous: true }),
        btf,
        symbols: Symbols { per_cpu_offset: Symbol::Address(0xffff_1000), stats_index: Symbol::Address(0xffff_2000) },
        kprobe_pmu: Ok(true),
        perf_event_paranoid: Ok(2),
        capabilities: Ok(Capabilities { bpf: true, perfmon: true, ..Capabilities::default() }),
        lockdown: Ok(Lockdown::None),
        memory_cgroup: Ok(MemoryCgroup::V2("/sys/fs/cgroup".into())),
        own_memory_limit: Ok(None),
        memlock_limit: None,
        swap_total: Ok(0),
    }
}
