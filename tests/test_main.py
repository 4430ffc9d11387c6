"""`python -m nsqlite`: the demonstration, its options, and bad arguments."""

import contextlib
import io
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

import nsqlite
from nsqlite.__main__ import main
from nsqlite.cli.demo import tell
from nsqlite.cli.signals import Ended

COMMAND = (sys.executable, "-W", "error", "-m", "nsqlite")
STORY = "\n".join(tell()) + "\n"
CLOSED = "python -m nsqlite: cannot write: stdout is closed\n"
FULL = "python -m nsqlite: cannot write: No space left on device\n"
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""What users have: what is written at the end can fail at the end."""

needs_full_disk = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="there is no full device"
)


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def called(
    how: str, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Call the command as a shell does with redirections like ``>&-``."""
    return subprocess.run(  # noqa: S603 - our own files
        ("/bin/sh", "-c", f'exec "$@" {how}', "sh", *COMMAND, *arguments),
        capture_output=True,
        check=False,
        encoding="utf-8",
        env={**BUFFERED, **environment},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file with a message in it."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").put(b"tea")
    return path


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
    assert all(
        f"\n    {name}" in out
        for name in (
            "run",
            "inspect",
            "export",
            "import",
            "backup",
            "guide",
            "wire",
            "http",
            "docs",
        )
    )
    assert re.search("--version +show the version", out)
    assert err == ""


@pytest.mark.parametrize("name", ["x", ""])
def test_an_unknown_command_gets_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no command gets one line that names it and those there are, and status 2."""
    with pytest.raises(SystemExit) as exit_:
        main([name])
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    commands = ["run", "nsqd", "inspect", "export", "import", "backup", "put", "peek", "find"]
    commands += ["discard", "redrive", "empty", "pause", "unpause", "delete", "tail", "timeline"]
    commands += ["story", "lesson", "guide", "semantics", "wire", "http", "docs"]
    start, _, rest = err.partition(" (choose from ")
    assert f"python -m nsqlite: argument COMMAND: invalid choice: {name!r}" == start
    assert f"{', '.join(commands)}); try --help\n" == rest.replace("'", "")


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


@pytest.mark.parametrize(
    ("called_as", "name"),
    [
        ("/usr/local/bin/nsqlite", "nsqlite"),
        ("nsqlite.exe", "nsqlite"),
        ("/lib/nsqlite/__main__.py", "python -m nsqlite"),
    ],
)
def test_its_name_is_how_it_was_called(
    called_as: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Help and errors name the command that was called, installed or with -m."""
    monkeypatch.setattr(sys, "argv", [called_as])
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: {name} [-h] [--version] COMMAND ...\n")
    with pytest.raises(SystemExit):
        main(["inspect", "nowhere"])
    assert capsys.readouterr().err == f"{name} inspect: store nowhere: there is no such file\n"


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_does_not_wait_for_a_reader(tmp_path: Path, number: signal.Signals) -> None:
    """An export that waits for a reader who is stuck ends by one signal, without a word."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").put_many([b"tea" * 100] * 10_000)
    with subprocess.Popen(  # noqa: S603 - our own files
        (*COMMAND, "export", str(path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'{"nsqlite": 1}\n'
        process.send_signal(number)
        assert process.wait(60) in (130, -number)
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_signal_ends_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that would kill the command ends it when what it began is taken back."""
    ended = []

    class Killed(io.StringIO):
        def write(self, _text: str) -> int:
            signal.raise_signal(signal.SIGTERM)
            return 0

    def end(self: Ended) -> NoReturn:
        ended.append(self.number)
        raise SystemExit(1)

    monkeypatch.setattr(Ended, "end", end)
    monkeypatch.setattr(sys, "stdout", Killed())
    with pytest.raises(SystemExit):
        main([])
    assert [signal.SIGTERM] == ended


