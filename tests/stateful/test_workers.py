"""Workers of both kinds on one channel, whose handlers do whatever handlers do: nothing is lost.

What a handler does depends on the message and its attempt alone, so what must come of it is known.
"""

import random
import threading
from collections import Counter, defaultdict
from typing import Any, Final

import pytest
from helpers import PATIENCE

import nsqlite
from nsqlite import (
    Backoff,
    DeadLetter,
    Drop,
    Event,
    Message,
    Requeue,
    Retry,
    TakeOver,
    Topic,
    Worker,
)
from nsqlite.testing import ManualClock

MAX_ATTEMPTS: Final = 4
MESSAGES: Final = 300

HOW: Final = {
    "return": 12,
    "raise": 4,
    "requeue": 2,
    "requeue at once": 2,
    "drop": 1,
    "fin": 1,
    "req": 1,
    "take over": 1,
}
"""What a handler may do, and how often it does."""

FINAL: Final = {"return", "drop", "fin", "take over"}
"""After these a message is over."""


class Scene:
    """A channel, its handlers, and what they were called with."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.clock = ManualClock()
        self.topic: Topic[int] = Topic("orders", clock=self.clock, msg_timeout=900)
        self.finished: Counter[int] = Counter()
        self.answered = threading.Semaphore(0)
        self.topic.observe(self.hear)
        self.dead: Topic[DeadLetter] = Topic("dead", clock=self.clock)
        self.channel = self.topic.channel("billing")
        self.letters = self.dead.channel("letters")
        self.calls: dict[int, list[int]] = defaultdict(list)
        self.given_up: list[int] = []
        self.lock = threading.Lock()

    def hear(self, event: Event) -> None:
        """Count what is finished, and tell of every answer."""
        if event.kind == "finished":
            self.finished[event.body] += 1
        if event.kind in {"finished", "requeued"}:
            self.answered.release()

    def let_time_pass(self) -> None:
        """Move the clock while nothing is worked on; else wait for an answer."""
        if self.channel.in_flight_count == 0:
            self.clock.advance(0.25)
        else:
            assert self.answered.acquire(timeout=PATIENCE), "nothing is answered any more"

    def how(self, number: int, attempt: int) -> str:
        """Return what a handler does with a message at an attempt."""
        chance = random.Random(f"{self.seed} {number} {attempt}")
        return chance.choices(list(HOW), list(HOW.values()))[0]

    def handle(self, message: Message[int]) -> Any:
        """Do it."""
        with self.lock:
            self.calls[message.body].append(message.attempts)
        how = self.how(message.body, message.attempts)
        if how == "raise":
            raise ValueError(message.body)
        if how == "requeue":
            raise Requeue(delay=2.0)
        if how == "requeue at once":
            return Requeue(delay=0, backoff=False)
        if how == "drop":
            return Drop("not wanted")
        if how == "fin":
            message.fin()
        elif how == "req":
            message.req(delay=1)
        elif how == "take over":
            message.fin()  # as somebody else would, who may be faster than the worker
            return TakeOver()
        return None

    async def handle_async(self, message: Message[int]) -> Any:
        """Do it in a task."""
        return self.handle(message)

    def worker(self, number: int) -> Worker:
        """Return a worker, of threads or of tasks in turn."""
        return Worker(
            self.channel,
            self.handle if number % 2 else self.handle_async,
            concurrency=1 + number % 3,
            retry=Retry(
                max_attempts=MAX_ATTEMPTS,
                delay=3,
                factor=None,
                seed=number,
                backoff=Backoff(multiplier=0.5, strategy="full jitter", seed=number),
            ),
            dead_letter=self.dead,
            on_give_up=lambda message, _error: self.given_up.append(message.body),
            prefetch=number % 2 * 2,
        )

    def check(self) -> None:
        """Compare what became of each message with what its handlers did."""
        letters = Counter(info.body.body for info in self.letters.peek(MESSAGES))
        assert sorted(self.given_up) == sorted(letters.elements())
        for number in range(MESSAGES):
            calls = self.calls[number]
            assert sorted(set(calls)) == calls, "an attempt was handled twice, or out of order"
            ends = [self.how(number, attempt) in FINAL for attempt in calls]
            assert not any(ends[:-1]), "it was delivered again after its end"
            assert 1 == self.finished[number], "it was not finished once in its channel"
            assert letters[number] == (not ends or not ends[-1])
            assert letters[number] == 0 or not calls or calls[-1] <= MAX_ATTEMPTS


@pytest.mark.parametrize("seed", range(4))
def test_workers_account_for_everything(seed: int) -> None:
    """Every message is finished once, by a handler or as a dead letter, whoever stops meanwhile."""
    scene = Scene(seed)
    chance = random.Random(seed)
    crew = [scene.worker(number).start() for number in range(3)]
    for number in range(MESSAGES):
        scene.topic.put(number, delay=chance.choice([None, None, 1.5]))
        if chance.random() < 0.02:
            crew.pop(chance.randrange(len(crew))).stop()
            crew.append(scene.worker(number).start())
    while not crew[0].join(timeout=0):
        scene.let_time_pass()
    for worker in crew:
        worker.stop()
        assert not worker.running
    scene.topic._check()
    scene.check()
    assert (0, 0, 0) == (
        scene.channel.depth,
        scene.channel.in_flight_count,
        scene.channel.deferred_count,
    )
    assert not [thread for thread in threading.enumerate() if "orders" in thread.name]
    assert nsqlite.redrive(scene.letters, scene.topic) == scene.channel.depth
