"""Backoff: its options, its table of states step by step, and a model in NSQ's own words."""

from datetime import timedelta
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsqlite import Backoff, InvalidOption, Seconds
from nsqlite.worker.backoff import BackoffState, Signal, Window

TABLE: Final = {
    ("open", 0, "resume"): ("open", 0, None),
    ("open", 0, "back off"): ("shut", 1, 2.0),
    ("open", 0, "go on"): ("open", 0, None),
    ("shut", 1, "resume"): ("shut", 1, None),
    ("shut", 1, "back off"): ("shut", 1, None),
    ("shut", 1, "go on"): ("shut", 1, None),
    ("shut", 2, "resume"): ("shut", 2, None),
    ("shut", 2, "back off"): ("shut", 2, None),
    ("shut", 2, "go on"): ("shut", 2, None),
    ("shut", 3, "resume"): ("shut", 3, None),
    ("shut", 3, "back off"): ("shut", 3, None),
    ("shut", 3, "go on"): ("shut", 3, None),
    ("probe", 1, "resume"): ("open", 0, None),
    ("probe", 1, "back off"): ("shut", 2, 4.0),
    ("probe", 1, "go on"): ("shut", 1, 2.0),
    ("probe", 2, "resume"): ("shut", 1, 2.0),
    ("probe", 2, "back off"): ("shut", 3, 8.0),
    ("probe", 2, "go on"): ("shut", 2, 4.0),
    ("probe", 3, "resume"): ("shut", 2, 4.0),
    ("probe", 3, "back off"): ("shut", 3, 8.0),
    ("probe", 3, "go on"): ("shut", 3, 8.0),
}
"""Window, level and signal; what becomes of the two and how long to wait, at most 9 s."""


def state_of(**options: Any) -> BackoffState:
    return BackoffState(Backoff(**options))


class Oracle:
    """The state machine as NSQ's documentation tells it: a counter and a running timeout."""

    def __init__(self, multiplier: float, longest: float) -> None:
        self.multiplier = multiplier
        self.longest = longest
        self.counter = 0
        self.running = False
        self.rdy = "all"

    def duration(self, counter: int) -> float:
        duration = self.multiplier
        for _ in range(counter):
            duration = duration + duration
        return duration

    def result(self, signal: Signal) -> float | None:
        if self.running:
            return None
        if signal == "resume" and self.counter:
            self.counter -= 1
        if (
            signal == "back off"
            and self.longest
            and self.duration(self.counter + 1) <= self.longest
        ):
            self.counter += 1
        if not self.counter:
            self.rdy = "all"
            return None
        self.rdy = "none"
        self.running = True
        return min(self.duration(self.counter), self.longest)

    def timeout_ends(self) -> None:
        self.running = False
        self.rdy = "one"


# Options


def test_the_defaults_are_those_of_nsq() -> None:
    """A backoff begins at two seconds and grows exponentially to two minutes."""
    expected = {
        "multiplier": 1.0,
        "max_duration": 120.0,
        "strategy": "exponential",
        "seed": None,
    }
    assert expected == attrs.asdict(Backoff())


@pytest.mark.parametrize("option", ["multiplier", "max_duration"])
@pytest.mark.parametrize("value", [-1, 3600.5, float("nan"), float("inf"), True, "1", None])
def test_a_duration_out_of_its_range_is_refused(option: str, value: object) -> None:
    """The multiplier and the longest wait are 0 to 3600 seconds."""
    options: dict[str, Any] = {option: value}
    with pytest.raises(InvalidOption) as info:
        Backoff(**options)
    expected = "a finite number of seconds, at least 0 and at most 3600"
    assert f"{option} must be {expected}, not {value!r}" == str(info.value)


@pytest.mark.parametrize("second", [1.0, timedelta(seconds=1)])
def test_seconds_or_a_timedelta(second: Seconds) -> None:
    """Its durations can be either, and are kept as seconds."""
    assert Backoff(multiplier=0.5, max_duration=9.0) == Backoff(
        multiplier=second / 2, max_duration=9 * second
    )


@pytest.mark.parametrize("value", ["linear", "", None, 1])
def test_an_unknown_strategy_is_refused(value: Any) -> None:
    """The strategy is one of two."""
    with pytest.raises(InvalidOption) as info:
        Backoff(strategy=value)
    expected = f"strategy must be 'exponential' or 'full jitter', not {value!r}"
    assert expected == str(info.value)


@pytest.mark.parametrize("seed", ["x", 1.5, True, b"x", [1]])
def test_a_seed_is_a_number(seed: Any) -> None:
    """A seed is a whole number of any size, or none."""
    assert [None, 0, -1, 2**70] == [Backoff(seed=good).seed for good in (None, 0, -1, 2**70)]
    with pytest.raises(InvalidOption) as info:
        Backoff(seed=seed)
    assert f"seed must be a whole number or None, not {seed!r}" == str(info.value)


def test_a_backoff_is_a_value() -> None:
    """Two of the same options are equal, and neither can be changed."""
    assert Backoff(multiplier=2) == Backoff(multiplier=2)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Backoff().multiplier = 2  # type: ignore[misc]  # wrong on purpose


# States


def test_it_begins_without_backoff() -> None:
    """A new state lets through whatever comes."""
    state = state_of()
    assert (0, Window.OPEN) == (state.level, state.window)


