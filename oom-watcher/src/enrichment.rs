//! What is learnt about a kill after it was reported: the pod as the Kubernetes API knows it.
//!
//! It follows the report on a line of its own and never changes it; `incident_id` and `container_id` join the two. Its JSON
//! form is the contract of `docs/enrichment.schema.json`, with the version of [`crate::report`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

/// What the API said about the pod of a victim: one for each container of each incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Enrichment {
    /// Version of this form: [`crate::report::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Tells this line from the report of a kill, which has no such field.
    #[serde(rename = "type")]
    pub line_type: LineType,
    /// When the kernel marked the victim: the time of the report.
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub time: Timestamp,
    /// Name of the node that this agent watches.
    pub node: String,
    /// `incident.id` of the report.
    pub incident_id: String,
    /// The first victim of the incident in that container.
    pub victim: EnrichedVictim,
    /// The pod and container.
    pub kubernetes: EnrichedPod,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LineType {
    /// The pod of a kill that was reported before.
    Enrichment,
}

/// The victim, as its report names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EnrichedVictim {
    /// `victim.pid` of the report.
    pub pid: u32,
    /// `victim.tgid` of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tgid: Option<u32>,
    /// `victim.comm` of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
}

/// The pod and container as the API has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EnrichedPod {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID that the kubelet uses for the pod: `kubernetes.pod_uid` of the report.
    pub pod_uid: String,
    /// Name of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Which list of the pod's specification the container is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_kind: Option<ContainerKind>,
    /// Id of the container: `kubernetes.container_id` of the report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Who made the pod: its controller, and for a ReplicaSet of a Deployment that Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The labels of the pod that `--pod-labels` chooses.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Image of the container, as the pod asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Memory that the container requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_request_bytes: Option<u64>,
    /// Memory that the container is limited to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Memory that the pod requests as a whole (`spec.resources`), which its containers share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_memory_request_bytes: Option<u64>,
    /// Memory that the pod is limited to as a whole (`spec.resources`): where the container has no limit of its own, the one that
    /// it can run into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_memory_limit_bytes: Option<u64>,
    /// Node that the pod is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Owner {
    /// Its kind: `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `Node` (of a static pod)…
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Which list of a pod's specification a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ContainerKind {
    /// `spec.containers`
    Container,
    /// `spec.initContainers`: also the restartable ones, called sidecars.
    Init,
    /// `spec.ephemeralContainers`
    Ephemeral,
}
