"""A timeline for a terminal: a column for each lane, time going down.

The rule: each step has its row, which begins with its number; no line is wider than the terminal.
Lanes that do not fit side by side go into several tables, one below the other.

Next: timeline/drawing.py
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Final, TypeAlias
from unicodedata import east_asian_width

from nsqlite.errors import InvalidOption
from nsqlite.events import Kind
from nsqlite.options import whole
from nsqlite.timeline.parts import (
    GIVEN_UP,
    Lane,
    Shown,
    Step,
    gap_after,
    notes_after,
    stays_of,
    times,
)
from nsqlite.timeline.words import date, number

NARROWEST: Final = 40
"""The fewest columns of a terminal."""

LANE: Final = 9
"""The fewest columns of a lane."""

WIDEST: Final = 20
"""The most columns of a lane."""

SENTENCE: Final = 26
"""The fewest columns in which sentences are shown."""

MARKS: Final[dict[str, str]] = {
    Kind.PUBLISHED: "●",
    Kind.DELIVERED: "▸",
    Kind.FINISHED: "✓",
    Kind.REQUEUED: "↺",
    Kind.TOUCHED: "◆",
    Kind.TIMED_OUT: "!",
    Kind.RETURNED: "◂",
    Kind.DEFERRED: "◷",
    Kind.DUE: "○",
    Kind.DROPPED: "✗",
    Kind.DISCARDED: "✗",
    GIVEN_UP: "✗",
}
"""What stands before a message, by what happens to it."""

PLAIN: Final[dict[str, str | int | None]] = {
    "●": "*",
    "▸": ">",
    "✓": "v",
    "↺": "@",
    "◆": "+",
    "◂": "<",
    "◷": "~",
    "○": "o",
    "✗": "x",
    "│": "|",
    "┃": "H",
    "┊": ":",
    "─": "-",
    "┼": "+",
    "├": "+",
    "…": ".",
    "»": ">",
    "µ": "u",
}
"""What stands for a character that a terminal cannot show."""


def as_text(timeline: Shown, width: int, encoding: str) -> str:
    """Return a timeline as text; see `Timeline.text`."""
    whole("width", width, NARROWEST)
    try:
        "".encode(encoding)
    except (LookupError, TypeError):
        raise InvalidOption("encoding", encoding, "the name of an encoding") from None
    text = "\n".join(line.rstrip() for line in _lines(timeline, width))
    return text if _fits("".join(PLAIN), encoding) else _in_ascii(text, encoding)


def _lines(timeline: Shown, width: int) -> Iterator[str]:
    yield from wrap(headline(timeline), width)
    if not timeline.steps:
        yield from _notes(timeline, 0, width)
        return
    margin = _Margin(timeline.steps)
    changes = _changes(timeline)
    lanes = _tables(timeline, width - margin.width)
    tables = [_Table(timeline, some, margin, changes, width) for some in lanes]
    if any(table.is_narrow for table in tables):
        enough = _Table(timeline, timeline.lanes, margin, changes, width).needed
        text = f"Each sentence stands below its step; from {enough} columns on it stands beside it."
        yield from wrap(text, width)
    for table in tables:
        yield ""
        yield from table.lines()
    yield ""
    for line in wrap(_legend(timeline), width):
        yield line.replace("\N{NO-BREAK SPACE}", " ")


def headline(timeline: Shown) -> str:
    """Return in a sentence how much there is."""
    steps = timeline.steps
    lost = sum(gap.count for gap in timeline.gaps)
    hidden = [
        f"{number(timeline.earlier, 'earlier step')} not shown" if timeline.earlier else "",
        f"{number(timeline.forgotten, 'older event')} not kept" if timeline.forgotten else "",
        f"{number(lost, 'event')} lost" if lost else "",
    ]
    start = "nothing was recorded"
    if steps:
        start = f"{number(len(steps), 'step')} from {date(steps[0].time)}"
    elif any(hidden):
        start = "no steps here"
    return f"{'; '.join([start, *filter(None, hidden)])}."


def _legend(timeline: Shown) -> str:
    kinds = {step.name for step in timeline.steps}
    names: dict[str, list[str]] = {}
    for kind, mark in MARKS.items():
        if kind in kinds:
            names.setdefault(mark, []).append(kind)
    marks = [
        f"{mark} {' or '.join(kinds)}".replace(" ", "\N{NO-BREAK SPACE}")
        for mark, kinds in names.items()
    ]
    if any((step.event.attempts or 0) > 1 for step in timeline.steps):
        marks.append("#2\N{NO-BREAK SPACE}attempt\N{NO-BREAK SPACE}2")
    return "  ".join(marks)


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _in_ascii(text: str, encoding: str) -> str:
    """Return a text with other characters for those that an encoding lacks."""
    text = text.translate(str.maketrans(PLAIN))
    return text.encode(encoding, "replace").decode(encoding)


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():  # nearly all is
        return len(text)
    return sum(2 if east_asian_width(one) in "WF" else 1 for one in text)


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most so many columns; it keeps the line ends that it has."""
    lines = []
    for part in text.splitlines():
        line = ""
        for word in part.split(" "):
            if line and columns(f"{line} {word}") > width:
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else word
            while columns(line) > width:  # one word alone
                count = next(n for n in range(width, 0, -1) if columns(line[:n]) <= width)
                lines.append(line[:count])
                line = line[count:]
        lines.append(line)
    return lines


