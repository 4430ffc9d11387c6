"""Lessons, played: what is shown, what keys do, and what is left behind."""

import contextlib
import io
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import tty
from pathlib import Path
from typing import Any

import pytest

import nsqlite
from nsqlite.__main__ import main
from nsqlite.cli.failure import CommandFailed
from nsqlite.cli.lesson import Lesson, find_lesson, lessons
from nsqlite.cli.player import PROMPTS, Player, player, show_exercises, timeline_of, write_page
from nsqlite.origin import watchers

SMALL = '''\
"""Small: a lesson.

Watch it.

It prints:

    ready 1
"""

import nsqlite
from nsqlite.testing import FakeBroker

broker = FakeBroker(msg_timeout=10)
orders = broker.topic("orders")
billing = orders.channel("billing")

# An order is published.  Where is it?
orders.put("order 1")
print("ready", billing.depth)

# Time goes on.
broker.clock.advance(5)

# Nothing is left.
billing.empty()
'''

PLAYED = """
Lesson 7, small --------------------------------------------------------------

Small: a lesson.

Watch it.

Step 1 of 4 ------------------------------------------------------------------

First, what the lesson needs.

    import nsqlite
    from nsqlite.testing import FakeBroker

    broker = FakeBroker(msg_timeout=10)
    orders = broker.topic("orders")
    billing = orders.channel("billing")

                                before                 after
  orders:billing      ready                            -

Step 2 of 4 ------------------------------------------------------------------

An order is published.

    orders.put("order 1")
    print("ready", billing.depth)

Where is it?

  It prints:

    ready 1

                                before                 after
  orders:billing      ready     -                      order 1

Step 3 of 4 ------------------------------------------------------------------

Time goes on.

    broker.clock.advance(5)

                                before                 after
  orders:billing      ready     order 1                order 1

Step 4 of 4, after 5 s -------------------------------------------------------

Nothing is left.

    billing.empty()

                                before                 after
  orders:billing      ready     order 1                -

The end of lesson 7 ----------------------------------------------------------

This lesson has no exercises.

This lesson, without a word left out, is the file
PATH
"""


def written(directory: Path, source: str = SMALL) -> Lesson:
    path = directory / "07_small.py"
    path.write_text(source, "utf-8")
    return Lesson(path)


def played(
    lesson: Lesson, keys: str | None = None, *, styled: bool = False, columns: int = 80
) -> str:
    """Return what is shown; the keys are typed one after the other, then the input ends."""
    lines: list[str] = []
    typed = iter(keys or "")
    read = None if keys is None else lambda: next(typed, "")
    Player(out=lines.append, read=read, styled=styled, columns=columns).play(lesson)
    return "\n".join([*lines, ""]).replace(str(lesson.path), "PATH")


def test_a_lesson_is_played_from_beginning_to_end(tmp_path: Path) -> None:
    """It shows what will happen, the code, what that prints, and the state before and after."""
    assert PLAYED == played(written(tmp_path))


def test_a_solution_is_played(capsys: pytest.CaptureFixture[str]) -> None:
    """`--solution` shows the answer, the code and what it prints."""
    assert 0 == main(["lesson", "order", "--solution", "2"])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "They are delivered in order, and done in another one: as soon as two work," == lines[1]
    assert "    done: 2, 1" in lines
    where = find_lesson("order").solution(2).path
    assert ["", "This solution is the file", str(where)] == lines[-3:]
    assert "" == err


@pytest.mark.parametrize("lesson", lessons(), ids=lambda lesson: lesson.name)
def test_every_lesson_is_played(lesson: Lesson, capfd: pytest.CaptureFixture[str]) -> None:
    """Every step of a lesson is shown, and what it prints in all is what its docstring shows."""
    text = played(lesson)
    for step in lesson.steps:
        assert textwrap.indent(step.code, "    ", lambda line: line != "\n") in text
    assert [] == [line for line in text.splitlines() if len(line) > 80]
    printed = re.findall(r"\n  It prints:\n\n((?:    .*\n)*)", text)
    promised = (lesson._docstring.partition("It prints:\n\n")[2]).partition("\n\n")[0]
    expected, actual = promised.rstrip().split("\n"), "".join(printed).rstrip().split("\n")
    assert expected == actual
    assert ("", "") == capfd.readouterr()


