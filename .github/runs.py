"""Writes every shell command of the workflows into a folder as a script of its own, for shellcheck: `runs.py FOLDER FILE…`."""

import re
import sys
from pathlib import Path

from ruamel.yaml import YAML


def main(folder: Path, files: list[Path]) -> None:
    """One script for each `run`; an expression of GitHub's stands for a word."""
    for file in files:
        for job, definition in YAML(typ="safe").load(file)["jobs"].items():
            for number, step in enumerate(definition.get("steps", [])):
                if "run" in step:
                    script = re.sub(r"\$\{\{.*?\}\}", "expression", step["run"])
                    (folder / f"{file.stem}-{job}-{number}.sh").write_text(f"#!/bin/bash -e\n{script}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
