"""A worker's decisions, one after the other in one thread: results, backoff, touches, the end."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from helpers import bodies

from nsqlite import (
    Backoff,
    Consumer,
    DeadLetter,
    Drop,
    Event,
    Kind,
    Message,
    Requeue,
    State,
    TakeOver,
    Topic,
)
from nsqlite.clock import NEVER
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock
from nsqlite.worker import Verdict
from nsqlite.worker.backoff import Gate
from nsqlite.worker.desk import Desk, Slot
from nsqlite.worker.middleware import name_of
from worker.scenes import Disaster, Failure, NotingConsumer, failing, nothing, plan_of

FAST = Backoff(multiplier=0.01)


class Scene:
    """A desk, its consumer and its channel."""

    def __init__(self, options: dict[str, Any] | None = None, **plan: Any) -> None:
        self.clock = ManualClock()
        self.topic = Topic("orders", clock=self.clock, **(options or {}))
        self.channel = self.topic.channel("billing")
        self.plan = plan_of(self.channel, plan.pop("handler", nothing), **plan)
        self.consumer = NotingConsumer(self.channel, self.plan.window)
        self.desk = Desk(self.plan, self.consumer, "left behind")
        self.rings: list[None] = []
        self.desk.ring = lambda: self.rings.append(None)
        self.slot = self.desk.slots[0]

    def begin(self, body: object = b"order", slot: Slot | None = None) -> Message[Any]:
        """Put a message and have a slot begin with it."""
        self.topic.put(body)
        return self.again(slot)

    def again(self, slot: Slot | None = None) -> Message[Any]:
        """Have a slot begin with the next message."""
        message = self.consumer.get(timeout=0)
        assert self.desk.begin(slot or self.slot, message)
        return message

    def do(self, result: object) -> Message[Any]:
        """Handle a message, whose handler returns this, or raises it if it is a failure."""
        message = self.begin()
        if isinstance(result, Failure):
            self.desk.failed(self.slot, result)
        else:
            self.desk.succeeded(self.slot, result)
        return message

    def back_off(self, level: int = 1) -> None:
        """Be in backoff at a level, with a probe let through."""
        while self.desk._backoff.level < level:
            self.do(Failure())
            self.clock.advance((self.desk.act() or 0) / SECOND - self.now)
            self.desk.act()
        self.consumer.rest()

    @property
    def now(self) -> float:
        return self.clock.monotonic_ns() / SECOND

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many messages are ready, in flight and deferred."""
        stats = self.channel.stats()
        return stats.depth, stats.in_flight_count, stats.deferred_count

    @property
    def delay(self) -> float | None:
        """The delay of the only deferred message."""
        [info] = self.channel.deferred()
        return info.due


# Results


@pytest.mark.parametrize("result", [None, b"", 0, False, "text", ValueError("returned"), object])
def test_whatever_a_handler_returns_is_success(result: object) -> None:
    """A message whose handler returned what decides nothing is finished."""
    scene = Scene()
    message = scene.begin()
    scene.desk.succeeded(scene.slot, result)
    assert (State.FINISHED, (0, 0, 0)) == (message.state, scene.counts)
    assert scene.slot.message is None


def test_a_failure_is_requeued_later_and_later() -> None:
    """A message whose handler raised is deferred by 90 s for each attempt, up to 900 s."""
    scene = Scene(max_attempts=0, backoff=None)
    delays = []
    scene.topic.put(b"order")
    for _ in range(12):
        scene.again()
        scene.desk.failed(scene.slot, Failure())
        delays.append(scene.delay)
        scene.clock.advance_to_next()
    assert [90.0 * attempts for attempts in range(1, 11)] + [900.0] * 2 == delays


