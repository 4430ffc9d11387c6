"""What becomes of messages: results, outcomes, late answers, failures and those given up."""

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from helpers import bodies

from nsqlite import (
    Broker,
    Consumer,
    DeadLetter,
    Drop,
    Message,
    Requeue,
    Retry,
    State,
    TakeOver,
    Topic,
)
from nsqlite.options import SECOND
from nsqlite.testing import ManualClock, MemoryStore
from nsqlite.worker import Outcome, settling
from nsqlite.worker.settling import Settler
from worker.scenes import Failure, NotingConsumer, OneThread, failing, nothing, plan_of


class Scene(OneThread):
    """A settler of what comes from a channel of orders."""

    def __init__(self, options: dict[str, Any] | None = None, **plan: Any) -> None:
        super().__init__(options, **plan)
        self.settler = Settler(self.plan, self.consumer, self.wake)

    @property
    def level(self) -> int:
        """How deep the worker is in backoff."""
        return self.settler.flow_control.level

    def again(self) -> Message[Any]:
        """Take the next message."""
        return self.consumer.get(timeout=0)

    def begin(self, body: object = b"order") -> Message[Any]:
        """Put a message and take it."""
        self.topic.put(body)
        return self.again()

    def do(self, result: object) -> Message[Any]:
        """Handle a message, whose handler returns this, or raises it if it is a failure."""
        message = self.begin()
        self.come(message, result)
        return message

    def come(self, message: Message[Any], result: object) -> None:
        """Come to the end of a handler."""
        if isinstance(result, Failure):
            self.settler.settle_error(message, result)
        else:
            self.settler.settle(message, result)

    def back_off(self, level: int = 1) -> None:
        """Be in backoff at a level, with a probe let through."""
        while self.level < level:
            self.do(Failure())
            self.settler.flow_control.act(self.settler.flow_control.probe_at)
        self.consumer.rest()


# Results


@pytest.mark.parametrize("result", [None, b"", 0, False, "text", ValueError("returned"), object])
def test_whatever_a_handler_returns_is_success(result: object) -> None:
    """A message whose handler returned what decides nothing is finished."""
    scene = Scene()
    message = scene.begin()
    scene.settler.settle(message, result)
    assert (State.FINISHED, (0, 0, 0)) == (message.state, scene.counts)


def test_an_error_is_told_when_its_message_is_settled() -> None:
    """Who joins for the first error finds the message where it is to be."""
    scene = Scene()
    told: list[BaseException | None] = []
    scene.topic.observe(lambda _: told.append(scene.settler.error), kinds=["requeued"])
    error = Failure()
    scene.settler.settle_error(scene.begin(), error)
    assert ([None], error) == (told, scene.settler.error)


def test_a_failure_is_requeued_later_and_later() -> None:
    """A message whose handler raised is deferred by 90 s for each attempt, up to 900 s."""
    scene = Scene(max_attempts=0, backoff=None)
    delays = []
    scene.topic.put(b"order")
    for _ in range(12):
        scene.settler.settle_error(scene.again(), Failure())
        delays.append(scene.delay)
        scene.clock.advance_to_next()
    assert [90.0 * attempts for attempts in range(1, 11)] + [900.0] * 2 == delays


