use super::*;
use crate::kernel::facts::*;

#[test]
fn scratch() {
    let btf = Btf::parse(std::fs::read("/sys/kernel/btf/vmlinux").unwrap()).unwrap();
    let facts = Facts {
        kernel_release: Ok("x".into()),
        machine: "x86_64".into(),
        page_size: 4096,
        possible_cpus: Ok(PossibleCpus { count: 2, contiguous: true }),
        btf: Ok(btf),
        symbols: Symbols { per_cpu_offset: Symbol::Address(1), stats_index: Symbol::Address(2) },
        kprobe_pmu: Ok(false),
        perf_event_paranoid: Ok(2),
        capabilities: Ok(Capabilities { bpf: true, perfmon: true, ..Default::default() }),
        lockdown: Ok(Lockdown::None),
        memory_cgroup: Ok(MemoryCgroup::V1("/".into())),
        own_memory_limit: Ok(None),
        memlock_limit: None,
        swap_total: Ok(0),
    };
    let t = std::time::Instant::now();
    let p = plan(&facts).unwrap();
    eprintln!("{p:#?} {:?}", t.elapsed());
}
