"""What all connections publish into a store in one turn of the loop: one batch for each topic.

The rule: a message is answered when it is stored, not before; each connection is told of its own,
in the loop's thread.

A batch costs a commit; so what a hundred clients publish at once costs one, too.

Next: server/connection.py
"""

from asyncio import AbstractEventLoop
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any, Final, TypeAlias

from nsqlite.aio.waiting import news_of
from nsqlite.errors import NSQLiteError
from nsqlite.persistence import OnDone
from nsqlite.topic import Topic

Part: TypeAlias = tuple[list[Any], OnDone]
"""Messages, and what is to be called when they are stored, or with what is wrong."""


class Publishing:
    """Gathers what is published in a turn of the loop.  Everything is called in the loop."""

    __slots__ = ("_loop", "_news", "_parts", "_thread")

    def __init__(self, loop: AbstractEventLoop) -> None:
        """Begin with nothing."""
        self._loop: Final = loop
        self._news: Final = news_of(loop)
        self._thread: Final = get_ident()
        self._parts: dict[Topic[Any], list[Part]] = {}

    def publish(self, topic: Topic[Any], bodies: list[Any], on_done: OnDone) -> None:
        """Publish messages at the end of the turn, all of them or none.

        Args:
            topic: where.
            bodies: the messages.
            on_done: called in the loop, later.
        """
        if not self._parts:
            self._loop.call_soon(self._send)
        self._parts.setdefault(topic, []).append((bodies, on_done))

    def _send(self) -> None:
        """Have stored what was gathered."""
        parts, self._parts = self._parts, {}
        for topic, gathered in parts.items():
            if not self._put(topic, gathered):
                for part in gathered:  # one of them is refused: each is judged by itself
                    self._put(topic, [part])

    def _put(self, topic: Topic[Any], parts: list[Part]) -> bool:
        """Have messages stored, or say that they are refused together."""
        bodies = parts[0][0] if len(parts) == 1 else [body for part in parts for body in part[0]]
        store = topic._store
        assert store is not None
        try:
            topic._publish_stored(store, bodies, partial(self._stored, parts), may_write=True)
        except NSQLiteError as error:
            if len(parts) > 1:
                return False
            self._tell(parts, error)
        return True

    def _stored(self, parts: list[Part], problem: BaseException | None) -> None:
        """Take note that messages are stored, or cannot be; called by any thread."""
        if get_ident() == self._thread:
            self._tell(parts, problem)
            return
        with suppress(RuntimeError):  # the loop is closed, and nobody is left to be told
            self._news.tell(self._loop, partial(self._tell, parts), problem)

    def _tell(self, parts: list[Part], problem: BaseException | None) -> None:
        for _, on_done in parts:
            on_done(problem)
