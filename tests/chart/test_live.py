"""The dashboard on a real Prometheus, which scrapes an agent's page before and after kills."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from charttool import contract, dashboard, live
from charttool.paths import FIXTURES


# Pod and container that were killed most.
APP = ("checkout-7c9d8f6b5d-x7k2p", "app")


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


def shown(name: str, **labels: str) -> float:
    """The value of the one series of the container that was killed most, on the agent's own page."""
    wanted = {"pod": APP[0], "container": APP[1], **labels}
    page = contract.series((FIXTURES / "agent-after.txt").read_text())
    (value,) = [float(value) for found, has, value in page if found == name and wanted.items() <= has.items()]
    return value


def by(result: list[dict], *labels: str) -> dict:
    """The result's values by the values of the labels."""
    return {tuple(series["metric"].get(label, "") for label in labels): float(series["value"][1]) for series in result}


def test_every_query_returns_something(results):
    empty = {name for name, result in results.items() if not result}
    assert empty == live.EMPTY_WHEN_WELL


def test_kills_are_shown_by_namespace_workload_and_container(results):
    assert set(by(results["Kills by namespace (A)"], "namespace")) == {("shop",), ("data",), ("",)}
    assert set(by(results["Kills by workload (A)"], "namespace", "workload")) == {
        ("shop", "checkout"),
        ("data", "postgres"),
        ("", ""),
    }
    top = by(results["Top containers (A)"], "pod", "container")
    assert max(top, key=top.get) == APP and len(top) == 3


def test_scopes_are_told_apart(results):
    # Their series appear with the first incident, which increase() alone cannot see.
    assert by(results["Scope (A)"], "scope") == {("container",): 3, ("node",): 2}
    assert by(results["Incidents (A)"]) == {(): 5}


def test_incidents_table_joins_limit_and_usage_of_the_same_container(results):
    key = APP
    last, kills, limit, usage, share = (
        by(results[f"Incidents by container ({ref})"], "pod", "container")[key] for ref in "ABCDE"
    )
    assert abs(last / 1000 - time.time()) < 120
    assert (kills, limit, usage) == (3, shown("oom_limit_bytes"), shown("oom_usage_bytes"))
    assert share == pytest.approx(usage / limit)


def test_memory_is_shown_by_type(results):
    filled = by(results["What filled the memory (A)"], "memory_type")
    for kind in ("anon", "shmem"):
        assert filled[(kind,)] == shown("oom_memcg_memory_bytes", memory_type=kind) > 0


def test_health_is_that_of_a_healthy_node(results):
    assert by(results["Watchers not answering (A)"]) == {(): 0}
    assert by(results["Watchers (A)"], "node") == {("node-1",): 1}
    assert by(results["Versions (A)"], "version") == {("0.1.0",): 1}
    assert all(value == 0 for value in by(results["Lost events (A)"], "stage").values())


def test_alerts_fire_for_the_kills_and_for_nothing_else(address: str, results):
    assert live.rule_errors(address) == []
    fired = {(alert["metric"]["alertname"], alert["metric"].get("workload", "")) for alert in live.firing(address)}
    assert fired == {("OOMKill", "checkout"), ("OOMKill", "postgres"), ("OOMNodeOutOfMemory", "")}


def test_victims_labels_win_over_the_targets(results):
    # The target itself has namespace and pod; without honor_labels the kills would be the agent's.
    assert ("oom-watcher",) not in by(results["Kills by namespace (A)"], "namespace")
    assert set(contract.metrics()["oom_kills_total"]) & {"namespace", "pod"}
