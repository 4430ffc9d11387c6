"""Lessons: found by name or number, cut into steps, with exercises and solutions."""

from pathlib import Path

import pytest

from nsqlite.cli import lesson as module
from nsqlite.cli.failure import CommandFailed
from nsqlite.cli.lesson import BEGINNING, Lesson, NoSuchLesson, find_lesson, lessons

SOURCE = '''\
"""Test: a lesson.

Watch it.

It prints:

    1

Try it:

1. Do this
   and that.
2. Do more.

Next: 08_more.py
"""

import math

# A function.


@staticmethod
def one() -> int:
    return 1


# It is called.  What
# does it return?
print(  # noqa: T201 - it is to be seen
    one()
)

# Nothing more.
two = 2
three = math.floor(3.5)
'''


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    path = tmp_path / "07_for_tests.py"
    path.write_text(SOURCE, "utf-8")
    return Lesson(path)


def test_lesson_is_its_file(lesson: Lesson) -> None:
    """Number and name are the file's, the rest is its docstring's."""
    assert (7, "for-tests") == (lesson.number, lesson.name)
    assert ("Test: a lesson.", "Watch it.") == (lesson.title, lesson.about)
    assert ["Do this and that.", "Do more."] == lesson.exercises


def test_steps(lesson: Lesson) -> None:
    """A step begins with a comment; its last sentence, if it asks, is the question."""
    lesson.path.write_text(SOURCE.replace("# A function.\n\n\n", "# A function.\n"), "utf-8")
    steps = [(step.text, step.question, step.code) for step in lesson.steps]
    assert [
        (BEGINNING, "", "import math"),
        ("A function.", "", "@staticmethod\ndef one() -> int:\n    return 1"),
        ("It is called.", "What does it return?", "print(\n    one()\n)"),
        ("Nothing more.", "", "two = 2\nthree = math.floor(3.5)"),
    ] == steps


def test_a_comment_that_stands_alone_begins_nothing(lesson: Lesson) -> None:
    """Between a comment that begins a step and its first statement there is no empty line."""
    assert [BEGINNING, "It is called.", "Nothing more."] == [step.text for step in lesson.steps]


def test_solutions(lesson: Lesson) -> None:
    """A solution is a file beside the lesson's; one that is not there is refused in a line."""
    (lesson.path.parent / "solutions").mkdir()
    path = lesson.path.parent / "solutions" / "07_for_tests_1.py"
    path.write_text('"""Solved."""\n', "utf-8")
    assert path == lesson.solution(1).path
    with pytest.raises(NoSuchLesson) as failure:
        lesson.solution(3)
    text = "lesson for-tests has exercises 1 to 2, and so no solution 3"
    assert (text, 2) == (str(failure.value), failure.value.status)
    with pytest.raises(NoSuchLesson) as failure:
        find_lesson("threads").solution(1)
    assert "lesson threads has no exercises, and so no solution 1" == str(failure.value)


@pytest.mark.parametrize("wanted", ["fan-out", "Fan_Out", "fan out", "2", "02", "02_fan_out"])
def test_a_lesson_is_found_by_name_or_number(wanted: str) -> None:
    """A lesson is found by its name, however that is written, or its number."""
    assert "fan-out" == find_lesson(wanted).name


def test_an_unknown_lesson() -> None:
    """An unknown name is refused with the nearest, and status 2."""
    with pytest.raises(NoSuchLesson) as failure:
        find_lesson("fanout")
    assert "there is no lesson 'fanout' (did you mean 'fan-out'?)" == str(failure.value)


def test_lessons_are_numbered_without_a_gap() -> None:
    """The lessons have the numbers from 1 on, and names that differ."""
    known = lessons()
    assert list(range(1, len(known) + 1)) == [lesson.number for lesson in known]
    assert len(known) == len({lesson.name for lesson in known})


def test_lessons_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no lessons, it says where they are."""
    monkeypatch.setattr(module, "PLACES", (tmp_path / "lessons",))
    with pytest.raises(CommandFailed) as failure:
        lessons()
    text = "the lessons are not installed; they are in examples/ of the sources"
    assert text == str(failure.value)


def test_titles_are_plain_text() -> None:
    """No title has backticks, as a page and its tab show it as it is."""
    assert [] == [lesson.title for lesson in lessons() if "`" in lesson.title]
