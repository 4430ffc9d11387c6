"""What a worker was told to do.

The rule: what a worker is given is checked before anything begins.

Next: worker/flow_control.py
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

import attrs
from attrs.converters import optional

from nsqlite.channel import Channel
from nsqlite.errors import InvalidOption
from nsqlite.message import Message
from nsqlite.names import check_name
from nsqlite.options import Seconds, as_seconds, nanoseconds, unknown_option, whole
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
    """The options of a worker; see `Worker`.

    concurrency: how many messages it works on at a time.
    retry: when a failed message is tried again, and when it is given up.
    dead_letter: the topic of what is given up, or that topic's name.
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
    dead_letter: Topic[Any] | str | None
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
    max_in_flight: int | None
    auto_touch: bool
    time_limit: float | None = attrs.field(converter=optional(as_seconds))
    tracebacks: Tracebacks

    @property
    def window(self) -> int:
        """How many messages the worker may hold when it is not backing off."""
        return self.max_in_flight or self.concurrency * (1 + self.prefetch)


def check_handler(handler: Any) -> None:
    """Check what is called with each message.

    Raises:
        InvalidOption: it is no function that can take one.
    """
    # What a handler needs besides may come from its middleware.
    if not callable(handler) or is_generator(handler) or not accepts(handler, 1, or_more=True):
        raise InvalidOption("handler", handler, ONE_MESSAGE)


def check_options(options: Mapping[str, Any]) -> None:
    """Check a worker's options, as far as that needs no channel; `wrap` checks its middleware.

    Raises:
        InvalidOption: one is unknown, and the error offers the nearest; or it is of the wrong kind
            or out of its range.
        InvalidName: the name of the dead letters' topic breaks NSQ's rule.
    """
    for name, value in options.items():
        if name in RETRY_OPTIONS:
            raise InvalidOption("option", name, f"given as retry={RETRY_OPTIONS[name]}({name}=...)")
        if name not in _CHECKS:
            raise unknown_option("option", name, _CHECKS)
        _CHECKS[name](name, value)


RETRY_OPTIONS: Final = {
    **dict.fromkeys(inspect.signature(Retry.nsq).parameters, "Retry.nsq"),
    **dict.fromkeys(inspect.signature(Retry).parameters, "Retry"),
}
"""Options that are those of its `retry`, and what makes one of them."""


def _be(is_right: Callable[[Any], bool], expected: str) -> Callable[[str, Any], object]:
    """Return a check of an option."""

    def check(option: str, value: Any) -> None:
        if not is_right(value):
            raise InvalidOption(option, value, expected)

    return check


def _or_none(check: Callable[[str, Any], object]) -> Callable[[str, Any], object]:
    """Return a check of an option that may be None."""
    return lambda option, value: None if value is None else check(option, value)


def _check_dead_letter(option: str, value: Any) -> None:
    """Check what is to take dead letters, as far as that can be known without a channel."""
    if isinstance(value, str):
        check_name("topic", value)
    elif not isinstance(value, Topic):
        raise InvalidOption(option, value, "a Topic, its name or None")


_CHECKS: Final[dict[str, Callable[[str, Any], object]]] = {
    "concurrency": partial(whole, low=1),
    "retry": _be(lambda value: isinstance(value, Retry), "a Retry"),
    "dead_letter": _or_none(_check_dead_letter),
    "on_give_up": _or_none(
        _be(lambda value: is_plain(value, 2), "a plain function of a message and an error")
    ),
    "msg_timeout": _or_none(partial(nanoseconds, above=True)),
    "auto_touch": _be(lambda value: isinstance(value, bool), "True or False"),
    "time_limit": _or_none(partial(nanoseconds, above=True)),
    "prefetch": partial(whole, low=0),
    "max_in_flight": _or_none(partial(whole, low=1)),
    "middleware": lambda _option, _value: None,  # see `wrap`
    "tracebacks": _be(
        lambda value: value in get_args(Tracebacks),
        f"one of {', '.join(map(repr, get_args(Tracebacks)))}",
    ),
    "name": _or_none(_be(lambda value: isinstance(value, str), "a str or None")),
}
"""All options of a worker, and what checks each."""


LETTERS: Final = "letters"
"""The channel of a topic of dead letters that is named and has none."""


def dead_letters(channel: Channel[Any], given: Topic[Any] | str | None) -> Topic[Any] | None:
    """Return the topic of a channel's dead letters; one that is named is created if need be.

    One that is named and has no channel gets one, `LETTERS`, so that its letters can be looked at
    and put back from a shell.

    Raises:
        InvalidOption: the messages cannot be moved there, as far as that can be known; or it is
            named, and the channel's topic has no broker.
        Closed, StoreError: as for `Broker.topic`.
    """
    if given is None:
        return None
    if isinstance(given, str):
        topic: Topic[Any] | None = channel._parent._neighbour(given)
        if topic is None:
            expected = f"a Topic, as topic {channel.topic_name!r} has no broker that knows names"
            raise InvalidOption("dead_letter", given, expected)
        if not topic.channels:
            topic.channel(LETTERS)
    else:
        topic = given
    if topic._monitor is channel._monitor:
        raise InvalidOption("dead_letter", given, "another topic than the channel's")
    if topic._store is not None and not topic._store.keeps(channel._queue.persistence):
        expected = "a topic of the same store as the channel, or of none"
        raise InvalidOption("dead_letter", given, expected)
    return topic
