"""Command line of the chart's tooling."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helm_python import HelmError

from . import contract, generated, golden, live, manifests, proof, readme


def main(arguments: list[str]) -> int:
    """Runs one command; without one, the tests."""
    parser = argparse.ArgumentParser(prog="tests/chart/run.sh", description="Tooling of the Helm chart.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("test", help="run the tests (the default); further arguments go to pytest")
    for name, wanted, about in [
        ("render", manifests.wanted, "write k8s/*.yaml from the chart"),
        ("readme", readme.wanted, "write the chart's README from the comments in values.yaml"),
        ("golden", golden.wanted, "write the golden renderings"),
    ]:
        command = commands.add_parser(name, help=about)
        command.add_argument("--check", action="store_true", help="write nothing, fail if a file would change")
        command.set_defaults(wanted=wanted)
    compared = commands.add_parser(
        "metrics", help="compare an agent's /metrics page with what alerts and dashboard rely on"
    )
    compared.add_argument("exposition", type=Path, help="file with the page")
    proven = commands.add_parser("proof", help="write what the proofs of the image need of the chart")
    proven.add_argument("folder", type=Path)
    scraped = commands.add_parser("live", help="let a real Prometheus scrape an agent and evaluate the dashboard")
    live.add_arguments(scraped)
    chosen, further = parser.parse_known_args(arguments or ["test"])
    if chosen.command == "test":
        # cloudcoil brings a plugin along that wants packages of its own.
        return int(pytest.main(["-q", "-rs", "-p", "no:cacheprovider", "-p", "no:cloudcoil", *further]))
    return _run(parser.parse_args(arguments))


def _run(chosen: argparse.Namespace) -> int:
    if chosen.command == "metrics":
        return _report(contract.differences(chosen.exposition.read_text()))
    if chosen.command == "proof":
        proof.write(chosen.folder)
        return 0
    if chosen.command == "live":
        return _report(live.check(chosen))
    wanted: Callable[[], dict[Path, str]] = chosen.wanted
    return 1 if generated.settle(wanted(), check=chosen.check, command=chosen.command) else 0


def _report(problems: list[str]) -> int:
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (HelmError, readme.CommentError, live.PrometheusMissing, live.PrometheusFailed) as error:
        sys.exit(f"tests/chart/run.sh: {error}")
