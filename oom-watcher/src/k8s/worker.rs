//! The one task that talks to the API: kills in, enrichments and Events out, one request at a time.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use tokio::sync::mpsc;

use super::{
    api::Api,
    event::Draft,
    lookup::{Lookup, Missing},
    pod::Pod,
    series::{Key, Series, Write},
};
use crate::{
    enrichment::{EnrichedPod, EnrichedVictim, Enrichment, LineType},
    report::{Kubernetes, OomReport, SCHEMA_VERSION},
    telemetry::{EnrichmentOutcome, PodEventOutcome, Telemetry},
};

/// Enrichments that are remembered, so that each container of an incident has one.
const PUBLISHED_MAX: usize = 1024;

/// A kill in a pod.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) report: OomReport,
    pub(super) since: Instant,
}

/// The task's own.
pub(super) struct Worker<P> {
    pub(super) api: Api,
    /// None: pods are not looked up.
    pub(super) lookup: Option<Lookup>,
    /// None: no Event is written.
    pub(super) series: Option<Series>,
    pub(super) publish: P,
    pub(super) published: VecDeque<(String, String)>,
    pub(super) telemetry: Arc<Telemetry>,
}

impl<P: Fn(&Enrichment) + Send> Worker<P> {
    /// Runs until nobody sends jobs any more, and then tells what still waits.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            let now = Instant::now();
            let due = self.series.as_ref().and_then(|series| series.next_due(self.api.ready_at(now), now));
            tokio::select! {
                job = jobs.recv() => {
                    let Some(job) = job else { break };
                    self.telemetry.set_kubernetes_queue(jobs.len(), jobs.max_capacity());
                    self.take(&job).await;
                }
                () = until(due) => self.write_due().await,
            }
        }
        self.write_all().await;
    }

    async fn take(&mut self, job: &Job) {
        let Some(victim) = &job.report.kubernetes else { return };
        let pod = match &mut self.lookup {
            Some(lookup) => {
                let found = lookup.find(&mut self.api, victim, job.since).await;
                self.enrich(&job.report, victim, found.as_ref());
                found.ok()
            }
            None => None,
        };
        let Some(series) = &mut self.series else { return };
        match Draft::new(&job.report, pod.as_ref()) {
            Some(draft) => series.add(&job.report.incident.id, draft, Instant::now()),
            None => drop(self.telemetry.count_pod_event(PodEventOutcome::Unnamed, 1)),
        }
    }

    fn enrich(&mut self, report: &OomReport, victim: &Kubernetes, found: Result<&Arc<Pod>, &Missing>) {
        let outcome = match found {
            Ok(pod) => {
                let container = victim.container_id.as_ref().unwrap_or(&victim.pod_uid);
                let key = (report.incident.id.clone(), container.clone());
                if self.published.contains(&key) {
                    EnrichmentOutcome::Covered
                } else {
                    if self.published.len() == PUBLISHED_MAX {
                        self.published.pop_front();
                    }
                    self.published.push_back(key);
                    (self.publish)(&enrichment(report, victim, pod));
                    EnrichmentOutcome::Published
                }
            }
            Err(Missing::NotFound) => EnrichmentOutcome::NotFound,
            Err(Missing::Recreated) => EnrichmentOutcome::Recreated,
            Err(Missing::Failed) => EnrichmentOutcome::Failed,
            Err(Missing::Skipped) => EnrichmentOutcome::Skipped,
        };
        self.telemetry.count_enrichment(outcome);
    }

    async fn write_due(&mut self) {
        let Some(series) = &mut self.series else { return };
        series.expire(Instant::now());
        if let Some((key, write)) = series.take_due(Instant::now()) {
            self.write(&key, write).await;
        }
    }

    /// The end: rates no longer matter, but one failure is enough.
    async fn write_all(&mut self) {
        loop {
            let now = Instant::now();
            let Some((key, write)) = self.series.as_mut().and_then(Series::take_any) else { return };
            if self.api.ready_at(now) > now {
                return;
            }
            self.write(&key, write).await;
        }
    }

    async fn write(&mut self, key: &Key, write: Write) {
        let outcome = match write {
            Write::Create(event) => self.api.create_event(&event).await,
            Write::Raise { namespace, name, count, last } => self.api.raise_event(&namespace, &name, count, last).await,
        };
        if let Some(series) = &mut self.series {
            series.written(key, outcome, Instant::now());
        }
    }
}

fn enrichment(report: &OomReport, victim: &Kubernetes, pod: &Pod) -> Enrichment {
    let container = pod.container(victim.container.as_deref(), victim.container_id.as_deref());
    let killed = &report.victim;
    Enrichment {
        schema_version: SCHEMA_VERSION,
        line_type: LineType::Enrichment,
        time: report.time,
        node: report.node.clone(),
        incident_id: report.incident.id.clone(),
        victim: EnrichedVictim { pid: killed.pid, tgid: killed.tgid, comm: killed.comm.clone() },
        kubernetes: EnrichedPod {
            namespace: pod.name.namespace.clone(),
            pod: pod.name.name.clone(),
            pod_uid: victim.pod_uid.clone(),
            container: container.map(|container| container.name.clone()).or_else(|| victim.container.clone()),
            container_kind: container.map(|container| container.kind),
            container_id: victim.container_id.clone(),
            owner: pod.owner.clone(),
            labels: pod.labels.clone(),
            image: container.and_then(|container| container.image.clone()),
            memory_request_bytes: container.and_then(|container| container.memory_request),
            memory_limit_bytes: container.and_then(|container| container.memory_limit),
            node: pod.node.clone(),
        },
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
