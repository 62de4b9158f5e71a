//! What kills ask of the Kubernetes API: the real agent against a server that answers at once (`benches api`), with real kills in
//! one container at rates from one alone to a storm, and in a hundred pods.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{
    Programs,
    agent::Watcher,
    kills::{self, Cgroup},
};
use crate::paths;

/// Kills, in how many pods, and the pause between two of them: one, some a second apart, a container that is killed all the time,
/// and a node that runs out of memory everywhere.
const CASES: [(usize, usize, Duration); 4] = [
    (1, 1, Duration::ZERO),
    (10, 1, Duration::from_secs(1)),
    (60, 1, Duration::from_millis(100)),
    (100, 100, Duration::ZERO),
];
/// After the last request, until nothing more is asked: changes of one Event are ten seconds apart.
const SETTLED: f64 = 12.0;
/// Longer than the agent takes for what it still tells.
const PATIENCE: Duration = Duration::from_mins(5);

/// Every case with an agent of its own.
pub(super) fn measure(programs: &Programs) -> Result<Value> {
    CASES.iter().map(|&(count, pods, pause)| case(programs, count, pods, pause)).collect()
}

fn case(programs: &Programs, count: usize, pods: usize, pause: Duration) -> Result<Value> {
    let mut server = Server::start(programs, false)?;
    let links = kills::links(pods - 1)?.display().to_string();
    let agent = server.agent(programs, &links)?;
    // The first, which makes what they share, is the last to be removed.
    let cgroups: Vec<_> = (0..pods).map(Cgroup::of).collect::<Result<Vec<_>>>()?.into_iter().rev().collect();
    let started = Instant::now();
    for cgroup in cgroups.iter().cycle().take(count) {
        cgroup.kill(0)?;
        agent.latency_ms()?;
        thread::sleep(pause);
    }
    let took = started.elapsed();
    let asked = server.settled()?;
    Ok(json!({
        "kills": count,
        "pods": pods,
        "seconds": took.as_secs_f64(),
        "told_after_seconds": started.elapsed().as_secs_f64() - SETTLED,
        "get": asked["get"],
        "post": asked["post"],
        "patch": asked["patch"],
        "request_bytes": asked["request_bytes"],
    }))
}

/// The server; ended when dropped.
pub(super) struct Server {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    kubeconfig: PathBuf,
}

impl Server {
    pub(super) fn start(programs: &Programs, tls: bool) -> Result<Self> {
        let kubeconfig = kubeconfig()?;
        let mut command = Command::new(&programs.benches);
        command.arg("api").args(tls.then_some("--tls")).env("KUBECONFIG", &kubeconfig);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start benches")?;
        let questions = child.stdin.take().context("it is piped")?;
        let answers = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut server = Self { child, questions, answers, kubeconfig };
        // An answer says that it serves, and that the file is written.
        server.asked()?;
        Ok(server)
    }

    /// An agent that enriches and writes Events.
    pub(super) fn agent(&self, programs: &Programs, links: &str) -> Result<Watcher> {
        let api = ["--kubernetes-enrichment", "true", "--kubernetes-events", "true", "--container-log-dir", links];
        Watcher::agent_with(&programs.agent, None, &api, &[("KUBECONFIG", &self.kubeconfig)])
    }

    /// What was asked about the bench's pods so far.
    pub(super) fn asked(&mut self) -> Result<Value> {
        writeln!(self.questions, "{}", kills::NAMESPACE).context("the server is gone")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the server does not answer")?;
        serde_json::from_str(&line).with_context(|| format!("the server said {line:?}"))
    }

    /// What was asked once nothing more is.
    fn settled(&mut self) -> Result<Value> {
        let started = Instant::now();
        loop {
            thread::sleep(Duration::from_secs(1));
            let asked = self.asked()?;
            if asked["quiet_seconds"].as_f64().is_some_and(|quiet| quiet > SETTLED) {
                return Ok(asked);
            }
            ensure!(started.elapsed() < PATIENCE, "the agent asks for ever: {asked}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a server of `benches` writes how it is reached.
pub(super) fn kubeconfig() -> Result<PathBuf> {
    Ok(paths::make(&paths::target().join("bench"))?.join("kubeconfig"))
}

/// The fleet of docs/scale.md, made up but for the agents' client: see `benches fleet`.
pub(super) fn fleet(programs: &Programs, nodes: usize, seconds: u64) -> Result<Value> {
    let kubeconfig: &Path = &kubeconfig()?;
    let (nodes, seconds) = (nodes.to_string(), seconds.to_string());
    programs.bench_with(&["fleet", "--nodes", &nodes, "--seconds", &seconds], &[("KUBECONFIG", kubeconfig)])
}
