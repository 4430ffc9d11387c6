"""A channel's messages: what only the inside shows; the rest is seen from the outside."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

import nsqlite
from nsqlite import Consumer, Empty, Event, Full, Message, State, Topic
from nsqlite.clock import NEVER
from nsqlite.events import Kind, subscription
from nsqlite.message import Record
from nsqlite.monitor import Monitor
from nsqlite.options import DEFAULTS, make_options
from nsqlite.persistence import OnDone
from nsqlite.queue import Queue
from nsqlite.testing import ManualClock
from nsqlite.timeline import Recorder
from nsqlite.timerwheel import TimerWheel
from nsqlite.waiting import ThreadWaiter, Waiter


@pytest.mark.parametrize("touched", [False, True])
def test_touch_within_the_same_tick(touched: bool) -> None:
    """A touch that falls into the tick it is in already changes nothing."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    message = consumer.get(timeout=0)
    if touched:
        message.touch()
    assert 60 == channel.in_flight()[0].due_in
    topic._check()


def test_drop_oldest_pays_for_itself_only() -> None:
    """A put drops no more than it adds, so requeued messages beyond the bound stay."""
    topic = Topic("orders")
    channel = topic.channel("billing", max_depth=2, when_full="drop oldest")
    consumer = Consumer(channel)
    topic.put_many([1, 2])
    held = consumer.get_many(2, timeout=0)
    topic.put_many([3, 4])
    for message in held:
        message.req()
    assert [3, 4, 1, 2] == [info.body for info in channel.peek()]
    topic.put(5)
    assert [4, 1, 2, 5] == [info.body for info in channel.peek()]
    assert 1 == channel.stats().dropped_count


def test_an_observed_channel_tells_of_each() -> None:
    """Each message of a batch that is delivered and finished is told."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    recorder = Recorder()
    stop = topic.observe(recorder)
    topic.put_many([1, 2])
    consumer.fin_many(consumer.get_many(2, timeout=0))
    stop()
    topic.put(3)
    assert [
        ("published", 1),
        ("published", 2),
        ("delivered", 1),
        ("delivered", 2),
        ("finished", 1),
        ("finished", 2),
    ] == [(event.kind, event.body) for event in recorder.events]


def record(number: int) -> Record[int]:
    return number, 0, f"{number:013x}", "000", 0


class Scene:
    """A topic's own queue on a clock that stands."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.monitor = Monitor()
        self.rooms = 0
        self.queue: Queue[int] = Queue(
            ("orders", None),
            make_options(DEFAULTS, **options),
            self.clock,
            self.monitor,
            self.make_room,
        )

    def make_room(self) -> None:
        self.rooms += 1

    def add(self, *numbers: int) -> None:
        """Put ready messages in, as a topic does."""
        most = [self.queue.excess(len(numbers))]
        self.queue.ready.extend(record(number) for number in numbers)
        self.queue.feed()
        if self.queue.limit is not None:
            self.queue.drop_excess(most)

    def trash(self) -> list[int]:
        entries: Any = self.monitor.trash
        return [entry[0] for entry in entries]

    def ready(self) -> list[int]:
        return [entry[0] for entry in self.queue.ready]


def test_it_begins_empty() -> None:
    """There is nothing in it, nothing is due, and there is room for anything."""
    queue = Scene().queue
    assert (True, NEVER, None) == (queue.is_idle(), queue.due, queue.check_room(1_000_000))
    assert 0 == queue.clear()
    queue._check()


def test_what_is_deferred_becomes_ready_in_its_time() -> None:
    """The earliest comes first, behind what was ready before; the time is returned."""
    scene = Scene()
    queue = scene.queue
    for number, due in ((3, 30), (2, 20), (4, 30)):
        queue.defer([record(number)], due)
    scene.add(1)
    assert (20, False) == (queue.due, queue.is_idle())
    scene.clock.advance(19e-9)
    assert (19, [1]) == (queue.sweep(), scene.ready())
    scene.clock.advance(11e-9)
    assert (30, [1, 2, 3, 4]) == (queue.sweep(), scene.ready())
    assert NEVER == queue.due
    queue._check()


