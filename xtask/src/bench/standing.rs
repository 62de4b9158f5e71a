//! What the agent takes while nothing happens: memory, wake-ups and CPU; and how long it takes to start.
//!
//! Memory and starts are of several rounds, each with every case in turn: what the machine does to one it does to all. A window in
//! which nothing happens is a minute, and each case has one.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Programs,
    agent::{Ran, Watcher},
    api,
    kills::{self, Cgroup},
    machine, page,
    statistics::gather,
};
use crate::process;

/// Containers of a large node.
const CONTAINERS: usize = 500;
/// Starts, and drills, of one round.
const STARTS: usize = 3;
const DRILLS: usize = 1;
/// After this the agent has given back what starting took: it does so at its second tick, ten seconds after the first.
pub(super) const SETTLED: Duration = Duration::from_secs(22);
/// How often idleness is looked for on a machine that has kills of others.
const WINDOWS: usize = 5;
/// The cases, as the results name them.
const CASES: [&str; 3] = ["standalone", "containers", "everything"];

/// One case in one round.
struct Round {
    /// What every round has.
    figures: Value,
    /// What the first round has beside it.
    once: Value,
}

/// Every figure of this module.
pub(super) fn measure(programs: &Programs, rounds: usize, seconds: u64) -> Result<Value> {
    let links = kills::links(CONTAINERS)?.display().to_string();
    let mut starts = Vec::new();
    let mut measured: [Vec<Round>; CASES.len()] = Default::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        starts.push(start(&programs.agent)?);
        let window = (round == 0).then(|| Duration::from_secs(seconds));
        for (case, rounds) in CASES.iter().zip(&mut measured) {
            rounds.push(one(programs, case, &links, window).with_context(|| format!("no figures of {case}"))?);
        }
    }
    let mut results = json!({
        "start": flat(&starts),
        "known_containers": CONTAINERS,
        "settled_seconds": SETTLED.as_secs(),
    });
    for (case, rounds) in CASES.iter().zip(measured) {
        let (figures, once): (Vec<_>, Vec<_>) = rounds.into_iter().map(|round| (round.figures, round.once)).unzip();
        results[*case] = gather(&figures);
        for (name, value) in once.first().and_then(Value::as_object).into_iter().flatten() {
            results[*case][name] = value.clone();
        }
    }
    Ok(results)
}

/// Milliseconds from exec to the line that says that the agent watches, and of whole drills.
fn start(agent: &Path) -> Result<[Vec<f64>; 2]> {
    let started = |_| Ok(Watcher::agent(agent, None)?.started_in.as_secs_f64() * 1e3);
    let drill = |_| {
        let started = Instant::now();
        process::output(Command::new(agent).arg("drill"))?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    };
    Ok([(0..STARTS).map(started).collect::<Result<_>>()?, (0..DRILLS).map(drill).collect::<Result<_>>()?])
}

fn flat(rounds: &[[Vec<f64>; 2]]) -> Value {
    let all = |what: usize| rounds.iter().flat_map(|round| round[what].clone()).collect::<Vec<_>>();
    json!({ "exec_to_attached_ms": all(0), "drill_ms": all(1) })
}

fn one(programs: &Programs, case: &str, links: &str, window: Option<Duration>) -> Result<Round> {
    if case == "everything" {
        return everything(programs, links, window);
    }
    let arguments: &[&str] = if case == "standalone" { &[] } else { &["--container-log-dir", links] };
    let agent = Watcher::agent_with(&programs.agent, None, arguments, &[])?;
    thread::sleep(SETTLED);
    figures(&agent, window)
}

/// With the API, which it tells of a kill: its client has a connection, with TLS, and all that belongs to one. Only after it gave
/// back what starting took, for that would take this with it.
fn everything(programs: &Programs, links: &str, window: Option<Duration>) -> Result<Round> {
    let mut server = api::Server::start(programs, true)?;
    let agent = server.agent(programs, links)?;
    let is_known = |page: &Value| page["series_of_containers"].as_u64().is_some_and(|count| count > CONTAINERS as u64);
    let before = until(|| Ok(page::of(&agent.scrape()?)), is_known).context("the agent does not know the names")?;
    thread::sleep(SETTLED);
    Cgroup::of(0)?.kill(0)?;
    agent.latency_ms()?;
    let asked = until(|| server.asked(), |asked| asked["post"] == 1).context("the agent made no Event")?;
    agent.scrape()?;
    thread::sleep(SETTLED);
    let mut round = figures(&agent, window)?;
    if let Some(window) = window {
        round.once["asked"] = asked;
        round.once["page_before_the_kill"] = before;
        round.once["as_deployed"] = idle(&agent, window, &|| visits(&agent, window))?;
    }
    Ok(round)
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

/// Steady memory and what a scrape adds; where there is a window, what the agent does in it and what its page has.
fn figures(agent: &Watcher, window: Option<Duration>) -> Result<Round> {
    let steady = agent.memory()?;
    let mut once = json!({});
    if let Some(window) = window {
        let wait = || {
            thread::sleep(window);
            Ok(())
        };
        once["idle"] = idle(agent, window, &wait)?;
    }
    let page = page::of(&agent.scrape()?);
    if window.is_some() {
        once["page"] = page;
    }
    let figures = json!({
        "start_ms": agent.started_in.as_secs_f64() * 1e3,
        "steady": steady,
        "after_a_scrape": agent.memory()?,
        "peak_kib": agent.peak_kib()?,
    });
    Ok(Round { figures, once })
}

/// What a node's kubelet and its Prometheus do: `/readyz` every 10 s, `/livez` and a scrape every 30 s, until the window is over.
fn visits(agent: &Watcher, window: Duration) -> Result<()> {
    const PERIOD: Duration = Duration::from_secs(10);
    for period in 1..=window.as_secs() / PERIOD.as_secs() {
        thread::sleep(PERIOD);
        agent.get("/readyz")?;
        if period.is_multiple_of(3) {
            agent.get("/livez")?;
            agent.scrape()?;
        }
    }
    Ok(())
}

/// The first of a few windows in which nobody was killed on this machine, else the last one, with how many were.
fn idle(agent: &Watcher, window: Duration, during: &dyn Fn() -> Result<()>) -> Result<Value> {
    let mut seen = json!(null);
    for _ in 0..WINDOWS {
        let (killed, before) = (machine::kills()?, agent.threads()?);
        during()?;
        let after = agent.threads()?;
        let killed = machine::kills()? - killed;
        let mut by_name = BTreeMap::<&String, Ran>::new();
        // What a thread did that has ended meanwhile is lost; the agent starts one for what may block, and it waits ten seconds.
        for (task, (name, after)) in &after {
            let before = before.get(task).map(|(_, before)| *before).unwrap_or_default();
            let ran = by_name.entry(name).or_default();
            *ran = ran.and(&after.since(&before));
        }
        let threads = by_name.iter().map(|(name, ran)| {
            json!({
                "thread": name,
                "runs": ran.runs,
                "voluntary": ran.voluntary,
                "involuntary": ran.involuntary,
                "cpu_us": ran.ns / 1000,
            })
        });
        let threads = threads.collect::<Vec<_>>();
        let sum = |field: &str| threads.iter().filter_map(|thread| thread[field].as_u64()).sum::<u64>();
        seen = json!({
            "seconds": window.as_secs(),
            "kills_of_others": killed,
            "runs": sum("runs"),
            "voluntary": sum("voluntary"),
            "involuntary": sum("involuntary"),
            "cpu_us": sum("cpu_us"),
            "threads": threads,
        });
        if killed == 0 {
            break;
        }
    }
    Ok(seen)
}
