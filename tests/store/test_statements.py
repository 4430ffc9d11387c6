"""What a file is told in SQL, and what its errors mean."""

import sqlite3

import pytest

from nsqlite import StoreError
from nsqlite.store.statements import BULK, TOGETHER, pieces, runs, told
from store.files import HIGHEST, row


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        ([], []),
        ([5], [(5, 5)]),
        ([1, 2, 3], [(1, 3)]),
        ([1, 3, 4, 9], [(1, 1), (3, 4), (9, 9)]),
        ([0, HIGHEST - 1, HIGHEST], [(0, 0), (HIGHEST - 1, HIGHEST)]),
    ],
)
def test_runs(identities: list[int], expected: list[tuple[int, int]]) -> None:
    """Ids that follow upon each other are one run."""
    assert expected == runs(identities)


def test_an_error_that_has_no_number() -> None:
    """What SQLite did not give a number is told in its own words."""
    error = told("jobs.db", sqlite3.ProgrammingError("Cannot operate on a closed database."))
    assert StoreError is type(error)
    expected = "store jobs.db: it cannot be used (Cannot operate on a closed database.)"
    assert expected == str(error)


@pytest.mark.parametrize("count", [0, 1, TOGETHER - 1, TOGETHER, TOGETHER + 1, BULK, 2 * BULK + 99])
def test_pieces(count: int) -> None:
    """All rows come, in order, in as few pieces as there are statements for."""
    rows = [row(identity) for identity in range(count)]
    parts = list(pieces(rows))
    assert rows == [one for part in parts for one in part]
    left = count % BULK
    assert count // BULK + left // TOGETHER + bool(left % TOGETHER) == len(parts)
    assert all(0 < len(part) <= TOGETHER or len(part) == BULK for part in parts)
