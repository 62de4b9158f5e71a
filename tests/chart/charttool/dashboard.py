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

    @property
    def name(self) -> str:
        """How a message names it."""
        return f"{self.panel} ({self.ref})"


def load() -> dict:
    """The dashboard as it is shipped."""
    return json.loads((CHART / "files" / "dashboard.json").read_text())


def queries(seconds: int = 300, job: str = "oom-watcher", namespace: str = ".*") -> list[Query]:
    """Every panel's queries; `seconds` is Grafana's range and rate interval, and the node's variable means all."""
    # In this order: $__range is the beginning of $__range_s.
    variables = {
        "$__rate_interval": f"{seconds}s",
        "$__range_s": str(seconds),
        "$__range": f"{seconds}s",
        "$job": job,
        "$node": ".*",
        "$namespace": namespace,
    }
    return [
        Query(panel["title"], target["refId"], _fill(target["expr"], variables))
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
