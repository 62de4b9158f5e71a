//! Records as the kernel program writes them, and as it never would.

use std::mem::offset_of;

use jiff::SignedDuration;
use oom_watcher_common::record::{
    FLAG_CHOSEN, FLAG_KILL_CONFIRMED, FLAG_MEMCG_OOM, FLAG_TRIGGER_SAME_CGROUP, TAIL_MAX,
};
use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;

fn decoder() -> Decoder {
    Decoder {
        page_size: PAGE,
        possible_cpus: 2,
        swap_is_separate: true,
        boot_to_wall: SignedDuration::from_secs(1_000),
    }
}

/// A record, written field by field as the kernel program does.
struct Bytes(Vec<u8>);

impl Bytes {
    fn kill() -> Self {
        Self::of(KIND_KILL, size_of::<KillHead>())
    }

    fn of(kind: u16, size: usize) -> Self {
        let mut bytes = Self(vec![0; size]);
        bytes.put(offset_of!(Header, abi_version), &ABI_VERSION.to_ne_bytes());
        bytes.put(offset_of!(Header, kind), &kind.to_ne_bytes());
        bytes.put(offset_of!(Header, size), &(size as u32).to_ne_bytes());
        bytes.put(offset_of!(Header, time_ns), &5_000_000_000_u64.to_ne_bytes());
        bytes.put_kill(offset_of!(Kill, oom_level), &NO_LEVEL.to_ne_bytes());
        bytes.put_kill(offset_of!(Kill, stats_level), &NO_LEVEL.to_ne_bytes());
        bytes
    }

    fn put(&mut self, offset: usize, value: &[u8]) {
        if let Some(place) = self.0.get_mut(offset..offset + value.len()) {
            place.copy_from_slice(value);
        }
    }

    fn put_kill(&mut self, offset: usize, value: &[u8]) {
        self.put(size_of::<Header>() + offset, value);
    }

    fn valid(&mut self, bits: u64) {
        self.put_kill(offset_of!(Kill, valid), &bits.to_ne_bytes());
    }

    fn flags(&mut self, flags: u32) {
        self.put_kill(offset_of!(Kill, flags), &flags.to_ne_bytes());
    }

    /// The victim's levels, leaf first.
    fn levels(&mut self, entries: &[(&[u8], u64, u64)]) {
        self.append(entries);
        self.put_kill(offset_of!(Kill, level_count), &(entries.len() as u16).to_ne_bytes());
    }

    /// The trigger's levels, leaf first.
    fn trigger_levels(&mut self, names: &[&[u8]]) {
        let entries: Vec<_> = names.iter().map(|&name| (name, 0, 0)).collect();
        self.append(&entries);
        self.put_kill(offset_of!(Kill, trigger_level_count), &(names.len() as u16).to_ne_bytes());
    }

    fn append(&mut self, entries: &[(&[u8], u64, u64)]) {
        for (index, (name, usage, limit)) in entries.iter().enumerate() {
            let base = self.0.len();
            self.0.resize(base + size_of::<Level>(), 0);
            self.put(base + offset_of!(Level, id), &(100 + index as u64).to_ne_bytes());
            self.put(base + offset_of!(Level, usage_pages), &usage.to_ne_bytes());
            self.put(base + offset_of!(Level, limit_pages), &limit.to_ne_bytes());
            self.put(base + offset_of!(Level, name_len), &(name.len() as u32).to_ne_bytes());
            self.0.extend_from_slice(name);
            // Behind a name is whatever was there.
            self.0.resize(self.0.len().next_multiple_of(ALIGN), b'!');
        }
        self.put(offset_of!(Header, size), &(self.0.len() as u32).to_ne_bytes());
    }
}

#[track_caller]
fn kill(bytes: &Bytes) -> OomKill {
    match decoder().decode(&bytes.0) {
        Ok(Record::Kill(kill)) => *kill,
        other => panic!("not a kill: {other:?}"),
    }
}

