"""Looking at a file without a trace, while others use it or nobody does."""

import subprocess
import sys
from pathlib import Path

import pytest
from storefiles import change, counts, fill, told_of

import nsqlite
from nsqlite import StoreDamaged, StoreError, StoreForeign
from nsqlite.cli.lines import Held, MessageLine
from nsqlite.cli.snapshot import Snapshot
from nsqlite.clock import SYSTEM

OWNER = """
import sys, nsqlite
broker = nsqlite.Broker(store=nsqlite.SQLite(sys.argv[1]))
channel = broker.topic("orders").channel("billing")
broker.topic("orders").put_many([b"tea", b"jam"])
broker.topic("orders").put(b"eggs")
print("open", flush=True)
sys.stdin.read()
broker.close()
"""


def seen(path: Path) -> dict[str, object]:
    """Return what a snapshot counts, in the form of `storefiles.counts`."""
    found: dict[str, object] = {}
    now = SYSTEM.time_ns()
    with Snapshot(str(path)) as snapshot:
        for topic in snapshot.topics:
            found[topic.name] = (topic.held, topic.paused)
            for channel in topic.channels:
                deferred = snapshot.count_deferred(topic, channel, now)
                found[f"{topic.name}:{channel.name}"] = (
                    channel.held - deferred,
                    deferred,
                    channel.paused,
                )
    return found


def put_by_force(path: Path, body: bytes) -> None:
    """Make a file whose last messages came after the last account, as after a crash."""
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").channel("billing")
        broker.topic("orders").channel("audit")
        broker.topic("orders").put(body)
        broker.topic("held").put(body)
    change(
        path,
        "UPDATE topic SET last = 0, held = 0",
        "UPDATE channel SET held = 0",
        "INSERT INTO message_1 SELECT id + 1, timestamp, NULL, 1, NULL, data FROM message_1",
    )


def test_it_counts_what_a_broker_finds(tmp_path: Path) -> None:
    """Depths, deferred messages and pauses are those that a broker finds when it opens the file."""
    path = tmp_path / "jobs.db"
    fill(path)
    before = seen(path)
    assert counts(path) == before
    assert before == seen(path)
    assert (1, 2, False) == before["orders:billing"]
    assert {"empty", "held", "orders", "paused"} == {name for name in before if ":" not in name}


def test_it_counts_what_came_after_the_last_account(tmp_path: Path) -> None:
    """What the owner put and has not accounted for is counted, also what is for one channel."""
    path = tmp_path / "jobs.db"
    put_by_force(path, b"tea")
    expected = {
        "orders": (0, False),
        "orders:billing": (2, 0, False),
        "orders:audit": (1, 0, False),
        "held": (1, False),
    }
    assert expected == seen(path)
    assert expected == counts(path)


def test_it_leaves_no_trace(tmp_path: Path) -> None:
    """A look changes no byte of a file that nobody has open, and leaves nothing beside it."""
    path = tmp_path / "jobs.db"
    fill(path)
    before = path.read_bytes()
    told_of(path)
    assert ["jobs.db"] == [one.name for one in tmp_path.iterdir()]
    assert before == path.read_bytes()


def test_it_changes_nothing_that_a_crash_has_left(tmp_path: Path) -> None:
    """A log that a dead owner has left is read, and stays."""
    live = tmp_path / "live.db"
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(live)) as broker:
        broker.topic("orders").put(b"tea")
        for ending in ("", "-wal"):
            copy = subprocess.run(  # noqa: S603 - to close a file drops locks
                [
                    sys.executable,
                    "-c",
                    "import shutil, sys; shutil.copy(*sys.argv[1:])",
                    f"{live}{ending}",
                    f"{path}{ending}",
                ],
                check=True,
            )
            assert 0 == copy.returncode
    log = Path(f"{path}-wal")
    before = path.read_bytes(), log.read_bytes()
    assert {"orders": (1, False)} == seen(path)
    assert before == (path.read_bytes(), log.read_bytes())


