"""What the chart renders is what Kubernetes takes, and what the repository says it renders."""

import json
import re
import subprocess
import tarfile
import tomllib
from pathlib import Path

import helm_python
import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from pydantic import ValidationError

from charttool import cluster, contract, generated, golden, helm, manifests
from charttool.paths import CHART, K8S, ROOT

# The oldest version that Chart.yaml admits and the newest whose schema there is.
OLDEST = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"].removeprefix(">=").removesuffix("-0")
NEWEST = kubernetes_validate.latest_version()
# Generated from the operator's custom resource definitions.
OPERATOR = {
    "ServiceMonitor": prometheus_operator.ServiceMonitor,
    "PodMonitor": prometheus_operator.PodMonitor,
    "PrometheusRule": prometheus_operator.PrometheusRule,
}
# Not Kubernetes' own. Of OpenShift's kind there is no schema in a package.
CUSTOM = {*OPERATOR, "SecurityContextConstraints"}
ALL_VALUES = {golden.name_of(path): golden.load(path) for path in golden.VALUES}


def test_the_matrix_has_the_version_that_the_chart_promises():
    found = helm.only(helm.render(), "DaemonSet")
    assert kubernetes_validate.validate(found, OLDEST) == OLDEST.rsplit(".", 1)[0], "the nearest schema is an older one"


@pytest.mark.parametrize("name", ALL_VALUES)
def test_lint_is_clean(name: str):
    report = helm_python.lint(CHART, ALL_VALUES[name], strict=True)
    said = [message for message in report["messages"] if "icon is recommended" not in message["error"]]
    assert said == [] and report["errors"] == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", ALL_VALUES)
def test_objects_match_kubernetes_schemas(name: str, version: str):
    objects = helm.render(ALL_VALUES[name], tests=True)
    known = [found for found in objects if found["kind"] not in CUSTOM]
    assert {"DaemonSet", "ServiceAccount"} <= {found["kind"] for found in known}
    for found in known:
        kubernetes_validate.validate(found, version, strict=True)


def test_the_schemas_would_notice_a_wrong_field():
    found = helm.only(helm.render(), "DaemonSet")
    found["spec"]["template"]["spec"]["hostPid"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found, NEWEST, strict=True)


def check_operator(found: dict):
    """The models pass over fields that they do not know, so what they have read is written again and compared."""
    model = OPERATOR[found["kind"]].model_validate(found)
    assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == found


@pytest.mark.parametrize("kind", OPERATOR)
def test_operators_objects_match_their_definitions(kind: str):
    renderings = (helm.render(values) for values in ALL_VALUES.values())
    objects = [found for rendering in renderings for found in rendering if found["kind"] == kind]
    assert objects
    for found in objects:
        check_operator(found)


@pytest.mark.parametrize("change", [{"endpoint": []}, {"endpoints": [{"interval": "30 seconds"}]}, {"selector": "app"}])
def test_the_operators_definitions_would_notice(change: dict):
    found = helm.only(helm.render(ALL_VALUES["everything"]), "ServiceMonitor")
    check_operator(found)
    found["spec"] |= change
    with pytest.raises((ValidationError, AssertionError)):
        check_operator(found)


