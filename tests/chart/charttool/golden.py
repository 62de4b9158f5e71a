"""Golden renderings: for chosen values, every object that the chart creates.

A change of the chart shows there as a change of what it installs, so that it is reviewed as that.
"""

from pathlib import Path

import yaml

from .helm import Object, render
from .paths import CHART, GOLDEN

# The values are those that chart-testing installs: helm/oom-watcher/ci/<name>-values.yaml.
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


def name_of(values: Path) -> str:
    """The name of a values file without what all have in common."""
    return values.name.removesuffix("-values.yaml")


def load(values: Path) -> dict:
    """A values file."""
    return yaml.safe_load(values.read_text()) or {}


def wanted() -> dict[Path, str]:
    """Every golden file with the text that it should have; the dashboard, which is a file as it is, is left out."""
    return {GOLDEN / f"{name_of(values)}.yaml": _document(values) for values in VALUES}


def _document(values: Path) -> str:
    objects = render(load(values), tests=True)
    return "".join(f"---\n{dump(_abridged(found))}" for found in objects)


def _abridged(found: dict) -> dict:
    if found["kind"] == "ConfigMap":
        found["data"] = {key: f"({key})" for key in found["data"]}
    return found


class _Dumper(yaml.SafeDumper):
    """Block scalars for texts of several lines, and lists indented as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump(found: Object) -> str:
    """One object as YAML, keys in the order in which the chart writes them."""
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=140, allow_unicode=True)
