"""Where the messages of topics are: before something has happened and after it, side by side.

The rule: it only looks.  What it shows of a channel is what `peek`, `in_flight` and `deferred`
return; a topic shows no more of what it holds than how much that is.

Next: cli/keyboard.py
"""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from nsqlite.broker import Broker
from nsqlite.channel import Channel
from nsqlite.stats import MessageInfo
from nsqlite.testing.address import nsqd
from nsqlite.timeline.words import number
from nsqlite.topic import Topic

Places: TypeAlias = dict[tuple[str, str], list[str]]
"""What is shown in each place: by its name, and a word for what is there."""

SHOWN: Final = 4
"""How many messages are shown of each place."""

WIDTH: Final = 76
"""How wide the table is unless it is told otherwise."""

NAME: Final = 20
"""How wide the first column is at least."""

STATE: Final = 10
"""How wide the second column is; the last two share the rest."""

NARROWEST: Final = 12
"""How wide each of the last two is at least."""


def brokers_in(values: Iterable[object]) -> list[Broker | Topic[Any]]:
    """Return the brokers, and the topics without one, that a program's variables have.

    What has a `broker`, as `nsqlite.testing.nsqd` has, counts as that.
    """
    found: list[Broker | Topic[Any]] = []
    for value in values:
        broker = value.broker if isinstance(value, nsqd) else value
        if isinstance(broker, Broker) and broker not in found:
            found.append(broker)
    owned = [topic for broker in found for topic in _topics(broker)]
    alone = [value for value in values if isinstance(value, Topic) and value not in owned]
    return [*found, *alone]


def _topics(holder: Broker | Topic[Any]) -> list[Topic[Any]]:
    return list(holder.topics.values()) if isinstance(holder, Broker) else [holder]


def places(holders: Iterable[Broker | Topic[Any]]) -> Places:
    """Return where the messages are."""
    found: Places = {}
    for holder in holders:
        for topic in _topics(holder):
            if not topic.closed:
                _look_at_topic(topic, found)
    return found


def _look_at_topic(topic: Topic[Any], found: Places) -> None:
    if topic.paused:
        found[topic.name, "paused"] = ["yes"]
    if topic.depth or not topic.channels:
        found[topic.name, "holds"] = [number(topic.depth, "message")] if topic.depth else []
    for channel in topic.channels.values():
        _look_at_channel(f"{topic.name}:{channel.name}", channel, found)


def _look_at_channel(name: str, channel: Channel[Any], found: Places) -> None:
    if channel.paused:
        found[name, "paused"] = ["yes"]
    stats = channel.stats()
    names = {client.client_id: client.name for client in stats.clients}
    found[name, "ready"] = _shown(channel.peek(SHOWN), stats.depth, names)
    if stats.in_flight_count:
        flying = channel.in_flight(SHOWN)
        found[name, "in flight"] = _shown(flying, stats.in_flight_count, names)
    if stats.deferred_count:
        waiting = channel.deferred(SHOWN)
        found[name, "deferred"] = _shown(waiting, stats.deferred_count, names)


def _shown(messages: list[MessageInfo], count: int, names: dict[int, str | None]) -> list[str]:
    cells = [_message(message, names) for message in messages]
    return cells if len(cells) == count else [*cells, f"and {count - len(cells)} more"]


def _message(message: MessageInfo, names: dict[int, str | None]) -> str:
    """Show a message: its body, who has it, for how long yet, and which attempt that is."""
    body = message.body
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    more = []
    if message.client_id is not None:
        more.append(names.get(message.client_id, "nobody") or "a consumer")
    if message.due_in is not None:
        more.append(f"{message.due_in:.3g} s")
    if message.attempts > (message.state == "in flight"):
        more.append(f"attempt {message.attempts}")
    short = textwrap.shorten(text, 40, placeholder=" ...")
    return f"{short} ({', '.join(more)})" if more else short


def side_by_side(before: Places, after: Places, width: int = WIDTH) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a table, each with whether what it shows has changed.

    A place that is not there is left blank; one that is there and has nothing has a dash.

    Args:
        before: where the messages were.
        after: where they are now.
        width: how many columns of text there are.
    """
    found = sorted({*before, *after}, key=lambda place: (place[0], _ORDER[place[1]]))
    wide = max([NAME, *(len(name) + 1 for name, _ in found)])
    room = max((width - wide - STATE) // 2, NARROWEST)
    widths = wide, STATE, room, room
    yield _row(widths, "", "", "before", "after"), False
    last = ""
    for name, word in found:
        is_there = [(name, "ready") in all_ or (name, "holds") in all_ for all_ in (before, after)]
        cells = [
            _cell(all_.get((name, word), []), room - 1) or (["-"] if there else [])
            for all_, there in zip((before, after), is_there, strict=True)
        ]
        changed = cells[0] != cells[1]
        for line in range(max(1, *map(len, cells))):
            heads = ("" if line or name == last else name, "" if line else word)
            row = (cell[line] if line < len(cell) else "" for cell in cells)
            yield _row(widths, *heads, *row), changed
        last = name


_ORDER: Final = {"paused": 0, "holds": 1, "ready": 2, "in flight": 3, "deferred": 4}


def _cell(entries: list[str], width: int) -> list[str]:
    """Break what is shown into lines that fit into a column."""
    wrapped = (textwrap.wrap(entry, width, subsequent_indent="  ") for entry in entries)
    return [line for lines in wrapped for line in lines]


def _row(widths: tuple[int, ...], *cells: str) -> str:
    columns = zip(cells, widths, strict=True)
    return "".join(f"{cell:<{width}}" for cell, width in columns).rstrip()
