//! Bytes of the ring buffer → what they say, in the agent's own terms.
//!
//! Pure and without `unsafe`: the offsets come from the shared types, the lengths are checked, and a field that the kernel
//! did not give is `None`. A record that cannot be understood is an error for the caller to count; it stops nothing.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use oom_watcher_common::{
    ABI_VERSION,
    record::{
        ALIGN, FLAG_CGROUP_TRUNCATED, FLAG_CHOSEN, FLAG_KILL_CONFIRMED, FLAG_LIMIT_WRITE, FLAG_MEMCG_OOM,
        FLAG_MM_SHARED, FLAG_SHARED_MM, FLAG_TRIGGER_CGROUP_TRUNCATED, FLAG_TRIGGER_SAME_CGROUP, Header,
        IncidentEnd as IncidentEndRecord, KIND_INCIDENT_END, KIND_KILL, Kill, KillHead, LEVEL_OOM_GROUP, LEVELS_MAX,
        Level, NO_LEVEL, stat, valid,
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
    /// The record's length is not what it says, or too small for its kind.
    #[error("a record of kind {kind} has {found} bytes; it says {said}, and such a record has {least} or more")]
    Size {
        /// The kind.
        kind: u16,
        /// The length found.
        found: usize,
        /// The length that it says.
        said: u32,
        /// What is always there.
        least: usize,
    },
    /// The record counts more levels than there can be, or a level or its name lies outside it.
    #[error("a record has a cgroup level outside itself")]
    Level,
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
    /// Wall clock minus the clock since boot: taken anew for each record, so a clock that is set does no lasting harm.
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
        let least = match kind {
            KIND_KILL => size_of::<KillHead>(),
            KIND_INCIDENT_END => size_of::<IncidentEndRecord>(),
            other => return Err(DecodeError::Kind(other)),
        };
        let said = field!(bytes, 0, Header, size, u32);
        if bytes.len() != said as usize || bytes.len() < least {
            return Err(DecodeError::Size { kind, found: bytes.len(), said, least });
        }
        if kind == KIND_KILL {
            Ok(Record::Kill(Box::new(self.kill(bytes)?)))
        } else {
            Ok(Record::IncidentEnd(incident_end(bytes)))
        }
    }

    fn kill(&self, bytes: &[u8]) -> Result<OomKill, DecodeError> {
        let time_ns = field!(bytes, 0, Header, time_ns, u64);
        let incident_ns = field!(bytes, 0, Header, incident_ns, u64);
        let given = kill!(bytes, valid, u64);
        let flags = kill!(bytes, flags, u32);
        let mut rest = Levels { rest: bytes.get(size_of::<KillHead>()..).unwrap_or_default() };
        let levels = self.levels(&mut rest, kill!(bytes, level_count, u16), given)?;
        let trigger_levels = self.levels(&mut rest, kill!(bytes, trigger_level_count, u16), given)?;
        let cgroup = (given & valid::CGROUP != 0).then(|| {
            let path = path(levels.iter().map(|level| level.name.as_str()));
            Arc::new(Cgroup { path, truncated: flags & FLAG_CGROUP_TRUNCATED != 0, levels })
        });
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
            trigger: trigger(bytes, given, flags, cgroup.as_deref(), &trigger_levels),
            control: (given & valid::OOM_CONTROL != 0).then(|| self.control(bytes, flags)),
            oom_level,
            entry_usage_bytes: (given & valid::ENTRY_USAGE != 0)
                .then(|| self.pages(kill!(bytes, entry_usage_pages, u64))),
            limit_write: (given & valid::LIMIT_WRITE != 0).then_some(flags & FLAG_LIMIT_WRITE != 0),
            chosen: flags & FLAG_CHOSEN != 0,
            mm_shared: flags & FLAG_MM_SHARED != 0,
            memcg,
            cgroup,
            levels_of_ns: Some(kill!(bytes, levels_of_ns, u64)).filter(|&ns| ns != 0),
        })
    }

    fn victim(&self, bytes: &[u8], given: u64, flags: u32) -> Victim {
        let has = |bit: u64| given & bit != 0;
        let rss = |pages: i64| has(valid::RSS).then(|| self.pages_signed(pages));
        Victim {
            pid: kill!(bytes, pid, u32),
            tgid: has(valid::TGID).then(|| kill!(bytes, tgid, u32)),
            // 0: it has left its namespace.
            namespace_pid: has(valid::NAMESPACE_PID).then(|| kill!(bytes, namespace_pid, u32)).filter(|&pid| pid != 0),
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

    /// The next levels, from the root on: the kernel counts from the leaf.
    fn levels(&self, rest: &mut Levels<'_>, count: u16, given: u64) -> Result<Vec<report::Level>, DecodeError> {
        let count = usize::from(count);
        if count > LEVELS_MAX {
            return Err(DecodeError::Level);
        }
        let mut levels = Vec::with_capacity(count);
        for _ in 0..count {
            let (level, name) = rest.next().ok_or(DecodeError::Level)?;
            let limit = field!(level, 0, Level, limit_pages, u64);
            levels.push(report::Level {
                name: level_name(name),
                id: field!(level, 0, Level, id, u64),
                usage_bytes: (given & valid::USAGE != 0).then(|| self.pages(field!(level, 0, Level, usage_pages, u64))),
                limit_bytes: if given & valid::LIMIT == 0 { None } else { self.limit(limit) },
                oom_group: field!(level, 0, Level, flags, u32) & LEVEL_OOM_GROUP != 0,
            });
        }
        levels.reverse();
        Ok(levels)
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

/// Levels with their names, one after the other.
struct Levels<'a> {
    rest: &'a [u8],
}

impl<'a> Levels<'a> {
    /// The bytes of the next [`Level`], and its name; nothing when they are not all there.
    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (level, after) = self.rest.split_at_checked(size_of::<Level>())?;
        let len = field!(level, 0, Level, name_len, u32) as usize;
        let name = after.get(..len)?;
        self.rest = after.get(len.checked_next_multiple_of(ALIGN)?..)?;
        Some((level, name))
    }
}

fn trigger(bytes: &[u8], given: u64, flags: u32, cgroup: Option<&Cgroup>, levels: &[report::Level]) -> Trigger {
    let cgroup_path = if given & valid::TRIGGER_CGROUP == 0 {
        None
    } else if flags & FLAG_TRIGGER_CGROUP_TRUNCATED != 0 {
        // Without its root it would be another path.
        None
    } else if flags & FLAG_TRIGGER_SAME_CGROUP != 0 {
        cgroup.filter(|cgroup| !cgroup.truncated).map(|cgroup| cgroup.path.clone())
    } else {
        Some(path(levels.iter().map(|level| level.name.as_str())))
    };
    Trigger {
        pid: kill!(bytes, trigger_pid, u32),
        tgid: kill!(bytes, trigger_tgid, u32),
        comm: text(array(bytes, std::mem::offset_of!(Kill, trigger_comm), 16)),
        cgroup_path,
    }
}

/// A path of level names from the root on; the root's own name is empty.
pub(crate) fn path<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut path = String::with_capacity(names.clone().map(|name| name.len() + 1).sum());
    for name in names.filter(|name| !name.is_empty()) {
        path.push('/');
        path.push_str(name);
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

/// kernfs names the root "/" on some kernels and "" on others.
fn level_name(name: &[u8]) -> String {
    let name = if name == b"/" { &[] } else { name };
    String::from_utf8_lossy(name).into_owned()
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
