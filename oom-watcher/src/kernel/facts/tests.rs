//! Facts read from trees that the tests write.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::kernel::btf::builder::fixture;

/// A `/proc` and a `/sys` of the test's own, removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("oom-watcher-facts-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn probe(&self) -> Facts {
        Facts::probe(&Roots { proc: self.path("proc"), sys: self.path("sys") })
    }

    /// A mount table with one cgroup mount inside this tree.
    fn mount(&self, root: &str, point: &str, file_system: &str) -> &Self {
        let point = self.path(point).display().to_string().replace(' ', "\\040");
        self.write(
            "proc/self/mountinfo",
            format!(
                "21 1 0:20 / /proc rw - proc proc rw\n30 21 0:29 {root} {point} rw shared:9 master:1 - {file_system}\n"
            ),
        )
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn assert_unread<T: std::fmt::Debug>(fact: &Fact<T>, reason: &str) {
    let Err(Unread(text)) = fact else { panic!("{fact:?} is known") };
    assert!(text.contains(reason), "{text:?} does not say {reason:?}");
}

#[test]
fn empty_tree_gives_reasons_and_no_guesses() {
    let facts = Tree::new().probe();
    assert_unread(&facts.kernel_release, "osrelease");
    assert_unread(&facts.possible_cpus, "devices/system/cpu/possible");
    assert_unread(&facts.kprobe_pmu, "bus/event_source/devices does not exist");
    assert_unread(&facts.perf_event_paranoid, "perf_event_paranoid");
    assert_unread(&facts.lockdown, "lockdown");
    assert_unread(&facts.memory_cgroup, "mountinfo");
    assert_unread(&facts.own_memory_limit, "self/cgroup");
    assert!(matches!(&facts.btf, Err(BtfUnavailable::Absent { path }) if path.ends_with("kernel/btf/vmlinux")));
    assert!(matches!(facts.symbols.per_cpu_offset, Symbol::Unread(_)));
    assert!(matches!(facts.symbols.stats_index, Symbol::Unread(_)));
}

#[test]
fn every_file_is_read_from_its_place() {
    let tree = Tree::new();
    tree.write("proc/sys/kernel/osrelease", "6.1.0-50-cloud-amd64\n")
        .write("sys/devices/system/cpu/possible", "0-3\n")
        .write("sys/kernel/btf/vmlinux", fixture("6.1.176-amd64"))
        .write("sys/bus/event_source/devices/kprobe/type", "8\n")
        .write("proc/sys/kernel/perf_event_paranoid", "-1\n")
        .write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    let facts = tree.probe();
    assert_eq!(facts.kernel_release, Ok("6.1.0-50-cloud-amd64".to_owned()));
    assert_eq!(facts.possible_cpus, Ok(PossibleCpus { count: 4, contiguous: true }));
    assert!(facts.btf.unwrap().member("task_struct.pid").is_ok());
    assert_eq!(facts.kprobe_pmu, Ok(true));
    assert_eq!(facts.perf_event_paranoid, Ok(-1));
    assert_eq!(facts.lockdown, Ok(Lockdown::Integrity));
}

#[test]
fn this_machine_gives_facts() {
    let facts = Facts::probe(&Roots::default());
    let cpus = facts.possible_cpus.unwrap().count as usize;
    assert!(cpus >= thread::available_parallelism().unwrap().get(), "{cpus} CPUs");
    assert!(facts.page_size.is_power_of_two());
    assert_eq!(facts.machine, std::env::consts::ARCH);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let effective = u64::from_str_radix(effective.trim(), 16).unwrap();
    let has = |number: u32| effective & 1 << number != 0;
    let expected =
        Capabilities { bpf: has(39), perfmon: has(38), sys_admin: has(21), sys_resource: has(24), syslog: has(34) };
    assert_eq!(facts.capabilities, Ok(expected));
}

#[test]
fn damaged_btf_is_told_from_absent_btf() {
    let tree = Tree::new();
    tree.write("sys/kernel/btf/vmlinux", &fixture("6.1.176-amd64")[..1000]);
    let Err(error @ BtfUnavailable::Parse { .. }) = tree.probe().btf else { panic!("half a BTF was read") };
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "BTF's section of types is damaged or truncated");
    fs::remove_file(tree.path("sys/kernel/btf/vmlinux")).unwrap();
    fs::create_dir(tree.path("sys/kernel/btf/vmlinux")).unwrap();
    assert!(matches!(tree.probe().btf, Err(BtfUnavailable::Read { .. })), "a folder is no BTF");
}