def test_an_interrupt_without_stdout(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends it in the same way where it was started with a closed stdout."""

    def interrupt(*_arguments: object, **_options: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(Path, "open", interrupt)
    assert main(["export", str(path), "-o", str(path.with_name("out"))]) == 130


def test_the_core_knows_nothing_of_it() -> None:
    """Importing nsqlite does not import the command line."""
    code = "import sys, nsqlite; print(*(name for name in sys.modules if 'nsqlite.cli' in name))"
    result = subprocess.run(  # noqa: S603 - our own files
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60
    )
    assert result.stdout == "\n"


@needs_full_disk
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [((), ""), ((), "1"), (("--version",), ""), (("semantics", "-h"), "")],
)
def test_a_full_disk_is_one_line(arguments: tuple[str, ...], unbuffered: str) -> None:
    """What cannot be written is told in one line, with status 1, whoever writes it when."""
    done = called(">/dev/full", *arguments, PYTHONUNBUFFERED=unbuffered)
    assert (1, FULL) == (done.returncode, done.stderr)


@needs_full_disk
def test_a_status_does_not_depend_on_stderr() -> None:
    """The status is the same where stderr is full or closed."""
    for how in ("2>/dev/full", "2>&-"):
        assert (0, STORY) == ((done := called(how)).returncode, done.stdout)
        assert 2 == called(how, "bogus").returncode
        assert 1 == called(how, "inspect", "nowhere").returncode
    assert 1 == called(">/dev/full 2>&1").returncode


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--help",),
        ("--version",),
        ("inspect", "--help"),
        ("inspect", "FILE"),
        ("inspect", "FILE", "--json"),
        ("export", "FILE"),
        ("import", "NEW"),
        ("backup", "FILE", "NEW"),
        ("guide",),
        ("semantics",),
        ("wire",),
        ("http",),
        ("docs", "NEW"),
    ],
)
def test_a_closed_stdout_is_one_line(arguments: tuple[str, ...], path: Path) -> None:
    """With a closed stdout each command says so in one line, has status 1 and does nothing."""
    names = {"FILE": str(path), "NEW": str(path.with_name("new.db"))}
    done = called(">&-", *(names.get(word, word) for word in arguments))
    assert (1, CLOSED) == (done.returncode, done.stderr)
    assert [path] == list(path.parent.iterdir())


def test_a_closed_stdout_does_not_hide_what_is_wrong() -> None:
    """With a closed stdout what is wrong with a call is told as ever."""
    done = called(">&-", "bogus")
    assert 2 == done.returncode
    assert done.stderr.startswith("python -m nsqlite: argument COMMAND: invalid choice: 'bogus' ")
    done = called(">&-", "inspect", "nowhere")
    text = "python -m nsqlite inspect: store nowhere: there is no such file\n"
    assert (1, text) == (done.returncode, done.stderr)


@pytest.mark.parametrize("how", ["2>&-", "<&- 2>&-"])
def test_a_closed_stderr_is_no_error(how: str, path: Path) -> None:
    """With a closed stderr a command does what it does."""
    done = called(how, "export", str(path))
    assert 0 == done.returncode
    out = path.with_name("out")
    assert 0 == called(f"{how} >&-", "export", str(path), "-o", str(out), "--progress").returncode
    assert done.stdout == out.read_text("ascii")
    new = str(path.with_name("new.db"))
    done = called(how, "import", new, "-i", str(out))
    assert (0, "1 topics, 0 channels, 1 messages\n") == (done.returncode, done.stdout)


def test_a_closed_stdin_is_one_line(tmp_path: Path) -> None:
    """An import from a closed stdin says so, and makes no file."""
    done = called("<&-", "import", str(tmp_path / "new.db"))
    text = "python -m nsqlite import: cannot read stdin: it is closed\n"
    assert (1, text) == (done.returncode, done.stderr)
    assert [] == list(tmp_path.iterdir())


def test_a_bar_nobody_sees_is_no_error(path: Path) -> None:
    """Where stderr is a pipe that nobody reads, an export with --progress is whole."""
    writer = closed_pipe()
    try:
        result = subprocess.run(  # noqa: S603 - our own files
            (*COMMAND, "export", str(path), "--progress"),
            stdout=subprocess.PIPE,
            stderr=writer,
            check=False,
            env=BUFFERED,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert 0 == result.returncode
    assert result.stdout.endswith(b'{"kind": "end"}\n')


def test_what_stdout_cannot_encode_is_an_escape(path: Path) -> None:
    """A character that stdout's encoding lacks is printed as its escape."""
    strange = path.rename(path.with_name("t\u00e9.db"))
    done = called("", "inspect", str(strange), PYTHONIOENCODING="ascii")
    assert (0, "") == (done.returncode, done.stderr)
    assert "t\\xe9.db: " in done.stdout


def test_closed_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stdout and stderr it ends with status 1, without a word."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as ending:
        main([])
    assert 1 == ending.value.code


def test_what_is_no_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stdout that is no file and cannot be written ends the command with status 1."""

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit) as ending:
        main([])
    assert 1 == ending.value.code


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
