"""What happened, told to whoever asked.

The rule: an `Event` is a fact; it is told after the lock is released, in the order of the topic,
and whoever listens can hurt nobody.

Next: monitor.py
"""

import enum
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from nsqlite.errors import InvalidOption, printable, shown


class Kind(enum.StrEnum):
    """What can happen; a member equals its text."""

    CREATED = "created"
    PUBLISHED = "published"
    DELIVERED = "delivered"
    FINISHED = "finished"
    REQUEUED = "requeued"
    TOUCHED = "touched"
    TIMED_OUT = "timed out"
    RETURNED = "returned"
    DEFERRED = "deferred"
    DUE = "due"
    DROPPED = "dropped"
    DISCARDED = "discarded"
    WAITING = "waiting"
    REFUSED = "refused"
    WINDOW_FULL = "window full"
    PAUSED = "paused"
    UNPAUSED = "unpaused"
    EMPTIED = "emptied"
    DELETED = "deleted"
    CLOSED = "closed"


LIFE_CYCLE: Final = frozenset(
    {Kind.CREATED, Kind.PAUSED, Kind.UNPAUSED, Kind.EMPTIED, Kind.DELETED, Kind.CLOSED}
)
"""What happens to topics and channels; to observe these alone costs a message nothing."""

MESSAGES: Final = frozenset(Kind) - LIFE_CYCLE
"""What happens to messages, puts and gets."""

ALL: Final = frozenset(Kind)
"""What an observer hears of that names no kinds."""


class Event(NamedTuple):
    """One thing that happened to a topic, a channel, or a message in a channel.

    Attributes:
        kind: what happened.
        time: when, in seconds since the epoch.
        topic: the topic's name.
        channel: the channel's name, None where the topic itself is meant.
        id: the message's id, None where no message is meant.
        body: its body, as published.
        attempts: its deliveries in that channel so far.
        client_id: the consumer's number, where one had to do with it.
        due: when something is to follow (a time-out, the end of a delay), in seconds since the
            epoch; of an event that followed, when it had been due.
        count: how many messages it concerned, where that is not one.
        consumer: the consumer's name, where one had to do with it and has a name.
    """

    kind: Kind
    time: float
    topic: str
    channel: str | None = None
    id: str | None = None
    body: Any = None
    attempts: int | None = None
    client_id: int | None = None
    due: float | None = None
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which an event has no use for
    consumer: str | None = None

    def __str__(self) -> str:
        """Show it in a line: when, what, where, and of a message its body, attempts and holder."""
        where = self.topic if self.channel is None else f"{self.topic}/{self.channel}"
        parts = [f"{_clock_time(self.time)} {self.kind:<11} {where}"]
        if self.id is not None:
            parts.append(f"{_short(self.body)}")
        if self.attempts:
            parts.append(f"attempts={self.attempts}")
        if self.client_id is not None:
            parts.append(f"consumer={printable(self.consumer or str(self.client_id))}")
        if self.count != 1:
            parts.append(f"count={self.count}")
        if self.due is not None:
            parts.append(f"due_in={self.due - self.time:+.3f}s")
        return " ".join(parts)


def _clock_time(seconds: float) -> str:
    """Return a moment as the time of its day (UTC), to the millisecond."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole % 86400, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{thousandths:03d}"


def _short(body: object) -> str:
    text = shown(body)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."


_SHORT: Final = 40

Observer = Callable[[Event], object]
"""Hears of events one at a time; what it returns is ignored, what it raises is logged."""


class Subscription:
    """An observer and what it wants to hear of; each registration is one of its own."""

    __slots__ = ("kinds", "tell")

    def __init__(self, tell: Observer, kinds: frozenset[Kind]) -> None:
        """Note it."""
        self.tell: Final = tell
        self.kinds: Final = kinds


def subscription(callback: object, kinds: Iterable[str] | None = None) -> Subscription:
    """Return an observer with the kinds of events that it wants.

    Raises:
        InvalidOption: it is no function, or a kind is none.
    """
    if not callable(callback):
        raise InvalidOption("observer", callback, "a function of one event")
    if kinds is None:
        return Subscription(callback, ALL)
    known = ", ".join(map(repr, map(str, Kind)))
    try:
        wanted = list[object](() if isinstance(kinds, str) else kinds)
    except TypeError:
        wanted = []
    if not wanted:
        raise InvalidOption("kinds", kinds, f"several of {known}")
    for kind in wanted:
        if not isinstance(kind, str) or kind not in ALL:
            raise InvalidOption("kind of event", kind, f"one of {known}")
    return Subscription(callback, frozenset(Kind(str(kind)) for kind in wanted))


def all_observers(given: Iterable[Observer]) -> tuple[Subscription, ...]:
    """Return the observers that were given.

    Raises:
        InvalidOption: it is no iterable of functions.
    """
    try:
        observers = tuple(given)
    except TypeError:
        raise InvalidOption("observers", given, "several functions of one event") from None
    return tuple(map(subscription, observers))
