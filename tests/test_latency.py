"""Latencies: percentiles that are at most 1 % off, over a window that slides by halves."""

import math
from collections import Counter
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite.latency import Latency, quantile

WINDOW: Final = 1000
START: Final = 50

latencies: Final = st.lists(st.integers(1, 10**15), min_size=1, max_size=100)
fractions: Final = st.sampled_from([0.001, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0])


def filled(*values: int) -> Counter[int]:
    latency = Latency(WINDOW, START)
    for value in values:
        latency.insert(value, START)
    return latency.counts(START)


# Percentiles


@pytest.mark.parametrize("value", [1, 2, 3, 10, 12345, 10**9, 60 * 10**9, 10**18])
def test_a_latency_is_at_most_1_percent_off(value: int) -> None:
    """The percentile of one latency is that latency, but for 1 %."""
    assert math.isclose(value, quantile(filled(value), 0.5), rel_tol=0.01)


@given(values=latencies, fraction=fractions)
def test_a_percentile_is_at_most_1_percent_off(values: list[int], fraction: float) -> None:
    """A percentile is the latency of its rank among all, but for 1 %."""
    expected = sorted(values)[math.ceil(fraction * len(values)) - 1]
    assert math.isclose(expected, quantile(filled(*values), fraction), rel_tol=0.01)


def test_the_percentiles_of_a_hundred() -> None:
    """Of the latencies 1 to 100 s the percentiles are about their own numbers."""
    counts = filled(*(number * 10**9 for number in range(1, 101)))
    found = [round(quantile(counts, fraction) / 10**9) for fraction in (0.01, 0.5, 0.9, 1.0)]
    assert [1, 50, 90, 100] == found


@pytest.mark.parametrize("value", [0, -1, -(10**12)])
def test_a_latency_below_0_counts_as_0(value: int) -> None:
    """A latency that a clock set back makes negative counts, as 0."""
    counts = filled(value)
    assert (1, 0.0) == (counts.total(), quantile(counts, 1.0))


def test_nothing_counted_gives_0() -> None:
    """Where nothing was counted every percentile is 0."""
    assert [0.0, 0.0] == [quantile(Counter(), fraction) for fraction in (0.5, 1.0)]


def test_counts_of_channels_can_be_added() -> None:
    """What several channels counted makes one percentile of all."""
    both = filled(10**6) + filled(10**9, 10**9)
    assert math.isclose(10**6, quantile(both, 0.3), rel_tol=0.01)
    assert math.isclose(10**9, quantile(both, 0.5), rel_tol=0.01)


@given(st.lists(st.integers(0, 10**18), max_size=300))
def test_memory_is_bounded(values: list[int]) -> None:
    """However many latencies come, the steps that count them are at most 2100."""
    steps = filled(*values, 0, 10**18)
    assert len(values) + 2 == steps.total()
    assert (0, True) == (min(steps), max(steps) < 2100)


# The window


def test_a_latency_stays_for_half_the_window_at_least() -> None:
    """A latency is counted for half the window and at most for the whole."""
    latency = Latency(WINDOW, START)
    latency.insert(7, START)
    moments = [START, START + 499, START + 500, START + 999, START + 1000, START + 10**9]
    assert [1, 1, 1, 1, 0, 0] == [latency.counts(moment).total() for moment in moments]


def test_the_halves_take_turns() -> None:
    """Each half is cleared in its turn, so an old latency goes before a newer one."""
    latency = Latency(WINDOW, START)
    latency.insert(10**3, START)
    latency.insert(10**6, START + 500)
    latency.insert(10**9, START + 1000)
    counts = latency.counts(START + 1000)
    assert 2 == counts.total()
    assert math.isclose(10**6, quantile(counts, 0.5), rel_tol=0.01)
    assert 1 == latency.counts(START + 1500).total()
    assert 0 == latency.counts(START + 2000).total()


@pytest.mark.parametrize("pause", [1000, 1001, 1499, 1500, 123_456])
def test_a_long_pause_clears_both_halves(pause: int) -> None:
    """After a pause of the whole window nothing old is left, and the turns go on in step."""
    latency = Latency(WINDOW, START)
    latency.insert(10**3, START)
    latency.insert(10**9, START + pause)
    turn = START + (pause // 500 + 1) * 500
    totals = [latency.counts(moment).total() for moment in (turn - 1, turn, turn + 500)]
    assert [1, 1, 0] == totals


@pytest.mark.parametrize("window", [0, 1, 2])
def test_the_smallest_window_turns(window: int) -> None:
    """A window of a nanosecond or two forgets after a nanosecond each."""
    latency = Latency(window, START)
    latency.insert(7, START)
    assert [1, 1, 0] == [latency.counts(START + after).total() for after in range(3)]


def test_a_report_changes_nothing() -> None:
    """What is reported is a copy."""
    latency = Latency(WINDOW, START)
    latency.insert(7, START)
    latency.counts(START).clear()
    assert 1 == latency.counts(START).total()
