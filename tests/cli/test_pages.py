"""Messages page by page: what is told of a file that changes meanwhile, and what it costs."""

import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from storefiles import change, fill

import nsqlite
from nsqlite.cli.export import lines
from nsqlite.cli.lines import Held, MessageLine
from nsqlite.cli.pages import PAGE, ROW, Pages
from nsqlite.cli.snapshot import Snapshot
from nsqlite.store.schema import OWN
from nsqlite.store.sqlitefile import SQLiteFile
from nsqlite.store.storage import Row

MEGABYTE = 1 << 20


def test_it_has_the_topics_of_a_snapshot(tmp_path: Path) -> None:
    """Of a file that nobody writes to it tells the same topics as a snapshot; no trace is left."""
    path = tmp_path / "jobs.db"
    fill(path)
    with Pages(str(path)) as pages, Snapshot(str(path)) as snapshot:
        assert snapshot.topics == pages.topics
        assert 12 == sum(len(list(pages.messages(topic))) for topic in pages.topics)
    assert ["jobs.db"] == [one.name for one in tmp_path.iterdir()]


def test_messages_name_who_holds_them(tmp_path: Path) -> None:
    """A message has the channels that still hold it, with their attempts and dues."""
    path = tmp_path / "jobs.db"
    fill(path)
    with Pages(str(path)) as pages:
        topics = {topic.stored.name: topic for topic in pages.topics}
        orders = list(pages.messages(topics["orders"]))
        held = list(pages.messages(topics["held"]))
        paused = list(pages.messages(topics["paused"]))
    assert [b"tea", b"jam", b"eggs", b"\xff\0", b'{"cake":1}', b"later"] == [
        one.data for one in orders
    ]
    assert (Held("audit", 0, None),) == orders[0].channels
    assert orders[1].channels is not None
    assert ("billing", 1) == (orders[1].channels[1].name, orders[1].channels[1].attempts)
    assert orders[1].channels[1].due is not None
    assert [None, None, None, None, "json", None] == [one.codec for one in orders]
    assert [None] * 6 == [one.due for one in orders]
    assert [None, None] == [one.channels for one in held]
    assert [False, True] == [one.due is not None for one in held]
    assert [2, 0, 0, 1] == [len(one.channels or ()) for one in paused]


def test_topics_that_share_a_partition_are_told_apart(tmp_path: Path) -> None:
    """Each topic has its own messages, in whatever partition, and what has become of them."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        topics = [broker.topic(f"topic{number:02}") for number in range(OWN + 3)]
        consumers = [nsqlite.Consumer(topic.channel("c")) for topic in topics]
        for body in (b"tea", b"jam"):
            for number, topic in enumerate(topics):
                topic.put(body + b"%d" % number)
        for consumer in consumers:
            consumer.get(timeout=0).req(delay=1000)
            consumer.close()
    with Pages(str(path)) as pages:
        for number, one in enumerate(pages.topics):
            found = list(pages.messages(one))
            assert [b"tea%d" % number, b"jam%d" % number] == [line.data for line in found]
            assert [1, 0] == [held.attempts for line in found for held in line.channels or ()]


def test_pages_are_joined(tmp_path: Path) -> None:
    """Every message is told once and whole, also where pages end and rows are many."""
    path = tmp_path / "jobs.db"
    count = 2 * PAGE // ROW + 5
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        first = nsqlite.Consumer(orders.channel("first"))
        second = nsqlite.Consumer(orders.channel("second"))
        ids = orders.put_many([b"%d" % number for number in range(count)])
        for consumer in (first, second):  # so each message has two copies
            for message in consumer.get_many(count, timeout=1):
                message.req(delay=1000)
            consumer.close()
    with Pages(str(path)) as pages:
        [topic] = pages.topics
        found = list(pages.messages(topic))
    assert ids == [f"{one.id:016x}" for one in found]
    assert {("first", "second")} == {tuple(c.name for c in one.channels or ()) for one in found}
    assert [b"%d" % number for number in range(count)] == [one.data for one in found]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A file of 32 MB is told in the memory of a few pages."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        for _ in range(32):
            broker.topic("orders").put_many([b"x" * 8192] * 128)
    with Pages(str(path)) as pages:
        tracemalloc.start()
        assert 32 * 128 + 3 == sum(1 for _ in lines(pages))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * MEGABYTE


def bodies_told(pages: Pages, name: str) -> list[bytes]:
    [topic] = [one for one in pages.topics if one.stored.name == name]
    return [line.data for line in pages.messages(topic)]


def test_what_is_put_later_is_left_out(tmp_path: Path) -> None:
    """What is put after the beginning is not told, and a topic that is made then neither."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        orders.put(b"tea")
        broker.topic("empty")
        with Pages(str(path)) as pages:
            orders.put(b"jam")
            broker.topic("empty").put(b"eggs")
            broker.topic("later").put(b"cake")
            assert ["empty", "orders"] == [one.stored.name for one in pages.topics]
            assert ([b"tea"], []) == (bodies_told(pages, "orders"), bodies_told(pages, "empty"))


