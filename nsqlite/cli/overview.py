"""`python -m nsqlite inspect`: what is in a store's file.

The rule: it tells what a broker that opened the file now would find, in nsqd's words; and of what
is in flight, which only the file's owner knows, what that answers.

To count a long queue of a file that is in use, or was not closed, takes time; see
`nsqlite.cli.snapshot`.

Next: cli/check.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from nsqlite.cli.snapshot import Snapshot, TopicThen
from nsqlite.clock import SYSTEM
from nsqlite.errors import NSQLiteError
from nsqlite.options import SECOND
from nsqlite.store.attach import attach
from nsqlite.store.owner import has_owner
from nsqlite.store.paths import full_path
from nsqlite.store.schema import VERSION
from nsqlite.store.storage import StoredChannel

HEAD: Final = ("topic", "channel", "ready", "in flight", "deferred", "oldest", "paused")

PATIENCE: Final = 5.0
"""Seconds that the owner has to answer."""

UNKNOWN: Final = (
    "?: what is in flight counts as ready, since a process has the file that does not answer: it is"
    " to open it with SQLite(path, control=True)"
)

Counts: TypeAlias = dict[tuple[str, str], dict[str, Any]]
"""What the owner tells of channels, by the names of topic and channel."""


def inspect(path: str, *, as_json: bool) -> Iterator[str]:
    """Yield the lines that tell of a file.

    Args:
        path: the file.
        as_json: whether to tell it as one JSON object, with the keys of `overview`.

    Raises:
        StoreError: it cannot be read.
    """
    found = overview(path)
    if as_json:
        yield json.dumps(found, indent=2)
    else:
        yield from table(found)


def overview(path: str) -> dict[str, Any]:
    """Return what is in a file.

    Returns:
        `file`, its `version`, `bytes` (its size), `log_bytes` (that of the write-ahead log beside
        it), and `topics`, sorted by name.  A topic has `topic_name`, `paused`, `depth` (messages
        that it holds itself, being paused or without channels), `deferred_count` (how many of these
        wait for a time), `oldest_age`, `codecs` (of its oldest and newest 1000 messages; bytes need
        none) and `channels`, sorted by name.  A channel has `channel_name`, `paused`, `depth`
        (messages that are ready), `in_flight_count` (null if nobody can tell: then `depth` has
        these, too), `deferred_count` (messages that wait for a time) and `oldest_age`: the seconds
        since the message with the lowest id was put, null if there is none.

    Raises:
        StoreError: it cannot be read.
    """
    with Snapshot(path) as snapshot:
        now = SYSTEM.time_ns()
        counts = _ask_owner(path)
        return {
            "file": path,
            "version": VERSION,
            "bytes": _size(path),
            "log_bytes": _size(f"{path}-wal"),
            "topics": [_topic(snapshot, topic, now, counts) for topic in snapshot.topics],
        }


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # it is not there, or not any more
        return 0


def _ask_owner(path: str) -> Counts | None:
    """Return what the file's owner tells of its channels; None if it has one that tells nothing."""
    try:
        with attach(path, timeout=PATIENCE) as attached:
            topics = attached.stats()["topics"]
    except NSQLiteError:
        return None if has_owner(full_path(path)) else {}
    return {
        (topic["topic_name"], channel["channel_name"]): channel
        for topic in topics
        for channel in topic["channels"]
    }


def _topic(snapshot: Snapshot, topic: TopicThen, now: int, counts: Counts | None) -> dict[str, Any]:
    name = topic.stored.name
    return {
        "topic_name": name,
        "paused": topic.stored.paused,
        "depth": topic.stored.held,
        "deferred_count": snapshot.count_deferred(topic, None, now),
        "oldest_age": _age(snapshot.find_oldest(topic, None), now),
        "codecs": snapshot.codecs(topic),
        "channels": [
            _channel(snapshot, topic, channel, now)
            | _counted(None if counts is None else counts.get((name, channel.name), {}))
            for channel in topic.channels
        ],
    }


def _counted(told: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the owner's counts of a channel say better than the file."""
    if told is None:
        return {"in_flight_count": None}
    names = ("depth", "in_flight_count", "deferred_count")
    return {name: told[name] for name in names if name in told}


def _channel(
    snapshot: Snapshot, topic: TopicThen, channel: StoredChannel, now: int
) -> dict[str, Any]:
    deferred = snapshot.count_deferred(topic, channel, now)
    return {
        "channel_name": channel.name,
        "paused": channel.paused,
        "depth": channel.held - deferred,
        "in_flight_count": 0,
        "deferred_count": deferred,
        "oldest_age": _age(snapshot.find_oldest(topic, channel), now),
    }


def _age(timestamp: int | None, now: int) -> float | None:
    return None if timestamp is None else max(0, now - timestamp) / SECOND


def table(found: dict[str, Any]) -> Iterator[str]:
    """Yield what `overview` has found as lines of a table; a topic's own line has no channel."""
    codecs = sorted({codec for topic in found["topics"] for codec in topic["codecs"]})
    yield f"{found['file']}: {found['bytes']} bytes, and {found['log_bytes']} in its log"
    yield f"codecs: {', '.join(codecs) or '-'}"
    rows: list[tuple[str, ...]] = [HEAD]
    is_known = True
    for topic in found["topics"]:
        name = topic["topic_name"]
        rows.append(_row(name, "-", topic["depth"] - topic["deferred_count"], topic))
        rows += [_row(name, one["channel_name"], one["depth"], one) for one in topic["channels"]]
        is_known = is_known and all(one["in_flight_count"] is not None for one in topic["channels"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield ""
    for row in rows:
        texts = [text.ljust(width) for text, width in zip(row[:2], widths, strict=False)]
        texts += [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(texts)
    if not is_known:
        yield ""
        yield UNKNOWN


def _row(topic: str, channel: str, ready: int, found: dict[str, Any]) -> tuple[str, ...]:
    age = found["oldest_age"]
    oldest = "-" if age is None else f"{age:.1f} s"
    paused = "yes" if found["paused"] else "no"
    in_flight = found.get("in_flight_count", 0)
    flying = "?" if in_flight is None else str(in_flight)
    return topic, channel, str(ready), flying, str(found["deferred_count"]), oldest, paused
