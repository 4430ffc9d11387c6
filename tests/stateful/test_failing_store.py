"""Workers whose store fails: nothing is lost, no worker ends, and it goes on when it can.

Each scene is played with a store that fails once at its first call, once at its second, and so on;
and with one of which each third call fails.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from helpers import bodies

from nsqlite import Broker, Message, Requeue, Retry, StoreError, TakeOver, Worker
from nsqlite.store import flusher
from nsqlite.testing import FaultyStore, ManualClock, MemoryStore

MESSAGES: Final = 6

NEVER_WORKS: Final = 100
"""So many failures of the same call in a row are followed by a success.  The flusher makes three
calls a round once the workers are idle, so that the third would fail for ever, and be waited for.
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the flusher, whose time is real, try again soon."""
    monkeypatch.setattr(flusher, "AGAIN", 1_000_000)


class Faults:
    """Which calls of a store fail."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        """Begin with a store that works; see `begin`."""
        self._fails: Final = fails
        self._lock: Final = threading.Lock()
        self._in_a_row: Final[Counter[str]] = Counter()  # failures of a call, by its name
        self._begun = False
        self.calls = 0
        self.failures = 0

    def begin(self) -> None:
        """Count from here on."""
        self._begun = True

    def end(self) -> None:
        """Let no more calls fail."""
        self._begun = False

    def __call__(self, point: str) -> None:
        """Fail, or not."""
        if not self._begun or not point.startswith("before"):
            return
        with self._lock:
            self.calls += 1
            fails = self._fails(self.calls) and self._in_a_row[point] < NEVER_WORKS
            self._in_a_row[point] = self._in_a_row[point] + 1 if fails else 0
            self.failures += fails
        if fails:
            raise StoreError("jobs.db", f"{point} fails")


class Handler:
    """What is done with messages, by their bodies."""

    def __init__(self) -> None:
        self.handled: Final[Counter[bytes]] = Counter()
        self.taken_over: Final[list[Message[Any]]] = []

    def work(self, message: Message[Any]) -> Any:
        self.handled[message.body] += 1
        number = int(message.body)
        if number % 3 == 1 and message.attempts == 1:
            return Requeue(1)
        if number % 3 == 2:
            raise LookupError(number)
        if number == 3:
            self.taken_over.append(message)
            return TakeOver()
        return None

    async def work_async(self, message: Message[Any]) -> Any:
        await asyncio.sleep(0)
        return self.work(message)


def play(kind: str, faults: Faults, **options: Any) -> None:
    """Have a worker work on some messages while its store fails, and see what became of them."""
    clock = ManualClock()
    store = MemoryStore(attempts="durable", mem_queue_size=2)
    handler = Handler()
    with Broker(clock=clock, store=FaultyStore(store, faults)) as broker:
        orders, dead = broker.topic("orders"), broker.topic("dead")
        channel = orders.channel("billing")
        dead.channel("letters")
        orders.put_many([b"%d" % number for number in range(MESSAGES)])
        broker.flush()
        faults.begin()
        worker = Worker(
            channel,
            handler.work if kind == "plain" else handler.work_async,
            retry=Retry(max_attempts=2),
            dead_letter=dead,
            tracebacks="never",
            **options,
        )
        with worker:
            while not worker.join(timeout=0):
                while handler.taken_over:
                    handler.taken_over.pop().fin()
                with suppress(StoreError):
                    broker.flush()
                clock.advance(0.2)
            assert worker.running
        faults.end()
        broker._check()
    assert {b"%d" % number for number in range(MESSAGES)} == handler.handled.keys()
    with Broker(clock=clock, store=store) as broker:
        assert 0 == broker.topic("orders").channel("billing").depth
        found = bodies(broker.topic("dead").channel("letters"))
        assert [b"2", b"5"] == sorted(letter.body for letter in found)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"prefetch": 2}], ids=str)
def test_a_store_that_fails_once(kind: str, options: dict[str, Any]) -> None:
    """Whichever call of the store fails once, all is as if it had not."""
    number = 0
    failures = 1
    while failures:
        number += 1
        faults = Faults(number.__eq__)
        play(kind, faults, **options)
        failures = faults.failures
    assert number > 10


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_a_store_that_fails_again_and_again(kind: str, every: int) -> None:
    """A store of which every so manieth call fails is used for as long as it takes."""
    faults = Faults(lambda call: call % every == 0)
    play(kind, faults, concurrency=2)
    assert faults.failures > 0
