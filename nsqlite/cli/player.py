"""A lesson, played in a terminal step by step, or written as a page.

The rule: what is shown has happened.  The steps of the lesson's file are run one after the other,
in this process; between them the player only looks.

Next: cli/commands.py
"""

import contextlib
import io
import logging
import os
import shutil
import subprocess
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any, Final, Self, TextIO

from nsqlite.broker import Broker
from nsqlite.cli.failure import opened_stdout, say
from nsqlite.cli.keyboard import read_key
from nsqlite.cli.lesson import BEGINNING, Lesson, Step
from nsqlite.cli.places import brokers_in, places, side_by_side
from nsqlite.cli.timeline import write_new
from nsqlite.options import SECOND
from nsqlite.origin import Place, watchers
from nsqlite.testing.fakebroker import FakeBroker
from nsqlite.timeline import Recorder, Timeline
from nsqlite.topic import Topic
from nsqlite.worker.worker import Worker

WIDTH: Final = 80
"""How many columns of a terminal are used at most; code that is wider is not broken."""

NARROWEST: Final = 40
"""How many columns a text is broken for at least."""

PROMPTS: Final = (
    "[any key: go on   a: all the rest   q: leave]",
    "[any key: go on  a: all  q: leave]",
    "[q: leave]",
)
"""What asks for a key: the first of them that fits into a line."""

STYLES: Final = {"bold": "\x1b[1m", "dim": "\x1b[2m", "question": "\x1b[1;36m", "code": "\x1b[32m"}
"""What a terminal is told; readable on dark and on light."""


def _kill(process: "subprocess.Popen[Any]") -> None:
    """Kill a process, and close what it wrote to."""
    with process:
        process.kill()


ENDINGS: Final[tuple[tuple[type, Callable[[Any], object]], ...]] = (
    (subprocess.Popen, _kill),
    (Worker, methodcaller("stop")),
    (contextlib.ExitStack, methodcaller("close")),
    (Broker, methodcaller("close")),
    (Topic, methodcaller("close")),
    (threading.Thread, methodcaller("join")),
    (tempfile.TemporaryDirectory, methodcaller("cleanup")),
)
"""How what a lesson has left open is ended, if it is left in the middle; in this order."""


