//! The Event of a kill: which reason, about what, in which words. Pure.

use std::{fmt::Write as _, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use super::pod::{Pod, PodName};
use crate::{
    enrichment::ContainerKind,
    escape::escaped_within,
    report::{Cause, Incident, MemoryBreakdown, OomReport, Scope, Victim},
    size::Size,
};

/// What was done about the lack of memory.
const ACTION: &str = "OOMKill";
/// Who says so.
const CONTROLLER: &str = "oom-watcher";
/// Longest name of a process in a note, in characters of at most 4 bytes: two of them, a container's name (63 bytes where it is
/// one) and the figures stay below the 1,024 bytes that the API takes.
const NAME_MAX: usize = 60;
/// Longest name of a container in the path of its field, in characters: Kubernetes has 63, a runtime that is not asked by a kubelet
/// may have others.
const CONTAINER_MAX: usize = 63;
/// What Kubernetes takes for the name of a reporting instance, in bytes.
const INSTANCE_MAX: usize = 128;
/// What is kept of the pod's name for the Event's: 253 less a dot and 16 digits.
const NAME_PREFIX_MAX: usize = 230;

/// The reasons that an Event can have; documented in `docs/kubernetes.md`.
pub(super) mod reason {
    /// The container's limit ran out, and its main process or all of it was killed.
    pub(crate) const CONTAINER: &str = "ContainerOOMKilled";
    /// The container's limit ran out, and a process of it was killed that is not its main one.
    pub(crate) const PROCESS: &str = "ProcessOOMKilled";
    /// The pod's limit ran out.
    pub(crate) const POD: &str = "PodMemoryLimitOOM";
    /// The limit of all pods, or of those of a QoS class, ran out.
    pub(crate) const KUBEPODS: &str = "KubepodsMemoryLimitOOM";
    /// The node's memory ran out.
    pub(crate) const NODE: &str = "NodeOOMKilled";
    /// A limit that the workload set itself, below its container, ran out.
    pub(crate) const CGROUP: &str = "CgroupOOMKilled";
}

/// What is to be told of the kills of one container for one reason.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) pod: PodName,
    pub(super) pod_uid: String,
    /// The name, else the id, of the container; empty for a process of the pod that is in none.
    pub(super) container: String,
    pub(super) reason: &'static str,
    pub(super) field_path: Option<String>,
    pub(super) note: String,
    pub(super) node: String,
    pub(super) time: jiff::Timestamp,
    /// The same in nanoseconds since boot.
    pub(super) boot_time_ns: u64,
}

impl Draft {
    /// None: nobody knows the pod's name. The field path needs what only the API knows: whether the container is one of the
    /// pod's ordinary ones, an init or an ephemeral one.
    pub(super) fn new(report: &OomReport, pod: Option<&Arc<Pod>>) -> Option<Self> {
        let victim = report.kubernetes.as_ref()?;
        let name = match (pod, &victim.namespace, &victim.pod) {
            (Some(pod), _, _) => pod.name.clone(),
            (None, Some(namespace), Some(name)) => PodName::new(namespace, name)?,
            _ => return None,
        };
        let known = pod.and_then(|pod| pod.container(victim.container.as_deref(), victim.container_id.as_deref()));
        let container = known.map(|known| known.name.as_str()).or(victim.container.as_deref());
        Some(Self {
            pod: name,
            pod_uid: victim.pod_uid.clone(),
            container: container.or(victim.container_id.as_deref()).unwrap_or_default().to_owned(),
            reason: reason_of(report),
            field_path: known.map(|known| field_path(known.kind, &known.name)),
            note: note(report, container),
            node: report.node.clone(),
            time: report.time,
            boot_time_ns: report.boot_time_ns,
        })
    }

    /// The name of the Event: that of the pod, and the time, as Kubernetes' own are.
    pub(super) fn event_name(&self) -> String {
        let pod = &self.pod.name;
        let prefix = pod[..pod.len().min(NAME_PREFIX_MAX)].trim_end_matches(['-', '.']);
        // One pod has no two incidents at one nanosecond, but one incident has two pods and a pod two reasons.
        format!("{prefix}.{:x}", self.time.as_nanosecond())
    }

    /// The Event as it is created, for `count` incidents, the last of which was at `last`.
    pub(super) fn event(&self, name: &str, count: u32, last: jiff::Timestamp) -> Event {
        let series = (count > 1).then(|| EventSeries {
            count: i32::try_from(count).unwrap_or(i32::MAX),
            last_observed_time: MicroTime(last),
        });
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(self.time)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.node[..self.node.floor_char_boundary(INSTANCE_MAX)].to_owned()),
            action: Some(ACTION.to_owned()),
            reason: Some(self.reason.to_owned()),
            type_: Some("Warning".to_owned()),
            note: Some(self.note.clone()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(self.pod.namespace.clone()),
                name: Some(self.pod.name.clone()),
                uid: Some(self.pod_uid.clone()),
                field_path: self.field_path.clone(),
                ..ObjectReference::default()
            }),
            series,
            ..Event::default()
        }
    }
}