def test_deferring_may_be_made_twice() -> None:
    """What a signal interrupted and is done again brings one message."""
    scene = Scene()
    deferred = record(1)
    for _ in "12":
        scene.queue.defer([deferred], 10)
    scene.clock.advance(1)
    scene.queue.recover()
    assert [1] == scene.ready()


@pytest.mark.parametrize(
    ("when_full", "verdicts"),
    [
        ("wait", [None, "wait", "raise"]),
        ("raise", [None, "raise", "raise"]),
        ("drop newest", [None, None, "raise"]),
        ("drop oldest", [None, None, "raise"]),
    ],
)
def test_judging(when_full: str, verdicts: list[str | None]) -> None:
    """What fits goes in; what does not may wait, raise or push out; what never can raises."""
    scene = Scene(max_depth=2, when_full=when_full)
    scene.add(1)

    def verdict(count: int) -> str | None:
        try:
            full = scene.queue.check_room(count)
        except Full as error:
            return "raise" if (error.where, error.size) == ("orders", count) else str(error)
        return None if full is None else "wait"

    assert verdicts == [verdict(count) for count in (1, 2, 3)]
    assert [True, False] == [scene.queue.has_room(count) for count in (1, 2)]


@pytest.mark.parametrize(("when_full", "left"), [("drop newest", [1, 2]), ("drop oldest", [3, 4])])
def test_too_much_is_dropped(when_full: str, left: list[int]) -> None:
    """As many are dropped as were put too many, counted, told, and kept until after the lock."""
    scene = Scene(max_depth=2, when_full=when_full)
    told: list[Event] = []
    scene.monitor.observe((subscription(told.append),))
    scene.add(1, 2)
    scene.add(3, 4)
    assert (left, 2) == (scene.ready(), scene.queue.dropped_count)
    assert sorted({1, 2, 3, 4} - set(left)) == sorted(scene.trash())
    scene.monitor.settle()
    assert [(Kind.DROPPED, None, None)] * 2 == [(e.kind, e.channel, e.attempts) for e in told]


def test_clear_drops_everything() -> None:
    """Ready and deferred ones are counted together."""
    scene = Scene()
    scene.add(1, 2)
    scene.queue.defer([record(3)], 10)
    assert (3, True, NEVER) == (scene.queue.clear(), scene.queue.is_idle(), scene.queue.due)


def test_a_topics_own_obeys_the_resolution() -> None:
    """What a topic holds is cut into ticks as long as its channels' are."""
    topic = Topic("orders", clock=ManualClock(), resolution=0.5)
    assert [500_000_000] * 2 == [
        topic._fan.held.deferred.resolution,
        topic.channel("billing")._queue.timeouts.resolution,
    ]


def test_check_finds_a_message_in_two_places() -> None:
    """One that is ready must not be deferred too."""
    scene = Scene()
    scene.add(1)
    scene.queue.defer([record(1)], 10)
    with pytest.raises(AssertionError, match="two places"):
        scene.queue._check()


def test_pages_that_are_empty_are_cleared_away() -> None:
    """However many messages come and go one at a time, few pages are left."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    for _ in range(50):
        topic.put_many([b"1", b"2"])
        first, second = consumer.get_many(2, timeout=0)
        clock.advance(1)
        first.touch()
        consumer.fin_many([first, second])
        assert len(channel._queue.timeouts.pages()) <= 2


def test_give_back_of_what_timed_out() -> None:
    """A message that timed out meanwhile is not given back a second time."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    topic.put(b"1")
    message = Consumer(channel).get(timeout=0)
    clock.advance(60)
    topic._monitor.run(channel._queue.give_back, [(message, message._record)])
    assert 1 == channel.depth
    topic._check()


