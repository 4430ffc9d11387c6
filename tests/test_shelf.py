"""What a queue needs of a store: only the core's side, with a shelf that keeps nothing."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from nsqlite import Consumer, Empty, Message, Topic
from nsqlite.message import Record
from nsqlite.observe import Kind
from nsqlite.shelf import Shelf, Told
from nsqlite.store.shelf import Shelf as Kept


class Listening:
    """A shelf that only listens."""

    counted = False

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.pages: list[Callable[[], None]] = []
        self.problem: Exception | None = None

    def hear(self, kind: Kind, record: Record[Any] | None, due: int | None) -> None:
        what = "" if record is None else f" {record[0]!r} {record[4]}"
        self.heard.append(f"{kind.value}{what}{'' if due is None else ' due'}")

    def delivered(self, messages: Iterable[Message[Any]]) -> None:
        self.heard.extend(f"delivered {message.body!r}" for message in messages)

    def finished(self, messages: Iterable[Message[Any]]) -> None:
        self.heard.extend(f"finished {message.body!r}" for message in messages)

    def deliver(self, owner: Any) -> Message[Any] | None:  # noqa: ARG002 - a Shelf's
        self.heard.append("deliver")
        return None

    def finish(self, owner: Any, message: Message[Any]) -> bool:  # noqa: ARG002 - a Shelf's
        self.heard.append("finish")
        return False

    def put_away(self) -> None:
        self.heard.append("put away")

    def fetch(self) -> None:
        self.heard.append("fetch")
        self.pages.pop()()

    def send(self, errand: Callable[[], object], told: Told) -> None:
        raise NotImplementedError

    def settle(self, messages: list[Message[Any]]) -> None:
        self.heard.append(f"settle {len(messages)}")
        if self.problem is not None:
            raise self.problem


class Scene:
    """A channel with such a shelf."""

    def __init__(self) -> None:
        self.topic: Topic[Any] = Topic("orders")
        self.channel = self.topic.channel("billing")
        self.shelf = Listening()
        self.flow = self.channel._flow
        self.flow.shelf = self.shelf
        self.consumer = Consumer(self.channel)

    def put(self, *bodies: Any) -> None:
        """Put messages as a store does, which shows what it has written."""
        for number, body in enumerate(bodies):
            self.flow.ready.append((body, 0, "0" * 13, f"{number:03x}", 0))

    def heard(self) -> list[str]:
        """Return what the shelf has heard since the last call."""
        heard, self.shelf.heard = self.shelf.heard, []
        return heard


def test_all_that_becomes_of_a_message_is_heard() -> None:
    """Whatever way a message goes, its shelf hears of it, without any observer."""
    scene = Scene()
    scene.put(1, 2, 3, 4, 5)
    message = scene.consumer.get(timeout=0)
    assert ["deliver", "delivered 1 1 due"] == scene.heard()
    message.fin()
    assert ["finish", "finished 1"] == scene.heard()
    scene.consumer.get(timeout=0).req()
    assert ["deliver", "delivered 2 1 due", "requeued 2 1"] == scene.heard()
    scene.consumer.get(timeout=0).req(delay=5)
    assert ["deliver", "delivered 3 1 due", "requeued 3 1 due", "deferred 3 1 due"] == scene.heard()
    batch = scene.consumer.get_many(2)
    assert ["delivered 4", "delivered 5"] == scene.heard()
    scene.consumer.fin_many(batch)
    assert ["finished 4", "finished 5"] == scene.heard()
    scene.consumer.get(timeout=0)
    scene.consumer.close()
    assert ["deliver", "delivered 2 2 due", "returned 2 2"] == scene.heard()
    scene.channel.pause()
    scene.channel.unpause()
    scene.channel.empty()
    assert ["paused", "unpaused", "emptied"] == scene.heard()


def test_what_is_closed_is_put_away() -> None:
    """A closed queue throws nothing away: its shelf takes it back; a deleted one forgets it."""
    scene = Scene()
    scene.put(1, 2)
    assert 0 == scene.channel.close()
    assert ["put away", "closed"] == scene.heard()
    scene = Scene()
    scene.put(1, 2)
    assert 2 == scene.channel.delete()
    assert ["deleted"] == scene.heard()


def test_what_lies_beyond_counts() -> None:
    """What is in the file alone is ready, but not in memory."""
    scene = Scene()
    scene.put(1)
    scene.flow.beyond = 2
    assert [3, 3, False] == [scene.channel.depth, scene.flow.total(), scene.flow.is_idle()]
    stats = scene.channel.stats()
    assert (3, 2) == (stats.depth, stats.backend_depth)
    assert not scene.channel.join(timeout=0)
    assert 3 == scene.channel.empty()
    assert 0 == scene.flow.beyond


def test_get_fetches_until_there_is_something() -> None:
    """A `get` that does not wait has a page read if memory is empty and the file is not."""
    scene = Scene()
    scene.flow.beyond = 1

    def arrive() -> None:
        scene.flow.beyond = 0
        scene.put(1)

    scene.shelf.pages = [arrive, lambda: None]
    assert 1 == scene.consumer.get(timeout=0).body
    assert ["deliver", "fetch", "fetch", "delivered 1 1 due"] == scene.heard()
    with pytest.raises(Empty):
        scene.consumer.get(timeout=0)
    assert ["deliver"] == scene.heard()


def test_a_counted_delivery_is_settled() -> None:
    """Where deliveries are counted `get` has them settled, and passes on what that raises."""
    scene = Scene()
    scene.shelf.counted = True
    scene.put(1, 2, 3)
    scene.consumer.get(timeout=0)
    scene.consumer.get_many(2)
    assert [
        "deliver",
        "delivered 1 1 due",
        "settle 1",
        "delivered 2",
        "delivered 3",
        "settle 2",
    ] == (scene.heard())
    scene.put(4, 5)
    scene.shelf.problem = LookupError("no")
    with pytest.raises(LookupError):
        scene.consumer.get(timeout=0)
    with pytest.raises(LookupError):
        scene.consumer.get_many(2)


def test_the_stores_shelf_is_one() -> None:
    """The store's shelf has all that the core asks for."""
    asked = {name for name in vars(Shelf) if not name.startswith("_")}
    assert asked == {name for name in asked if hasattr(Kept, name)}
    assert {"hear", "deliver", "finish", "settle", "fetch", "put_away"} <= asked
