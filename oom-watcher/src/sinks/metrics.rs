//! The metrics of kills: the families of the outward contract, per container and per node.
//!
//! Which containers live is asked of the names at each scrape, so that a page is never behind them. The limit of series, and
//! what is dropped to keep it, are the table's.

mod families;
mod labels;
mod table;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub use families::FAMILIES;
#[cfg(any(test, feature = "docs"))]
pub(crate) use families::{CONTAINER_SERIES_MAX, SCOPES};
pub(crate) use families::{MEMCG_MEMORY_TYPES, MEMORY_TYPES};
pub use labels::ContainerLabels;
use labels::PodLabels;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::counter::ConstCounter,
};
use table::{LastKill, Outcome, Table};

use crate::{
    config::MetricsConfig,
    enrichment::Enrichment,
    exposition::{self, Family},
    names::Names,
    report::{AttributionResult, OomReport},
    telemetry::{Stage, Telemetry, events::SeriesRefused},
};

/// The metrics of kills.
#[derive(Debug)]
pub struct KillMetrics {
    table: Mutex<Table>,
    /// Whose changes are read here and nowhere else; none: nobody knows of any container before a kill.
    names: Option<Names>,
    telemetry: Arc<Telemetry>,
}

impl KillMetrics {
    /// Empty, but for the zero of processes that are in no container.
    pub fn new(config: &MetricsConfig, telemetry: Arc<Telemetry>) -> Self {
        let metrics = Self { table: Mutex::new(Table::new(config)), names: None, telemetry };
        metrics.appear(ContainerLabels::host());
        metrics
    }

    /// With the containers of these names: [`Self::catch_up`] follows them.
    #[must_use]
    pub fn following(self, names: Names) -> Self {
        Self { names: Some(names), ..self }
    }

    /// Counts a kill. Where the limit of series leaves no room for its labels, the node's total still counts it, and
    /// [`Stage::SinkMetrics`] says that one was lost. A kill on another node of the same machine is that node's: counted here
    /// too, the sum over nodes would have it twice.
    pub fn observe(&self, report: &OomReport, now: Instant) {
        if report.attribution.result == AttributionResult::Foreign {
            self.telemetry.count_passed(Stage::SinkMetrics);
            return;
        }
        let outcome = self.table().observe(report, now);
        if outcome.counted {
            self.telemetry.count_passed(Stage::SinkMetrics);
        } else {
            self.telemetry.count_lost(Stage::SinkMetrics, 1);
        }
        self.tell(&outcome);
    }

    /// The owner of a pod that had a kill is known: it has a series of its own as long as the pod has others, if the limit
    /// of series leaves room. Where only the API knew the pod's name, its other series have its UID instead.
    pub fn enrich(&self, enrichment: &Enrichment) {
        let pod = &enrichment.kubernetes;
        for labels in [PodLabels::new(&pod.namespace, &pod.pod), PodLabels::new("", &pod.pod_uid)] {
            let outcome = self.table().enrich(labels, pod.owner.as_ref());
            self.tell(&outcome);
        }
    }

    /// Takes in which containers came and went, and drops the series of those that are gone for longer than
    /// `--series-retention`; each scrape does it.
    pub fn catch_up(&self, now: Instant) {
        let mut table = self.table();
        // Under the lock, so that nobody takes in older changes after newer ones.
        let changes = self.names.as_ref().map(Names::take_changes).unwrap_or_default();
        let appeared = changes.added.iter().map(|name| table.appear(ContainerLabels::named(name)));
        let appeared: Vec<Outcome> = appeared.filter(|outcome| outcome.refused > 0).collect();
        for name in &changes.gone {
            table.retire(&ContainerLabels::named(name), now);
        }
        table.expire(now);
        drop(table);
        for outcome in &appeared {
            self.tell(outcome);
        }
    }