def cut(text: str, width: int) -> str:
    """Return a text of at most so many columns."""
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


# Lanes side by side


Changes: TypeAlias = dict[int, list[tuple[int, Lane, str]]]
"""By the number of a step: which stays begin (1) and end (-1) with it, where, and their states."""


class _Margin:
    """What stands before the lanes: the number of each step, and its time.

    Attributes:
        times: when each step was, by its number.
        width: how many columns it takes.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        told = times(steps)
        self.times: Final = {step.number: time for step, time in zip(steps, told, strict=True)}
        self._numbers: Final = max(len(str(steps[-1].number)), 2)
        self._longest: Final = max(4, *map(len, told))
        self.width: Final = self._numbers + 2 + self._longest + 2

    def of(self, step: Step, time: str) -> str:
        return f"{step.number:>{self._numbers}}  {time:>{self._longest}}  "


def _changes(timeline: Shown) -> Changes:
    """Return which stays begin and end with which step."""
    changes: Changes = {}
    for life in timeline.lives:
        for stay in stays_of(life):
            changes.setdefault(stay.begin, []).append((1, stay.lane, stay.where))
            if stay.end is not None:
                changes.setdefault(stay.end, []).append((-1, stay.lane, stay.where))
    return changes


def _tables(timeline: Shown, room: int) -> list[list[Lane]]:
    """Return which lanes stand side by side: as many as fit, below their channel and topic."""
    most = max(room // LANE, 3)
    if len(timeline.lanes) <= most:
        return [list(timeline.lanes)]
    tables = []
    for topic in timeline.lanes:
        if topic.kind == "topic":
            table = [topic]
            for group in _groups(timeline, topic, most - 1):
                if len(table) + len(group) > most:
                    tables.append(table)
                    table = [topic]
                table += group
            tables.append(table)
    return tables


def _groups(timeline: Shown, topic: Lane, most: int) -> Iterator[list[Lane]]:
    """Go through a topic's channels, each with its consumers, or as many of them as fit."""
    for channel in timeline.lanes:
        if channel.kind == "channel" and channel.topic == topic.topic:
            consumers = [
                lane
                for lane in timeline.lanes
                if (lane.topic, lane.channel) == (topic.topic, channel.channel) and lane != channel
            ]
            for begin in range(0, max(len(consumers), 1), most - 1):
                yield [channel, *consumers[begin : begin + most - 1]]


def _notes(timeline: Shown, number: int, width: int) -> Iterator[str]:
    """Go through the lines of what is missing, and of what is said, after a step."""
    gap = gap_after(timeline.gaps, number)
    if gap is not None:
        yield ""
        yield from wrapped(f"── {gap.text} ──", width)
        yield ""
    for note in notes_after(timeline.notes, number):
        yield ""
        for line in wrapped(note, width - 2):
            yield f"» {line}"
        yield ""


