"""A history tells what has happened, and what did instead of what was expected."""

import gc
import re
import traceback
import warnings
from collections.abc import Callable
from typing import Any, Final

import pytest

import nsqlite
from nsqlite import Consumer, InvalidOption, Retry, StoreError, Topic, Worker
from nsqlite.testing import FakeBroker, History, ManualClock
from nsqlite.timeline import Recorder

CHANNEL: Final = Topic[int]("orders").channel("billing")
NO_ODERS = "there is no topic 'oders' (did you mean 'orders'?)"
NO_BILING = "topic 'orders' has no channel 'biling' (did you mean 'billing'?)"


def shop() -> FakeBroker:
    """Return a broker where one order was billed and one is a dead letter."""
    broker = FakeBroker(mode="real", clock=ManualClock(autojump=True))
    orders, dead = broker.topic("orders"), broker.topic("orders.dead")
    billing = orders.channel("billing")

    def bill(message: Any) -> None:
        if message.body == {"order": 2}:
            raise LookupError("no such customer")

    orders.put_many([{"order": 1}, {"order": 2}])
    broker.topic("payments").put({"order": 3})
    once = Retry(max_attempts=1)
    with Worker(billing, bill, name="bill", retry=once, dead_letter=dead) as worker:
        worker.join()
    return broker


def text_of(call: Callable[[], object]) -> str:
    """Return why an assertion fails."""
    with pytest.raises(AssertionError) as caught:
        call()
    return str(caught.value)


def test_history_tells_what_was_published() -> None:
    """What was published to a topic is told, and nothing of another."""
    history = shop().history
    published = history.published("orders")
    assert [{"order": 1}, {"order": 2}] == published.bodies
    assert 2 == len(set(published.ids))
    assert 4 == len(history.published())
    assert () == history.published("mails")


def test_history_tells_what_became_of_it() -> None:
    """Deliveries, answers and time-outs are told, each with its attempts."""
    broker = FakeBroker()
    orders = broker.topic("orders")
    consumer = Consumer(orders.channel("billing"))
    orders.channel("audit")
    orders.put("one", delay=1)
    broker.clock.advance(1)
    consumer.get(timeout=0).req(5)
    broker.clock.advance(5)
    consumer.get(timeout=0)
    broker.clock.advance(60)
    consumer.get(timeout=0).fin()
    history = broker.history
    assert [1, 2, 3] == history.delivered("orders", "billing").attempts
    assert () == history.delivered("orders", "audit")
    assert [1] == history.requeued("orders").attempts
    assert [2] == history.timed_out("orders").attempts
    assert [3] == history.finished().attempts
    assert [0, 0, 1] == history.deferred("orders").attempts
    assert ["one"] == history.assert_timed_out("orders", "billing", attempts=2, n=1).bodies
    assert ["one"] == history.assert_requeued("orders", body="one").bodies
    assert ["one"] == history.assert_finished("orders", attempts=3).bodies
    assert 1 == len(history.assert_delivered("orders", body="one", attempts=lambda n: n > 2))
    assert len(history.events) == len(history.recorder.events)


def test_history_tells_dead_letters() -> None:
    """Those of a topic, of a channel, or in a dead-letter topic."""
    history = shop().history
    for names in [(), ("orders",), ("orders", "billing"), ("orders.dead",)]:
        [letter] = history.dead(*names)
        assert ({"order": 2}, 1, "no such customer") == (
            letter.body,
            letter.attempts,
            letter.error,
        )
    assert [] == history.dead("payments") == history.dead("orders", "audit")
    assert [letter] == history.assert_dead("orders", error=re.compile("customer$"), n=1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"order": 1}, 1),
        ({"order": 9}, 0),
        (lambda body: body["order"] > 1, 1),
        (dict, 0),
        (re.compile("order"), 0),
    ],
)
def test_a_body_is_compared_in_several_ways(body: Any, expected: int) -> None:
    """By `==`, or by a function; a class is no function, and a pattern is for text."""
    shop().history.assert_published("orders", body=body, n=expected)


