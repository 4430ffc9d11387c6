"""A timeline as SVG: a row for each lane, time to the right.

The rule: a step is a column, whatever the time between two; each message has a line of its own in
each lane that it is in, as long as there is room, and each step has its mark.  All text is escaped.

Next: timeline/page.py
"""

from bisect import bisect_right
from collections.abc import Iterator
from html import escape
from typing import Final, TypeAlias

from nsqlite.events import Kind
from nsqlite.timeline.parts import (
    GIVEN_UP,
    Lane,
    Life,
    Shown,
    Span,
    Stay,
    Step,
    bounds,
    overlaps,
    stays_of,
    times,
)
from nsqlite.timeline.words import number, shortened, span

NAMES: Final = 132
"""How wide the names of the lanes are, in pixels, as all that follows."""

AXIS: Final = 40
SLOT: Final = 26
GAP: Final = 10
MARGIN: Final = 28
LETTER: Final = 6.6
"""How wide a character is; in the words of where time passes it is smaller."""

SMALL: Final = 5.6
LABEL: Final = 12
"""How many characters of a message's name stand on its line even if that is short."""

WORD: Final = 30
"""How far the word above a mark reaches to both sides."""

SLOTS: Final = 12
"""How many lines a lane has side by side; what is more shares the last."""

TABS: Final = 100
"""Up to how many messages the tab key stops at each; of more it stops at the list of them alone."""

COLOURS: Final = 6
"""How many colours the messages take turns with."""

COLUMNS: Final = ((80, 56), (400, 40), (1 << 62, 24))
"""How wide a column is, by how many steps there are at most."""

SHAPES: Final[dict[str, str]] = {
    Kind.PUBLISHED: '<circle r="5.5" class="full"/>',
    Kind.DELIVERED: '<path class="full" d="M-6 -5H6L0 6Z"/>',
    Kind.FINISHED: '<circle r="7" class="hollow"/><path class="stroke" d="M-3.5 0.5L-1 3L3.5 -3"/>',
    Kind.REQUEUED: '<path class="hollow" d="M0 -7L7 0L0 7L-7 0Z"/>',
    Kind.TOUCHED: '<path class="full" d="M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z"/>',
    Kind.TIMED_OUT: '<path class="hollow" d="M-6 -7H6L-6 7H6Z"/>',
    Kind.RETURNED: '<path class="hollow" d="M6 -6V6L-6 0Z"/>',
    Kind.DEFERRED: '<circle r="7" class="hollow"/><path class="stroke" d="M0 -4V0H3.5"/>',
    Kind.DUE: '<circle r="6" class="hollow"/><circle r="2" class="full"/>',
    Kind.DROPPED: '<path class="stroke" d="M-5 -5L5 5M5 -5L-5 5"/>',
    Kind.DISCARDED: '<path class="stroke" d="M-5 -5L5 5M5 -5L-5 5M-7 0H7"/>',
    Kind.WAITING: '<path class="hollow" d="M-6 -6H-2V6H-6ZM2 -6H6V6H2Z"/>',
    Kind.REFUSED: '<circle r="7" class="hollow"/><path class="stroke" d="M-5 5L5 -5"/>',
    Kind.WINDOW_FULL: '<path class="hollow" d="M-6 -6H6V6H-6ZM-6 0H6"/>',
    Kind.CREATED: '<path class="stroke" d="M-6 0H6M0 -6V6"/>',
    Kind.PAUSED: '<path class="full" d="M-5 -6H-1.5V6H-5ZM1.5 -6H5V6H1.5Z"/>',
    Kind.UNPAUSED: '<path class="full" d="M-4 -6V6L6 0Z"/>',
    Kind.EMPTIED: '<path class="hollow" d="M-6 -3V6H6V-3"/>',
    Kind.DELETED: '<path class="stroke thick" d="M-6 -6L6 6M6 -6L-6 6"/>',
    Kind.CLOSED: '<path class="full" d="M-6 -6H6V6H-6Z"/>',
    GIVEN_UP: '<circle r="7" class="hollow"/><path class="stroke" d="M-3 -3L3 3M3 -3L-3 3"/>',
}
"""What stands for each kind of event, and for what is given up; each has a shape of its own."""

