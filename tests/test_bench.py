"""The benchmark runs; how fast anything is, it does not judge.

Next: bench/__main__.py
"""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"

ROWS = {
    "floor": 2,
    "one": 2,
    "batch": 1,
    "ready": 1,
    "flight": 2,
    "fanout": 1,
    "threads": 2,
    "await": 1,
    "subscribers": 1,
    "bridge": 1,
    "worker": 1,
    "crowd": 1,
    "deferred": 4,
    "memory": 1,
    "copies": 1,
    "import": 2,
    "store": 1,
    "durable": 1,
    "waiting": 2,
    "storemany": 1,
    "interval": 1,
    "commits": 3,
    "shared": 1,
    "opening": 3,
    "stall": 6,
    "wheel": 3,
}
"""Each row's name, and how many lines it prints."""

NAMES = ", ".join([*(name for name in ROWS if name != "wheel"), "huge", "wheel"])
"""All names; the row `huge` is measured only if it is named, and not here."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-W", "error", str(BENCH), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def counted(output: str) -> dict[str, int]:
    """Count the lines that begin with a row's name."""
    first = [line.split()[0] for line in output.splitlines() if line]
    return {name: first.count(name) for name in ROWS if name in first}


def test_quick_run_prints_every_row() -> None:
    """A quick run measures every row, warns of nothing and ends with status 0."""
    done = run("--quick")
    assert done.stderr == ""
    assert done.returncode == 0
    assert counted(done.stdout) == ROWS


def test_chosen_rows_are_all_that_is_printed() -> None:
    """Names choose the rows that are measured."""
    done = run("--quick", "memory", "floor")
    assert done.returncode == 0
    assert counted(done.stdout) == {"floor": 2, "memory": 1}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["floor", "speed"], f"there is no row 'speed'; the rows are {NAMES}"),
        (["--fast"], "unrecognized arguments: --fast"),
        ([""], f"there is no row ''; the rows are {NAMES}"),
    ],
)
def test_bad_arguments_get_one_line(arguments: list[str], problem: str) -> None:
    """A bad name or option gives one line of error, status 2 and no measurement."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tests/bench: {problem}\n"
