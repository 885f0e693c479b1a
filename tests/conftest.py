"""Settings of every test."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from _pytest.nodeid import NodeId
from xdist.scheduler import LoadGroupScheduling

from engine.garbage import collect_rarely
from tests.support import examples

examples.load_profile()

collect_rarely()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before hypothesis reads the option, and before pytest-xdist hands the options to its workers.
    if examples.EXPLORING and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the group of a test behind its name, where the scheduler looks for it.

    pytest-xdist 3.8 writes it into a field that pytest 9.2 no longer reads: no group would be one.
    """
    if not config.getoption("loadgroup", False):
        return
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        if mark and not item.nodeid.endswith(f"@{mark.args[0]}"):
            item._id = NodeId.parse(f"{item.nodeid}@{mark.args[0]}")


LONGEST = (
    "tests/verify/test_faults.py",
    "tests/verify/test_killed_faults.py",
    "tests/cli/live/test_exercise.py",
    "hosts",
    "tests/node/test_lib.py",
    "tests/cli/review/test_review.py",
    "tests/sandbox/test_stacks.py",
    "tests/cli/sandbox/test_demo.py",
    "transcripts",
    "tests/verify/test_walk_further.py",
    "tests/verify/test_by_hand.py",
    "tests/verify/test_walk.py",
    "tests/machines/test_first_boot.py",
    "tests/policy/test_iam.py",
    "tests/page/test_browser.py",
    "a page of a hundred nodes",
    "tests/sandbox/test_data_path.py",
    "tests/page/test_observed.py",
    "tests/cli/lifecycle/test_screen.py",
    "tests/verify/test_verify_replica.py",
    "tests/test_lab.py",
    "tests/sandbox/test_life.py",
    "tests/machines/test_aws.py",
    "tests/sandbox/test_firewall.py",
    "tests/workflows/test_preview.py",
    "tests/test_every_lab.py",
    "tests/cli/test_local_variant.py",
    "tests/spec/test_load.py",
    "tests/sandbox/test_words.py",
    "tests/cli/completion/test_completion.py",
    "tests/cli/sandbox/test_sandbox.py",
    "tests/page/test_document.py",
    "tests/sandbox/test_seeds.py",
    "tests/calico/test_waits.py",
    "tests/cli/test_installation.py",
)
"""The files and groups that take longest, the longest first."""


class ByFile(LoadGroupScheduling):
    """Which tests stay together on one worker: those of a group, else those of a file.

    The fixtures of a file, and the plans that its tests share, are then made once instead of by every worker.
    """

    def _split_scope(self, nodeid: str) -> str:
        group: str = super()._split_scope(nodeid)
        return nodeid.partition("::")[0] if group == nodeid else group

    def _assign_work_unit(self, node: Any) -> None:
        """Begin with the longest file: at the end one worker would go on alone with it. After these pytest-xdist
        orders the files by their numbers of tests."""
        if first := next((file for file in LONGEST if file in self.workqueue), None):
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    return ByFile(config, log) if config.getvalue("dist") == "loadgroup" else None


def how_to_repeat(config: pytest.Config) -> str:
    return f"exploration: repeat it with CNILAB_EXPLORE=1 and --hypothesis-seed={config.option.hypothesis_seed}"


def pytest_report_header(config: pytest.Config) -> str | None:
    # At the start, for a run that is cut.
    return how_to_repeat(config) if examples.EXPLORING else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # At the end too, where a person looks, and where `-q` shows it.
    if examples.EXPLORING:
        terminalreporter.write_line(how_to_repeat(config))


def pytest_unconfigure() -> None:
    # pytest searches for garbage five times now, to report exceptions of finalizers. One search finds them, and the
    # others need not look at a million objects again.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def shared_plans_stay_as_they_are() -> Iterator[None]:
    yield
    if graphs := sys.modules.get("tests.support.graphs"):
        graphs.assert_unchanged()
