"""Flow control of a worker: how long it is held back, and the window that it has meanwhile.

The rule: the window is always what the backoff allows, whoever changes it last (NSQ client §4).

Two things hold a worker back: with a `backoff` of its `Retry`, handlers that fail; and always, a
store that cannot do what the worker needs.  After a wait one message is let through, and what
becomes of that decides how it goes on.

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

TROUBLE: Final = Backoff(multiplier=0.5, max_duration=32)
"""How a worker without a backoff waits for its store: 1 s, 2, 4, up to 32."""


class FlowControl:
    """How many messages a worker may hold, NSQ's RDY.

    Threads: any.

    Attributes:
        probe_at: when the next message is let through, `NEVER` if the worker is not waiting.
        why: what holds it back, in words; empty if nothing does.
    """

    __slots__ = (
        "_consumer",
        "_is_patient",
        "_lock",
        "_name",
        "_now",
        "_sizes",
        "_state",
        "probe_at",
        "why",
    )

    def __init__(
        self, name: str, backoff: Backoff | None, size: int, consumer: AnyConsumer[Any]
    ) -> None:
        """Begin without being held back.

        Args:
            name: the worker's, for the log.
            backoff: how to back off when handlers fail; None for never.
            size: how many messages the worker may hold when it is not held back.
            consumer: whose window it is.
        """
        self._name: Final = name
        self._consumer: Final = consumer
        self._sizes: Final = {Window.OPEN: size, Window.SHUT: 0, Window.PROBE: 1}
        self._now: Final = consumer._now
        if backoff is not None and not backoff.max_duration:
            backoff = None
        # Whether handlers may fail as they like; only the store holds it back then:
        self._is_patient: Final = backoff is None
        # Protects the three below; no other lock is taken inside.
        self._lock: Final = make_lock(rank=2)
        self._state: Final = BackoffState(backoff or TROUBLE)
        self.probe_at: int = NEVER
        self.why: str = ""

    @property
    def level(self) -> int:
        """How deep the worker is in backoff; 0 for not."""
        return self._state.level

    def signal(self, signal: Signal, why: object = "") -> bool:
        """Take a handler's result into account; return whether there is an earlier `probe_at` now.

        Args:
            signal: what the result means.
            why: what a failure was.
        """
        if self._state.level == 0 and (self._is_patient or signal is not Signal.BACK_OFF):
            return False
        return self._take(None if self._is_patient else signal, why)

    def trouble(self, problem: Exception) -> bool:
        """Take a failure of the store into account; see `signal`."""
        return self._take(Signal.BACK_OFF, problem)

    def _take(self, signal: Signal | None, why: object) -> bool:
        """Take a signal, or None for a handler that was called though all was held back."""
        state = self._state
        with self._lock:
            before = state.window
            wait = None
            if signal is None:
                state.recover()
            else:
                wait = state.signal(signal)
            if wait is not None:
                self.probe_at = self._now() + round(wait * SECOND)
                self.why = str(why) or self.why
            elif state.level == 0:
                self.why = ""
            changed = state.window is not before
            why = self.why
        if changed:
            self._set_window()
            if wait is None:
                log.info("%s: goes on", self._name)
            else:
                log.info("%s: held back for %g s: %s", self._name, wait, why)
        return wait is not None

    def held_back_for(self) -> float:
        """Return for how many seconds nothing is taken; 0 if that is not so."""
        return max(0, self.probe_at - self._now()) / SECOND if self.probe_at < NEVER else 0.0

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
