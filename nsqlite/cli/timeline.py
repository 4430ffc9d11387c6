"""`python -m nsqlite timeline`: what happened in a program, from its recording.

The rule: one run of a program is shown at a time, and which one is said first.

Next: cli/progress.py
"""

from argparse import ArgumentTypeError
from collections.abc import Iterator
from datetime import UTC, datetime
from math import inf
from textwrap import wrap
from typing import Final

from nsqlite.cli.failure import CommandFailed, new_file
from nsqlite.timeline import Recorded, Run, Timeline, read_recording
from nsqlite.timeline.text import NARROWEST
from nsqlite.timeline.words import date

LAST: Final = 60.0
"""Seconds before the last event that are shown unless others are asked for."""

PAGE: Final = 10_000
"""Steps that a page has at most: 8 MB, which a browser opens in two seconds."""

DIGITS: Final = 4
"""How long a number of columns is at most."""

FEW: Final = 20
"""Topics that an error lists."""


def moment(text: str) -> float:
    """Return a moment in seconds since the epoch; for `argparse`.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is no moment, as 2026-11-28T08:05:00 is"
        raise ArgumentTypeError(problem) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def seconds(text: str) -> float:
    """Return a number of seconds; for `argparse`.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        found = float(text)
    except ValueError:
        found = -1
    if not 0 <= found < inf:
        raise ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return found


def columns(text: str) -> int:
    """Return a width that a timeline can be shown in; for `argparse`.

    Raises:
        ArgumentTypeError: it is none, or too small.
    """
    if not text.isdecimal() or len(text) > DIGITS or int(text) < NARROWEST:
        raise ArgumentTypeError(f"{text!r} is no number of columns from {NARROWEST} to 9999")
    return int(text)


def show(
    path: str,
    *,
    run: int | None,
    topic: str | None,
    last: float,
    since: float | None,
    width: int,
    encoding: str,
) -> Iterator[str]:
    """Yield what happened as text.

    Args:
        path: the recording.
        run: which of its runs, 1 for the first; None for the last.
        topic: of this one alone.
        last: so many seconds before the last event.
        since: since this moment, in seconds since the epoch, instead.
        width: how many columns there are.
        encoding: what the terminal shows.

    Raises:
        CommandFailed: there is no such run or topic.
        RecordingError: the recording cannot be read.
    """
    recorded = read_recording(path)
    place = place_of(path, recorded, run)
    timeline = part(recorded, place, topic, last, since)
    yield from wrap(headline(recorded, place), width)
    yield timeline.text(width, encoding=encoding)


def write_page(
    path: str, out: str, *, run: int | None, topic: str | None, last: float, since: float | None
) -> str:
    """Write what happened as a page, and return a line that says where; see `show`.

    Of more steps than a browser can show with ease it has the last ones, and the line says so.

    Raises:
        CommandFailed: see `show`; or the page is there already, or cannot be written.
        RecordingError: the recording cannot be read.
    """
    recorded = read_recording(path)
    place = place_of(path, recorded, run)
    timeline = part(recorded, place, topic, last, since)
    line = write_new(out, timeline.latest(PAGE).html(f"{path}: {headline(recorded, place)}"))
    count = len(timeline.steps)
    if count <= PAGE:
        return line
    return f"{line}: it has the last {PAGE:,} of {count:,} steps; --last and --topic ask for fewer"


def write_new(out: str, page: str) -> str:
    """Write a page, and return a line that says where.

    Raises:
        CommandFailed: it is there already, or cannot be written.
    """
    with new_file(out, "utf-8") as file:
        file.write(page)
    return f"open {out}"


def place_of(path: str, recorded: Recorded, run: int | None) -> int:
    """Return where a run is among those of a recording, 0 for the first.

    Raises:
        CommandFailed: there is no such run.
    """
    count = len(recorded.runs)
    place = count if run is None else run
    if not count and run is None:
        raise CommandFailed(f"recording {path}: nothing was recorded")
    if not 1 <= place <= count:
        there = f"its runs are 1 to {count}" if count else "there is none"
        raise CommandFailed(f"recording {path} has no run {place}: {there}")
    return place - 1


def headline(recorded: Recorded, place: int) -> str:
    """Return in a line which run it is, and how it ended."""
    run = recorded.runs[place]
    end = "closed" if run.closed else "not closed: it was killed, or is running"
    return (
        f"run {place + 1} of {len(recorded.runs)}: process {run.pid}, nsqlite {run.version},"
        f" begun {date(run.begun)}; {end}"
    )


def part(
    recorded: Recorded, place: int, topic: str | None, last: float, since: float | None
) -> Timeline:
    """Return what is to be shown of a run; see `show`.

    Raises:
        CommandFailed: it has no such topic.
    """
    run = recorded.runs[place]
    timeline = timeline_of(run, topic, 0 if place else recorded.forgotten)
    if since is None:
        return timeline.last(last)
    return timeline.between(since, inf)


def timeline_of(run: Run, topic: str | None, forgotten: int) -> Timeline:
    """Return the timeline of a run, or of one topic in it.

    Raises:
        CommandFailed: it has no such topic.
    """
    topics = sorted({event.topic for event in run.events})
    if topic is not None and topic not in topics:
        few = ", ".join([*topics[:FEW], *(["..."] if topics[FEW:] else [])]) or "none"
        raise CommandFailed(f"nothing happened in topic {topic!r} in this run; its topics: {few}")
    return Timeline.of(run.events, topic=topic, forgotten=forgotten, lost=run.lost)
