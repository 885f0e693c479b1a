"""Settings of every test."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

import pytest

from tests.support import examples

examples.load_profile()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before hypothesis reads the option, and before pytest-xdist hands the options to its workers.
    if examples.EXPLORING and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


def how_to_repeat(config: pytest.Config) -> str:
    return f"exploration: repeat it with CNILAB_EXPLORE=1 and --hypothesis-seed={config.option.hypothesis_seed}"


def pytest_report_header(config: pytest.Config) -> str | None:
    # At the start, for a run that is cut.
    return how_to_repeat(config) if examples.EXPLORING else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # At the end too, where a person looks, and where `-q` shows it.
    if examples.EXPLORING:
        terminalreporter.write_line(how_to_repeat(config))


@pytest.fixture(scope="session", autouse=True)
def shared_plans_stay_as_they_are() -> Iterator[None]:
    yield
    if graphs := sys.modules.get("tests.support.graphs"):
        graphs.assert_unchanged()
