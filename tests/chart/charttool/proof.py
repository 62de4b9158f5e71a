"""What the proofs of the image (`tests/image`) need of the chart, in a folder: its container, and the tests' own packages."""

import json
import shutil
from pathlib import Path

import _pytest
import iniconfig
import packaging
import pluggy
import py
import pygments
import pytest
import yaml

from . import helm
from .paths import RENDERED_VALUES

# Mounts that are off by default.
MOUNTS = {
    "podLogDir": "/var/log/pods",
    "crioBundleDir": "/var/lib/containers/storage/overlay-containers",
    "criSocket": "/run/containerd/containerd.sock",
    "dockerContainerDir": "/var/lib/docker/containers",
    "podmanContainerDir": "/var/lib/containers/storage/overlay-containers",
    "stateDir": "/var/lib/oom-watcher",
    "pinDir": "/sys/fs/bpf/oom-watcher",
}
# pytest and what it imports: none of it is compiled, so that it runs on any architecture.
PACKAGES = [_pytest, iniconfig, packaging, pluggy, py, pygments, pytest]


def renderings() -> dict[str, helm.Values]:
    """With the API, as it is by default; without; and that with each mount."""
    no_api = yaml.safe_load((RENDERED_VALUES / "no-api.yaml").read_text())
    mounts = {key: {**no_api, "config": {**no_api["config"], key: path}} for key, path in MOUNTS.items()}
    return {"default": {}, "no-api": no_api, **mounts}


def write(folder: Path) -> None:
    """Writes both below the folder."""
    pods = folder / "pods"
    pods.mkdir(parents=True, exist_ok=True)
    for name, values in renderings().items():
        (pods / f"{name}.json").write_text(json.dumps(helm.agent(helm.render(values))))
    for package in PACKAGES:
        source = Path(package.__file__)
        if source.name == "__init__.py":
            shutil.copytree(source.parent, folder / "python" / source.parent.name, dirs_exist_ok=True)
        else:
            shutil.copy2(source, folder / "python")
