"""What the model of a broker is made of: records and lists, which do nothing by themselves.

Times are integer nanoseconds since the model began.
"""

from typing import Any

import attrs

from nsqlite import Kind


class Refused(Exception):
    """The model refuses a call: the real one must raise this error with facts among these."""

    def __init__(self, error: type[Exception], **facts: set[Any]) -> None:
        super().__init__(error.__name__, facts)
        self.error = error
        self.facts = facts


@attrs.frozen
class Told:
    """An event, as far as it can be compared."""

    kind: Kind
    at: int
    topic: str
    channel: str | None = None
    id: str | None = None
    attempts: int | None = None
    due: int | None = None
    count: int | None = None


@attrs.define(eq=False)
class Copy:
    """A message in a topic or a channel."""

    id: str
    body: object
    put_at: int
    attempts: int = 0


@attrs.define(eq=False)
class Reader:
    """A consumer."""

    client_id: int
    channel: "Queue"
    window: int | None
    timeout: int
    connect_ts: int
    closed: bool = False
    forgotten: bool = False
    message_count: int = 0
    finish_count: int = 0
    requeue_count: int = 0

    def held(self) -> int:
        """Return how many messages it has unanswered."""
        return sum(delivery.reader is self for delivery in self.channel.flying)

    def is_full(self) -> bool:
        """Return whether its window has no room."""
        return self.window is not None and self.held() >= self.window

    def stats(self) -> dict[str, Any]:
        """Return its counters in nsqd's words."""
        return {
            "client_id": self.client_id,
            "name": None,
            "ready_count": self.window,
            "in_flight_count": self.held(),
            "message_count": self.message_count,
            "finish_count": self.finish_count,
            "requeue_count": self.requeue_count,
            "connect_ts": self.connect_ts,
        }


@attrs.define(eq=False)
class Delivery:
    """A message in the hands of a consumer, now or once."""

    copy: Copy
    reader: Reader
    delivered_at: int
    deadline: int
    attempts: int
    outcome: str = "in flight"

    def reason(self) -> str:
        """Return why it can no longer be answered, in the words of `NotInFlight`."""
        reasons = {"finished": "answered", "requeued": "answered", "returned": "given back"}
        return reasons.get(self.outcome, self.outcome)


@attrs.define(eq=False)
class Queue:
    """A channel."""

    name: str
    topic: "Stream"
    max_depth: int | None
    when_full: str
    timeout: int
    max_consumers: int
    ready: list[Copy] = attrs.Factory(list)
    flying: list[Delivery] = attrs.Factory(list)
    waiting: list[tuple[int, Copy]] = attrs.Factory(list)
    readers: list[Reader] = attrs.Factory(list)
    paused: bool = False
    draining: bool = False
    over: str | None = None
    message_count: int = 0
    requeue_count: int = 0
    timeout_count: int = 0
    dropped_count: int = 0

    def in_flight(self) -> list[Delivery]:
        """Return what is in flight, the next to time out first."""
        return sorted(self.flying, key=lambda delivery: delivery.deadline)

    def deferred(self) -> list[tuple[int, Copy]]:
        """Return what is deferred, the next to fall due first."""
        return sorted(self.waiting, key=lambda pair: pair[0])

    def size(self) -> int:
        """Return how many messages it has, wherever they are."""
        return len(self.ready) + len(self.flying) + len(self.waiting)

    def stats(self) -> dict[str, Any]:
        """Return its counters in nsqd's words."""
        return {
            "channel_name": self.name,
            "depth": len(self.ready),
            "backend_depth": 0,
            "in_flight_count": len(self.flying),
            "deferred_count": len(self.waiting),
            "message_count": self.message_count,
            "requeue_count": self.requeue_count,
            "timeout_count": self.timeout_count,
            "client_count": len(self.readers),
            "clients": tuple(reader.stats() for reader in self.readers),
            "paused": self.paused,
            "e2e_processing_latency": {"count": 0, "percentiles": None},
            "dropped_count": self.dropped_count,
        }


@attrs.define(eq=False)
class Stream:
    """A topic."""

    name: str
    max_depth: int | None
    when_full: str
    timeout: int
    max_consumers: int
    channels: dict[str, Queue] = attrs.Factory(dict)
    ready: list[Copy] = attrs.Factory(list)
    waiting: list[tuple[int, Copy]] = attrs.Factory(list)
    paused: bool = False
    draining: bool = False
    over: str | None = None
    message_count: int = 0
    message_bytes: int = 0
    dropped_count: int = 0

    def open(self) -> list[Queue]:
        """Return the channels that take messages."""
        return [q for q in self.channels.values() if q.over is None and not q.draining]

    def size(self) -> int:
        """Return how many messages it holds itself."""
        return len(self.ready) + len(self.waiting)

    def flows(self) -> bool:
        """Return whether it hands messages on."""
        return bool(self.open()) and not self.paused

    def stats(self) -> dict[str, Any]:
        """Return its counters in nsqd's words."""
        return {
            "topic_name": self.name,
            "channels": tuple(self.channels[name].stats() for name in sorted(self.channels)),
            "depth": self.size(),
            "backend_depth": 0,
            "message_count": self.message_count,
            "message_bytes": self.message_bytes,
            "paused": self.paused,
            "e2e_processing_latency": {"count": 0, "percentiles": None},
            "dropped_count": self.dropped_count,
        }
