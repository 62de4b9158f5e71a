//! End to end, on any cluster: a kill in a pod, and what the agent that runs there makes of it.
//!
//! The cluster is the one of KUBECONFIG, with the agent installed (by the chart or the manifests); it is asked through
//! `kubectl`. The suite makes a namespace of its own and removes it. Each thing that it has proved is a line of its output.
//! Without KUBECONFIG it says that it did not run and succeeds; with `--require` that is a failure.
//!
//! `KUBECONFIG=… cargo test -p oom-watcher --test e2e -- [--require] [--image busybox:1.37] [--node NAME]`

mod checks;
mod cluster;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use checks::Kill;
use cluster::{Cluster, Namespace, until};
use serde_json::{Value, json};

const IMAGE: &str = "busybox:1.37";
/// Longer than an image takes to come.
const START: Duration = Duration::from_mins(3);

/// What the command line asks for.
struct Options {
    required: bool,
    image: String,
    node: Option<String>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            println!("e2e: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let cluster = match Cluster::find() {
        Ok(cluster) => cluster,
        Err(reason) => {
            println!("e2e: NOT RUN: {reason}");
            return if options.required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&cluster, &options) {
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

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { required: false, image: IMAGE.to_owned(), node: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} without a value"));
        match argument.as_str() {
            "--require" => options.required = true,
            "--image" => options.image = value()?,
            "--node" => options.node = Some(value()?),
            _ => bail!("unknown argument {argument:?}"),
        }
    }
    Ok(options)
}

/// The namespace goes, whatever became of the rest.
fn run(cluster: &Cluster, options: &Options) -> Result<()> {
    proved("the cluster answers", &cluster.version()?);
    let namespace = Namespace::create(cluster)?;
    let outcome = kill_and_check(cluster, &namespace, options).with_context(|| cluster.warnings_in(namespace.name()));
    let removed = namespace.remove();
    outcome.and(removed)
}

/// One pod, in which one container of two fills its memory.
fn kill_and_check(cluster: &Cluster, namespace: &Namespace, options: &Options) -> Result<()> {
    let victim = victim(namespace.name(), options);
    // A namespace has its service account, without which it takes no pods, a moment after it is made.
    until(START, "the cluster takes the pod", || match cluster.create(&victim) {
        Ok(()) => Ok(Some(())),
        Err(error) if format!("{error:#}").contains("serviceaccount") => Ok(None),
        Err(error) => Err(error),
    })?;
    let pod = || cluster.get(&["pod", "victim", "-n", namespace.name()]);
    let node = until(START, "the pod has a node", || Ok(pod()?["spec"]["nodeName"].as_str().map(str::to_owned)))?;
    let agent = cluster.agent_on(&node)?;
    proved("an agent runs on the pod's node", &format!("{agent} on {node}"));
    let losses = checks::losses(&agent.metrics(cluster)?);

    let pod = until(START, "the container is killed", || Ok(Some(pod()?).filter(hog_has_ended)))?;
    let hog = checks::status_of(&pod, "hog")?;
    let ended = &hog["state"]["terminated"];
    if ended["exitCode"] != 137 {
        bail!("the container was not killed, it ended by itself: {ended:#}");
    }
    proved("Kubernetes says that the container was killed", &format!("exit code 137, reason {}", ended["reason"]));
    let kill = Kill { cluster, agent: &agent, namespace: namespace.name(), pod: &pod, image: &options.image };
    kill.check(&losses).with_context(|| format!("the end of the agent's log:\n{}", agent.log_end(cluster)))
}

/// Says what has been shown, and by what.
fn proved(what: &str, by: &str) {
    println!("e2e: {what}: {by}");
}

fn hog_has_ended(pod: &Value) -> bool {
    checks::status_of(pod, "hog").is_ok_and(|hog| hog["state"]["terminated"].is_object())
}

/// It is what a namespace with the strictest of the Pod Security Standards takes.
fn victim(namespace: &str, options: &Options) -> Value {
    let container = |name: &str, script: &str| {
        json!({
            "name": name,
            "image": options.image,
            "command": ["sh", "-c", script],
            "resources": { "requests": { "memory": "32Mi" }, "limits": { "memory": "32Mi" } },
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        })
    };
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "victim", "namespace": namespace },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            // Nothing that the victim does not need may keep it from its start.
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65534,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            // The pause is for the container's link, which the kubelet makes after the first process, and for this suite's first
            // look at the agent.
            "containers": [container("calm", "exec sleep 3600"), container("hog", "sleep 5; exec tail /dev/zero")],
        },
    });
    if let Some(node) = &options.node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}
