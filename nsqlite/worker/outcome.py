"""What a handler can decide about its message, beside success and failure.

The rule: each is raised or returned, as the handler likes, and means the same.

    returns anything else    finish it
    raises anything else     try it again later; or give it up
    Requeue                  requeue it, as it says
    Drop                     finish it, though its work was not done
    TakeOver                 leave it in flight: somebody answers it later

Next: worker/deadletter.py
"""

from nsqlite.errors import InvalidOption
from nsqlite.options import LONGEST, Seconds, as_seconds, nanoseconds


class Outcome(Exception):
    """The base of what a handler can decide; raised or returned."""


class Requeue(Outcome):
    """Deliver the message again.

    Args:
        delay: seconds until then; None for the worker's usual delay.
        backoff: whether a worker that has a `backoff` is to slow down.
        counted: whether this delivery counts as an attempt.  False is for "not yet": however often
            a message is put off like that, it is not given up for it.

    Raises:
        InvalidOption: the delay is negative or no finite number, or one of the others no bool.
    """

    def __init__(
        self, delay: Seconds | None = None, *, backoff: bool = True, counted: bool = True
    ) -> None:
        if delay is not None:
            nanoseconds("delay", delay)
            delay = as_seconds(delay)
        super().__init__(delay)
        if not isinstance(backoff, bool):
            raise InvalidOption("backoff", backoff, "True or False")
        if not isinstance(counted, bool):
            raise InvalidOption("counted", counted, "True or False")
        self.delay = delay
        self.backoff = backoff
        self.counted = counted

    def __str__(self) -> str:
        return "requeue" if self.delay is None else f"requeue after {min(self.delay, LONGEST):g} s"


class Drop(Outcome):
    """Finish the message although its work was not done.

    Args:
        reason: for the log.

    Raises:
        InvalidOption: the reason is no str.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        if not isinstance(reason, str):
            raise InvalidOption("reason", reason, "a str")
        self.reason = reason

    def __str__(self) -> str:
        return f"drop: {self.reason}" if self.reason else "drop"


class TakeOver(Outcome):
    """Leave the message in flight: the handler has passed it on, and it is answered elsewhere.

    It counts in the worker's window until then, of one message while the worker is backing off; and
    it times out if nobody answers within `msg_timeout`, which begins now, or with
    `auto_touch=False` when it was delivered.
    """

    def __str__(self) -> str:
        return "take over"
