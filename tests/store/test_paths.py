"""Where a store's file lies, and what is wrong there: done for real where that can be."""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nsqlite import Broker, InvalidOption, NSQLiteError, SQLite, StoreError, StoreFull
from nsqlite.store.paths import (
    DESCRIPTORS,
    LONGEST,
    checked_path,
    full_path,
    require_descriptors,
    told,
)
from store.processes import bound_by_permissions, descriptors, few_descriptors


def refused(path: str | Path) -> str:
    """Return why a broker cannot have a file; it leaves no descriptor open."""
    store = SQLite(path)
    before = descriptors()
    with pytest.raises(NSQLiteError) as info:
        Broker(store=store)
    assert before == descriptors()
    assert StoreError is type(info.value)
    return info.value.problem


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


@pytest.fixture
def shared() -> Iterator[Path]:
    """Make a directory that any user can reach."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


# What is no path


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", b"jobs.db", 5, None])
def test_what_is_no_path_of_a_file(path: Any) -> None:
    """What cannot be a file is refused before anything is opened."""
    with pytest.raises(InvalidOption, match="path must be the path of a file, as text or a Path"):
        checked_path(path)


def test_a_path_is_taken_as_it_is() -> None:
    """A path is text, or what can be one."""
    assert "jobs.db" == checked_path("jobs.db")
    assert str(Path("a/jobs.db")) == checked_path(Path("a/jobs.db"))


@pytest.mark.skipif(os.name == "nt", reason="Windows names files in UTF-16")
def test_characters_that_no_file_has() -> None:
    """A lone surrogate that stands for no byte is refused with the path."""
    with pytest.raises(InvalidOption) as info:
        SQLite("a\ud800.db")
    expected = "the path of a file, in characters that a file's name can have"
    assert str(InvalidOption("path", "a\ud800.db", expected)) == str(info.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows names files in UTF-16")
def test_bytes_that_are_no_characters(tmp_path: Path) -> None:
    """A name with a byte that is no UTF-8, for which a surrogate stands, is a file's."""
    path = tmp_path / "a\udc80.db"
    try:
        path.touch()
    except OSError:  # pragma: no cover - macOS has no such names
        pytest.skip("there are no such names")
    for _ in "12":
        with Broker(store=SQLite(path)) as broker:
            broker.topic("orders").put(b"1")
    assert [b"a\x80.db"] == os.listdir(os.fsencode(tmp_path))  # noqa: PTH208 - in bytes


# Where there can be no file


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that begins in a directory which was removed leads nowhere; a whole one does."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    reason = os.strerror(errno.ENOENT)
    assert f"the working directory is gone ({reason}): give the whole path" == refused("jobs.db")
    Broker(store=SQLite(tmp_path / "jobs.db")).close()
    assert ["jobs.db"] == names(tmp_path)


def long_path(directory: Path, size: int) -> Path:
    """Make directories for a path of so many bytes."""
    while size - len(os.fsencode(directory)) > 202:
        directory /= "d" * 100
    directory.mkdir(parents=True, exist_ok=True)
    return directory / ("f" * (size - len(os.fsencode(directory)) - 1))


@pytest.mark.skipif(os.name == "nt", reason="Windows has another limit")
def test_a_path_that_is_too_long_for_sqlite(tmp_path: Path) -> None:
    """A path of as many bytes as SQLite takes is one, a longer one is refused with the limit."""
    tmp_path = tmp_path.resolve()
    Broker(store=SQLite(long_path(tmp_path, LONGEST))).close()
    path = long_path(tmp_path, LONGEST + 1)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite3.connect(path)
    expected = f"its path has {LONGEST + 1} bytes, and SQLite takes {LONGEST}"
    assert f"{expected}: put it nearer to the root" == refused(path)
    assert ["f" * (len(path.name) - 1)] == names(path.parent)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    """A name that has no room for an ending is refused, and nothing is made."""
    problem = refused(tmp_path / ("x" * 254))
    reason = "the name is too long, with what is appended to it: shorten it"
    assert f"cannot write beside it: {reason}" == problem
    assert [] == names(tmp_path)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    """A directory is refused, and nothing is left in it or beside it."""
    (tmp_path / "jobs.db").mkdir()
    expected = "it is no file, but a directory, pipe or device: give another path"
    assert expected == refused(tmp_path / "jobs.db")
    assert ["jobs.db"] == names(tmp_path)
    assert [] == names(tmp_path / "jobs.db")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """A pipe is refused and not opened, which would wait for its other end."""
    os.mkfifo(tmp_path / "jobs.db")
    expected = "it is no file, but a directory, pipe or device: give another path"
    assert expected == refused(tmp_path / "jobs.db")
    assert ["jobs.db"] == names(tmp_path)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """No directory is made."""
    expected = "cannot write beside it: its directory is not there: make that"
    assert f"{expected} first" == refused(tmp_path / "none" / "jobs.db")
    assert [] == names(tmp_path)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    """A file has no files in it."""
    (tmp_path / "file").write_text("x")
    expected = "cannot write beside it: what should be its directory is a file"
    assert expected == refused(tmp_path / "file" / "jobs.db")
    assert ["file"] == names(tmp_path)


