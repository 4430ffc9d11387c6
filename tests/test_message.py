"""A message: one delivery, its state, and what its with-block does."""

import copy
import logging
import pickle
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import pytest

from nsqlite import (
    Broker,
    Channel,
    Consumer,
    InvalidOption,
    Message,
    NotCopyable,
    NotInFlight,
    State,
    Topic,
    message,
)
from nsqlite.message import REASONS
from nsqlite.testing import ManualClock
from nsqlite.timerwheel import Page


class Scene:
    """A message in the hands of a consumer, on a clock that stands."""

    def __init__(self, body: object = "tea", *, requeue_delay: float = 0) -> None:
        self.clock = ManualClock(1_700_000_000)
        self.topic: Topic[object] = Topic("orders", clock=self.clock, msg_timeout=10)
        self.channel: Channel[object] = self.topic.channel("billing")
        self.consumer = Consumer(self.channel, requeue_delay=requeue_delay)
        self.id = self.topic.put(body)
        self.message = self.consumer.get(timeout=0)

    def again(self) -> Message[object]:
        """Deliver to another consumer."""
        return Consumer(self.channel).get(timeout=0)


def act_fin(scene: Scene) -> None:
    scene.message.fin()


def act_req(scene: Scene) -> None:
    scene.message.req()


def act_time_out(scene: Scene) -> None:
    scene.clock.advance(10)


def act_close_consumer(scene: Scene) -> None:
    scene.consumer.close()


def act_empty(scene: Scene) -> None:
    scene.channel.empty()


def act_delete(scene: Scene) -> None:
    scene.channel.delete()


def act_close(scene: Scene) -> None:
    scene.channel.close()


def act_move(scene: Scene) -> None:
    scene.consumer.move(scene.message, Topic("others"))


ENDS: Final[list[tuple[str, Callable[[Scene], None], State]]] = [
    ("fin", act_fin, State.FINISHED),
    ("req", act_req, State.REQUEUED),
    ("time-out", act_time_out, State.TIMED_OUT),
    ("close of its consumer", act_close_consumer, State.RETURNED),
    ("empty", act_empty, State.DROPPED),
    ("delete", act_delete, State.DROPPED),
    ("close", act_close, State.DROPPED),
    ("move", act_move, State.FINISHED),
]
"""Everything that ends a delivery, in the words of the diagram, and what it makes of it."""

NAMES: Final = [name for name, _, _ in ENDS]

ANSWERS: Final[list[Callable[[Message[object]], None]]] = [Message.fin, Message.req, Message.touch]


def text(id_: str, reason: str) -> str:
    return f"message {id_}: ID not in flight ({reason})"


# What it carries


def test_a_message_carries_what_was_published() -> None:
    """A message has the id that put returned, the time of the put, and the body itself."""
    body = ["tea"]
    scene = Scene(body)
    scene.clock.advance(3)
    delivered = scene.message
    assert (scene.id, 1_700_000_000 * 10**9) == (delivered.id, delivered.timestamp)
    assert delivered.body is body


def test_two_channels_deliver_the_same_object() -> None:
    """The body is never copied: each channel's message has the same object and the same id."""
    topic: Topic[list[str]] = Topic("orders", clock=ManualClock())
    consumers = [Consumer(topic.channel(name)) for name in ("billing", "audit")]
    topic.put(["tea"])
    one, other = (consumer.get(timeout=0) for consumer in consumers)
    assert one is not other
    assert one.body is other.body
    assert one.id == other.id


@pytest.mark.parametrize("end", [act_req, act_time_out, act_close_consumer])
def test_attempts_count_deliveries(end: Callable[[Scene], None]) -> None:
    """A message that is delivered again has one attempt more, and id and time as before."""
    scene = Scene()
    end(scene)
    again = scene.again()
    assert (1, 2) == (scene.message.attempts, again.attempts)
    assert (scene.message.id, scene.message.timestamp) == (again.id, again.timestamp)


@pytest.mark.parametrize("end", [act_req, act_time_out, act_close_consumer])
def test_each_delivery_is_an_object_of_its_own(end: Callable[[Scene], None]) -> None:
    """A stale message can do nothing to the delivery that followed."""
    scene = Scene()
    end(scene)
    again = scene.again()
    for answer in ANSWERS:
        with pytest.raises(NotInFlight):
            answer(scene.message)
    assert (State.IN_FLIGHT, 1) == (again.state, scene.channel.in_flight_count)


# State


def test_a_state_equals_its_text() -> None:
    """The states are those of the diagram, and each equals its text."""
    states = ["in flight", "finished", "requeued", "timed out", "returned", "dropped"]
    assert states == list(State)
    assert "in flight" == f"{Scene().message.state}"