#[test]
fn possible_cpus_are_ranges() {
    let tree = Tree::new();
    let read = |text: &str| {
        tree.write("cpus", text);
        possible_cpus(&tree.path("cpus"))
    };
    let cpus = |count, contiguous| Ok(PossibleCpus { count, contiguous });
    assert_eq!(read("0\n"), cpus(1, true));
    assert_eq!(read("0-127\n"), cpus(128, true));
    assert_eq!(read("0-1,2-3\n"), cpus(4, true));
    assert_eq!(read("0,2-3\n"), cpus(3, false));
    assert_eq!(read("1-3\n"), cpus(3, false));
    assert_eq!(read("0-4294967295\n"), cpus(u32::MAX, false), "more than fit are not wrapped");
    for text in ["", "\n", "0-", "a", "3-1", "0,,1", "-1"] {
        assert_unread(&read(text), "cannot understand");
    }
}

#[test]
fn lockdown_is_what_stands_in_brackets() {
    let tree = Tree::new();
    let read = |text: &str| {
        tree.write("lockdown", text);
        lockdown(&tree.path("lockdown"))
    };
    assert_eq!(read("[none] integrity confidentiality\n"), Ok(Lockdown::None));
    assert_eq!(read("none integrity [confidentiality]\n"), Ok(Lockdown::Confidentiality));
    for text in ["", "none integrity confidentiality\n", "none [new] integrity\n", "]["] {
        assert_unread(&read(text), "cannot understand");
    }
}

#[test]
fn kprobes_are_absent_only_where_their_neighbours_are_seen() {
    let tree = Tree::new();
    tree.write("sys/bus/event_source/devices/cpu/type", "4\n");
    assert_eq!(tree.probe().kprobe_pmu, Ok(false));
}

mod symbols {
    use super::*;

    #[track_caller]
    fn read(table: &[u8]) -> (Symbol, Symbol) {
        let tree = Tree::new();
        tree.write("proc/kallsyms", table);
        let Symbols { per_cpu_offset, stats_index } = Symbols::read(&tree.path("proc/kallsyms"));
        (per_cpu_offset, stats_index)
    }

    #[test]
    fn addresses_are_found_whatever_the_type_letter() {
        let table = b"ffffffff82a00000 T __per_cpu_offset_not\nffffffff82a00010 D __per_cpu_offset\n\
            ffffffff82a00020 t mem_cgroup_stats_index\nffffffffc0000000 d __per_cpu_offset\t[module]\n";
        assert_eq!(read(table), (Symbol::Address(0xffff_ffff_82a0_0010), Symbol::Address(0xffff_ffff_82a0_0020)));
    }

    #[test]
    fn hidden_is_told_from_absent() {
        let table = b"0000000000000000 D __per_cpu_offset\n0000000000000000 T other\n";
        assert_eq!(read(table), (Symbol::Hidden, Symbol::Absent));
        assert_eq!(read(b""), (Symbol::Absent, Symbol::Absent));
    }

    #[test]
    fn where_all_addresses_are_hidden_the_rest_is_not_read() {
        let hidden = b"0000000000000000 A fixed_percpu_data\n0000000000000000 T _stext\n(null) D __per_cpu_offset\n";
        assert_eq!(read(hidden), (Symbol::Hidden, Symbol::Hidden));
        let shown = b"0000000000000000 A fixed_percpu_data\nffffffff81000000 T _stext\n\
            ffffffff82a00010 D __per_cpu_offset\n";
        assert_eq!(read(shown), (Symbol::Address(0xffff_ffff_82a0_0010), Symbol::Absent));
    }

    #[test]
    fn symbols_of_modules_are_not_the_kernels() {
        let table = b"ffffffffc0000000 d mem_cgroup_stats_index\t[module]\nffffffffc0000000 d x__per_cpu_offset\n";
        assert_eq!(read(table), (Symbol::Absent, Symbol::Absent));
    }

    #[test]
    fn what_is_no_address_is_said() {
        let (per_cpu_offset, _) = read(b"(null) D __per_cpu_offset\n\xff\xfe D mem_cgroup_stats_index");
        assert!(matches!(per_cpu_offset, Symbol::Unread(_)), "{per_cpu_offset:?}");
    }

    #[test]
    fn line_at_the_end_of_a_buffer_is_whole() {
        let mut table = b"ffffffff81000000 T function_of_some_length\n".repeat(100_000);
        table.extend(b"ffffffff82a00010 D __per_cpu_offset\n");
        assert_eq!(read(&table), (Symbol::Address(0xffff_ffff_82a0_0010), Symbol::Absent));
    }
}

mod cgroup {
    use super::*;

    #[test]
    fn v1_is_the_hierarchy_with_the_controller() {
        let tree = Tree::new();
        tree.mount("/", "cg/cpu,memory", "cgroup cgroup rw,cpu,memory")
            .write("proc/self/cgroup", "9:name=systemd:/x\n4:cpu,memory:/a/b\n0::/\n")
            .write("cg/cpu,memory/memory.limit_in_bytes", "9223372036854771712\n")
            .write("cg/cpu,memory/a/memory.limit_in_bytes", "1048576\n")
            .write("cg/cpu,memory/a/b/memory.limit_in_bytes", "9223372036854710272\n");
        let facts = tree.probe();
        assert_eq!(facts.memory_cgroup, Ok(MemoryCgroup::V1(tree.path("cg/cpu,memory"))));
        assert_eq!(
            facts.own_memory_limit,
            Ok(Some(1 << 20)),
            "the smallest on the way up; unlimited is written in two ways"
        );
    }

