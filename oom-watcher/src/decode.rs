//! Bytes of the ring buffer → what they say, in the agent's own terms.
//!
//! Pure and without `unsafe`: the offsets come from the shared types, the lengths are checked, and a field that the kernel
//! did not give is `None`. A record that cannot be understood is an error for the caller to count; it stops nothing.

use jiff::{SignedDuration, Timestamp};
use oom_watcher_common::{
    ABI_VERSION,
    record::{
        FLAG_CGROUP_TRUNCATED, FLAG_CHOSEN, FLAG_KILL_CONFIRMED, FLAG_LIMIT_WRITE, FLAG_MEMCG_OOM, FLAG_MM_SHARED,
        FLAG_SHARED_MM, FLAG_TRIGGER_SAME_CGROUP, Header, IncidentEnd as IncidentEndRecord, KIND_INCIDENT_END,
        KIND_LARGE_KILL, KIND_SMALL_KILL, Kill, KillRecord, LARGE_LEVELS, LARGE_NAMES, LEVEL_OOM_GROUP, Level,
        NO_LEVEL, NameLevel, SMALL_LEVELS, SMALL_NAMES, stat, valid,
    },
};

use crate::report::{self, Cgroup, Constraint, MemoryBreakdown, Trigger, Victim};

mod record;

pub use record::{IncidentEnd, MemcgFigures, OomControl, OomKill, Record, Swap};

/// Why a record could not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the record's own head.
    #[error("a record of {0} bytes is shorter than its head")]
    Short(usize),
    /// Another version of the kernel program wrote it (a pinned ring buffer outlived an upgrade).
    #[error("a record of ABI version {found}; this agent reads version {ABI_VERSION}")]
    Version {
        /// The version in the record.
        found: u16,
    },
    /// No such kind of record.
    #[error("a record of unknown kind {0}")]
    Kind(u16),
    /// The record's length is not that of its kind.
    #[error("a record of kind {kind} has {found} bytes instead of {expected}")]
    Size {
        /// The kind.
        kind: u16,
        /// Its length.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// The record counts more levels than it can hold, or a name lies outside it.
    #[error("a record of kind {0} has a cgroup level outside itself")]
    Level(u16),
}

/// What decoding needs to know of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Bytes of a page.
    pub page_size: u64,
    /// CPUs that the kernel keeps per-CPU counters for.
    pub possible_cpus: u32,
    /// Swap counters of the memory cgroups count swap alone (cgroup v2), not memory and swap together (v1).
    pub swap_is_separate: bool,
    /// Wall clock minus the clock since boot: taken anew for each batch, so a clock that is set does no lasting harm.
    pub boot_to_wall: SignedDuration,
}

/// Reads one plain integer of a shared struct.
macro_rules! field {
    ($bytes:expr, $base:expr, $struct:ty, $field:ident, $int:ty) => {{
        const OFFSET: usize = std::mem::offset_of!($struct, $field);
        let start = $base + OFFSET;
        let bytes: [u8; size_of::<$int>()] = std::array::from_fn(|i| $bytes.get(start + i).copied().unwrap_or(0));
        <$int>::from_ne_bytes(bytes)
    }};
}

/// Reads one integer of the kill.
macro_rules! kill {
    ($bytes:expr, $field:ident, $int:ty) => {
        field!($bytes, size_of::<Header>(), Kill, $field, $int)
    };
}

/// Where the variable parts of a kill are.
struct Shape {
    kind: u16,
    levels_max: usize,
    levels: usize,
    trigger_levels: usize,
    names: usize,
    names_len: usize,
}

impl Shape {
    const fn of<const LEVELS: usize, const NAMES: usize>(kind: u16) -> Self {
        Self {
            kind,
            levels_max: LEVELS,
            levels: std::mem::offset_of!(KillRecord<LEVELS, NAMES>, levels),
            trigger_levels: std::mem::offset_of!(KillRecord<LEVELS, NAMES>, trigger_levels),
            names: std::mem::offset_of!(KillRecord<LEVELS, NAMES>, names),
            names_len: NAMES,
        }
    }
}

/// Whether a record that could not be decoded may have been a kill. Version and kind are the first two fields of every record
/// of every version, and the end of an incident has had one kind.
pub fn may_be_kill(bytes: &[u8]) -> bool {
    bytes.len() < size_of::<Header>() || field!(bytes, 0, Header, kind, u16) != KIND_INCIDENT_END
}

