//! The traffic of a fleet with the Kubernetes API: the agent's own client and limits, once for each node, against a server that
//! counts. What is killed is made up; what is asked is not.
//!
//! This file owns the cases and their figures. One node's part is `node`, the API's is `crate::api`.

mod node;

use std::{sync::PoisonError, thread, time::Duration};

use anyhow::{Context as _, Result};
use oom_watcher::telemetry::Stage;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use self::node::Killing;
use crate::api::{Asked, Server};

/// How large the fleet is, and how long it is watched.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Nodes of the whole fleet
    #[arg(long, default_value_t = 15_000)]
    nodes: usize,
    /// Seconds of the shorter cases; the longest takes ten times as long, and goes on beside the others
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// What is killed, and on how many nodes.
struct Case {
    name: &'static str,
    /// One in so many nodes of the fleet has an agent in this process; what they ask is that much less.
    one_in: usize,
    /// On these nodes only; the rest has no kills.
    nodes_at_most: usize,
    killing: Killing,
    /// In units of the options' seconds.
    windows: u32,
}

/// The computed rates of docs/scale.md, from the least to the most; the first goes on while the others come and go.
const CASES: [Case; 6] = [
    case("a DaemonSet killed all the time on every node, after 25 writes", 100, usize::MAX, every(5_000, false), 10),
    case("10 kills a minute, each in another pod", 1, 10, every(60_000, true), 1),
    case("1 000 kills a minute, each in another pod", 1, 1_000, every(60_000, true), 1),
    case("1 000 kills a minute, all in one container", 1, 1, every(60, false), 1),
    case("a DaemonSet killed all the time on every node, at first", 10, usize::MAX, every(5_000, false), 1),
    case("more pods killed on every node than can be asked for", 15, usize::MAX, every(333, true), 2),
];

const fn case(name: &'static str, one_in: usize, nodes_at_most: usize, killing: Killing, windows: u32) -> Case {
    Case { name, one_in, nodes_at_most, killing, windows }
}

const fn every(ms: u64, other_pods: bool) -> Killing {
    Killing { pause: Duration::from_millis(ms), other_pods }
}

/// What the server counted in one case.
#[derive(Serialize)]
pub(crate) struct Figures {
    case: &'static str,
    /// Agents that ran, and the nodes of the fleet for each of them.
    agents: usize,
    one_in: usize,
    seconds: f64,
    kills: u64,
    get: usize,
    post: usize,
    patch: usize,
    request_bytes: usize,
    /// Over the second half, when what may be asked at once has been.
    settled_per_second: f64,
    busiest_second: usize,
    /// Kills whose Event was written, or raised, and those that have none.
    told: u64,
    lost: u64,
}

/// Runs every case.
pub(crate) fn run(options: &Options) -> Result<Vec<Figures>> {
    let limit = getrlimit(Resource::Nofile);
    // Each agent has one connection, and both its ends are here.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("cannot raise the limit of files")?;
    let server = Server::start(false)?;
    let (long, short) = CASES.split_first().context("there are no cases")?;
    thread::scope(|scope| {
        let long = scope.spawn(|| one(&server, long, options));
        let mut figures = Vec::new();
        for case in short {
            figures.push(one(&server, case, options)?);
        }
        figures.push(long.join().ok().context("a case panicked")??);
        Ok(figures)
    })
}

fn one(server: &Server, case: &Case, options: &Options) -> Result<Figures> {
    let agents = (options.nodes / case.one_in).clamp(1, case.nodes_at_most);
    let length = Duration::from_secs(options.seconds) * case.windows;
    eprintln!("{}: {agents} agents for {length:?}", case.name);
    // The case is the namespace of its pods: so the server knows which one a request is of.
    let namespace = format!("case-{:x}", case.name.len() + case.one_in * 1000 + agents * 100_000);
    let (began, nodes) = node::run(&namespace, agents, case.killing, length)?;
    let asked = asked(server, &namespace, began.duration_since(server.started), length);
    let of = |verb: &str| asked.iter().filter(|one| one.verb == verb).count();
    let half = asked.iter().filter(|one| one.at > length / 2).count();
    let sum = |stage: fn(&node::Node) -> u64| nodes.iter().map(stage).sum();
    Ok(Figures {
        case: case.name,
        agents,
        one_in: case.one_in,
        seconds: length.as_secs_f64(),
        kills: sum(|node| node.kills),
        get: of("GET"),
        post: of("POST"),
        patch: of("PATCH"),
        request_bytes: asked.iter().map(|one| one.bytes).sum(),
        settled_per_second: half as f64 / (length / 2).as_secs_f64(),
        busiest_second: busiest(&asked),
        told: sum(|node| node.telemetry.passed(Stage::SinkEvent)),
        lost: sum(|node| node.telemetry.lost(Stage::SinkEvent)),
    })
}

/// What the server was asked about pods of `namespace` in the `length` from `began` on, with times from there.
fn asked(server: &Server, namespace: &str, began: Duration, length: Duration) -> Vec<Asked> {
    let asked = server.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let own = asked.iter().filter(|one| one.namespace == namespace);
    own.map(|one| Asked { at: one.at.saturating_sub(began), ..one.clone() }).filter(|one| one.at < length).collect()
}

fn busiest(asked: &[Asked]) -> usize {
    let mut seconds = std::collections::HashMap::<u64, usize>::new();
    for one in asked {
        *seconds.entry(one.at.as_secs()).or_default() += 1;
    }
    seconds.into_values().max().unwrap_or(0)
}
