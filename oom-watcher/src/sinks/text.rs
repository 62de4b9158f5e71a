//! The line per kill for a person.
//!
//! Every name that comes from outside is escaped, so that it can neither break the line nor reach the terminal, and long
//! ones are shortened in the middle: the line of an ordinary kill fits 200 characters, and JSON has the rest.

use std::fmt::{self, Display, Formatter};

use crate::{
    enrichment::Enrichment,
    escape::escaped_within,
    report::{Cause, Incident, OomReport, Scope, Victim},
    size::Size,
};

/// Longest name or path on the line, in characters: a whole container id (64) fits.
const NAME_MAX: usize = 80;

/// The report on one line, without a line end.
pub fn line(report: &OomReport) -> String {
    let time = report.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    let (who, place, limit) = (Who(&report.victim), Place(report), Limit(&report.incident));
    let mut line = format!("{time} OOM kill: {who} in {place}: {limit}");
    let parts = [figures(&report.victim), trigger(report), company(&report.incident), doubt(&report.victim)];
    for part in parts.into_iter().flatten() {
        line.push_str("; ");
        line.push_str(&part);
    }
    line
}

/// What the Kubernetes API added, on one line, without a line end.
pub fn enrichment_line(enrichment: &Enrichment) -> String {
    let time = enrichment.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    let (victim, pod) = (&enrichment.victim, &enrichment.kubernetes);
    let name = |text: &str| escaped_within(text, NAME_MAX);
    let pid = victim.tgid.unwrap_or(victim.pid);
    let container = pod.container.as_ref().map(|container| format!("/{}", name(container))).unwrap_or_default();
    let mut line = format!("{time} OOM kill of pid {pid}: {}/{}{container}", name(&pod.namespace), name(&pod.pod));
    let size = |what: &str, bytes: Option<u64>| bytes.map(|bytes| format!("{what} {}", Size(bytes)));
    let labels = pod.labels.iter().map(|(key, value)| Some(format!("{}={}", name(key), name(value))));
    let parts = [
        pod.owner.as_ref().map(|owner| format!("of {} {}", name(&owner.kind), name(&owner.name))),
        pod.image.as_ref().map(|image| format!("image {}", name(image))),
        size("requests", pod.memory_request_bytes),
        size("limit", pod.memory_limit_bytes),
        size("the pod requests", pod.pod_memory_request_bytes),
        size("the pod's limit", pod.pod_memory_limit_bytes),
    ];
    for part in parts.into_iter().chain(labels).flatten() {
        line.push_str(", ");
        line.push_str(&part);
    }
    line
}

struct Who<'a>(&'a Victim);

impl Display for Who<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let pid = self.0.tgid.unwrap_or(self.0.pid);
        match &self.0.comm {
            Some(comm) => write!(f, "{} (pid {pid})", escaped_within(comm, NAME_MAX)),
            None => write!(f, "pid {pid}"),
        }
    }
}

/// The innermost thing that a person knows by name, or else its identifier.
struct Place<'a>(&'a OomReport);

impl Display for Place<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = |text: &str| escaped_within(text, NAME_MAX);
        if let Some(kubernetes) = &self.0.kubernetes {
            if let Some(namespace) = &kubernetes.namespace {
                write!(f, "{}/", name(namespace))?;
            }
            match &kubernetes.pod {
                Some(pod) => write!(f, "{}", name(pod))?,
                None => write!(f, "pod {}", name(&kubernetes.pod_uid))?,
            }
            match (&kubernetes.container, &kubernetes.container_id) {
                (Some(container), _) => write!(f, "/{}", name(container)),
                (None, Some(id)) => write!(f, "/{}", name(id)),
                (None, None) => Ok(()),
            }
        } else if let Some(container) = &self.0.container {
            write!(f, "container {}", name(container.name.as_deref().unwrap_or(&container.id)))
        } else if let Some(unit) = &self.0.systemd_unit {
            write!(f, "{}", name(unit))
        } else if let Some(cgroup) = &self.0.cgroup {
            write!(f, "cgroup {}", name(&cgroup.path))
        } else {
            f.write_str("an unknown cgroup")
        }
    }
}

/// What ran out.
struct Limit<'a>(&'a Incident);

impl Display for Limit<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Incident { scope, limit_bytes, usage_bytes, .. } = self.0;
        let whose = match scope {
            Scope::Container => "limit of the container",
            Scope::Pod => "limit of the pod",
            Scope::Qos => "limit of the QoS class",
            Scope::Kubepods => "limit of all pods",
            Scope::Node => "memory of the node",
            Scope::Cgroup => "limit of the cgroup",
            Scope::Unknown => return f.write_str("not known what ran out"),
        };
        f.write_str(whose)?;
        if *scope == Scope::Cgroup
            && let Some(path) = &self.0.memcg_path
        {
            write!(f, " {}", escaped_within(path, NAME_MAX))?;
        }
        if let Some(limit) = limit_bytes {
            write!(f, " {}", Size(*limit))?;
        }
        usage_bytes.map_or(Ok(()), |usage| write!(f, ", {} used", Size(usage)))
    }
}

/// The victim's own memory. Shared memory, swap and file mappings only where there is some.
fn figures(victim: &Victim) -> Option<String> {
    let some = |bytes: Option<u64>| bytes.filter(|bytes| *bytes > 0);
    let figures = [
        ("anon", victim.anon_rss_bytes),
        ("file", some(victim.file_rss_bytes)),
        ("shmem", some(victim.shmem_rss_bytes)),
        ("swap", some(victim.swap_bytes)),
    ];
    let shown: Vec<String> =
        figures.into_iter().filter_map(|(name, bytes)| Some(format!("{name} {}", Size(bytes?)))).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// Who asked, where it was not the victim itself.
fn trigger(report: &OomReport) -> Option<String> {
    let (trigger, victim) = (&report.trigger, &report.victim);
    let itself = victim.tgid.unwrap_or(victim.pid) == trigger.tgid;
    let comm = escaped_within(&trigger.comm, NAME_MAX);
    match report.incident.cause {
        Some(Cause::Sysrq) => Some("by SysRq f".to_owned()),
        Some(Cause::LimitWrite) => Some(format!("{comm} (pid {}) lowered the limit", trigger.tgid)),
        _ if itself => None,
        _ => Some(format!("triggered by {comm} (pid {})", trigger.tgid)),
    }
}

/// How many died with it.
fn company(incident: &Incident) -> Option<String> {
    let so_far = if incident.complete { "" } else { " so far" };
    match incident.victims {
        0 | 1 => None,
        2 => Some(format!("killed with 1 other{so_far}")),
        victims => Some(format!("killed with {} others{so_far}", victims - 1)),
    }
}

/// Why this may not be what it looks like.
fn doubt(victim: &Victim) -> Option<String> {
    if victim.shared_mm {
        Some("killed for sharing the memory of another victim".to_owned())
    } else if victim.confirmed {
        None
    } else {
        Some("perhaps it was dying already".to_owned())
    }
}

#[cfg(test)]
mod tests;
