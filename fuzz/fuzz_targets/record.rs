//! No bytes from the ring buffer make the agent panic, and whatever a record says, the lines are one line of safe text and one
//! of valid JSON.
//!
//! The input is a run of records, each with what it is and its length before it. The first byte of a record says whether its
//! header is made good: a mutation alone would rarely get past the version and the size.
#![no_main]

use std::{hint::black_box, mem::offset_of, sync::LazyLock, time::Instant};

use libfuzzer_sys::fuzz_target;
use oom_watcher::{
    assemble::{self, NodeNames},
    attribute::by_path,
    cgroup::{Node, identify},
    decode::{Decoder, Record},
    escape::is_unsafe,
    incident::{Assembler, Member},
    scope::{PageCounters, decide},
    sinks::{json, text},
};
use oom_watcher_common::{
    ABI_VERSION,
    record::{Header, IncidentEnd, KIND_INCIDENT_END, KIND_KILL, KillHead, TAIL_MAX},
};

const DECODER: Decoder = Decoder {
    page_size: 65_536,
    possible_cpus: 512,
    swap_is_separate: false,
    boot_to_wall: jiff::SignedDuration::from_secs(1_700_000_000),
};

static NAMES: LazyLock<NodeNames> =
    LazyLock::new(|| NodeNames { node: "worker-1".to_owned(), boot: "3735928559".to_owned() });

fuzz_target!(|data: &[u8]| {
    let mut assembler = Assembler::default();
    let now = Instant::now();
    let mut rest = data;
    while let Some((record, after)) = next(rest) {
        rest = after;
        let members = match DECODER.decode(&record) {
            Ok(Record::Kill(kill)) => assembler.kill(kill, now),
            Ok(Record::IncidentEnd(end)) => assembler.end(&end),
            Err(error) => {
                black_box(error.to_string());
                continue;
            }
        };
        members.iter().for_each(show);
    }
    assembler.close().iter().for_each(show);
});

/// The next record and what follows it.
fn next(data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (&how, data) = data.split_first()?;
    let (tail, data) = data.split_first_chunk().map_or((0, data), |(tail, data)| (u16::from_le_bytes(*tail), data));
    let (length, kind) = match how % 4 {
        0 => (size_of::<KillHead>(), Some(KIND_KILL)),
        1 => (size_of::<KillHead>() + usize::from(tail) % TAIL_MAX, Some(KIND_KILL)),
        2 => (size_of::<IncidentEnd>(), Some(KIND_INCIDENT_END)),
        _ => (usize::from(how), None),
    };
    let (given, after) = data.split_at(length.min(data.len()));
    let mut record = given.to_vec();
    if let Some(kind) = kind {
        record.resize(length, 0);
        put(&mut record, offset_of!(Header, abi_version), &ABI_VERSION.to_ne_bytes());
        put(&mut record, offset_of!(Header, kind), &kind.to_ne_bytes());
        put(&mut record, offset_of!(Header, size), &(length as u32).to_ne_bytes());
    }
    Some((record, after))
}

fn put(record: &mut [u8], offset: usize, value: &[u8]) {
    record[offset..offset + value.len()].copy_from_slice(value);
}

fn show(member: &Member) {
    let levels = member.kill.cgroup.as_ref().map(|cgroup| cgroup.levels.as_slice()).unwrap_or_default();
    let segments: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
    let identity = identify(&segments, &Node::default());
    let counters = PageCounters { page_size: DECODER.page_size, cpus: 512 };
    let decision = decide(&identity, levels, assemble::oom_memcg(&member.kill), counters);
    let report = assemble::report(&NAMES, member, decision, by_path(&identity));
    let line = text::line(&report);
    assert!(!line.trim_end_matches('\n').contains(is_unsafe), "{line:?}");
    let line = json::line(&report).expect("a report is always JSON");
    assert!(!line.trim_end_matches('\n').contains('\n'));
    serde_json::from_str::<serde_json::Value>(&line).expect("valid JSON");
}
