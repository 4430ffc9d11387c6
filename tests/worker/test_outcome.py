"""Outcomes: what they carry, what they say, and what is refused."""

from datetime import timedelta
from typing import Any

import pytest

from nsqlite import Drop, InvalidOption, Requeue, TakeOver
from nsqlite.worker import Outcome


@pytest.mark.parametrize("outcome", [Requeue(), Drop(), TakeOver()])
def test_a_outcome_can_be_raised(outcome: Outcome) -> None:
    """Each outcome is an exception of one base, and no error of nsqlite's."""
    with pytest.raises(Outcome) as info:
        raise outcome
    assert info.value is outcome


def test_a_requeue_leaves_the_delay_to_the_worker() -> None:
    """A requeue of which nothing is said has the worker's delay, and the worker backs off."""
    outcome = Requeue()
    assert (None, True) == (outcome.delay, outcome.backoff)


def test_a_requeue_carries_what_it_was_told() -> None:
    """A requeue can name its delay and spare the backoff."""
    outcome = Requeue(2.5, backoff=False)
    assert (2.5, False) == (outcome.delay, outcome.backoff)


def test_a_requeue_takes_a_timedelta() -> None:
    """It has its seconds."""
    outcome = Requeue(timedelta(minutes=1))
    assert (60.0, "requeue after 60 s") == (outcome.delay, str(outcome))


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), True, "1"])
def test_a_requeue_refuses_what_is_no_delay(delay: Any) -> None:
    """A delay is a finite number of seconds, not below 0."""
    with pytest.raises(InvalidOption) as info:
        Requeue(delay)
    expected = f"delay must be a finite number of seconds, at least 0, not {delay!r}"
    assert expected == str(info.value)


def test_a_requeue_of_a_delay_beyond_all_measure_can_be_shown() -> None:
    """It waits as long as can be counted."""
    assert "requeue after 9e+09 s" == str(Requeue(10**400))


@pytest.mark.parametrize("backoff", [5, None, 0, "no"])
def test_a_requeue_refuses_what_is_no_bool(backoff: Any) -> None:
    """Whether the worker backs off is True or False."""
    with pytest.raises(InvalidOption) as info:
        Requeue(backoff=backoff)
    with pytest.raises(InvalidOption, match="counted must be True or False"):
        Requeue(counted=backoff)
    assert f"backoff must be True or False, not {backoff!r}" == str(info.value)


@pytest.mark.parametrize("reason", [5, None, b"too old", ValueError("too old")])
def test_a_drop_refuses_what_is_no_text(reason: Any) -> None:
    """The reason of a drop is a str."""
    with pytest.raises(InvalidOption) as info:
        Drop(reason)
    assert f"reason must be a str, not {reason!r}" == str(info.value)


def test_a_drop_carries_its_reason() -> None:
    """The reason of a drop is there to be read."""
    assert ("too old", "") == (Drop("too old").reason, Drop().reason)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Requeue(), "requeue"),
        (Requeue(0), "requeue after 0 s"),
        (Requeue(delay=2.5), "requeue after 2.5 s"),
        (Drop(), "drop"),
        (Drop("too old"), "drop: too old"),
        (TakeOver(), "take over"),
    ],
)
def test_a_outcome_says_what_it_is(outcome: Outcome, text: str) -> None:
    """The text of a outcome is what a log record shows."""
    assert text == str(outcome)
