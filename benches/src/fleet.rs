//! The traffic of a fleet with the Kubernetes API: the agent's own client and limits, once for each node, against a server that
//! counts. What is killed is made up; what is asked is not.
//!
//! This file owns the cases and their figures. One node's part is `node`, the API's is `crate::api`.

mod node;

use std::{collections::HashMap, sync::PoisonError, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
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
    /// Seconds of the cases that are not as long as the agents' limits make them; the longest goes on beside the others
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
    window: Window,
}

/// Which part of a case *settled* is.
#[derive(Clone, Copy)]
enum Window {
    /// The second half of the options' seconds.
    Half,
    /// Seconds after so many: the agents' limits set when what may be asked at once has been, and not who measures.
    Fixed { warm_up: u64, counted: u64 },
    /// The same, where each agent must have written this often before: else it is another case that is measured.
    AfterWrites { writes: usize, warm_up: u64, counted: u64 },
}

impl Window {
    /// How long after the case's beginning it begins, and ends.
    fn of(self, options: &Options) -> (Duration, Duration) {
        let (warm_up, counted) = match self {
            Self::Half => {
                let half = Duration::from_secs(options.seconds) / 2;
                return (half, half * 2);
            }
            Self::Fixed { warm_up, counted } | Self::AfterWrites { warm_up, counted, .. } => (warm_up, counted),
        };
        (Duration::from_secs(warm_up), Duration::from_secs(warm_up + counted))
    }

    const fn writes(self) -> usize {
        if let Self::AfterWrites { writes, .. } = self { writes } else { 0 }
    }
}

/// An Event may be changed every ten seconds: two changes of each agent are counted.
const CHANGES: Window = Window::Fixed { warm_up: 20, counted: 20 };
/// 25 writes about a pod are free, and ten seconds apart; then there is one in five minutes, and each agent's is counted.
const AFTER_25: Window = Window::AfterWrites { writes: 25, warm_up: 275, counted: 300 };
/// Three kills a second use up the fifty Events that may be written at once in 20 s, and each waits a second for its pod.
const AFTER_THE_BURST: Window = Window::Fixed { warm_up: 40, counted: 60 };

/// The computed rates of docs/scale.md, from the least to the most; the first goes on while the others come and go.
const CASES: [Case; 6] = [
    case(
        "a DaemonSet killed all the time on every node, after 25 writes",
        100,
        usize::MAX,
        every(5_000, false),
        AFTER_25,
    ),
    case("10 kills a minute, each in another pod", 1, 10, every(60_000, true), Window::Half),
    case("1 000 kills a minute, each in another pod", 1, 1_000, every(60_000, true), Window::Half),
    case("1 000 kills a minute, all in one container", 1, 1, every(60, false), Window::Half),
    case("a DaemonSet killed all the time on every node, at first", 10, usize::MAX, every(5_000, false), CHANGES),
    case("more pods killed on every node than can be asked for", 15, usize::MAX, every(333, true), AFTER_THE_BURST),
];

const fn case(name: &'static str, one_in: usize, nodes_at_most: usize, killing: Killing, window: Window) -> Case {
    Case { name, one_in, nodes_at_most, killing, window }
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
    /// From then on, when what may be asked at once has been, requests are *settled*.
    settled_from_seconds: f64,
    settled_per_second: f64,
    busiest_second: usize,
    /// Of the agent that had written the least by then.
    writes_before: usize,
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
    let (warm_up, length) = case.window.of(options);
    eprintln!("{}: {agents} agents for {length:?}", case.name);
    // The case and the agent are the namespace of the pods: so the server knows which one a request is of.
    let namespace = format!("case-{:x}", case.name.len() + case.one_in * 1000 + agents * 100_000);
    let (began, nodes) = node::run(&namespace, agents, case.killing, length)?;
    let asked = asked(server, &namespace, began.duration_since(server.started), length);
    let writes_before = least_writes(&asked, agents, warm_up);
    ensure!(
        writes_before >= case.window.writes(),
        "{}: an agent wrote {writes_before} times in {warm_up:?}, not {}",
        case.name,
        case.window.writes()
    );
    let of = |verb: &str| asked.iter().filter(|one| one.verb == verb).count();
    let settled = asked.iter().filter(|one| one.at >= warm_up).count();
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
        settled_from_seconds: warm_up.as_secs_f64(),
        settled_per_second: settled as f64 / length.saturating_sub(warm_up).as_secs_f64(),
        busiest_second: busiest(&asked),
        writes_before,
        told: sum(|node| node.telemetry.passed(Stage::SinkEvent)),
        lost: sum(|node| node.telemetry.lost(Stage::SinkEvent)),
    })
}

/// How often the agent that wrote the least did so in the first `warm_up`.
fn least_writes(asked: &[Asked], agents: usize, warm_up: Duration) -> usize {
    let mut writes = HashMap::<&str, usize>::new();
    for one in asked.iter().filter(|one| one.verb != "GET" && one.at < warm_up) {
        *writes.entry(&one.namespace).or_default() += 1;
    }
    if writes.len() < agents { 0 } else { writes.into_values().min().unwrap_or(0) }
}

/// What the server was asked about pods of `case` in the `length` from `began` on, with times from there.
fn asked(server: &Server, case: &str, began: Duration, length: Duration) -> Vec<Asked> {
    let asked = server.asked.lock().unwrap_or_else(PoisonError::into_inner);
    let own = asked.iter().filter(|one| one.namespace.rsplit_once('-').is_some_and(|(of, _)| of == case));
    own.map(|one| Asked { at: one.at.saturating_sub(began), ..one.clone() }).filter(|one| one.at < length).collect()
}

fn busiest(asked: &[Asked]) -> usize {
    let mut seconds = HashMap::<u64, usize>::new();
    for one in asked {
        *seconds.entry(one.at.as_secs()).or_default() += 1;
    }
    seconds.into_values().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_wrote_too_little_is_seen() {
        let asked = |namespace: &str, verb: &str, seconds| Asked {
            namespace: namespace.to_owned(),
            verb: verb.to_owned(),
            bytes: 1,
            at: Duration::from_secs(seconds),
        };
        let all = [
            asked("a-0", "POST", 1),
            asked("a-0", "PATCH", 2),
            asked("a-1", "GET", 1),
            asked("a-1", "POST", 3),
            asked("a-1", "PATCH", 9),
        ];
        let least = |agents, seconds| least_writes(&all, agents, Duration::from_secs(seconds));
        assert_eq!([least(2, 10), least(2, 9), least(2, 2), least(3, 10)], [2, 1, 0, 0]);
    }
}
