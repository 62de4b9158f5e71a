//! What the agent must say of a kill, and how long it took to say it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde_json::Value;

use crate::{
    kubelet::{Container, NAMESPACE, Pod},
    watcher::{Watcher, number, text},
};

/// Every kill of the run, by scenario.
static MEASURED: Mutex<BTreeMap<String, Vec<Kill>>> = Mutex::new(BTreeMap::new());
/// When each container got its link, by its id.
static LINKED: Mutex<BTreeMap<String, jiff::Timestamp>> = Mutex::new(BTreeMap::new());

struct Kill {
    time: jiff::Timestamp,
    container_id: Option<String>,
    /// From the kill to the line, in milliseconds.
    delay: f64,
    result: String,
    source: String,
}

/// Keeps a kill for the sum of the run; its line came at `came`.
pub(crate) fn measure(scenario: &str, came: SystemTime, event: &Value) {
    let time: jiff::Timestamp = text(event, "/time").parse().expect("a time");
    let came = jiff::Timestamp::try_from(came).expect("a time of this century");
    let container_id = event.pointer("/kubernetes/container_id").and_then(Value::as_str).map(str::to_owned);
    let kill = Kill {
        time,
        container_id,
        delay: (came.as_duration() - time.as_duration()).as_secs_f64() * 1000.0,
        result: text(event, "/attribution/result").to_owned(),
        source: text(event, "/attribution/source").to_owned(),
    };
    let mut measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    measured.entry(scenario.to_owned()).or_default().push(kill);
}

/// This container has its link from now on.
pub(crate) fn linked(container_id: &str) {
    LINKED.lock().unwrap_or_else(PoisonError::into_inner).insert(container_id.to_owned(), jiff::Timestamp::now());
}

/// What must hold over all kills of the run: each in a container that was older than its link has all its names, and if
/// `everything` ran there are some. The error is what does not hold.
pub(crate) fn all_linked(everything: bool) -> Result<String, String> {
    let (measured, linked) = (MEASURED.lock(), LINKED.lock());
    let (measured, linked) =
        (measured.unwrap_or_else(PoisonError::into_inner), linked.unwrap_or_else(PoisonError::into_inner));
    let kills: Vec<&Kill> = measured.values().flatten().collect();
    let link_of = |kill: &Kill| linked.get(kill.container_id.as_ref()?);
    let after = kills.iter().filter(|kill| link_of(kill).is_some_and(|time| *time < kill.time));
    let (named, unnamed): (Vec<&Kill>, Vec<&Kill>) = after.partition(|kill| kill.result == "full");
    if everything && named.is_empty() {
        return Err(format!("none of {} kills was in a container with a link", kills.len()));
    }
    if unnamed.is_empty() {
        return Ok(format!("{} kills; {} in containers with a link, all of them named", kills.len(), named.len()));
    }
    Err(format!("{} kills in containers with a link have not all their names", unnamed.len()))
}

/// One line per scenario: kills, time from kill to line, attribution.
pub(crate) fn measurements() -> String {
    let measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lines = String::new();
    for (scenario, kills) in measured.iter() {
        let mut delays: Vec<f64> = kills.iter().map(|kill| kill.delay).collect();
        delays.sort_by(f64::total_cmp);
        let mut how = BTreeMap::<String, usize>::new();
        for kill in kills {
            *how.entry(format!("{}/{}", kill.result, kill.source)).or_default() += 1;
        }
        let (median, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
        let _ = writeln!(
            lines,
            "{scenario}: {} kills, kill to line {median:.1} ms (longest {longest:.1}), {how:?}",
            kills.len()
        );
    }
    lines
}

/// A kill in this container, all names known from its link. Usually that is in memory at the kill; on a machine with far
/// more work than CPUs the agent may not have come to read it, and finds it at its next look.
#[track_caller]
pub(crate) fn assert_linked(kill: &Value, container: &Container) {
    let source = text(kill, "/attribution/source");
    assert!(source == "index" || source == "rescan", "{kill:#}");
    assert_full(kill, container, source);
}

/// A kill in this container, all names known, from `source`.
#[track_caller]
pub(crate) fn assert_full(kill: &Value, container: &Container, source: &str) {
    assert_names(kill, container, source);
    assert_eq!(text(kill, "/cgroup/path"), container.cgroup());
}

/// All names of this container, from `source`; the process may have been in a cgroup below its container's.
#[track_caller]
pub(crate) fn assert_names(kill: &Value, container: &Container, source: &str) {
    let attribution = (text(kill, "/attribution/result"), text(kill, "/attribution/source"));
    assert_eq!(attribution, ("full", source), "{kill:#}");
    assert_pod(kill, container.pod);
    assert_eq!(text(kill, "/kubernetes/container"), container.name);
    assert_eq!(text(kill, "/kubernetes/container_id"), container.id);
    assert_eq!(number(kill, "/kubernetes/restart_count"), u64::from(container.attempt));
}

/// A kill in this pod, its name known.
#[track_caller]
pub(crate) fn assert_pod(kill: &Value, pod: &Pod) {
    assert_eq!(text(kill, "/kubernetes/namespace"), NAMESPACE, "{kill:#}");
    assert_eq!(text(kill, "/kubernetes/pod"), pod.name);
    assert_identifiers(kill, pod);
}

/// What the cgroup path alone tells of a pod.
#[track_caller]
pub(crate) fn assert_identifiers(kill: &Value, pod: &Pod) {
    assert_eq!(text(kill, "/kubernetes/pod_uid"), pod.uid, "{kill:#}");
    assert_eq!(text(kill, "/kubernetes/qos_class"), pod.qos.as_str());
}

/// Whose limit ran out.
#[track_caller]
pub(crate) fn assert_scope(kill: &Value, scope: &str) {
    assert_eq!(text(kill, "/incident/scope"), scope, "{kill:#}");
}

/// Value of `oom_kills_total` for this container; none when it has no series.
#[track_caller]
pub(crate) fn counted(watcher: &Watcher, pod: &str, container: &str) -> Option<u64> {
    counted_as(watcher, [NAMESPACE, pod, container])
}

/// Value of `oom_kills_total` with these labels: namespace, pod and container.
#[track_caller]
pub(crate) fn counted_as(watcher: &Watcher, labels: [&str; 3]) -> Option<u64> {
    let [namespace, pod, container] = labels;
    let labels = format!("node=\"test-node\",namespace=\"{namespace}\",pod=\"{pod}\",container=\"{container}\"");
    let series = format!("oom_kills_total{{{labels}}}");
    watcher.get("/metrics").lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok())
}

/// The metric says what the lines say.
#[track_caller]
pub(crate) fn assert_counted(watcher: &Watcher, container: &Container, kills: u64) {
    assert_eq!(counted(watcher, &container.pod.name, &container.name), Some(kills));
}
