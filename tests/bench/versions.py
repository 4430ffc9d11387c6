"""The core beside that of another checkout: whether a change has made it slower.

How to run it, with the Python that nsqlite is installed in:

    python tests/bench/versions.py DIRECTORY                      some rows that tell most
    python tests/bench/versions.py DIRECTORY put/one put/raise    others, by their whole names

The rule: both run the same loops, those of this checkout, in turns, A B A B, each in a process of
its own that finds its `nsqlite` by `PYTHONPATH`; and as a process is fast or slow by chance, there
are several of each, one pair after the other.

A line gives, for each row: the median of our times and of theirs, the median of the ratios of all
pairs of runs, and the least and the greatest of the medians of the pairs of processes.

Next: survivors.py
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Final

from timing import FULL

HERE: Final = Path(__file__).resolve()
MUST: Final = 1.03
PROCESSES: Final = 7
PAIRS: Final = 9
NAMES: Final = ("put/one", "batch/1000", "fanout/4", "await/one", "other/ready", "other/in-flight")


def serve(name: str) -> None:
    """Measure a run whenever a line is read, and print how long it took."""
    import rows  # noqa: PLC0415 - it finds the nsqlite that is to be measured

    import nsqlite  # noqa: PLC0415 - the same

    run = rows.ROWS[name].ours(FULL)
    run()
    print(Path(nsqlite.__file__).parent.parent, flush=True)
    for _ in sys.stdin:
        print(run(), flush=True)


class Served:
    """A process that measures one row with one checkout."""

    def __init__(self, checkout: Path, name: str) -> None:
        """Start it; it is ready when it says which checkout it has found."""
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, str(HERE), "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )
        found = self._line()
        assert found == str(checkout), f"{found} was found, not {checkout}"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self) -> float:
        """Return the seconds of one run."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def end(self) -> None:
        """End it."""
        self._process.communicate()


def pairs(ours: Path, theirs: Path, name: str) -> list[tuple[float, float]]:
    """Measure a row in turns, in a process each."""
    mine, other = Served(ours, name), Served(theirs, name)
    try:
        return [(mine.run(), other.run()) for _ in range(PAIRS)]
    finally:
        mine.end()
        other.end()


def main(arguments: list[str]) -> None:
    """Compare this checkout with another one."""
    if arguments[:1] == ["--serve"]:
        serve(arguments[1])
        return
    if not arguments or not Path(arguments[0], "nsqlite").is_dir():
        sys.exit(f"usage: versions.py CHECKOUT [ROW...], as {' '.join(NAMES)}")
    theirs = Path(arguments[0]).resolve()
    ours = HERE.parents[2]
    print(f"{'row':<18} {'ours':>9} {'theirs':>9} {'median':>7} {'least':>7} {'most':>7}  mark")
    for name in arguments[1:] or NAMES:
        times = [pairs(ours, theirs, name) for _ in range(PROCESSES)]
        medians = [median(mine / other for mine, other in some) for some in times]
        ratio = median(mine / other for some in times for mine, other in some)
        mine = median(mine for some in times for mine, _ in some)
        other = median(other for some in times for _, other in some)
        print(
            f"{name:<18} {mine * 1e6:>6.2f} us {other * 1e6:>6.2f} us {ratio:>7.3f}"
            f" {min(medians):>7.3f} {max(medians):>7.3f}  {'ok' if ratio <= MUST else 'MISS'}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
