//! What the agent tells of the time before it, and of what it keeps for itself: pins, state file, privileges.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prometheus_client::encoding::DescriptorEncoder;

use super::{Telemetry, families, plain_counter, plain_gauge};
use crate::exposition;

/// The figures.
#[derive(Debug, Default)]
pub(super) struct ContinuityCounters {
    unwatched_kills: OnceLock<u64>,
    recovered_kills: AtomicU64,
    pinned: AtomicBool,
    state_not_read: AtomicU64,
    state_not_written: AtomicU64,
    seccomp: AtomicBool,
    oom_score_adj: OnceLock<i16>,
}

impl Telemetry {
    /// Kills up to this watcher's start that nobody reported. The first figure stands.
    pub fn set_unwatched_kills(&self, kills: u64) {
        self.continuity.unwatched_kills.get_or_init(|| kills);
    }

    /// The figure, once it is known.
    #[cfg(test)]
    pub(crate) fn unwatched_kills(&self) -> Option<u64> {
        self.continuity.unwatched_kills.get().copied()
    }

    /// A kill of the time before the start is reported.
    pub fn count_recovered(&self) {
        self.continuity.recovered_kills.fetch_add(1, Ordering::Relaxed);
    }

    /// The hooks stay attached without the watcher, or do not.
    pub fn set_pinned(&self, pinned: bool) {
        self.continuity.pinned.store(pinned, Ordering::Relaxed);
    }

    /// The filter of system calls is installed, or is not.
    pub fn set_seccomp(&self, installed: bool) {
        self.continuity.seccomp.store(installed, Ordering::Relaxed);
    }

    /// The watcher's own place in the OOM killer's choice. The first figure stands.
    pub fn set_oom_score_adj(&self, value: i16) {
        self.continuity.oom_score_adj.get_or_init(|| value);
    }

    /// The state file could not be read; returns how often so far.
    pub(crate) fn count_state_not_read(&self) -> u64 {
        self.continuity.state_not_read.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The state file could not be written; returns how often so far.
    pub(crate) fn count_state_not_written(&self) -> u64 {
        self.continuity.state_not_written.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn encode_continuity(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters = &self.continuity;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let flag = |flag: &AtomicBool| u64::from(flag.load(Ordering::Relaxed));
        let mut family = families::UNWATCHED_KILLS.describe(page)?;
        counters.unwatched_kills.get().map_or(Ok(()), |kills| family.encode_gauge(kills))?;
        plain_counter(&families::RECOVERED_KILLS, page, read(&counters.recovered_kills))?;
        plain_gauge(&families::PINNED, page, flag(&counters.pinned))?;
        let mut family = families::STATE_ERRORS.describe(page)?;
        exposition::counter(&mut family, &[("operation", "read")], read(&counters.state_not_read))?;
        exposition::counter(&mut family, &[("operation", "write")], read(&counters.state_not_written))?;
        plain_gauge(&families::SECCOMP, page, flag(&counters.seccomp))?;
        let mut family = families::OOM_SCORE_ADJ.describe(page)?;
        counters.oom_score_adj.get().map_or(Ok(()), |value| family.encode_gauge(&i64::from(*value)))
    }
}
