//! No type information, however broken, makes the parser, the queries or the plan panic or run without end.
//!
//! The input is bytes after a zero, or else changes to one of the fixtures: which one, how much is cut off at its end, then for each
//! change a place, a length and bytes. A kernel's types are 20 KiB that refer to one another; bytes that come from nowhere would never
//! be like them, and an input of a few bytes is one that can be kept.
#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use oom_watcher::kernel::{
    btf::Btf,
    facts::{BtfUnavailable, Capabilities, Facts, Lockdown, MemoryCgroup, PossibleCpus, Symbol, Symbols},
    plan::plan,
};

/// Excerpts of kernels' own, each with everything that the plan asks for.
const FIXTURES: [&[u8]; 11] = [
    include_bytes!("../../oom-watcher/tests/fixtures/btf/5.10.223-amd64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/5.10.223-arm64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/5.10.262-amd64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/6.1.176-amd64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/6.1.176-arm64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/6.12.107-amd64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/6.12.107-arm64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/6.18.44-amd64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/7.2.13-amd64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/7.2.13-arm64.btf"),
    include_bytes!("../../oom-watcher/tests/fixtures/btf/7.3-rc7-amd64.btf"),
];

fuzz_target!(|data: &[u8]| {
    let btf = match Btf::parse(bytes_of(data)) {
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

/// The type information that an input stands for.
fn bytes_of(data: &[u8]) -> Vec<u8> {
    let Some((&which, data)) = data.split_first() else { return Vec::new() };
    let Some(fixture) = usize::from(which).checked_sub(1) else { return data.to_vec() };
    let mut bytes = FIXTURES[fixture % FIXTURES.len()].to_vec();
    let (cut, mut changes) = number(data);
    bytes.truncate(bytes.len().saturating_sub(usize::from(cut)));
    while let (place, [length, rest @ ..]) = number(changes) {
        let (new, after) = rest.split_at(usize::from(*length).min(rest.len()));
        for (old, new) in bytes.iter_mut().skip(usize::from(place)).zip(new) {
            *old = *new;
        }
        changes = after;
    }
    bytes
}

fn number(data: &[u8]) -> (u16, &[u8]) {
    data.split_first_chunk().map_or((0, &[]), |(bytes, data)| (u16::from_le_bytes(*bytes), data))
}

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
    }
}
