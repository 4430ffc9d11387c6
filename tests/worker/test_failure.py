"""What is kept of an error: its kind, its text, and where it came from, in few words."""

import traceback
import weakref
from typing import Any

import pytest

from nsqlite.worker.failure import (
    MOST_LINES,
    MOST_TEXT,
    MOST_TRACEBACK,
    NO_ANSWER,
    Failure,
    failure_of,
    strip,
)


class Odd(Exception):
    """One that nobody can show."""

    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


def raised(error: BaseException, depth: int = 0) -> BaseException:
    """Raise an error some calls deep; return it."""

    def fall(depth: int) -> None:
        if depth:
            fall(depth - 1)
        raise error

    try:
        fall(depth)
    except BaseException as caught:
        return caught
    raise AssertionError("unreachable")


def test_an_error_in_words() -> None:
    """The class is named, with its module if it is not built in; the text is that of `str`."""
    error = FileNotFoundError(2, "No such file", "a.txt")
    found = failure_of(raised(error))
    assert Failure("FileNotFoundError", "[Errno 2] No such file: 'a.txt'") == found
    assert "FileNotFoundError: [Errno 2] No such file: 'a.txt'" == str(found)
    assert ["Traceback (most recent call last):", str(found)] == [
        found.traceback.splitlines()[0],
        found.traceback.splitlines()[-1],
    ]
    assert "in fall" in found.traceback
    assert Failure("worker.test_failure.Odd", "<Odd>") == failure_of(Odd())
    assert "ValueError" == str(failure_of(ValueError()))
    assert "it was not answered" in str(NO_ANSWER)


def test_it_is_of_a_bounded_length() -> None:
    """A long text is cut at its end, a long traceback at its beginning."""
    found = failure_of(raised(ValueError("x" * 10_000 + "y"), depth=500))
    assert MOST_TEXT == len(found.text)
    assert found.text.endswith("xxx...")
    assert len(found.traceback) <= MOST_TRACEBACK
    assert found.traceback.endswith("y")
    several = failure_of(raised(ValueError("bad"), depth=500))
    assert len(several.traceback.splitlines()) <= MOST_LINES
    assert several.traceback.endswith("ValueError: bad")


def test_a_traceback_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the traceback of an error cannot be formatted, there is none."""

    def fail(*_given: Any, **_more: Any) -> Any:
        raise RecursionError

    monkeypatch.setattr(traceback, "format_exception_only", fail)
    assert Failure("ValueError", "bad", "") == failure_of(ValueError("bad"))
    assert "" == failure_of(ValueError("bad")).traceback


def test_what_led_to_an_error_comes_before_it() -> None:
    """Its cause, or what was handled as it was raised, unless that is not to be shown."""
    cause, context, error = OSError("no disk"), KeyError("tea"), ValueError("bad")
    context.__context__ = error  # a circle
    for first, shown in ((cause, "OSError: no disk"), (context, "KeyError: 'tea'")):
        error.__cause__ = first if first is cause else None
        error.__suppress_context__ = first is cause
        error.__context__ = context
        lines = failure_of(raised(error)).traceback.splitlines()
        assert lines.index(shown) == lines.index("then:") - 1
        assert "ValueError: bad" == lines[-1]
    error.__suppress_context__ = True
    assert "then:" not in failure_of(error).traceback


class Thing:
    """What a handler had."""


def test_no_frame_is_kept() -> None:
    """An error, its cause, its context and its parts let go of the frames they came through."""
    things: list[weakref.ref[Thing]] = []

    def fall(error: BaseException) -> BaseException:
        thing = Thing()
        things.append(weakref.ref(thing))
        return raised(error)

    error = fall(BaseExceptionGroup("several", [fall(ValueError())]))
    error.__cause__, error.__context__ = fall(LookupError()), fall(OSError())
    error.__cause__.__cause__ = error  # a circle
    assert any(thing() for thing in things)
    strip(error)
    assert [None] * len(things) == [thing() for thing in things]
