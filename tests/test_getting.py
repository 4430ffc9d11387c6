"""Getting what is there: one message, or a batch in one piece."""

from typing import Any

import pytest

from nsqlite import Consumer, InvalidOption, Topic
from nsqlite.clock import NEVER
from nsqlite.flow import Flow
from nsqlite.testing import ManualClock
from nsqlite.timerwheel import Tick


class Interrupt(Exception):
    """What a signal handler throws."""


class StruckBefore(Tick[Any]):
    """A tick that a signal strikes before the batch is filed in it."""

    @property
    def update(self) -> Any:
        raise Interrupt


class StruckAfter(Tick[Any]):
    """A tick that a signal strikes when the batch has been filed in it."""

    def update(self, *moves: Any, **none: Any) -> None:
        super().update(*moves, **none)
        raise Interrupt


@pytest.mark.parametrize("tick", [StruckBefore, StruckAfter])
def test_a_batch_interrupted_while_it_is_made(
    tick: type[Tick[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception thrown into the making of a batch gives back what it had, in order."""
    topic = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([b"1", b"2", b"3"])
    monkeypatch.setattr(Flow, "current", lambda *_: tick(NEVER))
    with pytest.raises(Interrupt):
        consumer.get_many(2)
    monkeypatch.undo()
    assert [(b"1", 0), (b"2", 0), (b"3", 0)] == [(i.body, i.attempts) for i in channel.peek()]
    assert 0 == consumer.in_flight_count
    topic._check()


def test_a_batch_lingers_for_a_number_of_seconds() -> None:
    """How long a batch may linger is checked and returned in nanoseconds."""
    consumer = Consumer(Topic("orders").channel("billing"), msg_timeout=2)
    assert 1_500_000_000 == consumer._patience(1.5)
    for wrong in (2, -1, True):
        with pytest.raises(InvalidOption):
            consumer._patience(wrong)
