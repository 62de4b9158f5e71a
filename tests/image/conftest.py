"""What the proofs share: the image, the chart's container, and a node for it to run on."""

import json
import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import api
import translate
from cgroups import UNIFIED, Cgroup
from container import Container
from layout import Image
from network import Network

Json = dict[str, Any]

AGENT_POD = "11111111-2222-3333-4444-555555555555"
AGENT_ID = "a" * 64
VICTIM_POD = "66666666-7777-8888-9999-aaaaaaaaaaaa"
VICTIM_ID = "b" * 64
VICTIM_LIMIT = 16 * 2**20


# What `cargo xtask image` laid together, here or in a guest.
PROOF = "OOM_WATCHER_PROOF"


@dataclass
class Node:
    """A machine with one pod that will have a kill, and the place of the agent's pod beside it."""

    folder: Path
    proof: Path
    image: Image
    network: Network
    cgroup: str

    def profile(self, runtime: str = "podman") -> Json:
        """The default seccomp profile of a family of container runtimes."""
        return json.loads((self.proof / f"seccomp/{runtime}.json").read_text())

    def specification(self, values: str = "no-api", profile: Json | None = None) -> Json:
        """The agent's container, as the chart renders it with those values; a call that its filter refuses ends it here."""
        pod, container = json.loads((self.proof / f"pods/{values}.json").read_text())
        place = translate.Place(
            root=self.folder / "root",
            node=self.folder / "node",
            cgroup=f"{self.cgroup}/kubepods/burstable/pod{AGENT_POD}/{AGENT_ID}",
            network=self.network.path,
            account=api.account(self.folder / "account", self.keys),
            unified=UNIFIED,
            node_name="node-1",
            pod_uid=AGENT_POD,
        )
        wanted = translate.specification(pod, container, self.image.config, profile or self.profile(), place)
        return with_environment(deepcopy(wanted), SECCOMP="kill")

    @property
    def keys(self) -> Path:
        """Certificates of the API server's stand-in."""
        return self.proof / "api"

    def container(self, runtime: str, specification: Json, name: str) -> Container:
        """It, under a runtime."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return Container(runtime, specification, folder)

    def links(self, path: str) -> Path:
        """A directory on the node with the link of the other pod's container."""
        folder = self.folder / "node" / path
        folder.mkdir(parents=True)
        target = f"/var/log/pods/shop_web-0_{VICTIM_POD}/app/0.log"
        (folder / f"web-0_shop_app-{VICTIM_ID}.log").symlink_to(target)
        return folder

    def victim(self) -> Cgroup:
        """The cgroup of the other pod's container."""
        return Cgroup(f"{self.cgroup}/kubepods/burstable/pod{VICTIM_POD}/{VICTIM_ID}", VICTIM_LIMIT)


def with_environment(specification: Json, **values: str) -> Json:
    """The container with other settings than the chart gives, or with further ones."""
    kept = [entry for entry in specification["process"]["env"] if entry.partition("=")[0] not in values]
    specification["process"]["env"] = kept + [f"{name}={value}" for name, value in values.items()]
    return specification


@pytest.fixture(scope="session")
def proof() -> Path:
    """Everything that the tests are given."""
    if PROOF not in os.environ:
        pytest.fail(f"{PROOF} is not set: run `cargo xtask image`")
    return Path(os.environ[PROOF])


@pytest.fixture(scope="session")
def image(proof: Path) -> Image:
    """What `cargo xtask image` built, and of this commit: an image that an earlier one left proves nothing."""
    built = Image(proof / "oci")
    revision = built.config["config"]["Labels"]["org.opencontainers.image.revision"]
    if revision != (wanted := (proof / "revision").read_text()):
        pytest.fail(f"the image is of the commit {revision} and the sources are of {wanted}: build it anew")
    return built


@pytest.fixture(scope="session")
def node(image: Image, proof: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The machine under the test, with what a kubelet would have made on it."""
    folder = tmp_path_factory.mktemp("node")
    image.unpack(folder / "root")
    cgroup = f"/oom-watcher-image-{os.getpid()}"
    with Network() as network, Cgroup(cgroup):
        node = Node(folder, proof, image, network, cgroup)
        node.links("var/log/containers")
        yield node


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The line that `cargo xtask test` counts by, in the form of Rust's test harness."""
    counts = {word: len(terminalreporter.getreports(word)) for word in ("passed", "failed", "error")}
    failed = counts["failed"] + counts["error"]
    terminalreporter.write_line(
        f"test result: {'FAILED' if failed else 'ok'}. {counts['passed']} passed; {failed} failed"
    )
