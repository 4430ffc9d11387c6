"""What waits for a reader of events: in order, with a bound, and with gaps where they are."""

import threading
from typing import Any

import pytest
from helpers import PATIENCE, Call

import nsqlite
from nsqlite.store import tail as tailing
from nsqlite.store.tail import Tail


def event(topic: str, channel: str | None = None, body: Any = None) -> nsqlite.Event:
    return nsqlite.Event(nsqlite.Kind.PUBLISHED, 1.0, topic, channel, "id", body)


def test_events_come_in_their_order() -> None:
    """Those of a topic, of a channel, or all."""
    every, orders, billing = Tail(), Tail("orders"), Tail("orders", "billing")
    told = [event("other"), event("orders"), event("orders", "billing"), event("orders", "audit")]
    for one in told:
        for tail in (every, orders, billing):
            tail.hear(one)
    assert told == every.take()
    assert told[1:] == orders.take()
    assert told[2:3] == billing.take()


def test_who_waits_is_woken() -> None:
    """By the first event, and by the end, after what was there."""
    tail = Tail()
    with_event = Call(tail.take)
    tail.hear(event("orders"))
    assert [event("orders")] == with_event.result()
    at_the_end = Call(tail.take)
    tail.end()
    assert at_the_end.result() is None
    tail.hear(event("late"))
    assert [event("late")] == tail.take()
    assert tail.take() is None


def test_what_is_missed_is_counted_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many events, or too many bytes; what was taken makes room."""
    monkeypatch.setattr(tailing, "UNREAD", 2)
    tail = Tail("orders")
    for number in range(5):
        tail.hear(event("orders", body=number))
        tail.hear(event("other"))  # displaces nothing
    assert [event("orders", body=0), event("orders", body=1), 3] == tail.take()
    monkeypatch.setattr(tailing, "UNREAD_BYTES", 10)
    for text in (b"12345", "12345", b"1", b"1"):
        tail.hear(event("orders", body=text))
    assert [event("orders", body=b"12345"), event("orders", body="12345"), 2] == tail.take()
    tail.hear(event("orders", body=b"1"))
    assert [event("orders", body=b"1")] == tail.take()


def test_names_are_checked() -> None:
    """What can be no name is refused, instead of waiting for it for ever."""
    for given in (("a b",), (["orders"],), ("orders", "")):
        with pytest.raises(nsqlite.InvalidName):
            Tail(*given)


def test_events_of_many_threads() -> None:
    """None is lost, and none comes twice."""
    tail = Tail()
    found: list[Any] = []

    def read() -> None:
        while (taken := tail.take()) is not None:
            found.extend(taken)

    reader = threading.Thread(target=read)
    reader.start()

    def write(start: int) -> None:
        for number in range(start, start + 1000):
            tail.hear(event("orders", body=number))

    writers = [threading.Thread(target=write, args=(start,)) for start in (0, 1000, 2000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(PATIENCE)
    tail.end()
    reader.join(PATIENCE)
    assert sorted(one.body for one in found) == list(range(3000))
