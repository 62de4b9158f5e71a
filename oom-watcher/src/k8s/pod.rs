//! What is read of a pod, and what it means for a victim: owner, container, limits.
//!
//! Only the fields that are used are read, so a field that a newer server adds, or another type in one that nobody reads,
//! changes nothing, and a pod of 100 KB is 1 KB here.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::quantity;
use crate::enrichment::{ContainerKind, Owner};

/// On the API's copy of a static pod: the UID that the kubelet uses for the pod itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// On a pod of a Deployment: the end of the name of its ReplicaSet.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod as the API writes it.
#[derive(Debug, Deserialize)]
pub(super) struct RawPod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

/// A list of pods without anything but their metadata.
#[derive(Debug, Deserialize)]
pub(super) struct PodMetadataList {
    items: Vec<PodMetadata>,
}

#[derive(Debug, Deserialize)]
struct PodMetadata {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<OwnerReference>,
}

#[derive(Debug, Deserialize)]
struct OwnerReference {
    kind: String,
    name: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    /// Of the pod as a whole, beside those of its containers (KEP-2837).
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    containers: Vec<ContainerSpec>,
    #[serde(default)]
    init_containers: Vec<ContainerSpec>,
    #[serde(default)]
    ephemeral_containers: Vec<ContainerSpec>,
}

#[derive(Debug, Deserialize)]
struct ContainerSpec {
    name: String,
    image: Option<String>,
    #[serde(default)]
    resources: Resources,
}

#[derive(Debug, Default, Deserialize)]
struct Resources {
    #[serde(default)]
    requests: Amounts,
    #[serde(default)]
    limits: Amounts,
}

#[derive(Debug, Default, Deserialize)]
struct Amounts {
    memory: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default, rename = "containerStatuses")]
    containers: Vec<ContainerStatus>,
    #[serde(default, rename = "initContainerStatuses")]
    init: Vec<ContainerStatus>,
    #[serde(default, rename = "ephemeralContainerStatuses")]
    ephemeral: Vec<ContainerStatus>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    #[serde(default)]
    last_state: State,
}

#[derive(Debug, Default, Deserialize)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Debug, Deserialize)]
struct Terminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: PodName,
    pub(super) owner: Option<Owner>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) node: Option<String>,
    /// Of the pod as a whole, where it has any of its own.
    pub(super) memory: Memory,
    containers: Vec<Container>,
}

/// Amounts of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) request: Option<u64>,
    pub(super) limit: Option<u64>,
}

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodName {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What is kept of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) kind: ContainerKind,
    pub(super) image: Option<String>,
    pub(super) memory: Memory,
    /// The ids of it that the API knows: that of now, and that of the one before.
    ids: Vec<String>,
}

impl PodName {
    /// A name that can be part of a request: nothing but what Kubernetes allows in one.
    pub(super) fn new(namespace: &str, name: &str) -> Option<Self> {
        let plain = |text: &str| {
            let inside = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
            (1..=253).contains(&text.len()) && inside && !text.starts_with(['-', '.']) && !text.ends_with(['-', '.'])
        };
        let name = Self { namespace: namespace.to_owned(), name: name.to_owned() };
        (plain(namespace) && plain(&name.name)).then_some(name)
    }
}

impl Metadata {
    /// The UID by which the kubelet and the cgroup path know the pod.
    fn kubelet_uid(&self) -> &str {
        self.annotations.get(MIRROR).unwrap_or(&self.uid)
    }
}

impl PodMetadataList {
    /// The names by the UIDs of the cgroup paths.
    pub(super) fn by_uid(self) -> impl Iterator<Item = (String, PodName)> {
        self.items.into_iter().filter_map(|PodMetadata { metadata }| {
            Some((metadata.kubelet_uid().to_owned(), PodName::new(&metadata.namespace, &metadata.name)?))
        })
    }
}

impl RawPod {
    /// Whether this is the pod whose cgroup has `uid`, and not one that came after it with the same name.
    pub(super) fn is(&self, uid: &str) -> bool {
        self.metadata.kubelet_uid() == uid
    }

    /// What is kept of it. None: its name is none.
    pub(super) fn reduce(self, label_keys: &[String]) -> Option<Pod> {
        let Self { metadata, spec, status } = self;
        let owner = owner(&metadata);
        let mut labels = metadata.labels;
        labels.retain(|key, _| label_keys.contains(key));
        let lists = [
            (ContainerKind::Container, spec.containers, status.containers),
            (ContainerKind::Init, spec.init_containers, status.init),
            (ContainerKind::Ephemeral, spec.ephemeral_containers, status.ephemeral),
        ];
        let containers = lists
            .into_iter()
            .flat_map(|(kind, specs, statuses)| specs.into_iter().map(move |spec| container(kind, spec, &statuses)))
            .collect();
        let name = PodName::new(&metadata.namespace, &metadata.name)?;
        Some(Pod { name, owner, labels, node: spec.node_name, memory: memory(&spec.resources), containers })
    }
}

fn memory(resources: &Resources) -> Memory {
    let amount = |amounts: &Amounts| amounts.memory.as_deref().and_then(quantity::bytes);
    Memory { request: amount(&resources.requests), limit: amount(&resources.limits) }
}