def test_the_docstring_shows_what_ends_a_delivery() -> None:
    """The diagram in the module's docstring has an arrow for each end, and no other."""
    arrows = re.findall(r" --([^ -].*?)--+> (\w+(?: \w+)?)", message.__doc__ or "")
    drawn = [(what, state) for whats, state in arrows for what in whats.split(", ")]
    assert sorted((name, str(state)) for name, _, state in ENDS) == sorted(drawn)


@pytest.mark.parametrize(("end", "state"), [case[1:] for case in ENDS], ids=NAMES)
def test_what_ends_a_delivery_decides_its_state(end: Callable[[Scene], None], state: State) -> None:
    """A message is in flight until something ends that, and then in that state for good."""
    scene = Scene()
    states = [scene.message.state]
    end(scene)
    states.append(scene.message.state)
    scene.clock.advance(20)
    states.append(scene.message.state)
    assert [State.IN_FLIGHT, state, state] == states


def test_a_touched_message_is_in_flight() -> None:
    """A touch changes no state, and the time-out begins anew."""
    scene = Scene()
    scene.clock.advance(9)
    scene.message.touch()
    scene.clock.advance(9)
    states = [scene.message.state]
    scene.clock.advance(1)
    states.append(scene.message.state)
    assert [State.IN_FLIGHT, State.TIMED_OUT] == states


# Too late


def test_every_end_has_a_reason() -> None:
    """Each state but the first has the reason that `NotInFlight` gives."""
    assert set(State) - {State.IN_FLIGHT} == set(REASONS)
    assert {"answered", "timed out", "given back", "dropped"} == set(REASONS.values())


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
@pytest.mark.parametrize(("end", "state"), [case[1:] for case in ENDS], ids=NAMES)
def test_a_stale_message_can_do_nothing(
    answer: Callable[[Message[object]], None], end: Callable[[Scene], None], state: State
) -> None:
    """An answer or touch after the end is refused with the reason, and changes nothing."""
    scene = Scene()
    end(scene)
    before = scene.topic.stats()
    with pytest.raises(NotInFlight) as info:
        answer(scene.message)
    error = info.value
    assert (scene.id, REASONS[state], text(scene.id, REASONS[state])) == (
        error.id,
        error.reason,
        str(error),
    )
    assert (state, before) == (scene.message.state, scene.topic.stats())
    assert str(error) == str(scene.message._refusal())


@pytest.mark.parametrize("answer", ["fin", "req", "touch"])
def test_another_consumer_is_not_the_owner(answer: str) -> None:
    """A consumer cannot answer or touch what was delivered to another; nothing has changed."""
    scene = Scene()
    other = Consumer(scene.channel)
    with pytest.raises(NotInFlight) as info:
        getattr(other, answer)(scene.message)
    error = info.value
    assert ("not owner", f"message {scene.id}: client does not own message") == (
        error.reason,
        str(error),
    )
    assert scene.message.state is State.IN_FLIGHT


def test_a_bad_delay_changes_nothing() -> None:
    """A message with whose requeue something is wrong is still in flight."""
    scene = Scene()
    with pytest.raises(InvalidOption) as info:
        scene.message.req(delay=-1)
    expected = "a finite number of seconds, at least 0"
    assert f"delay must be {expected}, not -1" == str(info.value)
    assert scene.message.state is State.IN_FLIGHT


# Its with-block


def test_a_block_that_succeeds_finishes() -> None:
    """The block gives the message itself, and finishes it when it succeeds."""
    scene = Scene()
    with scene.message as given:
        assert given is scene.message
        assert given.state is State.IN_FLIGHT
    assert scene.message.state is State.FINISHED


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_block_that_fails_requeues(error: type[BaseException]) -> None:
    """Whatever the block raises, the message is ready again at once, and the exception goes on."""
    scene = Scene()
    problem = error()
    with pytest.raises(error) as info, scene.message:
        raise problem
    assert info.value is problem
    assert (State.REQUEUED, 1) == (scene.message.state, scene.channel.depth)


def test_a_block_that_fails_requeues_with_the_consumers_delay() -> None:
    """A message whose block failed is delivered again after the consumer's `requeue_delay`."""
    scene = Scene(requeue_delay=2.5)
    with pytest.raises(ZeroDivisionError), scene.message:
        raise ZeroDivisionError
    assert (0, 1) == (scene.channel.depth, scene.channel.deferred_count)
    scene.clock.advance(2.5)
    assert 2 == scene.again().attempts


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("end", "state"), [(act_fin, "finished"), (act_req, "requeued")], ids=["fin", "req"]
)
def test_a_block_leaves_an_answered_message(
    end: Callable[[Scene], None], state: str, caplog: pytest.LogCaptureFixture, *, fails: bool
) -> None:
    """A message that was answered inside its block stays as it is, also if the block then fails."""
    scene = Scene()
    outcome = pytest.raises(ZeroDivisionError) if fails else nullcontext()
    with outcome, scene.message:
        end(scene)
        divmod(1, not fails)
    assert (state, []) == (scene.message.state, caplog.records)


