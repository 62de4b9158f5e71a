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

/// Every kill of the run, by scenario.
static MEASURED: Mutex<BTreeMap<String, Vec<Kill>>> = Mutex::new(BTreeMap::new());
/// When each container got its link, by its id.
static LINKED: Mutex<BTreeMap<String, jiff::Timestamp>> = Mutex::new(BTreeMap::new());

struct Kill {
    time: jiff::Timestamp,
    pid: u64,
    container_id: Option<String>,
    /// From the kill to the line, in milliseconds.
    delay: f64,
    result: String,
    source: String,
}

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
    let container_id = event.pointer("/kubernetes/container_id").and_then(Value::as_str).map(str::to_owned);
    let kill = Kill {
        time,
        pid: number(event, "/victim/pid"),
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

/// What must hold over all kills of the run: each is reported once, and each in a container that was older than its link has
/// all its names. `counted` is what the kernel counts of the suite's pods, where it does; the error is what does not hold.
pub(crate) fn over_all(counted: Option<u64>) -> Result<String, String> {
    let (measured, linked) = (MEASURED.lock(), LINKED.lock());
    let (measured, linked) =
        (measured.unwrap_or_else(PoisonError::into_inner), linked.unwrap_or_else(PoisonError::into_inner));
    let kills: Vec<&Kill> = measured.values().flatten().collect();
    let victims: BTreeSet<_> = kills.iter().map(|kill| (kill.pid, kill.time)).collect();
    if victims.len() != kills.len() {
        return Err(format!("{} kills are reported, of {} victims", kills.len(), victims.len()));
    }
    if let Some(counted) = counted.filter(|counted| *counted != kills.len() as u64) {
        return Err(format!("{} kills are reported, the kernel counts {counted}", kills.len()));
    }
    let link_of = |kill: &Kill| linked.get(kill.container_id.as_ref()?);
    let after = kills.iter().filter(|kill| link_of(kill).is_some_and(|time| *time < kill.time));
    let (named, unnamed): (Vec<&Kill>, Vec<&Kill>) = after.partition(|kill| kill.result == "full");
    if !unnamed.is_empty() {
        return Err(format!("{} kills in containers with a link have not all their names", unnamed.len()));
    }
    let kernel = counted.map_or("is not asked", |_| "counts as many");
    Ok(format!(
        "{} kills, the kernel {kernel}; {} in containers with a link, all of them named",
        kills.len(),
        named.len()
    ))
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