def test_links_that_lead_round(tmp_path: Path) -> None:
    """A link that leads to itself is no file."""
    (tmp_path / "jobs.db").symlink_to(tmp_path / "jobs.db")
    problem = refused(tmp_path / "jobs.db")
    assert "it cannot be opened: its links lead round in a circle" == problem
    assert ["jobs.db"] == names(tmp_path)


# What the system does not permit


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has other permissions")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_directory_without_permission(shared: Path, mode: int) -> None:
    """A directory that may not be written, or not be entered, is told as that."""
    shared.chmod(mode)
    with bound_by_permissions():
        problem = refused(shared / "jobs.db")
    shared.chmod(0o755)
    reason = "permission denied: this user must be able to write it, and its directory"
    assert f"cannot write beside it: {reason}" == problem
    assert [] == names(shared)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has other permissions")
def test_a_file_without_permission(shared: Path) -> None:
    """A file that may not be written is told as that, and its lock does not stay beside it."""
    (shared / "jobs.db").touch(0o444)
    shared.chmod(0o777)
    with bound_by_permissions():
        problem = refused(shared / "jobs.db")
    reason = "permission denied: this user must be able to write it, and its directory"
    assert f"it cannot be opened: {reason}" == problem
    assert ["jobs.db"] == names(shared)


# Descriptors


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit to set")
@pytest.mark.parametrize("spare", [0, 1, 2, 5, DESCRIPTORS - 1])
def test_a_process_that_may_open_no_more_files(tmp_path: Path, spare: int) -> None:
    """Where a store's files cannot all be opened that is said, and none is made."""
    store = SQLite(tmp_path / "jobs.db")
    with few_descriptors(spare), pytest.raises(StoreError) as info:
        Broker(store=store)
    reason = "this process has too many open files: close some, or raise `ulimit -n`"
    assert f"it cannot be opened: {reason}" == info.value.problem
    assert [] == names(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit to set")
def test_the_descriptors_that_are_required_do(tmp_path: Path) -> None:
    """With as many descriptors as are required a store is opened, written, read and closed."""
    store = SQLite(tmp_path / "jobs.db")
    Broker(store=store).close()  # with all that is loaded late
    before = descriptors()
    with few_descriptors(DESCRIPTORS), Broker(store=store) as broker:
        broker.topic("orders").put(b"1")
        broker.flush()
    assert before == descriptors()


def test_descriptors_are_given_back() -> None:
    """What is opened to see whether it can be is closed."""
    before = descriptors()
    require_descriptors("jobs.db")
    assert before == descriptors()


# Words


def test_a_full_path_is_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is completed, and links are followed."""
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("jobs.db")
    assert os.path.realpath(tmp_path / "jobs.db") == full_path("link")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_what_has_no_room_is_full(number: int) -> None:
    """A disk or quota that is used up is told as one that is full."""
    error = told("jobs.db", "it cannot be opened", OSError(number, "x"))
    assert StoreFull is type(error)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), OSError("I/O error")])
def test_what_has_no_words_of_ours(error: OSError) -> None:
    """What is not foreseen is told in the system's words."""
    expected = "store jobs.db: it cannot be opened: I/O error"
    assert expected == str(told("jobs.db", "it cannot be opened", error))
