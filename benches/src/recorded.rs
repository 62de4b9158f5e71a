//! A kill as the kernel program wrote it, again and again: each time another incident in another container.

use std::mem::offset_of;

use anyhow::{Context as _, Result};
use oom_watcher_common::record::{Header, IncidentEnd, KillHead, TAIL_MAX};
use serde::Serialize;

use crate::poll;

/// Recorded on Linux 6.18 by `benches record`, of a process in `/kubepods/burstable/pod<uid>/<container id>`.
static RECORD: &[u8] = include_bytes!("../fixtures/kill.bin");
/// The container of the recorded kill.
const CONTAINER: &str = "c0ffee0000000000000000000000000000000000000000000000000000000000";
/// Its pod.
pub(crate) const POD_UID: &str = "0b5e55ed-0000-4000-8000-000000000000";
/// Time between two kills of a replay: no two belong together.
const GAP_NS: u64 = 1_000_000_000;

/// Bytes that are changed from kill to kill.
pub(crate) struct Recorded {
    bytes: Vec<u8>,
    id_at: usize,
    kills: u64,
}

impl Recorded {
    pub(crate) fn new() -> Result<Self> {
        let bytes = RECORD.to_vec();
        let id_at = bytes.windows(CONTAINER.len()).position(|window| window == CONTAINER.as_bytes());
        Ok(Self { bytes, id_at: id_at.context("the recorded kill has no container")?, kills: 0 })
    }

    /// The next kill, in container `container`.
    pub(crate) fn next(&mut self, container: usize) -> &[u8] {
        self.kills += 1;
        self.put(offset_of!(Header, time_ns), self.kills * GAP_NS);
        self.bytes[self.id_at..][..CONTAINER.len()].copy_from_slice(container_id(container).as_bytes());
        &self.bytes
    }

    fn put(&mut self, offset: usize, value: u64) {
        self.bytes[offset..][..size_of::<u64>()].copy_from_slice(&value.to_ne_bytes());
    }
}

/// Bytes of what the kernel program writes, and of where it writes it.
#[derive(Serialize)]
pub(crate) struct Sizes {
    /// The recorded kill.
    kill: usize,
    /// A further member of a group kill.
    further: usize,
    /// The deepest cgroup with the longest names.
    longest: usize,
    incident_end: usize,
    /// What the ring buffer adds to each.
    ring_header: usize,
    ring_buffer: u32,
    /// Kills as the recorded one, and further members, that it holds while nobody reads.
    kills_held: u32,
    further_held: u32,
}

/// Sizes by the types that agent and kernel program share.
pub(crate) fn sizes() -> Result<Sizes> {
    // BPF_RINGBUF_HDR_SZ of the kernel; records begin at multiples of it.
    const RING_HEADER: usize = 8;
    let (kill, further) = (RECORD.len(), size_of::<KillHead>());
    let ring_buffer = poll::ring_buffer()?;
    let held = |bytes: usize| ring_buffer / (bytes.next_multiple_of(RING_HEADER) + RING_HEADER) as u32;
    Ok(Sizes {
        kill,
        further,
        longest: further + TAIL_MAX,
        incident_end: size_of::<IncidentEnd>(),
        ring_header: RING_HEADER,
        ring_buffer,
        kills_held: held(kill),
        further_held: held(further),
    })
}

/// Id of container `number`.
pub(crate) fn container_id(number: usize) -> String {
    format!("{number:064x}")
}
