"""Frozen snapshots in nsqd's words (NSQ semantics §21).

The rule: a snapshot is taken in one piece under the topic's lock and never changes; `to_dict` has
nsqd's keys in nsqd's order and nothing else.

Next: persistence.py
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import attrs

from nsqlite.errors import printable, shown
from nsqlite.latency import quantile
from nsqlite.message import Where
from nsqlite.options import MILLISECOND

__all__ = [
    "BrokerStats",
    "ChannelStats",
    "ClientStats",
    "LatencyStats",
    "MessageInfo",
    "TopicStats",
]

_QUEUE: Final = ("ready", "in flight", "deferred", "requeued", "timed out", "messages", "consumers")
"""The columns of a queue."""

_LINE: Final = "border-bottom:1px solid rgba(128,128,128,.4)"
_CELL: Final = "padding:.15em .6em;background:none"


@attrs.frozen(kw_only=True)
class LatencyStats:
    """Time from put to fin, in nanoseconds.

    Attributes:
        count: how many messages were finished in the window.
        percentiles: pairs of quantile and value, the highest first; None if none are configured.
    """

    count: int = 0
    percentiles: tuple[tuple[float, float], ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it with nsqd's keys."""
        if self.percentiles is None:
            return {"count": self.count, "percentiles": None}
        pairs = [{"quantile": q, "value": value} for q, value in self.percentiles]
        return {"count": self.count, "percentiles": pairs}

    def _repr_html_(self) -> str:
        """Show it in a notebook, in milliseconds."""
        pairs = [(f"{100 * q:g} %", value / MILLISECOND) for q, value in self.percentiles or ()]
        return table(f"time from put to fin of {self.count} messages", ("of them", "ms"), pairs)


def latency_stats(fractions: tuple[float, ...], counts: Counter[int]) -> LatencyStats:
    """Return the percentiles of what was counted."""
    if not fractions:
        return LatencyStats()
    ordered = sorted(fractions, reverse=True)
    return LatencyStats(
        count=counts.total(),
        percentiles=tuple((fraction, quantile(counts, fraction)) for fraction in ordered),
    )


@attrs.frozen(kw_only=True)
class ClientStats:
    """A consumer.

    Attributes:
        client_id: its number, never used twice in a process.
        name: its name, None if it has none (not one of nsqd's).
        ready_count: its window, `max_in_flight`; None for no limit (nsqd's key then has 2500, its
            largest).
        in_flight_count: messages it holds unanswered.
        message_count: deliveries to it, redeliveries counted.
        finish_count: messages it finished.
        requeue_count: messages it requeued.
        connect_ts: when it was made, in whole seconds since the epoch.
    """

    client_id: int
    name: str | None = None
    ready_count: int | None
    in_flight_count: int
    message_count: int
    finish_count: int
    requeue_count: int
    connect_ts: int

    def to_dict(self) -> dict[str, Any]:
        """Return it with nsqd's keys, those that mean something in one process."""
        return {
            "client_id": str(self.client_id),
            "state": 3,
            "ready_count": 2500 if self.ready_count is None else self.ready_count,
            "in_flight_count": self.in_flight_count,
            "message_count": self.message_count,
            "finish_count": self.finish_count,
            "requeue_count": self.requeue_count,
            "connect_ts": self.connect_ts,
        }

    def _row(self) -> tuple[object, ...]:
        window = "-" if self.ready_count is None else self.ready_count
        counts = (self.in_flight_count, self.message_count, self.finish_count, self.requeue_count)
        return (self.name or str(self.client_id), window, *counts)

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        return _consumers([self])

    def __str__(self) -> str:
        """Show it in a line."""
        window = "-" if self.ready_count is None else self.ready_count
        name = printable(self.name or str(self.client_id))
        return (
            f"[consumer {name}] inflt: {self.in_flight_count} rdy: {window}"
            f" fin: {self.finish_count} re-q: {self.requeue_count} msgs: {self.message_count}"
        )


