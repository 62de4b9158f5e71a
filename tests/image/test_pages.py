"""The agent's own page before and after kills, of which one is the machine's: what alerts and dashboard are tested on.

Only in a guest, because the machine runs out of memory. `cargo xtask image --guest … --write-docs` keeps the pages.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from api import Api
from cgroups import Cgroup
from conftest import Node
from test_image import MIB, PORT, ready

Json = dict[str, Any]

RESULTS = "OOM_WATCHER_RESULTS"
APP_KILLS = 3
APP_LIMIT = 32 * MIB
# Namespace, pod and container, each with the UID of its pod and an id of its own.
PODS = {
    ("shop", "checkout-7c9d8f6b5d-x7k2p", "app"): ("0f2c7b9e-6d8f-4f0b-9b3d-5f1c2a7e4d10", "c" * 64),
    ("shop", "checkout-7c9d8f6b5d-x7k2p", "proxy"): ("0f2c7b9e-6d8f-4f0b-9b3d-5f1c2a7e4d10", "d" * 64),
    ("data", "postgres-0", "postgres"): ("3b1d9a52-7c44-4a0e-8f65-2d90c1e6b7f8", "e" * 64),
}
OWNERS = {
    "checkout-7c9d8f6b5d-x7k2p": ("ReplicaSet", "checkout-7c9d8f6b5d", {"pod-template-hash": "7c9d8f6b5d"}),
    "postgres-0": ("StatefulSet", "postgres", {}),
}


@pytest.mark.skipif("OOM_WATCHER_GUEST" not in os.environ, reason="it takes all memory of the machine")
def test_the_page_of_an_agent_before_and_after_kills(node: Node) -> None:
    for (namespace, pod, container), (_, identifier) in PODS.items():
        link = node.folder / f"node/var/log/containers/{pod}_{namespace}_{container}-{identifier}.log"
        link.symlink_to("/var/log/pods/nowhere")
    app, _, postgres = (f"{node.cgroup}/kubepods/burstable/pod{uid}/{identifier}" for uid, identifier in PODS.values())
    with (
        Api(node.network, node.keys, api_pods()),
        node.container("crun", node.specification("default"), "pages") as agent,
        Cgroup(app, APP_LIMIT) as limited,
        Cgroup(postgres) as unlimited,
        Cgroup(f"{node.cgroup}/backup") as outside,
    ):
        ready(node, agent)
        before = agent.until("a series for each container", lambda: page_with(node, "oom_kills_total", len(PODS)))
        for _ in range(APP_KILLS):
            limited.kill()
        unlimited.kill(score=1000)
        outside.kill(score=1000)
        events = 'oom_watcher_events_total{stage="sink_event"} 4'
        after = agent.until("told to the API", lambda: page_with(node, events, 1))
        kills = 'oom_kills_per_node_total{node="node-1"} 5'
        assert kills in after, after
    keep("before", before)
    keep("after", after)


def api_pods() -> dict[str, Json]:
    """The pods as the API has them."""
    found = {}
    for (namespace, name, _), (uid, _) in PODS.items():
        kind, owner, labels = OWNERS[name]
        names = [container for (_, pod, container) in PODS if pod == name]
        found[f"/api/v1/namespaces/{namespace}/pods/{name}"] = {
            "metadata": {
                "namespace": namespace,
                "name": name,
                "uid": uid,
                "labels": labels,
                "ownerReferences": [{"kind": kind, "name": owner, "controller": True}],
            },
            "spec": {"nodeName": "node-1", "containers": [{"name": container} for container in names]},
        }
    return found


def page_with(node: Node, start: str, count: int) -> str | None:
    """The agent's page, once it has that many lines that begin so."""
    _, page = node.network.get(PORT, "/metrics")
    return page if sum(line.startswith(start) for line in page.splitlines()) >= count else None


def keep(when: str, page: str) -> None:
    """Hands the page to whoever started the guest; a time that was now is now again whenever it is read."""
    text = re.sub(r"^(oom_last_timestamp\{.*\}) \S+$", r"\1 @NOW@", page, flags=re.MULTILINE)
    if RESULTS in os.environ:
        with Path(os.environ[RESULTS]).open("a") as results:
            results.write(json.dumps({"page": when, "text": text}) + "\n")
