"""Taking the chart's privileges away one at a time; what happens becomes the tables of docs/security.md."""

import json
import re
from typing import Any

import pytest

from conftest import Node
from privileges import CHANGES, Change, missing_here
from results import keep
from test_image import first_kill, ready

Json = dict[str, Any]

NEEDED = {"`BPF`", "`PERFMON`", "both", "`/sys` (every runtime mounts it)"}


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=[name for name, _ in CHANGES])
def test_what_is_taken_away_is_missed_or_said(node: Node, name: str, change: Change) -> None:
    if missing := missing_here(name):
        pytest.skip(f"this machine has no {missing} to give")
    outcome = {"taken": name, **tried(node, change)}
    keep(outcome)
    if name in NEEDED:
        assert outcome["error"], "it is given for nothing"
    if name.startswith("nothing"):
        assert not outcome["error"] and "container" in outcome["names"], outcome


def tried(node: Node, change: Change) -> Json:
    """What `check` says, and what becomes of a kill."""
    error = checked(node, change)
    if error is not None:
        return {"error": error, "status": ended(node, change)}
    specification = node.specification()
    change(specification, node.profile())
    with node.container("crun", specification, "start") as container:
        ready(node, container)
        report = first_kill(node, container)
    kubernetes = report["kubernetes"]
    return {
        "error": None,
        "names": [key for key in ("namespace", "pod", "container", "pod_uid", "container_id") if key in kubernetes],
        "scope": report["incident"]["scope_source"],
        "rss_error_bytes": report["victim"].get("rss_error_bytes"),
        "breakdown": "memory" in report,
    }


def ended(node: Node, change: Change) -> int:
    """How the agent itself ends where it cannot run: the kubelet shows the same as CrashLoopBackOff."""
    specification = node.specification()
    change(specification, node.profile())
    with node.container("crun", specification, "start") as container:
        status = container.wait()
    assert container.stderr.read_text().strip(), "it ended without a word"
    return status


def checked(node: Node, change: Change) -> str | None:
    """The reason why the agent cannot run."""
    specification = node.specification()
    change(specification, node.profile())
    specification["process"]["args"] += ["check", "--output", "json"]
    with node.container("crun", specification, "check") as container:
        status = container.wait()
    findings = json.loads(container.stdout.read_text())
    assert findings["can_run"] == (status == 0), findings
    error = findings.get("error")
    # Which of the maps is refused first differs from run to run.
    return re.sub(r"map `\w+`", "a map", error) if error else None