def test_the_requeue_delay_can_be_chosen() -> None:
    """The delay is the one that was chosen times the attempts, up to the longest chosen."""
    scene = Scene(requeue_delay=2, max_requeue_delay=5, backoff=None)
    delays = []
    scene.topic.put(b"order")
    for _ in range(4):
        scene.settler.settle_error(scene.again(), Failure())
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
    text += ": worker.scenes.Failure"
    assert (logging.WARNING, text) == (record.levelno, record.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_the_first_failure_is_kept() -> None:
    """The first error is kept for who joins; later ones are not."""
    scene = Scene(backoff=None)
    first = Failure()
    scene.do(first)
    scene.do(Failure())
    assert scene.settler.error is first


class Burden:
    """What a handler had."""


def test_the_first_failure_keeps_no_frames() -> None:
    """What a worker keeps of it keeps neither the handler's frames nor the message; but a note."""
    scene = Scene(backoff=None, tracebacks="never")  # a log record keeps frames, too
    burdens: list[weakref.ref[Any]] = []

    def fall() -> None:
        burden = Burden()
        burdens.append(weakref.ref(burden))
        raise Failure("bad")

    body = Burden()
    burdens.append(weakref.ref(body))
    message = scene.begin(body)
    del body
    try:
        fall()
    except Failure as error:
        scene.settler.settle_error(message, error)
    name = message.id
    del message
    scene.channel.empty()
    kept = scene.settler.error
    assert [None, None] == [burden() for burden in burdens]
    assert kept is not None
    [note] = kept.__notes__
    assert note.startswith(f"raised by nothing on message {name}:\nTraceback (most recent call")
    assert "in fall" in note


def test_an_error_that_is_raised_again_and_again_is_noted_once() -> None:
    """One object that handlers raise, as the error of a future, does not grow by each message."""
    scene = Scene(backoff=None, max_attempts=1, tracebacks="never", dead_letter=Topic("dead"))
    letters = scene.plan.dead_letter.channel("letters")
    error = Failure("bad")
    for _ in range(20):
        scene.do(error)
    assert 1 == len(error.__notes__)
    assert all(len(info.body.traceback) < 500 for info in letters.peek(20)[1:])


@dataclass(frozen=True)
class Frozen(Exception):
    """An exception of which nothing can be changed."""

    reason: str


def test_an_error_that_cannot_be_changed_ends_no_worker() -> None:
    """It keeps no frames either, and has no note."""
    scene = Scene(backoff=None, tracebacks="never")
    error = Frozen("bad")

    def fall() -> None:
        raise error

    try:
        fall()
    except Frozen:
        scene.settler.settle_error(scene.begin(), error)
    assert (0, 0, 1) == scene.counts
    assert scene.settler.error is error
    assert (None, False) == (error.__traceback__, hasattr(error, "__notes__"))


def test_a_message_that_was_requeued_too_often_says_so() -> None:
    """Its letter tells what its handler decided last, not that nobody answered."""
    dead = Topic("orders.dead", clock=ManualClock())
    scene = Scene(dead_letter=dead, max_attempts=2, backoff=None)
    scene.do(Requeue(1))
    scene.clock.advance(1)
    scene.settler.settle(scene.again(), Requeue(1))
    scene.clock.advance(1)
    scene.settler.give_up(scene.again(), None)
    [letter] = letters(dead)
    assert ("nsqlite.worker.outcome.Requeue", "requeue after 1 s", 3) == (
        letter.error_type,
        letter.error,
        letter.attempts,
    )


def test_what_a_store_keeps_is_no_loss(caplog: pytest.LogCaptureFixture) -> None:
    """A message whose broker is closed under its handler comes again, which is a warning."""
    broker = Broker(store=MemoryStore())
    channel = broker.topic("orders").channel("billing")
    consumer = NotingConsumer(channel, 1)
    settler = Settler(plan_of(channel), consumer, lambda: None)
    broker.topic("orders").put(b"order")
    message = consumer.get(timeout=0)
    broker.close()
    settler.settle(message, None)
    text = f"message {message.id} is in the store, whose broker was closed; it comes again"
    assert [("nsqlite", logging.WARNING, f"orders:billing: {text}")] == caplog.record_tuples


@pytest.mark.parametrize(
    ("tracebacks", "expected"),
    [
        ("once", [True, False, True, False, False]),
        ("always", [True] * 5),
        ("never", [False] * 5),
    ],
)
def test_a_traceback_is_logged_once(
    tracebacks: str, expected: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    """A message that fails again in the same way is logged without; the option says otherwise."""
    scene = Scene(backoff=None, tracebacks=tracebacks)
    scene.do(Failure("bad"))
    for text in ("bad", "worse", "worse", "worse"):
        scene.clock.advance_to_next()
        scene.settler.settle_error(scene.again(), Failure(text))
    assert expected == [record.exc_info is not None for record in caplog.records]
    assert caplog.messages[-1].endswith("given up after attempt 5: worker.scenes.Failure: worse")
    assert {} == scene.settler.failures


def test_a_success_forgets_the_failure() -> None:
    """What was known of a message's failures is forgotten when it is finished."""
    scene = Scene(backoff=None)
    scene.do(Failure("bad"))
    assert 1 == len(scene.settler.failures)
    scene.clock.advance_to_next()
    scene.settler.settle(scene.again(), None)
    assert {} == scene.settler.failures


def test_it_knows_a_bounded_number_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more messages than it remembers, the oldest are forgotten."""
    monkeypatch.setattr(settling, "MOST_FAILURES", 10)
    scene = Scene(backoff=None)
    names = [scene.do(Failure("bad")).id for _ in range(25)]
    assert names[-10:] == list(scene.settler.failures)


# Outcomes


def both(
    outcome: Callable[[], Outcome],
) -> list[Any]:
    """Return what has a handler's outcome come to a settler: raised, or returned."""
    return [
        lambda settler, message: settler.settle_error(message, outcome()),
        lambda settler, message: settler.settle(message, outcome()),
    ]


Come = Callable[[Settler, Message[Any]], None]


@pytest.mark.parametrize("come", both(Requeue))
def test_requeue_has_the_usual_delay_and_backs_off(come: Come) -> None:
    """`Requeue()` is as a failure, but is no error."""
    scene = Scene()
    message = scene.begin()
    come(scene.settler, message)
    assert ["RDY 1", "RDY 0", "REQ 90"] == scene.consumer.rest()
    assert scene.settler.error is None


@pytest.mark.parametrize("come", both(lambda: Requeue(7, backoff=False)))
def test_requeue_has_the_delay_that_it_says(come: Come) -> None:
    """`Requeue(7, backoff=False)` defers by 7 s, and the worker does not slow down."""
    scene = Scene()
    message = scene.begin()
    come(scene.settler, message)
    assert ["RDY 1", "REQ 7"] == scene.consumer.rest()
    assert 7 == scene.delay


@pytest.mark.parametrize("come", both(lambda: Requeue(0)))
def test_requeue_without_delay_is_at_once(come: Come) -> None:
    """`Requeue(0)` makes the message ready at once."""
    scene = Scene()
    message = scene.begin()
    come(scene.settler, message)
    assert (1, 0, 0) == scene.counts


@pytest.mark.parametrize("come", both(Requeue))
def test_requeue_is_not_given_up(come: Come) -> None:
    """`Requeue` at the last attempt is obeyed."""
    scene = Scene(max_attempts=1)
    message = scene.begin()
    come(scene.settler, message)
    assert (0, 0, 1) == scene.counts


@pytest.mark.parametrize("come", both(lambda: Drop("too old")))
def test_drop_finishes_and_says_why(come: Come, caplog: pytest.LogCaptureFixture) -> None:
    """`Drop` finishes the message, and its reason is logged."""
    scene = Scene()
    message = scene.begin()
    with caplog.at_level(logging.INFO, "nsqlite"):
        come(scene.settler, message)
    assert ["RDY 1", "FIN"] == scene.consumer.rest()
    text = f"orders:billing: message {message.id}: drop: too old"
    assert [("nsqlite", logging.INFO, text)] == caplog.record_tuples


@pytest.mark.parametrize("come", both(TakeOver))
def test_take_over_answers_nothing(come: Come) -> None:
    """`TakeOver` leaves the message in flight."""
    scene = Scene()
    message = scene.begin()
    come(scene.settler, message)
    assert ["RDY 1"] == scene.consumer.rest()
    assert State.IN_FLIGHT is message.state
    message.fin()
    assert (0, 0, 0) == scene.counts


@pytest.mark.parametrize(
    ("outcome", "counts"), [(Requeue, (0, 0, 1)), (Drop, (0, 0, 0)), (TakeOver, (0, 1, 0))]
)
def test_a_outcome_class_is_as_good(outcome: type[Outcome], counts: tuple[int, int, int]) -> None:
    """A outcome's class that is returned means the same as one that is raised."""
    scene = Scene()
    scene.do(outcome)
    assert counts == scene.counts
    scene.consumer.close()


async def work() -> None: ...


def later() -> asyncio.Future[None]:
    loop = asyncio.new_event_loop()
    loop.close()
    return loop.create_future()


def steps() -> Iterator[int]:
    yield 1


async def steps_async() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (work, "coroutine"),
        (later, "Future"),
        (steps, "generator"),
        (steps_async, "async_generator"),
    ],
)
def test_what_nobody_runs_is_a_failure(make: Callable[[], object], kind: str) -> None:
    """A handler that returns a coroutine, a future or a generator has done no work: it failed."""
    scene = Scene(handler=nothing, backoff=None)
    scene.do(make())
    text = f"TypeError('nothing returned a {kind}, which nobody runs')"
    assert ((0, 0, 1), text) == (scene.counts, repr(scene.settler.error))