def test_the_requeue_delay_can_be_chosen() -> None:
    """The delay is the one that was chosen times the attempts, up to the longest chosen."""
    scene = Scene(requeue_delay=2, max_requeue_delay=5, backoff=None)
    delays = []
    scene.topic.put(b"order")
    for _ in range(4):
        scene.again()
        scene.desk.failed(scene.slot, Failure())
        delays.append(scene.delay)
        scene.clock.advance_to_next()
    assert [2, 4, 5, 5] == delays


def test_without_a_requeue_delay_a_failure_is_ready_at_once() -> None:
    """A delay of 0 puts the message at the end of the queue."""
    scene = Scene(requeue_delay=0)
    scene.do(Failure())
    assert (1, 0, 0) == scene.counts


def test_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A failure is a warning that names worker, handler, message, attempt and delay."""
    scene = Scene(handler=failing, backoff=None)
    error = Failure()
    message = scene.do(error)
    [record] = caplog.records
    text = f"orders:billing: failing failed on message {message.id}, attempt 1; the next in 90 s"
    assert (logging.WARNING, text) == (record.levelno, record.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_the_first_failure_is_kept() -> None:
    """The first error is kept for who joins; later ones are not."""
    scene = Scene(backoff=None)
    first = Failure()
    scene.do(first)
    scene.do(Failure())
    assert scene.desk.error is first


# Verdicts


def both(
    verdict: Callable[[], Verdict],
) -> list[Any]:
    """Return what has a handler's verdict come to a desk: raised, or returned."""
    return [
        lambda desk, slot: desk.failed(slot, verdict()),
        lambda desk, slot: desk.succeeded(slot, verdict()),
    ]


Come = Callable[[Desk, Slot], None]


@pytest.mark.parametrize("come", both(Requeue))
def test_requeue_has_the_usual_delay_and_backs_off(come: Come) -> None:
    """`Requeue()` is as a failure, but is no error."""
    scene = Scene()
    scene.begin()
    come(scene.desk, scene.slot)
    assert ["RDY 1", "RDY 0", "REQ 90"] == scene.consumer.rest()
    assert scene.desk.error is None


@pytest.mark.parametrize("come", both(lambda: Requeue(7, backoff=False)))
def test_requeue_has_the_delay_that_it_says(come: Come) -> None:
    """`Requeue(7, backoff=False)` defers by 7 s, and the worker does not slow down."""
    scene = Scene()
    scene.begin()
    come(scene.desk, scene.slot)
    assert ["RDY 1", "REQ 7"] == scene.consumer.rest()
    assert 7 == scene.delay


@pytest.mark.parametrize("come", both(lambda: Requeue(0)))
def test_requeue_without_delay_is_at_once(come: Come) -> None:
    """`Requeue(0)` makes the message ready at once."""
    scene = Scene()
    scene.begin()
    come(scene.desk, scene.slot)
    assert (1, 0, 0) == scene.counts


@pytest.mark.parametrize("come", both(Requeue))
def test_requeue_is_not_given_up(come: Come) -> None:
    """`Requeue` at the last attempt is obeyed."""
    scene = Scene(max_attempts=1)
    scene.begin()
    come(scene.desk, scene.slot)
    assert (0, 0, 1) == scene.counts


@pytest.mark.parametrize("come", both(lambda: Drop("too old")))
def test_drop_finishes_and_says_why(come: Come, caplog: pytest.LogCaptureFixture) -> None:
    """`Drop` finishes the message, and its reason is logged."""
    scene = Scene()
    message = scene.begin()
    with caplog.at_level(logging.INFO, "nsqlite"):
        come(scene.desk, scene.slot)
    assert ["RDY 1", "FIN"] == scene.consumer.rest()
    text = f"orders:billing: message {message.id}: drop: too old"
    assert [("nsqlite", logging.INFO, text)] == caplog.record_tuples


@pytest.mark.parametrize("come", both(TakeOver))
def test_take_over_answers_nothing(come: Come) -> None:
    """`TakeOver` leaves the message in flight and the slot free."""
    scene = Scene()
    message = scene.begin()
    come(scene.desk, scene.slot)
    assert ["RDY 1"] == scene.consumer.rest()
    assert (State.IN_FLIGHT, None) == (message.state, scene.slot.message)
    message.fin()
    assert (0, 0, 0) == scene.counts