#[test]
fn nothing_given_is_nothing_said() {
    let mut bytes = Bytes::kill();
    bytes.put_kill(offset_of!(Kill, pid), &42_u32.to_ne_bytes());
    let kill = kill(&bytes);
    assert_eq!(kill.victim, Victim { pid: 42, ..Victim::default() });
    assert_eq!(kill.time.to_string(), "1970-01-01T00:16:45Z");
    assert_eq!((kill.cgroup, kill.control, kill.incident_ns, kill.oom_level), (None, None, None, None));
    assert_eq!((kill.memcg, kill.limit_write, kill.start_boottime_ns), (None, None, None));
}

#[test]
fn figures_are_bytes() {
    let mut bytes = Bytes::kill();
    bytes.valid(valid::RSS | valid::TOTAL_VM | valid::PAGE_TABLES | valid::OOM_SCORE_ADJ | valid::CONFIRMED);
    bytes.flags(FLAG_KILL_CONFIRMED);
    bytes.put_kill(offset_of!(Kill, total_vm_pages), &10_u64.to_ne_bytes());
    bytes.put_kill(offset_of!(Kill, anon_pages), &7_i64.to_ne_bytes());
    bytes.put_kill(offset_of!(Kill, file_pages), &(-3_i64).to_ne_bytes());
    bytes.put_kill(offset_of!(Kill, page_tables_bytes), &8192_u64.to_ne_bytes());
    bytes.put_kill(offset_of!(Kill, oom_score_adj), &(-997_i32).to_ne_bytes());
    let victim = kill(&bytes).victim;
    assert_eq!(victim.total_vm_bytes, Some(10 * PAGE));
    assert_eq!(victim.anon_rss_bytes, Some(7 * PAGE));
    assert_eq!(victim.file_rss_bytes, Some(0), "a counter that CPUs have parts of may lie below zero");
    assert_eq!(victim.page_tables_bytes, Some(8192));
    assert_eq!(victim.oom_score_adj, Some(-997));
    assert_eq!(victim.rss_error_bytes, Some(32 * 2 * PAGE), "two CPUs keep less than 32 pages each");
    assert!(victim.confirmed);
}

#[test]
fn exact_figures_have_no_error() {
    let mut bytes = Bytes::kill();
    bytes.valid(valid::RSS | valid::RSS_EXACT);
    assert_eq!(kill(&bytes).victim.rss_error_bytes, None);
}

#[test]
fn levels_run_from_the_root() {
    let unlimited = i64::MAX as u64 / PAGE;
    let mut bytes = Bytes::kill();
    bytes
        .valid(valid::CGROUP | valid::USAGE | valid::LIMIT | valid::TRIGGER_CGROUP | valid::OOM_CONTROL | valid::STATS);
    bytes.flags(FLAG_TRIGGER_SAME_CGROUP | FLAG_MEMCG_OOM | FLAG_CHOSEN);
    bytes.levels(&[(b"leaf", 5, 5), (b"middle", 6, unlimited), (b"", 9, unlimited)]);
    bytes.put_kill(offset_of!(Kill, oom_level), &0_u32.to_ne_bytes());
    bytes.put_kill(offset_of!(Kill, stats_level), &0_u32.to_ne_bytes());
    bytes.put_kill(offset_of!(Kill, stats), &3_i64.to_ne_bytes());
    bytes.put_kill(offset_of!(Kill, stats) + 8, &stat::MISSING.to_ne_bytes());
    let kill = kill(&bytes);
    let cgroup = kill.cgroup.expect("a cgroup");
    assert_eq!(cgroup.path, "/middle/leaf");
    let limits: Vec<_> = cgroup.levels.iter().map(|level| level.limit_bytes).collect();
    assert_eq!(limits, [None, None, Some(5 * PAGE)]);
    assert_eq!(cgroup.levels[2].id, 100);
    assert_eq!(kill.oom_level, Some(2));
    assert_eq!(kill.trigger.cgroup_path.as_deref(), Some("/middle/leaf"));
    let figures = kill.memcg.expect("figures");
    assert_eq!(figures.level, 2);
    let memory = figures.memory.expect("a breakdown");
    assert_eq!((memory.anon_bytes, memory.file_bytes), (Some(3 * PAGE), None));
    assert!(kill.control.expect("a control").memcg && kill.chosen);
}

