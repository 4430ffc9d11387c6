"""What a timeline consists of: lanes, steps, and the lives of messages.

The rule: all of it is plain, frozen data.  Steps are counted from 1; the number 0 stands for what
was before the first event of the record.

Next: timeline/replay.py
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

import attrs

from nsqlite.errors import printable
from nsqlite.events import Event, Kind
from nsqlite.timeline.words import BODY, decimals, number, offset, plain, shortened

Where: TypeAlias = Literal["held", "ready", "in flight", "deferred"]
"""Where a message is: with its topic, or in a channel ready, in flight or deferred."""

Unusual: TypeAlias = Literal["waits", "paused", "gone", "closed"]
"""What a topic or channel may be: a put waits for room, it is paused, deleted, or closed."""

Ending: TypeAlias = Literal["told", "closed", "lost"]
"""How the record knows of the end of a stay: an event tells what followed; or its topic or channel
was closed, or events are missing, so what followed is not known."""

GIVEN_UP: Final = "given up"
"""What the views call a step that finishes a message which became a dead letter."""

BEFORE: Final = 0
"""The step that stands for what was before the record began."""


@attrs.frozen
class Lane:
    """A topic, a channel or a consumer.

    Attributes:
        topic: the topic's name.
        channel: the channel's name, None where the topic itself is meant.
        client_id: the consumer's number, None where it is no consumer.
        name: what it is called in the views.
    """

    topic: str
    channel: str | None
    client_id: int | None
    name: str

    @property
    def kind(self) -> Literal["topic", "channel", "consumer"]:
        """What it is."""
        if self.channel is None:
            return "topic"
        return "channel" if self.client_id is None else "consumer"


@attrs.frozen
class Step:
    """An event, and what it means.

    Attributes:
        number: its number, the first is 1.
        event: what an observer heard.
        source: the lane that it begins in; None for a put.
        targets: the lanes that it leads to; empty where nothing moves.
        tag: the message in a few characters; empty where it is about none.
        text: what happens, in a sentence.
        is_given_up: it finishes a message of which a worker made a dead letter.
    """

    number: int
    event: Event
    source: Lane | None
    targets: tuple[Lane, ...]
    tag: str
    text: str
    is_given_up: bool = False

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.event.kind

    @property
    def name(self) -> str:
        """What it is called in the views: its kind, or that it gives a message up."""
        return GIVEN_UP if self.is_given_up else self.kind

    @property
    def time(self) -> float:
        """When it was, in seconds since the epoch."""
        return self.event.time

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes that have to do with it."""
        return self.targets if self.source is None else (self.source, *self.targets)


@attrs.frozen
class Note:
    """What a teacher says between two steps.

    Attributes:
        after: the number of the step before it, 0 for none.
        text: the words.
    """

    after: int
    text: str


@attrs.frozen
class Gap:
    """A place between two steps at which events are missing.

    Attributes:
        after: the number of the step before it, 0 for none.
        count: how many events are missing.
    """

    after: int
    count: int

    @property
    def text(self) -> str:
        """What a reader is told there."""
        return f"{number(self.count, 'event')} lost here: what happened meanwhile is not known"


@attrs.frozen
class Stay:
    """How long a message was in one state.

    Attributes:
        where: the state.
        lane: whose it was: the topic's, the channel's, or the consumer's that had it in flight.
        begin: the step that began it; 0 if that was before the record.
        end: the step that ended it, None if it had not ended.
        attempts: its deliveries so far, this one too; None if not known.
        due: when it was to end by itself, in seconds since the epoch; None if it was not.
        ending: what is known of its end.
    """

    where: Where
    lane: Lane
    begin: int
    end: int | None
    attempts: int | None
    due: float | None
    ending: Ending = "told"


@attrs.frozen
class Course:
    """What a message went through in one channel, or with its topic before any channel had it.

    Attributes:
        lane: the channel's, or the topic's.
        stays: its states, one after the other.
    """

    lane: Lane
    stays: tuple[Stay, ...]


@attrs.frozen
class Life:
    """What became of one message.

    Attributes:
        id: its id.
        topic: the topic's name.
        tag: what it is called in the views: its body in a few characters, with a number if others
            of the timeline look the same.
        body: its body, cut short.
        is_whole: its publishing is part of the record.
        courses: one for each channel that had it, and for its topic.
        steps: the numbers of the steps that are about it.
        gaps: those of the steps after which events are missing that may be about it.
    """

    id: str
    topic: str
    tag: str
    body: str
    is_whole: bool
    courses: tuple[Course, ...]
    steps: tuple[int, ...]
    gaps: tuple[int, ...] = ()


