"""k8s/*.yaml: the chart, rendered for those who use kubectl.

Each file is a selection of kinds of one rendering, whose values are in tests/chart/values/.
"""

from pathlib import Path

import yaml

from .helm import Object, render
from .paths import K8S, RENDERED_VALUES

# A label that says Helm owns the object would be wrong, and makes Helm refuse or adopt it.
HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
RUN = {"Namespace", "NetworkPolicy", "ResourceQuota", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Service", "DaemonSet"}

# File → (values, kinds, what it is).
FILES = {
    "daemonset.yaml": ("kubectl", RUN, "Everything the agent needs to run."),
    "servicemonitor.yaml": ("kubectl", {"ServiceMonitor"}, "Scraping by the Prometheus operator."),
    "prometheusrule.yaml": ("kubectl", {"PrometheusRule"}, "Alerts for the Prometheus operator; docs/operations.md is their runbook."),
    "grafana-dashboard.yaml": ("kubectl", {"ConfigMap"}, "The dashboard, for Grafana's sidecar."),
    "no-api/daemonset.yaml": ("no-api", RUN, "As ../daemonset.yaml, but the agent never talks to the API server: no role, no token."),
}


def wanted() -> dict[Path, str]:
    """Every file with the text that it should have."""
    rendered = {name: render(_values(name)) for name in {values for values, _, _ in FILES.values()}}
    return {
        K8S / name: _document(rendered[values], kinds, about)
        for name, (values, kinds, about) in FILES.items()
    }


def _values(name: str) -> Object:
    return yaml.safe_load((RENDERED_VALUES / f"{name}.yaml").read_text())


def _document(objects: list[Object], kinds: set[str], about: str) -> str:
    head = f"# {about}\n# Rendered from helm/oom-watcher by tests/chart/run.sh render; do not edit.\n"
    chosen = [_without_helm(found) for found in objects if found["kind"] in kinds]
    return head + "".join(f"---\n{dump(found)}" for found in chosen)


def _without_helm(found: Object) -> Object:
    _drop_labels(found)
    template = found.get("spec", {}).get("template")
    if template:
        _drop_labels(template)
    return found


def _drop_labels(found: Object) -> None:
    labels = found["metadata"].get("labels", {})
    for label in HELM_LABELS:
        labels.pop(label, None)


class _Dumper(yaml.SafeDumper):
    """Block scalars for texts of several lines, and lists indented as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(found: Object) -> str:
    """One object as YAML, keys in the order in which the chart writes them."""
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=140, allow_unicode=True)
