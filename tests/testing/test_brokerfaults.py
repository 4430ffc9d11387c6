"""Faults in a broker: what they strike, what comes of it, and that all still holds."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import nsqlite
from nsqlite import (
    Closed,
    Consumer,
    InvalidName,
    InvalidOption,
    Message,
    NotInFlight,
    Requeue,
    StoreError,
    StoreFull,
    Worker,
)
from nsqlite.testing import BrokerFaults, FakeBroker, ManualClock, MemoryStore

OF_DROP = "channel, nth, probability, reconnect, times, topic, what"
FOR_ALL = "channel must be left out: what is put is for all channels, not 'a'"
OF_ERROR = "an Exception, or a class or function of one"


class Scene:
    """A broker with a topic, a channel and a consumer."""

    def __init__(self, **options: Any) -> None:
        self.broker = FakeBroker(**options)
        self.faults = self.broker.faults
        self.clock = self.broker.clock
        self.topic = self.broker.topic("orders")
        self.channel = self.topic.channel("billing")
        self.consumer: Consumer[Any] = Consumer(self.channel)

    def get(self) -> Message[Any]:
        return self.consumer.get(timeout=0)

    def rest(self) -> list[tuple[Any, int]]:
        """Take all that is left; return bodies and attempts."""
        rest = []
        while self.channel.depth:
            with self.get() as message:
                rest.append((message.body, message.attempts))
            self.broker._check()
        return rest


@pytest.fixture(params=["memory", "store", "late store"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    stores: dict[str, Any] = {
        "memory": None,
        "store": MemoryStore(codec="json"),
        "late store": MemoryStore(codec="json", sync="interval"),
    }
    scene = Scene(store=stores[request.param])
    yield scene
    scene.broker._check()
    scene.faults.clear()
    scene.broker.close()


def put(scene: Scene, body: str) -> object:
    return scene.topic.put(body)


def put_later(scene: Scene, body: str) -> object:
    return scene.topic.put(body, delay=5)


def put_many(scene: Scene, body: str) -> object:
    return scene.topic.put_many([body, body])


def publish(scene: Scene, body: str) -> None:
    scene.topic.publish([body])


def publish_and_hear(scene: Scene, body: str) -> None:
    scene.topic.publish([body], lambda _problem: None)
    scene.broker.flush()


def put_in_loop(scene: Scene, body: str) -> object:
    return asyncio.run(nsqlite.aio.put(scene.topic, body))


def put_in_loop_at_once(scene: Scene, body: str) -> object:
    return asyncio.run(nsqlite.aio.put(scene.topic, body, timeout=0))


def put_many_in_loop(scene: Scene, body: str) -> object:
    return asyncio.run(nsqlite.aio.put_many(scene.topic, [body, body]))


def _held(scene: Scene, body: str) -> tuple[Consumer[Any], Message[Any]]:
    scene.broker.topic("source").channel("c")
    with scene.faults.fail("put", topic="nowhere"):
        scene.broker.topic("source").put(body)
    consumer: Consumer[Any] = Consumer(scene.broker.topic("source").channel("c"))
    return consumer, consumer.get(timeout=0)


def move(scene: Scene, body: str) -> object:
    consumer, message = _held(scene, body)
    return consumer.move(message, scene.topic)


def move_to_channel(scene: Scene, body: str) -> object:
    consumer, message = _held(scene, body)
    return consumer.move(message, scene.channel)


WAYS = [
    put,
    put_later,
    put_many,
    publish,
    publish_and_hear,
    put_in_loop,
    put_in_loop_at_once,
    put_many_in_loop,
    move,
    move_to_channel,
]


@pytest.mark.parametrize("way", WAYS)
def test_the_nth_put_fails_whichever_way_it_comes(
    scene: Scene, way: Callable[[Scene, str], object]
) -> None:
    """The n-th put raises, has put nothing, and those before and after it are made."""
    scene.faults.fail("put", nth=2, topic="orders")
    way(scene, "one")
    with pytest.raises(StoreError, match="fault injected"):
        way(scene, "two")
    way(scene, "three")
    scene.clock.advance(5)
    assert ["one", "three"] == list(dict.fromkeys(body for body, _ in scene.rest()))
    [struck] = scene.faults.injected
    assert ("fail put", "put", 2, "orders", None, "two") == struck[:6]
    assert "faults.fail('put', nth=2, topic='orders')" == struck.replay


@pytest.mark.parametrize("way", WAYS)
def test_a_put_is_delayed_whichever_way_it_comes(
    scene: Scene, way: Callable[[Scene, str], object]
) -> None:
    """It comes later by so many seconds; only what is moved is not."""
    scene.faults.delay("put", 10, topic="orders")
    way(scene, "one")
    if way not in (move, move_to_channel):
        assert 0 == scene.channel.depth
        scene.clock.advance(9.9)
        assert 0 == scene.channel.depth
        scene.clock.advance(5.1)
    assert scene.channel.depth in (1, 2)


def test_a_full_disk_is_one_without_a_store_too(scene: Scene) -> None:
    """As long as the disk is full every put raises `StoreFull`."""
    with scene.faults.fill_disk() as fault:
        with pytest.raises(StoreFull, match="the disk is full"):
            scene.topic.put("one")
        with pytest.raises(StoreFull):
            scene.topic.put("two")
    scene.topic.put("three")
    assert [("three", 1)] == scene.rest()
    assert 2 == fault.count


@pytest.mark.parametrize("error", [TimeoutError("slow"), TimeoutError, partial(TimeoutError, 3)])
def test_a_put_raises_the_error_that_it_is_told_to(scene: Scene, error: Any) -> None:
    """That may be an error, its class, or a function that makes it."""
    scene.faults.fail("put", error, times=1)
    with pytest.raises(TimeoutError):
        scene.topic.put("one")
    scene.topic.put("two")
    assert [("two", 1)] == scene.rest()


@pytest.mark.parametrize("made", [5, None, KeyboardInterrupt()])
def test_a_function_that_makes_no_error_fails_the_put(scene: Scene, made: Any) -> None:
    """A put that is struck does nothing, and says what is wrong."""
    with scene.faults.fail("put", lambda: made), pytest.raises(InvalidOption) as caught:
        scene.topic.put("one")
    assert f"error must be {OF_ERROR}, not {made!r}" == str(caught.value)
    assert [] == scene.rest()


def test_a_function_may_raise_its_error(scene: Scene) -> None:
    """That is as good as to return it; the topic goes on."""

    def late() -> TimeoutError:
        raise TimeoutError

    with scene.faults.fail("put", late), pytest.raises(TimeoutError):
        scene.topic.put("one")
    scene.topic.put("two")
    assert [("two", 1)] == scene.rest()


def test_a_put_inside_another_call_is_spared() -> None:
    """What has returned its id is put."""
    scene = Scene()
    scene.faults.fail("put", probability=0)
    monitor = scene.topic._monitor
    monitor.run(lambda: scene.topic.put("inside"))
    scene.faults.fail("put")
    monitor.run(lambda: scene.topic.put("inside again"))
    monitor.run(lambda: scene.topic._put_now([], 0, None))
    assert [("inside", 1), ("inside again", 1)] == scene.rest()


def test_a_put_that_waits_for_room_counts_once() -> None:
    """It is struck when it would be admitted."""
    scene = Scene(max_depth=1)
    scene.topic.put("one")
    scene.faults.fail("put", nth=2)
    with pytest.raises(nsqlite.Full):
        scene.topic.put("two", timeout=0)

    async def main() -> None:
        waiting = asyncio.ensure_future(nsqlite.aio.put(scene.topic, "three"))
        await asyncio.sleep(0)
        scene.get().fin()
        await waiting

    asyncio.run(main())
    scene.get().fin()
    with pytest.raises(StoreError):
        scene.topic.put("four")


@pytest.mark.parametrize("slow", [False, True])
def test_a_lost_fin_has_the_message_come_again(scene: Scene, slow: bool) -> None:
    """The consumer believes that it has finished; the message times out later."""
    scene.topic.put("one")
    message = scene.get()
    with scene.faults.lose("FIN", times=1):
        if slow:
            scene.consumer.fin_many([message])
        else:
            message.fin()
    assert "in flight" == message.state
    assert 1 == scene.channel.in_flight_count
    scene.broker._check()
    scene.clock.advance(59)
    assert 0 == scene.channel.depth
    scene.clock.advance(1)
    assert [("one", 2)] == scene.rest()
    with pytest.raises(NotInFlight, match="timed out"):
        message.fin()
    assert not scene.channel.in_flight_count


def test_a_lost_fin_of_several_leaves_the_others_finished() -> None:
    """Of a batch each message has an answer of its own."""
    scene = Scene()
    scene.topic.put_many(["one", "two", "three"])
    scene.faults.lose("FIN", nth=2)
    messages = scene.consumer.get_many(3)
    scene.consumer.fin_many(messages)
    assert ["finished", "in flight", "finished"] == [message.state for message in messages]


def test_a_lost_req_leaves_the_message_in_flight(scene: Scene) -> None:
    """It is not requeued, and times out when it would have."""
    scene.topic.put("one")
    scene.faults.lose("REQ", nth=1)
    message = scene.get()
    scene.clock.advance(30)
    message.req()
    assert 1 == scene.channel.in_flight_count
    scene.clock.advance(30)
    assert [("one", 2)] == scene.rest()
    scene.topic.put("two")
    scene.get().req()
    assert [("two", 2)] == scene.rest()


def test_a_lost_touch_gives_no_more_time(scene: Scene) -> None:
    """The message times out as if it had not been touched; the next touch counts."""
    scene.topic.put("one")
    scene.faults.lose("TOUCH", nth=1)
    message = scene.get()
    scene.clock.advance(30)
    message.touch()
    scene.clock.advance(29)
    message.touch()
    scene.clock.advance(59)
    assert "in flight" == message.state
    message.fin()


def test_a_message_is_delivered_twice(scene: Scene) -> None:
    """It comes again at once though its consumer has finished it without an error."""
    scene.topic.put("one")
    scene.faults.deliver_twice(times=1)
    scene.get().fin()
    assert [("one", 2)] == scene.rest()
    assert scene.channel.stats().timeout_count == 1


def test_a_message_that_came_twice_is_spared(scene: Scene) -> None:
    """Each message comes twice and no more, and what is replayed strikes the same."""
    lines = "\n".join(f"faults.deliver_twice(nth={nth})" for nth in (1, 2))
    for _ in range(2):
        scene.topic.put_many(["one", "two"])
        with scene.faults.deliver_twice():
            assert [("one", 1), ("two", 1), ("one", 2), ("two", 2)] == scene.rest()
    assert f"{lines}\n{lines}" == scene.faults.replay()


def test_another_fault_strikes_what_was_spared(scene: Scene) -> None:
    """That a message came twice is between it and the fault."""
    scene.topic.put("one")
    scene.faults.deliver_twice()
    scene.faults.lose("FIN")
    scene.get().fin()
    scene.get().fin()
    assert ["deliver twice FIN", "lose FIN"] == [one.fault for one in scene.faults.injected]


@pytest.mark.parametrize("answer", ["fin", "fin_many", "req"])
def test_a_message_times_out_before_its_answer(scene: Scene, answer: str) -> None:
    """The answer is too late, and the message is ready again."""
    scene.topic.put("one")
    scene.faults.time_out(nth=1)
    message = scene.get()
    calls: dict[str, Callable[[], object]] = {
        "fin": message.fin,
        "fin_many": lambda: scene.consumer.fin_many([message]),
        "req": message.req,
    }
    with pytest.raises(NotInFlight, match="timed out"):
        calls[answer]()
    scene.broker._check()
    assert 1 == scene.consumer.stats().message_count
    assert [("one", 2)] == scene.rest()
    kinds = [event.kind for event in scene.broker.history.recorder.events]
    assert 1 == kinds.count(nsqlite.events.Kind.FINISHED)


def test_a_message_times_out_before_its_touch() -> None:
    """Only the answer that was named is struck."""
    scene = Scene()
    scene.topic.put("one")
    scene.faults.time_out("TOUCH")
    message = scene.get()
    with pytest.raises(NotInFlight, match="timed out"):
        message.touch()
    assert [("one", 2)] == scene.rest()
    assert "faults.time_out('TOUCH', nth=1)" == scene.faults.replay()


def test_a_consumer_is_dropped(scene: Scene) -> None:
    """All that it holds goes back, its answer is too late, and it goes on."""
    scene.topic.put_many(["one", "two"])
    scene.faults.drop(times=1)
    first, second = scene.get(), scene.get()
    with pytest.raises(NotInFlight, match="given back"):
        second.fin()
    with pytest.raises(NotInFlight, match="given back"):
        first.fin()
    assert [("one", 2), ("two", 2)] == scene.rest()


def test_a_consumer_is_dropped_for_ever(scene: Scene) -> None:
    """It is closed, and another one takes over."""
    scene.topic.put("one")
    scene.faults.drop("FIN", reconnect=False)
    message = scene.get()
    with pytest.raises(NotInFlight, match="given back"):
        message.fin()
    with pytest.raises(Closed):
        scene.get()
    assert "faults.drop('FIN', reconnect=False, nth=1)" == scene.faults.replay()
    scene.faults.clear()
    scene.consumer = Consumer(scene.channel)
    assert [("one", 2)] == scene.rest()


def test_what_was_handed_over_and_not_claimed_was_no_delivery() -> None:
    """A dropped consumer that waits in a loop has not got what is on its way to it."""
    scene = Scene()

    async def main() -> list[tuple[str, int]]:
        consumer: nsqlite.aio.Consumer[str] = nsqlite.aio.Consumer(scene.channel)
        scene.topic.put("one")
        message = await consumer.get()
        waiting = asyncio.ensure_future(consumer.get())
        await asyncio.sleep(0)
        scene.topic.put("two")
        with scene.faults.drop(), pytest.raises(NotInFlight):
            message.fin()
        got = [await waiting, await consumer.get()]
        return [(one.body, one.attempts) for one in got]

    assert [("one", 2), ("two", 1)] == asyncio.run(main())
    scene.broker._check()


def test_what_is_ready_comes_in_another_order(scene: Scene) -> None:
    """Nothing is lost; the same seed gives the same order."""
    scene.faults.reorder(nth=5)
    for number in range(5):
        scene.topic.put(number)
    bodies = [body for body, _ in scene.rest()]
    assert [0, 1, 2, 3, 4] == sorted(bodies) != bodies
    assert ("reorder published", "published", 5, "orders", None, 4) == scene.faults.injected[0][:6]


def test_two_come_in_another_order_in_any_case() -> None:
    """An order that is drawn and is the same is none."""
    for seed in range(10):
        scene = Scene(seed=seed)
        scene.faults.reorder(nth=2)
        scene.topic.put_many([1, 2])
        assert [(2, 1), (1, 1)] == scene.rest()


def test_a_topic_that_is_gone_has_no_order() -> None:
    """What was published to a topic that was deleted meanwhile is left alone."""
    scene = Scene()
    scene.faults.reorder()
    scene.broker.observe(lambda _event: None)
    stop = scene.topic.observe(lambda _event: None)
    stop()
    scene.topic.put("one")
    event = scene.broker.history.published("orders")[0]
    scene.topic.delete()
    scene.faults._hear(event)
    assert 2 == len(scene.faults.injected)


def test_the_clock_jumps(scene: Scene) -> None:
    """It moves on when a message was delivered, or published."""
    scene.faults.jump(61, nth=1)
    scene.topic.put("one")
    message = scene.get()
    assert "timed out" == message.state
    scene.faults.jump(10, "published")
    before = scene.clock.time()
    scene.topic.put("two")
    assert 10 == scene.clock.time() - before
    lines = "faults.jump(61, 'delivered', nth=1)\nfaults.jump(10, 'published', nth=1)"
    assert lines == scene.faults.replay()


def test_faults_count_before_one_of_them_causes_more() -> None:
    """What the first one sets off is not struck by a second one that has had its turn."""
    scene = Scene()
    other: Consumer[Any] = Consumer(scene.broker.topic("late").channel("billing"))
    scene.broker.topic("late").put("later", delay=5)
    scene.topic.put("now")
    taken: list[Any] = []
    other.when_ready(lambda: taken.append(other.get(timeout=0).body))
    scene.faults.jump(10, nth=1)
    scene.faults.jump(3, times=1)
    before = scene.clock.time()
    scene.get()
    assert (["later"], 13) == (taken, scene.clock.time() - before)
    lines = "faults.jump(10, 'delivered', nth=1)\nfaults.jump(3, 'delivered', nth=1)"
    assert lines == scene.faults.replay()


def test_chance_comes_again_with_its_seed_and_is_replayed() -> None:
    """The same seed strikes the same; so do the lines that were printed, without any chance."""

    def play(seed: int, set_up: Callable[[Any], object]) -> list[Any]:
        scene = Scene(seed=seed)
        set_up(scene.faults)
        for number in range(40):
            try:
                scene.topic.put(number)
            except StoreError:
                continue
            try:
                scene.get().fin()
            except NotInFlight:
                continue
        scene.broker._check()
        return [scene.faults.replay(), [struck[:7] for struck in scene.faults.injected]]

    def by_chance(faults: Any) -> None:
        faults.fail("put", probability=0.2)
        faults.fill_disk(probability=0.2)
        faults.time_out(probability=0.2)
        faults.lose("FIN", probability=0.1)

    found = [play(seed, by_chance) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    lines = found[0][0]
    code = compile(f"[{lines}]".replace("\n", ","), "replay", "eval")
    again = play(9, lambda faults: eval(code, {"faults": faults}))  # noqa: S307 - as a user pastes it
    assert found[0][1] == again[1]


def test_a_fault_is_for_one_topic_and_channel(scene: Scene) -> None:
    """What happens elsewhere is neither struck nor counted."""
    other = scene.topic.channel("audit")
    scene.faults.lose("FIN", channel="audit", topic="orders", nth=1)
    scene.faults.fail("put", topic="payments")
    scene.topic.put("one")
    assert [("one", 1)] == scene.rest()
    audit: Consumer[Any] = Consumer(other)
    audit.get(timeout=0).fin()
    assert 1 == other.in_flight_count
    scene.broker.topic("payments")
    with pytest.raises(StoreError):
        scene.broker.topic("payments").put("one")


@pytest.mark.parametrize("mode", ["captured", "inline", "real"])
def test_faults_of_a_worker(mode: str) -> None:
    """A worker goes on with what is lost, too late or dropped; each message is handled again."""
    scene = Scene(mode=mode)
    numbers = count()
    seen: list[tuple[str, int]] = []
    scene.faults.deliver_twice(nth=1)
    scene.faults.time_out(nth=2)
    scene.faults.drop(nth=3)
    with Worker(scene.channel, lambda one: seen.append((one.body, next(numbers)))) as worker:
        scene.topic.put("one")
        worker.join()
    assert [("one", number) for number in range(4)] == seen
    assert 3 == len(scene.faults.injected)
    scene.broker._check()


@pytest.mark.parametrize("mode", ["captured", "inline", "real"])
def test_a_lost_fin_of_a_worker_times_out(mode: str) -> None:
    """Although a worker's messages do not: it believes that this one is finished."""
    scene = Scene(mode=mode, clock=ManualClock(autojump=True))
    seen: list[int] = []
    scene.faults.lose("FIN", nth=1)
    scene.faults.lose("REQ", nth=1)

    def handle(message: Message[str]) -> object:
        seen.append(message.attempts)
        return Requeue(delay=0) if message.attempts == 2 else None

    with Worker(scene.channel, handle) as worker:
        scene.topic.put("one")
        worker.join()
    assert [1, 2, 3] == seen
    assert 120 <= scene.clock.time() - 1_700_000_000


