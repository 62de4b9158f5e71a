//! Cgroup path → who it was.
//!
//! Placeholder of the first step: the path alone.

use crate::{
    cgroup::Identity,
    report::{Attribution, AttributionResult, AttributionSource, Kubernetes, PlainContainer},
};

/// Who the victim was, as far as the sources say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributed {
    /// How far, and by whom.
    pub attribution: Attribution,
    /// The pod and container.
    pub kubernetes: Option<Kubernetes>,
    /// The container that Kubernetes does not own.
    pub container: Option<PlainContainer>,
    /// The systemd unit.
    pub systemd_unit: Option<String>,
}

/// What the path alone says.
pub fn by_path(identity: &Identity) -> Attributed {
    let host = Attribution { result: AttributionResult::Host, source: AttributionSource::Path };
    match identity {
        Identity::Pod(pod) => Attributed {
            attribution: Attribution { result: AttributionResult::Id, source: AttributionSource::Path },
            kubernetes: Some(Kubernetes { pod_uid: pod.uid.clone(), ..Kubernetes::default() }),
            ..Attributed::default()
        },
        Identity::SystemdUnit(unit) => {
            Attributed { attribution: host, systemd_unit: Some(unit.name.clone()), ..Attributed::default() }
        }
        _ => Attributed { attribution: host, ..Attributed::default() },
    }
}
