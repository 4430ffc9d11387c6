"""One contract for both faces: `nsqlite.Consumer` in threads, `nsqlite.aio.Consumer` in a loop.

Every test is run with each of them, and says the same of both.
"""

import asyncio
import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations
from typing import Any, ClassVar, Protocol

import pytest
from helpers import Call, TellingManualClock

import nsqlite
from aio.loops import begin, traces, turns
from nsqlite import (
    Closed,
    Empty,
    InvalidMessage,
    InvalidOption,
    Message,
    NotInFlight,
    State,
    TooManyConsumers,
    Topic,
    WindowFull,
    aio,
)

Consumer = nsqlite.Consumer[Any] | aio.Consumer[Any]


class Face(Protocol):
    """A way to use a consumer from a test, which is a thread without a loop."""

    kind: ClassVar[type[Any]]

    def __init__(self, clock: TellingManualClock) -> None:
        """Begin."""

    def call(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make a call that may wait, and return what it returns."""
        ...

    def start(self, call: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        """Make a call that waits, and return what gives its result."""
        ...

    def each(self, consumer: Any, work: Callable[[Message[Any]], object]) -> None:
        """Go through the messages of a consumer until it is over."""
        ...

    def block(self, consumer: Any, work: Callable[[Any], object]) -> None:
        """Do something in the consumer's own with block."""
        ...

    def end(self) -> None:
        """End."""
        ...


class Threads:
    """Calls that block; what waits is called in a thread of its own."""

    kind: ClassVar[type[Any]] = nsqlite.Consumer

    def __init__(self, clock: TellingManualClock) -> None:
        self._clock = clock

    def call(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return call(*args, **options)

    def start(self, call: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        started = Call(partial(call, *args))
        self._clock.until_waiting()

        def result() -> Any:
            found = started.result()
            if isinstance(found, BaseException):
                raise found
            return found

        return result

    def each(self, consumer: Any, work: Callable[[Message[Any]], object]) -> None:
        for message in consumer:
            work(message)

    def block(self, consumer: Any, work: Callable[[Any], object]) -> None:
        with consumer as same:
            work(same)

    def end(self) -> None:
        """Nothing is left."""


class Tasks:
    """Calls that are awaited, each in a task of one loop, which runs while the test waits."""

    kind: ClassVar[type[Any]] = aio.Consumer

    def __init__(self, clock: TellingManualClock) -> None:  # noqa: ARG002 - a Face's
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()

    def call(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self._loop.run_until_complete(call(*args, **options))

    def start(self, call: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        task = self._loop.run_until_complete(begin(call(*args)))
        assert not task.done()

        def result() -> Any:
            self._loop.run_until_complete(turns())
            assert task.done(), "the call hangs"
            return task.result()

        return result

    def each(self, consumer: Any, work: Callable[[Message[Any]], object]) -> None:
        async def main() -> None:
            async for message in consumer:
                work(message)

        self._loop.run_until_complete(main())

    def block(self, consumer: Any, work: Callable[[Any], object]) -> None:
        async def main() -> None:
            async with consumer as same:
                work(same)

        self._loop.run_until_complete(main())

    def end(self) -> None:
        self._runner.close()


class Scene:
    """A topic and its channel on a manual clock, and consumers of one face."""

    def __init__(self, face: type[Face]) -> None:
        self.clock = TellingManualClock(patience=100)
        self.topic: Topic[Any] = Topic("orders", clock=self.clock, max_channel_consumers=3)
        self.channel = self.topic.channel("billing")
        self.face = face(self.clock)

    def consumer(self, **options: Any) -> Any:
        return self.face.kind(self.channel, **options)

    def get(self, consumer: Any, timeout: float | None = None) -> Message[Any]:
        found: Message[Any] = self.face.call(consumer.get, timeout)
        return found

    def ready(self) -> list[tuple[Any, int]]:
        """Return the bodies and attempts of what is ready."""
        return [(info.body, info.attempts) for info in self.channel.peek(100)]


@pytest.fixture(params=[Threads, Tasks])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Have a scene with each face; nobody may wait in it at the end."""
    scene = Scene(request.param)
    yield scene
    scene.face.end()
    assert {} == traces(scene.topic)


# The same names


def public(kind: type[Any]) -> dict[str, Any]:
    """Return what a class and its bases define for users, in the order of its definition."""
    found: dict[str, Any] = {}
    for cls in reversed(kind.__mro__[:-1]):
        for name, value in vars(cls).items():
            if not name.startswith("_"):
                found.setdefault(name, value)
                found[name] = value
    return found


def own(kind: type[Any]) -> list[str]:
    """Return the names of the public methods that a class defines itself, in order."""
    return [name for name, value in vars(kind).items() if callable(value) and name[0] != "_"]


def sections(text: str | None) -> list[str]:
    return re.findall(r"^(\w+):$", inspect.cleandoc(text or ""), re.MULTILINE)


def section(text: str | None, name: str) -> str:
    """Return a section of a docstring."""
    _, _, rest = inspect.cleandoc(text or "").partition(f"{name}:\n")
    return re.split(r"^\w+:$", rest, maxsplit=1, flags=re.MULTILINE)[0]


def names_in(text: str) -> list[str]:
    """Return the names that a section of a docstring explains."""
    return re.findall(r"^    (\w[\w, ]*):", text, re.MULTILINE)


def test_the_same_names_in_the_same_order() -> None:
    """Both faces have the same attributes and methods, in the same order."""
    assert list(public(nsqlite.Consumer)) == list(public(aio.Consumer))
    assert ["get", "get_many"] == own(nsqlite.Consumer)
    assert ["get", "get_many"] == own(aio.Consumer)
    assert {"fin", "fin_many", "req", "touch", "move", "rdy", "close"} < set(public(aio.Consumer))


def test_special_methods() -> None:
    """Where one face can be iterated and entered, the other can be with `async`."""
    for plain, awaited in (
        ("__iter__", "__aiter__"),
        ("__enter__", "__aenter__"),
        ("__exit__", "__aexit__"),
    ):
        assert hasattr(nsqlite.Consumer, plain)
        assert hasattr(aio.Consumer, awaited)
        assert not hasattr(nsqlite.Consumer, awaited)
    assert not hasattr(aio.Consumer, "__iter__")


@pytest.mark.parametrize("name", ["__init__", *public(nsqlite.Consumer)])
def test_the_same_signatures(name: str) -> None:
    """A method takes the same arguments in both faces, with the same defaults and types."""
    one, other = getattr(nsqlite.Consumer, name), getattr(aio.Consumer, name)
    if callable(one):
        assert inspect.signature(one) == inspect.signature(other)
    assert (name in own(aio.Consumer)) is inspect.iscoroutinefunction(other)
    assert not inspect.iscoroutinefunction(one)


@pytest.mark.parametrize("name", own(nsqlite.Consumer))
def test_the_same_docstrings(name: str) -> None:
    """What a method says of its arguments is the same, but for what only one of both meets."""
    one, other = getattr(nsqlite.Consumer, name).__doc__, getattr(aio.Consumer, name).__doc__
    assert one.partition("\n")[0] == other.partition("\n")[0]
    assert sections(one) == sections(other)
    assert names_in(section(one, "Args")) == names_in(section(other, "Args"))
    raised = {name for names in names_in(section(one, "Raises")) for name in names.split(", ")}
    awaited = {name for names in names_in(section(other, "Raises")) for name in names.split(", ")}
    assert raised - {"Reentered"} == awaited - {"NotAsyncio"}


def test_the_same_attributes() -> None:
    """The docstrings of both classes explain the same attributes in the same words."""
    one, other = nsqlite.Consumer.__doc__, aio.Consumer.__doc__
    assert sections(one) == sections(other)
    assert section(one, "Attributes") == section(other, "Attributes")


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        *(("put", Topic), ("put_many", Topic), ("join", nsqlite.Worker), ("stop", nsqlite.Worker)),
        *(("flush", nsqlite.Broker), ("close", nsqlite.Broker)),
    ],
)
def test_the_functions_are_the_methods(name: str, cls: type) -> None:
    """A function of `nsqlite.aio` takes what the method of its name takes, and the object first."""
    method = inspect.signature(getattr(cls, name))
    function = inspect.signature(getattr(aio, name))
    _, *wanted = method.parameters.values()
    _, *found = function.parameters.values()
    assert wanted == found
    assert method.return_annotation == function.return_annotation


def test_what_is_public() -> None:
    """The module has what can wait, and nothing else."""
    assert ["Consumer", "close", "drain", "flush", "join", "put", "put_many", "stop"] == aio.__all__
    assert [f"nsqlite.aio.{part}" for part in ("consumer", *["publish"] * 7)] == [
        getattr(aio, name).__module__ for name in aio.__all__
    ]


def test_nothing_else_is_awaited() -> None:
    """No object but a consumer has methods to await; what begins and ends has a block."""
    objects: list[type] = [nsqlite.Topic, nsqlite.Channel, nsqlite.Broker, nsqlite.Worker]
    for cls in (*objects, nsqlite.App, nsqlite.worker.Running):
        assert [] == [value for value in public(cls).values() if inspect.iscoroutinefunction(value)]
    blocks: list[Any] = [aio.Consumer, nsqlite.Broker, nsqlite.Worker, nsqlite.worker.Running]
    for block in blocks:
        assert inspect.iscoroutinefunction(block.__aenter__)
        assert inspect.iscoroutinefunction(block.__aexit__)


# Getting


def test_get(scene: Scene) -> None:
    """A get returns the oldest message, whose delivery is counted and which is in flight."""
    consumer = scene.consumer()
    scene.topic.put_many([b"1", b"2"])
    message = scene.get(consumer)
    assert (b"1", 1, State.IN_FLIGHT) == (message.body, message.attempts, message.state)
    assert b"2" == scene.get(consumer, 5).body
    assert 2 == consumer.in_flight_count


def test_get_waits(scene: Scene) -> None:
    """A get waits for what is put."""
    result = scene.face.start(scene.consumer().get)
    scene.topic._check()
    scene.topic.put(b"1")
    message = result()
    assert (b"1", 1) == (message.body, message.attempts)


def test_gets_are_served_in_order(scene: Scene) -> None:
    """Who came first is served first."""
    results = [scene.face.start(scene.consumer().get) for _ in range(3)]
    scene.topic.put_many([1, 2, 3])
    assert [1, 2, 3] == [result().body for result in results]


def test_get_nothing(scene: Scene) -> None:
    """A get ends with Empty when its time is over, at once if it has none."""
    consumer = scene.consumer()
    with pytest.raises(Empty) as info:
        scene.get(consumer, 0)
    assert ("billing", Empty) == (info.value.channel, type(info.value))
    result = scene.face.start(consumer.get, 5)
    scene.clock.advance(4.999999999)
    assert 1 == len(consumer._queue.waiters.able)
    scene.clock.advance(0.000000001)
    with pytest.raises(Empty) as info:
        result()
    assert "no message came on channel 'billing' in time" == str(info.value)


def test_the_window(scene: Scene) -> None:
    """A consumer holds max_in_flight messages at most; then a get ends with WindowFull."""
    consumer = scene.consumer(max_in_flight=2)
    scene.topic.put_many([1, 2, 3])
    first, _ = scene.face.call(consumer.get_many, 3)
    result = scene.face.start(consumer.get, 5)
    scene.clock.advance(5)
    for call in (result, partial(scene.get, consumer, 0)):
        with pytest.raises(WindowFull) as info:
            call()
        assert ("billing", 2) == (info.value.channel, info.value.max_in_flight)
    with pytest.raises(WindowFull):
        scene.face.call(consumer.get_many, 1, 0)
    result = scene.face.start(consumer.get)
    first.fin()
    assert 3 == result().body


def test_rdy(scene: Scene) -> None:
    """A window that opens lets a get go on; one of 0 lets nothing come."""
    consumer = scene.consumer(max_in_flight=1)
    consumer.rdy(0)
    scene.topic.put_many([1, 2])
    result = scene.face.start(consumer.get)
    consumer.rdy(1)
    assert (1, 1) == (result().body, consumer.max_in_flight)
    result = scene.face.start(consumer.get)
    consumer.rdy(None)
    assert (2, None) == (result().body, consumer.max_in_flight)
    with pytest.raises(InvalidOption):
        consumer.rdy(-1)


def test_a_paused_channel(scene: Scene) -> None:
    """A get of a paused channel waits for its end; a batch finds nothing."""
    consumer = scene.consumer()
    scene.topic.put(1)
    scene.channel.pause()
    with pytest.raises(Empty):
        scene.face.call(consumer.get_many, 3, 0)
    result = scene.face.start(consumer.get)
    scene.channel.unpause()
    assert 1 == result().body


def test_time_outs_and_deferrals(scene: Scene) -> None:
    """A get that waits is handed what times out or falls due, at its moment."""
    consumer = scene.consumer(msg_timeout=4)
    scene.topic.put(b"1")
    message = scene.get(consumer)
    scene.topic.put(b"2", delay=3)
    results = [scene.face.start(consumer.get) for _ in "12"]
    scene.clock.advance(3)
    assert (b"2", 1) == (results[0]().body, results[0]().attempts)
    scene.clock.advance(1)
    assert (b"1", 2) == (results[1]().body, results[1]().attempts)
    assert State.TIMED_OUT == message.state


def test_get_many(scene: Scene) -> None:
    """A batch has up to n messages, the oldest first, as soon as there is one."""
    consumer = scene.consumer()
    scene.topic.put_many([1, 2, 3])
    assert [1, 2] == [m.body for m in scene.face.call(consumer.get_many, 2)]
    assert [3] == [m.body for m in scene.face.call(consumer.get_many, 2, 5)]
    result = scene.face.start(consumer.get_many, 2)
    scene.topic.put(4)
    assert [4] == [m.body for m in result()]
    result = scene.face.start(consumer.get_many, 2, 5)
    scene.clock.advance(5)
    with pytest.raises(Empty):
        result()


def test_linger(scene: Scene) -> None:
    """A batch that lingers waits for more until it is full, or its time or window is."""
    consumer = scene.consumer()
    scene.topic.put(1)
    result = scene.face.start(partial(consumer.get_many, linger=10), 3)
    scene.clock.advance(10)
    assert [1] == [m.body for m in result()]
    result = scene.face.start(partial(consumer.get_many, linger=10), 2)
    scene.topic.put_many([2, 3, 4])
    assert [2, 3] == [m.body for m in result()]
    narrow = scene.consumer(max_in_flight=1)
    assert [4] == [m.body for m in scene.face.call(narrow.get_many, 2, linger=10)]


@pytest.mark.parametrize("give_back", [False, True])
def test_linger_until_the_consumer_is_closed(scene: Scene, give_back: bool) -> None:
    """A lingering batch returns what its consumer left in flight; what was given back is none."""
    consumer = scene.consumer()
    scene.topic.put(1)
    result = scene.face.start(partial(consumer.get_many, linger=10), 3)
    consumer.close(give_back=give_back)
    if give_back:
        with pytest.raises(Closed):
            result()
        assert [(1, 1)] == scene.ready()
    else:
        assert [1] == [m.body for m in result()]


# Answering


def test_fin(scene: Scene) -> None:
    """A finished message is gone, and cannot be finished twice."""
    consumer = scene.consumer()
    scene.topic.put_many([1, 2])
    first, second = scene.face.call(consumer.get_many, 2)
    consumer.fin(first)
    second.fin()
    assert (State.FINISHED, 0) == (first.state, consumer.in_flight_count)
    with pytest.raises(NotInFlight) as info:
        consumer.fin(first)
    assert (first.id, "answered") == (info.value.id, info.value.reason)
    with pytest.raises(InvalidMessage):
        consumer.fin(1)
    assert 2 == consumer.stats().finish_count


def test_fin_many(scene: Scene) -> None:
    """Several messages are finished, all or none."""
    consumer = scene.consumer()
    scene.topic.put_many([1, 2, 3])
    batch = scene.face.call(consumer.get_many, 3)
    with pytest.raises(InvalidMessage):
        consumer.fin_many([*batch, batch[0]])
    assert 3 == consumer.in_flight_count
    consumer.fin_many(batch)
    assert 0 == consumer.in_flight_count


def test_req(scene: Scene) -> None:
    """A requeued message is delivered again, at once or after its delay, and counted."""
    consumer = scene.consumer()
    scene.topic.put(1)
    scene.get(consumer).req()
    message = scene.get(consumer)
    assert 2 == message.attempts
    consumer.req(message, 5)
    with pytest.raises(Empty):
        scene.get(consumer, 0)
    scene.clock.advance(5)
    assert 3 == scene.get(consumer).attempts
    assert 2 == consumer.stats().requeue_count


def test_touch(scene: Scene) -> None:
    """A touched message has its whole time again."""
    consumer = scene.consumer(msg_timeout=5)
    scene.topic.put(1)
    message = scene.get(consumer)
    scene.clock.advance(4)
    consumer.touch(message)
    scene.clock.advance(4)
    assert State.IN_FLIGHT == message.state
    scene.clock.advance(1)
    with pytest.raises(NotInFlight):
        consumer.touch(message)


def test_move(scene: Scene) -> None:
    """A message is moved to another topic, or to a single channel, in one step."""
    consumer = scene.consumer()
    dead: Topic[Any] = Topic("dead")
    alone = scene.topic.channel("alone")
    scene.topic.put_many([1, 2])
    alone.empty()
    first, second = scene.face.call(consumer.get_many, 2)
    names = [consumer.move(first, dead), consumer.move(second, alone, 3)]
    assert [(names[1], 3)] == [(info.id, info.body) for info in alone.peek()]
    assert [(names[0], 1)] == [(info.id, info.body) for info in dead.channel("all").peek()]
    assert ([], 0) == (scene.ready(), consumer.in_flight_count)
    with pytest.raises(NotInFlight):
        consumer.move(first, dead)
    with pytest.raises(InvalidOption):
        consumer.move(first, "dead")


def test_a_message_in_a_with_block(scene: Scene) -> None:
    """A message is finished by its with block, and requeued by one that raises."""
    consumer = scene.consumer(requeue_delay=5)
    scene.topic.put(1)
    with pytest.raises(ValueError, match="so"), scene.get(consumer):
        raise ValueError("so")
    assert 1 == scene.channel.deferred_count
    scene.clock.advance(5)
    with scene.get(consumer) as message:
        assert 2 == message.attempts
    assert State.FINISHED == message.state


def test_another_ones_message(scene: Scene) -> None:
    """A consumer of either face answers for its own messages only."""
    scene.topic.put(1)
    message = scene.get(scene.consumer())
    for kind in (nsqlite.Consumer, aio.Consumer):
        other = kind(scene.channel)
        for answer in (other.fin, other.req, other.touch):
            with pytest.raises(NotInFlight) as info:
                answer(message)
            assert "not owner" == info.value.reason


# Leaving


def test_close(scene: Scene) -> None:
    """A closed consumer gives back what it holds, wakes who waits, and gets nothing more."""
    consumer = scene.consumer()
    scene.topic.put_many([1, 2])
    scene.face.call(consumer.get_many, 2)
    result = scene.face.start(consumer.get)
    consumer.close()
    consumer.close()
    assert consumer.closed
    assert [(1, 1), (2, 1)] == scene.ready()
    for call in (result, partial(scene.get, consumer, 0), partial(scene.get, consumer)):
        with pytest.raises(Closed) as info:
            call()
        assert "the consumer of channel 'billing' of topic 'orders' is closed" == str(info.value)
    with pytest.raises(Closed):
        scene.face.call(consumer.get_many, 1)
    assert 0 == scene.channel.stats().client_count


def orders(count: int) -> list[tuple[int, ...]]:
    return list(permutations(range(count)))


@pytest.mark.parametrize("order", orders(3))
def test_several_that_close_give_back_in_order(scene: Scene, order: tuple[int, ...]) -> None:
    """What several consumers held stands in the order of its delivery, whoever closes first."""
    consumers = [scene.consumer() for _ in range(3)]
    scene.topic.put_many(list(range(9)))
    for number in range(6):
        scene.get(consumers[number % 3])
    for number in order:
        consumers[number].close()
    assert [(body, int(body < 6)) for body in range(9)] == scene.ready()


def test_batches_that_go_back(scene: Scene) -> None:
    """Batches that go back stand in the order in which they were published."""
    first, second = scene.consumer(), scene.consumer()
    scene.topic.put_many([1, 2, 3])
    scene.get(first).req()
    assert [2, 3] == [m.body for m in scene.face.call(second.get_many, 2)]
    scene.clock.advance(1)
    scene.topic.put_many([4, 5])
    assert [1, 4] == [m.body for m in scene.face.call(first.get_many, 2)]
    second.close()
    first.close()
    assert [(1, 2), (2, 1), (3, 1), (4, 1), (5, 0)] == scene.ready()
    third = scene.consumer()
    scene.get(third).req()
    assert [2, 3, 4, 5, 1] == [m.body for m in scene.face.call(third.get_many, 9)]
    third.close()
    assert [1, 2, 3, 4, 5] == [body for body, _ in scene.ready()]


def test_what_went_back_is_got_and_goes_back_again(scene: Scene) -> None:
    """What stands at the head is in order, however much of it was taken meanwhile."""
    consumers = [scene.consumer() for _ in range(3)]
    scene.topic.put_many(list(range(6)))
    for consumer in consumers:
        scene.face.call(consumer.get_many, 2)
    consumers[1].close()
    consumers[1] = scene.consumer()
    assert 2 == scene.get(consumers[1]).body
    consumers[2].close()
    assert [3, 4, 5] == [body for body, _ in scene.ready()]
    consumers[1].close()
    consumers[0].close()
    assert [0, 1, 2, 3, 4, 5] == [body for body, _ in scene.ready()]


def test_close_without_giving_back(scene: Scene) -> None:
    """What a closed consumer leaves in flight times out, and can be finished until then."""
    consumer = scene.consumer(msg_timeout=5)
    scene.topic.put_many([1, 2])
    first, _second = scene.face.call(consumer.get_many, 2)
    consumer.close(give_back=False)
    consumer.fin(first)
    scene.clock.advance(5)
    assert [(2, 1)] == scene.ready()


@pytest.mark.parametrize("end", ["close", "delete"])
def test_the_end_of_the_channel(scene: Scene, end: str) -> None:
    """Who waits gets Closed when the channel is over, and it takes no more consumers."""
    consumer = scene.consumer()
    result = scene.face.start(consumer.get)
    getattr(scene.channel, end)()
    with pytest.raises(Closed):
        result()
    with pytest.raises(Closed):
        scene.get(consumer, 0)
    with pytest.raises(Closed):
        scene.consumer()


def test_the_with_block(scene: Scene) -> None:
    """A consumer's with block gives the consumer, and closes it whatever happens."""
    for error in (None, ValueError("so")):
        consumer = scene.consumer()

        def work(same: Any, consumer: Any = consumer, error: Exception | None = error) -> None:
            assert same is consumer
            if error is not None:
                raise error

        if error is None:
            scene.face.block(consumer, work)
        else:
            with pytest.raises(ValueError, match="so"):
                scene.face.block(consumer, work)
        assert consumer.closed


@pytest.mark.parametrize("end", ["consumer", "channel", "topic"])
def test_iteration(scene: Scene, end: str) -> None:
    """An iteration goes through the messages, and ends with consumer, channel or topic."""
    consumer = scene.consumer()
    seen = []
    scene.topic.put_many([1, 2, 3])

    def work(message: Message[Any]) -> None:
        seen.append(message.body)
        if message.body == 2:
            {"consumer": consumer, "channel": scene.channel, "topic": scene.topic}[end].close()
        elif message.state == State.IN_FLIGHT:
            message.fin()

    scene.face.each(consumer, work)
    assert [1, 2] == seen


def test_an_error_ends_an_iteration(scene: Scene) -> None:
    """What the body of an iteration raises ends it; the consumer goes on."""
    consumer = scene.consumer()
    scene.topic.put_many([1, 2])

    def work(message: Message[Any]) -> None:
        with message:
            raise ValueError("so")

    with pytest.raises(ValueError, match="so"):
        scene.face.each(consumer, work)
    assert [2, 1] == [scene.get(consumer).body for _ in "12"]


# Errors


@pytest.mark.parametrize("ready", [0, 3])
def test_bad_arguments(scene: Scene, ready: int) -> None:
    """An argument out of its range is refused by name, and nothing has changed."""
    consumer = scene.consumer()
    scene.topic.put_many([b"x"] * ready)
    whole = "must be a whole number of at least 1, not"
    number = "must be a finite number of seconds, at least 0, not"
    for text, call, args, options in (
        (f"timeout {number} -1", consumer.get, [-1], {}),
        (f"timeout {number} True", consumer.get, [True], {}),
        (f"timeout {number} '1'", consumer.get_many, [1, "1"], {}),
        (f"n {whole} 0", consumer.get_many, [0], {}),
        (f"linger {number} -1", consumer.get_many, [1], {"linger": -1}),
        (
            "linger must be less than msg_timeout, which is 60 s, not 60",
            consumer.get_many,
            [1],
            {"linger": 60},
        ),
    ):
        with pytest.raises(InvalidOption) as info:
            scene.face.call(call, *args, **options)
        assert text == str(info.value)
    assert (ready, 0) == (scene.channel.depth, consumer.in_flight_count)


@pytest.mark.parametrize(
    "options",
    [{"max_in_flight": -1}, {"msg_timeout": 0}, {"msg_timeout": 901}, {"requeue_delay": -1}],
)
def test_bad_options(scene: Scene, options: dict[str, Any]) -> None:
    """A consumer's options are checked, and no consumer is made."""
    with pytest.raises(InvalidOption):
        scene.consumer(**options)
    with pytest.raises(InvalidOption) as info:
        scene.face.kind("billing")
    assert "channel must be what Topic.channel(name) returns, not 'billing'" == str(info.value)
    assert 0 == scene.channel.stats().client_count


def test_too_many(scene: Scene) -> None:
    """Consumers of both faces count as consumers of the channel, and are shown alike."""
    consumers: list[Consumer] = [scene.consumer(), aio.Consumer(scene.channel)]
    consumers.append(nsqlite.Consumer(scene.channel))
    with pytest.raises(TooManyConsumers):
        scene.consumer()
    for consumer in consumers:
        title = f"{consumer.client_id} of channel 'billing' of topic 'orders'"
        assert f"<Consumer {title} in_flight=0>" == repr(consumer)
    assert [c.client_id for c in consumers] == [
        client.client_id for client in scene.channel.stats().clients
    ]


def test_no_copies(scene: Scene) -> None:
    """A consumer can be neither copied nor pickled."""
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        scene.consumer().__reduce_ex__(4)
