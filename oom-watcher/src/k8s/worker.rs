//! The one task that talks to the API: kills in, enrichments and Events out, one request at a time.
//!
//! An Event is told what the API knows of its pod if that comes soon, and goes out without it if not: requests for Events go
//! before those for pods, and a pod that is not known in time holds up nobody's Event.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    api::Api,
    event::Draft,
    lookup::{Lookup, Missing},
    pod::Pod,
    queue::{Job, Places, Queue},
    series::{Key, Series, Write},
};
use crate::{
    enrichment::{EnrichedPod, EnrichedVictim, Enrichment, LineType},
    report::{Kubernetes, OomReport, SCHEMA_VERSION},
    telemetry::{EnrichmentOutcome, PodEventOutcome, Telemetry},
};

/// Enrichments that are remembered, so that each container of an incident has one. The kills of an incident come within 5 s of each
/// other (a search for names is the longest wait), in which a loop of 50 a second makes a quarter of this.
const PUBLISHED_MAX: usize = 1024;

/// The task's own.
pub(super) struct Worker<P> {
    pub(super) api: Api,
    /// None: pods are not looked up.
    pub(super) lookup: Option<Lookup>,
    /// Kills whose pod has yet to be asked for.
    pub(super) unknown: Places,
    /// How long the Event of a kill waits for its pod.
    pub(super) pod_patience: Duration,
    /// None: no Event is written.
    pub(super) series: Option<Series>,
    pub(super) publish: P,
    pub(super) published: VecDeque<(String, String)>,
    /// The last request was for an Event: a pod that is due goes before the next one.
    pub(super) wrote: bool,
    pub(super) telemetry: Arc<Telemetry>,
}

impl<P: Fn(&Enrichment) + Send> Worker<P> {
    /// Runs until nobody hands over kills any more, and then tells what still waits.
    pub(super) async fn run(mut self, queue: Arc<Queue>) {
        loop {
            let closed = queue.is_closed();
            while let Some(job) = queue.pop() {
                self.take(job);
            }
            self.telemetry.set_kubernetes_queue(queue.taken());
            if closed {
                break;
            }
            let due = self.next_due(Instant::now());
            tokio::select! {
                () = queue.news() => {}
                () = until(due) => self.step().await,
            }
        }
        self.finish().await;
    }

    fn take(&mut self, mut job: Job) {
        let Some(victim) = job.victim() else { return };
        let Some(lookup) = &self.lookup else { return self.draft(&job, None) };
        if let Some(answer) = lookup.known(victim, Instant::now()) {
            return self.settle(&job, answer);
        }
        // The Event of the kill that it joins has gone out without the pod.
        if self.unknown.mate(&job.report).is_some_and(|mate| mate.drafted) {
            self.draft(&job, None);
        }
        job.drafted = self.series.is_none();
        if let Err(job) = self.unknown.push(job) {
            self.settle(&job, Err(Missing::Skipped));
        }
    }

