"""Where things are made: told to whoever wants to know, and looked up for nobody else."""

import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

import nsqlite
from nsqlite import Broker, Consumer, SQLite, Topic, Worker, origin
from nsqlite.origin import Place, look_at_threads, made_at, note, place_of
from nsqlite.server import NSQD

HERE: Final = __file__


def line() -> int:
    """Return the line of the caller."""
    return sys._getframe(1).f_lineno


@pytest.fixture
def noted() -> Iterator[list[tuple[Any, Place]]]:
    """Return what is made, as it is told."""
    noted: list[tuple[Any, Place]] = []

    def watch(made: Any, place: Place) -> None:
        noted.append((made, place))

    origin.watchers.append(watch)
    yield noted
    origin.watchers.remove(watch)


def test_each_kind_of_thing_is_told_of(noted: list[tuple[Any, Place]]) -> None:
    """Brokers, topics, consumers, workers and servers are told of, with the program's line."""
    made: list[Any] = [
        *((broker := Broker()), (topic := broker.topic("orders"))),
        *((alone := Topic("mails")), Consumer(topic.channel("billing"))),
        *(nsqlite.aio.Consumer(alone.channel("send")), Worker(alone.channel("send"), print)),
        NSQD(),
    ]
    here = line()
    assert made == [one for one, _ in noted]
    assert {HERE} == {place.path for _, place in noted}
    assert all(here - 6 <= place.line < here for _, place in noted)


def test_a_store_is_told_of(noted: list[tuple[Any, Place]], tmp_path: Any) -> None:
    """An open store is told of before its broker."""
    with Broker(store=SQLite(tmp_path / "jobs.db")) as broker:
        assert [broker._persistence, broker] == [one for one, _ in noted]


def test_nobody_wants_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked up then."""
    monkeypatch.setattr(origin, "watchers", [])
    assert note(object()) is None


def test_what_nsqlite_makes_by_itself(noted: list[tuple[Any, Place]]) -> None:
    """What is made in a thread that no line of the program is in is not told of."""
    thread = threading.Thread(target=note, args=(object(),))
    thread.start()
    thread.join()
    assert [] == noted


@pytest.mark.parametrize("name", ["nsqlite", "nsqlite.topic", "contextlib", "asyncio.events"])
def test_the_line_is_the_programs(name: str) -> None:
    """The innermost line counts that is neither of nsqlite nor of what stands between."""
    scope: dict[str, Any] = {"__name__": name, "sys": sys}
    exec("def call(): return sys._getframe()", scope)  # noqa: S102 - a frame of another module
    assert Place(HERE, line()) == place_of(scope["call"]())


def test_a_place_in_words() -> None:
    """It is shown as compilers do, and left out where it is not known."""
    place = Place("shop.py", 12)
    assert ("shop.py:12", ", made at shop.py:12", "") == (str(place), made_at(place), made_at(None))


# Where the threads are


def test_threads_are_looked_at_without_the_collector() -> None:
    """While the frames of other threads are made no garbage is collected, and then it is again."""
    here, collects = look_at_threads(lambda frames: (set(frames), gc.isenabled()))
    assert threading.get_ident() in here
    assert (False, True) == (collects, gc.isenabled())


def test_a_look_that_fails_leaves_the_collector_as_it_was() -> None:
    """It goes on if it did, and stays off if it was."""
    with pytest.raises(ZeroDivisionError):
        look_at_threads(lambda frames: len(frames) / 0)
    assert gc.isenabled()
    gc.disable()
    try:
        look_at_threads(len)
        assert not gc.isenabled()
    finally:
        gc.enable()
