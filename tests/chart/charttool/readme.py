"""helm/oom-watcher/README.md: its tables of values, written from the comments in values.yaml.

The rest of the README is its own; only what is between the two markers is generated. The comments' form is said at the
top of values.yaml.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .paths import CHART

BEGIN = "<!-- values:begin -->"
END = "<!-- values:end -->"
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):")


@dataclass
class Section:
    """One `##` heading of values.yaml with the values below it."""

    title: str
    text: list[str] = field(default_factory=list)
    values: list[tuple[str, str]] = field(default_factory=list)


class CommentError(Exception):
    """values.yaml has a comment or key that breaks its own form."""


def wanted() -> dict[Path, str]:
    """The README with the text that it should have."""
    path = CHART / "README.md"
    readme = path.read_text()
    head, _, rest = readme.partition(BEGIN)
    _, marker, tail = rest.partition(END)
    if not marker:
        raise CommentError(f"{path} lacks the markers {BEGIN} and {END}")
    source = (CHART / "values.yaml").read_text()
    return {path: f"{head}{BEGIN}\n\n{tables(source)}\n{END}{tail}"}


def tables(source: str) -> str:
    """Markdown of all sections."""
    defaults = yaml.safe_load(source)
    return "\n".join(_section_markdown(section, defaults) for section in sections(source))


def sections(source: str) -> list[Section]:
    """The sections of values.yaml, each value with its description, in the order of the file."""
    found: list[Section] = []
    path: list[tuple[int, str]] = []
    pending: list[str] = []
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("## ") and not pending and (not found or found[-1].values):
            found.append(Section(text[3:]))
        elif text.startswith("##"):
            found[-1].text.append(text[2:].strip())
        elif text.startswith("# -- "):
            pending = [text[5:]]
        elif text.startswith("#"):
            if pending:
                pending.append(text[1:].strip())
        elif match := _KEY.match(line):
            indent = len(match["indent"])
            path = [(depth, key) for depth, key in path if depth < indent] + [(indent, match["key"])]
            if pending:
                found[-1].values.append((".".join(key for _, key in path), " ".join(pending)))
                pending = []
        elif pending:
            raise CommentError(f"a description is followed by no key: {pending[0]}")
    return found


def _section_markdown(section: Section, defaults: dict[str, Any]) -> str:
    text = "\n".join(section.text).strip()
    rows = [
        f"| `{path}` | {_default(lookup(defaults, path))} | {about.replace('|', chr(92) + '|')} |"
        for path, about in section.values
    ]
    parts = [f"### {section.title}", text, "\n".join(["| Value | Default | Meaning |", "|---|---|---|", *rows])]
    return "\n\n".join(part for part in parts if part) + "\n"


def lookup(values: dict[str, Any], path: str) -> Any:
    """The value at a dotted path."""
    for key in path.split("."):
        values = values[key]
    return values


def _default(value: Any) -> str:
    if value == "":
        return "empty"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"
