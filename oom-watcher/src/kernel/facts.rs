//! What this machine has, read once at start. No judgement: what follows from a fact is the plan's business.
//!
//! "Could not read" is kept apart from "no": a fact that the sandbox hides is [`Unread`], never a guess.

use std::path::PathBuf;

use super::btf::{Btf, BtfError};

/// Why a fact is not known, in words for `oom-watcher check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread(pub String);

/// A fact, or why it is not known.
pub type Fact<T> = Result<T, Unread>;

/// Why there is no BTF to ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfUnavailable {
    /// The kernel does not offer it.
    #[error("{} does not exist", path.display())]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
    /// It was read and cannot be understood.
    #[error("cannot use {}", path.display())]
    Parse {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BtfError,
    },
}

/// What the symbol table says about one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// Its address.
    Address(u64),
    /// It is there, but addresses are shown as zero (`kptr_restrict`).
    Hidden,
    /// The kernel has no such symbol.
    Absent,
    /// The table could not be read.
    Unread(Unread),
}

/// The symbols that the plan asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// `__per_cpu_offset`: a CPU's distance to the first copy of per-CPU data.
    pub per_cpu_offset: Symbol,
    /// `mem_cgroup_stats_index`: from an enumerator to its place among a memory cgroup's statistics.
    pub stats_index: Symbol,
}

/// Effective capabilities that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `CAP_BPF`
    pub bpf: bool,
    /// `CAP_PERFMON`
    pub perfmon: bool,
    /// `CAP_SYS_ADMIN`
    pub sys_admin: bool,
    /// `CAP_SYS_RESOURCE`
    pub sys_resource: bool,
    /// `CAP_SYSLOG`
    pub syslog: bool,
}

/// The mode of the lockdown security module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Off.
    None,
    /// The running kernel cannot be changed; reading it is allowed.
    Integrity,
    /// Kernel memory cannot be read either.
    Confidentiality,
}

/// Which hierarchy the memory controller is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryCgroup {
    /// cgroup v1, mounted here.
    V1(PathBuf),
    /// cgroup v2, mounted here.
    V2(PathBuf),
    /// In none that is mounted here.
    None,
}

/// The possible CPUs, from `/sys/devices/system/cpu/possible`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PossibleCpus {
    /// How many there are.
    pub count: u32,
    /// Their numbers are 0 to `count - 1`, without a hole.
    pub contiguous: bool,
}

/// What this machine has.
#[derive(Debug)]
pub struct Facts {
    /// `uname -r`; for people, never compared.
    pub kernel_release: Fact<String>,
    /// `uname -m`
    pub machine: String,
    /// Bytes of a page.
    pub page_size: usize,
    /// CPUs that could ever be online.
    pub possible_cpus: Fact<PossibleCpus>,
    /// The kernel's type information.
    pub btf: Result<Btf, BtfUnavailable>,
    /// Addresses.
    pub symbols: Symbols,
    /// The kernel offers kprobes through perf.
    pub kprobe_pmu: Fact<bool>,
    /// `kernel.perf_event_paranoid`
    pub perf_event_paranoid: Fact<i32>,
    /// Effective capabilities of this process.
    pub capabilities: Fact<Capabilities>,
    /// Lockdown.
    pub lockdown: Fact<Lockdown>,
    /// Where the memory controller is.
    pub memory_cgroup: Fact<MemoryCgroup>,
    /// The smallest memory limit that this process is under, in bytes; `None` for no limit.
    pub own_memory_limit: Fact<Option<u64>>,
    /// `RLIMIT_MEMLOCK`, in bytes; `None` for no limit.
    pub memlock_limit: Option<u64>,
    /// Bytes of swap, 0 for none.
    pub swap_total: Fact<u64>,
}
