//! Metric families as data, and the page that shows them.
//!
//! Each family is declared once as a [`Family`]: what is encoded and what `docs/metrics.md` says come from the same line.
//! This module knows no family; [`crate::telemetry`] and [`crate::sinks::metrics`] own theirs.

use std::{borrow::Cow, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, MetricEncoder, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use crate::{
    sinks::metrics::{self, KillMetrics},
    telemetry::{self, Telemetry},
};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One metric family.
#[derive(Debug)]
pub struct Family {
    /// Name without the unit and without the suffix of its kind.
    pub name: &'static str,
    /// Kind.
    pub kind: MetricType,
    /// Unit, which ends the name.
    pub unit: Option<Unit>,
    /// Names of its labels, in order.
    pub labels: &'static [&'static str],
    /// What a value means.
    pub help: &'static str,
    /// When there is no series.
    pub absent: &'static str,
}

impl Family {
    /// The name that a query uses.
    pub fn exported_name(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        let suffix = match self.kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            _ => "",
        };
        format!("{}{unit}{suffix}", self.name)
    }

    /// Writes the head of the family; its samples follow on what is returned.
    pub(crate) fn describe<'a>(&'a self, page: &'a mut DescriptorEncoder<'_>) -> Result<MetricEncoder<'a>, fmt::Error> {
        page.encode_descriptor(self.name, self.help, self.unit.as_ref(), self.kind)
    }
}

/// Writes one sample of a counter.
pub(crate) fn counter(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(family.encode_family(labels)?)
}

/// Writes one sample of a gauge.
pub(crate) fn gauge<V: EncodeGaugeValue>(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: V,
) -> fmt::Result {
    ConstGauge::new(value).encode(family.encode_family(labels)?)
}

/// Writes one sample of an info family.
pub(crate) fn info(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet) -> fmt::Result {
    family.encode_info(labels)
}

/// All that `/metrics` shows.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// The metrics of kills carry the node's name, the watcher's own do not.
    pub fn new(node: &str, kills: Arc<KillMetrics>, telemetry: Arc<Telemetry>) -> Self {
        let mut registry = Registry::default();
        registry
            .sub_registry_with_label((Cow::Borrowed("node"), Cow::Owned(node.to_owned())))
            .register_collector(Box::new(kills) as Box<dyn Collector>);
        // A registry of its own, because a registry shows what is directly in it first.
        registry.sub_registry_with_labels(std::iter::empty()).register_collector(Box::new(telemetry));
        Self { registry }
    }

    /// The page in the OpenMetrics text format.
    pub fn render(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// Every family, in the order of the documentation.
pub fn families() -> impl Iterator<Item = &'static Family> {
    metrics::FAMILIES.iter().chain(telemetry::FAMILIES).copied()
}

/// Each sample of `page` belongs to one of `families` and has exactly its labels, and each family has a sample.
/// `constant` is a label that the page adds to all of them; it is declared too.
#[cfg(test)]
#[track_caller]
pub(crate) fn check_page(families: &[&Family], page: &str, constant: &str) {
    let mut seen = std::collections::BTreeSet::new();
    for sample in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = sample.split_once(['{', ' ']).unwrap();
        let of_histogram = ["_sum", "_count", "_bucket"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let is = |family: &&&Family, name| family.exported_name() == name;
        let histogram = families.iter().find(|family| of_histogram.is_some_and(|name| is(family, name)));
        let family = histogram.or_else(|| families.iter().find(|family| is(family, name)));
        let family = family.unwrap_or_else(|| panic!("{name} is not declared"));
        let name = family.exported_name();
        // The bound of a bucket is a matter of the format.
        let labels =
            labels.split_once(',').filter(|(first, _)| first.starts_with("le=")).map_or(labels, |(_, rest)| rest);
        let shown: Vec<&str> = labels.split("=\"").map(|text| text.rsplit(['"', ',']).next().unwrap()).collect();
        assert_eq!(shown[..shown.len() - 1], *family.labels, "{sample}");
        assert!(constant.is_empty() || family.labels.contains(&constant), "{name}");
        seen.insert(name);
    }
    let declared = families.iter().map(|family| family.exported_name()).filter(|name| name != "oom_watcher_build_info");
    assert_eq!(seen, declared.collect());
}