SOLUTIONS = [
    lesson.solution(number + 1) for lesson in lessons() for number in range(len(lesson.exercises))
]


@pytest.mark.parametrize("solution", SOLUTIONS, ids=lambda solution: solution.path.stem)
def test_every_solution_fits_a_terminal(solution: Lesson) -> None:
    """No line of a solution's code is wider than a terminal of 80 columns, once it is indented."""
    assert [] == [step.code for step in solution.steps if max(map(len, step.code.split("\n"))) > 76]


@pytest.mark.parametrize("name", ["ephemeral", "competing-consumers", "real-client"])
def test_a_narrow_terminal(name: str) -> None:
    """In a narrow terminal the texts and the table are as wide as that; in a wide one as 80."""
    lesson = find_lesson(name)
    code = {f"    {line}" for step in lesson.steps for line in step.code.splitlines()}
    code.add(f"To see a solution: python -m nsqlite lesson {name} --solution 1")
    lines = played(lesson, columns=60).splitlines()
    assert [] == [line for line in lines if len(line) > 60 and line not in code]
    assert played(lesson) == played(lesson, columns=200)


def test_sentences_stand_apart(tmp_path: Path) -> None:
    """Two spaces divide sentences, also where the file has a line end between them."""
    source = SMALL.replace("Watch it.", "Watch it.\nIt is small.")
    assert "\nWatch it.  It is small.\n" in played(written(tmp_path, source))


def test_keys(tmp_path: Path) -> None:
    """A key goes on, `a` goes on to the end, `q` and the end of the input leave."""
    lesson = written(tmp_path)
    assert PLAYED == played(lesson, "    ")
    assert PLAYED == played(lesson, " a")
    for keys in (" q", " ", " \x1b"):
        assert PLAYED.partition("\n  It prints")[0] == played(lesson, keys).rstrip("\n") + "\n"


def test_what_a_lesson_has_open_is_closed() -> None:
    """Who leaves in the middle leaves no thread, no process and no file behind."""
    level = logging.getLogger("nsqlite").level
    before = threading.active_count()
    for lesson in lessons():
        for count in range(len(lesson.steps)):
            if lesson.name in {"real-client", "crash-and-recovery", "threads", "back-pressure"}:
                played(lesson, " " * count)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(10)
    assert before >= threading.active_count()
    assert level == logging.getLogger("nsqlite").level


