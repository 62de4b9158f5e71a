"""The agent's own page before and after kills, of which one is the machine's: what alerts and dashboard are tested on.

Only in a guest, because the machine runs out of memory. `cargo xtask image --guest 6.1 --write-pages` keeps the pages.
"""

import os
from typing import Any

import pytest

from api import Api
from cgroups import Cgroup
from conftest import Node
from pages import keep, page_with
from test_image import MIB, ready

Json = dict[str, Any]

APP_KILLS = 3
APP_LIMIT = 32 * MIB
# Namespace, pod and container, each with the UID of its pod and an id of its own. The hash of the first is so short that its name
# alone does not tell the Deployment.
PODS = {
    ("shop", "checkout-6bd9c-x7k2p", "app"): ("0f2c7b9e-6d8f-4f0b-9b3d-5f1c2a7e4d10", "c" * 64),
    ("shop", "checkout-6bd9c-x7k2p", "proxy"): ("0f2c7b9e-6d8f-4f0b-9b3d-5f1c2a7e4d10", "d" * 64),
    ("data", "postgres-0", "postgres"): ("3b1d9a52-7c44-4a0e-8f65-2d90c1e6b7f8", "e" * 64),
}
OWNERS = {
    "checkout-6bd9c-x7k2p": ("ReplicaSet", "checkout-6bd9c", {"pod-template-hash": "6bd9c"}),
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
        after = agent.until("told to the API", lambda: page_with(node, events))
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
