"""What stands for the API server: it answers what the agent asks over TLS, and keeps what it was asked.

It is as strict as the real one where the agent could be wrong: the token, the path, the fields of an Event that the
server requires.
"""

import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from network import Network

Json = dict[str, Any]

PORT = 6443
TOKEN = "stand-in-token"
# Where the kubelet mounts a service account.
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass
class Api:
    """A server with some pods, in a pod's network namespace while the context lasts."""

    network: Network
    keys: Path
    pods: dict[str, Json]
    requests: list[tuple[str, str]] = field(default_factory=list)
    events: list[Json] = field(default_factory=list)

    def __enter__(self) -> "Api":
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # noqa: N802, the name that BaseHTTPRequestHandler asks for
                self._answer(*api.get(self.path))

            def do_POST(self) -> None:  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(*api.post(self.path, json.loads(body)))

            def do_PATCH(self) -> None:  # noqa: N802
                self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(200, {})

            def _answer(self, status: int, body: Json) -> None:
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    status, body = 401, {"kind": "Status", "code": 401}
                api.requests.append((self.command, self.path))
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Nothing: what was asked is kept."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.keys / "server.crt", self.keys / "server.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = context.wrap_socket(self.network.listen(PORT), server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, path: str) -> tuple[int, Json]:
        """A pod, where there is one."""
        pod = self.pods.get(path.partition("?")[0])
        return (200, pod) if pod else (404, {"kind": "Status", "code": 404})

    def post(self, path: str, event: Json) -> tuple[int, Json]:
        """Takes an Event."""
        namespace = event["metadata"]["namespace"]
        if path.partition("?")[0] != f"/apis/events.k8s.io/v1/namespaces/{namespace}/events":
            return 404, {"kind": "Status", "code": 404}
        required = ["eventTime", "reportingController", "reportingInstance", "action", "reason", "type"]
        if missing := [key for key in required if not event.get(key)]:
            return 422, {"kind": "Status", "code": 422, "message": f"missing: {missing}"}
        self.events.append(event)
        return 201, event


def account(folder: Path, keys: Path) -> Path:
    """A service account's files, as the kubelet writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text("oom-watcher")
    (folder / "ca.crt").write_text((keys / "ca.crt").read_text())
    return folder


def environment() -> list[str]:
    """What the kubelet says in every container about the API server."""
    return ["KUBERNETES_SERVICE_HOST=127.0.0.1", f"KUBERNETES_SERVICE_PORT={PORT}"]
