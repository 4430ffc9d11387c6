"""`inspect`: the same as a table and as JSON."""

import json
import re
from pathlib import Path

import pytest
from storefiles import change, fill

import nsqlite
from nsqlite.cli.overview import UNKNOWN, inspect, overview
from nsqlite.store.schema import VERSION

QUEUE = {"paused", "depth", "deferred_count", "oldest_age"}


def test_json_has_these_keys(tmp_path: Path) -> None:
    """The keys are those that are documented, at each level."""
    path = tmp_path / "jobs.db"
    fill(path)
    [text] = inspect(str(path), as_json=True)
    found = json.loads(text)
    assert {"file", "version", "bytes", "log_bytes", "topics"} == set(found)
    assert (str(path), VERSION, path.stat().st_size, 0) == tuple(found.values())[:4]
    assert ["empty", "held", "orders", "paused"] == [t["topic_name"] for t in found["topics"]]
    for topic in found["topics"]:
        assert {"topic_name", "codecs", "channels", *QUEUE} == set(topic)
        for channel in topic["channels"]:
            assert {"channel_name", "in_flight_count", *QUEUE} == set(channel)


def test_it_counts(tmp_path: Path) -> None:
    """Ready and deferred messages are counted apart in a channel; a topic's depth has both."""
    path = tmp_path / "jobs.db"
    fill(path)
    topics = {topic["topic_name"]: topic for topic in overview(str(path))["topics"]}
    assert (2, 1) == (topics["held"]["depth"], topics["held"]["deferred_count"])
    assert ["json"] == topics["orders"]["codecs"]
    channels = {one["channel_name"]: one for one in topics["orders"]["channels"]}
    assert [(5, 1, True), (1, 2, False), (0, 0, False)] == [
        (channels[name]["depth"], channels[name]["deferred_count"], channels[name]["paused"])
        for name in ("audit", "billing", "late")
    ]
    assert channels["late"]["oldest_age"] is None
    assert 0 < channels["audit"]["oldest_age"] < 600


def test_the_table_is_aligned(tmp_path: Path) -> None:
    """The table has the same figures, a line a queue, every column under its head."""
    path = tmp_path / "jobs.db"
    fill(path)
    first, codecs, empty, *rows = inspect(str(path), as_json=False)
    assert f"{path}: {path.stat().st_size} bytes, and 0 in its log" == first
    assert ("codecs: json", "") == (codecs, empty)
    assert 1 == len({len(row) for row in rows})
    assert [
        "topic channel ready in flight deferred oldest paused",
        "empty - 0 0 0 - no",
        "held - 1 0 1 # s no",
        "orders - 0 0 0 - no",
        "orders audit 5 0 1 # s yes",
        "orders billing 1 0 2 # s no",
        "orders late 0 0 0 - no",
        "paused - 1 0 1 # s yes",
        "paused first 2 0 0 # s no",
        "paused second 1 0 0 # s no",
    ] == [re.sub(r"\d+\.\d", "#", " ".join(row.split())) for row in rows]


def test_an_empty_file_has_a_table_too(tmp_path: Path) -> None:
    """A file without topics is a head without rows."""
    path = tmp_path / "jobs.db"
    nsqlite.Broker(store=nsqlite.SQLite(path)).close()
    assert [
        f"{path}: {path.stat().st_size} bytes, and 0 in its log",
        "codecs: -",
        "",
        "topic  channel  ready  in flight  deferred  oldest  paused",
    ] == list(inspect(str(path), as_json=False))


@pytest.mark.parametrize("control", [True, False])
def test_what_is_in_flight_is_told_by_the_owner(tmp_path: Path, control: bool) -> None:
    """An owner that listens is asked; of one that does not it is said that nobody can know."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path, control=control)) as broker:
        topic = broker.topic("orders")
        with nsqlite.Consumer(topic.channel("billing")) as consumer:
            topic.put_many([b"tea", b"milk", b"cake"])
            topic.put(b"late", delay=100)
            broker.flush()
            consumer.get()
            [found] = overview(str(path))["topics"]
            lines = list(inspect(str(path), as_json=False))
    names = ("depth", "in_flight_count", "deferred_count")
    counts = [found["channels"][0][name] for name in names]
    row, *rest = lines[5:]
    if control:
        assert ([2, 1, 1], []) == (counts, rest)
        assert ["2", "1", "1"] == row.split()[2:5]
    else:
        assert ([3, None, 1], ["", UNKNOWN]) == (counts, rest)
        assert ["3", "?", "1"] == row.split()[2:5]


def test_a_channel_that_the_owner_has_just_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the owner does not know is told as the file has it."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path, control=True)) as broker:
        broker.topic("orders").channel("billing")
        monkeypatch.setattr(nsqlite.Attached, "stats", lambda _self: {"topics": []})
        [found] = overview(str(path))["topics"]
    assert (0, 0) == (found["channels"][0]["depth"], found["channels"][0]["in_flight_count"])


def test_the_log_is_counted_while_the_file_is_in_use(tmp_path: Path) -> None:
    """While an owner has it what is not in the file itself yet is shown as its log's size."""
    path = tmp_path / "jobs.db"
    with nsqlite.Broker(store=nsqlite.SQLite(path)) as broker:
        broker.topic("orders").put(b"tea")
        found = overview(str(path))
    assert 0 < found["log_bytes"]
    assert 1 == found["topics"][0]["depth"]


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A file that is not there is told as such."""
    with pytest.raises(nsqlite.StoreError, match="there is no such file"):
        list(inspect(str(tmp_path / "none.db"), as_json=True))


def test_a_file_without_a_log_is_told_of_too(tmp_path: Path) -> None:
    """A file that another tool has copied into one without a log is the same to look at."""
    path = tmp_path / "jobs.db"
    fill(path)
    before = overview(str(path))
    change(path, "PRAGMA journal_mode = DELETE")
    assert {**before, "topics": ..., "bytes": ...} == {
        **overview(str(path)),
        "topics": ...,
        "bytes": ...,
    }