#[test]
fn names_may_be_any_bytes() {
    let mut bytes = Bytes::kill();
    bytes.valid(valid::CGROUP);
    let name: &[u8] = b"a\xff\x1b[31m\n";
    bytes.levels(&[(name, 0, 0), (b"", 0, 0)]);
    assert_eq!(kill(&bytes).cgroup.expect("a cgroup").path, "/a\u{fffd}\u{1b}[31m\n", "sinks escape what they show");
}

#[test]
fn what_is_not_a_record_is_refused() {
    let decode = |bytes: &[u8]| decoder().decode(bytes);
    assert_eq!(decode(&[]), Err(DecodeError::Short(0)));
    let whole = Bytes::kill().0;
    let least = whole.len();
    let refused = |found, said| Err(DecodeError::Size { kind: KIND_KILL, found, said, least });
    assert_eq!(decode(&whole[..least - 1]), refused(least - 1, least as u32));
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(decode(&longer), refused(least + 1, least as u32));
    let mut shorter = Bytes(whole[..least - 8].to_vec());
    shorter.put(offset_of!(Header, size), &(least as u32 - 8).to_ne_bytes());
    assert_eq!(decode(&shorter.0), refused(least - 8, least as u32 - 8));
    let mut other = Bytes::kill();
    other.put(offset_of!(Header, abi_version), &(ABI_VERSION + 1).to_ne_bytes());
    assert_eq!(decode(&other.0), Err(DecodeError::Version { found: ABI_VERSION + 1 }));
    let mut other = Bytes::kill();
    other.put(offset_of!(Header, kind), &99_u16.to_ne_bytes());
    assert_eq!(decode(&other.0), Err(DecodeError::Kind(99)));
}

#[test]
fn levels_lie_within_the_record() {
    const SECOND: usize = size_of::<KillHead>() + size_of::<Level>() + 8;
    let outside = |change: fn(&mut Bytes)| {
        let mut bytes = Bytes::kill();
        bytes.valid(valid::CGROUP);
        bytes.levels(&[(b"leaf", 0, 0), (b"", 0, 0)]);
        change(&mut bytes);
        assert_eq!(decoder().decode(&bytes.0), Err(DecodeError::Level));
    };
    outside(|bytes| bytes.put_kill(offset_of!(Kill, level_count), &3_u16.to_ne_bytes()));
    outside(|bytes| bytes.put_kill(offset_of!(Kill, level_count), &(LEVELS_MAX as u16 + 1).to_ne_bytes()));
    outside(|bytes| bytes.put_kill(offset_of!(Kill, trigger_level_count), &1_u16.to_ne_bytes()));
    outside(|bytes| bytes.put(SECOND + offset_of!(Level, name_len), &1_u32.to_ne_bytes()));
    outside(|bytes| bytes.put(SECOND + offset_of!(Level, name_len), &u32::MAX.to_ne_bytes()));
}

#[test]
fn the_trigger_has_a_path_of_its_own() {
    let mut bytes = Bytes::kill();
    bytes.valid(valid::CGROUP | valid::TRIGGER_CGROUP);
    bytes.levels(&[(b"leaf", 0, 0), (b"", 0, 0)]);
    bytes.trigger_levels(&[b"writer.service", b"system.slice", b"/"]);
    assert_eq!(kill(&bytes).trigger.cgroup_path.as_deref(), Some("/system.slice/writer.service"));
    bytes.flags(FLAG_TRIGGER_CGROUP_TRUNCATED);
    assert_eq!(kill(&bytes).trigger.cgroup_path, None, "a path without its root is another path");
    bytes.flags(FLAG_TRIGGER_CGROUP_TRUNCATED | FLAG_TRIGGER_SAME_CGROUP | FLAG_CGROUP_TRUNCATED);
    assert_eq!(kill(&bytes).trigger.cgroup_path, None, "nor has it one where it is in the victim's");
}

