"""What each mount that is off by default gives, in the container that the chart renders with it: a table of docs/security.md."""

import ctypes
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cgroups import Cgroup
from conftest import VICTIM_ID, VICTIM_LIMIT, VICTIM_POD, Node
from cri import Runtime
from results import keep
from test_image import PORT, first_kill, kill_in, ready

Json = dict[str, Any]

# A container that no pod owns.
OUTSIDE_ID = "d" * 64
LIBC = ctypes.CDLL(None, use_errno=True)
NAMES = ("namespace", "pod", "container", "pod_uid", "container_id")
# What the kubelet has the runtime keep about a container.
LABELS = {
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.pod.name": "web-0",
    "io.kubernetes.pod.uid": VICTIM_POD,
    "io.kubernetes.container.name": "app",
}


@contextmanager
def pod_logs(node: Node) -> Iterator[None]:
    """The kubelet's directories of logs."""
    (node.folder / f"node/var/log/pods/shop_web-0_{VICTIM_POD}/app").mkdir(parents=True)
    yield


@contextmanager
def bundles(node: Node) -> Iterator[None]:
    """What CRI-O writes before it starts a container."""
    folder = node.folder / "node/var/lib/containers/storage/overlay-containers" / VICTIM_ID / "userdata"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"annotations": {**LABELS, "io.kubernetes.cri-o.ContainerType": "container"}}))
    yield


@contextmanager
def runtime(node: Node) -> Iterator[None]:
    """A container runtime that knows the container."""
    folder = node.folder / "node/run/containerd"
    folder.mkdir(parents=True)
    with Runtime(folder / "containerd.sock", VICTIM_ID, LABELS):
        yield


@contextmanager
def docker(node: Node) -> Iterator[None]:
    """What Docker writes of a container."""
    folder = node.folder / "node/var/lib/docker/containers" / OUTSIDE_ID
    folder.mkdir(parents=True)
    (folder / "config.v2.json").write_text(json.dumps({"ID": OUTSIDE_ID, "Name": "/web"}))
    yield


@contextmanager
def podman(node: Node) -> Iterator[None]:
    """What Podman's storage writes of all containers."""
    folder = node.folder / "node/var/lib/containers/storage/overlay-containers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "containers.json").write_text(json.dumps([{"id": OUTSIDE_ID, "names": ["web"]}]))
    yield


@contextmanager
def state(node: Node) -> Iterator[None]:
    """A directory that outlives the agent."""
    (node.folder / "node/var/lib/oom-watcher").mkdir(parents=True)
    yield


@contextmanager
def pins(node: Node) -> Iterator[None]:
    """A BPF file system of its own instead of the machine's: what is pinned goes with it."""
    folder = node.folder / "node/sys/fs/bpf"
    folder.mkdir(parents=True)
    # By the system calls: the guests have no such programs.
    called(LIBC.mount(b"bpf", bytes(folder), b"bpf", 0, None), folder)
    (folder / "oom-watcher").mkdir()
    try:
        yield
    finally:
        called(LIBC.umount2(bytes(folder), 0), folder)


def called(result: int, folder: Path) -> None:
    """Raises what a system call said."""
    if result != 0:
        raise OSError(ctypes.get_errno(), "cannot mount or unmount", str(folder))


Provide = Callable[[Node], AbstractContextManager[None]]
BEFORE_ITS_LINK = "a kill before the container has its link"
OUTSIDE_OF_PODS = "a kill in a container that no pod owns"
WITHOUT_AN_AGENT = "a kill while no agent runs"


@pytest.mark.parametrize(
    ("value", "provide", "expected"),
    [
        ("podLogDir", pod_logs, {"namespace", "pod"}),
        ("crioBundleDir", bundles, {"namespace", "pod", "container"}),
        ("criSocket", runtime, {"namespace", "pod", "container"}),
    ],
)
def test_a_further_source_of_names_names_a_kill(node: Node, value: str, provide: Provide, expected: set[str]) -> None:
    with provide(node):
        before, after = (unlinked_kill(node, values) for values in ("no-api", value))
    assert set(before) == {"pod_uid", "container_id"} and set(after) - set(before) == expected
    told = (f"reported with {', '.join(names)}" for names in (before, after))
    keep_row(value, BEFORE_ITS_LINK, *told)


@pytest.mark.parametrize(
    ("value", "provide", "group"),
    [
        ("dockerContainerDir", docker, f"docker/{OUTSIDE_ID}"),
        ("podmanContainerDir", podman, f"machine.slice/libpod-{OUTSIDE_ID}.scope"),
    ],
)
def test_a_container_that_no_pod_owns_has_its_name(node: Node, value: str, provide: Provide, group: str) -> None:
    with provide(node):
        before, after = (outside_kill(node, values, group) for values in ("no-api", value))
    assert before == {"id": OUTSIDE_ID} and after == {**before, "name": "web"}
    told = (f"reported with {' and '.join(names)}" for names in (before, after))
    keep_row(value, OUTSIDE_OF_PODS, *told)


@pytest.mark.parametrize(
    ("value", "provide", "expected"),
    [("stateDir", state, "its number, afterwards"), ("pinDir", pins, "reported by the next agent")],
)
def test_a_kill_while_no_agent_runs_is_not_lost_without_a_word(
    node: Node, value: str, provide: Provide, expected: str
) -> None:
    before = gap(node, "no-api")
    with provide(node):
        after = gap(node, value)
    assert (before, after) == ("not seen", expected)
    keep_row(value, WITHOUT_AN_AGENT, before, after)


def unlinked_kill(node: Node, values: str) -> list[str]:
    """The names in the report of a kill in a container that has no link."""
    specification = node.specification(values)
    (links,) = [mount for mount in specification["mounts"] if mount["destination"] == "/var/log/containers"]
    links["source"] = str(node.folder / "empty")
    (node.folder / "empty").mkdir(exist_ok=True)
    with node.container("crun", specification, f"unlinked-{values}") as container:
        ready(node, container)
        names = first_kill(node, container)["kubernetes"]
        assert container.terminate() == 0
    return [name for name in NAMES if name in names]


def outside_kill(node: Node, values: str, group: str) -> dict[str, str]:
    """What the report of a kill in that cgroup says of its container, the runtime aside."""
    with node.container("crun", node.specification(values), f"outside-{values}") as container:
        ready(node, container)
        report = kill_in(Cgroup(f"{node.cgroup}/{group}", VICTIM_LIMIT), container)
        assert container.terminate() == 0
    return {key: text for key, text in report["container"].items() if key != "runtime"}


def gap(node: Node, values: str) -> str:
    """What the second of two agents says of a kill between them."""
    with node.container("crun", node.specification(values), f"first-{values}") as container:
        ready(node, container)
        first_kill(node, container)
        assert container.terminate() == 0
    with node.victim() as victim:
        pid = victim.kill()
    with node.container("crun", node.specification(values), f"second-{values}") as container:
        ready(node, container)
        # A kill of its own comes after whatever it has to tell of the time before.
        first_kill(node, container)
        told = [report["victim"]["pid"] for report in container.reports()]
        _, page = node.network.get(PORT, "/metrics")
    if pid in told:
        return "reported by the next agent"
    return "its number, afterwards" if "\noom_watcher_unwatched_kills 1\n" in page else "not seen"


def keep_row(value: str, case: str, without: str, given: str) -> None:
    """A row of the table."""
    keep({"value": f"`config.{value}`", "case": case, "without": without, "given": given})