def test_a_pattern_is_searched_for_in_text_and_bytes() -> None:
    """Each in its own kind."""
    broker = FakeBroker()
    broker.topic("orders").put_many(["order 1", b"order 1"])
    assert ["order 1"] == broker.history.assert_published("orders", body=re.compile("1$")).bodies
    assert [b"order 1"] == broker.history.assert_published("orders", body=re.compile(b"1$")).bodies


def test_it_is_printed_as_a_timeline() -> None:
    """A line for each event, and the kinds in short."""
    history = shop().history
    assert "22:13:20.000 published   payments {'order': 3}" == repr(history.published("payments"))
    assert "no events" == repr(history.published("mails"))
    counts = "created: 4, published: 4, delivered: 2, finished: 2"
    assert f"<History {counts}>" == repr(history)
    assert "<History nothing has happened>" == repr(History(Recorder()))


def test_it_is_of_any_broker_or_topic() -> None:
    """It begins when it is made; anything else is refused."""
    topic = Topic[str]("orders")
    topic.put("before")
    history = History.of(topic)
    topic.put("one")
    history.assert_published("orders", body="one", n=1)
    broker = nsqlite.Broker()
    history = History.of(broker)
    broker.topic("orders").put("one")
    history.assert_published("orders", n=1)
    with pytest.raises(InvalidOption, match="what must be a Broker or a Topic, not 3"):
        History.of(3)  # type: ignore[arg-type]


def test_a_failure_shows_what_did_happen() -> None:
    """What came nearest, all of that kind, the same elsewhere, and the end as a timeline."""
    broker = shop()
    expected = """\
expected at least 1 published to orders with body {'order': 3}, found 0 of 2

the nearest body (- wanted, + found):
  - {'order': 3}
  ?           ^
  + {'order': 1}
  ?           ^

published to orders (2):
  22:13:20.000 published   orders {'order': 1}
  22:13:20.000 published   orders {'order': 2}

the same in other topics: 'payments' (1)

last events (12):"""
    text = text_of(lambda: broker.history.assert_published("orders", body={"order": 3}))
    assert expected == text[: len(expected)]
    assert 11 == len(text[len(expected) :].strip().splitlines())


def test_a_failure_counts() -> None:
    """There is nothing near where the body is right and the number is not."""
    broker = shop()
    text = text_of(lambda: broker.history.assert_finished("orders", "billing", n=3))
    expected = """\
expected exactly 3 finished in orders/billing, found 2

finished in orders/billing (2):
  22:13:20.000"""
    assert expected == text[: len(expected)]
    text = text_of(lambda: broker.history.assert_published("orders", body=lambda _body: False, n=1))
    head = "expected exactly 1 published to orders with body as <lambda> says, found 0 of 2\n\npubl"
    assert head == text[: len(head)]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda history: history.assert_published("ordres"),
            "there is no topic 'ordres' (did you mean 'orders'?)",
        ),
        (
            lambda history: history.assert_delivered("orders", "biling"),
            "topic 'orders' has no channel 'biling' (did you mean 'billing'?)",
        ),
    ],
)
def test_a_wrong_name_is_said(call: Callable[[History], object], expected: str) -> None:
    """With the name that may be meant."""
    history = shop().history
    assert expected == text_of(lambda: call(history)).split("\n\n")[1]


def test_a_wrong_dead_letter_is_shown() -> None:
    """With what it says of its error."""
    history = shop().history
    text = text_of(lambda: history.assert_dead("orders", error=re.compile("no such order")))
    expected = """\
expected at least 1 dead of orders with error that matches 'no such order', found 0 of 1

dead of orders (1):
  {'order': 2} of orders/billing, attempts=1, 'LookupError: no such customer'

last"""
    assert expected == text[: len(expected)]


def test_a_letter_without_an_error_is_shown() -> None:
    """One whose handler was not called says why."""
    broker = FakeBroker()
    letter = nsqlite.DeadLetter(
        body="one", topic="orders", channel="a", id="", attempts=2, error="no answer", timestamp=0
    )
    broker.topic("dead").put(letter)
    text = text_of(lambda: broker.history.assert_dead("orders", n=2))
    assert "  'one' of orders/a, attempts=2, 'no answer'" in text.splitlines()


