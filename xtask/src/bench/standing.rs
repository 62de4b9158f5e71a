//! What the agent takes while nothing happens: memory, wake-ups and CPU; and how long it takes to start.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Programs,
    agent::Watcher,
    api,
    kills::{self, Cgroup},
    machine, page, quantile,
};
use crate::process;

/// Containers of a large node.
const CONTAINERS: usize = 500;
/// Starts, and drills, of one figure.
const STARTS: usize = 15;
const DRILLS: usize = 5;
/// How long after the start memory is looked at: the first tick is over, and the second, which gives memory back.
pub(super) const SETTLED: Duration = Duration::from_secs(22);
/// How often idleness is looked for on a machine that has kills of others.
const WINDOWS: usize = 5;

/// Every figure of this module.
pub(super) fn measure(programs: &Programs, seconds: u64) -> Result<Value> {
    let links = kills::links(CONTAINERS)?.display().to_string();
    let start = start(programs)?;
    let plain = |arguments: &[&str]| -> Result<Value> {
        figures(&Watcher::agent_with(&programs.agent, None, arguments, &[])?, seconds)
    };
    let (standalone, containers) = (plain(&[])?, plain(&["--container-log-dir", &links])?);
    Ok(json!({
        "start": start,
        "known_containers": CONTAINERS,
        "standalone": standalone,
        "containers": containers,
        "everything": everything(programs, &links, seconds)?,
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

/// With the API, which it has told of a kill: its client has a connection, with TLS, and all that belongs to one.
fn everything(programs: &Programs, links: &str, seconds: u64) -> Result<Value> {
    let mut server = api::Server::start(programs, true)?;
    let agent = server.agent(programs, links)?;
    let is_known = |page: &Value| page["series_of_containers"].as_u64().is_some_and(|count| count > CONTAINERS as u64);
    let before = until(|| Ok(page::of(&agent.scrape()?)), is_known).context("the agent does not know the names")?;
    Cgroup::of(0)?.kill(0)?;
    agent.latency_ms()?;
    let asked = until(|| server.asked(), |asked| asked["post"] == 1).context("the agent made no Event")?;
    let mut figures = figures(&agent, seconds)?;
    figures["asked"] = asked;
    figures["page_before_the_kill"] = before;
    Ok(figures)
}

/// Looks until it is so.
fn until(mut look: impl FnMut() -> Result<Value>, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let started = Instant::now();
    loop {
        let seen = look()?;
        if is_so(&seen) {
            return Ok(seen);
        }
        ensure!(started.elapsed() < SETTLED, "{seen}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Steady memory, a window in which nothing is killed, and what a scrape adds.
fn figures(agent: &Watcher, seconds: u64) -> Result<Value> {
    thread::sleep(SETTLED);
    let steady = agent.memory()?;
    let idle = idle(agent, seconds)?;
    let page = page::of(&agent.scrape()?);
    Ok(json!({
        "settled_seconds": SETTLED.as_secs(),
        "steady": steady,
        "idle": idle,
        "page": page,
        "after_a_scrape": agent.memory()?,
        "peak_kib": agent.peak_kib()?,
    }))
}

/// The first of a few windows in which nobody was killed on this machine, else the last one, with how many were.
fn idle(agent: &Watcher, seconds: u64) -> Result<Value> {
    let mut window = json!(null);
    for _ in 0..WINDOWS {
        let (killed, before) = (machine::kills()?, agent.threads()?);
        thread::sleep(Duration::from_secs(seconds));
        let after = agent.threads()?;
        let killed = machine::kills()? - killed;
        let threads = after.iter().map(|(name, [switches, ns])| {
            let [switches_before, ns_before] = before.get(name).copied().unwrap_or_default();
            json!({ "thread": name, "switches": switches - switches_before, "cpu_us": (ns - ns_before) / 1000 })
        });
        window = json!({ "seconds": seconds, "kills_of_others": killed, "threads": threads.collect::<Vec<_>>() });
        if killed == 0 {
            break;
        }
    }
    let threads = window["threads"].as_array().context("no window")?;
    let sum = |field: &str| threads.iter().filter_map(|thread| thread[field].as_u64()).sum::<u64>();
    let (switches, cpu_us) = (sum("switches"), sum("cpu_us"));
    window["switches"] = json!(switches);
    window["cpu_us"] = json!(cpu_us);
    Ok(window)
}
