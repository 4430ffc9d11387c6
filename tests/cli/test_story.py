"""The life of one message, as a store and a recording tell it."""

import re
from pathlib import Path
from typing import Any

import pytest
from recordings import record
from storefiles import change

import nsqlite.testing
from nsqlite.__main__ import main
from nsqlite.cli.story import UNKNOWN
from nsqlite.timeline import GivenUp, Recording, read_recording

GONE = "In billing it is no more: it was finished, or taken out."


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what calls the command, and returns its status, its lines and what it complains of."""

    def run(file: Path, *arguments: object) -> tuple[int, list[str], str]:
        try:
            status = main(["story", str(file), *map(str, arguments)])
        except SystemExit as ending:
            status = int(ending.code or 0)
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.replace(f"{tmp_path}/", "")

    return run


def opened(path: Path, **options: Any) -> nsqlite.Broker:
    store = nsqlite.SQLite(path, codec="json", **options)
    return nsqlite.Broker(store=store)


# From a recording


def test_a_recording_tells_what_happened(tmp_path: Path, call: Any) -> None:
    """Of a message it tells each step, and with which run it was."""
    path = tmp_path / "jobs.rec"
    *_, jam = record(path)
    status, lines, err = call(path, jam)
    assert (0, "") == (status, err)
    assert lines[0].startswith("run 2 of 2: ")
    assert f"message {jam} of topic orders: jam" == lines[1]
    assert "jam is delivered to till, attempt 1" in "\n".join(lines)


def test_an_id_that_a_recording_does_not_know(tmp_path: Path, call: Any) -> None:
    """It is told in one line, and when such an id was given."""
    path = tmp_path / "jobs.rec"
    record(path)
    text = "jobs.rec knows no message 18ab802ac5800001; by its id it is of 2026-11-28 08:41:11 UTC"
    assert (1, [], f"python -m nsqlite story: {text}\n") == (call(path, "18ab802ac5800001"))


# From a store


def test_a_store_tells_where_it_is(tmp_path: Path, call: Any) -> None:
    """Of each channel that was there it tells the state, or that it is gone."""
    path = tmp_path / "jobs.db"
    with opened(path) as broker:
        orders = broker.topic("orders")
        billing, audit = (orders.channel(name) for name in ("billing", "audit"))
        orders.channel("third")
        identity = orders.put({"item": "tea"})
        nsqlite.Consumer(billing).get(timeout=0).fin()
        nsqlite.Consumer(audit).get(timeout=0).req(delay=1000)
        orders.channel("later")
        orders.put(b"jam")
        broker.topic("mails").put(b"hello")
    status, lines, err = call(path, identity)
    assert (0, "") == (status, err)
    first, second, *places = lines
    assert f'message {identity} of topic orders: b\'{{"item":"tea"}}\' (json)' == first
    assert re.fullmatch(r"It was put at \S+ \S+ UTC, .+ ago\.", second)
    assert [
        "In audit it is deferred for 16 min 40 s more, attempts 1.",
        GONE,
        "In third it is ready, attempts 0.",
    ] == sorted(re.sub("16 min 39 s", "16 min 40 s", place) for place in places)


def test_what_a_topic_holds_itself(tmp_path: Path, call: Any) -> None:
    """A message may be in the topic, and not in any channel yet."""
    path = tmp_path / "jobs.db"
    with opened(path) as broker:
        identity = broker.topic("orders").put(b"tea")
    last = call(path, identity)[1][-1]
    assert "In the topic, paused or without channels, it is ready, attempts 0." == last


def test_the_owner_of_a_file_knows_more(tmp_path: Path, call: Any) -> None:
    """Of a file in use its owner tells what is in flight, and what it has not written yet."""
    path = tmp_path / "jobs.db"
    with opened(path, control=True) as broker:
        orders = broker.topic("orders")
        names = ("audit", "billing", "till")
        audit, billing, till = (nsqlite.Consumer(orders.channel(name)) for name in names)
        orders.channel("idle")
        identity = orders.put(b"tea")
        broker.flush()
        billing.get(timeout=0).fin()
        held = audit.get(timeout=0)
        till.get(timeout=0).req(delay=1000)
        places = call(path, identity)[1][2:]
        held.fin()
    told = sorted(re.sub(r"for \d.* more", "for SOME more", place) for place in places)
    assert [
        f"In audit it is in flight, with consumer {audit.client_id}, for SOME more, attempts 1.",
        GONE,
        "In idle it is ready, attempts 0.",
        "In till it is deferred, for SOME more, attempts 1.",
    ] == told


def test_an_owner_that_does_not_answer(tmp_path: Path, call: Any) -> None:
    """Where the owner does not listen it is said that nobody knows what is in flight."""
    path = tmp_path / "jobs.db"
    with opened(path) as broker:
        channel = broker.topic("orders").channel("billing")
        identity = broker.topic("orders").put(b"tea")
        message = nsqlite.Consumer(channel).get(timeout=0)
        assert ["In billing it is ready, attempts 0.", UNKNOWN] == call(path, identity)[1][2:]
        del message


# Both


def test_a_store_and_its_recording(tmp_path: Path, call: Any) -> None:
    """The recording tells of what the store has forgotten, and how it came to what it has."""
    path, record = tmp_path / "jobs.db", tmp_path / "jobs.rec"
    store = nsqlite.SQLite(path, codec="json")
    with (
        Recording(record) as recording,
        nsqlite.Broker(store=store, observers=[recording]) as broker,
    ):
        orders = broker.topic("orders")
        consumer = nsqlite.Consumer(orders.channel("billing"))
        gone = orders.put(b"tea")
        consumer.get(timeout=0).fin()
        there = orders.put(b"jam")
    status, lines, _ = call(path, gone, "--record", record)
    assert (0, f"{path} has it no more: all have done with it.", "") == (status, *lines[:2])
    assert "tea is finished" in "\n".join(lines) or "finishes tea" in "\n".join(lines)
    _, lines, _ = call(path, there, "--record", record)
    assert ["In billing it is ready, attempts 0.", ""] == lines[2:4]
    text = f"jobs.db knows no message {gone}: it was never put there, or all have done with it; by"
    status, lines, err = call(path, gone)
    assert (1, []) == (status, lines)
    assert err.startswith(f"python -m nsqlite story: {text} its id it is of ")


def test_a_dead_letter_is_found(tmp_path: Path, call: Any) -> None:
    """Of what a worker gave up it tells where the dead letter is, or that it is no more."""
    path, record = tmp_path / "jobs.db", tmp_path / "jobs.rec"
    with (
        Recording(record) as recording,
        nsqlite.testing.FakeBroker(
            store=nsqlite.SQLite(path, codec="json"), observers=[recording]
        ) as broker,
    ):
        dead = broker.topic("dead").channel("letters")
        gone, kept = (give_up(broker, "dead", body) for body in ("jam", "tea"))
        nsqlite.Consumer(dead).get(timeout=0).fin()
    letter = f"message {letter_id(record, kept)} of topic dead"
    status, lines, err = call(path, kept, "--record", record)
    assert (0, "") == (status, err)
    assert [
        f"{path} has it no more.",
        f"billing gave it up: it is {letter} now.",
        "In letters it is ready, attempts 0.",
        "",
    ] == lines[:4]
    given_up = "gives up tea after attempt 1: ValueError: burnt; it goes to topic dead as message"
    assert given_up in "\n".join(lines)
    letter = f"message {letter_id(record, gone)} of topic dead"
    assert (
        f"billing gave it up: it became {letter}, which is no more either."
        == (call(path, gone, "--record", record)[1][1])
    )
    told = "\n".join(call(record, letter_id(record, kept))[1])
    what = f"dead letter of message {kept} of topic orders, given up in billing after attempt 1"
    assert f"{letter_id(record, kept)} of topic dead: {what}: ValueError: burnt; its body:" in told


def give_up(broker: nsqlite.testing.FakeBroker, dead: str, body: str) -> str:
    """Put a message, have a worker give it up, and return its id."""

    def fail(_message: nsqlite.Message[Any]) -> None:
        raise ValueError("burnt")

    channel = broker.topic("orders").channel("billing")
    once = nsqlite.Retry(max_attempts=1)
    worker = nsqlite.Worker(channel, fail, retry=once, dead_letter=broker.topic(dead))
    identity = broker.topic("orders").put(body)
    worker.drain()
    worker.stop()
    return identity


def letter_id(record: Path, identity: str) -> str:
    """Return the id of a message's dead letter."""
    return next(
        event.id or ""
        for event in read_recording(record).events
        if isinstance(event.body, GivenUp) and event.body.id == identity
    )


# What is refused


def test_what_is_no_id(tmp_path: Path, call: Any) -> None:
    """An id has 16 characters; a part of one is refused."""
    text = "expected an id of 16 hex characters (0-9, a-f), not '18ab'"
    assert (1, [], f"python -m nsqlite story: {text}\n") == call(tmp_path / "jobs.rec", "18ab")


def test_what_is_no_file(tmp_path: Path, call: Any) -> None:
    """A file that is not there, or another program's, is told in one line."""
    identity = "18ab802ac5800001"
    text = "recording jobs.rec: there is no such file"
    assert (1, [], f"python -m nsqlite story: {text}\n") == call(tmp_path / "jobs.rec", identity)
    path = tmp_path / "other.db"
    change(path, "CREATE TABLE tea (a)")
    text = "store other.db: it is not a file of nsqlite"
    assert (1, [], f"python -m nsqlite story: {text}\n") == call(path, identity)
