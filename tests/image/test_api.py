"""The chart's default values: the API is asked about the pod, and told of the kill; without it the kill is reported the same."""

from typing import Any


from api import Api
from conftest import VICTIM_ID, VICTIM_LIMIT, VICTIM_POD, Node
from container import Container
from test_image import PORT, first_kill, ready

Json = dict[str, Any]

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "namespace": "shop",
        "name": "web-0",
        "uid": VICTIM_POD,
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": True}],
    },
    "spec": {
        "nodeName": "node-1",
        "containers": [{"name": "app", "image": "shop/app:1", "resources": {"limits": {"memory": str(VICTIM_LIMIT)}}}],
    },
    "status": {"containerStatuses": [{"name": "app", "containerID": f"containerd://{VICTIM_ID}"}]},
}
PATH = "/api/v1/namespaces/shop/pods/web-0"


def test_by_default_a_kill_is_reported_and_its_pod_looked_up_and_given_an_event(node: Node) -> None:
    with (
        Api(node.network, node.keys, {PATH: POD}) as server,
        node.container("crun", node.specification("default"), "default") as container,
    ):
        ready(node, container)
        assert server.requests == [], "it asked before there was a kill"
        report = first_kill(node, container)
        (event,) = container.until("told to the API", lambda: server.events)
        enrichment = container.until("enriched", lambda: enrichments(container))
        _, metrics = node.network.get(PORT, "/metrics")
        assert container.terminate() == 0, "its filter ended it"
    assert [(method, path.partition("?")[0]) for method, path in server.requests if method == "GET"] == [("GET", PATH)]
    assert enrichment[0]["incident_id"] == report["incident"]["id"]
    assert enrichment[0]["kubernetes"]["owner"] == {"kind": "StatefulSet", "name": "web"}
    assert event["regarding"]["uid"] == VICTIM_POD and event["regarding"]["name"] == "web-0"
    assert event["reason"] in ("ContainerOOMKilled", "ProcessOOMKilled") and event["reportingInstance"] == "node-1"
    assert 'oom_pod_info{node="node-1",namespace="shop",pod="web-0",owner_kind="StatefulSet",owner_name="web"} 1' in metrics


def test_without_an_answer_of_the_api_the_kill_is_reported_and_the_loss_shown(node: Node) -> None:
    with node.container("crun", node.specification("default"), "unreachable") as container:
        ready(node, container)
        report = first_kill(node, container)
        refused = 'oom_watcher_kubernetes_requests_total{verb="get",outcome="unreachable"}'
        container.until("counted", lambda: counted(node, refused))
        assert node.network.get(PORT, "/readyz")[0] == 200, "an API that is away is no reason not to be ready"
    assert report["kubernetes"]["pod"] == "web-0"


def enrichments(container: Container) -> list[Json]:
    """The lines that follow a kill's."""
    return [line for line in container.lines() if line.get("type") == "enrichment"]


def counted(node: Node, series: str) -> bool:
    """Whether a counter is above zero."""
    _, metrics = node.network.get(PORT, "/metrics")
    return any(line.startswith(series) and float(line.split()[-1]) > 0 for line in metrics.splitlines())
