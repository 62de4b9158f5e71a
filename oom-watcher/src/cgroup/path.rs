//! From a whole cgroup path to whose it is.
//!
//! The path is walked from the root inward, and the outermost owner wins: what a container does with the cgroups below its
//! own (systemd, docker, another Kubernetes) is its own business, and cannot make one of its processes look like another
//! pod's. The names come from the kernel, so the path is absolute whatever cgroup namespace anybody is in.

use super::segment::{self, QosClass, Runtime};
use super::{ContainerId, Node};

/// Whose cgroup it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A pod's, or a container's in it.
    Pod(PodIdentity),
    /// A container's that no pod owns (docker, podman, nerdctl).
    PlainContainer(PlainIdentity),
    /// A unit's of systemd, in no container.
    SystemdUnit(SystemdUnit),
    /// Directly in a QoS level.
    Qos(QosClass),
    /// Directly in the root of all pods.
    Kubepods,
    /// The root cgroup.
    Root,
    /// Anything else; also a path whose outermost part is missing, since nobody can tell who owns the rest.
    Other,
    /// Another node's, or the machine's that carries this node (kind and the like): not ours to attribute.
    Foreign,
}

/// What the path says about a process in a pod. Levels count from the root, which is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// UID that the kubelet uses for the pod: a UUID, or a hash of 32 digits for a static pod.
    pub uid: String,
    /// Class of the pod.
    pub qos: QosClass,
    /// Level of the root of all pods; absent where the runtime put the pod's cgroup outside of it.
    pub kubepods_level: Option<usize>,
    /// Level of the pod's cgroup.
    pub pod_level: usize,
    /// The container. Absent for a process in the pod's own cgroup (gVisor).
    pub container: Option<PodContainer>,
    /// Path below the container's cgroup (below the pod's where there is no container), when the process was deeper.
    pub sub_cgroup: Option<String>,
}

/// The container of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodContainer {
    /// Its id. A pause container's looks like any other, and so does a sandbox's that holds a virtual machine.
    pub id: ContainerId,
    /// What made it, when its name tells.
    pub runtime: Option<Runtime>,
    /// The cgroup is not the container's but that of the process that watches it (`crio-conmon`).
    pub monitor: bool,
    /// Level of its cgroup; the pod's own where a driver mismatch made one directory of the two.
    pub level: usize,
}

/// A container that no pod owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainIdentity {
    /// Its id.
    pub id: ContainerId,
    /// What made it, when the path tells.
    pub runtime: Option<Runtime>,
    /// Level of its cgroup.
    pub level: usize,
}

/// A unit of systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemdUnit {
    /// Its name, as systemd prints it.
    pub name: String,
    /// Level of its cgroup.
    pub level: usize,
}

/// Says whose cgroup it is, from its names: the root's (empty) first, then one for each level down to the process's own.
///
/// Never fails and never panics, whatever the names are.
pub fn identify(segments: &[&str], node: &Node) -> Identity {
    if segments.first() != Some(&"") {
        return Identity::Other;
    }
    let Some(from) = node.enter(segments) else { return Identity::Foreign };
    if segments.len() == 1 {
        return Identity::Root;
    }
    if let Some(pod) = find_pod(segments, from, node.look()) {
        return Identity::Pod(pod_identity(segments, pod));
    }
    if let Some(container) = plain_container(segments, from) {
        return Identity::PlainContainer(container);
    }
    pods_level(segments).or_else(|| unit(segments, from).map(Identity::SystemdUnit)).unwrap_or(Identity::Other)
}

/// Where a pod may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Anywhere: above the node that it belongs to there may be a container.
    Anywhere,
    /// Below no container and no other machine: their trees are their own.
    OutsideContainers,
}

/// A pod's level in a path.
pub(super) struct FoundPod {
    pub(super) uid: String,
    pub(super) level: usize,
    pub(super) kubepods_level: Option<usize>,
    qos: QosClass,
}

