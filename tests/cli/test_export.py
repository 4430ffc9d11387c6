"""`export`: where it writes, and what becomes of it when it fails."""

import io
import json
import sys
from pathlib import Path

import pytest
from storefiles import change, fill, told_of

import nsqlite
from nsqlite.cli.export import export
from nsqlite.cli.failure import CommandFailed
from nsqlite.cli.lines import EndLine, HeaderLine, to_text


def test_it_writes_all_lines_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file to write to, the lines go to stdout and nothing to stderr."""
    path = tmp_path / "jobs.db"
    fill(path)
    export(str(path), None, wanted=None)
    lines = told_of(path)
    assert ("".join(f"{to_text(line)}\n" for line in lines), "") == capsys.readouterr()
    assert (HeaderLine(), EndLine()) == (lines[0], lines[-1])


def test_it_writes_them_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a file to write to they are there, and nothing is printed."""
    path, out = tmp_path / "jobs.db", tmp_path / "out.jsonl"
    fill(path)
    export(str(path), str(out), wanted=None)
    assert [to_text(line) for line in told_of(path)] == out.read_text("ascii").splitlines()
    assert ("", "") == capsys.readouterr()


def test_it_shows_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar counts the lines, those of more than one step too."""
    path, out = tmp_path / "jobs.db", tmp_path / "out.jsonl"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").put_many([b"tea"] * 1200)
    export(str(path), str(out), wanted=True)
    assert "1,203 lines" in capsys.readouterr().err


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    """What is there already is left alone, the store's file among it."""
    path = tmp_path / "jobs.db"
    fill(path)
    before = path.read_bytes()
    with pytest.raises(CommandFailed) as caught:
        export(str(path), str(path), wanted=None)
    assert f"{path} is there already: remove it, or name another one" == str(caught.value)
    assert before == path.read_bytes()


def test_what_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A directory that is not there is told in a line."""
    path, out = tmp_path / "jobs.db", tmp_path / "none" / "out.jsonl"
    fill(path)
    with pytest.raises(CommandFailed) as caught:
        export(str(path), str(out), wanted=None)
    assert f"cannot write {out}: No such file or directory" == str(caught.value)


def test_a_part_is_removed(tmp_path: Path) -> None:
    """Where the store fails in the middle, what was written is removed."""
    path, out = tmp_path / "jobs.db", tmp_path / "out.jsonl"
    fill(path)
    change(path, "ALTER TABLE copy RENAME COLUMN gone TO went")
    with pytest.raises(nsqlite.StoreError, match="no such column"):
        export(str(path), str(out), wanted=None)
    assert not out.exists()


def test_stdout_that_fails_is_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of stdout is not told as one of the file."""

    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    path = tmp_path / "jobs.db"
    fill(path)
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="No space left on device"):
        export(str(path), None, wanted=None)


def test_lines_are_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line is a JSON object by itself."""
    path = tmp_path / "jobs.db"
    fill(path)
    export(str(path), None, wanted=False)
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"nsqlite": 1} == objects[0]
    assert ["topic", "channel", "message", "end"] == list(
        dict.fromkeys(one["kind"] for one in objects[1:] if one.get("topic") in (None, "orders"))
    )