impl Decoder {
    /// Decodes one record.
    pub fn decode(&self, bytes: &[u8]) -> Result<Record, DecodeError> {
        if bytes.len() < size_of::<Header>() {
            return Err(DecodeError::Short(bytes.len()));
        }
        let found = field!(bytes, 0, Header, abi_version, u16);
        if found != ABI_VERSION {
            return Err(DecodeError::Version { found });
        }
        let kind = field!(bytes, 0, Header, kind, u16);
        let (expected, shape) = match kind {
            KIND_SMALL_KILL => {
                (size_of::<KillRecord<SMALL_LEVELS, SMALL_NAMES>>(), Some(Shape::of::<SMALL_LEVELS, SMALL_NAMES>(kind)))
            }
            KIND_LARGE_KILL => {
                (size_of::<KillRecord<LARGE_LEVELS, LARGE_NAMES>>(), Some(Shape::of::<LARGE_LEVELS, LARGE_NAMES>(kind)))
            }
            KIND_INCIDENT_END => (size_of::<IncidentEndRecord>(), None),
            other => return Err(DecodeError::Kind(other)),
        };
        if bytes.len() != expected || field!(bytes, 0, Header, size, u32) as usize != expected {
            return Err(DecodeError::Size { kind, expected, found: bytes.len() });
        }
        match shape {
            Some(shape) => Ok(Record::Kill(Box::new(self.kill(bytes, &shape)?))),
            None => Ok(Record::IncidentEnd(incident_end(bytes))),
        }
    }

    fn kill(&self, bytes: &[u8], shape: &Shape) -> Result<OomKill, DecodeError> {
        let time_ns = field!(bytes, 0, Header, time_ns, u64);
        let incident_ns = field!(bytes, 0, Header, incident_ns, u64);
        let given = kill!(bytes, valid, u64);
        let flags = kill!(bytes, flags, u32);
        let cgroup = if given & valid::CGROUP == 0 { None } else { Some(self.cgroup(bytes, shape, given, flags)?) };
        // The kernel counts levels from the leaf, the report from the root.
        let level = |index: u32| {
            let count = cgroup.as_ref()?.levels.len();
            if index == NO_LEVEL { None } else { count.checked_sub(1 + index as usize) }
        };
        let oom_level = level(kill!(bytes, oom_level, u32));
        let memcg = level(kill!(bytes, stats_level, u32)).map(|level| self.memcg(bytes, given, level));
        let start_boottime_ns = (given & valid::START_TIME != 0).then(|| kill!(bytes, start_boottime_ns, u64));
        Ok(OomKill {
            time: self.wall(time_ns),
            time_ns,
            incident_ns: (incident_ns != 0).then_some(incident_ns),
            victim: self.victim(bytes, given, flags),
            start_boottime_ns,
            trigger: trigger(bytes, shape, given, flags, cgroup.as_ref())?,
            control: (given & valid::OOM_CONTROL != 0).then(|| self.control(bytes, flags)),
            oom_level,
            entry_usage_bytes: (given & valid::ENTRY_USAGE != 0)
                .then(|| self.pages(kill!(bytes, entry_usage_pages, u64))),
            limit_write: (given & valid::LIMIT_WRITE != 0).then_some(flags & FLAG_LIMIT_WRITE != 0),
            chosen: flags & FLAG_CHOSEN != 0,
            mm_shared: flags & FLAG_MM_SHARED != 0,
            memcg,
            cgroup,
        })
    }

    fn victim(&self, bytes: &[u8], given: u64, flags: u32) -> Victim {
        let has = |bit: u64| given & bit != 0;
        let rss = |pages: i64| has(valid::RSS).then(|| self.pages_signed(pages));
        Victim {
            pid: kill!(bytes, pid, u32),
            tgid: has(valid::TGID).then(|| kill!(bytes, tgid, u32)),
            namespace_pid: has(valid::NAMESPACE_PID).then(|| kill!(bytes, namespace_pid, u32)),
            comm: has(valid::COMM).then(|| text(array(bytes, std::mem::offset_of!(Kill, comm), 16))),
            uid: has(valid::UID).then(|| kill!(bytes, uid, u32)),
            oom_score_adj: has(valid::OOM_SCORE_ADJ).then(|| kill!(bytes, oom_score_adj, i32)),
            started_at: has(valid::START_TIME).then(|| self.wall(kill!(bytes, start_boottime_ns, u64))),
            total_vm_bytes: has(valid::TOTAL_VM).then(|| self.pages(kill!(bytes, total_vm_pages, u64))),
            anon_rss_bytes: rss(kill!(bytes, anon_pages, i64)),
            file_rss_bytes: rss(kill!(bytes, file_pages, i64)),
            shmem_rss_bytes: rss(kill!(bytes, shmem_pages, i64)),
            rss_error_bytes: (has(valid::RSS) && !has(valid::RSS_EXACT)).then(|| self.rss_error()),
            swap_bytes: rss(kill!(bytes, swap_entries, i64)),
            page_tables_bytes: has(valid::PAGE_TABLES).then(|| kill!(bytes, page_tables_bytes, u64)),
            nodename: has(valid::NODENAME)
                .then(|| text(array(bytes, std::mem::offset_of!(Kill, nodename), 72)))
                .filter(|name| !name.is_empty()),
            shared_mm: flags & FLAG_SHARED_MM != 0,
            confirmed: has(valid::CONFIRMED) && flags & FLAG_KILL_CONFIRMED != 0,
        }
    }

