"""A worker's slots and supervisor, one step after the other in one thread: touches, and the end."""

import logging
from typing import Any

import pytest
from helpers import bodies

from nsqlite import Drop, Message, State, TakeOver, Topic
from nsqlite.clock import NEVER
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock
from nsqlite.worker.backoff import Signal
from nsqlite.worker.supervisor import Slot, Supervisor
from worker.scenes import Disaster, Failure, OneThread, failing


class Scene(OneThread):
    """A supervisor, its consumer and its channel."""

    def __init__(self, options: dict[str, Any] | None = None, **plan: Any) -> None:
        super().__init__(options, **plan)
        self.supervisor = Supervisor(
            self.plan, self.consumer, overdue="left behind", wake=self.wake
        )
        self.slot = self.supervisor.slots[0]

    def begin(self, body: object = b"order", slot: Slot | None = None) -> Message[Any]:
        """Put a message and have a slot begin with it."""
        self.topic.put(body)
        message = self.consumer.get(timeout=0)
        assert self.supervisor.begin(slot or self.slot, message)
        return message


# Slots


def test_a_success_leaves_the_slot_free() -> None:
    """When its handler has returned the message is finished and the slot has none."""
    scene = Scene()
    message = scene.begin()
    before = scene.slot.message
    scene.supervisor.succeeded(scene.slot, None)
    assert (message, None) == (before, scene.slot.message)
    assert State.FINISHED is message.state


def test_a_failure_leaves_the_slot_free() -> None:
    """When its handler has raised the message is requeued and the slot has none."""
    scene = Scene()
    scene.begin()
    scene.supervisor.failed(scene.slot, Failure())
    assert ((0, 0, 1), None) == (scene.counts, scene.slot.message)


def test_a_message_with_more_attempts_does_not_reach_the_handler() -> None:
    """A message that arrives with six attempts is given up at once, and the slot is free."""
    dead = Topic("orders.dead", clock=ManualClock())
    letters = dead.channel("redrive")
    scene = Scene(dead_letter=dead)
    scene.burn(5)
    assert not scene.supervisor.begin(scene.slot, scene.consumer.get(timeout=0))
    assert ((0, 0, 0), None) == (scene.counts, scene.slot.message)
    assert [6] == [letter.attempts for letter in bodies(letters)]


def test_a_success_takes_the_next_message_in_one_go() -> None:
    """Where a success has no other consequence the slot goes on, with what it is to begin with."""
    scene = Scene()
    first = scene.begin(1)
    scene.topic.put(2)
    second = scene.supervisor.succeeded(scene.slot, None)
    assert second is not None
    assert scene.supervisor.begin(scene.slot, second)
    assert (2, second, State.FINISHED) == (second.body, scene.slot.message, first.state)
    assert None is scene.supervisor.succeeded(scene.slot, None)
    assert (State.FINISHED, None) == (second.state, scene.slot.message)


def test_a_success_takes_nothing_where_more_follows_from_it() -> None:
    """In backoff, with a prefetch, in a stop or where a turn is over it is a mere answer."""
    scenes = [Scene(), Scene(prefetch=1), Scene(), Scene()]
    for scene in scenes:
        scene.begin()
        scene.topic.put(b"next")
    scenes[0].supervisor.settler.flow_control.signal(Signal.BACK_OFF)
    scenes[2].supervisor.stop(SECOND)
    found = [
        scene.supervisor.succeeded(scene.slot, None, scene is not scenes[3]) for scene in scenes
    ]
    assert [None] * 4 == found
    assert [(1, 0, 0)] * 4 == [scene.counts for scene in scenes]


def test_a_success_takes_nothing_with_a_decision() -> None:
    """What a handler has decided is done first."""
    scene = Scene()
    scene.begin()
    scene.topic.put(b"next")
    assert None is scene.supervisor.succeeded(scene.slot, Drop())
    assert (1, 0, 0) == scene.counts


def test_the_supervisor_lets_a_probe_through() -> None:
    """In backoff the supervisor is to come back for the probe, and then opens the window for it."""
    scene = Scene()
    scene.begin()
    scene.supervisor.failed(scene.slot, Failure())
    assert 2 * SECOND == scene.supervisor.act()
    scene.clock.advance(2)
    assert NEVER == scene.supervisor.act()
    assert ["RDY 1", "RDY 0", "REQ 90", "RDY 1"] == scene.consumer.rest()


# What takes long