    /// A container lives: with `--zero-series` its counter exists, at zero if nothing was killed in it. Zeros take at most half
    /// of the limit of series, so that kills find room.
    pub fn appear(&self, labels: ContainerLabels) {
        let outcome = self.table().appear(labels);
        self.tell(&outcome);
    }

    /// The last container of this name is gone: its series stay for the time of `--series-retention`, unless it is seen
    /// alive again or a kill needs the room.
    #[cfg(test)]
    pub(crate) fn retire(&self, labels: &ContainerLabels, now: Instant) {
        self.table().retire(labels, now);
    }

    fn tell(&self, outcome: &Outcome) {
        self.telemetry.count_series_evicted(outcome.evicted as u64);
        if outcome.refused > 0 {
            SeriesRefused { series: outcome.refused as u64, max_series: outcome.max_series }.emit(&self.telemetry);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for KillMetrics {
    fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
        self.catch_up(Instant::now());
        let table = self.table();
        encode_counters(&table, &mut page)?;
        encode_memory(&table, &mut page)?;
        encode_memcg_memory(&table, &mut page)?;
        encode_last(&table, &mut page, &families::LIMIT, |last| last.limit)?;
        encode_last(&table, &mut page, &families::USAGE, |last| last.usage)?;
        encode_pods(&table, &mut page)
    }
}

fn encode_counters(table: &Table, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = families::KILLS.describe(page)?;
    for (labels, container) in table.containers() {
        exposition::counter(&mut family, &labels.pairs(), container.kills)?;
    }
    ConstCounter::new(table.kills_on_node()).encode(families::KILLS_PER_NODE.describe(page)?)?;
    let mut family = families::INCIDENTS.describe(page)?;
    for (labels, container) in table.containers() {
        for (scope, count) in &container.incidents {
            exposition::counter(&mut family, &labels.pairs_and("scope", families::scope_label(*scope)), *count)?;
        }
    }
    Ok(())
}

fn encode_memcg_memory(table: &Table, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = families::MEMCG_MEMORY.describe(page)?;
    for (labels, last) in table.last_kills() {
        for (memory_type, bytes) in MEMCG_MEMORY_TYPES.iter().zip(last.memcg_memory) {
            if let Some(bytes) = bytes {
                exposition::gauge(&mut family, &labels.pairs_and("memory_type", memory_type), bytes)?;
            }
        }
    }
    Ok(())
}

fn encode_pods(table: &Table, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = families::POD.describe(page)?;
    for (pod, owner) in table.pods() {
        let [namespace, name] = pod.pairs();
        let labels = [namespace, name, ("owner_kind", &owner.kind), ("owner_name", &owner.name)];
        exposition::info(&mut family, &labels)?;
    }
    Ok(())
}

fn encode_memory(table: &Table, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut family = families::LAST_TIMESTAMP.describe(page)?;
    for (labels, last) in table.last_kills() {
        let seconds = last.time.as_millisecond() as f64 / 1000.0;
        exposition::gauge(&mut family, &labels.pairs(), seconds)?;
    }
    let mut family = families::MEMORY_USAGE.describe(page)?;
    for (labels, last) in table.last_kills() {
        for (memory_type, bytes) in MEMORY_TYPES.iter().zip(last.memory) {
            if let Some(bytes) = bytes {
                exposition::gauge(&mut family, &labels.pairs_and("memory_type", memory_type), bytes)?;
            }
        }
    }
    Ok(())
}

/// A figure of what ran out at the last kill; its label says whose it is.
fn encode_last(
    table: &Table,
    page: &mut DescriptorEncoder<'_>,
    family: &Family,
    figure: impl Fn(&LastKill) -> Option<u64>,
) -> fmt::Result {
    let mut samples = family.describe(page)?;
    for (labels, last) in table.last_kills() {
        if let Some(bytes) = figure(last) {
            exposition::gauge(&mut samples, &labels.pairs_and("scope", families::scope_label(last.scope)), bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