@attrs.frozen
class Span:
    """A time in which a topic or channel was in an unusual state.

    Attributes:
        what: the state; `waits` is a put that waits for room, `gone` is deleted.
        lane: the topic's or channel's.
        begin: the step that began it; 0 if that was before the record.
        end: the step that ended it, None if it had not ended.
    """

    what: Unusual
    lane: Lane
    begin: int
    end: int | None


def _shown(text: object) -> str:
    """Return a text as it is shown, whoever has written it.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(text, str):
        raise TypeError(text)
    return shortened(printable(text), BODY)


@attrs.frozen(kw_only=True, repr=False)
class GivenUp:
    """What a timeline knows of a dead letter: which message was given up, and why.

    A recording has it in the place of a `DeadLetter` that was a message's body.

    Attributes:
        topic: the topic that the message was in.
        channel: the channel in which it was given up.
        id: the id it had there.
        attempts: how often it was delivered there.
        error: the last error, with its class, or why there was none; cut short.
        body: the message's body as text, cut short.
    """

    topic: str = attrs.field(converter=_shown)
    channel: str = attrs.field(converter=_shown)
    id: str = attrs.field(converter=_shown)
    attempts: int = attrs.field(validator=attrs.validators.instance_of(int))
    error: str = attrs.field(converter=_shown)
    body: str = attrs.field(converter=_shown)

    def __repr__(self) -> str:
        """Show all of it, in words."""
        return (
            f"dead letter of message {self.id} of topic {self.topic}, given up in {self.channel}"
            f" after attempt {self.attempts}: {self.error}; its body: {self.body}"
        )


def letter_of(body: Any) -> GivenUp | None:
    """Return what is known of a body that is a dead letter; None of another one.

    The workers, which make them, are above this package, so they are known by their name.
    """
    if isinstance(body, GivenUp):
        return body
    kind = type(body)
    if (kind.__module__, kind.__name__) != ("nsqlite.worker.deadletter", "DeadLetter"):
        return None
    return GivenUp(
        topic=body.topic,
        channel=body.channel,
        id=body.id,
        attempts=body.attempts,
        error=": ".join(filter(None, (body.error_type, body.error))),
        body=text_of(body.body),
    )


def text_of(body: Any) -> str:
    """Return a body as text, cut short; of a dead letter what is known of it."""
    letter = letter_of(body)
    return plain(body) if letter is None else repr(letter)


class Shown(Protocol):
    """What the views need of a timeline; see there."""

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes, from the first to the last."""
        ...

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, from the first to the last."""
        ...

    @property
    def notes(self) -> tuple[Note, ...]:
        """What is said between them."""
        ...

    @property
    def lives(self) -> tuple[Life, ...]:
        """What became of the messages."""
        ...

    @property
    def spans(self) -> tuple[Span, ...]:
        """The unusual states."""
        ...

    @property
    def earlier(self) -> int:
        """How many steps there are before the first."""
        ...

    @property
    def forgotten(self) -> int:
        """How many events there were before the record."""
        ...

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Where events are missing between them."""
        ...


def stays_of(life: Life) -> Iterator[Stay]:
    """Go through all that a message went through, course by course."""
    for course in life.courses:
        yield from course.stays


def overlaps(part: Stay | Span, first: int, last: int) -> bool:
    """Return whether a part of it is between two steps, these included."""
    return part.begin <= last and (part.end is None or part.end >= first)


def bounds(steps: Sequence[Step]) -> tuple[int, int]:
    """Return the numbers of the first and the last step; where none is, the last before the first.

    >>> bounds(())
    (1, 0)
    """
    return (steps[0].number, steps[-1].number) if steps else (1, 0)


def times(steps: Sequence[Step]) -> list[str]:
    """Return how long after the first each step was, all with as many decimals."""
    passed = [step.time - steps[0].time for step in steps]
    places = decimals(passed)
    return [offset(seconds, places) for seconds in passed]


def notes_after(notes: Sequence[Note], step: int) -> list[str]:
    """Return what is said after a step and before the next."""
    return [note.text for note in notes if note.after == step]


def gap_after(gaps: Sequence[Gap], step: int) -> Gap | None:
    """Return what is missing after a step and before the next."""
    return next((gap for gap in gaps if gap.after == step), None)
