"""The dashboard on a real Prometheus, which scrapes an agent's page before and after kills."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from charttool import contract, dashboard, live
from charttool.paths import FIXTURES


# Pod and container that were killed most.
APP = ("checkout-6bd9c-x7k2p", "app")


VERSION = next(
    labels["version"]
    for name, labels, _ in contract.series((FIXTURES / "agent-after.txt").read_text())
    if name == "oom_watcher_build_info"
)


def figures(name: str, label: str) -> dict[tuple[str, ...], float]:
    """What the agent's own page says, by one label; where several series have it, the largest."""
    page = contract.series((FIXTURES / "agent-after.txt").read_text())
    values: dict[tuple[str, ...], list[float]] = {}
    for found, labels, value in page:
        if found == name:
            values.setdefault((labels[label],), []).append(float(value))
    return {key: chosen for key, found in values.items() if (chosen := max(found))}


class Page(BaseHTTPRequestHandler):
    """Serves the agent's page, before or after the kills."""

    when = "before"

    def do_GET(self) -> None:  # noqa: N802, the name that BaseHTTPRequestHandler asks for
        page = (FIXTURES / f"agent-{self.when}.txt").read_text().replace("@NOW@", str(int(time.time())))
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: the requests are Prometheus' scrapes."""


@pytest.fixture(scope="module")
def address(with_prometheus) -> Iterator[str]:
    """Address of a Prometheus that has scraped the page before and after the kills."""
    Page.when = "before"
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with live.prometheus(f"127.0.0.1:{server.server_port}", node="node-1") as prometheus:
            Page.when = "after"
            time.sleep(live.SETTLE_SECONDS)
            yield prometheus
        server.shutdown()


@pytest.fixture(scope="module")
def results(address: str) -> dict[str, list[dict]]:
    """Every query of the dashboard with its result."""
    return {query.name: live.evaluate(address, query.expression) for query in dashboard.queries(live.WINDOW_SECONDS)}


def by(result: list[dict], *labels: str) -> dict:
    """The result's values by the values of the labels."""
    return {tuple(series["metric"].get(label, "") for label in labels): float(series["value"][1]) for series in result}


def test_every_query_returns_something(results):
    empty = {name for name, result in results.items() if not result}
    assert empty == live.EMPTY_WHEN_WELL


POSTGRES = ("postgres-0", "postgres")
NOBODY = ("", "")
STAGES = ("ring_buffer", "decode", "attribute", "report", "sink_stdout", "sink_metrics")
# Every panel's query: the labels that tell its series apart, and the series that are not 0. Three kills in one container by its
# own limit, one in another and one outside all containers by the machine's memory.
EXPECTED: dict[str, tuple[tuple[str, ...], dict[tuple[str, ...], float]]] = {
    "Processes killed (A)": ((), {(): 5}),
    "Incidents (A)": ((), {(): 5}),
    "Not by a container's own limit (A)": ((), {(): 2}),
    "Containers watched (A)": ((), {(): 4}),
    "Watchers not answering (A)": ((), {}),
    "Kills by namespace (A)": (("namespace",), {("shop",): 3, ("data",): 1, ("",): 1}),
    "Kills by workload (A)": (("workload",), {("checkout",): 3, ("postgres",): 1, ("",): 1}),
    "Top containers (A)": (("pod", "container"), {APP: 3, POSTGRES: 1, NOBODY: 1}),
    "Kills by node (A)": (("node",), {("node-1",): 5}),
    "Scope (A)": (("scope",), {("container",): 3, ("node",): 2}),
    "What filled the memory (A)": (("memory_type",), figures("oom_memcg_memory_bytes", "memory_type")),
    "Memory of the victims (A)": (("memory_type",), figures("oom_memory_usage_bytes", "memory_type")),
    "Incidents by container (B)": (("pod", "container"), {APP: 3, POSTGRES: 1, NOBODY: 1}),
    "Incidents by container (C)": (("pod",), figures("oom_limit_bytes", "pod")),
    "Incidents by container (D)": (("pod",), figures("oom_usage_bytes", "pod")),
    "Incidents by container (E)": (("pod", "container"), {APP: 1}),
    "Watchers (A)": (("node",), {("node-1",): 1}),
    "Hooks (A)": (("hook",), figures("oom_watcher_hook_attached", "hook")),
    "Versions (A)": (("version",), {(VERSION,): 1}),
    "Lost events (A)": (("stage",), {}),
    "Missed kills (A)": (("node",), {}),
    "Missed kills (B)": (("node",), {}),
    "Attribution of kills (A)": (("result", "source"), {("full", "index"): 4, ("host", "path"): 1}),
    "Attribution of kills (B)": (("reason",), {}),
    "Events by stage (A)": (("stage",), {("sink_event",): 4, **{(stage,): 5 for stage in STAGES}}),
    "Events by stage (B)": ((), {}),
}
WHEN = "Incidents by container (A)"


@pytest.mark.parametrize("name", EXPECTED)
def test_a_panel_shows_what_it_should(results, name: str):
    labels, expected = EXPECTED[name]
    found = {key: value for key, value in by(results[name], *labels).items() if value}
    # increase() extrapolates to the ends of its range.
    assert found == {key: pytest.approx(value, rel=0.2) for key, value in expected.items()}


def test_every_query_of_the_dashboard_is_expected_to_show_something(results):
    assert set(results) == {*EXPECTED, WHEN}


def test_the_table_says_when(results):
    times = by(results[WHEN], "pod", "container")
    assert set(times) == {APP, POSTGRES, NOBODY}
    assert all(abs(value / 1000 - time.time()) < 120 for value in times.values())


def test_alerts_fire_for_the_kills_and_for_nothing_else(address: str, results):
    assert live.rule_errors(address) == []
    fired = {(alert["metric"]["alertname"], alert["metric"].get("workload", "")) for alert in live.firing(address)}
    assert fired == {("OOMKill", "checkout"), ("OOMKill", "postgres"), ("OOMNodeOutOfMemory", "")}


def test_victims_labels_win_over_the_targets(results):
    # The target itself has namespace and pod; without honor_labels the kills would be the agent's.
    assert ("oom-watcher",) not in by(results["Kills by namespace (A)"], "namespace")
    assert set(contract.metrics()["oom_kills_total"]) & {"namespace", "pod"}
