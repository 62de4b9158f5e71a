//! What is counted about each container, within the limit of series.
//!
//! One entry holds all that is known of a container, so that its series appear, go and are limited together, and a
//! scrape sees one state. This module knows neither names of metrics nor how they are written.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    ContainerLabels,
    families::{MEMCG_MEMORY_TYPES, MEMORY_TYPES},
    labels::{PodLabels, safe},
};
use crate::{
    config::MetricsConfig,
    enrichment::Owner,
    report::{MemoryBreakdown, OomReport, Scope, Victim},
};

/// Incidents remembered, so that each is counted once. Kills of one incident come within a second of each other, further
/// apart only by the time that a report waits for a name (at most 4 s): at 50 kills a second a fifth of this.
const RECENT_INCIDENTS_MAX: usize = 1024;

/// Everything that is counted about containers.
#[derive(Debug)]
pub(super) struct Table {
    containers: BTreeMap<ContainerLabels, Container>,
    /// Containers that live and have no series, for want of a kill or of room: as many as there are names of live containers.
    silent: BTreeSet<ContainerLabels>,
    /// Owners of pods that have a container here: one series each.
    pods: BTreeMap<PodLabels, Owner>,
    /// Series that `containers` and `pods` stand for: always their sum.
    series: usize,
    kills_on_node: u64,
    recent_incidents: RecentIncidents,
    zero_series: bool,
    max_series: usize,
    retention: Duration,
}

/// What is known of one container: one to `CONTAINER_SERIES_MAX` series.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) kills: u64,
    pub(super) incidents: BTreeMap<Scope, u64>,
    /// Beside it, since most have none.
    pub(super) last: Option<Box<LastKill>>,
    /// None: somebody has said that it lives. Else when it was gone; a container that nobody has called alive counts as
    /// gone since its last kill, as nobody would ever retire it.
    gone_since: Option<Instant>,
}

/// The figures of the last kill.
#[derive(Clone, Debug)]
pub(super) struct LastKill {
    pub(super) time: Timestamp,
    boot_time_ns: u64,
    /// In the order of [`MEMORY_TYPES`].
    pub(super) memory: [Option<u64>; MEMORY_TYPES.len()],
    /// In the order of [`MEMCG_MEMORY_TYPES`].
    pub(super) memcg_memory: [Option<u64>; MEMCG_MEMORY_TYPES.len()],
    pub(super) scope: Scope,
    pub(super) limit: Option<u64>,
    pub(super) usage: Option<u64>,
}

/// What a change did to the limit of series.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The kill is in the table with its labels.
    pub(super) counted: bool,
    /// Series that were not created.
    pub(super) refused: usize,
    /// Series of gone containers that were dropped to make room.
    pub(super) evicted: usize,
    /// The limit.
    pub(super) max_series: usize,
}

impl Table {
    pub(super) fn new(config: &MetricsConfig) -> Self {
        Self {
            containers: BTreeMap::new(),
            silent: BTreeSet::new(),
            pods: BTreeMap::new(),
            series: 0,
            kills_on_node: 0,
            recent_incidents: RecentIncidents::default(),
            zero_series: config.zero_series,
            max_series: config.max_series,
            retention: config.series_retention,
        }
    }