@pytest.mark.parametrize(("window", "level", "signal"), TABLE)
def test_each_signal_in_each_state(window: str, level: int, signal: str) -> None:
    """What follows on a signal is what NSQ's table says."""
    state = state_of(max_duration=9)
    state.window, state.level = Window(window), level
    wait = state.signal(Signal(signal))
    assert TABLE[window, level, signal] == (state.window, state.level, wait)


def test_the_table_is_complete() -> None:
    """Every state that can be has a line for every signal."""
    states = [("open", 0)] + [
        (window, level) for window in ("shut", "probe") for level in (1, 2, 3)
    ]
    assert {(*state, signal) for state in states for signal in Signal} == set(TABLE)
    assert {window for window, _level in states} == set(Window)


def test_a_probe_ends_the_wait() -> None:
    """After the wait one message is let through, at the same level."""
    state = state_of()
    state.signal(Signal.BACK_OFF)
    state.probe()
    assert (1, Window.PROBE) == (state.level, state.window)


@pytest.mark.parametrize("strategy", ["exponential", "full jitter"])
def test_without_a_longest_wait_there_is_no_backoff(strategy: Any) -> None:
    """With a longest wait of 0 nothing backs off, though a part of nothing were 0."""
    state = state_of(multiplier=0, max_duration=0, strategy=strategy)
    assert [None] * 3 == [state.signal(signal) for signal in Signal]
    assert (0, Window.OPEN) == (state.level, state.window)


def test_a_first_wait_that_is_too_long_is_none() -> None:
    """Where the first wait is longer than the longest there is no backoff."""
    state = state_of(multiplier=3, max_duration=5)
    assert (None, 0) == (state.signal(Signal.BACK_OFF), state.level)


def test_a_multiplier_of_nothing_waits_no_time() -> None:
    """With a multiplier of 0 the worker is in backoff, and each wait is over at once."""
    state = state_of(multiplier=0)
    assert (0.0, 1, Window.SHUT) == (state.signal(Signal.BACK_OFF), state.level, state.window)


def test_the_waits_grow_up_to_the_longest() -> None:
    """Ten failures with the defaults wait twice as long each time, then as long as the longest."""
    state = state_of()
    waits = []
    for _ in range(10):
        waits.append(state.signal(Signal.BACK_OFF))
        state.probe()
    assert [2, 4, 8, 16, 32, 64, 64, 64, 64, 64] == waits


def test_a_level_beyond_all_reason_has_a_duration() -> None:
    """The duration of a level stops growing before a float ends."""
    state = state_of()
    assert 2.0**64 == state.duration(64) == state.duration(5000)


@given(
    signals=st.lists(st.sampled_from([*Signal, None]), max_size=60),
    multiplier=st.sampled_from([0.0, 0.01, 0.5, 1.0, 7.0]),
    longest=st.sampled_from([0.0, 0.02, 1.0, 30.0, 120.0]),
)
def test_it_does_what_the_model_does(
    signals: list[Signal | None], multiplier: float, longest: float
) -> None:
    """After any signals and waits it is where a slow model of NSQ's words is."""
    state = state_of(multiplier=multiplier, max_duration=longest)
    oracle = Oracle(multiplier, longest)
    rdy = {Window.OPEN: "all", Window.SHUT: "none", Window.PROBE: "one"}
    for signal in signals:
        if signal is not None:
            assert oracle.result(signal) == state.signal(signal)
        elif oracle.running:
            oracle.timeout_ends()
            state.probe()
        assert (oracle.counter, oracle.rdy) == (state.level, rdy[state.window])


# Jitter


def jittered(seed: int | None, **options: Any) -> list[float | None]:
    state = state_of(strategy="full jitter", seed=seed, **options)
    waits = []
    for _ in range(40):
        waits.append(state.signal(Signal.BACK_OFF))
        state.probe()
    return waits


def test_full_jitter_is_a_part_of_the_exponential() -> None:
    """With full jitter a wait is a random part of what it were without."""
    state = state_of(strategy="full jitter", seed=1)
    for level in range(8):
        durations = [state.duration(level) for _ in range(200)]
        assert 0 <= min(durations) < 0.1 * 2**level
        assert 0.9 * 2**level < max(durations) < 2**level


@given(st.integers(), st.sampled_from([0.0, 0.5, 1.0, 5.0]), st.sampled_from([0.1, 4.0, 120.0]))
def test_full_jitter_never_waits_longer_than_the_longest(
    seed: int, multiplier: float, longest: float
) -> None:
    """With full jitter every wait is 0 to the longest."""
    waits = jittered(seed, multiplier=multiplier, max_duration=longest)
    assert [] == [wait for wait in waits if wait is not None and not 0 <= wait <= longest]


def test_a_long_draw_is_cut_off() -> None:
    """A level that was reached by a short draw waits the longest when the next draw is longer."""
    waits = jittered(3, multiplier=1, max_duration=3)
    assert 3.0 in waits


def test_the_same_seed_gives_the_same_waits() -> None:
    """Jitter can be repeated with its seed, and differs with another or with none."""
    assert jittered(7) == jittered(7)
    assert jittered(7) != jittered(8)
    assert jittered(None) != jittered(None)
