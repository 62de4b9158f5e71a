"""Which metrics the agent exports, and with which labels: what alerts and dashboard may name.

fixtures/metrics.json states it, so that the chart can be checked without an agent; `metrics` compares it with the
exposition of a real one.
"""

import json
import re
from collections.abc import Iterable

from .paths import FIXTURES

# Labels that Prometheus adds to a series when it scrapes, with the chart's relabelings.
TARGET_LABELS = {"job", "instance", "node", "namespace", "pod", "container", "service", "endpoint"}
SCRAPE_METRICS = {"up": set()}
# Of kube-state-metrics, where it is there.
_OF_A_DAEMONSET = {"namespace", "daemonset"}
STATE_METRICS = {
    "kube_daemonset_status_desired_number_scheduled": _OF_A_DAEMONSET,
    "kube_daemonset_status_number_ready": _OF_A_DAEMONSET,
}
_SERIES = re.compile(r"^(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)(?:\{(?P<labels>.*)\})? +(?P<value>\S+)")
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')


def metrics() -> dict[str, set[str]]:
    """Name of each metric the agent exports, with its labels."""
    stated = json.loads((FIXTURES / "metrics.json").read_text())
    return {name: set(labels) for name, labels in stated.items()}


def series(exposition: str) -> list[tuple[str, dict[str, str], str]]:
    """Name, labels and value of each line of an exposition in text form."""
    found = []
    for line in exposition.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        match = _SERIES.match(line)
        if not match:
            raise ValueError(f"not a line of the exposition format: {line!r}")
        found.append((match["name"], dict(_LABEL.findall(match["labels"] or "")), match["value"]))
    return found


def differences(exposition: str) -> list[str]:
    """Where an agent's exposition differs from the contract; a metric without a series yet is no difference."""
    stated = metrics()
    wrong = []
    for name, labels, _ in series(exposition):
        if name in stated and set(labels) != stated[name]:
            wrong.append(f"{name} has the labels {sorted(labels)}, stated are {sorted(stated[name])}")
    declared = set(re.findall(r"^# TYPE (\S+)", exposition, re.MULTILINE))
    for name in stated:
        # OpenMetrics declares a counter and an info without their suffixes.
        if not {name, name.removesuffix("_total"), name.removesuffix("_info")} & declared:
            wrong.append(f"{name} is not declared by the agent")
    return sorted(set(wrong))


def names_in(query: str) -> set[str]:
    """Metrics that a query reads: what stands before a selector or range, and is no function or keyword."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    words = re.findall(r"[A-Za-z_:][A-Za-z0-9_:]*(?!\w)(?!\s*\()", bare)
    return {word for word in words if word.startswith(("oom_", "kube_")) or word in SCRAPE_METRICS}


def labels_in(query: str) -> set[str]:
    """Labels that a query selects by, groups by or joins."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', query)
    selected = re.findall(r"([A-Za-z_]\w*)\s*(?:=~|!~|!=|=)\s*\"", bare)
    grouped: Iterable[str] = re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", bare)
    return set(selected) | {name.strip() for group in grouped for name in group.split(",") if name.strip()}


def labels_of(query: str) -> set[str]:
    """Labels of a query's result, where the whole of it is an aggregation; else those that it names."""
    outer = re.match(r"\w+ by \(([^)]*)\) \(", query)
    return {name.strip() for name in outer[1].split(",")} if outer else labels_in(query)
