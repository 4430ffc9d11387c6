"""What holds for every test of workers: it leaves no thread and no running worker behind."""

import threading
from collections.abc import Iterator

import pytest

from nsqlite.worker import worker as module


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Check that a test has stopped what it started, and let go of what it left behind."""
    before = set(threading.enumerate())
    yield
    assert set() == set(threading.enumerate()) - before
    assert [] == [worker for worker in module._running if worker.running]
