"""Flow control: what the window is in backoff, when the next probe is, what is told."""

import logging
from typing import Any

import pytest

from nsqlite import Backoff, StoreFull
from nsqlite.clock import NEVER
from nsqlite.options import SECOND
from nsqlite.worker.backoff import Signal
from nsqlite.worker.flow_control import FlowControl
from worker.scenes import NotingConsumer, OneThread

FAST = Backoff(multiplier=0.01)
GOOD, BAD, NEITHER = Signal.RESUME, Signal.BACK_OFF, Signal.GO_ON


class Scene(OneThread):
    """The flow control of a worker of five slots."""

    def __init__(self, backoff: Backoff | None = FAST, window: int = 5, **plan: Any) -> None:
        super().__init__(max_in_flight=window, **plan)
        self.flow = FlowControl("bills", backoff, window, self.consumer)

    def probe(self) -> None:
        """Let a message through when its moment has come."""
        self.clock.advance(self.flow.probe_at / SECOND - self.now)
        self.flow.act(self.flow.probe_at)


def test_it_begins_without_backoff() -> None:
    """At first the window is the consumer's own, and there is nothing to wait for."""
    scene = Scene()
    scene.flow.act(10**9)
    assert (0, NEVER, ["RDY 5"]) == (
        scene.flow.level,
        scene.flow.probe_at,
        scene.consumer.rest(),
    )


def test_the_window_of_the_reference_trace() -> None:
    """Good good good bad bad good good, five at a time, gives the windows of NSQ's clients."""
    scene = Scene()
    for signal in (GOOD, GOOD, GOOD, BAD, BAD, GOOD, GOOD):
        if scene.flow.signal(signal):
            scene.probe()
    assert "RDY 5, RDY 0, RDY 1, RDY 0, RDY 1, RDY 0, RDY 1, RDY 5" == ", ".join(
        scene.consumer.rest()
    )


def test_the_waits_are_those_of_the_algorithm() -> None:
    """The next message is let through 20 ms after one failure, and 40 ms after another."""
    scene = Scene()
    scene.flow.signal(BAD)
    first = scene.flow.probe_at
    scene.probe()
    scene.flow.signal(BAD)
    assert (20_000_000, 60_000_000) == (first, scene.flow.probe_at)


def test_a_signal_tells_whether_there_is_a_wait() -> None:
    """A failure begins a wait, and so does a probe that succeeds at a deeper level."""
    scene = Scene()
    told = [scene.flow.signal(GOOD), scene.flow.signal(BAD)]
    scene.probe()
    told.append(scene.flow.signal(BAD))
    scene.probe()
    told.append(scene.flow.signal(GOOD))
    scene.probe()
    told.append(scene.flow.signal(GOOD))
    assert [False, True, True, True, False] == told


@pytest.mark.parametrize("signal", Signal)
def test_results_during_a_wait_are_ignored(signal: Signal) -> None:
    """While the window is shut nothing that comes changes level, window or moment."""
    scene = Scene()
    scene.flow.signal(BAD)
    scene.clock.advance(0.01)
    assert not scene.flow.signal(signal)
    assert (1, 20_000_000) == (scene.flow.level, scene.flow.probe_at)
    assert ["RDY 5", "RDY 0"] == scene.consumer.rest()


def test_nothing_is_let_through_too_early() -> None:
    """Before the moment has come the window stays shut; at the moment it is one message."""
    scene = Scene()
    scene.flow.signal(BAD)
    scene.flow.act(19_999_999)
    before = scene.consumer.rest()
    scene.flow.act(20_000_000)
    assert (["RDY 5", "RDY 0"], ["RDY 1"]) == (before, scene.consumer.rest())
    assert NEVER == scene.flow.probe_at


def test_a_probe_that_says_nothing_begins_another_wait() -> None:
    """A result that is neither keeps the level, and the window is shut again."""
    scene = Scene()
    scene.flow.signal(BAD)
    scene.probe()
    assert scene.flow.signal(NEITHER)
    assert (1, ["RDY 5", "RDY 0", "RDY 1", "RDY 0"]) == (scene.flow.level, scene.consumer.rest())


def test_the_last_success_opens_the_window_again() -> None:
    """After a probe that succeeded at level 1 the window is what it was."""
    scene = Scene(window=6)
    scene.flow.signal(BAD)
    scene.probe()
    scene.flow.signal(GOOD)
    assert (0, 6) == (scene.flow.level, scene.consumer.max_in_flight)


