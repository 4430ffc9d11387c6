"""Dead letters: what they carry, and how they are put back where they failed."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from helpers import bodies

from nsqlite import (
    Closed,
    Consumer,
    DeadLetter,
    InvalidMessage,
    InvalidOption,
    Topic,
    redrive,
)
from nsqlite.testing import FakeBroker, ManualClock
from nsqlite.worker.deadletter import letter_of
from nsqlite.worker.failure import Failure


def a_letter(body: object, topic: str = "orders", channel: str = "billing") -> DeadLetter:
    return DeadLetter(
        body=body,
        topic=topic,
        channel=channel,
        id="0000000000000001",
        attempts=5,
        error="Failure()",
        timestamp=1,
    )


class Scene:
    """Two channels of orders, and dead letters of one of them."""

    def __init__(self, *letters: object, **clock: Any) -> None:
        self.broker = FakeBroker(clock=ManualClock(**clock))
        self.clock = self.broker.clock
        self.orders = self.broker.topic("orders")
        self.billing = self.orders.channel("billing")
        self.shipping = self.orders.channel("shipping")
        dead = self.broker.topic("orders.dead")
        self.dead = dead.channel("redrive")
        for letter in letters:
            dead.put(letter)

    def left(self) -> list[Any]:
        """Return the bodies of the letters that are still there, in their order."""
        return [letter.body for letter in bodies(self.dead)]


# A letter


def test_a_letter_tells_what_failed_where() -> None:
    """A dead letter carries the body, and where the message was when it failed."""
    topic = Topic("orders", clock=ManualClock(start=1000))
    channel = topic.channel("billing")
    body = object()
    consumer = Consumer(channel)
    name = topic.put(body)
    consumer.get(timeout=0).req()
    letter = letter_of(consumer.get(timeout=0), channel, Failure("KeyError", "'tea'", "..."))
    expected = DeadLetter(
        body=body,
        topic="orders",
        channel="billing",
        id=name,
        attempts=2,
        error="'tea'",
        timestamp=1000 * 10**9,
        error_type="KeyError",
        traceback="...",
    )
    assert expected == letter
    assert letter.body is body
    consumer.close()


# Putting them back


def test_all_letters_come_back() -> None:
    """All letters are put back, in their order, and only into the channel where they failed."""
    scene = Scene(a_letter(1), a_letter(2), a_letter(3))
    assert 3 == redrive(scene.dead, scene.broker)
    assert ([1, 2, 3], [], []) == (bodies(scene.billing), bodies(scene.shipping), scene.left())
    scene.broker._check()


def test_a_letter_begins_anew() -> None:
    """A letter that came back has a new id and no attempts, and carries the body itself."""
    body = object()
    scene = Scene(a_letter(body))
    redrive(scene.dead, scene.broker)
    with Consumer(scene.billing) as consumer:
        message = consumer.get(timeout=0)
        assert (True, 1) == (message.body is body, message.attempts)
        assert "0000000000000001" != message.id


def test_nothing_dead_is_nothing_to_do() -> None:
    """Without letters nothing is put back."""
    scene = Scene()
    assert 0 == redrive(scene.dead, scene.broker, rate=1)


def test_letters_can_be_chosen() -> None:
    """Only those letters come back that are asked for; the others stay in their order."""
    scene = Scene(*map(a_letter, range(6)))
    assert 3 == redrive(scene.dead, scene.broker, where=lambda letter: letter.body % 2 == 0)
    assert ([0, 2, 4], [1, 3, 5]) == (bodies(scene.billing), scene.left())


def test_a_choice_that_fails_loses_nothing() -> None:
    """When the predicate raises, what was not put back stays, and the error goes on."""
    scene = Scene(a_letter(1), a_letter(0), a_letter(2))
    with pytest.raises(ZeroDivisionError):
        redrive(scene.dead, scene.broker, where=lambda letter: bool(1 // letter.body))
    assert ([1], [0, 2]) == (bodies(scene.billing), scene.left())


def test_letters_go_to_the_one_topic_that_is_given() -> None:
    """With a topic instead of a broker the letters of that topic come back, and no others."""
    scene = Scene(a_letter(1), a_letter(2, topic="parcels"), a_letter(3))
    assert 2 == redrive(scene.dead, scene.orders)
    assert ([1, 3], [2]) == (bodies(scene.billing), scene.left())


@pytest.mark.parametrize(("topic", "channel"), [("parcels", "billing"), ("orders", "packing")])
def test_a_letter_without_a_home_stays(
    topic: str, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A letter whose topic or channel does not exist stays, and nothing is created for it."""
    scene = Scene(a_letter(1, topic, channel), a_letter(2))
    assert 1 == redrive(scene.dead, scene.broker)
    assert ([2], [1]) == (bodies(scene.billing), scene.left())
    text = f"there is no {topic}:{channel} to put a letter back"
    assert [("nsqlite", logging.WARNING, text)] == caplog.record_tuples
    assert ["orders", "orders.dead"] == sorted(scene.broker.topics)
    assert ["billing", "shipping"] == sorted(scene.orders.channels)


def test_a_letter_to_a_closed_channel_stays(caplog: pytest.LogCaptureFixture) -> None:
    """A letter whose channel is closed stays."""
    scene = Scene(a_letter(1), a_letter(2, channel="shipping"))
    scene.billing.close()
    assert 1 == redrive(scene.dead, scene.broker)
    assert ([2], [1]) == (bodies(scene.shipping), scene.left())
    text = "a dead letter stays: channel 'billing' of topic 'orders' is closed"
    assert [("nsqlite", logging.WARNING, text)] == caplog.record_tuples


