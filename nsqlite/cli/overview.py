"""`python -m nsqlite inspect`: what is in a store's file.

The rule: it tells what a broker that opened the file now would find, in nsqd's words.

To count a long queue of a file that is in use, or was not closed, takes time; see
`nsqlite.cli.snapshot`.

Next: cli/check.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from nsqlite.cli.snapshot import Snapshot, TopicThen
from nsqlite.clock import SYSTEM
from nsqlite.options import SECOND
from nsqlite.store.schema import VERSION
from nsqlite.store.storage import StoredChannel

HEAD: Final = ("topic", "channel", "ready", "deferred", "oldest", "paused")


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
        (messages that are ready, or in flight with the owner), `deferred_count` (messages that wait
        for a time) and `oldest_age`: the seconds since the message with the lowest id was put, null
        if there is none.

    Raises:
        StoreError: it cannot be read.
    """
    with Snapshot(path) as snapshot:
        now = SYSTEM.time_ns()
        return {
            "file": path,
            "version": VERSION,
            "bytes": _size(path),
            "log_bytes": _size(f"{path}-wal"),
            "topics": [_topic(snapshot, topic, now) for topic in snapshot.topics],
        }


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # it is not there, or not any more
        return 0


def _topic(snapshot: Snapshot, topic: TopicThen, now: int) -> dict[str, Any]:
    return {
        "topic_name": topic.stored.name,
        "paused": topic.stored.paused,
        "depth": topic.stored.held,
        "deferred_count": snapshot.count_deferred(topic, None, now),
        "oldest_age": _age(snapshot.find_oldest(topic, None), now),
        "codecs": snapshot.codecs(topic),
        "channels": [_channel(snapshot, topic, channel, now) for channel in topic.channels],
    }


def _channel(
    snapshot: Snapshot, topic: TopicThen, channel: StoredChannel, now: int
) -> dict[str, Any]:
    deferred = snapshot.count_deferred(topic, channel, now)
    return {
        "channel_name": channel.name,
        "paused": channel.paused,
        "depth": channel.held - deferred,
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
    for topic in found["topics"]:
        name = topic["topic_name"]
        rows.append(_row(name, "-", topic["depth"] - topic["deferred_count"], topic))
        rows += [_row(name, one["channel_name"], one["depth"], one) for one in topic["channels"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield ""
    for row in rows:
        texts = [text.ljust(width) for text, width in zip(row[:2], widths, strict=False)]
        texts += [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(texts)


def _row(topic: str, channel: str, ready: int, found: dict[str, Any]) -> tuple[str, ...]:
    age = found["oldest_age"]
    oldest = "-" if age is None else f"{age:.1f} s"
    paused = "yes" if found["paused"] else "no"
    return topic, channel, str(ready), str(found["deferred_count"]), oldest, paused
