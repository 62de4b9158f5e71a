"""k8s/*.yaml: the chart, rendered for those who use kubectl.

Each file is a selection of kinds of one rendering, whose values are in tests/chart/values/.
"""

from pathlib import Path

import yaml

from .helm import Object, is_test, render_documents
from .paths import K8S, RENDERED_VALUES

# A label that says Helm owns the object would be wrong, and makes Helm refuse or adopt it.
HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
RUN = {
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Service",
    "DaemonSet",
}

# File → (values, kinds, what it is).
FILES = {
    "daemonset.yaml": ("kubectl", RUN, "Everything the agent needs to run."),
    "servicemonitor.yaml": ("kubectl", {"ServiceMonitor"}, "Scraping by the Prometheus operator."),
    "prometheusrule.yaml": (
        "kubectl",
        {"PrometheusRule"},
        "Alerts for the Prometheus operator; docs/operations.md is their runbook.",
    ),
    "grafana-dashboard.yaml": ("kubectl", {"ConfigMap"}, "The dashboard, for Grafana's sidecar."),
    "no-api/daemonset.yaml": (
        "no-api",
        RUN,
        "As ../daemonset.yaml, but the agent never talks to the API server: no role, no token.",
    ),
}


def wanted() -> dict[Path, str]:
    """Every file with the text that it should have."""
    rendered = {name: render_documents(_values(name)) for name in {values for values, _, _ in FILES.values()}}
    return {K8S / name: _document(rendered[values], kinds, about) for name, (values, kinds, about) in FILES.items()}


def _values(name: str) -> Object:
    return yaml.safe_load((RENDERED_VALUES / f"{name}.yaml").read_text())


def _document(documents: list[tuple[Object, str]], kinds: set[str], about: str) -> str:
    head = f"# {about}\n# Rendered from helm/oom-watcher by `cargo xtask chart render`; do not edit.\n"
    chosen = [_without_helm(text) for found, text in documents if found["kind"] in kinds and not is_test(found)]
    return head + "".join(f"---\n{text}" for text in chosen)


def _without_helm(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith(HELM_LABELS))
