"""values.yaml, its schema, its guards and its README say the same."""

import json

import helm_python
import kubernetes_validate
import pytest
import yaml

from charttool import cluster, generated, helm, readme
from charttool.paths import CHART

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def resolve(schema: dict) -> dict:
    """The schema behind a reference."""
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def closed_keys(schema: dict, prefix: str = "") -> set[str]:
    """Dotted paths of every value that the schema names."""
    found = set()
    for key, inner in resolve(schema).get("properties", {}).items():
        found |= {prefix + key} | closed_keys(inner, f"{prefix}{key}.")
    return found


def default_keys(values: dict, schema: dict, prefix: str = "") -> set[str]:
    """Dotted paths of every default, down to where the schema leaves the form to the user."""
    found = set()
    for key, value in values.items():
        inner = resolve(resolve(schema).get("properties", {}).get(key, {}))
        found.add(prefix + key)
        if isinstance(value, dict) and "properties" in inner:
            found |= default_keys(value, inner, f"{prefix}{key}.")
    return found


# Keys that the schema knows and the defaults leave out: Helm's own, and fields of Kubernetes objects.
NOT_DEFAULTED = {
    "global",
    "appArmorProfile.type",
    "appArmorProfile.localhostProfile",
    "imagePullSecrets.name",
    "livenessProbe.successThreshold",
    "livenessProbe.terminationGracePeriodSeconds",
    "readinessProbe.successThreshold",
    "updateStrategy.rollingUpdate.maxSurge",
}


def test_schema_and_defaults_have_the_same_keys():
    assert closed_keys(SCHEMA) - default_keys(DEFAULTS, SCHEMA) == NOT_DEFAULTED - {"imagePullSecrets.name"}
    assert default_keys(DEFAULTS, SCHEMA) - closed_keys(SCHEMA) == set()


def test_every_value_is_described():
    described = {path for section in readme.sections((CHART / "values.yaml").read_text()) for path, _ in section.values}
    keys = default_keys(DEFAULTS, SCHEMA)
    covered = {key for key in keys if any(key == path or key.startswith(f"{path}.") for path in described)}
    parents = {key for key in keys if any(path.startswith(f"{key}.") for path in described)}
    assert keys == covered | parents and described <= keys


def test_readme_is_what_values_yaml_gives():
    assert generated.settle(readme.wanted(), check=True, command="readme") == 0