    pub(super) fn kills_on_node(&self) -> u64 {
        self.kills_on_node
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = (&ContainerLabels, &Container)> {
        self.containers.iter()
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = (&PodLabels, &Owner)> {
        self.pods.iter()
    }

    pub(super) fn last_kills(&self) -> impl Iterator<Item = (&ContainerLabels, &LastKill)> {
        self.containers.iter().filter_map(|(labels, container)| Some((labels, container.last.as_deref()?)))
    }

    /// Counts a kill, with as much about it as there is room for: everything, or no figures, or only that it was.
    pub(super) fn observe(&mut self, report: &OomReport, now: Instant) -> Outcome {
        self.kills_on_node += 1;
        let first_of_incident = self.recent_incidents.insert(&report.incident.id);
        let labels = ContainerLabels::of(report);
        let lives = self.silent.remove(&labels);
        let new = || if lives { Container::alive() } else { Container::unannounced(now) };
        let before = self.take(&labels).unwrap_or_else(new);

        let incidents_before = before.incidents.clone();
        let mut container = before.after(report, first_of_incident, now);
        let wanted = container.series();
        let evicted = self.make_room(wanted);
        let room = self.max_series.saturating_sub(self.series);
        if container.series() > room {
            container.last = None;
        }
        if container.series() > room {
            container.incidents = incidents_before;
        }

        let series = container.series();
        let counted = series <= room;
        if counted {
            self.put(labels, container);
        } else if lives {
            self.silent.insert(labels);
        }
        let refused = if counted { wanted - series } else { wanted };
        Outcome { counted, refused, evicted, max_series: self.max_series }
    }

    /// A container lives. Zeros take at most half of the limit.
    pub(super) fn appear(&mut self, labels: ContainerLabels) -> Outcome {
        let mut outcome = Outcome { counted: true, max_series: self.max_series, ..Outcome::default() };
        if let Some(container) = self.containers.get_mut(&labels) {
            container.gone_since = None;
        } else if self.zero_series && self.has_room_for_zero() {
            self.put(labels, Container::alive());
        } else {
            outcome.refused = usize::from(self.zero_series);
            self.silent.insert(labels);
        }
        outcome
    }

    /// The owner of a pod is known; no owner has empty labels. A pod without a container here has nothing to join with.
    pub(super) fn enrich(&mut self, pod: PodLabels, owner: Option<&Owner>) -> Outcome {
        let mut outcome = Outcome { counted: true, max_series: self.max_series, ..Outcome::default() };
        let owner = owner.map(|owner| Owner { kind: safe(&owner.kind), name: safe(&owner.name) }).unwrap_or_default();
        if let Some(known) = self.pods.get_mut(&pod) {
            *known = owner;
        } else if self.has_container_of(&pod) {
            outcome.evicted = self.make_room(1);
            if self.series < self.max_series && self.has_container_of(&pod) {
                self.series += 1;
                self.pods.insert(pod, owner);
            } else {
                outcome.refused = 1;
            }
        }
        outcome
    }

    fn has_container_of(&self, pod: &PodLabels) -> bool {
        let [(_, namespace), (_, name)] = pod.pairs();
        // The first one there can be: names are in order.
        let first = ContainerLabels::new(namespace, name, "");
        self.containers.range(first..).next().is_some_and(|(labels, _)| labels.is_in(pod))
    }

    pub(super) fn retire(&mut self, labels: &ContainerLabels, now: Instant) {
        self.silent.remove(labels);
        if let Some(container) = self.containers.get_mut(labels) {
            container.gone_since.get_or_insert(now);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let retention = self.retention;
        self.containers.retain(|_, container| {
            container.gone_since.is_none_or(|since| now.saturating_duration_since(since) < retention)
        });
        let mut pods = std::mem::take(&mut self.pods);
        pods.retain(|pod, _| self.has_container_of(pod));
        self.pods = pods;
        self.series = self.containers.values().map(Container::series).sum::<usize>() + self.pods.len();
        self.announce_silent();
    }

    /// Those that live and had no room for a zero get it as soon as there is some.
    fn announce_silent(&mut self) {
        while self.zero_series
            && self.has_room_for_zero()
            && let Some(labels) = self.silent.pop_first()
        {
            self.put(labels, Container::alive());
        }
    }

    fn has_room_for_zero(&self) -> bool {
        self.series < self.max_series / 2
    }

    /// Drops the containers that are gone for longest until `series` more fit or none is left; returns the series dropped.
    fn make_room(&mut self, series: usize) -> usize {
        let before = self.series;
        while self.series + series > self.max_series {
            let gone = self.containers.iter().filter_map(|(labels, container)| Some((container.gone_since?, labels)));
            let Some(longest) = gone.min().map(|(_, labels)| labels.clone()) else { break };
            self.take(&longest);
        }
        before - self.series
    }

    fn take(&mut self, labels: &ContainerLabels) -> Option<Container> {
        let container = self.containers.remove(labels)?;
        self.series -= container.series();
        Some(container)
    }

    fn put(&mut self, labels: ContainerLabels, container: Container) {
        self.series += container.series();
        self.containers.insert(labels, container);
    }
}

impl Container {
    fn alive() -> Self {
        Self { kills: 0, incidents: BTreeMap::new(), last: None, gone_since: None }
    }

    fn unannounced(now: Instant) -> Self {
        Self { gone_since: Some(now), ..Self::alive() }
    }

    /// The container with one more kill.
    fn after(mut self, report: &OomReport, first_of_incident: bool, now: Instant) -> Self {
        self.kills += 1;
        if first_of_incident {
            *self.incidents.entry(report.incident.scope).or_default() += 1;
        }
        // Reports can come out of order: one that waited for a name is no newer for that. The wall clock may have been set back.
        if self.last.as_ref().is_none_or(|last| last.boot_time_ns <= report.boot_time_ns) {
            self.last = Some(Box::new(LastKill::of(report)));
        }
        self.gone_since = self.gone_since.map(|_| now);
        self
    }

    fn series(&self) -> usize {
        1 + self.incidents.len() + self.last.as_deref().map_or(0, LastKill::series)
    }
}

impl LastKill {
    fn of(report: &OomReport) -> Self {
        Self {
            time: report.time,
            boot_time_ns: report.boot_time_ns,
            memory: memory(&report.victim),
            memcg_memory: report.memory.as_ref().map(memcg_memory).unwrap_or_default(),
            scope: report.incident.scope,
            limit: report.incident.limit_bytes,
            usage: report.incident.usage_bytes,
        }
    }

    fn series(&self) -> usize {
        1 + self.memory.iter().chain(&self.memcg_memory).chain([&self.limit, &self.usage]).flatten().count()
    }
}

fn memcg_memory(memory: &MemoryBreakdown) -> [Option<u64>; MEMCG_MEMORY_TYPES.len()] {
    [
        memory.anon_bytes,
        memory.file_bytes,
        memory.shmem_bytes,
        memory.slab_bytes,
        memory.kernel_stack_bytes,
        memory.page_tables_bytes,
        memory.sock_bytes,
        memory.percpu_bytes,
        memory.swap_bytes,
    ]
}

fn memory(victim: &Victim) -> [Option<u64>; MEMORY_TYPES.len()] {
    [
        victim.total_vm_bytes,
        victim.anon_rss_bytes,
        victim.file_rss_bytes,
        victim.shmem_rss_bytes,
        victim.swap_bytes,
        victim.page_tables_bytes,
    ]
}

/// The last incidents, to tell the first kill of each from the others.
#[derive(Debug, Default)]
struct RecentIncidents {
    known: HashSet<Arc<str>>,
    oldest_first: VecDeque<Arc<str>>,
}

impl RecentIncidents {
    /// True for an id that is not among the last [`RECENT_INCIDENTS_MAX`].
    fn insert(&mut self, id: &str) -> bool {
        if self.known.contains(id) {
            return false;
        }
        if self.oldest_first.len() == RECENT_INCIDENTS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.known.remove(&oldest);
        }
        let id = Arc::<str>::from(id);
        self.known.insert(Arc::clone(&id));
        self.oldest_first.push_back(id);
        true
    }
}
