//! What the agent takes while nothing happens: memory, wake-ups and CPU; and how long it takes to start.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Programs, agent::Watcher, api, kills, quantile};
use crate::process;

/// Containers of a large node.
const CONTAINERS: usize = 500;
/// Starts, and drills, of one figure.
const STARTS: usize = 15;
const DRILLS: usize = 5;
/// How long after the start memory is looked at: the first tick is over.
const SETTLED: Duration = Duration::from_secs(12);

/// Every figure of this module.
pub(super) fn measure(programs: &Programs, seconds: u64) -> Result<Value> {
    let links = kills::links(CONTAINERS)?;
    let kubeconfig = links.with_file_name("kubeconfig");
    // Nothing listens there: the API is asked at the first kill only.
    api::write_kubeconfig(&kubeconfig, "127.0.0.1:1")?;
    let containers = ["--container-log-dir", &links.display().to_string()];
    let everything = [&containers[..], &["--kubernetes-enrichment", "true", "--kubernetes-events", "true"]].concat();
    let idle = |arguments: &[&str]| memory_and_idle(programs, &kubeconfig, arguments, seconds);
    Ok(json!({
        "start": start(programs)?,
        "standalone": idle(&[])?,
        "containers": idle(&containers)?,
        "everything": idle(&everything)?,
    }))
}

fn start(programs: &Programs) -> Result<Value> {
    let mut starts = Vec::new();
    let mut drills = Vec::new();
    for round in 0..STARTS {
        starts.push(Watcher::agent(&programs.agent, None)?.started_in.as_secs_f64() * 1e3);
        if round < DRILLS {
            let started = Instant::now();
            process::output(Command::new(&programs.agent).arg("drill"))?;
            drills.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(json!({
        "exec_to_attached_median_ms": quantile(&mut starts, 0.5)?,
        "exec_to_attached_min_ms": quantile(&mut starts, 0.0)?,
        "drill_median_ms": quantile(&mut drills, 0.5)?,
    }))
}

fn memory_and_idle(programs: &Programs, kubeconfig: &Path, arguments: &[&str], seconds: u64) -> Result<Value> {
    let agent = Watcher::agent_with(&programs.agent, None, arguments, &[("KUBECONFIG", kubeconfig)])?;
    thread::sleep(SETTLED);
    let steady = memory(&agent)?;
    let (switches, ns) = agent.switches_and_ns()?;
    thread::sleep(Duration::from_secs(seconds));
    let (switches_after, ns_after) = agent.switches_and_ns()?;
    agent.scrape()?;
    Ok(json!({
        "steady": steady,
        "after_a_scrape": memory(&agent)?,
        "peak_kib": agent.kib("status", "VmHWM")?,
        "idle": { "seconds": seconds, "switches": switches_after - switches, "cpu_us": (ns_after - ns) / 1000 },
    }))
}

fn memory(agent: &Watcher) -> Result<Value> {
    Ok(json!({
        "rss_kib": agent.kib("status", "VmRSS")?,
        "anonymous_kib": agent.kib("status", "RssAnon")?,
        "pss_kib": agent.kib("smaps_rollup", "Pss")?,
    }))
}
