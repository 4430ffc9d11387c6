"""What several of the stateful tests need."""

from pathlib import Path

import pytest

from stateful.recorder import Unavailable, require


@pytest.fixture
def recordable(tmp_path: Path) -> None:
    """Skip what needs a record where none can be made, and say why."""
    try:
        require(tmp_path)
    except Unavailable as error:
        pytest.skip(str(error))
