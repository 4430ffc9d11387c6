"""What is in a store's file, found out by opening a copy of it and getting everything out.

The rule: a snapshot tells of a message what its channel would do with it next, and nothing of where
it lies in the file.

On the way it is checked that the file is sound, that its counts are those of its messages, that
what was never delivered comes in order, and that nothing is left of what is finished.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import attrs

import nsqlite
from nsqlite.testing import ManualClock

SECOND: Final = 1_000_000_000

HELD: Final = ""
"""The channel that stands for what a topic holds that has none."""

PARTS: Final = ("", "-wal")
"""What a file is made of, as far as it is kept; the rest is for those that have it open."""


@attrs.frozen
class Seen:
    """A message of a channel.

    Attributes:
        body: its body.
        attempts: its deliveries so far.
        due: until when it waits, in nanoseconds since the epoch; None if it is ready.
    """

    body: Any
    attempts: int = 0
    due: int | None = None


@attrs.define
class SeenChannel:
    """A channel, with what the topic holds for it."""

    paused: bool = False
    messages: dict[str, Seen] = attrs.Factory(dict)


@attrs.define
class SeenTopic:
    """A topic; `held` is how many messages it holds itself."""

    paused: bool = False
    held: int = 0
    channels: dict[str, SeenChannel] = attrs.Factory(dict)


def copy_store(path: Path, target: Path) -> Path:
    """Copy a store's file as the death of its process would leave it; return where to."""
    for part in PARTS:
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{path}{part}", f"{target}{part}")
    return target


def remove_store(path: Path) -> None:
    for part in (*PARTS, "-shm", "-owner"):
        Path(f"{path}{part}").unlink(missing_ok=True)


def drained(channel: nsqlite.Channel[Any]) -> Iterator[nsqlite.Message[Any]]:
    """Get all that is ready and leave it in flight."""
    consumer = nsqlite.Consumer(channel)
    with suppress(nsqlite.Empty):
        while True:
            yield from consumer.get_many(100, timeout=0)


def take_snapshot(path: Path, now: int, mem_queue_size: int = 7) -> dict[str, SeenTopic]:
    """Return what is in a file, which is used up by that.

    Args:
        path: the file; nobody has it open.
        now: the wall's time to open it at, in nanoseconds since the epoch.
        mem_queue_size: how much of it is in memory at a time.
    """
    clock = ManualClock(0)
    clock._start = now  # type: ignore[misc]  # a float has no room for nanoseconds
    store = nsqlite.SQLite(path, mem_queue_size=mem_queue_size, sync_timeout=1000)
    with nsqlite.Broker(clock=clock, store=store) as broker:
        topics = broker.topics
        assert [] == [name for name in topics if name.endswith("#ephemeral")]
        seen = {name: look_at(topic, now) for name, topic in topics.items()}
        broker._check()
        broker.flush()
        assert broker._persistence is not None
        while broker._persistence.upkeep():  # type: ignore[attr-defined]  # of the keeper alone
            pass
        assert "OK" == broker.health
        broker._check()
    assert_sound(path)
    left = rows_of(path)
    assert not left, f"finished, and still in the file: {left}"
    remove_store(path)
    return seen


def look_at(topic: nsqlite.Topic[Any], now: int) -> SeenTopic:
    """Return what is in a topic that was just opened, which is used up by that."""
    names = list(topic.channels)
    assert [] == [name for name in names if name.endswith("#ephemeral")]
    seen = SeenTopic(topic.paused, topic.depth)
    totals = {channel.channel_name: channel for channel in topic.stats().channels}
    channels = topic.channels
    for name, channel in channels.items():
        seen.channels[name] = SeenChannel(channel.paused)
        channel.unpause()
    if not names:
        seen.channels[HELD] = SeenChannel()
        channels = {HELD: topic.channel("heir")}
    topic.unpause()
    for name, channel in channels.items():
        messages = seen.channels[name].messages = _all_of(channel, now)
        known = totals.get(name)
        total = known.depth + known.in_flight_count + known.deferred_count if known else 0
        assert total + seen.held == len(messages), (
            topic.name,
            name,
            f"counted: {total} and {seen.held} held, found: {len(messages)}",
        )
    return seen


def _all_of(channel: nsqlite.Channel[Any], now: int) -> dict[str, Seen]:
    """Get all out of a channel, finish it and drop what is deferred."""
    messages: dict[str, Seen] = {}
    batch = list(drained(channel))
    for message in batch:
        assert message.id not in messages, "a message came twice"
        messages[message.id] = Seen(message.body, message.attempts - 1)
    queue = channel._queue
    if queue.persistence is not None:
        queue.persistence.hold_all()  # what is not due soon is in the file alone
    for info in channel.deferred(1_000_000):
        assert info.id not in messages, "a message came twice"
        assert info.due_in is not None
        due = now + round(info.due_in * SECOND)
        messages[info.id] = Seen(info.body, info.attempts, due)
    for message in batch:
        message.fin()
    channel.empty()
    return messages


def assert_sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        assert [("ok",)] == file.execute("PRAGMA integrity_check").fetchall()


def rows_of(path: Path) -> dict[str, set[int]]:
    """Return the ids that are in a file's tables of messages, and of copies, without the empty."""
    with closing(sqlite3.connect(path)) as file:
        rows = {}
        topics = file.execute("SELECT number, name, partition FROM topic").fetchall()
        for number, name, partition in topics:
            query = f"SELECT id FROM messages_{partition} WHERE topic = ?"  # noqa: S608 - a number
            rows[name] = {identity for (identity,) in file.execute(query, (number,))}
        rows["copies"] = {identity for (identity,) in file.execute("SELECT id FROM copy")}
        return {name: identities for name, identities in rows.items() if identities}