def test_faults_of_a_worker_in_a_loop() -> None:
    """A coroutine's answers are struck like a function's."""
    scene = Scene()
    seen: list[int] = []

    async def handle(message: Message[str]) -> None:
        seen.append(message.attempts)
        await asyncio.sleep(0)

    scene.faults.time_out(nth=1)
    scene.faults.lose("FIN", nth=2)
    scene.topic.put("one")

    async def main() -> None:
        with Worker(scene.channel, handle):
            await scene.broker.until_idle()

    asyncio.run(main())
    assert [1, 2, 3] == seen


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda faults: faults.fail("get"), "what must be one of put, not 'get'"),
        (
            lambda faults: faults.lose("fin"),
            "what must be one of FIN, REQ, TOUCH (did you mean 'FIN'?), not 'fin'",
        ),
        (
            lambda faults: faults.drop(reconect=False),
            f"option must be one of {OF_DROP} (did you mean 'reconnect'?), not 'reconect'",
        ),
        (
            lambda faults: faults.jump(1, "sent"),
            "what must be one of delivered, published, not 'sent'",
        ),
        (
            lambda faults: faults.jump(-1),
            "seconds must be a finite number of seconds, at least 0, not -1",
        ),
        (
            lambda faults: faults.fail("put", 3),
            f"error must be {OF_ERROR}, not 3",
        ),
        (
            lambda faults: faults.fail("put", KeyboardInterrupt),
            f"error must be {OF_ERROR}, not <class 'KeyboardInterrupt'>",
        ),
        (
            lambda faults: faults.drop(reconnect="no"),
            "reconnect must be True or False, not 'no'",
        ),
        (lambda faults: faults.lose([]), "what must be one of FIN, REQ, TOUCH, not []"),
        (lambda faults: faults.fail("put", channel="a"), FOR_ALL),
        (lambda faults: faults.reorder(channel="a"), FOR_ALL),
        (lambda faults: faults.time_out(nth=0), "nth must be a whole number of at least 1, not 0"),
        (
            lambda faults: faults.time_out(client_id="a"),
            "option must be one of channel, nth, probability, times, topic, what, not 'client_id'",
        ),
        (
            lambda faults: faults.time_out(probability=2),
            "probability must be a number from 0 to 1, not 2",
        ),
    ],
)
def test_what_a_fault_cannot_do_is_refused(call: Callable[[Any], object], text: str) -> None:
    """The error says what can be; nothing is set."""
    scene = Scene()
    with pytest.raises(InvalidOption) as caught:
        call(scene.faults)
    assert text == str(caught.value)
    assert () == scene.faults.active