def test_what_is_worked_on_does_not_time_out() -> None:
    """However long a handler takes, its message is in flight, and nobody has to do anything."""
    scene = Scene(auto_touch=True)
    message = scene.begin()
    assert (NEVER, NEVER) == (scene.supervisor.act(), scene.channel._queue.next_due())
    scene.clock.advance(10**6)
    message.touch()
    [info] = scene.channel.in_flight()
    assert ((0, 1, 0), None, State.IN_FLIGHT) == (scene.counts, info.due_in, message.state)
    scene.supervisor.succeeded(scene.slot, None)
    assert (0, 0, 0) == scene.counts


def test_without_auto_touch_a_message_times_out() -> None:
    """As in NSQ's clients the time of a message is its handler's own affair."""
    scene = Scene(auto_touch=False)
    scene.begin()
    assert NEVER == scene.supervisor.act()
    scene.clock.advance(60)
    assert (1, 0, 0) == scene.counts


def test_what_was_taken_over_times_out_from_then_on() -> None:
    """A message that nobody answers who took it over comes again, unless it is touched."""
    scene = Scene(auto_touch=True)
    message = scene.begin()
    scene.clock.advance(1000)
    scene.supervisor.succeeded(scene.slot, TakeOver())
    scene.clock.advance(59)
    message.touch()
    [info] = scene.channel.in_flight()
    assert (60, (0, 1, 0)) == (info.due_in, scene.counts)
    scene.clock.advance(60)
    assert ((1, 0, 0), State.TIMED_OUT) == (scene.counts, message.state)


def test_what_its_handler_finished_before_it_was_taken_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """To take over what is answered already means nothing."""
    scene = Scene(auto_touch=True)
    scene.begin().fin()
    scene.supervisor.succeeded(scene.slot, TakeOver())
    assert ((0, 0, 0), []) == (scene.counts, caplog.records)


def test_a_handler_over_its_limit_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """The supervisor comes when the time is over, logs slot and message, and that is all."""
    scene = Scene(time_limit=5, handler=failing)
    assert NEVER == scene.supervisor.act()
    message = scene.begin()
    assert 5 * SECOND == scene.supervisor.act()
    scene.clock.advance(4.9)
    assert (5 * SECOND, []) == (scene.supervisor.act(), caplog.messages)
    scene.clock.advance(0.1)
    for _ in range(2):
        assert NEVER == scene.supervisor.act()
    text = f"failing on message {message.id} takes longer than time_limit=5 s, and"
    text += " goes on in orders:billing-1"
    assert [f"orders:billing: {text}"] == caplog.messages
    scene.supervisor.succeeded(scene.slot, None)
    assert State.FINISHED is message.state
    scene.begin()
    assert 10 * SECOND == scene.supervisor.act()
    scene.consumer.close()


def test_a_stop_does_not_look_again_and_again() -> None:
    """While a handler is at work it is no reason to look that something in the channel is due."""
    scene = Scene()
    scene.begin()
    scene.topic.put(b"later", delay=1)
    scene.clock._elapsed = 2 * SECOND  # as if the channel had not looked yet
    scene.supervisor.stop(90 * SECOND)
    assert 92 * SECOND == scene.supervisor.act()
    scene.consumer.close()


@pytest.mark.parametrize("limit", [1e300, 10**400])
def test_a_very_long_limit(limit: float) -> None:
    """A limit beyond what can be counted is the longest that can be."""
    scene = Scene(time_limit=limit)
    scene.begin()
    moment = scene.supervisor.act()
    assert moment is not None
    assert moment > 10**18
    scene.consumer.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_handler_that_let_nobody_look_is_told_of(
    caplog: pytest.LogCaptureFixture, *, fails: bool
) -> None:
    """A coroutine that blocks its loop is over before the supervisor comes; it is told of then."""
    scene = Scene(time_limit=5)
    scene.begin()
    scene.clock.advance(6)
    if fails:
        scene.supervisor.failed(scene.slot, Failure())
    else:
        scene.supervisor.succeeded(scene.slot, None)
    assert caplog.messages[0].endswith(
        "time_limit=5 s, and has ended by itself in orders:billing-1"
    )
    assert 1 + fails == len(caplog.messages)


