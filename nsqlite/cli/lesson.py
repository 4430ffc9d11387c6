"""The numbered lessons: where they are, and how a file of Python is one that can be watched.

The rule: a lesson is its file in `examples/` and nothing else; what is played is what is run.

The file is cut into steps.  A step begins with a comment at the beginning of a line, which says
what will happen; if it ends with a question, the viewer is asked that before the step is run.  What
stands before the first comment is a step, too.  The docstring has what to watch, what is printed
("It prints:"), the exercises ("Try it:"), and what comes next.

Next: cli/places.py
"""

import ast
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Final

import attrs

from nsqlite.cli.failure import CommandFailed
from nsqlite.options import nearest

PACKAGE: Final = Path(__file__).parent.parent

PLACES: Final = (PACKAGE / "lessons", PACKAGE.parent / "examples")
"""Where the files are when nsqlite is installed, and in a checkout."""

BEGINNING: Final = "First, what the lesson needs."
"""What is said of what stands before the first comment."""


class NoSuchLesson(CommandFailed):
    """What was asked for is not there; the call is wrong."""

    status = 2


@attrs.frozen
class Step:
    """A part of a lesson that is run at once.

    Attributes:
        text: what will happen.
        question: what the viewer may want to predict; empty if nothing is asked.
        code: its lines, as a learner is to see them.
        compiled: the same, to be run.
    """

    text: str
    question: str
    code: str
    compiled: CodeType


@attrs.frozen(slots=False)
class Lesson:
    """A file of `examples/` with a number, or a solution of one of its exercises.

    Attributes:
        path: the file.
    """

    path: Path

    @property
    def number(self) -> int:
        """Its number, which begins the file's name."""
        return int(self.path.stem.partition("_")[0])

    @property
    def name(self) -> str:
        """What it is called, as ``fan-out``."""
        return self.path.stem.partition("_")[2].replace("_", "-")

    @cached_property
    def source(self) -> str:
        """The text of the file."""
        return self.path.read_text("utf-8")

    @cached_property
    def _docstring(self) -> str:
        return ast.get_docstring(ast.parse(self.source)) or ""

    @property
    def title(self) -> str:
        """The first line of its docstring."""
        return self._docstring.partition("\n")[0]

    @property
    def about(self) -> str:
        """What its docstring says before the lesson begins."""
        return self._docstring.partition("It prints:")[0].partition("\n")[2].strip()

    @property
    def exercises(self) -> list[str]:
        """What a learner may try, in order."""
        wanted = self._docstring.partition("Try it:\n")[2].partition("\nNext:")[0]
        texts = re.split(r"^\d\. ", wanted, flags=re.MULTILINE)[1:]
        return [re.sub(r"\s*\n\s*", " ", text.strip()) for text in texts]

    @cached_property
    def steps(self) -> list[Step]:
        """What is played."""
        tree = ast.parse(self.source)
        lines = self.source.splitlines()
        starts = list(_beginnings(tree, lines))
        cuts = [n for n, (start, _) in enumerate(starts) if n == 0 or _is_comment(lines, start)]
        steps = []
        for first, after in zip(cuts, [*cuts[1:], len(starts)], strict=True):
            end = starts[after][0] if after < len(starts) else len(lines)
            body = [statement for _, statement in starts[first:after]]
            steps.append(self._step(lines[starts[first][0] : end], body))
        return steps

    def _step(self, lines: list[str], statements: list[ast.stmt]) -> Step:
        count = next(n for n, line in enumerate(lines) if not line.startswith("#"))
        text = " ".join(line.removeprefix("# ") for line in lines[:count]) or BEGINNING
        *said, last = re.split(r"(?<=[.:?])  ?(?=[A-Z])", text)
        if not last.endswith("?"):
            said, last = [text], ""
        code = re.sub(r"  # noqa.*", "", "\n".join(lines[count:]).strip("\n"))
        compiled = compile(ast.Module(statements, []), str(self.path), "exec")
        return Step("  ".join(said), last, code, compiled)

    def solution(self, number: int) -> "Lesson":
        """Return what solves one of its exercises.

        Raises:
            NoSuchLesson: it has no such exercise.
        """
        path = self.path.parent / "solutions" / f"{self.path.stem}_{number}.py"
        if not path.exists():
            count = len(self.exercises)
            has = f"exercises 1 to {count}" if count else "no exercises"
            raise NoSuchLesson(f"lesson {self.name} has {has}, and so no solution {number}")
        return Lesson(path)


def _beginnings(tree: ast.Module, lines: list[str]) -> Iterator[tuple[int, ast.stmt]]:
    """Go through the statements after the docstring, each with the line where its comment begins.

    Lines are counted from 0.
    """
    for statement in tree.body[1:]:
        decorators = getattr(statement, "decorator_list", [])
        start = min(node.lineno for node in [statement, *decorators]) - 1
        while _is_comment(lines, start - 1):
            start -= 1
        yield start, statement


def _is_comment(lines: list[str], number: int) -> bool:
    return lines[number].startswith("#")


def lessons() -> list[Lesson]:
    """Return all lessons, in order.

    Raises:
        CommandFailed: the files are not there.
    """
    for place in PLACES:
        found = sorted(place.glob("[0-9][0-9]_*.py"))
        if found:
            return [Lesson(path) for path in found]
    raise CommandFailed("the lessons are not installed; they are in examples/ of the sources")


def find_lesson(wanted: str) -> Lesson:
    """Return the lesson of a name or number.

    Raises:
        NoSuchLesson: there is none; the text has the nearest.
        CommandFailed: see `lessons`.
    """
    known = lessons()
    name = wanted.lower().replace("_", "-").replace(" ", "-")
    number = int(name) if name.isdecimal() else None
    for lesson in known:
        if name in {lesson.name, f"{lesson.number:02}-{lesson.name}"} or number == lesson.number:
            return lesson
    names = [lesson.name for lesson in known]
    raise NoSuchLesson(f"there is no lesson {wanted!r}{nearest(name, names)}")
