"""Flow control of a worker: how long it is held back, and the window that it has meanwhile.

The rule: the window is always what the backoff allows, whoever changes it last (NSQ client §4).

Two things hold a worker back: with a `backoff` of its `Retry`, handlers that fail; and always, a
store that cannot do what the worker needs, for which it waits longer each time until it can.

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

LONGEST: Final = 32
"""Seconds that a worker waits for its store at most: 1, 2, 4, up to this."""


class FlowControl:
    """How many messages a worker may hold, NSQ's RDY.

    Threads: any.

    Attributes:
        level: how deep the worker is in backoff; 0 for not.
        probe_at: when the next message is let through, `NEVER` if the worker is not waiting.
        resume_at: until when it waits for its store, `NEVER` if it does not.
        failures: how often in a row its store has failed.
        why: what holds it back, in words; empty if nothing does.
    """

    __slots__ = (
        "_consumer",
        "_lock",
        "_name",
        "_now",
        "_sizes",
        "_state",
        "failures",
        "level",
        "probe_at",
        "resume_at",
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
        # Protects what follows; no other lock is taken inside.
        self._lock: Final = make_lock(rank=2)
        self._state: Final = BackoffState(backoff or Backoff(max_duration=0))
        self.level: int = 0
        self.probe_at: int = NEVER
        self.resume_at: int = NEVER
        self.failures: int = 0
        self.why: str = ""

    # Handlers

    def signal(self, signal: Signal, why: object = "") -> bool:
        """Take a handler's result into account; return whether there is an earlier `probe_at` now.

        Args:
            signal: what the result means.
            why: what a failure was.
        """
        state = self._state
        if self.level == 0 and signal is not Signal.BACK_OFF:
            return False
        with self._lock:
            before = state.window
            wait = state.signal(signal)
            self.level = state.level
            if wait is not None:
                self.probe_at = self._now() + round(wait * SECOND)
                self.why = str(why) or self.why
            elif self.level == 0 and not self.failures:
                self.why = ""
            changed = state.window is not before
        if changed:
            self._set_window()
            self._tell(wait, logging.INFO)
        return wait is not None

    # The store

    def trouble(self, problem: Exception) -> bool:
        """Take into account that the store failed; return whether there is a `resume_at` now.

        Whatever fails while it waits is ignored.
        """
        with self._lock:
            is_new = self.resume_at == NEVER
            if is_new:
                wait = min(2**self.failures, LONGEST)
                self.failures = min(self.failures + 1, LONGEST)
                self.resume_at = self._now() + wait * SECOND
                self.why = str(problem) or type(problem).__name__
        if is_new:
            self._set_window()
            self._tell(wait, logging.WARNING)
        return is_new

    def recover(self) -> None:
        """Take note that the store has done what it failed at; for one that has `failures`."""
        with self._lock:
            ended, self.failures = self.failures, 0
            if self.level == 0:
                self.why = ""
        if ended:
            self._tell(None, logging.INFO)

    # Both

    def _tell(self, wait: float | None, level: int) -> None:
        if wait is None:
            log.info("%s: goes on", self._name)
        else:
            log.log(level, "%s: held back for %g s: %s", self._name, wait, self.why)

    def next_moment(self) -> int:
        """Return when `act` is to be called."""
        return min(self.probe_at, self.resume_at)

    def held_back_for(self) -> float:
        """Return for how many seconds nothing is taken; 0 if that is not so."""
        moments = [moment for moment in (self.probe_at, self.resume_at) if moment < NEVER]
        return max(0, max(moments, default=0) - self._now()) / SECOND

    def act(self, now: int) -> None:
        """Let a message through, or all of them, if the time has come."""
        with self._lock:
            probe, resume = now >= self.probe_at, now >= self.resume_at
            if probe:
                self.probe_at = NEVER
                self._state.probe()
            if resume:
                self.resume_at = NEVER
        if probe or resume:
            self._set_window()

    def _size(self) -> int:
        return 0 if self.resume_at < NEVER else self._sizes[self._state.window]

    def _set_window(self) -> None:
        """Have the consumer's window be what is allowed; takes the topic's lock."""
        while True:
            size = self._size()
            self._consumer.rdy(size)
            if size == self._size():  # else another thread has changed it meanwhile
                return
