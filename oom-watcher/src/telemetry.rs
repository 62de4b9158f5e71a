//! What the agent tells about itself: what passed each stage, what was lost where, what is attached.
//!
//! Every series of a closed set exists at zero from the start, so that the first loss is seen by `rate()`. Counting never
//! blocks; nothing here knows what an event means. Log lines that belong to a count are in [`events`].

mod attribution;
mod continuity;
pub mod events;
mod families;
mod kubernetes;
mod names;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use families::{FAMILIES, STAGES, StageRow};
pub(crate) use kubernetes::ApiUse;
pub use kubernetes::{ApiOutcome, ApiVerb, EnrichmentOutcome, PodEventOutcome};
pub use names::NamesState;
use oom_watcher_common::counter;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, info::Info},
};

use crate::exposition::{self, Family};

/// The kernel program's counters; indices are those of [`oom_watcher_common::counter`].
pub type KernelCounters = [u64; counter::COUNT as usize];

/// A stage that an event passes or is lost at, in the order of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The kernel program's ring buffer.
    RingBuffer,
    /// Bytes to facts.
    Decode,
    /// Cgroup paths to names.
    Attribute,
    /// The report.
    Report,
    /// The line on standard output.
    SinkStdout,
    /// The metrics of kills.
    SinkMetrics,
    /// The Event of Kubernetes.
    SinkEvent,
}

/// Why the HTTP server turned a client away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpRejection {
    /// More connections than it serves: the oldest is closed.
    TooManyConnections,
    /// More scrapes at once than it answers.
    TooManyScrapes,
    /// The client did not send its request or read the answer in time.
    Timeout,
}

impl HttpRejection {
    const ALL: [(Self, &str); 3] = [
        (Self::TooManyConnections, "too_many_connections"),
        (Self::TooManyScrapes, "too_many_scrapes"),
        (Self::Timeout, "timeout"),
    ];
}

/// The agent's own counters and gauges.
#[derive(Default)]
pub struct Telemetry {
    passed: [AtomicU64; STAGES.len()],
    lost: [AtomicU64; STAGES.len()],
    http_rejected: [AtomicU64; HttpRejection::ALL.len()],
    series_refused: AtomicU64,
    series_evicted: AtomicU64,
    missed_kills: AtomicU64,
    duplicate_records: AtomicU64,
    kills_before_start: OnceLock<u64>,
    /// At most one per hook and method: a closed set of the kernel stage.
    hooks: Mutex<BTreeMap<(&'static str, &'static str), bool>>,
    attribution: attribution::AttributionCounters,
    continuity: continuity::ContinuityCounters,
    kubernetes: kubernetes::KubernetesCounters,
    kernel_counters: OnceLock<Box<dyn Fn() -> KernelCounters + Send + Sync>>,
    names: OnceLock<Box<dyn Fn() -> NamesState + Send + Sync>>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("passed", &self.passed).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Everything at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// An event left `stage` for the next one. [`Stage::RingBuffer`] is counted by the kernel program alone.
    pub fn count_passed(&self, stage: Stage) {
        self.passed[stage as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// `count` events ended at `stage` without reaching the next one; returns how many did so far.
    pub fn count_lost(&self, stage: Stage, count: u64) -> u64 {
        self.lost[stage as usize].fetch_add(count, Ordering::Relaxed) + count
    }

    /// How many events passed `stage`.
    pub fn passed(&self, stage: Stage) -> u64 {
        let kernel = if stage == Stage::RingBuffer { self.kernel()[counter::KILLS_SENT as usize] } else { 0 };
        kernel + self.passed[stage as usize].load(Ordering::Relaxed)
    }

    /// How many events were lost at `stage`.
    pub fn lost(&self, stage: Stage) -> u64 {
        let kernel = if stage == Stage::RingBuffer { self.kernel()[counter::KILLS_LOST as usize] } else { 0 };
        kernel + self.lost[stage as usize].load(Ordering::Relaxed)
    }

    /// A hook of the plan is attached by `method`, or is not.
    pub fn set_hook(&self, hook: &'static str, method: &'static str, attached: bool) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).insert((hook, method), attached);
    }

    /// The kernel has counted `total` kills since the start that no hook reported. A smaller figure than before is
    /// ignored: the kernel's counter and the reports are not read at the same instant.
    pub fn set_missed_kills(&self, total: u64) {
        self.missed_kills.fetch_max(total, Ordering::Relaxed);
    }

    /// So many second records of a process have come.
    pub fn set_duplicate_records(&self, total: u64) {
        self.duplicate_records.store(total, Ordering::Relaxed);
    }

    /// Kills that the kernel had counted since boot when the watcher started. The first figure stands.
    pub fn set_kills_before_start(&self, kills: u64) {
        self.kills_before_start.get_or_init(|| kills);
    }