@attrs.frozen(kw_only=True)
class ChannelStats:
    """A channel.

    Attributes:
        channel_name: its name.
        depth: messages ready to be delivered; those in flight and deferred are not counted.
        backend_depth: how many of them are in the store's file alone, 0 without a store.
        in_flight_count: messages delivered and not yet answered.
        deferred_count: messages that wait for their time.
        message_count: messages received from the topic; redeliveries are not counted.
        requeue_count: requeues asked for; time-outs are not counted.
        timeout_count: time-outs.
        client_count: consumers.
        clients: what each of them does, in the order of their numbers.
        paused: whether it is paused.
        e2e_processing_latency: from put to fin.
        dropped_count: messages that an overflow policy dropped (not one of nsqd's).
    """

    channel_name: str
    depth: int
    backend_depth: int = 0
    in_flight_count: int
    deferred_count: int
    message_count: int
    requeue_count: int
    timeout_count: int
    client_count: int
    clients: tuple[ClientStats, ...]
    paused: bool
    e2e_processing_latency: LatencyStats
    dropped_count: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it with nsqd's keys."""
        return {
            "channel_name": self.channel_name,
            "depth": self.depth,
            "backend_depth": self.backend_depth,
            "in_flight_count": self.in_flight_count,
            "deferred_count": self.deferred_count,
            "message_count": self.message_count,
            "requeue_count": self.requeue_count,
            "timeout_count": self.timeout_count,
            "client_count": self.client_count,
            "clients": [client.to_dict() for client in self.clients],
            "paused": self.paused,
            "e2e_processing_latency": self.e2e_processing_latency.to_dict(),
        }

    def _row(self) -> tuple[object, ...]:
        return (
            self.channel_name,
            self.depth,
            self.in_flight_count,
            self.deferred_count,
            self.requeue_count,
            self.timeout_count,
            self.message_count,
            self.client_count,
            "paused" if self.paused else None,
        )

    def _html(self, caption: str) -> str:
        """Return a table of it, and one of its consumers if it has some."""
        own = table(caption, ("channel", *_QUEUE, ""), [self._row()])
        return own + _consumers(self.clients) if self.clients else own

    def _repr_html_(self) -> str:
        """Show it in a notebook, with its consumers."""
        return self._html("channel")

    def __str__(self) -> str:
        """Show it as nsqd's text does: a line, and one for each consumer."""
        paused = "*P " if self.paused else ""
        line = (
            f"{paused}[{self.channel_name}] depth: {self.depth} inflt: {self.in_flight_count}"
            f" def: {self.deferred_count} re-q: {self.requeue_count}"
            f" timeout: {self.timeout_count} msgs: {self.message_count}"
        )
        return "\n".join([line, *(f"   {client}" for client in self.clients)])


@attrs.frozen(kw_only=True)
class TopicStats:
    """A topic.

    Attributes:
        topic_name: its name.
        channels: its channels, sorted by name.
        depth: messages that it holds itself, being paused or without channels.
        backend_depth: how many of them are in the store's file alone, 0 without a store.
        message_count: messages published.  A put that a signal handler threw out of may be counted
            though it put nothing.
        message_bytes: the sum of the lengths of their bytes bodies.
        paused: whether it is paused.
        e2e_processing_latency: from put to fin, over all its channels.
        dropped_count: messages that an overflow policy dropped (not one of nsqd's).
    """

    topic_name: str
    channels: tuple[ChannelStats, ...]
    depth: int
    backend_depth: int = 0
    message_count: int
    message_bytes: int
    paused: bool
    e2e_processing_latency: LatencyStats
    dropped_count: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it with nsqd's keys."""
        return {
            "topic_name": self.topic_name,
            "channels": [channel.to_dict() for channel in self.channels],
            "depth": self.depth,
            "backend_depth": self.backend_depth,
            "message_count": self.message_count,
            "message_bytes": self.message_bytes,
            "paused": self.paused,
            "e2e_processing_latency": self.e2e_processing_latency.to_dict(),
        }

    def _rows(self) -> Iterator[tuple[object, ...]]:
        """Go through a row for itself and one for each channel."""
        paused = "paused" if self.paused else None
        unknown = (None,) * 4
        yield (self.topic_name, None, self.depth, *unknown, self.message_count, None, paused)
        for channel in self.channels:
            yield (self.topic_name, *channel._row())

    def _repr_html_(self) -> str:
        """Show it in a notebook, with its channels."""
        return topics_table("topic", [self])

    def __str__(self) -> str:
        """Show it as nsqd's text does: a line, and more for each channel."""
        paused = "*P " if self.paused else ""
        line = f"{paused}[{self.topic_name}] depth: {self.depth} msgs: {self.message_count}"
        below = "\n".join(str(channel) for channel in self.channels)
        return "\n".join([line, *(f"   {text}" for text in below.splitlines())])


