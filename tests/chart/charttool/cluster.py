"""A cluster of a chosen version, as far as `helm install --dry-run=server` asks: the chart sees that version, and nothing is installed.

It knows the kinds that the chart has by default; every object is not there yet.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import helm_python

from .helm import Object, Values, parse
from .paths import CHART

KINDS = {
    "v1": ["ServiceAccount", "Service", "ResourceQuota"],
    "apps/v1": ["DaemonSet"],
    "rbac.authorization.k8s.io/v1": ["ClusterRole", "ClusterRoleBinding"],
}
NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


def install(version: str, values: Values | None = None) -> list[Object]:
    """The objects that an installation into a cluster of that version would create; raises HelmError with the chart's sentence."""
    with (
        _server(version) as address,
        # No configuration of the user's: nothing but the stand-in is asked.
        helm_python.Config(kube_apiserver=address, kubeconfig_content="{}", storage_driver="memory") as cluster,
    ):
        release = cluster.install(CHART, "oom-watcher", values or {}, namespace="oom-watcher", dry_run="server")
    return parse(release["manifest"])


@contextmanager
def _server(version: str) -> Iterator[str]:
    answers = _answers(version)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802, the name that BaseHTTPRequestHandler asks for
            body = answers.get(self.path.partition("?")[0])
            text = json.dumps(NOT_FOUND).encode() if body is None else body
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _answers(version: str) -> dict[str, bytes]:
    """What discovery asks. A schema of nothing lets every object pass: schemas have a test of their own."""
    major, minor = version.removeprefix("v").split(".")[:2]
    groups = [
        {"name": group.partition("/")[0], "versions": [found := {"groupVersion": group, "version": "v1"}], "preferredVersion": found}
        for group in KINDS
        if "/" in group
    ]
    answers: dict[str, object] = {
        "/version": {"major": major, "minor": minor, "gitVersion": version},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
    }
    for group, kinds in KINDS.items():
        resources = [
            {"name": f"{kind.lower()}s", "kind": kind, "namespaced": not kind.startswith("Cluster"), "verbs": ["get", "create"]}
            for kind in kinds
        ]
        path = f"/apis/{group}" if "/" in group else f"/api/{group}"
        answers[path] = {"kind": "APIResourceList", "groupVersion": group, "resources": resources}
    return {path: json.dumps(body).encode() for path, body in answers.items()} | {"/openapi/v2": b""}
