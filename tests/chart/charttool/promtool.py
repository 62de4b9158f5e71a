"""promtool, from the Debian package `prometheus` or from PROMTOOL."""

import os
import shutil
import subprocess
from pathlib import Path

import yaml

from .helm import Object


class PromtoolMissing(Exception):
    """There is no promtool on this machine."""


def program() -> str:
    """Path of promtool."""
    found = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if not found:
        raise PromtoolMissing("promtool is missing: install the package `prometheus`, or set PROMTOOL")
    return found


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs promtool and returns what it said, whether it succeeded or not."""
    return subprocess.run([program(), *arguments], capture_output=True, text=True, check=False)


def parse_errors(queries: dict[str, str], scratch: Path) -> str:
    """What promtool's parser says against the queries (named for the message); empty when all parse."""
    rules = [
        {"record": f"query:{number}", "expr": query, "labels": {"where": name}}
        for number, (name, query) in enumerate(queries.items())
    ]
    path = write_rules([{"name": "queries", "rules": rules}], scratch / "queries.yaml")
    result = run("check", "rules", str(path))
    return "" if result.returncode == 0 else result.stdout + result.stderr


def write_rules(groups: list[Object], path: Path) -> Path:
    """A rule file of Prometheus' own form."""
    path.write_text(yaml.safe_dump({"groups": groups}))
    return path
