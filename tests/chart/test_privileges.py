"""The least privilege: however its switches are combined, the DaemonSet has what its values ask for and nothing else."""

import itertools
import re

import helm_python
import pytest
import yaml

from charttool import helm
from charttool.paths import CHART, ROOT

SWITCHES = {
    "config.kubernetesEnrichment": (True, False),
    "config.kubernetesEvents": (True, False),
    "config.podLogDir": ("", "/var/log/pods"),
    "config.crioBundleDir": ("", "/var/lib/containers/storage/overlay-containers"),
    "config.criSocket": ("", "/run/containerd/containerd.sock"),
    "config.dockerContainerDir": ("", "/var/lib/docker/containers"),
    "config.podmanContainerDir": ("", "/var/lib/containers/storage/overlay-containers"),
    "config.stateDir": ("", "/var/lib/oom-watcher"),
    "config.pinDir": ("", "/sys/fs/bpf/oom-watcher"),
    "capabilities.sysResource": (False, True),
    "capabilities.syslog": (False, True),
    "capabilities.sysAdmin": (False, True),
    "rbac.create": (True, False),
    "rbac.listPods": (False, True),
    "selinux.enabled": (False, True),
    "openshift.enabled": (False, True),
}
READ_ONLY = ("podLogDir", "crioBundleDir", "criSocket", "dockerContainerDir", "podmanContainerDir")
WRITABLE = ("stateDir", "pinDir")


def combinations() -> list[dict]:
    """Any three switches in every combination of theirs with the rest at their defaults, and all switches turned."""
    turned = [set(chosen) for count in range(4) for chosen in itertools.combinations(SWITCHES, count)] + [set(SWITCHES)]
    return [nested({name: values[name in chosen] for name, values in SWITCHES.items()}) for chosen in turned]


def nested(flat: dict) -> dict:
    """Dotted paths turned into values."""
    values: dict = {}
    for path, value in flat.items():
        *parents, key = path.split(".")
        inner = values
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[key] = value
    return values


def test_defaults_are_exactly_the_documented_privileges():
    pod, container = helm.agent(helm.render())
    assert container["securityContext"] == {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsUser": 0,
        "runAsGroup": 0,
        "capabilities": {"drop": ["ALL"], "add": ["BPF", "PERFMON"]},
    }
    assert pod["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert (pod["hostNetwork"], pod["hostPID"], pod["hostIPC"]) == (False, False, False)
    assert pod["volumes"] == [
        {"name": "container-log-links", "hostPath": {"path": "/var/log/containers", "type": "Directory"}}
    ]
    assert container["volumeMounts"] == [
        {"name": "container-log-links", "mountPath": "/var/log/containers", "readOnly": True}
    ]


def grants_what_nothing_uses(values: dict) -> bool:
    """Whether the chart refuses these values."""
    return values["rbac"]["listPods"] and not (values["rbac"]["create"] and values["config"]["kubernetesEnrichment"])


def test_every_value_that_widens_what_the_agent_may_is_a_switch():
    widening = {*READ_ONLY, *WRITABLE}
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {f"capabilities.{name}" for name in defaults["capabilities"]} <= set(SWITCHES)
    assert {f"config.{name}" for name in defaults["config"] if name in widening} <= set(SWITCHES)
    paths = {name for name, value in defaults["config"].items() if name.endswith(("Dir", "Socket"))}
    assert paths - {"containerLogDir"} == widening, "a directory that is no switch"


def test_nothing_is_granted_unasked_in_any_combination():
    for values in combinations():
        if grants_what_nothing_uses(values):
            with pytest.raises(helm_python.HelmError, match="rbac.listPods"):
                helm.render(values)
            continue
        objects = helm.render(values)
        pod, container = helm.agent(objects)
        check_confinement(pod, container, values)
        check_capabilities(container, values)
        check_mounts(pod, container, values)
        check_api_rights(objects, pod, values)


def test_only_state_and_pins_are_mounted_writable():
    paths = {"stateDir": "/var/lib/oom-watcher", "pinDir": "/sys/fs/bpf/oom-watcher"}
    pod, container = helm.agent(helm.render({"config": paths}))
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount["readOnly"]}
    assert writable == {"/var/lib/oom-watcher", "/pins"}
    types = {volume["hostPath"]["path"]: volume["hostPath"]["type"] for volume in pod["volumes"]}
    assert all(types[path] == "DirectoryOrCreate" for path in paths.values())
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_nothing_is_mounted_below_sys_where_no_runtime_can_make_the_place():
    _, container = helm.agent(helm.render({"config": {"pinDir": "/sys/fs/bpf/oom-watcher"}}))
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    given = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert given["PIN_DIR"] == places["pins"]
    assert not any(place.startswith(("/sys", "/proc", "/dev")) for place in places.values())


def check_confinement(pod: dict, container: dict, values: dict) -> None:
    context = container["securityContext"]
    assert context["privileged"] is False and context["allowPrivilegeEscalation"] is False, values
    assert context["readOnlyRootFilesystem"] is True, values
    assert not (pod["hostNetwork"] or pod["hostPID"] or pod["hostIPC"]), values
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", values
    labelled = values["openshift"]["enabled"] or values["selinux"]["enabled"]
    assert context.get("seLinuxOptions") == ({"type": "spc_t"} if labelled else None), values