def test_a_block_finishes_a_touched_message() -> None:
    """A message that was touched inside its block is finished at its end."""
    scene = Scene()
    with scene.message:
        scene.clock.advance(9)
        scene.message.touch()
        scene.clock.advance(9)
    assert scene.message.state is State.FINISHED


LATE: Final = [case for case in ENDS if case[2] in (State.TIMED_OUT, State.RETURNED, State.DROPPED)]


@pytest.mark.parametrize(
    ("end", "state"), [case[1:] for case in LATE], ids=[name for name, _, _ in LATE]
)
def test_a_block_that_succeeds_too_late_says_so(end: Callable[[Scene], None], state: State) -> None:
    """A block that succeeds after the message was taken away raises `NotInFlight`."""
    scene = Scene()
    with pytest.raises(NotInFlight) as info, scene.message:
        end(scene)
    assert text(scene.id, REASONS[state]) == str(info.value)


@pytest.mark.parametrize(
    ("end", "state"), [case[1:] for case in LATE], ids=[name for name, _, _ in LATE]
)
def test_a_block_that_fails_too_late_is_logged(
    end: Callable[[Scene], None], state: State, caplog: pytest.LogCaptureFixture
) -> None:
    """A block that fails after the message was taken away is logged, and its exception goes on."""
    scene = Scene()
    problem = ZeroDivisionError("no")
    with pytest.raises(ZeroDivisionError) as info, scene.message:
        end(scene)
        caplog.clear()
        raise problem
    assert info.value is problem
    expected = f"{text(scene.id, REASONS[state])}; its handler failed with {problem!r}"
    assert [("nsqlite", logging.WARNING, expected)] == caplog.record_tuples


# Its repr


def test_a_message_shows_itself() -> None:
    """A repr has id, attempts, state and body."""
    scene = Scene(b"order 1")
    assert f"<Message {scene.id} attempts=1 in flight: b'order 1'>" == repr(scene.message)
    scene.message.req()
    assert f"<Message {scene.id} attempts=1 requeued: b'order 1'>" == repr(scene.message)
    again = scene.again()
    assert f"<Message {scene.id} attempts=2 in flight: b'order 1'>" == repr(again)


@pytest.mark.parametrize(
    ("body", "shown"),
    [("x" * 58, f"'{'x' * 58}'"), ("x" * 59, f"'{'x' * 56}..."), ("x" * 9999, f"'{'x' * 56}...")],
)
def test_a_long_body_is_cut(body: str, shown: str) -> None:
    """A repr shows 60 characters of the body's at most."""
    scene = Scene(body)
    assert len(shown) <= 60
    assert f"<Message {scene.id} attempts=1 in flight: {shown}>" == repr(scene.message)


def test_a_message_made_by_hand_shows_itself() -> None:
    """One that no consumer has got says so."""
    assert "<Message never delivered>" == repr(Message())


def test_a_state_read_while_it_is_touched() -> None:
    """A message that is touched while its state is read is in flight."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"))
    topic.put(b"1")
    message = consumer.get()
    clock.advance(1)

    class Meanwhile(Page[Any]):
        """A page out of which the message is touched when somebody looks into it."""

        def __contains__(self, item: object) -> bool:
            if super().__contains__(item):
                message._page = real
                consumer.touch(message)
            return False

    real = message._page
    before = Meanwhile(real.start, real.end, real.first)
    before[message] = real[message]
    message._page = before
    states = [message.state]
    message.fin()
    states.append(message.state)
    assert [State.IN_FLIGHT, State.FINISHED] == states


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_that_lives_can_be_copied(duplicate: Callable[[Any], Any]) -> None:
    """A broker, topic, channel, consumer or message is itself, and a copy is refused."""
    broker = Broker()
    topic = broker.topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"order 1")
    message = consumer.get(timeout=0)
    for thing in (broker, topic, channel, consumer, message):
        with pytest.raises(NotCopyable) as info:
            duplicate(thing)
        assert isinstance(info.value, TypeError)
        assert repr(thing) == info.value.what
    message.fin()
    topic._check()


def test_snapshots_can_be_copied() -> None:
    """What only tells of them can be."""
    topic = Broker().topic("orders")
    topic.channel("billing")
    topic.put(b"order 1")
    for snapshot in (topic.stats(), topic.channel("billing").peek()):
        assert snapshot == copy.deepcopy(snapshot) == pickle.loads(pickle.dumps(snapshot))  # noqa: S301  # our own


def test_a_body_without_a_repr() -> None:
    """A message shows itself though its body cannot."""

    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError

    topic: Topic[Any] = Topic("orders")
    consumer = Consumer(topic.channel("billing"))
    topic.put(Mute())
    assert "attempts=1 in flight: <Mute>>" in repr(consumer.get())