#[test]
fn nobody_has_the_process_id_0_in_a_namespace() {
    let mut bytes = Bytes::kill();
    bytes.valid(valid::NAMESPACE_PID);
    assert_eq!(kill(&bytes).victim.namespace_pid, None, "it has left its namespace");
    bytes.put_kill(offset_of!(Kill, namespace_pid), &7_u32.to_ne_bytes());
    assert_eq!(kill(&bytes).victim.namespace_pid, Some(7));
}

#[test]
fn a_cgroup_may_be_said_in_another_record() {
    let mut bytes = Bytes::kill();
    bytes.put_kill(offset_of!(Kill, levels_of_ns), &77_u64.to_ne_bytes());
    let kill = kill(&bytes);
    assert_eq!((kill.levels_of_ns, kill.cgroup), (Some(77), None));
}

#[test]
fn an_end_is_an_end() {
    let mut bytes = Bytes::of(KIND_INCIDENT_END, size_of::<IncidentEndRecord>());
    bytes.put(offset_of!(Header, incident_ns), &7_u64.to_ne_bytes());
    bytes.put(offset_of!(IncidentEndRecord, kills), &3_u32.to_ne_bytes());
    bytes.put(offset_of!(IncidentEndRecord, kills_lost), &1_u32.to_ne_bytes());
    let end = IncidentEnd { incident_ns: 7, kills: 3, kills_lost: 1 };
    assert_eq!(decoder().decode(&bytes.0), Ok(Record::IncidentEnd(end)));
}

/// Bytes of garbage at most. In Miri each takes a thousand times as long, and what a few hundred do not show is not for it to find.
const GARBAGE_MAX: usize = if cfg!(miri) { 300 } else { 12_000 };
const TAIL_OF_GARBAGE_MAX: usize = if cfg!(miri) { 300 } else { TAIL_MAX };
const NAMES_MAX: usize = if cfg!(miri) { 3 } else { LEVELS_MAX };

proptest! {
    /// Any bytes at all: an answer, never a panic.
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..GARBAGE_MAX)) {
        let _ = decoder().decode(&bytes);
    }

    /// The right head, and garbage in it: every name that comes out lies within the record.
    #[test]
    fn a_head_on_garbage_never_panics(
        kind in prop_oneof![Just(KIND_KILL), Just(KIND_INCIDENT_END)],
        garbage in proptest::collection::vec(any::<u8>(), size_of::<KillHead>()..size_of::<KillHead>() + TAIL_OF_GARBAGE_MAX),
        levels in 0..=LEVELS_MAX as u16,
    ) {
        let head = Bytes::of(kind, garbage.len()).0;
        let mut bytes = Bytes(garbage);
        bytes.put(0, &head[..16]);
        bytes.put_kill(offset_of!(Kill, level_count), &levels.to_ne_bytes());
        bytes.put_kill(offset_of!(Kill, trigger_level_count), &0_u16.to_ne_bytes());
        if let Ok(Record::Kill(kill)) = decoder().decode(&bytes.0) {
            let names: usize = kill.cgroup.iter().flat_map(|cgroup| &cgroup.levels).map(|level| level.name.len()).sum();
            prop_assert!(names <= 3 * bytes.0.len(), "replacement characters are three bytes long");
        }
    }

    /// What is written is what is read, whatever the names.
    #[test]
    fn every_name_is_read_whole(names in proptest::collection::vec("[a-z0-9._-]{0,255}", 0..NAMES_MAX)) {
        let mut bytes = Bytes::kill();
        bytes.valid(valid::CGROUP);
        let entries: Vec<_> = names.iter().map(|name| (name.as_bytes(), 1, 2)).collect();
        bytes.levels(&entries);
        let levels = &kill(&bytes).cgroup.expect("a cgroup").levels;
        prop_assert!(levels.iter().rev().map(|level| &level.name).eq(&names));
    }

    /// A record cut anywhere is refused.
    #[test]
    fn a_cut_record_is_refused(cut in 0..1_usize << 16) {
        let mut bytes = Bytes::kill();
        bytes.levels(&[(b"leaf", 5, 5), (b"", 9, 9)]);
        prop_assert!(decoder().decode(&bytes.0[..cut % bytes.0.len()]).is_err());
    }
}
