"""A real broker and its model side by side: pairs of things, and comparing them.

The rule: a pair is kept when it is over, so that what is stale is asked too.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs
import pytest
from hypothesis.stateful import RuleBasedStateMachine

import nsqlite
from nsqlite.testing import ManualClock
from stateful.model import SECOND, Model
from stateful.parts import Copy, Delivery, Queue, Reader, Refused, Stream, Told

M = TypeVar("M", Stream, Queue, Reader)
R = TypeVar("R")

START: Final = 1_700_000_000
MAX_MSG_SIZE: Final = 20
COUNTED: Final = tuple(map(nsqlite.Kind, ("refused", "emptied", "deleted", "closed")))
ALL: Final = 1_000_000


def nanoseconds(seconds: float | None) -> int:
    return 0 if seconds is None else int(seconds * SECOND)


def is_over(thing: Stream | Queue | Reader) -> bool:
    if isinstance(thing, Reader):
        return thing.closed or thing.channel.over is not None
    return thing.over is not None


class Twins(RuleBasedStateMachine):
    """The real things, each with what the model has in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START, patience=0.02)
        self.broker = nsqlite.Broker(
            clock=self.clock,
            msg_timeout=4,
            max_msg_timeout=8,
            max_req_timeout=10,
            max_msg_size=MAX_MSG_SIZE,
        )
        self.model = Model()
        self.observed = False
        self.events: list[nsqlite.Event] = []
        self.topics: list[tuple[nsqlite.Topic[Any], Stream]] = []
        self.channels: list[tuple[nsqlite.Channel[Any], Queue]] = []
        self.consumers: list[tuple[nsqlite.Consumer[Any], Reader]] = []
        self.deliveries: list[tuple[nsqlite.Message[Any], Delivery]] = []
        self.ids: set[str] = set()

    # Choosing

    def choose(self, pairs: list[tuple[R, M]], pick: int) -> tuple[R, M]:
        """Return one of the pairs; one that is over, if there is another, only now and then."""
        living = [pair for pair in pairs if not is_over(pair[1])]
        if living and pick < 95:
            pairs = living
        return pairs[pick % len(pairs)]

    def flying(self) -> list[tuple[nsqlite.Message[Any], Delivery]]:
        return [pair for pair in self.deliveries if pair[1].outcome == "in flight"]

    def recall(self, pick: int) -> tuple[nsqlite.Message[Any], Delivery]:
        """Return one of all messages there ever were; of the last ones rather."""
        return self.deliveries[-1 - pick % min(8, len(self.deliveries))]

    def eager(self) -> list[tuple[nsqlite.Consumer[Any], Reader]]:
        """Return the consumers that could get a message now."""
        return [
            (consumer, reader)
            for consumer, reader in self.consumers
            if not is_over(reader) and not reader.is_full()
            if reader.channel.ready and not reader.channel.paused
        ]

    def find(self, reader: Reader) -> nsqlite.Consumer[Any]:
        return next(real for real, known in self.consumers if known is reader)

    def copy(self, id_: str, body: object) -> Copy:
        """Return what the model is to put under the id that the real put gave."""
        assert id_ not in self.ids, "an id came twice"
        assert len(id_) == 16
        assert set(id_) <= set("0123456789abcdef")
        self.ids.add(id_)
        return Copy(id_, body, self.model.now)

    # Comparing calls

    def same(self, expected: Callable[[], object], call: Callable[[], object]) -> None:
        """Make a call on both, and compare what they return or raise."""
        try:
            result = expected()
        except Refused as refused:
            self.refuses(refused, call)
        else:
            assert result == call()

    def refuses(self, refused: Refused, call: Callable[[], object]) -> None:
        """Make a call that must raise what the model says."""
        try:
            call()
        except refused.error as error:
            facts = {fact: getattr(error, fact) for fact in refused.facts}
            same = type(error) is refused.error
        else:
            pytest.fail(f"the call went through, the model says {refused}")
        assert same
        assert all(facts[fact] in allowed for fact, allowed in refused.facts.items())

    # Comparing what there is

    def counts_the_same(self) -> None:
        topics = self.model.topics
        expected = {
            "version": nsqlite.__version__,
            "health": "OK",
            "start_time": START,
            "topics": tuple(topics[name].stats() for name in sorted(topics)),
        }
        assert expected == attrs.asdict(self.broker.stats())

    def shows_the_same_messages(self) -> None:
        for channel, queue in self.channels:
            ready = [self.info(copy) for copy in queue.ready]
            assert ready == [attrs.asdict(info) for info in channel.peek(ALL)]
            in_flight = [
                self.info(d.copy, d.deadline, d.reader.client_id) for d in queue.in_flight()
            ]
            assert in_flight == [attrs.asdict(info) for info in channel.in_flight(ALL)]
            deferred = [self.info(copy, due) for due, copy in queue.deferred()]
            assert deferred == [attrs.asdict(info) for info in channel.deferred(ALL)]
            for shown in [*ready, *in_flight, *deferred][::7]:
                info = channel.find(shown["id"])
                assert info is not None
                assert shown == attrs.asdict(info)

    def info(
        self, copy: Copy, due: int | None = None, client_id: int | None = None
    ) -> dict[str, Any]:
        return {
            "id": copy.id,
            "state": "ready" if due is None else "deferred" if client_id is None else "in flight",
            "body": copy.body,
            "attempts": copy.attempts,
            "age": (self.model.now - copy.put_at) / SECOND,
            "client_id": client_id,
            "due_in": None if due is None else (due - self.model.now) / SECOND,
        }

    def has_the_same_attributes(self) -> None:
        assert set(self.model.topics) == set(self.broker.topics)
        for topic, stream in self.topics:
            assert set(stream.channels) == set(topic.channels)
            seen = (topic.depth, topic.paused, topic.closed)
            assert (stream.size(), stream.paused, is_over(stream)) == seen
        for channel, queue in self.channels:
            assert (queue.paused, is_over(queue)) == (channel.paused, channel.closed)
            counts = (channel.depth, channel.in_flight_count, channel.deferred_count)
            assert (len(queue.ready), len(queue.flying), len(queue.waiting)) == counts
        for consumer, reader in self.consumers:
            assert reader.held() == consumer.in_flight_count
            assert is_over(reader) is consumer.closed

    def has_the_same_deliveries(self) -> None:
        for message, delivery in self.deliveries:
            assert delivery.outcome == message.state
            assert delivery.copy.id == message.id
            assert delivery.copy.body is message.body
            assert delivery.attempts == message.attempts
            assert START * SECOND + delivery.copy.put_at == message.timestamp

    def tells_the_same(self) -> None:
        """Compare events: those of one message are in order, and those of a topic or channel."""
        expected = self.model.told.copy() if self.observed else []
        told = [self.told(event) for event in self.events]
        self.model.told.clear()
        self.events.clear()
        assert self.by_subject(expected) == self.by_subject(told)

    def told(self, event: nsqlite.Event) -> Told:
        return Told(
            event.kind,
            int((event.time - START) * SECOND),
            event.topic,
            event.channel,
            event.id,
            event.attempts,
            None if event.due is None else int((event.due - START) * SECOND),
            event.count if event.kind in COUNTED else None,
        )

    def by_subject(self, events: list[Told]) -> dict[tuple[str | None, ...], list[Told]]:
        subjects: defaultdict[tuple[str | None, ...], list[Told]] = defaultdict(list)
        for event in events:
            subjects[event.topic, event.channel, event.id].append(event)
        return dict(subjects)