Ends: TypeAlias = dict[tuple[str, str, Lane, int], float]
"""How low a message's line lies, by its topic, id, lane and the step that begins or ends it."""


class Drawing:
    """Where everything lies.

    Attributes:
        width: how wide it is, without the names.
        height: how high it is.
        column: how wide a step is.
    """

    def __init__(self, timeline: Shown) -> None:
        """Find out where everything lies."""
        steps = timeline.steps
        self._timeline: Final = timeline
        self._first, self._last = bounds(steps)
        self.column: Final = next(wide for most, wide in COLUMNS if len(steps) <= most)
        self.width: Final = round(2 * MARGIN + len(steps) * self.column + LABEL * LETTER / 2)
        self._slots: Final[dict[tuple[int, Stay], int]] = {}
        self._labels: Final[dict[tuple[int, Stay], str]] = {}
        self._used: Final[dict[Lane, int]] = dict.fromkeys(timeline.lanes, 1)
        self._assign()
        self._tops: Final[dict[Lane, float]] = {}
        top: float = AXIS
        for lane in timeline.lanes:
            top += GAP if lane.kind == "topic" and lane != timeline.lanes[0] else 0
            self._tops[lane] = top
            top += self._used[lane] * SLOT + GAP
        self.height: Final = round(top + GAP)
        self._ends: Final = self._find_ends()

    # Where things lie

    def x(self, number: int) -> float:
        """Return where a step lies; what was before or comes after lies at the edges."""
        if number < self._first:
            return 4
        return MARGIN + (min(number, self._last + 1) - self._first + 0.5) * self.column

    def _is_wide(self) -> bool:
        """Return whether there is room for words beside marks."""
        return self.column == COLUMNS[0][1]

    def _end(self, number: int | None) -> float:
        if number is None or number > self._last:
            return self.width - 4
        return self.x(number)

    def _end_of(self, stay: Stay) -> float:
        """Return where the line of a stay ends: at the gap, if what followed is lost."""
        end = self._end(stay.end)
        is_cut = stay.ending == "lost" and stay.end is not None and stay.end <= self._last
        return end - self.column / 2 if is_cut else end

    def _is_shown(self, part: Stay | Span) -> bool:
        return overlaps(part, self._first, self._last)

    def _stays(self, life: Life) -> list[Stay]:
        return [stay for stay in stays_of(life) if self._is_shown(stay)]

    def _assign(self) -> None:
        """Give each stay a line in its lane that no other has at the same time."""
        own = self._own_marks()
        free: dict[Lane, list[float]] = {
            lane: [0] if own[lane] else [] for lane in self._timeline.lanes
        }
        stays = [
            (stay, at, life.tag)
            for at, life in enumerate(self._timeline.lives)
            for stay in self._stays(life)
        ]
        stays.sort(key=lambda one: one[0].begin)
        latest: dict[tuple[int, Lane], tuple[int | None, int]] = {}
        for stay, at, tag in stays:
            lane, begin, end = stay.lane, self.x(stay.begin), self._end_of(stay)
            ends = free[lane]
            before, slot = latest.get((at, lane), (None, 0))
            is_more = before == stay.begin  # of a line that has its label
            text = "" if is_more else shortened(tag, max(int((end - begin) / LETTER) - 3, LABEL))
            if not is_more:
                least = self._is_near(own[lane], begin, max(end, begin + len(text) * LETTER))
                slot = next((n for n in range(least, len(ends)) if ends[n] <= begin), len(ends))
            slot = min(slot, SLOTS - 1)
            if slot == len(ends):
                ends.append(0)
            ends[slot] = max(end + 4, begin + 18 + len(text) * LETTER, ends[slot])
            latest[at, lane] = stay.end, slot
            self._slots[at, stay] = slot
            if slot < SLOTS - 1:
                self._labels[at, stay] = text
            self._used[lane] = max(self._used[lane], slot + 1)

    def _own_marks(self) -> dict[Lane, list[float]]:
        """Return where the marks lie that are of the lanes themselves, on their first lines."""
        marks: dict[Lane, list[float]] = {lane: [] for lane in self._timeline.lanes}
        for step in self._timeline.steps:
            if step.event.id is None:
                marks[step.lanes[-1]].append(self.x(step.number))
        return marks

    def _is_near(self, marks: list[float], begin: float, end: float) -> bool:
        """Return whether a line would run into one of the marks, or into its word."""
        wide = WORD if self._is_wide() else WORD / 3
        near = bisect_right(marks, begin - wide)
        return near < len(marks) and marks[near] < end + wide

    def _y(self, lane: Lane, slot: int = 0) -> float:
        return self._tops[lane] + GAP / 2 + SLOT * (slot + 0.6)

    def _find_ends(self) -> Ends:
        ends: Ends = {}
        for at, life in enumerate(self._timeline.lives):
            for stay in self._stays(life):
                y = self._y(stay.lane, self._slots[at, stay])
                if stay.end is not None:
                    ends.setdefault((life.topic, life.id, stay.lane, stay.end), y)
                ends[life.topic, life.id, stay.lane, stay.begin] = y
        return ends

    def _at(self, step: Step, lane: Lane) -> float:
        """Return how low the mark of a step lies in a lane."""
        key = step.event.topic, step.event.id or "", lane, step.number
        return self._ends.get(key, self._y(lane))

    # The pictures

    def names(self) -> str:
        """Return the names of the lanes."""
        return "".join(self._names())

    def _names(self) -> Iterator[str]:
        for lane in self._timeline.lanes:
            indent = {"topic": 12, "channel": 22, "consumer": 34}[lane.kind]
            room = int((NAMES - indent - 4) / LETTER)
            top, high = self._tops[lane], self._used[lane] * SLOT + GAP
            others = ""
            if self._used[lane] == SLOTS:
                y = self._y(lane, SLOTS - 1) + 4
                others = f'<text class="others" x="{indent}" y="{y:g}">others</text>'
            yield (
                f'<g class="name {lane.kind}"><title>{lane.kind} {escape(lane.name)}</title>'
                f'<rect class="band" x="0" y="{top:g}" width="{NAMES}" height="{high:g}"/>'
                f'<text x="{indent}" y="{top + 20:g}">{escape(shortened(lane.name, room))}</text>'
                f"{others}</g>"
            )

    def picture(self, *, is_static: bool = False) -> str:
        """Return all that happens; if it is static, nothing can be chosen by the keyboard."""
        steps: dict[tuple[str, str], list[Step]] = {}
        others: list[Step] = []
        for step in self._timeline.steps:
            if step.event.id is None:
                others.append(step)
            else:
                steps.setdefault((step.event.topic, step.event.id), []).append(step)
        parts = [
            *self._bands(),
            *self._axis(),
            *self._gaps(),
            *map(self._span, self._shown_spans()),
        ]
        parts += [self._mark_of_lane(step) for step in others]
        parts += [
            self._life(at, life, steps.get((life.topic, life.id), []), is_static=is_static)
            for at, life in enumerate(self._timeline.lives)
        ]
        return "".join(parts)

    def _bands(self) -> Iterator[str]:
        for lane in self._timeline.lanes:
            top, high = self._tops[lane], self._used[lane] * SLOT + GAP
            yield (
                f'<rect class="band {lane.kind}" x="0" y="{top:g}" width="{self.width}"'
                f' height="{high:g}"/>'
            )

    def _axis(self) -> Iterator[str]:
        """Draw the times, and where time passes between two steps."""
        steps = self._timeline.steps
        if not steps:
            return
        before: float | None = None
        said = -1000.0
        for step, text in zip(steps, times(steps), strict=True):
            if before is None or step.time != before:
                x = self.x(step.number)
                if x - said > len(text) * LETTER + 8:
                    yield f'<text class="time" x="{x:g}" y="18">{text}</text>'
                    said = x
                if before is not None:
                    edge = x - self.column / 2
                    passed = span(step.time - before)
                    fits = self._is_wide() and len(passed) * SMALL <= self.column
                    words = f'<text x="{edge:g}" y="34">{passed}</text>' if fits else ""
                    yield (
                        f'<g class="gap"><title>{passed} later</title>'
                        f'<path d="M{edge:g} {AXIS}V{self.height - GAP}"/>{words}</g>'
                    )
            before = step.time

    def _gaps(self) -> Iterator[str]:
        """Draw where events are missing."""
        for gap in self._timeline.gaps:
            x = MARGIN + (gap.after + 1 - self._first) * self.column
            yield (
                f'<g class="lost"><title>{gap.text}</title>'
                f'<path d="M{x:g} {AXIS}V{self.height - GAP}"/></g>'
            )

    def _shown_spans(self) -> list[Span]:
        return [span for span in self._timeline.spans if self._is_shown(span)]

    def _span(self, one: Span) -> str:
        words = "a put waits" if one.what == "waits" else one.what
        begin, end = self.x(one.begin), self._end(one.end)
        top, high = self._tops[one.lane] + 2, self._used[one.lane] * SLOT + GAP - 4
        return (
            f'<g class="span {one.what}"><title>{escape(one.lane.name)}: {words}</title>'
            f'<rect x="{begin:g}" y="{top:g}" width="{end - begin:g}" height="{high:g}"/></g>'
        )

    def _mark_of_lane(self, step: Step) -> str:
        lane = step.lanes[-1]
        x, y = self.x(step.number), self._y(lane)
        words = "put waits" if step.kind == Kind.WAITING else step.kind
        label = f'<text y="-9">{words}</text>' if self._is_wide() else ""
        return (
            f'<g class="mark lane" data-step="{step.number}" transform="translate({x:g} {y:g})">'
            f"<title>{step.number}. {escape(step.text)}</title>{SHAPES[step.kind]}{label}</g>"
        )

    def _life(self, at: int, life: Life, steps: list[Step], *, is_static: bool) -> str:
        lines = [self._line(at, stay) for stay in self._stays(life)]
        marks = [part for step in steps for part in (self._arrow(step), *self._marks(step))]
        tab = 0 if len(self._timeline.lives) <= TABS else -1
        chosen = "" if is_static else f' tabindex="{tab}" role="button" data-life="{at}"'
        count = number(len(life.steps), "step")
        return (
            f'<g class="life c{at % COLOURS}"{chosen} aria-label="message {escape(life.tag)},'
            f' {count}"><title>{escape(life.body)}</title>{"".join(lines)}{"".join(marks)}</g>'
        )

    def _line(self, at: int, stay: Stay) -> str:
        y = self._y(stay.lane, self._slots[at, stay])
        begin, end = self.x(stay.begin), self._end_of(stay)
        where = stay.where.replace(" ", "-")
        line = f"M{begin:g} {y:g}H{end:g}"
        parts = [f'<path class="hit" d="{line}"/><path class="line {where}" d="{line}"/>']
        if stay.begin < self._first:
            parts.append(f'<path class="earlier" d="M{begin:g} {y - 6:g}v12"/>')
        if text := self._labels.get((at, stay)):
            parts.append(f'<text x="{begin + 9:g}" y="{y - 6:g}">{escape(text)}</text>')
        return "".join(parts)

    def _arrow(self, step: Step) -> str:
        """Draw the line from lane to lane of a step."""
        heights = [self._at(step, lane) for lane in step.lanes]
        if len(heights) < 2:  # noqa: PLR2004 - it stays where it is
            return ""
        x = self.x(step.number)
        return f'<path class="arrow" d="M{x:g} {min(heights):g}V{max(heights):g}"/>'

    def _marks(self, step: Step) -> Iterator[str]:
        x = self.x(step.number)
        title = f"<title>{step.number}. {escape(step.text)}</title>"
        lanes = step.lanes
        main = lanes[-1] if step.kind == Kind.DELIVERED else lanes[0]
        for lane in lanes:
            y = self._at(step, lane)
            shape, kind = SHAPES[step.name], "mark"
            if lane is not main:
                shape, kind = '<circle r="3" class="full"/>', "end"
            yield (
                f'<g class="{kind}" data-step="{step.number}"'
                f' transform="translate({x:g} {y:g})">{title}{shape}</g>'
            )