def test_colours(tmp_path: Path) -> None:
    """With colours it shows the same text, and what has changed in bold."""
    text = played(written(tmp_path), styled=True)
    assert PLAYED == re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b[1m  orders:billing      ready     -                      order 1\x1b[0m" in text
    assert "\x1b[1;36mWhere is it?\x1b[0m" in text


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name it lists the lessons, each in a line."""
    assert 0 == main(["lesson"])
    out, err = capsys.readouterr()
    assert "\n  2  fan-out                 every channel gets every message.\n" in out
    assert len(lessons()) + 4 == len(out.splitlines())
    assert "" == err


@pytest.mark.parametrize(
    "options", [["--auto"], ["--html", "x.html"], ["--exercises"], ["--solution", "0"]]
)
def test_an_option_needs_a_lesson(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An option without a lesson does not list the lessons: it gets one line, and status 2."""
    with pytest.raises(SystemExit) as ending:
        main(["lesson", *options])
    text = f"python -m nsqlite lesson: {options[0]} is for one lesson: name it\n"
    assert (2, ("", text)) == (ending.value.code, capsys.readouterr())


def test_exercises(capsys: pytest.CaptureFixture[str]) -> None:
    """`--exercises` shows them, and how to see a solution."""
    assert 0 == main(["lesson", "fan-out", "--exercises"])
    lines = capsys.readouterr().out.splitlines()
    assert "Try it, in a copy of the file:" == lines[1]
    assert "To see a solution: python -m nsqlite lesson fan-out --solution 1" == lines[-4]
    where = str(find_lesson("fan-out").path)
    assert ["", "This lesson, without a word left out, is the file", where] == lines[-3:]
    assert Path(where).is_absolute()
    found: list[str] = []
    lesson = find_lesson("threads")
    show_exercises(lesson, found.append)
    where = f"\nThis lesson, without a word left out, is the file\n{lesson.path}"
    assert ["\nThis lesson has no exercises.", where] == found


def test_auto(capsys: pytest.CaptureFixture[str]) -> None:
    """`--auto`, and an input that is no terminal, wait for no key."""
    assert 0 == main(["lesson", "fan-out", "--auto"])
    first = capsys.readouterr()
    assert 0 == main(["lesson", "2"])
    assert first == capsys.readouterr()
    assert "billing gets order 1, order 2, order 3" in first.out
    assert "\x1b" not in first.out


def test_an_unknown_lesson_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown name gets one line with the nearest, and status 2."""
    with pytest.raises(SystemExit) as ending:
        main(["lesson", "fanout"])
    text = "python -m nsqlite lesson: there is no lesson 'fanout' (did you mean 'fan-out'?)\n"
    assert (2, ("", text)) == (ending.value.code, capsys.readouterr())


class Terminal(io.StringIO):
    """A stdout that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal it asks for keys; the prompt is overwritten once one has come."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    master, slave = pty.openpty()
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    with os.fdopen(slave, encoding="utf-8") as stdin:
        shown = player(stdin)
        tty.setcbreak(stdin.fileno())
        os.write(master, b"q")
        shown.play(written(tmp_path))
        assert player(stdin, auto=True).read is None
        assert (58, 58) == (shown.width, player(stdin, auto=True).width)
        monkeypatch.setenv("NO_COLOR", "1")
        assert (True, False) == (shown.styled, player(stdin).styled)
    os.close(master)
    prompt = PROMPTS[0]
    assert out.getvalue().endswith(f"\n{prompt}\r{' ' * len(prompt)}\r")
    assert player(None).read is None


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        (46, "[any key: go on   a: all the rest   q: leave]"),
        (45, "[any key: go on  a: all  q: leave]"),
        (35, "[any key: go on  a: all  q: leave]"),
        (34, "[q: leave]"),
        (10, ""),
    ],
)
def test_the_prompt_fits_into_a_line(
    columns: int, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt takes one line also in a narrow terminal, so that it can be overwritten."""
    monkeypatch.setenv("COLUMNS", str(columns))
    master, slave = pty.openpty()
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    with os.fdopen(slave, encoding="utf-8") as stdin:
        read = player(stdin).read
        assert read
        tty.setcbreak(stdin.fileno())
        os.write(master, b"x")
        assert "x" == read()
    os.close(master)
    assert f"\n{prompt}\r{' ' * len(prompt)}\r" == out.getvalue()


def shown_until(master: int, end: bytes) -> bytes:
    """Return what a terminal shows, up to an end."""
    shown = b""
    while not shown.endswith(end):
        shown += os.read(master, 1)
    return shown


def test_a_stopped_lesson_goes_on() -> None:
    """After control-Z and fg the prompt is shown again, and a key counts without Enter."""
    command = [sys.executable, "-m", "nsqlite", "lesson", "fan-out"]
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)  # noqa: S603
        stack.enter_context(process)
        stack.callback(process.kill)
        shown_until(master, b"q: leave]")
        while termios.tcgetattr(slave)[3] & termios.ICANON:
            pass  # until it reads
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        termios.tcsetattr(slave, termios.TCSADRAIN, before)  # as a shell has it
        process.send_signal(signal.SIGCONT)
        assert b"\r[any key: go on" == shown_until(master, b"go on")
        shown_until(master, b"q: leave]")
        os.write(master, b"q")
        assert 0 == process.wait(10)
    os.close(slave)
    os.close(master)


def test_the_timeline_of_a_lesson(tmp_path: Path) -> None:
    """A lesson's timeline has what happened, and its texts as notes where they belong."""
    source = SMALL.replace("Watch it.", "Watch it.\n\nIt is small:\nnothing is left.")
    timeline = timeline_of(written(tmp_path, source))
    kinds = [str(step.kind) for step in timeline.steps]
    assert ["created", "created", "published", "emptied"] == kinds
    assert [
        (0, "Watch it.\n\nIt is small: nothing is left."),
        (2, "An order is published.  Where is it?"),
        (3, "It prints: ready 1"),
        (3, "Time goes on."),
        (3, "Nothing is left."),
    ] == [(note.after, note.text) for note in timeline.notes]


@pytest.mark.parametrize("name", ["fan-out", "at-least-once-fixed"])
def test_a_page(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--html` writes a page with the title and all that is said, and tells where it is."""
    path = tmp_path / "page.html"
    assert 0 == main(["lesson", name, "--html", str(path)])
    assert (f"open {path}\n", "") == capsys.readouterr()
    page = path.read_text("utf-8")
    lesson = find_lesson(name)
    assert lesson.title in page
    for step in lesson.steps:
        assert step.question in page
    assert "order 1" in page


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    """A page that cannot be written, or is there already, is told of in one line."""
    with pytest.raises(CommandFailed) as failure:
        write_page(written(tmp_path), str(tmp_path / "missing" / "page.html"))
    text = f"cannot write {tmp_path / 'missing' / 'page.html'}: No such file or directory"
    assert text == str(failure.value)
    lesson = written(tmp_path)
    with pytest.raises(CommandFailed) as failure:
        write_page(lesson, str(lesson.path))
    text = f"{lesson.path} is there already: remove it, or name another one"
    assert (text, SMALL) == (str(failure.value), lesson.source)


def test_a_plain_broker_is_heard_from_its_beginning(tmp_path: Path) -> None:
    """Of a broker that records nothing itself it shows all, also of the step that makes it."""
    source = SMALL.replace("FakeBroker(msg_timeout=10)", "nsqlite.Broker()")
    timeline = timeline_of(written(tmp_path, source.replace("broker.clock.advance(5)", "pass")))
    kinds = [str(step.kind) for step in timeline.steps]
    assert ["created", "created", "published", "emptied"] == kinds


def test_the_timeline_of_the_crash_has_what_comes_again() -> None:
    """What is read back in one step is there, order 2 as its second attempt."""
    timeline = timeline_of(find_lesson("crash-and-recovery"))
    texts = [step.text for step in timeline.steps]
    assert "order 2 is delivered to billing, attempt 2" in texts
    assert 10 <= sum(step.kind == "delivered" for step in timeline.steps)
    assert 1 == sum(step.event.attempts == 2 for step in timeline.steps)


def test_the_timeline_of_the_real_client_has_its_time_out() -> None:
    """What happens in the broker of an nsqd is heard of, which a thread makes."""
    kinds = [step.kind for step in timeline_of(find_lesson("real-client")).steps]
    assert ["delivered", "timed out", "delivered", "finished"] == kinds[3:7]


def test_what_is_printed_keeps_its_lines(tmp_path: Path) -> None:
    """Several lines that a step prints stand below each other in the timeline."""
    source = SMALL.replace('print("ready", billing.depth)', "print(1)\nprint(2)")
    notes = [note.text for note in timeline_of(written(tmp_path, source)).notes]
    assert "It prints:\n1\n2" in notes


def test_nobody_hears_of_what_is_made_after_a_lesson() -> None:
    """A lesson that is over, or was left, leaves nobody who watches."""
    before = watchers.copy()
    played(find_lesson("fan-out"), " q")
    assert before == watchers


def test_an_error_goes_on(tmp_path: Path) -> None:
    """What a lesson raises is raised, and its broker is closed."""
    lesson = written(tmp_path, SMALL.replace("billing.empty()", "raise RuntimeError(broker)"))
    with pytest.raises(RuntimeError) as failure, contextlib.redirect_stdout(io.StringIO()):
        played(lesson)
    broker: Any = failure.value.args[0]
    with pytest.raises(nsqlite.Closed):
        broker.topic("orders")
