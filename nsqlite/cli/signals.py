"""What becomes of a command that SIGTERM or SIGHUP ends, or that goes on after SIGTSTP.

The rule: what it has begun is taken back, and then it ends by that signal as if nobody had caught
it, so whoever has sent it sees no difference.

Next: cli/lines.py
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

NAMES: Final = ("SIGTERM", "SIGHUP")
"""Not every system has the second one."""


class Ended(BaseException):
    """A signal is to end the command; `BaseException` as `KeyboardInterrupt` is.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def end(self) -> NoReturn:
        """End the process by the signal; what is in the buffer of stdout is not written."""
        signal.signal(self.number, signal.SIG_DFL)
        signal.raise_signal(self.number)
        raise AssertionError("the signal has ended the process")


@contextmanager
def caught() -> Iterator[None]:
    """Raise `Ended` where a signal comes before the end of the block; of several only once.

    A signal that is ignored, as with nohup, or has a handler already is left alone, and so are all
    outside of the main thread, where none can be caught.
    """
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    mine = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _frame: FrameType | None) -> None:
        for one in mine:
            signal.signal(one, signal.SIG_IGN)  # nothing disturbs what is taken back
        raise Ended(number)

    try:
        for number in mine:
            signal.signal(number, end)
    except ValueError:
        mine.clear()
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def resumed(act: Callable[[], object]) -> Iterator[None]:
    """Call it whenever the process goes on in the block after it was stopped.

    Not outside of the main thread, where no signal can be caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCONT, lambda _number, _frame: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, before)
