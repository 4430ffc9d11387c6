"""What several test files use."""

import threading
from collections.abc import Callable
from typing import Any

import nsqlite
from nsqlite import Consumer
from nsqlite.clock import Semaphore, SystemClock
from nsqlite.testing import ManualClock

PATIENCE = 20.0
"""Real seconds after which a test gives up on a thread."""


class Telling:
    """Of a clock that tells when somebody begins to wait."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._waits = threading.Semaphore(0)

    def wait(self, semaphore: Semaphore, moment: int | None, who: str) -> bool:
        self._waits.release()
        return bool(super().wait(semaphore, moment, who))  # type: ignore[misc]  # the clock's

    def until_waiting(self) -> None:
        """Return when somebody more waits than at the last call."""
        assert self._waits.acquire(timeout=PATIENCE), "nobody began to wait"

    def waits(self) -> bool:
        """Return whether somebody began to wait since the last call."""
        return self._waits.acquire(blocking=False)


class TellingClock(Telling, SystemClock):
    """The system's clock, which tells when somebody begins to wait."""


class TellingManualClock(Telling, ManualClock):
    """A manual clock which tells when somebody begins to wait."""


class GoingClock(TellingManualClock):
    """One of which nsqlite thinks that it goes by itself."""

    by_hand = False


class Call:
    """A call made in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._results: list[Any] = []
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._results.append(error)

    def result(self, patience: float = PATIENCE) -> Any:
        """Return what it returned or raised."""
        self._thread.join(patience)
        assert not self._thread.is_alive(), "the call hangs"
        return self._results[0]


def bodies(channel: nsqlite.Channel[Any]) -> list[Any]:
    """Take everything that is ready and finish it."""
    with Consumer(channel) as consumer:
        found: list[Any] = []
        while True:
            try:
                message = consumer.get(timeout=0)
            except nsqlite.Empty:
                return found
            found.append(message.body)
            message.fin()