fn container(kind: ContainerKind, spec: ContainerSpec, statuses: &[ContainerStatus]) -> Container {
    let known = statuses.iter().filter(|status| status.name == spec.name);
    let ids = known.flat_map(|status| {
        let before = status.last_state.terminated.as_ref().and_then(|state| state.container_id.as_deref());
        // `containerd://0f3a…`
        [status.container_id.as_deref(), before]
            .into_iter()
            .flatten()
            .map(|id| id.split_once("://").map_or(id, |(_, id)| id).to_owned())
    });
    Container { kind, memory: memory(&spec.resources), ids: ids.collect(), image: spec.image, name: spec.name }
}

/// The controller. A ReplicaSet that a Deployment made is named after it and the hash of its template, so no request and
/// no permission is needed to tell the Deployment.
fn owner(metadata: &Metadata) -> Option<Owner> {
    let controller = metadata.owner_references.iter().find(|owner| owner.controller)?;
    let hash = metadata.labels.get(TEMPLATE_HASH).filter(|_| controller.kind == "ReplicaSet");
    let deployment = hash
        .and_then(|hash| controller.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        .filter(|name| !name.is_empty());
    Some(match deployment {
        Some(name) => Owner { kind: "Deployment".to_owned(), name: name.to_owned() },
        None => Owner { kind: controller.kind.clone(), name: controller.name.clone() },
    })
}

impl Pod {
    /// The container of a victim: by its name, else by its id.
    pub(super) fn container(&self, name: Option<&str>, id: Option<&str>) -> Option<&Container> {
        let by_name = name.and_then(|name| self.containers.iter().find(|container| container.name == name));
        let by_id = || self.containers.iter().find(|container| container.ids.iter().any(|known| Some(&**known) == id));
        by_name.or_else(by_id)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(text: &serde_json::Value) -> Pod {
        let raw: RawPod = serde_json::from_value(text.clone()).unwrap();
        raw.reduce(&[]).unwrap()
    }

    fn owned(kind: &str, name: &str, hash: Option<&str>) -> Option<Owner> {
        let labels = hash.map_or_else(|| json!({}), |hash| json!({ TEMPLATE_HASH: hash }));
        let owner = json!({ "kind": kind, "name": name, "controller": true });
        let other = json!({ "kind": "Backup", "name": "nightly" });
        let metadata = json!({ "name": "web-0", "namespace": "shop", "uid": "1", "labels": labels, "ownerReferences": [other, owner] });
        pod(&json!({ "metadata": metadata })).owner
    }

    #[test]
    fn the_owner_is_the_controller_and_a_deployment_is_told_by_its_replica_sets_name() {
        for (kind, name, hash, expected) in [
            ("ReplicaSet", "web-6d4cf56db6", Some("6d4cf56db6"), ("Deployment", "web")),
            // Of nobody's template, or named by a person.
            ("ReplicaSet", "web-6d4cf56db6", None, ("ReplicaSet", "web-6d4cf56db6")),
            ("ReplicaSet", "web", Some("6d4cf56db6"), ("ReplicaSet", "web")),
            ("ReplicaSet", "-6d4cf56db6", Some("6d4cf56db6"), ("ReplicaSet", "-6d4cf56db6")),
            ("StatefulSet", "db", None, ("StatefulSet", "db")),
            ("DaemonSet", "agent", None, ("DaemonSet", "agent")),
            ("Job", "report-29384750", None, ("Job", "report-29384750")),
            // A static pod.
            ("Node", "node-1", None, ("Node", "node-1")),
        ] {
            let (kind_expected, name_expected) = expected;
            let expected = Owner { kind: kind_expected.to_owned(), name: name_expected.to_owned() };
            assert_eq!(owned(kind, name, hash), Some(expected), "{kind} {name}");
        }
        assert_eq!(pod(&json!({ "metadata": { "name": "web-0", "namespace": "shop", "uid": "1" } })).owner, None);
    }

    #[test]
    fn a_container_is_found_by_its_name_or_by_an_id_of_now_or_before_whatever_its_kind() {
        let status = |name: &str, now: &str, before: &str| {
            let before = json!({ "terminated": { "containerID": format!("containerd://{before}") } });
            json!([{ "name": name, "containerID": format!("containerd://{now}"), "lastState": before }])
        };
        let pod = pod(&json!({
            "metadata": { "name": "web-0", "namespace": "shop", "uid": "1" },
            "spec": {
                "containers": [{ "name": "app" }],
                "initContainers": [{ "name": "prepare" }],
                "ephemeralContainers": [{ "name": "debugger" }],
            },
            "status": {
                "containerStatuses": status("app", "a1", "a0"),
                "initContainerStatuses": status("prepare", "b1", "b0"),
                "ephemeralContainerStatuses": status("debugger", "c1", "c0"),
            },
        }));
        for (name, id, expected) in [
            (Some("app"), None, Some(("app", ContainerKind::Container))),
            (None, Some("a1"), Some(("app", ContainerKind::Container))),
            (None, Some("a0"), Some(("app", ContainerKind::Container))),
            (None, Some("b0"), Some(("prepare", ContainerKind::Init))),
            (None, Some("c1"), Some(("debugger", ContainerKind::Ephemeral))),
            (None, Some("c0"), Some(("debugger", ContainerKind::Ephemeral))),
            // The name is the link's, which says more than an id.
            (Some("debugger"), Some("a1"), Some(("debugger", ContainerKind::Ephemeral))),
            (Some("gone"), Some("zz"), None),
            (None, None, None),
        ] {
            let found = pod.container(name, id).map(|container| (container.name.as_str(), container.kind));
            assert_eq!(found, expected, "{name:?} {id:?}");
        }
    }
}
