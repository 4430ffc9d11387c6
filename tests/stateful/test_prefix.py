"""Cut after any write, a store holds the state after a prefix of what happened, and what was told.

A program of calls is run on a broker whose store is in memory.  After every write of the store its
tables are copied: that is what would be found if the process died now.  Beside it the model of
history.py notes each change as an event, and the state after it.  When a call has returned, each
copy that was taken meanwhile, and what there is now, is opened by another broker, which tells what
it holds; and that must be

- the state after the first `k` events, where `k` never decreases from one copy to the next,
- with the puts that have returned since, given to the channels to which they were given then; and
  perhaps with the one that is about to return.

What was in flight is ready.  A pause, an emptying, what is made or deleted is in the file when the
call returns: `k` is then no smaller.  After `flush` and `close` it is everything.  Deliveries are
counted when the message comes back, if not before; with `attempts="durable"` when `get` returns.

Some calls are made by another thread while a write is under way: what they change is not in it.

More of this, on demand:

    pytest -m soak tests/stateful/test_prefix.py
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias, TypeVar
from unittest.mock import patch

import pytest
from helpers import Call
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import nsqlite
from nsqlite.store import journal
from nsqlite.testing import FaultyStore, ManualClock, MemoryStore
from stateful.history import MAX_MSG_TIMEOUT, MSG_TIMEOUT, Copy, History, Queue, State, Stream
from stateful.snapshots import SECOND, SeenTopic, look_at

R = TypeVar("R")

START: Final = 1_700_000_000

NEVER: Final = 3600.0
"""Seconds after which the store's thread writes by itself: a test does not last so long."""

Tables: TypeAlias = Any
"""What a `MemoryStore` keeps."""

Step: TypeAlias = tuple[str, tuple[Any, ...]]
"""A method of `Play`, and what it is given."""

Place: TypeAlias = tuple[str, str]
"""A topic and one of its channels."""

picks = st.integers(0, 20)
topics = st.sampled_from("aab")
channels = st.sampled_from("xxy")
counts = st.sampled_from([1, 2, 3, 7])
delays = st.sampled_from([0.5, 2, 6])
pauses = st.sampled_from(["pause", "unpause", "unpause"])


def do(method: str, *arguments: SearchStrategy[Any]) -> SearchStrategy[Step]:
    return st.tuples(st.just(method), st.tuples(*arguments))


often = [
    do("put", topics, st.none()),
    do("get", picks, st.just(1)),
    do("fin", picks),
    do("move", picks, topics, st.none()),
    do("move", picks, topics, channels),
]
steps = st.one_of(
    *often,
    *often,
    do("put", topics, delays),
    do("put_many", topics, counts, st.one_of(st.none(), delays)),
    do("get", picks, counts),
    do("req", picks, st.just(0)),
    do("req", picks, delays),
    do("touch", picks),
    do("advance", delays),
    do("steer_topic", topics, pauses),
    do("steer_channel", picks, pauses),
    do("channel", topics, channels),
    do("empty_topic", topics),
    do("empty_channel", picks),
    do("delete_topic", topics),
    do("delete_channel", picks),
    do("flush"),
    do("beside", picks, st.sampled_from(["fin", "req", "move"])),
    do("reopen", st.booleans()),
)
modes = st.fixed_dictionaries(
    {
        "sync": st.sampled_from(["normal", "full", "interval"]),
        "attempts": st.sampled_from(["late", "durable"]),
        "mem_queue_size": st.sampled_from([3, 10_000]),
    }
)

pieces = st.sampled_from([1, 3, 5000])
"""How many changes are written in one transaction."""


