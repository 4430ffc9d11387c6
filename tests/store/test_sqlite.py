"""`nsqlite.SQLite`: the way to open a file."""

import os
from pathlib import Path
from typing import Any

import pytest

from nsqlite import Broker, InvalidOption, SQLite, StoreError, StoreForeign, StoreInUse


@pytest.mark.parametrize("path", ["", ":memory:", b"jobs.db", 5, None])
def test_what_is_no_path_of_a_file(path: Any) -> None:
    """What cannot be a file is refused before anything is opened."""
    with pytest.raises(InvalidOption, match="path must be the path of a file, as text or a Path"):
        SQLite(path)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """What cannot be opened says so, and leaves nothing behind."""
    (tmp_path / "jobs.db").mkdir()
    with pytest.raises(StoreError, match="it cannot be opened"):
        Broker(store=SQLite(tmp_path / "jobs.db"))
    assert ["jobs.db"] == [one.name for one in tmp_path.iterdir()]


def test_options_are_checked(tmp_path: Path) -> None:
    """An option that is unknown or wrong is refused, and no file is made."""
    path = tmp_path / "jobs.db"
    wrong: list[Any] = [{"sync": "never"}, {"attempts": 1}, {"colour": "red"}, {"sync_every": 0}]
    for options in wrong:
        with pytest.raises(InvalidOption):
            SQLite(path, **options)
    SQLite(path)
    assert [] == list(tmp_path.iterdir())


def test_what_is_no_store() -> None:
    """A broker takes what can be opened and nothing else."""
    with pytest.raises(InvalidOption, match=r"store must be a store, as nsqlite.SQLite\(\"jobs.db"):
        Broker(store="jobs.db")  # type: ignore[arg-type]  # that is the point


def test_a_file_has_one_owner(tmp_path: Path) -> None:
    """A second broker is told who has it, and gets it when that is closed."""
    store = SQLite(tmp_path / "jobs.db")
    with Broker(store=store), pytest.raises(StoreInUse) as info:
        Broker(store=store)
    assert os.getpid() == info.value.pid
    assert str(tmp_path / "jobs.db") == info.value.where
    Broker(store=store).close()


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    """What was there before is not touched, and can be opened by its own program."""
    path = tmp_path / "notes.txt"
    path.write_text("x" * 5000)
    for _ in "12":
        with pytest.raises(StoreForeign):
            Broker(store=SQLite(path))
    assert "x" * 5000 == path.read_text()


def test_it_shows_its_path(tmp_path: Path) -> None:
    """A store is shown by its path, as it was given."""
    assert "<SQLite 'jobs.db'>" == repr(SQLite("jobs.db"))
    assert str(tmp_path) == SQLite(tmp_path).path


def test_the_file_is_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that goes elsewhere still has the file where it was opened."""
    monkeypatch.chdir(tmp_path)
    with Broker(store=SQLite("jobs.db")) as broker:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        broker.topic("orders").put(b"1")
    assert ["elsewhere", "jobs.db"] == sorted(one.name for one in tmp_path.iterdir())
    assert [] == list((tmp_path / "elsewhere").iterdir())
