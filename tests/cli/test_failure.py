"""What a command prints and writes, and the line that ends it."""

import io
import sys
from pathlib import Path

import pytest

from nsqlite.cli.failure import CommandFailed, new_file, opened_stdout, say, why


def test_text_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """What is said stands on stdout, and its line is ended."""
    say("a\nb")
    assert ("a\nb\n", "") == capsys.readouterr()


def test_what_cannot_be_encoded_is_printed_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a text that stdout cannot encode nothing is lost, and nothing is there twice."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii", newline="\n"))
    say("one\ntw\u00f6")
    assert b"one\ntw\\xf6\n" == written.getvalue()


def test_a_closed_stdout_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program was started without stdout, whoever wants it gets an OSError."""
    assert sys.stdout is opened_stdout()
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="stdout is closed") as caught:
        say("a")
    assert "stdout is closed" == why(caught.value)


def test_what_the_system_said_is_told_in_words() -> None:
    """An OSError is told by its words, or by its text if it has none."""
    assert "No space left on device" == why(OSError(28, "No space left on device"))
    assert "odd" == why(OSError("odd"))


def test_a_new_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """What could not be written to its end is removed, and what is there already is left alone."""
    path = tmp_path / "new"
    with pytest.raises(CommandFailed) as caught, new_file(str(path), "utf-8") as file:
        file.write("a")
        raise OSError(28, "No space left on device")
    assert f"cannot write {path}: No space left on device" == str(caught.value)
    assert not path.exists()
    with new_file(str(path), "utf-8") as file:
        file.write("é")
    with pytest.raises(CommandFailed) as caught, new_file(str(path), "utf-8"):
        raise AssertionError
    assert f"{path} is there already: remove it, or name another one" == str(caught.value)
    with pytest.raises(CommandFailed, match=r"^no file name was given$"), new_file("", "utf-8"):
        raise AssertionError
    assert "é".encode() == path.read_bytes()
