//! What the agent must say of a kill, and how long it took to say it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde_json::Value;

use crate::{
    kubelet::{Container, NAMESPACE, Pod},
    watcher::{Watcher, number, text},
};

/// Delay in milliseconds and how it was attributed, of every kill by scenario.
static MEASURED: Mutex<BTreeMap<String, Vec<(f64, String)>>> = Mutex::new(BTreeMap::new());

/// Exactly these many kills in the suite's pods, and then no more. Kills elsewhere on the machine are not looked at.
#[track_caller]
pub(crate) fn kills(scenario: &str, watcher: &Watcher, count: usize) -> Vec<Value> {
    let mut kills = Vec::new();
    while kills.len() < count {
        let (came, event) = watcher.events_and_times(1).remove(0);
        if is_ours(&event) {
            measure(scenario, came, &event);
            kills.push(event);
        }
    }
    let rest: Vec<Value> = watcher.rest().into_iter().filter(is_ours).collect();
    assert!(rest.is_empty(), "kills that did not happen: {rest:#?}");
    let victims: BTreeSet<_> = kills.iter().map(|kill| (number(kill, "/victim/pid"), text(kill, "/time"))).collect();
    assert_eq!(victims.len(), count, "each victim is reported once: {kills:#?}");
    kills
}

fn is_ours(event: &Value) -> bool {
    text(event, "/cgroup/path").starts_with("/kubepods/")
}

fn measure(scenario: &str, came: SystemTime, event: &Value) {
    let time: jiff::Timestamp = text(event, "/time").parse().expect("a time");
    let came = jiff::Timestamp::try_from(came).expect("a time of this century");
    let delay = (came.as_duration() - time.as_duration()).as_secs_f64() * 1000.0;
    let how = format!("{}/{}", text(event, "/attribution/result"), text(event, "/attribution/source"));
    let mut measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    measured.entry(scenario.to_owned()).or_default().push((delay, how));
}

/// One line per scenario: kills, time from kill to line, attribution.
pub(crate) fn measurements() -> String {
    let measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lines = String::new();
    for (scenario, kills) in measured.iter() {
        let mut delays: Vec<f64> = kills.iter().map(|(delay, _)| *delay).collect();
        delays.sort_by(f64::total_cmp);
        let mut how = BTreeMap::<&str, usize>::new();
        for (_, one) in kills {
            *how.entry(one).or_default() += 1;
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
    let attribution = (text(kill, "/attribution/result"), text(kill, "/attribution/source"));
    assert_eq!(attribution, ("full", source), "{kill:#}");
    assert_pod(kill, container.pod);
    assert_eq!(text(kill, "/kubernetes/container"), container.name);
    assert_eq!(text(kill, "/kubernetes/container_id"), container.id);
    assert_eq!(number(kill, "/kubernetes/restart_count"), u64::from(container.attempt));
    assert_eq!(text(kill, "/cgroup/path"), container.cgroup());
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
    let page = watcher.get("/metrics");
    let series = labelled(NAMESPACE, pod, container);
    page.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse().ok())
}

/// The series of `oom_kills_total` with these labels.
pub(crate) fn labelled(namespace: &str, pod: &str, container: &str) -> String {
    format!("oom_kills_total{{node=\"test-node\",namespace=\"{namespace}\",pod=\"{pod}\",container=\"{container}\"}}")
}

/// The metric says what the lines say.
#[track_caller]
pub(crate) fn assert_counted(watcher: &Watcher, container: &Container, kills: u64) {
    assert_eq!(counted(watcher, &container.pod.name, &container.name), Some(kills));
}