def test_names_are_checked() -> None:
    """A name that none can have is refused, of topics and of channels."""
    scene = Scene()
    with pytest.raises(InvalidName):
        scene.faults.fail("put", topic="my orders")
    with pytest.raises(InvalidName):
        scene.faults.lose("FIN", channel="")
    assert "<BrokerFaults []>" == repr(scene.faults)


def test_answers_that_are_refused_anyway_are_not_counted(scene: Scene) -> None:
    """A stale message, another's, and what is none are refused as always."""
    scene.topic.put("one")
    message = scene.get()
    other: Consumer[Any] = Consumer(scene.channel)
    scene.faults.lose("FIN")
    with pytest.raises(NotInFlight, match="does not own"):
        other.fin(message)
    with pytest.raises(nsqlite.InvalidMessage):
        other.fin_many(["none"])  # type: ignore[list-item]
    scene.faults.clear()
    message.fin()
    scene.faults.lose("FIN")
    with pytest.raises(NotInFlight, match="answered"):
        message.fin()
    assert () == scene.faults.injected


FAULTS: list[Callable[[BrokerFaults, float], object]] = [
    lambda faults, chance: faults.fail("put", probability=chance),
    lambda faults, chance: faults.fill_disk(probability=chance),
    lambda faults, chance: faults.delay("put", 3, probability=chance),
    lambda faults, chance: faults.lose("FIN", probability=chance),
    lambda faults, chance: faults.lose("REQ", probability=chance),
    lambda faults, chance: faults.lose("TOUCH", probability=chance),
    lambda faults, chance: faults.deliver_twice(probability=chance),
    lambda faults, chance: faults.time_out(probability=chance),
    lambda faults, chance: faults.time_out("TOUCH", probability=chance),
    lambda faults, chance: faults.drop(probability=chance),
    lambda faults, chance: faults.reorder(probability=chance),
    lambda faults, chance: faults.jump(30, "delivered", probability=chance),
    lambda faults, chance: faults.jump(1, "published", probability=chance),
]


