"""Recordings to look at."""

from pathlib import Path

import nsqlite
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recording


def record(path: Path) -> list[str]:
    """Record two runs, 90 seconds each, and return the ids of their messages."""
    ids = []
    for start in (1_700_000_000, 1_700_000_600):
        clock = ManualClock(start=start)
        with (
            Recording(path) as recording,
            nsqlite.Broker(clock=clock, observers=[recording]) as broker,
        ):
            billing = nsqlite.Consumer(broker.topic("orders").channel("billing"), name="till")
            ids.append(broker.topic("orders").put(b"tea"))
            billing.get(timeout=0).fin()
            clock.advance(90)
            broker.topic("mails").put(b"hello")
            ids.append(broker.topic("orders").put(b"jam"))
            billing.get(timeout=0)
    return ids
