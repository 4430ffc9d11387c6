"""`python -m nsqlite`: the demonstration, its options, and bad arguments."""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import nsqlite
from nsqlite.__main__ import main
from nsqlite.cli.demo import tell

COMMAND = (sys.executable, "-W", "error", "-m", "nsqlite")
STORY = "\n".join(tell()) + "\n"


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_without_arguments_it_tells_the_story(capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments it prints the demonstration."""
    assert main([]) == 0
    assert capsys.readouterr() == (STORY, "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """With --version it prints the version and no more."""
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"nsqlite {nsqlite.__version__}\n", "")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With --help it prints how it is called and what its options do."""
    assert main([option]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: python -m nsqlite [-h] [--version] COMMAND ...\n")
    assert all(f"\n    {name} " in out for name in ("inspect", "export", "import"))
    assert "--version   show the version" in out
    assert err == ""


@pytest.mark.parametrize("name", ["x", ""])
def test_an_unknown_command_gets_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no command gets one line that names it and those there are, and status 2."""
    with pytest.raises(SystemExit) as exit_:
        main([name])
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    pattern = (
        f"python -m nsqlite: argument COMMAND: invalid choice: {name!r} \\(choose from"
        " '?inspect'?, '?export'?, '?import'?\\); try --help\n"
    )
    assert re.fullmatch(pattern, err)


@pytest.mark.parametrize("arguments", [["--bogus"], ["--vers"], ["-x", "-y"]])
def test_bad_arguments_get_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad arguments get one line that names them, and status 2."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    text = f"python -m nsqlite: unrecognized arguments: {' '.join(arguments)}; try --help\n"
    assert capsys.readouterr() == ("", text)


def test_a_reader_may_leave(capsys: pytest.CaptureFixture[str]) -> None:
    """When nobody reads the output any more it ends without a word."""
    with open(closed_pipe(), "w", encoding="utf-8") as out, contextlib.redirect_stdout(out):
        assert main([]) == 0
    assert capsys.readouterr() == ("", "")


def test_it_runs_as_a_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run as a script it takes the command line and exits with the status."""
    monkeypatch.setattr(sys, "argv", ["nsqlite", "--version"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(Path(nsqlite.__file__).with_name("__main__.py")), run_name="__main__")
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"nsqlite {nsqlite.__version__}\n"


def test_it_runs_as_a_module() -> None:
    """`python -m nsqlite` tells the same story in a process of its own."""
    result = subprocess.run(  # noqa: S603 - our own files
        COMMAND, capture_output=True, check=False, text=True, timeout=60
    )
    assert (result.stdout, result.stderr, result.returncode) == (STORY, "", 0)


@pytest.mark.parametrize("option", [(), ("--help",), ("--version",), ("inspect", "--help")])
def test_a_closed_pipe_is_no_error(option: tuple[str, ...]) -> None:
    """`python -m nsqlite | head -0` leaves no traceback, not even as the interpreter ends."""
    writer = closed_pipe()
    try:
        result = subprocess.run(  # noqa: S603 - our own files
            (*COMMAND, *option), stdout=writer, stderr=subprocess.PIPE, check=False, timeout=60
        )
    finally:
        os.close(writer)
    assert (result.stderr, result.returncode) == (b"", 0)


def test_an_export_nobody_reads_is_no_error(tmp_path: Path) -> None:
    """`python -m nsqlite export FILE | head -1` leaves no traceback, with short and long output."""
    path = tmp_path / "jobs.db"
    for count in (1, 1000):
        with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
            broker.topic("orders").put_many([b"tea"] * count)
        writer = closed_pipe()
        try:
            result = subprocess.run(  # noqa: S603 - our own files
                (*COMMAND, "export", str(path)),
                stdout=writer,
                stderr=subprocess.PIPE,
                check=False,
                timeout=60,
            )
        finally:
            os.close(writer)
        assert (result.stderr, result.returncode) == (b"", 0)


def test_an_interrupt_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends the command with the status that shells give it, and without a word."""

    class Interrupted(io.StringIO):
        def write(self, _text: str) -> int:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", Interrupted())
    assert main([]) == 130
    assert capsys.readouterr().err == ""


def test_the_core_knows_nothing_of_it() -> None:
    """Importing nsqlite does not import the command line."""
    code = "import sys, nsqlite; print(*(name for name in sys.modules if 'nsqlite.cli' in name))"
    result = subprocess.run(  # noqa: S603 - our own files
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60
    )
    assert result.stdout == "\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_disk_is_one_line() -> None:
    """What cannot be written is told in one line, with status 1."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nsqlite"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (1, "python -m nsqlite: cannot write: No space left on device\n") == (
        done.returncode,
        done.stderr,
    )


def test_what_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An output that fails ends the command with status 1 and one line."""

    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit) as ending:
        main([])
    assert 1 == ending.value.code
    assert "python -m nsqlite: cannot write: No space left on device\n" == capsys.readouterr().err