def check_capabilities(container: dict, values: dict) -> None:
    expected = {"BPF", "PERFMON"}
    expected |= {"SYS_RESOURCE"} if values["capabilities"]["sysResource"] else set()
    expected |= {"SYSLOG"} if values["capabilities"]["syslog"] else set()
    expected |= {"SYS_ADMIN"} if values["capabilities"]["sysAdmin"] else set()
    capabilities = container["securityContext"]["capabilities"]
    assert capabilities["drop"] == ["ALL"] and set(capabilities["add"]) == expected, values


def check_mounts(pod: dict, container: dict, values: dict) -> None:
    config = values["config"]
    writable = {config[name] for name in WRITABLE} - {""}
    read_only = {"/var/log/containers", *(config[name] for name in READ_ONLY)} - {""}
    # As a list: Kubernetes takes no place twice, and CRI-O and podman may have the same directory.
    assert sorted(volume["hostPath"]["path"] for volume in pod["volumes"]) == sorted(writable | read_only), values
    paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"]}
    assert len({mount["mountPath"] for mount in container["volumeMounts"]}) == len(paths), values
    mounts = {paths[mount["name"]]: mount["readOnly"] for mount in container["volumeMounts"]}
    assert mounts == dict.fromkeys(writable, False) | dict.fromkeys(read_only, True), values


def check_api_rights(objects: list[dict], pod: dict, values: dict) -> None:
    config = values["config"]
    uses_api = config["kubernetesEnrichment"] or config["kubernetesEvents"]
    assert pod["automountServiceAccountToken"] is uses_api, values
    roles = [found for found in objects if found["kind"] == "ClusterRole"]
    assert len(roles) == (1 if uses_api and values["rbac"]["create"] else 0), values
    listed = {("", "pods", "list")} if values["rbac"]["listPods"] else set()
    for role in roles:
        granted = {
            (group, what, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for what in rule["resources"]
            for verb in rule["verbs"]
        }
        expected = {("", "pods", "get")} | listed if config["kubernetesEnrichment"] else set()
        expected |= {("events.k8s.io", "events", verb) for verb in ("create", "patch") if config["kubernetesEvents"]}
        assert granted == expected, values


def test_a_service_account_never_mounts_its_token_by_itself():
    assert helm.only(helm.render(), "ServiceAccount")["automountServiceAccountToken"] is False


def test_listing_pods_is_a_right_of_its_own():
    role = helm.only(helm.render({"rbac": {"listPods": True}}), "ClusterRole")
    assert role["rules"][0]["verbs"] == ["get", "list"]


def test_openshift_constraints_allow_what_the_pod_asks_for_and_no_more():
    values = {"openshift": {"enabled": True}, "capabilities": {"sysResource": True}}
    objects = helm.render(values)
    constraints = helm.only(objects, "SecurityContextConstraints")
    _, container = helm.agent(objects)
    assert constraints["allowedCapabilities"] == container["securityContext"]["capabilities"]["add"]
    assert constraints["requiredDropCapabilities"] == ["ALL"]
    assert constraints["users"] == ["system:serviceaccount:oom-watcher:oom-watcher"]
    refused = [
        key
        for key in constraints
        if key.startswith("allow") and key not in ("allowedCapabilities", "allowHostDirVolumePlugin")
    ]
    assert refused and all(constraints[key] is False for key in refused)


NO_API = {"kubernetesEnrichment": False, "kubernetesEvents": False}


@pytest.mark.parametrize(
    ("values", "volumes"),
    [
        ({}, ["hostPath", "projected"]),
        ({"config": NO_API}, ["hostPath"]),
        ({"config": {"containerLogDir": ""}}, ["projected"]),
        ({"config": {"containerLogDir": "", **NO_API}}, ["none"]),
        ({"config": {"containerLogDir": ""}, "extraVolumes": [{"name": "x", "hostPath": {"path": "/x"}}]}, ["projected", "hostPath"]),
        (
            {"extraVolumes": [{"name": "a", "secret": {}}, {"name": "b"}, {"name": "c", "cephfs": {}}]},
            ["hostPath", "projected", "secret", "emptyDir", "cephFS"],
        ),
    ],
    ids=["default", "no API", "no host directory", "nothing", "host directory of the user's", "others of the user's"],
)
def test_openshift_constraints_allow_the_kinds_of_volume_that_the_pod_has(values: dict, volumes: list[str]):
    constraints = helm.only(helm.render({**values, "openshift": {"enabled": True}}), "SecurityContextConstraints")
    assert constraints["volumes"] == volumes
    assert constraints["allowHostDirVolumePlugin"] is ("hostPath" in volumes)


def test_no_name_is_resolved_so_that_dns_may_be_closed():
    asked = set(re.findall(r"Config::(incluster\w*)\(", (ROOT / "oom-watcher" / "src" / "k8s" / "api.rs").read_text()))
    # It takes the address from KUBERNETES_SERVICE_HOST; `incluster_dns` would ask for a name.
    assert asked == {"incluster"}


@pytest.mark.parametrize(
    ("values", "egress_ports"),
    [
        ({}, [443, 6443]),
        ({"networkPolicy": {"dns": True}}, [443, 6443, 53, 53]),
        ({"config": NO_API}, []),
        ({"config": NO_API, "networkPolicy": {"dns": True}}, []),
    ],
    ids=["with the API", "with the API by a name", "without the API", "without the API, DNS for nothing"],
)
def test_network_policy_opens_only_what_is_used(values: dict, egress_ports: list[int]):
    policy = helm.only(helm.render({**values, "networkPolicy": {"enabled": True, **values.get("networkPolicy", {})}}), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for rule in policy["ingress"] for port in rule["ports"]] == ["metrics"]
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == egress_ports
