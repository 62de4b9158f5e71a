//! The grammar of one cgroup directory name: what the kubelet, the runtimes and systemd call their levels.
//!
//! Knows one name at a time; where a name stands in the path is the business of `path`. A name may hold any byte but `/`
//! and NUL (it arrives here lossily decoded), so nothing indexes into it without asking.

use super::ContainerId;

/// What made the container, as far as its directory name tells. On the cgroupfs driver containerd and docker use the bare
/// id, so their containers have no runtime here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// containerd, through its CRI plugin or nerdctl.
    Containerd,
    /// CRI-O.
    CriO,
    /// Docker Engine, alone or below cri-dockerd.
    Docker,
    /// Podman.
    Podman,
    /// Kata Containers: the cgroup holds the virtual machine, and the id is the sandbox's.
    Kata,
    /// iSulad.
    Isulad,
}

impl Runtime {
    /// The name that reports use; Kubernetes' own spelling where it has one (`containerRuntimeVersion`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Kata => "kata",
            Self::Isulad => "isulad",
        }
    }
}

/// Kubernetes' quality-of-service class of a pod, as the kubelet's cgroup tree shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QosClass {
    /// No level of its own: the pod hangs directly below the kubepods root.
    Guaranteed,
    /// Below `burstable`.
    Burstable,
    /// Below `besteffort`.
    BestEffort,
}

impl QosClass {
    /// The name that the kubelet uses in cgroup paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "guaranteed",
            Self::Burstable => "burstable",
            Self::BestEffort => "besteffort",
        }
    }
}

/// A name that ends in a container id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContainerName {
    pub(super) id: ContainerId,
    pub(super) runtime: Option<Runtime>,
    /// The process that watches the container (conmon) lives here, not the container.
    pub(super) monitor: bool,
}

/// `[<label>-]<id>[.scope]`, with `_` or `:` for the dash in some runtimes.
///
/// The colon form is what a container's cgroup is called when the kubelet uses the systemd driver and the runtime does not:
/// the triple `slice:label:id` that was meant for systemd becomes one directory.
pub(super) fn container(name: &str) -> Option<ContainerName> {
    let (before, id) = ContainerId::split_end(name.strip_suffix(".scope").unwrap_or(name))?;
    if before.is_empty() {
        return Some(ContainerName { id, runtime: None, monitor: false });
    }
    let label = before.strip_suffix(['-', '_', ':'])?;
    let label = label.rsplit(':').next().filter(|label| !label.is_empty())?;
    Some(ContainerName { id, runtime: runtime(label), monitor: label.ends_with("conmon") })
}

/// The runtime that labels its containers so. An unknown label is still a container's.
fn runtime(label: &str) -> Option<Runtime> {
    match label {
        "cri-containerd" | "containerd" | "nerdctl" => Some(Runtime::Containerd),
        "crio" | "crio-conmon" => Some(Runtime::CriO),
        "docker" => Some(Runtime::Docker),
        "libpod" | "libpod-conmon" | "libpod-payload" => Some(Runtime::Podman),
        "kata" => Some(Runtime::Kata),
        "isulad" => Some(Runtime::Isulad),
        _ => None,
    }
}

/// Whether this is the root of all pods: `kubepods`, `kubepods.slice`, or with a cgroup root `kubelet-kubepods.slice`.
pub(super) fn is_kubepods(name: &str) -> bool {
    name == "kubepods" || name.strip_suffix(".slice").is_some_and(is_kubepods_stem)
}

/// `kubepods`, or systemd's expansion of it below other slices: `kubelet-kubepods`.
fn is_kubepods_stem(stem: &str) -> bool {
    stem == "kubepods" || stem.ends_with("-kubepods")
}

/// The class of a QoS level that stands directly below the kubepods root.
pub(super) fn qos(name: &str) -> Option<QosClass> {
    let class = match name.strip_suffix(".slice") {
        None => name,
        Some(stem) => {
            let (parents, class) = stem.rsplit_once('-')?;
            is_kubepods_stem(parents).then_some(class)?
        }
    };
    qos_word(class)
}

fn qos_word(word: &str) -> Option<QosClass> {
    match word {
        "burstable" => Some(QosClass::Burstable),
        "besteffort" => Some(QosClass::BestEffort),
        _ => None,
    }
}

/// A pod's level under the cgroupfs driver, `pod<uid>`: gives the UID as the kubelet has it.
///
/// Any directory may be called so; it is a pod only below the kubepods root.
pub(super) fn plain_pod(name: &str) -> Option<&str> {
    uid(name.strip_prefix("pod")?)
}

/// A pod's level under the systemd driver, `<parents>-pod<uid>.slice`: gives the UID, still in systemd's spelling, and the
/// class. The slice's name repeats those of its parents, so it is a pod wherever it stands.
///
/// The kubelet turns each dash of the UID into an underscore before it joins the parts with dashes, so the last dash is
/// where the UID begins.
pub(super) fn pod_slice(name: &str) -> Option<(&str, QosClass)> {
    let (parents, pod) = name.strip_suffix(".slice")?.rsplit_once('-')?;
    let uid = uid(pod.strip_prefix("pod")?)?;
    if is_kubepods_stem(parents) {
        return Some((uid, QosClass::Guaranteed));
    }
    let (root, class) = parents.rsplit_once('-')?;
    Some((uid, qos_word(class).filter(|_| is_kubepods_stem(root))?))
}

/// A UID is a UUID, or a hash of 32 digits for a static pod; a static manifest may also set one of its own, so every name
/// that the kubelet can use as a directory is taken.
fn uid(text: &str) -> Option<&str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!text.is_empty() && text.bytes().all(allowed)).then_some(text)
}

/// Whether the level is another machine's or system container's whole tree (LXC, systemd-nspawn, libvirt): what stands
/// below it is that machine's, not this one's.
pub(super) fn is_machine(name: &str) -> bool {
    let framed =
        |prefix, suffix| name.strip_prefix(prefix).is_some_and(|rest: &str| rest.strip_suffix(suffix).is_some());
    name.starts_with("lxc.payload") || framed("machine-", ".scope") || framed("systemd-nspawn@", ".service")
}

/// Whether what stands below this level belongs to a container or a machine, whatever it is called.
pub(super) fn is_own_tree(name: &str) -> bool {
    is_machine(name) || container(name).is_some_and(|container| !container.monitor)
}

/// Whether systemd keeps processes of one unit of its own below this level.
pub(super) fn is_unit(name: &str) -> bool {
    [".service", ".scope", ".socket", ".mount", ".swap"]
        .iter()
        .any(|kind| name.strip_suffix(kind).is_some_and(|stem| !stem.is_empty()))
}

/// Whether this level groups units of systemd.
pub(super) fn is_slice(name: &str) -> bool {
    name.strip_suffix(".slice").is_some_and(|stem| !stem.is_empty())
}

/// Whether a systemd of a user's own runs below this level.
pub(super) fn is_user_manager(name: &str) -> bool {
    name.strip_prefix("user@").is_some_and(|rest| rest.strip_suffix(".service").is_some())
}
