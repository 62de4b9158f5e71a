"""The page of an agent to which everything happens that an alert is about, on which the alerts are tested.

Its hooks cannot be made to fail from outside: the kernel's own count of kills is raised by hand, and a hook is missing where the
kernel has it so (arm64 before 6.12 lets no function be hooked by these capabilities).
"""

import os
import signal
from pathlib import Path
from typing import Any

from cgroups import Cgroup
from conftest import VICTIM_LIMIT, Node, with_environment
from container import Container
from pages import keep, page_with, value
from test_image import ready

Json = dict[str, Any]

MAX_SERIES = 100
RING_BUFFER = 64 * 1024
# More than there is room for, at ten series each; what is killed again and again is the first of them.
NAMED = 14
LOOPS = 5
# A record is as long as the names in its path: so many of this length fill the ring buffer.
LONG_NAMES, LONG_NAME = 12, "x" * 250
FLOOD = 24
UNSEEN = 2
LOST = 'oom_watcher_lost_events_total{stage="ring_buffer"}'
DEGRADED = 'oom_watcher_names_degraded{reason="unreadable"}'
UNNAMED = 'oom_watcher_attributions_total{result="id",source="path"}'
MISSED = "oom_watcher_missed_kills_total"
VMSTAT = Path("/proc/vmstat")


def test_the_page_of_an_agent_in_trouble(node: Node) -> None:
    links, counted = node.folder / "trouble-links", node.folder / "vmstat"
    links.mkdir()
    counted.write_text(VMSTAT.read_text())
    for number in range(NAMED):
        (links / f"web-{number}_shop_app-{number:064x}.log").symlink_to("/var/log/pods/nowhere")
    with node.container("crun", troubled(node, links, counted), "trouble") as agent:
        ready(node, agent)
        # Whose series are there before a kill is alive, and not dropped for another's.
        agent.until("a series for each container", lambda: page_with(node, "oom_kills_total{", NAMED))
        kill(node, 0)
        before = agent.until("counted", lambda: page_with(node, "oom_incidents_total{"))
        for number in [0] * LOOPS + list(range(1, NAMED)):
            kill(node, number)
        above_zero(node, agent, "oom_watcher_series_refused_total")
        # Root without any other capability is a user like others; a directory that is moved is opened anew.
        links.chmod(0)
        links.rename(node.folder / "moved-links")
        kill(node, NAMED)
        flood(node, agent)
        raise_count(counted)
        for series in [LOST, DEGRADED, UNNAMED, MISSED]:
            after = above_zero(node, agent, series)
    keep("trouble-before", before)
    keep("trouble-after", after)


def troubled(node: Node, links: Path, counted: Path) -> Json:
    """The chart's container with little room, and with a count of the kernel's that can be raised."""
    wanted = node.specification()
    (mount,) = [mount for mount in wanted["mounts"] if mount["destination"] == "/var/log/containers"]
    mount["source"] = str(links)
    bind = {"destination": str(VMSTAT), "type": "bind", "source": str(counted), "options": ["bind", "ro"]}
    wanted["mounts"].append(bind)
    return with_environment(wanted, MAX_SERIES=str(MAX_SERIES), RING_BUFFER_SIZE=str(RING_BUFFER))


def kill(node: Node, number: int, below: str = "") -> None:
    """A kill in one of the containers, or in a cgroup that it made itself."""
    path = f"{node.cgroup}/kubepods/burstable/pod00000000-0000-4000-8000-{number:012}/{number:064x}{below}"
    with Cgroup(path, VICTIM_LIMIT) as container:
        container.kill()


def flood(node: Node, agent: Container) -> None:
    """More kills than the ring buffer holds, while nobody reads it."""
    os.kill(agent.pid, signal.SIGSTOP)
    try:
        for _ in range(FLOOD):
            kill(node, NAMED, f"/{LONG_NAME}" * LONG_NAMES)
    finally:
        os.kill(agent.pid, signal.SIGCONT)


def above_zero(node: Node, agent: Container, series: str) -> str:
    """The page, once that series is above zero."""
    return agent.until(series, lambda: (page := page_with(node, f"{series} ")) and value(page, series) > 0 and page)


def raise_count(counted: Path) -> None:
    """The kernel's count, with kills that no hook saw."""
    lines = [
        f"oom_kill {int(line.split()[1]) + UNSEEN}" if line.startswith("oom_kill ") else line
        for line in VMSTAT.read_text().splitlines()
    ]
    counted.write_text("\n".join(lines) + "\n")
