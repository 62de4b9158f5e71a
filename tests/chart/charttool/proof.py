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

# With the API, as it is by default, and without.
VALUES = {"default": None, "no-api": RENDERED_VALUES / "no-api.yaml"}
# pytest and what it imports: none of it is compiled, so that it runs on any architecture.
PACKAGES = [_pytest, iniconfig, packaging, pluggy, py, pygments, pytest]


def write(folder: Path) -> None:
    """Writes both below the folder."""
    pods = folder / "pods"
    pods.mkdir(parents=True, exist_ok=True)
    for name, file in VALUES.items():
        values = yaml.safe_load(file.read_text()) if file else {}
        (pods / f"{name}.json").write_text(json.dumps(helm.agent(helm.render(values))))
    for package in PACKAGES:
        source = Path(package.__file__)
        if source.name == "__init__.py":
            shutil.copytree(source.parent, folder / "python" / source.parent.name, dirs_exist_ok=True)
        else:
            shutil.copy2(source, folder / "python")
