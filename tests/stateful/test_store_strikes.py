"""A signal at any place of a call with a store leaves the file as memory is.

Each call is struck once at every place where CPython can let a signal in (see strikes.py).  When
what it has left undone is done, and all is written, a broker that opens what is in the store finds
what the struck one has: each message where it was, each channel as it was.

The default run takes what is called most; the others run by
`pytest -m soak tests/stateful/test_store_strikes.py`.
"""

from collections.abc import Callable
from typing import Any, Final

import pytest
from store.stores import until
from store.test_acknowledged import Scene

from nsqlite import Consumer
from nsqlite.testing import ManualClock
from stateful.strikes import Struck, strike

Act = Callable[[Any], object]

OFTEN: Final[dict[str, Act]] = {
    "put": lambda scene: scene.topic().put(b"x"),
    "put to a queue that drops": lambda scene: scene.topic("bound").put(b"x"),
    "get": lambda scene: scene.consumer.get(timeout=0),
    "fin": lambda scene: scene.message.fin(),
}

SELDOM: Final[dict[str, Act]] = {
    "put_many": lambda scene: scene.topic().put_many([b"x", b"y"]),
    "put with a delay": lambda scene: scene.topic().put(b"x", delay=9),
    "put to what is held": lambda scene: scene.topic("held").put(b"x"),
    "move": lambda scene: scene.consumer.move(scene.message, scene.topic("dead")),
    "move to a channel": lambda scene: scene.consumer.move(scene.message, scene.channel("audit")),
    "req": lambda scene: scene.message.req(),
    "req with a delay": lambda scene: scene.message.req(9),
    "empty a channel": lambda scene: scene.channel("audit").empty(),
    "delete a channel": lambda scene: scene.channel("audit").delete(),
    "find": lambda scene: scene.channel("audit").find(scene.message.id),
    "discard": lambda scene: scene.channel("audit").discard(scene.message.id),
    "pause a channel": lambda scene: scene.channel("audit").pause(),
    "make a channel": lambda scene: scene.channel("new"),
    "make the first channel": lambda scene: scene.channel("first", "dead"),
    "empty a topic": lambda scene: scene.topic("held").empty(),
    "unpause a topic": lambda scene: scene.topic("held").unpause(),
    "pause a topic": lambda scene: scene.topic().pause(),
    "delete a topic": lambda scene: scene.topic().delete(),
}


def fresh(sync: Any) -> Any:
    """Return a broker with some of everything, all of it written."""
    scene: Any = Scene(clock=ManualClock(), sync=sync)
    scene.consumer = Consumer(scene.channel())
    scene.channel("audit")
    scene.topic().put(b"1")
    scene.message = scene.consumer.get(timeout=0)
    scene.topic().put(b"2")
    source = Consumer(scene.channel("source", "source"))
    scene.topic("source").put(b"moved")
    source.move(source.get(timeout=0), scene.channel("audit"))
    scene.channel("c", "held")
    scene.topic("held").put(b"c")
    scene.topic("held").pause()
    scene.topic("held").put_many([b"h", b"i"])
    scene.topic("held").put(b"late", delay=50)
    scene.topic("dead")
    scene.topic("bound").channel("b", max_depth=2, when_full="drop oldest")
    scene.topic("bound").put_many([b"p", b"q"])
    scene.broker.flush()
    return scene


def state_of(broker: Any) -> dict[str, Any]:
    """Return what a broker has, by topic; what topics hold is handed on for that."""
    found: dict[str, Any] = {}
    for name, topic in sorted(broker.topics.items()):
        before = topic.paused, topic.depth, sorted(topic.channels)
        if topic.depth and not topic.channels:
            topic.channel("first")
        topic.unpause()
        channels = {
            one: (channel.paused, bodies_of(channel))
            for one, channel in sorted(topic.channels.items())
        }
        found[name] = before, topic.depth, channels
    return found


def bodies_of(channel: Any) -> list[bytes]:
    """Return what a channel has, ready, in flight or deferred."""
    found = (*channel.peek(99), *channel.in_flight(99), *channel.deferred(99))
    return sorted(one.body for one in found)


def struck_everywhere(call: Act, sync: Any) -> None:
    """Check that a call leaves the file as memory is, wherever it is struck."""
    for run in strike(lambda: fresh(sync), call, drop=lambda scene: scene.broker.close(), often=1):
        assert run.error is None or isinstance(run.error, Struck), run.place
        scene = run.scene
        with scene:
            journal = scene.broker._persistence.journal
            until(lambda journal=journal: not (journal._adopted or journal.queue))  # type: ignore[misc]  # used at once
            scene.broker.flush()
            scene.broker._check()
            with scene.as_left() as left:
                assert state_of(scene.broker) == state_of(left), run.place


@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("call", OFTEN)
def test_what_is_struck(call: str, sync: str) -> None:
    """The calls that are made most."""
    struck_everywhere(OFTEN[call], sync)


@pytest.mark.soak
@pytest.mark.parametrize("sync", ["normal", "interval"])
@pytest.mark.parametrize("call", SELDOM)
def test_what_is_struck_seldom(call: str, sync: str) -> None:
    """All others."""
    struck_everywhere(SELDOM[call], sync)
