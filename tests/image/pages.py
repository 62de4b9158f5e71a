"""An agent's own page, as a proof keeps it for the tests of alerts and dashboard."""

import re

import results
from conftest import Node
from test_image import PORT


def page_with(node: Node, start: str, count: int = 1) -> str | None:
    """The agent's page, once it has that many lines that begin so."""
    _, page = node.network.get(PORT, "/metrics")
    return page if sum(line.startswith(start) for line in page.splitlines()) >= count else None


def value(page: str, series: str) -> float:
    """The value of one series."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


def keep(name: str, page: str) -> None:
    """Hands the page to whoever started the guest; a time that was now is now again whenever it is read."""
    text = re.sub(r"^(oom_last_timestamp\{.*\}) \S+$", r"\1 @NOW@", page, flags=re.MULTILINE)
    results.keep({"page": name, "text": text})