@pytest.mark.parametrize("result", [iter([1]), map(str, [1]), mock.MagicMock()])
def test_other_iterators_are_success(result: object) -> None:
    """What has methods like a generator's, and a handler in a test often returns, is a result."""
    scene = Scene()
    scene.do(result)
    assert (None, (0, 0, 0)) == (scene.settler.error, scene.counts)


class Unknown(Outcome):
    """A outcome that no worker knows."""

    def __repr__(self) -> str:
        return "Unknown()"


class Picky(Outcome):
    """A outcome that cannot be made of nothing."""

    def __init__(self, why: str) -> None:
        super().__init__(why)


@pytest.mark.parametrize("come", both(Unknown))
def test_a_outcome_that_nobody_knows_is_a_failure(come: Come) -> None:
    """A outcome that is none of the three is a failure, and its message comes again."""
    scene = Scene(backoff=None)
    message = scene.begin()
    come(scene.settler, message)
    text = "TypeError('Unknown() is no Requeue, Drop or TakeOver')"
    assert ((0, 0, 1), text) == (scene.counts, repr(scene.settler.error))


def test_a_outcome_class_that_cannot_be_made_is_a_failure() -> None:
    """What a outcome's class raises when it is called is the handler's failure."""
    scene = Scene(backoff=None)
    scene.do(Picky)
    assert (0, 0, 1) == scene.counts
    assert isinstance(scene.settler.error, TypeError)
    assert "missing 1 required positional argument: 'why'" in str(scene.settler.error)


