//! What is counted of attribution: how far each kill was attributed, by which source, and how long that took.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::histogram::Histogram,
};

use super::{Telemetry, families};
use crate::{
    exposition,
    report::{AttributionResult, AttributionSource},
};

/// Seconds. Memory answers within the first two, a link that comes late within the third, the end of an incident is waited for
/// within the fourth; the directory of pods is asked after 2 s, the runtime for one more.
const SECONDS: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 3.0];

/// The counters. Their labels are closed sets: a source has a histogram from its first kill on.
#[derive(Debug)]
pub(super) struct AttributionCounters {
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    seconds: Mutex<BTreeMap<&'static str, Histogram>>,
}

impl Default for AttributionCounters {
    fn default() -> Self {
        let zeros = POSSIBLE.iter().map(|(result, source)| ((result_label(*result), source_label(*source)), 0));
        Self { counts: Mutex::new(zeros.collect()), seconds: Mutex::default() }
    }
}

impl Telemetry {
    /// A victim was attributed that far, by that source, so long after the kill; none: nobody was there at the kill.
    pub fn count_attribution(&self, result: AttributionResult, source: AttributionSource, after: Option<Duration>) {
        debug_assert!(POSSIBLE.contains(&(result, source)), "{result:?} by {source:?} has no zero");
        *lock(&self.attribution.counts).entry((result_label(result), source_label(source))).or_default() += 1;
        if let Some(after) = after {
            let mut seconds = lock(&self.attribution.seconds);
            let histogram = seconds.entry(source_label(source)).or_insert_with(|| Histogram::new(SECONDS));
            histogram.observe(after.as_secs_f64());
        }
    }

    pub(super) fn encode_attributions(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = families::ATTRIBUTIONS.describe(page)?;
        for ((result, source), count) in &*lock(&self.attribution.counts) {
            exposition::counter(&mut family, &[("result", *result), ("source", *source)], *count)?;
        }
        let mut family = families::ATTRIBUTION_SECONDS.describe(page)?;
        for (source, histogram) in &*lock(&self.attribution.seconds) {
            histogram.encode(family.encode_family(&[("source", *source)])?)?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pairs of result and source that can be; they exist at zero from the start.
const POSSIBLE: [(AttributionResult, AttributionSource); 14] = {
    use AttributionResult::{Foreign, Full, Host, Id, None, Pod};
    use AttributionSource::{Bundle, Cri, Index, Path, PodDirectory, Rescan, RuntimeFile, Sibling};
    [
        (Full, Index),
        (Full, Rescan),
        (Full, PodDirectory),
        (Full, Bundle),
        (Full, Cri),
        (Pod, Sibling),
        (Pod, Rescan),
        (Pod, PodDirectory),
        (Pod, Bundle),
        (Id, Path),
        (Host, Path),
        (Host, RuntimeFile),
        (Foreign, Path),
        (None, Path),
    ]
};

/// The label `result`: the same word as in the JSON report.
fn result_label(result: AttributionResult) -> &'static str {
    match result {
        AttributionResult::Full => "full",
        AttributionResult::Pod => "pod",
        AttributionResult::Id => "id",
        AttributionResult::Host => "host",
        AttributionResult::Foreign => "foreign",
        AttributionResult::None => "none",
    }
}

/// The label `source`: the same word as in the JSON report.
fn source_label(source: AttributionSource) -> &'static str {
    match source {
        AttributionSource::Path => "path",
        AttributionSource::Index => "index",
        AttributionSource::Rescan => "rescan",
        AttributionSource::Sibling => "sibling",
        AttributionSource::PodDirectory => "pod_directory",
        AttributionSource::Bundle => "bundle",
        AttributionSource::Cri => "cri",
        AttributionSource::RuntimeFile => "runtime_file",
    }
}