class Play:
    """A broker beside its history, and the copies that were taken of its store."""

    def __init__(self, modes: dict[str, Any]) -> None:
        self.modes: Final = modes
        self.history = History(
            START * SECOND,
            puts_wait=modes["sync"] != "interval",
            gets_wait=modes["attempts"] == "durable",
        )
        self.copies: list[Tables] = []
        self.last = MemoryStore().contents.tables
        self.seen: dict[str, SeenTopic] = {}
        self.serial = 0
        self.writing = False
        self.others: list[Callable[[], None]] = []
        self.open()

    def open(self) -> None:
        """Open what was found last."""
        self.clock = ManualClock(0)
        self.clock._start = self.history.now  # type: ignore[misc]  # exact, as a float is not
        self.store = MemoryStore(sync_timeout=NEVER, **self.modes)
        self.store.contents.tables = self.last.copy()
        self.consumers: dict[Place, nsqlite.Consumer[Any]] = {}
        self.messages: dict[tuple[str, str, str], nsqlite.Message[Any]] = {}
        self.broker = nsqlite.Broker(
            clock=self.clock,
            store=FaultyStore(self.store, self.point),
            msg_timeout=MSG_TIMEOUT / SECOND,
            max_msg_timeout=MAX_MSG_TIMEOUT / SECOND,
        )

    def point(self, name: str) -> None:
        """Copy the store after each write, and have another thread do something before it."""
        if name.startswith("before write") and self.writing and self.others:
            assert Call(self.others.pop()).result() is None
        if name.startswith("after write"):
            self.copies.append(self.store.contents.tables.copy())

    # What is found in the copies

    def check(self) -> None:
        """Open the copies that were taken since the last call."""
        copies, self.copies = self.copies, []
        for self.last in copies:
            self.seen = self.found_in(self.last)
            self.explain()

    def returned(self, *, surely: bool = False) -> None:
        """Check what was found in the call that has returned, and what is found now."""
        self.check()
        self.history.returned(surely=surely)
        self.explain()

    def explain(self) -> State:
        """Return what was found last, if it may be."""
        found = self.history.explain(self.seen)
        assert found is not None, f"{self.modes}: found {self.seen}, known {self.history.states}"
        return found

    def all_written(self) -> None:
        """Check that all that happened is in the file."""
        self.check()
        self.history.returned(surely=True)
        assert self.history.explains_all(self.seen), f"{self.seen} {self.history.state}"

    def found_in(self, tables: Tables) -> dict[str, SeenTopic]:
        """Return what another broker finds in a copy."""
        clock = ManualClock(0)
        clock._start = self.history.now  # type: ignore[misc]  # exact, as a float is not
        store = MemoryStore(sync_timeout=NEVER, mem_queue_size=3)
        store.contents.tables = tables.copy()
        with nsqlite.Broker(clock=clock, store=store) as broker:
            broker._check()
            return {name: look_at(topic, self.history.now) for name, topic in broker.topics.items()}

    # Finding things

    def topic(self, name: str) -> tuple[nsqlite.Topic[Any], Stream]:
        """Return a topic; if it is new, it is in the file now."""
        topic = self.broker.topic(name)
        if name not in self.history.state:
            self.history.state[name] = Stream()
            self.decided(changes=True)
        return topic, self.history.state[name]

    def channel(self, name: str, channel: str) -> None:
        topic, stream = self.topic(name)
        topic.channel(channel)
        if channel not in stream.queues:
            stream.queues[channel] = Queue()
            stream.take({})
            self.decided(changes=True)

    def places(self) -> list[Place]:
        return [(name, one) for name, stream in self.history.state.items() for one in stream.queues]

    def any_place(self, pick: int) -> Iterator[tuple[Place, nsqlite.Channel[Any], Queue]]:
        """Yield a channel, if there is one."""
        places = self.places()
        if places:
            name, one = places[pick % len(places)]
            queue = self.history.state[name].queues[one]
            yield (name, one), self.broker.topic(name).channel(one), queue

    def consumer(self, place: Place) -> nsqlite.Consumer[Any]:
        if place not in self.consumers:
            channel = self.broker.topic(place[0]).channel(place[1])
            self.consumers[place] = nsqlite.Consumer(channel)
        return self.consumers[place]

    def any_flying(self, pick: int) -> Iterator[tuple[Place, nsqlite.Message[Any], Copy]]:
        """Return what is in flight; if there is nothing, get something."""
        if not self.flying():
            self.get(pick, 1)
        return self.any_in_hand(pick)

    def any_in_hand(self, pick: int) -> Iterator[tuple[Place, nsqlite.Message[Any], Copy]]:
        """Yield what is in flight, if anything is."""
        flying = self.flying()
        if flying:
            place, one = flying[pick % len(flying)]
            copy = self.history.state[place[0]].queues[place[1]].copies[one]
            yield place, self.messages[(*place, one)], copy

    def flying(self) -> list[tuple[Place, str]]:
        return [
            ((name, channel), one)
            for name, channel in self.places()
            for one, copy in self.history.state[name].queues[channel].copies.items()
            if copy.deadline is not None
        ]

    def bodies(self, count: int) -> list[bytes]:
        self.serial += count
        return [b"%d" % (self.serial - n) for n in range(count)]

    # What is done

    def put(self, name: str, delay: float | None) -> None:
        topic, _ = self.topic(name)
        [body] = self.bodies(1)
        self.put_in(name, [self.met(lambda: topic.put(body, delay=delay))], [body], delay)

    def put_many(self, name: str, count: int, delay: float | None) -> None:
        topic, _ = self.topic(name)
        bodies = self.bodies(count)
        ids = self.met(lambda: topic.put_many(bodies, delay=delay))
        self.put_in(name, ids, bodies, delay)

    def put_in(self, name: str, ids: list[str], bodies: list[bytes], delay: float | None) -> None:
        due = None if delay is None else self.history.now + int(delay * SECOND)
        copies = [Copy(body, due is None, due) for body in bodies]
        self.history.put(name, dict(zip(ids, copies, strict=True)))
        self.returned()

    def get(self, pick: int, n: int) -> None:
        """Get from a channel that has something, or else in vain."""
        able = [place for place in self.places() if self.ready(place)]
        for place in [able[pick % len(able)]] if able else []:
            got = self.met(partial(self.consumer(place).get_many, n, timeout=0))
            assert 1 <= len(got) <= n
            for message in got:
                assert message.id in self.ready(place)
                self.history.deliver(*place, message.id)
                self.messages[(*place, message.id)] = message
            self.history.happened()
            self.returned()

    def ready(self, place: Place) -> set[str]:
        queue = self.history.state[place[0]].queues[place[1]]
        now = self.history.now
        return {
            one for one, copy in queue.copies.items() if copy.is_ready(now) and not queue.paused
        }

    def fin(self, pick: int) -> None:
        for (name, channel), message, _ in self.any_flying(pick):
            message.fin()
            del self.history.state[name].queues[channel].copies[message.id]
            self.history.happened()
            self.returned()

    def req(self, pick: int, delay: float) -> None:
        for _, message, copy in self.any_flying(pick):
            message.req(delay=delay)
            copy.come_back(self.history.now + int(delay * SECOND) if delay else None)
            self.history.happened()
            self.returned()

    def touch(self, pick: int) -> None:
        for _, message, copy in self.any_flying(pick):
            message.touch()
            copy.deadline = min(self.history.now + MSG_TIMEOUT, copy.longest)
            self.returned()

    def move(self, pick: int, name: str, channel: str | None) -> None:
        """Move what is in flight to a topic or a channel, which is one event."""
        topic, stream = self.topic(name)
        if channel is not None:
            self.channel(name, channel)
        for (source, left), message, copy in self.any_flying(pick):
            to = topic if channel is None else topic.channel(channel)
            new = self.consumer((source, left)).move(message, to)
            del self.history.state[source].queues[left].copies[message.id]
            if channel is None:
                stream.take({new: Copy(copy.body)})
            else:
                stream.queues[channel].copies[new] = Copy(copy.body, plain=False)
            self.history.happened()
            self.returned()

    def advance(self, step: float) -> None:
        self.clock.advance(step)
        self.history.now += int(step * SECOND)
        for (name, channel), one in self.flying():
            copy = self.history.state[name].queues[channel].copies[one]
            if copy.deadline is not None and copy.deadline <= self.history.now:
                copy.come_back(None)
        self.history.happened()
        self.seen = self.found_in(self.last)
        self.returned()

    def steer_topic(self, name: str, how: str) -> None:
        topic, stream = self.topic(name)
        changes = self.steer(topic, stream, how)
        stream.take({})
        self.decided(changes=changes)

    def steer_channel(self, pick: int, how: str) -> None:
        for _, channel, queue in self.any_place(pick):
            self.decided(changes=self.steer(channel, queue, how))

    def steer(self, real: Any, model: Stream | Queue, how: str) -> bool:
        """Pause or unpause, and say whether that changes anything."""
        getattr(real, how)()
        before = model.paused
        model.paused = how == "pause"
        return model.paused is not before

    def decided(self, *, changes: bool) -> None:
        """Take note of a call that returns when what it changes is written, if it does."""
        self.history.happened()
        self.returned(surely=changes)

    def empty_topic(self, name: str) -> None:
        topic, stream = self.topic(name)
        assert len(stream.held) == topic.empty()
        changes = bool(stream.held)
        stream.held.clear()
        self.decided(changes=changes)

    def empty_channel(self, pick: int) -> None:
        for _, channel, queue in self.any_place(pick):
            assert len(queue.copies) == channel.empty()
            queue.copies.clear()
            self.decided(changes=True)

    def delete_topic(self, name: str) -> None:
        topic, _ = self.topic(name)
        topic.delete()
        for place in [one for one in self.consumers if one[0] == name]:
            del self.consumers[place]
        del self.history.state[name]
        self.decided(changes=True)

    def delete_channel(self, pick: int) -> None:
        for place, channel, queue in self.any_place(pick):
            assert len(queue.copies) == channel.delete()
            self.consumers.pop(place, None)
            del self.history.state[place[0]].queues[place[1]]
            self.decided(changes=True)

    def flush(self) -> None:
        before = len(self.history.states) - 1
        self.met(self.broker.flush)
        if before == len(self.history.states) - 1:
            self.all_written()
        else:
            self.history.surely = before
            self.returned()

    # What another thread does

    def beside(self, pick: int, how: str) -> None:
        self.others.append(lambda: getattr(self, f"{how}_beside")(pick))

    def met(self, call: Callable[[], R]) -> R:
        """Make a call, while whose write another thread may do something."""
        self.writing = True
        try:
            return call()
        finally:
            self.writing = False

    def fin_beside(self, pick: int) -> None:
        for (name, channel), message, _ in self.any_in_hand(pick):
            message.fin()
            del self.history.state[name].queues[channel].copies[message.id]
            self.history.happened()

    def req_beside(self, pick: int) -> None:
        for _, message, copy in self.any_in_hand(pick):
            message.req()
            copy.come_back(None)
            self.history.happened()

    def move_beside(self, pick: int) -> None:
        for source, message, copy in self.any_in_hand(pick):
            for _, to, queue in self.any_place(pick):
                new = self.consumer(source).move(message, to)
                del self.history.state[source[0]].queues[source[1]].copies[message.id]
                queue.copies[new] = Copy(copy.body, plain=False)
                self.history.happened()

    def reopen(self, crash: bool) -> None:
        """Go on with what is found after the end of the broker, or would be after its death."""
        if crash:
            found = self.explain()
            self.broker.close()
            self.copies.clear()
        else:
            self.broker.close()
            self.all_written()
            found = self.history.state
        self.history.begin(found, self.seen)
        self.open()


def play(modes: dict[str, Any], piece: int, program: list[Step]) -> None:
    """Run a program, and close the broker."""
    with patch.object(journal, "PIECE", piece):
        _play(modes, program)


def _play(modes: dict[str, Any], program: list[Step]) -> None:
    scene = Play(modes)
    try:
        for name, channel in ("ax", "ay", "bx"):
            scene.channel(name, channel)
        for method, arguments in program:
            getattr(scene, method)(*arguments)
        scene.reopen(crash=False)
    finally:
        with suppress(nsqlite.NSQLiteError):
            scene.broker.close()


@settings(max_examples=100)
@given(modes=modes, piece=pieces, program=st.lists(steps, min_size=10, max_size=40))
def test_file_is_a_prefix_of_what_happened(
    modes: dict[str, Any], piece: int, program: list[Step]
) -> None:
    """Cut after any write, a store holds what was at one moment, and what was acknowledged."""
    play(modes, piece, program)


@pytest.mark.soak
@settings(max_examples=1000)
@given(modes=modes, piece=pieces, program=st.lists(steps, min_size=20, max_size=80))
def test_soak_of_prefixes(modes: dict[str, Any], piece: int, program: list[Step]) -> None:
    """So it does after many programs that are long."""
    play(modes, piece, program)
