"""What a worker tells of itself; how it comes to be is tried in test_worker.py."""

from typing import get_args

import attrs
import pytest
from helpers import PATIENCE

from nsqlite import Message, Retry, Topic, Worker
from nsqlite.worker import WorkerStats
from nsqlite.worker.stats import WorkerState


def test_a_snapshot_never_changes() -> None:
    """It is a value: nobody can set what is in it, and the worker does not."""
    topic: Topic[int] = Topic("orders")
    worker = Worker(topic.channel("billing"), lambda _message: None, name="bills")
    before = worker.stats()
    assert WorkerStats(name="bills", state="new") == before
    name = "processed"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(before, name, 1)
    topic.put(1)
    with worker:
        assert worker.join(PATIENCE)
    assert WorkerStats(name="bills", state="stopped", processed=1) == worker.stats()
    assert WorkerStats(name="bills", state="new") == before


def test_many_slots_count_exactly() -> None:
    """What several threads do at a time is counted once each."""
    topic: Topic[int] = Topic("orders")

    def work(message: Message[int]) -> None:
        if message.body % 2:
            raise ValueError

    retry = Retry(max_attempts=2, delay=0)
    topic.channel("billing")
    topic.put_many(range(400))
    with Worker(
        topic.channel("billing"), work, concurrency=8, retry=retry, tracebacks="never"
    ) as worker:
        assert worker.join(PATIENCE)
    assert {} == worker._runner.supervisor.settler.failures  # type: ignore[union-attr]  # it ran
    told = worker.stats()
    assert (600, 400, 200, 200) == (told.processed, told.failed, told.retried, told.given_up)
    assert told.state in get_args(WorkerState)
