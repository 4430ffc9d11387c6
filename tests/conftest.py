"""What holds for every test: repeatable examples, and no soak unless asked for."""

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("explore", deadline=None, print_blob=True, max_examples=1000)


def pytest_configure(config: pytest.Config) -> None:
    """Make examples repeatable; `pytest --hypothesis-profile=explore` looks for new ones."""
    if not config.getoption("--hypothesis-profile", None):
        settings.load_profile("repeatable")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what runs on demand only, unless `-m` names it."""
    if "soak" not in config.getoption("-m"):
        left_out = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
