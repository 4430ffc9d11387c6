"""What waits for its time and is never called off."""

from collections import deque
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nsqlite.clock import NEVER
from nsqlite.delayqueue import DelayQueue

RESOLUTION: Final = 10


def test_it_begins_empty() -> None:
    """Nothing is there and nothing due."""
    queue: DelayQueue[str] = DelayQueue(RESOLUTION)
    assert (0, NEVER, []) == (len(queue), queue.next_due, queue.clear())
    assert [] == list(queue.expire(NEVER - 1, deque()))
    queue._check()


def test_a_bucket_that_nobody_filled() -> None:
    """A moment for which a signal kept anything from being added passes, and may come again."""
    queue: DelayQueue[str] = DelayQueue(RESOLUTION)
    ready: deque[str] = deque()
    queue.bucket(20)
    assert (20, 0) == (queue.next_due, len(queue))
    assert [] == list(queue.expire(20, ready))
    assert NEVER == queue.next_due
    queue.bucket(20).append("tea")
    queue.count += 1
    assert [(20, ["tea"])] == list(queue.expire(20, ready))
    assert ["tea"] == list(ready)


def test_a_caller_that_stops_early() -> None:
    """What it has been told of is moved, and the rest comes the next time."""
    queue: DelayQueue[str] = DelayQueue(RESOLUTION)
    ready: deque[str] = deque()
    for due in (20, 10, 30):
        queue.bucket(due).append(str(due))
        queue.count += 1
    assert (10, ["10"]) == next(queue.expire(25, ready))
    queue._check()
    assert [(20, ["20"])] == list(queue.expire(25, ready))
    assert (["10", "20"], 1, 30) == (list(ready), len(queue), queue.next_due)


class Machine(RuleBasedStateMachine):
    """A delay queue beside a list that is sorted anew each time."""

    def __init__(self) -> None:
        """Begin with both empty."""
        super().__init__()
        self.queue: DelayQueue[int] = DelayQueue(RESOLUTION)
        self.now = 0
        self.waiting: list[tuple[int, int]] = []
        self.added = 0

    @rule(delay=st.integers(0, 50), count=st.integers(1, 3))
    def add(self, delay: int, count: int) -> None:
        """Have some wait."""
        due = self.queue.due(self.now + delay)
        assert self.now + delay <= due < self.now + delay + RESOLUTION
        for _ in range(count):
            self.added += 1
            self.queue.bucket(due).append(self.added)
            self.queue.count += 1
            self.waiting.append((due, self.added))

    @rule(time=st.integers(0, 60))
    def advance(self, time: int) -> None:
        """Let time pass; what is due comes, the earliest first."""
        self.now += time
        ready: deque[int] = deque()
        told = list(self.queue.expire(self.now, ready))
        expected = sorted(pair for pair in self.waiting if pair[0] <= self.now)
        self.waiting = [pair for pair in self.waiting if pair[0] > self.now]
        assert [item for _, item in expected] == list(ready)
        assert expected == [(due, item) for due, bucket in told for item in bucket]

    @rule()
    def clear(self) -> None:
        """Take out everything."""
        assert [item for _, item in sorted(self.waiting)] == self.queue.clear()
        self.waiting = []

    @invariant()
    def same(self) -> None:
        """Both tell the same of what is there."""
        self.queue._check()
        assert sorted(self.waiting) == list(self.queue.pairs())
        assert len(self.waiting) == len(self.queue)
        assert min((due for due, _ in self.waiting), default=NEVER) == self.queue.next_due


TestMachine = Machine.TestCase
