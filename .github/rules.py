"""What no linter knows of these workflows: `rules.py FILE…` prints each fault and fails if there is one.

Whoever can write to the registry, publish a release or have a signature made could do it in this project's name. A build runs the
build scripts of every dependency, so it is not done where such a right, or a token, is at hand.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML

# Given to every run by GitHub; the project has no secret of its own.
SECRETS = {"GITHUB_TOKEN"}
# How the toolchain that everything is tested with becomes that of a runner.
RUST = "./.github/rust.sh"
# What compiles: cargo itself, and the scripts of this repository that call it.
BUILDS = re.compile(r"\bcargo\b|\./scripts/")


def faults(workflow: dict) -> Iterator[str]:
    """What is wrong with a workflow."""
    for name in sorted(set(re.findall(r"secrets\.(\w+)|secrets\[", str(workflow))) - SECRETS):
        yield f"there is no secret {name!r}"
    yield from outside_of_steps("the workflow", workflow)
    rights = workflow.get("permissions")
    if not isinstance(rights, dict) or "write" in rights.values():
        yield "the workflow itself has more rights than to read what is named"
    for name, job in workflow["jobs"].items():
        yield from (f"{name}: {fault}" for fault in job_faults(job))


def job_faults(job: dict) -> Iterator[str]:
    """What is wrong with a job."""
    yield from outside_of_steps("the job", job)
    rights = job.get("permissions", {})
    if not isinstance(rights, dict):
        yield "its rights are not named one by one"
        rights = {}
    steps = job.get("steps", [])
    pinned = False
    for step in steps:
        run, uses = step.get("run", ""), step.get("uses", "")
        if "write" in rights.values() and (BUILDS.search(run) or uses.startswith(("actions/checkout@", "./"))):
            yield "code of this repository is at hand where something may be written"
        if "secrets." in str(step) and (uses or BUILDS.search(run)):
            yield "code that is not the workflow's own is given a secret"
        pinned = pinned or RUST in run
        if BUILDS.search(run) and not pinned:
            yield f"something is built before {RUST} has said with which Rust"


def outside_of_steps(who: str, part: dict) -> Iterator[str]:
    """A secret of the environment of more than one step, which those that do not need it have, too."""
    if "secrets" in str(part.get("env", {})) or "secrets" in part:
        yield f"{who} hands a secret to all of its steps"


def main(files: list[Path]) -> int:
    """Every fault of every file, and whether there was one."""
    found = [f"{file}: {fault}" for file in files for fault in faults(YAML(typ="safe").load(file))]
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main([Path(name) for name in sys.argv[1:]]))
