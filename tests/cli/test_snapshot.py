"""Looking at a file without a trace, while others use it or nobody does."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from storefiles import change, counts, fill, told_of

import nsqlite
from nsqlite import StoreDamaged, StoreError, StoreForeign
from nsqlite.cli.lines import MessageLine
from nsqlite.cli.snapshot import Snapshot
from nsqlite.clock import SYSTEM
from nsqlite.store.schema import OWN, VERSION

VERSION_1 = Path(__file__).parents[1] / "store" / "version_1.db"

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
            found[topic.stored.name] = (topic.stored.held, topic.stored.paused)
            for channel in topic.channels:
                deferred = snapshot.count_deferred(topic, channel, now)
                found[f"{topic.stored.name}:{channel.name}"] = (
                    channel.held - deferred,
                    deferred,
                    channel.paused,
                )
    return found


def as_after_a_kill(path: Path) -> None:
    """Change a file so that it says of nothing how much there is, as after a crash."""
    change(path, "UPDATE topic SET counted = 0, held = 99", "UPDATE channel SET held = 99")


def test_it_counts_what_a_broker_finds(tmp_path: Path) -> None:
    """Depths, deferred messages and pauses are those that a broker finds when it opens the file."""
    path = tmp_path / "jobs.db"
    fill(path)
    before = seen(path)
    assert counts(path) == before
    assert before == seen(path)
    assert (1, 2, False) == before["orders:billing"]
    assert {"empty", "held", "orders", "paused"} == {name for name in before if ":" not in name}


def test_it_counts_what_was_not_counted(tmp_path: Path) -> None:
    """What the owner has not counted is counted, also what is for one channel alone."""
    path = tmp_path / "jobs.db"
    fill(path)
    expected = seen(path)
    as_after_a_kill(path)
    assert expected == seen(path)
    assert expected == counts(path)


def test_it_believes_the_file_that_was_counted(tmp_path: Path) -> None:
    """What the file itself tells is not counted again, since that takes long."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, "UPDATE topic SET held = 99")
    assert (99, False) == seen(path)["orders"]


def test_topics_that_share_a_partition_are_told_apart(tmp_path: Path) -> None:
    """Of messages that lie among those of others each topic has its own."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path, codec="json")) as broker:
        for number in range(OWN + 3):
            topic = broker.topic(f"topic{number:02}")
            consumer = nsqlite.Consumer(topic.channel("c"))
            topic.put_many([{"n": i} if number == OWN else b"tea" for i in range(number)])
            topic.put(b"later", delay=1000 + number)
            if number:
                consumer.get(timeout=0).req(delay=500)
            consumer.close()
    now = SYSTEM.time_ns()
    with Snapshot(str(path)) as snapshot:
        partitions = [topic.known.partition for topic in snapshot.topics]
        assert [*range(1, OWN + 1), 0, 0, 0] == partitions
        for number, one in enumerate(snapshot.topics):
            [channel] = one.channels
            assert number + 1 == channel.held
            assert 1 + bool(number) == snapshot.count_deferred(one, channel, now)
            assert (["json"] if number == OWN else []) == snapshot.codecs(one)
        oldest = [snapshot.find_oldest(topic, topic.channels[0]) for topic in snapshot.topics]
        lasts = [snapshot.last(topic) for topic in snapshot.topics]
    assert None not in oldest
    assert sorted(set(oldest)) == oldest  # type: ignore[type-var]  # none is None
    assert sorted(set(lasts)) == lasts
    before = seen(path)
    as_after_a_kill(path)
    assert before == seen(path)


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
            assert ["billing"] == [channel.name for channel in topic.channels]
            assert int(first, 16) == snapshot.last(topic)
            assert snapshot.find_oldest(topic, topic.channels[0]) is not None
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
    times = [line.timestamp for line in told_of(path) if isinstance(line, MessageLine)]
    with Snapshot(str(path)) as snapshot:
        [topic] = snapshot.topics
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
    assert "it is not a file of nsqlite" == told(StoreForeign)
    path.write_bytes(b"something else, and long enough to be looked at" * 9)
    assert "it is no SQLite file (file is not a database)" == told(StoreForeign)
    path.unlink()
    fill(path)
    change(path, "PRAGMA user_version = 99")
    assert f"a later nsqlite wrote it (version 99; this one knows {VERSION})" == told(StoreForeign)
    change(path, "PRAGMA user_version = 1")
    text = "an earlier nsqlite wrote it (version 1): open it once with a broker"
    assert text == told(StoreForeign)
    change(path, f"PRAGMA user_version = {VERSION}")
    change(path, "UPDATE topic SET counted = 0", "DROP TABLE messages_1")
    assert "it cannot be used (no such table: messages_1)" == told(StoreError)
    path.write_bytes(path.read_bytes()[:512])
    assert told(StoreDamaged).startswith("it is damaged: restore it from a backup (")


def test_a_file_of_an_earlier_version_is_told(tmp_path: Path) -> None:
    """A file of version 1 is to be opened by a broker; then it can be looked at."""
    path = tmp_path / "jobs.db"
    shutil.copy(VERSION_1, path)
    with pytest.raises(StoreForeign) as caught:
        Snapshot(str(path))
    assert caught.value.problem.endswith("(version 1): open it once with a broker")
    expected = counts(path)
    assert expected == seen(path)


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
        "UPDATE channel SET since = 'x'",
        "UPDATE channel SET topic = 99",
        "UPDATE messages_1 SET data = 'x'",
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


def test_a_number_that_is_none_is_told(tmp_path: Path) -> None:
    """A damaged number is told as what it is."""
    path = tmp_path / "jobs.db"
    fill(path)
    change(path, "UPDATE topic SET handed = 'x'")
    with pytest.raises(StoreDamaged) as caught:
        Snapshot(str(path))
    assert caught.value.problem.startswith("it is damaged: restore it from a backup")
