//! The tables of docs/performance.md, and the figures in its prose.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Figures, stages,
    value::{MB, grouped, list, number, spread, string},
};

pub(super) fn machine(results: &Value) -> Result<String> {
    let machine = &results["machine"];
    let text = |name: &str| string(&machine[name]);
    let mut text = format!(
        "Machine: {}, {} CPUs and {:.1} GB of memory{}, Linux {}, {}, commit {}. Load when it began {:.1}, when it ended {:.1}.\n",
        text("processor")?,
        machine["cpus"],
        number(&machine["memory_kib"])? * MB / 1e3,
        if machine["is_virtual"] == true { ", virtual" } else { "" },
        text("kernel")?,
        text("rustc")?,
        text("commit")?,
        number(&machine["load_at_start"])?,
        number(&machine["load_at_end"])?,
    );
    let mut apart = Vec::new();
    for (part, machine) in results["apart"].as_object().into_iter().flatten() {
        let [start, end] = ["load_at_start", "load_at_end"].map(|load| number(&machine[load]));
        apart.push(format!("{part} ({}, load {:.1} to {:.1})", string(&machine["commit"])?, start?, end?));
    }
    if !apart.is_empty() {
        writeln!(text, "\nMeasured apart, each by its commit and load: {}.", apart.join(", "))?;
    }
    Ok(text)
}

pub(super) fn growth(results: &Value) -> Result<String> {
    let points = |of: &str, kib: &dyn Fn(&Value) -> Result<f64>| {
        let point = |point: &Value| Ok((point["kills"].to_string(), kib(&point["rss_kib"])? * MB));
        list(&results["growth"][of]["points"])?.iter().map(point).collect::<Result<Vec<_>>>()
    };
    let replayed = points("replayed", &|rounds| Ok(spread(rounds)?.median))?;
    let agent = points("agent", &number)?;
    let replayed = plot("resident MB after so many replayed kills", &replayed);
    Ok(replayed + "\n" + &plot("resident MB of the agent after so many real kills", &agent))
}

pub(super) fn scrape(results: &Value) -> Result<String> {
    let mut text = String::from("| series about containers | time | bytes | allocations |\n|--:|--:|--:|--:|\n");
    for run in list(&results["scrape"])? {
        let (ns, allocations) = (number(&run["ns"])?, number(&run["allocations"])?);
        writeln!(text, "| {} | {:.2} ms | {} | {allocations:.0} |", run["series"], ns / 1e6, run["bytes"])?;
    }
    Ok(text)
}

pub(super) fn api(results: &Value) -> Result<String> {
    let mut text = String::from(
        "| kills | in pods | killed within | all told after | pods asked for | Events made | Events raised | bytes sent |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for run in list(&results["api"])? {
        let [seconds, told] = ["seconds", "told_after_seconds"].map(|name| number(&run[name]));
        let (seconds, told) = (seconds?, told?);
        let [kills, pods, get, post, patch, bytes] =
            ["kills", "pods", "get", "post", "patch", "request_bytes"].map(|name| &run[name]);
        writeln!(text, "| {kills} | {pods} | {seconds:.0} s | {told:.0} s | {get} | {post} | {patch} | {bytes} |")?;
    }
    Ok(text)
}

pub(super) fn sizes(results: &Value) -> Result<String> {
    let sizes = &results["sizes"];
    let commit = string(&results["image"]["commit"]).context("the image is of no commit")?;
    let image = format!("{:.2} MB (commit {commit:.12})", number(&results["image"]["compressed_bytes"])? / 1e6);
    let build = match results["cold_build"]["seconds"].as_f64() {
        Some(seconds) => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
        None => "not timed".to_owned(),
    };
    Ok(format!(
        "| agent | kernel program | image, compressed | packages of others in the agent | release build from nothing |\n\
         |--:|--:|--:|--:|--:|\n| {:.2} MB | {:.3} MB | {image} | {} | {build} |\n",
        number(&sizes["agent_bytes"])? / 1e6,
        number(&sizes["object_bytes"])? / 1e6,
        sizes["dependencies"],
    ))
}

/// What the prose names.
pub(super) fn figures(results: &Value) -> Result<Figures> {
    let records = |name: &str| Ok::<_, anyhow::Error>(grouped(number(&results["records"][name])?));
    let mut verified = 0.0;
    for (name, count) in results["counts"].as_object().context("no counts")? {
        verified += if name.starts_with("verified_instructions_") { number(count)? } else { 0.0 };
    }
    let (growing, grows) = stages::by_more_containers(results)?;
    Ok(vec![
        ("kill_bytes", records("kill")?),
        ("further_bytes", records("further")?),
        ("longest_bytes", records("longest")?),
        ("incident_end_bytes", records("incident_end")?),
        ("ring_header_bytes", records("ring_header")?),
        ("ring_buffer_kib", grouped(number(&results["records"]["ring_buffer"])? / 1024.0)),
        ("kills_held", records("kills_held")?),
        ("further_held", records("further_held")?),
        ("instructions_per_kill", grouped(number(&results["counts"]["instructions_per_kill"])?)),
        ("verified_here", grouped(verified)),
        ("settled_seconds", results["standing"]["settled_seconds"].to_string()),
        ("memory_rounds", list(&results["standing"]["standalone"]["peak_kib"])?.len().to_string()),
        ("stage_rounds", list(&results["stages"]["by_kills"][0]["stages"][0]["ns"])?.len().to_string()),
        ("per_second", stages::per_second(results)?),
        ("growing_stage", growing.to_owned()),
        ("growing_factor", format!("{:.1} × ({:.1}–{:.1})", grows.median, grows.min, grows.max)),
        ("known_containers", results["standing"]["known_containers"].to_string()),
    ])
}

/// A line from point to point, drawn by whatever shows the page.
pub(super) fn plot(title: &str, points: &[(String, f64)]) -> String {
    let (names, values): (Vec<_>, Vec<_>) =
        points.iter().map(|(name, value)| (name.clone(), format!("{value:.1}"))).unzip();
    let top = points.iter().map(|point| point.1).fold(0.0, f64::max) * 1.2;
    format!(
        "```mermaid\nxychart-beta\n    title \"{title}\"\n    x-axis [{}]\n    y-axis 0 --> {top:.0}\n    line [{}]\n```\n",
        names.join(", "),
        values.join(", ")
    )
}
