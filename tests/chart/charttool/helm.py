"""Rendering the chart with Helm's SDK, into objects."""

from typing import Any

import helm_python
import yaml

from .paths import CHART

Values = dict[str, Any]
Object = dict[str, Any]

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


def render_files(values: Values | None = None, *, release: str = "oom-watcher", namespace: str = "oom-watcher") -> dict[str, str]:
    """Every template's output by its path inside the chart; raises HelmError with the chart's own sentence."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values=values or {}, name=release, namespace=namespace)
    return {path.split("/", 1)[1]: text for path, text in files.items()}


def parse(text: str) -> list[Object]:
    """The objects of one rendered file."""
    return [document for document in yaml.safe_load_all(text) if document]


def is_test(found: Object) -> bool:
    """Whether `helm test` owns the object."""
    annotations = found["metadata"].get("annotations") or {}
    return annotations.get("helm.sh/hook") == "test"


def render(values: Values | None = None, *, tests: bool = False, **release: str) -> list[Object]:
    """The objects that an installation creates, in Helm's order; with `tests`, those of `helm test` too."""
    files = render_files(values, **release)
    objects = [found for path, text in files.items() if not path.endswith("NOTES.txt") for found in parse(text)]
    kept = [found for found in objects if tests or not is_test(found)]
    return sorted(kept, key=_install_position)


def _install_position(found: Object) -> tuple[int, str, str]:
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
