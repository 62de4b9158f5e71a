"""The image does its work with exactly what the chart gives it."""

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cgroups
from api import Api
from conftest import VICTIM_LIMIT, Node
from container import Container
from layout import Image

MIB = 2**20
# Kinds of an ELF file's program headers.
LOAD, INTERPRETER = 1, 3
PORT = 8080
# Containers of the largest nodes that Kubernetes is made for, with names of a length that is seldom exceeded.
LARGE_NODE = 500
LONG_NAME = "a-service-with-a-long-name"


def segments(program: bytes) -> set[int]:
    """The kinds of an ELF file's program headers."""
    (start,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    return {struct.unpack_from("<I", program, start + number * size)[0] for number in range(count)}


def ready(node: Node, container: Container) -> None:
    """Waits for what the kubelet's probe would see."""
    container.until("ready", lambda: node.network.get(PORT, "/readyz")[0] == 200)


def first_kill(node: Node, container: Container) -> dict[str, Any]:
    """Has the other pod's process killed and gives the line about it."""
    return kill_in(node.victim(), container)


def kill_in(cgroup: cgroups.Cgroup, container: Container) -> dict[str, Any]:
    """Has a process killed in the cgroup, which is made for it, and gives the line about it."""
    with cgroup as victim:
        pid = victim.kill()
        # Others may have kills on this machine, too.
        own = container.until("reported", lambda: [one for one in container.reports() if one["victim"]["pid"] == pid])
    (report,) = own
    return report


def test_the_image_is_one_static_program(image: Image, tmp_path) -> None:
    image.unpack(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LICENSE-MIT", "oom-watcher"]
    program = (tmp_path / "oom-watcher").read_bytes()
    kinds = segments(program)
    assert LOAD in kinds and INTERPRETER not in kinds, "it asks for a dynamic loader"
    assert b"/root/" not in program and b"/usr/local/cargo" not in program, "paths of the build are in it"
    assert len(program) < 10 * MIB
    assert image.compressed_bytes < 5 * MIB
    print(f"program {len(program)} bytes, compressed image {image.compressed_bytes} bytes")


def test_the_image_says_what_it_is(image: Image) -> None:
    config = image.config["config"]
    assert config["Entrypoint"] == ["/oom-watcher"] and config["User"] == "0"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert labels["org.opencontainers.image.version"] != "0.0.0-dev"
    assert labels["org.opencontainers.image.source"].startswith("https://github.com/")


# The default filters of Podman and CRI-O, and of Docker and containerd, each with one of the runtimes.
@pytest.mark.parametrize(("runtime", "filters"), [("crun", "podman"), ("runc", "docker")])
def test_a_kill_in_another_pod_is_reported(node: Node, runtime: str, filters: str) -> None:
    specification = node.specification(profile=node.profile(filters))
    with node.container(runtime, specification, f"kill-{runtime}") as container:
        ready(node, container)
        assert node.network.get(PORT, "/livez")[0] == 200
        assert {int(container.status(f"Cap{part}"), 16) for part in ("Prm", "Eff", "Inh", "Amb")} == {0}
        assert container.status("NoNewPrivs") == "1" and container.status("Seccomp") == "2"
        report = first_kill(node, container)
        _, metrics = node.network.get(PORT, "/metrics")
        assert container.terminate() == 0
    assert report["node"] == "node-1"
    names = {key: report["kubernetes"].get(key) for key in ("namespace", "pod", "container")}
    assert names == {"namespace": "shop", "pod": "web-0", "container": "app"}, json.dumps(report)
    assert report["incident"]["scope"] == "container" and report["incident"]["limit_bytes"] == VICTIM_LIMIT
    assert 'oom_kills_total{node="node-1",namespace="shop",pod="web-0",container="app"} 1' in metrics


def test_a_large_node_takes_less_than_half_of_the_charts_limit(node: Node) -> None:
    specification = node.specification("default")
    links = node.links("large")
    for number in range(LARGE_NODE):
        (links / f"{LONG_NAME}-{number:05}_{LONG_NAME}_app-{number:064x}.log").symlink_to("/var/log/pods/nowhere")
    (mount,) = [mount for mount in specification["mounts"] if mount["destination"] == "/var/log/containers"]
    mount["source"] = str(links)
    maximum = int(dict(entry.split("=", 1) for entry in specification["process"]["env"])["MAX_SERIES"])
    with Api(node.network, node.keys, {}) as server, node.container("crun", specification, "large") as container:
        ready(node, container)
        container.until("shown", lambda: watched(node) > LARGE_NODE)
        first_kill(node, container)
        container.until("told to the API", lambda: server.requests)
        # As many as are answered at once.
        with ThreadPoolExecutor(4) as scrapers:
            pages = list(scrapers.map(lambda _: node.network.get(PORT, "/metrics")[1], range(16)))
        series = sum(not line.startswith("#") for line in pages[-1].splitlines())
        resident, peak = container.status("VmRSS"), cgroups.peak(specification["linux"]["cgroupsPath"])
    limit = specification["linux"]["resources"]["memory"]["limit"]
    # What the series of a full table would take beyond those of this page: the guard of the chart has the same figure.
    full = peak + max(0, maximum - series) * 1024
    print(f"{series} series: RSS {resident}, peak of the cgroup {peak // 1024} kB, {full // 1024} kB with {maximum} series")
    assert full < limit / 2, f"half of the chart's limit of {limit} is not enough of a margin"


def watched(node: Node) -> int:
    """Containers that the agent's page has."""
    return sum(line.startswith("oom_kills_total{") for line in node.network.get(PORT, "/metrics")[1].splitlines())


def test_the_root_file_system_cannot_be_written(node: Node) -> None:
    specification = node.specification()
    with node.container("crun", specification, "read-only") as container:
        ready(node, container)
        mounts = Path(f"/proc/{container.pid}/mountinfo").read_text().splitlines()
    options = {line.split()[4]: line.split()[5].split(",") for line in mounts}
    for place in ["/", "/sys", "/var/log/containers", "/proc/sys"]:
        assert "ro" in options[place], f"{place}: {options[place]}"
