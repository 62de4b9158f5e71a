//! The agent's own metric families, and the closed sets of their labels.

use prometheus_client::{metrics::MetricType, registry::Unit};

use super::Stage;
use crate::exposition::Family;

/// A value of the label `stage`.
#[derive(Debug)]
pub struct StageRow {
    /// The stage.
    pub stage: Stage,
    /// Its label.
    pub label: &'static str,
    /// What it means that a kill passed it.
    pub passed: &'static str,
    /// What it means that a kill was lost at it.
    pub lost: &'static str,
}

/// The stages, in the order of the flow and of [`Stage`].
pub static STAGES: [StageRow; 7] = [
    StageRow {
        stage: Stage::RingBuffer,
        label: "ring_buffer",
        passed: "written by the kernel program",
        lost: "the buffer was full (`--ring-buffer-size`)",
    },
    StageRow {
        stage: Stage::Decode,
        label: "decode",
        passed: "read and understood; so is a second record of one kill, of a process that is chosen twice in an incident or that \
                 the agent before reports, which goes no further",
        lost: "not understood",
    },
    StageRow {
        stage: Stage::Attribute,
        label: "attribute",
        passed: "attributed, by whatever names were found",
        lost: "never: without names a kill goes out with its identifiers",
    },
    StageRow { stage: Stage::Report, label: "report", passed: "handed to the sinks", lost: "never" },
    StageRow {
        stage: Stage::SinkStdout,
        label: "sink_stdout",
        passed: "its line was written",
        lost: "standard output was too slow, full or closed",
    },
    StageRow {
        stage: Stage::SinkMetrics,
        label: "sink_metrics",
        passed: "counted in `oom_kills_total`",
        lost: "`--max-series` left no room; `oom_kills_per_node_total` counts it",
    },
    StageRow {
        stage: Stage::SinkEvent,
        label: "sink_event",
        passed: "an Event on its pod tells of it; only kills in pods come here (`--kubernetes-events`)",
        lost: "the pod has no name, or the API refused or did not answer in time, or too many waited",
    },
];

/// All of them, in the order in which they are shown.
pub static FAMILIES: &[&Family] = &[
    &BUILD_INFO,
    &HOOK_ATTACHED,
    &EVENTS,
    &LOST_EVENTS,
    &MARKS,
    &MARKS_WITHOUT_KILL,
    &SHARED_MM_KILLS,
    &VICTIMS_WITHOUT_TASK,
    &DUPLICATE_RECORDS,
    &LOST_INCIDENTS,
    &OOM_INVOCATIONS,
    &MISSED_KILLS,
    &KILLS_BEFORE_START,
    &ATTRIBUTIONS,
    &ATTRIBUTION_SECONDS,
    &SERIES_REFUSED,
    &SERIES_EVICTED,
    &HTTP_REJECTED,
    &UNWATCHED_KILLS,
    &RECOVERED_KILLS,
    &PINNED,
    &STATE_ERRORS,
    &SECCOMP,
    &OOM_SCORE_ADJ,
    &NAMES,
    &NAMES_SCAN_AGE,
    &NAMES_SCANS,
    &NAMES_ERRORS,
    &NAMES_OVERFLOWS,
    &NAMES_LINKS,
    &NAMES_DEGRADED,
    &NAME_SEARCHES,
    &NAME_SEARCHES_REFUSED,
    &CRI_REQUESTS,
    &KUBERNETES_REQUESTS,
    &POD_EVENTS,
    &ENRICHMENTS,
    &LOST_ENRICHMENT_LINES,
    &KUBERNETES_QUEUE,
    &KUBERNETES_QUEUE_LIMIT,
];

const NO_UNIT: Option<Unit> = None;
const NEVER: &str = "Never: it exists at 0 from the start.";

const UNUSED_API: &str = "Neither --kubernetes-enrichment nor --kubernetes-events is on.";

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    optional_counter(name, labels, help, NEVER)
}

const fn optional_counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    absent: &'static str,
) -> Family {
    Family { name, kind: MetricType::Counter, unit: NO_UNIT, labels, help, absent }
}

pub(super) static BUILD_INFO: Family = Family {
    name: "oom_watcher_build",
    kind: MetricType::Info,
    unit: NO_UNIT,
    labels: &["version", "arch"],
    help: "The watcher that is running.",
    absent: "Never.",
};
pub(super) static HOOK_ATTACHED: Family = Family {
    name: "oom_watcher_hook_attached",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &["hook", "method"],
    help: "1 where the hook is attached by that method, 0 where it was tried and is not.",
    absent: "A hook or method that the plan for this kernel does not have.",
};
pub(super) static EVENTS: Family = counter(
    "oom_watcher_events",
    &["stage"],
    "Kills that passed a stage. What one stage passed and the next did not is counted as lost there, is on its way, or was a second record of one kill.",
);
pub(super) static LOST_EVENTS: Family = counter(
    "oom_watcher_lost_events",
    &["stage"],
    "Kills that ended at a stage: a full buffer, a record not understood, a sink too slow or failing.",
);
pub(super) static MARKS: Family =
    counter("oom_watcher_marks", &[], "Tasks that the kernel marked as OOM victims, killed or not.");
