"""What happened in a program, as its recording tells it."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from recordings import record

import nsqlite
from nsqlite.__main__ import main
from nsqlite.cli.timeline import PAGE
from nsqlite.timeline import Recording

TAIL = r"process \d+, nsqlite \S+, begun \S+ \S+ UTC; closed"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a recording of two runs."""
    path = tmp_path / "jobs.rec"
    record(path)
    return path


@pytest.fixture
def call(path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what calls the command, and returns its status, stdout and what it complains of."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["timeline", str(path), *arguments])
        except SystemExit as ending:
            status = int(ending.code or 0)
        out, err = capsys.readouterr()
        return status, out, err.replace(str(path), "FILE").removeprefix("python -m nsqlite ")

    return run


def test_the_last_minute_is_shown(call: Any) -> None:
    """Without options it is the last minute of the last run, in lanes."""
    status, out, err = call("--width", "200")
    first, second, *_ = out.splitlines()
    assert (0, "") == (status, err)
    assert re.fullmatch(f"run 2 of 2: {TAIL}", first), first
    assert second.endswith("steps from 2023-11-14 22:24:50 UTC; 5 earlier steps not shown."), out
    assert "jam" in out
    assert "tea" not in out


def test_more_is_shown(call: Any) -> None:
    """What is asked for: more seconds, since a moment, another run, one topic."""
    assert "tea" in call("--last", "100")[1]
    assert "tea" in call("--since", "2023-11-14T22:23:20")[1]
    assert "tea" in call("--since", "2023-11-14T23:23:20+01:00")[1]
    assert "tea" not in call("--since", "2023-11-14T22:24:00")[1]
    assert call("--run", "1")[1].startswith("run 1 of 2: ")
    assert "hello" in call()[1]
    assert "hello" not in call("--topic", "orders")[1]


def test_the_width(call: Any) -> None:
    """It is as wide as it is told to be, and else as the terminal is."""
    assert max(map(len, call("--width", "60")[1].splitlines())) <= 60
    assert max(map(len, call("--width", "40")[1].splitlines())) <= 40


@pytest.mark.parametrize("text", ["39", "0", "-50", "x", "10000", "1" * 5000, "4.5", ""])
def test_a_width_that_is_none(call: Any, text: str) -> None:
    """What is no width is a wrong call."""
    problem = f"argument --width: {text!r} is no number of columns from 40 to 9999; try --help"
    assert (2, "", f"timeline: {problem}\n") == call(f"--width={text}")


@pytest.mark.parametrize("text", ["-4", "nan", "x", "1e400", "inf", ""])
def test_a_time_that_is_none(call: Any, text: str) -> None:
    """What is no number of seconds is a wrong call."""
    problem = f"argument --last: {text!r} is no number of seconds, 0 or more; try --help"
    assert (2, "", f"timeline: {problem}\n") == call("--last", text)


@pytest.mark.parametrize("arguments", [["--run", "x"], ["--run", "1" * 5000]])
def test_a_number_that_is_none(call: Any, arguments: list[str]) -> None:
    """What is no number is a wrong call, told in one line."""
    status, out, err = call(*arguments)
    assert (2, "") == (status, out)
    assert re.fullmatch(r"timeline: argument --run: invalid int value: .*; try --help\n", err)


def test_what_was_not_closed(path: Path, call: Any) -> None:
    """Of a run that did not close its recording this is said."""
    with Recording(path) as recording:
        nsqlite.Topic("orders", observers=[recording])
        out = call()[1]
    assert "; not closed: it was killed, or is running" in " ".join(out.split())
    assert "orders" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--run", "3"], "recording FILE has no run 3: its runs are 1 to 2"),
        (["--run", "0"], "recording FILE has no run 0: its runs are 1 to 2"),
        (
            ["--topic", "order"],
            "nothing happened in topic 'order' in this run; its topics: mails, orders",
        ),
    ],
)
def test_what_there_is_not(call: Any, arguments: list[str], text: str) -> None:
    """A run or topic that there is not is told in one line."""
    assert (1, "", f"timeline: {text}\n") == call(*arguments)


def test_a_moment_that_is_none(call: Any) -> None:
    """What is no moment is a wrong call."""
    problem = "argument --since: 'x' is no moment, as 2026-11-28T08:05:00 is; try --help"
    assert (2, "", f"timeline: {problem}\n") == call("--since", "x")


def test_a_page_without_a_name(call: Any) -> None:
    """Where no file is named for a page, it is said so."""
    assert (1, "", "timeline: no file name was given\n") == call("--html", "")


def test_an_empty_recording(path: Path, call: Any) -> None:
    """One in which nothing was recorded has no run, or a run without topics."""
    path.unlink()
    Recording(path).close()
    assert "nothing was recorded.\n" in call()[1]
    text = "nothing happened in topic 'a' in this run; its topics: none"
    assert (1, "", f"timeline: {text}\n") == call("--topic", "a")
    path.write_text('{"nsqlite": "recording", "version": 1}', "utf-8")
    assert (1, "", "timeline: recording FILE: nothing was recorded\n") == call()
    text = "recording FILE has no run 1: there is none"
    assert (1, "", f"timeline: {text}\n") == call("--run", "1")


def test_very_many_topics(path: Path, call: Any) -> None:
    """Of very many topics an error names a few."""
    path.unlink()
    with Recording(path) as recording:
        for number in range(25):
            nsqlite.Topic(f"t{number:02}", observers=[recording])
    assert call("--topic", "a")[2].endswith("t18, t19, ...\n")


def test_a_file_that_is_none(path: Path, call: Any) -> None:
    """What is no recording is told in one line."""
    path.write_text("tea", "utf-8")
    assert (1, "", "timeline: recording FILE: it is no recording of nsqlite\n") == call()
    path.unlink()
    assert (1, "", "timeline: recording FILE: there is no such file\n") == call("--html", "x")


def test_a_page_that_cannot_be_written(path: Path, call: Any, tmp_path: Path) -> None:
    """A page replaces nothing, and needs a folder."""
    text = "FILE is there already: remove it, or name another one"
    assert (1, "", f"timeline: {text}\n") == call("--html", str(path))
    out = tmp_path / "a" / "b"
    text = f"cannot write {out}: {os.strerror(2)}"
    assert (1, "", f"timeline: {text}\n") == call("--html", str(out))


def test_a_page(call: Any, tmp_path: Path) -> None:
    """The same is written as a page."""
    out = tmp_path / "out.html"
    assert (0, f"open {out}\n", "") == call("--html", str(out))
    assert "jam" in out.read_text("utf-8")


def test_a_page_of_a_long_run_has_its_end(call: Any, path: Path, tmp_path: Path) -> None:
    """Of more steps than a browser can show it has the last ones, and says so."""
    with Recording(path) as recording:
        orders = nsqlite.Topic("orders", observers=[recording])
        orders.put_many([f"order {number}" for number in range(PAGE + 500)])
    out = tmp_path / "out.html"
    text = "it has the last 10,000 of 10,501 steps; --last and --topic ask for fewer"
    assert (0, f"open {out}: {text}\n", "") == call("--html", str(out))
    page = out.read_text("utf-8")
    assert "order 10499 is published" in page
    assert "order 499 is published" not in page
