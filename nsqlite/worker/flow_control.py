"""Flow control of a worker: its backoff, and the window that its consumer has meanwhile.

The rule: the window is always what the backoff allows, whoever changes it last (NSQ client §4).

Next: worker/settling.py
"""

import logging
from typing import Any, Final

from nsqlite.clock import NEVER
from nsqlite.consumer import AnyConsumer
from nsqlite.lock import make_lock
from nsqlite.options import SECOND
from nsqlite.worker.backoff import Backoff, BackoffState, Signal, Window

log: Final = logging.getLogger("nsqlite")


class FlowControl:
    """How many messages a worker may hold, NSQ's RDY.

    Threads: any.

    Attributes:
        probe_at: when the next message is let through, `NEVER` if the worker is not waiting.
    """

    __slots__ = ("_consumer", "_lock", "_name", "_now", "_sizes", "_state", "probe_at")

    def __init__(
        self, name: str, backoff: Backoff | None, size: int, consumer: AnyConsumer[Any]
    ) -> None:
        """Begin without backoff.

        Args:
            name: the worker's, for the log.
            backoff: how to back off; None for never.
            size: how many messages the worker may hold when it is not backing off.
            consumer: whose window it is.
        """
        self._name: Final = name
        self._consumer: Final = consumer
        self._sizes: Final = {Window.OPEN: size, Window.SHUT: 0, Window.PROBE: 1}
        self._now: Final = consumer._now
        # Protects the two below; no other lock is taken inside.
        self._lock: Final = make_lock(rank=2)
        self._state: Final = BackoffState(backoff or Backoff(max_duration=0))
        self.probe_at: int = NEVER

    @property
    def level(self) -> int:
        """How deep the worker is in backoff; 0 for not."""
        return self._state.level

    def signal(self, signal: Signal) -> bool:
        """Take a result into account; return whether there is an earlier `probe_at` now."""
        state = self._state
        if state.level == 0 and signal is not Signal.BACK_OFF:
            return False
        with self._lock:
            before = state.window
            wait = state.signal(signal)
            if wait is not None:
                self.probe_at = self._now() + round(wait * SECOND)
            changed = state.window is not before
        if changed:
            self._set_window()
            log.info("%s: backoff %d, %s", self._name, state.level, state.window)
        return wait is not None

    def act(self, now: int) -> None:
        """Let a message through if the time has come."""
        with self._lock:
            probe = now >= self.probe_at
            if probe:
                self.probe_at = NEVER
                self._state.probe()
        if probe:
            self._set_window()

    def _set_window(self) -> None:
        """Have the consumer's window be what the backoff allows; takes the topic's lock."""
        while True:
            window = self._state.window
            self._consumer.rdy(self._sizes[window])
            if window is self._state.window:  # else another thread has changed it meanwhile
                return
