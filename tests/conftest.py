"""What holds for every test: repeatable examples, Ctrl-C as usual, no soak unless asked for."""

import gc
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=1000)

pytest_plugins = ["pytester"]

collect_ignore_glob = ["compat/*client.py", "compat/five_*.py", "compat/program_*.py"]
"""Programs of their own, with libraries that are not to be imported here."""

MESSAGES = ("compat", "server", "store", "wire", "worker")
"""Where no test leaves a message in flight, either; elsewhere see `nsqlite_leaks`."""

REPORTS = ("BUILD_NUMBER", "CI", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "PYTHON_COLORS", "PY_COLORS")
"""What has Python and pytest say more, or in colours, or in narrow lines."""


def pytest_configure(config: pytest.Config) -> None:
    """Make examples repeatable and Ctrl-C an interrupt.

    `pytest --hypothesis-profile=explore` looks for new examples.
    """
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("repeatable")
    # A shell that starts the tests in the background has them, and their children, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def plain_reports() -> Iterator[None]:
    """Have what the tests look at not depend on how whoever runs them wants his reports."""
    with pytest.MonkeyPatch.context() as patch:
        for name in REPORTS:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def no_log() -> Iterator[None]:
    """Do without the log of failures on purpose."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what runs on demand only, unless `-m` names it; choose what leaks are."""
    for item in items:
        if item.path.parent.name in MESSAGES and item.path.parents[1] == Path(__file__).parent:
            item.add_marker(pytest.mark.nsqlite(leaks=True))
    if "soak" not in config.getoption("-m"):
        left_out = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    """Have the many collections of garbage not go through all the tests each time."""
    gc.collect()
    gc.freeze()