/// The outermost pod at or below level `from`.
pub(super) fn find_pod(segments: &[&str], from: usize, look: Look) -> Option<FoundPod> {
    for level in from..segments.len() {
        if let Some(pod) = pod_at(segments, from, level) {
            return Some(pod);
        }
        if look == Look::OutsideContainers && segment::is_own_tree(segments[level]) {
            return None;
        }
    }
    None
}

/// The pod whose cgroup is at this level, if it is one's.
fn pod_at(segments: &[&str], from: usize, level: usize) -> Option<FoundPod> {
    let name = segments[level];
    let name = name.split_once(':').map_or(name, |(pod, _container)| pod);
    if let Some((escaped, qos)) = segment::pod_slice(name) {
        let kubepods_level = (from..level).rev().find(|&above| segment::is_kubepods(segments[above]));
        return Some(FoundPod { uid: escaped.replace('_', "-"), level, kubepods_level, qos });
    }
    let uid = segment::plain_pod(name)?;
    let above = segments.get(from..level)?;
    let (kubepods_level, qos) = match above {
        [.., root] if segment::is_kubepods(root) => (level - 1, QosClass::Guaranteed),
        [.., root, class] if segment::is_kubepods(root) => (level - 2, segment::qos(class)?),
        _ => return None,
    };
    Some(FoundPod { uid: uid.to_owned(), level, kubepods_level: Some(kubepods_level), qos })
}

fn pod_identity(segments: &[&str], pod: FoundPod) -> PodIdentity {
    // Driver mismatch: the pod's slice and the container are one directory.
    let in_one = segments[pod.level].contains(':').then_some(pod.level);
    let container_level = in_one.unwrap_or(pod.level + 1);
    let container = segments.get(container_level).and_then(|name| segment::container(name)).map(|name| PodContainer {
        id: name.id,
        runtime: name.runtime,
        monitor: name.monitor,
        level: container_level,
    });
    let owner_level = container.map_or(pod.level, |container| container.level);
    PodIdentity {
        uid: pod.uid,
        qos: pod.qos,
        kubepods_level: pod.kubepods_level,
        pod_level: pod.level,
        container,
        sub_cgroup: segments.get(owner_level + 1..).filter(|deeper| !deeper.is_empty()).map(|deeper| deeper.join("/")),
    }
}

/// The outermost container at or below level `from`, unless it stands in another machine's tree.
fn plain_container(segments: &[&str], from: usize) -> Option<PlainIdentity> {
    for level in from..segments.len() {
        let name = segments[level];
        if segment::is_machine(name) {
            return None;
        }
        if let Some(container) = segment::container(name).filter(|container| !container.monitor) {
            let runtime = container.runtime.or_else(|| parents_runtime(segments[level - 1]));
            return Some(PlainIdentity { id: container.id, runtime, level });
        }
    }
    None
}

/// On the cgroupfs driver the id stands alone, below a directory that its runtime named.
fn parents_runtime(parent: &str) -> Option<Runtime> {
    match parent {
        "docker" => Some(Runtime::Docker),
        "libpod_parent" => Some(Runtime::Podman),
        "kata_overhead" => Some(Runtime::Kata),
        _ => None,
    }
}

/// A process directly in a level above the pods.
fn pods_level(segments: &[&str]) -> Option<Identity> {
    match segments {
        [.., root, class] if segment::is_kubepods(root) => segment::qos(class).map(Identity::Qos),
        [.., root] if segment::is_kubepods(root) => Some(Identity::Kubepods),
        _ => None,
    }
}

/// The unit that systemd accounts the process to: below its slices, the first level that is a unit. What the unit does
/// below its own cgroup is not systemd's, but for a user's manager, which has slices and units of its own.
fn unit(segments: &[&str], from: usize) -> Option<SystemdUnit> {
    let mut best = None;
    for (level, name) in segments.iter().enumerate().skip(from) {
        if !segment::is_slice(name) && !segment::is_unit(name) {
            break;
        }
        best = Some(SystemdUnit { name: (*name).to_owned(), level });
        if segment::is_unit(name) && !segment::is_user_manager(name) {
            break;
        }
    }
    best
}
