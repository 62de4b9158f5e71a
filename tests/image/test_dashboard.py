"""The dashboard in a real Prometheus that scrapes the agent in the chart's container: every panel shows a real kill."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from api import Api
from conftest import VICTIM_LIMIT, Node
from pages import page_with
from test_api import PATH, POD
from test_image import PORT, first_kill, ready

if "OOM_WATCHER_GUEST" in os.environ:
    pytest.skip("a guest has neither Prometheus nor the chart's tooling", allow_module_level=True)
from charttool import contract, live, panels

KILLS = 2
NAMESPACE = "shop"
TOLD = f'oom_watcher_events_total{{stage="sink_event"}} {KILLS}'


def test_every_panel_shows_what_the_agent_counted(node: Node) -> None:
    with (
        Api(node.network, node.keys, {PATH: POD}),
        node.container("crun", node.specification("default"), "dashboard") as container,
        reachable(node) as target,
    ):
        ready(node, container)
        with live.prometheus(target, node="node-1") as prometheus:
            begin = time.time()
            _, before = node.network.get(PORT, "/metrics")
            for _ in range(KILLS):
                first_kill(node, container)
            container.until("told to the API", lambda: page_with(node, TOLD))
            time.sleep(live.SETTLE_SECONDS)
            _, after = node.network.get(PORT, "/metrics")
            # Others may have kills on this machine, too: only the test's own namespace is looked at.
            results = live.panels(prometheus, begin, NAMESPACE)
            alerts = [alert["metric"] for alert in live.firing(prometheus)]
            errors = live.rule_errors(prometheus)
    assert contract.differences(after) == []
    expected = panels.expected(before, after, NAMESPACE, "node-1")
    assert {name: panels.found(name, result) for name, result in results.items()} == expected
    # Not by the agent's word alone.
    assert expected["Top containers (A)"] == {(NAMESPACE, "web-0", "app"): KILLS}
    assert expected["Kills by workload (A)"] == {(NAMESPACE, "web"): KILLS}
    assert expected["Incidents by container (C)"] == {("node-1", NAMESPACE, "web-0", "app"): VICTIM_LIMIT}
    own = [(alert["alertname"], alert["workload"]) for alert in alerts if alert.get("namespace") == NAMESPACE]
    fired = {alert["alertname"] for alert in alerts}
    assert errors == [] and own == [("OOMKill", "web")]
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
