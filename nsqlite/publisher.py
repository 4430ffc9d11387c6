"""Publishing: put and put_many, their ids, and the wait for room.

The rule: a put that raised has put nothing anywhere, and one that returned is accepted for ever.

A put makes its calls first (the clock, an id), then looks whether all is calm, and then appends the
record to its channels' queues.  Whatever is not calm - a bound, a waiter, an observer, a pause -
takes the long way through fanout.py.

Next: topiccore.py
"""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import repeat
from typing import ClassVar, Final, Generic

from nsqlite.clock import Clock
from nsqlite.errors import Closed, InvalidMessage, Reentered
from nsqlite.fanout import FanOut
from nsqlite.flow import Moved
from nsqlite.guard import Guard
from nsqlite.guid import BLOCK, GuidFactory, Ids
from nsqlite.lock import insist
from nsqlite.message import Record, T
from nsqlite.options import Options, seconds, timeout_ns
from nsqlite.unique import Unique
from nsqlite.waiter import Waiter

AT_ONCE: Final = 0.0
"""The timeout of a put that never waits; this very object does not keep it from the short path."""


class Publisher(Unique, Generic[T]):
    """The side of a topic that takes messages.

    Attributes:
        name: the topic's name.
        options: what holds for it.
    """

    kept: ClassVar = False
    """Whether a store keeps it."""

    __slots__ = (
        "_bytes",
        "_clock",
        "_draining",
        "_fan",
        "_guard",
        "_ids",
        "_lock",
        "_longest_delay",
        "_max_size",
        "_now",
        "_over",
        "_unused",
        "_wall",
        "name",
        "options",
    )

    def __init__(self, name: str, options: Options, clock: Clock, factory: GuidFactory) -> None:
        """Begin open, without channels; `Topic` is what users make."""
        self.name: Final = name
        self.options: Final = options
        self._clock: Final = clock
        self._wall: Final = clock.time_ns
        self._now: Final = clock.monotonic_ns
        self._ids: Final = Ids(factory)
        self._guard: Final = Guard()
        self._lock: Final = self._guard.lock
        self._longest_delay: Final = options.max_req_timeout
        self._max_size: Final = options.max_msg_size
        self._fan: Final = self._make_fan()
        self._bytes = 0  # the sum of the lengths of the bytes bodies accepted
        self._unused = 0  # ids taken for messages that were not, or not yet, accepted
        self._draining = False
        self._over: str | None = None

    def _make_fan(self) -> FanOut[T]:
        """Return what hands the messages on."""
        return FanOut(self.name, self.options, self._clock, self._guard)

    def put(self, body: T, delay: float | None = None, timeout: float | None = None) -> str:
        """Publish a message to every channel.

        It never waits, unless a channel is bounded with the policy "wait" and has no room.  Name
        the options: they are not keyword-only for CPython's sake, which so saves 4 % of put, get
        and fin.

        Args:
            body: any object; see the class.
            delay: seconds until it is delivered, from now on, at most `max_req_timeout`.  A
                deferred message needs no room.
            timeout: seconds to wait for room; None waits for ever, 0 not at all.

        Returns:
            The message's id, 16 hex characters.

        Raises:
            InvalidMessage: a bytes body is empty or too large; nothing has changed.
            InvalidOption: the delay or timeout is out of its range; nothing has changed.
            Full: a bounded channel has no room; nothing was put anywhere.
            Closed: the topic is closed or deleted; nothing has changed.
            Reentered: called inside another call on a topic with a bounded channel.

        Complexity: O(channels).
        """
        if body.__class__ is bytes:
            size = len(body)  # type: ignore[arg-type]  # bytes, as the line above found
            if not size or size > self._max_size:
                raise self._bad_size(size, None)
        else:
            size = self._size(body, None)
        guard = self._guard
        ids = self._ids
        try:
            with self._lock:
                now = self._wall()
                if now >= ids.until or ids.used == BLOCK:
                    ids.renew(now)
                used = ids.used
                ids.used = used + 1
                prefix = ids.prefix
                suffix = ids.suffixes[used]
                record = (body, now, prefix, suffix, 0)
                push = guard.push
                if push is not None and delay is None and (timeout is None or timeout is AT_ONCE):
                    self._bytes += size
                    push(record)
                    if not guard.wary:
                        return prefix + suffix
                    handed = True
                else:
                    handed = False
                    self._unused += 1
        except BaseException:
            if guard.broken or guard.rung:  # a signal struck while the record was handed on
                insist(guard.settle)
            raise
        if handed:
            insist(guard.settle)
        else:
            self._send([record], size, delay, timeout)
        return prefix + suffix

    def put_many(
        self, bodies: Iterable[T], *, delay: float | None = None, timeout: float | None = None
    ) -> list[str]:
        """Publish several messages: all of them or none.

        Args:
            bodies: any objects; see the class.
            delay: as for `put`, the same for all.
            timeout: as for `put`, for the whole batch.

        Returns:
            Their ids, in the order of the bodies.

        Raises:
            InvalidMessage: a bytes body, whose `index` it names, is empty or too large, or there is
                one body instead of several; nothing has changed.
            InvalidOption: the delay or timeout is out of its range; nothing has changed.
            Full: a bounded channel has no room for all, or could never have; nothing was put.
            Closed: the topic is closed or deleted; nothing has changed.
            Reentered: called inside another call on a topic with a bounded channel.
        """
        batch = batch_of(bodies)
        if not batch:
            if not self._is_open:
                raise self._closed()
            return []
        size = 0
        largest = self._max_size
        for body in batch:
            if body.__class__ is bytes:
                length = len(body)  # type: ignore[arg-type]  # bytes, as the line above found
                if not length or length > largest:
                    raise self._bad_size(length, index_of(batch, body))
                size += length
            elif isinstance(body, bytes):
                size += self._size(body, index_of(batch, body))
        records, names = self._mint(batch)
        self._send(records, size, delay, timeout)
        return names

    def draft(
        self,
        bodies: list[T],
        told: Callable[[], object],  # noqa: ARG002 - for a topic that a store keeps
    ) -> tuple[list[Record[T]], int, Callable[[], list[str]]]:
        """Return what `_send` takes for bodies that were checked; for who must not block.

        Args:
            bodies: the bodies.
            told: called when it is done, by any thread, if `hurry` says that it will be.

        Returns:
            The records, the sum of their lengths, and what then returns their ids, or raises why
            they were not put.
        """
        records, names = self._mint(bodies)
        size = sum(len(body) for body in bodies if isinstance(body, bytes))
        return records, size, lambda: names

    def waits(self) -> bool:
        """Return whether a put has to wait for a store."""
        return False

    def lags(self) -> bool:
        """Return whether `catch_up` is to be called before more is put."""
        return False

    def catch_up(self) -> None:
        """Have written and read, by the store's thread, what must be before more is put."""

    def hurry(self) -> bool:
        """Have what was sent stored soon; return whether that will be told."""
        return False

    def _size(self, body: T, index: int | None) -> int:
        """Check a body that is not plainly bytes; needs no lock."""
        if not isinstance(body, bytes):
            return 0
        if not 0 < len(body) <= self._max_size:
            raise self._bad_size(len(body), index)
        return len(body)

    def _bad_size(self, size: int, index: int | None) -> InvalidMessage:
        if size == 0:
            return InvalidMessage("the body is empty: NSQ takes 1 byte or more", index)
        limit = self._max_size
        return InvalidMessage(f"the body has {size} bytes, max_msg_size is {limit}", index)

    def _mint(self, batch: list[T]) -> tuple[list[Record[T]], list[str]]:
        """Make records and ids for a batch; takes the lock."""
        records: list[Record[T]] = []
        names: list[str] = []
        with self._lock:
            self._mint_into(records, names, batch)
        return records, names

    def _mint_into(self, records: list[Record[T]], names: list[str], batch: list[T]) -> None:
        ids = self._ids
        now = self._wall()
        while (left := len(batch) - len(records)) > 0:
            if now >= ids.until or ids.used == BLOCK:
                ids.renew(now)
            used = ids.used
            end = used + left
            if end > BLOCK:  # noqa: PLR1730 - a call here could let a nested put take the same ids
                end = BLOCK
            ids.used = end
            self._unused += end - used
            prefix = ids.prefix
            suffixes = ids.suffixes[used:end]
            part = batch[len(records) : len(records) + len(suffixes)]
            records += zip(part, repeat(now), repeat(prefix), suffixes, repeat(0), strict=False)
            names += [prefix + suffix for suffix in suffixes]

    def _send(
        self, records: list[Record[T]], size: int, delay: float | None, timeout: float | None
    ) -> None:
        """Publish records, waiting for room if need be; takes the lock."""
        limit = timeout_ns(timeout)
        due = None
        if delay is not None:
            wait = seconds("delay", delay, 0, self._longest_delay)
            due = self._now() + wait if wait else None
        guard = self._guard
        if guard.busy and self._lock.owned():
            if not self._is_open:
                raise self._closed()
            if self._fan.is_bounded():
                raise Reentered("put")
            guard.put_off(lambda: self._try(records, size, due, None))
        elif not guard.run(self._try, records, size, due, None):
            self._send_patiently(records, size, limit)

    def _send_patiently(self, records: list[Record[T]], size: int, limit: int | None) -> None:
        """Publish records when there is room; takes the lock."""
        guard = self._guard
        guard.require_free("put")
        waiter: Waiter[T] = Waiter()
        try:
            self._try_until(records, size, limit, waiter)
        finally:
            insist(partial(guard.run, self._fan.leave, waiter))

    def _try_until(
        self, records: list[Record[T]], size: int, limit: int | None, waiter: Waiter[T]
    ) -> None:
        guard = self._guard
        deadline = None if limit is None else self._now() + limit
        who = f"put() to topic {self.name!r}"
        while not guard.run(self._try, records, size, None, waiter):
            left = None if deadline is None else deadline - self._now()
            if (left is not None and left <= 0) or not self._clock.wait(waiter.bell, left, who):
                guard.run(self._try_last, records, size, waiter)
                return

    def _try(
        self, records: list[Record[T]], size: int, due: int | None, waiter: Waiter[T] | None
    ) -> bool:
        """Publish if there is room; else line the waiter up and return False."""
        if waiter is not None:
            waiter.listen()
        self._require_open()
        if due is None and self._fan.judge(len(records), waiter) is not None:
            if waiter is not None:
                self._fan.wait(waiter, len(records))
            return False
        self._admit(records, size, due)
        return True

    def _try_last(
        self,
        records: list[Record[T]],
        size: int,
        waiter: Waiter[T] | None,
        moved: Moved | None = None,
    ) -> None:
        """Publish if there is room; raise `Full` otherwise."""
        self._require_open()
        full = self._fan.judge(len(records), waiter)
        try:
            if full is not None:
                raise self._guard.refuse(full)
        finally:
            del full  # it knows this frame
        self._admit(records, size, None, moved)

    def _admit(
        self, records: list[Record[T]], size: int, due: int | None, moved: Moved | None = None
    ) -> None:
        """Take messages that were judged, out of the list: made twice, it takes them once."""
        fan = self._fan
        count = len(records)
        plan = fan.plan(records, due)
        # One piece, up to the call that follows: it is put, and `complete` brings it everywhere.
        self._unused -= count
        self._bytes += size
        fan.kept += plan.kept
        fan.records = plan.records
        fan.rest = plan.rest
        fan.later = plan if plan.deferrals else None
        if moved is not None:
            moved[0].leaving = moved[1]
        records.clear()
        fan.complete()
        for flow in plan.targets:
            flow.accepted(len(plan.records))

    def mint(self, body: T) -> tuple[Record[T], str]:
        """Check a body, and return a record of it and its id; takes the lock.

        Raises:
            InvalidMessage: see `put`.
        """
        self._size(body, None)
        [record], [name] = self._mint([body])
        return record, name

    def prepare(self, body: T, moved: Moved) -> tuple[Callable[[], None], Callable[[], str]]:
        """Return what publishes a body under the lock, and what then returns its id; for a move.

        Whatever strikes then, the messages that are moved leave their channel if the body is put.

        Raises:
            InvalidMessage: see `put`.
        """
        record, name = self.mint(body)
        size = self._size(body, None)
        return lambda: self._try_last([record], size, None, moved), lambda: name

    def _accepted_count(self) -> int:
        """Return how many messages were accepted so far."""
        return self._ids.taken() - self._unused

    @property
    def _is_open(self) -> bool:
        return self._over is None and not self._draining

    def _closed(self) -> Closed:
        return Closed(f"topic {self.name!r}", self._over or "closed")

    def _require_open(self) -> None:
        if not self._is_open:
            raise self._guard.refuse(self._closed())


def batch_of(bodies: Iterable[T]) -> list[T]:
    """Return several bodies as a list.

    Raises:
        InvalidMessage: they are not several.
    """
    if isinstance(bodies, bytes | bytearray | str) or not isinstance(bodies, Iterable):
        given = type(bodies).__name__
        raise InvalidMessage(f"put_many takes several bodies, not one {given}: use put")
    return list(bodies)


def index_of(batch: list[T], body: T) -> int:
    """Return where in a batch an object is."""
    return next(index for index, other in enumerate(batch) if other is body)
