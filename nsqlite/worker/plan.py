"""What a worker was told to do.

The rule: what a worker is given is checked before anything begins.

Next: worker/flow_control.py
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import attrs
from attrs.converters import optional

from nsqlite.channel import Channel
from nsqlite.errors import InvalidOption
from nsqlite.message import Message
from nsqlite.options import Seconds, as_seconds
from nsqlite.topic import Topic
from nsqlite.worker.handler import ONE_MESSAGE, Handler, accepts, is_generator, is_plain
from nsqlite.worker.middleware import Middleware
from nsqlite.worker.retry import Retry

Tracebacks = Literal["once", "always", "never"]
"""How often the traceback of a failed message is logged: once for each different error, at every
attempt, or never."""

GiveUp: TypeAlias = Callable[[Message[Any], BaseException | None], object]
"""Called with a message that is given up, and its last error if its handler was called."""


class WorkerOptions(TypedDict, total=False):
    """The options of a worker, but for its dead letters; see `Worker`.

    concurrency: how many messages it works on at a time.
    retry: when a failed message is tried again, and when it is given up.
    on_give_up: told of each message that is given up.
    msg_timeout: seconds until what was taken over is delivered again.
    auto_touch: let nothing time out while the worker has it.
    time_limit: seconds that a handler may take.
    prefetch: how many messages more a slot may take at a time.
    max_in_flight: how many messages the worker may hold.
    middleware: what stands around the handler.
    tracebacks: how often a failed message's is logged.
    name: what log records, threads, tasks and its consumer are called.
    """

    concurrency: int
    retry: Retry
    on_give_up: GiveUp | None
    msg_timeout: Seconds | None
    auto_touch: bool
    time_limit: Seconds | None
    prefetch: int
    max_in_flight: int | None
    middleware: Iterable[Middleware]
    tracebacks: Tracebacks
    name: str | None


@attrs.frozen(kw_only=True)
class Plan:
    """What a worker was told to do; its fields are those of `Worker`.

    Attributes:
        handler: the one that was given, with its middleware.
        window: how many messages the worker may hold when it is not backing off.
    """

    channel: Channel[Any]
    handler: Handler
    name: str
    concurrency: int
    retry: Retry
    dead_letter: Topic[Any] | None
    on_give_up: GiveUp | None
    msg_timeout: float | None = attrs.field(converter=optional(as_seconds))
    prefetch: int
    window: int
    auto_touch: bool
    time_limit: float | None = attrs.field(converter=optional(as_seconds))
    tracebacks: Tracebacks


def check_kinds(
    channel: Any,
    handler: Any,
    *,
    retry: Any,
    dead_letter: Any,
    on_give_up: Any,
    auto_touch: Any,
    tracebacks: Any,
    name: Any,
) -> None:
    """Check what a worker is given that is no number.

    Raises:
        InvalidOption: one of them is of the wrong kind.
    """
    if not isinstance(channel, Channel):
        raise InvalidOption("channel", channel, "what Topic.channel(name) returns")
    # What a handler needs besides may come from its middleware.
    if not callable(handler) or is_generator(handler) or not accepts(handler, 1, or_more=True):
        raise InvalidOption("handler", handler, ONE_MESSAGE)
    if not isinstance(retry, Retry):
        raise InvalidOption("retry", retry, "a Retry")
    if dead_letter is not None:
        _check_dead_letter(channel, dead_letter)
    if on_give_up is not None and not is_plain(on_give_up, 2):
        expected = "a plain function of a message and an error"
        raise InvalidOption("on_give_up", on_give_up, expected)
    if not isinstance(auto_touch, bool):
        raise InvalidOption("auto_touch", auto_touch, "True or False")
    if tracebacks not in get_args(Tracebacks):
        allowed = ", ".join(map(repr, get_args(Tracebacks)))
        raise InvalidOption("tracebacks", tracebacks, f"one of {allowed}")
    if name is not None and not isinstance(name, str):
        raise InvalidOption("name", name, "a str or None")


def _check_dead_letter(channel: Channel[Any], topic: Any) -> None:
    """Check that a channel's messages can be moved to a topic, as far as that can be known."""
    if not isinstance(topic, Topic):
        raise InvalidOption("dead_letter", topic, "a Topic or None")
    if topic._monitor is channel._monitor:
        raise InvalidOption("dead_letter", topic, "another topic than the channel's")
    if topic._store is not None and not topic._store.keeps(channel._queue.persistence):
        expected = "a topic of the same store as the channel, or of none"
        raise InvalidOption("dead_letter", topic, expected)
