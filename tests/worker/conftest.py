"""What holds for every test of workers: it leaves no thread and no running worker behind."""

import gc
import threading
from collections.abc import Iterator

import pytest

from nsqlite.worker import worker as module


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Check that a test has stopped what it started, and let go of what it left behind."""
    before = set(threading.enumerate())
    yield
    # What asyncio has to say of a task that failed it says now: it shows a traceback for that, and
    # if that comes while another test parses source, CPython 3.11 fails.
    gc.collect(1)
    assert set() == set(threading.enumerate()) - before
    assert [] == [worker for worker in module._running if worker.running]
