"""A broker with a file is, after every crash, what the slow model says it may be.

Every rule makes a call on the real broker and on the model.  After every step the counts of all
channels that are awake are compared.  A crash copies the file as the death of the process would
leave it at that moment, opens the copy, and compares all that comes out of it with the images that
the model has of the file; then the broker goes on with another copy.
"""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import SearchStrategy

import nsqlite
from nsqlite.store.backlog import Backlog
from nsqlite.testing import FaultyStore, ManualClock
from stateful.keptmodel import (
    MAX_MSG_TIMEOUT,
    MSG_TIMEOUT,
    Copy,
    KeptModel,
    Queue,
    Stream,
    any_of,
    is_kept,
)
from stateful.snapshots import SECOND, assert_sound, copy_store, rows_of, take_snapshot

Action: TypeAlias = SearchStrategy[tuple[str, dict[str, Any]]]

START: Final = 1_700_000_000

picks = st.integers(0, 99)
steps = st.one_of(st.integers(1, 4), st.integers(0, 24)).map(lambda n: n / 4)
some = st.sampled_from([1, 2, 3, 5, 12, 30])
delays = st.integers(1, 40).map(lambda n: n / 4)
topic_names = st.sampled_from(["a", "a", "a", "b", "c#ephemeral"])
channel_names = st.sampled_from(["x", "x", "y", "y", "z", "e#ephemeral"])


def do(method: str, weight: int = 1, /, **arguments: SearchStrategy[Any]) -> list[Action]:
    """Return a step that calls this method, as often as its weight says."""
    return [st.tuples(st.just(method), st.fixed_dictionaries(arguments))] * weight


actions: list[Action] = [
    *do("put", 5, name=topic_names),
    *do("put_later", 2, name=topic_names, delay=delays),
    *do("put_many", 2, name=topic_names, count=some, delay=st.one_of(st.none(), delays)),
    *do("get", 6, pick=picks),
    *do("get_many", pick=picks, n=some),
    *do("answer", 6, pick=picks, how=st.sampled_from(["fin", "fin", "req", "touch"])),
    *do("requeue_later", 2, pick=picks, delay=delays),
    *do("fin_many", pick=picks),
    *do("answer_too_late", pick=picks),
    *do("move_to_topic", 2, pick=picks, name=topic_names),
    *do("move_to_channel", 2, pick=picks, to=picks),
    *do("advance", 2, step=steps),
    *do("steer_topic", 2, name=topic_names, how=st.sampled_from(["pause", "unpause", "unpause"])),
    *do("steer_channel", pick=picks, how=st.sampled_from(["pause", "unpause", "unpause"])),
    *do("wipe", 2, name=topic_names, pick=picks, how=st.integers(0, 3)),
    *do("discard", 2, pick=picks),
    *do("channel", 2, name=topic_names, channel=channel_names),
    *do("leave", pick=picks, give_back=st.booleans()),
    *do("flush"),
    *do("put_in_vain", name=topic_names, count=some, delay=st.one_of(st.none(), delays)),
    *do("get_in_vain", pick=picks, n=some),
    *do("crash", 2, pause=st.integers(1, 20), look=st.booleans()),
    *do("reopen", 2, pause=st.integers(0, 20), look=st.booleans()),
]
modes = st.fixed_dictionaries(
    {
        "sync": st.sampled_from(["normal", "normal", "interval", "full"]),
        "attempts": st.sampled_from(["late", "durable"]),
        "mem_queue_size": st.sampled_from([1, 2, 10, 10_000]),
        "sync_every": st.sampled_from([1, 4, 2500]),
        "sync_timeout": st.sampled_from([0.001, 1000, 1000]),
    }
)


