//! What is counted about the Kubernetes API: requests, Events, enrichments. The closed sets of their labels are here.
//!
//! An agent that does not use the API shows none of it: at zero they would be four in ten of its series, on every node.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

use super::{Stage, Telemetry, families};
use crate::exposition::{self, Family};

/// What is asked of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVerb {
    /// One pod.
    Get,
    /// The names of the node's pods.
    List,
    /// An Event.
    Create,
    /// The count of an Event.
    Patch,
}

impl ApiVerb {
    /// In the order of their declaration.
    pub const ALL: [(Self, &str); 4] =
        [(Self::Get, "get"), (Self::List, "list"), (Self::Create, "create"), (Self::Patch, "patch")];

    /// It changes something.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Patch)
    }

    /// The label `verb`, which is the verb of RBAC.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// How the API answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiOutcome {
    /// As asked.
    Ok,
    /// 404 or 410: the pod, Event or namespace is gone.
    NotFound,
    /// 409: it is there already.
    Conflict,
    /// 403: RBAC, admission, a quota, or the namespace is going away.
    Forbidden,
    /// 401: the token is not accepted.
    Unauthorized,
    /// 429: too many requests.
    Throttled,
    /// Another refusal of this one request.
    Rejected,
    /// 5xx
    ServerError,
    /// No whole answer in time.
    Timeout,
    /// No connection, or it broke.
    Unreachable,
    /// The answer is not what was asked for, or is too large.
    Garbage,
}

impl ApiOutcome {
    /// In the order of their declaration.
    pub const ALL: [(Self, &str); 11] = [
        (Self::Ok, "ok"),
        (Self::NotFound, "not_found"),
        (Self::Conflict, "conflict"),
        (Self::Forbidden, "forbidden"),
        (Self::Unauthorized, "unauthorized"),
        (Self::Throttled, "throttled"),
        (Self::Rejected, "rejected"),
        (Self::ServerError, "server_error"),
        (Self::Timeout, "timeout"),
        (Self::Unreachable, "unreachable"),
        (Self::Garbage, "garbage"),
    ];

    /// Says something about the API and not about what was asked: the same request may succeed later.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unauthorized | Self::Throttled | Self::ServerError | Self::Timeout | Self::Unreachable)
    }

    /// Of those that are [`Self::is_transient`]: says something about the API, whatever was asked of it.
    pub fn is_of_the_whole_api(self) -> bool {
        matches!(self, Self::Unauthorized | Self::Throttled | Self::Unreachable)
    }

    /// The label `outcome`.
    pub fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What became of a kill in a pod, as far as Events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodEventOutcome {
    /// Its Event was created.
    Created,
    /// The count of an Event was raised for it.
    Raised,
    /// Another victim of its incident has the Event.
    Covered,
    /// Nobody knows the pod's name, so there is nothing that an Event could be about.
    Unnamed,
    /// The API refused this Event.
    Refused,
    /// The API did not take it for too long.
    TooLate,
    /// Too many waited.
    Overflow,
    /// The watcher ended before it could be told.
    Abandoned,
}

impl PodEventOutcome {
    /// In the order of their declaration.
    pub const ALL: [(Self, &str); 8] = [
        (Self::Created, "created"),
        (Self::Raised, "raised"),
        (Self::Covered, "covered"),
        (Self::Unnamed, "unnamed"),
        (Self::Refused, "refused"),
        (Self::TooLate, "too_late"),
        (Self::Overflow, "overflow"),
        (Self::Abandoned, "abandoned"),
    ];

    /// Whether an Event tells of the kill.
    pub fn is_told(self) -> bool {
        matches!(self, Self::Created | Self::Raised | Self::Covered)
    }
}

/// What became of a kill in a pod, as far as the enrichment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrichmentOutcome {
    /// A line says what the API knows.
    Published,
    /// The same, and the API was the first to know the pod's name.
    Named,
    /// The line of another victim of the incident in that container says it.
    Covered,
    /// The API has no such pod.
    NotFound,
    /// The API has another pod of that name.
    Recreated,
    /// The API refused, or answered what nobody understands.
    Failed,
    /// It was not asked in time: rate limit, back-off, too many waiting.
    Skipped,
}

impl EnrichmentOutcome {
    /// In the order of their declaration.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Published, "published"),
        (Self::Named, "named"),
        (Self::Covered, "covered"),
        (Self::NotFound, "not_found"),
        (Self::Recreated, "recreated"),
        (Self::Failed, "failed"),
        (Self::Skipped, "skipped"),
    ];
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct KubernetesCounters {
    requests: [[AtomicU64; ApiOutcome::ALL.len()]; ApiVerb::ALL.len()],
    pod_events: [AtomicU64; PodEventOutcome::ALL.len()],
    enrichments: [AtomicU64; EnrichmentOutcome::ALL.len()],
    enrichment_lines_lost: AtomicU64,
    queued: AtomicU64,
    used: OnceLock<ApiUse>,
}