def test_nothing_published_fails_with_what_was() -> None:
    """For one topic, or for all."""
    broker = FakeBroker()
    history = broker.history
    history.assert_nothing_published()
    broker.topic("orders").put("one")
    history.assert_nothing_published("mails")
    text = text_of(history.assert_nothing_published)
    assert "nothing was to be published, but 1 was\n\npublished (1):\n  22:13:" == text[:63]
    text = text_of(lambda: history.assert_nothing_published("orders"))
    assert "nothing was to be published to orders, but 1 was" == text.split("\n")[0]
    broker.topic("orders").put("two")
    text = text_of(history.assert_nothing_published)
    assert "nothing was to be published, but 2 were" == text.split("\n")[0]


def test_nothing_published_warns_of_what_may_be_a_mistake() -> None:
    """In the test, and only of a topic that there is not, where one is nearly called so."""
    history = shop().history
    text = re.escape("there is no topic 'oders' (did you mean 'orders'?)")
    with pytest.warns(UserWarning, match=f"^{text}$") as caught:
        history.assert_nothing_published("oders")
    assert [__file__] == [warning.filename for warning in caught]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        broker = FakeBroker()
        broker.topic("order")
        broker.topic("orders").put(1)
        broker.history.assert_nothing_published("orders.dead")
        broker.history.assert_nothing_published("order")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda one: one.assert_published("oders", n=0), NO_ODERS),
        (lambda one: one.assert_delivered("oders", n=0), NO_ODERS),
        (lambda one: one.assert_finished("oders", "billing", n=0), NO_ODERS),
        (lambda one: one.assert_requeued("oders", n=0), NO_ODERS),
        (lambda one: one.assert_timed_out("orders", "biling", n=0), NO_BILING),
        (lambda one: one.assert_dead("orders", "biling", n=0), NO_BILING),
        (lambda one: one.assert_requeued("orders", "billing", n=0), None),
        (lambda one: one.assert_finished("orders", "audit", n=0), None),
        (lambda one: one.assert_published("orders", body=9, n=0), None),
    ],
)
def test_nothing_found_warns_of_what_may_be_a_mistake(
    call: Callable[[History], object], expected: str | None
) -> None:
    """In the test, and only of a name that there is not, where one is nearly called so."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(shop().history)
    told = [(str(warning.message), warning.filename) for warning in caught]
    assert ([] if expected is None else [(expected, __file__)]) == told


def test_what_was_forgotten_is_not_taken_for_nothing() -> None:
    """What did not happen, or not more often, cannot be told any more; what did happen can."""
    history = History(Recorder(most=1))
    broker = FakeBroker(observers=[history.recorder])
    broker.topic("orders").put(1)
    history.assert_published("orders")
    reason = "the recorder has forgotten events: clear() it before it is full"
    calls: dict[str, Callable[[], object]] = {
        "nothing was published": lambda: history.assert_nothing_published("mails"),
        "there are no more than 1 published": lambda: history.assert_published("orders", n=1),
    }
    for what, call in calls.items():
        text = f"it cannot be told whether {what}: {reason}"
        assert text == text_of(call).split("\n")[0]
    history.recorder.clear()
    history.assert_nothing_published("orders")


def test_idle_fails_with_what_is_left_where() -> None:
    """In short, and each message."""
    broker = FakeBroker()
    broker.history.assert_idle()
    orders = broker.topic("orders")
    consumer = Consumer(orders.channel("billing"))
    orders.put_many(["one", "two"])
    orders.put("three", delay=5)
    message = consumer.get(timeout=0)
    broker.topic("payments").put("four")
    text = text_of(broker.history.assert_idle)
    expected = """\
not idle: orders/billing has 1 ready, 1 in flight, 1 deferred; topic payments holds 1

topic orders: 0 held
  channel billing: 1 ready, 1 in flight, 1 deferred
    consumer 1: holds 1
    message 2 'two', ready
    message 1 'one', in flight, attempts=1, consumer 1, due in 60 s
    message 3 'three', deferred, due in 5 s
topic payments: 1 held
    message 4 'four', ready