class DurableMachine(RuleBasedStateMachine):
    """What can be done to a broker with a file, and to its process."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="nsqlite-durable-"))
        self.full = False
        self.generation = 0
        self.as_expected = False  # so far; else there is nothing more to compare at the end
        self.serial = 0
        self.ids: set[str] = set()
        self.consumers: dict[tuple[str, str], nsqlite.Consumer[Any]] = {}
        self.messages: dict[tuple[str, str, str], nsqlite.Message[Any]] = {}
        self.stale: list[nsqlite.Message[Any]] = []

    @initialize(modes=modes, second=channel_names)
    def begin(self, modes: dict[str, Any], second: str) -> None:
        self.modes = modes
        self.model = KeptModel(
            START * SECOND,
            interval=modes["sync"] == "interval",
            durable=modes["attempts"] == "durable",
        )
        self.path = self.directory / "0"
        self.open()
        self.channel("a", "x")
        self.channel("a", second)

    def open(self) -> None:
        self.clock = ManualClock(0, patience=0.02)
        self.clock._start = self.model.now  # type: ignore[misc]  # exact, as a float is not
        self.broker = nsqlite.Broker(
            clock=self.clock,
            store=FaultyStore(nsqlite.SQLite(self.path, **self.modes), self.fault),
            msg_timeout=MSG_TIMEOUT / SECOND,
            max_msg_timeout=MAX_MSG_TIMEOUT / SECOND,
            max_req_timeout=10,
        )

    @rule(action=st.sampled_from(actions).flatmap(lambda action: action))
    def step(self, action: tuple[str, dict[str, Any]]) -> None:
        name, arguments = action
        self.as_expected = False
        getattr(self, name)(**arguments)

    # Finding things

    def topic(self, name: str) -> tuple[nsqlite.Topic[Any], Stream]:
        """Return a topic, perhaps a new one, which is in the file then."""
        topic = self.broker.topic(name)
        if name not in self.model.topics:
            self.model.topics[name] = Stream(name)
            if is_kept(name):
                self.model.written()
        return topic, self.model.topics[name]

    def channel(self, name: str, channel: str) -> None:
        topic, stream = self.topic(name)
        fresh = channel not in stream.channels
        topic.channel(channel)
        if fresh:
            stream.channels[channel] = Queue(channel)
            stream.hand_on()
            self.steered(stream, stream.channels[channel])

    def places(self) -> list[tuple[Stream, Queue]]:
        return [
            (stream, queue)
            for stream in self.model.topics.values()
            for queue in stream.channels.values()
        ]

    def real(self, stream: Stream, queue: Queue) -> nsqlite.Channel[Any]:
        return self.broker.topic(stream.name).channel(queue.name)

    def consumer(self, stream: Stream, queue: Queue) -> nsqlite.Consumer[Any]:
        key = stream.name, queue.name
        if key not in self.consumers:
            self.consumers[key] = nsqlite.Consumer(self.real(stream, queue))
        return self.consumers[key]

    def eager(self) -> list[tuple[Stream, Queue]]:
        """Return the channels that have something to deliver."""
        return [
            (stream, queue)
            for stream, queue in self.places()
            if not queue.paused and self.model.counts(queue)[0]
        ]

    def flying(self, pick: int) -> tuple[Stream, Queue, Copy, nsqlite.Message[Any]] | None:
        """Return something in flight; if there is nothing, get something."""
        if not self.model.flying():
            self.get(pick)
        places = self.model.flying()
        if not places:
            return None
        stream, queue, copy = any_of(places, pick)
        return stream, queue, copy, self.messages[stream.name, queue.name, copy.id]

    def fresh(self, topic: nsqlite.Topic[Any], ids: list[str]) -> list[str]:
        """Check that the ids are new; of a topic that is not kept the file knows none."""
        if is_kept(topic.name):
            assert not self.ids.intersection(ids), "an id came twice"
            self.ids.update(ids)
        return ids

    def bodies(self, count: int) -> list[bytes]:
        self.serial += count
        return [b"%d" % (self.serial - n) for n in range(count)]

    # Putting

    def put(self, name: str) -> None:
        topic, stream = self.topic(name)
        [body] = self.bodies(1)
        self.model.put(stream, self.fresh(topic, [topic.put(body)]), [body], None)

    def put_later(self, name: str, delay: float) -> None:
        topic, stream = self.topic(name)
        [body] = self.bodies(1)
        ids = self.fresh(topic, [topic.put(body, delay=delay)])
        self.model.put(stream, ids, [body], self.after(delay))

    def put_many(self, name: str, count: int, delay: float | None) -> None:
        topic, stream = self.topic(name)
        bodies = self.bodies(count)
        ids = self.fresh(topic, topic.put_many(bodies, delay=delay))
        self.model.put(stream, ids, bodies, None if delay is None else self.after(delay))

    def after(self, delay: float) -> int:
        return self.model.now + int(delay * SECOND)

    # Getting

    def get(self, pick: int) -> None:
        self.receive(pick, 1, lambda consumer: [consumer.get(timeout=0)])

    def get_many(self, pick: int, n: int) -> None:
        self.receive(pick, n, lambda consumer: consumer.get_many(n, timeout=0))

    def receive(
        self,
        pick: int,
        n: int,
        get: Callable[[nsqlite.Consumer[Any]], list[nsqlite.Message[Any]]],
    ) -> None:
        if not self.places():
            return
        if pick < 95 and not self.eager():
            self.put_many("a", 3, None)
        places = self.eager() if pick < 95 else []
        stream, queue = any_of(places or self.places(), pick)
        ready = 0 if queue.paused else self.model.counts(queue)[0]
        consumer = self.consumer(stream, queue)
        if not ready:
            with pytest.raises(nsqlite.Empty):
                get(consumer)
            return
        messages = get(consumer)
        assert 1 <= len(messages) <= min(ready, n)
        for message in messages:
            copy = queue.copies[message.id]
            assert copy.is_ready(self.model.now)
            assert copy.body == message.body
            if copy.plain and not copy.attempts:
                assert copy.id == self.model.next_plain(queue), "out of order"
            self.model.deliver(stream, queue, copy, MSG_TIMEOUT)
            assert copy.attempts == message.attempts
            self.messages[stream.name, queue.name, copy.id] = message

    # Answering

    def answer(self, pick: int, how: str) -> None:
        found = self.flying(pick)
        if found is None:
            return
        _, queue, copy, message = found
        if how == "touch":
            message.touch()
            self.model.touch(copy, MSG_TIMEOUT)
            return
        self.stale.append(message)
        if how == "fin":
            message.fin()
            self.model.fin(queue, [copy.id])
        else:
            message.req()
            self.model.req(copy, 0)

    def requeue_later(self, pick: int, delay: float) -> None:
        found = self.flying(pick)
        if found is not None:
            _, _, copy, message = found
            message.req(delay=delay)
            self.model.req(copy, int(delay * SECOND))

    def fin_many(self, pick: int) -> None:
        found = self.flying(pick)
        if found is not None:
            stream, queue, _, _ = found
            ids = [copy.id for _, place, copy in self.model.flying() if place is queue]
            batch = [self.messages[stream.name, queue.name, one] for one in ids]
            self.consumer(stream, queue).fin_many(batch)
            self.model.fin(queue, ids)

    def answer_too_late(self, pick: int) -> None:
        if self.stale:
            message = any_of(self.stale, pick)
            with pytest.raises(nsqlite.NotInFlight):
                message.fin()

    def move_to_topic(self, pick: int, name: str) -> None:
        found = self.flying(pick)
        if found is not None:
            topic, stream = self.topic(name)
            source, queue, copy, message = found
            [new] = self.fresh(topic, [self.consumer(source, queue).move(message, topic)])
            self.model.move_to_topic(queue, copy, stream, new)
            self.stale.append(message)

    def move_to_channel(self, pick: int, to: int) -> None:
        found = self.flying(pick)
        if found is not None:
            stream, place = any_of(self.places(), to)
            source, queue, copy, message = found
            topic = self.broker.topic(stream.name)
            channel = topic.channel(place.name)
            [new] = self.fresh(topic, [self.consumer(source, queue).move(message, channel)])
            self.model.move_to_channel(queue, copy, place, new)
            self.stale.append(message)

    # Time

    def advance(self, step: float) -> None:
        self.clock.advance(step)
        self.model.advance(int(step * SECOND))

    # Steering

    def steer_topic(self, name: str, how: str) -> None:
        topic, stream = self.topic(name)
        getattr(topic, how)()
        changes = stream.paused is not (how == "pause")
        stream.paused = how == "pause"
        stream.hand_on()
        self.decided(kept=is_kept(name), changes=changes)

    def steer_channel(self, pick: int, how: str) -> None:
        if self.places():
            stream, queue = any_of(self.places(), pick)
            getattr(self.real(stream, queue), how)()
            changes = queue.paused is not (how == "pause")
            queue.paused = how == "pause"
            self.steered(stream, queue, changes=changes)

    def steered(self, stream: Stream, queue: Queue, *, changes: bool = True) -> None:
        self.decided(kept=is_kept(stream.name) and is_kept(queue.name), changes=changes)

    def decided(self, *, kept: bool, changes: bool) -> None:
        """Take note of a call that returns when what it changes is written, if it does."""
        if kept and changes:
            self.model.written()
        else:
            self.model.passed()

    def wipe(self, name: str, pick: int, how: int) -> None:
        """Do one of the things after which there is little left."""
        if how == 0:
            self.empty_topic(name)
        elif how == 1:
            self.empty_channel(pick)
        elif how == 2:
            self.delete_topic(name)
        else:
            self.delete_channel(pick)

    def empty_topic(self, name: str) -> None:
        topic, stream = self.topic(name)
        assert len(stream.held) == topic.empty()
        changes = bool(stream.held)
        stream.held.clear()
        self.decided(kept=is_kept(name), changes=changes)

    def empty_channel(self, pick: int) -> None:
        if self.places():
            stream, queue = any_of(self.places(), pick)
            assert len(queue.copies) == self.real(stream, queue).empty()
            queue.copies.clear()
            self.steered(stream, queue)

    def discard(self, pick: int) -> None:
        """Find a message by its id wherever it is, and take it out."""
        copies = list(self.model.copies())
        if copies:
            stream, queue, copy = any_of(copies, pick)
            channel = self.real(stream, queue)
            info = channel.find(copy.id)
            assert info is not None
            assert (copy.body, copy.attempts) == (info.body, info.attempts)
            is_flying, is_ready = copy.deadline is not None, copy.is_ready(self.model.now)
            is_overdue = is_ready and copy.due is not None and info.state == "deferred"
            expected = "in flight" if is_flying else "ready" if is_ready else "deferred"
            assert is_overdue or expected == info.state  # what is overdue may lie in the file still
            assert channel.discard(copy.id) is not is_flying
            if not is_flying:
                del queue.copies[copy.id]
                assert channel.find(copy.id) is None
                self.model.passed()

    def delete_topic(self, name: str) -> None:
        topic, stream = self.topic(name)
        count = topic.delete()
        assert count == len(stream.held) + sum(len(q.copies) for q in stream.channels.values())
        del self.model.topics[name]
        for channel in stream.channels:
            self.consumers.pop((name, channel), None)
        if is_kept(name):
            self.model.written()

    def delete_channel(self, pick: int) -> None:
        if self.places():
            stream, queue = any_of(self.places(), pick)
            assert len(queue.copies) == self.real(stream, queue).delete()
            self.removed(stream, queue)

    def removed(self, stream: Stream, queue: Queue) -> None:
        """Take note that a channel has gone; an ephemeral topic goes with its last channel."""
        self.consumers.pop((stream.name, queue.name), None)
        del stream.channels[queue.name]
        if not (stream.channels or is_kept(stream.name)):
            del self.model.topics[stream.name]
        self.steered(stream, queue)

    def leave(self, pick: int, *, give_back: bool) -> None:
        places = [
            place for place in self.places() if (place[0].name, place[1].name) in self.consumers
        ]
        if not places:
            return
        stream, queue = any_of(places, pick)
        if not give_back and self.model.counts(queue)[1] and not is_kept(queue.name):
            return
        consumer = self.consumers.pop((stream.name, queue.name))
        if not give_back and self.model.counts(queue)[1]:
            self.consumers[stream.name, queue.name] = consumer
            return
        consumer.close(give_back=give_back)
        for copy in queue.copies.values():
            copy.deadline = None
        if is_kept(queue.name):
            self.model.passed()
        else:
            self.removed(stream, queue)

    # A disk that is full for a while

    def fault(self, point: str) -> None:
        if self.full and point.startswith("before write"):
            raise nsqlite.StoreFull("jobs.db", "the disk is full")

    def in_vain(self, call: Callable[[], object]) -> None:
        """Make a call that must fail and change nothing; then let all be written."""
        self.full = True
        with pytest.raises(nsqlite.StoreFull):
            call()
        self.looks_the_same()
        self.full = False
        self.flush()

    def put_in_vain(self, name: str, count: int, delay: float | None) -> None:
        topic, stream = self.topic(name)
        is_written = not stream.channels or any(
            map(is_kept, stream.channels)
        )  # for one that is kept
        if is_kept(name) and is_written and not self.model.interval:
            bodies = self.bodies(count)
            if count == 1:
                self.in_vain(lambda: topic.put(bodies[0], delay=delay))
            else:
                self.in_vain(lambda: topic.put_many(bodies, delay=delay))

    def get_in_vain(self, pick: int, n: int) -> None:
        if not self.places():
            return
        stream, queue = any_of(self.places(), pick)
        kept = is_kept(stream.name) and is_kept(queue.name)
        consumer = self.consumer(stream, queue)
        if kept and self.model.durable and self.model.counts(queue)[0] and not queue.paused:
            if n == 1:
                self.in_vain(lambda: consumer.get(timeout=0))
            else:
                self.in_vain(lambda: consumer.get_many(n, timeout=0))

    # The file

    def flush(self) -> None:
        self.broker.flush()
        self.model.written()

    def crash(self, pause: int, *, look: bool) -> None:
        """Go on with what the death of the process would leave."""
        keeper: Any = self.broker._persistence
        old = self.path
        self.generation += 1
        self.path = self.directory / str(self.generation)
        with keeper.journal.lock:
            copy_store(old, self.path)
            copy_store(old, self.directory / "looked-at")
        self.abandon()
        self.model.advance(pause * SECOND)
        seen = take_snapshot(self.directory / "looked-at", self.model.now)
        image = self.model.find(seen)
        assert image is not None, (self.modes, seen, list(map(self.model.look, self.model.images)))
        self.model.reopen(image)
        self.start_again(look=look)

    def reopen(self, pause: int, *, look: bool) -> None:
        """Close the broker and open its file again."""
        keeper: Any = self.broker._persistence
        self.broker.flush()
        while keeper.upkeep():
            pass
        self.abandon()
        assert_sound(self.path)
        rows = rows_of(self.path)
        copies = rows.pop("copies", set())
        assert self.model.rows() == rows, f"the file has {rows}, held are {self.model.rows()}"
        assert copies <= set().union(*rows.values())
        self.model.advance(pause * SECOND)
        self.model.reopen(self.model.image())
        self.start_again(look=look)

    def abandon(self) -> None:
        self.consumers.clear()
        self.messages.clear()
        self.stale.clear()
        self.broker.close()

    def start_again(self, *, look: bool) -> None:
        self.open()
        if look:
            self.broker.stats()

    # After every step, and at the end

    @invariant()
    def looks_the_same(self) -> None:
        """Compare what is awake, so that what sleeps goes on sleeping."""
        assert self.full or "OK" == self.broker.health
        for name, topic in self.broker._topics.items():
            topic._check()
            stream = self.model.topics.get(name)
            if topic.closed:
                assert stream is None
                continue
            assert stream is not None
            assert (stream.paused, len(stream.held)) == (topic.paused, topic.depth)
            for channel in topic._channels.values():
                queue = stream.channels[channel.name]
                is_late = has_late(channel)
                counts = channel.depth, channel.in_flight_count, channel.deferred_count
                expected = self.model.counts(queue)
                if is_late:  # what is in the file alone counts as deferred
                    assert sum(expected) == channel._queue.total(), (name, channel.name)
                else:
                    assert expected == counts, (name, channel.name, self.modes)
                assert queue.paused == channel.paused
        self.as_expected = True

    def teardown(self) -> None:
        """Crash and look, then close, and look at what is left in the file."""
        try:
            if self.as_expected:
                self.crash(1, look=True)
                self.reopen(0, look=True)
                self.looks_the_same()
                expected = self.model.look(self.model.image())
                self.abandon()
                assert expected == take_snapshot(self.path, self.model.now)
        finally:
            with suppress(nsqlite.NSQLiteError):
                self.broker.close()
            shutil.rmtree(self.directory)


def has_late(channel: nsqlite.Channel[Any]) -> bool:
    """Read what has fallen due, or say that there is more than can be read now."""
    queue = channel._queue
    backlog = queue.persistence
    while queue.horizon[0] <= queue._now():
        assert isinstance(backlog, Backlog)
        if not backlog._deferred.has_few():
            return True
        try:
            backlog.fetch()
        except nsqlite.StoreFull:  # what is noted is written first, if there is room
            return True
    return False


def test_file_holds_what_the_model_says() -> None:
    """Whatever one does, and wherever the process dies, the file holds what was promised."""
    run_state_machine_as_test(
        DurableMachine,
        settings=settings(
            max_examples=max(60, settings().max_examples // 2),
            stateful_step_count=40,
            phases=[Phase.generate],  # without shrinking, which takes minutes here
        ),
    )