def test_what_is_finished_meanwhile_is_missing(tmp_path: Path) -> None:
    """What was finished before its page is read is not told; who holds the rest is, as it was."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        billing = nsqlite.Consumer(orders.channel("billing"))
        orders.put_many([b"tea", b"jam", b"eggs"])
        with Pages(str(path)) as pages:
            billing.get(timeout=0).fin()
            orders.channel("later")
            orders.pause()
            broker.flush()
            [topic] = pages.topics
            found = list(pages.messages(topic))
        billing.close()
    assert [b"jam", b"eggs"] == [line.data for line in found]
    assert [["billing"]] * 2 == [[held.name for held in line.channels or ()] for line in found]


def test_a_channel_that_is_deleted_meanwhile_holds_nothing(tmp_path: Path) -> None:
    """A channel that is deleted is not told as one that holds again what it has done with."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        orders.channel("audit")
        billing = nsqlite.Consumer(orders.channel("billing"))
        orders.put(b"tea")
        billing.get(timeout=0).fin()
        billing.close()
        broker.flush()
        with Pages(str(path)) as pages:
            orders.channel("billing").delete()
            broker.flush()
            [topic] = pages.topics
            [line] = pages.messages(topic)
    assert ["audit"] == [held.name for held in line.channels or ()]


def test_a_topic_that_is_deleted_meanwhile_is_empty(tmp_path: Path) -> None:
    """Of a topic that is deleted no more is told, and that is no error."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").put(b"tea")
        with Pages(str(path)) as pages:
            broker.topic("orders").delete()
            broker.flush()
            assert [] == bodies_told(pages, "orders")


def test_no_transaction_is_open_between_pages(tmp_path: Path) -> None:
    """While somebody thinks about a message, the log can be emptied by others."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").put_many([b"x" * 1000] * 3000)
    with Pages(str(path)) as pages:
        [topic] = pages.topics
        for _ in pages.messages(topic):
            assert not pages._connection.in_transaction
            change(path, "CREATE TABLE IF NOT EXISTS mine (x)", "PRAGMA wal_checkpoint(TRUNCATE)")
            break
        assert 0 == path.with_name("jobs.db-wal").stat().st_size


def test_a_reader_who_is_stuck_does_not_hold_the_log(tmp_path: Path) -> None:
    """While nobody reads on what an export writes, the owner's log stays as small as ever."""
    path = tmp_path / "jobs.db"
    log = path.with_name("jobs.db-wal")
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").put_many([b"x" * 1000] * 3000)
    with closing(SQLiteFile(str(path), full=False)) as file:
        file.load()
        with subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "nsqlite", "export", str(path)],
            stdout=subprocess.PIPE,
        ) as reader:
            assert reader.stdout is not None
            assert b'{"nsqlite": 1}\n' == reader.stdout.readline()
            sizes = []
            for first in range(1 << 62, (1 << 62) + 64_000, 1000):
                rows: list[Row] = [
                    (first + i, 0, None, None, None, b"x" * 1000) for i in range(1000)
                ]
                file.write_rows(1, rows)
                sizes.append(log.stat().st_size)
                file.copy_log()
                file.tidy()
            assert max(sizes) < 16 * MEGABYTE
            told = reader.stdout.read().splitlines()
            assert 0 == reader.wait(60)
    assert b'{"kind": "end"}' == told[-1]
    assert 3000 + 2 == len(told)


def test_a_body_of_the_wrong_type_is_damage(tmp_path: Path) -> None:
    """A body that is no bytes is told as damage, with the file."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, "UPDATE messages_1 SET data = 'x'")
    with Pages(str(path)) as pages, pytest.raises(nsqlite.StoreDamaged) as caught:
        list(lines(pages))
    assert str(caught.value).startswith(f"store {path}: it is damaged: restore it from a backup (")


def test_what_is_damaged_is_told_as_that(tmp_path: Path) -> None:
    """What is exported and imported is not made sound by it."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, "UPDATE messages_1 SET data = x'00' WHERE data = x'ff00'")
    change(path, "UPDATE messages_1 SET data = x'00' WHERE codec = 'json'")
    with Pages(str(path)) as pages:
        codecs = [one.codec for topic in pages.topics for one in pages.messages(topic)]
    assert ["damaged bytes", "damaged json", "json"] == sorted(
        one for one in codecs if one is not None
    )


def test_what_nobody_holds_is_left_out(tmp_path: Path) -> None:
    """What lies in the file and is only to be forgotten is not told."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, "UPDATE channel SET since = (SELECT max(id) FROM messages_1)")
    with Pages(str(path)) as pages:
        assert [] == bodies_told(pages, "orders")
        assert ["held", "paused"] == sorted(
            {line.topic for line in lines(pages) if isinstance(line, MessageLine)}
        )