class _Table:
    """Lanes side by side, and the steps that have to do with them.

    Attributes:
        needed: how wide a terminal must be for sentences beside the lanes.
        is_narrow: this one is not, so each sentence stands below its step.
    """

    def __init__(
        self,
        timeline: Shown,
        lanes: Sequence[Lane],
        margin: _Margin,
        changes: Changes,
        width: int,
    ) -> None:
        self._timeline: Final = timeline
        self._lanes: Final = lanes
        self._width: Final = width
        self._margin: Final = margin
        self._changes: Final = changes
        self._steps: Final = [
            step for step in timeline.steps if any(lane in lanes for lane in step.lanes)
        ]
        wanted = [self._wanted(lane) for lane in lanes]
        room = width - margin.width
        self._widths: Final = wanted if sum(wanted) <= room else [room // len(wanted)] * len(wanted)
        self._at: Final[dict[Lane, int]] = {}
        at = 0
        for lane, wide in zip(lanes, self._widths, strict=True):
            self._at[lane] = at
            at += wide
        self._end: Final = at
        self.needed: Final = margin.width + sum(wanted) + 1 + SENTENCE
        self.is_narrow: Final = width < self.needed
        self._inside: Final[Counter[Lane]] = Counter()
        self._waiting: Final[Counter[Lane]] = Counter()

    def _wanted(self, lane: Lane) -> int:
        """Return how wide a lane should be."""
        cells = [columns(_cell(step)) for step in self._steps if lane in step.lanes]
        return max(min(max([columns(lane.name), *cells]) + 3, WIDEST), LANE)

    def lines(self) -> Iterator[str]:
        """Return the heading and the rows."""
        yield " " * self._margin.width + "".join(
            _padded(cut(lane.name, wide - 1), wide)
            for lane, wide in zip(self._lanes, self._widths, strict=True)
        )
        last = self._timeline.steps[0].number - 1
        self._go_to(-1, last)
        yield from _notes(self._timeline, last, self._width)
        time = ""
        for step in self._steps:
            self._go_to(last, step.number - 1)
            before = self._lifelines()
            self._go_to(step.number - 1, step.number)
            now = self._margin.times[step.number]
            yield from self._row(step, before, "" if now == time else now)
            time = now
            yield from _notes(self._timeline, step.number, self._width)
            last = step.number

    def _go_to(self, done: int, until: int) -> None:
        """Take note of what the steps after one, up to another, have changed."""
        for at in range(done + 1, until + 1):
            for change, lane, where in self._changes.get(at, ()):
                (self._waiting if where == "deferred" else self._inside)[lane] += change

    def _lifelines(self) -> dict[Lane, str]:
        """Return the character that runs down each lane."""
        found = {}
        for lane in self._lanes:
            if self._inside[lane]:
                found[lane] = "┃" if lane.kind == "consumer" else "│"
            elif self._waiting[lane]:
                found[lane] = "┊"
        return found

    def _row(self, step: Step, before: dict[Lane, str], time: str) -> Iterator[str]:
        after = self._lifelines()
        row = [" "] * self._end
        for lane, at in self._at.items():
            if lane in before and lane in after:
                row[at] = before[lane]
        self._draw(step, row)
        head = self._margin.of(step, time)
        cells = "".join(row)
        indent = " " * len(head)
        if self.is_narrow:
            yield head + cells
            for line in wrapped(step.text, self._width - len(head)):
                yield indent + line
            return
        first, *others = wrapped(step.text, self._width - len(head) - self._end - 1)
        yield f"{head}{cells} {first}"
        rest = [" "] * self._end
        for lane, mark in after.items():
            rest[self._at[lane]] = mark
        for line in others:
            yield f"{indent}{''.join(rest)} {line}"

    def _draw(self, step: Step, row: list[str]) -> None:
        """Draw the line of a step, then what stands at both its ends."""
        source = step.source if step.source in self._at else None
        targets = [lane for lane in step.targets if lane in self._at]
        places = [self._at[lane] for lane in step.lanes if lane in self._at]
        if len(places) > 1:
            for at in range(min(places), max(places) + 1):
                row[at] = "┼" if row[at] in "│┃┊" else "─"
        for lane in targets:
            self._write(row, lane, self._pointer(step, lane) + _cell(step))
        if source is not None:
            mark = MARKS.get(step.name, "")
            at_source = "├" if step.kind == Kind.DELIVERED else mark
            self._write(row, source, at_source if targets else mark + _cell(step))

    def _pointer(self, step: Step, lane: Lane) -> str:
        """Return what stands before a message in a lane that it comes to."""
        source = step.source
        if source in self._at or (source is None and lane != step.targets[0]):
            return "◂" if source is not None and source.kind == "consumer" else "▸"
        return MARKS.get(step.name, "")

    def _write(self, row: list[str], lane: Lane, text: str) -> None:
        """Write into a lane; a wide character takes the place of two."""
        at = self._at[lane]
        wide = self._widths[self._lanes.index(lane)] - 1
        for one in cut(text, wide):
            row[at] = one
            if columns(one) > 1:
                row[at + 1] = ""
            at += columns(one)
        if len(text) > 1 and at < len(row) and row[at] == "─" and at - self._at[lane] < wide:
            row[at] = " "


def _cell(step: Step) -> str:
    """Return what stands in a lane for a step: the message, or in a word what happens."""
    if not step.tag:
        return "put waits" if step.kind == Kind.WAITING else str(step.kind)
    attempts = step.event.attempts or 0
    return f"{step.tag} #{attempts}" if step.kind == Kind.DELIVERED and attempts > 1 else step.tag


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))
