//! A cluster through `kubectl`, and the agent in it.

use std::{
    env, fmt,
    io::Write as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// The cluster of KUBECONFIG.
pub(crate) struct Cluster(());

/// The agent on one node.
pub(crate) struct Agent {
    namespace: String,
    pod: String,
    container: String,
    port: String,
    env: Vec<Value>,
}

/// A namespace of this run.
pub(crate) struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

/// How long a namespace may take to be gone.
const REMOVAL: Duration = Duration::from_mins(2);

impl Cluster {
    /// The reason why there is none.
    pub(crate) fn find() -> Result<Self, String> {
        if env::var_os("KUBECONFIG").is_none_or(|path| path.is_empty()) {
            return Err("KUBECONFIG is not set".to_owned());
        }
        match Command::new("kubectl").args(["version", "--client"]).output() {
            Ok(output) if output.status.success() => Ok(Self(())),
            _ => Err("kubectl is not installed".to_owned()),
        }
    }

    #[expect(clippy::unused_self, reason = "who has one has found that there is a cluster")]
    pub(crate) fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let shown = arguments.join(" ");
        let mut child = Command::new("kubectl")
            .args(arguments)
            .args(["--request-timeout", "30s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no standard input")?;
        stdin.write_all(input.as_bytes()).with_context(|| format!("kubectl {shown} takes no input"))?;
        drop(stdin);
        let output = child.wait_with_output().with_context(|| format!("kubectl {shown}"))?;
        if !output.status.success() {
            bail!("kubectl {shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("kubectl {shown} is not text"))
    }

    /// The server's version.
    pub(crate) fn version(&self) -> Result<String> {
        let text = self.kubectl(&["version", "-o", "json"], "")?;
        let version: Value = serde_json::from_str(&text).context("kubectl version gives no JSON")?;
        let version = version["serverVersion"]["gitVersion"].as_str().context("the server has no version")?;
        Ok(version.to_owned())
    }

    pub(crate) fn create(&self, object: &Value) -> Result<()> {
        self.kubectl(&["create", "-f", "-"], &object.to_string()).map(drop)
    }

    pub(crate) fn get(&self, what: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], what].concat(), "")?;
        serde_json::from_str(&text).context("kubectl get gives no JSON")
    }

    pub(crate) fn agent_on(&self, node: &str) -> Result<Agent> {
        let selector = format!("spec.nodeName={node},status.phase=Running");
        let label = "app.kubernetes.io/name=oom-watcher";
        let pods = self.get(&["pods", "-A", "-l", label, "--field-selector", &selector])?;
        let pod = pods["items"].get(0).with_context(|| format!("no agent runs on {node} (no pod with {label})"))?;
        let container = &pod["spec"]["containers"][0];
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a pod without a name");
        Ok(Agent {
            namespace: text(&pod["metadata"]["namespace"])?,
            pod: text(&pod["metadata"]["name"])?,
            container: text(&container["name"])?,
            port: container["ports"][0]["containerPort"].as_u64().unwrap_or(8080).to_string(),
            env: container["env"].as_array().cloned().unwrap_or_default(),
        })
    }

    /// What the cluster complains of there, for whoever reads of a failure.
    pub(crate) fn warnings_in(&self, namespace: &str) -> String {
        let columns = "custom-columns=ABOUT:.regarding.name,REASON:.reason,NOTE:.note";
        let only = ["--field-selector", "type=Warning", "--no-headers", "-o", columns];
        match self.kubectl(&[&["get", "events.events.k8s.io", "-n", namespace], &only[..]].concat(), "") {
            Ok(warnings) => format!("the warnings of its namespace:\n{}", warnings.trim_end()),
            Err(error) => format!("the warnings of its namespace cannot be read: {error:#}"),
        }
    }

    /// The agent's Events on that pod.
    pub(crate) fn events_of(&self, namespace: &str, pod: &str) -> Result<Vec<Value>> {
        let events = self.get(&["events.events.k8s.io", "-n", namespace])?;
        let ours = |event: &&Value| event["reportingController"] == "oom-watcher" && event["regarding"]["name"] == pod;
        Ok(events["items"].as_array().into_iter().flatten().filter(ours).cloned().collect())
    }
}

impl Agent {
    /// Whether a switch is on.
    pub(crate) fn has(&self, variable: &str) -> bool {
        self.env.iter().any(|entry| entry["name"] == variable && entry["value"] == "true")
    }

    /// Its JSON lines; what it logs about itself is none.
    pub(crate) fn lines(&self, cluster: &Cluster) -> Result<Vec<Value>> {
        let log = self.log(cluster, "2000")?;
        Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The end of all that it says, for whoever reads of a failure.
    pub(crate) fn log_end(&self, cluster: &Cluster) -> String {
        self.log(cluster, "15").unwrap_or_else(|error| format!("cannot be read: {error:#}"))
    }

    fn log(&self, cluster: &Cluster, lines: &str) -> Result<String> {
        cluster.kubectl(&["logs", "-n", &self.namespace, &self.pod, "-c", &self.container, "--tail", lines], "")
    }

    pub(crate) fn metrics(&self, cluster: &Cluster) -> Result<String> {
        let path = format!("/api/v1/namespaces/{}/pods/{}:{}/proxy/metrics", self.namespace, self.pod, self.port);
        cluster.kubectl(&["get", "--raw", &path], "")
    }
}

impl fmt::Display for Agent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.pod)
    }
}

impl<'a> Namespace<'a> {
    /// The server finds a name that nobody has.
    pub(crate) fn create(cluster: &'a Cluster) -> Result<Self> {
        let metadata = json!({ "generateName": "oom-watcher-e2e-" });
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata });
        let name =
            cluster.kubectl(&["create", "-f", "-", "-o", "jsonpath={.metadata.name}"], &namespace.to_string())?;
        Ok(Self { cluster, name })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Removes it with all that is in it. The pods first: where nobody cleans up namespaces, at least nothing runs on.
    pub(crate) fn remove(self) -> Result<()> {
        let left = || format!("the namespace {} is left behind", self.name);
        let name = self.name.as_str();
        self.cluster.kubectl(&["delete", "pods", "--all", "-n", name, "--wait=false"], "").with_context(left)?;
        self.cluster.kubectl(&["delete", "namespace", name, "--wait=false"], "").with_context(left)?;
        let gone = until(REMOVAL, "it is gone", || {
            let names = self.cluster.kubectl(&["get", "namespace", name, "--ignore-not-found", "-o", "name"], "")?;
            Ok(names.trim().is_empty().then_some(()))
        });
        match gone {
            Ok(()) => println!("e2e: the namespace {name} is removed"),
            Err(error) => {
                println!("e2e: the cluster was told to remove the namespace {name}, and has not yet: {error:#}");
            }
        }
        Ok(())
    }
}

/// Asks until there is an answer.
pub(crate) fn until<T>(patience: Duration, what: &str, ask: impl Fn() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().with_context(|| format!("waiting until {what}"))? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("not within {} s: {what}", patience.as_secs());
        }
        thread::sleep(Duration::from_secs(1));
    }
}
