"""When a message whose handler failed is tried again, and when it is given up.

The rule: the failed message waits, longer each time, and the others go on; only with a `backoff`,
as NSQ's clients have it, does the whole worker slow down.

Next: worker/failure.py
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Final, Self, TypeAlias

import attrs

from nsqlite.errors import InvalidOption
from nsqlite.message import Message
from nsqlite.options import LONGEST, Seconds, as_seconds, nanoseconds, whole
from nsqlite.worker.backoff import Backoff, check_seed
from nsqlite.worker.handler import is_plain

log: Final = logging.getLogger("nsqlite")

Delay: TypeAlias = Callable[[Message[Any], BaseException], Seconds | None]
"""Says in how many seconds a message is tried again after an error; None to give it up."""

MOST_FACTOR: Final = 1000.0
LONGEST_PAUSE: Final = 60.0
"""Seconds after which at the latest something that failed for no fault of the handler is tried
again."""


def _fixed(delay: Seconds | Delay) -> float | Delay:
    """Return a delay that is a time as seconds."""
    return delay if callable(delay) else as_seconds(delay)


@attrs.frozen(kw_only=True)
class Retry:
    """When a failed message is tried again; `Worker(..., retry=Retry(...))`.

        >>> Retry(max_attempts=3, delay=0.5, give_up_on=(ValueError,)).max_attempts
        3

    With a function as `delay` all is up to it, but for `max_attempts` and `give_up_on`:

        Retry(delay=lambda message, error: getattr(error, "retry_after", 5.0))

    Attributes:
        max_attempts: after how many attempts a message is given up, 0 for never; 0 to 65535.
        delay: seconds before the second attempt; or a plain function of the message and the error
            that returns the seconds, or None to give the message up.
        factor: how many times longer each delay is than the one before, 1 to 1000; None for delays
            of 1, 2, 3 times `delay`.
        max_delay: the longest delay in seconds.  What is more than the channel's `max_req_timeout`
            counts as that.
        jitter: wait a random part of the delay, so that what failed together does not come back
            together.
        give_up_on: exceptions after which a message is given up at once.
        backoff: how the whole worker slows down when handlers fail; None for not at all.
        seed: makes the jitter repeatable; None for one that is not.

    Raises:
        InvalidOption: one of them is of the wrong kind or out of its range.
    """

    max_attempts: int = 5
    delay: float | Delay = attrs.field(default=1.0, converter=_fixed)
    factor: float | None = 2.0
    max_delay: float = attrs.field(default=900.0, converter=as_seconds)
    jitter: bool = True
    give_up_on: type[Exception] | tuple[type[Exception], ...] = ()
    backoff: Backoff | None = None
    seed: int | None = None

    def __attrs_post_init__(self) -> None:
        """Check the values."""
        whole("max_attempts", self.max_attempts, 0, 65535)
        nanoseconds("max_delay", self.max_delay)
        _check_delay(self.delay)
        _check_factor(self.factor)
        _check_kinds(self.give_up_on)
        _check_rest(self)

    @classmethod
    def nsq(
        cls,
        *,
        max_attempts: int = 5,
        requeue_delay: Seconds = 90.0,
        max_requeue_delay: Seconds = 900.0,
        backoff: Backoff | None = Backoff(),  # noqa: B008 - a frozen value
    ) -> Self:
        """Return what NSQ's clients do, with their names and defaults (NSQ client §5).

        A message waits 90 s for each attempt that it had, and the whole worker backs off.  They
        never touch a message by themselves: that is `Worker(..., auto_touch=False)`.
        """
        nanoseconds("requeue_delay", requeue_delay, 0, 3600)
        nanoseconds("max_requeue_delay", max_requeue_delay, 0, 3600)
        return cls(
            max_attempts=max_attempts,
            delay=requeue_delay,
            factor=None,
            max_delay=max_requeue_delay,
            jitter=False,
            backoff=backoff,
        )


def _check_delay(delay: object) -> None:
    if not callable(delay):
        nanoseconds("delay", delay)
    elif not is_plain(delay, 2):
        raise InvalidOption("delay", delay, "seconds, or a plain function of a message and error")


def _check_factor(factor: object) -> None:
    is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
    if factor is not None and not (is_number and 1 <= factor <= MOST_FACTOR):  # type: ignore[operator]  # a number
        raise InvalidOption("factor", factor, f"a number from 1 to {MOST_FACTOR:g}, or None")


def _check_kinds(kinds: object) -> None:
    several = kinds if isinstance(kinds, tuple) else (kinds,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in several):
        raise InvalidOption("give_up_on", kinds, "a subclass of Exception, or a tuple of them")


def _check_rest(retry: Any) -> None:
    if not isinstance(retry.jitter, bool):
        raise InvalidOption("jitter", retry.jitter, "True or False")
    if retry.backoff is not None and not isinstance(retry.backoff, Backoff):
        raise InvalidOption("backoff", retry.backoff, "a Backoff or None")
    check_seed(retry.seed)


class Delays:
    """The delays of one worker's retries.

    Threads: any.
    """

    __slots__ = ("_name", "_random", "_retry")

    def __init__(self, name: str, retry: Retry) -> None:
        """Begin the jitter anew.

        Args:
            name: the worker's, for the log.
            retry: what it was told.
        """
        self._name: Final = name
        self._retry: Final = retry
        self._random: Final = Random(retry.seed)  # noqa: S311 - it spreads work, it hides nothing

    def after(self, message: Message[Any], error: BaseException) -> float | None:
        """Return in how many seconds a failed message is tried again; None to give it up."""
        if isinstance(error, self._retry.give_up_on) or self.is_last(message):
            return None
        return self.of(message, error)

    def is_last(self, message: Message[Any]) -> bool:
        """Return whether a message has had all its attempts."""
        return 0 < self._retry.max_attempts <= message.attempts

    def of(self, message: Message[Any], error: BaseException) -> float | None:
        """Return what `delay` says, whatever the number of attempts."""
        delay = self._retry.delay
        if not callable(delay):
            return self._grown(delay, message.attempts)
        try:
            wanted = delay(message, error)
            if wanted is None:
                return None
            nanoseconds("delay", wanted)
        except Exception:
            fallback = self._grown(1.0, message.attempts)
            log.exception(
                "%s: the function `delay` of its Retry failed on message %s, tried again in %g s",
                self._name,
                message.id,
                fallback,
            )
            return fallback
        return as_seconds(wanted)

    def until_move(self, message: Message[Any]) -> float:
        """Return in how many seconds to try again to move a message that was given up."""
        late = max(0, message.attempts - max(1, self._retry.max_attempts))
        return min(2.0 ** min(late, 10), LONGEST_PAUSE)

    def _grown(self, delay: float, attempts: int) -> float:
        """Return the delay after so many attempts."""
        retry = self._retry
        if not delay:
            return 0.0
        longest = float(min(retry.max_delay, LONGEST))
        with suppress(OverflowError):  # else it is beyond the longest
            grown = float(min(delay, LONGEST))
            power = attempts if retry.factor is None else float(retry.factor) ** (attempts - 1)
            longest = min(grown * power, longest)
        return self._random.random() * longest if retry.jitter else longest