    #[test]
    fn v2_counts_only_with_the_controller() {
        let tree = Tree::new();
        tree.mount("/", "cg two", "cgroup2 cgroup2 rw,nsdelegate").write("proc/self/cgroup", "0::/\n");
        assert_unread(&tree.probe().memory_cgroup, "cgroup.controllers");
        tree.write("cg two/cgroup.controllers", "cpuset cpu io pids\n");
        assert_eq!(tree.probe().memory_cgroup, Ok(MemoryCgroup::None));
        tree.write("cg two/cgroup.controllers", "cpuset cpu io memory pids\n");
        assert_eq!(tree.probe().memory_cgroup, Ok(MemoryCgroup::V2(tree.path("cg two"))));
    }

    #[test]
    fn v2_limit_is_the_smallest_on_the_way_up() {
        let tree = Tree::new();
        tree.mount("/", "cg", "cgroup2 cgroup2 rw")
            .write("proc/self/cgroup", "0::/kubepods/pod1/leaf\n")
            .write("cg/cgroup.controllers", "memory\n")
            .write("cg/kubepods/memory.max", "max\n")
            .write("cg/kubepods/pod1/memory.max", "33554432\n")
            .write("cg/kubepods/pod1/leaf/memory.max", "67108864\n");
        assert_eq!(tree.probe().own_memory_limit, Ok(Some(32 << 20)));
        tree.write("cg/kubepods/pod1/memory.max", "max\n").write("cg/kubepods/pod1/leaf/memory.max", "max\n");
        assert_eq!(tree.probe().own_memory_limit, Ok(None));
        fs::remove_file(tree.path("cg/kubepods/pod1/leaf/memory.max")).unwrap();
        assert_eq!(tree.probe().own_memory_limit, Ok(None), "the controller need not reach down to the leaf");
        tree.write("proc/self/cgroup", "0::/kubepods/pod1/gone\n");
        assert_unread(&tree.probe().own_memory_limit, "gone");
        tree.write("cg/kubepods/pod1/memory.max", "plenty\n").write("proc/self/cgroup", "0::/kubepods/pod1/leaf\n");
        assert_unread(&tree.probe().own_memory_limit, "plenty");
    }

    #[test]
    fn limit_of_a_container_is_at_the_mount_itself() {
        let tree = Tree::new();
        tree.mount("/", "cg", "cgroup2 cgroup rw")
            .write("proc/self/cgroup", "0::/\n")
            .write("cg/memory.max", "16777216\n");
        assert_eq!(tree.probe().own_memory_limit, Ok(Some(16 << 20)));
        tree.mount("/docker/abc", "cg", "cgroup2 cgroup rw").write("proc/self/cgroup", "0::/docker/abc\n");
        assert_eq!(tree.probe().own_memory_limit, Ok(Some(16 << 20)), "a part of the hierarchy is mounted");
    }

    #[test]
    fn limit_that_is_out_of_sight_is_not_none() {
        let tree = Tree::new();
        tree.mount("/docker/abc", "cg", "cgroup2 cgroup rw").write("cg/memory.max", "max\n");
        for path in ["/docker/abcd", "/docker", "/../other", "/"] {
            tree.write("proc/self/cgroup", format!("0::{path}\n"));
            assert_unread(&tree.probe().own_memory_limit, "outside");
        }
        tree.write("proc/self/cgroup", "4:memory:/x\n0::/\n");
        assert_unread(&tree.probe().own_memory_limit, "not mounted here");
        assert_unread(&tree.probe().memory_cgroup, "not mounted here");
    }

    #[test]
    fn no_hierarchy_is_no_limit() {
        let tree = Tree::new();
        tree.write("proc/self/mountinfo", "21 1 0:20 / /proc rw - proc proc rw\n").write("proc/self/cgroup", "");
        let facts = tree.probe();
        assert_eq!(facts.memory_cgroup, Ok(MemoryCgroup::None));
        assert_eq!(facts.own_memory_limit, Ok(None));
    }

    #[test]
    fn damaged_mount_table_is_no_mount() {
        let tree = Tree::new();
        for line in ["", "x", " - cgroup2 cgroup2 rw", "1 2 3 / - cgroup2 cgroup2 rw", "1 2 3 - cgroup"] {
            tree.write("proc/self/mountinfo", line).write("proc/self/cgroup", "0::/\n");
            assert_eq!(tree.probe().memory_cgroup, Ok(MemoryCgroup::None), "{line:?}");
        }
    }
}