def test_it_sees_one_moment_while_the_owner_writes(tmp_path: Path) -> None:
    """What is put and finished meanwhile does not show, whatever is read when."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        billing = orders.channel("billing")
        first = orders.put(b"tea")
        with Snapshot(str(path)) as snapshot:
            orders.put(b"jam")
            broker.topic("later")
            nsqlite.Consumer(billing).get(timeout=0).fin()
            billing.empty()
            [topic] = snapshot.topics
            [message] = snapshot.messages(topic)
            assert (first, b"tea") == (f"{message.id:016x}", message.data)
            assert message.timestamp == snapshot.find_oldest(topic, topic.channels[0])
        assert {"orders", "orders:billing", "later"} == set(seen(path))
    assert (0, 0, False) == seen(path)["orders:billing"]


def test_it_needs_no_lock_of_another_process(tmp_path: Path) -> None:
    """A file can be looked at while a process has it, and that goes on undisturbed."""
    path = tmp_path / "jobs.db"
    owner = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "error", "-c", OWNER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert "open\n" == owner.stdout.readline()
    assert (3, 0, False) == seen(path)["orders:billing"]
    assert [b"tea", b"jam", b"eggs"] == [
        line.data for line in told_of(path) if isinstance(line, MessageLine)
    ]
    owner.communicate("", timeout=60)
    assert 0 == owner.returncode
    assert (3, 0, False) == seen(path)["orders:billing"]


def test_messages_name_who_holds_them(tmp_path: Path) -> None:
    """A message has the channels that still hold it, with their attempts and dues."""
    path = tmp_path / "jobs.db"
    fill(path)
    with Snapshot(str(path)) as snapshot:
        topics = {topic.name: topic for topic in snapshot.topics}
        orders = list(snapshot.messages(topics["orders"]))
        assert [b"tea", b"jam", b"eggs", b"\xff\0", b'{"cake":1}', b"later"] == [
            one.data for one in orders
        ]
        assert (Held("audit", 0, None),) == orders[0].channels
        assert orders[1].channels is not None
        assert ("billing", 1) == (orders[1].channels[1].name, orders[1].channels[1].attempts)
        assert orders[1].channels[1].due is not None
        assert [None, None, None, None, "json", None] == [one.codec for one in orders]
        assert [None] * 6 == [one.due for one in orders]
        held = list(snapshot.messages(topics["held"]))
        assert [None, None] == [one.channels for one in held]
        assert [False, True] == [one.due is not None for one in held]
        paused = list(snapshot.messages(topics["paused"]))
        assert [2, 0, 0, 1] == [len(one.channels or ()) for one in paused]
        assert 1 == snapshot.count_deferred(topics["paused"], None, SYSTEM.time_ns())
        assert ["json"] == snapshot.codecs(topics["orders"])
        assert [] == snapshot.codecs(topics["empty"])


def test_what_nobody_holds_is_left_out(tmp_path: Path) -> None:
    """What lies in the file and is only to be forgotten is not told."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, "UPDATE channel SET since = (SELECT max(last) FROM topic), held = 0")
    with Snapshot(str(path)) as snapshot:
        topics = {topic.name: topic for topic in snapshot.topics}
        assert [] == list(snapshot.messages(topics["orders"]))


def test_the_oldest_is_found_from_both_ends(tmp_path: Path) -> None:
    """The oldest is that of the queue itself, whether it lies at the one end or the other."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        orders = broker.topic("orders")
        names = ["all", "first", "last", "none"]
        channels = {name: orders.channel(name) for name in names}
        for number in range(9):
            orders.put(b"%d" % number)
        for name, kept in (("first", b"0"), ("last", b"8"), ("none", b"")):
            consumer = nsqlite.Consumer(channels[name])
            consumer.fin_many([one for one in consumer.get_many(9, timeout=0) if one.body != kept])
            consumer.close()
    with Snapshot(str(path)) as snapshot:
        [topic] = snapshot.topics
        times = [message.timestamp for message in snapshot.messages(topic)]
        found = {one.name: snapshot.find_oldest(topic, one) for one in topic.channels}
        assert {"all": times[0], "first": times[0], "last": times[8], "none": None} == found
        topic.channels[-1].held = 1  # as a file could say that was changed by others
        assert snapshot.find_oldest(topic, topic.channels[-1]) is None
        assert snapshot.find_oldest(topic, None) is None


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    """Each thing that is no file of nsqlite's, or of another version, is told in a line."""
    path = tmp_path / "jobs.db"

    def told(kind: type[StoreError]) -> str:
        with pytest.raises(kind) as caught:
            Snapshot(str(path))
        assert str(path) == caught.value.where
        return caught.value.problem

    assert "there is no such file" == told(StoreError)
    path.mkdir()
    assert "it is no file" == told(StoreError)
    path.rmdir()
    path.write_bytes(b"")
    assert "it is no file of nsqlite's" == told(StoreForeign)
    path.write_bytes(b"something else, and long enough to be looked at" * 9)
    assert "it is no SQLite file (file is not a database)" == told(StoreForeign)
    path.unlink()
    fill(path)
    change(path, "PRAGMA user_version = 99")
    assert "a later nsqlite wrote it (version 99; this one knows 1)" == told(StoreForeign)
    change(path, "PRAGMA user_version = 0")
    text = "an earlier nsqlite wrote it (version 0): open it once with a broker"
    assert text == told(StoreForeign)
    change(path, "PRAGMA user_version = 1", "DROP TABLE message_1")
    assert "it cannot be used (no such table: message_1)" == told(StoreError)
    path.write_bytes(path.read_bytes()[:512])
    assert told(StoreDamaged).startswith("it is damaged: restore it from a backup (")


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    """What means something in a URI means nothing in a path."""
    path = tmp_path / "a b?mode=memory#%41.db"
    fill(path)
    assert "orders" in seen(path)


def test_a_path_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    """A name that is too long is told as what it is; one below a file is no file."""
    long = str(tmp_path / ("a" * 300))
    with pytest.raises(StoreError) as caught:
        Snapshot(long)
    assert f"store {long}: it cannot be read: File name too long" == str(caught.value)
    path = tmp_path / "jobs.db"
    fill(path)
    with pytest.raises(StoreError) as caught:
        Snapshot(f"{path}/x")
    assert f"store {path}/x: there is no such file" == str(caught.value)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE topic SET handed = 'x'",
        "UPDATE topic SET held = 'x'",
        "UPDATE message_1 SET data = 'x'",
    ],
)
def test_a_value_of_the_wrong_type_is_damage(tmp_path: Path, statement: str) -> None:
    """A file in which a number has become a text is damaged, and told as that."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, statement)
    with pytest.raises(StoreDamaged) as caught:
        told_of(path)
    text = f"store {path}: it is damaged: restore it from a backup ("
    assert str(caught.value).startswith(text)