def test_check_finds_a_message_that_is_ready_twice() -> None:
    """The invariants can fail: a record put in twice is found."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    topic.put(b"1")
    channel._queue.ready.append(channel._queue.ready[0])
    with pytest.raises(AssertionError, match="a message is in two places"):
        channel._check()


def test_a_time_out_opens_a_window() -> None:
    """A consumer whose messages timed out may get again."""
    clock = ManualClock(autojump=True)
    topic = Topic("orders", clock=clock)
    consumer = Consumer(topic.channel("billing"), max_in_flight=1)
    topic.put(b"1")
    consumer.get(timeout=0)
    assert 2 == consumer.get().attempts
    assert isinstance(consumer, nsqlite.Consumer)
    topic._check()


def test_a_wheel_that_a_signal_left_wrong() -> None:
    """A deadline that was announced and never came to be brings nothing, early or ever."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1", delay=10)
    topic.put(b"2")
    message = consumer.get()
    clock.advance(5)
    queue = channel._queue
    queue.timeouts.next_due = 1
    queue.timeouts._whole = False
    queue.deferred.bucket(0)
    queue._set_due()
    assert (1, 1) == (channel.in_flight_count, channel.deferred_count)
    clock.advance(5)
    assert (1, State.IN_FLIGHT) == (channel.depth, message.state)
    topic._check()


