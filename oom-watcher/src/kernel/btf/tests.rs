use super::*;

fn kernel() -> Btf {
    Btf::parse(std::fs::read("/sys/kernel/btf/vmlinux").unwrap()).unwrap()
}

#[test]
fn scratch() {
    let t = std::time::Instant::now();
    let b = kernel();
    eprintln!("{b:?} {:?}", t.elapsed());
    for p in [
        "task_struct.pid",
        "mem_cgroup.memory.usage",
        "uts_namespace.name.nodename",
        "pid.numbers",
        "mem_cgroup.swap.max",
        "mm_struct.rss_stat",
        "mm_struct.rss_stat.count",
        "oom_control.constraint",
        "foo.bar",
        "task_struct",
        "kernfs_node.parent",
    ] {
        eprintln!("{p} {:?}", b.member(p));
    }
    for t in ["mark_victim", "signal_generate", "nope"] {
        eprintln!("{t} {:?}", b.raw_tracepoint_args(t));
    }
    for t in ["out_of_memory", "memory_max_write", "nope"] {
        eprintln!("{t} {:?}", b.function(t));
    }
    eprintln!(
        "{:?} {:?} {:?}",
        b.enumerator(Some("node_stat_item"), "NR_SHMEM"),
        b.enumerator(None, "MM_SHMEMPAGES"),
        b.enumerator(Some("memcg_stat_item"), "MEMCG_NR_STAT")
    );
    eprintln!("{:?}", t.elapsed());
}
