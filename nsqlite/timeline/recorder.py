"""An observer that keeps what it hears, and no more than it was told to.

The rule: what is kept are the newest events, in the order in which they were told; how many are
gone is known.

Next: timeline/recording.py
"""

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final

from nsqlite.events import Event
from nsqlite.options import whole
from nsqlite.timeline.timeline import Timeline

MOST: Final = 100_000
"""How many events a recorder keeps unless it is told otherwise."""


class Recorder:
    """Keeps events, for a `Timeline` or a test.

        >>> import nsqlite
        >>> topic = nsqlite.Topic("orders")
        >>> recorder = Recorder()
        >>> stop = topic.observe(recorder)
        >>> id = topic.put(b"order 1")
        >>> [str(event.kind) for event in recorder.events]
        ['published']

    Threads: any.

    Attributes:
        most: how many events it keeps; the oldest go first.
        forgotten: how many are gone.
    """

    def __init__(self, most: int = MOST) -> None:
        """Begin without any.

        Args:
            most: see the class; 1 or more.

        Raises:
            InvalidOption: it is less than 1.
        """
        self.most: Final = whole("most", most, 1)
        self.forgotten: int = 0
        self._events: deque[Event] = deque()
        self._lock: Final = threading.Lock()  # guards the two above; nothing is called inside

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        with self._lock:
            if len(self._events) == self.most:
                self._events.popleft()
                self.forgotten += 1
            self._events.append(event)

    @property
    def events(self) -> tuple[Event, ...]:
        """What is kept, the oldest first: a copy of the moment."""
        with self._lock:
            return tuple(self._events)

    def timeline(self, notes: Iterable[tuple[int, str]] = ()) -> Timeline:
        """Return the timeline of what is kept; see `Timeline.of`.

        Raises:
            InvalidOption: a note stands where there is no event.
        """
        with self._lock:
            events, forgotten = tuple(self._events), self.forgotten
        return Timeline.of(events, notes, forgotten=forgotten)

    def clear(self) -> None:
        """Forget all, and count from 0 again."""
        with self._lock:
            self._events.clear()
            self.forgotten = 0

    def __repr__(self) -> str:
        """Show how much is kept, and how much is gone."""
        return f"<Recorder events={len(self._events)} forgotten={self.forgotten}>"
