//! What docs/performance.md says of the pipeline's stages, and how they grow.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    tables::plot,
    value::{grouped, list, number, ranged, samples, spread, string},
};
use crate::bench::statistics::Spread;

/// The run that the page shows: so many kills, 500 containers.
const SHOWN: u64 = 10_000;

pub(super) fn table(results: &Value) -> Result<String> {
    let run = by(results, "by_kills", "kills", SHOWN)?;
    let mut text = String::from("| stage | time | allocations | bytes allocated |\n|---|--:|--:|--:|\n");
    let mut total = [0.0; 2];
    for stage in list(&run["stages"])? {
        let row = [number(&stage["allocations"])?, number(&stage["allocated_bytes"])?];
        let time = ranged(spread(&stage["ns"])?, "ns", 0);
        writeln!(text, "| {} | {time} | {:.1} | {:.0} |", string(&stage["stage"])?, row[0], row[1])?;
        total.iter_mut().zip(row).for_each(|(total, value)| *total += value);
    }
    let ([allocations, bytes], ns) = (total, kill_ns(results)?);
    writeln!(text, "| **a kill** | **{ns:.0} ns** | **{allocations:.1}** | **{bytes:.0}** |")?;
    Ok(text)
}

/// All stages of one kill, in the run that the page shows.
pub(super) fn kill_ns(results: &Value) -> Result<f64> {
    all(by(results, "by_kills", "kills", SHOWN)?)
}

/// Kills that the stages would take in a second on one CPU, in thousands that are full.
pub(super) fn per_second(results: &Value) -> Result<String> {
    Ok(grouped((1e9 / kill_ns(results)? / 1e3).floor() * 1e3))
}

fn all(run: &Value) -> Result<f64> {
    list(&run["stages"])?.iter().map(|stage| Ok(spread(&stage["ns"])?.median)).sum()
}

pub(super) fn by_containers(results: &Value) -> Result<String> {
    sizes(results, "by_containers", "containers")
}

pub(super) fn by_kills(results: &Value) -> Result<String> {
    sizes(results, "by_kills", "kills")
}

/// A row for each run, a column for each stage, and a plot of the whole.
fn sizes(results: &Value, runs: &str, what: &str) -> Result<String> {
    let runs = list(&results["stages"][runs])?;
    let first = list(&runs.first().context("no run")?["stages"])?;
    let names = first.iter().map(|stage| string(&stage["stage"])).collect::<Result<Vec<_>>>()?;
    let mut text = format!("| {what} | {} | all |\n|--:|{}--:|\n", names.join(" | "), "--:|".repeat(names.len()));
    let mut totals = Vec::new();
    for run in runs {
        let time = |stage: &Value| Ok(format!("{:.0} ns", spread(&stage["ns"])?.median));
        let cells = list(&run["stages"])?.iter().map(time).collect::<Result<Vec<_>>>()?;
        let total = all(run)?;
        writeln!(text, "| {} | {} | {total:.0} ns |", run[what], cells.join(" | "))?;
        totals.push((run[what].to_string(), total));
    }
    Ok(text + "\n" + &plot(&format!("ns per kill, by {what}"), &totals))
}

/// The run with so many.
fn by<'a>(results: &'a Value, runs: &str, what: &str, count: u64) -> Result<&'a Value> {
    let runs = list(&results["stages"][runs])?;
    runs.iter().find(|run| run[what] == count).with_context(|| format!("no run with {count} {what}"))
}

/// The stage whose time grows most from 10 to 10 000 containers, and by which factor in each round.
pub(super) fn by_more_containers(results: &Value) -> Result<(&str, Spread)> {
    let at = |containers| by(results, "by_containers", "containers", containers);
    worst(at(10)?, at(10_000)?)
}

/// The same from 10 000 to 100 000 kills. Not from 1 000: there the caches are cold, and anything would be faster later.
pub(super) fn by_more_kills(results: &Value) -> Result<(&str, Spread)> {
    let at = |kills| by(results, "by_kills", "kills", kills);
    worst(at(10_000)?, at(100_000)?)
}

/// How the instructions of attribution grow from 10 to 10 000 containers.
pub(super) fn attribution_instructions(results: &Value) -> Result<f64> {
    let among =
        |containers: u64| number(&results["counts"][format!("instructions_per_attribution_among_{containers}")]);
    Ok(among(10_000)? / among(10)?)
}

/// How its time does.
pub(super) fn attribution(results: &Value) -> Result<Spread> {
    let at = |containers| -> Result<&Value> {
        let stages = list(&by(results, "by_containers", "containers", containers)?["stages"])?;
        stages.iter().find(|stage| stage["stage"] == "attribute").context("no stage attribute")
    };
    factor(at(10)?, at(10_000)?)
}

/// The stage that became slowest by its own measure; that of the largest median, so that one bad round of another does not choose.
fn worst<'a>(few: &'a Value, many: &Value) -> Result<(&'a str, Spread)> {
    let (few, many) = (list(&few["stages"])?, list(&many["stages"])?);
    ensure!(few.len() == many.len(), "the runs have other stages");
    let mut stages = Vec::new();
    for (few, many) in few.iter().zip(many) {
        stages.push((string(&few["stage"])?, factor(few, many)?));
    }
    stages.into_iter().max_by(|(_, one), (_, other)| one.median.total_cmp(&other.median)).context("no stages")
}

/// By how much more time a stage takes, round by round: what disturbs a round disturbs both.
fn factor(few: &Value, many: &Value) -> Result<Spread> {
    let (few, many) = (samples(&few["ns"])?, samples(&many["ns"])?);
    ensure!(few.len() == many.len(), "the runs have other rounds");
    Spread::of(&few.iter().zip(many).map(|(few, many)| many / few).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn growth_is_that_of_the_worst_stage_round_by_round() {
        let run = |containers: u64, a: [f64; 3], b: [f64; 3]| json!({ "containers": containers, "stages": [{ "stage": "a", "ns": a }, { "stage": "b", "ns": b }] });
        let few = run(10, [1.0, 1.0, 1.0], [5.0, 10.0, 5.0]);
        let many = run(10_000, [1.0, 9.0, 1.0], [25.0, 50.0, 30.0]);
        let results = json!({ "stages": { "by_containers": [few, many] } });
        let (stage, growth) = by_more_containers(&results).unwrap();
        assert_eq!((stage, growth), ("b", Spread { median: 5.0, min: 5.0, max: 6.0 }));
    }
}