def test_a_description_without_a_key_is_refused():
    with pytest.raises(readme.CommentError, match="lost"):
        readme.sections("## Section\n# -- lost\n\n")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"confg": {}}, "confg"),
        ({"config": {"metricPort": 1}}, "metricPort"),
        ({"config": {"metricsPort": "8080"}}, "metricsPort"),
        ({"config": {"metricsPort": 70000}}, "metricsPort"),
        ({"config": {"ringBufferSize": 500000}}, "ringBufferSize"),
        ({"config": {"output": "xml"}}, "output"),
        ({"config": {"containerLogDir": "var/log"}}, "containerLogDir"),
        ({"config": {"containerLogDir": "/var/log #x"}}, "containerLogDir"),
        ({"config": {"podLogDir": "/var/../etc"}}, "podLogDir"),
        ({"config": {"stateDir": "/var/lib/./x"}}, "stateDir"),
        ({"config": {"stateDir": "/var/lib/"}}, "stateDir"),
        ({"config": {"podLabels": ["not a label"]}}, "podLabels"),
        ({"config": {"maxSeries": 5}}, "maxSeries"),
        ({"image": {"digest": "sha256:short"}}, "digest"),
        ({"image": {"tag": "a b"}}, "tag"),
        ({"capabilities": {"netAdmin": True}}, "netAdmin"),
        ({"tolerations": {}}, "tolerations"),
        ({"serviceMonitor": {"interval": "soon"}}, "interval"),
        ({"priorityQuota": {"create": True}}, "create"),
        ({"extraEnv": [{"value": "nameless"}]}, "extraEnv"),
        ({"extraEnv": [{"name": "A B", "value": "x"}]}, "extraEnv"),
        ({"extraEnv": [{"name": "A", "value": 1}]}, "extraEnv"),
        ({"extraEnv": [{"name": "A", "valeu": "x"}]}, "valeu"),
        ({"extraEnv": [{"name": "A", "valueFrom": "x"}]}, "extraEnv"),
        ({"resources": {"limits": {"memory": "64 MB"}}}, "memory"),
        ({"resources": {"limits": {"memory": -1}}}, "memory"),
        ({"resources": {"limits": {"mem": "64Mi"}}}, "mem"),
        ({"commonLabels": {"not a key": "x"}}, "commonLabels"),
        ({"podLabels": {"team": "not a value!"}}, "podLabels"),
        ({"podLabels": {"team": "x" * 64}}, "podLabels"),
        ({"podMonitor": {"labels": {"release": True}}}, "release"),
        ({"podAnnotations": {"a/b/c": "x"}}, "podAnnotations"),
        ({"livenessProbe": {"successThreshold": 2}}, "successThreshold"),
        ({"readinessProbe": {"terminationGracePeriodSeconds": 5}}, "terminationGracePeriodSeconds"),
        ({"appArmorProfile": {"localhostProfile": "x"}}, "'type' required"),
        ({"appArmorProfile": {"type": "Localhost"}}, "localhostProfile"),
        ({"updateStrategy": {"rollingUpdate": {"maxSurge": "a tenth"}}}, "maxSurge"),
        ({"updateStrategy": {"rollingUpdate": {"partition": 1}}}, "partition"),
        ({"prometheusRule": {"alertLabels": {"a-b": "x"}}}, "alertLabels"),
        ({"prometheusRule": {"severities": {"OOMKill": ""}}}, "severities"),
        ({"podMonitor": {"interval": "1s1h"}}, "interval"),
        ({"test": {"memoryLimit": "4Mi"}}, "memoryLimit"),
        ({"image": {"tag": ".x"}}, "tag"),
        ({"prometheusRule": {"runbookUrl": "ftp://x"}}, "runbookUrl"),
        ({"test": {"memoryLimit": "512Mi"}}, "memoryLimit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_schema_refuses_and_names_the_value(values: dict, said: str):
    with helm_python.Chart.load(CHART) as chart, pytest.raises(helm_python.HelmValuesError, match=said):
        chart.validate_schema(chart.merge_values(values))


@pytest.mark.parametrize(
    "values",
    [
        {"podMonitor": {"enabled": True, "interval": "1w", "scrapeTimeout": "1d12h"}},
        {"podMonitor": {"enabled": True, "interval": "1m30s", "scrapeTimeout": "1m30s"}},
        {"resources": {"limits": {"memory": 67108864, "cpu": 1, "hugepages-2Mi": "2Mi"}}},
        {"extraEnv": [{"name": "a.b-c", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]},
        {"appArmorProfile": {}},
        {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
        {"updateStrategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "0%"}}},
        {"updateStrategy": {"rollingUpdate": {"maxUnavailable": None}}},
        {"updateStrategy": {"type": "OnDelete"}},
    ],
    ids=str,
)
def test_what_kubernetes_takes_is_let_pass(values: dict):
    helm.render(values)


def test_a_value_that_is_null_works_or_is_refused_by_its_name():
    """Helm takes a default away by null. Everything is turned on, so that every value is used."""
    refused = set()
    for name in sorted(default_keys(DEFAULTS, SCHEMA)):
        path = name.split(".")
        values: object = None
        for key in reversed(path):
            values = {key: values}
        section = helm.ALL_KINDS.get(path[0], {}) if len(path) > 1 else {}
        given = {**helm.ALL_KINDS, **values, **({path[0]: {**section, **values[path[0]]}} if len(path) > 1 else {})}
        try:
            objects = helm.render(given, tests=True)
        except helm_python.HelmValuesError as error:
            assert path[-1] in str(error), (path, error)
            refused.add(name)
            continue
        except helm_python.HelmError as error:
            # A sentence of the chart's, not Helm's of a template that failed.
            assert "execution error" in str(error) and name in str(error), (path, error)
            refused.add(name)
            continue
        for found in objects:
            if found["kind"] not in ("SecurityContextConstraints", "PodMonitor", "PrometheusRule"):
                kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)
    # Null is how Helm's users leave these out.
    assert not refused & {"resources", "resources.limits", "nodeSelector", "tolerations", "affinity"}
    assert not refused & {"updateStrategy", "updateStrategy.rollingUpdate", "priorityClassName", "test.image.tag"}
    assert refused >= {"image", "config", "service.port", "networkPolicy.apiServerPorts", "selinux.type"}


def test_global_values_of_a_parent_chart_are_accepted():
    helm.render({"global": {"imageRegistry": "example.com"}})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"config": {"pinDir": "/sys/fs/bpf/x"}, "updateStrategy": {"rollingUpdate": {"maxSurge": 1}}},
            "Set maxSurge to 0",
        ),
        ({"config": {"podLogDir": "/var/log/containers"}}, "config.containerLogDir and config.podLogDir have the same place"),
        (
            {"config": {"stateDir": "/pins", "pinDir": "/sys/fs/bpf/x"}},
            "config.stateDir and config.pinDir have the same place, /pins",
        ),
        ({"config": {"stateDir": "/x", "pinDir": "/x"}}, "config.stateDir and config.pinDir have the same place"),
        ({"config": {"stateDir": "/oom-watcher"}}, "the agent's program and config.stateDir"),
        ({"config": {"stateDir": "/sys/fs/bpf/x"}}, "config.stateDir is /sys/fs/bpf/x: nothing can be mounted there"),
        (
            {"extraVolumeMounts": [{"name": "x", "mountPath": "/var/log/containers/"}]},
            "extraVolumeMounts has the same place as config.containerLogDir",
        ),
        (
            {"extraVolumes": [{"name": "container-log-links", "emptyDir": {}}]},
            "extraVolumes has the name container-log-links, which config.containerLogDir has too",
        ),
        ({"fullnameOverride": "0x10"}, "The Service would be named 0x10.*begin with a letter: set fullnameOverride"),
        ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "commonLabels sets app.kubernetes.io/name, by which"),
        ({"commonLabels": {"app.kubernetes.io/instance": "x"}}, "commonLabels sets app.kubernetes.io/instance"),
        ({"podLabels": {"app.kubernetes.io/component": "x"}}, "podLabels sets app.kubernetes.io/component"),
        ({"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}, "scraped twice.*Enable one"),
        ({"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}, "set service.enabled=true"),
        ({"serviceAccount": {"create": False}}, "Name an account"),
        (
            {
                "serviceAccount": {"create": False},
                "openshift": {"enabled": True},
                "config": {"kubernetesEnrichment": False, "kubernetesEvents": False},
            },
            "openshift.enabled is true.*Name an account",
        ),
        ({"rbac": {"listPods": True, "create": False}}, "rbac.create=false leaves out.*your own role"),
        ({"rbac": {"listPods": True}, "config": {"kubernetesEnrichment": False}}, "a right that nothing uses"),
        ({"config": {"metricsAddress": "127.0.0.1"}}, "loopback.*Leave it empty"),
        ({"config": {"metricsAddress": "::1"}}, "loopback"),
        ({"extraEnv": [{"name": "METRICS_PORT", "value": "1"}]}, "extraEnv sets METRICS_PORT"),
        ({"extraEnv": [{"name": "NODE_NAME", "value": "x"}]}, "extraEnv sets NODE_NAME"),
        (
            {"extraEnv": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]},
            "extraEnv gives A both a value and valueFrom",
        ),
        (
            {"appArmorProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}},
            "appArmorProfile.localhostProfile is only for the type Localhost",
        ),
        ({"extraArgs": ["--metrics-port=9090"]}, "extraArgs sets --metrics-port, which the chart sets"),
        ({"extraArgs": ["--rust-log", "debug", "--node-name", "x"]}, "extraArgs sets --rust-log, which"),
        ({"extraArgs": ["--cri-socket=/run/x.sock"]}, "extraArgs sets --cri-socket, which"),
        ({"config": {"maxSeries": 60000}}, "64Mi, which does not hold config.maxSeries .60000, at 1Ki each"),
        ({"config": {"ringBufferSize": 67108864}}, "64Mi, which does not hold config.ringBufferSize .67108864 bytes"),
        ({"resources": {"limits": {"memory": "16Mi"}}}, "would be killed at its start"),
        ({"resources": {"limits": {"memory": "16M"}}}, "16M, .*would be killed at its start"),
        ({"resources": {"limits": {"memory": "0.01G"}}}, "0.01G, .*would be killed at its start"),
        ({"resources": {"limits": {"memory": "1e7"}}}, "would be killed at its start"),
        ({"resources": {"limits": {"memory": 10000000}}}, "would be killed at its start"),
        ({"resources": {"limits": {"memory": "16000000000m"}}}, "would be killed at its start"),
        ({"resources": {"limits": {"memory": "20000k"}}, "config": {"ringBufferSize": None}}, "would be killed at its start"),
        (
            {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}},
            "both maxSurge and maxUnavailable .*set maxUnavailable to 0",
        ),
        (
            {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": None}}},
            "both maxSurge and maxUnavailable .*set maxUnavailable to 0",
        ),
        ({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "0%"}}}, "has 0 for both.*set one of them above 0"),
        (
            {"serviceMonitor": {"enabled": True, "interval": "1m", "scrapeTimeout": "61s"}},
            "serviceMonitor.scrapeTimeout is 61s, longer than the interval of 1m",
        ),
        ({"prometheusRule": {"alertLabels": {"severity": "x"}}}, "alertLabels sets severity.*prometheusRule.severities"),
        ({"prometheusRule": {"disabled": ["OOMKil"]}}, "OOMKil, which does not exist"),
        ({"prometheusRule": {"severities": {"Nope": "info"}}}, "Nope, which does not exist"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_combinations_that_cannot_work_fail_with_a_sentence(values: dict, sentence: str):
    with pytest.raises(helm_python.HelmError, match=sentence):
        helm.render(values)


def test_what_is_below_the_limits_of_the_guards_is_let_pass():
    _, container = helm.agent(helm.render({"extraArgs": ["--a-flag-to-come=1"], "config": {"maxSeries": 50000}}))
    assert container["args"] == ["--a-flag-to-come=1"]
    helm.render({"config": {"maxSeries": 500000}, "resources": {"limits": {"memory": "1Gi"}}})
    helm.render({"config": {"maxSeries": 500000}, "resources": {"limits": {"memory": None}}})
    for enough in ("64M", "0.1G", "1e8", "100000000000m", "1Ti", "1E", 67108864, 6.7108864e7, "65536Ki"):
        helm.render({"resources": {"limits": {"memory": enough}}})


def test_an_app_armor_profile_is_refused_before_kubernetes_knows_it():
    values = {"appArmorProfile": {"type": "RuntimeDefault"}}
    with pytest.raises(helm_python.HelmError, match="needs Kubernetes 1.30 or later and this is v1.29.4.*podAnnotations"):
        cluster.install("v1.29.4", values)
    cluster.install("v1.30.0", values)
