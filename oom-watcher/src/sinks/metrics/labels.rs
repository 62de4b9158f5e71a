//! Who a series is about: namespace, pod and container, or the identifiers that stand in for them.

use std::sync::Arc;

use crate::{escape::escaped_within, names::ContainerName, report::OomReport};

/// Longest label value, in characters: the longest name of a Kubernetes object.
const LABEL_MAX: usize = 253;

/// The labels that name a container, safe to show: what a terminal could act on is escaped, and nothing is longer than
/// the longest name in Kubernetes. Names that Kubernetes allows are unchanged, and shared with the index of names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerLabels(Arc<ContainerName>);

/// The labels that name a pod, as safe as those of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodLabels {
    namespace: String,
    pod: String,
}

impl PodLabels {
    pub(super) fn new(namespace: &str, pod: &str) -> Self {
        Self { namespace: safe(namespace), pod: safe(pod) }
    }

    pub(super) fn pairs(&self) -> [(&'static str, &str); 2] {
        [("namespace", &self.namespace), ("pod", &self.pod)]
    }
}

/// A name from outside as the value of a label.
pub(super) fn safe(name: &str) -> String {
    escaped_within(name, LABEL_MAX)
}

impl ContainerLabels {
    /// Labels from names.
    pub fn new(namespace: &str, pod: &str, container: &str) -> Self {
        Self(Arc::new(ContainerName { namespace: safe(namespace), pod: safe(pod), container: safe(container) }))
    }

    /// Labels of a container that the node names.
    pub fn named(name: &Arc<ContainerName>) -> Self {
        let safe = Self::new(&name.namespace, &name.pod, &name.container);
        if safe.0 == *name { Self(Arc::clone(name)) } else { safe }
    }

    /// Of processes in no container.
    pub fn host() -> Self {
        Self::new("", "", "")
    }

    /// Of a report's victim. A name that is not known falls back to the identifier: the pod's UID, the container's id.
    pub fn of(report: &OomReport) -> Self {
        if let Some(kubernetes) = &report.kubernetes {
            let namespace = kubernetes.namespace.as_deref().unwrap_or_default();
            let pod = kubernetes.pod.as_deref().unwrap_or(&kubernetes.pod_uid);
            let container = kubernetes.container.as_deref().or(kubernetes.container_id.as_deref()).unwrap_or_default();
            Self::new(namespace, pod, container)
        } else if let Some(container) = &report.container {
            Self::new("", "", container.name.as_deref().unwrap_or(&container.id))
        } else {
            Self::host()
        }
    }

    pub(super) fn is_in(&self, pod: &PodLabels) -> bool {
        self.0.namespace == pod.namespace && self.0.pod == pod.pod
    }

    pub(super) fn pairs(&self) -> [(&'static str, &str); 3] {
        [("namespace", &self.0.namespace), ("pod", &self.0.pod), ("container", &self.0.container)]
    }

    pub(super) fn pairs_and<'a>(&'a self, name: &'static str, value: &'a str) -> [(&'static str, &'a str); 4] {
        let [namespace, pod, container] = self.pairs();
        [namespace, pod, container, (name, value)]
    }
}
