//! The Kubernetes API: what it knows about a pod that had a kill, and the Event that tells of it.
//!
//! Nothing here is on the way of a report. A kill that was reported is handed over, without waiting, to a bounded queue; one
//! task does the rest, one request at a time, at limited rates, and counts what becomes of each kill. An API that is slow,
//! refuses or is gone costs enrichments and Events, nothing else. Only `api` names kube; nothing of it is touched unless
//! enrichment or Events are configured.

mod api;
mod bucket;
mod event;
mod health;
mod limits;
mod lookup;
mod pod;
mod quantity;
mod queue;
mod series;
mod worker;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use api::ClientError;
use k8s_openapi::api::events::v1::Event;
use tokio::task::JoinHandle;

use self::{
    api::Api,
    event::Draft,
    limits::Limits,
    lookup::Lookup,
    queue::{Places, Queue},
    series::Series,
    worker::Worker,
};
use crate::{
    config::KubernetesConfig,
    enrichment::Enrichment,
    report::OomReport,
    telemetry::{ApiUse, EnrichmentOutcome, PodEventOutcome, Stage, Telemetry, events::KubernetesOverflowed},
};

/// The Event that a kill would have, were it the first of its kind: what the API is sent. None: nobody knows the pod's name.
pub fn event(report: &OomReport) -> Option<Event> {
    Draft::new(report, None).map(|draft| draft.event(&draft.event_name(), 1, report.time))
}

/// The API is asked for, but this process is not told how to reach it.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the Kubernetes API, which --{flag} asks for")]
pub struct StartError {
    flag: &'static str,
    #[source]
    source: ClientError,
}

/// Where kills in pods are handed over.
#[derive(Debug)]
pub struct Handle {
    queue: Sender,
    task: JoinHandle<()>,
    enrichment: bool,
    events: bool,
    /// Kills in pods that were handed over, also those that found no room.
    delivered: AtomicU64,
    telemetry: Arc<Telemetry>,
}

/// The end of the queue that kills go in at: the task ends when it is gone.
#[derive(Debug)]
struct Sender(Arc<Queue>);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A client that has asked nothing yet.
#[derive(Debug)]
pub struct Prepared {
    api: Api,
    config: KubernetesConfig,
    node: String,
    limits: Limits,
    telemetry: Arc<Telemetry>,
}

/// Finds out how the API is reached, where `config` asks for it; None where it does not.
///
/// The API itself is first asked at the first kill: one that is down is no reason not to watch.
pub async fn prepare(
    config: &KubernetesConfig,
    node_name: &str,
    telemetry: Arc<Telemetry>,
) -> Result<Option<Prepared>, StartError> {
    let flag = match config {
        KubernetesConfig { enrichment: true, .. } => "kubernetes-enrichment",
        KubernetesConfig { events: true, .. } => "kubernetes-events",
        _ => return Ok(None),
    };
    let failed = |source| StartError { flag, source };
    let client = api::find_config().await.map_err(failed)?;
    let limits = Limits::default();
    let api = Api::new(client, limits, Arc::clone(&telemetry)).map_err(failed)?;
    Ok(Some(Prepared { api, config: config.clone(), node: node_name.to_owned(), limits, telemetry }))
}

impl Prepared {
    /// Starts the task. `publish` is called for each enrichment, and must not block.
    pub fn start<P>(self, publish: P) -> Handle
    where
        P: Fn(&Enrichment) + Send + 'static,
    {
        let Self { api, config, node, limits, telemetry } = self;
        let places = limits.queue as usize;
        let queue = Arc::new(Queue::new(places));
        let (enrichment, events) = (config.enrichment, config.events);
        telemetry.set_kubernetes_use(ApiUse { enrichment, events, queue_limit: places });
        let now = Instant::now();
        let worker = Worker {
            api,
            lookup: config.enrichment.then(|| Lookup::new(&node, &config.pod_labels, limits, now)),
            unknown: Places::new(places),
            pod_patience: limits.pod_patience,
            series: config.events.then(|| Series::new(limits, Arc::clone(&telemetry), now)),
            publish,
            published: VecDeque::new(),
            wrote: false,
            telemetry: Arc::clone(&telemetry),
        };
        let task = tokio::spawn(worker.run(Arc::clone(&queue)));
        Handle { queue: Sender(queue), task, enrichment, events, delivered: AtomicU64::new(0), telemetry }
    }
}

impl Handle {
    /// Hands over a kill, if it was in a pod. Never blocks: what finds no room is counted as lost.
    pub fn deliver(&self, report: &OomReport) {
        if report.kubernetes.is_none() {
            return;
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if !self.queue.0.push(report, Instant::now()) {
            KubernetesOverflowed { enrichment: self.enrichment, events: self.events }.emit(&self.telemetry);
        }
        self.telemetry.set_kubernetes_queue(self.queue.0.taken());
    }

    /// Waits at most `deadline` for what is not asked and told yet; what is not by then is counted.
    pub async fn close(self, deadline: Duration) {
        let Self { queue, mut task, enrichment, events, delivered, telemetry } = self;
        drop(queue);
        if tokio::time::timeout(deadline, &mut task).await.is_err() {
            task.abort();
            // Cancelled, which is what was asked.
            let _ = task.await;
        }
        let delivered = delivered.into_inner();
        if enrichment {
            let unasked = delivered.saturating_sub(telemetry.enriched());
            telemetry.count_enrichment(EnrichmentOutcome::Skipped, unasked);
        }
        let settled = telemetry.passed(Stage::SinkEvent) + telemetry.lost(Stage::SinkEvent);
        let abandoned = delivered.saturating_sub(settled);
        if events && abandoned > 0 {
            telemetry.count_pod_event(PodEventOutcome::Abandoned, abandoned);
            tracing::warn!(kills = abandoned, "The last kills have no Event");
        }
    }
}

#[cfg(test)]
mod tests;
