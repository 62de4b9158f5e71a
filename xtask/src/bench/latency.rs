//! From the kernel's hook to the line, and to /metrics; the same kills seen by a loop that polls; and what a kill costs in
//! the kernel.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Signal, getpid, kill_process};
use serde_json::{Value, json};

use super::{
    Programs,
    agent::{Program, Watcher},
    kills::{self, Cgroup, Load},
    machine,
};

/// The CPU that watches; the other one has the kills of half of the cases.
const WATCHER: usize = 0;
const OTHER: usize = 1;
/// Between two looks of the loop that polls.
const POLLED_EVERY: Duration = Duration::from_millis(100);
/// Steps of this part of a whole, its golden ratio, meet every place of it evenly, however many they are.
const STEP: f64 = 0.618_033_988_749_894_8;
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
    ensure!(thread::available_parallelism()?.get() > OTHER, "two CPUs are needed");
    let cgroup = Cgroup::of(0)?;
    let links = kills::links(0)?.display().to_string();
    let agent = Watcher::agent_with(&programs.agent, Some(WATCHER), &["--container-log-dir", &links], &[])?;
    let polling = Watcher::polling(&programs.benches, Some(WATCHER), POLLED_EVERY)?;
    let mut killed = 0;
    for round in 0..kills {
        // The loop has just looked. A kill right now would always wait for the whole of its pause.
        let place = POLLED_EVERY.mul_f64((round as f64 * STEP).fract());
        for case in &mut cases {
            thread::sleep(place);
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
    Ok(json!({ "cases": cases.iter().map(Case::samples).collect::<Vec<_>>(), "kernel": kernel }))
}

impl Case {
    /// Each kill's, in the order of the kills: what is made of them is the page's.
    fn samples(&self) -> Value {
        let us = |samples: &[f64]| samples.iter().map(|ms| (ms * 1e3).round() as i64).collect::<Vec<_>>();
        json!({
            "case": self.name,
            "line_us": us(&self.line),
            "metrics_us": us(&self.metrics),
            "polling_100_ms_us": us(&self.polling),
        })
    }
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

/// The kernel's own statistics of its programs, until this is dropped: then they are as they were.
struct Counting {
    before: String,
}

impl Counting {
    fn begin() -> Result<Self> {
        let before = fs::read_to_string(STATS).context("cannot read kernel.bpf_stats_enabled")?;
        fs::write(STATS, "1").context("cannot set kernel.bpf_stats_enabled")?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(STATS, self.before.trim()) {
            eprintln!("kernel.bpf_stats_enabled stays 1: {error}");
        }
    }
}

/// Time that the kernel programs run, by the kernel's own statistics: while processes are killed, and while a signal is sent that
/// has nothing to do with it. Others' kills are kills, too.
fn kernel_cost(agent: &Watcher, cgroup: &Cgroup) -> Result<Value> {
    const KILLS: u64 = 50;
    const SIGNALS: u64 = 100_000;
    let _counting = Counting::begin()?;
    let (killed, before) = (machine::kills()?, agent.programs()?);
    for _ in 0..KILLS {
        cgroup.kill(OTHER)?;
    }
    let (kills, between) = (machine::kills()? - killed, agent.programs()?);
    for _ in 0..SIGNALS {
        // Nobody handles it in this process: the kernel drops it, and has passed the tracepoint.
        kill_process(getpid(), Signal::WINCH).context("cannot send a signal")?;
    }
    let after = agent.programs()?;
    Ok(json!({
        "kills": kills,
        "programs": costs(&before, &between, kills, "ns_per_kill"),
        "signals": SIGNALS,
        "of_signals": costs(&between, &after, SIGNALS, "ns_per_signal"),
    }))
}

/// What each program that ran took, for each of so many occasions.
fn costs(before: &[Program], after: &[Program], occasions: u64, share: &str) -> Vec<Value> {
    let cost = |(before, after): (&Program, &Program)| {
        let (runs, ns) = (after.runs - before.runs, after.ns - before.ns);
        let of = |count: u64| ns as f64 / count.max(1) as f64;
        (runs > 0).then(|| json!({ "program": after.name, "runs": runs, "ns_per_run": of(runs), share: of(occasions) }))
    };
    before.iter().zip(after).filter_map(cost).collect()
}
