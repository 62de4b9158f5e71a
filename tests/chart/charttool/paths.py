"""Where things are in the repository."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent.parent
CHART = ROOT / "helm" / "oom-watcher"
K8S = ROOT / "k8s"
DOCS = ROOT / "docs"
GOLDEN = TESTS / "golden"
FIXTURES = TESTS / "fixtures"
RENDERED_VALUES = TESTS / "values"
