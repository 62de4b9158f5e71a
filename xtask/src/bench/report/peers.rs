//! The tables of this watcher beside others.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::value::{MB, list, number, significant, string};

/// How processes are killed, and what it is called.
const KILLS: [(&str, &str); 3] = [("alone", "one kill"), ("group", "a group"), ("at_once", "many at once")];

/// What every watcher told of kills, and when; times are divided by those of the agent, which is the first.
pub(super) fn latency(results: &Value) -> Result<String> {
    let peers = &results["peers"];
    let mut text = format!(
        "| | one kill: told | median | p99 | group of {burst}: told | median | p99 | {burst} at once: told | median | p99 |\n\
         |---|{}\n",
        "--:|".repeat(9),
        burst = peers["burst"],
    );
    let own = own(peers)?;
    for watcher in list(&peers["watchers"])? {
        let name = string(&watcher["name"])?;
        if let Some(reason) = watcher["refused"].as_str() {
            writeln!(text, "| {name} | did not run: {reason} {}|", "| ".repeat(8))?;
            continue;
        }
        let mut cells = Vec::new();
        for (what, _) in KILLS {
            let told = &watcher[what];
            cells.push(format!("{} of {}", told["told"], told["victims"]));
            cells.push(match (told["median_ms"].as_f64(), own[what]["median_ms"].as_f64()) {
                (Some(ms), Some(own)) if ms > 0.0 => format!("{} ms ({} ×)", significant(ms), significant(ms / own)),
                // Told before the mark that times count from: nothing to divide.
                (Some(ms), _) => format!("{} ms", significant(ms)),
                _ => "–".to_owned(),
            });
            cells.push(told["p99_ms"].as_f64().map_or("–".to_owned(), |ms| format!("{} ms", significant(ms))));
        }
        writeln!(text, "| {name} | {} |", cells.join(" | "))?;
    }
    Ok(text)
}

/// Who told sooner than the agent, by medians.
pub(super) fn sooner(results: &Value) -> Result<String> {
    let own = own(&results["peers"])?;
    let mut sentences = Vec::new();
    for (what, title) in KILLS {
        let limit = number(&own[what]["median_ms"])?;
        let mut names = Vec::new();
        for watcher in list(&results["peers"]["watchers"])? {
            if watcher[what]["median_ms"].as_f64().is_some_and(|ms| ms < limit) {
                names.push(string(&watcher["name"])?);
            }
        }
        let names = if names.is_empty() { "nobody".to_owned() } else { names.join("; ") };
        sentences.push(format!("- of {title}: {names}"));
    }
    Ok(format!("Sooner than the agent, by the median of what each told:\n\n{}\n", sentences.join("\n")))
}

/// What every watcher takes.
pub(super) fn cost(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| | resident | PSS | start | CPU time of the start | wake-ups in 10 s | CPU time in 10 s |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
    );
    for watcher in list(&results["peers"]["watchers"])? {
        if watcher["refused"].is_string() {
            continue;
        }
        let idle = &watcher["idle"];
        let in_ten = 10.0 / number(&idle["seconds"])?;
        writeln!(
            text,
            "| {} | {:.1} MB | {:.1} MB | {:.1} s | {:.1} s | {:.0} | {:.1} ms |",
            string(&watcher["name"])?,
            number(&watcher["memory"]["rss_kib"])? * MB,
            number(&watcher["memory"]["pss_kib"])? * MB,
            number(&watcher["start"]["ms"])? / 1e3,
            number(&watcher["start"]["cpu_ms"])? / 1e3,
            number(&idle["switches"])? * in_ten,
            number(&idle["cpu_us"])? * in_ten / 1e3,
        )?;
    }
    Ok(text)
}

/// The agent.
fn own(peers: &Value) -> Result<&Value> {
    list(&peers["watchers"])?.first().context("no watcher")
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
