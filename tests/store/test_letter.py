"""One put on its way into a store."""

import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import Call

from nsqlite import StoreFull
from nsqlite.store.letter import Letter
from store.stores import Scene, until


def test_a_letter_begins_unreserved(path: Path) -> None:
    """A new letter has what was asked for, and nothing of what comes later."""
    with Scene(path) as scene:
        topic: Any = scene.topic()
        letter = Letter(topic, [(b"1", b"1", None), ({}, b"{}", "json")])
        assert 2 == len(letter)
        assert ([], [], [], 0) == (letter.records, letter.rows, letter.names, letter.size)
        assert (False, False, None) == (letter.settled, letter.shown, letter.error)
        assert (None, (), None, None) == (letter.due, letter.bounded, letter.moved, letter.only)
        assert letter.semaphore.locked()
        assert "a put to topic 'orders' has failed" == letter.what
        letter.moved = (scene.channel()._queue, [])
        assert "a move to topic 'orders' has failed" == letter.what


def test_a_letter_goes_from_reserved_to_shown(path: Path) -> None:
    """It is in the queue while it is being written, then settled, then shown."""
    with Scene(path) as scene:
        channel = scene.channel()
        with scene.spy.held() as held:
            call = Call(lambda: scene.topic().put_many([b"1", b"23"], delay=0))
            until(lambda: held.begun)
            [letter] = scene.keeper.queue
            assert (2, 3, False, False) == (
                len(letter.rows),
                letter.size,
                letter.settled,
                letter.shown,
            )
            assert letter.names == [record[2] + record[3] for record in letter.records]
            assert [int(name, 16) for name in letter.names] == [row[0] for row in letter.rows]
        assert letter.names == call.result()
        assert (True, True, None) == (letter.settled, letter.shown, letter.error)
        assert 2 == channel.depth
        assert 0 == len(scene.keeper.queue)


def test_a_letter_that_is_refused_is_settled_too(path: Path) -> None:
    """It has its error, is out of the queue, and was never shown to a channel."""
    with Scene(path) as scene:
        channel = scene.channel()
        letters: list[Letter] = []

        def refuse(_: str) -> None:
            letters.extend(scene.keeper.queue)
            raise StoreFull("jobs.db", "full")

        scene.spy.before = refuse
        with pytest.raises(StoreFull) as info:
            scene.topic().put_many([b"1"])
        scene.spy.before = lambda _: None
        [letter] = letters
        assert info.value is letter.error
        assert (True, True) == (letter.settled, letter.shown)
        assert (0, 0) == (channel.depth, len(scene.keeper.queue))


def test_who_does_not_block_is_told(path: Path) -> None:
    """A letter with somebody to tell is written by the store's thread, who tells it then."""
    with Scene(path) as scene:
        scene.channel()
        told = threading.Event()
        letter, size, conclude = scene.topic()._draft([b"1"], told.set)
        scene.topic()._send(letter, size, None, 0)
        assert scene.topic()._hurry()
        assert told.wait(20)
        assert [info.id for info in scene.channel().peek()] == conclude()
