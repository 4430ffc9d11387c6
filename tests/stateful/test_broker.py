"""A whole broker does, step by step, what the slow model does.

Every rule makes a call on the real broker and on the model, and compares what both return or raise.
After every step all that can be seen of the broker is compared with the model, and the real objects
check themselves.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import SearchStrategy

import nsqlite
from stateful.model import SECOND
from stateful.parts import Reader, Refused, Stream
from stateful.twins import MAX_MSG_SIZE, START, Twins, nanoseconds

Action: TypeAlias = SearchStrategy[tuple[str, dict[str, Any]]]

picks = st.integers(0, 99)
steps = st.one_of(st.integers(1, 4), st.integers(0, 24)).map(lambda n: n / 4)
delays = st.one_of(st.just(0), st.integers(1, 40).map(lambda n: n / 4))
put_delays = st.one_of(st.none(), st.none(), st.none(), delays)
answers = st.sampled_from(["fin", "req", "touch"])
req_delays = st.one_of(delays, st.just(12))
bodies = st.one_of(st.binary(min_size=1, max_size=MAX_MSG_SIZE), st.none(), st.integers())
bad_bodies = st.sampled_from([b"", b"x" * (MAX_MSG_SIZE + 1)])
bad_seconds = st.sampled_from([-1, -0.25, math.nan, math.inf, -math.inf, True, "1"])
bounds: SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "max_depth": st.integers(1, 3),
            "when_full": st.sampled_from(["wait", "raise", "drop newest", "drop oldest"]),
        }
    ),
)
others = st.fixed_dictionaries(
    {},
    optional={
        "msg_timeout": st.sampled_from([1, 2.5, 8]),
        "max_channel_consumers": st.integers(0, 2),
    },
)
all_options = st.builds(lambda one, other: one | other, bounds, others)
windows = st.sampled_from([None, 1, 2])
timeouts = st.sampled_from([None, 1, 4, 6.5])
topic_names = st.sampled_from(["a", "b", "c#ephemeral"])
channel_names = st.sampled_from(["x", "y", "z#ephemeral"])


def do(method: str, weight: int = 1, /, **arguments: SearchStrategy[Any]) -> list[Action]:
    """Return a step that calls this method, as often as its weight says."""
    return [st.tuples(st.just(method), st.fixed_dictionaries(arguments))] * weight


what = st.sampled_from(["topic", "channel"])
actions: list[Action] = [
    *do("put", 4, pick=picks, body=bodies, delay=put_delays),
    *do("put_many", pick=picks, batch=st.lists(bodies, min_size=1, max_size=5), delay=put_delays),
    *do("get", 4, pick=picks),
    *do("get_many", pick=picks, n=st.integers(1, 4)),
    *do("get_through_any", pick=picks, many=st.booleans()),
    *do("answer", 4, pick=picks, how=answers, delay=req_delays),
    *do("answer_through_any", who=picks, pick=picks, how=answers),
    *do("fin_many", pick=picks, more=st.lists(picks, max_size=4), twice=st.booleans()),
    *do("move", pick=picks, to=picks),
    *do("work_in_block", pick=picks, fails=st.booleans()),
    *do("advance", 2, step=steps),
    *do("advance_to_next", 2),
    *do("steer", 2, pick=picks, what=what, how=st.sampled_from(["unpause", "pause", "empty"])),
    *do("discard", 2, pick=picks, which=picks),
    *do("get_topic", name=topic_names, options=all_options),
    *do("get_channel", pick=picks, name=channel_names, options=all_options),
    *do("new_consumer", 2, pick=picks, window=windows, timeout=timeouts, requeue_delay=delays),
    *do("lose_consumer", pick=picks, how=st.sampled_from(["give back", "leave", "forget"])),
    *do(
        "end",
        pick=picks,
        what=st.sampled_from(["channel", "channel", "topic"]),
        how=st.sampled_from(["close", "drain", "delete"]),
    ),
    *do("join", pick=picks),
    *do("put_bad_body", pick=picks, good=bodies, bad=bad_bodies, before=st.integers(0, 2)),
    *do("give_bad_number", pick=picks, bad=bad_seconds),
]


class BrokerMachine(Twins):
    """What can be done to a broker."""

    @initialize(
        observed=st.booleans(),
        name=topic_names,
        second=channel_names,
        options=all_options,
        window=windows,
    )
    def begin(
        self, *, observed: bool, name: str, second: str, options: dict[str, Any], window: int | None
    ) -> None:
        self.observed = observed
        if observed:
            self.broker.observe(self.events.append)
        self.get_topic(name, {})
        self.get_channel(0, "x", {})
        self.get_channel(0, second, options if second != "x" else {})
        self.new_consumer(0, None, None, 0)
        self.new_consumer(1, window, None, 0)

    @rule(action=st.sampled_from(actions).flatmap(lambda action: action))
    def step(self, action: tuple[str, dict[str, Any]]) -> None:
        name, arguments = action
        getattr(self, name)(**arguments)

    # Coming into being

    def get_topic(self, name: str, options: dict[str, Any]) -> None:
        known = self.model.topics.get(name)
        if known is not None:
            assert self.broker.topic(name) is next(t for t, s in self.topics if s is known)
            return
        topic = self.broker.topic(name, **options)
        self.topics.append((topic, self.model.topic(name, options)))

    def get_channel(self, pick: int, name: str, options: dict[str, Any]) -> None:
        topic, stream = self.choose(self.topics, pick)
        known = stream.channels.get(name)
        if known is not None:
            options = {}
        try:
            queue = self.model.channel(stream, name, options)
        except Refused as refused:
            self.refuses(refused, lambda: topic.channel(name, **options))
            return
        channel = topic.channel(name, **options)
        if known is None:
            self.channels.append((channel, queue))
        else:
            assert channel is next(c for c, q in self.channels if q is known)

    def new_consumer(
        self, pick: int, window: int | None, timeout: float | None, requeue_delay: float
    ) -> None:
        channel, queue = self.choose(self.channels, pick)

        def make() -> nsqlite.Consumer[Any]:
            return nsqlite.Consumer(
                channel, max_in_flight=window, msg_timeout=timeout, requeue_delay=requeue_delay
            )

        try:
            self.model.may_enter(queue)
        except Refused as refused:
            self.refuses(refused, make)
            return
        consumer = make()
        limit = queue.timeout if timeout is None else nanoseconds(timeout)
        since = START + self.model.now // SECOND
        reader = Reader(consumer.client_id, queue, window, limit, since)
        self.model.enter(reader)
        self.consumers.append((consumer, reader))

    # Publishing

    def put(self, pick: int, body: object, delay: float | None) -> None:
        topic, stream = self.choose(self.topics, pick)
        self.publish(
            stream,
            [body],
            delay,
            lambda timeout: [topic.put(body, delay=delay, timeout=timeout)],
        )

    def put_many(self, pick: int, batch: list[object], delay: float | None) -> None:
        topic, stream = self.choose(self.topics, pick)
        self.publish(
            stream,
            batch,
            delay,
            lambda timeout: topic.put_many(iter(batch), delay=delay, timeout=timeout),
        )

    def publish(
        self,
        stream: Stream,
        batch: list[Any],
        delay: float | None,
        put: Callable[[float | None], list[str]],
    ) -> None:
        """Put a batch; without a timeout if it need not wait, since that goes the short way."""
        try:
            self.model.may_put(stream, len(batch), nanoseconds(delay))
        except Refused as refused:
            self.refuses(refused, lambda: put(0))
            return
        copies = [self.copy(id_, body) for id_, body in zip(put(None), batch, strict=True)]
        self.model.put(stream, copies, nanoseconds(delay))

    # Delivery and answers

    def get(self, pick: int) -> None:
        """Get through a consumer that can; if there is none, put."""
        if self.eager():
            self.deliver(*self.eager()[pick % len(self.eager())], 1)
        else:
            self.put(pick, b"x", None)

    def get_many(self, pick: int, n: int) -> None:
        if self.eager():
            self.deliver(*self.eager()[pick % len(self.eager())], n, many=True)

    def get_through_any(self, pick: int, *, many: bool) -> None:
        """Get through any consumer, perhaps in vain."""
        if not self.consumers:
            return
        self.deliver(*self.choose(self.consumers, pick), 1, many=many)

    def deliver(
        self, consumer: nsqlite.Consumer[Any], reader: Reader, n: int, *, many: bool = False
    ) -> None:
        def get() -> list[nsqlite.Message[Any]]:
            return consumer.get_many(n, timeout=0) if many else [consumer.get(timeout=0)]

        try:
            expected = self.model.get(reader, n)
        except Refused as refused:
            self.refuses(refused, get)
            return
        messages = get()
        assert [d.copy.id for d in expected] == [message.id for message in messages]
        self.deliveries += zip(messages, expected, strict=True)

    def answer(self, pick: int, how: str, delay: float) -> None:
        """Answer a message in flight; if there is none, get one."""
        if not self.flying():
            self.get(pick)
            return
        message, delivery = self.flying()[pick % len(self.flying())]
        reader = delivery.reader
        expected = {
            "fin": lambda: self.model.fin(reader, [delivery]),
            "req": lambda: self.model.req(reader, delivery, nanoseconds(delay)),
            "touch": lambda: self.model.touch(reader, delivery),
        }
        call = {"fin": message.fin, "req": lambda: message.req(delay=delay), "touch": message.touch}
        self.same(expected[how], call[how])

    def answer_through_any(self, who: int, pick: int, how: str) -> None:
        """Answer any message through any consumer, mostly in vain."""
        if not self.consumers or not self.deliveries:
            return
        consumer, reader = self.consumers[who % len(self.consumers)]
        message, delivery = self.recall(pick)
        expected: dict[str, Callable[[], None]] = {
            "fin": lambda: self.model.fin(reader, [delivery]),
            "req": lambda: self.model.req(reader, delivery, 0),
            "touch": lambda: self.model.touch(reader, delivery),
        }
        self.same(expected[how], lambda: getattr(consumer, how)(message))

    def fin_many(self, pick: int, more: list[int], *, twice: bool) -> None:
        """Finish a batch in which some may be stale, another's, or there twice."""
        if not self.deliveries:
            return
        chosen = {n % len(self.deliveries): None for n in [pick, *more]}
        batch = [self.deliveries[-1 - n] for n in chosen]
        reader = batch[0][1].reader
        consumer = self.find(reader)
        messages = [message for message, _ in batch]
        if not twice:
            deliveries = [delivery for _, delivery in batch]
            self.same(
                lambda: self.model.fin(reader, deliveries), lambda: consumer.fin_many(messages)
            )
            return
        messages.append(messages[0])
        try:
            for _, delivery in batch:
                self.model.require(reader, delivery)
        except Refused as refused:
            self.refuses(refused, lambda: consumer.fin_many(messages))
            return
        with pytest.raises(nsqlite.InvalidMessage):
            consumer.fin_many(messages)

    def move(self, pick: int, to: int) -> None:
        if not self.deliveries:
            return
        message, delivery = self.recall(pick)
        consumer = self.find(delivery.reader)
        topic, stream = self.choose(self.topics, to)
        try:
            self.model.require(delivery.reader, delivery)
            self.model.may_put(stream, 1, 0)
        except Refused as refused:
            self.refuses(refused, lambda: consumer.move(message, topic))
            return
        copy = self.copy(consumer.move(message, topic), delivery.copy.body)
        self.model.put(stream, [copy])
        self.model.fin(delivery.reader, [delivery])

    def work_in_block(self, pick: int, *, fails: bool) -> None:
        if not self.deliveries:
            return
        message, delivery = self.recall(pick)
        reader = delivery.reader

        def work() -> None:
            with message:
                pass

        if fails:
            if delivery.outcome == "in flight":
                delay = self.find(reader).requeue_delay
                self.model.req(reader, delivery, nanoseconds(delay))
            with pytest.raises(ZeroDivisionError), message:
                raise ZeroDivisionError
        elif delivery.reason() == "answered":
            work()
        else:
            self.same(lambda: self.model.fin(reader, [delivery]), work)

    # Time

    def advance(self, step: float) -> None:
        self.model.advance(nanoseconds(step))
        self.clock.advance(step)

    def advance_to_next(self) -> None:
        due = self.model.next_due()
        expected = None
        if due is not None:
            expected = (due - self.model.now) / SECOND
            self.model.advance(due - self.model.now)
        assert expected == self.clock.advance_to_next()

    # Steering

    def steer(self, pick: int, what: str, how: str) -> None:
        topic, stream = self.choose(self.topics, pick)
        channel, queue = self.choose(self.channels, pick)
        paused = how == "pause"
        if what == "topic" and how == "empty":
            self.same(lambda: self.model.empty_topic(stream), topic.empty)
        elif what == "topic":
            call = topic.pause if paused else topic.unpause
            self.same(lambda: self.model.pause_topic(stream, paused=paused), call)
        elif how == "empty":
            self.same(lambda: self.model.empty_channel(queue), channel.empty)
        else:
            call = channel.pause if paused else channel.unpause
            self.same(lambda: self.model.pause_channel(queue, paused=paused), call)

    def discard(self, pick: int, which: int) -> None:
        """Take a message out by its id, which may not be there."""
        channel, queue = self.choose(self.channels, pick)
        copies = [
            *queue.ready,
            *(one.copy for one in queue.flying),
            *(one for _, one in queue.waiting),
        ]
        ids = [*(copy.id for copy in copies), "0123456789abcdef"]
        name = ids[which % len(ids)]
        self.same(lambda: self.model.discard(queue, name), lambda: channel.discard(name))

    def lose_consumer(self, pick: int, how: str) -> None:
        if not self.consumers:
            return
        consumer, reader = self.choose(self.consumers, pick)
        give_back = how == "give back"
        if how == "forget":
            del consumer
            self.forget(reader)
        else:
            self.same(
                lambda: self.model.leave(reader, give_back=give_back),
                lambda: consumer.close(give_back=give_back),
            )

    def forget(self, reader: Reader) -> None:
        """Drop a consumer unclosed, with its messages; the topic takes note in its next call."""
        channel = self.find(reader).channel
        self.deliveries = [pair for pair in self.deliveries if pair[1].reader is not reader]
        self.consumers = [pair for pair in self.consumers if pair[1] is not reader]
        reader.forgotten = True
        self.model.settle()
        channel.peek(0)

    def end(self, pick: int, what: str, how: str) -> None:
        topic, stream = self.choose(self.topics, pick)
        channel, queue = self.choose(self.channels, pick)
        drain = how == "drain"
        if what == "topic" and how == "delete":
            self.same(lambda: self.model.delete_topic(stream), topic.delete)
        elif what == "topic":
            self.same(
                lambda: self.model.close_topic(stream, drain=drain),
                lambda: topic.close(drain=drain),
            )
        elif how == "delete":
            self.same(lambda: self.model.delete_channel(queue), channel.delete)
        else:
            self.same(
                lambda: self.model.close_channel(queue, drain=drain),
                lambda: channel.close(drain=drain),
            )

    def join(self, pick: int) -> None:
        topic, stream = self.choose(self.topics, pick)
        channel, queue = self.choose(self.channels, pick)
        self.same(lambda: self.model.join(stream), lambda: topic.join(timeout=0))
        self.same(lambda: self.model.join(queue), lambda: channel.join(timeout=0))
        idle = all(self.model.is_idle(stream) for stream in self.model.topics.values())
        assert idle == self.broker.join(timeout=0)

    # Bad use

    def put_bad_body(self, pick: int, good: object, bad: bytes, before: int) -> None:
        topic, _ = self.choose(self.topics, pick)
        with pytest.raises(nsqlite.InvalidMessage):
            topic.put(bad, timeout=0)
        with pytest.raises(nsqlite.InvalidMessage) as caught:
            topic.put_many([*[good] * before, bad, good], timeout=0)
        assert before == caught.value.index

    def give_bad_number(self, pick: int, bad: Any) -> None:
        topic, _ = self.choose(self.topics, pick)
        channel, _ = self.choose(self.channels, pick)
        calls: list[Callable[[], object]] = [
            lambda: topic.put(b"x", delay=bad),
            lambda: topic.put(b"x", delay=10.25),
            lambda: topic.put_many([b"x"], timeout=bad),
            lambda: topic.channel("new", msg_timeout=bad),
            lambda: topic.channel("new", msg_timeout=8.25),
            lambda: nsqlite.Consumer(channel, msg_timeout=bad),
            lambda: nsqlite.Consumer(channel, max_in_flight=-1),
            lambda: self.broker.topic("new", max_req_timeout=bad),
            lambda: channel.join(timeout=bad),
            lambda: channel.peek(-1),
            lambda: self.clock.advance(bad),
        ]
        if self.consumers:
            consumer, _ = self.choose(self.consumers, pick)
            calls.append(lambda: consumer.get_many(0, timeout=0))
            calls.append(lambda: consumer.get_many(1, timeout=0, linger=bad))
        if self.flying():
            message, _ = self.flying()[pick % len(self.flying())]
            calls.append(lambda: message.req(delay=bad))
        for call in calls:
            with pytest.raises(nsqlite.InvalidOption):
                call()

    # After every step, and at the end

    @invariant()
    def looks_the_same(self) -> None:
        self.broker._check()
        self.counts_the_same()
        self.shows_the_same_messages()
        self.has_the_same_attributes()
        self.has_the_same_deliveries()
        self.tells_the_same()

    def teardown(self) -> None:
        """Close the broker, which throws away what the model still has."""
        topics = list(self.model.topics.values())
        left = sum(self.model.close_topic(stream, drain=False) for stream in topics)
        assert left == self.broker.close()
        self.looks_the_same()
        with pytest.raises(nsqlite.Closed):
            self.broker.topic("a")


def test_broker_does_what_the_model_does() -> None:
    """Whatever one does, a broker returns, raises, counts, shows and tells what the model does."""
    run_state_machine_as_test(
        BrokerMachine,
        settings=settings(
            max_examples=max(200, settings().max_examples),
            stateful_step_count=50,
            phases=[Phase.generate],  # without shrinking, which takes minutes here
        ),
    )
