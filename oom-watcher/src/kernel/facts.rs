//! What this machine has, read once at start. No judgement: what follows from a fact is the plan's business.
//!
//! "Could not read" is kept apart from "no": a fact that the sandbox hides is [`Unread`], never a guess.

mod cgroup;
mod symbols;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

pub use cgroup::MemoryCgroup;
pub use symbols::{Symbol, Symbols};

use super::btf::{Btf, BtfError};

/// The largest BTF that is read: kernels have 3 to 6 MB, some with everything built in three times that.
const BTF_BYTES_MAX: u64 = 64 << 20;
/// The longest file that is read whole beside BTF: `mountinfo` of a node with thousands of mounts has about 1 MB.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Why a fact is not known, in words for `oom-watcher check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread(pub String);

/// A fact, or why it is not known.
pub type Fact<T> = Result<T, Unread>;

/// Why there is no BTF to ask.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BtfUnavailable {
    /// The kernel does not offer it.
    #[error("{} does not exist", path.display())]
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: Arc<io::Error>,
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
}

/// Where the kernel shows itself. Tests put a tree of their own there.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `/proc`
    pub proc: PathBuf,
    /// `/sys`
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys") }
    }
}

impl Facts {
    /// Reads all facts. It never fails: what cannot be read is a fact too.
    pub fn probe(roots: &Roots) -> Self {
        let mountinfo = text(&roots.proc.join("self/mountinfo"));
        let memberships = text(&roots.proc.join("self/cgroup"));
        let memory_cgroup = cgroup::memory_cgroup(&mountinfo, &memberships);
        let (btf, symbols) = btf_and_symbols(roots);
        Self {
            kernel_release: text(&roots.proc.join("sys/kernel/osrelease")).map(|release| release.trim().to_owned()),
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            page_size: rustix::param::page_size(),
            possible_cpus: possible_cpus(&roots.sys.join("devices/system/cpu/possible")),
            btf,
            symbols,
            kprobe_pmu: kprobe_pmu(&roots.sys.join("bus/event_source/devices")),
            perf_event_paranoid: number(&roots.proc.join("sys/kernel/perf_event_paranoid")),
            capabilities: capabilities(),
            lockdown: lockdown(&roots.sys.join("kernel/security/lockdown")),
            own_memory_limit: cgroup::own_memory_limit(&mountinfo, &memberships),
            memory_cgroup,
        }
    }
}

/// The two that take long, at the same time: the kernel needs some 50 ms to write its symbols, we half of that for BTF. The
/// second thread is gone when this returns.
fn btf_and_symbols(roots: &Roots) -> (Result<Btf, BtfUnavailable>, Symbols) {
    thread::scope(|scope| {
        let symbols = scope.spawn(|| Symbols::read(&roots.proc.join("kallsyms")));
        let btf = btf(&roots.sys.join("kernel/btf/vmlinux"));
        (btf, symbols.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// A whole file of a size that the kernel keeps small.
fn text(path: &Path) -> Fact<String> {
    let unread = |error: io::Error| Unread(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text));
    match read.map_err(unread)? as u64 {
        ..=TEXT_BYTES_MAX => Ok(text),
        _ => Err(Unread(format!("{} has more than {TEXT_BYTES_MAX} bytes", path.display()))),
    }
}

/// A file that holds one number.
fn number<T: std::str::FromStr>(path: &Path) -> Fact<T> {
    let text = text(path)?;
    text.trim().parse().map_err(|_| not_understood(path, &text))
}

fn not_understood(path: &Path, text: &str) -> Unread {
    Unread(format!("cannot understand {}: {:?}", path.display(), text.trim()))
}

fn btf(path: &Path) -> Result<Btf, BtfUnavailable> {
    let path_buf = || path.to_owned();
    let read = |error: io::Error| BtfUnavailable::Read { path: path_buf(), source: Arc::new(error) };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BtfUnavailable::Absent { path: path_buf() });
        }
        other => other.map_err(read)?,
    };
    // The size is known beforehand, and a buffer that grows would double the peak.
    let size = file.metadata().map_err(read)?.len().min(BTF_BYTES_MAX);
    let mut data = Vec::with_capacity(size as usize + 1);
    file.take(BTF_BYTES_MAX).read_to_end(&mut data).map_err(read)?;
    Btf::parse(data).map_err(|source| BtfUnavailable::Parse { path: path_buf(), source })
}

/// Ranges such as `0-3` or `0,2-3`.
fn possible_cpus(path: &Path) -> Fact<PossibleCpus> {
    let text = text(path)?;
    let parse = |range: &str| -> Option<(u32, u32)> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?)).filter(|(first, last)| first <= last)
    };
    let ranges: Option<Vec<_>> = text.trim().split(',').map(parse).collect();
    let ranges = ranges.ok_or_else(|| not_understood(path, &text))?;
    let count =
        ranges.iter().fold(0_u32, |count, (first, last)| count.saturating_add((last - first).saturating_add(1)));
    let highest = ranges.iter().map(|&(_, last)| last).max().unwrap_or(0);
    Ok(PossibleCpus { count, contiguous: count.checked_sub(1) == Some(highest) })
}

/// Whether perf has the source of kprobes. The folder above tells "no" from a `/sys` that is not there.
fn kprobe_pmu(devices: &Path) -> Fact<bool> {
    let exists =
        |path: &Path| path.try_exists().map_err(|error| Unread(format!("cannot read {}: {error}", path.display())));
    if !exists(devices)? {
        return Err(Unread(format!("{} does not exist", devices.display())));
    }
    exists(&devices.join("kprobe/type"))
}

fn capabilities() -> Fact<Capabilities> {
    let effective = caps::read(None, caps::CapSet::Effective);
    let effective = effective.map_err(|error| Unread(format!("cannot read the effective capabilities: {error}")))?;
    let has = |capability| effective.contains(&capability);
    Ok(Capabilities {
        bpf: has(caps::Capability::CAP_BPF),
        perfmon: has(caps::Capability::CAP_PERFMON),
        sys_admin: has(caps::Capability::CAP_SYS_ADMIN),
        sys_resource: has(caps::Capability::CAP_SYS_RESOURCE),
        syslog: has(caps::Capability::CAP_SYSLOG),
    })
}

/// The mode stands in brackets. The file is absent where securityfs is not mounted, which says nothing about the mode.
fn lockdown(path: &Path) -> Fact<Lockdown> {
    let text = text(path)?;
    let mode = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(mode, _)| mode);
    match mode {
        Some("none") => Ok(Lockdown::None),
        Some("integrity") => Ok(Lockdown::Integrity),
        Some("confidentiality") => Ok(Lockdown::Confidentiality),
        _ => Err(not_understood(path, &text)),
    }
}
