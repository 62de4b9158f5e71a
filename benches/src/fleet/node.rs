//! One node: an agent's client of the API, and kills that were reported to it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use oom_watcher::{
    config::KubernetesConfig,
    k8s,
    report::{Kubernetes, OomReport},
    telemetry::Telemetry,
};

use crate::{api::pod_uid, node, recorded::Recorded};

/// How often a process is killed on a node, and whether each is in another pod.
#[derive(Clone, Copy)]
pub(super) struct Killing {
    pub(super) pause: Duration,
    pub(super) other_pods: bool,
}

/// What became of a node's kills.
pub(super) struct Node {
    pub(super) kills: u64,
    pub(super) telemetry: Arc<Telemetry>,
}

/// So many nodes for `length`; then all of them are gone at once, with what they had not told. Gives when it began, too: making
/// the clients is not part of it.
pub(super) fn run(namespace: &str, count: usize, killing: Killing, length: Duration) -> Result<(Instant, Vec<Node>)> {
    let report = report()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut agents = Vec::with_capacity(count);
        for number in 0..count {
            agents.push(Agent::new(&format!("{namespace}-{number}")).await?);
        }
        let began = Instant::now();
        let start = |(number, agent): (usize, Agent)| {
            // Spread over the pause, as kills of different nodes are.
            let first = began + killing.pause.mul_f64(number as f64 / count as f64);
            tokio::spawn(agent.run(format!("{namespace}-{number}"), report.clone(), killing, [first, began + length]))
        };
        let tasks: Vec<_> = agents.into_iter().enumerate().map(start).collect();
        let mut nodes = Vec::with_capacity(count);
        for task in tasks {
            nodes.push(task.await.context("a node ended")?);
        }
        Ok((began, nodes))
    })
}

/// An agent's client of the API.
struct Agent {
    name: String,
    handle: k8s::Handle,
    telemetry: Arc<Telemetry>,
}

impl Agent {
    async fn new(name: &str) -> Result<Self> {
        let telemetry = Arc::new(Telemetry::new());
        let config = KubernetesConfig { enrichment: true, events: true, pod_labels: Vec::new() };
        let prepared = k8s::prepare(&config, name, Arc::clone(&telemetry)).await?.context("the API is asked for")?;
        Ok(Self { name: name.to_owned(), handle: prepared.start(|_| {}), telemetry })
    }

    /// Reports kills from the first on until the end.
    async fn run(
        self,
        namespace: String,
        mut report: OomReport,
        killing: Killing,
        [mut next, end]: [Instant; 2],
    ) -> Node {
        let mut kills = 0;
        while next < end {
            tokio::time::sleep_until(next.into()).await;
            next += killing.pause;
            kills += 1;
            let number = if killing.other_pods { kills } else { 0 };
            report.incident.id = kills.to_string();
            report.kubernetes = Some(Kubernetes {
                namespace: Some(namespace.clone()),
                pod_uid: pod_uid(number),
                pod: Some(format!("{}-{number}", self.name)),
                container: Some("app".to_owned()),
                ..Kubernetes::default()
            });
            self.handle.deliver(&report);
        }
        tokio::time::sleep_until(end.into()).await;
        Node { kills, telemetry: self.telemetry }
    }
}

/// The recorded kill, as the pipeline reports it.
fn report() -> Result<OomReport> {
    let mut node = node::Node::new(1, 5000)?;
    let mut recorded = Recorded::new()?;
    let record = node.decode(recorded.next(0))?;
    let member = node.assemble(record).into_iter().next().context("the recorded kill is none")?;
    let (decision, who) = node.attribute(&member)?;
    Ok(node.report(member, decision, who))
}
