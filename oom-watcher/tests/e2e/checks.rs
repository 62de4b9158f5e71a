//! What the agent must say of the kill, in each of the places where it says it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    cluster::{Agent, Cluster, until},
    proved,
};

/// Far longer than a line, a metric or an Event takes.
const REPORT: Duration = Duration::from_mins(1);
const LIMIT: u64 = 32 << 20;
/// What may not grow: kills that were not seen, and reports that went nowhere.
const LOSSES: [&str; 3] =
    ["oom_watcher_missed_kills_total", "oom_watcher_lost_events_total", "oom_watcher_series_refused_total"];

/// The kill that Kubernetes knows of.
pub(crate) struct Kill<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) agent: &'a Agent,
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a Value,
    pub(crate) image: &'a str,
}

impl Kill<'_> {
    /// Everything; what the agent had missed or lost before is none of this kill's.
    pub(crate) fn check(&self, losses_before: &BTreeMap<String, f64>) -> Result<()> {
        self.line()?;
        self.metric()?;
        if self.agent.has("KUBERNETES_EVENTS") {
            self.event()?;
        } else {
            proved("Events", "not checked, the agent has them off");
        }
        if self.agent.has("KUBERNETES_ENRICHMENT") {
            self.enrichment()?;
        } else {
            proved("enrichment", "not checked, the agent has it off");
        }
        // By now a second one would have come.
        let lines = self.lines()?.into_iter().filter(is_report).count();
        ensure!(lines == 1, "{lines} lines of one kill");
        let losses = losses(&self.agent.metrics(self.cluster)?);
        ensure!(losses == *losses_before, "the agent has lost something: {losses_before:?}, then {losses:?}");
        proved("nothing was counted twice, missed or lost", &format!("1 line, {} counters unchanged", losses.len()));
        Ok(())
    }

    /// The agent's lines of this pod, those of reports and of enrichments.
    fn lines(&self) -> Result<Vec<Value>> {
        let lines = self.agent.lines(self.cluster)?;
        Ok(lines.into_iter().filter(|line| line["kubernetes"]["namespace"] == self.namespace).collect())
    }

    fn line(&self) -> Result<()> {
        let line = until(REPORT, "the agent's line of the kill", || Ok(self.lines()?.into_iter().find(is_report)))?;
        let hog = status_of(self.pod, "hog")?;
        let id = hog["containerID"].as_str().and_then(|id| id.split_once("://")).context("no id of the container")?.1;
        let kubernetes = &line["kubernetes"];
        ensure!(kubernetes["pod"] == "victim" && kubernetes["container"] == "hog", "the names: {line:#}");
        ensure!(kubernetes["container_id"] == id, "the id of the container is {id}: {line:#}");
        ensure!(kubernetes["pod_uid"] == self.pod["metadata"]["uid"], "the UID of the pod: {line:#}");
        ensure!(kubernetes["restart_count"] == 0, "the restarts: {line:#}");
        ensure!(line["node"] == self.pod["spec"]["nodeName"], "the node: {line:#}");
        ensure!(line["victim"]["comm"] == "tail", "the process: {line:#}");
        ensure!(line["victim"]["uid"] == 65_534, "the user: {line:#}");
        ensure!(line["incident"]["scope"] == "container", "the scope: {line:#}");
        ensure!(line["incident"]["limit_bytes"] == LIMIT, "the limit: {line:#}");
        ensure!(line["attribution"]["result"] == "full", "the attribution: {line:#}");
        proved("the line names the container", &line.to_string());
        Ok(())
    }

    fn metric(&self) -> Result<()> {
        let sample = until(REPORT, "the metric of the kill", || {
            let page = self.agent.metrics(self.cluster)?;
            Ok(self.kills_in(&page, "hog").filter(|(_, kills)| *kills > 0.0))
        })?;
        ensure!(is(sample.1, 1.0), "one kill is counted as {}: {}", sample.1, sample.0);
        proved("the metric counts it", &sample.0);
        if self.agent.has("ZERO_SERIES") {
            // Series follow the containers every ten seconds.
            let calm = until(REPORT, "the series of the container that lives", || {
                Ok(self.kills_in(&self.agent.metrics(self.cluster)?, "calm"))
            })?;
            ensure!(is(calm.1, 0.0), "the other container's kills: {}", calm.0);
            proved("the container that lives is at zero", &calm.0);
        }
        Ok(())
    }

    /// `oom_kills_total` of a container: the sample as it stands there, and its value.
    fn kills_in(&self, page: &str, container: &str) -> Option<(String, f64)> {
        let end = format!(r#"namespace="{}",pod="victim",container="{container}"}}"#, self.namespace);
        page.lines().find_map(|line| {
            let (labels, value) = line.rsplit_once(' ')?;
            let is_it = labels.starts_with("oom_kills_total{") && labels.ends_with(&end);
            is_it.then(|| Some((line.to_owned(), value.parse().ok()?)))?
        })
    }

    fn event(&self) -> Result<()> {
        let events = until(REPORT, "the Event of the kill", || {
            Ok(Some(self.cluster.events_of(self.namespace, "victim")?).filter(|events| !events.is_empty()))
        })?;
        let [event] = &events[..] else { bail!("{} Events of one kill: {events:#?}", events.len()) };
        let regarding = &event["regarding"];
        ensure!(event["type"] == "Warning" && event["reason"] == "ContainerOOMKilled", "the reason: {event:#}");
        ensure!(regarding["uid"] == self.pod["metadata"]["uid"], "the UID of the pod: {event:#}");
        ensure!(regarding["fieldPath"] == "spec.containers{hog}", "the container: {event:#}");
        match event["note"].as_str() {
            Some(note) if note.starts_with("tail (pid ") && note.contains("32 MiB limit") => {
                proved("the Event says it", note);
            }
            _ => bail!("the note: {event:#}"),
        }
        let described = self.cluster.kubectl(&["describe", "pod", "victim", "-n", self.namespace], "")?;
        let shown = described.lines().find(|line| line.contains("ContainerOOMKilled"));
        proved("`kubectl describe pod` shows it", shown.context("the description has no such Event")?.trim());
        Ok(())
    }

    fn enrichment(&self) -> Result<()> {
        let line = until(REPORT, "the agent's enrichment", || {
            Ok(self.lines()?.into_iter().find(|line| line["type"] == "enrichment"))
        })?;
        ensure!(line["kubernetes"]["memory_limit_bytes"] == LIMIT, "the limit of the container: {line:#}");
        ensure!(line["kubernetes"]["image"] == self.image, "the image of the container: {line:#}");
        proved("the enrichment has limit and image", &line.to_string());
        Ok(())
    }
}

/// An enrichment says what it is.
fn is_report(line: &Value) -> bool {
    line.get("type").is_none()
}

/// Whole numbers both.
fn is(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() < 0.5
}

/// The kubelet's word on a container.
pub(crate) fn status_of<'a>(pod: &'a Value, container: &str) -> Result<&'a Value> {
    let mut statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let found = statuses.find(|status| status["name"] == container);
    found.with_context(|| format!("no status of the container {container}"))
}

/// The counters of what went wrong.
pub(crate) fn losses(page: &str) -> BTreeMap<String, f64> {
    let samples = page.lines().filter(|line| LOSSES.iter().any(|name| line.starts_with(name)));
    samples
        .filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            Some((sample.to_owned(), value.parse().ok()?))
        })
        .collect()
}
