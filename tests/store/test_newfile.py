"""A file that is there whole or not at all."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nsqlite import StoreError, StoreFull, StoreInUse
from nsqlite.store import newfile
from nsqlite.store.newfile import BESIDE, appearing, partial
from nsqlite.store.owner import Owner


def make(name: str) -> None:
    """Make a SQLite file whose log is not in it."""
    with closing(sqlite3.connect(name, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    """Nothing has the name before the end of the block; then the file has it, and is alone."""
    path = tmp_path / "jobs.db"
    with appearing(str(path)) as name:
        make(name)
        assert ["jobs.db-partial"] == names(tmp_path)
    assert ["jobs.db"] == names(tmp_path)
    assert b"\1\1" == path.read_bytes()[18:20]  # it says that it needs no log
    with closing(sqlite3.connect(path)) as connection:
        assert [("t",)] == connection.execute("SELECT name FROM sqlite_master").fetchall()


def test_what_raises_leaves_nothing(tmp_path: Path) -> None:
    """Where the block raises, no file is left, nor anything beside it."""
    with pytest.raises(KeyboardInterrupt), appearing(str(tmp_path / "jobs.db")) as name:
        make(name)
        for ending in BESIDE:
            Path(f"{name}{ending}").touch()
        raise KeyboardInterrupt
    assert [] == names(tmp_path)


@pytest.mark.parametrize("ending", ["", *BESIDE])
def test_nothing_is_replaced(tmp_path: Path, ending: str) -> None:
    """What has the name already, or lies where SQLite looks for a log, is left alone and told."""
    path = str(tmp_path / "jobs.db")
    there = Path(f"{path}{ending}")
    there.write_bytes(b"mine")
    with pytest.raises(StoreError) as caught, appearing(path):
        pytest.fail("the block is entered")
    text = f"store {path}: {there} is there already: remove it, or name another file"
    assert text == str(caught.value)
    there.unlink()
    with pytest.raises(StoreError) as caught, appearing(path) as name:
        make(name)
        there.write_bytes(b"mine")
    assert text == str(caught.value)
    assert [(there.name, b"mine")] == [(one.name, one.read_bytes()) for one in tmp_path.iterdir()]


def test_a_symlink_that_leads_nowhere_is_something(tmp_path: Path) -> None:
    """A name that a symlink has is taken."""
    path = tmp_path / "jobs.db"
    path.symlink_to("nowhere")
    with pytest.raises(StoreError, match="is there already"), appearing(str(path)):
        pytest.fail("the block is entered")


def test_who_comes_first_in_the_last_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gets the name after the last look is not replaced either."""
    path = tmp_path / "jobs.db"
    link = Path.hardlink_to

    def late(self: Path, target: str) -> None:
        self.write_bytes(b"mine")
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", late)
    with pytest.raises(StoreError) as caught, appearing(str(path)) as name:
        make(name)
    assert f"store {path}: it cannot be made: File exists" == str(caught.value)
    assert ["jobs.db"] == names(tmp_path)
    assert b"mine" == path.read_bytes()


def test_a_directory_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file cannot have two names, it is renamed."""

    def refuse(_self: Path, _target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with appearing(str(tmp_path / "jobs.db")) as name:
        make(name)
    assert ["jobs.db"] == names(tmp_path)


def test_what_a_kill_has_left_is_removed(tmp_path: Path) -> None:
    """What a killed process has left of the same file is in nobody's way."""
    path = str(tmp_path / "jobs.db")
    for ending in ("", *BESIDE, "-owner"):
        Path(f"{path}-partial{ending}").write_bytes(b"left")
    with appearing(path) as name:
        make(name)
    assert ["jobs.db"] == names(tmp_path)


def test_what_somebody_makes_is_left_to_him(tmp_path: Path) -> None:
    """Who has the same file in the making is told, and undisturbed."""
    path = str(tmp_path / "jobs.db")
    owner = Owner(f"{path}-partial")
    Path(f"{path}-partial").write_bytes(b"half")
    with pytest.raises(StoreInUse) as caught, partial(path):
        pytest.fail("the block is entered")
    assert path == caught.value.where
    owner.release()
    assert ["jobs.db-partial"] == names(tmp_path)


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    """Where what is left cannot be removed, that is told of the file."""
    path = str(tmp_path / "jobs.db")
    Path(f"{path}-partial").mkdir()
    with pytest.raises(StoreError) as caught, partial(path):
        pytest.fail("the block is entered")
    assert f"{path}: it is no file" in str(caught.value)


def test_an_error_names_the_file_that_is_meant(tmp_path: Path) -> None:
    """An error of the partial file is told of the one it is to become, any other as it is."""
    path = str(tmp_path / "jobs.db")
    with pytest.raises(StoreFull) as caught, partial(path) as name:
        raise StoreFull(name, "the disk is full")
    assert f"store {path}: the disk is full" == str(caught.value)
    with pytest.raises(StoreFull) as caught, partial(path):
        raise StoreFull("another", "the disk is full")
    assert "store another: the disk is full" == str(caught.value)


def test_what_was_not_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that does not come onto the disk is told, and not there."""

    def refuse(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    path = str(tmp_path / "jobs.db")
    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(StoreError) as caught, appearing(path) as name:
        make(name)
    assert f"store {path}: it cannot be written: Input/output error" == str(caught.value)
    assert [] == names(tmp_path)


def test_who_has_it_open_still_is_told(tmp_path: Path) -> None:
    """A file that somebody has open at the end does not appear: its log could be left behind."""
    path = str(tmp_path / "jobs.db")
    with pytest.raises(StoreError, match="another program has locked it"), appearing(path) as name:
        make(name)
        reader = sqlite3.connect(name, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
    reader.close()
    assert [] == names(tmp_path)


def test_what_the_system_does_not_remove_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what a kill has left cannot be removed, the system's reason is told."""
    path = str(tmp_path / "jobs.db")
    Path(f"{path}-partial").write_text("left")

    def refuse(_name: str) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(newfile, "_remove", refuse)
    with pytest.raises(StoreError) as caught, partial(path):
        pytest.fail("the block is entered")
    assert "cannot remove what a kill has left: Operation not permitted" in str(caught.value)
