"""A broker as plain data, for a test that compares with what is expected, or with a file.

The rule: the same things done in the same order on a clock by hand give the same data: names are in
order, times are relative, and ids and consumers are numbered anew.

Next: testing/history.py
"""

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

from nsqlite.broker import Broker
from nsqlite.channel import Channel, info_of
from nsqlite.errors import InvalidOption
from nsqlite.message import counted
from nsqlite.queue import Place, Queue
from nsqlite.stats import MessageInfo
from nsqlite.store.codec import is_letter
from nsqlite.topic import Topic

DIGITS: Final = 9
"""To so many digits a time in seconds is shown."""

_LETTER: Final = ("body", "topic", "channel", "attempts", "error", "error_type")
"""What is shown of a dead letter: what is the same each time."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


class _Shown(str):
    """What stands for a value that JSON does not have: its text, which is shown without quotes."""

    __slots__ = ()

    __repr__ = str.__str__


class Snapshot(dict[str, Any]):
    """What `snapshot` returns: a dict of `topics`, which `str` shows as text."""

    def __str__(self) -> str:
        """Show it, a line for each topic, channel, consumer and message."""
        return "\n".join(_lines(self["topics"])) or "no topics"


def snapshot(what: Broker | Topic[Any]) -> Snapshot:
    """Return a broker, or one topic, as dicts, lists, texts and numbers, which JSON can keep.

    Of a topic: `paused`, `depth` (what it holds itself, deferred too), `messages` (that), and
    `channels`.  Of a channel: `paused`, `depth`, `in_flight`, `deferred`, `consumers` and
    `messages`.  Of a message: `id`, a number in the order of publishing; `body`, where JSON has it,
    else as Python shows it, so bytes as the text ``b'one'``; `where`; `attempts`; `due_in`, in
    seconds, None if nothing is due; `consumer`, its number in the channel, None if nobody has it.
    Of a consumer: `name`, `max_in_flight` and `holds`.

    Each topic is one piece.  What lies in a store's file alone is counted, and not listed.

    Raises:
        InvalidOption: it is neither.
    """
    if not isinstance(what, Broker | Topic):
        raise InvalidOption("what", what, "a Broker or a Topic")
    topics = what.topics if isinstance(what, Broker) else {what.name: what}
    data = {name: topics[name]._monitor.run(_topic, topics[name]) for name in sorted(topics)}
    _number(data)
    return Snapshot(topics=data)


def _topic(topic: Topic[Any]) -> dict[str, Any]:
    """Return a topic as data, with the ids of its messages; the lock is held."""
    channels = topic._channels
    return {
        "paused": topic._fan.paused,
        "depth": topic._fan.depth(),
        "messages": _messages(topic._fan.held, {}),
        "channels": {name: _channel(channels[name]) for name in sorted(channels)},
    }


def _channel(channel: Channel[Any]) -> dict[str, Any]:
    readers = sorted(channel._consumers(), key=lambda reader: reader.client_id)
    numbers = {reader.client_id: number for number, reader in enumerate(readers, start=1)}
    messages = _messages(channel._queue, numbers)
    return {
        "paused": channel._queue.paused,
        "depth": channel._queue.depth(),
        "in_flight": len(channel._queue.timeouts),
        "deferred": channel._queue.deferred_depth(),
        "consumers": [_consumer(reader) for reader in readers],
        "messages": messages,
    }


def _consumer(reader: Any) -> dict[str, Any]:
    return {
        "name": reader.name,
        "max_in_flight": reader.max_in_flight,
        "holds": reader._held,
    }


def _messages(queue: Queue[Any], numbers: Mapping[int, int]) -> list[dict[str, Any]]:
    queue.sweep()
    return [_message(info_of(place, queue._clock), numbers) for place in _places(queue)]


def _places(queue: Queue[Any]) -> Iterator[Place[Any]]:
    """Go through the messages of a queue that are in memory: ready, in flight, deferred."""
    behind = () if queue.back is queue.ready else queue.back
    for record in chain(queue.ready, behind):
        yield "ready", record, None, None
    for due, message in queue.timeouts.pairs():
        yield "in flight", counted(message), due, message._consumer
    for due, record in queue.deferred.pairs():
        yield "deferred", record, due, None


def _message(info: MessageInfo, numbers: Mapping[int, int]) -> dict[str, Any]:
    return {
        "id": info.id,
        "body": _plain(info.body),
        "where": info.state,
        "attempts": info.attempts,
        "due_in": None if info.due_in is None else round(info.due_in, DIGITS),
        "consumer": numbers.get(info.client_id or 0),
    }


def _number(topics: Mapping[str, Any]) -> None:
    """Replace ids by numbers in the order in which they were given."""
    queues = [queue for topic in topics.values() for queue in (topic, *topic["channels"].values())]
    messages = [message for queue in queues for message in queue["messages"]]
    numbers = {name: number for number, name in enumerate(sorted({m["id"] for m in messages}), 1)}
    for message in messages:
        message["id"] = numbers[message["id"]]


def _plain(body: Any) -> Any:
    """Return a body as JSON has it; as text where it has none."""
    if body is None or isinstance(body, str | int | float):
        return body
    if isinstance(body, list | tuple):
        return [_plain(item) for item in body]
    if isinstance(body, dict) and all(isinstance(key, str) for key in body):
        return {key: _plain(value) for key, value in body.items()}
    if is_letter(body):
        return {name: _plain(getattr(body, name)) for name in _LETTER}
    return _Shown(_ADDRESS.sub("", repr(body)))


def _lines(topics: Mapping[str, Any]) -> Iterator[str]:
    for name, topic in topics.items():
        yield f"topic {name}{_paused(topic)}: {topic['depth']} held"
        yield from map(_line, topic["messages"])
        for of, channel in topic["channels"].items():
            counts = "{depth} ready, {in_flight} in flight, {deferred} deferred".format(**channel)
            yield f"  channel {of}{_paused(channel)}: {counts}"
            for number, consumer in enumerate(channel["consumers"], 1):
                window = consumer["max_in_flight"]
                limit = "" if window is None else f" of {window}"
                label = f" {consumer['name']!r}" if consumer["name"] else ""
                yield f"    consumer {number}{label}: holds {consumer['holds']}{limit}"
            yield from map(_line, channel["messages"])


def _paused(what: Mapping[str, Any]) -> str:
    return " (paused)" if what["paused"] else ""


def _line(message: Mapping[str, Any]) -> str:
    """Show a message."""
    parts = [f"message {message['id']} {message['body']!r}", message["where"]]
    if message["attempts"]:
        parts.append(f"attempts={message['attempts']}")
    if message["consumer"] is not None:
        parts.append(f"consumer {message['consumer']}")
    if message["due_in"] is not None:
        parts.append(f"due in {message['due_in']:g} s")
    return f"    {', '.join(parts)}"