    /// How far a `percpu_counter` may be off: each CPU keeps less than a batch to itself, and the batch is
    /// `max(32, 2 * CPUs)` pages (lib/percpu_counter.c, `compute_batch_value`).
    fn rss_error(&self) -> u64 {
        let cpus = u64::from(self.possible_cpus);
        self.pages((2 * cpus).max(32) * cpus)
    }

    fn control(&self, bytes: &[u8], flags: u32) -> OomControl {
        OomControl {
            memcg: flags & FLAG_MEMCG_OOM != 0,
            constraint: match kill!(bytes, constraint, u32) {
                1 => Constraint::Cpuset,
                2 => Constraint::MemoryPolicy,
                3 => Constraint::Memcg,
                _ => Constraint::None,
            },
            order: kill!(bytes, order, i32),
            gfp_mask: kill!(bytes, gfp_mask, u32),
            total_bytes: self.pages(kill!(bytes, total_pages, u64)),
            chosen_points: kill!(bytes, chosen_points, i64),
        }
    }

    fn cgroup(&self, bytes: &[u8], shape: &Shape, given: u64, flags: u32) -> Result<Cgroup, DecodeError> {
        let count = usize::from(kill!(bytes, level_count, u16));
        if count > shape.levels_max {
            return Err(DecodeError::Level(shape.kind));
        }
        let mut levels = Vec::with_capacity(count);
        for index in (0..count).rev() {
            let base = shape.levels + index * size_of::<Level>();
            let offset = field!(bytes, base, Level, name_offset, u16);
            let len = field!(bytes, base, Level, name_len, u16);
            let limit = field!(bytes, base, Level, limit_pages, u64);
            levels.push(report::Level {
                name: name(bytes, shape, offset, len)?,
                id: field!(bytes, base, Level, id, u64),
                usage_bytes: (given & valid::USAGE != 0)
                    .then(|| self.pages(field!(bytes, base, Level, usage_pages, u64))),
                limit_bytes: if given & valid::LIMIT == 0 { None } else { self.limit(limit) },
                oom_group: field!(bytes, base, Level, flags, u32) & LEVEL_OOM_GROUP != 0,
            });
        }
        let path = path(levels.iter().map(|level| level.name.as_str()));
        Ok(Cgroup { path, truncated: flags & FLAG_CGROUP_TRUNCATED != 0, levels })
    }

    fn memcg(&self, bytes: &[u8], given: u64, level: usize) -> MemcgFigures {
        let swap = (given & valid::SWAP != 0 && self.swap_is_separate).then(|| Swap {
            usage_bytes: self.pages(kill!(bytes, swap_usage_pages, u64)),
            limit_bytes: self.limit(kill!(bytes, swap_limit_pages, u64)),
        });
        MemcgFigures { level, swap, memory: (given & valid::STATS != 0).then(|| self.breakdown(bytes)) }
    }