def test_without_backoff_the_window_stays() -> None:
    """Without a backoff a failure changes neither level nor window."""
    scene = Scene(backoff=None)
    assert not scene.flow.signal(BAD)
    assert (0, ["RDY 5"]) == (scene.flow.level, scene.consumer.rest())


def test_backoff_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each change of the window by a result is told of in one line."""
    scene = Scene()
    with caplog.at_level(logging.INFO, "nsqlite"):
        scene.flow.signal(BAD, "ValueError: bad")
        assert ("ValueError: bad", 0.02) == (scene.flow.why, scene.flow.held_back_for())
        scene.probe()
        scene.flow.signal(NEITHER)
        scene.probe()
        assert 0 == scene.flow.held_back_for()
        scene.flow.signal(GOOD)
    held = "bills: held back for 0.02 s: ValueError: bad"
    assert ([held, held, "bills: goes on"], "") == (caplog.messages, scene.flow.why)


@pytest.mark.parametrize(
    "backoff", [None, Backoff(max_duration=0), Backoff(max_duration=1), Backoff(multiplier=0)]
)
def test_a_store_that_fails_holds_back(
    backoff: Backoff | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the backoff, a worker waits 1 s for its store, then 2, and so on."""
    scene = Scene(backoff=backoff)
    waits = []
    for _ in range(8):
        assert scene.flow.trouble(StoreFull("jobs.db", "the disk is full"))
        waits.append(scene.flow.held_back_for())
        assert not scene.flow.trouble(OSError())
        assert 0 == scene.consumer.max_in_flight
        assert scene.flow.next_moment() == scene.flow.resume_at
        scene.clock.advance(waits[-1])
        scene.flow.act(scene.flow.resume_at)
        assert (5, 0) == (scene.consumer.max_in_flight, scene.flow.held_back_for())
    assert [1, 2, 4, 8, 16, 32, 32, 32] == waits
    text = "bills: held back for 1 s: store jobs.db: the disk is full"
    assert ("nsqlite", logging.WARNING, text) == caplog.record_tuples[0]
    assert 8 == len(caplog.records)


def test_a_store_that_works_again(caplog: pytest.LogCaptureFixture) -> None:
    """The first message that comes ends it, which is told; the next failure begins anew."""
    scene = Scene(backoff=None)
    for _ in range(3):
        scene.flow.trouble(OSError())
        scene.flow.act(scene.flow.resume_at)
    assert (3, "OSError") == (scene.flow.failures, scene.flow.why)
    with caplog.at_level(logging.INFO, "nsqlite"):
        for _ in range(2):
            scene.flow.recover()
    assert "bills: goes on" == caplog.messages[-1]
    assert 1 == caplog.messages.count("bills: goes on")
    assert (0, "") == (scene.flow.failures, scene.flow.why)
    scene.flow.trouble(OSError())
    assert 1 == scene.flow.held_back_for()


def test_handlers_and_the_store_hold_back_at_a_time() -> None:
    """The window is shut as long as one of them wants it, and then what the backoff allows."""
    scene = Scene()
    scene.flow.trouble(OSError())
    scene.flow.signal(BAD, "ValueError")
    assert (1, "ValueError") == (scene.flow.held_back_for(), scene.flow.why)
    scene.probe()
    assert 0 == scene.consumer.max_in_flight
    scene.clock.advance(1)
    scene.flow.act(10**9)
    assert 1 == scene.consumer.max_in_flight
    scene.flow.signal(GOOD)
    assert (5, "ValueError") == (scene.consumer.max_in_flight, scene.flow.why)
    scene.flow.recover()
    assert "" == scene.flow.why
    scene.flow.signal(BAD, "ValueError")
    scene.flow.trouble(OSError())
    scene.flow.recover()
    assert "OSError" == scene.flow.why


def test_a_window_that_changes_meanwhile_is_set_again() -> None:
    """When the supervisor sends a probe while a slot shuts the window, the last word is right."""

    class Between(NotingConsumer):
        def rdy(self, max_in_flight: int | None) -> None:
            super().rdy(max_in_flight)
            if max_in_flight == 0:
                flow._state.probe()

    scene = Scene()
    consumer = Between(scene.channel, 1)
    flow = FlowControl("bills", FAST, 1, consumer)
    flow.signal(BAD)
    assert ["RDY 1", "RDY 0", "RDY 1"] == consumer.rest()