@pytest.mark.parametrize(
    ("verdict", "counts"), [(Requeue, (0, 0, 1)), (Drop, (0, 0, 0)), (TakeOver, (0, 1, 0))]
)
def test_a_verdict_class_is_as_good(verdict: type[Verdict], counts: tuple[int, int, int]) -> None:
    """A verdict's class that is returned means the same as one that is raised."""
    scene = Scene()
    scene.do(verdict)
    assert counts == scene.counts


def test_an_awaitable_that_nobody_awaits_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A plain handler that returns a coroutine or a future has done no work: it failed."""

    async def work() -> None: ...

    def later() -> asyncio.Future[None]:
        loop = asyncio.new_event_loop()
        loop.close()
        return loop.create_future()

    scene = Scene(handler=nothing, backoff=None)
    for result in (work(), later()):
        scene.do(result)
    assert (0, 0, 2) == scene.counts
    assert "TypeError('nothing is a plain function and returned an awaitable')" == repr(
        scene.desk.error
    )
    assert 2 == len(caplog.records)


# Answers that come too late


def test_a_handler_may_answer_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A message that its handler finished or requeued is left as it is, without a warning."""
    scene = Scene()
    scene.begin().fin()
    scene.desk.succeeded(scene.slot, None)
    scene.begin().req(3)
    with caplog.at_level(logging.DEBUG, "nsqlite"):
        scene.desk.succeeded(scene.slot, None)
    assert 3 == scene.delay
    [record] = caplog.records
    assert (logging.DEBUG, True) == (
        record.levelno,
        record.getMessage().endswith("was answered by its handler"),
    )