@pytest.mark.parametrize("how", ["delete", "close", "drain"])
def test_the_end_of_the_channel_is_told(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that stops since its channel is deleted or closed says so, once."""
    scene = Scene()
    if how == "delete":
        scene.channel.delete()
    else:
        scene.channel.close(drain=how == "drain")
    for _ in range(2):
        scene.supervisor.end_with_channel()
    assert scene.supervisor.stopping
    text = f"the worker stops, as channel 'billing' of topic 'orders' is {how.rstrip('e')}ed"
    assert ([] if how == "drain" else [f"orders:billing: {text}"]) == caplog.messages


def test_a_stop_says_for_what_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Where handlers are at work it tells how many, and for how long it waits; once."""
    scene = Scene(concurrency=2)
    scene.begin()
    with caplog.at_level(logging.INFO, "nsqlite"):
        scene.supervisor.stop(30 * SECOND)
        scene.supervisor.stop(10 * SECOND)
    text = "orders:billing: stops when 1 handlers at work have ended, at most 30 s"
    assert [text] == caplog.messages
    scene.consumer.close()


def test_a_message_wakes_a_supervisor_that_would_sleep_too_long() -> None:
    """A message rings only if its limit comes before the moment to which the supervisor sleeps."""
    scene = Scene(time_limit=5, concurrency=3)
    first, second, third = scene.supervisor.slots
    scene.supervisor.act()
    scene.begin(slot=first)
    assert 1 == len(scene.wakes)
    scene.supervisor.act()
    scene.begin(slot=second)
    scene.clock.advance(1)
    scene.begin(slot=third)
    assert 1 == len(scene.wakes)
    scene.consumer.close()


def test_a_message_that_comes_while_the_supervisor_looks_is_not_forgotten() -> None:
    """A message that comes when its slot was looked at already has the supervisor look again."""
    scene = Scene(time_limit=5, concurrency=2)
    first, second = scene.supervisor.slots
    scene.supervisor.act()
    scene.begin(slot=second)
    scene.clock.advance(5)
    scene.wakes.clear()

    def come(_slot: Slot) -> bool:
        scene.begin(slot=first)
        return True

    scene.supervisor._cut = come  # type: ignore[misc]  # where it looks
    scene.supervisor.act()
    assert [None] == scene.wakes
    scene.consumer.close()


# What was taken over, at the end


@pytest.mark.parametrize("how", ["fin", "req", "time out", "close"])
def test_the_end_waits_for_what_was_taken_over(how: str) -> None:
    """The supervisor is woken by the last answer, or looks when a time-out is due."""
    scene = Scene(auto_touch=True)
    message = scene.begin()
    scene.supervisor.succeeded(scene.slot, TakeOver())
    scene.topic.put(b"more")
    scene.supervisor.stop(90 * SECOND)
    scene.supervisor.leave(scene.slot)
    assert 60 * SECOND == scene.supervisor.act()
    scene.wakes.clear()
    if how == "time out":
        scene.clock.advance(60)
    elif how == "close":
        scene.channel.close()
    else:
        getattr(message, how)()
    assert scene.wakes == ([] if how == "time out" else [None])
    assert scene.supervisor.act() is None
    assert {} == scene.topic._monitor.joins


# Prefetching


def test_a_prefetched_message_that_timed_out_is_left_alone() -> None:
    """A message whose time passed in the slot's own queue is not handled; it comes again."""
    scene = Scene(prefetch=1)
    scene.topic.put_many([1, 2])
    batch = scene.consumer.get_many(2, timeout=0)
    assert scene.supervisor.begin(scene.slot, batch[0])
    scene.clock.advance(60)
    assert not scene.supervisor.begin(scene.slot, batch[1])
    assert (None, (2, 0, 0)) == (scene.slot.message, scene.counts)


# Stopping


def test_a_stopping_worker_begins_nothing() -> None:
    """A message that was taken and not begun when the worker stops goes back at once, unburnt."""
    scene = Scene()
    scene.topic.put(b"order")
    message = scene.consumer.get(timeout=0)
    scene.supervisor.stop(SECOND)
    assert not scene.supervisor.begin(scene.slot, message)
    assert (State.RETURNED, None) == (message.state, scene.slot.message)
    assert [(b"order", 0)] == [(info.body, info.attempts) for info in scene.channel.peek()]


def test_what_was_not_begun_goes_back_in_its_order() -> None:
    """What a slot has not begun goes to the head of the queue, attempts as before."""
    scene = Scene(prefetch=2)
    scene.topic.put_many(range(4))
    batch = scene.consumer.get_many(3, timeout=0)
    scene.supervisor.put_back(batch)
    assert [(0, 0), (1, 0), (2, 0), (3, 0)] == [
        (info.body, info.attempts) for info in scene.channel.peek()
    ]


def test_what_was_answered_meanwhile_is_not_put_back() -> None:
    """Of what a slot has not begun, what is not in flight any more is left as it is."""
    scene = Scene(prefetch=1)
    scene.topic.put_many(range(2))
    batch = scene.consumer.get_many(2, timeout=0)
    batch[0].fin()
    scene.supervisor.put_back(batch)
    assert [1] == bodies(scene.channel)


def test_it_waits_for_those_at_work_until_the_moment() -> None:
    """Between the stop and its moment the supervisor goes on; then it puts back what is left."""
    scene = Scene(handler=failing)
    message = scene.begin()
    scene.supervisor.stop(10 * SECOND)
    assert 10 * SECOND == scene.supervisor.act() == scene.supervisor.time_left()
    scene.clock.advance(9)
    assert 10 * SECOND == scene.supervisor.act()
    scene.clock.advance(1)
    assert scene.supervisor.act() is None
    assert (State.RETURNED, 0) == (message.state, scene.supervisor.time_left())


def test_it_ends_when_all_slots_have() -> None:
    """When every slot has left the supervisor waits no longer."""
    scene = Scene(concurrency=2)
    scene.supervisor.stop(10 * SECOND)
    scene.supervisor.leave(scene.supervisor.slots[0])
    assert 10 * SECOND == scene.supervisor.act()
    scene.supervisor.leave(scene.supervisor.slots[1])
    assert scene.supervisor.act() is None
    assert 3 == len(scene.wakes)


def test_a_second_stop_only_shortens() -> None:
    """Of several stops the one that ends first counts."""
    scene = Scene()
    moments = []
    for timeout in (10, 20, 5, NEVER):
        scene.supervisor.stop(timeout if timeout == NEVER else timeout * SECOND)
        moments.append(scene.supervisor.act())
    assert [10 * SECOND, 10 * SECOND, 5 * SECOND, 5 * SECOND] == moments


def test_who_has_not_ended_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that has not ended is told of by name and age, and its message is put back."""
    scene = Scene(handler=failing, concurrency=2)
    message = scene.begin()
    scene.clock.advance(2.5)
    scene.supervisor.stop(0)
    assert scene.supervisor.act() is None
    scene.supervisor.end()
    text = (
        f"orders:billing: failing on message {message.id} has not ended after 2.5 s"
        " and is left behind in orders:billing-1"
    )
    assert [("nsqlite", logging.ERROR, text)] == caplog.record_tuples
    assert (1, 0, 0) == scene.counts
    assert [0] == [info.attempts for info in scene.channel.peek()]


@pytest.mark.parametrize("prefetch", [0, 1])
def test_the_age_of_a_handler_counts_from_its_begin(
    prefetch: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What a message waited for its slot, and what the one before it took, is not the handler's."""
    scene = Scene(prefetch=prefetch)
    scene.topic.put_many(range(2))
    batch = scene.consumer.get_many(1 + prefetch, timeout=0)
    scene.supervisor.begin(scene.slot, batch[0])
    scene.clock.advance(7)
    scene.supervisor.succeeded(scene.slot, None)
    [second] = batch[1:] or [scene.consumer.get(timeout=0)]
    scene.supervisor.begin(scene.slot, second)
    scene.clock.advance(3)
    scene.supervisor.end()
    assert " has not ended after 3 s and is " in caplog.messages[0]


def test_what_is_put_back_is_at_the_head_in_its_order() -> None:
    """What is left goes back in front of what was ready, in the order in which it came."""
    scene = Scene(concurrency=3)
    for body, slot in enumerate(scene.supervisor.slots):
        scene.begin(body, slot)
    scene.topic.put(3)
    scene.supervisor.end()
    assert [0, 1, 2, 3] == bodies(scene.channel)


def test_a_late_answer_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that ends after its message was put back is told of, and answers nothing."""
    scene = Scene()
    message = scene.begin()
    scene.supervisor.end()
    scene.supervisor.succeeded(scene.slot, None)
    text = f"message {message.id}: ID not in flight (given back); its work may be done twice"
    assert f"orders:billing: {text}" == caplog.messages[-1]
    assert (1, 0, 0) == scene.counts


def test_what_no_handler_should_raise_stops_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """After a `BaseException` the message is requeued, the error kept, and the worker stops."""
    scene = Scene(handler=failing)
    message = scene.begin()
    error = Disaster()
    scene.supervisor.broke(scene.slot, error)
    assert ((1, 0, 0), error, error) == (
        scene.counts,
        scene.supervisor.settler.error,
        scene.supervisor.broken,
    )
    assert (True, 0) == (scene.supervisor.stopping, scene.supervisor.time_left())
    text = f"orders:billing: failing raised Disaster() on message {message.id}; the worker stops"
    assert [("nsqlite", logging.ERROR, text)] == caplog.record_tuples


def test_a_slot_may_break_without_a_message() -> None:
    """A slot that breaks while it waits has nothing to put back."""
    scene = Scene()
    scene.supervisor.broke(scene.slot, Disaster())
    assert (None, None, True) == (
        scene.supervisor.settler.error,
        scene.supervisor.broken,
        scene.supervisor.stopping,
    )
