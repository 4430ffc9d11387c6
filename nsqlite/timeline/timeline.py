"""A timeline: lanes, steps and the lives of messages, made of events; its views show it.

The rule: a timeline is a value.  Each event that it was made of is one step, and both views show
each of its steps; a part of it that is cut out still knows what was before.

Next: timeline/recorder.py
"""

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import attrs

from nsqlite.errors import InvalidOption
from nsqlite.events import Event
from nsqlite.options import SECOND, Seconds, nanoseconds, nearest, whole
from nsqlite.timeline.parts import (
    Ending,
    Gap,
    Lane,
    Life,
    Note,
    Span,
    Stay,
    Step,
    bounds,
    overlaps,
    stays_of,
    times,
)
from nsqlite.timeline.replay import replay
from nsqlite.timeline.words import number

T = TypeVar("T")

PAIR: Final = 2

NOTES: Final = "several pairs, each after how many events and a str"

LOST: Final = "several pairs, each after how many events and how many are missing there"

MOST_IN_A_NOTEBOOK: Final = 300
"""How many steps a notebook shows: it keeps all that it was ever shown."""

WIDTH: Final = 80
"""How wide the view for a terminal is unless it is told otherwise."""


@attrs.frozen(repr=False, str=False)
class Timeline:
    """What happened, as data.

        >>> import nsqlite
        >>> topic = nsqlite.Topic("orders")
        >>> recorder = nsqlite.timeline.Recorder()
        >>> stop = topic.observe(recorder)
        >>> id = topic.put(b"order 1")
        >>> for step in recorder.timeline().steps:
        ...     print(step.text)
        order 1 is published to topic orders, which has no channel yet and holds it

    Threads: any; it never changes.

    Attributes:
        steps: an event each, the oldest first.
        lanes: the topics, under each its channels, under each of these its consumers.
        lives: what became of each message, in the order in which they are first told of.
        notes: what a teacher says between the steps.
        spans: the times in which a topic or channel was in an unusual state.
        earlier: how many steps there are before the first that are not shown, as this is a part;
            how many are not where no step is.
        forgotten: how many events there were before those that the record keeps.
        gaps: where events are missing between the steps.
    """

    steps: tuple[Step, ...]
    lanes: tuple[Lane, ...]
    lives: tuple[Life, ...]
    notes: tuple[Note, ...]
    spans: tuple[Span, ...]
    earlier: int = 0
    forgotten: int = 0
    gaps: tuple[Gap, ...] = ()

    @classmethod
    def of(
        cls,
        events: Iterable[Event],
        notes: Iterable[tuple[int, str]] = (),
        *,
        topic: str | None = None,
        forgotten: int = 0,
        lost: Iterable[tuple[int, int]] = (),
    ) -> "Timeline":
        """Make the timeline of events.

        Args:
            events: what an observer heard, in its order; it may begin or end anywhere.
            notes: what is to be said, each with after how many of the events.
            topic: make it of the events of this topic alone.  The others tell which of its messages
                have become dead letters.
            forgotten: how many events there were before the first.
            lost: where events are missing: pairs of after how many of the events, and how many.
                Nothing is claimed of what was before such a place and is not told after it.

        Raises:
            InvalidOption: what is given is no events, notes or places, or a note or a place stands
                where there is no event.
        """
        if topic is not None and not isinstance(topic, str):
            raise InvalidOption("topic", topic, "a str or None")
        events = _events(events)
        gaps = [_gap(one, len(events)) for one in _several("lost", lost, LOST)]
        told = replay(events, topic, sorted(gaps, key=lambda gap: gap.after))
        said = [_note(note, len(told.steps)) for note in _several("notes", notes, NOTES)]
        said.sort(key=lambda note: note.after)
        return cls(
            steps=tuple(told.steps),
            lives=told.lives(),
            spans=told.spans(),
            lanes=told.lanes(),
            notes=tuple(said),
            forgotten=whole("forgotten", forgotten, 0),
            gaps=tuple(told.gaps),
        )

    # Parts of it

    def between(self, start: float, end: float) -> "Timeline":
        """Return the part from one moment to another, both in seconds since the epoch, inclusive.

        Its steps keep their numbers, and its messages what is known of them.

        Raises:
            InvalidOption: one of them is no number; infinities are.
        """
        _require_moment("start", start)
        _require_moment("end", end)
        return self._part([step for step in self.steps if start <= step.time <= end])

    def last(self, seconds: Seconds) -> "Timeline":
        """Return the part that is no more than so many seconds older than the last step.

        Raises:
            InvalidOption: that is no number of seconds.
        """
        span = nanoseconds("seconds", seconds) / SECOND
        if not self.steps:
            return self
        start = self.steps[-1].time - span
        return self._part([step for step in self.steps if step.time >= start])

    def latest(self, most: int) -> "Timeline":
        """Return the part of no more than so many steps, the last ones.

        Raises:
            InvalidOption: that is less than 1.
        """
        return self._part(list(self.steps[-whole("most", most, 1) :]))

    def _part(self, steps: list[Step]) -> "Timeline":
        """Return the part from the first to the last of these steps, and what is between them."""
        if len(steps) == len(self.steps):
            return self
        first, last = bounds(steps)
        steps = [step for step in self.steps if first <= step.number <= last]

        def is_within(part: Stay | Span) -> bool:
            return overlaps(part, first, last)

        lives = [
            life
            for life in self.lives
            if any(map(is_within, stays_of(life)))
            or any(first <= one <= last for one in life.steps)
        ]
        spans = [span for span in self.spans if is_within(span)]
        lanes = {lane for step in steps for lane in step.lanes} | {span.lane for span in spans}
        lanes |= {stay.lane for life in lives for stay in stays_of(life) if is_within(stay)}
        places = {(lane.topic, lane.channel) for lane in lanes}
        topics = {lane.topic for lane in lanes}
        return attrs.evolve(
            self,
            steps=tuple(steps),
            lives=tuple(lives),
            spans=tuple(spans),
            lanes=tuple(
                lane
                for lane in self.lanes
                if lane in lanes
                or (lane.kind == "channel" and (lane.topic, lane.channel) in places)
                or (lane.kind == "topic" and lane.topic in topics)
            ),
            notes=tuple(note for note in self.notes if first - 1 <= note.after <= last),
            gaps=tuple(gap for gap in self.gaps if first - 1 <= gap.after <= last),
            earlier=self.earlier + (first - self.steps[0].number if steps else len(self.steps)),
        )

    # One message

    def life(self, message_id: str) -> Life:
        """Return what became of a message.

        Raises:
            InvalidOption: no message of the timeline has that id.
        """
        for life in self.lives:
            if life.id == message_id:
                return life
        near = nearest(str(message_id), [life.id for life in self.lives])
        what = f"the id of a message of this timeline, which has {len(self.lives):,}{near}"
        raise InvalidOption("id", message_id, what)

    def story(self, message_id: str) -> str:
        """Return one message's life in lines of text.

        Raises:
            InvalidOption: no message of the timeline has that id.
        """
        return "\n".join(self._story(self.life(message_id)))

    def _story(self, life: Life) -> Iterator[str]:
        yield f"message {life.id} of topic {life.topic}: {life.body}"
        if not life.is_whole:
            yield "What happened to it before this record began is not known."
        mine = set(life.steps)
        told = zip(self.steps, times(self.steps), strict=True)
        steps = [(step, at) for step, at in told if step.number in mine]
        if len(steps) < len(life.steps):
            yield f"Of its {number(len(life.steps), 'step')} this part has {len(steps):,}."
        gaps = [gap for gap in self.gaps if gap.after in life.gaps]
        for step, at in steps:
            while gaps and gaps[0].after < step.number:
                yield f"        {gaps.pop(0).text}."
            yield f"{step.number:>6}. at {at:>5} s  {step.text}"
        yield from (f"        {gap.text}." for gap in gaps)
        yield from _ends(life, {step.event.channel for step, _ in steps if step.is_given_up})

    # Views

    def text(self, width: int = WIDTH, *, encoding: str = "utf-8") -> str:
        """Return it as text for a terminal: a column for each lane, time going down.

        Args:
            width: how many columns the terminal has, from 40.
            encoding: what it can show; what it cannot is shown in ASCII.

        Raises:
            InvalidOption: the width or the encoding is out of range.
        """
        from nsqlite.timeline.text import as_text  # noqa: PLC0415 - who tests need not load it

        return as_text(self, width, encoding)

    def html(self, title: str = "Timeline") -> str:
        """Return it as a page: one file that opens from a disk, with nothing fetched.

        Where it has notes, it opens at its beginning, else with all its steps shown.  What stands
        between backticks in the title and the notes is shown as code.  It takes some 800 bytes a
        step, and stays quick up to some thousands: of more, show a part (`last`, `latest`,
        `between`).

        Raises:
            InvalidOption: the title is no text.
        """
        if not isinstance(title, str):
            raise InvalidOption("title", title, "a str")
        from nsqlite.timeline.page import as_page  # noqa: PLC0415 - who tests need not load it

        return as_page(self, title)

    def _repr_html_(self) -> str:
        """Return it for a notebook: the picture and the steps, without a script.

        Of a long one it shows the last steps.
        """
        from nsqlite.timeline.page import as_fragment  # noqa: PLC0415 - as above

        return as_fragment(self.latest(MOST_IN_A_NOTEBOOK))

    def __str__(self) -> str:
        """Return it as text of 80 columns."""
        return self.text()

    def __repr__(self) -> str:
        """Show how much it has."""
        return (
            f"<Timeline steps={len(self.steps)} lanes={len(self.lanes)} messages={len(self.lives)}>"
        )


