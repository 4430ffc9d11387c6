"""What the tests of workers use: a clock that tells, consumers that note, handlers that wait."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from helpers import PATIENCE

from nsqlite import Channel, Consumer, Event, Kind, Message, Retry, Topic, aio
from nsqlite.clock import Alarm, Loop
from nsqlite.consumer import SAME, AnyConsumer
from nsqlite.options import SECOND, Seconds, as_seconds
from nsqlite.testing import ManualClock
from nsqlite.testing.manualclock import _Sleep
from nsqlite.worker import Handler, Worker

KINDS: Final = ("plain", "coroutine")
"""The two kinds of handlers, for tests of what both do."""


class Failure(Exception):
    """What a handler raises on purpose."""


class Disaster(BaseException):
    """What no handler should raise."""


class Clock(ManualClock):
    """A manual clock that tells who sleeps on it and until when."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._sleepers: list[tuple[str, int]] = []
        self._told = threading.Condition()

    def _stand(self, sleep: _Sleep) -> bool:
        self._tell(sleep.who, sleep.due)
        return super()._stand(sleep)

    def alarm(self, loop: Loop, moment: int, callback: Callable[[], object]) -> Alarm:
        alarm = super().alarm(loop, moment, callback)
        self._tell("an event loop", moment)
        return alarm

    def _tell(self, who: str, due: int) -> None:
        with self._told:
            self._sleepers.append((who, due))
            self._told.notify_all()

    def until_waiting(self, who: str, count: int = 1) -> None:
        """Return when somebody of these words has begun to sleep, so many times."""
        self._until(lambda: sum(who in other for other, _ in self._sleepers) >= count)

    def until_supervised(self, moment: float) -> None:
        """Return when a worker's supervisor, thread or task, sleeps to a moment."""
        due = round(moment * SECOND)
        known = {("the supervisor of a worker", due), ("an event loop", due)}
        self._until(lambda: not known.isdisjoint(self._sleepers))

    def _until(self, done: Callable[[], bool]) -> None:
        with self._told:
            assert self._told.wait_for(done, PATIENCE), self._sleepers


