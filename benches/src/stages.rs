//! Time and allocations of each stage, for one kill, from the recorded bytes to the line.
//!
//! Stages run one after the other over a batch, so that each is measured alone; the medians are over batches, of CPU time.

use anyhow::Result;
use serde::Serialize;
use stats_alloc::Region;

use crate::{ALLOCATOR, cpu_ns, node::Node, recorded::Recorded};

/// Kills of one batch.
const BATCH: usize = 1000;

/// How much is replayed.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Kills
    #[arg(long, default_value_t = 20_000)]
    kills: usize,
    /// Containers whose names are known
    #[arg(long, default_value_t = 500)]
    containers: usize,
}

/// What is replayed for callgrind.
#[derive(clap::Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    of: Options,
    /// How often each kill is attributed: what two counts differ by is what that takes
    #[arg(long, default_value_t = 1)]
    attributions: usize,
}

/// What one stage takes for one kill.
#[derive(Serialize)]
struct Stage {
    #[serde(rename = "stage")]
    name: &'static str,
    /// Median over the batches.
    ns: f64,
    allocations: f64,
    allocated_bytes: f64,
}

#[derive(Serialize)]
pub(crate) struct Throughput {
    containers: usize,
    kills: usize,
    stages: Vec<Stage>,
}

/// Figures of one stage, batch by batch.
struct Meter {
    stage: &'static str,
    ns: Vec<f64>,
    allocations: usize,
    bytes: usize,
}

impl Meter {
    fn new(stage: &'static str) -> Self {
        Self { stage, ns: Vec::new(), allocations: 0, bytes: 0 }
    }

    /// Runs one stage over a batch.
    fn measure<T, U>(&mut self, inputs: Vec<T>, mut step: impl FnMut(T) -> Result<U>) -> Result<Vec<U>> {
        let mut outputs = Vec::with_capacity(inputs.len());
        let region = Region::new(ALLOCATOR);
        let started = cpu_ns();
        for input in inputs {
            outputs.push(step(input)?);
        }
        let ran = cpu_ns() - started;
        let change = region.change();
        self.ns.push(ran / outputs.len() as f64);
        self.allocations += change.allocations + change.reallocations;
        self.bytes += change.bytes_allocated;
        Ok(outputs)
    }

    fn result(mut self, kills: usize) -> Stage {
        self.ns.sort_by(f64::total_cmp);
        Stage {
            name: self.stage,
            ns: self.ns[self.ns.len() / 2],
            allocations: self.allocations as f64 / kills as f64,
            allocated_bytes: self.bytes as f64 / kills as f64,
        }
    }
}

/// Measures every stage.
pub(crate) fn run(options: &Options) -> Result<Throughput> {
    let mut node = Node::new(options.containers, 5000)?;
    let mut recorded = Recorded::new()?;
    let [mut decode, mut incident, mut attribute, mut report, mut metrics, mut line] =
        ["decode", "incident", "attribute", "report", "metrics", "line"].map(Meter::new);
    let batches = options.kills.div_ceil(BATCH);
    for batch in 0..batches {
        let bytes: Vec<Vec<u8>> =
            (0..BATCH).map(|kill| recorded.next((batch * BATCH + kill) % options.containers).to_vec()).collect();
        let records = decode.measure(bytes.iter().collect(), |bytes| node.decode(bytes))?;
        let members: Vec<_> =
            incident.measure(records, |record| Ok(node.assemble(record)))?.into_iter().flatten().collect();
        let who = attribute.measure(members.iter().collect(), |member| node.attribute(member))?;
        let pairs = members.into_iter().zip(who).collect();
        let reports = report.measure(pairs, |(member, (scope, who))| Ok(node.report(member, scope, who)))?;
        metrics.measure(reports.iter().collect(), |report| {
            node.observe(report);
            Ok(())
        })?;
        line.measure(reports.iter().collect(), Node::line)?;
    }
    let kills = batches * BATCH;
    let stages = [decode, incident, attribute, report, metrics, line].into_iter().map(|meter| meter.result(kills));
    Ok(Throughput { containers: options.containers, kills, stages: stages.collect() })
}

/// Every kill through all stages, one by one.
pub(crate) fn replay(options: &Replay) -> Result<()> {
    let Options { kills, containers } = options.of;
    let mut node = Node::new(containers, 5000)?;
    let mut recorded = Recorded::new()?;
    for kill in 0..kills {
        one(&mut node, recorded.next(kill % containers), options.attributions)?;
    }
    Ok(())
}

/// One kill through all stages, and through one of them so many times.
pub(crate) fn one(node: &mut Node, bytes: &[u8], attributions: usize) -> Result<()> {
    let record = node.decode(bytes)?;
    for member in node.assemble(record) {
        for _ in 1..attributions {
            std::hint::black_box(node.attribute(&member)?);
        }
        let (decision, who) = node.attribute(&member)?;
        let report = node.report(member, decision, who);
        node.observe(&report);
        std::hint::black_box(Node::line(&report)?);
    }
    Ok(())
}
