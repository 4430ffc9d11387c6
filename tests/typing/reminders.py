"""A user's tests: time by hand, for topics, brokers and workers."""

from datetime import timedelta
from typing import assert_type

import nsqlite
from nsqlite import Broker, Clock, Consumer, Seconds, State, Topic
from nsqlite.testing import ManualClock


def remind(topic: Topic[str], who: str, after: Seconds) -> None:
    """Stand for the code under test."""
    topic.put(who, delay=after)


def test_a_reminder_comes_in_time() -> None:
    """As the README shows it."""
    clock = nsqlite.testing.ManualClock()
    topic = nsqlite.Topic[str]("reminders", clock=clock)
    consumer = nsqlite.Consumer(topic.channel("mail"))
    remind(topic, "ann", 2.5)
    clock.advance(2.5)
    message = consumer.get(timeout=0)
    clock.advance(timedelta(minutes=1))
    assert_type(message.state, State)
    assert message.state == State.TIMED_OUT
    assert consumer.get(timeout=0).attempts == 2


def test_every_reminder_of_a_broker_comes() -> None:
    """A broker takes the same clock, and jumps to what is due."""
    clock: Clock = ManualClock(autojump=True)
    with Broker(clock=clock) as broker:
        topic: Topic[str] = broker.topic("reminders")
        consumer = Consumer(topic.channel("mail"))
        remind(topic, "ann", timedelta(hours=1))
        with consumer.get() as message:
            assert message.body == "ann"


def test_nobody_waits_for_what_never_comes() -> None:
    """A wait that can never end is an error of its own, with its facts."""
    consumer = Consumer(Topic("none", clock=ManualClock(patience=0.01)).channel("mail"))
    try:
        consumer.get()
    except nsqlite.ClockStandsStill as error:
        assert isinstance(error, nsqlite.NSQLiteError)  # noqa: PT017 - a user without pytest
    else:
        raise AssertionError


def main() -> None:
    """Run the tests."""
    test_a_reminder_comes_in_time()
    test_every_reminder_of_a_broker_comes()
    test_nobody_waits_for_what_never_comes()
    clock = ManualClock(start=0)
    assert_type(clock.time(), float)
    assert_type(clock.advance_to_next(), float | None)


def mistakes() -> None:
    """What a type checker is to refuse; never called."""
    clock = ManualClock()
    Topic("t", clock=ManualClock)  # error: arg-type, reportArgumentType
    Topic("t", clock=5)  # error: arg-type, reportArgumentType
    Topic("t", clok=clock)  # error: call-arg, reportCallIssue
    clock.advance("5")  # error: arg-type, reportArgumentType
    clock.advence(5)  # error: attr-defined, reportAttributeAccessIssue
    ManualClock(autojmp=True)  # error: call-arg, reportCallIssue
    nsqlite.testing.ManualClok()  # error: attr-defined, reportAttributeAccessIssue


if __name__ == "__main__":
    main()
