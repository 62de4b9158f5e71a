"""What every panel of the dashboard should show, worked out from an agent's pages before and after kills, without PromQL."""

import re
from collections.abc import Callable, Iterable

from . import contract

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Shown = dict[tuple[str, ...], float]

BEYOND_THE_CONTAINER = {"node", "kubepods", "qos", "pod"}
VICTIM = ("node", "namespace", "pod", "container")
# The labels of the series of a table or graph, all of them: one more would show a kill twice.
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
    "Lost events (A)": ("node", "stage"),
    "Missed kills (A)": ("node",),
    "Missed kills (B)": ("node",),
    "Attribution of kills (A)": ("result", "source"),
    "Attribution of kills (B)": ("reason",),
    "Events by stage (A)": ("stage",),
}


def expected(before: str, after: str, namespace: str, node: str) -> dict[str, Shown]:
    """What is not zero in each panel of one namespace, by the labels of the panel."""
    pages = Pages(_read(before), _read(after), namespace, node)
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
        "What filled the memory (A)": pages.filled(),
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
        "Lost events (A)": pages.grown("oom_watcher_lost_events_total", ("node", "stage")),
        "Missed kills (A)": pages.grown("oom_watcher_missed_kills_total", ("node",)),
        "Missed kills (B)": pages.grown("oom_watcher_series_refused_total", ("node",)),
        "Attribution of kills (A)": pages.grown("oom_watcher_attributions_total", ("result", "source")),
        "Attribution of kills (B)": pages.now("oom_watcher_names_degraded", ("reason",), sum),
        "Events by stage (A)": pages.grown("oom_watcher_events_total", ("stage",)),
        "Events by stage (B)": pages.grown("oom_watcher_marks_without_kill_total", ()),
    }
    return {name: {key: value for key, value in found.items() if value} for name, found in shown.items()}


def found(name: str, result: list[dict]) -> Shown:
    """What a query gave, in the same form."""
    labels = LABELS.get(name, ())
    assert all(set(series["metric"]) <= set(labels) for series in result), f"{name} has series by further labels"
    shown = {tuple(series["metric"].get(label, "") for label in labels): total(series) for series in result}
    return {key: value for key, value in shown.items() if value}


def total(series: dict) -> float:
    """The value of a series, or the sum of its bars."""
    return sum(float(value) for _, value in series.get("values", [series.get("value")]))


class Pages:
    """Two pages of one agent, of which only one namespace's kills are looked at."""

    def __init__(self, before: Series, after: Series, namespace: str, node: str) -> None:
        self._before, self._after, self._namespace, self._node = before, after, namespace, node

    def now(self, name: str, labels: tuple[str, ...], join: Callable[[Iterable[float]], float]) -> Shown:
        """The values of the later page, joined by labels."""
        return _grouped(self._of(name), labels, join)

    def grown(self, name: str, labels: tuple[str, ...], scopes: set[str] | None = None) -> Shown:
        """By how much counters grew, joined by labels; one that was not there yet began at zero."""
        return _grouped(self._growth(name, scopes), labels, sum)

    def by_workload(self) -> Shown:
        """Kills by the owner that the API gave, else by the name without the number that a StatefulSet gives."""
        owners = {
            (labels["namespace"], labels["pod"]): re.sub(r"-\d{8,10}$", "", labels["owner_name"]) or labels["pod"]
            for labels, _ in self._of("oom_pod_info")
        }
        grown = [
            ({**labels, "workload": owners.get((labels["namespace"], pod), re.sub(r"-\d+$", "", pod))}, value)
            for labels, value in self._growth("oom_kills_total", None)
            if (pod := labels["pod"]) or value
        ]
        return _grouped(grown, ("namespace", "workload"), sum)

    def filled(self) -> Shown:
        """What the memory was filled with at the last of the kills of which that is known."""
        times = self.now("oom_last_timestamp", VICTIM, max)
        known = self.now("oom_memcg_memory_bytes", (*VICTIM, "memory_type"), max)
        last = max((times[key[:-1]] for key in known), default=0)
        kept = [({"memory_type": key[-1]}, value) for key, value in known.items() if times[key[:-1]] == last]
        return _grouped(kept, ("memory_type",), max)

    def _growth(self, name: str, scopes: set[str] | None) -> list[tuple[dict[str, str], float]]:
        before = {tuple(labels.items()): value for labels, value in self._of(name, self._before)}
        return [
            (labels, value - before.get(tuple(labels.items()), 0.0))
            for labels, value in self._of(name)
            if scopes is None or labels["scope"] in scopes
        ]

    def _of(self, name: str, page: Series | None = None) -> list[tuple[dict[str, str], float]]:
        return [
            (labels, value)
            for (found, pairs), value in (self._after if page is None else page).items()
            # The series of the agent itself have the node from the target.
            if found == name
            and (labels := {"node": self._node} | dict(pairs)).get("namespace", self._namespace) == self._namespace
        ]


def _grouped(series: list[tuple[dict[str, str], float]], labels: tuple[str, ...], join: Callable) -> Shown:
    groups: dict[tuple[str, ...], list[float]] = {}
    for found, value in series:
        groups.setdefault(tuple(found[label] for label in labels), []).append(value)
    return {key: join(values) for key, values in groups.items()}


def _read(page: str) -> Series:
    return {(name, tuple(labels.items())): float(value) for name, labels, value in contract.series(page)}