class Struggle(RuleBasedStateMachine):
    """Puts and answers in any order, under any faults: nothing is lost, and all holds."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted: set[str] = set()
        self.held: list[Message[Any]] = []

    @initialize(kept=st.booleans(), seed=st.integers(0, 99))
    def begin(self, kept: bool, seed: int) -> None:
        store = MemoryStore(codec="json") if kept else None
        self.broker = FakeBroker(store=store, seed=seed)
        self.topic = self.broker.topic("orders")
        channel = self.topic.channel("billing")
        self.consumers: list[Consumer[Any]] = [
            Consumer(channel, max_in_flight=3),
            Consumer(channel),
        ]

    @rule(bodies=st.lists(st.integers(0, 9), min_size=1, max_size=4), delay=st.integers(0, 3))
    def put(self, bodies: list[int], delay: int) -> None:
        with suppress(StoreError):
            self.accepted.update(self.topic.put_many(bodies, delay=delay))

    @rule(which=st.integers(0, 1), n=st.integers(1, 3))
    def get(self, which: int, n: int) -> None:
        self.held += self.consumers[which].take(n)

    @precondition(lambda self: self.held)
    @rule(answer=st.sampled_from(["fin", "req", "touch"]), place=st.integers(0, 9))
    def answer(self, answer: str, place: int) -> None:
        message = self.held[place % len(self.held)]
        with suppress(NotInFlight):
            getattr(message, answer)()

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 1))
    def answer_all(self, which: int) -> None:
        consumer = self.consumers[which]
        mine = [one for one in self.held if one._consumer is consumer]
        with suppress(NotInFlight):
            consumer.fin_many([one for one in mine if one.state == "in flight"])

    @rule(seconds=st.integers(1, 70))
    def wait(self, seconds: int) -> None:
        self.broker.clock.advance(seconds)

    @rule(fault=st.sampled_from(FAULTS), chance=st.sampled_from([0.3, 1.0]))
    def break_something(
        self, fault: Callable[[BrokerFaults, float], object], chance: float
    ) -> None:
        fault(self.broker.faults, chance)

    @rule()
    def mend(self) -> None:
        self.broker.faults.clear()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "broker"):
            self.broker._check()

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            self.mend()
            while not self.topic.idle:
                self.broker.clock.advance(70)
                for message in self.consumers[1].take(100):
                    message.fin()
            finished = self.broker.history.finished("orders").ids
            assert sorted(self.accepted) == sorted(filter(None, finished))
            self.broker.close()


TestStruggle = Struggle.TestCase
TestStruggle.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
