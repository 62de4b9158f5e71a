"""A real Prometheus scrapes an agent; every query of the dashboard and every alert is evaluated on what it got.

The scrape goes through the settings that the chart's monitors give (honor_labels, the label `node`), as far as they
matter without Kubernetes' discovery.
"""

import argparse
import json
import math
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from . import dashboard, helm, promtool

SCRAPE_SECONDS = 1
# From one bar to the next.
STEP_SECONDS = 2 * SCRAPE_SECONDS
START_SECONDS = 30
# As many that the first is in no step in which something happens afterwards: what a new agent's page says is counted whole.
FIRST_SCRAPES = 2 * STEP_SECONDS // SCRAPE_SECONDS + 2
# Scrapes, and evaluations of the alerts, that a kill is given to show.
SETTLE_SECONDS = 4 * SCRAPE_SECONDS
# Queries that return nothing on a healthy node, by design.
EMPTY_WHEN_WELL = {"Lost events (A)", "Missed kills (B)", "Attribution of kills (B)"}


class PrometheusMissing(Exception):
    """There is no Prometheus on this machine."""


class PrometheusFailed(Exception):
    """Prometheus did not start, did not reach the agent, or refused a query."""


def program() -> str:
    """Path of prometheus."""
    found = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    if not found:
        raise PrometheusMissing("prometheus is missing: install the package `prometheus`, or set PROMETHEUS")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command `live`."""
    parser.add_argument("--target", required=True, metavar="HOST:PORT", help="the agent's metrics port")
    parser.add_argument("--node", default="node", help="value of the target's label `node`")
    parser.add_argument(
        "--provoke", metavar="COMMAND", help="shell command that causes a kill, run once the agent is scraped"
    )
    parser.add_argument(
        "--expect-empty",
        action="append",
        default=[],
        metavar="QUERY",
        help="query that may return nothing, as `Panel (A)`",
    )
    parser.add_argument("--expect-alert", action="append", default=[], metavar="NAME", help="alert that must fire")


def check(chosen: argparse.Namespace) -> list[str]:
    """What is wrong with dashboard and alerts against this agent."""
    with prometheus(chosen.target, chosen.node) as address:
        begin = time.time()
        if chosen.provoke:
            subprocess.run(chosen.provoke, shell=True, check=True)
            time.sleep(SETTLE_SECONDS)
        results = panels(address, begin)
        fired = {alert["metric"]["alertname"] for alert in firing(address)}
        problems = rule_errors(address)
    may_be_empty = EMPTY_WHEN_WELL | set(chosen.expect_empty)
    problems += [
        f"{name} returns nothing" for name, result in results.items() if not result and name not in may_be_empty
    ]
    return problems + [f"{name} does not fire" for name in chosen.expect_alert if name not in fired]


def panels(address: str, begin: float, namespace: str = ".*") -> dict[str, list[dict]]:
    """What every query of the dashboard gives for the time from the begin, when Prometheus had its first scrapes, until now."""
    # On a step, as Grafana's ends are; the last samples are not beyond it.
    end = math.ceil(time.time() / STEP_SECONDS) * STEP_SECONDS
    shown = dashboard.Shown(end, STEP_SECONDS * math.ceil((end - begin) / STEP_SECONDS), STEP_SECONDS, SCRAPE_SECONDS)
    return {
        query.name: in_steps(address, query, shown) if query.stepped else evaluate(address, query.expression, end)
        for query in dashboard.queries(shown, namespace=namespace)
    }


def in_steps(address: str, query: dashboard.Query, shown: dashboard.Shown) -> list[dict]:
    """The series of a query, with a value for each step."""
    times = {"start": shown.end - shown.seconds, "end": shown.end, "step": shown.step}
    asked = urllib.parse.urlencode({"query": query.expression, **times})
    return _get(f"http://{address}/api/v1/query_range?{asked}")["result"]


def firing(address: str) -> list[dict]:
    """The alerts that fire."""
    return evaluate(address, 'ALERTS{alertstate="firing"}')


def rule_errors(address: str) -> list[str]:
    """Alerts that Prometheus could not evaluate."""
    groups = _get(f"http://{address}/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    if not rules:
        raise PrometheusFailed("Prometheus has no rules")
    return [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule.get("lastError")]


@contextmanager
def prometheus(target: str, node: str = "node") -> Iterator[str]:
    """A Prometheus that scrapes the target; gives its address once it has its first scrapes."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="oom-watcher-prometheus-") as folder:
        command = _command(Path(folder), address, target, node)
        with open(Path(folder) / "log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            _await_scrapes(address, process, Path(folder) / "log")
            yield address
        finally:
            process.terminate()
            process.wait()


def _command(folder: Path, address: str, target: str, node: str) -> list[str]:
    config = folder / "prometheus.yml"
    rule = helm.only(helm.render({"prometheusRule": {"enabled": True}}), "PrometheusRule")
    config.write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
                "rule_files": [str(promtool.write_rules(rule["spec"]["groups"], folder / "alerts.yaml"))],
                "scrape_configs": [
                    {
                        "job_name": "oom-watcher",
                        "honor_labels": True,
                        "static_configs": [
                            {
                                "targets": [target],
                                "labels": {"node": node, "namespace": "oom-watcher", "pod": "oom-watcher-x7k2p"},
                            }
                        ],
                    }
                ],
            }
        )
    )
    return [
        program(),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]


def _await_scrapes(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PrometheusFailed(f"prometheus ended with {process.returncode}:\n{log.read_text()}")
        try:
            if evaluate(address, f"sum_over_time(up[1m]) >= {FIRST_SCRAPES}"):
                return
        except OSError:
            pass  # not listening yet
        time.sleep(0.2)
    raise PrometheusFailed(f"prometheus did not get {FIRST_SCRAPES} scrapes in {START_SECONDS} s:\n{log.read_text()}")


def evaluate(address: str, query: str, time: float | None = None) -> list[dict]:
    """The series of an instant query, now or at that time."""
    asked = {"query": query} if time is None else {"query": query, "time": time}
    return _get(f"http://{address}/api/v1/query?{urllib.parse.urlencode(asked)}")["result"]


def _get(url: str) -> dict:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise PrometheusFailed(f"{url}: {error.read().decode()}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