    /// How the kernel program's counters are read, at each scrape. The first reader stands.
    pub fn set_kernel_counters(&self, read: impl Fn() -> KernelCounters + Send + Sync + 'static) {
        self.kernel_counters.get_or_init(|| Box::new(read));
    }

    /// How the state of the names is read, at each scrape. The first reader stands.
    pub fn set_names(&self, read: impl Fn() -> NamesState + Send + Sync + 'static) {
        self.names.get_or_init(|| Box::new(read));
    }

    /// Series that were not created; returns how many so far.
    pub(crate) fn count_series_refused(&self, count: u64) -> u64 {
        self.series_refused.fetch_add(count, Ordering::Relaxed) + count
    }

    /// Series of gone containers that were dropped before their time.
    pub(crate) fn count_series_evicted(&self, count: u64) {
        self.series_evicted.fetch_add(count, Ordering::Relaxed);
    }

    /// A client was turned away; returns how many were for that reason so far.
    pub(crate) fn count_http_rejection(&self, reason: HttpRejection) -> u64 {
        self.http_rejected[reason as usize].fetch_add(1, Ordering::Relaxed) + 1
    }

    fn kernel(&self) -> KernelCounters {
        self.kernel_counters.get().map_or([0; counter::COUNT as usize], |read| read())
    }

    fn encode_stages(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = families::EVENTS.describe(page)?;
        for row in &STAGES {
            exposition::counter(&mut family, &[("stage", row.label)], self.passed(row.stage))?;
        }
        let mut family = families::LOST_EVENTS.describe(page)?;
        for row in &STAGES {
            exposition::counter(&mut family, &[("stage", row.label)], self.lost(row.stage))?;
        }
        Ok(())
    }

    fn encode_hooks(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = families::HOOK_ATTACHED.describe(page)?;
        for ((hook, method), attached) in &*self.hooks.lock().unwrap_or_else(PoisonError::into_inner) {
            exposition::gauge(&mut family, &[("hook", *hook), ("method", *method)], u32::from(*attached))?;
        }
        Ok(())
    }

    fn encode_kernel(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters = self.kernel();
        let count = |slot: u32| counters[slot as usize];
        plain_counter(&families::MARKS, page, count(counter::MARKS))?;
        plain_counter(&families::MARKS_WITHOUT_KILL, page, count(counter::MARKS_WITHOUT_KILL))?;
        plain_counter(&families::SHARED_MM_KILLS, page, count(counter::SHARED_MM_KILLS))?;
        plain_counter(&families::VICTIMS_WITHOUT_TASK, page, count(counter::VICTIMS_WITHOUT_TASK))?;
        plain_counter(&families::DUPLICATE_RECORDS, page, self.duplicate_records.load(Ordering::Relaxed))?;
        plain_counter(&families::LOST_INCIDENTS, page, count(counter::INCIDENTS_LOST))?;
        let mut family = families::OOM_INVOCATIONS.describe(page)?;
        exposition::counter(&mut family, &[("result", "killed")], count(counter::INVOCATIONS_KILLED))?;
        exposition::counter(&mut family, &[("result", "no_victim")], count(counter::INVOCATIONS_WITHOUT_VICTIM))
    }

    fn encode_audit(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        plain_counter(&families::MISSED_KILLS, page, self.missed_kills.load(Ordering::Relaxed))?;
        let mut family = families::KILLS_BEFORE_START.describe(page)?;
        self.kills_before_start.get().map_or(Ok(()), |kills| family.encode_gauge(kills))
    }

    fn encode_limits(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        plain_counter(&families::SERIES_REFUSED, page, self.series_refused.load(Ordering::Relaxed))?;
        plain_counter(&families::SERIES_EVICTED, page, self.series_evicted.load(Ordering::Relaxed))?;
        let mut family = families::HTTP_REJECTED.describe(page)?;
        for (reason, label) in HttpRejection::ALL {
            let count = self.http_rejected[reason as usize].load(Ordering::Relaxed);
            exposition::counter(&mut family, &[("reason", label)], count)?;
        }
        Ok(())
    }
}

/// A counter without labels.
fn plain_counter(family: &Family, page: &mut DescriptorEncoder<'_>, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(family.describe(page)?)
}

/// A gauge without labels.
fn plain_gauge(family: &Family, page: &mut DescriptorEncoder<'_>, value: u64) -> fmt::Result {
    family.describe(page)?.encode_gauge(&value)
}

impl Collector for Telemetry {
    fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
        let build = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        Info::new(build).encode(families::BUILD_INFO.describe(&mut page)?)?;
        self.encode_hooks(&mut page)?;
        self.encode_stages(&mut page)?;
        self.encode_kernel(&mut page)?;
        self.encode_audit(&mut page)?;
        self.encode_attributions(&mut page)?;
        self.encode_limits(&mut page)?;
        self.encode_continuity(&mut page)?;
        self.encode_names(&mut page)?;
        self.encode_kubernetes(&mut page)
    }
}

#[cfg(test)]
mod tests;