@attrs.frozen(kw_only=True)
class BrokerStats:
    """A broker.

    Attributes:
        version: of nsqlite.
        health: ``"OK"``, or ``"NOK - "`` and what is wrong; see `Broker.health`.
        start_time: when it was made, in whole seconds since the epoch.
        topics: its topics, sorted by name.
    """

    version: str
    health: str = "OK"
    start_time: int
    topics: tuple[TopicStats, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it with nsqd's keys."""
        return {
            "version": self.version,
            "health": self.health,
            "start_time": self.start_time,
            "topics": [topic.to_dict() for topic in self.topics],
        }

    def _repr_html_(self) -> str:
        """Show it in a notebook: topics and channels."""
        return topics_table(f"broker: {self.health}", self.topics)

    def __str__(self) -> str:
        """Show every topic, channel and consumer."""
        return "\n".join(str(topic) for topic in self.topics) or "no topics"


@attrs.frozen(kw_only=True)
class MessageInfo:
    """A message as `Channel.find`, `peek`, `in_flight` and `deferred` show it.

    Attributes:
        id: its id.
        state: where it is: ``"ready"``, ``"in flight"`` or ``"deferred"``.
        body: the object that was published.
        attempts: its deliveries in this channel so far.
        age: seconds since it was published.
        client_id: the number of the consumer that holds it, None if none does.
        due_in: seconds until it times out or its delay ends, None for a ready message and for what
            does not time out; below 0 if that has passed and nothing has come of it yet.
    """

    id: str
    state: Where
    body: Any
    attempts: int
    age: float
    client_id: int | None = None
    due_in: float | None = None

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        facts = (self.state, self.attempts, self.client_id, self.due_in, self.age)
        head = ("id", "state", "attempts", "consumer", "due in (s)", "age (s)", "body")
        row = (self.id, *facts, shown(self.body))
        return table("message", head, [row])


def topics_table(caption: str, topics: Iterable[TopicStats]) -> str:
    """Return a table for a notebook: a row for each topic, and one for each of its channels."""
    rows = [row for topic in topics for row in topic._rows()]
    return table(caption, ("topic", "channel", *_QUEUE, ""), rows)


def _consumers(clients: Iterable[ClientStats]) -> str:
    head = ("consumer", "window", "in flight", "messages", "finished", "requeued")
    return table("consumers", head, [client._row() for client in clients])


# For notebooks: a table is escaped, needs no script, and has the colours of the page around it.


def table(caption: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table; numbers stand on the right, and None is an empty cell."""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        '<table style="border-collapse:collapse;margin:.3em 0">'
        '<caption style="caption-side:top;text-align:left;white-space:nowrap;color:inherit">'
        f"<code>{_escaped(caption)}</code></caption>"
        f"<thead><tr>{''.join(map(_heading, head))}</tr></thead><tbody>{body}</tbody></table>"
    )


def safely(value: object, build: Callable[[], str]) -> str:
    """Return what a function builds of a value; where it cannot, the `repr` of the value."""
    try:
        return build()
    except Exception:
        return f"<pre>{_escaped(shown(value))}</pre>"


def _heading(text: str) -> str:
    return f'<th style="{_CELL};{_LINE};text-align:left">{_escaped(text)}</th>'


def _cell(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    side = "right;font-variant-numeric:tabular-nums" if is_number else "left"
    text = f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
    return f'<td style="{_CELL};text-align:{side}">{_escaped(text)}</td>'


def _escaped(text: str) -> str:
    from html import escape  # noqa: PLC0415 - takes longer than all else that makes a snapshot

    return escape(printable(text))
