//! End to end, on any cluster: a kill in a pod, and what the agent that runs there makes of it.
//!
//! The cluster is the one of KUBECONFIG, with the agent installed (by the chart or the manifests); it is asked through
//! `kubectl`. The suite makes a namespace of its own and removes it. Without KUBECONFIG it says that it did not run and
//! succeeds; with `--require` that is a failure.
//!
//! `KUBECONFIG=… cargo test -p oom-watcher --test e2e -- [--require] [--image busybox:1.37]`

mod cluster;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use cluster::{Cluster, Namespace, until};
use serde_json::{Value, json};

/// Longer than an image takes to come.
const START: Duration = Duration::from_mins(3);
/// Far longer than a line, a metric or an Event takes.
const REPORT: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let required = arguments.iter().any(|argument| argument == "--require");
    let image = arguments.iter().skip_while(|argument| *argument != "--image").nth(1);
    let cluster = match Cluster::find() {
        Ok(cluster) => cluster,
        Err(reason) => {
            println!("e2e: NOT RUN: {reason}");
            return if required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&cluster, image.map_or("busybox:1.37", String::as_str)) {
        Ok(()) => {
            println!("e2e: 1 passed, 0 failed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("e2e: {error:#}\ne2e: 0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// One pod, in which one container of two fills its memory.
fn run(cluster: &Cluster, image: &str) -> Result<()> {
    let namespace = Namespace::create(cluster)?;
    cluster.create(&victim(namespace.name(), image))?;
    let killed = until(START, "the container is killed", || {
        let pod = cluster.get(&["pod", "victim", "-n", namespace.name()])?;
        let hog = statuses(&pod).find(|status| status["name"] == "hog");
        Ok(hog.is_some_and(|hog| hog["state"]["terminated"].is_object()).then_some(pod))
    });
    let pod = killed.with_context(|| cluster.warnings_in(namespace.name()))?;
    let node = pod["spec"]["nodeName"].as_str().context("the pod has no node")?;
    let agent = cluster.agent_on(node)?;

    let line = until(REPORT, "the agent's line of the kill", || {
        Ok(agent.lines(cluster)?.into_iter().find(|line| is_of(line, namespace.name()) && line.get("type").is_none()))
    })?;
    check_line(&line, &pod)?;
    let sample = format!(r#"namespace="{}",pod="victim",container="hog"}}"#, namespace.name());
    until(REPORT, "the metric of the kill", || {
        let page = agent.metrics(cluster)?;
        let value = page.lines().find_map(|line| {
            let (labels, value) = line.rsplit_once(' ')?;
            (labels.starts_with("oom_kills_total{") && labels.ends_with(&sample)).then(|| value.parse::<f64>().ok())?
        });
        Ok(value.filter(|kills| *kills >= 1.0))
    })?;
    if agent.has("KUBERNETES_EVENTS") {
        let event = until(REPORT, "the Event of the kill", || cluster.event_of(namespace.name(), "victim"))?;
        check_event(&event, &pod)?;
    } else {
        println!("e2e: Events are not checked: the agent has them off");
    }
    if agent.has("KUBERNETES_ENRICHMENT") {
        let line = until(REPORT, "the agent's enrichment", || {
            Ok(agent
                .lines(cluster)?
                .into_iter()
                .find(|line| is_of(line, namespace.name()) && line["type"] == "enrichment"))
        })?;
        ensure!(line["kubernetes"]["memory_limit_bytes"] == 32 << 20, "the limit of the container: {line:#}");
        ensure!(line["kubernetes"]["image"] == image, "the image of the container: {line:#}");
    } else {
        println!("e2e: enrichment is not checked: the agent has it off");
    }
    Ok(())
}

fn victim(namespace: &str, image: &str) -> Value {
    let limits = |memory: &str| json!({ "requests": { "memory": memory }, "limits": { "memory": memory } });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "victim", "namespace": namespace },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            // Nothing that the victim does not need may keep it from its start.
            "automountServiceAccountToken": false,
            "containers": [
                { "name": "calm", "image": image, "command": ["sleep", "3600"], "resources": limits("32Mi") },
                // The pause is for the container's link, which the kubelet makes after the first process.
                { "name": "hog", "image": image, "command": ["sh", "-c", "sleep 2; exec tail /dev/zero"], "resources": limits("32Mi") }
            ]
        }
    })
}

fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["status"]["containerStatuses"].as_array().into_iter().flatten()
}

fn is_of(line: &Value, namespace: &str) -> bool {
    line["kubernetes"]["namespace"] == namespace
}

fn check_line(line: &Value, pod: &Value) -> Result<()> {
    let hog = statuses(pod).find(|status| status["name"] == "hog").context("no status of the container")?;
    let id = hog["containerID"].as_str().and_then(|id| id.split_once("://")).context("no id of the container")?.1;
    let kubernetes = &line["kubernetes"];
    ensure!(kubernetes["pod"] == "victim" && kubernetes["container"] == "hog", "the names: {line:#}");
    ensure!(kubernetes["container_id"] == id, "the id of the container is {id}: {line:#}");
    ensure!(kubernetes["pod_uid"] == pod["metadata"]["uid"], "the UID of the pod: {line:#}");
    ensure!(line["victim"]["comm"] == "tail", "the process: {line:#}");
    ensure!(line["incident"]["scope"] == "container", "the scope: {line:#}");
    ensure!(line["attribution"]["result"] == "full", "the attribution: {line:#}");
    Ok(())
}

fn check_event(event: &Value, pod: &Value) -> Result<()> {
    let regarding = &event["regarding"];
    ensure!(event["type"] == "Warning" && event["reason"] == "ContainerOOMKilled", "the reason: {event:#}");
    ensure!(regarding["uid"] == pod["metadata"]["uid"], "the UID of the pod: {event:#}");
    ensure!(regarding["fieldPath"] == "spec.containers{hog}", "the container: {event:#}");
    match event["note"].as_str() {
        Some(note) if note.starts_with("tail (pid ") && note.contains("32 MiB limit") => Ok(()),
        _ => bail!("the note: {event:#}"),
    }
}
