//! From the kernel's hook to the line, and to /metrics; the same kills seen by a loop that polls; and what a kill costs in
//! the kernel.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Programs,
    agent::Watcher,
    kills::{self, Cgroup, Load},
    machine, quantile,
};

/// The CPU that watches; the other one has the kills of half of the cases.
const WATCHER: usize = 0;
const OTHER: usize = 1;
/// Where the kernel counts runs of its programs.
const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// One case: what the machine does meanwhile, and where the kill happens.
struct Case {
    name: &'static str,
    loaded: bool,
    cpu: usize,
    line: Vec<f64>,
    metrics: Vec<f64>,
    polling: Vec<f64>,
}

/// Every case in turn, again and again: what the machine does to one it does to all.
pub(super) fn measure(programs: &Programs, kills: usize) -> Result<Value> {
    let case = |name, loaded, cpu| Case { name, loaded, cpu, line: vec![], metrics: vec![], polling: vec![] };
    let mut cases = [
        case("idle, another CPU", false, OTHER),
        case("idle, same CPU", false, WATCHER),
        case("loaded, another CPU", true, OTHER),
        case("loaded, same CPU", true, WATCHER),
    ];
    ensure!(std::thread::available_parallelism()?.get() > OTHER, "two CPUs are needed");
    let cgroup = Cgroup::of(0)?;
    let links = kills::links(0)?.display().to_string();
    let agent = Watcher::agent_with(&programs.agent, Some(WATCHER), &["--container-log-dir", &links], &[])?;
    let polling = Watcher::polling(&programs.benches, Some(WATCHER))?;
    let mut killed = 0;
    for _ in 0..kills {
        for case in &mut cases {
            let load = if case.loaded { Some(Load::new()?) } else { None };
            cgroup.kill(case.cpu)?;
            killed += 1;
            let line = agent.latency_ms()?;
            case.line.push(line);
            case.metrics.push(line + until_counted(&agent, killed)?);
            case.polling.push(polling.latency_ms()?);
            drop(load);
        }
    }
    drop(polling);
    let kernel = kernel_cost(&agent, &cgroup)?;
    Ok(json!({ "cases": cases.iter_mut().map(figures).collect::<Result<Vec<_>>>()?, "kernel": kernel }))
}

/// Milliseconds from the line to a page of /metrics that counts the kill.
fn until_counted(agent: &Watcher, killed: u64) -> Result<f64> {
    let started = std::time::Instant::now();
    loop {
        let page = agent.scrape()?;
        let own = |line: &&str| line.starts_with("oom_kills_total{") && line.contains("\"web-0\"");
        let counted = page.lines().find(own).and_then(|line| line.rsplit(' ').next());
        if counted.context("the page does not have the container")? == killed.to_string() {
            return Ok(started.elapsed().as_secs_f64() * 1e3);
        }
    }
}

fn figures(case: &mut Case) -> Result<Value> {
    let both = |values: &mut [f64]| -> Result<Value> {
        Ok(json!({ "median_ms": quantile(values, 0.5)?, "p99_ms": quantile(values, 0.99)? }))
    };
    Ok(json!({
        "case": case.name,
        "kills": case.line.len(),
        "line": both(&mut case.line)?,
        "metrics": both(&mut case.metrics)?,
        "polling_100_ms": both(&mut case.polling)?,
    }))
}

/// Time that the kernel programs run while processes are killed, by the kernel's own statistics; others' kills are kills, too.
fn kernel_cost(agent: &Watcher, cgroup: &Cgroup) -> Result<Value> {
    const KILLS: u64 = 50;
    let before = fs::read_to_string(STATS).context("cannot read kernel.bpf_stats_enabled")?;
    fs::write(STATS, "1").context("cannot set kernel.bpf_stats_enabled")?;
    let ran = || -> Result<_> {
        let (killed, programs) = (machine::kills()?, agent.programs()?);
        for _ in 0..KILLS {
            cgroup.kill(OTHER)?;
        }
        Ok((machine::kills()? - killed, programs, agent.programs()?))
    };
    let ran = ran();
    fs::write(STATS, before.trim()).context("cannot set kernel.bpf_stats_enabled back")?;
    let (kills, before, after) = ran?;
    let per_kill = before.iter().zip(&after).map(|(before, after)| {
        let (runs, ns) = (after.runs - before.runs, after.ns - before.ns);
        json!({
            "program": after.name,
            "runs": runs,
            "ns_per_run": ns as f64 / runs.max(1) as f64,
            "ns_per_kill": ns as f64 / kills.max(1) as f64,
        })
    });
    Ok(json!({ "kills": kills, "programs": per_kill.collect::<Vec<_>>() }))
}