def _several(option: str, given: Iterable[T], expected: str) -> tuple[T, ...]:
    """Return what was given.

    Raises:
        InvalidOption: it cannot be gone through.
    """
    try:
        return tuple(given)
    except TypeError:
        raise InvalidOption(option, given, expected) from None


def _events(given: Iterable[Event]) -> tuple[Event, ...]:
    """Return events.

    Raises:
        InvalidOption: they are none.
    """
    events = _several("events", given, "several Events")
    for event in events:
        if not isinstance(event, Event):
            raise InvalidOption("event", event, "an Event, as an observer hears")
    return events


def _note(given: object, most: int) -> Note:
    """Return a note.

    Raises:
        InvalidOption: it is none, or stands after more than so many events.
    """
    if not isinstance(given, tuple | list) or len(given) != PAIR or not isinstance(given[1], str):
        raise InvalidOption("note", given, "a pair, after how many events and a str")
    return Note(whole("a note's place", given[0], 0, most), given[1])


def _gap(given: object, most: int) -> Gap:
    """Return a place where events are missing.

    Raises:
        InvalidOption: it is none, or stands after more than so many events.
    """
    if not isinstance(given, tuple | list) or len(given) != PAIR:
        raise InvalidOption("lost", given, "a pair, after how many events and how many are missing")
    place, count = given
    return Gap(whole("a lost event's place", place, 0, most), whole("lost events", count, 1))


def _require_moment(option: str, given: object) -> None:
    """Check that something is a moment.

    Raises:
        InvalidOption: it is none.
    """
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or given != given:  # noqa: PLR0124 - which is so of what is not a number
        raise InvalidOption(option, given, "a number of seconds since the epoch")


def _ends(life: Life, given_up: set[str | None]) -> Iterator[str]:
    """Tell where a message is in the end, in each of its channels; some have given it up."""
    for course in life.courses:
        stay = course.stays[-1]
        holder = f", with {stay.lane.name}," if stay.lane.kind == "consumer" else ""
        if stay.end is not None and stay.ending == "told":
            gone = "is gone: it was given up" if course.lane.channel in given_up else "is gone"
            yield f"In {course.lane.name} it {gone}."
        else:
            yield f"In {course.lane.name} it was {stay.where}{holder} when {_ENDINGS[stay.ending]}."


_ENDINGS: Final[dict[Ending, str]] = {
    "told": "this record ended",
    "closed": "that was closed",
    "lost": "events were lost; what became of it is not known",
}
"""Until when it is known where a message is, by how that stay ended."""