def test_a_hand_over_to_who_is_awake_already() -> None:
    """A waiter that was notified for another reason finds the message all the same."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    consumer.get().fin()  # from here on it has a page
    waiter: Waiter[Any] = ThreadWaiter(topic._monitor, consumer)
    topic._monitor.run(channel._receive, consumer, Message(), waiter)
    waiter.notify()
    topic.put(b"2")
    assert waiter.message is not None
    assert b"2" == waiter.message.body
    topic._check()


class Listening:
    """A store that only listens."""

    counted = False

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.ahead = 0
        self.pages: list[Callable[[], None]] = []
        self.problem: Exception | None = None

    def bind(self, queue: Queue[Any]) -> None:
        assert queue.persistence is not None

    def look(self) -> None:
        pass

    def later(self, due: int, records: Iterable[Record[Any]]) -> None:
        """Have all that waits in memory."""

    def hear(self, kind: Kind, record: Record[Any] | None, due: int | None) -> None:
        what = "" if record is None else f" {record[0]!r} {record[4]}"
        self.heard.append(f"{kind.value}{what}{'' if due is None else ' due'}")

    def delivered(self, messages: Iterable[Message[Any]], due: int) -> None:  # noqa: ARG002 - the port's
        self.heard.extend(f"delivered {message.body!r}" for message in messages)

    def finished(self, messages: Iterable[Message[Any]]) -> None:
        self.heard.extend(f"finished {message.body!r}" for message in messages)

    def note(self, entry: object) -> None:
        self.heard.append(f"note {entry}")

    def put_away(self) -> None:
        self.heard.append("put away")

    def read_ahead(self) -> None:
        self.ahead += 1

    def fetch(self) -> None:
        self.heard.append("fetch")
        self.pages.pop()()

    def send(self, task: Callable[[], object], on_done: OnDone) -> None:
        raise NotImplementedError

    def settle(self, messages: list[Message[Any]]) -> None:
        self.heard.append(f"settle {len(messages)}")
        if self.problem is not None:
            raise self.problem


class Kept:
    """A channel with such a store."""

    def __init__(self) -> None:
        self.topic: Topic[Any] = Topic("orders")
        self.channel = self.topic.channel("billing")
        self.store = Listening()
        self.queue = self.channel._queue
        kept: Any = self.store  # which has what is asked for here
        self.queue.keep(kept)
        self.consumer = Consumer(self.channel)

    def put(self, *bodies: Any) -> None:
        """Put messages as a store does, which shows what it has written."""
        for number, body in enumerate(bodies):
            self.queue.ready.append((body, 0, "0" * 13, f"{number:03x}", 0))

    def heard(self) -> list[str]:
        """Return what the store has heard since the last call."""
        heard, self.store.heard = self.store.heard, []
        return heard


def test_all_that_becomes_of_a_message_is_heard() -> None:
    """Whatever way a message goes, its store hears of it, without any observer."""
    scene = Kept()
    scene.put(1, 2, 3, 4, 5)
    message = scene.consumer.get(timeout=0)
    assert ["delivered 1"] == scene.heard()
    message.fin()
    assert ["finished 1"] == scene.heard()
    scene.consumer.get(timeout=0).req()
    assert ["delivered 2", "requeued 2 1"] == scene.heard()
    scene.consumer.get(timeout=0).req(delay=5)
    assert ["delivered 3", "requeued 3 1 due", "deferred 3 1 due"] == scene.heard()
    batch = scene.consumer.get_many(2)
    assert ["delivered 4", "delivered 5"] == scene.heard()
    scene.consumer.fin_many(batch)
    assert ["finished 4", "finished 5"] == scene.heard()
    scene.consumer.get(timeout=0)
    scene.consumer.close()
    assert ["delivered 2", "returned 2 2"] == scene.heard()
    scene.channel.pause()
    scene.channel.unpause()
    scene.channel.empty()
    assert ["paused", "unpaused", "emptied"] == scene.heard()


def test_what_is_closed_is_put_away() -> None:
    """A closed queue throws nothing away: its store takes it back; a deleted one forgets it."""
    scene = Kept()
    scene.put(1, 2)
    assert 0 == scene.channel.close()
    assert ["put away", "closed"] == scene.heard()
    scene = Kept()
    scene.put(1, 2)
    assert 2 == scene.channel.delete()
    assert ["deleted"] == scene.heard()


def test_what_lies_beyond_counts() -> None:
    """What is in the file alone is ready, but not in memory."""
    scene = Kept()
    scene.put(1)
    scene.queue.backend_depth = 2
    assert [3, 3, False] == [scene.channel.depth, scene.queue.total(), scene.queue.is_idle()]
    stats = scene.channel.stats()
    assert (3, 2) == (stats.depth, stats.backend_depth)
    assert not scene.channel.join(timeout=0)
    assert 3 == scene.channel.empty()
    assert 0 == scene.queue.backend_depth


def test_get_fetches_until_there_is_something() -> None:
    """A `get` that does not wait has a page read if memory is empty and the file is not."""
    scene = Kept()
    scene.queue.backend_depth = 1

    def arrive() -> None:
        scene.queue.backend_depth = 0
        scene.put(1)

    scene.store.pages = [arrive, lambda: None]
    assert 1 == scene.consumer.get(timeout=0).body
    assert ["fetch", "fetch", "delivered 1"] == scene.heard()
    with pytest.raises(Empty):
        scene.consumer.get(timeout=0)
    assert [] == scene.heard()


def test_a_counted_delivery_is_settled() -> None:
    """Where deliveries are counted `get` has them settled, and passes on what that raises."""
    scene = Kept()
    scene.store.counted = True
    scene.put(1, 2, 3)
    scene.consumer.get(timeout=0)
    scene.consumer.get_many(2)
    assert [
        "delivered 1",
        "settle 1",
        "delivered 2",
        "delivered 3",
        "settle 2",
    ] == (scene.heard())
    scene.put(4, 5)
    scene.store.problem = LookupError("no")
    with pytest.raises(LookupError):
        scene.consumer.get(timeout=0)
    with pytest.raises(LookupError):
        scene.consumer.get_many(2)


def test_what_is_still_to_be_noted_is_noted_once() -> None:
    """What an operation has to note is noted by it, or by the next one if a signal strikes."""
    scene = Kept()
    scene.queue.entry = "moved"
    scene.queue.restore()
    scene.queue.restore()
    assert ["note moved"] == scene.heard()


def strike_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Have the next call of a method broken off as it begins, as by a signal."""
    method = getattr(owner, name)

    def struck(*_: object) -> None:
        monkeypatch.setattr(owner, name, method)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, struck)


def test_an_emptying_that_is_struck_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signal keeps from being told is told, so that the store has what memory has."""
    scene = Kept()
    scene.put(1, 2)
    strike_once(monkeypatch, Listening, "hear")
    with pytest.raises(KeyboardInterrupt):
        scene.channel.empty()
    assert 0 == scene.channel.depth
    assert ["emptied"] == scene.heard()
    scene.put(3)
    assert 3 == scene.consumer.get(timeout=0).body


def test_an_end_that_is_struck_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel whose end a signal strikes has ended, and its store has what it had."""
    scene = Kept()
    scene.put(1, 2)
    strike_once(monkeypatch, Queue, "clear")
    with pytest.raises(KeyboardInterrupt):
        scene.channel.close()
    assert scene.channel.closed
    assert "put away" == scene.heard()[0]
    scene.channel._check()


