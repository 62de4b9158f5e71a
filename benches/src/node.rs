//! A node with some containers, and the agent's parts as `oom_watcher::run` puts them together.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result, bail};
use jiff::SignedDuration;
use oom_watcher::{
    assemble::{self, NodeNames},
    attribute::{Attributed, Outcome, Resolver, Sources},
    cgroup::{self, identify},
    config::MetricsConfig,
    decode::{Decoder, Record},
    exposition::Exposition,
    incident::{Assembler, Member},
    names::{Limits, Names, Scanner, link},
    report::OomReport,
    scope::{self, Decision, PageCounters},
    sinks::{json, metrics::KillMetrics},
    telemetry::Telemetry,
};

use crate::recorded::{POD_UID, container_id};

/// Name of the node.
const NAME: &str = "bench-node";

/// What the pipeline is made of, stage by stage.
pub(crate) struct Node {
    decoder: Decoder,
    assembler: Assembler,
    resolver: Arc<Resolver>,
    names: NodeNames,
    tree: cgroup::Node,
    pub(crate) metrics: Arc<KillMetrics>,
    telemetry: Arc<Telemetry>,
}

impl Node {
    /// A node whose index knows `containers`; `zero_series` of them have their series.
    pub(crate) fn new(containers: usize, max_series: usize) -> Result<Self> {
        let telemetry = Arc::new(Telemetry::new());
        let config = MetricsConfig {
            address: None,
            port: 0,
            zero_series: true,
            max_series,
            series_retention: std::time::Duration::from_hours(1),
        };
        let names = Names::new(Limits::default());
        let metrics = Arc::new(KillMetrics::new(&config, Arc::clone(&telemetry)).following(names.clone()));
        for number in 0..containers {
            know(&names, number).with_context(|| format!("container {number} has no name"))?;
        }
        metrics.catch_up(Instant::now());
        let scanner = Arc::new(Scanner::new("/nonexistent", names));
        Ok(Self {
            decoder: Decoder {
                page_size: 4096,
                possible_cpus: 2,
                swap_is_separate: false,
                boot_to_wall: SignedDuration::from_secs(1_700_000_000),
            },
            assembler: Assembler::default(),
            resolver: Resolver::new(scanner, Sources::default()),
            names: NodeNames { node: NAME.to_owned(), boot: "00000000".to_owned() },
            tree: cgroup::Node::default(),
            metrics,
            telemetry,
        })
    }

    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Record> {
        Ok(self.decoder.decode(bytes)?)
    }

    pub(crate) fn assemble(&mut self, record: Record) -> Vec<Member> {
        match record {
            Record::Kill(kill) => self.assembler.kill(kill, Instant::now()),
            Record::IncidentEnd(end) => self.assembler.end(&end),
        }
    }

    pub(crate) fn attribute(&self, member: &Member) -> Result<(Decision, Attributed)> {
        let levels = member.kill.cgroup.as_ref().map(|cgroup| cgroup.levels.as_slice()).unwrap_or_default();
        let segments: Vec<&str> = levels.iter().map(|level| level.name.as_str()).collect();
        let identity = identify(&segments, &self.tree);
        let counters = PageCounters { page_size: self.decoder.page_size, cpus: u64::from(self.decoder.possible_cpus) };
        let decision = scope::decide(&identity, levels, assemble::oom_memcg(&member.kill), counters);
        match self.resolver.attribute(&identity) {
            Outcome::Done(who) => Ok((decision, who)),
            Outcome::Pending(pending) => bail!("the index does not know {pending:?}"),
        }
    }

    pub(crate) fn report(&self, member: Member, decision: Decision, who: Attributed) -> OomReport {
        assemble::report(&self.names, member, decision, who)
    }

    pub(crate) fn observe(&self, report: &OomReport) {
        self.metrics.observe(report, Instant::now());
    }

    pub(crate) fn line(report: &OomReport) -> Result<String> {
        Ok(json::line(report)?)
    }

    /// The page of /metrics.
    pub(crate) fn exposition(&self) -> Exposition {
        Exposition::new(NAME, Arc::clone(&self.metrics), Arc::clone(&self.telemetry))
    }
}

/// Puts the link of a container into the index, as a scan of the directory does.
fn know(names: &Names, number: usize) -> Option<()> {
    let file = format!("web-{number}_shop_app-{}.log", container_id(number));
    let target = format!("/var/log/pods/shop_web-{number}_{POD_UID}/app/0.log");
    let (key, link) = (link::key(&file)?, link::parse(&file, Some(&target))?);
    names.with(|index| index.apply(key, link, Instant::now()));
    Some(())
}