class Stage:
    """What a lesson's program has made so far, and what was heard of it.

    As a context manager it hears of what happens in there, and ends, when it is left, whatever the
    lesson has not ended.

    Attributes:
        variables: those of the program.
        recorder: keeps what happens to its brokers, and to topics without one.
    """

    def __init__(self, path: Path) -> None:
        """Begin with an empty program."""
        self.variables: Final[dict[str, Any]] = {"__name__": "__main__", "__file__": str(path)}
        self.recorder: Final = Recorder()
        self._heard: Final[list[Broker | Topic[Any]]] = []
        self._level: Final = logging.getLogger("nsqlite").level

    def run(self, step: Step) -> str:
        """Run a step, and return what it prints."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(step.compiled, self.variables)  # noqa: S102 - our own files
        for holder in self.holders:  # a broker that a thread has made was not told of
            self._hear(holder)
        return out.getvalue()

    @property
    def holders(self) -> list[Broker | Topic[Any]]:
        """The brokers, and the topics without one, that are there."""
        return brokers_in(list(self.variables.values()))

    @property
    def time(self) -> float | None:
        """The seconds since the beginning, if somebody moves a clock by hand."""
        for holder in self.holders:
            if isinstance(holder, FakeBroker):
                return holder.clock._elapsed / SECOND
        return None

    def _made(self, made: object, _: Place) -> None:
        """Hear of what happens to a broker, or a topic without one, from its beginning."""
        if isinstance(made, Broker) or (isinstance(made, Topic) and made._home is None):
            self._hear(made)

    def _hear(self, holder: Broker | Topic[Any]) -> None:
        if holder not in self._heard:
            self._heard.append(holder)
            holder.observe(self.recorder)

    def __enter__(self) -> Self:
        """Return it."""
        watchers.append(self._made)
        return self

    def __exit__(self, *_: object) -> None:
        """End what is left."""
        watchers.remove(self._made)
        log = logging.getLogger("nsqlite")
        log.setLevel(logging.CRITICAL)  # that something is left is meant
        shown = threading.excepthook
        threading.excepthook = _ignore
        try:
            self._end()
        finally:
            threading.excepthook = shown
            log.setLevel(self._level)

    def _end(self) -> None:
        values = [*self.variables.values(), *self.holders]
        values += [one for value in values if isinstance(value, list) for one in value]
        for kind, end in ENDINGS:
            for value in values:
                if isinstance(value, kind):
                    end(value)


def _ignore(_: object) -> None:
    """Say nothing of what a thread raises whose topic is closed while it works."""


class Player:
    """Shows a lesson, step by step.

    Attributes:
        out: what is called with each line.
        read: waits for a key; None to wait for nothing.
        styled: whether the terminal understands colours.
        width: how many columns there are for text.
    """

    def __init__(
        self,
        *,
        out: Callable[[str], object] = say,
        read: Callable[[], str] | None = None,
        styled: bool = False,
        columns: int = WIDTH,
    ) -> None:
        """Show nothing yet."""
        self.out: Final = out
        self.read = read
        self.styled: Final = styled
        self.width: Final = min(max(columns, NARROWEST), WIDTH) - 2

    def play(self, lesson: Lesson) -> None:
        """Show a lesson from its beginning to its end, or until the viewer leaves."""
        self._heading(f"Lesson {lesson.number}, {lesson.name}")
        self._text(lesson.title, "bold")
        self._text(lesson.about)
        if self._steps(lesson):
            self._heading(f"The end of lesson {lesson.number}")
            show_exercises(lesson, self.out, self.width)

    def solve(self, solution: Lesson) -> None:
        """Show and run the solution of an exercise, and say where its file is."""
        self._text(solution.title, "bold")
        self._steps(solution)
        self.out(f"\nThis solution is the file\n{solution.path}")

    def _steps(self, lesson: Lesson) -> bool:
        """Play all steps; return whether the viewer has stayed."""
        with Stage(lesson.path) as stage:
            return self._all_steps(stage, lesson.steps)

    def _all_steps(self, stage: Stage, steps: list[Step]) -> bool:
        return all(
            self._step(stage, step, f"Step {number} of {len(steps)}")
            for number, step in enumerate(steps, 1)
        )

    def _step(self, stage: Stage, step: Step, heading: str) -> bool:
        time = stage.time
        self._heading(heading if not time else f"{heading}, after {time:g} s")
        before = places(stage.holders)
        self._text(step.text)
        self.out("")
        for line in step.code.splitlines():
            self.out(self._styled(f"    {line}".rstrip(), "code"))
        self._text(step.question, "question")
        if not self._wait():
            return False
        self._printed(stage.run(step))
        after = places(stage.holders)
        if before or after:
            self.out("")
            for line, changed in side_by_side(before, after, self.width - 2):
                self.out(self._styled(f"  {line}", "bold" if changed else "dim"))
        return True

    def _wait(self) -> bool:
        """Wait for a key; return whether the viewer stays."""
        if self.read is None:
            return True
        key = self.read()
        if key in {"a", "A"}:
            self.read = None
        return key not in {"", "q", "Q", "\x1b"}

    def _printed(self, text: str) -> None:
        if text:
            self.out("\n  It prints:\n")
        for line in text.splitlines():
            self.out(self._styled(f"    {line}", "bold"))

    def _heading(self, text: str) -> None:
        self.out(self._styled(f"\n{text} ".ljust(self.width + 1, "-"), "dim"))

    def _text(self, text: str, style: str = "") -> None:
        """Show paragraphs, or nothing where there are none."""
        for paragraph in filter(None, text.split("\n\n")):
            self.out("")
            for line in _wrapped(paragraph, self.width):
                self.out(self._styled(line, style))

    def _styled(self, text: str, style: str) -> str:
        return f"{STYLES[style]}{text}\x1b[0m" if self.styled and style and text else text


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Break a text into lines; between two sentences there are two spaces, as in the file."""
    return textwrap.wrap(text, width, subsequent_indent=" " * indent, fix_sentence_endings=True)