last events"""
    assert expected == text[: len(expected)]
    message.fin()


def test_much_that_is_left_is_cut_short() -> None:
    """So many lines, and how many more there are."""
    broker = FakeBroker()
    broker.topic("orders").put_many(range(60))
    text = text_of(broker.history.assert_idle)
    assert "... and 21 more" in text.splitlines()
    text = text_of(lambda: broker.history.assert_published("orders", body=60))
    assert 2 == text.splitlines().count("  ... and 50 more") + text.splitlines().count(
        "  ... and 51 more"
    )


def test_idle_needs_a_broker() -> None:
    """A history of a recorder alone cannot know, nor one whose broker is gone."""
    topic = Topic[str]("orders")
    gone = History.of(topic)
    del topic
    gc.collect()
    for history in (History(Recorder()), gone):
        with pytest.raises(InvalidOption, match="one of a broker that is there"):
            history.assert_idle()


def test_what_faults_have_struck_is_shown() -> None:
    """As lines that strike the same again."""
    broker = FakeBroker()
    broker.faults.fail("put", nth=1)
    with pytest.raises(StoreError):
        broker.topic("orders").put("one")
    text = text_of(lambda: broker.history.assert_published("orders"))
    assert "faults that struck:\n  faults.fail('put', nth=1)" == text.split("\n\n")[1]


def test_what_faults_have_not_struck_is_shown() -> None:
    """It may be why a test fails; most of all where the name is wrong."""
    broker = FakeBroker()
    broker.topic("orders").channel("billing")
    broker.faults.fail("put", topic="oders", nth=2)
    broker.faults.lose("FIN", topic="orders", channel="billing")
    broker.faults.fill_disk(times=1)
    with pytest.raises(StoreError):
        broker.topic("orders").put("one")
    with broker.faults.reorder():
        pass
    text = text_of(lambda: broker.history.assert_finished("orders"))
    expected = [
        "faults that have not struck:",
        f"  faults.fail('put', nth=2, topic='oders'): {NO_ODERS}",
        "  faults.lose('FIN', topic='orders', channel='billing')",
    ]
    assert "\n".join(expected) in text.split("\n\n")
    broker.faults.clear()
    assert "not struck" not in text_of(lambda: broker.history.assert_finished("orders"))


def test_what_the_recorder_has_forgotten_is_said() -> None:
    """So that nobody looks for it; and no name is called wrong that it may have had."""
    topic = Topic[int]("orders")
    history = History(Recorder(most=3), topic)
    topic.observe(history.recorder)
    topic.put_many(range(5))
    text = text_of(lambda: history.assert_published("ordres"))
    assert "(2 older ones were forgotten)" == text.splitlines()[-1].strip()
    assert "no topic" not in text


def test_a_number_that_cannot_be_is_refused() -> None:
    """It is none that can be found."""
    with pytest.raises(InvalidOption, match="n must be a whole number of at least 0, not -1"):
        FakeBroker().history.assert_published("orders", n=-1)


def test_a_failure_ends_in_the_frame_of_the_test() -> None:
    """All frames below say so to pytest."""
    history = shop().history
    calls: list[Callable[[], object]] = [
        lambda: history.assert_published("orders", n=9),
        lambda: history.assert_delivered("orders", n=9),
        lambda: history.assert_finished("orders", n=9),
        lambda: history.assert_requeued("orders", n=9),
        lambda: history.assert_timed_out("orders", n=9),
        lambda: history.assert_dead("orders", n=9),
        history.assert_nothing_published,
        history.assert_idle,
    ]
    for call in calls:
        with pytest.raises(AssertionError) as caught:
            call()
        frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
        ours = [one for one in frames if one.f_code.co_filename.endswith("testing/history.py")]
        assert ours
        assert all("__tracebackhide__" in frame.f_locals for frame in ours)


def test_a_topic_or_channel_stands_for_its_name() -> None:
    """A test gives what it has."""
    broker = shop()
    orders = broker.topic("orders")
    billing = orders.channel("billing")
    history = broker.history
    assert 2 == len(history.published(orders))
    assert [{"order": 2}] == [letter.body for letter in history.dead(orders, billing)]
    history.assert_finished(orders, billing, body={"order": 1})
    text = text_of(lambda: history.assert_published(orders, n=3))
    assert text.startswith("expected exactly 3 published to orders, found 2\n")
    text = text_of(lambda: history.assert_nothing_published(orders))
    assert text.startswith("nothing was to be published to orders, but 2 were\n")


def test_a_channel_is_that_of_its_topic_alone() -> None:
    """One of the same name in another topic is another one."""
    broker = FakeBroker()
    ours, other = (broker.topic(name).channel("billing") for name in ("orders", "mails"))
    for channel in (ours, other, other):
        broker.topic(channel.topic_name).put(channel.topic_name)
        with Consumer(channel) as consumer:
            consumer.get().fin()
    history = broker.history
    assert ["orders"] == history.finished(channel=ours).bodies
    assert ["orders"] == history.finished("orders", ours).bodies
    assert 3 == len(history.finished(channel="billing"))
    expected = "channel must be one of topic 'orders', not <Channel mails:billing"
    with pytest.raises(InvalidOption, match=expected):
        history.assert_finished("orders", other, n=0)


def test_a_dead_letter_is_found_by_the_channel_where_it_failed() -> None:
    """Also where the topic is the one of dead letters."""
    broker = shop()
    billing = broker.topic("orders").channel("billing")
    other = broker.topic("mails").channel("billing")
    broker.history.assert_dead("orders.dead", billing, n=1)
    broker.history.assert_dead("orders.dead", other, n=0)
    assert 1 == len(broker.history.dead(channel=billing))


@pytest.mark.parametrize(
    "call",
    [
        lambda history: history.finished(CHANNEL),
        lambda history: history.dead(CHANNEL),
        lambda history: history.assert_finished(CHANNEL, n=0),
        lambda history: history.assert_nothing_published(CHANNEL),
    ],
)
def test_a_channel_is_no_topic(call: Callable[[History], object]) -> None:
    """It would be taken for a topic of its name."""
    with pytest.raises(InvalidOption) as caught:
        call(shop().history)
    expected = "topic must be the name of a topic, or the topic, not <Channel orders:billing "
    assert str(caught.value).startswith(expected)


def test_a_topic_is_no_channel() -> None:
    """It would be taken for a channel of its name."""
    broker = shop()
    expected = "channel must be the name of a channel, or the channel, not <Topic 'orders' "
    with pytest.raises(InvalidOption, match=expected):
        broker.history.finished("orders", broker.topic("orders"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda history: history.published(5),
        lambda history: history.dead(5),
        lambda history: history.assert_published(5),
        lambda history: history.assert_nothing_published(5),
    ],
)
def test_what_is_no_name_is_refused(call: Callable[[History], object]) -> None:
    """It would match nothing, without a word."""
    with pytest.raises(InvalidOption) as caught:
        call(shop().history)
    assert "topic must be the name of a topic, or the topic, not 5" == str(caught.value)


def test_a_failure_says_that_no_handler_was_called() -> None:
    """It is easily forgotten to run them."""
    with FakeBroker() as broker:
        orders = broker.topic("orders")
        with (
            Worker(orders.channel("billing"), lambda _: None),
            Worker(orders.channel("billing"), lambda _: None),
            Worker(orders.channel("audit"), lambda _: None),
        ):
            orders.put("one")
            orders.put("two", delay=5)
            text = text_of(lambda: broker.history.assert_finished("orders", "billing"))
            hint = "1 ready, 1 deferred in orders/billing: its handler was not called; see"
            assert [f"{hint} run_until_idle()"] == [
                line for line in text.split("\n") if "not called" in line
            ]
            broker.run_until_idle()
            text = text_of(lambda: broker.history.assert_finished("orders", "billing", n=3))
            assert "not called" not in text
            orders.put("three")
            text = text_of(lambda: broker.history.assert_published("orders", n=1))
            assert "not called" not in text


def test_a_failure_says_that_there_is_no_dead_letter_topic() -> None:
    """What is given up is finished then."""
    broker = FakeBroker(mode="real")
    orders = broker.topic("orders")
    with broker, Worker(orders.channel("billing"), lambda _: None, name="bill"):
        text = text_of(lambda: broker.history.assert_dead("orders"))
        assert "worker 'bill' has no dead_letter: what it gives up is finished" in text
        text = text_of(lambda: broker.history.assert_delivered("orders"))
        assert "dead_letter" not in text