fn field_path(kind: ContainerKind, name: &str) -> String {
    let list = match kind {
        ContainerKind::Container => "containers",
        ContainerKind::Init => "initContainers",
        ContainerKind::Ephemeral => "ephemeralContainers",
    };
    format!("spec.{list}{{{}}}", escaped_within(name, CONTAINER_MAX))
}

/// Whose limit, and for the container's own: whether it is the end of the container.
fn reason_of(report: &OomReport) -> &'static str {
    match report.incident.scope {
        Scope::Pod => reason::POD,
        Scope::Qos | Scope::Kubepods => reason::KUBEPODS,
        Scope::Node => reason::NODE,
        Scope::Cgroup => reason::CGROUP,
        Scope::Container | Scope::Unknown => {
            let main = report.victim.namespace_pid.is_none_or(|pid| pid == 1);
            if main || report.incident.group_kill == Some(true) { reason::CONTAINER } else { reason::PROCESS }
        }
    }
}

/// What a person is told, in less than 1,024 bytes and without any character that a terminal could act on.
fn note(report: &OomReport, container: Option<&str>) -> String {
    let (victim, incident) = (&report.victim, &report.incident);
    let pid = victim.tgid.unwrap_or(victim.pid);
    let mut note = match &victim.comm {
        Some(comm) => format!("{} (pid {pid})", escaped_within(comm, NAME_MAX)),
        None => format!("pid {pid}"),
    };
    if let Some(container) = container {
        let _ = write!(note, " in container {}", escaped_within(container, NAME_MAX));
    }
    let _ = write!(note, " was killed: {}", what_ran_out(incident));
    if let Some(parts) = breakdown(report.memory.as_ref(), victim) {
        let _ = write!(note, ": {parts}");
    }
    let others = incident.victims.saturating_sub(1);
    if others > 0 {
        let _ = write!(note, "; killed with {others} other{}", if others == 1 { "" } else { "s" });
    }
    if let Some(trigger) = trigger(report, pid) {
        let _ = write!(note, "; {trigger}");
    }
    note
}

/// Who started the OOM killer, where it was not the victim itself.
fn trigger(report: &OomReport, victim: u32) -> Option<String> {
    let trigger = &report.trigger;
    let who = format!("{} (pid {})", escaped_within(&trigger.comm, NAME_MAX), trigger.tgid);
    match report.incident.cause {
        Some(Cause::Sysrq) => Some("asked for by SysRq f".to_owned()),
        Some(Cause::LimitWrite) => Some(format!("{who} lowered the limit")),
        _ if trigger.tgid == victim => None,
        _ => Some(format!("the memory was asked for by {who}")),
    }
}

fn what_ran_out(incident: &Incident) -> String {
    let whose = match incident.scope {
        Scope::Container => "the container",
        Scope::Pod => "the pod",
        Scope::Qos => "the pods of its QoS class",
        Scope::Kubepods => "all pods of the node",
        Scope::Cgroup => "a cgroup with a limit of its own",
        Scope::Node => return "the node had no memory left".to_owned(),
        Scope::Unknown => return "memory ran out".to_owned(),
    };
    match (incident.usage_bytes, incident.limit_bytes) {
        (Some(usage), Some(limit)) => format!("{whose} used {} of its {} limit", Size(usage), Size(limit)),
        (None, Some(limit)) => format!("{whose} reached its {} limit", Size(limit)),
        _ => format!("{whose} reached its limit"),
    }
}

/// What the memory was: of what ran out if the kernel told, else of the victim.
fn breakdown(memory: Option<&MemoryBreakdown>, victim: &Victim) -> Option<String> {
    let of_victim = memory.is_none_or(|memory| memory.anon_bytes.is_none());
    let (anon, tmpfs) = match memory.filter(|_| !of_victim) {
        Some(memory) => (memory.anon_bytes, memory.shmem_bytes),
        None => (victim.anon_rss_bytes, victim.shmem_rss_bytes),
    };
    let mut parts = format!("{} anonymous", Size(anon?));
    if let Some(tmpfs) = tmpfs.filter(|bytes| *bytes > 0) {
        let _ = write!(parts, ", {} tmpfs", Size(tmpfs));
    }
    if of_victim {
        parts.push_str(" in the process");
    }
    Some(parts)
}

#[cfg(test)]
mod tests;
