"""What all tests share: where a tool that is no Python package may be missing, and how that is said."""

import os
import shutil

import pytest

from charttool import live, promtool


@pytest.fixture
def need():
    """Gives the path of a program; without it the test is skipped, or with CI=true fails."""

    def find(name: str) -> str:
        return shutil.which(name) or missing(f"{name} is not installed")

    return find


@pytest.fixture
def with_promtool() -> None:
    """The test runs promtool."""
    try:
        promtool.program()
    except promtool.PromtoolMissing as error:
        missing(str(error))


@pytest.fixture(scope="session")
def with_prometheus() -> None:
    """The test runs Prometheus."""
    try:
        live.program()
    except live.PrometheusMissing as error:
        missing(str(error))


def missing(reason: str) -> str:
    """Skips the test; in CI what cannot run has failed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
