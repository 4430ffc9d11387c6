"""Files to look at."""

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import nsqlite
from nsqlite.cli.export import lines
from nsqlite.cli.lines import Line
from nsqlite.cli.pages import Pages


def fill(path: Path) -> None:
    """Make a file that has a bit of everything."""
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        orders = broker.topic("orders")
        billing, audit = orders.channel("billing"), orders.channel("audit")
        orders.put_many([b"tea", b"jam", b"eggs"])
        orders.put(b"\xff\0")
        orders.put({"cake": 1})
        orders.put(b"later", delay=1000)
        consumer = nsqlite.Consumer(billing)
        consumer.get(timeout=0).fin()
        consumer.get(timeout=0).req(delay=500)
        consumer.get(timeout=0).req(delay=0)
        audit.pause()
        orders.channel("late")
        moved = consumer.get(timeout=0)
        consumer.move(moved, broker.topic("held"))
        broker.topic("held").put(b"for later", delay=2000)
        paused = broker.topic("paused")
        first = paused.channel("first")
        paused.channel("second")
        paused.put(b"before")
        paused.pause()
        paused.put(b"after")
        paused.put(b"after that", delay=3000)
        consumer.move(consumer.get(timeout=0), first)
        consumer.close()
        broker.topic("empty")
        broker.topic("gone").put(b"gone")
        broker.topic("gone").delete()


def told_of(path: Path) -> list[Line]:
    """Return the lines of a file's export."""
    with Pages(str(path)) as pages:
        return list(lines(pages))


def counts(path: Path) -> dict[str, Any]:
    """Return what a broker finds in a file: of topics and channels, what they hold and how."""
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        found: dict[str, Any] = {}
        for topic in broker.stats().topics:
            found[topic.topic_name] = (topic.depth, topic.paused)
            for one in topic.channels:
                key = f"{topic.topic_name}:{one.channel_name}"
                found[key] = (one.depth, one.deferred_count, one.paused)
        return found


def drained(path: Path) -> dict[str, list[tuple[str, int, Any, int]]]:
    """Empty a file, and return what was in its channels: ids, timestamps, bodies, attempts."""
    found = {}
    clock = nsqlite.testing.ManualClock(start=4_000_000_000)
    with nsqlite.Broker(clock=clock, store=nsqlite.SQLite(path, codec="json")) as broker:
        for topic in broker.topics.values():
            topic.channel("added")
            topic.unpause()
            for channel in topic.channels.values():
                channel.unpause()
                key = f"{topic.name}:{channel.name}"
                found[key] = sorted(all_of(channel))
    return found


def all_of(channel: nsqlite.Channel[Any]) -> list[tuple[str, int, Any, int]]:
    """Finish all that a channel has."""
    found = []
    with contextlib.suppress(nsqlite.Empty), nsqlite.Consumer(channel) as consumer:
        while True:
            message = consumer.get(timeout=0)
            found.append((message.id, message.timestamp, str(message.body), message.attempts))
            message.fin()
    return found


def write(path: Path, *lines: dict[str, Any]) -> Path:
    """Write lines into a file."""
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "ascii")
    return path


def change(path: Path, *statements: str) -> None:
    """Change a file behind its back."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