def show_exercises(
    lesson: Lesson, out: Callable[[str], object] = say, width: int = WIDTH - 2
) -> None:
    """Show what a learner may try, how to see its solution, and where the lesson's file is."""
    if lesson.exercises:
        _show_what_to_try(lesson, out, width)
    else:
        out("\nThis lesson has no exercises.")
    out(f"\nThis lesson, without a word left out, is the file\n{lesson.path}")


def _show_what_to_try(lesson: Lesson, out: Callable[[str], object], width: int) -> None:
    out("\nTry it, in a copy of the file:\n")
    for number, text in enumerate(lesson.exercises, 1):
        for line in _wrapped(f"{number}. {text}", width, indent=3):
            out(line)
    out(f"\nTo see a solution: python -m nsqlite lesson {lesson.name} --solution 1")


def show_list(known: list[Lesson], out: Callable[[str], object] = say) -> None:
    """Show the lessons in a table."""
    out("Lessons, each a short program that you can watch; nobody has to wait:\n")
    for lesson in known:
        name, _, text = lesson.title.partition(": ")
        line = f"{lesson.number:>3}  {lesson.name:<22}  {text or name}"
        for wrapped in _wrapped(line, WIDTH, indent=29):
            out(wrapped)
    out("\nWatch one by its name or number: python -m nsqlite lesson fan-out")


def player(stdin: TextIO | None, *, auto: bool = False) -> Player:
    """Return a player for the terminal, if it is one: else it waits for nobody."""
    stdout = opened_stdout()
    is_terminal = stdout.isatty()
    styled = is_terminal and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
    columns = shutil.get_terminal_size().columns if is_terminal else WIDTH
    if auto or not is_terminal or stdin is None or not stdin.isatty():
        return Player(styled=styled, columns=columns)

    def show(text: str) -> None:
        print(text, end="", file=stdout, flush=True)

    def read() -> str:
        room = shutil.get_terminal_size().columns - 1
        prompt = next((one for one in PROMPTS if len(one) <= room), "")
        show(f"\n{prompt}")
        try:
            return read_key(stdin, lambda: show(f"\r{prompt}"))
        finally:
            show(f"\r{' ' * len(prompt)}\r")

    return Player(styled=styled, read=read, columns=columns)


def timeline_of(lesson: Lesson) -> Timeline:
    """Run a lesson and return what has happened, with its texts as notes."""
    with Stage(lesson.path) as stage:
        notes = list(_noted(stage, lesson))
        return stage.recorder.timeline(notes)


def _noted(stage: Stage, lesson: Lesson) -> Iterator[tuple[int, str]]:
    """Run the steps, and go through what is said of all, before each, and what it prints."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in lesson.about.split("\n\n")]
    yield 0, "\n\n".join(paragraphs)
    for step in lesson.steps:
        if step.text != BEGINNING:  # a page shows no code
            yield len(stage.recorder.events), f"{step.text}  {step.question}".strip()
        printed = stage.run(step).rstrip()
        if printed:
            yield len(stage.recorder.events), _told(printed)


def _told(printed: str) -> str:
    """Return what is said of what a step prints: a line, or several below each other."""
    return f"It prints:\n{printed}" if "\n" in printed else f"It prints: {printed}"


def write_page(lesson: Lesson, out: str) -> str:
    """Write a lesson's timeline as a page, and return a line that says where.

    Raises:
        CommandFailed: it is there already, or cannot be written.
    """
    return write_new(out, timeline_of(lesson).html(title=lesson.title))
