"""What every panel of the dashboard should show, worked out from an agent's pages before and after kills, without PromQL."""

import re
from collections.abc import Callable, Iterable

from . import contract

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Shown = dict[tuple[str, ...], float]

BEYOND_THE_CONTAINER = {"node", "kubepods", "qos", "pod"}
VICTIM = ("node", "namespace", "pod", "container")
# What an increase over time shows: Prometheus extends it to the ends of its range, so that whole numbers come out broken.
INCREASES = {
    "Processes killed (A)",
    "Incidents (A)",
    "Not by a container's own limit (A)",
    "Kills by namespace (A)",
    "Kills by workload (A)",
    "Top containers (A)",
    "Kills by node (A)",
    "Scope (A)",
    "Lost events (A)",
    "Missed kills (A)",
    "Missed kills (B)",
    "Attribution of kills (A)",
    "Events by stage (A)",
    "Events by stage (B)",
}
# Of the labels of a table's or graph's series, those that tell them apart.
LABELS = {
    "Kills by namespace (A)": ("namespace",),
    "Kills by workload (A)": ("namespace", "workload"),
    "Top containers (A)": ("namespace", "pod", "container"),
    "Kills by node (A)": ("node",),
    "Scope (A)": ("scope",),
    "What filled the memory (A)": ("memory_type",),
    "Memory of the victims (A)": ("memory_type",),
    **{f"Incidents by container ({ref})": VICTIM for ref in "ABCDE"},
    "Watchers (A)": ("node",),
    "Hooks (A)": ("hook", "method"),
    "Versions (A)": ("version",),
    "Lost events (A)": ("stage",),
    "Missed kills (A)": (),
    "Attribution of kills (A)": ("result", "source"),
    "Attribution of kills (B)": ("reason",),
    "Events by stage (A)": ("stage",),
}


def expected(before: str, after: str, namespace: str, node: str) -> dict[str, Shown]:
    """What is not zero in each panel of one namespace, by the labels of the panel."""
    pages = Pages(_read(before), _read(after), namespace)
    kills, incidents = "oom_kills_total", "oom_incidents_total"
    limits = pages.now("oom_limit_bytes", VICTIM, max)
    usage = pages.now("oom_usage_bytes", VICTIM, max)
    shown = {
        "Processes killed (A)": pages.grown(kills, ()),
        "Incidents (A)": pages.grown(incidents, ()),
        "Not by a container's own limit (A)": pages.grown(incidents, (), BEYOND_THE_CONTAINER),
        "Containers watched (A)": {(): float(len([key for key in pages.now(kills, VICTIM, sum) if key[3]]))},
        "Watchers not answering (A)": {},
        "Kills by namespace (A)": pages.grown(kills, ("namespace",)),
        "Kills by workload (A)": pages.by_workload(),
        "Top containers (A)": pages.grown(kills, ("namespace", "pod", "container")),
        "Kills by node (A)": pages.grown("oom_kills_per_node_total", ("node",)),
        "Scope (A)": pages.grown(incidents, ("scope",)),
        "What filled the memory (A)": pages.now("oom_memcg_memory_bytes", ("memory_type",), sum),
        "Memory of the victims (A)": pages.now("oom_memory_usage_bytes", ("memory_type",), max),
        "Incidents by container (A)": {
            key: value * 1000 for key, value in pages.now("oom_last_timestamp", VICTIM, max).items()
        },
        "Incidents by container (B)": pages.now(kills, VICTIM, sum),
        "Incidents by container (C)": limits,
        "Incidents by container (D)": usage,
        "Incidents by container (E)": {key: usage[key] / limits[key] for key in usage.keys() & limits.keys()},
        "Watchers (A)": {(node,): 1.0},
        "Hooks (A)": pages.now("oom_watcher_hook_attached", ("hook", "method"), sum),
        "Versions (A)": pages.now("oom_watcher_build_info", ("version",), sum),
        "Lost events (A)": pages.grown("oom_watcher_lost_events_total", ("stage",)),
        "Missed kills (A)": pages.grown("oom_watcher_missed_kills_total", ()),
        "Missed kills (B)": pages.grown("oom_watcher_series_refused_total", ()),
        "Attribution of kills (A)": pages.grown("oom_watcher_attributions_total", ("result", "source")),
        "Attribution of kills (B)": pages.now("oom_watcher_names_degraded", ("reason",), sum),
        "Events by stage (A)": pages.grown("oom_watcher_events_total", ("stage",)),
        "Events by stage (B)": pages.grown("oom_watcher_marks_without_kill_total", ()),
    }
    return {name: {key: value for key, value in found.items() if value} for name, found in shown.items()}


def found(name: str, result: list[dict]) -> Shown:
    """What a query gave, in the same form."""
    shown = {
        tuple(series["metric"].get(label, "") for label in LABELS.get(name, ())): float(series["value"][1])
        for series in result
    }
    return {key: float(round(value)) if name in INCREASES else value for key, value in shown.items() if value}


class Pages:
    """Two pages of one agent, of which only one namespace's kills are looked at."""

    def __init__(self, before: Series, after: Series, namespace: str) -> None:
        self._before, self._after, self._namespace = before, after, namespace

    def now(self, name: str, labels: tuple[str, ...], join: Callable[[Iterable[float]], float]) -> Shown:
        """The values of the later page, joined by labels."""
        return _grouped(self._of(name), labels, join)

    def grown(self, name: str, labels: tuple[str, ...], scopes: set[str] | None = None) -> Shown:
        """By how much counters grew, joined by labels; one that was not there yet began at zero."""
        return _grouped(self._growth(name, scopes), labels, sum)

    def by_workload(self) -> Shown:
        """Kills by the owner that the API gave."""
        owners = {
            (labels["namespace"], labels["pod"]): re.sub(r"-\d{8,10}$", "", labels["owner_name"]) or labels["pod"]
            for labels, _ in self._of("oom_pod_info")
        }
        grown = [
            ({**labels, "workload": owners[labels["namespace"], labels["pod"]]}, value)
            for labels, value in self._growth("oom_kills_total", None)
            if value
        ]
        return _grouped(grown, ("namespace", "workload"), sum)

    def _growth(self, name: str, scopes: set[str] | None) -> list[tuple[dict[str, str], float]]:
        return [
            (labels, value - self._before.get((name, tuple(labels.items())), 0.0))
            for labels, value in self._of(name)
            if scopes is None or labels["scope"] in scopes
        ]

    def _of(self, name: str) -> list[tuple[dict[str, str], float]]:
        return [
            (labels, value)
            for (found, pairs), value in self._after.items()
            if found == name and (labels := dict(pairs)).get("namespace", self._namespace) == self._namespace
        ]


def _grouped(series: list[tuple[dict[str, str], float]], labels: tuple[str, ...], join: Callable) -> Shown:
    groups: dict[tuple[str, ...], list[float]] = {}
    for found, value in series:
        groups.setdefault(tuple(found[label] for label in labels), []).append(value)
    return {key: join(values) for key, values in groups.items()}


def _read(page: str) -> Series:
    return {(name, tuple(labels.items())): float(value) for name, labels, value in contract.series(page)}
