//! Whom it hit: from the identity in the cgroup path to names.
//!
//! [`attribute`] is pure and asks memory only; it answers nearly every kill. [`Resolver`] is what the pipeline calls: it
//! answers at once where memory knows all that can be known, and else hands back a [`Pending`] that goes on looking beside
//! the pipeline, for [`DEADLINE`] at most. Whatever comes of it, the identifiers of the path are in the answer, so a kill
//! whose names nobody knows is still told apart from every other.

mod files;
mod resolver;

pub use resolver::{DEADLINE, Outcome, PENDING_MAX, Pending, Resolver, Sources};

use crate::cgroup::{Identity, PlainIdentity, PodContainer, PodIdentity, Runtime};
use crate::names::{Container, Index};
use crate::report::{Attribution, AttributionResult, AttributionSource, Kubernetes, PlainContainer};

/// Whom it hit: the part of the report that names give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributed {
    /// How far the victim could be attributed, and which source said so. The default is that of a victim without a cgroup.
    pub attribution: Attribution,
    /// The pod and container.
    pub kubernetes: Option<Kubernetes>,
    /// A container that no pod owns.
    pub container: Option<PlainContainer>,
    /// The unit of systemd.
    pub systemd_unit: Option<String>,
}

/// Says whom it hit, from the path and the names in memory.
pub fn attribute(identity: &Identity, index: &Index) -> Attributed {
    let found = match identity {
        Identity::Pod(pod) => named_pod(pod, index),
        Identity::PlainContainer(plain) => named_container(plain, index),
        _ => None,
    };
    found.unwrap_or_else(|| by_path(identity))
}

/// Says what the path alone tells.
pub fn by_path(identity: &Identity) -> Attributed {
    let only = |result| Attributed { attribution: by(result, AttributionSource::Path), ..Attributed::default() };
    let host = only(AttributionResult::Host);
    match identity {
        Identity::Pod(pod) => Attributed {
            attribution: by(AttributionResult::Id, AttributionSource::Path),
            kubernetes: Some(identifiers(pod)),
            ..Attributed::default()
        },
        Identity::PlainContainer(plain) => {
            let container = PlainContainer { id: plain.id.to_string(), name: None, runtime: runtime(plain.runtime) };
            Attributed { container: Some(container), ..host }
        }
        Identity::SystemdUnit(unit) => Attributed { systemd_unit: Some(unit.name.clone()), ..host },
        Identity::Qos(_) | Identity::Kubepods | Identity::Root | Identity::Other => host,
        Identity::Foreign => only(AttributionResult::Foreign),
    }
}

fn by(result: AttributionResult, source: AttributionSource) -> Attribution {
    Attribution { result, source }
}

fn runtime(runtime: Option<Runtime>) -> Option<String> {
    runtime.map(|runtime| runtime.as_str().to_owned())
}

/// What the path alone says of a process in a pod.
fn identifiers(pod: &PodIdentity) -> Kubernetes {
    Kubernetes {
        pod_uid: pod.uid.clone(),
        container_id: own_container(pod).map(|container| container.id.to_string()),
        runtime: runtime(pod.container.and_then(|container| container.runtime)),
        qos_class: Some(pod.qos.as_str().to_owned()),
        sub_cgroup: pod.sub_cgroup.clone(),
        ..Kubernetes::default()
    }
}

/// The container by its id, else the pod by another of its containers.
fn named_pod(pod: &PodIdentity, index: &Index) -> Option<Attributed> {
    let container = own_container(pod).and_then(|container| index.by_id(&container.id, Some(&pod.uid)));
    if let Some(container) = container {
        return Some(full(identifiers(pod), container));
    }
    let sibling = index.by_pod(&pod.uid)?;
    let kubernetes = Kubernetes {
        namespace: Some(sibling.name.namespace.clone()),
        pod: Some(sibling.name.pod.clone()),
        ..identifiers(pod)
    };
    let attribution = by(AttributionResult::Pod, AttributionSource::Sibling);
    Some(Attributed { attribution, kubernetes: Some(kubernetes), ..Attributed::default() })
}

/// A container outside of every pod's cgroup, if it has a link all the same: the kubelet keeps containers so with
/// `--cgroups-per-qos=false`.
fn named_container(plain: &PlainIdentity, index: &Index) -> Option<Attributed> {
    let container = index.by_id(&plain.id, None)?;
    let identifiers = Kubernetes {
        pod_uid: container.pod_uid.as_ref()?.to_string(),
        container_id: Some(plain.id.to_string()),
        runtime: runtime(plain.runtime),
        ..Kubernetes::default()
    };
    Some(full(identifiers, container))
}

fn full(identifiers: Kubernetes, container: &Container) -> Attributed {
    let kubernetes = Kubernetes {
        namespace: Some(container.name.namespace.clone()),
        pod: Some(container.name.pod.clone()),
        container: Some(container.name.container.clone()),
        restart_count: container.restart_count,
        ..identifiers
    };
    let attribution = by(AttributionResult::Full, AttributionSource::Index);
    Attributed { attribution, kubernetes: Some(kubernetes), ..Attributed::default() }
}

/// The container that the process is in; the process that watches one is in the pod only.
fn own_container(pod: &PodIdentity) -> Option<PodContainer> {
    pod.container.filter(|container| !container.monitor)
}

/// How far a process in this pod can be attributed at most. A sandbox of Kata has no link: its id is no container's.
fn best_in_pod(pod: &PodIdentity) -> AttributionResult {
    match own_container(pod) {
        Some(container) if container.runtime != Some(Runtime::Kata) => AttributionResult::Full,
        _ => AttributionResult::Pod,
    }
}
