"""A slow, obvious broker in plain lists and dicts, to compare the real one with.

The rule: what a method does can be read off the semantics line by line.  There is no wheel, no
lock, no waiter and no short path: every question is answered by going through a list, and whatever
follows from a change is found by looking at everything again (`Model.settle`).

Times are integer nanoseconds since the model began.
"""

from collections.abc import Iterator
from typing import Any, Final

import attrs

from nsqlite import Closed, Empty, Full, Kind, NotInFlight, TooManyConsumers, WindowFull
from stateful.parts import Copy, Delivery, Queue, Reader, Refused, Stream, Told

SECOND: Final = 1_000_000_000
MAX_MSG_TIMEOUT: Final = 8 * SECOND
MAX_REQ_TIMEOUT: Final = 10 * SECOND


class Model:
    """A broker.

    A method takes what the real call takes, does what it must do, and returns what it must return;
    if the call must fail it raises `Refused` and has changed nothing.
    """

    def __init__(self) -> None:
        """Begin at 0 without a topic."""
        self.now = 0
        self.topics: dict[str, Stream] = {}
        self.told: list[Told] = []

    # Topics and channels

    def topic(self, name: str, options: dict[str, Any]) -> Stream:
        """Get or create a topic."""
        if name not in self.topics:
            self.topics[name] = Stream(
                name,
                options.get("max_depth"),
                options.get("when_full", "wait"),
                int(options.get("msg_timeout", 4) * SECOND),
                options.get("max_channel_consumers", 0),
            )
            self.tell(Kind.CREATED, self.topics[name])
        return self.topics[name]

    def channel(self, topic: Stream, name: str, options: dict[str, Any]) -> Queue:
        """Get or create a channel; the first one gets what the topic holds."""
        if topic.over or (topic.draining and name not in topic.channels):
            raise Refused(Closed)
        if name not in topic.channels:
            queue = Queue(
                name,
                topic,
                options.get("max_depth", topic.max_depth),
                options.get("when_full", topic.when_full),
                int(options["msg_timeout"] * SECOND) if "msg_timeout" in options else topic.timeout,
                options.get("max_channel_consumers", topic.max_consumers),
            )
            topic.channels[name] = queue
            self.tell(Kind.CREATED, queue)
            self.settle()
        return topic.channels[name]

    def pause_topic(self, topic: Stream, *, paused: bool) -> None:
        """Pause or unpause a topic."""
        if topic.over:
            raise Refused(Closed)
        if topic.paused is not paused:
            topic.paused = paused
            self.tell(Kind.PAUSED if paused else Kind.UNPAUSED, topic)
        self.settle()

    def pause_channel(self, queue: Queue, *, paused: bool) -> None:
        """Pause or unpause a channel."""
        if queue.over:
            raise Refused(Closed)
        if queue.paused is not paused:
            queue.paused = paused
            self.tell(Kind.PAUSED if paused else Kind.UNPAUSED, queue)

    def empty_topic(self, topic: Stream) -> int:
        """Drop what the topic holds itself."""
        if topic.over:
            raise Refused(Closed)
        count = self.drop_held(topic)
        self.tell(Kind.EMPTIED, topic, count=count)
        self.settle()
        return count

    def empty_channel(self, queue: Queue) -> int:
        """Drop all that a channel has."""
        if queue.over:
            raise Refused(Closed)
        count = self.drop_all(queue)
        self.tell(Kind.EMPTIED, queue, count=count)
        self.settle()
        return count

    def discard(self, queue: Queue, name: str) -> bool:
        """Take out a message that is ready or waits."""
        if queue.over:
            raise Refused(Closed)
        waiting = [(due, copy) for due, copy in queue.waiting if copy.id != name]
        ready = [copy for copy in queue.ready if copy.id != name]
        gone = [copy for copy in queue.ready if copy.id == name]
        gone += [copy for _, copy in queue.waiting if copy.id == name]
        queue.waiting[:], queue.ready[:] = waiting, ready
        for copy in gone:
            self.tell(Kind.DISCARDED, queue, copy)
        self.settle()
        return bool(gone)

    def delete_topic(self, topic: Stream) -> int:
        """Drop all and free the name."""
        count = self.end_topic(topic, "deleted")
        self.settle()
        return count

    def delete_channel(self, queue: Queue) -> int:
        """Drop all and free the name; an ephemeral topic goes with its last channel."""
        queue.draining = False
        count = self.end_channel(queue, "deleted")
        topic = queue.topic
        if topic.channels.get(queue.name) is queue:
            del topic.channels[queue.name]
            if not topic.channels and topic.name.endswith("#ephemeral"):
                self.end_topic(topic, "deleted")
        self.settle()
        return count

    def close_topic(self, topic: Stream, *, drain: bool) -> int:
        """End a topic and its channels, at once or when they are empty."""
        if topic.over:
            return 0
        topic.draining = drain
        left = 0 if topic.open() else topic.size()
        if drain and topic.paused:
            self.drop_for_want_of_channels(topic)
            topic.paused = False
            self.tell(Kind.UNPAUSED, topic)
        thrown = left if drain else self.end_topic(topic, "closed")
        self.settle()
        return thrown

    def close_channel(self, queue: Queue, *, drain: bool) -> int:
        """End a channel, at once or when it is empty."""
        if queue.over:
            return 0
        queue.draining = False
        if drain:
            self.begin_drain(queue)
        thrown = 0 if drain else self.end_channel(queue, "closed")
        self.settle()
        return thrown

    # Publishing

    def judge(self, topic: Stream, count: int) -> None:
        """Refuse what finds no room, if nobody can wait."""
        queues: list[Stream | Queue] = [*topic.open()] if topic.flows() else [topic]
        full = set()
        for queue in queues:
            if queue.max_depth is None:
                continue
            dropping = queue.when_full in ("drop newest", "drop oldest")
            if count > queue.max_depth or (
                len(queue.ready) + count > queue.max_depth and not dropping
            ):
                full.add(queue.name if queue is topic else f"{topic.name}:{queue.name}")
        if full:
            self.tell(Kind.REFUSED, topic, count=count)
            raise Refused(Full, where=full, size={count})

    def may_put(self, topic: Stream, count: int, delay: int) -> None:
        """Refuse a put that must fail."""
        if topic.over or topic.draining:
            raise Refused(Closed)
        if not delay:
            self.judge(topic, count)

    def put(self, topic: Stream, copies: list[Copy], delay: int = 0) -> None:
        """Publish messages, after `may_put` and with the ids that the real put gave."""
        due = self.now + delay if delay else None
        topic.message_count += len(copies)
        topic.message_bytes += sum(len(c.body) for c in copies if isinstance(c.body, bytes))
        for copy in copies:
            self.tell(Kind.PUBLISHED, topic, copy, due)
        queues: list[Stream | Queue] = [*topic.open()] if topic.flows() else [topic]
        for queue in queues:
            self.receive(queue, copies, due)
            if due is None:
                self.overflow(queue, len(copies))

    def receive(self, queue: Stream | Queue, copies: list[Copy], due: int | None) -> None:
        """Give a channel its own copies, or let the topic hold them."""
        if isinstance(queue, Queue):
            queue.message_count += len(copies)
        for original in copies:
            copy = attrs.evolve(original)
            if due is None or due <= self.now:
                queue.ready.append(copy)
            else:
                queue.waiting.append((due, copy))
                self.tell(Kind.DEFERRED, queue, copy, due)

    def overflow(self, queue: Stream | Queue, count: int) -> None:
        """Drop as many as were put too many."""
        for _ in range(count):
            if queue.max_depth is None or len(queue.ready) <= queue.max_depth:
                return
            dropped = queue.ready.pop(0 if queue.when_full == "drop oldest" else -1)
            queue.dropped_count += 1
            self.tell(Kind.DROPPED, queue, dropped)

    # Consumers

    def may_enter(self, queue: Queue) -> None:
        """Refuse a consumer that must not join."""
        if queue.over:
            raise Refused(Closed)
        if queue.max_consumers and len(queue.readers) >= queue.max_consumers:
            raise Refused(TooManyConsumers, limit={queue.max_consumers})

    def enter(self, reader: Reader) -> None:
        """Take a consumer, after `may_enter` and with the number that the real one has."""
        reader.channel.readers.append(reader)

    def leave(self, reader: Reader, *, give_back: bool) -> None:
        """Let a consumer go; what it gives back comes first, its attempts counted."""
        if reader.closed:
            return
        reader.closed = True
        queue = reader.channel
        mine = [d for d in queue.in_flight() if d.reader is reader] if give_back else []
        for delivery in reversed(mine):
            queue.flying.remove(delivery)
            delivery.outcome = "returned"
            queue.ready.insert(0, delivery.copy)
            self.tell(Kind.RETURNED, queue, delivery.copy)
        self.part(reader)
        self.settle()

    def part(self, reader: Reader) -> None:
        """Take a consumer off the list; an ephemeral channel goes with the last one."""
        queue = reader.channel
        if reader in queue.readers:
            queue.readers.remove(reader)
            if not queue.readers and queue.name.endswith("#ephemeral"):
                self.delete_channel(queue)

    def get(self, reader: Reader, n: int) -> list[Delivery]:
        """Deliver up to n messages."""
        queue = reader.channel
        if reader.closed or queue.over:
            raise Refused(Closed)
        batch: list[Delivery] = []
        while queue.ready and not queue.paused and not reader.is_full() and len(batch) < n:
            copy = queue.ready.pop(0)
            copy.attempts += 1
            reader.message_count += 1
            deadline = self.now + reader.timeout
            batch.append(Delivery(copy, reader, self.now, deadline, copy.attempts))
            queue.flying.append(batch[-1])
            self.tell(Kind.DELIVERED, queue, copy, deadline)
        if not batch and reader.is_full():
            raise Refused(WindowFull, max_in_flight={reader.window})
        if not batch:
            raise Refused(Empty, channel={queue.name})
        return batch

    def require(self, reader: Reader, delivery: Delivery) -> None:
        """Refuse an answer that comes too late or from a stranger."""
        reason = delivery.reason() if delivery.outcome != "in flight" else "not owner"
        if delivery.outcome != "in flight" or delivery.reader is not reader:
            raise Refused(NotInFlight, id={delivery.copy.id}, reason={reason})

    def fin(self, reader: Reader, deliveries: list[Delivery]) -> None:
        """Finish messages, all or none."""
        for delivery in deliveries:
            self.require(reader, delivery)
        for delivery in deliveries:
            reader.channel.flying.remove(delivery)
            reader.finish_count += 1
            delivery.outcome = "finished"
            self.tell(Kind.FINISHED, reader.channel, delivery.copy)
        self.settle()

    def req(self, reader: Reader, delivery: Delivery, delay: int) -> None:
        """Put a message back to the tail, or defer it."""
        self.require(reader, delivery)
        queue = reader.channel
        queue.flying.remove(delivery)
        queue.requeue_count += 1
        reader.requeue_count += 1
        delivery.outcome = "requeued"
        due = self.now + min(delay, MAX_REQ_TIMEOUT) if delay else None
        self.tell(Kind.REQUEUED, queue, delivery.copy, due)
        if due is None:
            queue.ready.append(delivery.copy)
        else:
            queue.waiting.append((due, delivery.copy))
            self.tell(Kind.DEFERRED, queue, delivery.copy, due)
        self.settle()

    def touch(self, reader: Reader, delivery: Delivery) -> None:
        """Give a message its time again, up to the longest."""
        self.require(reader, delivery)
        longest = delivery.delivered_at + MAX_MSG_TIMEOUT
        deadline = min(self.now + reader.timeout, longest)
        if deadline != delivery.deadline:
            reader.channel.flying.remove(delivery)
            delivery.deadline = deadline
            reader.channel.flying.append(delivery)
        self.tell(Kind.TOUCHED, reader.channel, delivery.copy, deadline)

    # Time

    def next_due(self) -> int | None:
        """Return the next deadline in any channel."""
        dues = [d.deadline for q in self.queues() for d in q.flying]
        dues += [due for place in self.places() for due, _ in place.waiting]
        return min(dues, default=None)

    def advance(self, step: int) -> None:
        """Move on, stopping at each deadline on the way."""
        target = self.now + step
        while (due := self.next_due()) is not None and due <= target:
            self.now = due
            for queue in self.queues():
                self.time_out(queue)
            for place in self.places():
                self.fall_due(place)
            self.settle()
        self.now = target

    def time_out(self, queue: Queue) -> None:
        """Make ready what nobody answered in time."""
        for delivery in [d for d in queue.flying if d.deadline <= self.now]:
            queue.flying.remove(delivery)
            queue.ready.append(delivery.copy)
            queue.timeout_count += 1
            delivery.outcome = "timed out"
            self.tell(Kind.TIMED_OUT, queue, delivery.copy, delivery.deadline)

    def fall_due(self, queue: Stream | Queue) -> None:
        """Make ready what has waited for its time."""
        for due, copy in [(d, c) for d, c in queue.waiting if d <= self.now]:
            queue.waiting.remove((due, copy))
            queue.ready.append(copy)
            self.tell(Kind.DUE, queue, copy, due)

    # Looking

    def join(self, thing: Stream | Queue) -> bool:
        """Say whether there is nothing left; refuse if it did not end by itself."""
        if thing.over and not thing.draining:
            raise Refused(Closed)
        return self.is_idle(thing)

    def is_idle(self, thing: Stream | Queue) -> bool:
        """Return whether there is nothing left."""
        if isinstance(thing, Queue):
            return not thing.size()
        return not thing.size() and not any(queue.size() for queue in thing.channels.values())

    # What follows

    def tell(
        self,
        kind: Kind,
        where: Stream | Queue,
        copy: Copy | None = None,
        due: int | None = None,
        count: int | None = None,
    ) -> None:
        """Note an event."""
        topic, queue = (where, None) if isinstance(where, Stream) else (where.topic, where.name)
        which = None if copy is None else copy.id
        attempts = None if copy is None or queue is None else copy.attempts
        self.told.append(Told(kind, self.now, topic.name, queue, which, attempts, due, count))

    def queues(self) -> Iterator[Queue]:
        """Go through all channels there are."""
        for topic in list(self.topics.values()):
            yield from list(topic.channels.values())

    def places(self) -> list[Stream | Queue]:
        """Return all that can hold messages."""
        return [*self.topics.values(), *self.queues()]

    def settle(self) -> None:
        """Look at everything, and do what follows from what is there."""
        for topic in list(self.topics.values()):
            self.hand_on(topic)
            if topic.draining:
                self.drain(topic)
        for queue in self.queues():
            if queue.draining and not queue.over and not queue.size():
                self.end_channel(queue, "closed")
        for topic in list(self.topics.values()):
            if topic.draining and all(queue.over for queue in topic.channels.values()):
                self.end_topic(topic, "closed")
                topic.draining = True
        for queue in self.queues():
            for reader in list(queue.readers):
                if reader.forgotten and not reader.held():
                    self.part(reader)

    def hand_on(self, topic: Stream) -> None:
        """Give the channels what the topic holds, if it may; none of that is refused or dropped."""
        if topic.flows():
            for queue in topic.open():
                for due, copy in topic.waiting:
                    self.receive(queue, [copy], due)
                self.receive(queue, topic.ready, None)
            self.drop_held(topic)

    def drain(self, topic: Stream) -> None:
        """Let the channels close behind the last message that the topic holds."""
        self.drop_for_want_of_channels(topic)
        if not topic.size():
            for queue in topic.open():
                self.begin_drain(queue)

    def drop_for_want_of_channels(self, topic: Stream) -> None:
        """Drop what no channel will ever get."""
        if not topic.open() and topic.size():
            self.tell(Kind.EMPTIED, topic, count=self.drop_held(topic))

    def begin_drain(self, queue: Queue) -> None:
        """Have a channel close behind its last message, and deliver until then."""
        queue.draining = True
        if queue.paused:
            queue.paused = False
            self.tell(Kind.UNPAUSED, queue)

    def drop_held(self, topic: Stream) -> int:
        """Drop all that a topic holds itself."""
        count = topic.size()
        topic.ready.clear()
        topic.waiting.clear()
        return count

    def drop_all(self, queue: Queue) -> int:
        """Drop all that a channel has."""
        count = queue.size()
        for delivery in queue.flying:
            delivery.outcome = "dropped"
        queue.ready.clear()
        queue.flying.clear()
        queue.waiting.clear()
        return count

    def end_channel(self, queue: Queue, how: str) -> int:
        """Close or delete a channel."""
        if queue.over == "deleted":
            return 0
        count = self.drop_all(queue)
        queue.over = how
        self.tell(Kind.CLOSED if how == "closed" else Kind.DELETED, queue, count=count)
        return count

    def end_topic(self, topic: Stream, how: str) -> int:
        """Close or delete a topic, with the channels that are open."""
        if topic.over in ("deleted", how):
            return 0
        topic.over = how
        topic.draining = False
        count = self.drop_held(topic)
        for queue in topic.channels.values():
            if queue.over is None:
                queue.draining = False
                count += self.end_channel(queue, how)
        self.tell(Kind.CLOSED if how == "closed" else Kind.DELETED, topic, count=count)
        if how == "deleted":
            topic.channels.clear()
            if self.topics.get(topic.name) is topic:
                del self.topics[topic.name]
        return count
