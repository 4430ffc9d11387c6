"""What the tests of the store begin with: where the file is, or one that is open."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nsqlite import StoreError
from nsqlite.store.sqlitefile import SQLiteFile
from store.files import made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def file(path: Path) -> Iterator[SQLiteFile]:
    """Open a new file with a topic and two channels."""
    file = SQLiteFile(str(path), full=False)
    file.load()
    file.write(made())
    yield file
    with suppress(StoreError):
        file.close()
