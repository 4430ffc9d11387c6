"""What becomes of a command that a signal ends."""

import signal
import subprocess
import sys
import threading

import pytest

from nsqlite.cli.signals import Ended, caught, resumed

SIGNALS = (signal.SIGTERM, signal.SIGHUP)

PROGRAM = """
import signal, sys
from nsqlite.cli.signals import Ended, caught

try:
    with caught():
        signal.raise_signal(int(sys.argv[1]))
except Ended as ended:
    print("told")
    ended.end()
"""


def handlers() -> list[object]:
    return [signal.getsignal(one) for one in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises(number: int) -> None:
    """A signal ends the block, and afterwards all is as it was."""
    before = handlers()
    with pytest.raises(Ended) as ending, caught():
        signal.raise_signal(number)
    assert number == ending.value.number
    assert before == handlers()


def test_a_block_without_a_signal() -> None:
    """A block that ends by itself leaves all as it was."""
    before = handlers()
    with caught():
        assert before != handlers()
    assert before == handlers()


def test_a_second_signal_disturbs_nothing() -> None:
    """While a block takes back what it did, another signal is not heard."""
    with pytest.raises(Ended), caught():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)


def test_what_others_do_with_a_signal_stays() -> None:
    """A signal that is ignored stays ignored, and one with a handler goes there."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    other = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        with caught():
            for number in SIGNALS:
                signal.raise_signal(number)
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, other)
    assert [signal.SIGTERM] == heard


def test_other_threads_catch_none() -> None:
    """In another thread the block runs, and no signal is caught."""
    before = handlers()
    seen: list[list[object]] = []

    def run() -> None:
        with caught():
            seen.append(handlers())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert [before] == seen


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_ends_by_its_signal(number: int) -> None:
    """Whoever waits for the process sees that the signal has ended it."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-u", "-c", PROGRAM, str(int(number))],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (-number, "told\n", "") == (done.returncode, done.stdout, done.stderr)


def test_a_signal_that_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the signal has no effect, that is told as what cannot be."""
    monkeypatch.setattr(signal, "raise_signal", lambda _number: None)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(AssertionError, match="the signal has ended the process"):
        Ended(signal.SIGTERM).end()
    assert before == signal.getsignal(signal.SIGTERM)


def test_a_process_goes_on() -> None:
    """Whenever the process goes on in the block it is called, and not after it."""
    calls = []
    with resumed(lambda: calls.append("called")):
        signal.raise_signal(signal.SIGCONT)
        signal.raise_signal(signal.SIGCONT)
    signal.raise_signal(signal.SIGCONT)
    assert ["called", "called"] == calls


def test_a_thread_is_not_told_that_the_process_goes_on() -> None:
    """Outside of the main thread nothing is caught."""
    found = []

    def look() -> None:
        with resumed(lambda: None):
            found.append(signal.getsignal(signal.SIGCONT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert [signal.SIG_DFL] == found
