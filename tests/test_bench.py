"""The benchmark runs; how fast anything is, it does not judge.

Next: bench/__main__.py
"""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"

CORE = {
    "put": 14,
    "batch": 1,
    "fanout": 2,
    "threads": 3,
    "await": 6,
    "worker": 4,
    "delay": 5,
    "due": 2,
    "empty": 2,
    "memory": 2,
    "topic": 6,
    "import": 1,
}
"""Each group of the core's rows, and how many lines it prints."""

OTHER = {"other": 5}
STORES = {
    "store": 1,
    "durable": 1,
    "waiting": 2,
    "storemany": 1,
    "interval": 1,
    "commits": 3,
    "shared": 1,
    "opening": 3,
    "later": 2,
    "stall": 6,
}
BUILD = {"build": 4}

SERVER = {"server": 25}

NAMES = ", ".join([*CORE, *BUILD, *OTHER, "stores", *STORES, "huge", "wheel", "server"])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-W", "error", str(BENCH), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def counted(output: str) -> dict[str, int]:
    """Count the lines of each group."""
    lines = [line for line in output.splitlines() if line.endswith(("ok", "MISS", "note"))]
    groups = [line.split()[0].partition("/")[0] for line in lines]
    return {group: groups.count(group) for group in groups}


def test_quick_run_prints_every_row_of_the_core() -> None:
    """A quick run measures every row, warns of nothing and ends with status 0."""
    done = run("--quick")
    assert done.stderr == ""
    assert done.returncode == 0
    assert counted(done.stdout) == {**CORE, **BUILD}


def test_rows_that_are_no_part_of_the_core_are_measured_if_named() -> None:
    """Names choose what is measured: single rows, groups, all of the stores, and the wheel."""
    done = run("--quick", "other", "stores", "wheel", "memory/ready")
    assert done.stderr == ""
    assert done.returncode == 0
    assert counted(done.stdout) == {**OTHER, "memory": 1, **STORES}
    last = [line.split()[0] for line in done.stdout.splitlines()[-3:]]
    assert last == ["wheel"] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="what a process needs is read from /proc")
def test_the_server_is_measured_if_named() -> None:
    """Its rows are measured beside the yardsticks; without Go's nsqd nothing is said of that."""
    done = run("--quick", "server")
    assert done.stderr == ""
    assert done.returncode == 0
    assert counted(done.stdout) == SERVER
    assert "Go" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["put", "speed"], f"there is no row 'speed'; the rows are {NAMES}"),
        (
            ["memory/all"],
            "there is no row 'memory/all'; the rows are memory/ready, memory/in-flight",
        ),
        (["--nsqd=/no/nsqd", "server"], "'/no/nsqd' is no program"),
        (["--fast"], "unrecognized arguments: --fast"),
        ([""], f"there is no row ''; the rows are {NAMES}"),
    ],
)
def test_bad_arguments_get_one_line(arguments: list[str], problem: str) -> None:
    """A bad name or option gives one line of error, status 2 and no measurement."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tests/bench: {problem}\n"


def test_nothing_is_lost_by_a_kill() -> None:
    """The comparison of what survives a kill tells of every job, with huey or without."""
    done = subprocess.run(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-W", "error", str(BENCH / "survivors.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert (0, "") == (done.returncode, done.stderr)
    ours, theirs = done.stdout.splitlines()
    assert ours == "nsqlite  finished 8 of 8, lost none"
    assert theirs.startswith("huey     ")