/// What the API is used for, and so which series there are; by default for nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApiUse {
    /// Kills are enriched: pods are read.
    pub(crate) enrichment: bool,
    /// Kills are told as Events: they are written.
    pub(crate) events: bool,
    /// Places of the queue.
    pub(crate) queue_limit: usize,
}

impl Telemetry {
    /// The API was asked, and answered so.
    pub(crate) fn count_request(&self, verb: ApiVerb, outcome: ApiOutcome) {
        self.kubernetes.requests[verb as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// `kills` in pods came to that; [`Stage::SinkEvent`] counts them too. Returns how many did so far.
    pub(crate) fn count_pod_event(&self, outcome: PodEventOutcome, kills: u64) -> u64 {
        if outcome.is_told() {
            self.passed[Stage::SinkEvent as usize].fetch_add(kills, Ordering::Relaxed);
        } else {
            self.count_lost(Stage::SinkEvent, kills);
        }
        self.kubernetes.pod_events[outcome as usize].fetch_add(kills, Ordering::Relaxed) + kills
    }

    /// `kills` in pods came to that. Returns how many did so far.
    pub(crate) fn count_enrichment(&self, outcome: EnrichmentOutcome, kills: u64) -> u64 {
        self.kubernetes.enrichments[outcome as usize].fetch_add(kills, Ordering::Relaxed) + kills
    }

    /// How many kills came to anything.
    pub(crate) fn enriched(&self) -> u64 {
        self.kubernetes.enrichments.iter().map(|kills| kills.load(Ordering::Relaxed)).sum()
    }

    /// The line of an enrichment was not written; returns how many were not so far.
    pub(crate) fn count_enrichment_line_lost(&self) -> u64 {
        self.kubernetes.enrichment_lines_lost.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// So many places of the queue for the API are taken.
    pub(crate) fn set_kubernetes_queue(&self, taken: usize) {
        self.kubernetes.queued.store(taken as u64, Ordering::Relaxed);
    }

    /// The API is used from now on, for that. The first use stands.
    pub(crate) fn set_kubernetes_use(&self, used: ApiUse) {
        self.kubernetes.used.get_or_init(|| used);
    }

    /// How often the API answered so.
    #[cfg(test)]
    pub(crate) fn requests(&self, verb: ApiVerb, outcome: ApiOutcome) -> u64 {
        self.kubernetes.requests[verb as usize][outcome as usize].load(Ordering::Relaxed)
    }

    /// How many kills came to that.
    #[cfg(test)]
    pub(crate) fn enrichments(&self, outcome: EnrichmentOutcome) -> u64 {
        self.kubernetes.enrichments[outcome as usize].load(Ordering::Relaxed)
    }

    pub(super) fn encode_kubernetes(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters = &self.kubernetes;
        let used = counters.used.get().copied().unwrap_or_default();
        self.encode_requests(used, page)?;
        encode_outcomes(&families::POD_EVENTS, used.events, &PodEventOutcome::ALL, &counters.pod_events, page)?;
        let (labels, counts) = (&EnrichmentOutcome::ALL, &counters.enrichments);
        encode_outcomes(&families::ENRICHMENTS, used.enrichment, labels, counts, page)?;
        let lost = ConstCounter::new(counters.enrichment_lines_lost.load(Ordering::Relaxed));
        encode_if(used.enrichment, &lost, &families::LOST_ENRICHMENT_LINES, page)?;
        let queued = ConstGauge::new(counters.queued.load(Ordering::Relaxed));
        encode_if(used.queue_limit > 0, &queued, &families::KUBERNETES_QUEUE, page)?;
        let limit = ConstGauge::new(used.queue_limit as u64);
        encode_if(used.queue_limit > 0, &limit, &families::KUBERNETES_QUEUE_LIMIT, page)
    }

    fn encode_requests(&self, used: ApiUse, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = families::KUBERNETES_REQUESTS.describe(page)?;
        let asked = |verb: ApiVerb| if verb.is_write() { used.events } else { used.enrichment };
        for (verb, verb_label) in ApiVerb::ALL.into_iter().filter(|(verb, _)| asked(*verb)) {
            for (outcome, label) in ApiOutcome::ALL {
                let count = self.kubernetes.requests[verb as usize][outcome as usize].load(Ordering::Relaxed);
                exposition::counter(&mut family, &[("verb", verb_label), ("outcome", label)], count)?;
            }
        }
        Ok(())
    }
}

/// A sample without labels; a family that is not used is declared all the same.
fn encode_if(
    is_used: bool,
    value: &impl EncodeMetric,
    family: &Family,
    page: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let sample = family.describe(page)?;
    if is_used { value.encode(sample) } else { Ok(()) }
}

/// One sample for each outcome; `counts` are in the order of `labels`.
fn encode_outcomes<O>(
    family: &Family,
    is_used: bool,
    labels: &[(O, &'static str)],
    counts: &[AtomicU64],
    page: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut family = family.describe(page)?;
    for ((_, label), count) in labels.iter().zip(counts).filter(|_| is_used) {
        exposition::counter(&mut family, &[("outcome", *label)], count.load(Ordering::Relaxed))?;
    }
    Ok(())
}
