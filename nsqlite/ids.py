"""Message ids in NSQ's form, made without waiting (NSQ semantics §4).

The rule: a factory never gives an id twice, whatever the wall's clock does, and never waits.

An id is 63 bits in 16 hex characters: 41 bits of time in ticks of 1.05 ms, 10 bits of node, 12 of
sequence; so it is a positive number of 64 bits.  The first 13 characters stay the same for a tick
and the last 3 are the sequence: an id costs a list look-up, and a waiting message keeps two shared
strings instead of one of its own.

A broker has one factory.  A topic takes its ids from it in blocks of 256, so that two topics
never meet and seldom need the factory's lock.  Where nsqd would sleep (a tick is used up, the clock
stands or went back) the factory takes the next tick.  A clock that shows a time without ids is an
error, told when the next block is taken.

Next: events.py
"""

from collections.abc import Sequence
from functools import cache
from typing import Final

from nsqlite.errors import ClockOutOfRange, InvalidMessage, shown
from nsqlite.lock import make_lock
from nsqlite.options import SECOND

EPOCH: Final = 1288834974288
"""Where NSQ's ticks begin, counted from 1970 in ticks of 2**20 ns."""

TICKS: Final = 1 << 41
"""The ticks that an id can tell apart: 73 years of them."""

LENGTH: Final = 16
DIGITS: Final = "0123456789abcdef"
"""An id has so many of these characters."""

BLOCK: Final = 256
"""How many ids a topic takes at a time."""

BLOCKS: Final = 4096 // BLOCK
"""How many such blocks a tick has."""

END: Final = TICKS * BLOCKS
"""How many blocks there are since the epoch."""


def _out_of_range(now: int) -> ClockOutOfRange:
    """Return the error for a time without ids, or for which they are used up."""
    end = (TICKS + EPOCH) << 20
    limit = f"{end // SECOND} s (in November 2085)"
    if now < 0:
        problem = "but message ids begin at 0: set it right"
    elif now >= end:
        problem = f"but message ids end at {limit}: set it right"
    else:
        problem = f"but it has been beyond {limit} before, where message ids end: begin a new store"
    return ClockOutOfRange(now / SECOND, problem)


def checked_id(given: object) -> str:
    """Return an id that was given.

    Raises:
        InvalidMessage: it is none.
    """
    if isinstance(given, str) and len(given) == LENGTH and not given.strip(DIGITS):
        return given
    raise InvalidMessage(f"expected an id of 16 hex characters (0-9, a-f), not {shown(given)}")


@cache
def _suffixes(part: int) -> list[str]:
    """Return the last 3 characters of the ids of a tick's block."""
    return [f"{number:03x}" for number in range(part * BLOCK, (part + 1) * BLOCK)]


class GuidFactory:
    """Gives blocks of ids, each once.

    Threads: any.  Nothing is called and no container is made while its lock is held, so no signal
    handler and no destructor can come in between.
    """

    __slots__ = ("_lock", "_next", "_node_id")

    def __init__(self, node_id: int) -> None:
        """Make a factory for a node.

        Args:
            node_id: 0 to 1023.
        """
        self._node_id = node_id
        self._next = 0  # in blocks since the epoch; guarded by the lock
        self._lock = make_lock(rank=2)

    def start_after(self, identity: int) -> None:
        """Give no id up to one that was given before, by another factory.

        Args:
            identity: the number that the id's 16 characters are.
        """
        block = ((identity >> 22) + 1) * BLOCKS
        with self._lock:
            if self._next < block:  # noqa: PLR1730 - see the class: no call here
                self._next = block

    def block(self, now: int) -> tuple[str, list[str], int]:
        """Take a block of the tick of `now`, or of the first later one that is free.

        Args:
            now: the wall's time in nanoseconds.

        Returns:
            The 13 characters that its ids share, their endings, and the wall's time until which
            the block's tick lasts.

        Raises:
            ClockOutOfRange: `now` is before 1970, or there are no ids left; none was taken.
        """
        block = ((now >> 20) - EPOCH) * BLOCKS
        with self._lock:
            if block < self._next:  # noqa: PLR1730 - see the class: no call here
                block = self._next
            if now >= 0 and block < END:
                self._next = block + 1
        if now < 0 or block >= END:
            raise _out_of_range(now)
        tick = block // BLOCKS
        prefix = "%013x" % (tick << 10 | self._node_id)  # twice as fast as an f-string
        return prefix, _suffixes(block % BLOCKS), (tick + 1 + EPOCH) << 20


class Ids:
    """A topic's ids: what is left of its block.

    `Topic.put` has the lines of `take` in place, since a call would cost it a twentieth.

    Threads: one at a time, under the topic's lock.

    Attributes:
        prefix: the 13 characters that the ids of the block share.
        suffixes: their endings.
        until: the wall's time until which the block's tick lasts.
        used: how many of them were taken.
    """

    __slots__ = ("_factory", "prefix", "suffixes", "until", "used")

    def __init__(self, factory: GuidFactory) -> None:
        """Begin without a block."""
        self._factory = factory
        self.prefix: str = ""
        self.suffixes: Sequence[str] = ()
        self.used: int = BLOCK
        self.until: int = 0

    def renew(self, now: int, used: int = 0) -> tuple[str, str]:
        """Take a new block, for a new tick or because the old one is used up.

        Args:
            now: the wall's time in nanoseconds.
            used: how many of its ids the caller takes.

        Returns:
            The two parts of its first id.

        Raises:
            ClockOutOfRange: see `GuidFactory.block`; the old block is kept.
        """
        prefix, suffixes, until = self._factory.block(now)
        self.prefix = prefix
        self.suffixes = suffixes
        self.until = until
        self.used = used
        return prefix, suffixes[0]

    def take(self, now: int) -> tuple[str, str]:
        """Return the two parts of the next id."""
        if now >= self.until or self.used >= BLOCK:
            return self.renew(now, 1)
        used = self.used
        self.used = used + 1
        return self.prefix, self.suffixes[used]
