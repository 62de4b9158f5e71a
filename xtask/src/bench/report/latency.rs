//! What docs/performance.md says of latency, and of the kernel's part in it.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::value::{grouped, list, number, samples, significant, string};
use crate::bench::statistics::quantile;

/// What one kind of latency of a case is, in milliseconds; each of the cases has three.
pub(super) const LINE: &str = "line_us";
const METRICS: &str = "metrics_us";
const POLLING: &str = "polling_100_ms_us";

/// A quantile, in milliseconds.
pub(super) fn ms(case: &Value, what: &str, share: f64) -> Result<f64> {
    Ok(quantile(&samples(&case[what])?, share)? / 1e3)
}

/// The case of that name.
pub(super) fn case<'a>(results: &'a Value, name: &str) -> Result<&'a Value> {
    let cases = list(&results["latency"]["cases"])?;
    cases.iter().find(|case| case["case"] == name).with_context(|| format!("no case {name:?}"))
}

/// How many times sooner the agent's line comes than that of the loop that polls, by medians.
pub(super) fn ahead(case: &Value) -> Result<f64> {
    Ok(ms(case, POLLING, 0.5)? / ms(case, LINE, 0.5)?)
}

pub(super) fn table(results: &Value) -> Result<String> {
    let head = "median | p99 | max";
    let mut text = format!(
        "| | kills | line: {head} | /metrics: {head} | polling: {head} | times ahead |\n\
         |---|{}--:|\n",
        "--:|".repeat(10)
    );
    for case in list(&results["latency"]["cases"])? {
        let mut cells = Vec::new();
        for (what, decimals) in [(LINE, 2), (METRICS, 2), (POLLING, 1)] {
            for share in [0.5, 0.99, 1.0] {
                cells.push(format!("{:.decimals$} ms", ms(case, what, share)?));
            }
        }
        let (name, kills) = (string(&case["case"])?, list(&case[LINE])?.len());
        writeln!(text, "| {name} | {kills} | {} | {} |", cells.join(" | "), significant(ahead(case)?))?;
    }
    Ok(text)
}

/// One line for each case, from quantile to quantile.
pub(super) fn plot(results: &Value) -> Result<String> {
    const SHARES: [f64; 4] = [0.5, 0.9, 0.99, 1.0];
    let mut lines = Vec::new();
    for case in list(&results["latency"]["cases"])? {
        let line = SHARES.iter().map(|share| ms(case, LINE, *share)).collect::<Result<Vec<_>>>()?;
        lines.push((string(&case["case"])?, line));
    }
    lines.sort_by(|(_, one), (_, other)| one[2].total_cmp(&other[2]));
    let top = lines.iter().flat_map(|(_, line)| line).copied().fold(0.0, f64::max) * 1.1;
    let mut text = String::from("```mermaid\nxychart-beta\n    title \"ms from the kernel's hook to the line\"\n");
    writeln!(text, "    x-axis [median, \"90 %\", \"99 %\", max]\n    y-axis 0 --> {top:.0}")?;
    for (_, line) in &lines {
        let points: Vec<_> = line.iter().map(|ms| format!("{ms:.2}")).collect();
        writeln!(text, "    line [{}]", points.join(", "))?;
    }
    let names: Vec<_> = lines.iter().map(|(name, _)| *name).collect();
    writeln!(text, "```\n\nThe lines, from the lowest at 99 %: {}.", names.join("; "))?;
    Ok(text)
}

pub(super) fn kernel(results: &Value) -> Result<String> {
    let kernel = &results["latency"]["kernel"];
    let mut text = String::from("| program | runs | ns a run | ns on each occasion |\n|---|--:|--:|--:|\n");
    for (what, programs, occasions, share) in [
        ("kill", "programs", "kills", "ns_per_kill"),
        ("unrelated signal, which is ignored", "of_signals", "signals", "ns_per_signal"),
    ] {
        let (mut all, occasions) = (0.0, grouped(number(&kernel[occasions])?));
        for program in list(&kernel[programs])? {
            let [run, ns] = ["ns_per_run", share].map(|ns| number(&program[ns]));
            let (run, ns) = (run?, ns?);
            all += ns;
            let runs = grouped(number(&program["runs"])?);
            writeln!(text, "| `{}` | {runs} | {run:.0} | {ns:.0} |", string(&program["program"])?)?;
        }
        writeln!(text, "| **one {what}**, of {occasions} | | | **{all:.0}** |")?;
    }
    Ok(text)
}

/// Instructions that verifiers went through: of this machine and of the guests.
pub(super) fn verified(results: &Value) -> Result<String> {
    const HOOKS: [&str; 4] = ["mark_victim", "signal_generate", "out_of_memory", "memory_max_write"];
    let mut text = format!("| kernel | {} |\n|---|--:|--:|--:|--:|\n", HOOKS.join(" | "));
    let mut row = |kernel: &str, count: &dyn Fn(&str) -> Option<f64>| {
        let cells = HOOKS.map(|hook| count(hook).map_or_else(|| "–".to_owned(), grouped));
        writeln!(text, "| {kernel} | {} |", cells.join(" | "))
    };
    let own = &results["counts"];
    let kernel = string(&results["machine"]["kernel"])?;
    row(&format!("{kernel} (this machine)"), &|hook| own[format!("verified_instructions_{hook}")].as_f64())?;
    for guest in list(&results["verified"])? {
        let kernel = format!("{}, {}", string(&guest["kernel"])?, string(&guest["guest"])?);
        row(&kernel, &|hook| guest["hooks"][hook].as_f64())?;
    }
    Ok(text)
}