class Watch:
    """An observer that lets the test wait for events."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __call__(self, event: Event) -> None:
        self._events.put(event)

    def until(self, kind: Kind) -> Event:
        """Return the next event of a kind; those before it are forgotten."""
        while (event := self._events.get(timeout=PATIENCE)).kind is not kind:
            pass
        return event


class Noting(AnyConsumer[Any]):
    """A consumer that notes its calls, for the test to read them in their order.

    Attributes:
        changes: of windows it notes those alone that differ from the one before: of two threads
            that set one, the first may set again what the second has set.
    """

    changes: bool
    _calls: queue.SimpleQueue[str]
    _last: int | None
    _noting: threading.Lock

    def begin(self, window: int) -> None:
        """Note the window that it begins with."""
        self.changes = False
        self._calls = queue.SimpleQueue()
        self._calls.put(f"RDY {window}")
        self._last = window
        self._noting = threading.Lock()

    def noted(self, count: int) -> list[str]:
        """Return the next calls, so many."""
        return [self._calls.get(timeout=PATIENCE) for _ in range(count)]

    def rest(self) -> list[str]:
        """Return the calls that nobody has read yet."""
        return self.noted(self._calls.qsize())

    def rdy(self, max_in_flight: int | None) -> None:
        with self._noting:
            if max_in_flight != self._last or not self.changes:
                self._calls.put(f"RDY {max_in_flight}")
            self._last = max_in_flight
        super().rdy(max_in_flight)

    def fin(self, message: Message[Any]) -> None:
        self._calls.put("FIN")
        super().fin(message)

    def req(self, message: Message[Any], delay: Seconds = 0) -> None:
        self._calls.put(f"REQ {as_seconds(delay):g}")
        super().req(message, delay)

    def touch(self, message: Message[Any]) -> None:
        self._calls.put("TOUCH")
        super().touch(message)

    def move(self, message: Message[Any], to: Topic[Any] | Channel[Any], body: Any = SAME) -> str:
        self._calls.put("MOVE")
        return super().move(message, to, body)


class NotingConsumer(Noting, Consumer[Any]):
    """A consumer for threads that notes its calls."""

    def __init__(self, channel: Channel[Any], window: int) -> None:
        self.begin(window)
        super().__init__(channel, max_in_flight=window)


class NotingAsync(Noting, aio.Consumer[Any]):
    """A consumer for tasks that notes its calls."""

    def __init__(self, channel: Channel[Any], window: int) -> None:
        self.begin(window)
        super().__init__(channel, max_in_flight=window)


class Hold:
    """Where handlers stay until the test lets them go; says who has come."""

    def __init__(self) -> None:
        self._come: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._free = threading.Event()
        self._waits: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def begun(self, count: int) -> list[Any]:
        """Return the bodies of the next messages that have come, so many."""
        return [self._come.get(timeout=PATIENCE) for _ in range(count)]

    def nobody(self) -> bool:
        """Return whether nobody has come of whom `begun` has not told."""
        return self._come.empty()

    def let_go(self) -> None:
        """Let all go on who are here or come."""
        self._free.set()
        for loop, event in self._waits:
            with contextlib.suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(event.set)

    def stay(self, message: Message[Any]) -> None:
        """Wait in a thread."""
        self._come.put(message.body)
        assert self._free.wait(PATIENCE), "nobody let it go"

    async def stay_async(self, message: Message[Any]) -> None:
        """Wait in a task."""
        event = asyncio.Event()
        self._waits.append((asyncio.get_running_loop(), event))
        self._come.put(message.body)
        if not self._free.is_set():
            await asyncio.wait_for(event.wait(), PATIENCE)

    def handler(self, kind: str) -> Handler:
        """Return a handler of a kind that stays here."""
        return self.stay if kind == "plain" else self.stay_async


def of_kind(kind: str, work: Callable[[Message[Any]], Any]) -> Handler:
    """Return a handler of a kind that does what a plain function does."""
    if kind == "plain":
        return work

    async def handle(message: Message[Any]) -> Any:
        return work(message)

    handle.__qualname__ = work.__qualname__
    return handle


def failing(message: Message[Any]) -> None:
    """Fail on every message."""
    raise Failure(message.body)


def nothing(_message: Message[Any]) -> None:
    """Succeed on every message."""


def as_nsq(options: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's options, those of `Retry.nsq` among them, for one that does as NSQ's do.

    What is measured against NSQ's clients is tried with these; with `retry` nothing is changed.
    """
    if "retry" in options:
        return options
    names = ("max_attempts", "requeue_delay", "max_requeue_delay", "backoff")
    chosen = {name: options[name] for name in names if name in options}
    rest = {name: option for name, option in options.items() if name not in names}
    return {"auto_touch": False, **rest, "retry": Retry.nsq(**chosen)}


def plan_of(channel: Channel[Any], handler: Handler = nothing, **options: Any) -> Any:
    """Return the plan of a worker with these options; see `as_nsq`."""
    return Worker(channel, handler, **as_nsq(options))._plan


class OneThread:
    """A channel, a worker's plan for it and a consumer that notes, for tests in one thread."""

    def __init__(self, options: dict[str, Any] | None = None, **plan: Any) -> None:
        self.clock = ManualClock()
        self.topic: Topic[Any] = Topic("orders", clock=self.clock, **(options or {}))
        self.channel = self.topic.channel("billing")
        self.plan = plan_of(self.channel, plan.pop("handler", nothing), **plan)
        self.consumer = NotingConsumer(self.channel, self.plan.window)
        if self.plan.auto_touch:
            self.consumer._keep()
        self.wakes: list[None] = []

    def wake(self) -> None:
        """Note that the supervisor was woken."""
        self.wakes.append(None)

    def burn(self, attempts: int, body: object = b"order") -> None:
        """Put a message, and deliver it so many times."""
        self.topic.put(body)
        with Consumer(self.channel) as consumer:
            for _ in range(attempts):
                consumer.get(timeout=0).req()

    @property
    def now(self) -> float:
        return self.clock.monotonic_ns() / SECOND

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many messages are ready, in flight and deferred."""
        stats = self.channel.stats()
        return stats.depth, stats.in_flight_count, stats.deferred_count

    @property
    def delay(self) -> float | None:
        """The delay of the only deferred message."""
        [info] = self.channel.deferred()
        return info.due_in


def threads_of(name: str) -> list[threading.Thread]:
    """Return the living threads of a worker."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def until_ended(name: str) -> None:
    """Return when the threads of a worker, left behind or not, have ended."""
    for thread in threads_of(name):
        thread.join(PATIENCE)
        assert not thread.is_alive(), thread