@pytest.mark.parametrize("result", [None, Failure(), Requeue(), Drop()])
def test_a_message_may_time_out_under_its_handler(
    result: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A message whose time is over when its handler ends is delivered again, and that is logged."""
    scene = Scene(backoff=None)
    message = scene.begin()
    scene.clock.advance(60)
    if isinstance(result, Failure):
        scene.desk.failed(scene.slot, result)
    else:
        scene.desk.succeeded(scene.slot, result)
    text = f"message {message.id}: ID not in flight (timed out); its work may be done twice"
    assert f"orders:billing: {text}" == caplog.messages[-1]
    assert (1, 0, 0) == scene.counts
    assert 2 == scene.again().attempts


# Backoff


def test_the_window_changes_before_the_answer() -> None:
    """The reference trace of NSQ's clients: good good good bad bad good good, five at a time."""
    scene = Scene(concurrency=5, backoff=FAST)
    for result in (None, None, None, Failure(), Failure(), None, None):
        scene.do(result)
        moment = scene.desk.act()
        assert moment is not None
        if moment != NEVER:
            scene.clock.advance(moment / SECOND - scene.now)
            scene.desk.act()
    trace = (
        "RDY 5, FIN, FIN, FIN, RDY 0, REQ, RDY 1, RDY 0, REQ, RDY 1, RDY 0, FIN, RDY 1, RDY 5, FIN"
    )
    assert trace.replace("REQ", "REQ 90") == ", ".join(scene.consumer.rest())


def test_the_waits_are_those_of_the_algorithm() -> None:
    """The supervisor is told to sleep for 20 ms after one failure and for 40 ms after another."""
    scene = Scene(backoff=FAST)
    scene.do(Failure())
    first = scene.desk.act()
    scene.clock.advance(0.02)
    scene.desk.act()
    scene.do(Failure())
    assert (20_000_000, 60_000_000) == (first, scene.desk.act())


def test_results_during_a_wait_are_ignored() -> None:
    """Of several failures at a time one counts."""
    scene = Scene(concurrency=3)
    messages = [scene.begin(slot=slot) for slot in scene.desk.slots]
    for slot in scene.desk.slots:
        scene.desk.failed(slot, Failure())
    assert 3 == len(messages)
    assert ["RDY 3", "RDY 0", "REQ 90", "REQ 90", "REQ 90"] == scene.consumer.rest()
    assert (1, Gate.SHUT) == (scene.desk._backoff.level, scene.desk._backoff.gate)


def test_a_wait_rings_the_supervisor() -> None:
    """The supervisor is woken to learn of a wait, and not for a success."""
    scene = Scene()
    scene.do(None)
    assert [] == scene.rings
    scene.do(Failure())
    assert [None] == scene.rings


def test_without_backoff_the_window_stays() -> None:
    """With `backoff=None` a failure changes no window."""
    scene = Scene(backoff=None)
    scene.do(Failure())
    assert ["RDY 1", "REQ 90"] == scene.consumer.rest()


@pytest.mark.parametrize("result", [Requeue(1, backoff=False), None, Drop(), TakeOver()])
def test_what_is_no_failure_does_not_begin_a_backoff(result: object) -> None:
    """Outside of backoff nothing but a failure changes the window."""
    scene = Scene()
    scene.do(result)
    assert [] == [call for call in scene.consumer.rest()[1:] if call.startswith("RDY")]


@pytest.mark.parametrize(
    ("result", "level", "calls"),
    [
        (None, 1, ["RDY 0", "FIN"]),
        (Drop(), 1, ["RDY 0", "FIN"]),
        (TakeOver(), 1, ["RDY 0"]),
        (Failure(), 3, ["RDY 0", "REQ 90"]),
        (Requeue(), 3, ["RDY 0", "REQ 90"]),
        (Requeue(backoff=False), 2, ["RDY 0", "REQ 90"]),
    ],
)
def test_what_a_probe_can_come_to(result: object, level: int, calls: list[str]) -> None:
    """A probe at level 2 raises the level, lowers it or keeps it, and another wait begins."""
    scene = Scene()
    scene.back_off(2)
    scene.do(result)
    assert calls == scene.consumer.rest()
    assert (level, Gate.SHUT) == (scene.desk._backoff.level, scene.desk._backoff.gate)
    assert scene.desk.act() == scene.clock.monotonic_ns() + 2**level * SECOND


def test_a_probe_that_its_handler_finished_is_a_success() -> None:
    """A worker whose handlers finish their messages themselves comes out of backoff."""
    scene = Scene()
    scene.back_off()
    scene.begin().fin()
    scene.desk.succeeded(scene.slot, None)
    assert (0, 1) == (scene.desk._backoff.level, scene.consumer.max_in_flight)


def test_a_probe_that_timed_out_is_no_success() -> None:
    """A message that was taken from its handler says nothing about the backoff."""
    scene = Scene()
    scene.back_off()
    scene.begin()
    scene.clock.advance(60)
    scene.desk.succeeded(scene.slot, None)
    assert (1, Gate.PROBE) == (scene.desk._backoff.level, scene.desk._backoff.gate)


def test_the_last_success_opens_the_window_again() -> None:
    """After a probe that succeeded at level 1 the worker goes on as before."""
    scene = Scene(concurrency=2, prefetch=2)
    scene.back_off()
    scene.do(None)
    assert ["RDY 6", "FIN"] == scene.consumer.rest()


def test_backoff_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each change of the backoff is told of in one line."""
    scene = Scene(backoff=FAST)
    with caplog.at_level(logging.INFO, "nsqlite"):
        scene.back_off()
        scene.do(None)
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert ["orders:billing: backoff 1, shut", "orders:billing: backoff 0, open"] == told


def test_a_window_that_changes_meanwhile_is_set_again() -> None:
    """When the supervisor sends a probe while a slot shuts the window, the last word is right."""
    scene = Scene()

    class Between(NotingConsumer):
        def rdy(self, max_in_flight: int | None) -> None:
            super().rdy(max_in_flight)
            if max_in_flight == 0:
                desk._backoff.probe()

    consumer = Between(scene.channel, 1)
    desk = Desk(scene.plan, consumer, "left behind")
    scene.topic.put(b"order")
    desk.begin(desk.slots[0], consumer.get(timeout=0))
    desk.failed(desk.slots[0], Failure())
    assert ["RDY 1", "RDY 0", "RDY 1", "REQ 90"] == consumer.rest()


# Giving up


def burn(scene: Scene, attempts: int, body: object = b"order") -> None:
    """Put a message that has been delivered so many times."""
    scene.topic.put(body)
    with Consumer(scene.channel) as consumer:
        for _ in range(attempts):
            consumer.get(timeout=0).req()


def letters(topic: Topic[Any]) -> list[Any]:
    """Take all dead letters."""
    return bodies(topic.channel("redrive"))


def test_the_last_failure_ends_in_the_dead_letters(caplog: pytest.LogCaptureFixture) -> None:
    """The fifth failure moves the message at once, in one step, with all that is known of it."""
    dead = Topic("orders.dead", clock=ManualClock())
    scene = Scene(dead_letter=dead)
    body = object()
    burn(scene, 4, body)
    message = scene.again()
    error = Failure("bad")
    scene.desk.failed(scene.slot, error)
    assert ["RDY 1", "RDY 0", "MOVE"] == scene.consumer.rest()
    expected = DeadLetter(
        body=body,
        topic="orders",
        channel="billing",
        id=message.id,
        attempts=5,
        error="Failure('bad')",
        timestamp=message.timestamp,
    )
    assert [expected] == letters(dead)
    assert ((0, 0, 0), State.FINISHED) == (scene.counts, message.state)
    [record] = caplog.records
    text = f"orders:billing: message {message.id} is given up after 5 attempts"
    assert (logging.ERROR, text) == (record.levelno, record.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_before_the_last_failure_nothing_is_given_up() -> None:
    """The fourth failure is requeued."""
    scene = Scene(dead_letter=Topic("orders.dead"))
    burn(scene, 3)
    scene.again()
    scene.desk.failed(scene.slot, Failure())
    assert (0, 0, 1) == scene.counts


def test_a_message_with_more_attempts_does_not_reach_the_handler() -> None:
    """A message that arrives with six attempts is given up at once; it counts as a success."""
    dead = Topic("orders.dead", clock=ManualClock())
    scene = Scene(dead_letter=dead)
    scene.back_off()
    burn(scene, 5)
    assert not scene.desk.begin(scene.slot, scene.consumer.get(timeout=0))
    assert ["RDY 1", "MOVE"] == scene.consumer.rest()
    [letter] = letters(dead)
    assert (6, "") == (letter.attempts, letter.error)
    assert scene.slot.message is None


def test_without_a_limit_nothing_is_given_up() -> None:
    """With `max_attempts=0` a message that has failed a hundred times is handled again."""
    scene = Scene(max_attempts=0)
    burn(scene, 100)
    scene.again()
    scene.desk.failed(scene.slot, Failure())
    assert (0, 0, 1) == scene.counts


@pytest.mark.parametrize("attempts", [4, 5])
def test_without_dead_letters_a_message_is_finished(attempts: int) -> None:
    """Without a topic of dead letters a callback is told of the message, which is then finished."""
    told: list[Any] = []
    scene = Scene(on_give_up=lambda *given: told.append((*given, given[0].state)))
    burn(scene, attempts)
    message = scene.consumer.get(timeout=0)
    error = Failure()
    if scene.desk.begin(scene.slot, message):
        scene.desk.failed(scene.slot, error)
    assert [(message, error if attempts == 4 else None, State.IN_FLIGHT)] == told
    assert (State.FINISHED, (0, 0, 0)) == (message.state, scene.counts)


def test_a_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises changes nothing of what becomes of the message."""

    def fail(_message: object, _error: object) -> None:
        raise Failure

    scene = Scene(on_give_up=fail, max_attempts=1)
    message = scene.do(Failure())
    assert State.FINISHED is message.state
    text = f"orders:billing: on_give_up failed on message {message.id}"
    assert (logging.ERROR, text) == (caplog.records[-1].levelno, caplog.messages[-1])


def test_a_callback_may_answer_itself() -> None:
    """A message that the callback requeued is not finished."""
    scene = Scene(on_give_up=lambda message, _error: message.req(), max_attempts=1)
    scene.do(Failure())
    assert (1, 0, 0) == scene.counts


@pytest.mark.parametrize("how", ["full", "closed", "deleted"])
def test_a_message_that_cannot_be_moved_stays(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """When the topic of dead letters is full or over the message is requeued with its delay."""
    dead = Topic("orders.dead", max_depth=1)
    channel = dead.channel("redrive")
    dead.put("the last")
    scene = Scene(dead_letter=dead, max_attempts=1)
    if how != "full":
        (dead.close if how == "closed" else dead.delete)()
    message = scene.do(Failure())
    assert 90 == scene.delay
    problem = {
        "full": "orders.dead:redrive has no room for 1 more: max_depth=1",
        "closed": "topic 'orders.dead' is closed",
        "deleted": "topic 'orders.dead' is deleted",
    }[how]
    text = f"orders:billing: message {message.id} cannot be moved: {problem}"
    assert text == caplog.messages[-1]
    assert how != "full" or ["the last"] == bodies(channel)


def test_a_message_that_timed_out_is_not_given_up() -> None:
    """The last failure of a message that is not in flight any more is left to its next delivery."""
    told: list[object] = []
    scene = Scene(on_give_up=lambda *given: told.append(given), max_attempts=1)
    scene.begin()
    scene.clock.advance(60)
    scene.desk.failed(scene.slot, Failure())
    assert ([], (1, 0, 0)) == (told, scene.counts)


def test_a_message_can_time_out_while_it_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """A message whose time passes in the callback comes again instead of being moved."""
    dead = Topic("orders.dead", clock=ManualClock())

    def take_long(_message: object, _error: object) -> None:
        scene.clock.advance(60)

    scene = Scene(on_give_up=take_long, dead_letter=dead, max_attempts=1)
    scene.do(Failure())
    assert ([], (1, 0, 0)) == (letters(dead), scene.counts)
    assert caplog.messages[-1].endswith("(timed out); its work may be done twice")


# Touching


def test_by_default_nothing_is_touched() -> None:
    """Without `auto_touch` the supervisor has nothing to do for a message."""
    scene = Scene()
    scene.begin()
    assert NEVER == scene.desk.act()
    scene.clock.advance(59)
    scene.desk.act()
    assert ["RDY 1"] == scene.consumer.rest()


def test_a_long_handlers_message_is_touched_up_to_the_limit() -> None:
    """A message is touched at half of its time, as long as that helps; then it times out."""
    scene = Scene({"msg_timeout": 10, "max_msg_timeout": 22}, auto_touch=True)
    message = scene.begin()
    moments = []
    while (moment := scene.desk.act()) not in (NEVER, None):
        assert moment is not None
        moments.append(moment / SECOND)
        scene.clock.advance(moments[-1] - scene.now)
    assert [5, 10, 15, 17] == moments
    assert ["RDY 1", *["TOUCH"] * 4] == scene.consumer.rest()
    scene.clock.advance(22 - scene.now - 0.001)
    states = [message.state]
    scene.clock.advance(0.001)
    states.append(message.state)
    assert [State.IN_FLIGHT, State.TIMED_OUT] == states
    assert NEVER == scene.desk.act()


def test_a_new_message_can_be_touched_again() -> None:
    """A slot whose last message was out of touches touches the next."""
    scene = Scene({"msg_timeout": 10, "max_msg_timeout": 10}, auto_touch=True)
    scene.begin()
    scene.clock.advance(5)
    assert NEVER == scene.desk.act()
    scene.desk.succeeded(scene.slot, None)
    scene.begin()
    assert 10 * SECOND == scene.desk.act()


def test_what_is_not_worked_on_is_not_touched() -> None:
    """Neither a message that was taken over nor one that its handler finished is touched."""
    scene = Scene(auto_touch=True, concurrency=2)
    scene.do(TakeOver())
    scene.begin().fin()
    scene.clock.advance(30)
    assert NEVER == scene.desk.act()
    assert "TOUCH" not in scene.consumer.rest()


def test_a_touch_that_comes_too_late_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A supervisor that comes after the time-out says so."""
    scene = Scene(auto_touch=True)
    message = scene.begin()
    scene.clock._elapsed = 61 * SECOND  # as if the channel had not looked yet
    scene.desk.act()
    assert (State.TIMED_OUT, 1) == (message.state, len(caplog.records))


def test_a_message_wakes_a_supervisor_that_would_sleep_too_long() -> None:
    """A message rings only if its touch comes before the moment to which the supervisor sleeps."""
    scene = Scene(auto_touch=True, concurrency=3)
    first, second, third = scene.desk.slots
    scene.desk.act()
    scene.begin(slot=first)
    assert 1 == len(scene.rings)
    scene.desk.act()
    scene.begin(slot=second)
    scene.clock.advance(1)
    scene.begin(slot=third)
    assert 1 == len(scene.rings)


def test_a_message_that_comes_while_the_supervisor_looks_is_not_forgotten() -> None:
    """A message that comes when its slot was looked at already has the supervisor look again."""
    scene = Scene(auto_touch=True, concurrency=2)
    first, second = scene.desk.slots
    scene.desk.act()
    scene.begin(slot=second)
    scene.clock.advance((scene.desk.act() or 0) / SECOND)
    scene.rings.clear()
    came: list[Event] = []

    def come(event: Event) -> None:
        if event.kind is Kind.TOUCHED and not came:
            came.append(event)
            scene.begin(slot=first)

    scene.topic.observe(come)
    scene.desk.act()
    assert [None] == scene.rings


# Prefetching


def test_a_prefetched_message_that_timed_out_is_left_alone() -> None:
    """A message whose time passed in the slot's own queue is not handled; it comes again."""
    scene = Scene(prefetch=1)
    scene.topic.put_many([1, 2])
    batch = scene.consumer.get_many(2, timeout=0)
    assert scene.desk.begin(scene.slot, batch[0])
    scene.clock.advance(60)
    assert not scene.desk.begin(scene.slot, batch[1])
    assert (None, (2, 0, 0)) == (scene.slot.message, scene.counts)


# Stopping


def test_a_stopping_worker_begins_nothing() -> None:
    """A message that was taken and not begun when the worker stops is put back at the end."""
    scene = Scene()
    scene.topic.put(b"order")
    message = scene.consumer.get(timeout=0)
    scene.desk.stop(SECOND)
    assert not scene.desk.begin(scene.slot, message)
    assert State.IN_FLIGHT is message.state
    scene.desk.leave(scene.slot)
    assert scene.desk.act() is None
    assert (State.RETURNED, (1, 0, 0)) == (message.state, scene.counts)


def test_it_waits_for_those_at_work_until_the_moment() -> None:
    """Between the stop and its moment the desk goes on; then it puts back what is left."""
    scene = Scene(handler=failing)
    message = scene.begin()
    scene.desk.stop(10 * SECOND)
    assert 10 * SECOND == scene.desk.act() == scene.desk.time_left()
    scene.clock.advance(9)
    assert 10 * SECOND == scene.desk.act()
    scene.clock.advance(1)
    assert scene.desk.act() is None
    assert (State.RETURNED, 0) == (message.state, scene.desk.time_left())


def test_it_ends_when_all_slots_have() -> None:
    """When every slot has left the desk waits no longer."""
    scene = Scene(concurrency=2)
    scene.desk.stop(10 * SECOND)
    scene.desk.leave(scene.desk.slots[0])
    assert 10 * SECOND == scene.desk.act()
    scene.desk.leave(scene.desk.slots[1])
    assert scene.desk.act() is None
    assert 3 == len(scene.rings)


def test_a_second_stop_only_shortens() -> None:
    """Of several stops the one that ends first counts."""
    scene = Scene()
    moments = []
    for timeout in (10, 20, 5, NEVER):
        scene.desk.stop(timeout if timeout == NEVER else timeout * SECOND)
        moments.append(scene.desk.act())
    assert [10 * SECOND, 10 * SECOND, 5 * SECOND, 5 * SECOND] == moments


def test_who_has_not_ended_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that has not ended is told of by name and age, and its message is put back."""
    scene = Scene(handler=failing, concurrency=2)
    message = scene.begin()
    scene.clock.advance(2.5)
    scene.desk.stop(0)
    assert scene.desk.act() is None
    scene.desk.end()
    text = (
        f"orders:billing: failing on message {message.id} has not ended after 2.5 s"
        " and is left behind in orders:billing-1"
    )
    assert [("nsqlite", logging.ERROR, text)] == caplog.record_tuples
    assert (1, 0, 0) == scene.counts
    assert [1] == [info.attempts for info in scene.channel.peek()]


def test_what_is_put_back_is_at_the_head_in_its_order() -> None:
    """What is left goes back in front of what was ready, in the order in which it came."""
    scene = Scene(concurrency=3)
    for body, slot in enumerate(scene.desk.slots):
        scene.begin(body, slot)
    scene.topic.put(3)
    scene.desk.end()
    assert [0, 1, 2, 3] == bodies(scene.channel)


def test_a_late_answer_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that ends after its message was put back is told of, and answers nothing."""
    scene = Scene()
    message = scene.begin()
    scene.desk.end()
    scene.desk.succeeded(scene.slot, None)
    text = f"message {message.id}: ID not in flight (unknown); its work may be done twice"
    assert f"orders:billing: {text}" == caplog.messages[-1]
    assert (1, 0, 0) == scene.counts


def test_what_no_handler_should_raise_stops_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """After a `BaseException` the message is requeued, the error kept, and the worker stops."""
    scene = Scene(handler=failing)
    message = scene.begin()
    error = Disaster()
    scene.desk.broke(scene.slot, error)
    assert ((1, 0, 0), True) == (scene.counts, scene.desk.error is error)
    assert (True, 0) == (scene.desk.stopping, scene.desk.time_left())
    text = f"orders:billing: failing raised Disaster() on message {message.id}; the worker stops"
    assert [("nsqlite", logging.ERROR, text)] == caplog.record_tuples


def test_a_slot_may_break_without_a_message() -> None:
    """A slot that breaks while it waits has nothing to put back."""
    scene = Scene()
    scene.desk.broke(scene.slot, Disaster())
    assert (None, True) == (scene.desk.error, scene.desk.stopping)


def test_a_desk_that_nobody_runs_rings_nobody() -> None:
    """Before its supervisor has begun a desk can be stopped."""
    scene = Scene()
    desk = Desk(scene.plan, scene.consumer, "left behind")
    desk.stop(0)
    assert desk.act() is None


# Names


class Shop:
    """Handlers that are no plain functions."""

    def bill(self, _message: Message[Any]) -> None: ...

    def __call__(self, _message: Message[Any]) -> None: ...


def test_a_handler_has_a_name() -> None:
    """A function is named as where it stands, another object like its class."""
    names = [name_of(handler) for handler in (failing, Shop().bill, Shop(), partial(failing))]
    assert ["failing", "Shop.bill", "Shop", "partial"] == names
