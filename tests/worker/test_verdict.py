"""Verdicts: what they carry, what they say, and what is refused."""

from typing import Any

import pytest

from nsqlite import Drop, InvalidOption, Requeue, TakeOver
from nsqlite.worker import Verdict


@pytest.mark.parametrize("verdict", [Requeue(), Drop(), TakeOver()])
def test_a_verdict_can_be_raised(verdict: Verdict) -> None:
    """Each verdict is an exception of one base, and no error of nsqlite's."""
    with pytest.raises(Verdict) as info:
        raise verdict
    assert info.value is verdict


def test_a_requeue_leaves_the_delay_to_the_worker() -> None:
    """A requeue of which nothing is said has the worker's delay, and the worker backs off."""
    verdict = Requeue()
    assert (None, True) == (verdict.delay, verdict.backoff)


def test_a_requeue_carries_what_it_was_told() -> None:
    """A requeue can name its delay and spare the backoff."""
    verdict = Requeue(2.5, backoff=False)
    assert (2.5, False) == (verdict.delay, verdict.backoff)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), True, "1"])
def test_a_requeue_refuses_what_is_no_delay(delay: Any) -> None:
    """A delay is a finite number of seconds, not below 0."""
    with pytest.raises(InvalidOption) as info:
        Requeue(delay)
    expected = f"delay must be a finite number of seconds, at least 0, not {delay!r}"
    assert expected == str(info.value)


def test_a_drop_carries_its_reason() -> None:
    """The reason of a drop is there to be read."""
    assert ("too old", "") == (Drop("too old").reason, Drop().reason)


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        (Requeue(), "requeue"),
        (Requeue(0), "requeue after 0 s"),
        (Requeue(delay=2.5), "requeue after 2.5 s"),
        (Drop(), "drop"),
        (Drop("too old"), "drop: too old"),
        (TakeOver(), "take over"),
    ],
)
def test_a_verdict_says_what_it_is(verdict: Verdict, text: str) -> None:
    """The text of a verdict is what a log record shows."""
    assert text == str(verdict)
