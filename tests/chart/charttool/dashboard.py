"""The Grafana dashboard's queries, with Grafana's own variables filled in."""

import json
from dataclasses import dataclass

from .paths import CHART


@dataclass(frozen=True)
class Query:
    """One query of one panel."""

    panel: str
    ref: str
    expression: str
    # It gives what happened in each step, drawn as one bar or point: all of them together are what happened.
    stepped: bool

    @property
    def name(self) -> str:
        """How a message names it."""
        return f"{self.panel} ({self.ref})"


def load() -> dict:
    """The dashboard as it is shipped."""
    return json.loads((CHART / "files" / "dashboard.json").read_text())


@dataclass(frozen=True)
class Shown:
    """What a dashboard is set to, in seconds: the range until an end, and the time from one bar to the next; and of the scrapes."""

    end: float = 300
    seconds: int = 300
    step: int = 60
    scrape: int = 30

    @property
    def rate_interval(self) -> int:
        """As Grafana has it."""
        return max(self.step + self.scrape, 4 * self.scrape)


def queries(shown: Shown = Shown(), job: str = "oom-watcher", namespace: str = ".*") -> list[Query]:
    """Every panel's queries; the node's variable means all."""
    # In this order: $__interval is the beginning of $__interval_ms.
    variables = {
        "$__rate_interval_ms": str(shown.rate_interval * 1000),
        "$__rate_interval": f"{shown.rate_interval}s",
        "$__interval_ms": str(shown.step * 1000),
        "$__interval": f"{shown.step}s",
        "$__range": f"{shown.seconds}s",
        "$__from": str(round((shown.end - shown.seconds) * 1000)),
        "$job": job,
        "$node": ".*",
        "$namespace": namespace,
    }
    return [
        Query(
            panel["title"],
            target["refId"],
            _fill(target["expr"], variables),
            "$__interval" in target["expr"] and not target.get("instant"),
        )
        for panel in load()["panels"]
        for target in panel.get("targets", [])
    ]


def variable_queries() -> list[str]:
    """Queries of the dashboard's own variables, in Grafana's form."""
    return [variable["query"]["query"] for variable in load()["templating"]["list"] if variable["type"] == "query"]


def _fill(expression: str, variables: dict[str, str]) -> str:
    for name, value in variables.items():
        expression = expression.replace(name, value)
    return expression
