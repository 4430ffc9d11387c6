"""When a failed message is tried again, and when it is given up."""

import logging
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final

import pytest
from helpers import PATIENCE
from hypothesis import given
from hypothesis import strategies as st

from nsqlite import Backoff, Consumer, InvalidOption, Message, Retry, Seconds, Topic, Worker
from nsqlite.options import LONGEST, SECOND
from nsqlite.testing import ManualClock
from nsqlite.worker.retry import LONGEST_PAUSE, Delays
from worker.scenes import Failure, nothing


class Given:
    """As much of a message as a delay depends on."""

    id = "0123456789abcdef"

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts


def delays(retry: Retry, count: int, error: BaseException | None = None) -> list[float | None]:
    """Return the delays after so many attempts."""
    made = Delays("bills", retry)
    return [made.after(message(n), error or Failure()) for n in range(1, count + 1)]


def message(attempts: int) -> Any:
    return Given(attempts)


def test_a_delay_doubles_until_it_is_the_longest() -> None:
    """From one second on each delay is twice the last, up to 15 minutes; then it is given up."""
    retry = Retry(jitter=False, max_attempts=13)
    expected = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 900.0, 900.0, None]
    assert expected == delays(retry, 13)


def test_by_default_five_attempts_are_made() -> None:
    """The delays are random parts of 1, 2, 4 and 8 seconds; the fifth failure is the last."""
    found = delays(Retry(seed=1), 5)
    assert found.pop() is None
    for longest, delay in zip((1, 2, 4, 8), found, strict=True):
        assert delay is not None
        assert 0 <= delay <= longest
    assert found == delays(Retry(seed=1), 4)
    assert found != delays(Retry(seed=2), 4)


def test_the_jitter_is_full() -> None:
    """Delays are spread from nothing to the whole of it, and each part is as likely."""
    made = Delays("bills", Retry(delay=10, seed=1))
    parts = Counter(int(made.after(message(1), Failure()) or 0) for _ in range(10_000))
    assert set(range(10)) == set(parts)
    assert min(parts.values()) > 850


def test_a_delay_never_overflows() -> None:
    """However many attempts there were, the delay is the longest."""
    retry = Retry(max_attempts=0, factor=1000, jitter=False)
    made = Delays("bills", retry)
    assert 900 == made.after(message(65535), Failure()) == made.after(message(10**9), Failure())
    assert 0 == Delays("bills", Retry(delay=0, max_attempts=0)).after(message(10**9), Failure())


def test_numbers_beyond_all_measure() -> None:
    """What no clock can count is the longest; a delay that grows slowly grows for ever."""
    huge = Retry(delay=10**400, max_delay=10**400, jitter=False)
    assert LONGEST == Delays("bills", huge).after(message(1), Failure())
    slow = Delays("bills", Retry(factor=1.1, max_delay=3600, max_attempts=0, jitter=False))
    assert 3600 == slow.after(message(200), Failure())
    assert 1000 < (slow.after(message(74), Failure()) or 0) < 1100


def test_nsqs_delays() -> None:
    """NSQ's clients wait 90 s for each attempt, 900 s at most, and slow down as a whole."""
    retry = Retry.nsq(max_attempts=0)
    assert [90, 180, 270, 360, 450, 540, 630, 720, 810, 900, 900] == delays(retry, 11)
    assert (Backoff(), None) == (retry.backoff, Retry.nsq(backoff=None).backoff)
    assert [7, 14, 20, None] == delays(
        Retry.nsq(max_attempts=4, requeue_delay=7, max_requeue_delay=20), 4
    )


@pytest.mark.parametrize("kinds", [LookupError, (OSError, LookupError)])
def test_some_errors_are_the_end(kinds: Any) -> None:
    """After an error of a kind that is named, or of a subclass, a message is given up at once."""
    retry = Retry(give_up_on=kinds)
    assert [None] == delays(retry, 1, KeyError("tea"))
    assert [None] != delays(retry, 1, ValueError("tea"))


def test_a_function_decides() -> None:
    """A function says after which delay, as long as there are attempts left, or gives up."""
    told: list[Any] = []

    def wait(one: Any, error: BaseException) -> float | None:
        told.append((one.attempts, error))
        return None if isinstance(error, OSError) else 10.5 * one.attempts

    error = Failure()
    assert [10.5, 21, None] == delays(Retry(delay=wait, max_attempts=3), 3, error)
    assert [(1, error), (2, error)] == told
    assert [None] == delays(Retry(delay=wait), 1, OSError())