# Answers that come too late


@pytest.mark.parametrize("result", [None, "done", Drop()])
def test_a_handler_may_finish_its_message(result: object, caplog: pytest.LogCaptureFixture) -> None:
    """A message that its handler finished is left as it is, and nothing is logged but a outcome."""
    scene = Scene()
    message = scene.begin()
    message.fin()
    scene.settler.settle(message, result)
    assert ((0, 0, 0), []) == (scene.counts, caplog.records)


@pytest.mark.parametrize("result", [None, "done", Drop()])
def test_a_handler_may_requeue_its_message(
    result: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that its handler requeued stays so, without a word, and the worker backs off."""
    scene = Scene()
    message = scene.begin()
    message.req(3)
    scene.settler.settle(message, result)
    assert (3, 1, []) == (scene.delay, scene.level, caplog.records)


@pytest.mark.parametrize("outcome", [Requeue(7), Requeue(7, backoff=False)])
def test_a_outcome_on_a_message_that_was_answered_is_no_news(
    outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that requeues by itself and says `Requeue` too is heard once, and debugged."""
    scene = Scene()
    message = scene.begin()
    message.req(3)
    with caplog.at_level(logging.DEBUG, "nsqlite"):
        scene.settler.settle(message, outcome)
    text = f"orders:billing: message {message.id} was answered by its handler"
    assert [("nsqlite", logging.DEBUG, text)] == [
        record for record in caplog.record_tuples if record[1] == logging.DEBUG
    ]
    assert 3 == scene.delay


@pytest.mark.parametrize("result", [None, Requeue(), Drop()])
def test_a_message_may_time_out_under_its_handler(
    result: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A message whose time is over when its handler ends is delivered again, and that is logged."""
    scene = Scene(backoff=None)
    message = scene.begin()
    scene.clock.advance(60)
    scene.settler.settle(message, result)
    text = f"message {message.id}: ID not in flight (timed out); its work may be done twice"
    assert f"orders:billing: {text}" == caplog.messages[-1]
    assert (1, 0, 0) == scene.counts
    assert 2 == scene.again().attempts
    scene.consumer.close()


def end(scene: Scene, message: Message[Any], how: str) -> None:
    """Take a message from its handler, in one of the ways in which that can happen."""
    if how == "finished":
        message.fin()
    elif how == "requeued":
        message.req(3)
    elif how == "timed out":
        scene.clock.advance(60)
    elif how == "returned":
        scene.consumer.close()
    else:
        scene.channel.close()


@pytest.mark.parametrize("how", ["finished", "requeued", "timed out", "returned", "dropped"])
def test_a_failure_after_the_answer_promises_nothing(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure on a message that is not in flight any more says so, and not when it comes next."""
    scene = Scene(handler=failing)
    message = scene.begin()
    end(scene, message, how)
    error = Failure()
    scene.settler.settle_error(message, error)
    text = f"orders:billing: failing failed on message {message.id}, which is {how} already"
    text += ": worker.scenes.Failure"
    record = caplog.records[-1]
    assert (logging.WARNING, text) == (record.levelno, record.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert (1, error) == (scene.level, scene.settler.error)


@pytest.mark.parametrize("how", ["close", "delete", "empty"])
def test_what_was_thrown_away_is_no_warning(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A message that somebody threw away meanwhile is not done twice: it is an info record."""
    scene = Scene()
    message = scene.begin()
    getattr(scene.channel, how)()
    caplog.clear()
    with caplog.at_level(logging.INFO, "nsqlite"):
        scene.settler.settle(message, None)
    text = f"orders:billing: message {message.id} was thrown away meanwhile"
    assert [("nsqlite", logging.INFO, text)] == caplog.record_tuples


# What it means for the backoff


def test_the_window_changes_before_the_answer() -> None:
    """A failure and the success after it change the window first, then answer."""
    scene = Scene(concurrency=5)
    scene.do(Failure())
    scene.settler.flow_control.act(scene.settler.flow_control.probe_at)
    scene.do(None)
    assert ["RDY 5", "RDY 0", "REQ 90", "RDY 1", "RDY 5", "FIN"] == scene.consumer.rest()


def test_a_wait_wakes_the_supervisor() -> None:
    """The supervisor is woken to learn of a wait, and not for a success."""
    scene = Scene()
    scene.do(None)
    assert [] == scene.wakes
    scene.do(Failure())
    assert [None] == scene.wakes


@pytest.mark.parametrize("result", [Requeue(1, backoff=False), None, Drop(), TakeOver()])
def test_what_is_no_failure_does_not_begin_a_backoff(result: object) -> None:
    """Outside of backoff nothing but a failure changes the window."""
    scene = Scene()
    scene.do(result)
    assert [] == [call for call in scene.consumer.rest()[1:] if call.startswith("RDY")]
    scene.consumer.close()


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
    assert (calls, level) == (scene.consumer.rest(), scene.level)
    assert scene.settler.flow_control.probe_at == scene.clock.monotonic_ns() + 2**level * SECOND
    scene.consumer.close()


@pytest.mark.parametrize(
    ("how", "level"),
    [("finished", 1), ("requeued", 3), ("timed out", 2), ("returned", 2), ("dropped", 2)],
)
def test_what_a_probe_says_that_was_answered_already(how: str, level: int) -> None:
    """A handler's own answer counts as what it is; a message taken from it says nothing."""
    scene = Scene()
    scene.back_off(2)
    message = scene.begin()
    end(scene, message, how)
    scene.settler.settle(message, None)
    assert level == scene.level


# Giving up


def letters(topic: Topic[Any]) -> list[Any]:
    """Take all dead letters."""
    return bodies(topic.channel("redrive"))


def test_the_last_failure_ends_in_the_dead_letters(caplog: pytest.LogCaptureFixture) -> None:
    """The fifth failure moves the message at once, in one step, with all that is known of it."""
    dead = Topic("orders.dead", clock=ManualClock())
    scene = Scene(dead_letter=dead)
    body = object()
    scene.burn(4, body)
    message = scene.again()
    error = Failure("bad")
    scene.settler.settle_error(message, error)
    assert ["RDY 1", "RDY 0", "MOVE"] == scene.consumer.rest()
    expected = DeadLetter(
        body=body,
        topic="orders",
        channel="billing",
        id=message.id,
        attempts=5,
        error="bad",
        timestamp=message.timestamp,
        error_type="worker.scenes.Failure",
        traceback="worker.scenes.Failure: bad",
    )
    assert [expected] == letters(dead)
    assert ((0, 0, 0), State.FINISHED) == (scene.counts, message.state)
    [record] = caplog.records
    text = f"orders:billing: message {message.id} is given up after attempt 5"
    text += ": worker.scenes.Failure: bad"
    assert (logging.ERROR, text) == (record.levelno, record.getMessage())
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_before_the_last_failure_nothing_is_given_up() -> None:
    """The fourth failure is requeued."""
    scene = Scene(dead_letter=Topic("orders.dead"))
    scene.burn(3)
    scene.settler.settle_error(scene.again(), Failure())
    assert (0, 0, 1) == scene.counts


def test_a_message_that_was_not_handled_says_so() -> None:
    """A message that is given up unhandled says why, and counts as a success."""
    dead = Topic("orders.dead", clock=ManualClock())
    scene = Scene(dead_letter=dead)
    scene.back_off()
    scene.burn(5)
    scene.settler.give_up(scene.again(), None)
    assert (["RDY 1", "MOVE"], 0) == (scene.consumer.rest(), scene.level)
    [letter] = letters(dead)
    assert (6, "", "") == (letter.attempts, letter.error_type, letter.traceback)
    expected = "it was not answered: its last delivery timed out, or its process was killed"
    assert expected == letter.error


def test_without_a_limit_nothing_is_given_up() -> None:
    """With `max_attempts=0` a message that has failed a hundred times is handled again."""
    scene = Scene(max_attempts=0)
    scene.burn(100)
    scene.settler.settle_error(scene.again(), Failure())
    assert (0, 0, 1) == scene.counts


@pytest.mark.parametrize("error", [None, Failure()])
def test_without_dead_letters_a_message_is_finished(error: Failure | None) -> None:
    """Without a topic of dead letters a callback is told of the message, which is then finished."""
    told: list[Any] = []
    scene = Scene(on_give_up=lambda *given: told.append((*given, given[0].state)))
    message = scene.begin()
    scene.settler.give_up(message, error)
    assert [(message, error, State.IN_FLIGHT)] == told
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


@pytest.mark.parametrize("auto_touch", [True, False])
@pytest.mark.parametrize("late", [False, True])
def test_an_answer_that_fails_comes_again(
    auto_touch: bool, late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be answered is logged, times out, and the worker is held back for a while."""
    scene = Scene(retry=Retry(), auto_touch=auto_touch)
    message = scene.begin()
    finish = scene.consumer.fin

    def fail(answered: Message[Any]) -> None:
        if late:
            finish(answered)
        raise OSError

    with mock.patch.object(scene.consumer, "fin", fail):
        scene.settler.settle(message, None)
    text = f"orders:billing: message {message.id} cannot be answered"
    scene.settler.trouble(OSError())  # which changes nothing while it waits
    assert (text, 1) == (caplog.messages[0], scene.settler.flow_control.held_back_for())
    assert [None] == scene.wakes
    scene.clock.advance(60)
    assert (0 if late else 1) == scene.channel.depth


def test_a_requeue_waits_as_a_failure_does() -> None:
    """Without a delay of its own a `Requeue` waits what the retries say; they may give it up."""
    told: list[Any] = []
    answers: list[float | None] = [7, None]

    def wait(message: Message[Any], error: BaseException) -> float | None:
        told.append((message.attempts, type(error)))
        return answers[message.attempts - 1]

    scene = Scene(retry=Retry(delay=wait))
    scene.settler.settle(scene.begin(), Requeue())
    assert 7 == scene.delay
    scene.clock.advance_to_next()
    scene.settler.settle(scene.again(), Requeue())
    assert ([(1, Requeue), (2, Requeue)], (0, 0, 0)) == (told, scene.counts)


def test_not_yet_is_no_attempt() -> None:
    """With `counted=False` a message comes again as if it had not been delivered."""
    scene = Scene(backoff=None)
    scene.topic.put(b"order")
    for _ in range(10):
        message = scene.again()
        assert 1 == message.attempts
        scene.settler.settle(message, Requeue(7, counted=False))
        assert ((0, 0, 1), 7, State.REQUEUED) == (scene.counts, scene.delay, message.state)
        scene.clock.advance(7)
    scene.settler.settle(scene.again(), Requeue(0, counted=False))
    assert [0] == [info.attempts for info in scene.channel.peek()]
    assert 11 == scene.channel.stats().requeue_count
    scene.topic._check()


@pytest.mark.parametrize("attempts", ["late", "durable"])
@pytest.mark.parametrize("how", ["not yet", "withdrawn"])
def test_what_is_no_attempt_is_none_in_the_store(attempts: Any, how: str) -> None:
    """What was put off, or interrupted by a stop, has after a restart the attempts it had."""
    store = MemoryStore(attempts=attempts)
    with Broker(store=store) as broker:
        channel = broker.topic("orders").channel("billing")
        broker.topic("orders").put(b"order")
        consumer = Consumer(channel)
        consumer.get(timeout=0).req()
        message = consumer.get(timeout=0)
        if how == "not yet":
            consumer._postpone(message, 0)
        else:
            consumer._withdraw()
    with Broker(store=store) as broker:
        [info] = broker.topic("orders").channel("billing").peek()
        assert 1 == info.attempts


@pytest.mark.parametrize("how", ["full", "closed", "deleted"])
def test_a_message_that_cannot_be_moved_stays(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """When the topic of dead letters is full or over the message is requeued for a second."""
    dead = Topic("orders.dead", max_depth=1)
    channel = dead.channel("redrive")
    dead.put("the last")
    scene = Scene(dead_letter=dead, max_attempts=1, backoff=None)
    if how != "full":
        (dead.close if how == "closed" else dead.delete)()
    message = scene.do(Failure())
    assert 1 == scene.delay
    problem = {
        "full": "orders.dead:redrive has no room for 1 more: max_depth=1",
        "closed": "topic 'orders.dead' is closed",
        "deleted": "topic 'orders.dead' is deleted",
    }[how]
    text = f"orders:billing: message {message.id} cannot be moved to the dead letters, tried again"
    text += f" in 1 s: {problem}"
    assert text == caplog.messages[-1]
    assert how != "full" or ["the last"] == bodies(channel)


def test_a_message_that_the_dead_letters_cannot_keep_stays() -> None:
    """When a store refuses the letter, its body or for want of room, the message is requeued."""
    clock = ManualClock()
    with Broker(clock=clock, store=MemoryStore()) as broker:
        dead = broker.topic("orders.dead")
        channel = dead.channel("redrive")
        scene = Scene(dead_letter=dead, max_attempts=1, backoff=None)
        scene.settler.settle_error(scene.begin("no bytes"), Failure())
        assert ((0, 0, 1), 0) == (scene.counts, channel.depth)
        scene.settler.settle_error(scene.begin(b"bytes"), Failure())
        assert ((0, 0, 1), 1) == (scene.counts, channel.depth)


def test_a_message_that_cannot_be_moved_keeps_its_last_error() -> None:
    """What could not be moved is moved unhandled when there is room, with its last error."""
    dead = Topic("orders.dead", max_depth=1)
    channel = dead.channel("redrive")
    dead.put("the last")
    scene = Scene(dead_letter=dead, max_attempts=1, backoff=None)
    scene.do(Failure("bad"))
    for _ in range(2):
        scene.clock.advance_to_next()
        scene.settler.give_up(scene.again(), None)
    bodies(channel)
    scene.clock.advance_to_next()
    scene.settler.give_up(scene.again(), None)
    [letter] = bodies(channel)
    assert (4, "bad") == (letter.attempts, letter.error)
    assert {} == scene.settler.failures


def test_a_message_that_timed_out_keeps_its_last_error() -> None:
    """The last error is kept for the next try when the message times out before it is moved."""
    dead = Topic("orders.dead", max_depth=1)
    channel = dead.channel("redrive")
    dead.put("the last")
    scene = Scene(dead_letter=dead, max_attempts=1, backoff=None)
    scene.do(Failure("bad"))
    bodies(channel)
    scene.clock.advance_to_next()
    message = scene.again()
    scene.clock.advance(60)
    scene.settler.give_up(message, None)
    scene.settler.give_up(scene.again(), None)
    assert ["bad"] == [letter.error for letter in bodies(channel)]


def test_who_is_told_of_a_dead_letter_is_told_once_it_was_moved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Callback and log hear of a message when it was moved, not when there was no room for it."""
    dead = Topic("orders.dead", max_depth=1)
    channel = dead.channel("redrive")
    dead.put("the last")
    told: list[Any] = []
    scene = Scene(
        dead_letter=dead,
        max_attempts=1,
        backoff=None,
        on_give_up=lambda message, error: told.append((message.state, error, channel.depth)),
    )
    error = Failure()
    scene.do(error)
    assert ([], 1) == (told, len(caplog.records))
    bodies(channel)
    message = scene.do(error)
    assert [(State.FINISHED, error, 1)] == told
    name = "worker.scenes.Failure"
    text = f"orders:billing: message {message.id} is given up after attempt 1: {name}"
    assert text == caplog.messages[-1]


def test_a_message_that_timed_out_is_not_given_up() -> None:
    """The last failure of a message that is not in flight any more is left to its next delivery."""
    told: list[object] = []
    scene = Scene(on_give_up=lambda *given: told.append(given), max_attempts=1)
    message = scene.begin()
    scene.clock.advance(60)
    scene.settler.settle_error(message, Failure())
    assert ([], (1, 0, 0)) == (told, scene.counts)


def test_a_message_can_time_out_before_it_is_moved(caplog: pytest.LogCaptureFixture) -> None:
    """A message whose time passes before it is moved comes again, and nobody is told it is dead."""
    dead = Topic("orders.dead", clock=ManualClock())
    told: list[object] = []
    scene = Scene(dead_letter=dead, on_give_up=lambda *given: told.append(given))
    message = scene.begin()
    scene.clock.advance(60)
    scene.settler.give_up(message, None)
    assert ([], [], (1, 0, 0)) == (letters(dead), told, scene.counts)
    text = f"message {message.id}: ID not in flight (timed out); its work may be done twice"
    assert [f"orders:billing: {text}"] == caplog.messages


def test_a_message_can_time_out_in_the_callback(caplog: pytest.LogCaptureFixture) -> None:
    """Without dead letters a message whose time passes in the callback comes again."""

    def take_long(_message: object, _error: object) -> None:
        scene.clock.advance(60)

    scene = Scene(on_give_up=take_long, max_attempts=1)
    scene.do(Failure())
    assert (1, 0, 0) == scene.counts
    assert caplog.messages[-1].endswith("(timed out); its work may be done twice")