@pytest.mark.parametrize("name", ALL_VALUES)
def test_every_object_is_labelled_and_in_a_namespace(name: str):
    clusterwide = {"ClusterRole", "ClusterRoleBinding", "SecurityContextConstraints"}
    for found in helm.render(ALL_VALUES[name], tests=True):
        if found["metadata"]["name"].endswith("-extra"):
            continue
        labels = found["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "oom-watcher"
        assert ("namespace" in found["metadata"]) == (found["kind"] not in clusterwide), found["kind"]


def test_golden_renderings_are_current():
    assert generated.settle(golden.wanted(), check=True, command="golden") == 0


def test_kubectl_manifests_are_current():
    assert generated.settle(manifests.wanted(), check=True, command="render") == 0
    assert set(manifests.wanted()) == set(K8S.rglob("*.yaml")), "a file in k8s/ that nothing renders"


@pytest.mark.parametrize("path", manifests.FILES)
def test_kubectl_parses_the_manifests(path: str, need):
    result = subprocess.run(
        [need("kubectl"), "label", "--local", "-f", K8S / path, "parsed=yes", "-o", "name"],
        capture_output=True,
        text=True,
        check=True,
        env={"KUBECONFIG": "/dev/null", "PATH": "/usr/bin:/bin"},
    )
    objects = helm.parse((K8S / path).read_text())
    assert len(result.stdout.split()) == len(objects) > 0


def test_no_api_manifests_have_no_rights_at_all():
    kinds = {found["kind"] for found in helm.parse((K8S / "no-api" / "daemonset.yaml").read_text())}
    assert kinds == {"Namespace", "ResourceQuota", "ServiceAccount", "Service", "DaemonSet"}


@pytest.mark.parametrize("path", ["daemonset.yaml", "no-api/daemonset.yaml"])
def test_kubectl_manifests_are_admitted_where_system_priorities_are_reserved(path: str):
    objects = helm.parse((K8S / path).read_text())
    pod, _ = helm.agent(objects)
    (scope,) = helm.only(objects, "ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"]
    assert (scope["operator"], scope["values"]) == ("In", [pod["priorityClassName"]])


def test_environment_follows_the_rule_and_leaves_out_what_is_empty():
    values = {
        "resources": {"limits": {"memory": "1Gi"}},
        "config": {
            "ringBufferSize": 268435456,
            "podLabels": ["app", "team"],
            "metricsAddress": "",
            "zeroSeries": False,
        },
    }
    _, container = helm.agent(helm.render(values))
    given = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert given["RING_BUFFER_SIZE"] == "268435456"  # not 2.68435456e+08
    assert given["POD_LABELS"] == "app,team"
    assert given["ZERO_SERIES"] == "false"
    assert "METRICS_ADDRESS" not in given and "CRI_SOCKET" not in given


def test_node_and_pod_are_told_by_the_downward_api():
    _, container = helm.agent(helm.render())
    paths = {
        entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container["env"] if "valueFrom" in entry
    }
    assert paths == {"NODE_NAME": "spec.nodeName", "POD_UID": "metadata.uid"}


def test_every_setting_is_an_option_of_the_agent():
    source = ROOT / "oom-watcher" / "src" / "cli.rs"
    if not source.exists():
        pytest.skip("the agent has no command line yet")
    options = set(re.findall(r"^    pub (\w+): (?:Option<)?String", source.read_text(), re.MULTILINE))
    _, container = helm.agent(helm.render(ALL_VALUES["everything"]))
    set_by_chart = {entry["name"].lower() for entry in container["env"]} - {"https_proxy"}
    assert set_by_chart == options - {"timeout"}


def test_scrapes_keep_the_victims_labels():
    for kind, key, where in [
        ("ServiceMonitor", "serviceMonitor", "endpoints"),
        ("PodMonitor", "podMonitor", "podMetricsEndpoints"),
    ]:
        monitor = helm.only(helm.render({key: {"enabled": True}}), kind)
        (endpoint,) = monitor["spec"][where]
        assert endpoint["honorLabels"] is True
        assert {"node"} == {relabeling["targetLabel"] for relabeling in endpoint["relabelings"]}
        assert {"namespace", "pod", "container"} <= contract.metrics()["oom_kills_total"]


def test_selectors_match_the_pods_and_nothing_of_another_release():
    objects = helm.render(
        {"podMonitor": {"enabled": True}, "networkPolicy": {"enabled": True}}, tests=True, release="one"
    )
    daemonset = helm.only(objects, "DaemonSet")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    test_pod = helm.only(objects, "Pod")["metadata"]["labels"]
    selectors = [
        daemonset["spec"]["selector"]["matchLabels"],
        helm.only(objects, "Service")["spec"]["selector"],
        helm.only(objects, "PodMonitor")["spec"]["selector"]["matchLabels"],
        helm.only(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test_pod.items()
        assert selector["app.kubernetes.io/instance"] == "one"


def test_two_releases_share_no_name():
    one, two = (helm.render(release="oom-watcher", namespace=namespace) for namespace in ("one", "two"))
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert helm.only(one, kind)["metadata"]["name"] != helm.only(two, kind)["metadata"]["name"]


# Names that Kubernetes takes and YAML, unquoted, reads as something else.
NAMES = ["1234", "123", "true", "on", "no", "null", "0x10", "1e3", "1.5", "1-1-1"]


def read_as_kubernetes_does(objects: list[dict]) -> None:
    """Holds every object against the schemas, which ask for strings where strings have to be."""
    for found in objects:
        if found["kind"] in OPERATOR:
            check_operator(found)
        elif found["kind"] not in CUSTOM:
            kubernetes_validate.validate(found, NEWEST, strict=True)
        metadata = found["metadata"]
        texts = [metadata["name"], metadata.get("namespace", ""), *metadata["labels"].values()]
        assert all(isinstance(text, str) for text in texts), metadata


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_as_names(name: str):
    values = {
        **helm.ALL_KINDS,
        "service": {"enabled": False},
        "nameOverride": name,
        "fullnameOverride": name,
        "serviceAccount": {"name": name},
        "priorityClassName": name,
        "imagePullSecrets": [{"name": name}],
        "podMonitor": {"enabled": True, "namespace": name},
        "prometheusRule": {"enabled": True, "namespace": name, "job": name},
        "dashboard": {"enabled": True, "namespace": name},
        "commonLabels": {"a": name},
        "podLabels": {"b": name},
        "commonAnnotations": {"c": name},
    }
    dotless = name.replace(".", "-")
    objects = helm.render(values, tests=True, release=name, namespace=dotless)
    read_as_kubernetes_does(objects)
    daemonset = helm.only(objects, "DaemonSet")
    assert (daemonset["metadata"]["name"], daemonset["metadata"]["namespace"]) == (dotless, dotless)
    assert daemonset["metadata"]["labels"]["app.kubernetes.io/instance"] == name
    assert daemonset["spec"]["template"]["spec"]["serviceAccountName"] == name
    assert helm.only(objects, "PodMonitor")["spec"]["namespaceSelector"]["matchNames"] == [dotless]
    account = f"system:serviceaccount:{dotless}:{name}"
    assert helm.only(objects, "SecurityContextConstraints")["users"] == [account]
    (rule,) = helm.only(objects, "ClusterRoleBinding")["subjects"]
    assert (rule["name"], rule["namespace"]) == (name, dotless)


def test_names_with_the_service_and_the_quota():
    values = {"fullnameOverride": "on", "priorityQuota": {"create": "always"}, "serviceMonitor": {"enabled": True, "namespace": "1"}}
    objects = helm.render(values, tests=True, release="1234", namespace="123")
    read_as_kubernetes_does(objects)
    assert helm.only(objects, "Service")["metadata"]["name"] == "on"
    environment = helm.only(objects, "Pod")["spec"]["containers"][1]["env"]
    assert environment[0] == {"name": "URL", "value": "http://on.123.svc:8080/metrics"}


def test_large_numbers_are_numbers():
    values = {"terminationGracePeriodSeconds": 1000000, "test": {"timeoutSeconds": 1000000}}
    objects = helm.render(values, tests=True)
    read_as_kubernetes_does(objects)
    pod, _ = helm.agent(objects)
    assert pod["terminationGracePeriodSeconds"] == helm.only(objects, "Pod")["spec"]["activeDeadlineSeconds"] == 1000000
    assert all("e+0" not in text for text in helm.render_files(values).values())


def test_dots_of_a_release_are_not_in_the_name_of_its_service():
    objects = helm.render(release="a.b")
    assert helm.only(objects, "Service")["metadata"]["name"] == "a-b-oom-watcher"
    assert helm.only(objects, "Service")["spec"]["selector"]["app.kubernetes.io/instance"] == "a.b"
    long = helm.render({"nameOverride": f"{'n' * 62}.n", "fullnameOverride": f"{'f' * 61}..f"})
    labels = helm.only(long, "Service")["metadata"]
    assert (labels["name"], labels["labels"]["app.kubernetes.io/name"]) == ("f" * 61, "n" * 62)


def test_names_of_the_whole_cluster_are_apart():
    long = "n" * 62
    places = [("a", "b-c"), ("a-b", "c"), (f"{long}1", "x"), (f"{long}2", "x"), (f"{long}2", "y")]
    renderings = [helm.render({"fullnameOverride": name}, namespace=namespace) for namespace, name in places]
    names = {helm.only(objects, "ClusterRole")["metadata"]["name"] for objects in renderings}
    assert len(names) == len(places)


def test_labels_that_are_given_twice_are_there_once():
    ours = {"app.kubernetes.io/part-of": "ours", "team": "all", "tier": "all"}
    values = {
        **helm.ALL_KINDS,
        "commonLabels": ours,
        "commonAnnotations": {"note": "all", "kubectl.kubernetes.io/default-container": "none"},
        "podLabels": {"team": "pods", "app.kubernetes.io/part-of": "pods"},
        "podAnnotations": {"note": "pods", "kubectl.kubernetes.io/default-container": "mine"},
        "podMonitor": {"enabled": True, "labels": {"team": "monitors", "app.kubernetes.io/instance": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"team": "rules"}},
        "dashboard": {"enabled": True, "labels": {"team": "boards"}, "annotations": {"note": "boards"}},
    }
    # Every rendering is read by a parser that refuses a key that is there twice.
    objects = helm.render(values, tests=True)
    labels = {found["kind"]: found["metadata"]["labels"] for found in objects}
    assert labels["Service"].items() >= ours.items() and labels["Pod"].items() >= ours.items()
    teams = {kind: labels[kind]["team"] for kind in ("PodMonitor", "PrometheusRule", "ConfigMap")}
    assert teams == {"PodMonitor": "monitors", "PrometheusRule": "rules", "ConfigMap": "boards"}
    assert labels["PodMonitor"]["app.kubernetes.io/instance"] == "prometheus", "nothing selects a monitor but Prometheus"
    pod = helm.only(objects, "DaemonSet")["spec"]["template"]["metadata"]
    assert (pod["labels"]["team"], pod["labels"]["tier"], pod["labels"]["app.kubernetes.io/part-of"]) == ("pods", "all", "pods")
    assert pod["annotations"] == {"note": "pods", "kubectl.kubernetes.io/default-container": "mine"}


def test_a_key_that_is_there_twice_would_be_noticed():
    with pytest.raises(yaml.YAMLError, match="twice"):
        helm.parse("a: {b: 1, b: 2}")


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    _, container = helm.agent(helm.render())
    assert container["image"].endswith(f":{version}")


def test_package_has_what_users_need_and_not_what_tests_need(tmp_path: Path):
    with tarfile.open(helm_python.package(CHART, destination=tmp_path)) as archive:
        names = {name.removeprefix("oom-watcher/") for name in archive.getnames()}
    assert {
        "README.md",
        "values.schema.json",
        "files/alerts.yaml",
        "files/dashboard.json",
        "templates/NOTES.txt",
    } <= names
    assert not any(name.startswith("ci/") for name in names)


def test_app_armor_profile_is_set_where_kubernetes_knows_it():
    daemonset = helm.only(
        helm.render({"appArmorProfile": {"type": "Localhost", "localhostProfile": "oom"}}), "DaemonSet"
    )
    container = daemonset["spec"]["template"]["spec"]["containers"][0]
    assert container["securityContext"]["appArmorProfile"] == {"type": "Localhost", "localhostProfile": "oom"}
    kubernetes_validate.validate(daemonset, NEWEST, strict=True)


def test_kubectl_manifests_keep_the_comments_and_lose_helms_labels():
    text = (K8S / "daemonset.yaml").read_text()
    assert "# Kubernetes gives added capabilities to root only" in text
    assert "helm.sh/" not in text and "managed-by" not in text


def test_digest_decides_over_the_tag():
    digest = "sha256:" + "0" * 64
    _, container = helm.agent(helm.render({"image": {"tag": "latest", "digest": digest}}))
    assert container["image"] == f"ghcr.io/oom-watcher/oom-watcher:latest@{digest}"


def test_the_pull_policy_is_kubernetes_own_unless_asked_for():
    _, container = helm.agent(helm.render({"image": {"tag": "latest"}}))
    assert "imagePullPolicy" not in container
    _, container = helm.agent(helm.render({"image": {"pullPolicy": "Never"}}))
    assert container["imagePullPolicy"] == "Never"


def test_notes_say_what_to_do_next():
    notes = helm.render_files({"capabilities": {"sysAdmin": True}})["templates/NOTES.txt"]
    for expected in (
        "rollout status",
        "helm -n oom-watcher test oom-watcher",
        "podMonitor.enabled=true",
        "sysAdmin is on",
    ):
        assert expected in notes


def test_notes_follow_the_logs_of_more_than_five_agents():
    (command,) = re.findall(r"kubectl .* logs .*", helm.render_files()["templates/NOTES.txt"])
    # kubectl's own limit is 5 where it follows.
    assert int(re.search(r"--max-log-requests=(\d+)", command)[1]) >= 1000


@pytest.mark.parametrize(("namespace", "shared"), [("oom-watcher", False), ("default", True), ("kube-system", True)])
def test_notes_open_no_namespace_that_others_use(namespace: str, shared: bool):
    notes = helm.render_files(namespace=namespace)["templates/NOTES.txt"]
    assert ("pod-security.kubernetes.io/enforce=privileged" in notes) is not shared
    assert ("every pod in it" in notes) and ("namespace of its own" in notes)


def test_the_runbooks_are_those_of_the_release():
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    groups = helm.only(helm.render({"prometheusRule": {"enabled": True}}), "PrometheusRule")["spec"]["groups"]
    found = {rule["annotations"]["runbook_url"].partition("#")[0] for group in groups for rule in group["rules"]}
    assert found == {f"https://github.com/oom-watcher/oom-watcher/blob/v{version}/docs/operations.md"}


def test_no_alert_tells_of_a_directory_that_is_not_mounted():
    def names(directory: str) -> set[str]:
        values = {"prometheusRule": {"enabled": True}, "config": {"containerLogDir": directory}}
        groups = helm.only(helm.render(values), "PrometheusRule")["spec"]["groups"]
        return {rule["alert"] for group in groups for rule in group["rules"]}

    assert names("/var/log/containers") - names("") == {"OOMWatcherNamesDegraded"}


def test_dashboard_config_map_carries_the_dashboard():
    config = helm.only(helm.render({"dashboard": {"enabled": True}}), "ConfigMap")
    shipped = json.loads(config["data"]["oom-watcher.json"])
    assert shipped == json.loads((CHART / "files" / "dashboard.json").read_text())


@pytest.mark.parametrize(
    ("version", "values", "made"),
    [
        ("v1.31.1", {}, False),
        ("v1.31.1-gke.1678000", {}, True),
        ("v1.31.1-gke.1678000", {"priorityQuota": {"create": "never"}}, False),
        ("v1.31.1-gke.1678000", {"priorityClassName": ""}, False),
        ("v1.31.1", {"priorityQuota": {"create": "always"}}, True),
        ("v1.31.1", {"priorityQuota": {"create": "always"}, "priorityClassName": ""}, False),
    ],
    ids=["not on GKE", "on GKE", "never", "on GKE, no system priority", "always", "no system priority"],
)
def test_priority_quota_only_where_a_system_priority_needs_it(version: str, values: dict, made: bool):
    assert any(found["kind"] == "ResourceQuota" for found in cluster.install(version, values)) is made
