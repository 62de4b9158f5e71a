//! The table of this watcher beside others.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::value::{list, mib, number, string};

/// Every watcher, and what it is beside the agent, which is the first.
pub(super) fn table(results: &Value) -> Result<String> {
    let peers = &results["peers"];
    let mut text = format!(
        "| | one kill: told | line: median | p99 | group of {burst}: told | {burst} at once: told | resident | PSS | start | \
         of it CPU | wake-ups in 10 s | CPU in 10 s |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        burst = peers["burst"]
    );
    let own = list(&peers["watchers"])?.first().context("no watcher")?;
    for watcher in list(&peers["watchers"])? {
        let name = string(&watcher["name"])?;
        if let Some(reason) = watcher["refused"].as_str() {
            writeln!(text, "| {name} | did not run: {reason} {}|", "| ".repeat(10))?;
            continue;
        }
        writeln!(text, "| {name} | {} |", row(watcher, own)?.join(" | "))?;
    }
    Ok(text)
}

fn row(watcher: &Value, own: &Value) -> Result<Vec<String>> {
    let told =
        |what: &str| Ok::<_, anyhow::Error>(format!("{} of {}", watcher[what]["told"], watcher[what]["victims"]));
    let median = |of: &Value| of["alone"]["median_ms"].as_f64();
    let latency = match (median(watcher), median(own)) {
        (Some(ms), Some(own)) => format!("{ms:.1} ms ({:.1} ×)", ms / own),
        _ => "–".to_owned(),
    };
    let idle = &watcher["idle"];
    let in_ten = 10.0 / number(&idle["seconds"])?;
    Ok(vec![
        told("alone")?,
        latency,
        watcher["alone"]["p99_ms"].as_f64().map_or("–".to_owned(), |ms| format!("{ms:.1} ms")),
        told("group")?,
        told("at_once")?,
        format!("{:.1} MiB", mib(&watcher["memory"]["rss_kib"])?),
        format!("{:.1} MiB", mib(&watcher["memory"]["pss_kib"])?),
        format!("{:.1} s", number(&watcher["start"]["ms"])? / 1e3),
        format!("{:.1} s", number(&watcher["start"]["cpu_ms"])? / 1e3),
        format!("{:.0}", number(&idle["switches"])? * in_ten),
        format!("{:.1} ms", number(&idle["cpu_us"])? * in_ten / 1e3),
    ])
}

/// What ran where.
pub(super) fn versions(results: &Value) -> Result<String> {
    let peers = &results["peers"];
    let packages = peers["packages"].as_object().context("no packages")?;
    let packages: Vec<String> =
        packages.iter().map(|(name, version)| Ok(format!("{name} {}", string(version)?))).collect::<Result<_>>()?;
    Ok(format!(
        "Guest: Linux {}, {} CPUs, {} MiB; Debian's {}. {} kills one at a time.\n",
        string(&peers["kernel"])?,
        peers["cpus"],
        peers["memory_mib"],
        packages.join(", "),
        peers["kills"]
    ))
}