pub(super) static MARKS_WITHOUT_KILL: Family = counter(
    "oom_watcher_marks_without_kill",
    &[],
    "Marked tasks that were already dying: nobody was killed, and none of them is in oom_kills_total.",
);
pub(super) static SHARED_MM_KILLS: Family = counter(
    "oom_watcher_shared_mm_kills",
    &[],
    "Processes killed because they share the memory of a victim: the kernel neither counts nor logs them.",
);
pub(super) static VICTIMS_WITHOUT_TASK: Family =
    counter("oom_watcher_victims_without_task", &[], "Victims of which only the pid could be told.");
pub(super) static DUPLICATE_RECORDS: Family = counter(
    "oom_watcher_duplicate_records",
    &[],
    "Second records of a process in one incident, which are not told again: a member of a group that shares another member's memory \
     has two.",
);
pub(super) static LOST_INCIDENTS: Family = counter(
    "oom_watcher_lost_incidents",
    &[],
    "Ends of incidents that found no room in the ring buffer: their kills are reported, but perhaps too few victims.",
);
pub(super) static OOM_INVOCATIONS: Family = counter(
    "oom_watcher_oom_invocations",
    &["result"],
    "Calls of the OOM killer seen by the incident hooks. no_victim: nothing could be killed, or a victim was dying.",
);
pub(super) static MISSED_KILLS: Family = counter(
    "oom_watcher_missed_kills",
    &[],
    "Kills that the kernel has counted since the start (oom_kill in /proc/vmstat) and that no hook reported.",
);
pub(super) static KILLS_BEFORE_START: Family = Family {
    name: "oom_watcher_kills_before_start",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &[],
    help: "Kills that the kernel had counted since boot when the watcher started.",
    absent: "The kernel does not count them (no oom_kill in /proc/vmstat).",
};
pub(super) static UNWATCHED_KILLS: Family = Family {
    name: "oom_watcher_unwatched_kills",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &[],
    help: "Kills up to the start of this watcher that nobody told. Those that no hook saw since the watcher before, as the kernel \
     counts them: the first victim of a group kill twice. And those that it had and did not come to tell: they waited for \
     their incident's end, for names or for standard output; or told them in the last moment before it was killed.",
    absent: "There is no --state-dir, or this is the first start with it, or its file cannot be used.",
};
pub(super) static STATE_ERRORS: Family = counter(
    "oom_watcher_state_errors",
    &["operation"],
    "Failures with the file in --state-dir. read: unwatched kills are not known. write: the next watcher counts too many.",
);
pub(super) static PINNED: Family = Family {
    name: "oom_watcher_pinned",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &[],
    help: "1 where the hooks stay attached without the watcher (--pin-dir), 0 where they do not.",
    absent: NEVER,
};
pub(super) static RECOVERED_KILLS: Family = counter(
    "oom_watcher_recovered_kills",
    &[],
    "Kills of the time before the watcher started that pinned hooks recorded and that are reported now.",
);
pub(super) static SECCOMP: Family = Family {
    name: "oom_watcher_seccomp",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &[],
    help: "1 where unexpected system calls of the watcher are refused (--seccomp), 0 where they are not.",
    absent: NEVER,
};
pub(super) static OOM_SCORE_ADJ: Family = Family {
    name: "oom_watcher_oom_score_adj",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &[],
    help: "The watcher's own oom_score_adj: at -997 the OOM killer chooses it after every workload, at 0 by its size.",
    absent: "It cannot be read.",
};
pub(super) static ATTRIBUTIONS: Family = Family {
    name: "oom_watcher_attributions",
    kind: MetricType::Counter,
    unit: NO_UNIT,
    labels: &["result", "source"],
    help: "Victims by how far they were attributed and by which source.",
    absent: "A pair that cannot be.",
};
pub(super) static ATTRIBUTION_SECONDS: Family = Family {
    name: "oom_watcher_attribution",
    kind: MetricType::Histogram,
    unit: Some(Unit::Seconds),
    labels: &["source"],
    help: "Time from the kill until it was known whom it hit, by the source that said so; with the time that the kill waited for \
           the end of its incident. Without kills of the time before the start.",
    absent: "No kill by that source yet.",
};
pub(super) static NAMES: Family = Family {
    name: "oom_watcher_names",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &["state"],
    help: "Containers whose names are in memory. live: by a link in --container-log-dir; gone: by one that is gone.",
    absent: NEVER,
};
pub(super) static NAMES_DEGRADED: Family = Family {
    name: "oom_watcher_names_degraded",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &["reason"],
    help: "1 while names may be missing or old for that reason. watch_limit: no inotify instance or watch is left, and \
           --container-log-dir is read every 30 seconds and at each kill that has no name.",
    absent: NEVER,
};
pub(super) static NAMES_SCAN_AGE: Family = Family {
    name: "oom_watcher_names_scan_age",
    kind: MetricType::Gauge,
    unit: Some(Unit::Seconds),
    labels: &[],
    help: "Time since --container-log-dir was last read whole, which happens every five minutes at the least.",
    absent: "It has not been read whole yet.",
};
pub(super) static NAMES_SCANS: Family =
    counter("oom_watcher_names_scans", &[], "Reads of --container-log-dir: by the clock, and at kills without a name.");