    /// When there is something to do; none: never.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let event = self.series.as_ref().and_then(|series| series.next_due(self.api.ready_to_write(now), now));
        let waiting = self.unknown.iter().filter(|job| !job.drafted && is_named(job)).map(|job| job.since);
        let draft = waiting.min().map(|since| since + self.pod_patience);
        [event, draft, self.lookup_due(now)].into_iter().flatten().min()
    }

    /// When the next pod may be asked for, or is given up.
    fn lookup_due(&self, now: Instant) -> Option<Instant> {
        let (lookup, oldest) = (self.lookup.as_ref()?, self.unknown.front()?);
        Some(lookup.ready_at(&self.api, now).min(lookup.give_up_at(oldest.since)))
    }

    /// What is due now, with one request at most.
    async fn step(&mut self) {
        let now = Instant::now();
        let patience = self.pod_patience;
        // Without a name from the node there can be no Event yet.
        self.draft_those(|job| is_named(job) && now.duration_since(job.since) >= patience);
        self.give_up(now);
        let event = self.series.as_ref().and_then(|series| series.next_due(self.api.ready_to_write(now), now));
        let event_due = event.is_some_and(|due| due <= now);
        let pod_due = self.unknown.front().is_some()
            && self.lookup.as_ref().is_some_and(|lookup| lookup.ready_at(&self.api, now) <= now);
        self.wrote = event_due && !(pod_due && self.wrote);
        if self.wrote {
            self.write_due().await;
        } else if pod_due {
            self.look_up().await;
        }
    }

    /// The Events of kills whose pod is not known.
    fn draft_those(&mut self, so: impl Fn(&Job) -> bool) {
        let Self { unknown, series, telemetry, .. } = self;
        for job in unknown.iter_mut().filter(|job| !job.drafted && so(job)) {
            draft(series.as_mut(), telemetry, job, None);
            job.drafted = true;
        }
    }

    /// The kills that no answer would come for while anybody wants it.
    fn give_up(&mut self, now: Instant) {
        let Some(lookup) = &self.lookup else { return };
        let ready = lookup.ready_at(&self.api, now);
        let too_late = |job: &Job| lookup.give_up_at(job.since) <= ready;
        for job in self.unknown.take_those(too_late) {
            self.settle(&job, Err(Missing::Skipped));
        }
    }

    /// One request for the pod of the kill that waits for longest; the answer is that of all kills in the pod.
    async fn look_up(&mut self) {
        let (Some(lookup), Some(oldest)) = (&mut self.lookup, self.unknown.front()) else { return };
        let Some(victim) = oldest.victim() else { return };
        let uid = victim.pod_uid.clone();
        let Some(answer) = lookup.ask(&mut self.api, victim).await else { return };
        for job in self.unknown.take_those(|job| job.victim().is_some_and(|victim| victim.pod_uid == uid)) {
            self.settle(&job, answer.clone());
        }
    }

    /// The pod of a kill is known, or is not to be known.
    fn settle(&mut self, job: &Job, pod: Result<Arc<Pod>, Missing>) {
        self.enrich(job, pod.as_ref());
        if !job.drafted {
            self.draft(job, pod.ok().as_ref());
        }
    }

    fn draft(&mut self, job: &Job, pod: Option<&Arc<Pod>>) {
        draft(self.series.as_mut(), &self.telemetry, job, pod);
    }

    fn enrich(&mut self, job: &Job, found: Result<&Arc<Pod>, &Missing>) {
        let Some(victim) = job.victim() else { return };
        let outcome = match found {
            Ok(pod) => {
                let container = victim.container_id.as_ref().unwrap_or(&victim.pod_uid);
                let key = (job.report.incident.id.clone(), container.clone());
                let mut covered = job.kills;
                if !self.published.contains(&key) {
                    covered -= 1;
                    self.tell(&job.report, victim, pod, key);
                }
                self.telemetry.count_enrichment(EnrichmentOutcome::Covered, covered);
                return;
            }
            Err(Missing::NotFound) => EnrichmentOutcome::NotFound,
            Err(Missing::Recreated) => EnrichmentOutcome::Recreated,
            Err(Missing::Failed) => EnrichmentOutcome::Failed,
            Err(Missing::Skipped) => EnrichmentOutcome::Skipped,
        };
        self.telemetry.count_enrichment(outcome, job.kills);
    }

    fn tell(&mut self, report: &OomReport, victim: &Kubernetes, pod: &Pod, key: (String, String)) {
        if self.published.len() == PUBLISHED_MAX {
            self.published.pop_front();
        }
        self.published.push_back(key);
        (self.publish)(&enrichment(report, victim, pod));
        let outcome = if victim.pod.is_some() { EnrichmentOutcome::Published } else { EnrichmentOutcome::Named };
        self.telemetry.count_enrichment(outcome, 1);
    }

    async fn write_due(&mut self) {
        let Some(series) = &mut self.series else { return };
        series.expire(Instant::now());
        if let Some((key, write)) = series.take_due(Instant::now()) {
            self.write(&key, write).await;
        }
    }

    /// The end: Events wait for their pod as ever, but none for longer; all of them go before what is only enriched.
    async fn finish(&mut self) {
        let end = Instant::now() + self.pod_patience;
        while self.unknown.iter().any(|job| !job.drafted) && Instant::now() < end {
            until(self.next_due(Instant::now()).map(|due| due.min(end))).await;
            self.step().await;
        }
        self.draft_those(|_| true);
        self.write_all().await;
        while self.unknown.front().is_some() {
            until(self.next_due(Instant::now())).await;
            self.step().await;
        }
    }

    /// Rates no longer matter, but one failure is enough.
    async fn write_all(&mut self) {
        loop {
            let now = Instant::now();
            let Some((key, write)) = self.series.as_mut().and_then(Series::take_any) else { return };
            if self.api.ready_to_write(now) > now {
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

fn draft(series: Option<&mut Series>, telemetry: &Telemetry, job: &Job, pod: Option<&Arc<Pod>>) {
    let Some(series) = series else { return };
    match Draft::new(&job.report, pod) {
        Some(draft) => series.add(&job.report.incident.id, draft, job.kills, Instant::now()),
        None => drop(telemetry.count_pod_event(PodEventOutcome::Unnamed, job.kills)),
    }
}

/// Whether the node has told the name of the pod.
fn is_named(job: &Job) -> bool {
    job.victim().is_some_and(|victim| victim.namespace.is_some() && victim.pod.is_some())
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
            memory_request_bytes: container.and_then(|container| container.memory.request),
            memory_limit_bytes: container.and_then(|container| container.memory.limit),
            pod_memory_request_bytes: pod.memory.request,
            pod_memory_limit_bytes: pod.memory.limit,
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
