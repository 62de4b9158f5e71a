"""The chart's container as a runtime gets it: what kubelet and containerd make of a pod, in the fields that it sets.

A field of the pod or of its container, a kind of volume or a source of a variable that is not known here is an error,
never left out: else the proof would be about another container than the chart's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import api
import seccomp

Json = dict[str, Any]

# What containerd and CRI-O hide in every container that is not privileged.
MASKED = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
NO_EXECUTION = ["nosuid", "noexec", "nodev"]
READ_ONLY_BIND = ["rbind", "rprivate", "ro"]
# What they mount into every container.
MOUNTS = [
    ("/proc", "proc", "proc", NO_EXECUTION),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/mqueue", "mqueue", "mqueue", NO_EXECUTION),
    ("/sys", "sysfs", "sysfs", [*NO_EXECUTION, "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", [*NO_EXECUTION, "relatime", "ro"]),
]
# The kubelet's score for containers of pods that are critical for the node.
CRITICAL_OOM_SCORE = -997
# The number of CAP_SYS_RESOURCE.
SYS_RESOURCE = 24
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}
# Fields of pod and container: those that are translated, and those that a runtime never sees.
POD_FIELDS = {
    "affinity",
    "automountServiceAccountToken",
    "containers",
    "enableServiceLinks",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "nodeSelector",
    "priorityClassName",
    "securityContext",
    "serviceAccountName",
    "terminationGracePeriodSeconds",
    "tolerations",
    "volumes",
}
CONTAINER_FIELDS = {
    "args",
    "env",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "name",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "volumeMounts",
}
MOUNT_FIELDS = {"mountPath", "name", "readOnly"}
RESOURCE_FIELDS = {"limits": {"memory"}, "requests": {"cpu", "memory"}}
SECURITY_FIELDS = {
    "allowPrivilegeEscalation",
    "capabilities",
    "privileged",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsUser",
}


class NotTranslated(Exception):
    """The chart uses something that this module does not know."""


@dataclass(frozen=True)
class Place:
    """Where a container runs."""

    root: Path
    """The unpacked image."""
    node: Path
    """What stands for the node's file system: hostPath volumes are below it."""
    cgroup: str
    """Path of the container's cgroup in every hierarchy."""
    network: Path
    """The pod's network namespace."""
    account: Path
    """The service account's files."""
    unified: bool
    """Whether the machine has cgroup version 2 only."""
    node_name: str
    pod_uid: str


def specification(pod: Json, container: Json, image: Json, profile: Json, place: Place) -> Json:
    """The OCI runtime specification of the DaemonSet's container."""
    _refuse_unknown(pod, container)
    security = container["securityContext"]
    capabilities = sorted(f"CAP_{name}" for name in security["capabilities"]["add"])
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": [*image["config"]["Entrypoint"], *container.get("args", [])],
            "env": [*image["config"].get("Env", []), *_environment(pod, container, place)],
            "cwd": image["config"].get("WorkingDir") or "/",
            "user": {"uid": security["runAsUser"], "gid": security["runAsGroup"]},
            "capabilities": dict.fromkeys(["bounding", "effective", "permitted"], capabilities),
            "noNewPrivileges": not security["allowPrivilegeEscalation"],
            "oomScoreAdj": _oom_score(),
        },
        "root": {"path": str(place.root), "readonly": security["readOnlyRootFilesystem"]},
        "hostname": "oom-watcher",
        "mounts": [*_default_mounts(), *_volumes(pod, container, place)],
        "linux": {
            "cgroupsPath": place.cgroup,
            "namespaces": _namespaces(place),
            "resources": _resources(container),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp.filter_for(profile, set(capabilities)),
        },
    }


def quantity(text: str) -> int:
    """Bytes of a Kubernetes quantity."""
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return int(text)


def _refuse_unknown(pod: Json, container: Json) -> None:
    security, resources = container["securityContext"], container["resources"]
    known = [
        ("pod", pod, POD_FIELDS),
        ("container", container, CONTAINER_FIELDS),
        ("securityContext", security, SECURITY_FIELDS),
        ("resources", resources, RESOURCE_FIELDS.keys()),
        *((f"resources.{kind}", resources[kind], fields) for kind, fields in RESOURCE_FIELDS.items()),
        *(("volumeMount", mount, MOUNT_FIELDS) for mount in container["volumeMounts"]),
        *(("volume", volume, {"name", "hostPath"}) for volume in pod["volumes"]),
    ]
    for what, given, fields in known:
        if unknown := given.keys() - fields:
            raise NotTranslated(f"{what}: {sorted(unknown)}")
    if security["privileged"] or security["capabilities"]["drop"] != ["ALL"]:
        raise NotTranslated("a privileged container, or one that keeps the runtime's capabilities")
    if pod["securityContext"] != {"seccompProfile": {"type": "RuntimeDefault"}}:
        raise NotTranslated(f"the pod's securityContext: {pod['securityContext']}")
    if pod.get("hostPID") or pod.get("hostNetwork") or pod.get("hostIPC") or "initContainers" in pod:
        raise NotTranslated("the node's namespaces, or init containers")


def _oom_score() -> int:
    """As containerd with `restrict_oom_score_adj`: without SYS_RESOURCE no score is below the parent's."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    own = int(Path("/proc/self/oom_score_adj").read_text())
    return CRITICAL_OOM_SCORE if effective & 1 << SYS_RESOURCE else max(CRITICAL_OOM_SCORE, own)


def _environment(pod: Json, container: Json, place: Place) -> list[str]:
    fields = {"spec.nodeName": place.node_name, "metadata.uid": place.pod_uid}
    variables = api.environment() if pod["automountServiceAccountToken"] else []
    for variable in container["env"]:
        value = variable.get("value")
        if value is None:
            value = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        variables.append(f"{variable['name']}={value}")
    return variables


def _default_mounts() -> list[Json]:
    return [
        {"destination": destination, "type": kind, "source": source, "options": options}
        for destination, kind, source, options in MOUNTS
    ]


def _volumes(pod: Json, container: Json, place: Place) -> list[Json]:
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    account = {"destination": api.ACCOUNT, "type": "bind", "source": str(place.account), "options": READ_ONLY_BIND}
    return [
        *([account] if pod["automountServiceAccountToken"] else []),
        *({
            "destination": mount["mountPath"],
            "type": "bind",
            "source": str(place.node / paths[mount["name"]].lstrip("/")),
            "options": READ_ONLY_BIND if mount.get("readOnly") else ["rbind", "rprivate", "rw"],
        }
        for mount in container["volumeMounts"])
    ]


def _namespaces(place: Place) -> list[Json]:
    kinds = ["pid", "ipc", "uts", "mount", *(["cgroup"] if place.unified else [])]
    return [*({"type": kind} for kind in kinds), {"type": "network", "path": str(place.network)}]


def _resources(container: Json) -> Json:
    resources = container["resources"]
    limit = quantity(resources["limits"]["memory"])
    milli = int(resources["requests"]["cpu"].removesuffix("m"))
    return {
        # No swap beyond the limit, which is what the kubelet asks for.
        "memory": {"limit": limit, "swap": limit},
        "cpu": {"shares": max(2, milli * 1024 // 1000)},
        "devices": [{"allow": False, "access": "rwm"}],
    }