@pytest.mark.parametrize("wrong", [-1, float("nan"), "soon", True])
def test_a_function_that_fails(wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises, or returns that is no delay, is logged; the message waits as by default."""

    def fail(_message: Message[Any], _error: BaseException) -> float | None:
        raise Failure

    for wait in (lambda _message, _error: wrong, fail):
        found = delays(Retry(delay=wait, jitter=False), 2)
        assert [1, 2] == found
        text = "bills: the function `delay` of its Retry failed on message 0123456789abcdef, tried"
        assert [f"{text} again in 1 s", f"{text} again in 2 s"] == caplog.messages[-2:]
        assert logging.ERROR == caplog.records[-1].levelno


BAD: Final[dict[str, tuple[Any, ...]]] = {
    "max_attempts": (-1, 65536, 1.5, True, None),
    "delay": (-1, float("nan"), True, None, nothing),
    "factor": (0.5, 1001, float("nan"), True, "2"),
    "max_delay": (-1, float("inf"), True, None),
    "jitter": (1, None, "full"),
    "give_up_on": (None, "OSError", OSError(), [OSError], (OSError, 1), KeyboardInterrupt),
    "backoff": (1, "exponential", Backoff),
    "seed": (1.5, True, "1"),
}
"""What each option refuses."""


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in BAD.items() for value in values]
)
def test_a_bad_option_is_refused(option: str, value: Any) -> None:
    """An option of the wrong kind or out of its range is named in the error."""
    options = {option: value}
    with pytest.raises(InvalidOption) as info:
        Retry(**options)
    assert option == info.value.option
    assert value is info.value.value


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
def test_seconds_or_a_timedelta(second: Seconds) -> None:
    """The delays can be either, and what a function returns; they are kept as seconds."""
    retry = Retry(delay=second, max_delay=3 * second, jitter=False)
    assert Retry(delay=1.0, max_delay=3.0, jitter=False) == retry
    assert [1, 2, 3, 3, None] == delays(retry, 5)
    assert [1.0] == delays(Retry(delay=lambda _message, _error: second), 1)
    nsq = Retry.nsq(requeue_delay=second, max_requeue_delay=2 * second)
    assert (1.0, 2.0) == (nsq.delay, nsq.max_delay)


@pytest.mark.parametrize("option", ["requeue_delay", "max_requeue_delay"])
@pytest.mark.parametrize("value", [-1, 3601, float("nan"), True, None])
def test_a_bad_option_of_nsqs_is_refused(option: str, value: Any) -> None:
    """Those of NSQ's clients are called by their names, and have their ranges."""
    options = {option: value}
    with pytest.raises(InvalidOption) as info:
        Retry.nsq(**options)
    assert option == info.value.option


def test_a_message_that_cannot_be_moved_waits_longer_and_longer() -> None:
    """From a second on, twice as long each time, and a minute at most."""
    made = Delays("bills", Retry(max_attempts=3))
    assert [1, 1, 1, 2, 4, 8] == [made.until_move(message(n)) for n in range(1, 7)]
    assert LONGEST_PAUSE == made.until_move(message(1000))


# Many retries against what is obvious


@given(
    retry=st.builds(
        Retry,
        delay=st.floats(0, 100),
        factor=st.none() | st.floats(1, 3),
        max_delay=st.floats(0, 1000),
        max_attempts=st.integers(0, 6),
        jitter=st.booleans(),
    ),
    fails=st.lists(st.integers(0, 8), min_size=1, max_size=4),
)
def test_a_worker_against_a_model(retry: Any, fails: list[int]) -> None:
    """Each message is tried as often, and no earlier or later, than its retries say."""
    clock = ManualClock(autojump=True, patience=PATIENCE)
    topic: Topic[int] = Topic("orders", clock=clock)
    channel = topic.channel("billing")
    dead: Topic[Any] = Topic("dead", clock=clock)
    letters = dead.channel("letters")
    moments: dict[int, list[int]] = {number: [] for number in range(len(fails))}

    def work(one: Message[int]) -> None:
        moments[one.body].append(clock.monotonic_ns())
        if one.attempts <= fails[one.body]:
            raise Failure

    topic.put_many(range(len(fails)))
    with Worker(channel, work, retry=retry, dead_letter=dead, tracebacks="never") as worker:
        assert worker.join()
    given_up = {n for n, times in enumerate(fails) if 0 < retry.max_attempts <= times}
    for number, times in moments.items():
        most = retry.max_attempts if number in given_up else fails[number] + 1
        assert most == len(times)
        check_waits(retry, times)
    with Consumer(letters) as consumer:
        assert given_up == {letter.body.body for letter in consumer.take(10)}


def check_waits(retry: Any, times: list[int]) -> None:
    """Check the times from one attempt to the next."""
    for attempt, (before, after) in enumerate(pairwise(times), 1):
        power = attempt if retry.factor is None else retry.factor ** (attempt - 1)
        longest = min(retry.delay * power, retry.max_delay)
        waited = (after - before) / SECOND
        assert waited <= longest + 0.001
        assert retry.jitter or waited >= longest - 0.001
