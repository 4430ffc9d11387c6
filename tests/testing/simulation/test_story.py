"""What a simulation tells."""

import pickle

import pytest

from nsqlite.errors import NSQLiteError
from nsqlite.testing import Schedule, SimulationFailed
from nsqlite.testing.simulation.story import (
    FAULT_KINDS,
    Deadlock,
    NeverIdle,
    NotRepeatable,
    StaleReplay,
    Step,
    short,
)


def test_a_step_is_a_line() -> None:
    """A fault is marked."""
    assert "   61.000 s   a:b-1: gets 1" == str(Step(61, "a:b-1", "gets 1", False))
    assert ("    0.500 s ! schedule: b goes on first") == str(
        Step(0.5, "schedule", "b goes on first", True)
    )


def test_a_failure_is_a_story_and_a_line() -> None:
    """The steps have numbers."""
    steps = (Step(0, "main", "puts 1 to a", False), Step(0, "a:b-1", "gets 1, attempt 1", False))
    failed = SimulationFailed("it fails", Schedule("1:1"), steps, "simulate(it)")
    assert (
        "it fails\n"
        "\n"
        "   1.     0.000 s   main: puts 1 to a\n"
        "   2.     0.000 s   a:b-1: gets 1, attempt 1\n"
        "\n"
        "To play it again:\n"
        "    simulate(it)"
    ) == str(failed)


def steps(count: int, what: str = "works") -> tuple[Step, ...]:
    return tuple(Step(number, "main", what, False) for number in range(count))


def test_the_middle_of_a_long_story_is_left_out() -> None:
    """The steps themselves are all there."""
    failed = SimulationFailed("it fails", Schedule(), steps(10_000), "simulate(it)")
    lines = str(failed).splitlines()
    assert [
        "  40.    39.000 s   main: works",
        "      … 9,920 more steps, see .steps …",
        "9961.  9960.000 s   main: works",
    ] == lines[41:44]
    assert (86, 10_000) == (len(lines), len(failed.steps))


@pytest.mark.parametrize(("count", "lines"), [(80, 80), (81, 81), (82, 81)])
def test_a_line_that_tells_of_one_step_is_that_step(count: int, lines: int) -> None:
    """To leave out less than two would save nothing."""
    failed = SimulationFailed("it fails", Schedule(), steps(count), "simulate(it)")
    assert lines + 5 == len(str(failed).splitlines())


def test_a_line_has_a_hundred_columns() -> None:
    """A body has forty."""
    failed = SimulationFailed("it fails", Schedule(), steps(1, "x" * 200), "simulate(it)")
    line = str(failed).splitlines()[2]
    assert (100, "…") == (len(line), line[-1])
    assert ("'" + 38 * "y" + "…", "'z'") == (short("y" * 200), short("z"))


def test_a_failure_comes_from_another_process_whole() -> None:
    """As from that of pytest-xdist."""
    failed = SimulationFailed("it fails", Schedule("1:1"), (), "simulate(it)")
    assert str(pickle.loads(pickle.dumps(failed))) == str(failed)  # noqa: S301 - its own


def test_why_a_run_fails_is_told_in_a_line() -> None:
    """Each is an error of nsqlite's."""
    errors: list[NSQLiteError] = [
        Deadlock(["a waits", "b waits"]),
        NeverIdle(5, ["a has 1 ready"]),
        NeverIdle(5, []),
        StaleReplay("choice 5 was never reached"),
    ]
    assert [
        "nobody can go on: a waits; b waits",
        "not idle after 5 steps: a has 1 ready",
        "not idle after 5 steps: it still runs",
        "choice 5 was never reached: the scenario has changed, or the line is of another one",
    ] == [str(error) for error in errors]
    assert str(NotRepeatable("a", "b")).endswith("; before: a; now: b")


def test_there_are_seven_faults() -> None:
    """With the words of their story."""
    assert [
        "deliver twice",
        "drop",
        "fill disk",
        "jump",
        "reorder",
        "slow",
        "time out",
    ] == sorted(FAULT_KINDS)