def test_a_page_that_is_due_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that strikes while many time out together loses and doubles none."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([1, 2, 3])
    consumer.get_many(3)
    drop = TimerWheel[Any].drop

    def struck(*_: object) -> None:
        monkeypatch.setattr(TimerWheel, "drop", drop)
        raise KeyboardInterrupt

    monkeypatch.setattr(TimerWheel, "drop", struck)
    with pytest.raises(KeyboardInterrupt):
        clock.advance(60)
    assert [1, 2, 3] == [info.body for info in channel.peek()]
    assert 3 == channel.stats().timeout_count
    topic._check()


def test_a_batch_that_has_left_the_queue_stays_in_flight() -> None:
    """To recover a batch that was taken changes nothing."""
    topic = Topic("orders", clock=ManualClock())
    channel = topic.channel("billing")
    topic.put(b"1")
    [message] = Consumer(channel).take(1)
    channel._queue.taking = [message]
    topic._monitor.run(channel._queue.recover)
    assert 1 == channel.in_flight_count
    topic._check()


def test_an_earlier_deadline_that_comes_meanwhile_stays() -> None:
    """What a signal handler expects in the middle of another expectation is not put off."""
    topic = Topic("orders", clock=ManualClock())
    queue: Any = topic.channel("billing")._queue

    class Earlier(type(queue)):  # type: ignore[misc]  # a queue of its own class
        __slots__ = ()

        def _tell_clock(self: Any, due: int) -> None:
            self.due = due - 5

    queue.__class__ = Earlier
    queue.expect(100)
    assert 95 == queue.due


def test_a_touch_within_a_second() -> None:
    """What was touched a moment later stands behind the others, and times out after them."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put_many([1, 2])
    first, _second = consumer.get_many(2)
    clock.advance(0.5)
    first.touch()
    assert [2, 1] == [info.body for info in channel.in_flight()]
    clock.advance(59.5)
    assert ([2], [1]) == (
        [info.body for info in channel.peek()],
        [info.body for info in channel.in_flight()],
    )
    topic._check()


def test_the_place_of_what_was_given_back_and_requeued() -> None:
    """What was given back, delivered again and requeued is at the head no more."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumers = [Consumer(channel) for _ in range(3)]
    topic.put_many(["a", "b", "c", "d"])
    for consumer in consumers:
        consumer.get()
    consumers[1].close()
    consumers[0].close()
    consumer = Consumer(channel)
    a, b = consumer.get_many(2)
    assert ["a", "b"] == [a.body, b.body]
    a.req()
    consumers[2].close()
    assert ["c", "d", "a"] == [info.body for info in channel.peek()]


def test_in_the_child_of_a_fork_what_was_handed_over_is_ready() -> None:
    """A message in the hands of a thread that is gone was never delivered."""
    topic = Topic("orders")
    channel = topic.channel("billing")
    consumer = Consumer(channel, max_in_flight=1)
    waiter: Waiter[Any] = ThreadWaiter(topic._monitor, consumer)
    topic._monitor.run(channel._receive, consumer, Message(), waiter)
    topic.put(b"1")
    assert 1 == channel.in_flight_count
    topic._forget_waiters()
    assert (1, 0) == (channel.depth, channel.in_flight_count)
    assert 1 == consumer.get(timeout=0).attempts
    topic._check()


def test_a_deadline_that_a_handler_sweeps_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is filed after a handler has looked for what is due times out all the same."""
    clock = ManualClock()
    topic = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    consumer = Consumer(channel)
    topic.put(b"1")
    queue: Any = channel._queue
    make = TimerWheel[Any].page

    def make_and_look(wheel: TimerWheel[Any], due: int) -> Any:
        queue.due = NEVER  # as a sweep leaves it that finds nothing
        return make(wheel, due)

    with monkeypatch.context() as patch:
        patch.setattr(TimerWheel, "page", make_and_look)
        message = consumer.get()
    assert queue.due == message._page[message]