def test_what_is_no_letter_is_an_error() -> None:
    """A body that is no letter is refused and stays; those before it were put back."""
    scene = Scene(a_letter(1), b"junk", a_letter(2))
    with pytest.raises(InvalidMessage) as info:
        redrive(scene.dead, scene.broker)
    assert "a dead letter is a DeadLetter, not a bytes" == str(info.value)
    assert ([1], 2) == (bodies(scene.billing), scene.dead.depth)


def test_what_another_takes_is_left_to_it() -> None:
    """When somebody else takes the letters meanwhile there is nothing more to put back."""
    scene = Scene(a_letter(1), a_letter(2))

    def take_the_other(_letter: DeadLetter) -> bool:
        scene.dead.empty()
        return False

    assert 0 == redrive(scene.dead, scene.broker, where=take_the_other)
    assert [] == scene.left()


def test_a_letter_that_its_home_does_not_take_stays(caplog: pytest.LogCaptureFixture) -> None:
    """A letter that is refused by the topic where it came from stays, and others come back."""
    scene = Scene(a_letter(b"too long", "stored"), a_letter(2))
    scene.broker.topic("stored", max_msg_size=3).channel("billing")
    assert 1 == redrive(scene.dead, scene.broker)
    assert ([2], [b"too long"]) == (bodies(scene.billing), scene.left())
    assert (1, True) == (
        len(caplog.messages),
        caplog.messages[0].startswith("a dead letter stays: "),
    )


def test_a_letter_that_times_out_stays(caplog: pytest.LogCaptureFixture) -> None:
    """When a choice takes longer than a letter has, that letter stays, and others come back."""
    scene = Scene(a_letter(1), a_letter(2))

    def choose(letter: DeadLetter) -> bool:
        if letter.body == 1:
            scene.clock.advance(scene.dead.options.max_msg_timeout)
        return True

    assert 1 == redrive(scene.dead, scene.broker, where=choose)
    assert 1 == len(caplog.messages)
    assert "a dead letter stays: " == caplog.messages[0][:21]
    assert "ID not in flight (timed out)" in caplog.messages[0]
    assert 1 == len(scene.left())


def test_a_letter_may_take_long_to_choose() -> None:
    """A letter is held for `max_msg_timeout`, not for the shorter time of the channel."""
    scene = Scene(a_letter(1))
    options = scene.dead.options
    assert options.msg_timeout < options.max_msg_timeout

    def choose(_letter: DeadLetter) -> bool:
        scene.clock.advance(options.max_msg_timeout - 0.001)
        return True

    assert 1 == redrive(scene.dead, scene.broker, where=choose)
    assert ([1], []) == (bodies(scene.billing), scene.left())


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("dead", "orders.dead", "what Topic.channel(name) returns"),
        ("dead", Topic("orders.dead"), "what Topic.channel(name) returns"),
        ("home", "orders", "a Broker or a Topic"),
        ("home", Topic("orders").channel("billing"), "a Broker or a Topic"),
        ("where", 1, "a plain function of one DeadLetter"),
        ("where", None, "a plain function of one DeadLetter"),
        ("where", asyncio.sleep, "a plain function of one DeadLetter"),
        ("where", lambda: True, "a plain function of one DeadLetter"),
    ],
)
def test_what_cannot_be_driven_back_is_refused(option: str, value: object, expected: str) -> None:
    """An argument of the wrong kind is named in the error, and nothing is put back."""
    scene = Scene(a_letter(1))
    given: dict[str, Any] = {"dead": scene.dead, "home": scene.broker, option: value}
    with pytest.raises(InvalidOption) as info:
        redrive(given.pop("dead"), given.pop("home"), **given)
    assert (option, value, expected) == (info.value.option, info.value.value, info.value.expected)
    assert [1] == scene.left()


def test_a_closed_channel_gives_no_letters() -> None:
    """From a closed channel of dead letters nothing can be put back."""
    scene = Scene(a_letter(1))
    scene.dead.close()
    with pytest.raises(Closed):
        redrive(scene.dead, scene.broker)


# Rate


def test_the_rate_is_kept() -> None:
    """With a rate of 4 a second the letters come back a quarter of a second apart, no longer."""
    scene = Scene(*map(a_letter, range(4)), start=0, autojump=True)
    assert 4 == redrive(scene.dead, scene.broker, rate=4)
    published = scene.broker.history.published("orders")
    assert [(0, "billing"), (0.25, "billing"), (0.5, "billing"), (0.75, "billing")] == [
        (event.time, event.channel) for event in published
    ]
    assert 750_000_000 == scene.clock.monotonic_ns()


def test_what_stays_takes_no_time() -> None:
    """A rate counts the letters that are put back."""
    scene = Scene(*map(a_letter, range(9)), autojump=True)
    redrive(scene.dead, scene.broker, where=lambda letter: letter.body in (0, 8), rate=1)
    assert 10**9 == scene.clock.monotonic_ns()
    assert [1, 2, 3, 4, 5, 6, 7] == scene.left()


@pytest.mark.parametrize(
    "rate", [0, -1, float("nan"), float("inf"), True, "1", timedelta(seconds=1)]
)
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    """A rate is a finite number above 0; else nothing is put back."""
    scene = Scene(a_letter(1))
    with pytest.raises(InvalidOption) as info:
        redrive(scene.dead, scene.broker, rate=rate)
    assert f"rate must be a finite number above 0, not {rate!r}" == str(info.value)
    assert [1] == scene.left()
