"""The pod of `helm test`: its script, run here against an agent's page, and what it needs of the cluster."""

import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from charttool import helm
from charttool.paths import DOCS

POD, NAMESPACE = "oom-watcher-test-kill", "oom-watcher"


def kill_pod(**values) -> dict:
    """The test's pod."""
    return helm.only(helm.render(values, tests=True), "Pod")


def container(name: str) -> dict:
    """One of its containers."""
    return next(found for found in kill_pod()["spec"]["containers"] if found["name"] == name)


def series(count: int, *, pod: str = POD, namespace: str = NAMESPACE, name: str = "victim") -> str:
    """A line of the agent's page, its labels in another order than the contract's."""
    return f'oom_kills_total{{container="{name}",node="a",namespace="{namespace}",pod="{pod}"}} {count}\n'


class Agent:
    """An agent that serves one page after the other and stays with the last."""

    def __init__(self, pages: list[str | None]) -> None:
        self.pages = pages
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802, the name that BaseHTTPRequestHandler asks for
                page = agent.pages.pop(0) if len(agent.pages) > 1 else agent.pages[0]
                self.send_response(503 if page is None else 200)
                self.end_headers()
                self.wfile.write((page or "").encode())

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/metrics"


def run_check(pages: list[str | None], folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Runs the script of the container `check`, and ends it after that time, as the pod's deadline would."""
    shell, *options, script = container("check")["command"]
    for path in ("/tmp/metrics", "/state/before"):
        script = script.replace(path, str(folder / Path(path).name))
    script = script.replace("sleep 2", "sleep 0.2")
    agent = Agent(pages)
    environment = {"URL": agent.url, "POD_NAME": POD, "POD_NAMESPACE": NAMESPACE, "PATH": "/usr/bin:/bin"}
    try:
        return subprocess.run(
            [shell, *options, script], capture_output=True, text=True, check=False, env=environment, timeout=seconds
        )
    finally:
        agent.server.shutdown()
        agent.server.server_close()


def test_passes_once_the_kill_has_this_pods_labels(tmp_path: Path, need):
    need("wget")
    other = series(5, pod="another")
    result = run_check([None, other, other + series(0), other + series(1)], tmp_path, 20)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "no answer from the agent" in result.stdout
    assert "shows no kill of oom-watcher/oom-watcher-test-kill/victim yet" in result.stdout
    assert "the agent counted the kill" in result.stdout and series(1).strip() in result.stdout


def test_kills_of_an_earlier_test_do_not_pass_for_this_ones(tmp_path: Path, need):
    need("wget")
    with pytest.raises(subprocess.TimeoutExpired):
        run_check([series(3)], tmp_path, 1.5)
    assert (tmp_path / "before").read_text() == "3\n"
    # A second start of the container does not count anew.
    result = run_check([series(4)], tmp_path, 20)
    assert result.returncode == 0 and series(4).strip() in result.stdout, result.stdout + result.stderr


def test_the_victim_is_killed_only_after_the_earlier_kills_are_counted():
    script = container("victim")["command"][2]
    assert script.index("until [ -e /state/before ]") < script.index("touch /state/killed")
    shared = [{mount["name"] for mount in container(name)["volumeMounts"]} for name in ("victim", "check")]
    assert "state" in shared[0] & shared[1]


@pytest.mark.parametrize(
    "page",
    [
        series(0),
        series(3, pod="oom-watcher-test-kill-2"),
        series(3, namespace="default"),
        series(3, name="check"),
        "",
    ],
    ids=["not yet", "another pod", "another namespace", "another container", "empty"],
)
def test_does_not_pass_on_anything_else(page: str, tmp_path: Path, need):
    need("wget")
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run_check([page], tmp_path, 1.5)
    assert time.monotonic() - started >= 1.5


def test_the_victim_ends_well_on_its_second_start(tmp_path: Path):
    shell, *options, script = container("victim")["command"]
    (tmp_path / "killed").touch()
    result = subprocess.run(
        [shell, *options, script.replace("/state", str(tmp_path))], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0 and "killed once" in result.stdout


def test_the_victim_asks_for_more_than_any_limit_the_schema_lets_through():
    assert "bs=512M" in container("victim")["command"][2]
    limits = container("victim")["resources"]
    assert limits["requests"]["memory"] == limits["limits"]["memory"], "swap could absorb it"


def test_it_needs_no_rights():
    spec = kill_pod()["spec"]
    assert spec["automountServiceAccountToken"] is False and "serviceAccountName" not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    for found in spec["containers"]:
        assert found["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all("emptyDir" in volume for volume in spec["volumes"])


def test_it_ends_by_itself_and_asks_the_agent_of_its_own_node():
    objects = helm.render(tests=True)
    spec = helm.only(objects, "Pod")["spec"]
    service = helm.only(objects, "Service")
    assert spec["activeDeadlineSeconds"] == 120 and spec["restartPolicy"] == "OnFailure"
    assert service["spec"]["internalTrafficPolicy"] == "Local"
    url = next(entry["value"] for entry in container("check")["env"] if entry["name"] == "URL")
    assert url == f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc:8080/metrics"


def test_its_logs_can_be_read_afterwards():
    metadata = kill_pod()["metadata"]
    # Helm 3 removes a pod with `hook-succeeded` before `helm test --logs` reads it; so it stays, and the document says so.
    assert metadata["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"
    removal = (DOCS / "operations.md").read_text().partition("## Upgrade, rollback and removal")[2]
    assert f"kubectl -n oom-watcher delete pod {metadata['name']} --ignore-not-found" in removal


def test_there_is_none_without_the_service_or_when_it_is_off():
    for values in ({"service": {"enabled": False}}, {"test": {"enabled": False}}):
        assert not any(found["kind"] == "Pod" for found in helm.render(values, tests=True))