pub(super) static NAMES_ERRORS: Family = counter(
    "oom_watcher_names_errors",
    &[],
    "Failures to read or to watch --container-log-dir. oom_watcher_names_degraded says why.",
);
pub(super) static NAMES_OVERFLOWS: Family = counter(
    "oom_watcher_names_overflows",
    &[],
    "Times that the kernel dropped changes of --container-log-dir; the directory was read again.",
);
pub(super) static NAMES_LINKS: Family = counter(
    "oom_watcher_names_links",
    &["outcome"],
    "Entries of --container-log-dir that give no name, at each time one was met. ignored: not a link of the kubelet's; \
     refused: too many; evicted: gone, and forgotten before its time.",
);
pub(super) static NAME_SEARCHES: Family = Family {
    name: "oom_watcher_name_searches",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &[],
    help: "Kills whose names are being searched for.",
    absent: NEVER,
};
pub(super) static NAME_SEARCHES_REFUSED: Family = counter(
    "oom_watcher_name_searches_refused",
    &[],
    "Kills that were reported with what was known because too many were being searched for.",
);
pub(super) static CRI_REQUESTS: Family = counter(
    "oom_watcher_cri_requests",
    &["result"],
    "Questions to the container runtime (--cri-socket) for a container that the node's files did not name.",
);
pub(super) static SERIES_REFUSED: Family = counter(
    "oom_watcher_series_refused",
    &[],
    "Series about containers that were not created because --max-series was reached.",
);
pub(super) static SERIES_EVICTED: Family = counter(
    "oom_watcher_series_evicted",
    &[],
    "Series of gone containers that were dropped before --series-retention to make room for a kill.",
);
pub(super) static HTTP_REJECTED: Family = counter(
    "oom_watcher_http_rejected",
    &["reason"],
    "Clients of this HTTP server that were turned away: a limit was reached, or they were too slow.",
);

pub(super) static KUBERNETES_REQUESTS: Family = optional_counter(
    "oom_watcher_kubernetes_requests",
    &["verb", "outcome"],
    "Requests to the Kubernetes API, by what was asked and how it ended. get, list: pods; create, patch: Events.",
    "Of get and list: without --kubernetes-enrichment. Of create and patch: without --kubernetes-events.",
);
pub(super) static POD_EVENTS: Family = optional_counter(
    "oom_watcher_pod_events",
    &["outcome"],
    "Kills in pods by what became of their Event. created, raised, covered: an Event tells of the kill. unnamed, refused, \
     too_late, overflow, abandoned: none does.",
    "Without --kubernetes-events.",
);
pub(super) static ENRICHMENTS: Family = optional_counter(
    "oom_watcher_enrichments",
    &["outcome"],
    "Kills in pods by what the Kubernetes API added to them. published, covered: a line says it. named: a line says it, and it \
     is the first to name the pod. not_found, recreated, failed, skipped: nothing.",
    "Without --kubernetes-enrichment.",
);
pub(super) static LOST_ENRICHMENT_LINES: Family = optional_counter(
    "oom_watcher_lost_enrichment_lines",
    &[],
    "Lines of enrichments that standard output did not take: they are not kills, and are in no other loss.",
    "Without --kubernetes-enrichment.",
);
pub(super) static KUBERNETES_QUEUE: Family = Family {
    name: "oom_watcher_kubernetes_queue_length",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &[],
    help: "Places taken in the queue for the Kubernetes API. Victims of one incident in one container share a place.",
    absent: UNUSED_API,
};
pub(super) static KUBERNETES_QUEUE_LIMIT: Family = Family {
    name: "oom_watcher_kubernetes_queue_limit",
    kind: MetricType::Gauge,
    unit: NO_UNIT,
    labels: &[],
    help: "Places in the queue for the Kubernetes API.",
    absent: UNUSED_API,
};
