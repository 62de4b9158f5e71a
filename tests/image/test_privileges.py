"""Taking the chart's privileges away one at a time; what happens is the table of docs/security.md."""

import json
import re

import pytest

from charttool.paths import DOCS
from conftest import Node
from privileges import CHANGES, Change, replaced, table
from test_image import first_kill, ready


def test_each_privilege_is_needed_and_the_table_says_for_what(node: Node, pytestconfig: pytest.Config) -> None:
    rows = [(name, *outcome(node, number, change)) for number, (name, change) in enumerate(CHANGES)]
    page = DOCS / "security.md"
    known = page.read_text()
    wanted = replaced(known, table(rows))
    assert len({row[1:] for row in rows}) > 3, rows
    if pytestconfig.getoption("write_docs"):
        page.write_text(wanted)
    assert page.read_text() == wanted, "docs/security.md is stale: cargo xtask image --write-docs"


def outcome(node: Node, number: int, change: Change) -> tuple[str, str]:
    """What `check` says, and what becomes of a kill."""
    error = checked(node, number, change)
    if error is not None:
        return f"cannot run: {error}", ended(node, number, change)
    specification = node.specification()
    change(specification, node.profile)
    with node.container("crun", specification, f"start-{number}") as container:
        ready(node, container)
        report = first_kill(node, container)
    kubernetes = report["kubernetes"]
    named = [key for key in ("namespace", "pod", "container", "pod_uid", "container_id") if key in kubernetes]
    return "can run", f"reported with {', '.join(named)}"


def ended(node: Node, number: int, change: Change) -> str:
    """How the agent itself ends where it cannot run: the kubelet shows the same as CrashLoopBackOff."""
    specification = node.specification()
    change(specification, node.profile)
    with node.container("crun", specification, f"start-{number}") as container:
        status = container.wait()
    assert container.stderr.read_text().strip(), "it ended without a word"
    return f"not seen: the agent ends with status {status} and the reason"


def checked(node: Node, number: int, change: Change) -> str | None:
    """The reason why the agent cannot run."""
    specification = node.specification()
    change(specification, node.profile)
    specification["process"]["args"] += ["check", "--output", "json"]
    with node.container("crun", specification, f"check-{number}") as container:
        status = container.wait()
    findings = json.loads(container.stdout.read_text())
    assert findings["can_run"] == (status == 0), findings
    error = findings.get("error")
    # Which of the maps is refused first differs from run to run.
    return re.sub(r"map `\w+`", "a map", error) if error else None
