"""Events on their way to who follows them over a control socket.

The rule: the program that causes events does not wait for a reader who is slow, and what waits for
him has a bound; where events are left out, their number stands in their place.

Next: store/control.py
"""

import queue
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from nsqlite.events import Event
from nsqlite.names import check_name

UNREAD: Final = 10_000
"""Events that wait for a reader."""

UNREAD_BYTES: Final = 16 << 20
"""Bytes that their bodies have, about; of what is neither bytes nor text nobody knows."""


class Tail:
    """The events of a topic, of a channel, or all, for one reader.

    Threads: any.
    """

    def __init__(self, topic: Any = None, channel: Any = None) -> None:
        """Begin without events.

        Raises:
            InvalidName: a name is none that a topic or channel can have.
        """
        for kind, name in (("topic", topic), ("channel", channel)):
            if name is not None:
                check_name(kind, name)
        self._topic: Final = topic
        self._channel: Final = channel
        # An observer may be called inside of another call of it, by a signal handler:
        self._lock: Final = threading.RLock()
        self._waiting: Final[deque[Event | int]] = deque()
        self._bytes = 0
        self._over = False
        self._wakes: Final[queue.SimpleQueue[None]] = queue.SimpleQueue()

    def hear(self, event: Event) -> None:
        """Keep an event for the reader; an observer."""
        if self._topic in {None, event.topic} and self._channel in {None, event.channel}:
            with self._lock:
                is_first = not self._waiting
                self._keep(event)
            if is_first:
                self._wakes.put(None)

    def _keep(self, event: Event) -> None:
        waiting = self._waiting
        if len(waiting) < UNREAD and self._bytes < UNREAD_BYTES:
            waiting.append(event)
            self._bytes += len(event.body) if isinstance(event.body, bytes | str) else 0
        elif isinstance(waiting[-1], int):
            waiting[-1] += 1
        else:
            waiting.append(1)

    def end(self) -> None:
        """Have the reader come to the end, after what waits."""
        self._over = True
        self._wakes.put(None)

    def take(self) -> Sequence[Event | int] | None:
        """Wait for events; return them, with numbers where some are missed, or None at the end."""
        while True:
            with self._lock:
                taken = list(self._waiting)
                self._waiting.clear()
                self._bytes = 0
            if taken:
                return taken
            if self._over:
                return None
            self._wakes.get()
