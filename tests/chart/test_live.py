"""The dashboard on real Prometheuses, which scrape an agent's page before and after kills."""

import math
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from charttool import contract, dashboard, live, panels
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


# The agent to which what alerts are about happens, and one that has no series at zero: a container's first is its first kill.
WELL, TROUBLE, FIRST = "", "trouble-", "first"
NODE = "node-1"


def page(kind: str, when: str) -> str:
    """The page of an agent, before or after the kills."""
    text = (FIXTURES / f"agent-{'' if kind == FIRST else kind}{when}.txt").read_text()
    return re.sub(r"^oom_kills_total.* 0\n", "", text, flags=re.MULTILINE) if kind == FIRST else text


@dataclass
class Scraped:
    """A Prometheus that has scraped a page before and after the kills."""

    address: str
    begin: float
    before: str
    after: str


@contextmanager
def scraped(kind: str) -> Iterator[tuple[str, list[str]]]:
    """A Prometheus that scrapes an agent's page, which is the first of the list."""
    pages = [page(kind, "before"), page(kind, "after")]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802, the name that BaseHTTPRequestHandler asks for
            self.send_response(200)
            self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
            self.end_headers()
            self.wfile.write(pages[0].replace("@NOW@", str(int(time.time()))).encode())

        def log_message(self, *_: object) -> None:
            """Nothing: the requests are Prometheus' scrapes."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with live.prometheus(f"127.0.0.1:{server.server_port}", node=NODE) as address:
            yield address, pages
        server.shutdown()


@pytest.fixture(scope="module")
def agents(with_prometheus) -> Iterator[dict[str, Scraped]]:
    """A Prometheus for each kind of agent."""
    with ExitStack() as stack:
        found = {}
        running = {kind: stack.enter_context(scraped(kind)) for kind in (WELL, TROUBLE, FIRST)}
        for kind, (address, pages) in running.items():
            found[kind] = Scraped(address, time.time(), *pages)
            pages.pop(0)
        time.sleep(live.SETTLE_SECONDS)
        yield found


@pytest.fixture(scope="module")
def address(agents: dict[str, Scraped]) -> str:
    """Address of the Prometheus that has scraped the agent of a node that is well."""
    return agents[WELL].address


@pytest.fixture(scope="module")
def results(agents: dict[str, Scraped]) -> dict[str, list[dict]]:
    """Every query of the dashboard with its result."""
    return live.panels(agents[WELL].address, agents[WELL].begin)


def by(result: list[dict], *labels: str) -> dict:
    """The result's values by the values of the labels."""
    values = {tuple(series["metric"].get(label, "") for label in labels): panels.total(series) for series in result}
    assert len(values) == len(result), "two series by the same labels"
    return values


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
    "Lost events (A)": (("node", "stage"), {}),
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
    assert found == expected


def test_every_panel_shows_an_agent_in_trouble(agents: dict[str, Scraped]):
    agent = agents[TROUBLE]
    results = live.panels(agent.address, agent.begin)
    now = str(int(time.time()))
    before, after = (text.replace("@NOW@", now) for text in (agent.before, agent.after))
    wanted = panels.expected(before, after, "shop", NODE)
    found = {name: panels.found(name, result) for name, result in results.items()}
    assert {key: pytest.approx(value, abs=120000) for key, value in wanted.pop(WHEN).items()} == found.pop(WHEN)
    assert found == wanted
    # Not by the code of the test alone.
    assert found["Lost events (A)"] == {(NODE, "ring_buffer"): 9, (NODE, "sink_metrics"): 16}
    assert found["Missed kills (A)"] == {(NODE,): 2} and found["Kills by node (A)"] == {(NODE,): 34}


@pytest.mark.parametrize("kind", [WELL, FIRST])
@pytest.mark.parametrize(("step", "phase"), [(1, 0), (2, 0), (5, 0), (7, 0), (2, 0.7), (5, 3.3)])
def test_the_bars_of_a_kill_are_one(agents: dict[str, Scraped], kind: str, step: int, phase: float):
    agent = agents[kind]
    # Grafana starts on a step, which is the phase 0.
    start = math.floor(agent.begin / step) * step + phase
    steps = math.ceil((time.time() - start) / step)
    shown = dashboard.Shown(start + steps * step, steps * step, step, live.SCRAPE_SECONDS)
    queries = [query for query in dashboard.queries(shown) if query.stepped]
    found = {query.name: by(live.in_steps(agent.address, query, shown), *EXPECTED[query.name][0]) for query in queries}
    assert {name: {key: value for key, value in series.items() if value} for name, series in found.items()} == {
        name: EXPECTED[name][1] for name in found
    }
    assert {"Kills by namespace (A)", "Kills by workload (A)", "Kills by node (A)", "Lost events (A)"} <= set(found)


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
