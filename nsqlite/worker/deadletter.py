"""Where messages go that cannot be handled, and how they come back.

The rule: a message is moved in one step, so it is in one place or the other; and it comes back into
the channel where it failed, not into the others, which have had it.

Next: worker/middleware.py
"""

import logging
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, Final

import attrs

from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.consumer import Consumer
from nsqlite.errors import Closed, Empty, InvalidMessage, InvalidOption, NotInFlight
from nsqlite.lock import ensure
from nsqlite.message import Message
from nsqlite.options import SECOND
from nsqlite.topic import Topic
from nsqlite.waiting import ThreadWaiter
from nsqlite.worker.failure import Failure
from nsqlite.worker.handler import is_plain

log: Final = logging.getLogger("nsqlite")


@attrs.frozen(kw_only=True)
class DeadLetter:
    """The body of a message in a dead-letter topic: what failed, where and why.

    Attributes:
        body: the message's own body.
        topic: the topic it came from.
        channel: the channel in which it failed.
        id: the id it had there.
        attempts: how often it was delivered there.
        error: what the last error says of itself; or why there was none.
        timestamp: when it was published first, in nanoseconds since the epoch.
        error_type: the name of the last error's class, with its module unless that is `builtins`;
            empty if the handler was not called.
        traceback: the last lines of that error's traceback, at most 4,000 characters.
    """

    body: Any
    topic: str
    channel: str
    id: str
    attempts: int
    error: str
    timestamp: int
    error_type: str = ""
    traceback: str = ""


def letter_of(message: Message[Any], channel: Channel[Any], failure: Failure) -> DeadLetter:
    """Return a message as a dead letter."""
    return DeadLetter(
        body=message.body,
        topic=channel.topic_name,
        channel=channel.name,
        id=message.id,
        attempts=message.attempts,
        error=failure.text,
        timestamp=message.timestamp,
        error_type=failure.kind,
        traceback=failure.traceback,
    )


def redrive(
    dead: Channel[Any],
    home: Broker | Topic[Any],
    *,
    where: Callable[[DeadLetter], bool] = lambda _letter: True,
    rate: float | None = None,
) -> int:
    """Put dead letters back into the channels where they failed, each in one step.

    They begin anew there: with a new id, and no attempts.  It takes what is ready when it is
    called, and blocks until it is done, for at most `max_msg_timeout`; what it does not put back
    stays, in its order.  A letter whose topic or channel does not exist or is closed stays too, and
    is logged.

    Args:
        dead: a channel of the dead-letter topic.
        home: the broker of the topics where they failed, or the one topic.
        where: a plain function that says which letters to put back; the others stay.
        rate: how many a second at most; None for as fast as it goes.

    Returns:
        How many were put back.

    Raises:
        InvalidOption: the rate is not above 0, or another argument of the wrong kind.
        InvalidMessage: a body is no `DeadLetter`; those before it were put back.
        Closed: the dead-letter channel is closed or deleted.
    """
    if not isinstance(dead, Channel):
        raise InvalidOption("dead", dead, "what Topic.channel(name) returns")
    if not isinstance(home, Broker | Topic):
        raise InvalidOption("home", home, "a Broker or a Topic")
    if not is_plain(where, 1):
        raise InvalidOption("where", where, "a plain function of one DeadLetter")
    pause = 0 if rate is None else round(SECOND / _rate(rate))
    with Consumer(dead, msg_timeout=dead.options.max_msg_timeout) as consumer:
        return _redrive_each(consumer, home, where, pause)


def _redrive_each(
    consumer: Consumer[Any],
    home: Broker | Topic[Any],
    where: Callable[[DeadLetter], bool],
    pause: int,
) -> int:
    """Put back what is ready, with so many nanoseconds between two; return how many they were."""
    looked_at: list[Message[Any]] = []
    try:
        return _send_each_home(consumer, home, where, pause, looked_at)
    finally:  # what stays was never delivered to anybody
        ensure(partial(consumer._monitor.call, consumer._return, looked_at))


def _send_each_home(
    consumer: Consumer[Any],
    home: Broker | Topic[Any],
    where: Callable[[DeadLetter], bool],
    pause: int,
    looked_at: list[Message[Any]],
) -> int:
    """See `_redrive_each`; adds what it has looked at to a list."""
    count = 0
    rest = 0
    for _ in range(consumer.channel.depth):
        if rest:
            _rest(consumer, rest)
        rest = 0
        try:
            message = consumer.get(timeout=0)
        except Empty:
            break
        looked_at.append(message)
        letter = message.body
        if not isinstance(letter, DeadLetter):
            kind = type(letter).__name__
            raise InvalidMessage(f"a dead letter is a DeadLetter, not a {kind}")
        if where(letter) and _send_home(consumer, message, letter, home):
            count += 1
            rest = pause
    return count


def _rate(rate: Any) -> float:
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not (is_number and 0 < rate < inf):
        raise InvalidOption("rate", rate, "a finite number above 0")
    return float(rate)


def _send_home(
    consumer: Consumer[Any], message: Message[Any], letter: DeadLetter, home: Broker | Topic[Any]
) -> bool:
    """Move a letter back if there is where it came from."""
    topics = home.topics if isinstance(home, Broker) else {home.name: home}
    topic = topics.get(letter.topic)
    channel = None if topic is None else topic.channels.get(letter.channel)
    if channel is None:
        log.warning("there is no %s:%s to put a letter back", letter.topic, letter.channel)
        return False
    try:
        consumer.move(message, channel, body=letter.body)
    except (Closed, InvalidMessage, NotInFlight) as problem:
        log.warning("a dead letter stays: %s", problem)
        return False
    return True


def _rest(consumer: Consumer[Any], pause: int) -> None:
    """Wait so many nanoseconds."""
    semaphore = ThreadWaiter[Any](consumer._monitor).semaphore
    consumer._clock.wait(semaphore, consumer._now() + pause, "redrive()")
