"""Rendering the chart with Helm's SDK, into objects."""

import re
from typing import Any

import helm_python
import yaml

from .paths import CHART

Values = dict[str, Any]
Object = dict[str, Any]

# What turns on everything that has a name, a namespace, labels or a number.
ALL_KINDS = {
    "openshift": {"enabled": True},
    "priorityQuota": {"create": "always"},
    "podMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "networkPolicy": {"enabled": True, "from": [{"podSelector": {}}]},
}

# The order in which Helm installs kinds, as far as the chart has them; anything else comes last.
INSTALL_ORDER = [
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "ServiceAccount",
    "ConfigMap",
    "ClusterRole",
    "ClusterRoleBinding",
    "Service",
    "DaemonSet",
]


def render_files(
    values: Values | None = None, *, release: str = "oom-watcher", namespace: str = "oom-watcher"
) -> dict[str, str]:
    """Every template's output by its path inside the chart; raises HelmError with the chart's own sentence."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values=values or {}, name=release, namespace=namespace)
    return {path.split("/", 1)[1]: text for path, text in files.items()}


def parse(text: str) -> list[Object]:
    """The objects of one rendered file."""
    return [found for found, _ in documents(text)]


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, as Kubernetes' own parser does; PyYAML takes the later one and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Object:
        keys = [self.construct_object(key) for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(problem=f"the key {twice} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[tuple[Object, str]]:
    """The objects of one rendered file, each with its text and the comments in it."""
    parts = re.split(r"^---$", text, flags=re.MULTILINE)
    return [(found, part.strip("\n") + "\n") for part in parts if (found := yaml.load(part, _Loader))]


def is_test(found: Object) -> bool:
    """Whether `helm test` owns the object."""
    annotations = found["metadata"].get("annotations") or {}
    return annotations.get("helm.sh/hook") == "test"


def render(values: Values | None = None, *, tests: bool = False, **release: str) -> list[Object]:
    """The objects that an installation creates, in Helm's order; with `tests`, those of `helm test` too."""
    return [found for found, _ in render_documents(values, **release) if tests or not is_test(found)]


def render_documents(values: Values | None = None, **release: str) -> list[tuple[Object, str]]:
    """Every rendered object with its text, in Helm's order."""
    files = render_files(values, **release)
    rendered = [
        document for path, text in files.items() if not path.endswith("NOTES.txt") for document in documents(text)
    ]
    return sorted(rendered, key=_install_position)


def _install_position(document: tuple[Object, str]) -> tuple[int, str, str]:
    found, _ = document
    kind = found["kind"]
    position = INSTALL_ORDER.index(kind) if kind in INSTALL_ORDER else len(INSTALL_ORDER)
    return position, kind, found["metadata"]["name"]


def only(objects: list[Object], kind: str) -> Object:
    """The one object of a kind."""
    found = [candidate for candidate in objects if candidate["kind"] == kind]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} objects of kind {kind}, not one")
    return found[0]


def agent(objects: list[Object]) -> tuple[Object, Object]:
    """Pod spec and container of the DaemonSet."""
    pod = only(objects, "DaemonSet")["spec"]["template"]["spec"]
    return pod, pod["containers"][0]
