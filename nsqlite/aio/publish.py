"""Putting, joining and ending with `await`: for asyncio, where a wait must not block.

The rule: the loop is never blocked; what cannot be done at once is done when it can, or given up
without a trace.

Next: worker/__init__.py
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from nsqlite.aio.waiting import Done, TaskWaiter, by_store
from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.clock import NEVER, Alarm, Clock
from nsqlite.errors import InvalidOption
from nsqlite.message import T
from nsqlite.monitor import Monitor
from nsqlite.options import MOST_HANDLED, Seconds, timeout_ns
from nsqlite.topic import AT_ONCE, WAITS_ELSEWHERE, Admitted, Topic, batch_of, size_of
from nsqlite.waiting import Reminders, Waiter, leave, look


@runtime_checkable
class AnyWorker(Protocol):
    """What is known here of a `Worker`."""

    async def _join_async(self, timeout: Seconds | None, *, raise_first: bool) -> bool:
        """See `join`."""
        ...

    async def _drain_async(self, limit: int, *, raise_first: bool) -> int:
        """See `drain`."""
        ...

    async def _stop_async(self, timeout: Seconds) -> None:
        """See `stop`."""
        ...


async def put(
    topic: Topic[T], body: T, delay: Seconds | None = None, timeout: Seconds | None = None
) -> str:
    """Publish a message to every channel; see `Topic.put`.

    It does not suspend, unless a channel is bounded with the policy "wait" and has no room, or a
    store keeps the topic.  For room it stands in line with the puts of threads, first come, first
    served; so one whose loop is stuck holds up those behind it.  The store is written by the
    store's thread.

    Raises:
        InvalidMessage, InvalidOption, Full, Closed, Reentered: as for `Topic.put`.

    Cancellation:
        A cancelled `put` has put nothing anywhere; but one that waited for the store may be put.
    """
    limit = None if timeout is None else timeout_ns(timeout)
    try:
        if not _waits(topic):
            name = topic.put(body, delay, AT_ONCE if limit == 0 else WAITS_ELSEWHERE)
            if name:
                return name
    except AttributeError:
        _require_topic(topic)
        raise
    [name] = await _put_patiently(topic, [body], delay, limit)
    return name


async def put_many(
    topic: Topic[T],
    bodies: Iterable[T],
    *,
    delay: Seconds | None = None,
    timeout: Seconds | None = None,
) -> list[str]:
    """Publish several messages, all of them or none; see `Topic.put_many`.

    Raises:
        InvalidMessage, InvalidOption, Full, Closed: as for `Topic.put_many`.

    Cancellation:
        As for `put`: all of them or none.
    """
    limit = None if timeout is None else timeout_ns(timeout)
    batch = batch_of(bodies, "put_many")
    _require_topic(topic)
    if not (batch and _waits(topic)):
        patience = AT_ONCE if limit == 0 else WAITS_ELSEWHERE
        names = topic.put_many(batch, delay=delay, timeout=patience)
        if names or not batch:
            return names
    return await _put_patiently(topic, batch, delay, limit)


def _require_topic(topic: Any) -> None:
    """Check what is put to.

    Raises:
        InvalidOption: it is no topic.
    """
    if not isinstance(topic, Topic):
        raise InvalidOption("topic", topic, "a Topic")


def _waits(topic: Topic[Any]) -> bool:
    """Return whether a put has to wait for a store."""
    store = topic._store
    return store is not None and (not store.late or store.is_behind())


async def _put_patiently(
    topic: Topic[T], batch: list[T], delay: Seconds | None, limit: int | None
) -> list[str]:
    """Publish bodies when there is room, and wait until they are stored; takes the lock."""
    due = None if delay is None else topic._due(delay)
    store = topic._store
    if store is None:
        records, names = topic._make_records(batch)
        await _admit(topic, records, size_of(batch), due, limit)
        return names
    if store.late and store.is_behind():
        await by_store(store.held.send, store.flush, "put")
    done = Done("put")
    pending = topic._draft(store, batch, done.tell)
    if due is not None or len(batch) > 1 or store.late or not topic._reserve_alone(store, pending):
        await _admit(topic, pending, pending.size, due, limit)
    if pending.queued:
        store.hurry()
        await done.future
    return pending.conclude()


async def _admit(
    topic: Topic[T], records: Admitted[T], size: int, due: int | None, limit: int | None
) -> None:
    """Publish or reserve messages when there is room; takes the lock."""
    if not topic._monitor.run(topic._try, records, size, due, None):
        if limit == 0:
            topic._monitor.run(topic._try_last, records, size, None)
        else:
            await _wait_for_room(topic, records, size, limit)


async def _wait_for_room(
    topic: Topic[T], records: Admitted[T], size: int, limit: int | None
) -> None:
    """Publish records when there is room; takes the lock."""
    monitor = topic._monitor
    begun = topic._now()
    deadline = NEVER if limit is None else begun + limit
    reminders = Reminders(topic._clock, begun)
    alarms: list[Alarm] = []

    def attempt() -> bool:
        if monitor.run(topic._try, records, size, None, waiting):
            return True
        if deadline > reminders.moment <= topic._now():
            reminders.go_on(topic._now())
            monitor.read(topic._tell_of_wait, waiting)
        remind()
        return False

    def remind() -> None:
        """Have the task look again when there is to be told of it; a loop may call too early."""
        call_off()
        if reminders.moment < deadline:
            alarms.append(topic._clock.alarm(waiting.loop, reminders.moment, waiting.wake))

    def call_off() -> None:
        while alarms:
            alarms.pop().cancel()

    def last() -> bool:
        monitor.run(topic._try_last, records, size, waiting)
        return True

    def give_up(waiter: Waiter[T]) -> None:
        call_off()
        monitor.call(topic._fan.leave, waiter)

    waiting: TaskWaiter[T] = TaskWaiter("put", monitor, topic._clock, give_up)
    await waiting.until(attempt, None if limit is None else deadline, last)


async def join(
    what: Topic[Any] | Channel[Any] | Broker | AnyWorker,
    timeout: Seconds | None = None,
    *,
    raise_first: bool = False,
) -> bool:
    """Wait until a topic, a channel, a whole broker or a worker is idle; see their `join`.

    Args:
        what: what to wait for.
        timeout: in seconds; None waits for ever.
        raise_first: of a worker alone: raise the first error of a handler as soon as there is one.

    Returns:
        False if the timeout passed first.

    Raises:
        Closed: it was closed or deleted meanwhile, or the worker stopped before.
        InvalidOption: it is none of these, or the timeout negative or no finite number.
        NotAsyncio: no event loop of asyncio runs here.
        Reentered: called by a handler of the worker.

    Cancellation:
        Nothing has changed.
    """
    if isinstance(what, AnyWorker):
        return await what._join_async(timeout, raise_first=raise_first)
    if raise_first:
        raise InvalidOption("raise_first", raise_first, "False, but for a worker")
    limit = timeout_ns(timeout)
    if not isinstance(what, Broker | Topic | Channel):
        raise InvalidOption("what", what, "a Topic, a Channel, a Broker or a Worker")
    if not isinstance(what, Broker):
        return await _join(what, None if limit is None else what._clock.monotonic_ns() + limit)
    deadline = None if limit is None else what.clock.monotonic_ns() + limit
    while busy := [topic for topic in what.topics.values() if not topic.idle]:
        if not await _join(busy[0], deadline):
            return False
    return True


async def _join(what: Topic[Any] | Channel[Any], deadline: int | None) -> bool:
    over = await join_until(what._monitor, what._clock, what._done, deadline, "aio.join()")
    return what._joined(over)


async def join_until(
    monitor: Monitor, clock: Clock, done: Callable[[], bool], moment: int | None, who: str
) -> bool:
    """Wait like `until`; a clock that has its workers run in the caller has them run first."""
    meanwhile = getattr(clock, "meanwhile_async", None)
    if meanwhile is not None:
        await meanwhile(partial(monitor.run, done), moment, who)
    return await until(monitor, clock, done, moment)


async def until(
    monitor: Monitor, clock: Clock, done: Callable[[], bool], moment: int | None
) -> bool:
    """Wait until a condition is true or a moment has come; `wait_until` with `await`.

    Args:
        monitor: under whose lock `done` is asked, and whose operations wake.
        clock: what the moment is measured by.
        done: the condition; a reading only.
        moment: on the clock's monotonic scale; None never comes.

    Returns:
        What the condition was at last.

    Cancellation:
        Nothing has changed.
    """

    def attempt() -> bool:
        return monitor.run(look, monitor, waiting, done)

    def give_up(waiter: Waiter[Any]) -> None:
        monitor.call(leave, monitor, waiter, done)

    waiting: TaskWaiter[Any] = TaskWaiter("join", monitor, clock, give_up)
    return await waiting.until(attempt, moment, partial(monitor.run, done))


async def drain(worker: AnyWorker, limit: int = MOST_HANDLED, *, raise_first: bool = False) -> int:
    """Call a worker's handler with all messages that are ready, here and now; see `Worker.drain`.

    A coroutine function runs in this loop, in a task of its own for each message, one at a time; a
    plain function is called by the loop's thread.

    Returns:
        How many messages were handled.

    Raises:
        InvalidOption: it is no worker, or the limit no whole number of at least 1.
        NotAsyncio: the handler is a coroutine function, and no event loop of asyncio runs here.
        StillBusy, Closed, TooManyConsumers, Reentered, BaseException: as for `Worker.drain`.

    Cancellation:
        The handler is cancelled, and its message goes back, its attempts as before.
    """
    if not isinstance(worker, AnyWorker):
        raise InvalidOption("worker", worker, "a Worker")
    return await worker._drain_async(limit, raise_first=raise_first)


async def stop(worker: AnyWorker, timeout: Seconds = 30.0) -> None:
    """Stop a worker like `Worker.stop`, and let the loop go on until it has ended.

    Awaited by one of its handlers it does not wait.

    Raises:
        InvalidOption: it is no worker, or the timeout negative or no finite number; nothing has
            changed.
        NotAsyncio: it has to wait, and no event loop of asyncio runs here.

    Cancellation:
        The rest is immediate.
    """
    if not isinstance(worker, AnyWorker):
        raise InvalidOption("worker", worker, "a Worker")
    await worker._stop_async(timeout)


async def flush(broker: Broker) -> None:
    """Have all that happened so far written to the store, if there is one; see `Broker.flush`.

    It is the store's thread that writes.

    Raises:
        StoreError: it could not be written; it is tried again.
        Closed: the broker is closed.
        InvalidOption: it is no broker.
        NotAsyncio: there is a store, and no event loop of asyncio runs here.

    Cancellation:
        It is written all the same.
    """
    _require_broker(broker)
    if broker._persistence is not None:
        await broker._persistence.run(broker.flush, "flush")


async def close(broker: Broker, *, drain: bool = False, force: bool = False) -> int:
    """Close a broker like `Broker.close`; the store's thread does it if there is a store.

    So observers hear of it in that thread.  `async with broker` ends in this.

    Raises:
        StoreError: something cannot be written.  Nothing is closed; see `Broker.close`.
        InvalidOption: it is no broker.
        NotAsyncio: there is a store, and no event loop of asyncio runs here.

    Cancellation:
        It is closed all the same, soon; what cannot be written is told by `Broker.health`.
    """
    _require_broker(broker)
    return await broker._close_async(drain=drain, force=force)


def _require_broker(broker: Any) -> None:
    """Check what is flushed or closed.

    Raises:
        InvalidOption: it is no broker.
    """
    if not isinstance(broker, Broker):
        raise InvalidOption("broker", broker, "a Broker")
