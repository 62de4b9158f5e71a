//! What the name and the target of one link in `/var/log/containers` say.
//!
//! The kubelet makes `<pod>_<namespace>_<container>-<container id>.log`, which points to
//! `…/<namespace>_<pod>_<pod uid>/<container>/<restart>.log`. A file name ends at 255 bytes, so with long names the id is cut,
//! or gone; then the target still has the names whole. Pure text: anybody may have made the file, so every part is held
//! against the grammar of Kubernetes' names, and what does not fit is no link.

use crate::cgroup::ContainerId;

/// Longest file name of Linux: where the kubelet cuts.
const NAME_MAX: usize = 255;
/// Longest DNS subdomain (pod) and label (namespace, container) of Kubernetes.
const SUBDOMAIN_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Namespace, pod and container, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerName {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod (a static pod's ends in the node's name).
    pub pod: String,
    /// Name of the container in the pod.
    pub container: String,
}

/// What a link is known by; made from the file name alone, so that a deleted link can be found by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LinkKey {
    /// The name ends in a whole id.
    Id(ContainerId),
    /// The name was cut at 255 bytes before its id ended.
    Cut(Box<str>),
}

/// A link of the kubelet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Names of the container.
    pub name: ContainerName,
    /// What is left of the id in a cut name; empty for a whole one.
    pub id_prefix: String,
    /// UID of the pod, from the target.
    pub pod_uid: Option<String>,
    /// Restarts of the container before this one, from the target.
    pub restart_count: Option<u32>,
}

/// The key of the link of this file name; none if no link of the kubelet's can be called so.
pub fn key(file_name: &str) -> Option<LinkKey> {
    let stem = file_name.strip_suffix(".log")?;
    if let Some((_, id)) = ContainerId::split_end(stem).filter(|(before, _)| before.ends_with('-')) {
        return Some(LinkKey::Id(id));
    }
    (file_name.len() == NAME_MAX).then(|| LinkKey::Cut(file_name.into()))
}

/// Reads a link. Without a target (an unreadable link, a plain file) the UID and the restarts are absent; a target that has
/// not the kubelet's form is no target, and one that names another container makes it no link.
pub fn parse(file_name: &str, target: Option<&str>) -> Option<Link> {
    let target = target.and_then(target_parts);
    match key(file_name)? {
        LinkKey::Id(_) => whole(file_name, target),
        LinkKey::Cut(_) => cut(file_name, target?),
    }
}

/// Names, UID and restarts of a target.
struct Target {
    name: ContainerName,
    pod_uid: String,
    restart_count: u32,
}

/// The last three parts of the target; what stands before them is the kubelet's `podLogsDir`.
fn target_parts(target: &str) -> Option<Target> {
    let mut parts = target.rsplit('/');
    let restart_count = restart(parts.next()?)?;
    let container = checked(parts.next()?, LABEL_MAX, is_label)?;
    let PodDirectory { namespace, pod, uid: pod_uid } = pod_directory(parts.next()?)?;
    Some(Target { name: ContainerName { namespace, pod, container }, pod_uid, restart_count })
}

/// The restarts in the name of a container's log file, `<restarts>.log`.
pub fn restart(file_name: &str) -> Option<u32> {
    file_name.strip_suffix(".log").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// What the name of a pod's log directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDirectory {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
}

/// Reads the name of a directory of `/var/log/pods`: `<namespace>_<pod>_<uid>`. No name of Kubernetes has an underscore.
pub fn pod_directory(file_name: &str) -> Option<PodDirectory> {
    let mut parts = file_name.splitn(3, '_');
    Some(PodDirectory {
        namespace: checked(parts.next()?, LABEL_MAX, is_label)?,
        pod: checked(parts.next()?, SUBDOMAIN_MAX, is_subdomain)?,
        uid: checked(parts.next()?, SUBDOMAIN_MAX, |byte| {
            byte == b'_' || byte.is_ascii_uppercase() || is_subdomain(byte)
        })?,
    })
}

/// The names of a container, if Kubernetes may have given them.
pub fn container_name(namespace: &str, pod: &str, container: &str) -> Option<ContainerName> {
    Some(ContainerName {
        namespace: checked(namespace, LABEL_MAX, is_label)?,
        pod: checked(pod, SUBDOMAIN_MAX, is_subdomain)?,
        container: checked(container, LABEL_MAX, is_label)?,
    })
}

/// Whether a container of Kubernetes may be called so.
pub fn is_container_name(text: &str) -> bool {
    checked(text, LABEL_MAX, is_label).is_some()
}

fn whole(file_name: &str, target: Option<Target>) -> Option<Link> {
    let (names, _id) = file_name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = names.splitn(3, '_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    let name = container_name(namespace, pod, container)?;
    if target.as_ref().is_some_and(|target| target.name != name) {
        return None;
    }
    let restart_count = target.as_ref().map(|target| target.restart_count);
    Some(Link { name, id_prefix: String::new(), pod_uid: target.map(|target| target.pod_uid), restart_count })
}

/// The whole names come from the target; the file name must be what the kubelet makes of them.
fn cut(file_name: &str, target: Target) -> Option<Link> {
    let ContainerName { namespace, pod, container } = &target.name;
    let names = format!("{pod}_{namespace}_{container}-");
    let stem = file_name.strip_suffix(".log")?;
    let id_prefix = match stem.strip_prefix(&names) {
        Some(id) if id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) => id.to_owned(),
        None if names.starts_with(stem) => String::new(),
        _ => return None,
    };
    Some(Link {
        name: target.name,
        id_prefix,
        pod_uid: Some(target.pod_uid),
        restart_count: Some(target.restart_count),
    })
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn is_subdomain(byte: u8) -> bool {
    is_label(byte) || byte == b'.'
}

fn checked(text: &str, longest: usize, allowed: fn(u8) -> bool) -> Option<String> {
    ((1..=longest).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_owned())
}
