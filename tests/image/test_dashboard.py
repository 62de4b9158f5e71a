"""The dashboard in a real Prometheus that scrapes the agent in the chart's container: every panel shows a real kill."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from api import Api
from conftest import Node
from test_api import PATH, POD
from test_image import PORT, first_kill, ready

# The chart's tooling is not in a guest.
live = pytest.importorskip("charttool.live")
contract = pytest.importorskip("charttool.contract")
dashboard = pytest.importorskip("charttool.dashboard")

KILLS = 2


def test_every_panel_shows_what_the_agent_counted(node: Node) -> None:
    with (
        Api(node.network, node.keys, {PATH: POD}),
        node.container("crun", node.specification("default"), "dashboard") as container,
        reachable(node) as target,
    ):
        ready(node, container)
        with live.prometheus(target, node="node-1") as prometheus:
            for _ in range(KILLS):
                first_kill(node, container)
            time.sleep(live.SETTLE_SECONDS)
            queries = dashboard.queries(live.WINDOW_SECONDS)
            results = {query.name: live.evaluate(prometheus, query.expression) for query in queries}
            fired = {alert["metric"]["alertname"] for alert in live.firing(prometheus)}
            errors = live.rule_errors(prometheus)
        _, page = node.network.get(PORT, "/metrics")
    shown = {name for name, _, _ in contract.series(page)} | set(contract.SCRAPE_METRICS)
    for query in queries:
        # What this kernel does not give has no series, and its panel nothing to show.
        given = contract.names_in(query.expression) <= shown and query.name not in live.EMPTY_WHEN_WELL
        assert bool(results[query.name]) == given, query.name
    # Others may have kills on this machine, too.
    own = [series for series in results["Top containers (A)"] if series["metric"].get("pod") == "web-0"]
    assert [float(series["value"][1]) for series in own] == [KILLS]
    assert "container" in {series["metric"]["scope"] for series in results["Scope (A)"]}
    assert errors == [] and "OOMKill" in fired
    assert not fired & {"OOMWatcherDown", "OOMWatcherAbsent", "OOMWatcherMissedKills", "OOMWatcherDegraded"}


@contextmanager
def reachable(node: Node) -> Iterator[str]:
    """The agent's port from outside its network namespace, as a pod network makes it; host and port."""

    class Forward(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802, the name that BaseHTTPRequestHandler asks for
            status, body = node.network.get(PORT, self.path)
            self.send_response(status or 502)
            self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Nothing: the requests are Prometheus' scrapes."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Forward) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