    fn breakdown(&self, bytes: &[u8]) -> MemoryBreakdown {
        let raw = |item: usize| {
            let base = size_of::<Header>() + std::mem::offset_of!(Kill, stats) + item * 8;
            let value = bytes.get(base..base + 8).and_then(|bytes| bytes.try_into().ok()).map(i64::from_ne_bytes)?;
            // A counter may lie a little below zero while CPUs still hold parts of it.
            (value != stat::MISSING).then(|| value.max(0) as u64)
        };
        let pages = |item| raw(item).map(|value| self.pages(value));
        let slab = match (raw(stat::SLAB_RECLAIMABLE), raw(stat::SLAB_UNRECLAIMABLE)) {
            (Some(reclaimable), Some(unreclaimable)) => Some(reclaimable.saturating_add(unreclaimable)),
            _ => None,
        };
        MemoryBreakdown {
            anon_bytes: pages(stat::ANON),
            file_bytes: pages(stat::FILE),
            shmem_bytes: pages(stat::SHMEM),
            slab_bytes: slab,
            kernel_stack_bytes: raw(stat::KERNEL_STACK).map(|kib| kib.saturating_mul(1024)),
            page_tables_bytes: pages(stat::PAGE_TABLES),
            sock_bytes: pages(stat::SOCK),
            percpu_bytes: raw(stat::PERCPU),
            swap_bytes: pages(stat::SWAP),
        }
    }

    fn pages(&self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_size)
    }

    fn pages_signed(&self, pages: i64) -> u64 {
        self.pages(pages.max(0) as u64)
    }

    /// A limit; none at or above `PAGE_COUNTER_MAX`, which is how the kernel writes "max".
    fn limit(&self, pages: u64) -> Option<u64> {
        let page_counter_max = i64::MAX as u64 / self.page_size.max(1);
        (pages < page_counter_max).then(|| self.pages(pages))
    }

    fn wall(&self, boot_ns: u64) -> Timestamp {
        let boot = SignedDuration::from_nanos(i64::try_from(boot_ns).unwrap_or(i64::MAX));
        let wall = self.boot_to_wall.saturating_add(boot);
        Timestamp::from_duration(wall).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn incident_end(bytes: &[u8]) -> IncidentEnd {
    IncidentEnd {
        incident_ns: field!(bytes, 0, Header, incident_ns, u64),
        kills: field!(bytes, 0, IncidentEndRecord, kills, u32),
        kills_lost: field!(bytes, 0, IncidentEndRecord, kills_lost, u32),
    }
}

fn trigger(
    bytes: &[u8],
    shape: &Shape,
    given: u64,
    flags: u32,
    cgroup: Option<&Cgroup>,
) -> Result<Trigger, DecodeError> {
    let cgroup_path = if given & valid::TRIGGER_CGROUP == 0 {
        None
    } else if flags & FLAG_TRIGGER_SAME_CGROUP != 0 {
        cgroup.map(|cgroup| cgroup.path.clone())
    } else {
        Some(trigger_path(bytes, shape)?)
    };
    Ok(Trigger {
        pid: kill!(bytes, trigger_pid, u32),
        tgid: kill!(bytes, trigger_tgid, u32),
        comm: text(array(bytes, std::mem::offset_of!(Kill, trigger_comm), 16)),
        cgroup_path,
    })
}

fn trigger_path(bytes: &[u8], shape: &Shape) -> Result<String, DecodeError> {
    let count = usize::from(kill!(bytes, trigger_level_count, u16));
    if count > shape.levels_max {
        return Err(DecodeError::Level(shape.kind));
    }
    let mut names = Vec::with_capacity(count);
    for index in (0..count).rev() {
        let base = shape.trigger_levels + index * size_of::<NameLevel>();
        let offset = field!(bytes, base, NameLevel, name_offset, u16);
        let len = field!(bytes, base, NameLevel, name_len, u16);
        names.push(name(bytes, shape, offset, len)?);
    }
    Ok(path(names.iter().map(String::as_str)))
}

/// A path of level names from the root on; the root's own name is empty.
fn path<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut path = String::new();
    for name in names.filter(|name| !name.is_empty()) {
        path.push('/');
        path.push_str(name);
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

fn name(bytes: &[u8], shape: &Shape, offset: u16, len: u16) -> Result<String, DecodeError> {
    let (offset, len) = (usize::from(offset), usize::from(len));
    if offset + len > shape.names_len {
        return Err(DecodeError::Level(shape.kind));
    }
    let start = shape.names + offset;
    let name = bytes.get(start..start + len).ok_or(DecodeError::Level(shape.kind))?;
    // kernfs names the root "/" on some kernels and "" on others.
    let name = if name == b"/" { &[] } else { name };
    Ok(String::from_utf8_lossy(name).into_owned())
}

fn array(bytes: &[u8], offset: usize, len: usize) -> &[u8] {
    let start = size_of::<Header>() + offset;
    bytes.get(start..start + len).unwrap_or(&[])
}

/// Text up to the first NUL; invalid UTF-8 is replaced.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests;
