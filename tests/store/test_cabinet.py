"""A cabinet: an account is taken in one piece, and what could not be written is taken back."""

from pathlib import Path
from typing import Any

import pytest
from helpers import bodies

from nsqlite.store import GONE, Batch, StoredTopic
from nsqlite.store.cabinet import Account, Cabinet
from store.stores import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    with Scene(tmp_path / "jobs.db", sync="interval") as scene:
        yield scene


def cabinet_of(scene: Scene) -> Cabinet:
    topic: Any = scene.topic()
    found: Cabinet = topic.cabinet
    return found


def account(scene: Scene) -> Account:
    with scene.topic()._monitor.lock:
        return cabinet_of(scene).account()


def test_an_account_tells_all_once(scene: Scene) -> None:
    """What was told is not told again; counts are of the moment."""
    consumer = scene.consumer()
    scene.topic().put(b"1")
    scene.topic().put(b"2")
    message = consumer.get(timeout=0)
    told = account(scene)
    assert told.topic is not None
    [channel] = told.topic.channels
    assert ("billing", 2, False) == (channel.name, channel.held, channel.paused)
    assert 2 == len(told.pending)
    [(shelf, notes)] = told.notes
    assert "billing" == shelf.name
    assert {message.id: (1, None)} == notes
    assert told is cabinet_of(scene).sent
    cabinet_of(scene).sent = None  # it was written
    again = account(scene)
    assert ([], {}) == (again.notes, again.pending)
    cabinet_of(scene).sent = told
    with scene.topic()._monitor.lock:
        cabinet_of(scene).restore()
    assert cabinet_of(scene).sent is None


def test_what_was_decided_is_unwritten_until_its_account_is_written(scene: Scene) -> None:
    """A channel that another thread asks for is not there while its account is on its way."""
    scene.channel()
    cabinet = cabinet_of(scene)
    steps = [cabinet.is_unwritten()]
    with scene.topic()._monitor.lock:
        cabinet.decided = True
        steps.append(cabinet.is_unwritten())
        cabinet.account()
        steps.append(cabinet.is_unwritten())
        cabinet.sent = None  # it was written
        steps.append(cabinet.is_unwritten())
    assert [False, True, True, False] == steps


def test_an_account_that_was_not_written_is_in_the_next_one(scene: Scene) -> None:
    """If a signal has kept the first one from being written, nothing of it is missing."""
    consumer = scene.consumer()
    scene.topic().put(b"1")
    message = consumer.get(timeout=0)
    first = account(scene)
    message.fin()
    again = account(scene)
    assert first.pending == again.pending
    assert [{message.id: GONE}] == [notes for _, notes in again.notes]


def test_what_was_taken_back_is_told_with_what_came_since(scene: Scene) -> None:
    """The later note of a message counts; deleted channels and what was emptied are told again."""
    consumer = scene.consumer()
    scene.channel("audit").delete()
    scene.topic().put(b"1")
    first = consumer.get(timeout=0)
    cabinet = cabinet_of(scene)
    cabinet.gone.append(77)
    cabinet.emptied.append(("0" * 16, "1" * 16))
    cabinet.unheld = True
    told = account(scene)
    assert [77] == told.gone
    first.fin()
    scene.topic().put(b"2")
    cabinet.gone.append(78)
    cabinet.emptied.append(("1" * 16, "2" * 16))
    with scene.topic()._monitor.lock:
        cabinet.restore()
        cabinet.restore()  # the second time there is nothing
    again = account(scene)
    assert [77, 78] == again.gone
    assert [("0" * 16, "1" * 16), ("1" * 16, "2" * 16)] == again.emptied
    assert again.unheld
    assert 2 == len(again.pending)
    assert {first.id: GONE} == again.notes[0][1]
    cabinet.gone = []
    again.gone, again.emptied = [], []
    with scene.topic()._monitor.lock:
        cabinet.restore()


def test_a_deleted_topic_tells_only_that(scene: Scene) -> None:
    """Of a topic that is gone nothing else is told, also where it may never have been written."""
    scene.channel()
    cabinet = cabinet_of(scene)
    topic = scene.topic()
    cabinet.deleted = True
    for written in (True, False):
        cabinet.written = written
        with topic._monitor.lock:
            told = cabinet.account()
        assert (None, cabinet.number) == (told.topic, told.gone_topic)
        batch = Batch()
        told.add_to(batch, cabinet.number)
        assert Batch(gone_topics=[cabinet.number]) == batch
    cabinet.deleted, cabinet.written = False, True


def test_what_one_channel_had_and_finished_is_never_written() -> None:
    """A pending message that its only channel has done with is left out, with its note."""
    shelf: Any = type("Shelf", (), {"number": 5})()
    held: Any = type("Shelf", (), {"number": None})()
    one, two = "0" * 15 + "1", "0" * 15 + "2"
    told = Account(
        topic=StoredTopic(number=3, name="orders", channels=[object()]),  # type: ignore[list-item]
        pending={
            one: (1, 10, None, None, None, b"1"),
            two: (2, 20, None, None, None, b"2"),
        },
        notes=[(shelf, {one: GONE, two: (1, None)})],
        emptied=[("0" * 16, one)],
        gone=[9],
        unheld=True,
    )
    batch = Batch()
    told.add_to(batch, 3)
    assert [(3, [(2, 20, None, None, None, b"2")])] == batch.rows
    assert [(3, 5, {2: (1, None)})] == batch.copies
    assert [(3, 0, 1)] == batch.emptied
    assert [(3, 9)] == batch.gone_channels
    assert {3} == batch.unheld
    assert held.number is None


def test_a_forgotten_channel_is_remembered_until_it_is_written(scene: Scene) -> None:
    """A name that is no channel's is no loss; a channel's number is told as gone."""
    cabinet = cabinet_of(scene)
    scene.channel()
    with scene.topic()._monitor.lock:
        number = cabinet.shelves["billing"].number
        cabinet.remove("nobody")
        assert ([], False) == (cabinet.gone, cabinet.unheld)
    scene.channel().delete()
    assert {} == cabinet.shelves
    scene.topic().put(b"1")
    other = scene.channel("billing")
    assert number != cabinet.shelves["billing"].number
    assert [b"1"] == bodies(other)
