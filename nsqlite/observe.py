"""What happened, told to whoever asked.

The rule: an `Event` is a fact; it is told after the lock is released, in the order of the topic,
and whoever listens can hurt nobody.

Next: guard.py
"""

import enum
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from nsqlite.errors import InvalidOption


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
    PAUSED = "paused"
    UNPAUSED = "unpaused"
    EMPTIED = "emptied"
    DELETED = "deleted"
    CLOSED = "closed"


@attrs.frozen(kw_only=True)
class Event:
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
    count: int = 1


Observer = Callable[[Event], object]
"""Hears of events one at a time; what it returns is ignored, what it raises is logged."""


def all_observers(given: Iterable[Observer]) -> tuple[Observer, ...]:
    """Return the observers that were given.

    Raises:
        InvalidOption: they are not several, or one of them is no function.
    """
    try:
        observers = tuple(given)
    except TypeError:
        raise InvalidOption("observers", given, "several functions of one event") from None
    for observer in observers:
        if not callable(observer):
            raise InvalidOption("observer", observer, "a function of one event")
    return observers
